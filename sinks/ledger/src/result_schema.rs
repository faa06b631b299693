//! The lines of the results as they are written: one definition for the results, the sidecars and the report.
//!
//! Field order is the contract's.

use faceflow_core::detector::Pass;
use serde::Serialize;

use crate::Status;

/// An image URL.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageLine {
    /// As it was discovered.
    pub url: String,
    /// After redirects; of a settled one that was not redirected, the URL itself.
    pub final_url: Option<String>,
    /// The smallest URL of the pages that show it.
    pub page: Option<String>,
    /// The site it was discovered for.
    pub site: String,
    /// Whose it is.
    pub tenant: String,
    /// What became of it.
    pub status: Status,
    /// Why it was rejected, is dead, or is tried again.
    pub reason: Option<String>,
    /// How often it was tried, its picture's detection included.
    pub attempts: u32,
    /// When it is tried next, in milliseconds since the Unix epoch; only while it is open.
    pub due_ms: Option<i64>,
    /// The picture behind it, once it was downloaded.
    pub image: Option<Picture>,
    /// The id of the picture that stands for it.
    pub duplicate_of: Option<String>,
    /// In how many bits its perceptual hash differs from that picture's; 0 for equal bytes.
    pub distance: Option<u32>,
    /// `None` until a detector has answered; empty: it looked and saw none.
    pub faces: Option<Vec<FaceFields>>,
    /// Who answered.
    pub detector: Option<Detector>,
}

/// The picture behind an image URL.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Picture {
    /// The first half of the SHA-256 of its bytes, in hex.
    pub id: String,
    /// Its size as downloaded.
    pub bytes: u64,
    /// Such as `jpeg`.
    pub format: String,
    /// In pixels, as displayed.
    pub width: u32,
    /// In pixels, as displayed.
    pub height: u32,
    /// The perceptual hash.
    pub phash: Option<String>,
    /// Where the original lies in the output.
    pub key: String,
}

/// A face, in pixels of its image as displayed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaceFields {
    /// The picture's id and the number of the face in it.
    pub id: String,
    /// Left, top, right, bottom.
    pub bbox: [f32; 4],
    /// How sure the detector is, 0 to 1.
    pub score: f32,
    /// How good the face is for recognition, 0 to 1.
    pub quality: f32,
    /// Eyes, nose, corners of the mouth, where the detector finds them.
    pub landmarks: Option<[[f32; 2]; 5]>,
    /// Where the crop lies in the output.
    pub crop: String,
}

/// Which engine answered, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detector {
    /// Its name.
    pub engine: String,
    /// The model's file.
    pub model: String,
    /// The digest of that file, in hex.
    pub model_sha256: String,
    /// The size that it looked at, relative to the picture's.
    pub scale: f32,
    /// Whether a better answer is still owed.
    pub degraded: bool,
    /// The passes it rests on.
    pub passes: Vec<Pass>,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageLine {
    /// As it was discovered.
    pub url: String,
    /// After redirects; of a settled one that was not redirected, the URL itself.
    pub final_url: Option<String>,
    /// The site it was discovered for.
    pub site: String,
    /// Whose it is.
    pub tenant: String,
    /// What became of it.
    pub status: Status,
    /// Why it was rejected, is dead, or is tried again.
    pub reason: Option<String>,
    /// What the server answered.
    pub http_status: Option<u16>,
    /// Links from the site's start.
    pub depth: u32,
    /// How often it was tried.
    pub attempts: u32,
    /// Links found on it.
    pub links: Option<u32>,
    /// Images found on it.
    pub images: Option<u32>,
}

/// A face of a done image, on its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaceLine<'a> {
    /// The picture's id and the number of the face in it.
    pub id: &'a str,
    /// The picture's id.
    pub image: &'a str,
    /// The image URL.
    pub url: &'a str,
    /// The page that shows it.
    pub page: Option<&'a str>,
    /// The site it was discovered for.
    pub site: &'a str,
    /// Whose it is.
    pub tenant: &'a str,
    /// Left, top, right, bottom.
    pub bbox: [f32; 4],
    /// How sure the detector is, 0 to 1.
    pub score: f32,
    /// How good the face is for recognition, 0 to 1.
    pub quality: f32,
    /// Eyes, nose, corners of the mouth, where the detector finds them.
    pub landmarks: Option<[[f32; 2]; 5]>,
    /// Where the crop lies in the output.
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
