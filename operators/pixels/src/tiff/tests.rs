//! Every kind of TIFF against the samples that went into it, by the writer of the tests.

use proptest::prelude::*;

use super::test_writer::{HEIGHT, Recipe, WIDTH, byte, chunks, plain, value, write};
use super::*;

fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Broken> {
    let decoder = TiffDecoder::new(bytes, 1 << 30)?;
    let mut out = vec![0; decoder.width * decoder.height * 3];
    decoder.decode(&mut out)?;
    Ok(out)
}

/// Writes and reads a picture, and compares it with `shown(x, y)`.
fn check(recipe: &Recipe, shown: &dyn Fn(usize, usize) -> [u8; 3]) {
    let bytes = write(recipe, &chunks(recipe, &|c, x, y| value(recipe, c, x, y)));
    let got = decoded(&bytes).unwrap_or_else(|broken| panic!("{recipe:?}: {broken:?}"));
    let pixels = (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y)));
    for ((x, y), pixel) in pixels.zip(got.as_chunks::<3>().0) {
        assert_eq!(*pixel, shown(x, y), "({x}, {y}) of {recipe:?}");
    }
}

/// All ways to lay out and pack a picture.
fn layouts(base: &Recipe) -> Vec<Recipe> {
    let mut all = vec![];
    for tile in [None, Some((16, 16)), Some((48, 32))] {
        for compression in [1, 5, 8, 32_773] {
            for (planar, big_endian) in [(false, false), (true, true), (false, true), (true, false)] {
                let differences = big_endian && matches!(compression, 5 | 8) && matches!(base.bits, 8 | 16 | 32);
                let rows = if planar { 7 } else { HEIGHT };
                let reversed = compression == 32_773 || (compression == 1 && base.bits < 8);
                all.push(Recipe { tile, compression, planar, big_endian, differences, rows, reversed, ..base.clone() });
            }
        }
    }
    all
}

#[test]
fn grey_and_colours_of_every_depth_and_layout_are_shown() {
    for bits in [1, 2, 4, 6, 8, 10, 12, 16, 32] {
        for recipe in layouts(&plain(1, bits, 1)) {
            check(&recipe, &|x, y| [byte(&recipe, 0, x, y); 3]);
        }
        for recipe in layouts(&plain(3, bits, 2)) {
            check(&recipe, &|x, y| [0, 1, 2].map(|c| byte(&recipe, c, x, y)));
        }
        let white = plain(1, bits, 0);
        check(&white, &|x, y| [255 - byte(&white, 0, x, y); 3]);
    }
    let big = Recipe { big: true, rows: 5, ..plain(3, 8, 2) };
    check(&big, &|x, y| [0, 1, 2].map(|c| byte(&big, c, x, y)));
}

#[test]
fn palettes_of_every_depth_are_shown_in_8_and_in_16_bits() {
    for bits in [1, 2, 4, 8] {
        let colour = |index: usize, channel: usize| ((index * 37 + channel * 91 + 13) % 256) as u64;
        for scale in [1, 257] {
            let map =
                (0..3).flat_map(|channel| (0..1 << bits).map(move |index| colour(index, channel) * scale)).collect();
            for recipe in layouts(&Recipe { tags: vec![(320, map)], ..plain(1, bits, 3) }) {
                check(&recipe, &|x, y| {
                    [0, 1, 2].map(|channel| colour(value(&recipe, 0, x, y) as usize, channel) as u8)
                });
            }
        }
    }
}

#[test]
fn alpha_is_laid_over_white_multiplied_already_or_not() {
    let over = |value: u8, alpha: u8| {
        ((u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 127) / 255) as u8
    };
    for (count, photometric) in [(2, 1), (4, 2)] {
        for kind in [None, Some(0), Some(1), Some(2)] {
            for bits in [8, 16] {
                let tags = kind.map(|kind| (338, vec![kind])).into_iter().collect();
                for recipe in layouts(&Recipe { tags, ..plain(count, bits, photometric) }) {
                    check(&recipe, &|x, y| {
                        let alpha = byte(&recipe, count - 1, x, y);
                        [0, 1, 2].map(|c| {
                            let value = byte(&recipe, c.min(count - 2), x, y);
                            match kind {
                                Some(0) => value,
                                Some(1) => value.saturating_add(255 - alpha),
                                _ => over(value, alpha),
                            }
                        })
                    });
                }
            }
        }
    }
}

#[test]
fn inks_are_seen_on_paper() {
    for recipe in layouts(&plain(4, 8, 5)) {
        check(&recipe, &|x, y| {
            let paper = |c| 255 - u32::from(byte(&recipe, c, x, y));
            [0, 1, 2].map(|c| ((paper(c) * paper(3) + 127) / 255) as u8)
        });
    }
}

#[test]
fn fax_pages_are_shown_in_both_orders_of_bits() {
    for reversed in [false, true] {
        for (tile, rows) in [(None, HEIGHT), (None, 8), (Some((16, 16)), HEIGHT)] {
            let recipe = Recipe { compression: 4, reversed, tile, rows, ..plain(1, 1, 0) };
            check(&recipe, &|x, y| [255 - byte(&recipe, 0, x, y); 3]);
        }
    }
}

#[test]
fn luma_and_differences_are_shown_with_and_without_subsampling() {
    let recipe = Recipe { tags: vec![(530, vec![1, 1])], ..plain(3, 8, 6) };
    let constant = |c: usize| [90, 120, 160][c];
    let colour = [135, 70, 76];
    let whole = write(&recipe, &chunks(&recipe, &|c, _, _| constant(c)));
    assert!(decoded(&whole).expect("decodes").as_chunks::<3>().0.iter().all(|pixel| *pixel == colour));
    for (h, v) in [(2, 2), (2, 1), (4, 1), (1, 2)] {
        let unit: Vec<u8> = [vec![90; h * v], vec![120, 160]].concat();
        let data = unit.repeat(WIDTH.div_ceil(h) * HEIGHT.div_ceil(v));
        let recipe = Recipe { tags: vec![(530, vec![h as u64, v as u64])], ..plain(3, 8, 6) };
        let got = decoded(&write(&recipe, &[data])).expect("decodes");
        assert!(got.as_chunks::<3>().0.iter().all(|pixel| *pixel == colour), "{h}x{v}");
    }
}

#[test]
fn jpeg_streams_are_colours_or_components_as_the_file_says() {
    for (photometric, kind) in [(6, jpeg_encoder::ColorType::Rgb), (1, jpeg_encoder::ColorType::Luma)] {
        let count = if photometric == 6 { 3 } else { 1 };
        let pixels: Vec<u8> =
            (0..HEIGHT).flat_map(|y| (0..WIDTH * count).map(move |x| (60 + x + 3 * y) as u8)).collect();
        let mut stream = vec![];
        jpeg_encoder::Encoder::new(&mut stream, 95)
            .encode(&pixels, WIDTH as u16, HEIGHT as u16, kind)
            .expect("encodes");
        let recipe = Recipe { compression: 7, ..plain(count, 8, photometric) };
        let got = decoded(&write(&recipe, std::slice::from_ref(&stream))).expect("decodes");
        let expected = pixels.iter().flat_map(|value| vec![*value; 3 / count]);
        let off: u64 = got.iter().zip(expected).map(|(a, b)| u64::from(a.abs_diff(b))).sum();
        assert!(off / got.len() as u64 <= 3, "{off} levels in all");
        let cut = stream[..stream.len() / 2].to_vec();
        assert!(matches!(decoded(&write(&recipe, &[cut])), Err(Broken::Jpeg(_))));
    }
}

#[test]
fn what_is_not_decoded_is_named_and_what_is_cut_is_refused() {
    let refused = |recipe: &Recipe| decoded(&write(recipe, &chunks(recipe, &|c, x, y| value(recipe, c, x, y)))).err();
    let unsupported = [
        Recipe { compression: 3, ..plain(1, 1, 0) },
        Recipe { compression: 6, ..plain(3, 8, 6) },
        Recipe { compression: 50_000, ..plain(3, 8, 2) },
        plain(3, 8, 8),
        Recipe { tags: vec![(339, vec![2])], ..plain(1, 16, 1) },
        Recipe { tags: vec![(339, vec![3])], ..plain(1, 32, 1) },
        plain(1, 24, 1),
        plain(1, 16, 3),
    ];
    for recipe in unsupported {
        assert!(matches!(refused(&recipe), Some(Broken::Unsupported(_))), "{recipe:?}");
    }
    for compression in [1, 4, 5, 8, 32_773] {
        let recipe = if compression == 4 { plain(1, 1, 0) } else { plain(3, 8, 2) };
        let recipe = Recipe { compression, ..recipe };
        let whole = chunks(&recipe, &|c, x, y| value(&recipe, c, x, y));
        assert!(decoded(&write(&recipe, &whole)).is_ok());
        let short: Vec<Vec<u8>> = whole.iter().map(|chunk| chunk[..chunk.len() * 2 / 3].to_vec()).collect();
        assert!(decoded(&write(&recipe, &short)).is_err(), "{compression}: a strip that is cut");
    }
    let strips = Recipe { rows: 4, ..plain(3, 8, 2) };
    let missing = chunks(&strips, &|c, x, y| value(&strips, c, x, y));
    assert!(decoded(&write(&strips, &missing[..3])).is_err(), "strips that are missing");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics(
        damage in proptest::collection::vec((0.0..1.0_f64, any::<u8>()), 1..8),
        kind in 0_usize..6,
        big_endian in any::<bool>(),
        tiled in any::<bool>(),
    ) {
        let bases = [plain(3, 8, 2), plain(1, 4, 1), plain(4, 16, 2), plain(1, 1, 0), plain(3, 8, 6), plain(1, 12, 1)];
        let compression = [5, 32_773, 8, 4, 1, 1][kind];
        let tile = tiled.then_some((16, 16));
        let recipe = Recipe { compression, big_endian, tile, planar: kind == 2, ..bases[kind].clone() };
        let mut bytes = write(&recipe, &chunks(&recipe, &|c, x, y| value(&recipe, c, x, y)));
        for (place, value) in damage {
            let at = (bytes.len() as f64 * place) as usize;
            bytes[at] = value;
        }
        if TiffDecoder::new(&bytes, 1 << 20).is_ok_and(|decoder| decoder.working_bytes() < 1 << 24) {
            let _ = decoded(&bytes);
        }
    }
}
