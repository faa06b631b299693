//! The detector `onnx:PATH`: an SCRFD, YuNet or UltraFace model on ONNX Runtime or rten.

use std::fs;
use std::path::Path;

use faceflow_core::Fault;
use faceflow_core::detector::{Answer, Detector, EngineInfo, Picture, Shape};

use crate::graph::{Graph, Port};
use crate::heads::{Head, Output};
use crate::pool::Pool;
use crate::postprocess::{Nms, finish};
use crate::preprocess::{Canvas, Plan, STEP, Sizing, check};
use crate::probe::{self, Batches};
use crate::runtime::{self, Runtime, Session, engine_fault};
use crate::settings::{DetectSettings, Fit};
use crate::{EngineError, sha256_hex};

/// An ONNX model ready to look at pictures.
pub(crate) struct Onnx {
    info: EngineInfo,
    runtime: Box<dyn Runtime>,
    slots: Pool<Slot>,
    head: Head,
    sizing: Sizing,
    batch_max: usize,
    score_min: f32,
    nms: Nms,
}

/// What one caller works with.
struct Slot {
    session: Box<dyn Session>,
    canvas: Canvas,
    tensor: Vec<f32>,
}

impl Onnx {
    /// Reads, recognises, loads and probes a model.
    pub fn open(path: &Path, settings: &DetectSettings) -> Result<Self, EngineError> {
        let unusable = |reason: String| EngineError::Model { path: path.to_owned(), reason };
        let bytes = fs::read(path).map_err(|source| EngineError::ModelFile { path: path.to_owned(), source })?;
        let graph = Graph::read(&bytes).map_err(unusable)?;
        let head = Head::recognise(&graph.outputs).map_err(unusable)?;
        let sizing = sizing(&graph.input, &head, settings).map_err(unusable)?;
        let runtime = runtime::choose(graph.model, settings)?;
        let mut session = runtime.session().map_err(|words| unusable(format!("{}: {words}", runtime.name())))?;
        let batches = examine(session.as_mut(), &head, &graph.input, sizing).map_err(|fault| unusable(fault.detail))?;
        let model = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let info = EngineInfo { engine: runtime.name().to_owned(), model, model_sha256: sha256_hex(&bytes) };
        tracing::info!(
            engine = info.engine,
            model = info.model,
            head = head.name(),
            ?sizing,
            ?batches,
            "the model is loaded"
        );
        let nms = head.nms();
        Ok(Self {
            batch_max: batch_max(batches, settings.batch_max, &info),
            slots: Pool::new(settings.concurrency()),
            score_min: settings.score_min.unwrap_or(head.score_min()),
            nms: Nms { iou: settings.nms_iou.unwrap_or(nms.iou), ..nms },
            info,
            runtime,
            head,
            sizing,
        })
    }

    fn slot(&self) -> Result<Slot, Fault> {
        let session = self.runtime.session().map_err(|words| engine_fault(self.runtime.name(), &words))?;
        Ok(Slot { session, canvas: Canvas::default(), tensor: Vec::new() })
    }

    /// Looks at sound pictures of one shape, in one run.
    fn look(&self, slot: &mut Slot, pictures: &[&Picture]) -> Result<Vec<Result<Answer, Fault>>, Fault> {
        let plans: Vec<_> = pictures.iter().map(|picture| self.sizing.plan(picture.width, picture.height)).collect();
        let input = plans[0].input;
        if plans.iter().any(|plan| plan.input != input) {
            return Err(engine_fault(self.runtime.name(), "pictures of different shapes were put into one batch"));
        }
        let shape = [pictures.len(), 3, input.height as usize, input.width as usize];
        let Slot { session, canvas, tensor } = slot;
        tensor.resize(shape.iter().product(), 0.0);
        let parts = tensor.chunks_exact_mut(shape[1..].iter().product());
        for ((picture, plan), part) in pictures.iter().zip(&plans).zip(parts) {
            canvas.paint(picture, plan, self.head.norm(), part);
        }
        let mut answers = Vec::with_capacity(pictures.len());
        session.run(shape, tensor, &mut |outputs: &[Output<'_>]| {
            let sound = self.head.check(outputs, plans.len(), input);
            sound.map_err(|problem| engine_fault(self.runtime.name(), &problem))?;
            answers.extend((0..plans.len()).map(|n| self.answer(outputs, n, &plans)));
            Ok(())
        })?;
        Ok(answers)
    }

    /// The answer for picture `n` of a run.
    fn answer(&self, outputs: &[Output<'_>], n: usize, plans: &[Plan]) -> Result<Answer, Fault> {
        let plan = &plans[n];
        let faces = self.head.decode(outputs, (n, plans.len()), plan, self.score_min)?;
        let faces = finish(self.nms.keep_best(faces), plan.picture);
        Ok(Answer { faces, scale: plan.scale[0].min(plan.scale[1]), degraded: false })
    }
}

impl Detector for Onnx {
    fn info(&self) -> EngineInfo {
        self.info.clone()
    }

    fn shape(&self, width: u32, height: u32) -> Shape {
        self.sizing.plan(width.max(1), height.max(1)).input
    }

    fn scale(&self, width: u32, height: u32) -> f32 {
        let [x, y] = self.sizing.plan(width.max(1), height.max(1)).scale;
        x.min(y)
    }

    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn detect(&self, batch: &[Picture]) -> Result<Vec<Result<Answer, Fault>>, Fault> {
        let mut answers: Vec<_> = batch.iter().map(|picture| Err(check(picture).err())).collect();
        let sound: Vec<_> = (0..batch.len()).filter(|n| answers[*n] == Err(None)).collect();
        self.slots.with(
            || self.slot(),
            |slot| {
                for run in sound.chunks(self.batch_max) {
                    let pictures: Vec<_> = run.iter().map(|n| &batch[*n]).collect();
                    for (n, answer) in run.iter().zip(self.look(slot, &pictures)?) {
                        answers[*n] = answer.map_err(Some);
                    }
                }
                Ok(())
            },
        )?;
        let answered = |answer: Result<Answer, Option<Fault>>| {
            answer.map_err(|fault| fault.expect("every sound picture was looked at"))
        };
        Ok(answers.into_iter().map(answered).collect())
    }
}

/// How the model takes pictures in: its own size where it has one, else as the settings say.
fn sizing(input: &Port, head: &Head, settings: &DetectSettings) -> Result<Sizing, String> {
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
        Head::UltraFace(_) => Ok(Sizing::Stretch(shape)),
        _ if !(width_px.is_multiple_of(STEP) && height_px.is_multiple_of(STEP)) => {
            Err(format!("its input is {width_px}x{height_px}, but the sides must be multiples of {STEP}"))
        }
        _ if width.is_none() && height.is_none() && settings.fit == Fit::Rect => Ok(Sizing::Rect(settings.input_px)),
        _ => Ok(Sizing::Letterbox(shape)),
    }
}

/// Runs the probe, on a small input where the model's size is free. `None` for a model of a fixed batch of 1.
fn examine(session: &mut dyn Session, head: &Head, input: &Port, sizing: Sizing) -> Result<Option<Batches>, Fault> {
    let shape = match sizing {
        Sizing::Rect(_) => Shape { width: 5 * STEP, height: 3 * STEP },
        Sizing::Letterbox(shape) | Sizing::Stretch(shape) => shape,
    };
    if input.dims[0].is_some() {
        return probe::runs(session, head, shape).map(|()| None);
    }
    probe::batches(session, head, shape).map(Some)
}

/// The largest batch that the probe allows.
fn batch_max(batches: Option<Batches>, wanted: usize, info: &EngineInfo) -> usize {
    let why = match batches {
        None => return 1,
        Some(Batches::Exact) => return wanted,
        Some(Batches::Inexact) => {
            if wanted > 1 {
                tracing::info!(
                    model = info.model,
                    "batches give other last digits than single pictures; pictures go one by one"
                );
            }
            return 1;
        }
        Some(Batches::Wrong(share)) => {
            format!("answers in a batch differ from those for single pictures by {:.0} %", share * 100.0)
        }
        Some(Batches::Refused) => "it does not take a batch, although its input says so".to_owned(),
        Some(Batches::Blind) => {
            "it answers the same for every synthetic picture, so batches cannot be verified".to_owned()
        }
    };
    tracing::warn!(model = info.model, why, "the model's batch dimension is free but unusable; pictures go one by one");
    1
}
