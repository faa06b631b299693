//! Windows of decoders: how much of what they have decoded content codings look back at, as the beginning of the coded data says.
//!
//! Deflate looks back at 32 KiB; brotli and zstd at as much as the sender likes. Promise: what is found here is what the decoder
//! allocates at most, and larger windows than a content coding may have are refused.

use faceflow_core::{Class, Fault};

use super::content_coding::Coding;

/// The largest window of brotli (RFC 7932), in bytes.
const BROTLI_MAX_BYTES: usize = 16 << 20;
/// The largest window of zstd that a content coding may need, as a power of two: 8 MiB (RFC 9659).
const ZSTD_MAX_LOG: u32 = 23;
/// What later frames of one zstd body may need in any case, as a power of two.
const ZSTD_MIN_LOG: u32 = 20;

/// The window that a decoder gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its size.
    pub bytes: usize,
    /// For zstd, the logarithm of the largest window that is decoded: frames after the first one are held to what that had.
    pub log_max: u32,
}

impl Window {
    /// The window that data in this coding ask for which begin so.
    pub fn of(coding: Coding, start: &[u8]) -> Result<Self, Fault> {
        let size = |bytes: usize| Self { bytes, log_max: bytes.max(1).next_power_of_two().ilog2() };
        match coding {
            Coding::Gzip | Coding::Zlib | Coding::Bare => Ok(size(0)),
            Coding::Brotli => brotli(start.first().copied().unwrap_or_default()).map(size),
            Coding::Zstd => {
                let asked = zstd(start).unwrap_or(1 << ZSTD_MAX_LOG);
                if asked > 1 << ZSTD_MAX_LOG {
                    return Err(too_large("zstd"));
                }
                let log_max = size(asked).log_max.max(ZSTD_MIN_LOG);
                Ok(Self { bytes: 1 << log_max, log_max })
            }
        }
    }
}

/// The window that the first byte of brotli data asks for (RFC 7932, section 9.1).
fn brotli(first: u8) -> Result<usize, Fault> {
    let log = match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, ..) => 16,
        (_, 0, 0) => 17,
        // No window of RFC 7932: the decoder would take it for one of up to 1 GiB ("large window brotli").
        (_, 0, 1) => return Err(too_large("brotli")),
        (_, 0, more) => 8 + more,
        (_, more, _) => 17 + more,
    };
    Ok((1 << log).min(BROTLI_MAX_BYTES))
}

/// The window of a zstd frame (RFC 8878, section 3.1.1.1); none where the beginning is no frame of data.
fn zstd(start: &[u8]) -> Option<usize> {
    let frame = start.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (descriptor, rest) = frame.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return usize::try_from(base + base / 8 * u64::from(window & 7)).ok();
    }
    // One segment: the window is all of it.
    let id_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let (size_bytes, more) = [(1, 0), (2, 256), (4, 0), (8, 0)][usize::from(descriptor >> 6)];
    let size = rest.get(id_bytes..id_bytes + size_bytes)?;
    let size = size.iter().rev().fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
    usize::try_from(size.checked_add(more)?).ok()
}

fn too_large(coding: &str) -> Fault {
    let detail = format!("its {coding} data need a larger window than a content coding may have");
    Fault::transient(Class::Protocol, "bad_encoding", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brotli_says_its_window_in_its_first_byte() {
        let window = |first| Window::of(Coding::Brotli, &[first]).map(|window| window.bytes).map_err(|f| f.reason);
        assert_eq!(window(0b0), Ok(1 << 16));
        assert_eq!(window(0b000_0001), Ok(1 << 17));
        assert_eq!(window(0b0011), Ok(1 << 18));
        assert_eq!(window(0b1011), Ok(1 << 22), "what most servers use at most");
        assert_eq!(window(0b1111), Ok(BROTLI_MAX_BYTES));
        assert_eq!(window(0b010_0001), Ok(1 << 10));
        assert_eq!(window(0b111_0001), Ok(1 << 15));
        assert_eq!(window(0b001_0001), Err("bad_encoding".to_owned()), "large window brotli");
        assert_eq!(window(0b1001_0001), Err("bad_encoding".to_owned()));
    }

    #[test]
    fn zstd_says_its_window_in_the_header_of_its_frame() {
        let window = |header: &[u8]| {
            let start = [&[0x28, 0xb5, 0x2f, 0xfd], header].concat();
            Window::of(Coding::Zstd, &start).map(|window| window.bytes).map_err(|fault| fault.reason)
        };
        assert_eq!(window(&[0x00, 11 << 3]), Ok(2 << 20));
        assert_eq!(window(&[0x00, 11 << 3 | 1]), Ok(4 << 20), "rounded up");
        assert_eq!(window(&[0x00, 13 << 3]), Ok(8 << 20));
        assert_eq!(window(&[0x00, 13 << 3 | 1]), Err("bad_encoding".to_owned()));
        assert_eq!(window(&[0x00, 0xff]), Err("bad_encoding".to_owned()));
        assert_eq!(window(&[0x20, 100]), Ok(1 << 20));
        assert_eq!(window(&[0xa1, 7, 0, 0, 0x30, 0]), Ok(4 << 20), "of one segment of 3 MiB, with a dictionary");
        assert_eq!(window(&[0xe0, 0, 0, 0, 0, 1, 0, 0, 0]), Err("bad_encoding".to_owned()));
        assert_eq!(window(&[0xe0, 255, 255, 255, 255, 255, 255, 255, 255]), Err("bad_encoding".to_owned()));
        assert_eq!(window(&[]), Ok(8 << 20));
        let skippable = Window::of(Coding::Zstd, &[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0]);
        assert_eq!(skippable.map(|window| window.bytes), Ok(8 << 20));
    }
}
