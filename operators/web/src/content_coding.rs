//! Content codings: which of them a body has, by what its headers say and by what it is.
//!
//! Servers list words that are no coding, name a coding that they did not apply, or another one. So the headers say what to try, and
//! the beginning of the body what it is: the signs of gzip, zlib and zstd, of pictures, and of text are unmistakable. Promise: what
//! is recognised is taken for what it is, and what is not is a fault rather than a page or picture of coded bytes.

use faceflow_core::{Class, Fault};
use reqwest::header::{CONTENT_ENCODING, HeaderMap, TRANSFER_ENCODING};

use super::inflate::{GZIP_START, is_zlib_start};

/// The `Accept-Encoding` of every request: the content codings that are removed.
pub const CODINGS: &str = "gzip, deflate, br, zstd";

/// Codings on top of one another, at most.
const LAYERS_MAX: usize = 5;
/// How much of a body shows what it is, in bytes.
pub const START_BYTES: usize = 256;

/// A coding that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip` or `x-gzip`.
    Gzip,
    /// `deflate` with its zlib wrapping.
    Zlib,
    /// `deflate` without it.
    Bare,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
}

/// What the headers say about the coding of a body.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// The codings we know, in the order in which they were applied. `deflate` stands as [`Coding::Zlib`].
    pub layers: Vec<Coding>,
    /// Words that are none.
    pub unknown: Vec<String>,
}

impl Stated {
    /// Reads `Content-Encoding` and `Transfer-Encoding`, which is applied after it.
    pub fn of(headers: &HeaderMap) -> Result<Self, Fault> {
        let values = headers.get_all(CONTENT_ENCODING).iter().chain(headers.get_all(TRANSFER_ENCODING));
        let mut stated = Self::default();
        for value in values {
            let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
            for word in text.split([',', ' ', '\t']) {
                let word = word.split(';').next().unwrap_or_default().trim_matches(['"', '\'']);
                match word {
                    "" | "identity" | "chunked" => {}
                    "gzip" | "x-gzip" => stated.layers.push(Coding::Gzip),
                    "deflate" | "x-deflate" | "zlib" => stated.layers.push(Coding::Zlib),
                    "br" => stated.layers.push(Coding::Brotli),
                    "zstd" => stated.layers.push(Coding::Zstd),
                    word => stated.unknown.push(word.to_owned()),
                }
            }
        }
        match stated.layers.len() > LAYERS_MAX {
            true => Err(refused(format!("{} codings on top of one another", stated.layers.len()))),
            false => Ok(stated),
        }
    }

    /// Refuses a body that begins so under a word that may be a coding after all: it is neither text nor a picture.
    pub fn check_unknown(&self, start: &[u8]) -> Result<(), Fault> {
        if self.unknown.is_empty() || start.is_empty() || is_picture(start) || is_text(start) || sign(start).is_some() {
            return Ok(());
        }
        Err(refused(format!("unknown content coding {:?}", self.unknown.join(", "))))
    }
}

impl Coding {
    /// The coding of a body that begins so and is stated to have this one; `None` if it has none.
    pub fn found(self, start: &[u8]) -> Result<Option<Self>, Fault> {
        if start.is_empty() {
            return Ok(None);
        }
        if let Some(coding) = sign(start) {
            return Ok(Some(coding));
        }
        let zlib = is_zlib_start(start) && !is_certain_text(start);
        let plain = is_picture(start) || is_certain_text(start);
        match self {
            // A few bytes may look like text and be coded; no sign tells these codings.
            Self::Zlib | Self::Bare if zlib => Ok(Some(Self::Zlib)),
            Self::Zlib | Self::Bare | Self::Brotli if plain && start.len() >= 16 => Ok(None),
            Self::Zlib | Self::Bare => Ok(Some(Self::Bare)),
            Self::Brotli => Ok(Some(Self::Brotli)),
            Self::Gzip | Self::Zstd if plain => Ok(None),
            Self::Gzip | Self::Zstd if zlib => Ok(Some(Self::Zlib)),
            Self::Gzip | Self::Zstd => {
                // What is shorter than its sign broke off.
                let cut = GZIP_START.starts_with(start) || ZSTD_START.starts_with(start);
                let reason = if cut { "body_truncated" } else { "bad_encoding" };
                Err(Fault::transient(Class::Protocol, reason, format!("{self:?} is stated, and the body is not that")))
            }
        }
    }
}

/// The fault of codings that are not removed.
pub fn refused(detail: String) -> Fault {
    Fault::permanent(Class::Content, "content_encoding", detail)
}

/// How a zstd frame begins (RFC 8878).
const ZSTD_START: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The coding whose unmistakable sign stands at the beginning.
fn sign(start: &[u8]) -> Option<Coding> {
    match start {
        _ if start.starts_with(&GZIP_START) => Some(Coding::Gzip),
        _ if start.starts_with(&ZSTD_START) => Some(Coding::Zstd),
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Coding::Zstd),
        _ => None,
    }
}

/// Whether the beginning is that of a picture or video.
fn is_picture(start: &[u8]) -> bool {
    matches!(
        start,
        [0xff, 0xd8, 0xff, ..]
            | [0x89, b'P', b'N', b'G', ..]
            | [b'G', b'I', b'F', b'8', ..]
            | [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..]
            | [b'I', b'I', b'*', 0, ..]
            | [b'M', b'M', 0, b'*', ..]
            | [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..]
            | [_, _, _, _, b'f', b't', b'y', b'p', ..]
    )
}

/// Whether the beginning holds none of the bytes that text never holds (MIME sniffing standard, "binary data byte"), or is UTF-16.
fn is_text(start: &[u8]) -> bool {
    let wide = matches!(start, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'<', 0, ..] | [0, b'<', ..]);
    wide || !start.iter().any(|byte| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f))
}

/// Whether the beginning is text and cannot be coded data.
fn is_certain_text(start: &[u8]) -> bool {
    let begins_markup = start.trim_ascii_start().first() == Some(&b'<') || !start.is_ascii() && start[0] >= 0xef;
    let utf8 = match std::str::from_utf8(start) {
        Ok(_) => true,
        // A character may be cut off at the end of what is looked at.
        Err(error) => error.error_len().is_none() && start.len() >= START_BYTES,
    };
    is_text(start) && (utf8 || begins_markup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_it_begins_like() {
        use Coding::{Bare, Brotli, Gzip, Zlib, Zstd};
        let page = b"<!doctype html><title>words</title>";
        let robots = b"User-agent: *\nDisallow: /x\n";
        let picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        for stated in [Gzip, Zlib, Brotli, Zstd] {
            for plain in [&page[..], robots, picture, b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01", b""] {
                assert_eq!(stated.found(plain), Ok(None), "{stated:?} {plain:?}");
            }
            assert_eq!(stated.found(&[0x1f, 0x8b, 8, 0, 0]), Ok(Some(Gzip)), "{stated:?}");
            assert_eq!(stated.found(&[0x28, 0xb5, 0x2f, 0xfd, 0]), Ok(Some(Zstd)), "{stated:?}");
        }
        for stated in [Gzip, Zlib, Zstd] {
            assert_eq!(stated.found(&[0x78, 0x9c, 3, 0]), Ok(Some(Zlib)), "{stated:?}");
        }
        assert_eq!(Zlib.found(&[0xcb, 0x48, 0xcd, 0xc9, 7, 0]), Ok(Some(Bare)));
        assert_eq!(Brotli.found(b";"), Ok(Some(Brotli)), "an empty body");
        assert_eq!(Gzip.found(&[0, 1, 2, 3]).map_err(|fault| fault.reason), Err("bad_encoding".to_owned()));
        assert_eq!(Gzip.found(&[0x1f]).map_err(|fault| fault.reason), Err("body_truncated".to_owned()));
    }
}
