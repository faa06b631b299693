//! Figures, not checks: run with `cargo test --release -p faceflow-duplicates measure -- --ignored --nocapture`.

use std::time::Instant;

use faceflow_core::record::PerceptualHash;

use super::*;
use crate::index::{HammingIndex, Part};

/// Pseudo-random bits (splitmix64, G. Steele et al., 2014).
fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// Resident memory of this process in bytes, where `/proc` tells.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(f64::NAN) * 4096.0
}

#[allow(clippy::disallowed_methods, reason = "a stopwatch")]
fn time<R>(name: &str, count: usize, work: impl FnOnce() -> R) -> R {
    let (memory, start) = (resident(), Instant::now());
    let result = work();
    let spent = start.elapsed().as_secs_f64() * 1e6 / count as f64;
    println!("{name:58} {spent:8.2} µs and {:6.1} bytes each", (resident() - memory) / count as f64);
    result
}

/// A million hashes: seven in ten are random, three in ten lie within a few bits of one of those.
fn hash(at: u64) -> u64 {
    match at % 10 {
        0..7 => mix(at),
        near => mix(at - near) ^ 1 << (mix(at) % 64) ^ 1 << (mix(at + 1) % 64),
    }
}

const MILLION: u64 = 1_000_000;

#[test]
#[ignore = "figures"]
fn a_million_hashes() {
    for radius in [4, 8, 16] {
        let mut index = HammingIndex::new(radius);
        let insert = || (0..MILLION).map(|at| u64::from(index.insert(hash(at)))).sum::<u64>();
        time(&format!("insert, radius {radius}"), MILLION as usize, insert);

        let mut found = 0;
        let queries = 10_000 >> (radius / 4);
        time(&format!("query, radius {radius}"), queries, || {
            (0..queries as u32).for_each(|at| index.each_within(Part::Members, 97 * at, |_| found += 1));
        });
        println!("{found} hits among {}", index.len());
    }
}

/// The worst shape: hashes all within two bits of one, so that nearly all are within reach of each other.
#[test]
#[ignore = "figures"]
fn a_clump_of_near_equal_pictures() {
    let order = |name: &str, side: fn(u64) -> u32, flips: u32| {
        let mut groups = NearDuplicates::new(&DedupeSettings::default());
        let count = 10_000;
        let picture = |at: u64| {
            let bits = (0..flips).fold(42, |bits, flip| bits ^ 1 << (mix(at * 8 + u64::from(flip)) % 64));
            let id = ContentId::of(&at.to_le_bytes());
            let hashes = PerceptualHash::dct64(bits, true).into();
            Content { id, bytes: 1, format: String::new(), width: side(at), height: 1, hashes }
        };
        let mut slowest = 0.0_f64;
        time(&format!("10,000 within {flips} bits of one, {name}"), count, || {
            for at in 0..count as u64 {
                slowest = slowest.max(stopwatch(|| {
                    groups.add(&picture(at));
                    let content = picture(at);
                    for decision in groups.decide(content.id) {
                        if let DedupeDecision::Detect(id) = decision
                            && id == content.id
                        {
                            groups.outcome(&content, DetectionOutcome::Done);
                            groups.decide(id);
                        }
                    }
                }));
            }
        });
        println!("slowest {slowest:.0} µs, of {} different hashes", groups.leaders.len());
    };
    for flips in [2, 4] {
        order("largest first", |at| 20_000 - at as u32, flips);
        order("in any order", |at| 1 + mix(at) as u32 % 4096, flips);
        order("smallest first", |at| 1 + at as u32, flips);
    }
}

#[allow(clippy::disallowed_methods, reason = "a stopwatch")]
fn stopwatch(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e6
}

#[test]
#[ignore = "figures"]
fn millions_of_pictures() {
    let mut groups = NearDuplicates::new(&DedupeSettings::default());
    for million in 0..10 {
        a_million_more(&mut groups, million);
    }
}

fn a_million_more(groups: &mut NearDuplicates, million: u64) {
    let name = format!("add and settle a picture, radius 4, after {million} million");
    let decisions = time(&name, MILLION as usize, || {
        (million * MILLION..(million + 1) * MILLION)
            .map(|at| {
                let id = ContentId::of(&at.to_le_bytes());
                let hashes = PerceptualHash::dct64(hash(at), true).into();
                groups.add(&Content {
                    id,
                    bytes: 1,
                    format: String::new(),
                    width: 1 + mix(at) as u32 % 4096,
                    height: 1,
                    hashes,
                });
                groups.decide(id).len()
            })
            .sum::<usize>()
    });
    println!("{decisions} decisions, {} different hashes", groups.leaders.len());
}
