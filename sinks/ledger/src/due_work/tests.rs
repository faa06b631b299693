//! What a claim costs does not grow with what waits: its statements go through an index, in the order of the index.

use faceflow_core::fact::Fact;
use faceflow_core::ledger::Ledger;
use faceflow_core::record::{DETECTION_QUEUE, Discovery, PageVersion, Work, queue_of};
use futures::future::join_all;

use super::*;
use crate::StateLocation;
use crate::both;
use crate::database::Value;
use crate::testing::{
    BOUNDS, Rig, admitted, dead, delivered, frame, image, kept, read, retry, url, visit, wait, with_a_chance,
};

both![due_work_follows_its_indexes_and_never_sorts];

const HOSTS: u64 = 20;
const PER_HOST: u64 = 100;

/// Everything that can wait, at many hosts, and as much that does not: pages to be looked at again, images that are due at
/// once, those that failed or are dead, and pictures to be detected again or that are dead.
fn crawled() -> Rig {
    let rig = Rig::new();
    for host in 0..HOSTS {
        let start = Page::start(JobId::FIRST, url(&format!("http://{host}.example/")));
        let at = |name: &str, n: u64| start.url.join(&format!("{name}{n}")).expect("a URL");
        let pages: Vec<Page> = (0..PER_HOST)
            .map(|n| Page { site: start.url.clone(), depth: 1, ..Page::start(JobId::FIRST, at("p", n)) })
            .collect();
        let of_host = |n| Image { url: at("i", n), site: start.url.clone(), page: start.url.clone(), ..image("/") };
        let images: Vec<Image> = (0..PER_HOST).map(of_host).collect();
        let mut facts = vec![admitted(vec![start.clone()]), read(start, pages.clone(), images.clone())];
        facts.extend((0..).zip(pages).map(|(n, page)| {
            let reading = PageVersion { url: None, etag: None, last_modified: None, digest: n, interval_ms: 1 };
            let (visit, again) = (Some(visit(page, vec![])), Some((reading, n)));
            Fact::Discovered(Discovery { visit, again, ..Discovery::nothing(JobId::FIRST, BOUNDS) })
        }));
        for (n, image) in (0..).zip(images) {
            let name = format!("{host} {n}");
            match n % 6 {
                0 => facts.push(retry(image, n)),
                1 => facts.extend([kept(image, &name), retry(Work::Frame(frame(&name)), n)]),
                2 => facts.extend([kept(image, &name), delivered(&name, 1)]),
                3 => facts.push(with_a_chance(dead(image), n)),
                4 => facts.extend([kept(image, &name), with_a_chance(dead(Work::Frame(frame(&name))), n)]),
                _ => {}
            }
        }
        let appends: Vec<_> = facts.into_iter().map(|fact| rig.ledger().append(fact)).collect();
        wait(join_all(appends)).into_iter().for_each(|appended| drop(appended.expect("is legal")));
    }
    rig.check();
    rig
}

/// How a statement is carried out; on a server, for these values or for any.
fn plan(reader: &Reader, sql: &str, values: [i64; 5], generic: bool) -> String {
    let values = &values[..if sql.contains("?5") { 5 } else { 4 }];
    let lines = reader.read(|tx| match tx {
        DbTransaction::Sqlite(_) => {
            let values: Vec<_> = values.iter().map(|value| Value::from(*value)).collect();
            tx.list(&format!("EXPLAIN QUERY PLAN {sql}"), &values, |row| row.get::<String>(3))
        }
        DbTransaction::Postgres(_) => {
            let mode = if generic { "force_generic_plan" } else { "force_custom_plan" };
            force_index_scans(tx)?;
            tx.batch(&format!("SET LOCAL plan_cache_mode = {mode}"))?;
            tx.run(&format!("PREPARE claim AS {sql}"), &[])?;
            let values: Vec<_> = values.iter().map(i64::to_string).collect();
            let explain = format!("EXPLAIN EXECUTE claim ({})", values.join(", "));
            let lines = tx.list(&explain, &[], |row| row.get::<String>(0));
            tx.batch("DEALLOCATE claim")?;
            lines
        }
    });
    lines.expect("explains").join("\n")
}

fn due_work_follows_its_indexes_and_never_sorts() {
    let rig = crawled();
    let shared = matches!(rig.home.place(), StateLocation::Server(_));
    if shared {
        rig.home.sql("ANALYZE sites, pictures, detections, entries, runs");
    }
    let host = queue_of(&url("http://7.example/")) as i64;
    // A file has one run, which has everything.
    for ours in if shared { vec![None, Some(1)] } else { vec![None] } {
        type Ways<'q> = &'q dyn Fn(&DbTransaction<'_>) -> DueQuery;
        let queues: [(Ways<'_>, _, _, _); 5] = [
            (&|_| DueQuery::entries(ours), "entries_open", host, &["due_ms", ""][..]),
            (&|_| DueQuery::again(), "entries_recrawl", host, &["recrawl_ms"]),
            (&|_| DueQuery::revived(), "entries_terminal_retry", host, &["terminal_retry_ms"]),
            (&|tx| DueQuery::frames(tx, ours), "pictures_waiting", DETECTION_QUEUE as i64, &["due_ms"]),
            (&DueQuery::revived_frames, "pictures_terminal_retry", DETECTION_QUEUE as i64, &["terminal_retry_ms"]),
        ];
        for (queue, index, host, dues) in queues {
            let statements = |tx: &DbTransaction<'_>| {
                let queue = queue(tx);
                let later = dues.iter().filter(|due| !due.is_empty()).map(|due| queue.later(tx, due));
                Ok(dues.iter().map(|due| queue.due(tx, due)).chain(later).collect::<Vec<_>>())
            };
            for sql in rig.reader().read(statements).expect("names them") {
                for generic in [false, true] {
                    let plan = plan(rig.reader(), &sql, [rig.reader().tenant_id(), host, 50, 0, 8], generic);
                    let sorts = ["Sort", "TEMP B-TREE"].iter().any(|word| plan.contains(word));
                    assert!(plan.contains(index) && !sorts, "{sql}\n{plan}");
                }
            }
        }
    }
}
