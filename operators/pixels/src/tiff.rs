//! TIFF 6.0 and BigTIFF, the first page: strips and tiles, together or in planes, both byte orders and both orders of bits;
//! grey, RGB, palettes, CMYK and YCbCr of 1 to 16 and of 32 bits, RGB of floating-point numbers, alpha of both kinds; plain,
//! LZW, zlib, PackBits, fax T.6 and JPEG.
//!
//! It exists because the decoder at hand panics on tiled planes, shows some kinds wrongly and refuses many that others show.
//! What is not decoded (CIELab, fax T.4, signed numbers, rarer compression) is refused by name.

mod broken;
mod chunk;
mod directory;
mod kinds;
mod samples;

#[cfg(test)]
mod test_writer;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageResult};

pub use broken::Broken;
use chunk::{Compression, Shape, unpack};
use directory::Directory;
use kinds::Layout;
use samples::{Alpha, Colours, Format};

/// A picture whose directory has been read.
pub struct TiffDecoder<'a> {
    directory: Directory<'a>,
    width: usize,
    height: usize,
    /// Samples of a pixel in the file.
    count: usize,
    format: Format,
    colours: Colours,
    alpha: Alpha,
    compression: Compression,
    layout: Layout,
    /// 1 for none, 2 for whole numbers, 3 for floating-point ones.
    predictor: u64,
    /// Luma samples for each pair of differences, across and down, where these are packed with it.
    subsampling: Option<(usize, usize)>,
    reversed_bits: bool,
    orientation: Orientation,
    working_bytes_max: u64,
}

impl<'a> TiffDecoder<'a> {
    /// Reads the first directory; allocates nothing that depends on the size of the picture.
    pub fn new(bytes: &'a [u8], working_bytes_max: u64) -> Result<Self, Broken> {
        let directory = Directory::first(bytes)?;
        let number = |tag, default| Ok(directory.number(tag)?.unwrap_or(default));
        let side = |tag| match directory.number(tag)? {
            Some(side @ 1..=0x7fff_ffff) => Ok(side as usize),
            _ => Err(Broken::Corrupt("the picture has no size")),
        };
        let (width, height) = (side(256)?, side(257)?);
        let count = number(277, 1)? as usize;
        let format = kinds::format(&directory, count)?;
        let photometric = number(262, u64::MAX)?;
        let compression = kinds::compression(number(259, 1)?, photometric == 6)?;
        let layout = kinds::layout(&directory, (width, height))?;
        let decoded = matches!(compression, Compression::Jpeg { ycbcr: true }) && !layout.planar;
        let colours =
            if decoded && count == 3 { Colours::Rgb } else { kinds::colours(&directory, photometric, format)? };
        if !(colours.samples()..=64).contains(&count) {
            return Err(Broken::Corrupt("a pixel has too few or too many samples"));
        }
        let subsampling = kinds::subsampling(&directory, &colours, format, &layout, count)?;
        let reversed_bits = number(266, 1)? == 2;
        let orientation = Orientation::from_exif(number(274, 1)?.min(9) as u8).unwrap_or(Orientation::NoTransforms);
        let alpha = kinds::alpha(&directory, count - colours.samples())?;
        let predictor = number(317, 1)?;
        if matches!(compression, Compression::Jpeg { .. }) && format != Format::Unsigned(8) {
            return Err(Broken::Unsupported("JPEG of other than 8 bits is not decoded"));
        }
        if compression == Compression::Fax4 && (format != Format::Unsigned(1) || count != 1) {
            return Err(Broken::Corrupt("a fax has one bit a pixel"));
        }
        Ok(Self {
            directory,
            width,
            height,
            count,
            format,
            colours,
            alpha,
            compression,
            layout,
            predictor,
            subsampling,
            reversed_bits,
            orientation,
            working_bytes_max,
        })
    }

    /// What decoding holds beside the pixels that it writes, in bytes: all samples, and a chunk packed and unpacked.
    pub fn working_bytes(&self) -> u64 {
        let samples = (self.width as u64).saturating_mul(self.height as u64).saturating_mul(self.count as u64);
        let size =
            (self.layout.width as u64).saturating_mul(self.layout.height as u64).saturating_mul(self.count as u64);
        // Four bytes a sample, three where a JPEG stream is decoded: what is packed, coefficients, samples.
        let each =
            if matches!(self.compression, Compression::Jpeg { .. }) { 4 } else { self.format.bits() as u64 / 8 + 1 };
        samples.saturating_add(size.saturating_mul(each))
    }

    fn decode(&self, out: &mut [u8]) -> Result<(), Broken> {
        let mut samples = vec![0; self.width * self.height * self.count];
        let layout = &self.layout;
        let (across, down) = (self.width.div_ceil(layout.width), self.height.div_ceil(layout.height));
        let planes = if layout.planar { self.count } else { 1 };
        for index in 0..across * down * planes {
            let (plane, place) = (index / (across * down), index % (across * down));
            let (x, y) = (place % across * layout.width, place / across * layout.height);
            let rows = if layout.tiled { layout.height } else { layout.height.min(self.height - y) };
            let shape = self.shape(rows)?;
            let packed = self.packed(index, &shape)?;
            self.place(&packed, &shape, (x, y, plane), &mut samples);
        }
        samples::write(&samples, self.count, &self.colours, self.alpha, out);
        Ok(())
    }

    /// The shape of a chunk of so many rows.
    fn shape(&self, rows: usize) -> Result<Shape, Broken> {
        let samples = if self.layout.planar { 1 } else { self.count };
        let width = self.layout.width;
        let bytes = match self.subsampling {
            Some((h, v)) => {
                width.div_ceil(h).checked_mul(rows.div_ceil(v)).and_then(|units| units.checked_mul(h * v + 2))
            }
            None => {
                let bits = width.checked_mul(samples * self.format.bits());
                bits.and_then(|bits| bits.div_ceil(8).checked_mul(rows))
            }
        };
        let bytes = bytes.ok_or(Broken::Corrupt("a strip or tile is too large"))?;
        Ok(Shape { width, height: rows, samples, bytes })
    }

    /// The packed samples of a chunk, differences undone.
    fn packed(&self, index: usize, shape: &Shape) -> Result<Vec<u8>, Broken> {
        let layout = &self.layout;
        let file = self.directory.file;
        let offset = *layout.offsets.get(index).ok_or(Broken::Corrupt("a strip or tile is missing"))?;
        let from = usize::try_from(offset).ok().filter(|from| *from <= file.bytes.len()).ok_or(Broken::Cut)?;
        let rest = &file.bytes[from..];
        // Lengths that are missing or lead out of the file: what is there decides.
        let length = layout.lengths.get(index).map_or(rest.len(), |length| rest.len().min(*length as usize));
        let mut data = Cow::Borrowed(&rest[..length]);
        if self.reversed_bits {
            data.to_mut().iter_mut().for_each(|byte| *byte = byte.reverse_bits());
        }
        let tables = self.directory.bytes(347);
        let mut packed = unpack(&data, self.compression, shape, tables, self.working_bytes_max)?;
        match (self.predictor, self.format) {
            _ if !matches!(self.compression, Compression::Lzw | Compression::Deflate) => {}
            (1, _) => {}
            (2, format) => samples::undo_differences(&mut packed, shape, format.bits(), file.big_endian)?,
            (3, Format::Float) => samples::undo_float_differences(&mut packed, shape, file.big_endian),
            _ => return Err(Broken::Unsupported("this kind of differences is not decoded")),
        }
        Ok(packed)
    }

    /// Puts the samples of a chunk where they belong.
    fn place(&self, packed: &[u8], shape: &Shape, (x, y, plane): (usize, usize, usize), samples: &mut [u8]) {
        let (width, count) = (shape.width.min(self.width - x), self.count);
        if let Some((h, v)) = self.subsampling {
            let units = shape.width.div_ceil(h);
            for row in 0..shape.height.min(self.height - y) {
                for column in 0..width {
                    let unit = &packed[(row / v * units + column / h) * (h * v + 2)..][..h * v + 2];
                    let at = ((y + row) * self.width + x + column) * count;
                    samples[at..at + 3].copy_from_slice(&[
                        unit[row % v * h + column % h],
                        unit[h * v],
                        unit[h * v + 1],
                    ]);
                }
            }
            return;
        }
        let indices = matches!(self.colours, Colours::Palette(_));
        let pitch = shape.bytes / shape.height;
        for (row, packed) in packed.chunks_exact(pitch).take(self.height - y).enumerate() {
            let line = &mut samples[((y + row) * self.width + x) * count..][..width * count];
            let (first, step) = if self.layout.planar { (plane, count) } else { (0, 1) };
            samples::row_samples(packed, self.format, indices, self.directory.file.big_endian, |at, value| {
                if let Some(sample) = line.get_mut(first + at * step) {
                    *sample = value;
                }
            });
        }
    }
}

impl ImageDecoder for TiffDecoder<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.width as u32, self.height as u32)
    }

    fn color_type(&self) -> ColorType {
        ColorType::Rgb8
    }

    fn orientation(&mut self) -> ImageResult<Orientation> {
        Ok(self.orientation)
    }

    fn read_image(self, out: &mut [u8]) -> ImageResult<()> {
        Ok(self.decode(out)?)
    }

    fn read_image_boxed(self: Box<Self>, out: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(out)
    }
}
