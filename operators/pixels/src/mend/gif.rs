//! GIF: browsers let the screen grow to what the first frame needs.

use std::borrow::Cow;

/// Makes the screen as large as the first frame needs; later frames are not looked at.
pub fn mend(bytes: &[u8]) -> Cow<'_, [u8]> {
    let pair = |at: usize| bytes.get(at..at + 2).map_or(0, |value| u16::from_le_bytes([value[0], value[1]]));
    let Some(frame) = first_frame(bytes) else { return Cow::Borrowed(bytes) };
    let needed = [0, 2].map(|axis| pair(frame + 1 + axis).checked_add(pair(frame + 5 + axis)));
    let [Some(width), Some(height)] = needed else { return Cow::Borrowed(bytes) };
    let screen = (pair(6), pair(8));
    if width <= screen.0 && height <= screen.1 {
        return Cow::Borrowed(bytes);
    }
    let mut bytes = bytes.to_vec();
    bytes[6..8].copy_from_slice(&width.max(screen.0).to_le_bytes());
    bytes[8..10].copy_from_slice(&height.max(screen.1).to_le_bytes());
    Cow::Owned(bytes)
}

/// Where the descriptor of the first frame begins.
fn first_frame(bytes: &[u8]) -> Option<usize> {
    let packed = *bytes.get(10)?;
    let mut at = 13 + if packed & 0x80 == 0 { 0 } else { 3 << ((packed & 7) + 1) };
    loop {
        match bytes.get(at)? {
            0x2c => return (bytes.len() > at + 9).then_some(at),
            // An extension: its label, then blocks up to an empty one.
            0x21 => {
                at += 2;
                while *bytes.get(at)? > 0 {
                    at += 1 + usize::from(bytes[at]);
                }
                at += 1;
            }
            _ => return None,
        }
    }
}
