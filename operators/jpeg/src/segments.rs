//! Marker segments (ITU-T T.81, annex B): what the file says of itself, and the tables that its scans use.

use super::bits::Huffman;
use super::broken::Broken;

/// The order in which coefficients are stored; entries behind the 64th catch runs that lead out of the block.
pub const ZIGZAG: [u8; 80] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
];

/// One component of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// The name that scans use.
    pub id: u8,
    /// Samples across in the unit, of the most that any component has.
    pub h: usize,
    /// Samples down.
    pub v: usize,
    /// Which quantisation table.
    pub table: usize,
}

/// The frame header.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Of the baseline process, the plainest of the sequential ones.
    pub baseline: bool,
    /// Coefficients come in several passes.
    pub progressive: bool,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// One, three or four.
    pub components: Vec<Component>,
    /// The largest `h`.
    pub h_max: usize,
    /// The largest `v`.
    pub v_max: usize,
}

/// The header of one scan.
pub struct Scan {
    /// Index of each component in the frame, its DC table and its AC table.
    pub members: Vec<(usize, usize, usize)>,
    /// First coefficient.
    pub from: usize,
    /// Last coefficient.
    pub to: usize,
    /// Bits of precision that earlier scans have brought down to; 0 at first.
    pub high: u32,
    /// Bits of precision that this scan leaves out.
    pub low: u32,
}

/// What the segments up to here have said.
#[derive(Clone, Default)]
pub struct Segments {
    /// The frame header, once it was there.
    pub frame: Option<Frame>,
    /// Quantisation tables, natural order.
    pub quant: [Option<[u16; 64]>; 4],
    /// Huffman tables of DC coefficients.
    pub dc: [Option<Huffman>; 4],
    /// Huffman tables of AC coefficients.
    pub ac: [Option<Huffman>; 4],
    /// Units between restart markers; 0 without.
    pub restart: usize,
    /// There is a JFIF header.
    pub jfif: bool,
    /// The transform that an Adobe marker names.
    pub adobe: Option<u8>,
    /// Where the EXIF data are.
    pub exif: Option<(usize, usize)>,
}

/// What stops the reading of segments.
pub enum Stop {
    /// A scan, whose entropy-coded data begin there.
    Scan(Scan, usize),
    /// The end of the image, by its marker or because the bytes end.
    End,
}

impl Segments {
    /// Reads segments from byte `at` on, up to a scan or the end.
    pub fn read(&mut self, bytes: &[u8], mut at: usize) -> Result<Stop, Broken> {
        loop {
            let Some((marker, behind)) = marker(bytes, at) else { return Ok(Stop::End) };
            at = behind;
            // Markers without data.
            match marker {
                0xd9 => return Ok(Stop::End),
                0x01 | 0xd0..=0xd8 => continue,
                _ => {}
            }
            let short = Broken::Corrupt("the data break off within a marker segment");
            let length = bytes.get(at..at + 2).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
            let end = at + length.filter(|length| *length >= 2).ok_or(short)?;
            let body = bytes.get(at + 2..end).ok_or(short)?;
            match marker {
                0xc4 => self.huffman(body)?,
                0xdb => self.quantisation(body)?,
                0xdd => self.restart = usize::from(u16::from_be_bytes(*body.first_chunk().ok_or(short)?)),
                0xda => return Ok(Stop::Scan(self.scan(body)?, end)),
                0xc0..=0xcf => self.frame(marker, body)?,
                0xe0 => self.jfif |= body.starts_with(b"JFIF\0"),
                0xe1 if body.starts_with(b"Exif\0\0") && self.exif.is_none() => self.exif = Some((at + 8, end)),
                0xee if body.starts_with(b"Adobe") && body.len() >= 12 => self.adobe = Some(body[11]),
                _ => {}
            }
            at = end;
        }
    }

    fn frame(&mut self, marker: u8, body: &[u8]) -> Result<(), Broken> {
        let progressive = match marker {
            0xc0 | 0xc1 => false,
            0xc2 => true,
            0xc3 => return Err(Broken::Unsupported("lossless JPEG is not decoded")),
            0xc9..=0xcc => return Err(Broken::Unsupported("arithmetic coding is not decoded")),
            _ => return Err(Broken::Unsupported("hierarchical JPEG is not decoded")),
        };
        if self.frame.is_some() {
            return Err(Broken::Corrupt("there are two frame headers"));
        }
        let (head, rest) = body.split_first_chunk::<6>().ok_or(Broken::Corrupt("the frame header is too short"))?;
        if head[0] != 8 {
            return Err(Broken::Unsupported("only 8 bits a sample are decoded"));
        }
        let [height, width] =
            [[head[1], head[2]], [head[3], head[4]]].map(|side| usize::from(u16::from_be_bytes(side)));
        if height == 0 && width != 0 {
            return Err(Broken::Unsupported("a height that is only told behind the first scan is not decoded"));
        }
        let (components, _) = rest.as_chunks::<3>();
        if width == 0 || components.len() != usize::from(head[5]) {
            return Err(Broken::Corrupt("the frame header contradicts itself"));
        }
        let component = |[id, factors, table]: &[u8; 3]| Component {
            id: *id,
            h: usize::from(factors >> 4),
            v: usize::from(factors & 15),
            table: usize::from(*table),
        };
        let components: Vec<Component> = components.iter().map(component).collect();
        if !matches!(components.len(), 1 | 3 | 4) {
            return Err(Broken::Unsupported("only one, three or four components are decoded"));
        }
        if components.iter().any(|c| !(1..=4).contains(&c.h) || !(1..=4).contains(&c.v) || c.table > 3) {
            return Err(Broken::Corrupt("the frame header has values that do not exist"));
        }
        let h_max = components.iter().map(|c| c.h).max().unwrap_or(1);
        let v_max = components.iter().map(|c| c.v).max().unwrap_or(1);
        if components.iter().any(|c| !h_max.is_multiple_of(c.h) || !v_max.is_multiple_of(c.v)) {
            return Err(Broken::Unsupported("sampling factors whose ratio is a fraction are not decoded"));
        }
        self.frame = Some(Frame { baseline: marker == 0xc0, progressive, width, height, components, h_max, v_max });
        Ok(())
    }

    fn huffman(&mut self, mut body: &[u8]) -> Result<(), Broken> {
        while let Some((&kind, rest)) = body.split_first() {
            let short = Broken::Corrupt("a Huffman table is too short");
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let symbols = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(symbols).ok_or(short)?;
            let tables = if kind >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let slot = tables.get_mut(usize::from(kind & 15)).filter(|_| kind >> 4 < 2);
            *slot.ok_or(Broken::Corrupt("a Huffman table has a number that does not exist"))? =
                Some(Huffman::new(counts, symbols)?);
            body = rest;
        }
        Ok(())
    }

    fn quantisation(&mut self, mut body: &[u8]) -> Result<(), Broken> {
        while let Some((&kind, rest)) = body.split_first() {
            let wide = kind >> 4 != 0;
            let (steps, rest) = rest
                .split_at_checked(if wide { 128 } else { 64 })
                .ok_or(Broken::Corrupt("a quantisation table is too short"))?;
            let mut table = [0; 64];
            for (at, place) in ZIGZAG[..64].iter().enumerate() {
                table[usize::from(*place)] =
                    if wide { u16::from_be_bytes([steps[2 * at], steps[2 * at + 1]]) } else { u16::from(steps[at]) };
            }
            let slot = self.quant.get_mut(usize::from(kind & 15));
            *slot.ok_or(Broken::Corrupt("a quantisation table has a number that does not exist"))? = Some(table);
            body = rest;
        }
        Ok(())
    }

    fn scan(&self, body: &[u8]) -> Result<Scan, Broken> {
        let wrong = Broken::Corrupt("a scan header contradicts the frame");
        let frame = self.frame.as_ref().ok_or(Broken::Corrupt("a scan comes before the frame header"))?;
        let (&count, rest) = body.split_first().ok_or(wrong)?;
        let (named, rest) = rest.split_at_checked(2 * usize::from(count)).ok_or(wrong)?;
        let [from, to, bits] = *rest.first_chunk::<3>().ok_or(wrong)?;
        let mut members: Vec<(usize, usize, usize)> = Vec::with_capacity(4);
        for &[id, tables] in named.as_chunks::<2>().0 {
            let taken = |index: &usize| members.iter().any(|(other, ..)| other == index);
            let same = frame.components.iter().enumerate().filter(|(_, component)| component.id == id);
            let index = same.map(|(index, _)| index).find(|index| !taken(index)).ok_or(wrong)?;
            members.push((index, usize::from(tables >> 4), usize::from(tables & 15)));
        }
        let (from, to, high, low) = (usize::from(from), usize::from(to), u32::from(bits >> 4), u32::from(bits & 15));
        let possible = match frame.progressive {
            // Sequential: these parameters are fixed, and decoders do not look at them.
            false => true,
            true if from == 0 => to == 0 && low <= 13,
            true => from <= to && to < 64 && low <= 13 && members.len() == 1,
        };
        if members.is_empty() || members.len() > 4 || !possible {
            return Err(wrong);
        }
        let (from, to, high, low) = if frame.progressive { (from, to, high, low) } else { (0, 63, 0, 0) };
        Ok(Scan { members, from, to, high, low })
    }
}

/// The next marker and where it ends, other bytes skipped as libjpeg does.
fn marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let rest = bytes.get(at..)?;
    let offset = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff))?;
    Some((rest[offset + 1], at + offset + 2))
}
