//! The JPEG decoder behind the trait that all decoders share.

use faceflow_jpeg::{Broken, Jpeg};
use image::error::{
    DecodingError, ImageFormatHint, LimitError, LimitErrorKind, UnsupportedError, UnsupportedErrorKind,
};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult};

/// A JPEG whose header has been read, and how many bytes its decoder may hold beside the pixels.
pub struct JpegDecoder<'a> {
    jpeg: Jpeg<'a>,
    working_bytes_max: u64,
}

impl<'a> JpegDecoder<'a> {
    /// Reads the header.
    pub fn new(bytes: &'a [u8], working_bytes_max: u64) -> ImageResult<Self> {
        Ok(Self { jpeg: Jpeg::new(bytes).map_err(refusal)?, working_bytes_max })
    }

    /// What decoding holds beside the pixels that it writes, in bytes.
    pub fn working_bytes(&self) -> u64 {
        self.jpeg.working_bytes()
    }
}

impl ImageDecoder for JpegDecoder<'_> {
    fn dimensions(&self) -> (u32, u32) {
        self.jpeg.size()
    }

    fn color_type(&self) -> ColorType {
        if self.jpeg.channels() == 1 { ColorType::L8 } else { ColorType::Rgb8 }
    }

    fn orientation(&mut self) -> ImageResult<Orientation> {
        Ok(self.jpeg.exif().and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms))
    }

    fn read_image(self, out: &mut [u8]) -> ImageResult<()> {
        self.jpeg.decode(out, self.working_bytes_max).map_err(refusal)
    }

    fn read_image_boxed(self: Box<Self>, out: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(out)
    }
}

/// What a refusal of the decoder is to those who use the trait.
pub fn refusal(broken: Broken) -> ImageError {
    let hint = ImageFormatHint::Exact(ImageFormat::Jpeg);
    match broken {
        Broken::Unsupported(detail) => {
            let kind = UnsupportedErrorKind::GenericFeature(detail.to_owned());
            ImageError::Unsupported(UnsupportedError::from_format_and_kind(hint, kind))
        }
        Broken::TooMuchMemory(_) => ImageError::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory)),
        Broken::Cut | Broken::Corrupt(_) => ImageError::Decoding(DecodingError::new(hint, broken.to_string())),
    }
}
