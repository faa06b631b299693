//! What the tags of a page say of its samples, or the refusal of what is not decoded.

use super::broken::Broken;
use super::chunk::Compression;
use super::directory::Directory;
use super::samples::{Alpha, Colours, Format};
use crate::orient::narrow;

/// How the picture is cut up.
pub struct Layout {
    /// Pixels across a strip or tile.
    pub width: usize,
    /// And down.
    pub height: usize,
    /// Tiles have their full size at the edges, too.
    pub tiled: bool,
    /// Each sample has chunks of its own.
    pub planar: bool,
    /// Where each chunk begins.
    pub offsets: Vec<u64>,
    /// How many bytes each has.
    pub lengths: Vec<u64>,
}

/// What all samples are.
pub fn format(directory: &Directory, count: usize) -> Result<Format, Broken> {
    let bits = directory.numbers(258)?;
    let first = bits.first().copied().unwrap_or(1);
    let kinds = directory.numbers(339)?;
    let kind = kinds.first().copied().unwrap_or(1);
    let same = |values: &[u64], first: u64| values.iter().take(count).all(|value| *value == first);
    if !same(&bits, first) || !same(&kinds, kind) {
        return Err(Broken::Unsupported("samples of different kinds are not decoded"));
    }
    match (kind, first) {
        (1 | 4, 1..=16 | 32) => Ok(Format::Unsigned(first as usize)),
        (3, 32) => Ok(Format::Float),
        (2, _) => Err(Broken::Unsupported("signed samples are not decoded")),
        (3, _) => Err(Broken::Unsupported("floating-point samples of other than 32 bits are not decoded")),
        _ => Err(Broken::Unsupported("samples of such many bits are not decoded")),
    }
}

/// How chunks are compressed; whether JPEG streams hold luma and differences.
pub fn compression(number: u64, ycbcr: bool) -> Result<Compression, Broken> {
    Ok(match number {
        1 => Compression::None,
        4 => Compression::Fax4,
        5 => Compression::Lzw,
        7 => Compression::Jpeg { ycbcr },
        8 | 32_946 => Compression::Deflate,
        32_773 => Compression::PackBits,
        2 | 3 => return Err(Broken::Unsupported("fax T.4 compression is not decoded")),
        6 => return Err(Broken::Unsupported("JPEG compression of the old kind is not decoded")),
        34_925 | 34_887 | 50_000 | 50_001 => {
            return Err(Broken::Unsupported("LZMA, LERC, Zstandard and WebP compression are not decoded"));
        }
        _ => return Err(Broken::Unsupported("this compression is not decoded")),
    })
}

/// How a picture of this size is cut up.
pub fn layout(directory: &Directory, (width, height): (usize, usize)) -> Result<Layout, Broken> {
    let tiled = directory.has(322);
    let number = |tag, default: u64| Ok(directory.number(tag)?.unwrap_or(default) as usize);
    let size = if tiled { (number(322, 0)?, number(323, 0)?) } else { (width, number(278, u64::MAX)?.min(height)) };
    if size.0 == 0 || size.1 == 0 || size.0 > 1 << 20 || size.1 > 1 << 20 {
        return Err(Broken::Corrupt("strips or tiles have no size, or are too large"));
    }
    let (offsets, lengths) = if tiled { (324, 325) } else { (273, 279) };
    Ok(Layout {
        width: size.0,
        height: size.1,
        tiled,
        planar: number(284, 1)? == 2,
        offsets: directory.numbers(offsets)?,
        lengths: directory.numbers(lengths)?,
    })
}

/// What the samples mean.
pub fn colours(directory: &Directory, photometric: u64, format: Format) -> Result<Colours, Broken> {
    Ok(match (photometric, format) {
        (0 | 1, Format::Float) => {
            return Err(Broken::Unsupported("grey of unknown range (floating-point) is not decoded"));
        }
        (0 | 1, _) => Colours::Grey { inverted: photometric == 0 },
        (2, _) => Colours::Rgb,
        (3, Format::Unsigned(bits @ 1..=8)) => Colours::Palette(palette(&directory.numbers(320)?, 1 << bits)?),
        (5, Format::Unsigned(_)) if matches!(directory.number(332)?, None | Some(1)) => Colours::Cmyk,
        (6, Format::Unsigned(8)) => Colours::YCbCr,
        (8..=10, _) => return Err(Broken::Unsupported("CIELab colours are not decoded")),
        _ => return Err(Broken::Unsupported("such colours are not decoded")),
    })
}

/// The colours of a palette: all reds, all greens, all blues. Some writers use 8 bits of the 16 only.
fn palette(values: &[u64], count: usize) -> Result<Vec<[u8; 3]>, Broken> {
    let values = values.get(..3 * count).ok_or(Broken::Corrupt("the palette is too short"))?;
    let wide = values.iter().any(|value| *value > 255);
    let byte = |value: u64| if wide { narrow(value as u16) } else { value as u8 };
    Ok((0..count).map(|at| [0, 1, 2].map(|channel| byte(values[channel * count + at]))).collect())
}

/// How many luma samples share a pair of differences, where they are packed together. JPEG sees to that itself.
pub fn subsampling(
    directory: &Directory,
    colours: &Colours,
    format: Format,
    layout: &Layout,
    count: usize,
) -> Result<Option<(usize, usize)>, Broken> {
    if *colours != Colours::YCbCr {
        return Ok(None);
    }
    let factors = directory.numbers(530)?;
    let (h, v) = (factors.first().map_or(2, |h| *h as usize), factors.get(1).map_or(2, |v| *v as usize));
    if !matches!((h, v), (1 | 2 | 4, 1 | 2 | 4)) || (layout.planar && (h, v) != (1, 1)) || count != 3 {
        return Err(Broken::Unsupported("such subsampling is not decoded"));
    }
    if let (Some(range), Format::Unsigned(8)) = (directory.whole_ratios(532)?, format)
        && range != [0, 255, 128, 255, 128, 255]
    {
        return Err(Broken::Unsupported("luma of another range than 0 to 255 is not decoded"));
    }
    Ok(((h, v) != (1, 1)).then_some((h, v)))
}

/// What the first sample behind the colour is. Without a word about it, it is opacity, as other readers have it.
pub fn alpha(directory: &Directory, extra: usize) -> Result<Alpha, Broken> {
    let kinds = directory.numbers(338)?;
    Ok(match (extra, kinds.first()) {
        (0, _) => Alpha::None,
        (_, Some(1)) => Alpha::Premultiplied,
        (_, Some(2) | None) => Alpha::Straight,
        _ => Alpha::None,
    })
}
