//! Drives the graph to its end: builds it on every worker, steps it, and knows when to stop.
//!
//! A batch ends when the frontier is empty: everything is settled. It also ends when the frontier lies further ahead than
//! the user's patience: then only retries due later remain, and they stay open in the ledger.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use faceflow_core::Time;
use faceflow_core::blocking::panicked;
use faceflow_core::executor::Executor;
use faceflow_core::invariants::conserved;
use faceflow_core::ledger::Ledger;
use faceflow_core::peers::{Heartbeat, Peers};
use faceflow_core::shutdown::{Mode, Shutdown};
use timely::communication::WorkerGuards;
use timely::dataflow::ProbeHandle;
use timely::worker::Worker;

use crate::cluster::{self, PeerConnections};
use crate::graph;
use crate::services::Services;

/// How long a worker sleeps at most when nothing wakes it.
const NAP: Duration = Duration::from_millis(20);
/// How often conservation is checked at most, in milliseconds.
const CHECK_EVERY_MS: u64 = 100;
/// How long the other processes of a cluster have to close their connections at the end.
const GOODBYE: Duration = Duration::from_secs(5);

/// Of what breaks a law of the ledger, so many are named.
const KEYS_MAX: usize = 5;

/// How a run is driven.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Worker threads of this process.
    pub workers: usize,
    /// Once only retries due later than this from now remain, the run ends, in milliseconds.
    pub patience_ms: u64,
    /// Whether only a signal ends the run: neither the end of its sources nor of its patience does.
    pub endless: bool,
    /// How long a drain may take before what is under way is left open, in milliseconds.
    pub grace_ms: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { workers: 1, patience_ms: 600_000, endless: false, grace_ms: 30_000 }
    }
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOutcome {
    /// The user asked to stop.
    pub interrupted: bool,
    /// Entries of the sources that were no sites.
    pub bad_input: usize,
    /// When the earliest remaining retry is due, if the run ended for lack of patience.
    pub next_due: Option<Time>,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The workers could not be started.
    #[error("the workers could not be started: {0}")]
    Start(String),
    /// A failure of ours; the ledger is whole and the same command goes on from it.
    #[error("{0}")]
    Failed(String),
}

/// Runs the pipeline until everything is settled, patience ends, or the process is told to stop; in a cluster, over `connections`.
pub fn run(
    services: &Services,
    options: RunOptions,
    connections: Option<(PeerConnections, Arc<Peers>)>,
) -> Result<RunOutcome, RunError> {
    let peers = connections.as_ref().map(|(_, peers)| Arc::clone(peers));
    let watch = Arc::new(Watch::new(options, peers));
    let workers = options.workers.max(1);
    let (shared, seen, (tell, left)) = (services.clone(), Arc::clone(&watch), mpsc::channel());
    let job = move |worker: &mut Worker| {
        work(worker, &shared, &seen);
        // Whoever listens waits for every worker.
        tell.send(()).ok();
    };
    let guards = match connections {
        None => timely::execute(timely::Config::process(workers), job),
        Some((connections, peers)) => connections.execute(workers, (peers, Arc::clone(&services.executor.clock)), job),
    };
    let guards = guards.map_err(RunError::Start)?;
    left.iter().take(workers).for_each(drop);
    if watch.peers.is_some() {
        part(guards, services.executor.shutdown.failure().is_some());
    } else {
        for ended in guards.join() {
            ended.map_err(|panic| RunError::Failed(format!("a worker panicked: {panic}")))?;
        }
    }
    if let Some(failure) = services.executor.shutdown.failure() {
        let broken = if watch.violated.load(Relaxed) { broken_laws(services.ledger.as_ref()) } else { String::new() };
        let asleep = watch.peers.as_ref().and_then(|peers| peers.asleep(services.executor.clock.now()));
        let asleep = asleep.filter(|asleep| !failure.starts_with(asleep)).map(|asleep| asleep + "; ");
        return Err(RunError::Failed(asleep.unwrap_or_default() + &failure + &broken));
    }
    for sink in &services.sinks {
        // Waits for a write that is still under way, then tells the sink that it was the last of this run.
        let flushed = sink.lock().unwrap_or_else(PoisonError::into_inner).flush(Time::MAX);
        flushed.map_err(|fault| RunError::Failed(format!("a sink failed: {fault}")))?;
    }
    let next_due = Some(watch.next_due.load(Relaxed)).filter(|due| *due > 0);
    Ok(RunOutcome {
        interrupted: services.executor.shutdown.mode() != Mode::Running && next_due.is_none(),
        bad_input: services.executor.metrics.stage("bad input").lost.load(Relaxed),
        next_due,
    })
}

/// Lets go of the other processes. One that is gone or hangs never says goodbye, so its connections are left to the end of
/// the process.
fn part(guards: WorkerGuards<()>, failed: bool) {
    if failed {
        return std::mem::forget(guards);
    }
    let (tell, told) = mpsc::channel();
    let joining = std::thread::spawn(move || {
        guards.join().into_iter().for_each(drop);
        tell.send(()).ok();
    });
    if told.recv_timeout(GOODBYE).is_ok() {
        // It has said so as its last deed.
        joining.join().ok();
    }
}

/// What the workers of the process share about the end.
struct Watch {
    options: RunOptions,
    peers: Option<Arc<Peers>>,
    idle: AtomicBool,
    next_due: AtomicU64,
    drain: Mutex<Option<Drain>>,
    checking: Arc<AtomicBool>,
    /// When the next check is due.
    check_at: AtomicU64,
    /// Whether something discovered is unaccounted for.
    violated: Arc<AtomicBool>,
}

/// When a drain began, and when work was last seen under way.
struct Drain {
    since: Time,
    busy: Time,
}

impl Watch {
    fn new(options: RunOptions, peers: Option<Arc<Peers>>) -> Self {
        Self {
            options,
            peers,
            idle: AtomicBool::new(false),
            next_due: AtomicU64::new(0),
            drain: Mutex::new(None),
            checking: Arc::default(),
            check_at: AtomicU64::new(0),
            violated: Arc::default(),
        }
    }
}

/// Works until the end. A panic is a failure of the process that ends all its workers: one that is gone would keep the
/// others waiting for ever.
fn work(worker: &mut Worker, services: &Services, watch: &Arc<Watch>) {
    let worked = catch_unwind(AssertUnwindSafe(|| step(worker, services, watch)));
    if let Err(panic) = worked {
        services.executor.shutdown.fail(format!("a worker panicked: {}", panicked(panic.as_ref()).detail));
    }
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
}

fn step(worker: &mut Worker, services: &Services, watch: &Arc<Watch>) {
    // Of this process.
    let first = worker.index().is_multiple_of(watch.options.workers.max(1));
    if let Some(peers) = &watch.peers {
        let (telling, shutdown) = (Arc::clone(watch), services.executor.shutdown.clone());
        let process = peers.process();
        let say = move || telling.heartbeat(process, &shutdown);
        worker.dataflow(|scope| cluster::heart(scope, &services.executor, peers, say, first));
    }
    let probe = worker.dataflow(|scope| graph::build(scope, services));
    let mut frontier = 0;
    while !probe.done() && services.executor.shutdown.mode() != Mode::Stopped {
        worker.step_or_park(Some(NAP));
        let ahead = first_time(&probe);
        if ahead != frontier && first {
            services.executor.metrics.set_frontier(ahead);
        }
        if ahead != frontier && worker.index() == 0 {
            check_conservation(services, watch);
        }
        frontier = ahead;
        watch.listen(services);
        watch.patience(services, frontier);
        watch.drained(services);
    }
}

fn first_time(probe: &ProbeHandle<Time>) -> Time {
    probe.with_frontier(|frontier| frontier.first().copied().unwrap_or(Time::MAX))
}

impl Watch {
    /// Ends the run when everything that remains is due too late.
    fn patience(&self, services: &Services, frontier: Time) {
        let limit = services.executor.clock.now().saturating_add(self.options.patience_ms);
        if self.options.endless || frontier == Time::MAX || frontier <= limit {
            return;
        }
        match &self.peers {
            None => {
                self.next_due.store(frontier, Relaxed);
                services.executor.shutdown.stop();
            }
            // Clocks differ, so one process says it for all, itself included.
            Some(peers) if peers.process() == 0 => self.next_due.store(frontier, Relaxed),
            Some(_) => {}
        }
    }

    /// What this process tells the others.
    fn heartbeat(&self, process: usize, shutdown: &Shutdown) -> Heartbeat {
        let leaves_until = Some(self.next_due.load(Relaxed)).filter(|due| *due > 0);
        Heartbeat { process, mode: shutdown.mode(), idle: self.idle.load(Relaxed), leaves_until }
    }

    /// Does what the other processes are about, and ends the run if one is missing.
    fn listen(&self, services: &Services) {
        let Some(peers) = &self.peers else { return };
        let shutdown = &services.executor.shutdown;
        if let Some(missing) = peers.missing(services.executor.clock.now()) {
            shutdown.fail(missing);
        }
        match peers.wish() {
            (_, Some(due)) => {
                self.next_due.store(due, Relaxed);
                shutdown.stop();
            }
            (Mode::Running, None) => {}
            (_, None) => shutdown.drain(),
        }
    }

    /// Ends a drain when nothing is under way any more, or its grace is over.
    fn drained(&self, services: &Services) {
        let Executor { metrics, shutdown, .. } = &services.executor;
        if shutdown.mode() != Mode::Draining {
            return;
        }
        let now = services.executor.clock.now();
        let mut drain = self.drain.lock().unwrap_or_else(PoisonError::into_inner);
        let drain = drain.get_or_insert(Drain { since: now, busy: now });
        if metrics.in_flight() > 0 {
            drain.busy = now;
        }
        // Between two stages a record is under way nowhere, for a step or two; between two processes, for a beat or two.
        let between = self.peers.as_ref().map_or(0, |peers| 2 * peers.beat_ms());
        let idle = now > drain.busy + 3 * NAP.as_millis() as Time + between;
        self.idle.store(idle, Relaxed);
        let all_idle = idle && self.peers.as_ref().is_none_or(|peers| peers.others_are_idle());
        if all_idle || now > drain.since + self.options.grace_ms {
            shutdown.stop();
        }
    }
}

/// Checks, as the frontier moves, that nothing discovered is unaccounted for; one check at a time, with pauses.
fn check_conservation(services: &Services, watch: &Watch) {
    let now = services.executor.clock.now();
    if now < watch.check_at.load(Relaxed) || watch.checking.swap(true, Relaxed) {
        return;
    }
    watch.check_at.store(now + CHECK_EVERY_MS, Relaxed);
    let Executor { metrics, shutdown, .. } = services.executor.clone();
    let ledger = Arc::clone(&services.ledger);
    let (checking, violated) = (Arc::clone(&watch.checking), Arc::clone(&watch.violated));
    services.executor.runtime.spawn_blocking(move || {
        match ledger.tally() {
            Ok((pages, images)) => {
                metrics.set_tallies((pages, images));
                if let Err(why) = conserved(&pages).and(conserved(&images)) {
                    violated.store(true, Relaxed);
                    shutdown.fail(format!("conservation is violated: {why}"));
                }
            }
            Err(error) => shutdown.fail(error.to_string()),
        }
        checking.store(false, Relaxed);
    });
}

/// Where conservation is violated, in words. The workers have left, so there is time to look.
pub fn broken_laws(ledger: &dyn Ledger) -> String {
    match ledger.audit(KEYS_MAX) {
        Ok(broken) => broken.iter().map(|broken| format!("; {broken}")).collect(),
        Err(error) => format!("; where, the ledger does not say: {error}"),
    }
}
