//! Measurements, for people: `cargo test --release -p faceflow-ledger -- --ignored --nocapture measure`.

use std::time::Instant;

use super::place::{Database, on};
use super::relay::farther;
use super::*;
use crate::database::Row;
use crate::testing::crawl::{fill, page_count, sizes};

mod sqlite {
    #[test]
    #[ignore = "a measurement; see the head of this file"]
    fn facts_per_second() {
        super::on(super::Database::Sqlite, || super::facts_per_second(super::Home::new()));
    }
}

mod postgres {
    #[test]
    #[ignore = "a measurement; see the head of this file"]
    fn facts_per_second() {
        super::on(super::Database::Postgres, || super::facts_per_second(super::Home::new()));
    }

    /// Over a network that takes half a millisecond there and back.
    #[test]
    #[ignore = "a measurement; see the head of this file"]
    fn facts_per_second_over_a_network() {
        super::on(super::Database::Postgres, || {
            let near = super::Home::new();
            let (far, _socket) = super::farther(&near, std::time::Duration::from_micros(250));
            super::facts_per_second(far);
        });
    }
}

#[test]
#[ignore = "a measurement; see the head of this file"]
#[allow(clippy::disallowed_methods, reason = "measures the machine's own time")]
fn known_urls_per_second() {
    const SHOWN: usize = 1_000;
    let (home, pages) = (Home::new(), page_count());
    let ledger = home.open();
    let path = |n: usize, i: usize| format!("/a/folder/of/images/{n}/picture-number-{i}.jpg");
    let shows = |by: &str, n: usize| {
        let images = (0..SHOWN).map(|i| image(&path(n, i))).collect();
        read(Page { site: url(by), ..page(by, 0) }, vec![], images)
    };
    let tell_all = |what: &str, by: &str| {
        let started = Instant::now();
        for n in 0..pages {
            let by = format!("{by}{n}");
            wait(ledger.append(admitted(vec![Page { site: url(&by), ..page(&by, 0) }]))).expect("is legal");
            wait(ledger.append(shows(&by, n))).expect("is legal");
        }
        let urls = (pages * SHOWN) as f64;
        println!("{urls} URLs {what}: {:.0} URLs/s", urls / started.elapsed().as_secs_f64());
    };
    tell_all("that are new", "/p");
    tell_all("that are known, on other pages", "/q");
    tell_all("that are known, on the same pages", "/q");
    let kb = std::fs::read_to_string("/proc/self/status").expect("Linux says how much memory a process has");
    println!("{}", kb.lines().find(|line| line.starts_with("VmHWM")).expect("a line"));
}

#[allow(clippy::disallowed_methods, reason = "measures the machine's own time")]
fn facts_per_second(home: Home) {
    let (facts, took) = fill(&home);
    println!("{facts} facts in {took:.2} s: {:.0} facts/s", facts as f64 / took);
    groups(&home);
    sizes(&home);
    let started = Instant::now();
    let mut count = 0;
    let ledger = home.open();
    ledger.queues(JobId::FIRST, true, &mut |_| count += 1).expect("reads");
    ledger.known_pictures(JobId::FIRST.tenant, &mut |_| count += 1).expect("reads");
    println!("open and know {count} queues and pictures: {:.3} s", started.elapsed().as_secs_f64());
}

fn groups(home: &Home) {
    let sql = "SELECT CAST(sum(records) AS BIGINT), count(*) FROM commits";
    let read = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?));
    let (lines, groups) = home.reader().read(|tx| tx.one(sql, &[], read)).expect("reads").expect("a row");
    println!("{groups} groups of {:.0} facts", lines as f64 / groups as f64);
}
