//! What must be known of a file's structure that its decoder tells too late.

use faceflow_core::{Class, Fault};

/// Refuses a WebP frame that is larger than the picture around it: it would be decoded before the decoder noticed.
pub fn check_inner_size(bytes: &[u8], width: u32, height: u32) -> Result<(), Fault> {
    match vp8_size(bytes.get(12..).unwrap_or_default()) {
        Some((inner_width, inner_height)) if inner_width > width || inner_height > height => {
            let detail = format!("a frame of {inner_width}x{inner_height} in a picture of {width}x{height}");
            Err(Fault::permanent(Class::Content, "corrupt_image", detail))
        }
        _ => Ok(()),
    }
}

/// The size in the first VP8 key frame header (RFC 6386, section 9.1) among these RIFF chunks, into animation frames.
fn vp8_size(mut chunks: &[u8]) -> Option<(u32, u32)> {
    loop {
        let (header, rest) = chunks.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        chunks = match &header[..4] {
            b"VP8 " => {
                let size = |at| Some(u32::from(u16::from_le_bytes([*rest.get(at)?, *rest.get(at + 1)?]) & 0x3fff));
                return Some((size(6)?, size(8)?));
            }
            b"ANMF" => rest.get(16..)?,
            _ => rest.get(length.checked_add(length & 1)?..)?,
        };
    }
}
