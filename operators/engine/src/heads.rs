//! The three families of face detection networks: how each wants its input, and what its outputs mean.
//!
//! A family is recognised from the graph's outputs. The promise: boxes and landmarks come out in pixels of the picture, as
//! the family's reference implementation has them, and numbers that make no sense are a fault instead of faces.

use faceflow_core::detector::{Face, Shape};
use faceflow_core::{Class, Fault};

use crate::onnx_model::TensorInfo;
use crate::postprocess::Nms;
use crate::preprocess::{Normalization, ResizeGeometry};

/// One output tensor of a run.
#[derive(Clone, Debug)]
pub(crate) struct Output<'a> {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its numbers, row by row.
    pub data: &'a [f32],
}

/// A family of networks, as exported in one model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Head {
    /// SCRFD (<https://arxiv.org/abs/2105.04714>), decoded as in insightface's `scrfd.py`. Outputs: scores of all strides,
    /// then distances to the box sides, then landmark offsets if there are any.
    Scrfd {
        /// Strides, one output of each kind per stride.
        strides: &'static [u32],
        /// Rows per cell.
        anchors: usize,
        /// Whether landmarks come with the boxes.
        landmarks: bool,
    },
    /// YuNet (<https://doi.org/10.1007/s11633-023-1423-y>), decoded as in OpenCV's `FaceDetectorYN`. Where in the outputs cls,
    /// obj, bbox and kps of each stride are.
    YuNet([[usize; 4]; 3]),
    /// Ultra-Light-Fast-Generic-Face-Detector, decoded as its authors do. Where in the outputs scores and boxes are.
    UltraFace([usize; 2]),
}

const STRIDES: [u32; 3] = [8, 16, 32];

impl Head {
    /// Which family has these outputs.
    pub fn recognise(outputs: &[TensorInfo]) -> Result<Self, String> {
        let find = |name: &str| outputs.iter().position(|output| output.name == name);
        let of_stride = |stride: u32| {
            let [cls, obj, bbox, kps] = ["cls", "obj", "bbox", "kps"].map(|kind| find(&format!("{kind}_{stride}")));
            Some([cls?, obj?, bbox?, kps?])
        };
        if let [Some(a), Some(b), Some(c)] = STRIDES.map(of_stride) {
            return Ok(Self::YuNet([a, b, c]));
        }
        if let (2, Some(scores), Some(boxes)) = (outputs.len(), find("scores"), find("boxes")) {
            return Ok(Self::UltraFace([scores, boxes]));
        }
        let (strides, anchors): (&[u32], _) = match outputs.len() {
            6 | 9 => (&STRIDES, 2),
            10 | 15 => (&[8, 16, 32, 64, 128], 1),
            count => {
                let names: Vec<_> = outputs.iter().map(|output| output.name.as_str()).take(12).collect();
                return Err(format!(
                    "its {count} outputs ({}) are not those of SCRFD (6, 9, 10 or 15 outputs), YuNet (cls_8 to kps_32) or \
                     UltraFace (scores, boxes)",
                    names.join(", ")
                ));
            }
        };
        Ok(Self::Scrfd { strides, anchors, landmarks: outputs.len() == strides.len() * 3 })
    }

    /// The family's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Scrfd { .. } => "SCRFD",
            Self::YuNet(_) => "YuNet",
            Self::UltraFace(_) => "UltraFace",
        }
    }

    /// What the input's numbers mean.
    pub fn norm(&self) -> Normalization {
        match self {
            Self::Scrfd { .. } => Normalization { mean: 127.5, factor: 1.0 / 128.0, bgr: false },
            Self::YuNet(_) => Normalization { mean: 0.0, factor: 1.0, bgr: true },
            Self::UltraFace(_) => Normalization { mean: 127.0, factor: 1.0 / 128.0, bgr: false },
        }
    }

    /// Default lowest score.
    pub fn score_min(&self) -> f32 {
        match self {
            Self::Scrfd { .. } => 0.5,
            Self::YuNet(_) => 0.6,
            Self::UltraFace(_) => 0.7,
        }
    }

    /// Default suppression.
    pub fn nms(&self) -> Nms {
        match self {
            Self::Scrfd { .. } => Nms { iou: 0.4, inclusive: 1.0 },
            // OpenCV's default of 0.3 lets neighbours in a crowd suppress each other: 0.4 finds more, at either fit.
            Self::YuNet(_) => Nms { iou: 0.4, inclusive: 0.0 },
            Self::UltraFace(_) => Nms { iou: 0.3, inclusive: 0.0 },
        }
    }

    /// Checks that outputs have the shapes that this family gives for a batch of this size at this input: `[batch, rows,
    /// numbers]`, or `[rows, numbers]` for a single picture. Says what differs.
    pub fn check(&self, outputs: &[Output<'_>], batch: usize, input: Shape) -> Result<(), String> {
        for (index, rows, numbers) in self.expected(outputs, input) {
            let shape = outputs.get(index).map(|output| output.shape.as_slice()).unwrap_or_default();
            let as_batch = shape == [batch, rows, numbers];
            if !(as_batch || batch == 1 && shape == [rows, numbers]) {
                return Err(format!(
                    "output {index} has the shape {shape:?}, but {} gives [{batch}, {rows}, {numbers}] for {batch} pictures \
                     of {}x{}",
                    self.name(),
                    input.width,
                    input.height
                ));
            }
        }
        Ok(())
    }

    /// Which output has how many rows of how many numbers per picture.
    fn expected(&self, outputs: &[Output<'_>], input: Shape) -> Vec<(usize, usize, usize)> {
        let cells = |stride: u32| (input.width / stride) as usize * (input.height / stride) as usize;
        match self {
            Self::Scrfd { strides, anchors, landmarks } => {
                let kinds = [1, 4, 10].into_iter().take(if *landmarks { 3 } else { 2 }).enumerate();
                let per_stride = |(kind, numbers): (usize, usize)| {
                    let levels = strides.iter().enumerate();
                    levels.map(move |(level, stride)| (kind * strides.len() + level, cells(*stride) * anchors, numbers))
                };
                kinds.flat_map(per_stride).collect()
            }
            Self::YuNet(levels) => {
                let level = |(at, stride): (&[usize; 4], u32)| {
                    [(at[0], 1), (at[1], 1), (at[2], 4), (at[3], 10)].map(|(at, numbers)| (at, cells(stride), numbers))
                };
                levels.iter().zip(STRIDES).flat_map(level).collect()
            }
            Self::UltraFace([scores, boxes]) => {
                let shape = outputs.get(*scores).map(|output| output.shape.as_slice()).unwrap_or_default();
                let rows = shape.iter().rev().nth(1).copied().unwrap_or(0);
                vec![(*scores, rows, 2), (*boxes, rows, 4)]
            }
        }
    }

    /// The faces of picture `n` of a batch with at least this score, in pixels of the picture, overlaps and all. A score that is
    /// not a number is a fault, and so is a number that makes no sense in a row that passes. The outputs have passed
    /// [`Head::check`].
    pub fn decode(
        &self,
        outputs: &[Output<'_>],
        (n, batch): (usize, usize),
        plan: &ResizeGeometry,
        score_min: f32,
    ) -> Result<Vec<Face>, Fault> {
        let own = |index: usize| {
            let size = outputs[index].data.len() / batch;
            &outputs[index].data[n * size..(n + 1) * size]
        };
        let decoded = match self {
            Self::Scrfd { strides, anchors, landmarks } => {
                let of_level = |(level, stride): (usize, &u32)| {
                    let kind = |kind: usize| own(kind * strides.len() + level);
                    let points = if *landmarks { kind(2) } else { &[] };
                    let columns = (plan.input.width / stride) as usize * anchors;
                    let grid = Grid { stride: *stride as f32, columns, anchors: *anchors };
                    grid.scrfd([kind(0), kind(1), points], plan, score_min)
                };
                concat(strides.iter().enumerate().map(of_level))
            }
            Self::YuNet(levels) => {
                let of_level = |(at, stride): (&[usize; 4], u32)| {
                    let columns = (plan.input.width / stride) as usize;
                    Grid { stride: stride as f32, columns, anchors: 1 }.yunet(at.map(own), plan, score_min)
                };
                concat(levels.iter().zip(STRIDES).map(of_level))
            }
            Self::UltraFace([scores, boxes]) => ultraface([own(*scores), own(*boxes)], plan, score_min),
        };
        let sane = |face: &Face| face.bbox.iter().all(|side| side.is_finite());
        decoded.filter(|faces| faces.iter().all(sane)).ok_or_else(|| not_a_number(self.name()))
    }
}

/// The faces of all levels, if each makes sense.
fn concat(levels: impl Iterator<Item = Option<Vec<Face>>>) -> Option<Vec<Face>> {
    let levels: Option<Vec<_>> = levels.collect();
    Some(levels?.concat())
}

fn not_a_number(head: &str) -> Fault {
    let detail = format!("the {head} model gave numbers that are infinite or not numbers for this picture");
    Fault::transient(Class::Engine, "engine_error", detail)
}

/// Whether a row is looked at: it passes the score, or its score is not a number, which says nothing about what is there.
/// What else stands in a row that does not pass is never looked at, infinite or not.
fn counts(score: f32, score_min: f32) -> bool {
    score >= score_min || score.is_nan()
}

/// Whether no number is infinite or NaN.
fn are_finite(numbers: &[f32]) -> bool {
    numbers.iter().all(|number| number.is_finite())
}

/// The cells of one stride.
struct Grid {
    stride: f32,
    /// Rows of output per row of cells.
    columns: usize,
    /// Rows of output per cell.
    anchors: usize,
}

impl Grid {
    /// The cell of a row of output: its column and row, counted in cells.
    fn cell(&self, row: usize) -> [f32; 2] {
        [(row % self.columns / self.anchors) as f32, (row / self.columns) as f32]
    }

    /// Sides are distances from the cell's corner, landmarks offsets from it, all in strides.
    fn scrfd(&self, [scores, sides, points]: [&[f32]; 3], plan: &ResizeGeometry, score_min: f32) -> Option<Vec<Face>> {
        let decode = |(row, score): (usize, &f32)| {
            let (sides, points) = (&sides[row * 4..][..4], points.get(row * 10..row * 10 + 10).unwrap_or_default());
            if !(score.is_finite() && are_finite(sides) && are_finite(points)) {
                return None;
            }
            let [x, y] = self.cell(row).map(|cell| cell * self.stride);
            let at = |x: f32, y: f32| [x / plan.scale[0], y / plan.scale[1]];
            let side = |i: usize| sides[i] * self.stride;
            let ([x1, y1], [x2, y2]) = (at(x - side(0), y - side(1)), at(x + side(2), y + side(3)));
            let offset = |i: usize| points[i] * self.stride;
            let landmarks =
                (!points.is_empty()).then(|| std::array::from_fn(|i| at(x + offset(2 * i), y + offset(2 * i + 1))));
            Some(Face { bbox: [x1, y1, x2, y2], score: *score, quality: 0.0, landmarks })
        };
        scores.iter().enumerate().filter(|(_, score)| counts(**score, score_min)).map(decode).collect()
    }

    /// The score is the geometric mean of class and objectness; boxes are centre offsets and logarithms of the sides.
    fn yunet(
        &self,
        [cls, obj, sides, points]: [&[f32]; 4],
        plan: &ResizeGeometry,
        score_min: f32,
    ) -> Option<Vec<Face>> {
        let scores = cls.iter().zip(obj).map(|(cls, obj)| (cls.clamp(0.0, 1.0) * obj.clamp(0.0, 1.0)).sqrt());
        let decode = |(row, score): (usize, f32)| {
            let (sides, points) = (&sides[row * 4..][..4], &points[row * 10..][..10]);
            if !(are_finite(&[cls[row], obj[row]]) && are_finite(sides) && are_finite(points)) {
                return None;
            }
            let [column, line] = self.cell(row);
            let at = |x: f32, y: f32| [x / plan.scale[0], y / plan.scale[1]];
            let (x, y) = ((column + sides[0]) * self.stride, (line + sides[1]) * self.stride);
            let (width, height) = (sides[2].exp() * self.stride, sides[3].exp() * self.stride);
            let ([x1, y1], [x2, y2]) = (at(x - width / 2.0, y - height / 2.0), at(x + width / 2.0, y + height / 2.0));
            let point = |i: usize, cell: f32| (points[i] + cell) * self.stride;
            let landmarks = std::array::from_fn(|i| at(point(2 * i, column), point(2 * i + 1, line)));
            Some(Face { bbox: [x1, y1, x2, y2], score, quality: 0.0, landmarks: Some(landmarks) })
        };
        scores.enumerate().filter(|(_, score)| counts(*score, score_min)).map(decode).collect()
    }
}

/// Corners from 0 to 1; of the two scores the second is "face".
fn ultraface([scores, boxes]: [&[f32]; 2], plan: &ResizeGeometry, score_min: f32) -> Option<Vec<Face>> {
    let rows = scores.chunks_exact(2).zip(boxes.chunks_exact(4));
    let found = rows.filter(|(score, _)| counts(score[1], score_min));
    let decode = |(score, corners): (&[f32], &[f32])| {
        let bbox = std::array::from_fn(|i| corners[i] * plan.picture[i % 2] as f32);
        let face = Face { bbox, score: score[1], quality: 0.0, landmarks: None };
        (are_finite(score) && are_finite(corners)).then_some(face)
    };
    found.map(decode).collect()
}

#[cfg(test)]
mod tests;
