//! A TIFF writer for tests, from TIFF 6.0: any depth, layout and order, and what compression other crates can write.

use std::io::Write;

use fax::encoder::Encoder;
use fax::{Color, VecWriter};

/// Pixels across.
pub const WIDTH: usize = 37;
/// Pixels down.
pub const HEIGHT: usize = 29;

/// What a test file is.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Samples of a pixel.
    pub count: usize,
    pub bits: usize,
    pub photometric: u64,
    /// As the tag has it.
    pub compression: u64,
    /// Tiles of this size instead of strips of so many rows.
    pub tile: Option<(usize, usize)>,
    pub rows: usize,
    pub planar: bool,
    pub reversed: bool,
    pub big_endian: bool,
    pub big: bool,
    pub differences: bool,
    /// More tags of short numbers.
    pub tags: Vec<(u16, Vec<u64>)>,
}

/// A picture in one strip, packed plainly.
pub fn plain(count: usize, bits: usize, photometric: u64) -> Recipe {
    Recipe {
        count,
        bits,
        photometric,
        compression: 1,
        tile: None,
        rows: HEIGHT,
        planar: false,
        reversed: false,
        big_endian: false,
        big: false,
        differences: false,
        tags: vec![],
    }
}

/// Sample `c` at (x, y), in 16 bits.
fn sample(c: usize, x: usize, y: usize) -> u32 {
    (((x * (c * 3 + 5) + y * (7 - c)) * 1_601 + (x / 9) * 9_000) % 65_536) as u32
}

/// The value of so many bits that is nearest to one of 16 bits.
pub fn value(recipe: &Recipe, c: usize, x: usize, y: usize) -> u32 {
    let most = (1_u64 << recipe.bits) - 1;
    ((u64::from(sample(c, x, y)) * most + 32_767) / 65_535) as u32
}

/// What is shown of it: eight bits.
pub fn byte(recipe: &Recipe, c: usize, x: usize, y: usize) -> u8 {
    let most = (1_u64 << recipe.bits) - 1;
    ((u64::from(value(recipe, c, x, y)) * 255 + most / 2) / most) as u8
}

/// A number in the order of the file.
fn number(big_endian: bool, value: u64, size: usize) -> Vec<u8> {
    if big_endian { value.to_be_bytes()[8 - size..].to_vec() } else { value.to_le_bytes()[..size].to_vec() }
}

/// One row of a chunk, packed.
fn pack(recipe: &Recipe, values: &[u32], step: usize) -> Vec<u8> {
    if !matches!(recipe.bits, 8 | 16 | 32) {
        let bits = values.iter().flat_map(|value| (0..recipe.bits).rev().map(move |bit| (value >> bit & 1) as u8));
        let bits: Vec<u8> = bits.collect();
        return bits
            .chunks(8)
            .map(|byte| byte.iter().enumerate().fold(0, |sum, (at, bit)| sum | bit << (7 - at)))
            .collect();
    }
    let mut values = values.to_vec();
    if recipe.differences {
        (step..values.len()).rev().for_each(|at| values[at] = values[at].wrapping_sub(values[at - step]));
    }
    values.iter().flat_map(|value| number(recipe.big_endian, u64::from(*value), recipe.bits / 8)).collect()
}

fn compress(recipe: &Recipe, packed: &[u8], width: usize) -> Vec<u8> {
    match recipe.compression {
        5 => weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8).encode(packed).expect("encodes"),
        8 => {
            let mut encoder = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::default());
            encoder.write_all(packed).expect("encodes");
            encoder.finish().expect("encodes")
        }
        // Literals, a run where there is one, and the byte that says nothing.
        32_773 => packed
            .chunks(50)
            .flat_map(|part| match part.iter().all(|byte| *byte == part[0]) {
                true if part.len() > 1 => vec![128, (257 - part.len()) as u8, part[0]],
                _ => [&[part.len() as u8 - 1], part].concat(),
            })
            .collect(),
        4 => {
            let mut encoder = Encoder::new(VecWriter::new());
            for row in packed.chunks(width.div_ceil(8)) {
                let pels =
                    (0..width).map(|x| if row[x / 8] >> (7 - x % 8) & 1 == 1 { Color::Black } else { Color::White });
                encoder.encode_line(pels, width as u16).expect("encodes");
            }
            encoder.finish().expect("encodes").finish()
        }
        _ => packed.to_vec(),
    }
}

/// The chunks of a picture whose values are `value(c, x, y)`.
pub fn chunks(recipe: &Recipe, value: &dyn Fn(usize, usize, usize) -> u32) -> Vec<Vec<u8>> {
    let (width, height) = recipe.tile.unwrap_or((WIDTH, recipe.rows));
    let mut chunks = vec![];
    for plane in 0..if recipe.planar { recipe.count } else { 1 } {
        for (top, left) in (0..HEIGHT).step_by(height).flat_map(|y| (0..WIDTH).step_by(width).map(move |x| (y, x))) {
            let bottom = if recipe.tile.is_some() { top + height } else { (top + height).min(HEIGHT) };
            let members = if recipe.planar { plane..plane + 1 } else { 0..recipe.count };
            let packed: Vec<u8> = (top..bottom)
                .flat_map(|y| {
                    let at = |x: usize, c: usize| value(c, x.min(WIDTH - 1), y.min(HEIGHT - 1));
                    let members = &members;
                    let row: Vec<u32> =
                        (left..left + width).flat_map(|x| members.clone().map(move |c| at(x, c))).collect();
                    pack(recipe, &row, members.len())
                })
                .collect();
            let mut data = compress(recipe, &packed, width);
            if recipe.reversed {
                data.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
            }
            chunks.push(data);
        }
    }
    chunks
}

/// The file around these chunks.
pub fn write(recipe: &Recipe, chunks: &[Vec<u8>]) -> Vec<u8> {
    let put = |value: u64, size: usize| number(recipe.big_endian, value, size);
    let (word, head) = if recipe.big { (8, 16) } else { (4, 8) };
    let mut tags: Vec<(u16, u64, Vec<u64>)> = vec![
        (256, 4, vec![WIDTH as u64]),
        (257, 4, vec![HEIGHT as u64]),
        (258, 3, vec![recipe.bits as u64; recipe.count]),
        (259, 3, vec![recipe.compression]),
        (262, 3, vec![recipe.photometric]),
        (266, 3, vec![if recipe.reversed { 2 } else { 1 }]),
        (277, 3, vec![recipe.count as u64]),
        (284, 3, vec![if recipe.planar { 2 } else { 1 }]),
        (317, 3, vec![if recipe.differences { 2 } else { 1 }]),
    ];
    let mut at = head as u64;
    let offsets: Vec<u64> = chunks
        .iter()
        .map(|chunk| {
            at += chunk.len() as u64;
            at - chunk.len() as u64
        })
        .collect();
    let lengths = chunks.iter().map(|chunk| chunk.len() as u64).collect();
    match recipe.tile {
        Some((width, height)) => tags.extend([
            (322, 4, vec![width as u64]),
            (323, 4, vec![height as u64]),
            (324, 4, offsets),
            (325, 4, lengths),
        ]),
        None => tags.extend([(273, 4, offsets), (278, 4, vec![recipe.rows as u64]), (279, 4, lengths)]),
    }
    tags.extend(recipe.tags.iter().map(|(name, values)| (*name, 3, values.clone())));
    tags.sort();
    let (count_size, entry) = if recipe.big { (8, 20) } else { (2, 12) };
    let mut behind = at + count_size as u64 + tags.len() as u64 * entry + word as u64;
    let (mut directory, mut values) = (put(tags.len() as u64, count_size), vec![]);
    for (name, kind, numbers) in &tags {
        let data: Vec<u8> = numbers.iter().flat_map(|number| put(*number, if *kind == 3 { 2 } else { 4 })).collect();
        directory.extend([put(u64::from(*name), 2), put(*kind, 2), put(numbers.len() as u64, word)].concat());
        if data.len() <= word {
            directory.extend(&data);
            directory.resize(directory.len() + word - data.len(), 0);
        } else {
            directory.extend(put(behind, word));
            behind += data.len() as u64;
            values.extend(data);
        }
    }
    directory.extend(put(0, word));
    let mark = if recipe.big_endian { b"MM" } else { b"II" };
    let start = if recipe.big {
        [put(43, 2), put(8, 2), put(0, 2), put(at, 8)].concat()
    } else {
        [put(42, 2), put(at, 4)].concat()
    };
    [mark, &start[..], &chunks.concat(), &directory, &values].concat()
}
