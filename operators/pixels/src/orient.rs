//! From whatever a decoder wrote to displayed RGB, in one pass: 8 bits a channel, alpha over white, turned upright.

use std::sync::Arc;

use image::ColorType;
use image::metadata::Orientation;

/// How a stored picture becomes the displayed one: where the displayed pixel (0, 0) is stored, and how far apart the
/// stored pixels of horizontal and of vertical neighbours are, in pixels.
struct PixelOrder {
    width: u32,
    height: u32,
    start: isize,
    right: isize,
    down: isize,
}

impl PixelOrder {
    fn new(orientation: Orientation, width: u32, height: u32) -> Self {
        let (w, h) = (width as isize, height as isize);
        let (start, right, down) = match orientation {
            Orientation::NoTransforms => (0, 1, w),
            Orientation::FlipHorizontal => (w - 1, -1, w),
            Orientation::Rotate180 => (w * h - 1, -1, -w),
            Orientation::FlipVertical => (w * (h - 1), 1, -w),
            Orientation::Rotate90FlipH => (0, w, 1),
            Orientation::Rotate90 => (w * (h - 1), -w, 1),
            Orientation::Rotate270FlipH => (w * h - 1, -w, -1),
            Orientation::Rotate270 => (w - 1, w, -1),
        };
        let (width, height) = displayed(orientation, width, height);
        Self { width, height, start, right, down }
    }
}

/// Width and height as displayed.
pub fn displayed(orientation: Orientation, width: u32, height: u32) -> (u32, u32) {
    match orientation {
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH => {
            (height, width)
        }
        _ => (width, height),
    }
}

/// Zeroed pixels that a decoder can write into and a picture can share without another copy.
pub fn blank(bytes: usize) -> Arc<[u8]> {
    std::iter::repeat_n(0, bytes).collect()
}

/// Displayed RGB of `raw`, which a decoder wrote as `color`, rows of `width` pixels, in native byte order. 16 bits are
/// rounded to 8, floats are clamped to 0..1, transparent pixels are laid over white. `None` for a colour type unknown here.
pub fn to_displayed_rgb(
    raw: &[u8],
    color: ColorType,
    (width, height): (u32, u32),
    turn: Orientation,
) -> Option<Arc<[u8]>> {
    let turn = PixelOrder::new(turn, width, height);
    let half = |bytes: [u8; 2]| narrow(u16::from_ne_bytes(bytes));
    let unit = |bytes: [u8; 4]| (f32::from_ne_bytes(bytes).clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
    Some(match color {
        ColorType::L8 => apply_orientation(raw, &turn, |[grey]: [u8; 1]| [grey; 3]),
        ColorType::La8 => apply_orientation(raw, &turn, |[grey, alpha]| over_white([grey; 3], alpha)),
        ColorType::Rgb8 => apply_orientation(raw, &turn, |rgb| rgb),
        ColorType::Rgba8 => apply_orientation(raw, &turn, |[r, g, b, alpha]| over_white([r, g, b], alpha)),
        ColorType::L16 => apply_orientation(raw, &turn, |grey| [half(grey); 3]),
        ColorType::La16 => apply_orientation(raw, &turn, |[a, b, c, d]| over_white([half([a, b]); 3], half([c, d]))),
        ColorType::Rgb16 => apply_orientation(raw, &turn, |[a, b, c, d, e, f]| [[a, b], [c, d], [e, f]].map(half)),
        ColorType::Rgba16 => apply_orientation(raw, &turn, |[a, b, c, d, e, f, g, h]| {
            over_white([[a, b], [c, d], [e, f]].map(half), half([g, h]))
        }),
        ColorType::Rgb32F => apply_orientation(raw, &turn, |pixel: [u8; 12]| channels::<3>(&pixel).map(unit)),
        ColorType::Rgba32F => apply_orientation(raw, &turn, |pixel: [u8; 16]| {
            let [r, g, b, alpha] = channels::<4>(&pixel).map(unit);
            over_white([r, g, b], alpha)
        }),
        _ => return None,
    })
}

/// `v * 255 / 65535`, rounded.
pub fn narrow(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

/// Straight alpha over white, rounded.
pub fn over_white(rgb: [u8; 3], alpha: u8) -> [u8; 3] {
    let alpha = u32::from(alpha);
    rgb.map(|value| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
}

fn channels<const N: usize>(pixel: &[u8]) -> [[u8; 4]; N] {
    std::array::from_fn(|i| std::array::from_fn(|byte| pixel[4 * i + byte]))
}

/// Writes the pixels of `raw`, `N` bytes each, in the order in which they are displayed.
fn apply_orientation<const N: usize>(raw: &[u8], turn: &PixelOrder, rgb_of: impl Fn([u8; N]) -> [u8; 3]) -> Arc<[u8]> {
    let (stored, _) = raw.as_chunks::<N>();
    let pitch = turn.width as usize * 3;
    let mut rgb = blank(pitch * turn.height as usize);
    let rows = Arc::get_mut(&mut rgb).expect("nobody else has the new pixels yet").chunks_exact_mut(pitch);
    for (y, row) in rows.enumerate() {
        let mut at = turn.start + y as isize * turn.down;
        for pixel in row.as_chunks_mut::<3>().0 {
            *pixel = rgb_of(stored[at as usize]);
            at += turn.right;
        }
    }
    rgb
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, RgbImage};

    use super::*;

    #[test]
    fn every_orientation_equals_the_image_crates() {
        let stored = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 7]));
        for exif in 1..=8 {
            let turn = Orientation::from_exif(exif).expect("an orientation");
            let mut expected = DynamicImage::ImageRgb8(stored.clone());
            expected.apply_orientation(turn);
            let rgb = to_displayed_rgb(stored.as_raw(), ColorType::Rgb8, (5, 3), turn).expect("RGB");
            assert_eq!((&rgb[..], displayed(turn, 5, 3)), (expected.as_bytes(), (expected.width(), expected.height())));
        }
    }

    #[test]
    fn alpha_is_over_white_and_deep_channels_are_rounded() {
        let plain = |raw: &[u8], color| {
            to_displayed_rgb(raw, color, (1, 1), Orientation::NoTransforms).expect("known").to_vec()
        };
        assert_eq!(plain(&[10, 20, 30, 0], ColorType::Rgba8), [255; 3]);
        assert_eq!(plain(&[10, 20, 30, 255], ColorType::Rgba8), [10, 20, 30]);
        assert_eq!(plain(&[0, 128], ColorType::La8), [127; 3]);
        let deep = [0_u16, 65535, 32768].map(u16::to_ne_bytes).concat();
        assert_eq!(plain(&deep, ColorType::Rgb16), [0, 255, 128]);
        let light = [-1.0_f32, 2.0, 0.5].map(f32::to_ne_bytes).concat();
        assert_eq!(plain(&light, ColorType::Rgb32F), [0, 255, 128]);
    }
}
