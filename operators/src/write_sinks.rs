//! `write_sinks`: writes detections to a sink of the user's, and flushes it by the frontier.
//!
//! All detections of the cluster meet at one worker and are written on a blocking thread, one call at a time. Promise: a
//! detection goes on only after its sink has taken it, and a flush at `t` follows every write before `t`.

use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::blocking::blocking;
use faceflow_core::detector::Detection;
use faceflow_core::executor::Executor;
use faceflow_core::in_flight::InFlight;
use faceflow_core::kill_point::kill_point;
use faceflow_core::record::{DetectedFrame, TenantNumber};
use faceflow_core::sink::Sink;
use faceflow_core::{Fault, Flow, Time};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

/// A sink of a tenant that workers share.
pub type SharedSink = Arc<Mutex<Box<dyn Sink>>>;

/// Writes detections to sinks.
pub trait WriteSinks<'s> {
    /// Writes what belongs to `tenant` to its `sink`, and passes all frames on.
    fn write_to(self, tenant: TenantNumber, sink: SharedSink, executor: &Executor) -> Flow<'s, DetectedFrame>;
}

impl<'s> WriteSinks<'s> for Flow<'s, DetectedFrame> {
    fn write_to(self, tenant: TenantNumber, sink: SharedSink, executor: &Executor) -> Flow<'s, DetectedFrame> {
        let (scope, executor) = (self.scope(), executor.clone());
        self.unary_frontier(Exchange::new(|_: &DetectedFrame| 0), "write_sinks", move |_, info| {
            let first = scope.worker().index() == 0;
            let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let mut in_flight =
                InFlight::<Vec<(Capability<Time>, DetectedFrame)>, ()>::new(&executor, "write_sinks", operator);
            let mut waiting: Vec<(Capability<Time>, DetectedFrame)> = Vec::new();
            let mut flushed: Time = 0;
            move |(input, frontier), output| {
                input.for_each_time(|time, data| {
                    for delivered in data.flat_map(|batch| batch.drain(..)) {
                        if delivered.frame.job.tenant == tenant {
                            waiting.push((time.retain(output.output_index()), delivered));
                        } else {
                            output.session(&time).give(delivered);
                        }
                    }
                });
                while let Some((written, answer)) = in_flight.next_done() {
                    if let Err(fault) = answer {
                        executor.shutdown.fail(format!("a sink failed: {fault}"));
                        waiting.extend(written);
                        continue;
                    }
                    for (capability, delivered) in written {
                        output.session(&capability).give(delivered);
                    }
                }
                let upto = frontier.frontier().first().copied().unwrap_or(Time::MAX);
                if first
                    && in_flight.count() == 0
                    && executor.shutdown.failure().is_none()
                    && (!waiting.is_empty() || upto > flushed)
                {
                    flushed = upto;
                    waiting.sort_by_key(|(capability, _)| *capability.time());
                    let batch = std::mem::take(&mut waiting);
                    let detections =
                        batch.iter().map(|(at, delivered)| (*at.time(), delivered.detection.clone())).collect();
                    let sink = Arc::clone(&sink);
                    in_flight.start(batch, 1, blocking(move || write(&sink, detections, upto)));
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
    kill_point("sink.flush");
    sink.flush(upto)?;
    kill_point("sink.flushed");
    Ok(())
}
