//! The detector's side of the pipeline: pictures in, answers out, and the type that only an answer can become.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::record::key::ContentId;

/// Decoded pixels: RGB, 8 bits a channel, rows from the top, orientation applied.
#[derive(Clone)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub rgb: Arc<[u8]>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Picture({}x{})", self.width, self.height)
    }
}

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

/// A detector's answer for one picture. An empty list means: looked, saw none.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The faces, best first.
    pub faces: Vec<Face>,
    /// Input pixels per picture pixel at which the engine looked.
    pub scale: f32,
    /// Whether this is a weaker answer than the settings ask for (a smaller scale, a fallback engine).
    pub degraded: bool,
}

/// The input shape that pictures are padded to; only pictures of one shape share a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// Width of the tensor.
    pub width: u32,
    /// Height of the tensor.
    pub height: u32,
}

/// Finds faces. Called from blocking threads, several at once; a panic in it is a fault of the batch.
pub trait Detector: Send + Sync {
    /// Which engine and model this is.
    fn info(&self) -> EngineInfo;

    /// The input shape of a picture of this size.
    fn shape(&self, width: u32, height: u32) -> Shape;

    /// Input pixels per pixel of a picture of this size. An engine that looks at pictures as they are need not say.
    fn scale(&self, _width: u32, _height: u32) -> f32 {
        1.0
    }

    /// The largest batch that is worth building, and that was verified to give the same answers as single pictures.
    fn batch_max(&self) -> usize;

    /// Looks at a batch of one [`Shape`]. The outer error is the engine's: nobody in the batch was looked at. An inner
    /// one is that picture's own. As many inner results as pictures, in the same order.
    fn detect(&self, batch: &[Picture]) -> Result<Vec<Result<Answer, Fault>>, Fault>;
}

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
}

impl Detection {
    /// The detection that `answer` is, for the picture `id` with these displayed sizes.
    pub fn new(id: ContentId, (width, height): (u32, u32), answer: Answer, engine: EngineInfo) -> Self {
        let Answer { faces, scale, degraded } = answer;
        Self { picture: id, width, height, faces, engine, scale, degraded, generation: 0 }
    }

    /// The same as the answer that follows `generation` others of its picture.
    pub fn of_generation(self, generation: u32) -> Self {
        Self { generation, ..self }
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
