//! WebP (RFC 9649): what libwebp goes by are the chunks that are there, not the flags and lengths that speak of them.

use std::borrow::Cow;

use faceflow_core::{Class, Fault};
use image::metadata::Orientation;

/// Flags of the extended header.
const ALPHA: u8 = 0x10;
const ANIMATION: u8 = 0x02;

/// The chunks of a file that matter here.
#[derive(Default)]
struct Chunks<'a> {
    /// The extended header: where it begins, and its data.
    extended: Option<(usize, &'a [u8])>,
    /// The alpha plane, header and all.
    alpha: Option<&'a [u8]>,
    /// The pixels, header and all.
    image: Option<&'a [u8]>,
    exif: Option<&'a [u8]>,
    animated: bool,
}

/// The file and how it lies. A still picture becomes its pixels, with their alpha plane if there is one; an animation stays, less the flags that say more
/// than it has.
pub fn mend(bytes: &[u8]) -> Result<(Cow<'_, [u8]>, Orientation), Fault> {
    let chunks = chunks(bytes);
    let exif = chunks.exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif));
    let orientation = exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms);
    let canvas = chunks.extended.and_then(|(_, data)| Some((side(data, 4)?, side(data, 7)?)));
    let size = vp8_size(bytes.get(12..).unwrap_or_default());
    let bytes = match (chunks.extended, chunks.image) {
        (Some((at, data)), _) if chunks.animated => {
            check_frame(size, canvas, |frame, canvas| frame <= canvas)?;
            let kept = data.first().copied().unwrap_or(0) & (ALPHA | ANIMATION);
            let mut bytes = bytes.to_vec();
            bytes[at] = kept;
            Cow::Owned(bytes)
        }
        (Some(_), Some(image)) => {
            check_frame(size, canvas, |frame, canvas| frame == canvas)?;
            Cow::Owned(still(image, chunks.alpha, canvas))
        }
        _ => Cow::Borrowed(bytes),
    };
    Ok((bytes, orientation))
}

/// Refuses a frame that does not fit its picture: it would be decoded before the decoder noticed.
fn check_frame(
    frame: Option<(u32, u32)>,
    canvas: Option<(u32, u32)>,
    fits: impl Fn(u32, u32) -> bool,
) -> Result<(), Fault> {
    let (Some(frame), Some(canvas)) = (frame, canvas) else { return Ok(()) };
    if fits(frame.0, canvas.0) && fits(frame.1, canvas.1) {
        return Ok(());
    }
    let detail = format!("a frame of {}x{} in a picture of {}x{}", frame.0, frame.1, canvas.0, canvas.1);
    Err(Fault::permanent(Class::Content, "corrupt_image", detail))
}

/// A side, less one, in 24 bits.
fn side(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 3).map(|side| 1 + u32::from_le_bytes([side[0], side[1], side[2], 0]))
}

/// The plainest file around these pixels. Lossless ones have their own alpha.
fn still(image: &[u8], alpha: Option<&[u8]>, canvas: Option<(u32, u32)>) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    if let (Some(alpha), Some((width, height)), b"VP8 ") = (alpha, canvas, &image[..4]) {
        body.extend(b"VP8X\x0a\0\0\0");
        body.extend([ALPHA, 0, 0, 0]);
        body.extend(&(width - 1).to_le_bytes()[..3]);
        body.extend(&(height - 1).to_le_bytes()[..3]);
        put(&mut body, alpha);
    }
    put(&mut body, image);
    [b"RIFF".as_slice(), &(body.len() as u32).to_le_bytes(), &body].concat()
}

fn put(body: &mut Vec<u8>, chunk: &[u8]) {
    body.extend(chunk);
    if !chunk.len().is_multiple_of(2) {
        body.push(0);
    }
}

/// The first of each kind, to the end of the bytes whatever the length of the file is said to be.
fn chunks(bytes: &[u8]) -> Chunks<'_> {
    let mut found = Chunks::default();
    let mut at = 12;
    while let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        // A chunk that is cut keeps the length it should have: its decoder must notice.
        let end = (at + 8).saturating_add(length).min(bytes.len());
        let (whole, data) = (&bytes[at..end], &bytes[at + 8..end]);
        match &header[..4] {
            b"VP8X" if found.extended.is_none() && data.len() >= 10 => found.extended = Some((at + 8, data)),
            b"ALPH" if found.alpha.is_none() && found.image.is_none() => found.alpha = Some(whole),
            b"VP8 " | b"VP8L" if found.image.is_none() => found.image = Some(whole),
            b"EXIF" if found.exif.is_none() => found.exif = Some(data),
            b"ANMF" => found.animated = true,
            _ => {}
        }
        at = end + (length & 1);
    }
    found
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
