//! What a runtime of ONNX models is to this crate.

use faceflow_core::{Class, Fault};

use crate::heads::Output;

/// Loads one model.
pub(crate) trait Runtime: Send + Sync {
    /// `onnxruntime` or `rten`.
    fn name(&self) -> &'static str;

    /// A new session. The error is the runtime's own words.
    fn session(&self) -> Result<Box<dyn Session>, String>;
}

/// Runs the model on one thread, for one caller at a time.
pub(crate) trait Session: Send {
    /// Runs the model on `[batch, 3, height, width]` numbers and hands the outputs, in the graph's order, to `read`.
    fn run(&mut self, shape: [usize; 4], input: &[f32], read: &mut ReadOutputs<'_>) -> Result<(), Fault>;
}

/// What looks at the outputs of a run, while they last.
pub(crate) type ReadOutputs<'a> = dyn FnMut(&[Output<'_>]) -> Result<(), Fault> + 'a;

/// The fault that a runtime's error is. Runtimes have no code for being out of memory, only words.
pub(crate) fn engine_fault(engine: &str, error: &str) -> Fault {
    let words = error.to_ascii_lowercase();
    let signs = ["failed to allocate memory", "bad_alloc", "bad allocation", "out of memory", "available memory of"];
    let reason = if signs.iter().any(|sign| words.contains(sign)) { "engine_oom" } else { "engine_error" };
    Fault::transient(Class::Engine, reason, format!("{engine}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_out_of_memory_is_recognised() {
        let arena = "bfc_arena.cc:376 Available memory of 1024 is smaller than requested bytes of 4096";
        for words in [arena, "Failed to allocate memory for requested buffer of size 1", "std::bad_alloc"] {
            assert_eq!(engine_fault("onnxruntime", words).reason, "engine_oom");
        }
        let fault = engine_fault("rten", "operator Conv failed");
        assert_eq!((fault.reason.as_str(), fault.permanent), ("engine_error", false));
    }
}
