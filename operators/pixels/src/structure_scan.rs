//! What must be known of a file's structure that its decoder does not tell, or tells too late.

use faceflow_core::{Class, Fault};

use super::sniff::Format;

/// What a walk over markers or chunks found; empty for formats whose decoders need no help.
#[derive(Debug)]
pub struct StructureScan {
    /// A JPEG that is decoded in several passes, with all coefficients in memory.
    pub progressive: bool,
    /// Whether the file's end was found, where files have one that decoders do without.
    pub ended: bool,
    /// Size of the first lossy frame inside a WebP file.
    inner_size: Option<(u32, u32)>,
}

impl StructureScan {
    /// Refuses a frame that is larger than the picture around it: it would be decoded before the decoder noticed.
    pub fn check_inner_size(&self, width: u32, height: u32) -> Result<(), Fault> {
        match self.inner_size {
            Some((inner_width, inner_height)) if inner_width > width || inner_height > height => {
                let detail = format!("a frame of {inner_width}x{inner_height} in a picture of {width}x{height}");
                Err(Fault::permanent(Class::Content, "corrupt_image", detail))
            }
            _ => Ok(()),
        }
    }
}

/// Surveys a file.
pub fn structure_scan(format: Format, bytes: &[u8]) -> StructureScan {
    let mut structure_scan = StructureScan { progressive: false, ended: true, inner_size: None };
    match format {
        Format::Jpeg => jpeg(bytes, &mut structure_scan),
        Format::WebP => structure_scan.inner_size = vp8_size(&bytes[12..]),
        _ => {}
    }
    structure_scan
}

/// Walks the marker segments (ITU-T T.81, annex B) up to the first scan, then looks for the end of the image.
fn jpeg(bytes: &[u8], structure_scan: &mut StructureScan) {
    let mut at = 2;
    while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
        match marker {
            // A fill byte: the marker follows.
            0xff => at += 1,
            0xda => break,
            0xc2 | 0xc6 | 0xca | 0xce => {
                structure_scan.progressive = true;
                at = next_segment(bytes, at);
            }
            _ => at = next_segment(bytes, at),
        }
    }
    let scans = bytes.get(at..).unwrap_or_default();
    structure_scan.ended = scans.windows(2).rev().any(|pair| pair == [0xff, 0xd9]);
}

fn next_segment(bytes: &[u8], at: usize) -> usize {
    let length = bytes.get(at + 2..at + 4).map_or(2, |length| usize::from(u16::from_be_bytes([length[0], length[1]])));
    at + 2 + length.max(2)
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
