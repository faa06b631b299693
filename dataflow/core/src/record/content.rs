//! Pictures: what is known of the bytes of an image, and a picture on its way to the detector.

use serde::{Deserialize, Serialize};

use super::hash::Hashes;
use super::job::{JobId, TenantNumber};
use super::key::{ContentId, Key};
use crate::Fault;

/// What is known of a picture's bytes once they are decoded and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// SHA-256 of the bytes.
    pub id: ContentId,
    /// Length in bytes.
    pub bytes: u64,
    /// Sniffed format: `jpeg`, `png`, `gif`, `webp`, `bmp`, `tiff`.
    pub format: String,
    /// Width in pixels as displayed (EXIF orientation applied).
    pub width: u32,
    /// Height in pixels as displayed.
    pub height: u32,
    /// Perceptual hashes of the displayed pixels.
    pub hashes: Hashes,
}

impl Content {
    /// The usual file name extension of the format.
    pub fn extension(&self) -> &str {
        match self.format.as_str() {
            "jpeg" => "jpg",
            "tiff" => "tif",
            other => other,
        }
    }
}

/// A picture on its way to the detector. The pixels stay where they were decoded; this is all that travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Whose it is: the job of the image that showed it first, or just the tenant's job `default` for one that is read back.
    #[serde(default = "JobId::of_log")]
    pub job: JobId,
    /// The picture.
    pub content: Content,
    /// The worker in whose process the pixels are cached.
    pub owner: usize,
    /// The handle of the pixels in that process's cache; `None` once they are gone and must be read back from the store.
    pub pixels: Option<u64>,
    /// Detections that failed so far.
    pub attempts: u32,
    /// Those of them that the object store failed: they count towards no limit.
    pub uncounted: u32,
    /// Whether a degraded answer is kept, which stands if no full one comes.
    pub has_degraded: bool,
    /// How many answers are recorded already: the generation of the next one.
    pub generation: u32,
    /// The scale at which the last failed detection looked: input pixels per pixel of the picture.
    pub scale: Option<f32>,
    /// Why it is not looked at, if every page that shows it has opted out since it was taken.
    #[serde(default)]
    pub opted_out: Option<Box<Fault>>,
}

impl Frame {
    /// The identity of its detection.
    pub fn key(&self) -> Key {
        Key(u128::from_be_bytes(std::array::from_fn(|i| self.content.id.0[i])))
    }
}

/// Which picture stands for another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DuplicateAssignment {
    /// The picture the ruling is about.
    pub picture: ContentId,
    /// The picture that stands for it: itself for a representative.
    pub representative: ContentId,
    /// Hamming distance between the two in bits.
    pub distance: u32,
}

/// Which picture of a tenant stands for another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TenantAssignment {
    /// Whose pictures they are.
    pub tenant: TenantNumber,
    /// Which stands for which.
    pub assignment: DuplicateAssignment,
}
