//! From a picture to the input tensor: resize, pad and normalise.
//!
//! The promise: the geometry of the reference implementations, down to the truncation in their letterbox, and pixels written
//! straight into the tensor. Resizing is bilinear between the two nearest pixels, without antialiasing with exactly the
//! roundings of OpenCV's `INTER_LINEAR`, which the references use.

use std::ops::Range;

use faceflow_core::detector::{PixelBuffer, Shape};
use faceflow_core::{Class, Fault};

/// Network strides divide by this, so the sides of every input do.
pub(crate) const STEP: u32 = 32;

/// How a model's input takes pictures in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ResizeMode {
    /// Longest side at most this, never enlarged, each side padded to a multiple of [`STEP`].
    Rect(u32),
    /// The largest copy that fits at the top left of an input of this shape.
    Letterbox(Shape),
    /// Stretched to this shape, whatever the sides' ratio.
    Stretch(Shape),
}

/// Where one picture comes to lie in the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ResizeGeometry {
    /// The picture's width and height.
    pub picture: [u32; 2],
    /// Width and height of its copy at the top left of the input.
    pub copy: [u32; 2],
    /// The input.
    pub input: Shape,
    /// Input pixels per picture pixel, along x and y.
    pub scale: [f32; 2],
}

impl ResizeMode {
    /// Where a picture of this size comes to lie.
    pub fn plan(self, width: u32, height: u32) -> ResizeGeometry {
        let picture = [width, height];
        let exact = |copy: [u32; 2]| [copy[0] as f32 / width as f32, copy[1] as f32 / height as f32];
        match self {
            Self::Rect(side) => {
                let small = width.max(height) <= side;
                let shrink = f64::from(side) / f64::from(width.max(height));
                let shrunk = picture.map(|length| ((f64::from(length) * shrink).round() as u32).max(1));
                let copy = if small { picture } else { shrunk };
                let input = Shape { width: copy[0].next_multiple_of(STEP), height: copy[1].next_multiple_of(STEP) };
                ResizeGeometry { picture, copy, input, scale: exact(copy) }
            }
            Self::Letterbox(input) => {
                let copy = inscribe(picture, input);
                // The reference divides both axes by the vertical scale, although truncation makes them differ a little.
                ResizeGeometry { picture, copy, input, scale: [copy[1] as f32 / height as f32; 2] }
            }
            Self::Stretch(input) => {
                let copy = [input.width, input.height];
                ResizeGeometry { picture, copy, input, scale: exact(copy) }
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
pub(crate) struct Normalization {
    /// Subtracted from 0..255.
    pub mean: f32,
    /// Then multiplied.
    pub factor: f32,
    /// Blue first.
    pub bgr: bool,
}

impl Normalization {
    fn of(self, level: u8) -> f32 {
        (f32::from(level) - self.mean) * self.factor
    }
}

/// Writes pictures into input tensors. Keeps its buffers between pictures.
#[derive(Default)]
pub(crate) struct TensorWriter {
    /// How each column of the copy is made.
    columns: Vec<BilinearWeights>,
    /// The two rows of the picture last resized to the copy's width, RGB, and which they are.
    rows: [(Option<usize>, Vec<i16>); 2],
    /// One row of the copy, RGB.
    row: Vec<u8>,
}

impl TensorWriter {
    /// Writes a picture into its part of the input tensor, `[3, height, width]` numbers; what it does not cover is black.
    pub fn write(&mut self, picture: &PixelBuffer, plan: &ResizeGeometry, norm: Normalization, tensor: &mut [f32]) {
        let [width, height] = plan.copy.map(|side| side as usize);
        let (line, area) = (plan.input.width as usize, tensor.len() / 3);
        let (first, rest) = tensor.split_at_mut(area);
        let (green, last) = rest.split_at_mut(area);
        let (red, blue) = if norm.bgr { (last, first) } else { (first, last) };
        let mut planes = [red, green, blue];
        for plane in &mut planes {
            plane[..height * line].chunks_exact_mut(line).for_each(|line| line[width..].fill(norm.of(0)));
            plane[height * line..].fill(norm.of(0));
        }
        if plan.copy == plan.picture {
            for (y, row) in picture.rgb.chunks_exact(width * 3).enumerate() {
                write_planes(row, norm, &mut planes, y * line..y * line + width);
            }
            return;
        }
        self.columns.clear();
        self.columns.extend(
            (0..plan.copy[0]).map(|x| BilinearWeights::of(x, plan.picture[0], plan.copy[0]).inside(plan.picture[0])),
        );
        self.rows.iter_mut().for_each(|(which, _)| *which = None);
        for y in 0..height {
            self.resize_row(picture, BilinearWeights::of(y as u32, plan.picture[1], plan.copy[1]));
            write_planes(&self.row, norm, &mut planes, y * line..y * line + width);
        }
    }

    /// Makes one row of the copy, with OpenCV's roundings: columns in 11 bits, of which 7 go into the rows' 11 bits.
    fn resize_row(&mut self, picture: &PixelBuffer, blend: BilinearWeights) {
        let bottom = i64::from(picture.height) - 1;
        let [upper, lower] = [blend.first, blend.first + 1].map(|y| y.clamp(0, bottom) as usize);
        if self.rows[1].0 == Some(upper) {
            self.rows.swap(0, 1);
        }
        for (slot, y) in self.rows.iter_mut().zip([upper, lower]) {
            if slot.0 != Some(y) {
                resize_columns(picture, y, &self.columns, &mut slot.1);
                slot.0 = Some(y);
            }
        }
        let [(_, upper), (_, lower)] = &self.rows;
        let part = |level: i16, weight: i16| (i32::from(level) * i32::from(weight)) >> 16;
        let level = |(a, b): (&i16, &i16)| ((part(*a, blend.weights[0]) + part(*b, blend.weights[1]) + 2) >> 2) as u8;
        self.row.clear();
        self.row.extend(upper.iter().zip(lower).map(level));
    }
}

/// Resizes one row of the picture to the copy's width, 7 bits behind the point.
fn resize_columns(picture: &PixelBuffer, y: usize, columns: &[BilinearWeights], to: &mut Vec<i16>) {
    let bytes = picture.width as usize * 3;
    let row = &picture.rgb[y * bytes..(y + 1) * bytes];
    // A picture one pixel wide is its own right neighbour.
    let twice;
    let row = if picture.width == 1 {
        twice = [row, row].concat();
        &twice
    } else {
        row
    };
    to.clear();
    to.extend(columns.iter().flat_map(|column| {
        let near = &row[column.first as usize * 3..][..6];
        let [a, b] = column.weights.map(i32::from);
        [0, 1, 2].map(|c| ((i32::from(near[c]) * a + i32::from(near[c + 3]) * b) >> 4) as i16)
    }));
}

/// How a pixel is made of two neighbours along one axis.
#[derive(Clone, Copy)]
struct BilinearWeights {
    /// The first of the two; -1 and the last one are beyond the edge or at it.
    first: i64,
    /// Their weights, in 1/2048.
    weights: [i16; 2],
}

impl BilinearWeights {
    /// The neighbours of pixel `at` where an axis of `from` pixels becomes one of `to`: pixel centres correspond.
    fn of(at: u32, from: u32, to: u32) -> Self {
        let step = 1.0 / (f64::from(to) / f64::from(from));
        let place = ((f64::from(at) + 0.5) * step - 0.5) as f32;
        let share = place - place.floor();
        Self {
            first: place.floor() as i64,
            weights: [1.0 - share, share].map(|w| (w * 2048.0).round_ties_even() as i16),
        }
    }

    /// The same with both neighbours on an axis of `length` pixels (of two, where it has only one).
    fn inside(self, length: u32) -> Self {
        let last = (i64::from(length) - 2).max(0);
        match self.first {
            ..0 => Self { first: 0, weights: [2048, 0] },
            first if first > last => Self { first: last, weights: [0, 2048] },
            _ => self,
        }
    }
}

/// Normalises a row of RGB pixels into its place in the three planes.
fn write_planes(row: &[u8], norm: Normalization, [red, green, blue]: &mut [&mut [f32]; 3], line: Range<usize>) {
    let planes = red[line.clone()].iter_mut().zip(&mut green[line.clone()]).zip(&mut blue[line]);
    for (pixel, ((red, green), blue)) in row.as_chunks::<3>().0.iter().zip(planes) {
        [*red, *green, *blue] = pixel.map(|level| norm.of(level));
    }
}

/// Refuses pixels that are not the picture they claim to be.
pub(crate) fn check(picture: &PixelBuffer) -> Result<(), Fault> {
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

    const SQUARE: ResizeMode = ResizeMode::Letterbox(Shape { width: 640, height: 640 });

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
        let plan = ResizeMode::Rect(640).plan(1024, 683);
        assert_eq!((plan.copy, plan.input), ([640, 427], Shape { width: 640, height: 448 }));
        assert_eq!(plan.scale, [640.0 / 1024.0, 427.0 / 683.0]);
        let plan = ResizeMode::Rect(640).plan(100, 50);
        assert_eq!((plan.copy, plan.input, plan.scale), ([100, 50], Shape { width: 128, height: 64 }, [1.0; 2]));
        assert_eq!(ResizeMode::Rect(640).plan(100_000, 1).input, Shape { width: 640, height: 32 });
    }

    #[test]
    fn pixels_land_in_their_planes_and_the_rest_is_black() {
        let picture = PixelBuffer { width: 2, height: 1, rgb: vec![10, 20, 30, 40, 50, 60].into() };
        let plan = ResizeMode::Rect(64).plan(2, 1);
        let mut tensor = vec![f32::NAN; 3 * 32 * 32];
        let norm = Normalization { mean: 127.5, factor: 1.0 / 128.0, bgr: false };
        TensorWriter::default().write(&picture, &plan, norm, &mut tensor);
        assert_eq!(tensor[..3], [(10.0 - 127.5) / 128.0, (40.0 - 127.5) / 128.0, -127.5 / 128.0]);
        assert_eq!(tensor[32 * 32], (20.0 - 127.5) / 128.0);
        assert_eq!(tensor.iter().filter(|value| **value == -127.5 / 128.0).count(), 3 * (32 * 32 - 2));
        let norm = Normalization { mean: 0.0, factor: 1.0, bgr: true };
        TensorWriter::default().write(&picture, &plan, norm, &mut tensor);
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
    fn corner(width: u32, height: u32) -> PixelBuffer {
        let level = |x: u32, y: u32, c: u32| ((x * 7 + y * 13 + c * 29 + (x / 12) * (y / 10) * 31) % 256) as u8;
        let line = |y| (0..width).flat_map(move |x| (0..3).map(move |c| level(x, y, c)));
        PixelBuffer { width, height, rgb: (0..height).flat_map(line).collect::<Vec<_>>().into() }
    }

    /// The largest difference in levels between our copy and one of these bytes.
    fn apart(picture: &PixelBuffer, copy: [u32; 2], expected: &[u8]) -> f32 {
        let input = Shape { width: 64, height: 64 };
        let plan = ResizeGeometry { picture: [picture.width, picture.height], copy, input, scale: [1.0; 2] };
        let mut tensor = vec![f32::NAN; 3 * 64 * 64];
        TensorWriter::default().write(
            picture,
            &plan,
            Normalization { mean: 0.0, factor: 1.0, bgr: false },
            &mut tensor,
        );
        let [width, height] = copy.map(|side| side as usize);
        let at = |i: usize| tensor[(i % 3) * 4096 + i / 3 / width * 64 + i / 3 % width];
        assert_eq!(expected.len(), width * height * 3);
        expected.iter().enumerate().fold(0.0, |worst, (i, level)| worst.max((at(i) - f32::from(*level)).abs()))
    }

    #[test]
    fn resizing_is_that_of_opencv() {
        let recorded = include_str!("../tests/data/resize.json");
        let recorded: Resized = serde_json::from_str(recorded).expect("a recording");
        for copy in recorded.copies {
            let apart = apart(&corner(47, 31), copy.size, &copy.rgb);
            assert_eq!(apart, 0.0, "{:?}", copy.size);
        }
        let narrow = PixelBuffer {
            width: 1,
            height: 31,
            rgb: corner(47, 31).rgb.chunks(47 * 3).flat_map(|row| &row[..3]).copied().collect(),
        };
        assert_eq!(apart(&narrow, [3, 5], &recorded.one_column), 0.0);
    }

    #[test]
    fn pixels_that_are_no_picture_are_refused() {
        let picture = |width, height, bytes| PixelBuffer { width, height, rgb: vec![0; bytes].into() };
        assert_eq!(check(&picture(2, 2, 12)), Ok(()));
        for bad in [picture(2, 2, 11), picture(0, 0, 0), picture(u32::MAX, u32::MAX, 3)] {
            assert_eq!(check(&bad).expect_err("refused").reason, "bad_picture");
        }
    }
}
