//! `detect`: pictures to faces, in batches of one input shape.
//!
//! Batches mix times, so every frame keeps its own capability. A failing batch is halved until the poisonous frame is alone.
//! An engine's failure, timeout or panic is a loss to retry, never an empty answer. Promise: every frame comes out again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use faceflow_core::blocking::blocking;
use faceflow_core::detector::{Answer, Detection, Detector, Picture, Shape};
use faceflow_core::executor::Executor;
use faceflow_core::in_flight::InFlight;
use faceflow_core::record::{DetectedFrame, Frame};
use faceflow_core::shutdown::Shutdown;
use faceflow_core::timer::Timer;
use faceflow_core::{Class, Fault, Flow, Future, Lost, Time};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::generic::operator::Operator;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pixel_cache::PixelCache;

/// The engine as the operator uses it. Clones share it.
#[derive(Clone)]
pub struct DetectorPool {
    /// The engine.
    pub detector: Arc<dyn Detector>,
    /// Batches looked at at once in this process.
    pub permits: Arc<DetectorPermits>,
    /// How long one batch may take, in milliseconds.
    pub timeout_ms: u64,
    /// How long an incomplete batch waits for company, in milliseconds.
    pub linger_ms: u64,
    /// Hears of an engine that hangs.
    pub shutdown: Shutdown,
}

/// Calls of the engine that may run at once, and how many of them have outlived their deadline.
#[derive(Debug)]
pub struct DetectorPermits {
    free: Arc<Semaphore>,
    count: usize,
    overdue: AtomicUsize,
}

impl DetectorPermits {
    /// `count` permits, all free.
    pub fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), count, overdue: AtomicUsize::new(0) }
    }

    /// Waits for a slot. `None` if for all of `patience` every slot was held by a call past its deadline.
    async fn take(self: &Arc<Self>, patience: Duration) -> Option<Arc<DetectorPermit>> {
        loop {
            match tokio::time::timeout(patience, Arc::clone(&self.free).acquire_owned()).await {
                Ok(permit) => {
                    let _permit = permit.expect("the semaphore is never closed");
                    return Some(Arc::new(DetectorPermit {
                        _permit,
                        overdue: AtomicBool::new(false),
                        of: Arc::clone(self),
                    }));
                }
                Err(_) if self.overdue.load(Relaxed) >= self.count => return None,
                Err(_) => {}
            }
        }
    }
}

/// One call of the engine, until it has really ended.
struct DetectorPermit {
    _permit: OwnedSemaphorePermit,
    overdue: AtomicBool,
    of: Arc<DetectorPermits>,
}

impl DetectorPermit {
    fn is_overdue(&self) {
        if !self.overdue.swap(true, Relaxed) {
            self.of.overdue.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for DetectorPermit {
    fn drop(&mut self) {
        self.of.overdue.fetch_sub(usize::from(self.overdue.load(Relaxed)), Relaxed);
    }
}

/// Detects faces.
pub trait Detect<'s> {
    /// Looks at each frame's picture in `pixel_cache`. The pixels of a lost frame are taken down.
    fn detect(
        self,
        pool: DetectorPool,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
    ) -> (Flow<'s, DetectedFrame>, Flow<'s, Lost<Frame>>);
}

type Held = (Capability<Time>, Frame);
type Looked = Vec<Result<Answer, Fault>>;

impl<'s> Detect<'s> for Flow<'s, Frame> {
    fn detect(
        self,
        pool: DetectorPool,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
    ) -> (Flow<'s, DetectedFrame>, Flow<'s, Lost<Frame>>) {
        let (scope, executor) = (self.scope(), executor.clone());
        let looked: Flow<'s, Result<DetectedFrame, Lost<Frame>>> = self.unary(Pipeline, "detect", move |_, info| {
            let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let mut in_flight = InFlight::<Vec<Held>, Looked>::new(&executor, "detect", Arc::clone(&operator));
            let stage = executor.metrics.stage("detect");
            let mut timer = Timer::new(&executor, operator);
            let mut forming: BTreeMap<Shape, (Time, Vec<Held>)> = BTreeMap::new();
            let batch_max = pool.detector.batch_max().max(1);
            move |input, output| {
                let now = executor.clock.now();
                let mut full = Vec::new();
                input.for_each_time(|time, data| {
                    for frame in data.flat_map(|batch| batch.drain(..)) {
                        let shape = pool.detector.shape(frame.content.width, frame.content.height);
                        let (_, batch) = forming.entry(shape).or_insert_with(|| (now + pool.linger_ms, Vec::new()));
                        batch.push((time.retain(output.output_index()), frame));
                        // A frame whose batch still forms is under way: a drain waits for it.
                        stage.in_flight.fetch_add(1, Relaxed);
                        if batch.len() >= batch_max {
                            full.extend(forming.remove(&shape).map(|(_, batch)| batch));
                        }
                    }
                });
                full.extend(forming.extract_if(.., |_, (until, _)| *until <= now).map(|(_, (_, batch))| batch));
                for batch in full {
                    let pictures =
                        batch.iter().map(|(_, frame)| frame.pixels.and_then(|t| pixel_cache.get(t))).collect();
                    let weight = batch.len();
                    stage.in_flight.fetch_sub(weight, Relaxed);
                    in_flight.start(batch, weight, look(pool.clone(), pictures));
                }
                while let Some((batch, answers)) = in_flight.next_done() {
                    for (answer, (capability, frame)) in share(answers, &batch).into_iter().zip(batch) {
                        output.session(&capability).give(conclude(answer, frame, &pool, &pixel_cache));
                    }
                }
                if let Some(until) = forming.values().map(|(until, _)| *until).min() {
                    timer.wake_at(until);
                }
            }
        });
        looked.ok_err(|answer| answer)
    }
}

/// One answer for each frame of a batch.
fn share(answers: Result<Looked, Fault>, batch: &[Held]) -> Looked {
    match answers {
        Ok(answers) => answers,
        Err(fault) => vec![Err(fault); batch.len()],
    }
}

fn conclude(
    answer: Result<Answer, Fault>,
    mut frame: Frame,
    pool: &DetectorPool,
    pixel_cache: &PixelCache,
) -> Result<DetectedFrame, Lost<Frame>> {
    match answer {
        Ok(answer) => {
            let size = (frame.content.width, frame.content.height);
            let detection = Detection::new(frame.content.id, size, answer, pool.detector.info());
            Ok(DetectedFrame { frame, detection })
        }
        Err(fault) => {
            pixel_cache.remove(frame.pixels.take());
            frame.scale = Some(pool.detector.scale(frame.content.width, frame.content.height));
            Err(Lost { record: frame, fault })
        }
    }
}

/// Looks at pictures; a missing one is its frame's fault alone.
async fn look(pool: DetectorPool, pictures: Vec<Option<Picture>>) -> Result<Looked, Fault> {
    let present: Vec<Picture> = pictures.iter().flatten().cloned().collect();
    let mut answers = halving(pool, present).await.into_iter();
    let missing =
        || Err(Fault::transient(Class::Panic, "pixels_missing", "the frame's pixels were taken down too early"));
    let answer = |picture: Option<Picture>| match picture {
        Some(_) => answers.next().unwrap_or_else(missing),
        None => missing(),
    };
    Ok(pictures.into_iter().map(answer).collect())
}

/// Looks at a batch, and at its halves when it fails as a whole, until a failing picture is alone.
fn halving(pool: DetectorPool, mut batch: Vec<Picture>) -> Future<Looked> {
    Box::pin(async move {
        if batch.is_empty() {
            return vec![];
        }
        match attempt(&pool, batch.clone()).await {
            Ok(answers) => answers,
            Err(fault) if batch.len() == 1 => vec![Err(fault)],
            Err(fault) => {
                tracing::warn!(%fault, pictures = batch.len(), "a batch failed; looking at its halves");
                let second = batch.split_off(batch.len() / 2);
                let mut answers = halving(pool.clone(), batch).await;
                answers.extend(halving(pool, second).await);
                answers
            }
        }
    })
}

/// One call of the engine, within its deadline, with as many answers as pictures.
async fn attempt(pool: &DetectorPool, batch: Vec<Picture>) -> Result<Looked, Fault> {
    let deadline = Duration::from_millis(pool.timeout_ms);
    let Some(slot) = pool.permits.take(deadline).await else {
        pool.shutdown.fail(format!(
            "the engine hangs: each of its {} actions has been running for more than {} ms (detect.timeout_ms); run the \
             same command again to go on",
            pool.permits.count, pool.timeout_ms
        ));
        return std::future::pending().await;
    };
    let (detector, count) = (Arc::clone(&pool.detector), batch.len());
    let held = Arc::clone(&slot);
    let call = blocking(move || {
        // The slot is free only when the call has really ended, not when its deadline has passed.
        let _held = held;
        detector.detect(&batch)
    });
    let deadline = Duration::from_millis(pool.timeout_ms);
    let answers = tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
        slot.is_overdue();
        let detail = format!("no answer for {count} pictures within {} ms (detect.timeout_ms)", pool.timeout_ms);
        Err(Fault::transient(Class::Timeout, "engine_timeout", detail))
    })?;
    if answers.len() == count {
        return Ok(answers);
    }
    let detail = format!("the engine gave {} answers for {count} pictures", answers.len());
    Err(Fault::transient(Class::Engine, "engine_error", detail))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use faceflow_core::detector::{EngineInfo, Face};
    use faceflow_core::executor::Executor;
    use faceflow_core::record::{Content, ContentId, Phash};
    use faceflow_core::testing::simulate;
    use timely::dataflow::operators::vec::Map;
    use timely::dataflow::operators::{Concat, Probe, ToStream};
    use timely::dataflow::{ProbeHandle, Scope};

    use super::*;

    /// Sees one face per picture. Sizes of batches are noted; a picture 13 pixels wide poisons its batch, at 666 it panics.
    struct Touchy {
        batches: Arc<Mutex<Vec<usize>>>,
    }

    impl Detector for Touchy {
        fn info(&self) -> EngineInfo {
            EngineInfo { engine: "touchy".into(), model: "none".into(), model_sha256: String::new() }
        }

        fn shape(&self, width: u32, _height: u32) -> Shape {
            Shape { width: if width == 64 { 64 } else { 32 }, height: 32 }
        }

        fn batch_max(&self) -> usize {
            4
        }

        fn detect(&self, batch: &[Picture]) -> Result<Vec<Result<Answer, Fault>>, Fault> {
            self.batches.lock().expect("not poisoned").push(batch.len());
            let has = |width| batch.iter().any(|picture| picture.width == width);
            if has(13) {
                return Err(Fault::transient(Class::Engine, "engine_error", "poison"));
            }
            assert!(!has(666), "the beast");
            let face = Face { bbox: [0.0, 0.0, 1.0, 1.0], score: 1.0, quality: 0.0, landmarks: None };
            Ok(batch.iter().map(|_| Ok(Answer { faces: vec![face.clone()], scale: 1.0, degraded: false })).collect())
        }
    }

    fn frame(width: u32, n: u8) -> Frame {
        let phash = Phash { bits: 0, distinctive: false };
        let id = ContentId([n; 32]);
        let content = Content { id, bytes: 1, format: "png".into(), width, height: 1, phash };
        Frame { content, owner: 0, pixels: None, attempts: 0, spared: 0, weak: false, generation: 0, scale: None }
    }

    /// Width and faces, or the reason of the loss.
    type Line = (u32, Result<usize, String>);
    type Log = Arc<Mutex<Vec<Line>>>;

    /// What becomes of pictures of these widths, and the batches that the engine saw.
    fn outcome(widths: &'static [u32]) -> (Vec<Line>, Vec<usize>) {
        let (log, batches) = (Log::default(), Arc::new(Mutex::new(Vec::new())));
        let touchy = Touchy { batches: Arc::clone(&batches) };
        let room = Arc::new(PixelCache::new(100, 1 << 30));
        let (seen, cached) = (Arc::clone(&log), Arc::clone(&room));
        simulate(100_000, move |scope, executor| build(scope, executor, (widths, touchy, cached, seen)));
        let mut log = std::mem::take(&mut *log.lock().expect("not poisoned"));
        log.sort();
        let batches = batches.lock().expect("not poisoned").clone();
        let lost = log.iter().filter(|(_, answer)| answer.is_err()).count();
        assert_eq!(room.count(), widths.len() - lost, "pixels of lost frames are taken down, others are still needed");
        (log, batches)
    }

    type Set = (&'static [u32], Touchy, Arc<PixelCache>, Log);

    fn build<'s>(scope: Scope<'s, Time>, executor: &Executor, (widths, touchy, room, log): Set) -> ProbeHandle<Time> {
        let hang = |(n, width): (usize, &u32)| {
            let picture = Picture { width: *width, height: 1, rgb: vec![0; *width as usize * 3].into() };
            let rights =
                futures::executor::block_on(async { (room.slot().await, room.reserve(u64::from(*width) * 3).await) });
            Frame { pixels: Some(room.insert(picture, rights)), ..frame(*width, n as u8) }
        };
        let frames: Vec<Frame> = widths.iter().enumerate().map(hang).collect();
        let permits = Arc::new(DetectorPermits::new(1));
        let shutdown = executor.shutdown.clone();
        let pool = DetectorPool { detector: Arc::new(touchy), permits, timeout_ms: 5_000, linger_ms: 20, shutdown };
        let (done, lost) = frames.to_stream(scope).container::<Vec<_>>().detect(pool, room, executor);
        let done = done.map(|done| (done.frame.content.width, Ok(done.detection.faces().len())));
        let lost = lost.map(|lost| (lost.record.content.width, Err(lost.fault.reason)));
        let all = done.concat(lost).map(move |line| log.lock().expect("not poisoned").push(line));
        all.probe().0
    }

    #[test]
    fn batches_form_by_shape_and_an_incomplete_one_leaves_after_lingering() {
        let (log, mut batches) = outcome(&[1, 2, 64, 3, 4, 5]);
        assert_eq!(log, [1, 2, 3, 4, 5, 64].map(|width| (width, Ok(1))));
        batches.sort();
        assert_eq!(batches, [1, 1, 4]);
    }

    #[test]
    fn a_poisonous_frame_ends_up_alone_and_the_others_are_answered() {
        let (log, batches) = outcome(&[1, 2, 13, 4]);
        assert_eq!(log, [(1, Ok(1)), (2, Ok(1)), (4, Ok(1)), (13, Err("engine_error".into()))]);
        assert_eq!(batches, [4, 2, 2, 1, 1]);
    }

    #[test]
    fn a_panic_of_the_engine_is_a_fault_of_its_frame() {
        let (log, _) = outcome(&[1, 666]);
        assert_eq!(log, [(1, Ok(1)), (666, Err("panic".into()))]);
    }

    /// Answers only when the test is over.
    struct Stuck(Mutex<std::sync::mpsc::Receiver<()>>);

    impl Detector for Stuck {
        fn info(&self) -> EngineInfo {
            EngineInfo { engine: "stuck".into(), model: "none".into(), model_sha256: String::new() }
        }

        fn shape(&self, width: u32, height: u32) -> Shape {
            Shape { width, height }
        }

        fn batch_max(&self) -> usize {
            1
        }

        fn detect(&self, _: &[Picture]) -> Result<Vec<Result<Answer, Fault>>, Fault> {
            let gone = self.0.lock().expect("not poisoned").recv();
            Err(Fault::transient(Class::Engine, "late", format!("{gone:?}")))
        }
    }

    #[tokio::test]
    async fn an_engine_that_hangs_is_a_timeout_keeps_its_slot_and_fails_the_process_when_it_has_them_all() {
        let (over, wait) = std::sync::mpsc::channel();
        let (permits, shutdown) = (Arc::new(DetectorPermits::new(1)), Shutdown::default());
        let detector = Arc::new(Stuck(Mutex::new(wait)));
        let pool = DetectorPool {
            detector,
            permits: Arc::clone(&permits),
            timeout_ms: 30,
            linger_ms: 0,
            shutdown: shutdown.clone(),
        };
        let picture = || vec![Picture { width: 1, height: 1, rgb: vec![0; 3].into() }];
        let answers = halving(pool.clone(), picture()).await;
        let reasons: Vec<_> = answers.into_iter().map(|answer| answer.expect_err("no answer").reason).collect();
        assert_eq!((reasons, permits.free.available_permits()), (vec!["engine_timeout".to_owned()], 0));
        assert_eq!(shutdown.failure(), None, "one timeout is a loss to retry");

        let next = halving(pool, picture());
        assert!(tokio::time::timeout(Duration::from_millis(300), next).await.is_err(), "nothing is told a lie");
        assert!(shutdown.failure().is_some_and(|why| why.contains("the engine hangs")), "{:?}", shutdown.failure());
        drop(over);
        let back = permits.take(Duration::from_secs(60)).await;
        assert!(back.is_some(), "the engine returned and gave its slot back");
        assert_eq!(permits.overdue.load(Relaxed), 0);
    }
}
