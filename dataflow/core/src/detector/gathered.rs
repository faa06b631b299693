//! The answers for the views of one picture, as they come in. Promise: they are given out only all together.

use crate::detector::answer::Answer;
use crate::detector::view::View;
use crate::fault::Fault;

/// The views of one picture, with the answers that have come.
#[derive(Debug)]
pub struct Gathered {
    views: Vec<(View, Option<Answer>)>,
    awaited: usize,
    fault: Option<Fault>,
}

impl Gathered {
    /// Nothing has come yet for these views.
    ///
    /// # Panics
    /// If there is no view: a picture that nobody looks at would count as one without faces.
    pub fn new(views: Vec<View>) -> Self {
        assert!(!views.is_empty(), "a detector plans at least one view of a picture");
        let awaited = views.len();
        Self { views: views.into_iter().map(|view| (view, None)).collect(), awaited, fault: None }
    }

    /// Takes what became of the `n`-th view. Of several faults the first stays. Whether nothing is awaited any more.
    pub fn put(&mut self, n: usize, answer: Result<Answer, Fault>) -> bool {
        self.awaited = self.awaited.checked_sub(1).expect("a view is answered once");
        match answer {
            Ok(answer) => self.views[n].1 = Some(answer),
            Err(fault) => self.fault = self.fault.take().or(Some(fault)),
        }
        self.awaited == 0
    }

    /// The views.
    pub fn views(&self) -> impl Iterator<Item = &View> {
        self.views.iter().map(|(view, _)| view)
    }

    /// Every view with its answer, or the fault of one that failed.
    ///
    /// # Panics
    /// If an answer is still awaited.
    pub fn all(self) -> Result<Vec<(View, Answer)>, Fault> {
        assert!(self.awaited == 0, "{} views of a picture are not answered yet", self.awaited);
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(self
                .views
                .into_iter()
                .map(|(view, answer)| (view, answer.expect("without a fault every view has its answer")))
                .collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::detector::answer::EngineInfo;
    use crate::detector::view::Shape;
    use crate::fault::Class;

    use super::*;

    fn views() -> Vec<View> {
        [0.5, 1.0].map(|scale| View::full((9, 9), Shape { width: 9, height: 9 }, scale)).to_vec()
    }

    fn answer(view: &View) -> Answer {
        let engine = EngineInfo { engine: "e".into(), model: "m".into(), model_sha256: String::new() };
        Answer::of_view(view, engine, vec![])
    }

    #[test]
    fn answers_come_in_any_order_and_are_given_out_in_that_of_the_views() {
        let (views, mut gathered) = (views(), Gathered::new(views()));
        assert!(!gathered.put(1, Ok(answer(&views[1]))));
        assert!(gathered.put(0, Ok(answer(&views[0]))));
        let expected: Vec<_> = views.iter().map(|view| (view.clone(), answer(view))).collect();
        assert_eq!(gathered.all(), Ok(expected));
    }

    #[test]
    fn one_view_that_failed_is_the_fault_of_all() {
        let fault = |reason: &str| Fault::transient(Class::Engine, reason, "");
        let mut gathered = Gathered::new(views());
        assert!(!gathered.put(1, Err(fault("first"))));
        assert!(gathered.put(0, Ok(answer(&views()[0]))));
        assert_eq!(gathered.all(), Err(fault("first")));
    }

    #[test]
    #[should_panic(expected = "not answered yet")]
    fn nothing_is_given_out_early() {
        let mut gathered = Gathered::new(views());
        gathered.put(0, Ok(answer(&views()[0])));
        let _ = gathered.all();
    }

    #[test]
    #[should_panic(expected = "at least one view")]
    fn a_picture_without_views_is_refused() {
        Gathered::new(vec![]);
    }
}
