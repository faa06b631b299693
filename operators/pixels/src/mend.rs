//! Files that others show and a decoder refuses, or reads wrongly, for the sake of their headers: brought into the form
//! that it reads. Pixel data are never touched; what is as it should be is not copied.

mod bmp;
mod gif;
mod png;
mod webp;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use faceflow_core::Fault;
use image::metadata::Orientation;

use super::sniff::Format;

/// A file ready for its decoder.
pub struct Mended<'a> {
    /// Its bytes.
    pub bytes: Cow<'a, [u8]>,
    /// How it lies, where the decoder is not to be asked.
    pub orientation: Option<Orientation>,
}

/// Mends a file of this format. Fault: `corrupt_image` for one that contradicts itself.
pub fn mend(format: Format, bytes: &[u8]) -> Result<Mended<'_>, Fault> {
    let bytes = match format {
        Format::WebP => {
            let (bytes, orientation) = webp::mend(bytes)?;
            return Ok(Mended { bytes, orientation: Some(orientation) });
        }
        Format::Bmp => bmp::mend(bytes),
        Format::Gif => gif::mend(bytes),
        Format::Png => png::mend(bytes),
        Format::Jpeg | Format::Tiff => Cow::Borrowed(bytes),
    };
    Ok(Mended { bytes, orientation: None })
}
