//! `map_async`: sends the records of a flow through asynchronous jobs.
//!
//! One capability is kept for each record under way, and the answer leaves at its record's time, so the frontier knows that
//! the record is still owed. A job that fails or panics gives its record back as [`FailedRecord`]. Promise: every record comes out.
//!
//! Records wait in queues (one for each host of a job, say). A queue has a limit and so has the operator, and tenants and their
//! queues take turns; the operator's limit has to leave room for queues that wait on purpose.

use std::future::Future;
use std::sync::Arc;

use timely::dataflow::channels::pact::ParallelizationContract;
use timely::dataflow::operators::generic::operator::Operator;

use crate::Flow;
use crate::clock::Time;
use crate::executor::Executor;
use crate::fair_queue::{FairQueues, Limits};
use crate::fault::{FailedRecord, Fault};
use crate::in_flight::InFlight;
use crate::record::QueueId;
use crate::shutdown::Mode;

/// Sends the records of a flow through asynchronous jobs.
pub trait MapAsync<'s, R> {
    /// Runs `job` for each record, `queue_of` saying which queue the record waits in, and gives each answer at its record's
    /// time. A job's error or panic gives the record back with the fault.
    fn map_async<P, O, J, F>(
        self,
        pact: P,
        name: &'static str,
        executor: &Executor,
        how: (Limits, fn(&R) -> QueueId, J),
    ) -> Flow<'s, Result<O, FailedRecord<R>>>
    where
        P: ParallelizationContract<Time, Vec<R>>,
        O: Clone + Send + 'static,
        J: Fn(R) -> F + 'static,
        F: Future<Output = Result<O, Fault>> + Send + 'static;
}

impl<'s, R: Clone + 'static> MapAsync<'s, R> for Flow<'s, R> {
    fn map_async<P, O, J, F>(
        self,
        pact: P,
        name: &'static str,
        executor: &Executor,
        (limits, queue_of, job): (Limits, fn(&R) -> QueueId, J),
    ) -> Flow<'s, Result<O, FailedRecord<R>>>
    where
        P: ParallelizationContract<Time, Vec<R>>,
        O: Clone + Send + 'static,
        J: Fn(R) -> F + 'static,
        F: Future<Output = Result<O, Fault>> + Send + 'static,
    {
        let scope = self.scope();
        let executor = executor.clone();
        self.unary(pact, name, move |_, info| {
            let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let mut queues = FairQueues::new(limits, executor.metrics.stage(name));
            let mut in_flight = InFlight::new(&executor, name, operator);
            move |input, output| {
                input.for_each_time(|time, data| {
                    for record in data.flat_map(|batch| batch.drain(..)) {
                        queues.push(queue_of(&record), (time.retain(output.output_index()), record));
                    }
                });
                while let Some(((capability, (queue, record)), answer)) = in_flight.next_done() {
                    queues.finish(queue);
                    let answer = answer.map_err(|fault| FailedRecord { record, fault });
                    output.session(&capability).give(answer);
                }
                let may_start = limits.while_draining || executor.shutdown.mode() == Mode::Running;
                while let Some((queue, (capability, record))) = may_start.then(|| queues.start_next()).flatten() {
                    let job = job(record.clone());
                    in_flight.start((capability, (queue, record)), 1, job);
                }
            }
        })
    }
}
