//! BMP: header values that browsers do not look at, OS/2 2.x headers, and run-length data without an end mark.

use std::borrow::Cow;

/// Where the information header begins.
const INFO: usize = 14;
/// The length of the header that all decoders know.
const PLAIN: usize = 40;

/// Brings a file into the form that the decoder reads; one that is beyond mending stays as it is, and is refused there.
pub fn mend(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut bytes = Cow::Borrowed(bytes);
    if let Some(length @ (16 | 64)) = long(&bytes, INFO) {
        os2(bytes.to_mut(), length as usize);
    }
    let plain = long(&bytes, INFO).is_some_and(|length| length as usize >= PLAIN);
    if bytes.len() < INFO + PLAIN || !plain {
        return core_planes(bytes);
    }
    if short(&bytes, INFO + 12) != 1 {
        bytes.to_mut()[INFO + 12..INFO + 14].copy_from_slice(&1_u16.to_le_bytes());
    }
    let (bits, compression, used) =
        (short(&bytes, INFO + 14), long(&bytes, INFO + 16).unwrap_or(0), long(&bytes, INFO + 32).unwrap_or(0));
    let indexed = matches!(bits, 1 | 2 | 4 | 8);
    if indexed && used > 1 << bits {
        bytes.to_mut()[INFO + 32..INFO + 36].copy_from_slice(&(1_u32 << bits).to_le_bytes());
    }
    // Without an offset the pixels stand right behind header, masks and palette.
    if long(&bytes, 10) == Some(0) {
        let header = long(&bytes, INFO).unwrap_or(0);
        let masks = if header as usize == PLAIN && compression == 3 { 12 } else { 0 };
        let palette = if !indexed {
            0
        } else if used == 0 {
            4 << bits
        } else {
            4 * used
        };
        let offset = (INFO as u32 + masks).saturating_add(header).saturating_add(palette);
        bytes.to_mut()[10..14].copy_from_slice(&offset.to_le_bytes());
    }
    if matches!((compression, bits), (1, 8) | (2, 4)) && runs_without_end(&bytes, bits) {
        bytes.to_mut().extend([0, 1]);
    }
    bytes
}

fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |value| u16::from_le_bytes([value[0], value[1]]))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|value| u32::from_le_bytes([value[0], value[1], value[2], value[3]]))
}

/// The number of planes in the short header of OS/2 1.x.
fn core_planes(mut bytes: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if long(&bytes, INFO) == Some(12) && bytes.len() >= INFO + 12 && short(&bytes, INFO + 8) != 1 {
        bytes.to_mut()[INFO + 8..INFO + 10].copy_from_slice(&1_u16.to_le_bytes());
    }
    bytes
}

/// An OS/2 2.x header of this length as one of 40 bytes: its first 40 bytes are the same, and what is missing is zero.
/// Compression 3 and 4 mean Huffman codes and runs of colours there; as 254 the decoder refuses them.
fn os2(bytes: &mut Vec<u8>, length: usize) {
    if bytes.len() < INFO + length {
        return;
    }
    let offset = long(bytes, 10).unwrap_or(0);
    let header = bytes[INFO..INFO + length].to_vec();
    let mut plain = header[..length.min(PLAIN)].to_vec();
    plain.resize(PLAIN, 0);
    plain[..4].copy_from_slice(&(PLAIN as u32).to_le_bytes());
    if long(&plain, 16).is_some_and(|compression| compression > 2) {
        plain[16..20].copy_from_slice(&254_u32.to_le_bytes());
    }
    bytes.splice(INFO..INFO + length, plain);
    if offset > 0 {
        let offset = (offset + PLAIN as u32).saturating_sub(length as u32);
        bytes[10..14].copy_from_slice(&offset.to_le_bytes());
    }
}

/// Whether run-length data fill the picture and then end without a mark.
fn runs_without_end(bytes: &[u8], bits: u16) -> bool {
    let [width, height] = [4, 8].map(|at| long(bytes, INFO + at).unwrap_or(0) as i32);
    let (width, height) = (width.unsigned_abs(), height.unsigned_abs());
    let Some(data) = long(bytes, 10).and_then(|offset| bytes.get(offset as usize..)) else { return false };
    let (mut x, mut y) = (0_u32, 0_u32);
    let mut at = 0;
    while let Some(&[count, value]) = data.get(at..at + 2) {
        at += 2;
        match (count, value) {
            (0, 0) => (x, y) = (0, y + 1),
            (0, 1) => return false,
            (0, 2) => {
                let Some(&[right, up]) = data.get(at..at + 2) else { return false };
                (x, y) = (x.saturating_add(u32::from(right)), y.saturating_add(u32::from(up)));
                at += 2;
            }
            (0, literal) => {
                let bytes = if bits == 8 { usize::from(literal) } else { usize::from(literal).div_ceil(2) };
                x = x.saturating_add(u32::from(literal));
                at += bytes.next_multiple_of(2);
            }
            (run, _) => x = x.saturating_add(u32::from(run)),
        }
    }
    at >= data.len() && (y >= height || (y + 1 == height && x >= width))
}
