//! Measurements, for people: `cargo test --release -p faceflow-sinks -- --ignored --nocapture measure`.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use super::*;

const PAGES: usize = 2_000;
const IMAGES: usize = 50;

/// The facts of page `n`: read, with every image kept and delivered, in the order in which they become legal.
fn rounds(n: usize) -> [Vec<Fact>; 3] {
    let listing = page(&format!("/page/{n}"), 1);
    let path = |i: usize| format!("/images/{n}/picture-number-{i}.jpg");
    let images: Vec<Image> = (0..IMAGES).map(|i| image(&path(i))).collect();
    let kept = images.iter().map(|image| kept(image.clone(), image.url.path())).collect();
    let delivered = images.iter().map(|image| delivered(image.url.path(), 2)).collect();
    [vec![read(listing, vec![], images)], kept, delivered]
}

#[test]
#[ignore = "a measurement; see the head of this file"]
#[allow(clippy::disallowed_methods, reason = "measures the machine's own time")]
fn facts_per_second_and_bytes_per_url() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = LedgerSettings::default();
    let ledger = Arc::new(StateLedger::open(dir.path(), "default", &settings).expect("opens"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let pages = (0..PAGES).map(|n| page(&format!("/page/{n}"), 1)).collect();
    runtime.block_on(ledger.append(Fact::Admitted(Admitted { visit: None, pages, images: vec![] }))).expect("is legal");
    let all: Vec<[Vec<Fact>; 3]> = (0..PAGES).map(rounds).collect();
    let facts: usize = all.iter().flatten().map(Vec::len).sum();
    let started = Instant::now();
    runtime.block_on(async {
        let mut rounds = JoinSet::new();
        for page in all {
            while rounds.len() >= 64 {
                rounds.join_next().await.expect("some are under way").expect("no panic");
            }
            let ledger = Arc::clone(&ledger);
            rounds.spawn(async move {
                for round in page {
                    let appends: Vec<_> = round.into_iter().map(|fact| ledger.append(fact)).collect();
                    for append in appends {
                        append.await.expect("is legal");
                    }
                }
            });
        }
        while let Some(ended) = rounds.join_next().await {
            ended.expect("no panic");
        }
    });
    let took = started.elapsed().as_secs_f64();
    drop(ledger);
    let size = std::fs::metadata(dir.path().join("ledger.sqlite")).expect("is there").len();
    let urls = PAGES * IMAGES + PAGES;
    println!(
        "{facts} facts in {took:.2} s: {:.0} facts/s; {:.0} bytes per URL",
        facts as f64 / took,
        size as f64 / urls as f64
    );
    let reader = Reader::open(dir.path(), "default", &settings).expect("opens");
    let log = "SELECT sum(pgsize) FROM dbstat WHERE name = 'facts'";
    let log: i64 = reader.read(|moment| moment.one(log, &[], |row| row.get(0))).expect("reads").expect("a row");
    println!("of which the log: {:.0} bytes per URL", log as f64 / urls as f64);
    let started = Instant::now();
    let mut count = 0;
    let ledger = StateLedger::open(dir.path(), "default", &settings).expect("opens");
    ledger.known_pages(&mut |_, _| count += 1).expect("reads");
    ledger.known_images(&mut |_| count += 1).expect("reads");
    ledger.known_pictures(&mut |_| count += 1).expect("reads");
    println!("open and know {count} entries and pictures: {:.3} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    write_results(ledger.reader(), Kind::Images, Format::Jsonl, &mut std::io::sink()).expect("writes");
    println!("results of {} images: {:.2} s", PAGES * IMAGES, started.elapsed().as_secs_f64());
}
