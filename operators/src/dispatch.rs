//! `dispatch`: reads open work from the ledger when it is due, and sends it into the graph.
//!
//! Everything discovered, and every retry, waits in the ledger, in one queue for each host. A bounded window of it is in flight;
//! queues take turns, and each may use a share of the free room, so a host with a million images, or one that never answers,
//! delays no other. The operator learns two things from the ledger's facts: what came to an end, and which queues have work.
//!
//! Promises: open work is dispatched once until it comes to an end, and never before it is due. Timely's frontier follows
//! the clock while something is due, and otherwise stands at the due time of the next retry.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use faceflow_core::blocking::blocking;
use faceflow_core::executor::Executor;
use faceflow_core::in_flight::InFlight;
use faceflow_core::ledger::{DispatchReply, DispatchRequest, Ledger, LedgerError, QueueUpdate};
use faceflow_core::metrics::{Metrics, StageMetrics};
use faceflow_core::planted_bugs::{AGAIN_LOST, planted};
use faceflow_core::record::{DETECTION_QUEUE, Key, QueueId, Work};
use faceflow_core::shutdown::Mode;
use faceflow_core::timer::Timer;
use faceflow_core::{Class, Fault, Flow, Reloadable, Time};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use crate::select_links::CrawlSettings;

/// Queues asked for work at once.
const ASKED_MAX: usize = 64;
/// A queue may use this part of the free room: the dynamic threshold of shared-memory switches (Choudhury and Hahne,
/// 1998), which leaves room for the next queue.
const SHARE: usize = 16;

/// What a fact changes for the dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerUpdate {
    /// The work that came to an end, for now or for good.
    pub ended: Option<Key>,
    /// Queues that have open work now.
    pub opened: Vec<QueueUpdate>,
}

/// The dispatcher's counters: `dispatched` is what is in flight, `waiting` the queues that have more work that is due.
pub fn stage(metrics: &Metrics) -> Arc<StageMetrics> {
    metrics.stage("dispatch")
}

/// The ledger, and how much of its open work is dispatched at once.
pub struct Dispatcher {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// How much is in flight at once (`ahead_max`), and of one queue (`ahead_per_host`).
    pub crawl: Reloadable<CrawlSettings>,
    /// Whether settled pages are visited again, and rejected and dead work is tried again.
    pub again: bool,
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

impl<'s> Dispatch<'s> for Flow<'s, LedgerUpdate> {
    fn dispatch(self, dispatcher: Option<Dispatcher>, executor: &Executor) -> Flow<'s, Work> {
        let (scope, executor) = (self.scope(), executor.clone());
        self.unary(Exchange::new(|_: &LedgerUpdate| 0), "dispatch", move |capability, info| {
            let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let mut timer = Timer::new(&executor, Arc::clone(&operator));
            let mut in_flight = InFlight::new(&executor, "dispatch", operator);
            let mut held = dispatcher.is_some().then_some(capability);
            let mut dispatched = dispatcher.map(|dispatcher| {
                let frontier = CrawlQueues::new(&dispatcher, stage(&executor.metrics));
                let again = dispatcher.again;
                ask(&mut in_flight, &dispatcher.ledger, move |ledger| {
                    let mut queues = Vec::new();
                    ledger.queues(again && !planted(AGAIN_LOST), &mut |queue| queues.push(queue))?;
                    Ok(Answer::Queues(queues))
                });
                (dispatcher.ledger, dispatcher.crawl, frontier)
            });
            move |input, output| {
                let now = executor.clock.now();
                input.for_each_time(|time, data| {
                    let Some((.., frontier)) = dispatched.as_mut() else { return };
                    for updates in data.flat_map(|batch| batch.drain(..)) {
                        frontier.hear(updates, now);
                    }
                    // What this opened is due from here on, wherever the next retry is.
                    let is_earlier = held.as_ref().is_none_or(|held| held.time() > time.time());
                    if is_earlier && executor.shutdown.mode() == Mode::Running {
                        held = Some(time.retain(output.output_index()));
                    }
                });
                let Some((ledger, crawl, frontier)) = dispatched.as_mut() else { return };
                frontier.limit(&crawl.get());
                while let Some(((), answer)) = in_flight.next_done() {
                    match (answer, &held) {
                        (Ok(Answer::Queues(queues)), _) => {
                            queues.into_iter().for_each(|queue| frontier.open(queue, now));
                        }
                        (Ok(Answer::Work(claimed)), Some(capability)) => {
                            let work = claimed.into_iter().flat_map(|claimed| frontier.dispatch(claimed, now));
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
                frontier.wake(now);
                let asks = if in_flight.count() == 0 { frontier.asks() } else { vec![] };
                if !asks.is_empty() {
                    ask(&mut in_flight, ledger, move |ledger| Ok(Answer::Work(ledger.claim(now, &asks)?)));
                }
                let next = frontier.next_due();
                if in_flight.count() > 0 || frontier.is_behind() {
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

/// Asks the ledger on a blocking thread.
fn ask<Q>(in_flight: &mut InFlight<(), Answer>, ledger: &Arc<dyn Ledger>, question: Q)
where
    Q: FnOnce(&dyn Ledger) -> Result<Answer, LedgerError> + Send + 'static,
{
    let ledger = Arc::clone(ledger);
    let failed = |error: LedgerError| Fault::transient(Class::Store, "ledger", error.to_string());
    in_flight.start((), 1, blocking(move || question(ledger.as_ref()).map_err(failed)));
}

/// The queues that have work, and what of it is in flight.
struct CrawlQueues {
    max: usize,
    per_queue: usize,
    again: bool,
    queues: HashMap<QueueId, QueueState>,
    dispatched: HashMap<Key, QueueId>,
    /// Queues that wait to be asked.
    turns: VecDeque<QueueId>,
    /// Queues whose next work is not due yet.
    later: BTreeSet<(Time, QueueId)>,
    /// Queues that have something due and have used their share.
    full: usize,
    stage: Arc<StageMetrics>,
}

struct QueueState {
    held: Vec<Key>,
    /// When the first of what the ledger holds for it is due; `None` if there is nothing.
    next: Option<Time>,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has nothing to give.
    Idle,
    /// In `turns`.
    Turn,
    /// Being asked.
    Asked,
    /// In `later`.
    Later(Time),
    /// It has work, and no room.
    Full,
}

impl CrawlQueues {
    fn new(dispatcher: &Dispatcher, stage: Arc<StageMetrics>) -> Self {
        Self {
            max: 0,
            per_queue: 0,
            again: dispatcher.again,
            queues: HashMap::new(),
            dispatched: HashMap::new(),
            turns: VecDeque::new(),
            later: BTreeSet::new(),
            full: 0,
            stage,
        }
    }

    /// Sets how much may be in flight.
    fn limit(&mut self, crawl: &CrawlSettings) {
        (self.max, self.per_queue) = (crawl.ahead_max, crawl.ahead_per_host);
    }

    fn hear(&mut self, updates: LedgerUpdate, now: Time) {
        for opened in updates.opened {
            self.open(opened, now);
        }
        let Some(queue) = updates.ended.and_then(|key| self.dispatched.remove(&key)) else { return };
        self.count();
        if let Some(state) = self.queues.get_mut(&queue) {
            state.held.retain(|key| Some(*key) != updates.ended);
            self.put(queue, now);
        }
    }

    fn open(&mut self, QueueUpdate { queue, due, again }: QueueUpdate, now: Time) {
        if again && !self.again {
            return;
        }
        let state = self.queues.entry(queue).or_insert(QueueState { held: vec![], next: None, place: Place::Idle });
        state.next = Some(state.next.map_or(due, |next| next.min(due)));
        self.put(queue, now);
    }

    /// Notes the ledger's reply for a queue. Returns the work.
    fn dispatch(&mut self, claimed: DispatchReply, now: Time) -> Vec<Work> {
        let DispatchReply { queue, work, next } = claimed;
        if self.queues.get(&queue).is_none_or(|state| state.place != Place::Asked) {
            // It was not asked, and has something all the same.
            if let Some(due) = next {
                self.open(QueueUpdate { queue, due, again: self.again }, now);
            }
        } else if let Some(state) = self.queues.get_mut(&queue) {
            state.held.extend(work.iter().map(Work::key));
            self.dispatched.extend(work.iter().map(|work| (work.key(), queue)));
            // What was opened since it was asked may be more than what it says is left.
            state.next = [state.next, next].into_iter().flatten().min();
            state.place = Place::Idle;
            self.put(queue, now);
        }
        self.count();
        work
    }

    /// Moves a queue to the set that fits its state.
    fn put(&mut self, queue: QueueId, now: Time) {
        let queue_max = self.queue_max(queue);
        let Some(state) = self.queues.get_mut(&queue) else { return };
        match state.place {
            // Its turn comes, or its answer.
            Place::Turn | Place::Asked => return,
            Place::Later(due) => drop(self.later.remove(&(due, queue))),
            Place::Full => self.full -= 1,
            Place::Idle => {}
        }
        state.place = match state.next {
            None => Place::Idle,
            Some(due) if due > now => Place::Later(due),
            Some(_) if state.held.len() >= queue_max => Place::Full,
            Some(_) => Place::Turn,
        };
        match state.place {
            Place::Turn => self.turns.push_back(queue),
            Place::Later(due) => drop(self.later.insert((due, queue))),
            Place::Full => self.full += 1,
            Place::Idle if state.held.is_empty() => drop(self.queues.remove(&queue)),
            Place::Idle | Place::Asked => {}
        }
        self.count();
    }

    /// Queues whose work has become due line up for their turn.
    fn wake(&mut self, now: Time) {
        while let Some((due, queue)) = self.later.first().copied().filter(|(due, _)| *due <= now) {
            self.later.remove(&(due, queue));
            if let Some(state) = self.queues.get_mut(&queue) {
                state.place = Place::Idle;
                self.put(queue, now);
            }
        }
    }

    /// How much of a queue may be in flight. Repeated detections burden no host.
    fn queue_max(&self, queue: QueueId) -> usize {
        if queue == DETECTION_QUEUE { self.max } else { self.per_queue }
    }

    /// The next requests: from each queue in turn, as much as its share of the free room allows.
    fn asks(&mut self) -> Vec<DispatchRequest> {
        let mut room = self.max.saturating_sub(self.dispatched.len());
        let (mut asks, mut looked) = (Vec::new(), 0);
        while asks.len() < ASKED_MAX && looked < self.turns.len() && room > 0 {
            let Some(queue) = self.turns.pop_front() else { break };
            let queue_max = self.queue_max(queue);
            let Some(state) = self.queues.get_mut(&queue) else { continue };
            let share = (room / SHARE).clamp(1, queue_max);
            let max = share.saturating_sub(state.held.len()).min(room);
            if max == 0 {
                self.turns.push_back(queue);
                looked += 1;
                continue;
            }
            room -= max;
            state.place = Place::Asked;
            // What is opened from here on comes as an update.
            state.next = None;
            asks.push(DispatchRequest { queue, max, held: state.held.clone(), again: self.again });
        }
        self.count();
        asks
    }

    /// Whether something is due that was not dispatched.
    fn is_behind(&self) -> bool {
        !self.turns.is_empty() || self.full > 0
    }

    /// When the next work of the queues that have nothing due is due.
    fn next_due(&self) -> Option<Time> {
        self.later.first().map(|(due, _)| *due)
    }

    fn count(&self) {
        self.stage.dispatched.store(self.dispatched.len(), Relaxed);
        self.stage.waiting.store(self.turns.len() + self.full, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use faceflow_core::record::{Page, queue_of};
    use url::Url;

    use super::*;

    fn page(host: usize, n: usize) -> Work {
        let url = Url::parse(&format!("http://h{host}.example/{n}")).expect("a URL");
        Work::Page(Page::start(url))
    }

    fn queue_of_host(host: usize) -> QueueId {
        let Work::Page(page) = page(host, 0) else { unreachable!("it is a page") };
        queue_of(&page.url)
    }

    fn opened(queue: QueueId, due: Time) -> QueueUpdate {
        QueueUpdate { queue, due, again: false }
    }

    fn frontier(max: usize, per_queue: usize) -> CrawlQueues {
        CrawlQueues {
            max,
            per_queue,
            again: false,
            queues: HashMap::new(),
            dispatched: HashMap::new(),
            turns: VecDeque::new(),
            later: BTreeSet::new(),
            full: 0,
            stage: Arc::default(),
        }
    }

    /// Hosts with as much work as anyone may ask, all due.
    fn give(
        frontier: &mut CrawlQueues,
        hosts: &HashMap<QueueId, usize>,
        given: &mut HashMap<usize, Vec<Key>>,
    ) -> usize {
        let mut all = 0;
        for ask in frontier.asks() {
            let host = hosts[&ask.queue];
            let of_host = given.entry(host).or_default();
            let work: Vec<Work> = (0..ask.max).map(|n| page(host, of_host.len() + n)).collect();
            assert!(work.iter().all(|work| !ask.held.contains(&work.key())));
            of_host.extend(work.iter().map(Work::key));
            all += frontier.dispatch(DispatchReply { queue: ask.queue, work, next: Some(0) }, 0).len();
        }
        all
    }

    #[test]
    fn greedy_queues_leave_room_for_whoever_comes_next() {
        let mut frontier = frontier(1_000, 1_000);
        let (hosts, mut given): (HashMap<QueueId, usize>, _) =
            ((0..50).map(|host| (queue_of_host(host), host)).collect(), HashMap::new());
        for host in 0..40 {
            frontier.open(opened(queue_of_host(host), 0), 0);
        }
        while give(&mut frontier, &hosts, &mut given) > 0 {}
        assert!(given.len() == 40 && given.values().all(|keys| !keys.is_empty()), "all of them have some");
        assert!(frontier.is_behind() && frontier.dispatched.len() < 1_000, "{} of 1000", frontier.dispatched.len());
        frontier.open(opened(queue_of_host(45), 0), 0);
        while give(&mut frontier, &hosts, &mut given) > 0 {}
        assert!(!given[&45].is_empty());
        // Who has ended everything may have its share again.
        let ended = std::mem::take(given.get_mut(&3).expect("it has some"));
        for key in &ended {
            frontier.hear(LedgerUpdate { ended: Some(*key), opened: vec![] }, 0);
        }
        while give(&mut frontier, &hosts, &mut given) > 0 {}
        assert!(given[&3].len() >= ended.len().min(2), "{} after {}", given[&3].len(), ended.len());
    }

    #[test]
    fn a_queue_has_its_limit_and_comes_back_when_something_ends() {
        let mut frontier = frontier(1_000, 4);
        let (hosts, mut given) = (HashMap::from([(queue_of_host(0), 0)]), HashMap::new());
        frontier.open(opened(queue_of_host(0), 0), 0);
        assert_eq!(give(&mut frontier, &hosts, &mut given), 4);
        assert_eq!((frontier.asks(), frontier.is_behind()), (vec![], true));
        frontier.hear(LedgerUpdate { ended: Some(given[&0][1]), opened: vec![] }, 0);
        assert_eq!(give(&mut frontier, &hosts, &mut given), 1);
        let unknown = page(9, 9).key();
        frontier.hear(LedgerUpdate { ended: Some(unknown), opened: vec![] }, 0);
        assert_eq!(give(&mut frontier, &hosts, &mut given), 0);
        // Another limit holds as soon as the queue moves.
        frontier.limit(&CrawlSettings { ahead_max: 1_000, ahead_per_host: 6, ..CrawlSettings::default() });
        frontier.hear(LedgerUpdate { ended: Some(given[&0][2]), opened: vec![] }, 0);
        assert_eq!(give(&mut frontier, &hosts, &mut given), 3);
    }

    #[test]
    fn what_is_due_later_waits_and_the_frontier_says_when() {
        let mut frontier = frontier(10, 10);
        frontier.open(opened(7, 50), 10);
        frontier.open(opened(8, 90), 10);
        frontier.open(opened(7, 60), 10);
        assert_eq!((frontier.asks(), frontier.is_behind(), frontier.next_due()), (vec![], false, Some(50)));
        frontier.wake(49);
        assert_eq!(frontier.asks(), []);
        frontier.wake(50);
        let asks = frontier.asks();
        assert_eq!((asks.len(), asks[0].queue, frontier.next_due()), (1, 7, Some(90)));
        // Updates that come while it is asked are not lost, whatever the reply says.
        frontier.open(opened(7, 55), 50);
        frontier.dispatch(DispatchReply { queue: 7, work: vec![], next: Some(60) }, 51);
        assert_eq!(frontier.next_due(), Some(55));
        frontier.wake(100);
        for ask in frontier.asks() {
            frontier.dispatch(DispatchReply { queue: ask.queue, work: vec![], next: None }, 100);
        }
        assert!(frontier.queues.is_empty() && frontier.next_due().is_none() && !frontier.is_behind());
    }
}
