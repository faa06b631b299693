//! Face detectors behind one trait, [`faceflow_core::detector::Detector`].
//!
//! `seeta` needs nothing but this binary: the SeetaFace cascade with its model built in. `onnx:PATH` runs an SCRFD, YuNet
//! or UltraFace model on ONNX Runtime where that library is found, else on rten, which is part of the binary.
//!
//! The one promise: the same picture gets the same faces whatever it is batched with and however many threads look, and
//! a failure is a [`faceflow_core::Fault`], never an empty answer.

mod batch_check;
mod choose_runtime;
mod fallback;
mod find_onnxruntime;
mod heads;
mod multi_pass;
mod onnx;
mod onnx_model;
mod ort;
mod postprocess;
mod preprocess;
mod rten;
mod runtime;
pub mod scripted;
mod seeta;
mod session_pool;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use faceflow_core::detector::Detector;
use sha2::{Digest, Sha256};

pub use fallback::FallbackDetector;
pub use multi_pass::{MultiPassDetector, TilePlanner};
pub use settings::{DetectSettings, Fit, RuntimeChoice};

/// The photograph in the package of the embedded engine (PNG, 29 people, red boxes drawn on 24 of them), for first
/// steps and tests. Linked into a program only where it is used.
pub static SAMPLE_PHOTO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sample.png"));

/// Why a detector could not be opened. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The name is none of the known forms.
    #[error("unknown detector `{0}`: use auto, seeta or onnx:PATH")]
    UnknownDetector(String),
    /// A remote worker was asked for.
    #[error("detector `{0}`: a remote worker is not supported by this version; use auto, seeta or onnx:PATH")]
    Remote(String),
    /// A setting has an impossible value.
    #[error("detect.{key} must be {allowed}")]
    Setting {
        /// The key in `[detect]`.
        key: &'static str,
        /// What is allowed.
        allowed: String,
    },
    /// The model file cannot be read.
    #[error("cannot read the model {path}: {source}; check the path after `onnx:`")]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not an ONNX model, or not one of a face detector we know.
    #[error("the model {path} cannot be used: {reason}")]
    Model {
        /// The file, or the built-in name.
        path: PathBuf,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// ONNX Runtime was asked for and is missing or unusable.
    #[error(
        "{0}; `pip install onnxruntime` (1.24 or newer), or name the library in detect.ort_library or ORT_DYLIB_PATH, or set \
         detect.runtime = \"rten\""
    )]
    Library(String),
}

/// Opens a detector: `auto` (the embedded one), `seeta`, or `onnx:PATH`.
///
/// An ONNX model is run once on synthetic pictures, so that a model that cannot be used is known now, and so that
/// batches are only built where they were seen to give the answers of single pictures.
///
/// # Errors
/// [`EngineError`] says what is wrong and what to do.
pub fn open(detector: &str, settings: &DetectSettings) -> Result<Arc<dyn Detector>, EngineError> {
    settings.check().map_err(|(key, allowed)| EngineError::Setting { key, allowed })?;
    match detector {
        "auto" | "seeta" => Ok(Arc::new(seeta::Seeta::open(settings)?)),
        name if name.starts_with("http://") || name.starts_with("https://") => {
            Err(EngineError::Remote(name.to_owned()))
        }
        name => match name.strip_prefix("onnx:") {
            Some(path) => Ok(Arc::new(onnx::Onnx::open(Path::new(path), settings)?)),
            None => Err(EngineError::UnknownDetector(name.to_owned())),
        },
    }
}

/// The library of ONNX Runtime that would be tried first; whether it can be used shows when a model is opened.
pub fn onnxruntime(settings: &DetectSettings) -> Option<PathBuf> {
    find_onnxruntime::named(settings.ort_library.as_deref())
        .or_else(|| find_onnxruntime::installed().into_iter().next())
}

/// SHA-256 as hex digits.
fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
