//! Figures, not checks: run with `cargo test --release -p faceflow-pixels measure -- --ignored --nocapture`.

use std::time::Instant;

use faceflow_core::detector::Face;
use faceflow_core::record::PerceptualHash;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::tests::{different_photos, jpeg, photos, picture};
use super::*;

/// What becomes of photographs on the web, and a little more.
fn variants(photo: &RgbImage) -> Vec<(&'static str, RgbImage)> {
    let (width, height) = photo.dimensions();
    let resized = |width: u32, height: u32, filter| imageops::resize(photo, width, height, filter);
    let again = |photo: &RgbImage, quality| image::load_from_memory(&jpeg(photo, quality)).expect("decodes").to_rgb8();
    let shaded = |shade: &dyn Fn(f32) -> f32| {
        let mut other = photo.clone();
        other
            .pixels_mut()
            .for_each(|pixel| pixel.0 = pixel.0.map(|value| shade(f32::from(value)).clamp(0.0, 255.0) as u8));
        other
    };
    let cropped = |part: u32| {
        let (x, y) = (width / part / 2, height / part / 2);
        imageops::crop_imm(photo, x, y, width - 2 * x, height - 2 * y).to_image()
    };
    let half = resized(width / 2, height / 2, FilterType::CatmullRom);
    let small = resized(256, 256 * height / width, FilterType::CatmullRom);
    let tiny = resized(128, 128 * height / width, FilterType::Triangle);
    vec![
        ("JPEG 95", again(photo, 95)),
        ("JPEG 75", again(photo, 75)),
        ("JPEG 40", again(photo, 40)),
        ("half, Lanczos", resized(width / 2, height / 2, FilterType::Lanczos3)),
        ("half, JPEG 75", again(&half, 75)),
        ("quarter", resized(width / 4, height / 4, FilterType::Triangle)),
        ("256 wide, JPEG 60", again(&small, 60)),
        ("128 wide, JPEG 75", again(&tiny, 75)),
        ("300 wide, nearest", resized(300, 300 * height / width, FilterType::Nearest)),
        ("double", resized(2 * width, 2 * height, FilterType::Triangle)),
        ("15 levels brighter", shaded(&|value| value + 15.0)),
        ("contrast + 15 %", shaded(&|value| (value - 128.0) * 1.15 + 128.0)),
        ("posterised", shaded(&|value| (value / 32.0).floor() * 32.0 + 16.0)),
        ("1 % cropped", cropped(100)),
        ("2 % cropped", cropped(50)),
        ("4 % cropped", cropped(25)),
        ("mirrored", imageops::flip_horizontal(photo)),
    ]
}

fn bits_between(one: &PerceptualHash, other: &PerceptualHash) -> u32 {
    one.distance(other).expect("hashes of one kind and version are compared")
}

#[test]
#[ignore = "a table, minutes"]
fn hash_distances() {
    let Some(photos) = photos() else { return };
    let (mut hashes, mut table): (Vec<PerceptualHash>, Vec<(&str, Vec<u32>)>) = (vec![], vec![]);
    for photo in different_photos(&photos) {
        let hash = phash(&picture(&photo));
        for (row, (name, variant)) in variants(&photo).into_iter().enumerate() {
            if table.len() == row {
                table.push((name, vec![]));
            }
            table[row].1.push(bits_between(&hash, &phash(&picture(&variant))));
        }
        hashes.push(hash);
    }
    for (name, mut bits) in table {
        bits.sort_unstable();
        let at = |percent: usize| bits[(bits.len() - 1) * percent / 100];
        let beyond = bits.iter().filter(|bits| **bits > 4).count();
        println!(
            "{name:20} median {:2}  95 % {:2}  most {:2}  beyond 4: {beyond} of {}",
            at(50),
            at(95),
            at(100),
            bits.len()
        );
    }
    let pairs = (0..hashes.len())
        .flat_map(|at| hashes[..at].iter().map(|other| bits_between(&hashes[at], other)).collect::<Vec<_>>());
    let mut pairs: Vec<u32> = pairs.collect();
    pairs.sort_unstable();
    let dull = hashes.iter().filter(|hash| !hash.distinctive).count();
    println!("{} photographs, {dull} not distinctive; {} pairs, closest {:?}", hashes.len(), pairs.len(), &pairs[..8]);
}

/// Prints the least time of many runs, in milliseconds.
#[allow(clippy::disallowed_methods, reason = "a stopwatch")]
fn time<R>(name: &str, mut work: impl FnMut() -> R) {
    let run = |_| {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed().as_secs_f64() * 1e3
    };
    println!("{name:20} {:.3} ms", (0..40).map(run).fold(f64::INFINITY, f64::min));
}

#[test]
#[ignore = "figures"]
fn costs_for_one_megapixel() {
    let photo =
        RgbImage::from_fn(1024, 1024, |x, y| Rgb([(x / 4) as u8, (x * y / 512) as u8, (y / 3) as u8 ^ (x / 7) as u8]));
    let (bytes, settings, deliver) = (jpeg(&photo, 85), ImageSettings::default(), DeliverSettings::default());
    let photo = picture(&photo);
    let face = Face { bbox: [400.0, 300.0, 520.0, 460.0], score: 1.0, quality: 0.0, landmarks: None };
    time("peek", || peek(&bytes, &settings));
    time("decode", || decode(&bytes, &settings));
    time("phash", || phash(&photo));
    time("quality", || quality(&photo, &face));
    time("crop of 120x160", || crop(&photo, face.bbox, &deliver));
    time("thumbnail", || thumbnail(&photo, &deliver));
}
