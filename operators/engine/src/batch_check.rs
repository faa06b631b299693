//! The check at the start: does the model run, and may pictures be batched?
//!
//! Many published detectors are exported for one picture; with the batch dimension merely set free they run and give wrong
//! answers, for all pictures but the first or with rows interleaved. So different pictures are run one by one and together,
//! and batches are allowed only if every number of every output is exactly the same. Exactly, because an answer must
//! not depend on what a picture was batched with.

use faceflow_core::Fault;
use faceflow_core::detector::Shape;

use crate::heads::{Head, Output};
use crate::preprocess::Normalization;
use crate::runtime::Session;

/// Pictures in the check.
const PICTURES: usize = 3;

/// What the check found out about batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BatchSupport {
    /// The same numbers, bit for bit.
    Exact,
    /// Other numbers, larger than rounding: the export cannot be batched. The largest difference, as a share of the
    /// largest number of its output.
    Wrong(f32),
    /// Numbers that differ by rounding alone: sound, but the answer would depend on the batch.
    Inexact,
    /// The outputs do not have the shapes of a batch, or the runtime refused.
    Refused,
    /// All pictures got the same answer, so nothing was learnt.
    Inconclusive,
}

/// A difference of more than this share of an output's largest number is not rounding.
const ROUNDING: f32 = 1e-3;

/// Runs the model on one synthetic picture and checks the outputs' shapes.
pub(crate) fn runs(session: &mut dyn Session, head: &Head, input: Shape) -> Result<(), Fault> {
    single(session, head, input, &pattern(input, head.norm(), 0)).map(|_| ())
}

/// Compares a batch with single pictures.
pub(crate) fn batches(session: &mut dyn Session, head: &Head, input: Shape) -> Result<BatchSupport, Fault> {
    let pictures: Vec<_> = (0..PICTURES).map(|seed| pattern(input, head.norm(), seed)).collect();
    let singles = pictures.iter().map(|picture| single(session, head, input, picture));
    let singles = singles.collect::<Result<Vec<_>, _>>()?;
    if singles.iter().skip(1).all(|other| difference(&singles[0], other) <= ROUNDING) {
        return Ok(BatchSupport::Inconclusive);
    }
    let shape = [PICTURES, 3, input.height as usize, input.width as usize];
    let mut verdict = BatchSupport::Refused;
    let ran = session.run(shape, &pictures.concat(), &mut |outputs: &[Output<'_>]| {
        if head.check(outputs, PICTURES, input).is_ok() {
            verdict = compare(outputs, &singles);
        }
        Ok(())
    });
    // A model that cannot take a batch at all says so by an error, which is an answer here.
    Ok(if ran.is_ok() { verdict } else { BatchSupport::Refused })
}

fn single(session: &mut dyn Session, head: &Head, input: Shape, picture: &[f32]) -> Result<Vec<Vec<f32>>, Fault> {
    let mut numbers = Vec::new();
    let shape = [1, 3, input.height as usize, input.width as usize];
    session.run(shape, picture, &mut |outputs: &[Output<'_>]| {
        head.check(outputs, 1, input).map_err(|problem| crate::runtime::engine_fault("the model", &problem))?;
        numbers = outputs.iter().map(|output| output.data.to_vec()).collect();
        Ok(())
    })?;
    Ok(numbers)
}

fn compare(outputs: &[Output<'_>], singles: &[Vec<Vec<f32>>]) -> BatchSupport {
    let part = |n: usize| -> Vec<Vec<f32>> {
        let size = |output: &Output<'_>| output.data.len() / PICTURES;
        outputs.iter().map(|output| output.data[n * size(output)..(n + 1) * size(output)].to_vec()).collect()
    };
    let parts: Vec<_> = (0..PICTURES).map(part).collect();
    if parts == singles {
        return BatchSupport::Exact;
    }
    let differences = parts.iter().zip(singles).map(|(part, single)| difference(part, single));
    let worst = differences.fold(0.0, f32::max);
    if worst <= ROUNDING { BatchSupport::Inexact } else { BatchSupport::Wrong(worst) }
}

/// The largest difference between two answers, as a share of the largest number of its output. NaN counts as infinite.
fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let of_output = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        let largest = a.iter().chain(b).fold(f32::MIN_POSITIVE, |largest, number| largest.max(number.abs()));
        let worst = a.iter().zip(b).fold(0.0, |worst: f32, (a, b)| worst.max(finite((a - b).abs())));
        worst / largest
    };
    a.iter().zip(b).map(of_output).fold(0.0, f32::max)
}

fn finite(number: f32) -> f32 {
    if number.is_nan() { f32::INFINITY } else { number }
}

/// A synthetic picture, normalised: high-contrast rings and stripes, different everywhere and for every seed.
fn pattern(input: Shape, norm: Normalization, seed: usize) -> Vec<f32> {
    let (width, height) = (input.width as usize, input.height as usize);
    let mut tensor = Vec::with_capacity(3 * width * height);
    for channel in 0..3 {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let (dx, dy) = (x.abs_diff(width * (seed + 1) / 4), y.abs_diff(height / (seed + 2)));
            let ring = (dx * dx + dy * dy) / (40 + 25 * seed);
            let stripe = x / (5 + seed) + y / (3 + channel) * (seed + 2);
            let level = if (ring + stripe).is_multiple_of(2) { 235 - 20 * channel } else { 25 * (seed + 1) };
            tensor.push((level as f32 - norm.mean) * norm.factor);
        }
    }
    tensor
}
