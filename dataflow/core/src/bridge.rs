//! The bridge: the only place where tokio meets timely.
//!
//! An operator hands a record to an async job and keeps one capability for it; the answer leaves at the time of its
//! question, so the frontier knows that the record is still owed. The worker thread never waits: answers come over a
//! channel and the operator is woken. A job that fails or panics gives its record back as [`Lost`]; nothing is dropped.
//!
//! Records queue in lanes (one per host, say). A lane has a limit and so has the whole bridge, and lanes take turns, so
//! a slow lane delays no other; the bridge's limit has to leave room for lanes that wait on purpose.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::task::Poll;

use timely::dataflow::channels::pact::ParallelizationContract;
use timely::dataflow::operators::generic::operator::Operator;
use timely::scheduling::activate::SyncActivator;
use tokio::sync::Notify;

use crate::Flow;
use crate::clock::{Clock, Time};
use crate::fault::{Class, Fault, Lost};
use crate::pulse::{Mode, Pulse, Stage};

/// What an operator needs to reach the world outside its worker thread. Clones share everything.
#[derive(Clone)]
pub struct Bridge {
    /// The runtime that jobs run on.
    pub runtime: tokio::runtime::Handle,
    /// The pipeline's clock.
    pub clock: Arc<dyn Clock>,
    /// Counters and the wish to stop.
    pub pulse: Pulse,
    woken: Arc<Notify>,
}

impl Bridge {
    /// A bridge to `runtime`.
    pub fn new(runtime: tokio::runtime::Handle, clock: Arc<dyn Clock>, pulse: Pulse) -> Self {
        Self { runtime, clock, pulse, woken: Arc::default() }
    }

    /// Resolves once an operator has been woken, or the driver nudged, since the last call.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Makes whoever drives the worker look again, at the pulse for one.
    pub fn nudge(&self) {
        self.woken.notify_one();
    }

    fn wake(&self, operator: &SyncActivator) {
        // Fails only when the worker has left.
        let _ = operator.activate();
        self.woken.notify_one();
    }
}

/// Wakes one operator at the times it asks for.
pub struct Alarm {
    bridge: Bridge,
    operator: Arc<SyncActivator>,
    set: Option<Time>,
}

impl Alarm {
    /// An alarm for `operator`, not set yet.
    pub fn new(bridge: &Bridge, operator: Arc<SyncActivator>) -> Self {
        Self { bridge: bridge.clone(), operator, set: None }
    }

    /// Wakes the operator when the clock reads `due`, or earlier. Asking again for what is set already costs nothing.
    pub fn wake_at(&mut self, due: Time) {
        let now = self.bridge.clock.now();
        if self.set.is_some_and(|set| now < set && set <= due) {
            return;
        }
        self.set = Some(due);
        let (bridge, operator) = (self.bridge.clone(), Arc::clone(&self.operator));
        self.bridge.runtime.spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(due.saturating_sub(now))).await;
            bridge.wake(&operator);
        });
    }
}

/// How much one bridge takes on at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Jobs under way over all lanes of this worker.
    pub total: usize,
    /// Jobs under way in one lane.
    pub per_lane: usize,
    /// Whether new jobs start while the process drains: false where new work enters, true where begun work goes on.
    pub while_draining: bool,
}

impl Limits {
    /// `total` jobs in a single lane that goes on while the process drains: for the later steps of work begun elsewhere.
    pub fn finishing(total: usize) -> Self {
        Self { total, per_lane: total, while_draining: true }
    }

    /// Jobs that take on work anew: they do not start while the process drains.
    pub fn starting(total: usize, per_lane: usize) -> Self {
        Self { total, per_lane, while_draining: false }
    }
}

/// Sends the records of a flow through async jobs.
pub trait Cross<'s, R> {
    /// Runs `job` for each record, `lane` telling which queue the record waits in, and gives each answer at its
    /// record's time. A job's error or panic gives the record back with the fault.
    fn cross<P, O, J, F>(
        self,
        pact: P,
        name: &'static str,
        bridge: &Bridge,
        crossing: (Limits, fn(&R) -> u64, J),
    ) -> Flow<'s, Result<O, Lost<R>>>
    where
        P: ParallelizationContract<Time, Vec<R>>,
        O: Clone + Send + 'static,
        J: Fn(R) -> F + 'static,
        F: Future<Output = Result<O, Fault>> + Send + 'static;
}

impl<'s, R: Clone + 'static> Cross<'s, R> for Flow<'s, R> {
    fn cross<P, O, J, F>(
        self,
        pact: P,
        name: &'static str,
        bridge: &Bridge,
        (limits, lane, job): (Limits, fn(&R) -> u64, J),
    ) -> Flow<'s, Result<O, Lost<R>>>
    where
        P: ParallelizationContract<Time, Vec<R>>,
        O: Clone + Send + 'static,
        J: Fn(R) -> F + 'static,
        F: Future<Output = Result<O, Fault>> + Send + 'static,
    {
        let scope = self.scope();
        let bridge = bridge.clone();
        self.unary(pact, name, move |_, info| {
            let wake = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let mut lanes = Lanes::new(limits, bridge.pulse.stage(name));
            let mut flight = Flight::new(&bridge, name, wake);
            move |input, output| {
                input.for_each_time(|time, data| {
                    for record in data.flat_map(|batch| batch.drain(..)) {
                        lanes.queue(lane(&record), (time.retain(output.output_index()), record));
                    }
                });
                while let Some(((capability, (lane, record)), answer)) = flight.land() {
                    lanes.leave(lane);
                    let answer = answer.map_err(|fault| Lost { record, fault });
                    output.session(&capability).give(answer);
                }
                let open = limits.while_draining || bridge.pulse.mode() == Mode::Running;
                while let Some((lane, (capability, record))) = open.then(|| lanes.next()).flatten() {
                    let job = job(record.clone());
                    flight.start((capability, (lane, record)), 1, job);
                }
            }
        })
    }
}

/// The answer of the job with this number.
type Landed<O> = (u64, Result<O, Fault>);

/// Jobs under way for one operator: each with what must not be lost (its capability, its record), until its answer lands.
pub struct Flight<R, O> {
    bridge: Bridge,
    stage: Arc<Stage>,
    wake: Arc<SyncActivator>,
    answers: (mpsc::Sender<Landed<O>>, mpsc::Receiver<Landed<O>>),
    flying: HashMap<u64, (R, usize)>,
    next: u64,
}

impl<R, O: Send + 'static> Flight<R, O> {
    /// No jobs yet. `wake` wakes the operator that will call [`Flight::land`].
    pub fn new(bridge: &Bridge, name: &'static str, wake: Arc<SyncActivator>) -> Self {
        let (bridge, stage) = (bridge.clone(), bridge.pulse.stage(name));
        Self { bridge, stage, wake, answers: mpsc::channel(), flying: HashMap::new(), next: 0 }
    }

    /// Jobs under way.
    pub fn count(&self) -> usize {
        self.flying.len()
    }

    /// Starts a job that counts as `weight` records; `kept` comes back with its answer.
    pub fn start<F>(&mut self, kept: R, weight: usize, job: F)
    where
        F: Future<Output = Result<O, Fault>> + Send + 'static,
    {
        let (id, answers) = (self.next, self.answers.0.clone());
        let (bridge, operator) = (self.bridge.clone(), Arc::clone(&self.wake));
        self.next += 1;
        self.flying.insert(id, (kept, weight));
        self.stage.flying.fetch_add(weight, Relaxed);
        self.bridge.runtime.spawn(async move {
            let answer = caught(job).await;
            // The receiver is gone only when the worker has left; the record is still open in the ledger then.
            if answers.send((id, answer)).is_ok() {
                bridge.wake(&operator);
            }
        });
    }

    /// The next answer that has arrived, with what was kept for it.
    pub fn land(&mut self) -> Option<(R, Result<O, Fault>)> {
        let (id, answer) = self.answers.1.try_recv().ok()?;
        let (kept, weight) = self.flying.remove(&id).expect("every answer has a question");
        self.stage.flying.fetch_sub(weight, Relaxed);
        self.stage.ended.fetch_add(weight, Relaxed);
        self.stage.lost.fetch_add(usize::from(answer.is_err()), Relaxed);
        Some((kept, answer))
    }
}

/// What is under way when its operator goes is nobody's any more.
impl<R, O> Drop for Flight<R, O> {
    fn drop(&mut self) {
        let left = self.flying.values().map(|(_, weight)| weight).sum();
        self.stage.flying.fetch_sub(left, Relaxed);
    }
}

/// Runs a job; a panic in it becomes a fault.
pub async fn caught<T>(job: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let mut job = Box::pin(job);
    std::future::poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| job.as_mut().poll(context))) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(panicked(panic.as_ref()))),
    })
    .await
}

/// The fault that a caught panic is.
pub fn panicked(panic: &(dyn std::any::Any + Send)) -> Fault {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Fault::transient(Class::Panic, "panic", format!("a job panicked: {}", said.unwrap_or("no message")))
}

thread_local! {
    static IN_PLACE: Cell<bool> = const { Cell::new(false) };
}

/// From here on, [`blocking`] work that this thread comes to is done at once, on this thread. For runtimes of one thread whose
/// time is virtual: the order of events is then decided by the program alone.
pub fn work_in_place() {
    IN_PLACE.set(true);
}

/// Runs CPU-bound work on a blocking thread; a panic in it becomes a fault.
pub async fn blocking<T, W>(work: W) -> Result<T, Fault>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T, Fault> + Send + 'static,
{
    if IN_PLACE.get() {
        return catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(join) if join.is_panic() => Err(panicked(join.into_panic().as_ref())),
        Err(_) => Err(Fault::transient(Class::Panic, "cancelled", "the process is shutting down")),
    }
}

/// Records waiting in lanes, taken in turns within the limits.
struct Lanes<R> {
    limits: Limits,
    stage: Arc<Stage>,
    lanes: HashMap<u64, Lane<R>>,
    turns: VecDeque<u64>,
    flying: usize,
}

struct Lane<R> {
    waiting: VecDeque<R>,
    flying: usize,
    in_turn: bool,
}

impl<R> Lanes<R> {
    fn new(limits: Limits, stage: Arc<Stage>) -> Self {
        Self { limits, stage, lanes: HashMap::new(), turns: VecDeque::new(), flying: 0 }
    }

    fn queue(&mut self, name: u64, record: R) {
        self.stage.waiting.fetch_add(1, Relaxed);
        let lane =
            self.lanes.entry(name).or_insert_with(|| Lane { waiting: VecDeque::new(), flying: 0, in_turn: false });
        lane.waiting.push_back(record);
        self.line_up(name);
    }

    /// The next record that may start, counted as flying from here on.
    fn next(&mut self) -> Option<(u64, R)> {
        if self.flying >= self.limits.total {
            return None;
        }
        let name = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&name).expect("a lane in turn exists");
        lane.in_turn = false;
        let record = lane.waiting.pop_front().expect("a lane in turn has a record");
        lane.flying += 1;
        self.flying += 1;
        self.stage.waiting.fetch_sub(1, Relaxed);
        self.line_up(name);
        Some((name, record))
    }

    fn leave(&mut self, name: u64) {
        self.flying -= 1;
        let lane = self.lanes.get_mut(&name).expect("a flying record has a lane");
        lane.flying -= 1;
        if lane.flying == 0 && lane.waiting.is_empty() {
            self.lanes.remove(&name);
        } else {
            self.line_up(name);
        }
    }

    fn line_up(&mut self, name: u64) {
        let lane = self.lanes.get_mut(&name).expect("the lane exists");
        if !lane.in_turn && !lane.waiting.is_empty() && lane.flying < self.limits.per_lane {
            lane.in_turn = true;
            self.turns.push_back(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(total: usize, per_lane: usize) -> Lanes<&'static str> {
        Lanes::new(Limits::starting(total, per_lane), Arc::default())
    }

    #[test]
    fn lanes_take_turns_within_both_limits() {
        let mut lanes = lanes(3, 2);
        for record in ["a1", "a2", "a3"] {
            lanes.queue(1, record);
        }
        lanes.queue(2, "b1");
        let started: Vec<_> = std::iter::from_fn(|| lanes.next()).collect();
        assert_eq!(started, [(1, "a1"), (2, "b1"), (1, "a2")], "a third of lane 1 would break its limit");
        lanes.leave(2);
        assert_eq!(lanes.next(), None, "lane 1 is full");
        lanes.leave(1);
        assert_eq!(lanes.next(), Some((1, "a3")));
    }

    #[tokio::test]
    async fn a_panic_is_a_fault() {
        let fault = caught::<()>(async { panic!("at the disco") }).await.expect_err("panics");
        assert_eq!((fault.class, fault.permanent), (Class::Panic, false));
        assert!(fault.detail.contains("at the disco"));
        let fault = blocking::<(), _>(|| panic!("{}", 7)).await.expect_err("panics");
        assert!(fault.detail.contains('7'));
    }
}
