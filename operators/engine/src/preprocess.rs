//! From a picture to the input tensor: resize, pad and normalise.
//!
//! The promise: the geometry of the reference implementations, down to the truncation in their letterbox, and pixels written
//! straight into the tensor. Resizing is bilinear between the two nearest pixels, without antialiasing and to whole levels, as
//! in the references (OpenCV's `INTER_LINEAR`).

use std::ops::Range;

use faceflow_core::detector::{Picture, Shape};
use faceflow_core::{Class, Fault};

/// Network strides divide by this, so the sides of every input do.
pub(crate) const STEP: u32 = 32;

/// How a model's input takes pictures in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sizing {
    /// Longest side at most this, never enlarged, each side padded to a multiple of [`STEP`].
    Rect(u32),
    /// The largest copy that fits at the top left of an input of this shape.
    Letterbox(Shape),
    /// Stretched to this shape, whatever the sides' ratio.
    Stretch(Shape),
}

/// Where one picture comes to lie in the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plan {
    /// The picture's width and height.
    pub picture: [u32; 2],
    /// Width and height of its copy at the top left of the input.
    pub copy: [u32; 2],
    /// The input.
    pub input: Shape,
    /// Input pixels per picture pixel, along x and y.
    pub scale: [f32; 2],
}

impl Sizing {
    /// Where a picture of this size comes to lie.
    pub fn plan(self, width: u32, height: u32) -> Plan {
        let picture = [width, height];
        let exact = |copy: [u32; 2]| [copy[0] as f32 / width as f32, copy[1] as f32 / height as f32];
        match self {
            Self::Rect(side) => {
                let small = width.max(height) <= side;
                let shrink = f64::from(side) / f64::from(width.max(height));
                let shrunk = picture.map(|length| ((f64::from(length) * shrink).round() as u32).max(1));
                let copy = if small { picture } else { shrunk };
                let input = Shape { width: copy[0].next_multiple_of(STEP), height: copy[1].next_multiple_of(STEP) };
                Plan { picture, copy, input, scale: exact(copy) }
            }
            Self::Letterbox(input) => {
                let copy = inscribe(picture, input);
                // The reference divides both axes by the vertical scale, although truncation makes them differ a little.
                Plan { picture, copy, input, scale: [copy[1] as f32 / height as f32; 2] }
            }
            Self::Stretch(input) => {
                let copy = [input.width, input.height];
                Plan { picture, copy, input, scale: exact(copy) }
            }
        }
    }
}

/// The largest size of the picture's ratio inside `frame`, truncated as in insightface's `scrfd.py`, but at least one
/// pixel.
fn inscribe([width, height]: [u32; 2], frame: Shape) -> [u32; 2] {
    let ratio = f64::from(height) / f64::from(width);
    let copy = if ratio > f64::from(frame.height) / f64::from(frame.width) {
        [(f64::from(frame.height) / ratio) as u32, frame.height]
    } else {
        [frame.width, (f64::from(frame.width) * ratio) as u32]
    };
    copy.map(|side| side.max(1))
}

/// What a network's input numbers mean: `(value - mean) * factor`, in this order of channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Norm {
    /// Subtracted from 0..255.
    pub mean: f32,
    /// Then multiplied.
    pub factor: f32,
    /// Blue first.
    pub bgr: bool,
}

impl Norm {
    fn of(self, level: f32) -> f32 {
        (level - self.mean) * self.factor
    }
}

/// The nearest whole number of a level: the references resize in 8 bits, and the networks were trained on that. Adding and
/// subtracting 1.5 * 2^23 leaves a 32-bit float no bits for a fraction.
fn whole(level: f32) -> f32 {
    const NO_FRACTION: f32 = 12_582_912.0;
    (level + NO_FRACTION) - NO_FRACTION
}

/// Writes pictures into input tensors. Keeps its buffers between pictures.
#[derive(Default)]
pub(crate) struct Canvas {
    /// For each column of the copy: where its left neighbour begins in a row of the picture, and the right one's share.
    columns: Vec<(usize, f32)>,
    /// A line of the copy before it is resized to its width: levels, RGB.
    row: Vec<f32>,
}

impl Canvas {
    /// Writes a picture into its part of the input tensor, `[3, height, width]` numbers; what it does not cover is black.
    pub fn paint(&mut self, picture: &Picture, plan: &Plan, norm: Norm, tensor: &mut [f32]) {
        let [width, height] = plan.copy.map(|side| side as usize);
        let (line, area) = (plan.input.width as usize, tensor.len() / 3);
        let (first, rest) = tensor.split_at_mut(area);
        let (green, last) = rest.split_at_mut(area);
        let (red, blue) = if norm.bgr { (last, first) } else { (first, last) };
        let mut planes = [red, green, blue];
        let black = norm.of(0.0);
        for plane in &mut planes {
            plane[..height * line].chunks_exact_mut(line).for_each(|line| line[width..].fill(black));
            plane[height * line..].fill(black);
        }
        let lines = (0..height).map(|y| y * line..y * line + width);
        if plan.copy == plan.picture {
            for (pixels, line) in picture.rgb.chunks_exact(width * 3).zip(lines) {
                let pixels = pixels.as_chunks::<3>().0.iter();
                write(pixels.map(|pixel| pixel.map(|level| norm.of(level.into()))), &mut planes, line);
            }
            return;
        }
        self.columns.clear();
        let last = (plan.picture[0] as usize).saturating_sub(2);
        self.columns.extend(
            (0..width).map(|x| neighbours(x, plan.picture[0], plan.copy[0], last)).map(|(x, share)| (x * 3, share)),
        );
        let bottom = (plan.picture[1] as usize).saturating_sub(2);
        for (y, line) in lines.enumerate() {
            self.blend_rows(picture, neighbours(y, plan.picture[1], plan.copy[1], bottom));
            let row = self.row.as_slice();
            let pixel = |(at, share): &(usize, f32)| {
                let near = &row[*at..*at + 6];
                [0, 1, 2].map(|c| norm.of(whole(near[c] + (near[c + 3] - near[c]) * share)))
            };
            write(self.columns.iter().map(pixel), &mut planes, line);
        }
    }

    /// The line between two rows of the picture.
    fn blend_rows(&mut self, picture: &Picture, (upper, share): (usize, f32)) {
        let bytes = picture.width as usize * 3;
        let row = |y: usize| &picture.rgb[y * bytes..(y + 1) * bytes];
        let lower = (upper + 1).min(picture.height as usize - 1);
        self.row.clear();
        let blend = |(a, b): (&u8, &u8)| {
            let (a, b) = (f32::from(*a), f32::from(*b));
            a + (b - a) * share
        };
        self.row.extend(row(upper).iter().zip(row(lower)).map(blend));
        // A picture one pixel wide is its own right neighbour.
        if picture.width == 1 {
            self.row.extend_from_within(..3);
        }
    }
}

/// Spreads RGB pixels over the three planes.
fn write(pixels: impl Iterator<Item = [f32; 3]>, [red, green, blue]: &mut [&mut [f32]; 3], line: Range<usize>) {
    let planes = red[line.clone()].iter_mut().zip(&mut green[line.clone()]).zip(&mut blue[line]);
    for (pixel, ((red, green), blue)) in pixels.zip(planes) {
        [*red, *green, *blue] = pixel;
    }
}

/// The pixels of the picture between which a pixel of the copy lies: the first of the two, at most `last`, and the share of
/// the second. Pixel centres correspond, and pixels beyond the edge repeat the edge.
fn neighbours(at: usize, from: u32, to: u32, last: usize) -> (usize, f32) {
    let centre = ((at as f64 + 0.5) * f64::from(from) / f64::from(to) - 0.5).clamp(0.0, f64::from(from - 1));
    let first = (centre as usize).min(last);
    (first, (centre - first as f64) as f32)
}

/// Refuses pixels that are not the picture they claim to be.
pub(crate) fn check(picture: &Picture) -> Result<(), Fault> {
    let (width, height) = (picture.width, picture.height);
    let expected = (width as usize).checked_mul(height as usize).and_then(|area| area.checked_mul(3));
    if width > 0 && height > 0 && expected == Some(picture.rgb.len()) {
        return Ok(());
    }
    let detail = format!("{} bytes are no RGB picture of {width}x{height} pixels", picture.rgb.len());
    Err(Fault::permanent(Class::Engine, "bad_picture", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: Sizing = Sizing::Letterbox(Shape { width: 640, height: 640 });

    #[test]
    fn the_letterbox_is_the_reference_one() {
        let plan = SQUARE.plan(1024, 683);
        assert_eq!((plan.copy, plan.scale), ([640, 426], [426.0 / 683.0; 2]), "int(640 * 683 / 1024) = 426");
        let plan = SQUARE.plan(683, 1024);
        assert_eq!((plan.copy, plan.scale), ([426, 640], [0.625; 2]));
        assert_eq!(SQUARE.plan(100, 50).copy, [640, 320], "small pictures are enlarged");
        assert_eq!(SQUARE.plan(1, 5000).copy, [1, 640], "never nothing");
    }

    #[test]
    fn the_rectangle_pads_and_never_enlarges() {
        let plan = Sizing::Rect(640).plan(1024, 683);
        assert_eq!((plan.copy, plan.input), ([640, 427], Shape { width: 640, height: 448 }));
        assert_eq!(plan.scale, [640.0 / 1024.0, 427.0 / 683.0]);
        let plan = Sizing::Rect(640).plan(100, 50);
        assert_eq!((plan.copy, plan.input, plan.scale), ([100, 50], Shape { width: 128, height: 64 }, [1.0; 2]));
        assert_eq!(Sizing::Rect(640).plan(100_000, 1).input, Shape { width: 640, height: 32 });
    }

    #[test]
    fn pixels_land_in_their_planes_and_the_rest_is_black() {
        let picture = Picture { width: 2, height: 1, rgb: vec![10, 20, 30, 40, 50, 60].into() };
        let plan = Sizing::Rect(64).plan(2, 1);
        let mut tensor = vec![f32::NAN; 3 * 32 * 32];
        let norm = Norm { mean: 127.5, factor: 1.0 / 128.0, bgr: false };
        Canvas::default().paint(&picture, &plan, norm, &mut tensor);
        assert_eq!(tensor[..3], [(10.0 - 127.5) / 128.0, (40.0 - 127.5) / 128.0, -127.5 / 128.0]);
        assert_eq!(tensor[32 * 32], (20.0 - 127.5) / 128.0);
        assert_eq!(tensor.iter().filter(|value| **value == -127.5 / 128.0).count(), 3 * (32 * 32 - 2));
        let norm = Norm { mean: 0.0, factor: 1.0, bgr: true };
        Canvas::default().paint(&picture, &plan, norm, &mut tensor);
        assert_eq!([tensor[0], tensor[1024], tensor[2048]], [30.0, 20.0, 10.0]);
    }

    #[derive(serde::Deserialize)]
    struct Resized {
        copies: Vec<Copy>,
        one_column: Vec<u8>,
    }

    #[derive(serde::Deserialize)]
    struct Copy {
        size: [u32; 2],
        rgb: Vec<u8>,
    }

    /// The top left corner of the synthetic picture of `tests/data/make.py`.
    fn corner(width: u32, height: u32) -> Picture {
        let level = |x: u32, y: u32, c: u32| ((x * 7 + y * 13 + c * 29 + (x / 12) * (y / 10) * 31) % 256) as u8;
        let line = |y| (0..width).flat_map(move |x| (0..3).map(move |c| level(x, y, c)));
        Picture { width, height, rgb: (0..height).flat_map(line).collect::<Vec<_>>().into() }
    }

    /// The largest difference in levels between our copy and one of these bytes.
    fn apart(picture: &Picture, copy: [u32; 2], expected: &[u8]) -> f32 {
        let input = Shape { width: 64, height: 64 };
        let plan = Plan { picture: [picture.width, picture.height], copy, input, scale: [1.0; 2] };
        let mut tensor = vec![f32::NAN; 3 * 64 * 64];
        Canvas::default().paint(picture, &plan, Norm { mean: 0.0, factor: 1.0, bgr: false }, &mut tensor);
        let [width, height] = copy.map(|side| side as usize);
        let at = |i: usize| tensor[(i % 3) * 4096 + i / 3 / width * 64 + i / 3 % width];
        assert_eq!(expected.len(), width * height * 3);
        expected.iter().enumerate().fold(0.0, |worst, (i, level)| worst.max((at(i) - f32::from(*level)).abs()))
    }

    #[test]
    fn resizing_is_that_of_opencv_but_for_its_rounding() {
        let recorded = include_str!("../tests/data/resize.json");
        let recorded: Resized = serde_json::from_str(recorded).expect("a recording");
        for copy in recorded.copies {
            let apart = apart(&corner(47, 31), copy.size, &copy.rgb);
            assert!(apart <= 1.0, "{:?}: {apart} levels", copy.size);
        }
        let narrow = Picture {
            width: 1,
            height: 31,
            rgb: corner(47, 31).rgb.chunks(47 * 3).flat_map(|row| &row[..3]).copied().collect(),
        };
        assert!(apart(&narrow, [3, 5], &recorded.one_column) <= 1.0);
    }

    #[test]
    fn pixels_that_are_no_picture_are_refused() {
        let picture = |width, height, bytes| Picture { width, height, rgb: vec![0; bytes].into() };
        assert_eq!(check(&picture(2, 2, 12)), Ok(()));
        for bad in [picture(2, 2, 11), picture(0, 0, 0), picture(u32::MAX, u32::MAX, 3)] {
            assert_eq!(check(&bad).expect_err("refused").reason, "bad_picture");
        }
    }
}
