//! The bits of entropy-coded data, and the Huffman codes among them (ITU-T T.81, annexes C and F.2.2).
//!
//! Promise: bits that are not there are told apart from bits that are: [`Bits::ran_out`] says so.

use super::broken::Broken;

/// Codes of up to this many bits are found by one look into a table.
const FAST_BITS: u32 = 10;

/// A Huffman table, ready to decode with.
#[derive(Clone)]
pub struct Huffman {
    /// For the next `FAST_BITS` bits: length of the code in the high byte and its symbol in the low one; 0 if it is longer.
    fast: Vec<u16>,
    /// The same with the coefficient behind an AC code, where both fit: value, run of zeros (4 bits), length (4 bits).
    fast_ac: Vec<i16>,
    /// First code, left-aligned to 16 bits, that is longer than the index.
    ends: [u32; 17],
    /// What leads from a code of that length to its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// The table of these counts by length (1 to 16) and symbols.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, Broken> {
        let mut table = Self {
            fast: vec![0; 1 << FAST_BITS],
            fast_ac: vec![],
            ends: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0_u32, 0_usize);
        for length in 1..=16 {
            let count = usize::from(counts[length - 1]);
            table.offsets[length] = index as i32 - code as i32;
            if code as usize + count > 1 << length {
                return Err(Broken::Corrupt("a Huffman table has more codes than there are"));
            }
            for &symbol in &symbols[index..index + count] {
                if length as u32 <= FAST_BITS {
                    let spare = FAST_BITS - length as u32;
                    let from = (code << spare) as usize;
                    table.fast[from..from + (1 << spare)].fill((length as u16) << 8 | u16::from(symbol));
                }
                code += 1;
            }
            index += count;
            table.ends[length] = code << (16 - length);
            code <<= 1;
        }
        table.fast_ac = table.fast.iter().enumerate().map(|(bits, entry)| with_value(bits as u32, *entry)).collect();
        Ok(table)
    }
}

/// An entry of `fast_ac`: 0 unless code and value fit.
fn with_value(bits: u32, entry: u16) -> i16 {
    let (length, run, size) = (u32::from(entry >> 8), (entry & 0xff) >> 4, u32::from(entry & 15));
    if length == 0 || size == 0 || length + size > FAST_BITS {
        return 0;
    }
    let raw = (bits >> (FAST_BITS - length - size)) & ((1 << size) - 1);
    let value = extend(raw, size);
    if (-128..128).contains(&value) { (value * 256) as i16 + ((run as i16) << 4) + (length + size) as i16 } else { 0 }
}

/// The number that these `size` bits stand for (T.81, figure F.12).
fn extend(raw: u32, size: u32) -> i32 {
    if raw < 1 << (size - 1) { raw as i32 - (1 << size) + 1 } else { raw as i32 }
}

/// Reads bits up to the next marker; behind it, zeros.
pub struct Bits<'a> {
    data: &'a [u8],
    /// Where the next byte is read.
    at: usize,
    /// Bits read ahead, the next one on top.
    buffer: u64,
    count: u32,
    /// How many of all bits were made up.
    padded: u32,
}

impl<'a> Bits<'a> {
    /// Begins at byte `at` of `data`.
    pub fn new(data: &'a [u8], at: usize) -> Self {
        Self { data, at, buffer: 0, count: 0, padded: 0 }
    }

    /// Whether bits were taken that the data do not have.
    pub fn ran_out(&self) -> bool {
        self.padded > self.count
    }

    /// Where the marker behind these data begins, or the end of all bytes.
    pub fn next_marker(&self) -> usize {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let marker = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff));
        marker.map_or(self.data.len(), |offset| self.at + offset)
    }

    /// Makes sure of 32 bits.
    #[inline(always)]
    fn fill(&mut self) {
        if self.count < 32 {
            self.refill();
        }
    }

    #[inline]
    fn refill(&mut self) {
        if let Some(bytes) = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<4>()) {
            let word = u32::from_be_bytes(*bytes);
            // No byte is 0xff exactly if no byte of the complement is 0.
            let inverse = !word;
            if inverse.wrapping_sub(0x0101_0101) & word & 0x8080_8080 == 0 {
                self.buffer |= u64::from(word) << (32 - self.count);
                self.count += 32;
                self.at += 4;
                return;
            }
        }
        while self.count <= 56 {
            let byte = self.next_byte().unwrap_or_else(|| {
                self.padded += 8;
                0
            });
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next byte of data; `None` at a marker or at the end.
    fn next_byte(&mut self) -> Option<u8> {
        let byte = *self.data.get(self.at)?;
        if byte != 0xff {
            self.at += 1;
            return Some(byte);
        }
        let fill = self.data[self.at..].iter().take_while(|byte| **byte == 0xff).count();
        // A stuffed zero makes it data; fill bytes may stand before.
        (self.data.get(self.at + fill) == Some(&0)).then(|| {
            self.at += fill + 1;
            0xff
        })
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// The next symbol; 16 bits at least stay for what follows it.
    #[inline(always)]
    pub fn symbol(&mut self, table: &Huffman) -> Result<u8, Broken> {
        self.fill();
        let entry = table.fast[(self.buffer >> (64 - FAST_BITS)) as usize];
        if entry != 0 {
            self.skip(u32::from(entry >> 8));
            return Ok(entry as u8);
        }
        self.long_symbol(table)
    }

    #[cold]
    fn long_symbol(&mut self, table: &Huffman) -> Result<u8, Broken> {
        let code = (self.buffer >> 48) as u32;
        let length = (FAST_BITS as usize + 1..=16).find(|length| code < table.ends[*length]);
        let length = length.ok_or(Broken::Corrupt("a code is in no Huffman table"))?;
        let index = (code >> (16 - length)) as i32 + table.offsets[length];
        self.skip(length as u32);
        usize::try_from(index)
            .ok()
            .and_then(|index| table.symbols.get(index))
            .copied()
            .ok_or(Broken::Corrupt("a code has no symbol"))
    }

    /// The number of `size` bits (1 to 16) behind a symbol.
    #[inline(always)]
    pub fn number(&mut self, size: u32) -> i32 {
        let raw = (self.buffer >> (64 - size)) as u32;
        self.skip(size);
        extend(raw, size)
    }

    /// The next `count` bits (up to 16) as they stand.
    #[inline(always)]
    pub fn raw(&mut self, count: u32) -> u32 {
        self.fill();
        if count == 0 {
            return 0;
        }
        let raw = (self.buffer >> (64 - count)) as u32;
        self.skip(count);
        raw
    }

    /// The next zero run and AC coefficient, if one look tells.
    #[inline(always)]
    pub fn short_ac(&mut self, table: &Huffman) -> Option<(usize, i16)> {
        self.fill();
        let entry = table.fast_ac[(self.buffer >> (64 - FAST_BITS)) as usize];
        (entry != 0).then(|| {
            self.skip((entry & 15) as u32);
            (((entry >> 4) & 15) as usize, entry >> 8)
        })
    }
}
