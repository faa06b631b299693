//! The lines of the results as they are written: one definition for the results, the sidecars and the report.
//!
//! Field order is the contract's.

use faceflow_core::detector::Pass;
use serde::Serialize;

use crate::ledger::Status;

/// An image URL.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageLine {
    pub url: String,
    pub final_url: Option<String>,
    pub page: Option<String>,
    pub site: String,
    pub tenant: String,
    pub status: Status,
    pub reason: Option<String>,
    pub attempts: u32,
    pub due_ms: Option<i64>,
    pub image: Option<Picture>,
    pub duplicate_of: Option<String>,
    pub distance: Option<u32>,
    pub faces: Option<Vec<FaceFields>>,
    pub detector: Option<Detector>,
}

/// The picture behind an image URL.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Picture {
    pub id: String,
    pub bytes: u64,
    pub format: String,
    pub width: u32,
    pub height: u32,
    pub phash: Option<String>,
    pub key: String,
}

/// A face, in pixels of its image as displayed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaceFields {
    pub id: String,
    pub bbox: [f32; 4],
    pub score: f32,
    pub quality: f32,
    pub landmarks: Option<[[f32; 2]; 5]>,
    pub crop: String,
}

/// Which engine answered, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detector {
    pub engine: String,
    pub model: String,
    pub model_sha256: String,
    pub scale: f32,
    pub degraded: bool,
    pub passes: Vec<Pass>,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageLine {
    pub url: String,
    pub final_url: Option<String>,
    pub site: String,
    pub tenant: String,
    pub status: Status,
    pub reason: Option<String>,
    pub http_status: Option<u16>,
    pub depth: u32,
    pub attempts: u32,
    pub links: Option<u32>,
    pub images: Option<u32>,
}

/// A face of a done image, on its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaceLine<'a> {
    pub id: &'a str,
    pub image: &'a str,
    pub url: &'a str,
    pub page: Option<&'a str>,
    pub site: &'a str,
    pub tenant: &'a str,
    pub bbox: [f32; 4],
    pub score: f32,
    pub quality: f32,
    pub landmarks: Option<[[f32; 2]; 5]>,
    pub crop: &'a str,
}

impl ImageLine {
    /// The faces as lines of their own; none unless the image is done.
    pub fn face_lines(&self) -> impl Iterator<Item = FaceLine<'_>> {
        let done = self.image.as_ref().filter(|_| self.status == Status::Done);
        let faces = done.and(self.faces.as_deref()).unwrap_or_default();
        faces.iter().map(move |face| FaceLine {
            id: &face.id,
            image: done.map_or("", |image| &image.id),
            url: &self.url,
            page: self.page.as_deref(),
            site: &self.site,
            tenant: &self.tenant,
            bbox: face.bbox,
            score: face.score,
            quality: face.quality,
            landmarks: face.landmarks,
            crop: &face.crop,
        })
    }
}
