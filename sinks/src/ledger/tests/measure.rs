//! Measurements, for people: `cargo test --release -p faceflow-sinks -- --ignored --nocapture measure`.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use faceflow_core::sink::{Listing, Store};
use tokio::task::JoinSet;

use super::place::{Database, on};
use super::relay::farther;
use super::*;
use crate::ledger::StateLocation;
use crate::ledger::database::{DbTransaction, Row};
use crate::report::ReportSettings;

/// Pages to write, `FACEFLOW_PAGES=20000` for a million images.
fn pages() -> usize {
    std::env::var("FACEFLOW_PAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

const IMAGES: usize = 50;

/// Page `n`, a site of its own: nobody waits for its turn.
fn listing(n: usize) -> Page {
    let path = format!("/page/{n}");
    Page { site: url(&path), ..page(&path, 1) }
}

/// The facts of page `n`: read, with every image kept and delivered, in the order in which they become legal.
fn rounds(n: usize) -> [Vec<Fact>; 3] {
    let listing = listing(n);
    let path = |i: usize| format!("/images/{n}/picture-number-{i}.jpg");
    let images: Vec<Image> = (0..IMAGES).map(|i| image(&path(i))).collect();
    let kept = images.iter().map(|image| kept(image.clone(), image.url.path())).collect();
    let delivered = images.iter().map(|image| delivered(image.url.path(), 2)).collect();
    [vec![read(listing, vec![], images)], kept, delivered]
}

mod sqlite {
    #[test]
    #[ignore = "a measurement; see the head of this file"]
    fn facts_per_second() {
        super::on(super::Database::Sqlite, || super::facts_per_second(super::Home::new()));
    }

    #[test]
    #[ignore = "a measurement; see the head of this file"]
    fn microseconds_per_line() {
        super::on(super::Database::Sqlite, super::microseconds_per_line);
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

    #[test]
    #[ignore = "a measurement; see the head of this file"]
    fn microseconds_per_line() {
        super::on(super::Database::Postgres, super::microseconds_per_line);
    }
}

#[test]
#[ignore = "a measurement; see the head of this file"]
#[allow(clippy::disallowed_methods, reason = "measures the machine's own time")]
fn known_urls_per_second() {
    const SHOWN: usize = 1_000;
    let (home, pages) = (Home::new(), pages());
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

/// Every page read, with every image kept and delivered. Returns how many facts that took, and how long.
#[allow(clippy::disallowed_methods, reason = "measures the machine's own time")]
fn fill(home: &Home) -> (usize, f64) {
    let ledger = Arc::new(home.open());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let listings = (0..pages()).map(listing).collect();
    runtime.block_on(ledger.append(admitted(listings))).expect("is legal");
    let mut facts = 0;
    // To make the facts takes time of its own; a million images of them do not fit into memory.
    let facts_of_pages: Box<dyn Iterator<Item = [Vec<Fact>; 3]>> = match pages() {
        few @ ..=4_000 => Box::new((0..few).map(rounds).collect::<Vec<_>>().into_iter()),
        many => Box::new((0..many).map(rounds)),
    };
    let own = cpu_seconds(std::process::id().into());
    let started = Instant::now();
    runtime.block_on(async {
        let mut under_way = JoinSet::new();
        for page in facts_of_pages {
            facts += page.iter().map(Vec::len).sum::<usize>();
            while under_way.len() >= 64 {
                under_way.join_next().await.expect("some are under way").expect("no panic");
            }
            let ledger = Arc::clone(&ledger);
            under_way.spawn(async move {
                for round in page {
                    let appends: Vec<_> = round.into_iter().map(|fact| ledger.append(fact)).collect();
                    for append in appends {
                        append.await.expect("is legal");
                    }
                }
            });
        }
        while let Some(ended) = under_way.join_next().await {
            ended.expect("no panic");
        }
    });
    let took = started.elapsed().as_secs_f64();
    let servers: f64 = server_processes(ledger.reader()).into_iter().map(cpu_seconds).sum();
    let own = cpu_seconds(std::process::id().into()) - own;
    let each = |seconds: f64| seconds * 1e6 / facts as f64;
    println!("CPU for each fact: {:.1} us here, {:.1} us at the server", each(own), each(servers));
    (facts, took)
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
    for n in 0..pages() {
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
    let views = crate::views::Views::new(Arc::clone(&ledger), store, ReportSettings::default().into());
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
    let started = Instant::now();
    write_results(ledger.reader(), Kind::Images, Format::Jsonl, &mut std::io::sink()).expect("writes");
    println!("results of {} images: {:.2} s", pages() * IMAGES, started.elapsed().as_secs_f64());
}

/// The processes that serve connections of this state, if it is on a server.
fn server_processes(reader: &Reader) -> Vec<i64> {
    let sql = "SELECT CAST(pid AS BIGINT) FROM pg_stat_activity WHERE application_name = 'faceflow'";
    let list = |tx: &DbTransaction<'_>| match tx {
        DbTransaction::Sqlite(_) => Ok(vec![]),
        DbTransaction::Postgres(_) => tx.list(sql, &[], |row| row.get(0)),
    };
    reader.read(list).expect("reads")
}

/// What a process has used of the CPU so far: what a machine that others use too can still say.
fn cpu_seconds(process: i64) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return 0.0 };
    let (_, fields) = stat.rsplit_once(')').expect("Linux says what a process is");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}

fn groups(home: &Home) {
    let sql = "SELECT CAST(sum(records) AS BIGINT), count(*) FROM commits";
    let read = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?));
    let (lines, groups) = home.reader().read(|tx| tx.one(sql, &[], read)).expect("reads").expect("a row");
    println!("{groups} groups of {:.0} facts", lines as f64 / groups as f64);
}

fn sizes(home: &Home) {
    let StateLocation::Folder(dir) = home.place() else { return };
    let size = std::fs::metadata(dir.join("ledger.sqlite")).expect("is there").len();
    let urls = (pages() * IMAGES + pages()) as f64;
    const LOG: &str =
        "SELECT sum(pgsize) FILTER (WHERE name = 'events'), sum(pgsize) FILTER (WHERE name = 'commits') FROM dbstat";
    let log = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?));
    let (rows, records) = home.reader().read(|tx| tx.one(LOG, &[], log)).expect("reads").expect("a row");
    let [all, rows, records] = [size as f64, rows as f64, records as f64].map(|bytes| bytes / urls);
    println!("{all:.0} bytes per URL, of which the log: {rows:.0} in rows and {records:.0} in records");
}
