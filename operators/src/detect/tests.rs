//! The operator with an engine that fails by the pictures' widths.

use std::sync::Mutex;

use faceflow_core::Future;
use faceflow_core::blocking::blocking;
use faceflow_core::detector::{Detector, EngineInfo, Face, Inferred, Pass, PixelBuffer, Region, Shape};
use faceflow_core::record::{Content, ContentId, JobId, PerceptualHash};
use faceflow_core::testing::simulate;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, Probe, ToStream};
use timely::dataflow::{ProbeHandle, Scope};

use super::*;
use crate::detector_pool::DetectorPermits;

/// Sees one face per view. Sizes of batches are noted; a view 13 pixels wide poisons its batch, at 666 it panics. Pictures of 26
/// and 100 pixels are looked at a second time, at their right half, in a shape of its own.
struct Touchy {
    batches: Arc<Mutex<Vec<usize>>>,
}

impl Detector for Touchy {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: "touchy".into(), model: "none".into(), model_sha256: String::new() }
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        let width_px = if width == 64 { 64 } else { 32 };
        let mut views = vec![View::full((width, height), Shape { width: width_px, height: 32 }, 1.0)];
        if [26, 100].contains(&width) {
            let region = Region { x: width / 2, y: 0, width: width / 2, height };
            let shape = Shape { width: 16, height: 16 };
            views.push(View { pass: Pass::named("tiles"), region, shape, scale: 2.0 });
        }
        views
    }

    fn batch_max(&self) -> usize {
        4
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(blocking(move || self.look(&views)))
    }

    fn merge(&self, _: (u32, u32), answers: Vec<(View, Answer)>) -> Answer {
        let seen = answers.into_iter().map(|(view, answer)| answer.in_picture(&view));
        seen.reduce(|mut all, other| {
            all.faces.extend(other.faces);
            all.passes.extend(other.passes);
            all
        })
        .expect("at least one view")
    }
}

impl Touchy {
    fn look(&self, views: &[PictureView]) -> Inferred {
        self.batches.lock().expect("not poisoned").push(views.len());
        let has = |width| views.iter().any(|view| view.view.region.width == width);
        if has(13) {
            return Err(Fault::transient(Class::Engine, "engine_error", "poison"));
        }
        assert!(!has(666), "the beast");
        let face = Face { bbox: [0.0, 0.0, 1.0, 1.0], score: 1.0, quality: 0.0, landmarks: None };
        Ok(views.iter().map(|view| Ok(Answer::of_view(&view.view, self.info(), vec![face.clone()]))).collect())
    }
}

fn frame(width: u32, n: u8) -> Frame {
    let hashes = PerceptualHash::dct64(0, false).into();
    let id = ContentId([n; 32]);
    let content = Content { id, bytes: 1, format: "png".into(), width, height: 1, hashes };
    Frame {
        job: JobId::FIRST,
        content,
        owner: 0,
        pixels: None,
        attempts: 0,
        uncounted: 0,
        has_degraded: false,
        opted_out: None,
        generation: 0,
        scale: None,
    }
}

/// Width and the left edges of the faces, or the reason of the loss.
type Line = (u32, Result<Vec<u32>, String>);
type Log = Arc<Mutex<Vec<Line>>>;

/// What becomes of pictures of these widths, and the batches that the engine saw.
fn outcome(widths: &'static [u32]) -> (Vec<Line>, Vec<usize>) {
    let (log, batches) = (Log::default(), Arc::new(Mutex::new(Vec::new())));
    let touchy = Touchy { batches: Arc::clone(&batches) };
    let cache = Arc::new(PixelCache::new(100, 1 << 30));
    let (seen, shared) = (Arc::clone(&log), Arc::clone(&cache));
    let frames = widths.iter().zip(0..).map(|(width, n)| cached(&cache, *width, n)).collect();
    simulate(100_000, move |scope, executor| detected(frames, scope, executor, (touchy, shared, seen)));
    let mut log = std::mem::take(&mut *log.lock().expect("not poisoned"));
    log.sort();
    let batches = batches.lock().expect("not poisoned").clone();
    let lost = log.iter().filter(|(_, answer)| answer.is_err()).count();
    assert_eq!(cache.count(), widths.len() - lost, "pixels of lost frames are removed, others are still needed");
    (log, batches)
}

fn cached(cache: &PixelCache, width: u32, n: u8) -> Frame {
    let picture = PixelBuffer { width, height: 1, rgb: vec![0; width as usize * 3].into() };
    let room = futures::executor::block_on(cache.reserve(JobId::FIRST.tenant, u64::from(width) * 3));
    Frame { pixels: Some(cache.insert(picture, room)), ..frame(width, n) }
}

/// Detects the frames, and notes in the log what becomes of them.
fn detected<'s>(
    frames: Vec<Frame>,
    scope: Scope<'s, Time>,
    executor: &Executor,
    (touchy, cache, log): (Touchy, Arc<PixelCache>, Log),
) -> ProbeHandle<Time> {
    let permits = Arc::new(DetectorPermits::new(1));
    let shutdown = executor.shutdown.clone();
    let pool = DetectorPool { detector: Arc::new(touchy), permits, timeout_ms: 5_000, linger_ms: 20, shutdown };
    let (done, lost) = frames.to_stream(scope).container::<Vec<_>>().detect(pool, cache, executor);
    let lefts = |faces: &[Face]| faces.iter().map(|face| face.bbox[0] as u32).collect();
    let done = done.map(move |done| (done.frame.content.width, Ok(lefts(done.detection.faces()))));
    let lost = lost.map(|lost| (lost.record.content.width, Err(lost.fault.reason)));
    let all = done.concat(lost).map(move |line| log.lock().expect("not poisoned").push(line));
    all.probe().0
}

#[test]
fn batches_form_by_shape_and_an_incomplete_one_leaves_after_lingering() {
    let (log, mut batches) = outcome(&[1, 2, 64, 3, 4, 5]);
    assert_eq!(log, [1, 2, 3, 4, 5, 64].map(|width| (width, Ok(vec![0]))));
    batches.sort();
    assert_eq!(batches, [1, 1, 4]);
}

#[test]
fn a_poisonous_frame_ends_up_alone_and_the_others_are_answered() {
    let (log, batches) = outcome(&[1, 2, 13, 4]);
    assert_eq!(log, [(1, Ok(vec![0])), (2, Ok(vec![0])), (4, Ok(vec![0])), (13, Err("engine_error".into()))]);
    assert_eq!(batches, [4, 2, 2, 1, 1]);
}

#[test]
fn a_panic_of_the_engine_is_a_fault_of_its_frame() {
    let (log, _) = outcome(&[1, 666]);
    assert_eq!(log, [(1, Ok(vec![0])), (666, Err("panic".into()))]);
}

#[test]
fn views_are_batched_over_pictures_and_a_picture_waits_for_all_of_its_own() {
    let (log, mut batches) = outcome(&[100, 1, 100, 2]);
    assert_eq!(log, [(1, Ok(vec![0])), (2, Ok(vec![0])), (100, Ok(vec![0, 50])), (100, Ok(vec![0, 50]))]);
    batches.sort();
    assert_eq!(batches, [2, 4], "the second looks at both pictures share a batch");
}

#[test]
fn a_frame_is_lost_whole_if_one_of_its_views_fails() {
    let (log, _) = outcome(&[100, 26, 1]);
    assert_eq!(log, [(1, Ok(vec![0])), (26, Err("engine_error".into())), (100, Ok(vec![0, 50]))]);
}

#[test]
fn a_frame_without_pixels_is_lost_without_a_look() {
    let touchy = Touchy { batches: Arc::default() };
    let (batches, log, cache) = (Arc::clone(&touchy.batches), Log::default(), Arc::new(PixelCache::new(1, 1)));
    let seen = Arc::clone(&log);
    simulate(100_000, move |scope, executor| detected(vec![frame(100, 0)], scope, executor, (touchy, cache, seen)));
    assert_eq!(*log.lock().expect("not poisoned"), [(100, Err("pixels_missing".into()))]);
    assert_eq!(*batches.lock().expect("not poisoned"), [] as [usize; 0]);
}
