//! Several workers under one virtual clock. Each has a thread of its own, and one thread at a time runs: the workers take turns,
//! and time moves only when a whole round of turns has found nothing to do. So the same program gives the same history.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use timely::dataflow::{ProbeHandle, Scope};

use super::{VirtualRuntime, settle};
use crate::blocking::work_in_place;
use crate::clock::Time;
use crate::executor::Executor;
use crate::shutdown::Mode;

/// Rounds that find nothing before time moves: what one worker sends another, and the progress that follows from it, is received
/// a turn later.
const QUIET_ROUNDS: usize = 3;
/// A turn that takes longer, in real time, never ends.
const TURN_MAX: Duration = Duration::from_secs(120);

/// [`super::simulate_from`] with several workers, each of which calls `build`.
///
/// # Panics
/// If nothing is settled within `limit_ms` of virtual time, or a worker panics.
pub fn simulate_workers<B>(workers: usize, (epoch, limit_ms): (Time, u64), build: B) -> Time
where
    B: for<'s> Fn(Scope<'s, Time>, &Executor) -> ProbeHandle<Time> + Send + Sync + 'static,
{
    let virtual_time = VirtualRuntime::starting_at(epoch);
    let (turns, executor) = (Arc::new(Turns::new(workers)), virtual_time.executor.clone());
    let clock = Arc::clone(&executor.clock);
    // Only the first worker advances time.
    let virtual_time = Mutex::new(Some(virtual_time));
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        work_in_place();
        let (index, mut turn) = (worker.index(), turns.of(worker.index()));
        turn.wait();
        let virtual_time = if index == 0 { lock(&virtual_time).take() } else { None };
        let probe = worker.dataflow::<Time, _, _>(|scope| build(scope, &executor));
        turn.pass(true);
        while turn.wait() {
            let busy = settle(worker);
            if let Some(virtual_time) = virtual_time.as_ref().filter(|_| turn.is_quiet()) {
                if probe.done() || executor.shutdown.mode() == Mode::Stopped {
                    turn.end();
                } else {
                    virtual_time.advance(limit_ms);
                }
            }
            turn.pass(busy);
        }
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
        turn.pass(false);
    });
    for ended in guards.expect("threads can be started").join() {
        ended.expect("no worker panics");
    }
    clock.now()
}

/// Whose turn it is.
struct Turns {
    workers: usize,
    state: Mutex<State>,
    passed: Condvar,
}

#[derive(Default)]
struct State {
    index: usize,
    /// Turns in a row that found nothing to do.
    quiet: usize,
    ended: bool,
    /// Whether a worker has panicked: the others leave.
    broken: bool,
}

impl Turns {
    fn new(workers: usize) -> Self {
        Self { workers, state: Mutex::default(), passed: Condvar::new() }
    }

    fn of(self: &Arc<Self>, index: usize) -> Turn {
        Turn { index, turns: Arc::clone(self) }
    }
}

/// One worker's part in it. Dropped while its worker panics, it sends the others home.
struct Turn {
    index: usize,
    turns: Arc<Turns>,
}

impl Turn {
    /// Waits for this worker's turn; whether there is still something to do.
    fn wait(&mut self) -> bool {
        let others = |state: &mut State| !state.broken && state.index != self.index;
        let waited = self.turns.passed.wait_timeout_while(lock(&self.turns.state), TURN_MAX, others);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "worker {} waits for worker {} in vain", self.index, state.index);
        assert!(!state.broken, "another worker has panicked");
        !state.ended
    }

    /// Whether several rounds have found nothing.
    fn is_quiet(&self) -> bool {
        lock(&self.turns.state).quiet >= QUIET_ROUNDS * self.turns.workers
    }

    /// From their next turn on, all workers leave.
    fn end(&self) {
        lock(&self.turns.state).ended = true;
    }

    /// Lets the next worker go on.
    fn pass(&mut self, busy: bool) {
        let mut state = lock(&self.turns.state);
        state.index = (self.index + 1) % self.turns.workers;
        // After a moment in which time has moved, too, everybody looks again.
        let moved = state.quiet >= QUIET_ROUNDS * self.turns.workers;
        state.quiet = if busy || moved { 0 } else { state.quiet + 1 };
        drop(state);
        self.turns.passed.notify_all();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.turns.state).broken = true;
            self.turns.passed.notify_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
