//! Pictures made from a number: smooth, photograph-like, and as different from each other as perceptual hashes can tell.
//!
//! The brightness of a picture is a field of 9 × 8 points whose steps from left to right spell a code word, so that the
//! gradient hash of a picture is its code word, or nearly so. The code is the extended BCH (64, 16) code, whose words
//! differ in 24 bits at least (Lin & Costello, Error Control Coding, BCH codes of length 63). Within the steps' signs the
//! points are random, which keeps other kinds of hashes apart. Promise: the same number gives the same pixels on every
//! machine, and the first hundreds of numbers give pictures more than 12 of 64 gradient bits apart.

use image::imageops::FilterType;
use image::{DynamicImage, Rgb, RgbImage};

/// The colour of marked rectangles, which no other part of a picture comes near.
pub const MARKER: [u8; 3] = [255, 0, 255];

const COLUMNS: usize = 9;
const ROWS: usize = 8;

/// The least step in brightness from one point to the next in its row.
const STEP: i32 = 14;

/// A picture of `seed`, `width` by `height` pixels: the field with a grain at 36 × 32 points, enlarged.
pub fn picture(seed: u64, width: u32, height: u32) -> RgbImage {
    const FINER: usize = 4;
    let (field, mut dice) = (Field::new(seed), Dice(!seed));
    let (across, down) = (places(COLUMNS, FINER), places(ROWS, FINER));
    let mut pixels = Vec::with_capacity(across.len() * down.len() * 3);
    for (row, below) in down {
        let points: [[i32; 3]; COLUMNS] =
            std::array::from_fn(|x| blend(field.0[row][x], field.0[(row + 1).min(ROWS - 1)][x], below));
        for (column, right) in &across {
            let colour = blend(points[*column], points[(column + 1).min(COLUMNS - 1)], *right);
            let grain = dice.within(-9, 9);
            pixels.extend(colour.map(|channel| ((channel >> 8) + grain).clamp(0, 255) as u8));
        }
    }
    let small = RgbImage::from_raw((COLUMNS * FINER) as u32, (ROWS * FINER) as u32, pixels);
    let small = DynamicImage::from(small.expect("three bytes for each pixel"));
    small.resize_exact(width, height, FilterType::Triangle).into_rgb8()
}

/// Colours at 9 × 8 points, in 256ths.
struct Field([[[i32; 3]; COLUMNS]; ROWS]);

impl Field {
    fn new(seed: u64) -> Self {
        let (word, mut dice) = (code_word(seed as u16), Dice(seed));
        Self(std::array::from_fn(|row| {
            let ups: [bool; COLUMNS - 1] = std::array::from_fn(|n| word >> (row * (COLUMNS - 1) + n) & 1 == 1);
            // What the next steps in one direction need at least.
            let room = |from: usize, up: bool| STEP * ups[from..].iter().take_while(|step| **step == up).count() as i32;
            let mut walk = [dice.within(15 + room(0, false), 240 - room(0, true)); COLUMNS];
            for (n, up) in ups.into_iter().enumerate() {
                let (low, high) = (15 + room(n + 1, false), 240 - room(n + 1, true));
                let (low, high) = if up { (low.max(walk[n] + STEP), high) } else { (low, high.min(walk[n] - STEP)) };
                walk[n + 1] = dice.within(low, high);
            }
            walk.map(|luma| tinted(luma, dice.within(-35, 35), dice.within(-35, 35)))
        }))
    }
}

/// A colour of this brightness (ITU-R BT.601), in 256ths.
fn tinted(luma: i32, red: i32, blue: i32) -> [i32; 3] {
    let green = -(299 * red + 114 * blue) / 587;
    [luma + red, luma + green, luma + blue].map(|channel| channel.clamp(0, 255) << 8)
}

/// For each of `finer` times as many places: the field point before it and how far (in 256ths, eased) the next is mixed in.
fn places(points: usize, finer: usize) -> Vec<(usize, i32)> {
    let place = |n: usize| {
        let at = ((n as f64 + 0.5) / finer as f64 - 0.5).clamp(0.0, (points - 1) as f64);
        let part = at.fract();
        (at as usize, (part * part * (3.0 - 2.0 * part) * 256.0) as i32)
    };
    (0..points * finer).map(place).collect()
}

fn blend(from: [i32; 3], to: [i32; 3], part: i32) -> [i32; 3] {
    [0, 1, 2].map(|n| from[n] + ((to[n] - from[n]) >> 8) * part)
}

/// The word of the extended BCH (64, 16) code for a message, moved by a constant so that no word is monotonous.
fn code_word(message: u16) -> u64 {
    const GENERATOR: u64 = 0o6331141367235453;
    const SHIFT: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = (0..16).filter(|bit| message >> bit & 1 == 1).fold(0, |word, bit| word ^ GENERATOR << bit);
    (word | u64::from(word.count_ones() % 2) << 63) ^ SHIFT
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn within(&mut self, low: i32, high: i32) -> i32 {
        low + (self.next() % (high - low + 1).max(1) as u64) as i32
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills the rectangle `[x1, y1, x2, y2]` (ends exclusive) with [`MARKER`]: a face for a scripted detector.
pub fn mark(picture: &mut RgbImage, [x1, y1, x2, y2]: [u32; 4]) {
    for y in y1..y2 {
        for x in x1..x2 {
            picture.put_pixel(x, y, Rgb(MARKER));
        }
    }
}

/// The marked rectangles of a picture of RGB bytes, from the top: `[x1, y1, x2, y2]`, ends exclusive. Lossy compression
/// moves an edge by a few pixels at most; specks below 4 × 4 are no markers.
pub fn find_markers(width: u32, height: u32, rgb: &[u8]) -> Vec<[u32; 4]> {
    let (width, height) = (width as usize, height as usize);
    let mut marked: Vec<bool> = rgb.chunks_exact(3).map(|p| p[0] > 170 && p[1] < 100 && p[2] > 170).collect();
    let mut found = Vec::new();
    while let Some(first) = marked.iter().position(|marked| *marked) {
        let (mut left, mut right, mut bottom) = (width, 0, 0);
        let top = first / width;
        let mut near = vec![first];
        while let Some(at) = near.pop() {
            if !std::mem::take(&mut marked[at]) {
                continue;
            }
            let (x, y) = (at % width, at / width);
            (left, right, bottom) = (left.min(x), right.max(x + 1), bottom.max(y + 1));
            near.extend((x > 0).then(|| at - 1).into_iter().chain((x + 1 < width).then_some(at + 1)));
            near.extend((y > 0).then(|| at - width).into_iter().chain((y + 1 < height).then_some(at + width)));
        }
        if right - left >= 4 && bottom - top >= 4 {
            found.push([left as u32, top as u32, right as u32, bottom as u32]);
        }
    }
    found
}

/// The picture at another size, by the mean of each pixel's box.
pub fn shrink(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let span = |n: u32, size: u32, of: u32| n * of / size..((n + 1) * of / size).max(n * of / size + 1);
        let (across, down) = (span(x, width, picture.width()), span(y, height, picture.height()));
        let count = across.len() as u32 * down.len() as u32;
        let mut sum = [0_u32; 3];
        for (x, y) in down.flat_map(|y| across.clone().map(move |x| (x, y))) {
            let Rgb(pixel) = picture.get_pixel(x, y);
            sum.iter_mut().zip(pixel).for_each(|(sum, channel)| *sum += u32::from(*channel));
        }
        Rgb(sum.map(|sum| (sum / count) as u8))
    })
}

/// The plain 64-bit gradient hash: whether each of 8 × 8 brightness means is darker than its right neighbour.
pub fn dhash(picture: &RgbImage) -> u64 {
    let small = shrink(picture, COLUMNS as u32, ROWS as u32);
    let luma = |x: usize, y: usize| {
        let Rgb([red, green, blue]) = *small.get_pixel(x as u32, y as u32);
        299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue)
    };
    let bits = (0..ROWS).flat_map(|y| (1..COLUMNS).map(move |x| (x, y)));
    bits.enumerate().fold(0, |hash, (bit, (x, y))| hash | u64::from(luma(x - 1, y) < luma(x, y)) << bit)
}

/// The picture of `seed` with `seed % 3` markers, and where these are.
pub fn portrait(seed: u64, width: u32, height: u32) -> (RgbImage, Vec<[u32; 4]>) {
    let mut painted = picture(seed, width, height);
    let mut dice = Dice(seed.wrapping_add(1) << 20);
    let corners = [(8, 10), (54, 48)];
    let place = |(left, top): (i32, i32)| {
        let (left, top) = (left + dice.within(0, 20), top + dice.within(0, 20));
        let (right, bottom) = (left + dice.within(9, 12), top + dice.within(12, 16));
        [left as u32 * width / 100, top as u32 * height / 100, right as u32 * width / 100, bottom as u32 * height / 100]
    };
    let markers: Vec<[u32; 4]> = corners.into_iter().take((seed % 3) as usize).map(place).collect();
    markers.iter().for_each(|marker| mark(&mut painted, *marker));
    (painted, markers)
}
