//! Pages that each show the same number of images, written to a ledger as fast as it takes them, and what that costs: for
//! measurements.

use std::sync::Arc;
use std::time::Instant;

use faceflow_core::fact::Fact;
use faceflow_core::ledger::Ledger;
use faceflow_core::record::{Image, Page};
use tokio::task::JoinSet;

use super::place::Home;
use super::{admitted, delivered, image, kept, page, read, url};
use crate::database::{DbTransaction, Row};
use crate::{Reader, StateLocation};

/// Pages to write, `FACEFLOW_PAGES=20000` for a million images.
pub fn page_count() -> usize {
    std::env::var("FACEFLOW_PAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

/// Images of each page.
pub const IMAGES: usize = 50;

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

/// Every page read, with every image kept and delivered. Returns how many facts that took, and how long.
#[allow(clippy::disallowed_methods, reason = "measures the machine's own time")]
pub fn fill(home: &Home) -> (usize, f64) {
    let ledger = Arc::new(home.open());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let listings = (0..page_count()).map(listing).collect();
    runtime.block_on(ledger.append(admitted(listings))).expect("is legal");
    let mut facts = 0;
    // To make the facts takes time of its own; a million images of them do not fit into memory.
    let facts_of_pages: Box<dyn Iterator<Item = [Vec<Fact>; 3]>> = match page_count() {
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

/// Prints how large the file of a state is.
pub fn sizes(home: &Home) {
    let StateLocation::Folder(dir) = home.place() else { return };
    let size = std::fs::metadata(dir.join("ledger.sqlite")).expect("is there").len();
    let urls = (page_count() * IMAGES + page_count()) as f64;
    const LOG: &str =
        "SELECT sum(pgsize) FILTER (WHERE name = 'events'), sum(pgsize) FILTER (WHERE name = 'commits') FROM dbstat";
    let log = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?));
    let (rows, records) = home.reader().read(|tx| tx.one(LOG, &[], log)).expect("reads").expect("a row");
    let [all, rows, records] = [size as f64, rows as f64, records as f64].map(|bytes| bytes / urls);
    println!("{all:.0} bytes per URL, of which the log: {rows:.0} in rows and {records:.0} in records");
}
