//! A detector that does what a script says: for tests of operators, for simulation, and for trying things without a model.
//!
//! It sees the rectangles of one colour that [`picture`] paints, so its answer is a function of the pixels alone, and it
//! fails, panics or hangs exactly when the script says so.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use faceflow_core::blocking::blocking;
use faceflow_core::detector::{Answer, Detector, EngineInfo, Face, Inferred, PictureView, PixelBuffer, Shape, View};
use faceflow_core::{Fault, Future};
use sha2::{Digest, Sha256};

/// The colour that is a face, give or take what a lossy codec does to it.
pub const MARKER: [u8; 3] = [255, 0, 255];

/// Rectangles with a smaller side are noise.
const SIDE_MIN: u32 = 4;

/// A picture on mid grey with a face in each box `[x1, y1, x2, y2]` (pixels, x2 and y2 exclusive, clipped).
pub fn picture(width: u32, height: u32, faces: &[[u32; 4]]) -> PixelBuffer {
    let mut rgb = vec![128; width as usize * height as usize * 3];
    for [x1, y1, x2, y2] in faces.iter().copied() {
        for y in y1..y2.min(height) {
            let at = |x: u32| (y as usize * width as usize + x.min(width) as usize) * 3;
            rgb[at(x1)..at(x2).max(at(x1))].chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&MARKER));
        }
    }
    PixelBuffer { width, height, rgb: rgb.into() }
}

/// Tells pictures apart: a hash of size and pixels.
pub fn fingerprint(picture: &PixelBuffer) -> u64 {
    let hash = Sha256::new().chain_update(picture.width.to_le_bytes()).chain_update(picture.height.to_le_bytes());
    let digest = hash.chain_update(&picture.rgb).finalize();
    u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
}

/// What happens when a picture, or the region of one that a view shows, is looked at.
#[derive(Clone)]
pub enum Effect {
    /// That picture gets this fault, the rest of its batch is answered.
    Fail(Fault),
    /// No face is seen, whatever there is.
    SeeNothing,
    /// The whole batch gets this fault.
    Poison(Fault),
    /// The detector panics with these words.
    Panic(String),
    /// The call waits for the latch, but no longer than this; then it goes on as if nothing had happened.
    Wait(Arc<Latch>, Duration),
}

/// Opens once; who waits for it goes on then.
#[derive(Default)]
pub struct Latch {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Latch {
    /// Lets everybody through, now and later.
    pub fn open(&self) {
        *self.open.lock().expect("nothing panics under the latch's lock") = true;
        self.opened.notify_all();
    }

    fn wait(&self, at_most: Duration) {
        let open = self.open.lock().expect("nothing panics under the latch's lock");
        drop(self.opened.wait_timeout_while(open, at_most, |open| !*open));
    }
}

type Choice = dyn Fn(&PixelBuffer) -> bool + Send + Sync;

struct Rule {
    applies: Box<Choice>,
    left: AtomicUsize,
    effect: Effect,
}

/// The scripted detector. Without rules it never fails.
pub struct ScriptedDetector {
    name: &'static str,
    batch_max: usize,
    side: u32,
    rules: Vec<Rule>,
    batches: Mutex<Vec<usize>>,
}

impl Default for ScriptedDetector {
    fn default() -> Self {
        Self::new(8)
    }
}

impl ScriptedDetector {
    /// Batches of at most `batch_max` pictures; shapes are sides padded to multiples of 32.
    pub fn new(batch_max: usize) -> Self {
        Self { name: "scripted", batch_max, side: 32, rules: Vec::new(), batches: Mutex::default() }
    }

    /// The same engine by another name.
    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// The first `times` times that a picture for which `applies` is looked at, `effect` happens.
    pub fn when(
        mut self,
        applies: impl Fn(&PixelBuffer) -> bool + Send + Sync + 'static,
        times: usize,
        effect: Effect,
    ) -> Self {
        self.rules.push(Rule { applies: Box::new(applies), left: AtomicUsize::new(times), effect });
        self
    }

    /// [`ScriptedDetector::when`] for one picture.
    pub fn when_seen(self, picture: &PixelBuffer, times: usize, effect: Effect) -> Self {
        let wanted = fingerprint(picture);
        self.when(move |picture| fingerprint(picture) == wanted, times, effect)
    }

    /// The sizes of the batches so far, in the order in which they came.
    pub fn batches(&self) -> Vec<usize> {
        self.batches.lock().expect("nothing panics under the log's lock").clone()
    }

    /// The first effect that is due for this picture; it counts as done.
    fn due(&self, picture: &PixelBuffer) -> Option<&Effect> {
        let spend = |rule: &&Rule| rule.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        self.rules.iter().filter(|rule| (rule.applies)(picture)).find(spend).map(|rule| &rule.effect)
    }

    fn look_at(&self, views: &[PictureView]) -> Inferred {
        self.batches.lock().expect("nothing panics under the log's lock").push(views.len());
        views.iter().map(|view| self.infer_view(view)).collect()
    }

    fn infer_view(&self, view: &PictureView) -> Result<Result<Answer, Fault>, Fault> {
        let picture = match view.pixels() {
            Ok(picture) => picture,
            Err(fault) => return Ok(Err(fault)),
        };
        let mut seen = faces(&picture);
        match self.due(&picture) {
            Some(Effect::Fail(fault)) => return Ok(Err(fault.clone())),
            Some(Effect::Poison(fault)) => return Err(fault.clone()),
            Some(Effect::Panic(words)) => panic!("{words}"),
            Some(Effect::SeeNothing) => seen.clear(),
            Some(Effect::Wait(latch, at_most)) => latch.wait(*at_most),
            None => {}
        }
        Ok(Ok(Answer::of_view(&view.view, self.info(), seen)))
    }
}

impl Detector for ScriptedDetector {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: self.name.into(), model: "markers".into(), model_sha256: String::new() }
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        let shape = Shape { width: width.next_multiple_of(self.side), height: height.next_multiple_of(self.side) };
        vec![View::full((width, height), shape, 1.0)]
    }

    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(blocking(move || self.look_at(&views)))
    }
}

/// The rectangles of the marker's colour, larger ones first: from each unseen marked pixel to the right while marked,
/// then down while whole lines are.
fn faces(picture: &PixelBuffer) -> Vec<Face> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let marked: Vec<bool> =
        picture.rgb.chunks_exact(3).map(|pixel| pixel[0] > 180 && pixel[1] < 90 && pixel[2] > 180).collect();
    let mut seen = vec![false; marked.len()];
    let mut faces = Vec::new();
    for start in 0..marked.len() {
        if !marked[start] || seen[start] {
            continue;
        }
        let (x, y) = (start % width, start / width);
        let right = (x..width).find(|right| !marked[y * width + right]).unwrap_or(width);
        let full = |line: &usize| marked[line * width + x..line * width + right].iter().all(|marked| *marked);
        let bottom = (y..height).find(|line| !full(line)).unwrap_or(height);
        (y..bottom).for_each(|line| seen[line * width + x..line * width + right].fill(true));
        if (right - x).min(bottom - y) >= SIDE_MIN as usize {
            faces.push(face([x, y, right, bottom].map(|side| side as f32)));
        }
    }
    faces.sort_by(|a, b| b.score.total_cmp(&a.score));
    faces
}

fn face(bbox: [f32; 4]) -> Face {
    let (width, height) = (bbox[2] - bbox[0], bbox[3] - bbox[1]);
    let at = |x: f32, y: f32| [bbox[0] + x * width, bbox[1] + y * height];
    let landmarks = [at(0.3, 0.4), at(0.7, 0.4), at(0.5, 0.6), at(0.35, 0.8), at(0.65, 0.8)];
    let area = width * height;
    Face { bbox, score: area / (area + 100.0), quality: 0.0, landmarks: Some(landmarks) }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use faceflow_core::Class;

    use super::*;

    fn views(scripted: &ScriptedDetector, pictures: &[PixelBuffer]) -> Vec<PictureView> {
        let view = |picture: &PixelBuffer| {
            let view = scripted.plan(picture.width, picture.height).remove(0);
            PictureView { picture: picture.clone(), view }
        };
        pictures.iter().map(view).collect()
    }

    fn detect(scripted: &ScriptedDetector, pictures: &[PixelBuffer]) -> Inferred {
        scripted.look_at(&views(scripted, pictures))
    }

    fn engine_error() -> Fault {
        Fault::transient(Class::Engine, "engine_error", "as scripted")
    }

    #[test]
    fn painted_faces_are_seen_largest_first() {
        let two = picture(100, 80, &[[10, 10, 20, 20], [40, 5, 80, 60]]);
        let answer = detect(&ScriptedDetector::default(), &[two]).expect("answers").remove(0).expect("looked");
        let boxes: Vec<_> = answer.faces.iter().map(|face| face.bbox).collect();
        assert_eq!(boxes, [[40.0, 5.0, 80.0, 60.0], [10.0, 10.0, 20.0, 20.0]]);
        assert!(answer.faces.iter().all(|face| (0.0..1.0).contains(&face.score)));
        assert_eq!(faces(&picture(50, 50, &[])), []);
        assert_eq!(faces(&picture(50, 50, &[[40, 40, 90, 90]])).len(), 1, "clipped at the edge");
    }

    #[test]
    fn a_picture_fails_as_often_as_scripted() {
        let (good, bad) = (picture(32, 32, &[]), picture(32, 32, &[[0, 0, 9, 9]]));
        let scripted = ScriptedDetector::default().when_seen(&bad, 2, Effect::Fail(engine_error()));
        for _ in 0..2 {
            let answers = detect(&scripted, &[good.clone(), bad.clone()]).expect("the batch is fine");
            assert_eq!((answers[0].is_ok(), &answers[1]), (true, &Err(engine_error())));
        }
        assert!(detect(&scripted, std::slice::from_ref(&bad)).expect("the batch is fine")[0].is_ok());
        assert_eq!(scripted.batches(), [2, 2, 1]);
    }

    #[test]
    fn poison_panic_and_waiting() {
        let wide = |picture: &PixelBuffer| picture.width == 64;
        let latch = Arc::new(Latch::default());
        let scripted = ScriptedDetector::default()
            .when(wide, 1, Effect::Poison(engine_error()))
            .when(wide, 1, Effect::Panic("at the disco".into()))
            .when(wide, 1, Effect::Wait(Arc::clone(&latch), Duration::from_secs(60)))
            .when(wide, 1, Effect::Wait(Arc::default(), Duration::from_millis(1)));
        let batch = [picture(32, 32, &[]), picture(64, 32, &[])];
        assert_eq!(detect(&scripted, &batch), Err(engine_error()));
        assert!(catch_unwind(AssertUnwindSafe(|| detect(&scripted, &batch))).is_err());
        std::thread::scope(|scope| {
            let call = scope.spawn(|| detect(&scripted, &batch));
            latch.open();
            assert!(call.join().expect("no panic").is_ok());
        });
        assert!(detect(&scripted, &batch).is_ok(), "waits no longer than it may");
    }
}
