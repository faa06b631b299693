//! The heartbeats that the processes of a cluster send each other through timely while they run.

use std::sync::Arc;

use faceflow_core::Time;
use faceflow_core::executor::Executor;
use faceflow_core::peer_liveness::{Heartbeat, Peers};
use faceflow_core::timer::Timer;
use timely::dataflow::Scope;
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::operators::vec::Broadcast;

/// Builds a dataflow of its own, in which the first worker of each process sends its heartbeat again and again, and every process
/// notes it. Whatever breaks the dataflow (a kill, a hang, a cut cable) ends the heartbeats too.
pub fn exchange_heartbeats(
    scope: Scope<'_, Time>,
    executor: &Executor,
    peers: &Arc<Peers>,
    heartbeat: impl Fn() -> Heartbeat + 'static,
    first_here: bool,
) {
    let (executor, noted) = (executor.clone(), Arc::clone(peers));
    let (clock, every, own) = (Arc::clone(&executor.clock), peers.heartbeat_ms(), Arc::clone(peers));
    let beats = source(scope, "heartbeats", move |capability, info| {
        let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
        let (mut timer, mut due) = (Timer::new(&executor, operator), 0);
        let mut capability = first_here.then_some(capability);
        move |output| {
            let Some(capability) = capability.as_mut() else { return };
            let now = executor.clock.now();
            if now >= due {
                capability.downgrade(&now.max(*capability.time()));
                output.session(capability).give(heartbeat());
                own.note_own_heartbeat(now);
                due = now + every;
            }
            timer.wake_at(due);
        }
    });
    beats.container::<Vec<Heartbeat>>().broadcast().inspect(move |beat| noted.note_heartbeat(beat, clock.now()));
}
