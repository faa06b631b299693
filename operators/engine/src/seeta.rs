//! The embedded detector: the SeetaFace cascade for frontal faces, in pure Rust (crate `rustface`), model included.
//!
//! It needs no download and no library, which is why it is the default; the ONNX models see far more. It looks at grey
//! pixels and sees faces from 40 pixels on.

use std::sync::Arc;

use faceflow_core::blocking::blocking;
use faceflow_core::detector::{Answer, Detector, EngineInfo, Face, Inferred, PictureView, PixelBuffer, Shape, View};
use faceflow_core::{Class, Fault, Future};
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use rustface::{FaceInfo, ImageData, Model};

use crate::postprocess::finish;
use crate::preprocess::check;
use crate::settings::DetectSettings;
use crate::{EngineError, sha256_hex};

const MODEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/seeta.bin"));
const MODEL_NAME: &str = "seeta_fd_frontal_v1.0.bin";

/// The cascade's window: the smallest face it sees.
const WINDOW_PX: u32 = 40;

/// The raw score that becomes 0.5. The engine adds up the scores of merged windows, so a raw score has no upper limit; its
/// makers call 0.95, 2.8 and 4.5 typical thresholds.
const RAW_HALF: f64 = 2.8;

/// The embedded engine.
pub(crate) struct Seeta {
    model: Model,
    info: EngineInfo,
    side_max: u32,
    raw_min: f64,
}

impl Seeta {
    /// Parses the model that is part of this binary.
    pub fn open(settings: &DetectSettings) -> Result<Self, EngineError> {
        let damaged = |error: std::io::Error| EngineError::Model { path: MODEL_NAME.into(), reason: error.to_string() };
        let model = rustface::read_model(MODEL).map_err(damaged)?;
        let info = EngineInfo { engine: "seeta".into(), model: MODEL_NAME.into(), model_sha256: sha256_hex(MODEL) };
        let raw_min = raw_score(f64::from(settings.score_min.unwrap_or(0.5)));
        Ok(Self { model, info, side_max: settings.seeta_px, raw_min })
    }

    fn size(&self, width: u32, height: u32) -> [u32; 2] {
        let shrink = f64::from(self.side_max) / f64::from(width.max(height)).max(1.0);
        [width, height].map(|side| if shrink < 1.0 { ((f64::from(side) * shrink).round() as u32).max(1) } else { side })
    }

    /// Input pixels per pixel of a picture of this size, along x and y.
    fn scale(&self, width: u32, height: u32) -> [f32; 2] {
        let [x, y] = self.size(width, height);
        [x as f32 / width.max(1) as f32, y as f32 / height.max(1) as f32]
    }

    fn infer_view(&self, view: &PictureView) -> Result<Answer, Fault> {
        let picture = &view.pixels()?;
        check(picture)?;
        let [width, height] = self.size(picture.width, picture.height);
        let scale = self.scale(picture.width, picture.height);
        let mut faces = Vec::new();
        if width.min(height) >= WINDOW_PX {
            let grey = shrink(grey(&picture.rgb), picture, [width, height])?;
            // The engine keeps state from picture to picture; a fresh one costs little beside the looking.
            let mut cascade = rustface::create_detector_with_model(self.model.clone());
            cascade.set_score_thresh(self.raw_min);
            let found = cascade.detect(&ImageData::new(&grey, width, height));
            faces.extend(found.iter().map(|found| face(found, scale)));
        }
        let faces = finish(faces, [picture.width, picture.height]);
        Ok(Answer::of_view(&view.view, self.info(), faces))
    }
}

impl Detector for Seeta {
    fn info(&self) -> EngineInfo {
        self.info.clone()
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        let ([x, y], [width_px, height_px]) = (self.scale(width, height), self.size(width, height));
        vec![View::full((width, height), Shape { width: width_px, height: height_px }, x.min(y))]
    }

    fn batch_max(&self) -> usize {
        1
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(blocking(move || Ok(views.iter().map(|view| self.infer_view(view)).collect())))
    }
}

/// A raw score as 0 to 1, and back.
fn score(raw: f64) -> f64 {
    raw / (raw + RAW_HALF)
}

fn raw_score(score: f64) -> f64 {
    // The engine wants a threshold above 0.
    (RAW_HALF * score / (1.0 - score).max(1e-9)).max(1e-6)
}

fn face(found: &FaceInfo, scale: [f32; 2]) -> Face {
    let (place, score) = (found.bbox(), score(found.score()) as f32);
    let [x, y] = [place.x() as f32, place.y() as f32];
    let corners = [x, y, x + place.width() as f32, y + place.height() as f32];
    let bbox = std::array::from_fn(|i| corners[i] / scale[i % 2]);
    Face { bbox, score, quality: 0.0, landmarks: None }
}

/// Luma of ITU-R BT.601.
fn grey(rgb: &[u8]) -> Vec<u8> {
    let luma = |p: &[u8]| (u32::from(p[0]) * 299 + u32::from(p[1]) * 587 + u32::from(p[2]) * 114 + 500) / 1000;
    rgb.chunks_exact(3).map(|pixel| luma(pixel) as u8).collect()
}

fn shrink(grey: Vec<u8>, picture: &PixelBuffer, [width, height]: [u32; 2]) -> Result<Vec<u8>, Fault> {
    if [picture.width, picture.height] == [width, height] {
        return Ok(grey);
    }
    let failed = |error: &dyn std::fmt::Display| {
        let detail = format!("cannot resize {}x{} pixels: {error}", picture.width, picture.height);
        Fault::permanent(Class::Engine, "engine_error", detail)
    };
    let from =
        TypedImageRef::<U8>::from_buffer(picture.width, picture.height, &grey).map_err(|error| failed(&error))?;
    let mut small = vec![0; width as usize * height as usize];
    let mut to = TypedImage::<U8>::from_buffer(width, height, &mut small).map_err(|error| failed(&error))?;
    let smooth = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    // For pixels of one type: code for all thirteen that there are takes long to compile.
    Resizer::new().resize_typed(&from, &mut to, &smooth).map_err(|error| failed(&error))?;
    Ok(small)
}
