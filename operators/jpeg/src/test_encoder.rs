//! A JPEG encoder for tests, written from ITU-T T.81: any sampling factors, scans in any order, sequential or progressive,
//! restart markers, colour markers. Its Huffman tables have short and long codes for every symbol.

use std::f64::consts::PI;

use super::segments::ZIGZAG;

/// What a test picture is written as.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Size in pixels.
    pub size: (usize, usize),
    /// Name of each component and its sampling factors.
    pub components: Vec<(u8, usize, usize)>,
    /// Components, first and last coefficient, bits before and after.
    pub scans: Vec<(Vec<usize>, usize, usize, u32, u32)>,
    /// Whether it is written as a progressive one.
    pub progressive: bool,
    /// Units between restart markers.
    pub restart: usize,
    /// Segments behind the start of the image.
    pub head: Vec<u8>,
}

/// The Adobe marker with this transform.
pub fn adobe(transform: u8) -> Vec<u8> {
    [&b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"[..], &[transform]].concat()
}

/// Scans of a sequential picture: all together, or one each.
pub fn sequential(components: usize, together: bool) -> Vec<(Vec<usize>, usize, usize, u32, u32)> {
    let scan = |members| (members, 0, 63, 0, 0);
    if together { vec![scan((0..components).collect())] } else { (0..components).map(|c| scan(vec![c])).collect() }
}

/// Scans of a progressive picture, with bits and bands apart.
pub fn progressive(components: usize, together: bool) -> Vec<(Vec<usize>, usize, usize, u32, u32)> {
    let all: Vec<Vec<usize>> =
        if together { vec![(0..components).collect()] } else { (0..components).map(|c| vec![c]).collect() };
    let mut scans: Vec<_> = all.iter().map(|members| (members.clone(), 0, 0, 0, 1)).collect();
    for c in 0..components {
        scans.extend([(vec![c], 1, 5, 0, 2), (vec![c], 6, 63, 0, 2)]);
    }
    for c in 0..components {
        scans.extend([(vec![c], 1, 63, 2, 1), (vec![c], 1, 63, 1, 0)]);
    }
    scans.extend(all.into_iter().map(|members| (members, 0, 0, 1, 0)));
    scans
}

/// Writes a picture whose component `c` has the value `sample(c, x, y)` at pixel (x, y).
pub fn encode(recipe: &Recipe, sample: &dyn Fn(usize, usize, usize) -> f64) -> Vec<u8> {
    let (width, height) = recipe.size;
    let h_max = recipe.components.iter().map(|c| c.1).max().expect("a component");
    let v_max = recipe.components.iter().map(|c| c.2).max().expect("a component");
    let (across, down) = (width.div_ceil(8 * h_max), height.div_ceil(8 * v_max));
    let planes: Vec<Vec<Vec<[i32; 64]>>> = (recipe.components.iter().enumerate())
        .map(|(c, &(_, h, v))| {
            let (wide, high) = (h_max / h, v_max / v);
            let mean = |x: usize, y: usize| {
                let pixels = (0..high).flat_map(|j| (0..wide).map(move |i| (x * wide + i, y * high + j)));
                let sum: f64 = pixels.map(|(x, y)| sample(c, x.min(width - 1), y.min(height - 1))).sum();
                sum / (wide * high) as f64
            };
            (0..down * v)
                .map(|by| (0..across * h).map(|bx| forward(&|x, y| mean(bx * 8 + x, by * 8 + y))).collect())
                .collect()
        })
        .collect();
    let mut out = [&b"\xff\xd8"[..], &recipe.head].concat();
    out.extend([&[0xff, 0xdb, 0, 67, 0][..], &[STEP; 64]].concat());
    let mut frame = vec![8];
    frame.extend([(height as u16).to_be_bytes(), (width as u16).to_be_bytes()].concat());
    frame.push(recipe.components.len() as u8);
    recipe.components.iter().for_each(|&(id, h, v)| frame.extend([id, (h * 16 + v) as u8, 0]));
    segment(&mut out, if recipe.progressive { 0xc2 } else { 0xc0 }, &frame);
    for kind in [0, 0x10] {
        let mut table = vec![kind];
        table.extend((1..=16).map(|length| match length {
            8 => SHORT as u8,
            12 => {
                if kind == 0 {
                    0
                } else {
                    (256 - SHORT) as u8
                }
            }
            _ => 0,
        }));
        table.extend((0..if kind == 0 { SHORT } else { 256 }).map(|symbol| symbol as u8));
        segment(&mut out, 0xc4, &table);
    }
    segment(&mut out, 0xdd, &(recipe.restart as u16).to_be_bytes());
    for scan in &recipe.scans {
        write_scan(&mut out, recipe, scan, &planes, (across, down, h_max, v_max));
    }
    out.extend(b"\xff\xd9");
    out
}

/// Symbols below this have codes of 8 bits, the others of 12.
const SHORT: usize = 64;
/// Every quantisation step.
const STEP: u8 = 2;

fn segment(out: &mut Vec<u8>, marker: u8, body: &[u8]) {
    out.extend([0xff, marker]);
    out.extend((body.len() as u16 + 2).to_be_bytes());
    out.extend(body);
}

/// The quantised DCT of a block, in zigzag order.
fn forward(sample: &dyn Fn(usize, usize) -> f64) -> [i32; 64] {
    let samples: [[f64; 8]; 8] = std::array::from_fn(|y| std::array::from_fn(|x| sample(x, y) - 128.0));
    let wave = |at: usize, frequency: usize| ((2 * at + 1) as f64 * frequency as f64 * PI / 16.0).cos();
    let norm = |frequency: usize| if frequency == 0 { 0.125_f64.sqrt() } else { 0.5 };
    let half: [[f64; 8]; 8] = std::array::from_fn(|y| {
        std::array::from_fn(|u| norm(u) * (0..8).map(|x| samples[y][x] * wave(x, u)).sum::<f64>())
    });
    std::array::from_fn(|at| {
        let (u, v) = (usize::from(ZIGZAG[at]) % 8, usize::from(ZIGZAG[at]) / 8);
        (norm(v) * (0..8).map(|y| half[y][u] * wave(y, v)).sum::<f64>() / f64::from(STEP)).round() as i32
    })
}

#[derive(Default)]
struct BitWriter {
    out: Vec<u8>,
    buffer: u64,
    count: u32,
}

impl BitWriter {
    fn put(&mut self, value: u32, bits: u32) {
        self.buffer = self.buffer << bits | u64::from(value) & ((1 << bits) - 1);
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.buffer >> self.count) as u8;
            self.out.push(byte);
            if byte == 0xff {
                self.out.push(0);
            }
        }
    }

    fn symbol(&mut self, symbol: usize) {
        if symbol < SHORT { self.put(symbol as u32, 8) } else { self.put((symbol + SHORT * 15) as u32, 12) }
    }

    fn number(&mut self, value: i32, size: u32) {
        self.put(if value < 0 { (value + (1 << size) - 1) as u32 } else { value as u32 }, size);
    }

    fn pad(&mut self) {
        if self.count > 0 {
            self.put(0x7f, 8 - self.count);
        }
    }
}

fn size(value: i32) -> u32 {
    32 - value.unsigned_abs().leading_zeros()
}

/// A run of blocks that have nothing more in this band, and the bits that refine what they have.
#[derive(Default)]
struct EndOfBand {
    run: u32,
    bits: Vec<u32>,
}

impl EndOfBand {
    fn flush(&mut self, bits: &mut BitWriter) {
        if self.run > 0 {
            let size = 31 - self.run.leading_zeros();
            bits.symbol((size << 4) as usize);
            bits.put(self.run, size);
        }
        self.bits.drain(..).for_each(|bit| bits.put(bit, 1));
        self.run = 0;
    }
}

fn write_scan(
    out: &mut Vec<u8>,
    recipe: &Recipe,
    (members, from, to, high, low): &(Vec<usize>, usize, usize, u32, u32),
    planes: &[Vec<Vec<[i32; 64]>>],
    (across, down, h_max, v_max): (usize, usize, usize, usize),
) {
    let mut header = vec![members.len() as u8];
    members.iter().for_each(|&c| header.extend([recipe.components[c].0, 0]));
    header.extend([*from as u8, *to as u8, (high << 4 | low) as u8]);
    segment(out, 0xda, &header);
    let blocks = |side: usize, factor: usize, most: usize| (side * factor).div_ceil(most).div_ceil(8);
    let units: Vec<Vec<(usize, usize, usize)>> = match members[..] {
        [c] => {
            let (_, h, v) = recipe.components[c];
            let (wide, high) = (blocks(recipe.size.0, h, h_max), blocks(recipe.size.1, v, v_max));
            (0..high).flat_map(|y| (0..wide).map(move |x| vec![(c, x, y)])).collect()
        }
        _ => (0..down)
            .flat_map(|y| (0..across).map(move |x| (x, y)))
            .map(|(x, y)| {
                let places = |&c: &usize| {
                    let (_, h, v) = recipe.components[c];
                    (0..v).flat_map(move |j| (0..h).map(move |i| (c, x * h + i, y * v + j)))
                };
                members.iter().flat_map(places).collect()
            })
            .collect(),
    };
    let (mut bits, mut last, mut band) = (BitWriter::default(), [0; 4], EndOfBand::default());
    for (at, unit) in units.iter().enumerate() {
        if recipe.restart > 0 && at > 0 && at % recipe.restart == 0 {
            band.flush(&mut bits);
            bits.pad();
            bits.out.extend([0xff, 0xd0 + ((at / recipe.restart - 1) % 8) as u8]);
            last = [0; 4];
        }
        for &(c, x, y) in unit {
            let block = &planes[c][y][x];
            match (recipe.progressive, *from, *high) {
                (false, ..) => {
                    dc(&mut bits, block[0], &mut last[c]);
                    ac_first(&mut bits, &block[1..], 0, &mut band);
                    band.flush(&mut bits);
                }
                (true, 0, 0) => dc(&mut bits, block[0] >> low, &mut last[c]),
                (true, 0, _) => bits.put((block[0] >> low) as u32 & 1, 1),
                (true, _, 0) => ac_first(&mut bits, &block[*from..=*to], *low, &mut band),
                (true, ..) => ac_refine(&mut bits, &block[*from..=*to], *low, &mut band),
            }
        }
    }
    band.flush(&mut bits);
    bits.pad();
    out.extend(bits.out);
}

fn dc(bits: &mut BitWriter, value: i32, last: &mut i32) {
    let difference = value - *last;
    *last = value;
    bits.symbol(size(difference) as usize);
    bits.number(difference, size(difference));
}

fn ac_first(bits: &mut BitWriter, band: &[i32], low: u32, end: &mut EndOfBand) {
    let mut zeros = 0;
    for value in band {
        // Towards zero, as T.81 has it.
        let value = value.signum() * (value.abs() >> low);
        if value == 0 {
            zeros += 1;
            continue;
        }
        end.flush(bits);
        while zeros > 15 {
            bits.symbol(0xf0);
            zeros -= 16;
        }
        bits.symbol(zeros * 16 + size(value) as usize);
        bits.number(value, size(value));
        zeros = 0;
    }
    if zeros > 0 {
        end.run += 1;
    }
}

fn ac_refine(bits: &mut BitWriter, band: &[i32], low: u32, end: &mut EndOfBand) {
    let levels: Vec<i32> = band.iter().map(|value| value.abs() >> low).collect();
    let last_new = levels.iter().rposition(|level| *level == 1);
    let (mut zeros, mut pending) = (0, vec![]);
    for (at, level) in levels.iter().enumerate() {
        match level {
            0 => zeros += 1,
            1 => {
                end.flush(bits);
                bits.symbol(zeros * 16 + 1);
                bits.put(u32::from(band[at] > 0), 1);
                pending.drain(..).for_each(|bit| bits.put(bit, 1));
                zeros = 0;
            }
            _ => pending.push((level & 1) as u32),
        }
        if zeros == 16 && last_new.is_some_and(|last| at < last) {
            end.flush(bits);
            bits.symbol(0xf0);
            pending.drain(..).for_each(|bit| bits.put(bit, 1));
            zeros = 0;
        }
    }
    if zeros > 0 || !pending.is_empty() {
        end.run += 1;
        end.bits.append(&mut pending);
    }
}
