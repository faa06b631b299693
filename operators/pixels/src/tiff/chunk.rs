//! One strip or tile: compressed bytes to packed samples.
//!
//! Promise: the answer has every byte that was asked for, or is an error.

use std::io::Read;

use faceflow_jpeg::Jpeg;
use fax::Color;
use weezl::{BitOrder, LzwStatus};

use super::broken::Broken;

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZW, codes from the top bit on.
    Lzw,
    /// zlib.
    Deflate,
    /// Runs of bytes.
    PackBits,
    /// CCITT T.6.
    Fax4,
    /// A JPEG stream each; whether its components are colours already.
    Jpeg {
        /// Luma and differences are turned into colours.
        ycbcr: bool,
    },
}

/// What a chunk is to become.
pub struct Shape {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Samples of a pixel in this chunk.
    pub samples: usize,
    /// Bytes that its packed samples take.
    pub bytes: usize,
}

/// The packed samples of a chunk. A JPEG decoder may hold so many bytes beside.
pub fn unpack(
    data: &[u8],
    compression: Compression,
    shape: &Shape,
    tables: Option<&[u8]>,
    working_bytes_max: u64,
) -> Result<Vec<u8>, Broken> {
    let mut out = vec![0; shape.bytes];
    match compression {
        Compression::None => out.copy_from_slice(data.get(..shape.bytes).ok_or(Broken::Cut)?),
        Compression::Lzw => lzw(data, &mut out)?,
        Compression::Deflate => {
            flate2::read::ZlibDecoder::new(data)
                .read_exact(&mut out)
                .map_err(|_| Broken::Corrupt("a zlib stream is cut or damaged"))?;
        }
        Compression::PackBits => pack_bits(data, &mut out)?,
        Compression::Fax4 => fax4(data, shape, &mut out)?,
        Compression::Jpeg { ycbcr } => {
            let joined = tables.map(|tables| join(tables, data));
            let mut jpeg = Jpeg::new(joined.as_deref().unwrap_or(data)).map_err(Broken::Jpeg)?;
            if !ycbcr {
                jpeg = jpeg.as_stored();
            }
            if jpeg.size() != (shape.width as u32, shape.height as u32) || jpeg.channels() != shape.samples {
                return Err(Broken::Corrupt("a JPEG stream is not of the size of its strip or tile"));
            }
            jpeg.decode(&mut out, working_bytes_max).map_err(Broken::Jpeg)?;
        }
    }
    Ok(out)
}

fn lzw(data: &[u8], out: &mut [u8]) -> Result<(), Broken> {
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let (mut from, mut to) = (0, 0);
    while to < out.len() {
        let step = decoder.decode_bytes(&data[from..], &mut out[to..]);
        (from, to) = (from + step.consumed_in, to + step.consumed_out);
        match step.status {
            Ok(LzwStatus::Ok) if step.consumed_in + step.consumed_out > 0 => {}
            Ok(_) if to == out.len() => {}
            Ok(_) => return Err(Broken::Cut),
            Err(_) => return Err(Broken::Corrupt("a code is not of the LZW table")),
        }
    }
    Ok(())
}

fn pack_bits(mut data: &[u8], mut out: &mut [u8]) -> Result<(), Broken> {
    while !out.is_empty() {
        let (&count, rest) = data.split_first().ok_or(Broken::Cut)?;
        data = rest;
        let length = match count {
            0..=127 => {
                let length = (usize::from(count) + 1).min(out.len());
                let literal = data.get(..length).ok_or(Broken::Cut)?;
                out[..length].copy_from_slice(literal);
                data = &data[length..];
                length
            }
            128 => 0,
            129..=255 => {
                let length = (257 - usize::from(count)).min(out.len());
                let (&value, rest) = data.split_first().ok_or(Broken::Cut)?;
                out[..length].fill(value);
                data = rest;
                length
            }
        };
        out = &mut out[length..];
    }
    Ok(())
}

fn fax4(data: &[u8], shape: &Shape, out: &mut [u8]) -> Result<(), Broken> {
    let too_large = || Broken::Unsupported("fax pages of more than 65535 pixels are not decoded");
    let width = u16::try_from(shape.width).map_err(|_| too_large())?;
    let height = u16::try_from(shape.height).map_err(|_| too_large())?;
    let mut rows = out.chunks_exact_mut(shape.width.div_ceil(8));
    let whole = fax::decoder::decode_g4(data.iter().copied(), width, Some(height), |line| {
        let Some(row) = rows.next() else { return };
        for (x, color) in fax::decoder::pels(line, width).enumerate() {
            row[x / 8] |= u8::from(color == Color::Black) << (7 - x % 8);
        }
    });
    whole.ok_or(Broken::Corrupt("a fax page is cut or damaged"))
}

/// A stream with the tables that all streams of a file share.
fn join(tables: &[u8], data: &[u8]) -> Vec<u8> {
    let tables = tables.strip_suffix(b"\xff\xd9").unwrap_or(tables);
    [tables, data.strip_prefix(b"\xff\xd8").unwrap_or(data)].concat()
}
