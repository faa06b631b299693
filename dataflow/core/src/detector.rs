//! The detector's side of the pipeline: pictures in, answers out, and the type that only an answer can become.
//!
//! A detector plans views of a picture, looks at views of many pictures in batches, and merges the answers for the views of
//! one picture. Fallback, tiling, cascades and remote workers are detectors made of detectors. Promise: a picture whose views
//! were not all answered has no answer.

mod answer;
mod detection;
mod gathered;
mod pixel_buffer;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Future;
use crate::blocking::caught;
use crate::fault::{Class, Fault};

pub use answer::{Answer, EngineInfo, Face};
pub use detection::Detection;
pub use gathered::Gathered;
pub use pixel_buffer::{PixelBuffer, Region};
pub use view::{Pass, PictureView, Shape, View, scale_of};

/// What became of a batch. The outer error is the engine's: no view of the batch was looked at. An inner one is that view's
/// own.
pub type Inferred = Result<Vec<Result<Answer, Fault>>, Fault>;

/// Finds faces. A panic in [`Detector::infer`] is a fault of the batch; one in the other methods, which are called from worker
/// threads and have to be quick, is a bug that ends the run.
pub trait Detector: Send + Sync {
    /// Which engine and model this is.
    fn info(&self) -> EngineInfo;

    /// The views to look at of a picture of this size, at least one.
    fn plan(&self, width: u32, height: u32) -> Vec<View>;

    /// The largest batch that is worth building, and that was verified to give the same answers as single views.
    fn batch_max(&self) -> usize;

    /// Looks at a batch of views of one [`Shape`], of any pictures. As many answers as views, in the same order, each in
    /// pixels of its view's region. Several batches are under way at once. The future never blocks its thread: an engine
    /// that computes does so in [`crate::blocking::blocking`]. It ends when the work has ended, since until then the work
    /// counts as running, even if nobody waits for the answer any more.
    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred>;

    /// The answer for a picture of this size, from those for all its views, in the order of the plan. A detector that plans
    /// one view need not say how.
    fn merge(&self, _size: (u32, u32), mut answers: Vec<(View, Answer)>) -> Answer {
        let only = answers.pop().filter(|_| answers.is_empty());
        let (view, answer) = only.expect("a detector that plans several views says how their answers are merged");
        answer.in_picture(&view)
    }
}

/// One batch. A panic is a fault of the batch, and so are fewer or more answers than views.
pub async fn infer(detector: Arc<dyn Detector>, views: Vec<PictureView>) -> Inferred {
    let count = views.len();
    let answers = caught(async move { detector.infer(views).await }).await?;
    if answers.len() == count {
        return Ok(answers);
    }
    let detail = format!("the engine gave {} answers for {count} views", answers.len());
    Err(Fault::transient(Class::Engine, "engine_error", detail))
}

/// Looks at pictures, for callers that have them all: plans, looks in batches, merges. Each picture has its answer or its
/// fault, in the same order. A batch that fails is not tried by halves.
pub async fn detect(detector: &Arc<dyn Detector>, pictures: Vec<PixelBuffer>) -> Vec<Result<Answer, Fault>> {
    let mut gathered = Vec::with_capacity(pictures.len());
    let mut by_shape = BTreeMap::<Shape, Vec<_>>::new();
    for (at, picture) in pictures.iter().enumerate() {
        let views = detector.plan(picture.width, picture.height);
        for (n, view) in views.iter().enumerate() {
            let view = PictureView { picture: picture.clone(), view: view.clone() };
            by_shape.entry(view.view.shape).or_default().push(((at, n), view));
        }
        gathered.push(Gathered::new(views));
    }
    for batch in by_shape.values().flat_map(|views| views.chunks(detector.batch_max().max(1))) {
        let views = batch.iter().map(|(_, view)| view.clone()).collect();
        let answers = infer(Arc::clone(detector), views).await.unwrap_or_else(|fault| vec![Err(fault); batch.len()]);
        for (((at, n), _), answer) in batch.iter().zip(answers) {
            gathered[*at].put(*n, answer);
        }
    }
    let merged = |(gathered, picture): (Gathered, &PixelBuffer)| {
        Ok(detector.merge((picture.width, picture.height), gathered.all()?))
    };
    gathered.into_iter().zip(&pictures).map(merged).collect()
}
