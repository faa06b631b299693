//! The detector `onnx:PATH`: an SCRFD, YuNet or UltraFace model on ONNX Runtime or rten.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use faceflow_core::blocking::blocking;
use faceflow_core::detector::{Answer, Detector, EngineInfo, Face, Inferred, PictureView, PixelBuffer, Shape, View};
use faceflow_core::{Fault, Future};

use crate::batch_check::{self, BatchSupport};
use crate::choose_runtime::choose_runtime;
use crate::heads::{Head, Output};
use crate::onnx_model::{OnnxModel, TensorInfo};
use crate::postprocess::{Nms, finish};
use crate::preprocess::{ResizeGeometry, ResizeMode, STEP, TensorWriter, check};
use crate::runtime::{Runtime, Session, engine_fault};
use crate::session_pool::SessionPool;
use crate::settings::{DetectSettings, Fit};
use crate::{EngineError, sha256_hex};

/// An ONNX model ready to look at pictures.
pub(crate) struct Onnx {
    info: EngineInfo,
    runtime: Box<dyn Runtime>,
    slots: SessionPool<Slot>,
    head: Head,
    resize_mode: ResizeMode,
    batch_max: usize,
    score_min: f32,
    nms: Nms,
}

/// What one caller works with.
struct Slot {
    session: Box<dyn Session>,
    writer: TensorWriter,
    tensor: Vec<f32>,
}

impl Onnx {
    /// Reads, recognises, loads and probes a model.
    pub fn open(path: &Path, settings: &DetectSettings) -> Result<Self, EngineError> {
        let unusable = |reason: String| EngineError::Model { path: path.to_owned(), reason };
        let bytes = fs::read(path).map_err(|source| EngineError::ModelFile { path: path.to_owned(), source })?;
        let graph = OnnxModel::read(&bytes).map_err(unusable)?;
        let head = Head::recognise(&graph.outputs).map_err(unusable)?;
        let resize_mode = resize_mode(&graph.input, &head, settings).map_err(unusable)?;
        let runtime = choose_runtime(graph.model, settings)?;
        let mut session = runtime.session().map_err(|words| unusable(format!("{}: {words}", runtime.name())))?;
        let batches =
            examine(session.as_mut(), &head, &graph.input, resize_mode).map_err(|fault| unusable(fault.detail))?;
        let model = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let info = EngineInfo { engine: runtime.name().to_owned(), model, model_sha256: sha256_hex(&bytes) };
        tracing::info!(
            engine = info.engine,
            model = info.model,
            head = head.name(),
            ?resize_mode,
            ?batches,
            "the model is loaded"
        );
        let nms = head.nms();
        Ok(Self {
            batch_max: batch_max(batches, settings.batch_max, &info),
            slots: SessionPool::new(settings.concurrency()),
            score_min: settings.score_min.unwrap_or(head.score_min()),
            nms: Nms { iou: settings.nms_iou.unwrap_or(nms.iou), ..nms },
            info,
            runtime,
            head,
            resize_mode,
        })
    }

    fn slot(&self) -> Result<Slot, Fault> {
        let session = self.runtime.session().map_err(|words| engine_fault(self.runtime.name(), &words))?;
        Ok(Slot { session, writer: TensorWriter::default(), tensor: Vec::new() })
    }

    /// Looks at views of one shape, those with broken pixels left out, in runs that the model was seen to get right.
    fn look_at(&self, views: &[PictureView]) -> Inferred {
        let pixels = |view: &PictureView| {
            let picture = view.pixels()?;
            check(&picture)?;
            Ok(picture)
        };
        let pictures: Vec<Result<PixelBuffer, Fault>> = views.iter().map(pixels).collect();
        let sound = |(view, picture)| Some((view, Result::as_ref(picture).ok()?));
        let sound: Vec<(&PictureView, &PixelBuffer)> = views.iter().zip(&pictures).filter_map(sound).collect();
        let mut answers = Vec::with_capacity(sound.len());
        let infer_all = |slot: &mut Slot| {
            sound.chunks(self.batch_max).try_for_each(|run| {
                answers.extend(self.infer_batch(slot, run)?);
                Ok(())
            })
        };
        self.slots.with(|| self.slot(), infer_all)?;
        let mut answers = answers.into_iter();
        let mut answer = || answers.next().expect("every sound picture was looked at");
        Ok(pictures.into_iter().map(|picture| picture.and_then(|_| answer())).collect())
    }

    /// Looks at sound pictures of one shape, in one run.
    fn infer_batch(
        &self,
        slot: &mut Slot,
        views: &[(&PictureView, &PixelBuffer)],
    ) -> Result<Vec<Result<Answer, Fault>>, Fault> {
        let plans: Vec<_> =
            views.iter().map(|(_, picture)| self.resize_mode.plan(picture.width, picture.height)).collect();
        let input = views[0].0.view.shape;
        if plans.iter().any(|plan| plan.input != input) {
            return Err(engine_fault(self.runtime.name(), "pictures of different shapes were put into one batch"));
        }
        let shape = [views.len(), 3, input.height as usize, input.width as usize];
        let Slot { session, writer, tensor } = slot;
        tensor.resize(shape.iter().product(), 0.0);
        let parts = tensor.chunks_exact_mut(shape[1..].iter().product());
        for (((_, picture), plan), part) in views.iter().zip(&plans).zip(parts) {
            writer.write(picture, plan, self.head.norm(), part);
        }
        let mut answers = Vec::with_capacity(views.len());
        session.run(shape, tensor, &mut |outputs: &[Output<'_>]| {
            let sound = self.head.check(outputs, plans.len(), input);
            sound.map_err(|problem| engine_fault(self.runtime.name(), &problem))?;
            let faces = (0..plans.len()).map(|n| self.faces(outputs, n, &plans));
            let answer = |((view, _), faces): (&(&PictureView, _), Result<_, Fault>)| {
                Ok(Answer::of_view(&view.view, self.info(), faces?))
            };
            answers.extend(views.iter().zip(faces).map(answer));
            Ok(())
        })?;
        Ok(answers)
    }

    /// The faces of picture `n` of a run.
    fn faces(&self, outputs: &[Output<'_>], n: usize, plans: &[ResizeGeometry]) -> Result<Vec<Face>, Fault> {
        let plan = &plans[n];
        let faces = self.head.decode(outputs, (n, plans.len()), plan, self.score_min)?;
        Ok(finish(self.nms.keep_best(faces), plan.picture))
    }
}

impl Detector for Onnx {
    fn info(&self) -> EngineInfo {
        self.info.clone()
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        let ResizeGeometry { input, scale: [x, y], .. } = self.resize_mode.plan(width.max(1), height.max(1));
        vec![View::full((width, height), input, x.min(y))]
    }

    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(blocking(move || self.look_at(&views)))
    }
}

/// How the model takes pictures in: its own size where it has one, else as the settings say.
fn resize_mode(input: &TensorInfo, head: &Head, settings: &DetectSettings) -> Result<ResizeMode, String> {
    let [batch, channels, height, width] = input.dims[..] else {
        return Err(format!("its input has {} dimensions, not batch, channels, height and width", input.dims.len()));
    };
    if channels.is_some_and(|channels| channels != 3) || batch.is_some_and(|batch| batch != 1) {
        return Err(format!(
            "its input is {:?}; it must take one picture or a free number of pictures with 3 channels",
            input.dims
        ));
    }
    let side = |own: Option<u64>| own.map_or(Ok(settings.input_px), u32::try_from);
    let (Ok(width_px), Ok(height_px)) = (side(width), side(height)) else {
        return Err(format!("its input is too large: {:?}", input.dims));
    };
    let shape = Shape { width: width_px, height: height_px };
    match head {
        Head::UltraFace(_) => Ok(ResizeMode::Stretch(shape)),
        _ if !(width_px.is_multiple_of(STEP) && height_px.is_multiple_of(STEP)) => {
            Err(format!("its input is {width_px}x{height_px}, but the sides must be multiples of {STEP}"))
        }
        _ if width.is_none() && height.is_none() && settings.fit == Fit::Rect => {
            Ok(ResizeMode::Rect(settings.input_px))
        }
        _ => Ok(ResizeMode::Letterbox(shape)),
    }
}

/// Runs the check, on a small input where the model's size is free. `None` for a model of a fixed batch of 1.
fn examine(
    session: &mut dyn Session,
    head: &Head,
    input: &TensorInfo,
    resize_mode: ResizeMode,
) -> Result<Option<BatchSupport>, Fault> {
    let shape = match resize_mode {
        ResizeMode::Rect(_) => Shape { width: 5 * STEP, height: 3 * STEP },
        ResizeMode::Letterbox(shape) | ResizeMode::Stretch(shape) => shape,
    };
    if input.dims[0].is_some() {
        return batch_check::runs(session, head, shape).map(|()| None);
    }
    batch_check::batches(session, head, shape).map(Some)
}

/// The largest batch that the check allows.
fn batch_max(batches: Option<BatchSupport>, wanted: usize, info: &EngineInfo) -> usize {
    let why = match batches {
        None => return 1,
        Some(BatchSupport::Exact) => return wanted,
        Some(BatchSupport::Inexact) => {
            if wanted > 1 {
                tracing::info!(
                    model = info.model,
                    "batches give other last digits than single pictures; pictures go one by one"
                );
            }
            return 1;
        }
        Some(BatchSupport::Wrong(share)) => {
            format!("answers in a batch differ from those for single pictures by {:.0} %", share * 100.0)
        }
        Some(BatchSupport::Refused) => "it does not take a batch, although its input says so".to_owned(),
        Some(BatchSupport::Inconclusive) => {
            "it answers the same for every synthetic picture, so batches cannot be verified".to_owned()
        }
    };
    tracing::warn!(model = info.model, why, "the model's batch dimension is free but unusable; pictures go one by one");
    1
}
