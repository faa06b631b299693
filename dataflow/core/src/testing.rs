//! Runs a dataflow under a virtual clock: hours of waiting in milliseconds, to the millisecond.
//!
//! Behind the feature `testing`, for tests of operators and of whole graphs. Time moves only when every task waits, so what
//! is asserted about timestamps does not depend on the machine.

pub mod require;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use timely::dataflow::{ProbeHandle, Scope};
use timely::worker::Worker;

use crate::blocking::work_in_place;
use crate::clock::{Clock, RuntimeClock, Time};
use crate::executor::Executor;
use crate::metrics::Metrics;
use crate::shutdown::{Mode, Shutdown};

pub use workers::simulate_workers;

/// Where virtual time starts.
pub const EPOCH: Time = 1_000_000;

/// [`simulate_from`] the [`EPOCH`].
pub fn simulate<B>(limit_ms: u64, build: B) -> Time
where
    B: for<'s> FnOnce(Scope<'s, Time>, &Executor) -> ProbeHandle<Time> + Send + Sync + 'static,
{
    simulate_from(EPOCH, limit_ms, build)
}

/// Builds a dataflow on one worker with a virtual clock that begins at `epoch`, and steps it until its probe is done or the
/// process is stopped. Everything happens on this thread, so the same program gives the same history. Returns the virtual time
/// at the end.
///
/// # Panics
/// If nothing is settled within `limit_ms` of virtual time.
pub fn simulate_from<B>(epoch: Time, limit_ms: u64, build: B) -> Time
where
    B: for<'s> FnOnce(Scope<'s, Time>, &Executor) -> ProbeHandle<Time> + Send + Sync + 'static,
{
    work_in_place();
    timely::execute::execute_directly(move |worker| {
        let virtual_time = VirtualRuntime::starting_at(epoch);
        let executor = &virtual_time.executor;
        let probe = worker.dataflow::<Time, _, _>(|scope| build(scope, executor));
        loop {
            settle(worker);
            if probe.done() || executor.shutdown.mode() == Mode::Stopped {
                break;
            }
            virtual_time.advance(limit_ms);
        }
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
        executor.clock.now()
    })
}

/// A runtime whose time is virtual, and the executor to it.
struct VirtualRuntime {
    runtime: tokio::runtime::Runtime,
    executor: Executor,
    epoch: Time,
}

impl VirtualRuntime {
    fn starting_at(epoch: Time) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O always starts");
        let clock: Arc<dyn Clock> = Arc::new(RuntimeClock::starting_at(runtime.handle().clone(), epoch));
        let executor = Executor::new(runtime.handle().clone(), clock, (Metrics::default(), Shutdown::default()));
        Self { runtime, executor, epoch }
    }

    /// Lets jobs run, and time pass if they wait, until an operator is woken.
    fn advance(&self, limit_ms: u64) {
        let left = Duration::from_millis((self.epoch + limit_ms).saturating_sub(self.executor.clock.now()));
        let woken = self.runtime.block_on(async { tokio::time::timeout(left, self.executor.woken()).await });
        let failure = self.executor.shutdown.failure();
        assert!(woken.is_ok(), "not settled within {limit_ms} virtual ms; failure: {failure:?}");
    }
}

/// Waits for asynchronous work in a test that is not asynchronous itself.
pub fn wait_for<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(work)
}

/// Idle steps after which nothing is under way inside the worker: a record or a progress message crosses at least one
/// operator per step, so this is the length of the longest way through a graph, with room to spare.
const IDLE_STEPS: usize = 10;

/// Steps a worker until nothing is left to do before something new arrives. Whether there was something.
pub fn settle(worker: &mut Worker) -> bool {
    let (mut idle_steps, mut busy) = (0, false);
    while idle_steps < IDLE_STEPS {
        worker.step();
        let pending = worker.activations().borrow().empty_for() == Some(Duration::ZERO);
        idle_steps = if pending { 0 } else { idle_steps + 1 };
        busy |= pending;
    }
    busy
}
