//! What a detector answers: faces, and how they were looked for.

use serde::{Deserialize, Serialize};

use crate::detector::view::{Pass, View};

/// A face, in pixels of the picture as displayed, origin top-left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Face {
    /// `[x1, y1, x2, y2]`, x2 and y2 exclusive.
    pub bbox: [f32; 4],
    /// The engine's confidence, 0 to 1.
    pub score: f32,
    /// Sharpness and size as one figure, 0 to 1; 0 until it is measured on the pixels.
    pub quality: f32,
    /// Right eye, left eye, nose, right mouth corner, left mouth corner (the subject's right); `None` for engines without.
    pub landmarks: Option<[[f32; 2]; 5]>,
}

impl Face {
    /// The same face in a picture that has this one's origin at `[x, y]`.
    #[must_use]
    pub fn moved(self, [x, y]: [f32; 2]) -> Self {
        let [x1, y1, x2, y2] = self.bbox;
        let landmarks = self.landmarks.map(|points| points.map(|point| [point[0] + x, point[1] + y]));
        Self { bbox: [x1 + x, y1 + y, x2 + x, y2 + y], landmarks, ..self }
    }
}

/// Which engine answered, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// `seeta`, `onnxruntime`, `rten`, …
    pub engine: String,
    /// The model's file name or built-in name.
    pub model: String,
    /// SHA-256 of the model file, hex.
    pub model_sha256: String,
}

/// A detector's answer for one view, in pixels of the view's region, or for one picture. An empty list means: looked, saw
/// none.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The faces, best first.
    pub faces: Vec<Face>,
    /// The engine that looked.
    pub engine: EngineInfo,
    /// The passes that the answer rests on, in the order in which they were planned.
    pub passes: Vec<Pass>,
    /// Input pixels per picture pixel at which the engine looked.
    pub scale: f32,
    /// Whether this is a weaker answer than the settings ask for (a smaller scale, a fallback engine).
    pub degraded: bool,
}

impl Answer {
    /// What `engine` saw in a view, looking as planned.
    pub fn of_view(view: &View, engine: EngineInfo, faces: Vec<Face>) -> Self {
        Self { faces, engine, passes: vec![view.pass.clone()], scale: view.scale, degraded: false }
    }

    /// What `engine` saw in a whole picture, looking at it as it is.
    pub fn full(engine: EngineInfo, faces: Vec<Face>) -> Self {
        Self { faces, engine, passes: vec![Pass::FULL], scale: 1.0, degraded: false }
    }

    /// The answer for a view as one for its picture: the same faces in the picture's pixels.
    #[must_use]
    pub fn in_picture(mut self, view: &View) -> Self {
        let origin = [view.region.x, view.region.y];
        if origin != [0, 0] {
            let by = origin.map(|side| side as f32);
            self.faces = self.faces.into_iter().map(|face| face.moved(by)).collect();
        }
        self
    }
}
