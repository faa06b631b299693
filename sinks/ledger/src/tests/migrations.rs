//! States of every older format, with rows in them: brought to ours by whoever writes, and by nobody else.

use faceflow_core::record::{HashKind, Key};

use super::place::Home;
use super::postgres::Server;
use super::*;
use crate::OpenError;
use crate::postgres::address::Address;
use crate::postgres::server::Server as Known;
use crate::sqlite::SqliteBackend;

/// What the tables of a format have.
#[derive(Clone, Copy)]
struct Has {
    shown: bool,
    offers: bool,
    frontier: bool,
    runs: bool,
    /// A log that everything follows from; and whoever writes says which run has what is open.
    log: bool,
    /// Jobs, hashes in a table of their own, and the names of today.
    jobs: bool,
}

/// A site whose start page was read: it shows an image that was detected, one that is owed, and another address of that. A page is
/// owed too. Nobody is at work on it.
fn rows(has: Has) -> String {
    let blob = |bytes: &[u8]| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if has.runs { format!("'\\x{hex}'") } else { format!("x'{hex}'") }
    };
    let entry = |id: i64, kind: &str, path: &str, values: &str| {
        let key = if kind == "page" { Key::page(&url(path)) } else { Key::image(&url(path)) };
        let (key, url) = (blob(&key.0.to_be_bytes()), url(path));
        format!(
            "INSERT INTO entries (id, tenant, site, key, kind, url, state, depth, picture, primary_entry, rank)
            VALUES ({id}, 1, 1, {key}, '{kind}', '{url}', {values});\n"
        )
    };
    let content = content("one");
    let id = blob(&content.id.0);
    let hash = content.hashes.current(HashKind::Dct64).and_then(|hash| hash.bits.as_u64()).expect("it has one");
    let detection = serde_json::to_string(&detection(content.id, (40, 30), 1)).expect("serialises");
    let mut sql = String::new();
    if has.runs {
        let (tenant, whose) = if has.frontier { (", tenant", ", 1") } else { ("", "") };
        sql += "INSERT INTO tenants (id, name) VALUES (1, 'default');\n";
        sql += &format!(
            "INSERT INTO runs (lease_ms, ended_at{tenant}) VALUES (30000, clock_timestamp(){whose}); SET faceflow.run = '1';\n"
        );
    } else {
        sql += "INSERT INTO tenants (id, name) VALUES (1, 'default');\n";
    }
    sql += &format!("INSERT INTO sites (id, tenant, url, pages) VALUES (1, 1, '{}', 2);\n", url("/"));
    sql += &format!(
        "INSERT INTO pictures (id, tenant, content, state, bytes, format, width, height{})
        VALUES (1, 1, {id}, 'settled', 3, 'jpeg', 40, 30{});
        INSERT INTO detections (picture, faces, body) VALUES (1, 1, '{detection}');\n",
        if has.jobs { "" } else { ", phash, distinctive" },
        if has.jobs { String::new() } else { format!(", {}, TRUE", hash as i64) }
    );
    if has.jobs {
        let bits = blob(&hash.to_be_bytes());
        sql += &format!(
            "INSERT INTO jobs (tenant, number, name, priority) VALUES (1, 0, 'default', 5);
            INSERT INTO hashes (picture, kind, version, bits, distinctive) VALUES (1, 'dct64', 1, {bits}, TRUE);\n"
        );
    }
    sql += &entry(1, "page", "/", "'settled', 0, NULL, NULL, NULL");
    sql += &entry(2, "page", "/p", "'open', 1, NULL, NULL, NULL");
    sql += &entry(3, "image", "/a", "'settled', NULL, 1, NULL, NULL");
    sql += &entry(4, "image", "/b", "'open', NULL, NULL, NULL, NULL");
    sql += &entry(5, "image", "/c", "'alternate', NULL, NULL, 4, 0");
    sql += "UPDATE pictures SET main = 3, urls = 1;
        INSERT INTO sightings (image, page) VALUES (3, 1), (4, 1), (5, 1);
        INSERT INTO tallies (tenant, kind, discovered, done, duplicate, rejected, dead, open)
            VALUES (1, 'page', 2, 1, 0, 0, 0, 1), (1, 'image', 3, 1, 0, 0, 0, 2);
        INSERT INTO facts (tenant, at_ms, kind, entry) VALUES (1, 5, 'admitted', 1), (1, 6, 'visited', 1);
        INSERT INTO facts (tenant, at_ms, kind, entry, picture) VALUES (1, 7, 'kept', 3, 1), (1, 8, 'delivered', NULL, 1);\n";
    if has.log {
        sql += "UPDATE tenants SET whole_log = FALSE;\n";
        sql += if has.runs { "UPDATE entries SET run = 1 WHERE state = 'open';\n" } else { "" };
    }
    if has.shown {
        sql += "INSERT INTO shown (site, image) VALUES (1, 3), (1, 4);\n";
    }
    if has.offers {
        sql += "INSERT INTO offers (image, alternate, rank) VALUES (4, 5, 0);\n";
    }
    if has.frontier {
        sql += "UPDATE sites SET images = 2, turns = 9; UPDATE entries SET turn = 2 WHERE id = 2;\n";
    }
    if has.jobs {
        let renamed = [
            ("INTO sightings", "INTO page_images"),
            ("INTO facts", "INTO events"),
            ("INTO shown", "INTO site_images"),
            ("'kept'", "'stored'"),
            ("'delivered'", "'detected'"),
            ("turns =", "sequences ="),
            ("turn =", "sequence ="),
        ];
        sql = renamed.into_iter().fold(sql, |sql, (old, new)| sql.replace(old, new));
    }
    sql
}

/// Everything that was there is there, adds up, and goes on.
fn goes_on(home: &Home) {
    let ledger = home.open();
    assert_eq!(ledger.audit(3), Ok(vec![]));
    let (pages, images) = ledger.tally().expect("counts");
    assert_eq!((pages.discovered, images.discovered, images.done), (2, 3, 1));
    assert_eq!(owed(&ledger).len(), 2, "a page and an image");
    let why = ledger.reader().replay_differences().expect_err("its log is not whole").to_string();
    assert!(why.contains("begins in the middle"), "{why}");
    for fact in [
        read(page("/p", 1), vec![], vec![image("/a"), image("/d")]),
        rejected(image("/b")),
        kept(image("/c"), "two"),
        kept(image("/d"), "one"),
        delivered("two", 1),
    ] {
        wait(ledger.append(fact)).expect("is legal");
    }
    assert_eq!(ledger.audit(3), Ok(vec![]));
    let statuses: Vec<_> = testing::images(ledger.reader()).iter().map(|line| line["status"].clone()).collect();
    assert_eq!(statuses, ["done", "rejected", "done", "duplicate"]);
}

#[test]
fn every_older_format_of_a_file_is_brought_to_ours_with_its_rows() {
    for format in 1..=11 {
        let home = Home::new();
        let folder = SqliteBackend::new(home.path(), &LedgerSettings::default());
        let mut old = rusqlite::Connection::open(folder.file()).expect("opens");
        folder.migrate(&mut old, format).expect("the steps apply");
        let has = Has {
            shown: format >= 3,
            offers: format >= 4,
            frontier: format >= 5,
            runs: false,
            log: format >= 8,
            jobs: format >= 9,
        };
        old.execute_batch(&rows(has)).expect("inserts");
        drop(old);
        let refused = Reader::open(home.place(), "default", &LedgerSettings::default()).err().expect("is refused");
        assert!(matches!(refused, OpenError::Older { oldest: 12, .. }), "{refused}");
        assert!(refused.to_string().contains("faceflow run"), "{refused}");
        let version = |home: &Home| {
            let file = rusqlite::Connection::open(home.path().join("ledger.sqlite")).expect("opens");
            file.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).expect("reads")
        };
        assert_eq!(version(&home), format as i64, "whoever reads changes nothing");
        goes_on(&home);
        assert_eq!(version(&home), 12);
    }
}

/// A schema of its own in an older format, with rows.
fn older(format: usize) -> Option<(Home, Known)> {
    let home = Server::shared().map(|server| Home::on_server(server, "postgres"))?;
    let server = Known::new(Address::new(&home.name), &LedgerSettings::default()).expect("an address");
    let mut client = server.connect().expect("connects");
    server.migrate(&mut client, format).expect("the steps apply");
    let has = Has { shown: true, offers: true, frontier: format >= 2, runs: true, log: format >= 5, jobs: format >= 6 };
    client.batch(&rows(has)).expect("inserts");
    // Numbers go on after those that were given.
    let numbers = ["entries", "pictures", "sites", "tenants"]
        .map(|table| format!("SELECT setval(pg_get_serial_sequence('{table}', 'id'), 100)"));
    client.batch(&numbers.join("; ")).expect("sets");
    Some((home, server))
}

#[test]
fn every_older_format_on_a_server_is_brought_to_ours_with_its_rows() {
    for format in 1..=8 {
        let Some((home, _server)) = older(format) else { return };
        let refused = Reader::open(home.place(), "default", &LedgerSettings::default()).err().expect("is refused");
        assert!(matches!(refused, OpenError::Older { oldest: 9, .. }), "{refused}");
        goes_on(&home);
    }
}

#[test]
fn a_format_is_not_changed_under_an_older_run_that_lives() {
    let Some((home, server)) = older(5) else { return };
    let living = server.connect().expect("connects");
    let begin = "INSERT INTO runs (id, lease_ms, tenant) VALUES (7, 30000, 1);
        SELECT pg_advisory_lock_shared(hashtext('faceflow ' || current_schema()), 7)";
    living.batch(begin).expect("begins");
    let refused = home.open_for("default").err().expect("is refused");
    assert!(matches!(refused, OpenError::InOlderUse { found: 5, runs: 1, .. }), "{refused}");
    assert!(refused.to_string().contains("wait for them to end"), "{refused}");
    living.batch("UPDATE runs SET ended_at = clock_timestamp() WHERE id = 7").expect("ends");
    goes_on(&home);
}
