//! Packed samples to bytes, one a sample; and those to colours.

use super::broken::Broken;
use super::chunk::Shape;
use crate::orient::{narrow, over_white};

/// What the samples of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Whole numbers of so many bits.
    Unsigned(usize),
    /// Numbers from 0 to 1, of 32 bits.
    Float,
}

impl Format {
    /// Bits of one sample.
    pub fn bits(self) -> usize {
        match self {
            Self::Unsigned(bits) => bits,
            Self::Float => 32,
        }
    }
}

/// Undoes the differences between neighbours, in whole bytes or in numbers in the file's order (TIFF 6.0, section 14).
pub fn undo_differences(packed: &mut [u8], shape: &Shape, bits: usize, big_endian: bool) -> Result<(), Broken> {
    let (pitch, samples) = (shape.bytes / shape.height.max(1), shape.samples);
    for row in packed.chunks_exact_mut(pitch.max(1)) {
        match bits {
            8 => (samples..row.len()).for_each(|at| row[at] = row[at].wrapping_add(row[at - samples])),
            16 => add_up::<2>(row, samples, big_endian),
            32 => add_up::<4>(row, samples, big_endian),
            _ => return Err(Broken::Unsupported("differences of such samples are not decoded")),
        }
    }
    Ok(())
}

fn add_up<const N: usize>(row: &mut [u8], samples: usize, big_endian: bool) {
    let read = |bytes: &[u8; N]| {
        let add = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        if big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    };
    let (numbers, _) = row.as_chunks_mut::<N>();
    for at in samples..numbers.len() {
        let sum = read(&numbers[at]).wrapping_add(read(&numbers[at - samples]));
        for (place, byte) in numbers[at].iter_mut().enumerate() {
            let shift = if big_endian { 8 * (N - 1 - place) } else { 8 * place };
            *byte = (sum >> shift) as u8;
        }
    }
}

/// Undoes the differences of floating-point numbers, whose bytes are sorted by weight (Adobe, technical note 3).
pub fn undo_float_differences(packed: &mut [u8], shape: &Shape, big_endian: bool) {
    let pitch = shape.bytes / shape.height.max(1);
    let mut sorted = vec![0; pitch];
    for row in packed.chunks_exact_mut(pitch.max(1)) {
        (shape.samples..row.len()).for_each(|at| row[at] = row[at].wrapping_add(row[at - shape.samples]));
        sorted.copy_from_slice(row);
        let count = pitch / 4;
        for (at, number) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let bytes = [sorted[at], sorted[count + at], sorted[2 * count + at], sorted[3 * count + at]];
            *number = if big_endian { bytes } else { [bytes[3], bytes[2], bytes[1], bytes[0]] };
        }
    }
}

/// The samples of one packed row, each as a byte; indices into a palette as they stand.
pub fn row_samples(packed: &[u8], format: Format, indices: bool, big_endian: bool, mut put: impl FnMut(usize, u8)) {
    let order = |bytes: &[u8]| {
        let add = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        if big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    };
    match format {
        Format::Float => {
            let unit = |value: f32| (value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
            let numbers = packed.as_chunks::<4>().0.iter().map(|bytes| unit(f32::from_bits(order(bytes))));
            numbers.enumerate().for_each(|(at, value)| put(at, value));
        }
        Format::Unsigned(8) => packed.iter().enumerate().for_each(|(at, value)| put(at, *value)),
        Format::Unsigned(16) => {
            let numbers = packed.as_chunks::<2>().0.iter().map(|bytes| narrow(order(bytes) as u16));
            numbers.enumerate().for_each(|(at, value)| put(at, value));
        }
        Format::Unsigned(32) => {
            let numbers = packed.as_chunks::<4>().0.iter().map(|bytes| scaled(order(bytes), 32));
            numbers.enumerate().for_each(|(at, value)| put(at, value));
        }
        // Packed from the top bit on, whatever the order of bytes.
        Format::Unsigned(bits) => {
            for at in 0..packed.len() * 8 / bits {
                let value = (at * bits..(at + 1) * bits)
                    .fold(0, |sum, bit| sum << 1 | u32::from(packed[bit / 8] >> (7 - bit % 8) & 1));
                put(at, if indices { value as u8 } else { scaled(value, bits) });
            }
        }
    }
}

/// A number of so many bits as one of eight, rounded.
fn scaled(value: u32, bits: usize) -> u8 {
    let most = (1_u64 << bits) - 1;
    ((u64::from(value) * 255 + most / 2) / most) as u8
}

/// How samples become a colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Colours {
    /// One sample; whether 0 is white.
    Grey {
        /// Black and white change places.
        inverted: bool,
    },
    /// Three samples.
    Rgb,
    /// An index.
    Palette(Vec<[u8; 3]>),
    /// Four inks, 0 for none.
    Cmyk,
    /// Luma and two differences.
    YCbCr,
}

impl Colours {
    /// Samples that make the colour.
    pub fn samples(&self) -> usize {
        match self {
            Self::Grey { .. } | Self::Palette(_) => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }

    fn of(&self, samples: &[u8]) -> [u8; 3] {
        match (self, samples) {
            (Self::Grey { inverted }, [grey, ..]) => [if *inverted { 255 - grey } else { *grey }; 3],
            (Self::Palette(colours), [index, ..]) => colours.get(usize::from(*index)).copied().unwrap_or_default(),
            (Self::Rgb, [r, g, b, ..]) => [*r, *g, *b],
            (Self::YCbCr, [y, cb, cr, ..]) => ycbcr(*y, *cb, *cr),
            (Self::Cmyk, [c, m, y, k, ..]) => [c, m, y].map(|ink| over(255 - ink, 255 - k)),
            _ => [0; 3],
        }
    }
}

/// What a sample behind the colour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpha {
    /// Nothing that is shown.
    None,
    /// Opacity; colours are as if opaque.
    Straight,
    /// Opacity; colours are multiplied by it already.
    Premultiplied,
}

/// The pixels of `samples`, so many a pixel, over white.
pub fn write(samples: &[u8], count: usize, colours: &Colours, alpha: Alpha, out: &mut [u8]) {
    let at = colours.samples();
    for (pixel, samples) in out.as_chunks_mut::<3>().0.iter_mut().zip(samples.chunks_exact(count)) {
        let colour = colours.of(samples);
        *pixel = match (alpha, samples.get(at)) {
            (Alpha::Straight, Some(alpha)) => over_white(colour, *alpha),
            (Alpha::Premultiplied, Some(alpha)) => colour.map(|value| value.saturating_add(255 - alpha)),
            _ => colour,
        };
    }
}

fn over(value: u8, by: u8) -> u8 {
    ((u32::from(value) * u32::from(by) + 127) / 255) as u8
}

/// The colour of luma and differences (ITU-R BT.601, all 256 levels).
fn ycbcr(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|value| (value + 0.5) as u8)
}
