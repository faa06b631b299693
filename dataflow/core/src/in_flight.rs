//! The asynchronous work that one operator has under way, each piece with what must not be lost: its capability and record.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;

use timely::scheduling::activate::SyncActivator;

use crate::blocking::caught;
use crate::executor::Executor;
use crate::fault::Fault;
use crate::metrics::StageMetrics;

/// The answer of the job with this number.
type Answer<O> = (u64, Result<O, Fault>);

/// Jobs under way for one operator. What is kept for a job comes back with its answer.
pub struct InFlight<R, O> {
    executor: Executor,
    stage: Arc<StageMetrics>,
    operator: Arc<SyncActivator>,
    answers: (mpsc::Sender<Answer<O>>, mpsc::Receiver<Answer<O>>),
    jobs: HashMap<u64, (R, usize)>,
    next: u64,
}

impl<R, O: Send + 'static> InFlight<R, O> {
    /// No jobs yet. `operator` is woken when a job is done and has to call [`InFlight::next_done`].
    pub fn new(executor: &Executor, stage: &'static str, operator: Arc<SyncActivator>) -> Self {
        let (executor, stage) = (executor.clone(), executor.metrics.stage(stage));
        Self { executor, stage, operator, answers: mpsc::channel(), jobs: HashMap::new(), next: 0 }
    }

    /// Jobs under way.
    pub fn count(&self) -> usize {
        self.jobs.len()
    }

    /// Starts a job that counts as `weight` records; `kept` comes back with its answer.
    pub fn start<F>(&mut self, kept: R, weight: usize, job: F)
    where
        F: Future<Output = Result<O, Fault>> + Send + 'static,
    {
        let (id, answers) = (self.next, self.answers.0.clone());
        let (executor, operator) = (self.executor.clone(), Arc::clone(&self.operator));
        self.next += 1;
        self.jobs.insert(id, (kept, weight));
        self.stage.in_flight.fetch_add(weight, Relaxed);
        self.executor.runtime.spawn(async move {
            let answer = caught(job).await;
            // The receiver is gone only when the worker has left; the record is still open in the ledger then.
            if answers.send((id, answer)).is_ok() {
                executor.wake(&operator);
            }
        });
    }

    /// The next answer that has arrived, with what was kept for it.
    pub fn next_done(&mut self) -> Option<(R, Result<O, Fault>)> {
        let (id, answer) = self.answers.1.try_recv().ok()?;
        let (kept, weight) = self.jobs.remove(&id).expect("every answer belongs to a job");
        self.stage.in_flight.fetch_sub(weight, Relaxed);
        self.stage.ended.fetch_add(weight, Relaxed);
        self.stage.failed.fetch_add(usize::from(answer.is_err()), Relaxed);
        Some((kept, answer))
    }
}

/// What is under way when its operator is dropped no longer counts.
impl<R, O> Drop for InFlight<R, O> {
    fn drop(&mut self) {
        let left = self.jobs.values().map(|(_, weight)| weight).sum();
        self.stage.in_flight.fetch_sub(left, Relaxed);
    }
}
