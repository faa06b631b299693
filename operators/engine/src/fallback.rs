//! A second engine for what the first cannot answer.

use std::sync::Arc;

use faceflow_core::detector::{Answer, Detector, EngineInfo, Inferred, PictureView, PixelBuffer, View, detect, infer};
use faceflow_core::{Fault, Future};

/// Looks with the first engine; where that fails and could do better another time, the second one looks, and its answer counts
/// as degraded and names it. A batch that fails as a whole is first left to be halved, so that only the view that it failed on
/// goes to the second engine.
pub struct FallbackDetector {
    /// The engine whose answers are wanted.
    pub first: Arc<dyn Detector>,
    /// The engine that stands in for it.
    pub second: Arc<dyn Detector>,
}

impl Detector for FallbackDetector {
    /// The first engine. Answers of the second one name the second.
    fn info(&self) -> EngineInfo {
        self.first.info()
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        self.first.plan(width, height)
    }

    fn batch_max(&self) -> usize {
        self.first.batch_max()
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(async move {
            let answers = match infer(Arc::clone(&self.first), views.clone()).await {
                Ok(answers) => answers,
                Err(fault) if views.len() == 1 => vec![Err(fault)],
                Err(fault) => return Err(fault),
            };
            let mut ended = Vec::with_capacity(views.len());
            for (view, answer) in views.iter().zip(answers) {
                ended.push(match answer {
                    Err(fault) if !fault.permanent => self.infer_with_second(view, fault).await,
                    answer => answer,
                });
            }
            Ok(ended)
        })
    }

    fn merge(&self, size: (u32, u32), answers: Vec<(View, Answer)>) -> Answer {
        self.first.merge(size, answers)
    }
}

impl FallbackDetector {
    /// What the second engine sees in a view that the first one failed on.
    async fn infer_with_second(&self, view: &PictureView, first: Fault) -> Result<Answer, Fault> {
        let looked = detect_one(&self.second, view.pixels()?).await;
        let answer =
            looked.map_err(|second| Fault { detail: format!("{}; {second}", first.detail), ..first.clone() })?;
        tracing::warn!(fault = %first, engine = answer.engine.engine, "the fallback engine has answered");
        Ok(Answer { passes: vec![view.view.pass.clone()], degraded: true, ..answer })
    }
}

async fn detect_one(detector: &Arc<dyn Detector>, picture: PixelBuffer) -> Result<Answer, Fault> {
    detect(detector, vec![picture]).await.pop().expect("one picture has one answer")
}

#[cfg(test)]
mod tests {
    use faceflow_core::Class;
    use faceflow_core::testing::wait_for;

    use super::*;
    use crate::scripted::{Effect, ScriptedDetector, picture};

    fn down(permanent: bool) -> Fault {
        Fault { permanent, ..Fault::transient(Class::Engine, "engine_error", "the first is down") }
    }

    fn fallback(first: ScriptedDetector, second: ScriptedDetector) -> Arc<dyn Detector> {
        Arc::new(FallbackDetector { first: Arc::new(first), second: Arc::new(second.named("second")) })
    }

    #[test]
    fn the_second_engine_answers_for_the_first_is_named_and_counts_as_degraded() {
        let seen = picture(100, 80, &[[10, 10, 20, 20]]);
        let both = fallback(
            ScriptedDetector::default().when_seen(&seen, 1, Effect::Poison(down(false))),
            ScriptedDetector::default(),
        );
        let looks = || wait_for(detect_one(&both, seen.clone())).expect("an answer");
        let (degraded, full) = (looks(), looks());
        assert_eq!((degraded.engine.engine.as_str(), degraded.degraded), ("second", true));
        assert_eq!((full.engine.engine.as_str(), full.degraded), ("scripted", false));
        assert_eq!((degraded.faces.len(), &degraded.faces), (1, &full.faces));
        assert_eq!((&degraded.passes, both.info()), (&full.passes, full.engine));
    }

    #[test]
    fn only_what_the_first_engine_fails_on_goes_to_the_second() {
        let [good, bad] = [picture(64, 64, &[]), picture(64, 64, &[[0, 0, 9, 9]])];
        let first = ScriptedDetector::default().when_seen(&bad, 9, Effect::Fail(down(false)));
        let answers = wait_for(detect(&fallback(first, ScriptedDetector::default()), vec![good.clone(), bad.clone()]));
        let engines: Vec<_> = answers.into_iter().map(|answer| answer.expect("an answer").engine.engine).collect();
        assert_eq!(engines, ["scripted", "second"]);
        // A batch that fails as a whole has to be halved first, and a fault for good is nobody's to mend.
        let first = ScriptedDetector::default().when_seen(&bad, 9, Effect::Poison(down(false)));
        let answers = wait_for(detect(&fallback(first, ScriptedDetector::default()), vec![good, bad.clone()]));
        assert_eq!(answers, [Err(down(false)), Err(down(false))]);
        let first = ScriptedDetector::default().when_seen(&bad, 9, Effect::Fail(down(true)));
        assert_eq!(wait_for(detect_one(&fallback(first, ScriptedDetector::default()), bad)), Err(down(true)));
    }

    #[test]
    fn when_both_fail_the_fault_says_so_and_there_is_no_answer() {
        let seen = picture(64, 64, &[]);
        let second = Fault::transient(Class::Engine, "engine_oom", "the second is full");
        let [first, other] =
            [down(false), second].map(|fault| ScriptedDetector::default().when_seen(&seen, 9, Effect::Fail(fault)));
        let fault = wait_for(detect_one(&fallback(first, other), seen)).expect_err("no answer");
        assert_eq!(fault.reason, "engine_error");
        assert!(fault.detail.contains("the first is down") && fault.detail.contains("the second is full"), "{fault}");
    }
}
