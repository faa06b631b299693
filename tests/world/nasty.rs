//! Bytes made by hand that no encoder would write: decompression bombs and pictures that claim to be enormous.
//!
//! Promise: checksums and framing are right, so a reader fails (or not) for the reason the test is about.

/// A PNG that claims 20,000 × 20,000 grey pixels (400 MB) and holds one row of them (PNG specification, 3rd edition).
pub fn png_bomb() -> Vec<u8> {
    let side = 20_000_u32.to_be_bytes();
    let mut header = [side, side].concat();
    header.extend([8, 0, 0, 0, 0]);
    let row = vec![0; 1 + 20_000];
    let mut zlib = vec![0x78, 0x01];
    zlib.extend(stored(&row));
    zlib.extend(adler32(&row).to_be_bytes());
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", &header), (b"IDAT", &zlib), (b"IEND", &vec![])] {
        let mut chunk = kind.to_vec();
        chunk.extend(data);
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&chunk);
        png.extend(crc32(&chunk).to_be_bytes());
    }
    png
}

/// A GIF of 65,535 × 65,535 pixels (4.3 GB) in a few bytes (GIF89a specification).
pub fn gif_bomb() -> Vec<u8> {
    let mut gif = b"GIF89a\xff\xff\xff\xff\x80\x00\x00".to_vec();
    gif.extend([0, 0, 0, 255, 255, 255]);
    gif.extend(b",\x00\x00\x00\x00\xff\xff\xff\xff\x00");
    // LZW with 2-bit codes: clear, colour 1, end.
    gif.extend([2, 2, 0x4c, 0x01, 0]);
    gif.push(b';');
    gif
}

/// These bytes in gzip, uncompressed (RFC 1952).
pub fn gzip(body: &[u8]) -> Vec<u8> {
    framed(stored(body), body.len(), crc32(body))
}

/// So many zeros in gzip, about 160 times smaller: one literal and its repetitions (RFC 1951, 3.2.6).
pub fn gzip_bomb(zeros: usize) -> Vec<u8> {
    const LENGTH: usize = 258;
    let repeats = zeros.saturating_sub(1) / LENGTH;
    let mut bits = Bits::default();
    // A last block with fixed codes, and the literal 0.
    bits.push(0b110, 3);
    bits.push(0b0011_0000, 8);
    // Length 258 is code 285; distance 1 is code 0.
    (0..repeats).for_each(|_| bits.push(0b1_1000_1010_0000, 13));
    bits.push(0, 7);
    let count = 1 + repeats * LENGTH;
    framed(bits.finish(), count, crc32_of((0..count).map(|_| 0)))
}

fn framed(deflated: Vec<u8>, length: usize, crc: u32) -> Vec<u8> {
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    gzip.extend(deflated);
    gzip.extend(crc.to_le_bytes());
    gzip.extend((length as u32).to_le_bytes());
    gzip
}

/// Deflate without compression (RFC 1951, 3.2.4).
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut blocks: Vec<&[u8]> = bytes.chunks(0xffff).collect();
    if blocks.is_empty() {
        blocks.push(&[]);
    }
    let last = blocks.len() - 1;
    let mut deflated = Vec::with_capacity(bytes.len() + 5 * blocks.len());
    for (n, block) in blocks.into_iter().enumerate() {
        let length = block.len() as u16;
        deflated.push(u8::from(n == last));
        deflated.extend(length.to_le_bytes());
        deflated.extend((!length).to_le_bytes());
        deflated.extend(block);
    }
    deflated
}

/// Bits in the order of deflate: each code from its first bit, bytes from their lowest.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    last: u8,
    count: u32,
}

impl Bits {
    fn push(&mut self, code: u32, length: u32) {
        for shift in (0..length).rev() {
            self.last |= ((code >> shift & 1) as u8) << self.count;
            self.count += 1;
            if self.count == 8 {
                self.bytes.push(std::mem::take(&mut self.last));
                self.count = 0;
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.last);
        }
        self.bytes
    }
}

/// CRC-32 as in PNG and gzip (ISO 3309).
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    crc32_of(bytes.iter().copied())
}

fn crc32_of(bytes: impl Iterator<Item = u8>) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    let table: [u32; 256] = std::array::from_fn(|n| (0..8).fold(n as u32, |crc, _| step(crc)));
    let mut crc = !0;
    for byte in bytes {
        crc = table[((crc ^ u32::from(byte)) & 0xff) as usize] ^ (crc >> 8);
    }
    !crc
}

/// RFC 1950, 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}
