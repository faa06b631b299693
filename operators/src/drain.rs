//! `drain`: hands delivered detections to a sink, by the frontier.
//!
//! All detections of the cluster meet at one worker and are written on a blocking thread, one call at a time. Promise: a
//! detection goes on only after its sink has taken it, and a flush at `t` follows every write before `t`.

use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::bridge::{Bridge, Flight, blocking};
use faceflow_core::detector::Detection;
use faceflow_core::record::Delivered;
use faceflow_core::sink::Sink;
use faceflow_core::{Fault, Flow, Time};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

/// A sink that workers share.
pub type SharedSink = Arc<Mutex<Box<dyn Sink>>>;

/// Hands detections to sinks.
pub trait Drain<'s> {
    /// Writes to `sink` and passes the deliveries on.
    fn drain(self, sink: SharedSink, bridge: &Bridge) -> Flow<'s, Delivered>;
}

impl<'s> Drain<'s> for Flow<'s, Delivered> {
    fn drain(self, sink: SharedSink, bridge: &Bridge) -> Flow<'s, Delivered> {
        let (scope, bridge) = (self.scope(), bridge.clone());
        self.unary_frontier(Exchange::new(|_: &Delivered| 0), "drain", move |_, info| {
            let first = scope.worker().index() == 0;
            let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let mut flight = Flight::<Vec<(Capability<Time>, Delivered)>, ()>::new(&bridge, "drain", operator);
            let mut waiting: Vec<(Capability<Time>, Delivered)> = Vec::new();
            let mut flushed: Time = 0;
            move |(input, frontier), output| {
                input.for_each_time(|time, data| {
                    for delivered in data.flat_map(|batch| batch.drain(..)) {
                        waiting.push((time.retain(output.output_index()), delivered));
                    }
                });
                while let Some((written, answer)) = flight.land() {
                    if let Err(fault) = answer {
                        bridge.pulse.fail(format!("a sink failed: {fault}"));
                        waiting.extend(written);
                        continue;
                    }
                    for (capability, delivered) in written {
                        output.session(&capability).give(delivered);
                    }
                }
                let upto = frontier.frontier().first().copied().unwrap_or(Time::MAX);
                if first
                    && flight.count() == 0
                    && bridge.pulse.failure().is_none()
                    && (!waiting.is_empty() || upto > flushed)
                {
                    flushed = upto;
                    waiting.sort_by_key(|(capability, _)| *capability.time());
                    let batch = std::mem::take(&mut waiting);
                    let detections =
                        batch.iter().map(|(at, delivered)| (*at.time(), delivered.detection.clone())).collect();
                    let sink = Arc::clone(&sink);
                    flight.start(batch, 1, blocking(move || write(&sink, detections, upto)));
                }
            }
        })
    }
}

fn write(sink: &SharedSink, detections: Vec<(Time, Detection)>, upto: Time) -> Result<(), Fault> {
    let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
    for group in detections.chunk_by(|a, b| a.0 == b.0) {
        let batch: Vec<Detection> = group.iter().map(|(_, detection)| detection.clone()).collect();
        sink.write(group[0].0, &batch)?;
    }
    sink.flush(upto)
}
