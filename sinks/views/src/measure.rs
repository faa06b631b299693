//! Measurements, for people: `cargo test --release -p faceflow-views -- --ignored --nocapture measure`.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use faceflow_core::ledger::Ledger;
use faceflow_core::record::Page;
use faceflow_core::sink::{Listing, Store};
use faceflow_core::{Class, Fault};
use faceflow_ledger::testing::crawl::{IMAGES, fill, page_count, sizes};
use faceflow_ledger::testing::place::{Database, Home, on};
use faceflow_ledger::testing::{admitted, delivered, image, kept, page, read, url, wait};
use faceflow_ledger::{DatabaseLedger, StateLocation};

use crate::ViewUpdater;
use crate::report::ReportSettings;
use crate::results::{Format, Kind, write_results};

mod sqlite {
    #[test]
    #[ignore = "a measurement; see the head of this file"]
    fn microseconds_per_line() {
        super::on(super::Database::Sqlite, super::microseconds_per_line);
    }
}

mod postgres {
    #[test]
    #[ignore = "a measurement; see the head of this file"]
    fn microseconds_per_line() {
        super::on(super::Database::Postgres, super::microseconds_per_line);
    }
}

/// Counts lines, and looks now and then how much memory the process has.
struct Measured {
    lines: u64,
    bytes: u64,
    kb: Vec<u64>,
}

impl std::io::Write for Measured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.bytes += bytes.len() as u64;
        if self.bytes >> 24 > self.kb.len() as u64 {
            self.kb.push(resident_kb());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How long this thread was carried out: on a busy machine, less than what has passed.
fn on_cpu_s() -> f64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux says how long a thread has run");
    spent.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).expect("a number") / 1e9
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says how much memory a process has");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

/// Results of all kinds, in both forms. Pages are as many as images.
#[allow(clippy::disallowed_methods, reason = "measures the machine's own time")]
fn microseconds_per_line() {
    let home = Home::new();
    fill(&home);
    let ledger = home.open();
    for n in 0..page_count() {
        let site = url(&format!("/more/{n}"));
        let page = |i: usize| Page { site: site.clone(), ..page(&format!("/more/{n}/{i}"), 1) };
        wait(ledger.append(admitted((0..IMAGES).map(page).collect()))).expect("is legal");
    }
    if let StateLocation::Server(_) = home.place() {
        home.sql("ANALYZE");
    }
    for kind in [Kind::Images, Kind::Pages, Kind::Faces] {
        for format in [Format::Jsonl, Format::Csv] {
            let mut out = Measured { lines: 0, bytes: 0, kb: vec![] };
            let (started, cpu, before) = (Instant::now(), on_cpu_s(), resident_kb());
            write_results(ledger.reader(), kind, format, &mut std::io::BufWriter::new(&mut out)).expect("writes");
            let (took, cpu, lines) = (started.elapsed().as_secs_f64(), on_cpu_s() - cpu, out.lines as f64);
            println!(
                "{kind:?} {format:?}: {lines} lines, {:.1} us a line ({:.1} on the CPU); {before} KB before, {:?} to {:?} KB meanwhile",
                took * 1e6 / lines,
                cpu * 1e6 / lines,
                out.kb.iter().min(),
                out.kb.iter().max(),
            );
        }
    }
    views(&home, ledger);
}

/// Sidecars and report: the first time, with nothing new, and with one picture more.
#[allow(clippy::disallowed_methods, reason = "measures the machine's own time")]
fn views(home: &Home, ledger: DatabaseLedger) {
    let (ledger, store) = (Arc::new(ledger), Arc::new(Nowhere));
    let views = ViewUpdater::new(Arc::clone(&ledger), store, ReportSettings::default().into());
    let write = |what: &str| {
        let started = Instant::now();
        wait(views.write()).expect("writes");
        println!("views {what}: {:.2} ms; resident {} KB", started.elapsed().as_secs_f64() * 1e3, resident_kb());
    };
    write("of everything");
    write("with nothing new");
    wait(ledger.append(admitted(vec![Page { site: url("/new"), ..page("/new", 0) }]))).expect("is legal");
    let new = Page { site: url("/new"), ..page("/new", 0) };
    for fact in [read(new, vec![], vec![image("/new.jpg")]), kept(image("/new.jpg"), "new"), delivered("new", 1)] {
        wait(ledger.append(fact)).expect("is legal");
    }
    write("with one picture more");
    drop((views, ledger));
    sizes(home);
}

/// Takes everything and keeps nothing.
struct Nowhere;

impl Store for Nowhere {
    fn put(&self, _: String, _: Bytes) -> faceflow_core::Future<Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn get(&self, key: String) -> faceflow_core::Future<Result<Bytes, Fault>> {
        Box::pin(async { Err(Fault::transient(Class::Store, "store_missing", key)) })
    }

    fn list(&self, _: String) -> Listing {
        Box::pin(futures::stream::empty())
    }

    fn delete(&self, _: String) -> faceflow_core::Future<Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
