//! ViewUpdater cost what has changed: nothing while nothing happens, and little when little does.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use faceflow_core::object_key::thumb_key;
use faceflow_core::sink::Listing;
use faceflow_core::{Fault, Future};
use futures::future::join_all;

use super::*;
use crate::report::follow::LAST;
use crate::sidecar::END;
use faceflow_core::ledger::Ledger;
use faceflow_ledger::StateLocation;
use faceflow_ledger::both;
use faceflow_ledger::testing::place::Home;
use faceflow_ledger::testing::{Rig, content, delivered, image, kept, retry, wait};
use faceflow_ledger::{DbTransaction, values};
use faceflow_store::Objects;

both![
    nothing_new_costs_nothing_and_little_costs_little,
    the_end_of_the_log_is_found_without_reading_it,
    what_was_not_written_is_written_next_time,
];

/// A store that counts what is asked of it, and takes nothing while it is full.
struct Counting {
    objects: Objects,
    puts: AtomicUsize,
    others: AtomicUsize,
    full: AtomicUsize,
}

impl Counting {
    fn new() -> Arc<Self> {
        let objects = Objects::open("memory://").expect("opens");
        Arc::new(Self { objects, puts: AtomicUsize::new(0), others: AtomicUsize::new(0), full: AtomicUsize::new(0) })
    }

    /// Puts, and everything else, since it was asked last.
    fn asked(&self) -> (usize, usize) {
        (self.puts.swap(0, SeqCst), self.others.swap(0, SeqCst))
    }
}

impl Store for Counting {
    fn put(&self, key: String, body: Bytes) -> Future<Result<(), Fault>> {
        self.puts.fetch_add(1, SeqCst);
        if self.full.load(SeqCst) > 0 && key.ends_with(".html") {
            let full = Fault::transient(faceflow_core::Class::Store, "store", "full");
            return Box::pin(async { Err(full) });
        }
        self.objects.put(key, body)
    }

    fn get(&self, key: String) -> Future<Result<Bytes, Fault>> {
        self.others.fetch_add(1, SeqCst);
        self.objects.get(key)
    }

    fn list(&self, folder: String) -> Listing {
        self.others.fetch_add(1, SeqCst);
        self.objects.list(folder)
    }

    fn delete(&self, key: String) -> Future<Result<(), Fault>> {
        self.others.fetch_add(1, SeqCst);
        self.objects.delete(key)
    }
}

/// The views of a rig's ledger. What is written to it later is followed.
fn views(home: &Home, store: &Arc<Counting>) -> (ViewUpdater, Arc<DatabaseLedger>) {
    let ledger = Arc::new(home.open());
    let settings = Reloadable::from(ReportSettings { images_max: 20, ..ReportSettings::default() });
    (ViewUpdater::new(Arc::clone(&ledger), Arc::clone(store) as _, settings), ledger)
}

/// The end of the log, the cursor, and the sizes of the files.
fn grown(ledger: &DatabaseLedger, home: &Home) -> (i64, i64, Vec<u64>) {
    let reader = ledger.reader();
    let number = |sql: &str| {
        let read = reader.read(|tx| tx.one(sql, values![reader.tenant_id()], |row| row.get::<Option<i64>>(0)));
        read.expect("reads").flatten().unwrap_or(0)
    };
    let sizes = match home.place() {
        StateLocation::Folder(dir) => ["ledger.sqlite", "ledger.sqlite-wal"]
            .map(|name| std::fs::metadata(dir.join(name)).expect("is there").len())
            .to_vec(),
        StateLocation::Server(_) => vec![],
    };
    let seq = "SELECT max(seq) FROM events WHERE tenant = ?1";
    (number(seq), number("SELECT max(seq) FROM cursors WHERE tenant = ?1"), sizes)
}

fn nothing_new_costs_nothing_and_little_costs_little() {
    const MANY: usize = 3_000;
    let path = |n: usize| format!("/{n:05}");
    let Rig { ledger, home } = Rig::showing((0..=MANY).map(|n| image(&path(n))).collect());
    drop(ledger);
    let store = Counting::new();
    let (views, ledger) = views(&home, &store);
    let tell = |facts: Vec<_>| {
        let appends: Vec<_> = facts.into_iter().map(|fact| ledger.append(fact)).collect();
        wait(join_all(appends)).into_iter().for_each(|appended| drop(appended.expect("is legal")));
    };
    tell((0..MANY).map(|n| kept(image(&path(n)), &path(n))).collect());
    tell((0..MANY).map(|n| delivered(&path(n), 1 + usize::from(n == 7))).collect());
    let thumbnail = thumb_key("default", content(&path(7)).id);
    wait(store.objects.put(thumbnail, Bytes::from_static(b"a thumbnail"))).expect("puts");
    wait(views.write()).expect("writes");
    assert_eq!(store.asked(), (MANY + 1, 20), "every sidecar, the report, and the thumbnails of what it shows");

    let before = grown(&ledger, &home);
    let reads = ledger.reader().reads();
    for _ in 0..10 {
        assert_eq!(wait(views.write()).expect("writes").as_deref(), Some("report.html"));
    }
    // The end of the log, once for the sidecars and once for the report.
    assert_eq!(ledger.reader().reads() - reads, 20);
    assert_eq!(store.asked(), (0, 0));
    assert_eq!(grown(&ledger, &home), before);

    // One picture more, without any influence on what is shown but the counts.
    tell(vec![kept(image(&path(MANY)), "new")]);
    tell(vec![delivered("new", 1)]);
    let reads = ledger.reader().reads();
    wait(views.write()).expect("writes");
    assert_eq!(store.asked(), (2, 0), "its sidecar and the report; thumbnails are known");
    let read = ledger.reader().reads() - reads;
    assert!(read < 20, "{read} transactions");
    let page = wait(store.objects.get("report.html".to_owned())).expect("is there");
    let page = String::from_utf8(page.to_vec()).expect("text");
    assert!(page.contains(&format!("{}</b>faces", MANY + 2)) && page.contains("YSB0aHVtYm5haWw="), "it followed");
    // What was built anew says the same.
    let store = Counting::new();
    let settings = Reloadable::from(ReportSettings { images_max: 20, ..ReportSettings::default() });
    let anew = ViewUpdater::new(Arc::clone(&ledger), Arc::clone(&store) as _, settings);
    wait(store.objects.put(thumb_key("default", content(&path(7)).id), Bytes::from_static(b"a thumbnail")))
        .expect("puts");
    wait(anew.write()).expect("writes");
    let built = wait(store.objects.get("report.html".to_owned())).expect("is there");
    assert!(built == page.as_bytes(), "a report that followed the log is that of one look at everything");
    assert_eq!(store.asked(), (1, 20));
}

fn what_was_not_written_is_written_next_time() {
    let Rig { ledger, home } = Rig::showing(vec![image("/a"), image("/b")]);
    drop(ledger);
    let store = Counting::new();
    let (views, ledger) = views(&home, &store);
    store.full.store(1, SeqCst);
    for _ in 0..2 {
        let refused = wait(views.write()).expect_err("is full");
        assert!(refused.to_string().contains("report.html"), "{refused}");
        assert_eq!(store.asked(), (1, 0));
    }
    store.full.store(0, SeqCst);
    wait(views.write()).expect("writes");
    assert_eq!(store.asked(), (1, 0));
    wait(views.write()).expect("writes");
    assert_eq!(store.asked(), (0, 0));
    // A fact that changes nothing that is shown.
    wait(ledger.append(retry(image("/b"), 5))).expect("is legal");
    wait(views.write()).expect("writes");
    assert_eq!(store.asked(), (1, 0), "a failure is shown");
    wait(ledger.append(retry(image("/b"), 6))).expect("is legal");
    wait(views.write()).expect("writes");
    assert_eq!(store.asked(), (0, 0), "the same failure again");
}

fn the_end_of_the_log_is_found_without_reading_it() {
    let rig = Rig::showing(vec![image("/a")]);
    for sql in [LAST, END] {
        let plan = rig.reader().read(|tx| match tx {
            DbTransaction::Sqlite(_) => {
                let values = &values![1_i64, 1_i64, 1_i64][..if sql.contains("?3") { 3 } else { 2 }];
                tx.list(&format!("EXPLAIN QUERY PLAN {sql}"), values, |row| row.get::<String>(3))
            }
            DbTransaction::Postgres(_) => {
                // Of so few rows a server would rather read all.
                tx.batch("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")?;
                let sql = sql.replace("?1", "1").replace("?2", "1").replace("?3", "1");
                tx.list(&format!("EXPLAIN {sql}"), &[], |row| row.get::<String>(0))
            }
        });
        let plan = plan.expect("explains").join("\n");
        let found = plan.contains("SEARCH events USING INTEGER PRIMARY KEY (rowid>?)")
            || plan.contains("events_pkey on events") && plan.contains("Index Cond: (seq >");
        assert!(found && !plan.contains("Sort") && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}
