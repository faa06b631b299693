//! Exact area averages: a picture as a small grid of grey values.
//!
//! The perceptual hash and its quality gate look at this grid and nothing else. It is integer arithmetic throughout, so
//! it promises the same grid on every machine, and it costs one pass over the rows.

use faceflow_core::detector::PixelBuffer;

/// ITU-R BT.601 luma weights in thousandths: red, green, blue.
const WEIGHTS: [u64; 3] = [299, 587, 114];

/// The BT.601 luma of one pixel, rounded.
pub fn luma(rgb: [u8; 3]) -> u8 {
    let sum: u64 = rgb.iter().zip(WEIGHTS).map(|(&value, weight)| u64::from(value) * weight).sum();
    ((sum + 500) / 1000) as u8
}

/// One cell of a division of `len` pixels into `cells`: whole pixels, and the shares (of `cells`) of the two at its ends.
#[derive(Clone, Copy)]
struct Cell {
    first: usize,
    first_share: u64,
    last: usize,
    last_share: u64,
}

/// Cell `i` of `cells` over `len` pixels. In units of `1 / cells` pixel it spans `[i * len, (i + 1) * len)`, and pixel `x`
/// spans `[x * cells, (x + 1) * cells)`. All shares of a cell add up to `len`.
fn cell(i: usize, cells: usize, len: usize) -> Cell {
    let (from, to) = (i * len, (i + 1) * len);
    let (first, last) = (from / cells, (to - 1) / cells);
    if first == last {
        return Cell { first, first_share: len as u64, last, last_share: 0 };
    }
    Cell { first, first_share: ((first + 1) * cells - from) as u64, last, last_share: (to - last * cells) as u64 }
}

/// The mean BT.601 luma of each cell of a grid of `columns` by `rows` laid over the picture, row by row, rounded to the
/// nearest of 256 levels.
///
/// The picture must not be empty, and no side longer than 2^23 pixels (the decoder's limit is far below).
pub fn luma_grid(picture: &PixelBuffer, columns: usize, rows: usize) -> Vec<u8> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    assert!(width > 0 && height > 0 && width.max(height) < 1 << 23, "a decoded picture has sides of sane length");
    let pitch = width * 3;
    let across: Vec<Cell> = (0..columns).map(|i| cell(i, columns, width)).collect();
    let area = 1000 * width as u64 * height as u64;
    let (mut whole, mut band) = (vec![0_u32; pitch], vec![0_u64; pitch]);
    let mut grid = Vec::with_capacity(columns * rows);
    for i in 0..rows {
        let Cell { first, first_share, last, last_share } = cell(i, rows, height);
        whole.fill(0);
        for row in picture.rgb[pitch * (first + 1).min(last)..pitch * last].chunks_exact(pitch) {
            whole.iter_mut().zip(row).for_each(|(sum, &value)| *sum += u32::from(value));
        }
        let ends = picture.rgb[pitch * first..].iter().zip(&picture.rgb[pitch * last..]);
        for ((sum, &whole), (&first, &last)) in band.iter_mut().zip(&whole).zip(ends) {
            *sum = u64::from(whole) * rows as u64 + u64::from(first) * first_share + u64::from(last) * last_share;
        }
        grid.extend(across.iter().map(|cell| mean(&band, cell, columns as u64, area)));
    }
    grid
}

/// The mean luma of one cell of a band of column sums.
fn mean(band: &[u64], cell: &Cell, columns: u64, area: u64) -> u8 {
    let mut sums = [0_u64; 3];
    for pixel in band[3 * (cell.first + 1).min(cell.last)..3 * cell.last].as_chunks::<3>().0 {
        sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
    }
    let luma = |channel: usize| {
        let ends = band[3 * cell.first + channel] * cell.first_share + band[3 * cell.last + channel] * cell.last_share;
        WEIGHTS[channel] * (sums[channel] * columns + ends)
    };
    ((luma(0) + luma(1) + luma(2) + area / 2) / area) as u8
}
