//! A picture whose faces were found.

use serde::{Deserialize, Serialize};

use super::content::Frame;
use crate::detector::Detection;

/// Faces found in a picture, with every output that goes with them stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectedFrame {
    /// The picture.
    pub frame: Frame,
    /// What the engine answered.
    pub detection: Detection,
}
