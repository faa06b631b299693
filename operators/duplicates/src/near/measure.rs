//! Figures, not checks: run with `cargo test --release -p faceflow-operators groups::measure -- --ignored --nocapture`.

use std::time::Instant;

use faceflow_core::record::PerceptualHash;

use super::*;

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
        let insert = || (0..MILLION).filter(|&at| index.insert(at as u32, hash(at)).is_none()).count();
        let different = time(&format!("insert, radius {radius}"), MILLION as usize, insert);

        let mut found = 0;
        let queries = 10_000 >> (radius / 4);
        time(&format!("query, radius {radius}"), queries, || {
            (0..queries as u64).for_each(|at| index.each_within(hash(97 * at), |_, _| found += 1));
        });
        println!("{found} hits among {different}");
    }
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
    println!("{decisions} decisions, {} groups of several", groups.groups.len());
}
