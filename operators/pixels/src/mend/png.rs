//! PNG: the closing chunk, which browsers do without.

use std::borrow::Cow;

/// Appends the closing chunk where the file ends between two chunks or within that one. Pixel data that are cut stay so, and
/// the decoder says so.
pub fn mend(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut at = 8;
    while let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let end = at.saturating_add(length).saturating_add(12);
        match (&header[4..] == b"IEND", end <= bytes.len()) {
            (false, true) => at = end,
            (true, false) => break,
            _ => return Cow::Borrowed(bytes),
        }
    }
    Cow::Owned([bytes.get(..at).unwrap_or(bytes), b"\0\0\0\0IEND\xae\x42\x60\x82"].concat())
}
