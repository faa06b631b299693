//! The type that only an answer can become.

use serde::{Deserialize, Serialize};

use crate::detector::answer::{Answer, EngineInfo, Face};
use crate::detector::view::Pass;
use crate::record::key::ContentId;

/// Faces of a picture, as an engine saw them. Its fields are private: it can only be made from a detector's
/// [`Answer`], so a failure can never be mistaken for a picture without faces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    picture: ContentId,
    width: u32,
    height: u32,
    faces: Vec<Face>,
    engine: EngineInfo,
    scale: f32,
    degraded: bool,
    #[serde(default)]
    generation: u32,
    #[serde(default = "only_full")]
    passes: Vec<Pass>,
}

/// What detections rest on that were stored before passes had names.
fn only_full() -> Vec<Pass> {
    vec![Pass::FULL]
}

impl Detection {
    /// The detection that `answer` is, for the picture `id` with these displayed sizes.
    pub fn new(id: ContentId, (width, height): (u32, u32), answer: Answer) -> Self {
        let Answer { faces, engine, passes, scale, degraded } = answer;
        Self { picture: id, width, height, faces, engine, scale, degraded, generation: 0, passes }
    }

    /// The same as the answer that follows `generation` others of its picture.
    #[must_use]
    pub fn of_generation(self, generation: u32) -> Self {
        Self { generation, ..self }
    }

    /// The same faces, each with the quality that `measure` finds.
    #[must_use]
    pub fn with_quality(mut self, measure: impl Fn(&Face) -> f32) -> Self {
        self.faces.iter_mut().for_each(|face| face.quality = measure(face));
        self
    }

    /// The picture.
    pub fn picture(&self) -> ContentId {
        self.picture
    }

    /// Displayed width and height of the picture, the frame of the coordinates.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// The faces, best first; empty means none were seen.
    pub fn faces(&self) -> &[Face] {
        &self.faces
    }

    /// Which engine and model answered.
    pub fn engine(&self) -> &EngineInfo {
        &self.engine
    }

    /// The passes that the answer rests on.
    pub fn passes(&self) -> &[Pass] {
        &self.passes
    }

    /// Input pixels per picture pixel.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Whether a full pass is still owed.
    pub fn degraded(&self) -> bool {
        self.degraded
    }

    /// How many answers of this picture were recorded before this one. Each has crops under keys of its own.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_before_passes_had_names_rests_on_the_full_one() {
        let engine = EngineInfo { engine: "e".into(), model: "m".into(), model_sha256: String::new() };
        let now = Detection::new(ContentId([7; 32]), (2, 3), Answer::full(engine, vec![])).of_generation(1);
        let mut stored = serde_json::to_value(&now).expect("writes");
        assert_eq!(stored["passes"], serde_json::json!(["full"]));
        stored.as_object_mut().expect("an object").remove("passes");
        assert_eq!(serde_json::from_value::<Detection>(stored).expect("reads"), now);
    }
}
