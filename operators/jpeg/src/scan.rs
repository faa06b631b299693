//! Entropy-coded scans (ITU-T T.81, annexes F and G): bits to coefficients.
//!
//! Promise: a scan whose data end before its last block is an error. What a decoder puts there instead is invented.

use super::bits::{Bits, Huffman};
use super::broken::Broken;
use super::segments::{Frame, Scan, Segments, ZIGZAG};

/// The coefficients of one component.
pub struct Plane {
    /// Blocks, row by row, filled up to whole units.
    pub blocks: Vec<[i16; 64]>,
    /// Blocks in a row of `blocks`.
    pub stride: usize,
    /// Samples across that belong to the picture.
    pub width: usize,
    /// Samples down that belong to the picture.
    pub height: usize,
    /// The quantisation table that stood when the component's first scan began.
    pub quant: Option<[u16; 64]>,
    /// A scan with the mean of each block has been read.
    pub seen: bool,
}

impl Plane {
    /// Blocks that component `index` of a frame takes: across and down, filled up to whole units.
    pub fn size(frame: &Frame, index: usize) -> (usize, usize) {
        let component = frame.components[index];
        let units = |side: usize, most: usize| side.div_ceil(8 * most);
        (units(frame.width, frame.h_max) * component.h, units(frame.height, frame.v_max) * component.v)
    }

    /// An empty plane for component `index` of a frame.
    pub fn new(frame: &Frame, index: usize) -> Self {
        let (stride, rows) = Self::size(frame, index);
        let component = frame.components[index];
        Self {
            blocks: vec![[0; 64]; stride * rows],
            stride,
            width: (frame.width * component.h).div_ceil(frame.h_max),
            height: (frame.height * component.v).div_ceil(frame.v_max),
            quant: None,
            seen: false,
        }
    }
}

/// One component of a scan while it is read.
struct Member<'a> {
    plane: usize,
    h: usize,
    v: usize,
    dc: Option<&'a Huffman>,
    ac: Option<&'a Huffman>,
    predicted: i32,
}

/// Reads one scan, whose data begin at `at`; returns where the marker behind it is.
pub fn read(bytes: &[u8], at: usize, scan: &Scan, segments: &Segments, planes: &mut [Plane]) -> Result<usize, Broken> {
    let frame = segments.frame.as_ref().ok_or(Broken::Corrupt("a scan comes before the frame header"))?;
    let kind = Kind::of(frame, scan);
    let mut members = Vec::with_capacity(4);
    for &(plane, dc, ac) in &scan.members {
        let (dc, ac) = (segments.dc.get(dc).and_then(Option::as_ref), segments.ac.get(ac).and_then(Option::as_ref));
        if (kind.needs_dc() && dc.is_none()) || (kind.needs_ac() && ac.is_none()) {
            return Err(Broken::Corrupt("a scan names a Huffman table that is not there"));
        }
        let component = frame.components[plane];
        if planes[plane].quant.is_none() {
            planes[plane].quant = segments.quant[component.table];
        }
        planes[plane].seen |= scan.from == 0;
        members.push(Member { plane, h: component.h, v: component.v, dc, ac, predicted: 0 });
    }
    // A scan of one component has only the blocks that the picture needs, one a unit (T.81, A.2).
    let (across, down) = match &mut members[..] {
        [alone] => {
            (alone.h, alone.v) = (1, 1);
            (planes[alone.plane].width.div_ceil(8), planes[alone.plane].height.div_ceil(8))
        }
        _ => (frame.width.div_ceil(8 * frame.h_max), frame.height.div_ceil(8 * frame.v_max)),
    };
    let mut bits = Bits::new(bytes, at);
    let (mut left, mut next, mut run) = (segments.restart, 0_u8, 0_u32);
    for y in 0..down {
        for x in 0..across {
            if segments.restart > 0 && left == 0 {
                if bits.ran_out() {
                    return Err(Broken::Cut);
                }
                bits = restart(bytes, &bits, next)?;
                members.iter_mut().for_each(|member| member.predicted = 0);
                (left, next, run) = (segments.restart, (next + 1) % 8, 0);
            }
            left = left.wrapping_sub(1);
            for member in &mut members {
                let plane = &mut planes[member.plane];
                for row in 0..member.v {
                    let first = (y * member.v + row) * plane.stride + x * member.h;
                    for block in &mut plane.blocks[first..first + member.h] {
                        kind.block(&mut bits, member, scan, &mut run, block)?;
                    }
                }
            }
        }
        if bits.ran_out() {
            return Err(Broken::Cut);
        }
    }
    Ok(bits.next_marker())
}

/// Goes on behind the restart marker of this number, which must come next.
fn restart<'a>(bytes: &'a [u8], bits: &Bits, number: u8) -> Result<Bits<'a>, Broken> {
    let at = bits.next_marker();
    match bytes.get(at + 1) {
        Some(marker) if *marker == 0xd0 + number => Ok(Bits::new(bytes, at + 2)),
        Some(0xd0..=0xd7) => Err(Broken::Corrupt("restart markers are out of order")),
        _ => Err(Broken::Cut),
    }
}

/// What a scan holds of each block.
#[derive(Clone, Copy)]
enum Kind {
    Sequential,
    DcFirst,
    DcRefine,
    AcFirst,
    AcRefine,
}

impl Kind {
    fn of(frame: &Frame, scan: &Scan) -> Self {
        match (frame.progressive, scan.from, scan.high) {
            (false, ..) => Self::Sequential,
            (true, 0, 0) => Self::DcFirst,
            (true, 0, _) => Self::DcRefine,
            (true, _, 0) => Self::AcFirst,
            (true, ..) => Self::AcRefine,
        }
    }

    fn needs_dc(self) -> bool {
        matches!(self, Self::Sequential | Self::DcFirst)
    }

    fn needs_ac(self) -> bool {
        matches!(self, Self::Sequential | Self::AcFirst | Self::AcRefine)
    }

    #[inline(always)]
    fn block(
        self,
        bits: &mut Bits,
        member: &mut Member,
        scan: &Scan,
        run: &mut u32,
        block: &mut [i16; 64],
    ) -> Result<(), Broken> {
        match (self, member.dc, member.ac) {
            (Self::Sequential, Some(dc), Some(ac)) => {
                block[0] = predicted(bits, dc, &mut member.predicted)? as i16;
                sequential_ac(bits, ac, block)?;
            }
            (Self::DcFirst, Some(dc), _) => block[0] = (predicted(bits, dc, &mut member.predicted)? << scan.low) as i16,
            (Self::DcRefine, ..) => block[0] |= (bits.raw(1) << scan.low) as i16,
            (Self::AcFirst, _, Some(ac)) => ac_first(bits, ac, scan, run, block)?,
            (Self::AcRefine, _, Some(ac)) => ac_refine(bits, ac, scan, run, block)?,
            _ => return Err(Broken::Corrupt("a scan names a Huffman table that is not there")),
        }
        Ok(())
    }
}

/// The next DC value: a difference to the one before.
#[inline(always)]
fn predicted(bits: &mut Bits, table: &Huffman, last: &mut i32) -> Result<i32, Broken> {
    match bits.symbol(table)? {
        0 => {}
        size @ 1..=15 => *last = last.wrapping_add(bits.number(u32::from(size))),
        _ => return Err(Broken::Corrupt("a DC difference is too large")),
    }
    Ok(*last)
}

#[inline(always)]
fn sequential_ac(bits: &mut Bits, table: &Huffman, block: &mut [i16; 64]) -> Result<(), Broken> {
    block[1..].fill(0);
    let mut at = 1;
    while at < 64 {
        if let Some((zeros, value)) = bits.short_ac(table) {
            at += zeros;
            block[usize::from(ZIGZAG[at])] = value;
            at += 1;
            continue;
        }
        let symbol = bits.symbol(table)?;
        let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if zeros < 15 {
                break;
            }
            at += 16;
            continue;
        }
        at += zeros;
        block[usize::from(ZIGZAG[at])] = bits.number(size) as i16;
        at += 1;
    }
    Ok(())
}

/// AC coefficients for the first time (T.81, G.1.2.2).
fn ac_first(bits: &mut Bits, table: &Huffman, scan: &Scan, run: &mut u32, block: &mut [i16; 64]) -> Result<(), Broken> {
    if *run > 0 {
        *run -= 1;
        return Ok(());
    }
    let mut at = scan.from;
    while at <= scan.to {
        if let Some((zeros, value)) = bits.short_ac(table) {
            at += zeros;
            block[usize::from(ZIGZAG[at])] = value << scan.low;
            at += 1;
            continue;
        }
        let symbol = bits.symbol(table)?;
        let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size > 0 {
            at += zeros;
            block[usize::from(ZIGZAG[at])] = (bits.number(size) << scan.low) as i16;
            at += 1;
        } else if zeros == 15 {
            at += 16;
        } else {
            *run = (1 << zeros) - 1 + bits.raw(zeros as u32);
            break;
        }
    }
    Ok(())
}

/// One more bit of AC coefficients (T.81, G.1.2.3).
fn ac_refine(
    bits: &mut Bits,
    table: &Huffman,
    scan: &Scan,
    run: &mut u32,
    block: &mut [i16; 64],
) -> Result<(), Broken> {
    let bit = 1_i16 << scan.low;
    let mut at = scan.from;
    if *run == 0 {
        while at <= scan.to {
            let symbol = bits.symbol(table)?;
            let (mut zeros, size) = (usize::from(symbol >> 4), symbol & 15);
            let value = match size {
                0 if zeros < 15 => {
                    *run = (1 << zeros) + bits.raw(zeros as u32);
                    break;
                }
                0 => 0,
                // More than one bit cannot come new here; libjpeg takes it as one.
                _ if bits.raw(1) == 1 => bit,
                _ => -bit,
            };
            while at <= scan.to {
                let coefficient = &mut block[usize::from(ZIGZAG[at])];
                if *coefficient != 0 {
                    refine(bits, coefficient, bit);
                } else if zeros == 0 {
                    if value != 0 {
                        *coefficient = value;
                    }
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            at += 1;
        }
    }
    if *run > 0 {
        for place in &ZIGZAG[at..=scan.to] {
            let coefficient = &mut block[usize::from(*place)];
            if *coefficient != 0 {
                refine(bits, coefficient, bit);
            }
        }
        *run -= 1;
    }
    Ok(())
}

#[inline(always)]
fn refine(bits: &mut Bits, coefficient: &mut i16, bit: i16) {
    if bits.raw(1) == 1 && *coefficient & bit == 0 {
        *coefficient = coefficient.wrapping_add(if *coefficient > 0 { bit } else { -bit });
    }
}
