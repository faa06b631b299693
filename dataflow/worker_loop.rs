//! The loop of one worker: builds the graph, steps it, and leaves once the probe is done or the process was stopped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use faceflow_core::Time;
use faceflow_core::blocking::panicked;
use faceflow_core::shutdown::Mode;
use timely::dataflow::ProbeHandle;
use timely::worker::Worker;

use crate::cluster::exchange_heartbeats;
use crate::conservation::ConservationCheck;
use crate::graph;
use crate::services::Services;
use crate::stop_conditions::{PARK_MAX_MS, StopConditions};

/// What all workers of the process share about its end.
type Shared<'a> = (&'a Arc<StopConditions>, &'a ConservationCheck);

/// Works until the end. A panic is a failure of the process that ends all its workers: the others would wait forever for one
/// that is gone.
pub(crate) fn work(worker: &mut Worker, services: &Services, shared: Shared<'_>) {
    let worked = catch_unwind(AssertUnwindSafe(|| step_to_the_end(worker, services, shared)));
    if let Err(panic) = worked {
        services.executor.shutdown.fail(format!("a worker panicked: {}", panicked(panic.as_ref()).detail));
    }
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
}

fn step_to_the_end(worker: &mut Worker, services: &Services, (stop, conservation): Shared<'_>) {
    let executor = &services.executor;
    let first_here = worker.index().is_multiple_of(stop.workers());
    if let Some(peers) = stop.peers() {
        let (own, shutdown, process) = (Arc::clone(stop), executor.shutdown.clone(), peers.process());
        let heartbeat = move || own.heartbeat(process, &shutdown);
        worker.dataflow(|scope| exchange_heartbeats(scope, executor, peers, heartbeat, first_here));
    }
    let probe = worker.dataflow(|scope| graph::build(scope, services));
    let mut frontier = 0;
    while !probe.done() && executor.shutdown.mode() != Mode::Stopped {
        worker.step_or_park(Some(Duration::from_millis(PARK_MAX_MS)));
        let next = first_time(&probe);
        if next != frontier && first_here {
            executor.metrics.set_frontier(next);
        }
        if next != frontier && worker.index() == 0 {
            conservation.check(executor, &services.ledger);
        }
        frontier = next;
        stop.check(executor, frontier);
    }
}

fn first_time(probe: &ProbeHandle<Time>) -> Time {
    probe.with_frontier(|frontier| frontier.first().copied().unwrap_or(Time::MAX))
}
