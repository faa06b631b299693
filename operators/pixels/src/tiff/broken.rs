//! What is wrong with a TIFF.

use image::error::{DecodingError, ImageFormatHint, UnsupportedError, UnsupportedErrorKind};
use image::{ImageError, ImageFormat};

/// Why a file is not decoded.
#[derive(Debug)]
pub enum Broken {
    /// The data end before the picture is complete.
    Cut,
    /// The data contradict themselves or the format.
    Corrupt(&'static str),
    /// A kind of the format that is not decoded.
    Unsupported(&'static str),
    /// A JPEG stream inside.
    Jpeg(faceflow_jpeg::Broken),
}

impl From<Broken> for ImageError {
    fn from(broken: Broken) -> Self {
        let hint = ImageFormatHint::Exact(ImageFormat::Tiff);
        match broken {
            Broken::Cut => {
                Self::Decoding(DecodingError::new(hint, "the data break off before the picture is complete"))
            }
            Broken::Corrupt(detail) => Self::Decoding(DecodingError::new(hint, detail)),
            Broken::Unsupported(detail) => {
                let kind = UnsupportedErrorKind::GenericFeature(detail.to_owned());
                Self::Unsupported(UnsupportedError::from_format_and_kind(hint, kind))
            }
            Broken::Jpeg(broken) => crate::jpeg::refusal(broken),
        }
    }
}
