//! `dispatch`: reads open work from the ledger when it is due, and sends it into the graph.
//!
//! Everything discovered, and every retry, waits in the ledger, in one queue for each host of each job. A bounded window of it is in
//! flight; tenants, their jobs and the queues of those take turns (`queue_scheduler.rs`), and each may use a share of the free room
//! (`tenant_shares.rs`), so a tenant with a million hosts, a host with a million images, or one that never answers, delays no other. The
//! operator learns two things from the ledger's facts: what came to an end, and which queues have work. Jobs come and go meanwhile.
//!
//! Of a host that fails the ledger gives nothing before its time, and then one work that finds out how it is
//! (`sinks/ledger/src/hosts.rs`); its queue waits like one whose work is due later.
//!
//! Promises: open work is dispatched once until it comes to an end, and never before it is due, and of a job that was removed none
//! is. Timely's frontier follows the clock while something is due, and otherwise stands at the due time of the next retry.

mod queue_scheduler;
mod queues;
mod tenant_shares;

use std::sync::Arc;

use faceflow_core::blocking::blocking;
use faceflow_core::executor::Executor;
use faceflow_core::in_flight::InFlight;
use faceflow_core::ledger::{DispatchReply, Ledger, LedgerError, QueueUpdate};
use faceflow_core::metrics::{Metrics, StageMetrics};
use faceflow_core::planted_bugs::{AGAIN_LOST, planted};
use faceflow_core::record::{JobId, Key, TenantNumber, Work};
use faceflow_core::shutdown::Mode;
use faceflow_core::timer::Timer;
use faceflow_core::{Class, Fault, Flow, Reloadable, Time};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use self::queues::CrawlQueues;
use crate::jobs::{JobEvent, Jobs};
use crate::select_links::CrawlSettings;
use crate::source_set::SourceSet;

/// What a fact changes for the dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerUpdate {
    /// The work that came to an end, for now or for good.
    pub ended: Option<(TenantNumber, Key)>,
    /// Queues that have open work now.
    pub opened: Vec<QueueUpdate>,
}

/// What the dispatcher learns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DispatchEvent {
    /// A fact was written.
    Ledger(LedgerUpdate),
    /// A job comes or goes.
    Job(JobEvent),
}

/// The dispatcher's counters: `dispatched` is what is in flight, `waiting` the queues that have more work that is due.
pub fn stage(metrics: &Metrics) -> Arc<StageMetrics> {
    metrics.stage("dispatch")
}

/// The ledger, and how much of its open work is dispatched at once.
pub struct Dispatcher {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// How much is in flight at once (`in_flight_max`), and of one queue (`in_flight_per_host`).
    pub crawl: Reloadable<CrawlSettings>,
    /// Whether settled pages are visited again, and rejected and dead work is tried again, of jobs that want it.
    pub again: bool,
    /// The jobs.
    pub jobs: Jobs,
    /// Where jobs go from, also once the input has ended and `read_sources` tells of them no more.
    pub sources: SourceSet,
}

/// Dispatches work.
pub trait Dispatch<'s> {
    /// Dispatches what the ledger of `dispatcher` holds open. `dispatcher` is `None` on all workers but the first.
    fn dispatch(self, dispatcher: Option<Dispatcher>, executor: &Executor) -> Flow<'s, Work>;
}

/// What the ledger was asked, and what it said.
enum Answer {
    Queues(Vec<QueueUpdate>),
    Work(Vec<DispatchReply>),
}

impl<'s> Dispatch<'s> for Flow<'s, DispatchEvent> {
    fn dispatch(self, dispatcher: Option<Dispatcher>, executor: &Executor) -> Flow<'s, Work> {
        let (scope, executor) = (self.scope(), executor.clone());
        self.unary(Exchange::new(|_: &DispatchEvent| 0), "dispatch", move |_, info| {
            let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let mut timer = Timer::new(&executor, Arc::clone(&operator));
            if let Some(dispatcher) = &dispatcher {
                dispatcher.sources.attach_dispatcher(Arc::clone(&operator), executor.clone());
            }
            let mut in_flight = InFlight::new(&executor, "dispatch", operator);
            // Jobs that went before it was heard here that they came.
            let mut gone = Vec::new();
            let mut held = None::<Capability<Time>>;
            let mut dispatched = dispatcher.map(|dispatcher| {
                let queues = CrawlQueues::new(&dispatcher, stage(&executor.metrics));
                (dispatcher, queues)
            });
            move |input, output| {
                let now = executor.clock.now();
                input.for_each_time(|time, data| {
                    let Some((dispatcher, queues)) = dispatched.as_mut() else { return };
                    for event in data.flat_map(|batch| batch.drain(..)) {
                        match event {
                            DispatchEvent::Ledger(updates) => queues.hear(updates, now),
                            DispatchEvent::Job(event) => {
                                let added = queues.change_jobs(event, now);
                                added.into_iter().for_each(|job| ask_for_queues(&mut in_flight, dispatcher, job));
                            }
                        }
                    }
                    // What this opened is due from here on, wherever the next retry is.
                    let is_earlier = held.as_ref().is_none_or(|held| held.time() > time.time());
                    if is_earlier && executor.shutdown.mode() == Mode::Running {
                        held = Some(time.retain(output.output_index()));
                    }
                });
                let Some((dispatcher, queues)) = dispatched.as_mut() else { return };
                gone.extend(dispatcher.sources.removed_at_end());
                gone.retain(|job| !queues.remove(*job, now));
                queues.limit(&dispatcher.crawl.get());
                while let Some(((), answer)) = in_flight.next_done() {
                    match (answer, &held) {
                        (Ok(Answer::Queues(opened)), _) => {
                            opened.into_iter().for_each(|queue| queues.open(queue, now));
                        }
                        (Ok(Answer::Work(claimed)), Some(capability)) => {
                            let work = claimed.into_iter().flat_map(|claimed| queues.dispatch(claimed, now));
                            output.session(capability).give_iterator(work.collect::<Vec<_>>().into_iter());
                        }
                        // The process drains.
                        (Ok(Answer::Work(_)), None) => {}
                        (Err(fault), _) => executor.shutdown.fail(fault.detail),
                    }
                }
                if executor.shutdown.mode() != Mode::Running {
                    held = None;
                }
                let Some(capability) = held.as_mut() else { return };
                queues.wake(now);
                let asks = if in_flight.count() == 0 { queues.asks() } else { vec![] };
                if !asks.is_empty() {
                    ask(&mut in_flight, &dispatcher.ledger, move |ledger| {
                        Ok(Answer::Work(ledger.due_work(now, &asks)?))
                    });
                }
                let next = queues.next_due();
                if in_flight.count() > 0 || queues.is_behind() {
                    capability.downgrade(&now.max(*capability.time()));
                } else if let Some(due) = next {
                    capability.downgrade(&due.max(*capability.time()));
                } else {
                    held = None;
                }
                if let Some(due) = next {
                    timer.wake_at(due);
                }
            }
        })
    }
}

/// Asks which queues of a job have work.
fn ask_for_queues(in_flight: &mut InFlight<(), Answer>, dispatcher: &Dispatcher, job: JobId) {
    let again = dispatcher.again && dispatcher.jobs.settings(job).recrawl.get().enabled && !planted(AGAIN_LOST);
    ask(in_flight, &dispatcher.ledger, move |ledger| {
        let mut queues = Vec::new();
        ledger.queues(job, again, &mut |queue| queues.push(queue))?;
        Ok(Answer::Queues(queues))
    });
}

/// Asks the ledger on a blocking thread.
fn ask<Q>(in_flight: &mut InFlight<(), Answer>, ledger: &Arc<dyn Ledger>, question: Q)
where
    Q: FnOnce(&dyn Ledger) -> Result<Answer, LedgerError> + Send + 'static,
{
    let ledger = Arc::clone(ledger);
    let failed = |error: LedgerError| Fault::transient(Class::Store, "ledger", error.to_string());
    in_flight.start((), 1, blocking(move || question(ledger.as_ref()).map_err(failed)));
}
