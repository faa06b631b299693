//! Runs the graph on all workers of this process: starts them, waits until they have left, and says how the run ended.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::Duration;

use faceflow_core::Time;
use faceflow_core::peer_liveness::Peers;
use faceflow_core::shutdown::Mode;
use timely::communication::WorkerGuards;
use timely::worker::Worker;

use crate::cluster::PeerConnections;
use crate::conservation::{ConservationCheck, violations};
use crate::services::Services;
use crate::stop_conditions::StopConditions;
use crate::worker_loop::work;

pub use crate::run_options::{RunError, RunOptions, RunOutcome};

/// How long the other processes of a cluster have to close their connections at the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Runs the pipeline until everything is settled, patience ends, or the process is told to stop; in a cluster, over `connections`.
pub fn run(
    services: &Services,
    options: RunOptions,
    connections: Option<(PeerConnections, Arc<Peers>)>,
) -> Result<RunOutcome, RunError> {
    let peers = connections.as_ref().map(|(_, peers)| Arc::clone(peers));
    let stop = Arc::new(StopConditions::new(options, peers.clone()));
    let conservation = Arc::new(ConservationCheck::default());
    let workers = options.workers.max(1);
    let (leave, left) = mpsc::channel();
    let (shared, conditions, checks) = (services.clone(), Arc::clone(&stop), Arc::clone(&conservation));
    let job = move |worker: &mut Worker| {
        work(worker, &shared, (&conditions, &checks));
        // The receiver waits for every worker.
        leave.send(()).ok();
    };
    let guards = match connections {
        None => timely::execute(timely::Config::process(workers), job),
        Some((connections, peers)) => connections.execute(workers, (peers, Arc::clone(&services.executor.clock)), job),
    };
    let guards = guards.map_err(RunError::Start)?;
    left.iter().take(workers).for_each(drop);
    if peers.is_some() {
        close_connections(guards, services.executor.shutdown.failure().is_some());
    } else {
        for ended in guards.join() {
            ended.map_err(|panic| RunError::Failed(format!("a worker panicked: {panic}")))?;
        }
    }
    if let Some(failure) = services.executor.shutdown.failure() {
        let violations = if conservation.is_violated() { violations(services.ledger.as_ref()) } else { String::new() };
        let asleep = peers.as_ref().and_then(|peers| peers.own_pause(services.executor.clock.now()));
        let asleep = asleep.filter(|asleep| !failure.starts_with(asleep)).map(|asleep| asleep + "; ");
        return Err(RunError::Failed(asleep.unwrap_or_default() + &failure + &violations));
    }
    for sink in &services.sinks {
        // Waits for a write that is still under way; this flush is the sink's last in this run.
        let flushed = sink.lock().unwrap_or_else(PoisonError::into_inner).flush(Time::MAX);
        flushed.map_err(|fault| RunError::Failed(format!("a sink failed: {fault}")))?;
    }
    let next_due = stop.next_due();
    Ok(RunOutcome {
        interrupted: services.executor.shutdown.mode() != Mode::Running && next_due.is_none(),
        bad_input: services.executor.metrics.stage("bad input").failed.load(Relaxed),
        next_due,
    })
}

/// Closes the connections to the other processes. One that is gone or hangs never closes its side, so after a failure, or a few
/// seconds, they are left to the end of the process.
fn close_connections(guards: WorkerGuards<()>, failed: bool) {
    if failed {
        return std::mem::forget(guards);
    }
    let (close, closed) = mpsc::channel();
    let joining = std::thread::spawn(move || {
        guards.join().into_iter().for_each(drop);
        close.send(()).ok();
    });
    if closed.recv_timeout(CLOSE_LIMIT).is_ok() {
        // The send was the last thing it did.
        joining.join().ok();
    }
}
