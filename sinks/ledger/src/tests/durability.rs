//! What `ledger.durability = "power"` costs: `cargo test --release -p faceflow-ledger -- --ignored --nocapture durability`.
//! `TMPDIR` chooses the disk; one in memory has no price.

use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};

use super::*;
use crate::{Durability, StateLocation};

/// Facts under load; each waits for its answer.
const FACTS: usize = 40_000;
/// Facts told one after the other.
const SINGLE: usize = 300;

/// How long each of some facts took to be answered, told so many at once; and all of them.
#[allow(clippy::disallowed_methods, reason = "measures the machine's own time")]
fn tell(ledger: &DatabaseLedger, (prefix, facts, at_once): (&str, usize, usize)) -> (Vec<Duration>, Duration) {
    let images: Vec<Image> = (0..facts).map(|n| image(&format!("/{prefix}/{n}"))).collect();
    wait(ledger.append(read(page("/", 0), vec![], images.clone()))).expect("is legal");
    let began = Instant::now();
    let mut images = images.into_iter();
    let told = |image: Image| {
        let (asked, name) = (Instant::now(), image.url.path().to_owned());
        let answer = ledger.append(kept(image, &name));
        async move { answer.await.map(|_| asked.elapsed()) }
    };
    let took = futures::executor::block_on(async {
        let mut waiting: FuturesUnordered<_> = images.by_ref().take(at_once).map(told).collect();
        let mut took = Vec::with_capacity(facts);
        while let Some(answer) = waiting.next().await {
            took.push(answer.expect("is legal"));
            waiting.extend(images.next().map(told));
        }
        took
    });
    (took, began.elapsed())
}

#[test]
#[ignore = "a measurement; see the head of this file"]
fn power_against_process() {
    let home = std::env::temp_dir();
    println!("on {}", home.display());
    let mut alone = Vec::new();
    let mut rates = [Vec::new(), Vec::new()];
    for (n, durability) in [Durability::Process, Durability::Power].into_iter().enumerate() {
        let home = Home::new();
        let settings = LedgerSettings { durability, ..LedgerSettings::default() };
        let ledger = DatabaseLedger::open(StateLocation::from(home.path()), "default", &settings).expect("opens");
        wait(ledger.append(start())).expect("is legal");
        let (mut single, _) = tell(&ledger, ("single", SINGLE, 1));
        single.sort();
        let [median, worst] = [single[SINGLE / 2], single[SINGLE * 99 / 100]];
        println!("{durability:?}: one fact at a time {median:.0?} (median), {worst:.0?} (99 of 100)");
        alone.push(median.as_secs_f64());
        for at_once in [16, 256, 4_096] {
            let facts = FACTS.min(at_once * 400);
            let (_, took) = tell(&ledger, (&format!("load-{at_once}"), facts, at_once));
            let rate = facts as f64 / took.as_secs_f64();
            println!("{durability:?}: {at_once:5} at once {rate:8.0} facts/s");
            rates[n].push(rate);
        }
    }
    println!("power / process, one at a time: {:.1} times the latency", alone[1] / alone[0]);
    for (process, power) in rates[0].iter().zip(&rates[1]) {
        println!("power / process, under load: {:.2} of the facts per second", power / process);
    }
}
