//! The choice between the runtimes of ONNX models: ONNX Runtime where its library is found, else rten.

use std::sync::{Arc, Once};

use crate::runtime::Runtime;
use crate::settings::{DetectSettings, RuntimeChoice};
use crate::{EngineError, ort, rten};

/// The runtime that the settings ask for, for this model.
pub(crate) fn choose_runtime(model: Vec<u8>, settings: &DetectSettings) -> Result<Box<dyn Runtime>, EngineError> {
    let model: Arc<[u8]> = model.into();
    if settings.runtime != RuntimeChoice::Rten {
        if let Some(environment) = ort::environment(settings.ort_library.as_deref()).map_err(EngineError::Library)? {
            return Ok(Box::new(ort::Ort::new(environment, model)));
        }
        if settings.runtime == RuntimeChoice::Onnxruntime {
            return Err(EngineError::Library("no library of ONNX Runtime 1.24 or newer was found".to_owned()));
        }
        static WARNED: Once = Once::new();
        WARNED.call_once(|| {
            tracing::warn!(
                "ONNX Runtime was not found, so the slower built-in engine rten runs the model. For more speed: pip install \
                 onnxruntime, or name the library in ORT_DYLIB_PATH (or set detect.runtime = \"rten\" to be content)"
            );
        });
    }
    Ok(Box::new(rten::Rten::new(model)))
}
