//! An engine that looks at regions of a picture besides the whole of it, and what several looks have seen, merged.

use std::sync::Arc;

use faceflow_core::Future;
use faceflow_core::detector::{Answer, Detector, EngineInfo, Inferred, Pass, PictureView, Region, View, scale_of};

use crate::postprocess::{Nms, finish};

/// Names the regions of a picture of a size that are looked at once more, each with its pass.
pub type TilePlanner = dyn Fn(u32, u32) -> Vec<(Pass, Region)> + Send + Sync;

/// Looks at whole pictures as its engine does, and at further regions of them in the same way. A face that several looks have
/// seen is reported once, as the look with the best score saw it.
pub struct MultiPassDetector {
    engine: Arc<dyn Detector>,
    regions: Box<TilePlanner>,
    nms: Nms,
}

impl MultiPassDetector {
    /// `engine` with further `regions`; of two boxes whose intersection over union is larger than `iou` only the better one is
    /// kept.
    pub fn new(
        engine: Arc<dyn Detector>,
        iou: f32,
        regions: impl Fn(u32, u32) -> Vec<(Pass, Region)> + Send + Sync + 'static,
    ) -> Self {
        Self { engine, regions: Box::new(regions), nms: Nms { iou, inclusive: 0.0 } }
    }
}

impl Detector for MultiPassDetector {
    fn info(&self) -> EngineInfo {
        self.engine.info()
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        let mut views = self.engine.plan(width, height);
        for (pass, region) in (self.regions)(width, height) {
            let inside = |view: View| View {
                pass: pass.clone(),
                region: Region { x: region.x + view.region.x, y: region.y + view.region.y, ..view.region },
                ..view
            };
            views.extend(self.engine.plan(region.width, region.height).into_iter().map(inside));
        }
        views
    }

    fn batch_max(&self) -> usize {
        self.engine.batch_max()
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        Arc::clone(&self.engine).infer(views)
    }

    fn merge(&self, size: (u32, u32), answers: Vec<(View, Answer)>) -> Answer {
        merge(self.nms, size, answers)
    }
}

/// One answer from those for the views of a picture: the faces of all in the picture's pixels, each once. It is degraded if one
/// of them is, and names that one's engine. A single answer stays as it is.
fn merge(nms: Nms, (width, height): (u32, u32), answers: Vec<(View, Answer)>) -> Answer {
    let scale = scale_of(answers.iter().map(|(view, _)| view));
    let mut answers: Vec<Answer> = answers.into_iter().map(|(view, answer)| answer.in_picture(&view)).collect();
    if answers.len() == 1 {
        return answers.remove(0);
    }
    let named = answers.iter().find(|answer| answer.degraded).or(answers.first()).expect("a picture has views");
    let (engine, degraded) = (named.engine.clone(), named.degraded);
    let (mut faces, mut passes) = (Vec::new(), Vec::new());
    for answer in answers {
        faces.extend(answer.faces);
        passes.extend(answer.passes);
    }
    let mut seen = std::collections::HashSet::new();
    passes.retain(|pass| seen.insert(pass.clone()));
    let faces = finish(nms.keep_best(faces), [width, height]);
    Answer { faces, engine, passes, scale: scale.expect("a picture has views"), degraded }
}

#[cfg(test)]
mod tests {
    use faceflow_core::detector::{PixelBuffer, detect};
    use faceflow_core::testing::wait_for;
    use faceflow_core::{Class, Fault};

    use super::*;
    use crate::fallback::FallbackDetector;
    use crate::scripted::{Effect, ScriptedDetector, picture};

    const TILES: Pass = Pass::named("tiles");

    /// The two halves of a picture, which overlap by 20 pixels.
    fn halves(width: u32, height: u32) -> Vec<(Pass, Region)> {
        let half = width / 2 + 10;
        [0, width - half].map(|x| (TILES, Region { x, y: 0, width: half, height })).to_vec()
    }

    fn tiled(engine: impl Detector + 'static) -> Arc<dyn Detector> {
        Arc::new(MultiPassDetector::new(Arc::new(engine), 0.4, halves))
    }

    fn detect_one(detector: &Arc<dyn Detector>, picture: &PixelBuffer) -> Result<Answer, Fault> {
        wait_for(detect(detector, vec![picture.clone()])).remove(0)
    }

    #[test]
    fn what_several_views_saw_is_one_answer_in_the_pictures_pixels() {
        let seen = picture(200, 80, &[[150, 10, 190, 50], [95, 20, 105, 30]]);
        let (alone, answer) = (
            detect_one(&(Arc::new(ScriptedDetector::default()) as Arc<dyn Detector>), &seen).expect("an answer"),
            detect_one(&tiled(ScriptedDetector::default()), &seen).expect("an answer"),
        );
        // The first face lies in the whole picture and the right half, the second one in all three views.
        let boxes = |answer: &Answer| answer.faces.iter().map(|face| face.bbox).collect::<Vec<_>>();
        assert_eq!(boxes(&answer), [[150.0, 10.0, 190.0, 50.0], [95.0, 20.0, 105.0, 30.0]]);
        assert_eq!(boxes(&answer), boxes(&alone));
        let points = |answer: &Answer| answer.faces[0].landmarks.expect("landmarks").map(|point| point.map(f32::round));
        assert_eq!(points(&answer), points(&alone), "landmarks move with their box");
        assert_eq!(answer.passes, [Pass::FULL, TILES]);
        assert!(!answer.degraded && answer.engine == alone.engine);
    }

    #[test]
    fn what_only_a_further_view_sees_is_added() {
        let seen = picture(200, 80, &[[150, 10, 190, 50]]);
        let whole = |picture: &PixelBuffer| picture.width == 200;
        let blind = ScriptedDetector::default().when(whole, 1, Effect::SeeNothing);
        let answer = detect_one(&tiled(blind), &seen).expect("an answer");
        assert_eq!(answer.faces.len(), 1);
        assert_eq!(answer.faces[0].bbox, [150.0, 10.0, 190.0, 50.0]);
    }

    #[test]
    fn a_picture_with_a_view_that_fails_has_no_answer() {
        let seen = picture(200, 80, &[[150, 10, 190, 50]]);
        let fault = Fault::transient(Class::Engine, "engine_error", "scripted");
        let half = |picture: &PixelBuffer| picture.width == 110;
        let failing = || ScriptedDetector::default().when(half, 1, Effect::Fail(fault.clone()));
        assert_eq!(detect_one(&tiled(failing()), &seen), Err(fault.clone()));
        // With a second engine for that view there is one, which is degraded and names the second.
        let second = Arc::new(ScriptedDetector::default().named("second"));
        let answer =
            detect_one(&tiled(FallbackDetector { first: Arc::new(failing()), second }), &seen).expect("an answer");
        assert_eq!((answer.engine.engine.as_str(), answer.degraded, answer.faces.len()), ("second", true, 1));
        assert_eq!(answer.passes, [Pass::FULL, TILES]);
    }

    #[test]
    fn a_single_view_is_answered_as_by_the_engine() {
        let seen = picture(90, 80, &[[1, 1, 31, 31], [5, 5, 35, 35]]);
        let engine: Arc<dyn Detector> = Arc::new(ScriptedDetector::default());
        let single: Arc<dyn Detector> = Arc::new(MultiPassDetector::new(Arc::clone(&engine), 0.1, |_, _| vec![]));
        assert_eq!(detect_one(&single, &seen), detect_one(&engine, &seen));
    }
}
