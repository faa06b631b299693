//! Planes to rows of pixels: upsampling and colours, as libjpeg does them (its "fancy" upsampling).

use super::idct::idct;
use super::scan::Plane;

/// How the samples of a file become colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// One component.
    Grey,
    /// Luma and two differences.
    YCbCr,
    /// As it stands.
    Rgb,
    /// Four inks, 255 for none of it, as all who write such files have it.
    Cmyk,
    /// The same, the first three as luma and differences.
    Ycck,
    /// Whatever they are: components side by side.
    Stored,
}

/// The samples of one component.
pub struct Samples {
    data: Vec<u8>,
    stride: usize,
    width: usize,
    height: usize,
    scale: Scale,
    /// Sums of two rows, for the methods that need them.
    sums: Vec<u16>,
    line: Vec<u8>,
}

/// How a component reaches the size of the picture.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    Right,
    Across,
    Down,
    Both,
    Repeat(usize, usize),
}

impl Samples {
    /// The samples of a plane that is to be enlarged by these factors.
    pub fn of(plane: &Plane, quant: &[u16; 64], across: usize, down: usize) -> Self {
        let stride = plane.stride * 8;
        let mut data = vec![0; plane.blocks.len() * 64];
        for (row, blocks) in data.chunks_exact_mut(stride * 8).zip(plane.blocks.chunks_exact(plane.stride)) {
            for (x, block) in blocks.iter().enumerate() {
                idct(block, quant, &mut row[x * 8..], stride);
            }
        }
        // libjpeg's own conditions: interpolation needs more than two samples across.
        let scale = match (across, down) {
            (1, 1) => Scale::Right,
            (2, 1) if plane.width > 2 => Scale::Across,
            (1, 2) => Scale::Down,
            (2, 2) if plane.width > 2 => Scale::Both,
            _ => Scale::Repeat(across, down),
        };
        let line = vec![0; if scale == Scale::Right { 0 } else { stride * across }];
        Self { data, stride, width: plane.width, height: plane.height, scale, sums: vec![0; plane.width], line }
    }

    fn stored(&self, y: usize) -> &[u8] {
        &self.data[y * self.stride..][..self.width]
    }

    /// Prepares row `y` of the picture.
    fn make(&mut self, y: usize) {
        let mut line = std::mem::take(&mut self.line);
        match self.scale {
            Scale::Right => {}
            Scale::Across => across(self.stored(y), &mut line),
            Scale::Repeat(across, down) => {
                let line = line.chunks_exact_mut(across);
                line.zip(self.stored(y / down)).for_each(|(pixels, sample)| pixels.fill(*sample));
            }
            Scale::Down | Scale::Both => {
                let near = y / 2;
                let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(self.height - 1) };
                let mut sums = std::mem::take(&mut self.sums);
                for ((sum, near), far) in sums.iter_mut().zip(self.stored(near)).zip(self.stored(far)) {
                    *sum = 3 * u16::from(*near) + u16::from(*far);
                }
                if self.scale == Scale::Both {
                    both(&sums, &mut line);
                } else {
                    let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                    line.iter_mut().zip(&sums).for_each(|(pixel, sum)| *pixel = ((sum + bias) >> 2) as u8);
                }
                self.sums = sums;
            }
        }
        self.line = line;
    }

    /// The row that was made.
    fn row(&self, y: usize) -> &[u8] {
        if self.scale == Scale::Right { &self.data[y * self.stride..][..self.stride] } else { &self.line }
    }
}

/// Twice as wide: three parts of the nearer sample, one of the farther.
fn across(samples: &[u8], line: &mut [u8]) {
    let (line, last) = (line.as_chunks_mut::<2>().0, samples.len() - 1);
    let wide = |at: usize| u16::from(samples[at]);
    line[0] = [samples[0], ((3 * wide(0) + wide(1) + 2) >> 2) as u8];
    for (pixels, window) in line[1..].iter_mut().zip(samples.windows(3)) {
        let [left, middle, right] = [0, 1, 2].map(|at| u16::from(window[at]));
        *pixels = [((3 * middle + left + 1) >> 2) as u8, ((3 * middle + right + 2) >> 2) as u8];
    }
    line[last] = [((3 * wide(last) + wide(last - 1) + 1) >> 2) as u8, samples[last]];
}

/// Twice as wide, from sums of two rows.
fn both(sums: &[u16], line: &mut [u8]) {
    let (line, last) = (line.as_chunks_mut::<2>().0, sums.len() - 1);
    line[0] = [((4 * sums[0] + 8) >> 4) as u8, ((3 * sums[0] + sums[1] + 7) >> 4) as u8];
    for (pixels, window) in line[1..].iter_mut().zip(sums.windows(3)) {
        let [left, middle, right] = [window[0], window[1], window[2]];
        *pixels = [((3 * middle + left + 8) >> 4) as u8, ((3 * middle + right + 7) >> 4) as u8];
    }
    line[last] = [((3 * sums[last] + sums[last - 1] + 8) >> 4) as u8, ((4 * sums[last] + 7) >> 4) as u8];
}

/// Writes the pixels, rows of `width`: one byte each for grey, as many as there are components as stored, three otherwise.
pub fn write(samples: &mut [Samples], colours: Colours, width: usize, out: &mut [u8]) {
    let channels = match colours {
        Colours::Grey => 1,
        Colours::Stored => samples.len(),
        _ => 3,
    };
    let pitch = channels * width;
    for (y, out) in out.chunks_exact_mut(pitch).enumerate() {
        samples.iter_mut().for_each(|component| component.make(y));
        match (colours, &*samples) {
            (Colours::Stored, samples) => {
                for (channel, samples) in samples.iter().enumerate() {
                    let pixels = out[channel..].iter_mut().step_by(channels);
                    pixels.zip(samples.row(y)).for_each(|(pixel, sample)| *pixel = *sample);
                }
            }
            (Colours::Grey, [grey, ..]) => out.copy_from_slice(&grey.row(y)[..width]),
            (Colours::YCbCr, [a, b, c]) => rgb_row([a.row(y), b.row(y), c.row(y)], out),
            (Colours::Rgb, [a, b, c]) => {
                let rows = a.row(y).iter().zip(b.row(y)).zip(c.row(y));
                out.as_chunks_mut().0.iter_mut().zip(rows).for_each(|(out, ((a, b), c))| *out = [*a, *b, *c]);
            }
            (_, [a, b, c, k]) => {
                let rows = a.row(y).iter().zip(b.row(y)).zip(c.row(y)).zip(k.row(y));
                for (out, (((a, b), c), k)) in out.as_chunks_mut::<3>().0.iter_mut().zip(rows) {
                    let pixel = [*a, *b, *c];
                    // libjpeg turns the first three of YCCK into inks, 255 less each colour.
                    let inks = if colours == Colours::Ycck { rgb(pixel).map(|value| 255 - value) } else { pixel };
                    *out = inks.map(|ink| product(ink, *k));
                }
            }
            _ => {}
        }
    }
}

/// A row of colours from rows of luma and differences: sixteen at a time, which compilers make vectors of.
fn rgb_row([y, cb, cr]: [&[u8]; 3], out: &mut [u8]) {
    const LANES: usize = 16;
    let (out, _) = out.as_chunks_mut::<3>();
    let whole = out.len() / LANES * LANES;
    let (many, rest) = out.split_at_mut(whole);
    let lanes = y.as_chunks::<LANES>().0.iter().zip(cb.as_chunks::<LANES>().0).zip(cr.as_chunks::<LANES>().0);
    for (out, ((y, cb), cr)) in many.as_chunks_mut::<LANES>().0.iter_mut().zip(lanes) {
        let (mut red, mut green, mut blue) = ([0; LANES], [0; LANES], [0; LANES]);
        for i in 0..LANES {
            [red[i], green[i], blue[i]] = rgb([y[i], cb[i], cr[i]]);
        }
        for i in 0..LANES {
            out[i] = [red[i], green[i], blue[i]];
        }
    }
    for (i, out) in rest.iter_mut().enumerate() {
        *out = rgb([y[whole + i], cb[whole + i], cr[whole + i]]);
    }
}

/// The colour of luma and differences (JFIF), rounded as libjpeg does. The factors 1.402, 0.34414, 0.71414 and 1.772 times
/// 2^16 are taken apart into whole ones and a rest of 16 bits: products of 16 bits are what vectors are good at.
#[inline(always)]
fn rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (i16::from(y), i16::from(cb) - 128, i16::from(cr) - 128);
    let product = |a: i16, b: i16| i32::from(a) * i32::from(b);
    let rounded = |sum: i32| ((sum + (1 << 15)) >> 16) as i16;
    let red = y + cr + rounded(product(cr, 26_345));
    let green = y - cr + rounded(product(cr, 18_734) + product(cb, -22_554));
    let blue = y + 2 * cb + rounded(product(cb, -14_942));
    [red, green, blue].map(|value| value.clamp(0, 255) as u8)
}

/// Paper seen through two inks, 255 for none.
fn product(ink: u8, black: u8) -> u8 {
    let product = u32::from(ink) * u32::from(black) + 128;
    (((product >> 8) + product) >> 8) as u8
}
