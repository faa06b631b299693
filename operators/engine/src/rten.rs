//! rten, the runtime that is part of this binary: slower than ONNX Runtime, but always there.
//!
//! The loaded model is shared; each session computes on a thread pool of one, so the numbers do not depend on how many
//! sessions there are.

use std::sync::{Arc, OnceLock};

use ::rten::{Model, RunOptions, ThreadPool, ValueView};
use faceflow_core::Fault;
use rten_tensor::Layout;

use crate::heads::Output;
use crate::runtime::{ReadOutputs, Runtime, Session, engine_fault};

const NAME: &str = "rten";

/// One model on rten.
pub(crate) struct Rten {
    bytes: Arc<[u8]>,
    model: OnceLock<Arc<Model>>,
}

impl Rten {
    /// Sessions of this model.
    pub fn new(bytes: Arc<[u8]>) -> Self {
        Self { bytes, model: OnceLock::new() }
    }
}

impl Runtime for Rten {
    fn name(&self) -> &'static str {
        NAME
    }

    fn session(&self) -> Result<Box<dyn Session>, String> {
        let model = match self.model.get() {
            Some(model) => model,
            None => {
                let model = Model::load(self.bytes.to_vec()).map_err(|error| error.to_string())?;
                self.model.get_or_init(|| Arc::new(model))
            }
        };
        let threads = Arc::new(ThreadPool::with_num_threads(1));
        Ok(Box::new(OneSession { model: Arc::clone(model), threads }))
    }
}

struct OneSession {
    model: Arc<Model>,
    threads: Arc<ThreadPool>,
}

impl Session for OneSession {
    fn run(&mut self, shape: [usize; 4], input: &[f32], read: &mut ReadOutputs<'_>) -> Result<(), Fault> {
        let fault = |error: &dyn std::fmt::Display| engine_fault(NAME, &error.to_string());
        let input = ValueView::from_shape(shape, input).map_err(|error| fault(&error))?;
        let inputs = self.model.input_ids().iter().map(|id| (*id, input.clone().into())).collect();
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.threads)));
        let outputs = self.model.run(inputs, self.model.output_ids(), Some(options)).map_err(|error| fault(&error))?;
        let mut views = Vec::with_capacity(outputs.len());
        for value in &outputs {
            let tensor = value.as_tensor_view::<f32>().ok_or_else(|| fault(&"an output is not float"))?;
            let data = tensor.data().ok_or_else(|| fault(&"an output is not contiguous"))?;
            views.push(Output { shape: tensor.shape().to_vec(), data });
        }
        read(&views)
    }
}
