//! The perceptual hash: 64 bits that survive re-encoding and resizing, and a verdict on whether they say anything.
//!
//! The picture is averaged down to a 16 by 16 grid of luma; `image_hasher` takes its DCT and compares the 8 by 8 lowest
//! coefficients with their median ("pHash", C. Zauner, *Implementation and Benchmarking of Perceptual Image Hash
//! Functions*, 2010). It promises one path for all pictures: the same pixels give the same hash everywhere, for ever;
//! another path gets another [`HashKind::version`].

use std::sync::LazyLock;

use faceflow_core::detector::PixelBuffer;
#[cfg(doc)]
use faceflow_core::record::HashKind;
use faceflow_core::record::PerceptualHash;
use image::GrayImage;
use image_hasher::{BitOrder, FilterType, HashAlg, Hasher, HasherConfig};

use super::luma::luma_grid;

/// Side of the luma grid. Twice the side of the hash: what the hasher's DCT works on, so it resizes nothing itself.
const GRID: usize = 16;
/// How far the perturbation moves a luma value, at most, up or down: about what a rough re-encoding does.
const PERTURBATION: u32 = 3;
/// Bits that the perturbation may change in a hash that says something. Photographs: at most 6; ramps, checkerboards and
/// stripes: 20 and more.
const PERTURBED_BITS_MAX: u32 = 8;
/// Cells, of the grid's 256, that the two commonest of 32 tones may cover. Photographs: at most 170; logos: 220 and more.
const TWO_TONE_CELLS_MAX: u32 = 192;

static HASHER: LazyLock<Hasher<[u8; 8]>> = LazyLock::new(|| {
    HasherConfig::with_bytes_type()
        .hash_size(8, 8)
        .hash_alg(HashAlg::Median)
        .preproc_dct()
        .resize_filter(FilterType::Triangle)
        .bit_order(BitOrder::MsbFirst)
        .to_hasher()
});

/// The perceptual hash of a picture, of the kind [`HashKind::Dct64`].
///
/// It is `distinctive` unless the picture is flat, two-toned or so regular that its bits are decided by noise: such
/// pictures collide with strangers at distance 0, so they must never match.
pub fn phash(picture: &PixelBuffer) -> PerceptualHash {
    let grid = luma_grid(picture, GRID, GRID);
    let perturbed = hash(perturb(&grid));
    let two_toned = commonest_tones(&grid) > TWO_TONE_CELLS_MAX;
    let bits = hash(grid);
    PerceptualHash::dct64(bits, !two_toned && (bits ^ perturbed).count_ones() <= PERTURBED_BITS_MAX)
}

fn hash(grid: Vec<u8>) -> u64 {
    let grid = GrayImage::from_raw(GRID as u32, GRID as u32, grid).expect("the grid has 16 by 16 cells");
    u64::from_be_bytes(HASHER.hash_image(&grid).into_inner())
}

/// The grid with every cell moved by a fixed pseudo-random step (xorshift32, G. Marsaglia, 2003).
fn perturb(grid: &[u8]) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let step = |&value: &u8| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (u32::from(value) + state % (2 * PERTURBATION + 1)).saturating_sub(PERTURBATION).min(255) as u8
    };
    grid.iter().map(step).collect()
}

/// Cells covered by the two commonest of 32 tones.
fn commonest_tones(grid: &[u8]) -> u32 {
    let mut cells = [0; 32];
    grid.iter().for_each(|value| cells[usize::from(value >> 3)] += 1);
    cells.sort_unstable();
    cells[30] + cells[31]
}
