//! `detect`: pictures to faces, by views in batches of one input shape.
//!
//! The engine plans views of each picture, and a batch holds views of many pictures. Batches mix times, so every frame keeps
//! its own capability until all its views are answered. An engine's failure, timeout or panic is a loss to retry, never an
//! empty answer. Promise: every frame comes out again, and it is lost whole if one of its views fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use faceflow_core::detector::{Answer, Detection, Gathered, PictureView, View, scale_of};
use faceflow_core::executor::Executor;
use faceflow_core::in_flight::InFlight;
use faceflow_core::metrics::StageMetrics;
use faceflow_core::record::{DetectedFrame, Frame};
use faceflow_core::timer::Timer;
use faceflow_core::{Class, FailedRecord, Fault, Flow, Time};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::generic::operator::Operator;

use crate::detector_pool::{Answers, DetectorPool};
use crate::pixel_cache::PixelCache;
use crate::view_batcher::ViewBatcher;

/// Detects faces.
pub trait Detect<'s> {
    /// Looks at each frame's picture in `pixel_cache`. The pixels of a lost frame are removed.
    fn detect(
        self,
        pool: DetectorPool,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
    ) -> (Flow<'s, DetectedFrame>, Flow<'s, FailedRecord<Frame>>);
}

impl<'s> Detect<'s> for Flow<'s, Frame> {
    fn detect(
        self,
        pool: DetectorPool,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
    ) -> (Flow<'s, DetectedFrame>, Flow<'s, FailedRecord<Frame>>) {
        let (scope, executor) = (self.scope(), executor.clone());
        let detected: Flow<'s, Result<DetectedFrame, FailedRecord<Frame>>> =
            self.unary(Pipeline, "detect", move |_, info| {
                let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
                let mut in_flight = InFlight::<Vec<ViewId>, Answers>::new(&executor, "detect", Arc::clone(&operator));
                let mut timer = Timer::new(&executor, operator);
                let mut frames = FramesUnderWay::new(executor.metrics.stage("detect"));
                let mut batcher = ViewBatcher::new(pool.detector.batch_max(), pool.linger_ms);
                move |input, output| {
                    let now = executor.clock.now();
                    let mut answered = Vec::new();
                    input.for_each_time(|time, data| {
                        for frame in data.flat_map(|batch| batch.drain(..)) {
                            let picture = frame.pixels.and_then(|pixels| pixel_cache.get(pixels));
                            let views = pool.detector.plan(frame.content.width, frame.content.height);
                            let id = frames.begin(time.retain(output.output_index()), frame, views.clone());
                            for (n, view) in views.into_iter().enumerate() {
                                match picture.clone() {
                                    Some(picture) => {
                                        batcher.put(view.shape, ((id, n), PictureView { picture, view }), now);
                                    }
                                    None => answered.push(((id, n), Err(pixels_missing()))),
                                }
                            }
                        }
                    });
                    for batch in batcher.take_due(now) {
                        let (ids, views): (Vec<ViewId>, Vec<PictureView>) = batch.into_iter().unzip();
                        let look = pool.clone().look(views, executor.runtime.clone());
                        // What is under way is counted by frames, not by views.
                        in_flight.start(ids, 0, async move { Ok(look.await) });
                    }
                    while let Some((ids, answers)) = in_flight.next_done() {
                        let answers = answers.unwrap_or_else(|fault| vec![Err(fault); ids.len()]);
                        answered.extend(ids.into_iter().zip(answers));
                    }
                    for (id, answer) in answered {
                        if let Some(frame) = frames.put(id, answer) {
                            let (capability, concluded) = frame.conclude(&pool, &pixel_cache);
                            frames.count_end(&concluded);
                            output.session(&capability).give(concluded);
                        }
                    }
                    if let Some(until) = batcher.next_due() {
                        timer.wake_at(until);
                    }
                }
            });
        detected.ok_err(|detected| detected)
    }
}

/// A frame by its number, and which of its views.
type ViewId = (u64, usize);

fn pixels_missing() -> Fault {
    Fault::transient(Class::Panic, "pixels_missing", "the frame's pixels were removed too early")
}

/// Frames with views that are not answered yet.
struct FramesUnderWay {
    frames: HashMap<u64, FrameUnderWay>,
    next: u64,
    stage: Arc<StageMetrics>,
}

/// A frame with what its views were answered so far. Its capability is held for all of them.
struct FrameUnderWay {
    capability: Capability<Time>,
    frame: Frame,
    gathered: Gathered,
}

impl FramesUnderWay {
    fn new(stage: Arc<StageMetrics>) -> Self {
        Self { frames: HashMap::new(), next: 0, stage }
    }

    /// A frame is under way from here on, also while the batches of its views still form: a drain waits for it.
    fn begin(&mut self, capability: Capability<Time>, frame: Frame, views: Vec<View>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.frames.insert(id, FrameUnderWay { capability, frame, gathered: Gathered::new(views) });
        self.stage.in_flight.fetch_add(1, Relaxed);
        id
    }

    /// Takes what became of a view. Gives its frame out if that was the last one that it waited for.
    fn put(&mut self, (id, n): ViewId, answer: Result<Answer, Fault>) -> Option<FrameUnderWay> {
        let frame = self.frames.get_mut(&id).expect("a frame is under way until all its views are answered");
        if !frame.gathered.put(n, answer) {
            return None;
        }
        self.stage.in_flight.fetch_sub(1, Relaxed);
        self.frames.remove(&id)
    }

    fn count_end(&self, concluded: &Result<DetectedFrame, FailedRecord<Frame>>) {
        self.stage.ended.fetch_add(1, Relaxed);
        self.stage.failed.fetch_add(usize::from(concluded.is_err()), Relaxed);
    }
}

/// What is under way when its operator is dropped no longer counts.
impl Drop for FramesUnderWay {
    fn drop(&mut self) {
        self.stage.in_flight.fetch_sub(self.frames.len(), Relaxed);
    }
}

impl FrameUnderWay {
    /// The merged answer, or the loss that the failure of a view is.
    fn conclude(
        self,
        pool: &DetectorPool,
        pixel_cache: &PixelCache,
    ) -> (Capability<Time>, Result<DetectedFrame, FailedRecord<Frame>>) {
        let Self { capability, mut frame, gathered } = self;
        let (size, scale) = ((frame.content.width, frame.content.height), scale_of(gathered.views()));
        let concluded = match gathered.all() {
            Ok(answers) => {
                let detection = Detection::new(frame.content.id, size, pool.detector.merge(size, answers));
                Ok(DetectedFrame { frame, detection })
            }
            Err(fault) => {
                pixel_cache.remove(frame.pixels.take());
                frame.scale = scale;
                Err(FailedRecord { record: frame, fault })
            }
        };
        (capability, concluded)
    }
}

#[cfg(test)]
mod tests;
