//! Crops and thumbnails: parts of a picture as small JPEG files.

use faceflow_core::detector::PixelBuffer;
use faceflow_core::{Class, Fault};
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use jpeg_encoder::{ColorType, Encoder};
use serde::{Deserialize, Serialize};

/// The settings `deliver.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliverSettings {
    /// How much is left around a face in its crop, on each side, as a share of the longer side of its box.
    pub crop_margin: f32,
    /// The longer side of a crop in pixels, at most; larger crops are scaled down.
    pub crop_side_max_px: u32,
    /// The longer side of a thumbnail in pixels; 0 makes none. Pictures are never enlarged.
    pub thumb_px: u32,
    /// JPEG quality of crops and thumbnails, 1 to 100.
    pub jpeg_quality: u8,
}

impl Default for DeliverSettings {
    fn default() -> Self {
        Self { crop_margin: 0.25, crop_side_max_px: 512, thumb_px: 256, jpeg_quality: 85 }
    }
}

impl DeliverSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let allowed = |ok, key, range: &str| if ok { Ok(()) } else { Err((key, range.to_owned())) };
        allowed((0.0..=10.0).contains(&self.crop_margin), "crop_margin", "0 to 10")?;
        allowed((16..=16_384).contains(&self.crop_side_max_px), "crop_side_max_px", "16 to 16384")?;
        allowed(self.thumb_px <= 4096, "thumb_px", "0 (none) to 4096")?;
        allowed((1..=100).contains(&self.jpeg_quality), "jpeg_quality", "1 to 100")
    }
}

/// A face with its margin, clipped to the picture, as a JPEG file.
///
/// `bbox` is `[x1, y1, x2, y2]` in pixels of the picture; one that lies outside gives the nearest pixels.
pub fn crop(picture: &PixelBuffer, bbox: [f32; 4], settings: &DeliverSettings) -> Result<Vec<u8>, Fault> {
    let region = Region::around(picture, bbox, settings.crop_margin);
    jpeg(picture, region, settings.crop_side_max_px, settings.jpeg_quality)
}

/// The whole picture, at most `thumb_px` (or 1) on its longer side, as a JPEG file.
pub fn thumbnail(picture: &PixelBuffer, settings: &DeliverSettings) -> Result<Vec<u8>, Fault> {
    let region = Region { x: 0, y: 0, width: picture.width, height: picture.height };
    jpeg(picture, region, settings.thumb_px.max(1), settings.jpeg_quality)
}

/// A part of a picture, at least one pixel, in whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Region {
    /// The pixels that a box touches, with `margin` (a share of its longer side) around it, clipped to the picture.
    pub fn around(picture: &PixelBuffer, [x1, y1, x2, y2]: [f32; 4], margin: f32) -> Self {
        let margin = margin * (x2 - x1).max(y2 - y1).max(0.0);
        // Casts saturate, and NaN becomes 0: a mad box cannot leave the picture.
        let span = |from: f32, to: f32, len: u32| {
            let from = ((from - margin).floor() as u32).min(len - 1);
            (from, ((to + margin).ceil() as u32).clamp(from + 1, len) - from)
        };
        let ((x, width), (y, height)) = (span(x1, x2, picture.width), span(y1, y2, picture.height));
        Self { x, y, width, height }
    }
}

/// The region at its own size, or scaled down until its longer side is `side_max`, as a JPEG file.
fn jpeg(picture: &PixelBuffer, region: Region, side_max: u32, quality: u8) -> Result<Vec<u8>, Fault> {
    let longer = region.width.max(region.height);
    let scaled =
        |side: u32| ((u64::from(side) * u64::from(side_max) + u64::from(longer) / 2) / u64::from(longer)).max(1) as u32;
    let size = match longer > side_max {
        true => (scaled(region.width), scaled(region.height)),
        false => (region.width, region.height),
    };
    let rgb = resample(picture, region, size, FilterType::CatmullRom);
    let mut file = Vec::with_capacity(rgb.len() / 8);
    let failed = |why: &dyn std::fmt::Display| {
        Fault::transient(Class::Panic, "encode_failed", format!("{size:?} to JPEG: {why}"))
    };
    let side = |side: u32| u16::try_from(side).map_err(|error| failed(&error));
    let encoder = Encoder::new(&mut file, quality);
    encoder.encode(&rgb, side(size.0)?, side(size.1)?, ColorType::Rgb).map_err(|error| failed(&error))?;
    Ok(file)
}

/// The RGB pixels of a region at another size.
pub(super) fn resample(
    picture: &PixelBuffer,
    region: Region,
    (width, height): (u32, u32),
    filter: FilterType,
) -> Vec<u8> {
    if (region.width, region.height) == (width, height) {
        let (from, to, pitch) = (region.x as usize * 3, (region.x + width) as usize * 3, picture.width as usize * 3);
        let rows = picture.rgb.chunks_exact(pitch).skip(region.y as usize).take(height as usize);
        return rows.flat_map(|row| &row[from..to]).copied().collect();
    }
    let from = TypedImageRef::<U8x3>::from_buffer(picture.width, picture.height, &picture.rgb)
        .expect("a picture has as many pixels as its sides say");
    let mut pixels = vec![0; width as usize * height as usize * 3];
    let mut to = TypedImage::<U8x3>::from_buffer(width, height, &mut pixels).expect("it was made for these sides");
    let [x, y, w, h] = [region.x, region.y, region.width, region.height].map(f64::from);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).crop(x, y, w, h);
    // For pixels of one type: code for all thirteen that there are takes long to compile.
    Resizer::new().resize_typed(&from, &mut to, &options).expect("the region lies inside the picture");
    pixels
}
