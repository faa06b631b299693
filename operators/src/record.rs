//! `record`: writes facts to the ledger and lets their records through once they are durable.
//!
//! Whatever follows in the graph may rely on the fact. Promise: if the ledger fails, the record's capability is kept for
//! ever (nothing downstream is told a lie) and the process is asked to stop.

use std::sync::Arc;

use faceflow_core::Flow;
use faceflow_core::bridge::{Bridge, Cross, Limits, caught};
use faceflow_core::ledger::{AsFact, Ledger};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;

use crate::frontier::News;

/// Facts awaiting their commit on one worker; a commit takes the whole group.
const WRITES_MAX: usize = 4_096;

/// Writes facts.
pub trait Recorded<'s, R> {
    /// Appends each record's fact to `ledger`. The first flow has the records, the second what the frontier has to know.
    fn record(self, ledger: Arc<dyn Ledger>, bridge: &Bridge) -> (Flow<'s, R>, Flow<'s, News>);
}

impl<'s, R: AsFact + Clone + Send + 'static> Recorded<'s, R> for Flow<'s, R> {
    fn record(self, ledger: Arc<dyn Ledger>, bridge: &Bridge) -> (Flow<'s, R>, Flow<'s, News>) {
        let driver = bridge.clone();
        let job = move |record: R| {
            let (written, driver) = (ledger.append(record.fact()), driver.clone());
            async move {
                match caught(async { Ok(written.await) }).await {
                    Ok(Ok(opened)) => {
                        let news = News { ended: record.ends(), opened };
                        return Ok((record, news));
                    }
                    Ok(Err(error)) => driver.pulse.fail(error.to_string()),
                    Err(panic) => driver.pulse.fail(format!("writing to the ledger: {panic}")),
                }
                driver.nudge();
                std::future::pending().await
            }
        };
        let limits = Limits::finishing(WRITES_MAX);
        let crossed = self.cross(Pipeline, "record", bridge, (limits, |_| 0, job));
        // A job either succeeds or never ends.
        let written = crossed.flat_map(Result::ok);
        let is_news = |news: &News| news.ended.is_some() || !news.opened.is_empty();
        let both = move |(record, news)| [Some(Ok(record)), Some(news).filter(is_news).map(Err)];
        written.flat_map(move |written| both(written).into_iter().flatten()).ok_err(|written| written)
    }
}
