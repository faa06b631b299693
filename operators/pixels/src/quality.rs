//! How good a face is to look at: sharpness and size as one figure.

use faceflow_core::detector::{Face, PixelBuffer};
use fast_image_resize::FilterType;

use super::crop::{Region, resample};
use super::luma::luma;

/// Side of the square to which a face is resampled: sharpness depends on scale, so all are measured at one.
const SIDE_PX: u32 = 112;
/// The variance of the Laplacian that counts half.
const SHARPNESS_HALF: f64 = 100.0;

/// The quality of a face, 0 to 1: `sqrt(sharpness * size)`.
///
/// The face's box, clipped to the picture, is resampled to 112 by 112 and turned to BT.601 luma; `v` is the variance of
/// its 3x3 Laplacian (J. L. Pech-Pacheco et al., *Diatom autofocusing in brightfield microscopy*, 2000), and
/// `sharpness = v / (v + 100)`. `size` is the clipped box's shorter side over 112 pixels, at most 1. Figures compare faces
/// with one another; there is no threshold that fits all pictures.
pub fn quality(picture: &PixelBuffer, face: &Face) -> f32 {
    let region = Region::around(picture, face.bbox, 0.0);
    let square = resample(picture, region, (SIDE_PX, SIDE_PX), FilterType::Bilinear);
    let grey: Vec<i64> = square.as_chunks::<3>().0.iter().map(|&rgb| i64::from(luma(rgb))).collect();
    let variance = laplacian_variance(&grey, SIDE_PX as usize);
    let sharpness = variance / (variance + SHARPNESS_HALF);
    let size = f64::from(region.width.min(region.height)) / f64::from(SIDE_PX);
    (sharpness * size.min(1.0)).sqrt() as f32
}

/// The variance of the 3x3 Laplacian over the inner pixels of a square of grey values.
fn laplacian_variance(grey: &[i64], side: usize) -> f64 {
    let (mut sum, mut squares) = (0_i64, 0_i64);
    for y in 1..side - 1 {
        for at in y * side + 1..(y + 1) * side - 1 {
            let laplacian = grey[at - side] + grey[at - 1] + grey[at + 1] + grey[at + side] - 4 * grey[at];
            sum += laplacian;
            squares += laplacian * laplacian;
        }
    }
    let count = ((side - 2) * (side - 2)) as f64;
    let mean = sum as f64 / count;
    squares as f64 / count - mean * mean
}
