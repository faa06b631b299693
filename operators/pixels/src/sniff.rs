//! What a file is, by its first bytes; names and declared types are never believed.
//!
//! Formats follow their specifications' signatures. Bytes that are no picture, or one we do not read, get the reason that
//! stands in the results: `not_an_image`, `svg` (never rendered) or `unsupported_format` (named in the detail).

use faceflow_core::{Class, Fault};

/// Bytes at the start in which markup must show its root element.
const MARKUP_BYTES: usize = 4096;

/// A format that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG, with any of its colour spaces.
    Jpeg,
    /// PNG; the default image of an APNG.
    Png,
    /// GIF 87a or 89a; the first frame of an animation.
    Gif,
    /// WebP, lossy or lossless; the first frame of an animation.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// TIFF or BigTIFF; the first page.
    Tiff,
}

impl Format {
    /// Its name in the results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Gif => "gif",
            Self::WebP => "webp",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
        }
    }
}

/// The format of these bytes, or why they cannot be read.
pub fn sniff(bytes: &[u8]) -> Result<Format, Fault> {
    if let Some(format) = supported(bytes) {
        return Ok(format);
    }
    let fault = |reason, detail: String| Err(Fault::permanent(Class::Content, reason, detail));
    if let Some(name) = unsupported(bytes) {
        return fault("unsupported_format", format!("{name} is not decoded"));
    }
    match markup(bytes) {
        Some("svg") => fault("svg", "SVG is never rendered".to_owned()),
        Some(name) => fault("not_an_image", format!("the bytes are {name}")),
        None if bytes.is_empty() => fault("not_an_image", "there are no bytes".to_owned()),
        None => fault("not_an_image", format!("no image format begins with {:02x?}", &bytes[..bytes.len().min(8)])),
    }
}

fn supported(bytes: &[u8]) -> Option<Format> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Format::Png),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
        [b'I', b'I', b'*' | b'+', 0, ..] | [b'M', b'M', 0, b'*' | b'+', ..] => Some(Format::Tiff),
        // Two letters are no evidence: the length of the header that follows must be one that exists.
        [b'B', b'M', ..] => {
            matches!(bytes.get(14..18)?, [12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]).then_some(Format::Bmp)
        }
        _ => None,
    }
}

/// Picture formats that are recognised to say so, not decoded.
fn unsupported(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.get(..4)? {
            b"avif" | b"avis" => Some("AVIF"),
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => Some("HEIF"),
            _ => Some("an ISO media file"),
        },
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => Some("JPEG XL"),
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => Some("JPEG 2000"),
        [0, 0, 1 | 2, 0, 1..=255, 0, ..] => Some("an icon"),
        [b'8', b'B', b'P', b'S', ..] => Some("PSD"),
        [b'I', b'I', 0xbc, 1, ..] => Some("JPEG XR"),
        [b'q', b'o', b'i', b'f', ..] => Some("QOI"),
        [b'P', b'1'..=b'7', b' ' | b'\t' | b'\r' | b'\n', ..] => Some("PNM"),
        [b'D', b'D', b'S', b' ', ..] => Some("DDS"),
        [0x76, 0x2f, 0x31, 0x01, ..] => Some("OpenEXR"),
        [b'#', b'?', b'R', b'A', b'D', ..] => Some("Radiance HDR"),
        _ => None,
    }
}

/// What kind of markup the bytes are: `svg`, or words for it.
fn markup(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes[..bytes.len().min(MARKUP_BYTES)].to_ascii_lowercase();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text).trim_ascii_start();
    if !text.starts_with(b"<") {
        return None;
    }
    let find = |tag: &[u8]| text.windows(tag.len()).position(|window| window == tag).unwrap_or(usize::MAX);
    let page = [&b"<html"[..], b"<head", b"<body", b"<!doctype html"].into_iter().map(find).min();
    match find(b"<svg") {
        svg if svg != usize::MAX && page.is_none_or(|page| svg < page) => Some("svg"),
        _ => Some("markup (HTML or XML)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(bytes: &[u8]) -> String {
        sniff(bytes).map_or_else(|fault| fault.reason, |format| format.name().to_owned())
    }

    #[test]
    fn bytes_are_what_they_begin_with() {
        assert_eq!(reason(b""), "not_an_image");
        assert_eq!(reason(b"<!DOCTYPE html><p><svg>"), "not_an_image");
        assert_eq!(reason(b"\xef\xbb\xbf  <?xml version='1.0'?><!-- a --><SVG xmlns='x'>"), "svg");
        assert_eq!(reason(b"<html><body><svg/></body>"), "not_an_image");
        assert_eq!(reason(b"BMW makes cars, not bitmaps"), "not_an_image");
        assert_eq!(reason(b"BM\0\0\0\0\0\0\0\0\0\0\0\0\x28\0\0\0"), "bmp");
        assert_eq!(reason(b"\0\0\0\x20ftypavif\0\0"), "unsupported_format");
        assert_eq!(reason(b"\0\0\x01\0\x01\0\x10\x10"), "unsupported_format");
        assert_eq!(reason(b"\0\0\0\0\0\0\0\0"), "not_an_image");
        assert_eq!(reason(b"II*\0\x08\0\0\0"), "tiff");
        assert_eq!(reason(b"RIFF\0\0\0\0WAVEfmt "), "not_an_image");
    }
}
