//! ONNX Runtime, loaded at run time from a library on this machine.
//!
//! One library and one environment per process, as ONNX Runtime wants it. Each session computes on its caller's thread
//! alone, so many callers scale without threads that spin, and the numbers do not depend on how many there are.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ::ort::environment::Environment;
use ::ort::logging::LogLevel;
use ::ort::session::Session as OrtSession;
use ::ort::value::TensorRef;
use faceflow_core::Fault;

use crate::find_onnxruntime;
use crate::heads::Output;
use crate::runtime::{ReadOutputs, Runtime, Session, engine_fault};

const NAME: &str = "onnxruntime";

/// The library that this process loaded, for as long as it lives.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// The environment of the library named by the setting or by `ORT_DYLIB_PATH`, or else of the first installed one that
/// works; `None` if there is none.
///
/// # Errors
/// A library that was named and does not work.
pub(crate) fn environment(setting: Option<&Path>) -> Result<Option<Environment>, String> {
    let named = find_onnxruntime::named(setting);
    let mut loaded = LOADED.lock().expect("nothing panics while the library is loaded");
    if let Some((path, environment)) = &*loaded {
        return match named {
            Some(other) if other != *path => Err(format!(
                "ONNX Runtime is already loaded from {}, and a process can load only one, so not {}",
                path.display(),
                other.display()
            )),
            _ => Ok(Some(environment.clone())),
        };
    }
    let must_work = named.is_some();
    for path in named.map_or_else(find_onnxruntime::installed, |path| vec![path]) {
        match load(&path) {
            Ok(environment) => {
                tracing::info!(library = %path.display(), "ONNX Runtime is loaded");
                *loaded = Some((path, environment.clone()));
                return Ok(Some(environment));
            }
            Err(reason) if must_work => return Err(reason),
            Err(reason) => tracing::warn!(reason, "an installed ONNX Runtime cannot be used"),
        }
    }
    Ok(None)
}

fn load(path: &Path) -> Result<Environment, String> {
    let unusable =
        |error: &dyn std::fmt::Display| format!("{} cannot be used as ONNX Runtime: {error}", path.display());
    let builder = ::ort::init_from(path).map_err(|error| unusable(&error))?;
    let environment = builder.with_name("faceflow").with_telemetry(false).build().map_err(|error| unusable(&error))?;
    environment.set_log_level(LogLevel::Error);
    Ok(environment)
}

/// One model on ONNX Runtime.
pub(crate) struct Ort {
    environment: Environment,
    model: Arc<[u8]>,
}

impl Ort {
    /// Sessions of this model.
    pub fn new(environment: Environment, model: Arc<[u8]>) -> Self {
        Self { environment, model }
    }

    fn build(&self) -> ::ort::Result<OrtSession> {
        OrtSession::builder(&self.environment)?
            .with_log_level(LogLevel::Error)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .commit_from_memory(&self.model)
    }
}

impl Runtime for Ort {
    fn name(&self) -> &'static str {
        NAME
    }

    fn session(&self) -> Result<Box<dyn Session>, String> {
        let session = self.build().map_err(|error| error.to_string())?;
        Ok(Box::new(OneSession(session)))
    }
}

struct OneSession(OrtSession);

impl Session for OneSession {
    fn run(&mut self, shape: [usize; 4], input: &[f32], read: &mut ReadOutputs<'_>) -> Result<(), Fault> {
        let fault = |error: ::ort::Error| engine_fault(NAME, error.message());
        let input = TensorRef::from_array_view((shape, input)).map_err(fault)?;
        let outputs = self.0.run(::ort::inputs![input]).map_err(fault)?;
        let values: Vec<_> = outputs.values().collect();
        let mut views = Vec::with_capacity(values.len());
        for value in &values {
            let (shape, data) = value.try_extract_tensor::<f32>().map_err(fault)?;
            views.push(Output { shape: shape.iter().map(|side| *side as usize).collect(), data });
        }
        read(&views)
    }
}
