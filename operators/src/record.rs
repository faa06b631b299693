//! `record`: writes facts to the ledger and lets their records through once they are durable.
//!
//! Whatever follows in the graph may rely on the fact. Promise: if the ledger fails, the record's capability is kept for
//! ever (nothing downstream is told a lie) and the process is asked to stop.

use std::sync::Arc;

use faceflow_core::Flow;
use faceflow_core::bridge::{Bridge, Cross, Limits, caught};
use faceflow_core::ledger::{AsFact, Ledger};
use faceflow_core::record::Image;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;

/// Facts awaiting their commit on one worker; a commit takes the whole group.
const WRITES_MAX: usize = 4_096;

/// Writes facts.
pub trait Recorded<'s, R> {
    /// Appends each record's fact to `ledger`. The first flow has the records, the second the images that their facts
    /// opened: another address of a picture whose expected one failed.
    fn record(self, ledger: Arc<dyn Ledger>, bridge: &Bridge) -> (Flow<'s, R>, Flow<'s, Image>);
}

impl<'s, R: AsFact + Clone + Send + 'static> Recorded<'s, R> for Flow<'s, R> {
    fn record(self, ledger: Arc<dyn Ledger>, bridge: &Bridge) -> (Flow<'s, R>, Flow<'s, Image>) {
        let pulse = bridge.pulse.clone();
        let job = move |record: R| {
            let (written, pulse) = (ledger.append(record.fact()), pulse.clone());
            async move {
                match caught(async { Ok(written.await) }).await {
                    Ok(Ok(opened)) => return Ok((record, opened)),
                    Ok(Err(error)) => pulse.fail(error.to_string()),
                    Err(panic) => pulse.fail(format!("writing to the ledger: {panic}")),
                }
                std::future::pending().await
            }
        };
        let limits = Limits::finishing(WRITES_MAX);
        let crossed = self.cross(Pipeline, "record", bridge, (limits, |_| 0, job));
        // A job either succeeds or never ends.
        let written = crossed.flat_map(Result::ok);
        written
            .flat_map(|(record, opened)| std::iter::once(Ok(record)).chain(opened.into_iter().map(Err)))
            .ok_err(|r| r)
    }
}
