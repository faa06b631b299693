//! `wait`: holds work until it is due.
//!
//! Each waiting record keeps a capability for its due time, not for the time of its failure: the frontier passes everything
//! earlier, and says exactly when the next retry is due. Promise: work leaves when it is due, never before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use faceflow_core::bridge::{Alarm, Bridge};
use faceflow_core::record::Work;
use faceflow_core::{Flow, Time};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

/// Work and the time at which it is due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// The work.
    pub work: Work,
    /// When it is due.
    pub due: Time,
}

/// Holds work until it is due.
pub trait Wait<'s> {
    /// Lets each record through once `bridge`'s clock reads its due time.
    fn wait(self, bridge: &Bridge) -> Flow<'s, Work>;
}

impl<'s> Wait<'s> for Flow<'s, Waiting> {
    fn wait(self, bridge: &Bridge) -> Flow<'s, Work> {
        let (scope, bridge) = (self.scope(), bridge.clone());
        let stage = bridge.pulse.stage("retry");
        self.unary(Pipeline, "wait", move |_, info| {
            let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let mut held: BTreeMap<Time, Vec<(Capability<Time>, Work)>> = BTreeMap::new();
            let mut alarm = Alarm::new(&bridge, operator);
            move |input, output| {
                input.for_each_time(|time, data| {
                    for Waiting { work, due } in data.flat_map(|batch| batch.drain(..)) {
                        stage.sleeping.fetch_add(1, Relaxed);
                        // The feedback that follows adds one.
                        let at = due.saturating_sub(1).max(*time.time());
                        held.entry(due).or_default().push((time.delayed(&at, output.output_index()), work));
                    }
                });
                let now = bridge.clock.now();
                let later = held.split_off(&(now + 1));
                for (capability, work) in std::mem::replace(&mut held, later).into_values().flatten() {
                    output.session(&capability).give(work);
                    stage.sleeping.fetch_sub(1, Relaxed);
                }
                if let Some((&due, _)) = held.first_key_value() {
                    alarm.wake_at(due);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use faceflow_core::record::Page;
    use faceflow_core::testing::{EPOCH, simulate};
    use timely::dataflow::operators::{Inspect, Probe, ToStream};
    use url::Url;

    use super::*;

    fn waiting(delay_ms: u64) -> Waiting {
        let url = Url::parse(&format!("http://a.example/{delay_ms}")).expect("a URL");
        let work = Work::Page(Page { url: url.clone(), site: url, depth: 0, attempts: 0, skip: vec![] });
        Waiting { work, due: EPOCH + delay_ms }
    }

    #[test]
    fn work_leaves_at_its_due_time_to_the_millisecond_and_the_frontier_says_when() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let end = simulate(8_000_000, move |scope, bridge| {
            let delays = [7_200_000, 5, 3_600_000, 60_001];
            let clock = Arc::clone(&bridge.clock);
            let flow = delays.map(waiting).to_stream(scope).container::<Vec<_>>().wait(bridge);
            let note = move |time: &Time, work: &Work| {
                log.lock().expect("not poisoned").push((work.route(), clock.now() - EPOCH, *time + 1 - EPOCH));
            };
            flow.inspect_time(note).probe().0
        });
        let expected = [5, 60_001, 3_600_000, 7_200_000].map(|delay| (waiting(delay).work.route(), delay, delay));
        assert_eq!(*seen.lock().expect("not poisoned"), expected);
        assert!(end - EPOCH >= 7_200_000);
    }
}
