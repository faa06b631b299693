//! The fast way for the plainest pictures: one sequential scan of grey or of luma with two differences, as nearly all are
//! that are not progressive. zune-jpeg decodes these by vector instructions, and the matrix of the tests proves it right.
//!
//! zune-jpeg fills up what is missing. The scan is therefore given to it with other bytes behind, then a marker that does
//! not exist: only a decoder that wants far more than the scan has comes to that marker, and strictness makes it an error.

use memchr::memchr;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::rows::Colours;
use super::segments::{Frame, Scan, Segments};

/// What stands behind the scan: more than a decoder reads ahead (eight bytes), then a reserved marker.
const BEHIND: [u8; 18] = *b"\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\xff\x02";

/// Whether a picture with this first scan is of the shapes that are decoded here.
pub fn suits(frame: &Frame, segments: &Segments, scan: &Scan, colours: Colours) -> bool {
    let factors: Vec<(usize, usize)> = frame.components.iter().map(|component| (component.h, component.v)).collect();
    let proven = match factors[..] {
        [_] => true,
        [first, (1, 1), (1, 1)] => first.0 <= 2 && first.1 <= 2,
        _ => false,
    };
    // Where the marks of a file agree on its colours, all decoders do.
    let plain = match colours {
        Colours::Grey => true,
        Colours::YCbCr => {
            (segments.jfif || segments.adobe == Some(1) || frame.components.iter().map(|c| c.id).eq(1..=3))
                && segments.adobe != Some(0)
                && !frame.components.iter().map(|c| c.id).eq(*b"RGB")
        }
        _ => false,
    };
    frame.baseline && proven && plain && scan.members.len() == factors.len()
}

/// Decodes a picture that [`suits`], whose data begin at `at`; whether that went well. If not, `out` holds nothing of use.
pub fn decode(bytes: &[u8], at: usize, grey: bool, out: &mut [u8]) -> bool {
    let end = end_of_scan(bytes, at);
    if !matches!(bytes.get(end + 1), None | Some(0xd9)) {
        return false;
    }
    let bytes = [&bytes[..end], &BEHIND].concat();
    let colours = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(colours);
    JpegDecoder::new_with_options(ZCursor::new(&bytes), options).decode_into(out).is_ok()
}

/// Where the first marker is that ends the scan whose data begin at `at`.
fn end_of_scan(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr(0xff, rest)) {
        at += found;
        match bytes.get(at + 1) {
            Some(0 | 0xd0..=0xd7) => at += 2,
            Some(0xff) => at += 1,
            _ => return at,
        }
    }
    bytes.len()
}
