//! Bytes to pixels: JPEG, PNG, GIF, WebP, BMP and TIFF, as displayed.
//!
//! First frame of animations, EXIF orientation applied, alpha over white, 16 bits to 8, grey, palette, CMYK and YCCK to
//! RGB; colour profiles are not applied. Promise: dimensions and memory are checked before pixels are allocated, whatever
//! the decoder below honours. Every fault is permanent: the same bytes would fail again.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use faceflow_core::blocking::{cores, panicked};
use faceflow_core::detector::PixelBuffer;
use faceflow_core::{Class, Fault};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use serde::{Deserialize, Serialize};

use super::jpeg::JpegDecoder;
use super::mend::{Mended, mend};
use super::orient::{blank, displayed, to_displayed_rgb};
use super::sniff::{Format, sniff};
use super::tiff::TiffDecoder;

/// No side may be longer, whatever the settings say: sums over a row or a column stay within 32 bits.
const SIDE_MAX_PX: u32 = 1 << 20;
/// What decoded pictures may take for each core, and once more: a dozen of a megapixel each time.
const MEMORY_PER_CORE_BYTES: u64 = 24 << 20;
/// What a PNG decoder may allocate beside the pixels: a colour profile is compressed and may be a bomb of its own.
const PNG_EXTRAS_MAX_BYTES: u64 = 16 << 20;

/// The settings `image.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageSettings {
    /// Images with a side shorter than this, in pixels, are rejected: tracking pixels, bullets and small icons.
    pub min_side_px: u32,
    /// Images of more pixels than this are rejected before anything is allocated for them.
    pub pixels_max: u64,
    /// Images whose decoding would need more memory than this, in bytes, are rejected before it is allocated.
    pub decode_memory_max_bytes: u64,
    /// Decoded pictures in flight, in bytes of pixels, at most. 0: a share of `memory.max_bytes`.
    pub memory_max_bytes: u64,
    /// Images in flight between download and delivery, at most.
    pub concurrent_max: usize,
    /// Pieces of CPU-bound work (reading pages, decoding, encoding) at once in a process; 0 for as many as there are cores.
    pub threads: usize,
}

impl Default for ImageSettings {
    fn default() -> Self {
        Self {
            min_side_px: 32,
            pixels_max: 50_000_000,
            decode_memory_max_bytes: 512 << 20,
            memory_max_bytes: 0,
            concurrent_max: 8_192,
            threads: 0,
        }
    }
}

impl ImageSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let allowed = |ok, key, range: &str| if ok { Ok(()) } else { Err((key, range.to_owned())) };
        allowed((1..=SIDE_MAX_PX).contains(&self.min_side_px), "min_side_px", "1 to 1048576")?;
        allowed((1..=1_000_000_000).contains(&self.pixels_max), "pixels_max", "1 to 1000000000")?;
        allowed(self.decode_memory_max_bytes >= 1 << 20, "decode_memory_max_bytes", "1048576 or more")?;
        let memory = self.memory_max_bytes;
        allowed(
            memory == 0 || memory >= 1 << 20,
            "memory_max_bytes",
            "0 (a share of memory.max_bytes), or 1048576 or more",
        )?;
        allowed((1..=100_000).contains(&self.concurrent_max), "concurrent_max", "1 to 100000")?;
        allowed(self.threads <= 10_000, "threads", "0 (as many as there are cores) to 10000")
    }

    /// How many bytes of pixels may be in flight on this machine, by the cores where nobody has shared memory out.
    pub fn memory_bytes(&self) -> u64 {
        match self.memory_max_bytes {
            0 => (cores() as u64 + 1) * MEMORY_PER_CORE_BYTES,
            bytes => bytes,
        }
    }

    /// How many pieces of CPU-bound work there are at once on this machine.
    pub fn concurrency(&self) -> usize {
        if self.threads == 0 { cores() } else { self.threads }
    }
}

/// What a file's first bytes say, within the limits of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `jpeg`, `png`, `gif`, `webp`, `bmp` or `tiff`.
    pub format: &'static str,
    /// Width in pixels as displayed.
    pub width: u32,
    /// Height in pixels as displayed.
    pub height: u32,
    /// What decoding holds at its peak, in bytes, by an upper estimate; `width * height * 3` of it stay.
    pub memory_bytes: u64,
}

/// A decoded image.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Its pixels, as displayed.
    pub picture: PixelBuffer,
    /// `jpeg`, `png`, `gif`, `webp`, `bmp` or `tiff`.
    pub format: &'static str,
}

/// Reads the header of an image and checks it against the limits; decodes nothing.
///
/// Faults (all permanent, [`Class::Content`]): `not_an_image`, `svg`, `unsupported_format`, `too_small`,
/// `too_many_pixels`, `too_much_memory`, `corrupt_image`.
pub fn peek(bytes: &[u8], settings: &ImageSettings) -> Result<Header, Fault> {
    guarded(|| open(bytes, settings).map(|opened| opened.header))
}

/// Decodes an image. Faults: as [`peek`]; a picture whose data break off or contradict themselves is a `corrupt_image`.
pub fn decode(bytes: &[u8], settings: &ImageSettings) -> Result<Decoded, Fault> {
    guarded(|| {
        let opened = open(bytes, settings)?;
        let Header { format, width, height, .. } = opened.header;
        let rgb = opened.read()?;
        Ok(Decoded { picture: PixelBuffer { width, height, rgb }, format })
    })
}

/// Runs a decoder. One that panics would do so again on the same bytes: the picture is refused for good.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(fault("corrupt_image", format!("while it was decoded, {}", panicked(panic.as_ref()).detail)))
    })
}

/// An image whose limits have been checked.
struct Opened<'a> {
    header: Header,
    decoder: Box<dyn ImageDecoder + 'a>,
    orientation: Orientation,
}

impl Opened<'_> {
    /// The displayed pixels; straight from the decoder into shared memory where nothing has to be changed.
    fn read(self) -> Result<Arc<[u8]>, Fault> {
        let Self { header, decoder, orientation } = self;
        let (color, size) = (decoder.color_type(), decoder.dimensions());
        let total = usize::try_from(decoder.total_bytes()).expect("the memory limit fits the address space");
        if color == ColorType::Rgb8 && orientation == Orientation::NoTransforms {
            let mut rgb = blank(total);
            decoder.read_image(Arc::get_mut(&mut rgb).expect("nobody else has the new pixels yet")).map_err(refused)?;
            return Ok(rgb);
        }
        let mut raw = vec![0; total];
        decoder.read_image(&mut raw).map_err(refused)?;
        if header.format == Format::Bmp.name() && color == ColorType::Rgba8 {
            show_all_transparent(&mut raw);
        }
        let unknown = || fault("unsupported_format", format!("the colour type {color:?} is not decoded"));
        to_displayed_rgb(&raw, color, size, orientation).ok_or_else(unknown)
    }
}

/// Alpha that is 0 everywhere is none: writers of BMP leave that byte empty, and browsers show such pictures.
fn show_all_transparent(rgba: &mut [u8]) {
    let (pixels, _) = rgba.as_chunks_mut::<4>();
    if pixels.iter().all(|pixel| pixel[3] == 0) {
        pixels.iter_mut().for_each(|pixel| pixel[3] = 255);
    }
}

fn open<'a>(bytes: &'a [u8], settings: &ImageSettings) -> Result<Opened<'a>, Fault> {
    let format = sniff(bytes)?;
    let Prepared { mut decoder, beside, orientation } = prepare(format, bytes, settings)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, settings)?;
    // Orientation that cannot be read is no orientation, as browsers have it.
    let orientation = orientation.unwrap_or_else(|| decoder.orientation().unwrap_or(Orientation::NoTransforms));
    let direct = decoder.color_type() == ColorType::Rgb8 && orientation == Orientation::NoTransforms;
    let rgb = if direct { 0 } else { 3 * u64::from(width) * u64::from(height) };
    let memory_bytes = decoder.total_bytes().saturating_add(beside).saturating_add(rgb);
    if memory_bytes > settings.decode_memory_max_bytes {
        let most = settings.decode_memory_max_bytes;
        let detail = format!(
            "{width}x{height} takes up to {memory_bytes} bytes to decode; image.decode_memory_max_bytes is {most}"
        );
        return Err(fault("too_much_memory", detail));
    }
    let (width, height) = displayed(orientation, width, height);
    Ok(Opened { header: Header { format: format.name(), width, height, memory_bytes }, decoder, orientation })
}

/// A decoder that has read the header.
struct Prepared<'a> {
    decoder: Box<dyn ImageDecoder + 'a>,
    /// What it holds at its peak beside the pixels that it writes, in bytes.
    beside: u64,
    /// How the picture lies, where the decoder is not to be asked.
    orientation: Option<Orientation>,
}

fn prepare<'a>(format: Format, bytes: &'a [u8], settings: &ImageSettings) -> Result<Prepared<'a>, Fault> {
    let codec = match format {
        Format::Jpeg => {
            let decoder = JpegDecoder::new(bytes, settings.decode_memory_max_bytes).map_err(refused)?;
            let beside = decoder.working_bytes();
            return Ok(Prepared { decoder: Box::new(decoder), beside, orientation: None });
        }
        Format::Tiff => {
            let decoder =
                TiffDecoder::new(bytes, settings.decode_memory_max_bytes).map_err(|broken| refused(broken.into()))?;
            let beside = decoder.working_bytes();
            return Ok(Prepared { decoder: Box::new(decoder), beside, orientation: None });
        }
        Format::Png => ImageFormat::Png,
        Format::Gif => ImageFormat::Gif,
        Format::WebP => ImageFormat::WebP,
        Format::Bmp => ImageFormat::Bmp,
    };
    let Mended { bytes, orientation } = mend(format, bytes)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), codec);
    let mut limits = Limits::default();
    limits.max_alloc = Some(match format {
        Format::Png => PNG_EXTRAS_MAX_BYTES,
        _ => settings.decode_memory_max_bytes,
    });
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(refused)?;
    let (width, height) = decoder.dimensions();
    let beside = match format {
        // The first frame before it is placed, planes of YUV or ARGB.
        Format::Gif | Format::WebP => 4 * u64::from(width) * u64::from(height),
        _ => 0,
    };
    Ok(Prepared { decoder: Box::new(decoder), beside, orientation })
}

fn check_size(width: u32, height: u32, settings: &ImageSettings) -> Result<(), Fault> {
    let (least, most) = (settings.min_side_px.max(1), settings.pixels_max);
    if width.min(height) < least {
        return Err(fault("too_small", format!("{width}x{height}; image.min_side_px is {least}")));
    }
    if u64::from(width) * u64::from(height) > most {
        return Err(fault("too_many_pixels", format!("{width}x{height}; image.pixels_max is {most}")));
    }
    if width.max(height) > SIDE_MAX_PX {
        return Err(fault("too_many_pixels", format!("{width}x{height}; no side may exceed {SIDE_MAX_PX}")));
    }
    Ok(())
}

/// The fault that a decoder's refusal is.
fn refused(error: ImageError) -> Fault {
    match error {
        ImageError::Unsupported(_) => fault("unsupported_format", error.to_string()),
        ImageError::Limits(_) => fault("too_much_memory", error.to_string()),
        _ => fault("corrupt_image", error.to_string()),
    }
}

fn fault(reason: &str, detail: String) -> Fault {
    Fault::permanent(Class::Content, reason, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_decoder_refuses_the_picture_for_good() {
        let fault = guarded::<()>(|| panic!("row {} of {}", 3, 2)).expect_err("it panicked");
        assert_eq!((fault.reason.as_str(), fault.permanent), ("corrupt_image", true));
        assert!(fault.detail.ends_with("row 3 of 2"), "{fault}");
    }
}
