//! `append_facts`: appends the fact of each record to the ledger and passes the record on once the fact is durable.
//!
//! What follows in the graph may rely on the fact. Promise: if the ledger fails, the record's capability is never dropped, so
//! no operator downstream takes the record for settled, and the process stops. A fact that is refused alone stops nobody: its
//! record goes another way, since nothing may rely on it, and its work ends here; the ledger has it in quarantine.

use std::sync::Arc;

use faceflow_core::Flow;
use faceflow_core::blocking::caught;
use faceflow_core::executor::Executor;
use faceflow_core::fact::ToFact;
use faceflow_core::fair_queue::Limits;
use faceflow_core::ledger::{Ledger, LedgerError};
use faceflow_core::map_async::MapAsync;
use faceflow_core::record::{JobId, QueueId};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;

use crate::dispatch::LedgerUpdate;

/// Facts awaiting their commit on one worker; a commit takes the whole group.
const WRITES_MAX: usize = 4_096;

/// Appends facts to the ledger.
pub trait AppendFacts<'s, R> {
    /// Appends each record's fact to `ledger`.
    fn append_facts(self, ledger: Arc<dyn Ledger>, executor: &Executor) -> Appended<'s, R>;
}

/// What came of facts.
pub struct Appended<'s, R> {
    /// Records whose facts are durable.
    pub written: Flow<'s, R>,
    /// Records whose facts were refused.
    pub refused: Flow<'s, R>,
    /// What the dispatcher has to know.
    pub updates: Flow<'s, LedgerUpdate>,
}

impl<'s, R: ToFact + Clone + Send + 'static> AppendFacts<'s, R> for Flow<'s, R> {
    fn append_facts(self, ledger: Arc<dyn Ledger>, executor: &Executor) -> Appended<'s, R> {
        let driver = executor.clone();
        let job = move |record: R| {
            let (written, driver) = (ledger.append(record.to_fact()), driver.clone());
            async move {
                match caught(async { Ok(written.await) }).await {
                    Ok(Ok(opened)) => {
                        let updates =
                            LedgerUpdate { ended: record.completes().map(|key| (record.tenant(), key)), opened };
                        return Ok((Ok(record), updates));
                    }
                    Ok(Err(error)) if error.is_of_one_fact() => {
                        let ended = record.subject().map(|key| (record.tenant(), key));
                        tracing::error!("a fact was refused, and the run goes on without it: {error}");
                        let opened = match error {
                            LedgerError::Quarantined { opened, .. } => opened,
                            _ => vec![],
                        };
                        return Ok((Err(record), LedgerUpdate { ended, opened }));
                    }
                    Ok(Err(error)) => driver.shutdown.fail(error.to_string()),
                    Err(panic) => driver.shutdown.fail(format!("writing to the ledger: {panic}")),
                }
                driver.wake_driver();
                std::future::pending().await
            }
        };
        let limits = Limits::finishing(WRITES_MAX);
        let mapped = self.map_async(
            Pipeline,
            "append_facts",
            executor,
            (limits, |record| QueueId::local(JobId::default_of(record.tenant())), job),
        );
        // A job either succeeds or never ends.
        let written = mapped.flat_map(Result::ok);
        let is_news = |updates: &LedgerUpdate| updates.ended.is_some() || !updates.opened.is_empty();
        let both = move |(record, updates)| [Some(Ok(record)), Some(updates).filter(is_news).map(Err)];
        let (records, updates): (Flow<'s, Result<R, R>>, Flow<'s, LedgerUpdate>) =
            written.flat_map(move |written| both(written).into_iter().flatten()).ok_err(|written| written);
        let (written, refused): (Flow<'s, R>, Flow<'s, R>) = records.ok_err(|record: Result<R, R>| record);
        Appended { written, refused, updates }
    }
}
