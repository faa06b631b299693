//! Runs that share a state on a server: who gets which work, who may speak about it, and what a dying server leaves.

use std::collections::BTreeSet;
use std::sync::Barrier;

use faceflow_core::record::Key;

use super::place::Home;
use super::postgres::Server;
use super::*;
use crate::database::Connection;
use crate::postgres::address::Address;
use crate::postgres::lease::Lease;
use crate::postgres::server::Server as Known;
use crate::working_set::load::questions;
use crate::{OpenError, Selection, StateLocation};

fn home() -> Option<Home> {
    Server::shared().map(|server| Home::on_server(server, "postgres"))
}

/// A state whose start page shows `images`, with nobody at work on it.
fn showing(home: &Home, images: usize) {
    let ledger = home.open();
    let images = (0..images).map(|n| image(&format!("/{n}"))).collect();
    wait(ledger.append(start())).expect("is legal");
    wait(ledger.append(read(page("/", 0), vec![page("/p", 1)], images))).expect("is legal");
}

/// Everything a ledger is given, a few at a time.
fn taken(ledger: &DatabaseLedger) -> Vec<Work> {
    owed(ledger).into_iter().map(|(_, work)| work).collect()
}

fn key(work: &Work) -> Key {
    match work {
        Work::Page(page) => page.key(),
        Work::Image(image) => image.key(),
        Work::Frame(frame) => panic!("{frame:?} is not owed"),
    }
}

/// Lets the lease of every run expire: the server's clock is the one that counts, so its notes are changed.
fn expire(home: &Home) {
    home.sql("UPDATE runs SET heartbeat_at = heartbeat_at - interval '1 day'");
}

fn storage(answer: Result<Vec<QueueUpdate>, LedgerError>) -> String {
    match answer {
        Err(LedgerError::Storage { place, reason }) => format!("{place}: {reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_runs_never_receive_the_same_work() {
    let Some(home) = home() else { return };
    showing(&home, 300);
    let ledgers = [home.open(), home.open(), home.open()];
    let together = Barrier::new(ledgers.len());
    let shares: Vec<Vec<Key>> = std::thread::scope(|scope| {
        let threads = ledgers.each_ref().map(|ledger| {
            scope.spawn(|| {
                together.wait();
                taken(ledger).iter().map(key).collect()
            })
        });
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let all: Vec<Key> = shares.concat();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "nothing twice");
    assert_eq!(all.len(), 301, "and nothing left out");
    assert_eq!(
        ledgers.each_ref().map(|ledger| taken(ledger).len()).iter().sum::<usize>(),
        301,
        "a run keeps what it has"
    );
}

#[test]
fn a_run_that_ends_gives_its_work_back_and_new_work_is_its_own() {
    let Some(home) = home() else { return };
    showing(&home, 3);
    let (first, second) = (home.open(), home.open());
    assert_eq!(taken(&first).len(), 4);
    assert_eq!(taken(&second), []);
    wait(first.append(read(page("/p", 1), vec![], vec![image("/new")]))).expect("it has the page");
    let late = home.open();
    assert_eq!(taken(&late), [], "what a run admits is its own");
    drop(first);
    assert_eq!(taken(&late).len(), 4, "three images and the new one");
    assert_eq!(taken(&second), []);
}

#[test]
fn a_tenants_work_goes_to_runs_of_that_tenant() {
    let Some(home) = home() else { return };
    showing(&home, 3);
    let other = home.open_for("other").expect("opens");
    assert_eq!(taken(&other), []);
    wait(other.append(start())).expect("it has a ledger of its own");
    let first = home.open();
    assert_eq!(taken(&first).len(), 4, "whoever else lives");
    drop(first);
    assert_eq!(taken(&other).len(), 1);
    assert_eq!(taken(&home.open()).len(), 4);
}

#[test]
fn an_expired_lease_is_taken_over_and_the_late_run_is_refused() {
    let Some(home) = home() else { return };
    showing(&home, 2);
    let old = home.open();
    assert_eq!(taken(&old).len(), 3);
    let new = home.open();
    expire(&home);
    drop(home.open());
    let newer = home.open();
    assert_eq!(taken(&newer).len(), 3, "nobody living has it");
    let late = storage(wait(old.append(kept(image("/0"), "one"))));
    assert!(late.contains("lost its lease") && late.contains("postgres://"), "{late}");
    assert!(
        old.known_pictures(JobId::FIRST.tenant, &mut |_| ()).is_err()
            && wait(old.redrive(Selection::default())).is_err()
    );
    home.sql("BEGIN; SELECT id FROM tenants FOR NO KEY UPDATE NOWAIT; COMMIT"); // What was refused keeps nobody waiting.
    // Nor does one speak again from which nothing was taken.
    let late = storage(wait(new.append(start())));
    assert!(late.contains("lost its lease"), "{late}");
    wait(newer.append(kept(image("/0"), "one"))).expect("it has the image");
    drop(old);
    let rig = Rig { ledger: Some(newer), home };
    rig.check();
    assert_eq!(rig.statuses(), ["open", "open"]);
}

#[test]
fn a_fact_about_what_a_living_run_has_is_refused_alone() {
    let Some(home) = home() else { return };
    showing(&home, 2);
    let (owner, other) = (home.open(), home.open());
    assert_eq!(taken(&owner).len(), 3);
    for fact in
        [kept(image("/0"), "one"), dead(image("/0")), retry(page("/p", 1), 5), read(page("/p", 1), vec![], vec![])]
    {
        let answers = [other.append(fact.clone()), other.append(start())];
        let [refused, fine] = answers.map(wait);
        let held = matches!(&refused, Err(LedgerError::Held { key, .. }) if key.contains("http://a.example/"));
        assert!(held, "{refused:?}");
        assert!(fine.is_ok(), "{fact:?}");
        assert_eq!(other.quarantined(), Ok(0), "the other run does it");
    }
    // What it is shown again is no news, and what it finds itself is its own.
    let q = Page { site: url("/q"), ..page("/q", 0) };
    wait(other.append(admitted(vec![q.clone()]))).expect("new");
    wait(other.append(read(q, vec![], vec![image("/0"), image("/own")]))).expect("it has the page");
    wait(other.append(kept(image("/own"), "own"))).expect("it has the image");
    wait(owner.append(kept(image("/0"), "own"))).expect("it has the image");
    // Who fails to look at a picture says nothing about another's; who looked, does.
    for failed in [retry(Work::Frame(frame("own")), 5), dead(Work::Frame(frame("own")))] {
        assert_eq!(wait(owner.append(failed)), Ok(vec![]), "and does not end the run that failed");
    }
    let ask = |queue| DispatchRequest { queue, max: 9, held: vec![], again: false };
    let due =
        |ledger: &DatabaseLedger| ledger.due_work(u64::MAX, &[ask(pictures_queue())]).expect("reads").remove(0).work;
    assert_eq!((due(&owner), due(&other)), (vec![], vec![]), "it is due nowhere");
    wait(owner.append(delivered("own", 1))).expect("an answer is an answer");
    wait(other.append(dead(Work::Frame(frame("own"))))).expect("too late to matter");
    let rig = Rig { ledger: Some(owner), home };
    rig.check();
    assert_eq!(rig.statuses(), ["done", "open", "duplicate"]);
}

#[test]
fn runs_that_left_nothing_do_not_add_up() {
    let Some(home) = home() else { return };
    showing(&home, 2);
    home.sql(
        "INSERT INTO runs (lease_ms, ended_at, tenant)
        SELECT 1000, clock_timestamp(), (SELECT id FROM tenants) FROM generate_series(1, 1000)",
    );
    let successor = home.open();
    successor.known_pictures(JobId::FIRST.tenant, &mut |_| {}).expect("reads");
    let left = "SELECT count(*) FROM runs WHERE successor IS NOT NULL";
    let left = successor.reader().read(|tx| tx.one(left, &[], |row| row.get::<i64>(0)));
    assert_eq!(left, Ok(Some(1)), "the one that left work");
    let rows = successor.reader().read(|tx| tx.one("SELECT count(*) FROM runs", &[], |row| row.get::<i64>(0)));
    assert_eq!(rows, Ok(Some(2)), "that one and this: the rows of the others are gone");
    assert_eq!(taken(&successor).len(), 3);
}

#[test]
fn another_runs_pages_pictures_and_retries_are_left_to_it() {
    let Some(home) = home() else { return };
    showing(&home, 2);
    let owner = home.open();
    let pictures = |ledger: &DatabaseLedger| {
        let mut pictures = Vec::new();
        ledger.known_pictures(JobId::FIRST.tenant, &mut |picture| pictures.push(picture.content)).expect("reads");
        pictures
    };
    assert_eq!(taken(&owner).len(), 3);
    wait(owner.append(kept(image("/0"), "one"))).expect("it has the image");
    wait(owner.append(retry(image("/1"), 9))).expect("it has the image");
    let other = home.open();
    assert_eq!((pictures(&other), taken(&other)), (vec![], vec![]));
    assert_eq!(wait(other.redrive(Selection { dead: true, waiting: true, urls: vec![] })), Ok(0), "it waits elsewhere");
    assert_eq!(pictures(&owner), [content("one")]);
    drop(owner);
    assert_eq!((pictures(&other), taken(&other).len()), (vec![content("one")], 2));
    let third = home.open();
    assert_eq!((pictures(&third), taken(&third)), (vec![], vec![]), "they were taken with the asking");
    assert_eq!(
        wait(third.redrive(Selection { dead: true, waiting: true, urls: vec![] })),
        Ok(0),
        "and are the other's now"
    );
    // Its successor's successor has them too.
    drop(other);
    assert_eq!((pictures(&third), taken(&third).len()), (vec![content("one")], 2));
    wait(third.append(read(page("/p", 1), vec![], vec![]))).expect("it has the page");
}

#[test]
fn of_the_runs_that_look_again_one_does_and_another_takes_its_place() {
    let Some(home) = home() else { return };
    showing(&home, 1);
    let web = QueueId::of(JobId::FIRST, &url("/"));
    let ask = |queue| [DispatchRequest { queue, max: 9, held: vec![], again: true }];
    let given = |ledger: &DatabaseLedger, queue| ledger.due_work(5, &ask(queue)).expect("reads").remove(0);
    let streams = [home.open(), home.open()];
    for stream in &streams {
        let mut queues = vec![];
        stream.queues(JobId::FIRST, true, &mut |opened| queues.push(opened)).expect("reads");
        assert!(queues.contains(&QueueUpdate { queue: pictures_queue(), due: 0, again: true }), "{queues:?}");
    }
    let [first, second] = streams;
    assert_eq!((given(&first, pictures_queue()).next, given(&second, web).next), (None, None), "there is nothing yet");
    assert!(given(&second, pictures_queue()).next > Some(5), "it asks again later, to see who looks");
    assert_eq!(taken(&first).len(), 2);
    wait(first.append(read(page("/p", 1), vec![], vec![]))).expect("it has the page");
    wait(first.append(with_a_chance(dead(image("/0")), 5))).expect("it has the image");
    assert_eq!(given(&first, web).work.len(), 1);
    let other = given(&second, web);
    assert_eq!((other.work.len(), other.next.is_some_and(|next| next > 5)), (0, true), "it is left to the first");
    let all = Selection { dead: true, waiting: true, urls: vec![] };
    assert_eq!(wait(second.redrive(all)), Ok(0), "what is being tried is not driven");

    // What it leaves, open or kept, is with the other while that runs.
    let q = Page { site: url("/q"), ..page("/q", 0) };
    wait(first.append(admitted(vec![q.clone()]))).expect("new");
    wait(first.append(read(q, vec![page("/r", 1)], vec![image("/2")]))).expect("it has the page");
    wait(first.append(kept(image("/2"), "two"))).expect("it has the image");
    drop(first);
    let claimed = second.due_work(5, &ask(pictures_queue())).expect("reads");
    let said = |claimed: &[DispatchReply], queue| claimed[1..].iter().any(|claimed| (claimed.queue) == queue);
    assert!(said(&claimed, web), "{claimed:?}");
    assert_eq!((given(&second, web).work.len(), given(&second, pictures_queue()).work.len()), (2, 1));
    wait(second.append(delivered("two", 1))).expect("it has the picture");

    // News of another run reach it once in a lease.
    let other = "http://other.example/";
    let batch = home.open();
    wait(batch.append(admitted(vec![page(other, 0)]))).expect("new");
    wait(batch.append(with_a_chance(rejected(page(other, 0)), 5))).expect("it has the page");
    let later = |ledger: &DatabaseLedger, now| ledger.due_work(now, &ask(pictures_queue())).expect("reads");
    assert!(!said(&later(&second, 6), queue_at(&url(other))));
    let lease_ms = LedgerSettings::default().lease_ms;
    assert!(said(&later(&second, 5 + lease_ms), queue_at(&url(other))));
    expire(&home);
    let lost = second.due_work(9, &ask(pictures_queue())).expect_err("its lease is over").to_string();
    assert!(lost.contains("lost its lease"), "{lost}");
}

#[test]
fn a_run_that_cannot_give_a_sign_of_life_writes_nothing_more() {
    let Some(home) = home() else { return };
    let settings = LedgerSettings { lease_ms: 300, ..LedgerSettings::default() };
    let ledger = DatabaseLedger::open(home.place(), "default", &settings).expect("opens");
    wait(ledger.append(start())).expect("it lives");
    let locked = home.locked("runs");
    let refused = (0..).find_map(|_| wait(ledger.append(start())).err()).expect("in the end");
    assert!(refused.to_string().contains("lost its lease of 300 ms"), "{refused}");
    drop(locked);
    assert!(wait(ledger.append(start())).is_err(), "and it does not come back");
}

#[test]
fn what_a_group_touches_is_looked_up_by_its_keys_however_little_there_was_when_it_was_planned() {
    let Some(home) = home() else { return };
    let ledger = home.open();
    for (n, (question, parameters)) in questions().enumerate() {
        let plan = ledger.reader().read(|tx| {
            let nothing = vec!["NULL"; parameters].join(", ");
            tx.batch("SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off")?;
            tx.batch(&format!("PREPARE question{n} AS {question}"))?;
            tx.list(&format!("EXPLAIN EXECUTE question{n}({nothing})"), &[], |row| row.get::<String>(0))
        });
        let plan = plan.expect("is planned");
        let filtered =
            |line: &&String| line.contains("Filter") && !line.contains("'alternate'") || line.contains("Seq Scan");
        assert_eq!(plan.iter().find(filtered), None, "{question}: {plan:#?}");
    }
}

#[test]
fn sessions_that_change_between_transactions_are_refused() {
    let Some(home) = home() else { return };
    drop(home.open());
    let server = Known::new(Address::new(&home.name), &LedgerSettings::default()).expect("an address");
    let connect = || Connection::Postgres(server.connect_writer().expect("connects"));
    let mut own = connect();
    let lease = Lease::begin(&server, &mut own, None).expect("begins");
    let others = own.write(|tx| lease.living(tx)).expect("it lives");
    assert!(others.is_empty(), "{others:?}");
    // What a pooler does: the next transaction is served by another process.
    let refused = connect().write(|tx| lease.living(tx)).expect_err("its locks are elsewhere").to_string();
    assert!(refused.contains("pool_mode=session"), "{refused}");
}

#[test]
fn openers_at_once_make_one_schema() {
    let Some(home) = home() else { return };
    let together = Barrier::new(6);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (home, together) = (&home, &together);
            scope.spawn(move || {
                together.wait();
                let ledger = home.open_for(&format!("tenant{n}")).expect("opens");
                wait(ledger.append(start())).expect("is legal");
            });
        }
    });
    let formats = home.open().reader().read(|tx| tx.one("SELECT count(*) FROM migrations", &[], |row| row.get(0)));
    assert_eq!(formats, Ok(Some(9_i64)));
}

#[test]
fn a_newer_format_a_missing_state_and_changed_facts_are_refused() {
    let Some(home) = home() else { return };
    let missing = Reader::open(home.place(), "default", &LedgerSettings::default()).err().expect("is not there");
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    let ledger = home.open();
    wait(ledger.append(start())).expect("is legal");
    for statement in ["UPDATE events SET at_ms = 1", "DELETE FROM events", "TRUNCATE events"] {
        assert!(home.try_sql(statement).expect_err("is refused").contains("never"), "{statement}");
    }
    home.sql("INSERT INTO migrations (format, reader_min, writer_min) VALUES (99, 99, 99)");
    let reader = Reader::open(home.place(), "default", &LedgerSettings::default()).err();
    for refused in [home.open_for("default").err(), reader] {
        let refused = refused.expect("is refused");
        assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused}");
    }
}

#[test]
fn a_login_that_is_refused_is_told_what_to_correct() {
    let Some(home) = home() else { return };
    home.sql(
        "CREATE ROLE guarded LOGIN PASSWORD 'right';
        DO $$ BEGIN EXECUTE format(
            'COPY (VALUES (''local all guarded scram-sha-256''), (''local all all trust'')) TO %L',
            current_setting('hba_file'));
        END $$;
        SELECT pg_reload_conf()",
    );
    let refused = |from: &str, to: &str| {
        let place = StateLocation::new(&home.name.replace(from, to));
        DatabaseLedger::open(place, "default", &LedgerSettings::default()).err().map(|error| error.to_string())
    };
    // The server takes a moment to read its file again.
    let unguarded = || refused("postgres@", "guarded@").is_none_or(|said| !said.contains("password"));
    while unguarded() {}
    for (from, to, words) in [
        ("postgres@", "nobody@", ["role \"nobody\" does not exist", "user name in the address"]),
        ("postgres@", "guarded@", ["password missing", "PGPASSWORD"]),
        ("postgres@", "guarded:wrong@", ["password authentication failed", "PGPASSWORD"]),
        ("/postgres?", "/nowhere?", ["database \"nowhere\" does not exist", "CREATE DATABASE"]),
    ] {
        let said = refused(from, to).expect("is refused");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!said.contains("the same command again") && !said.contains("wrong"), "{said}");
    }
}

#[test]
fn both_databases_have_the_same_columns() {
    let Some(home) = home() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let list = |place: StateLocation, sql: &str| -> BTreeSet<(String, String)> {
        let ledger = DatabaseLedger::open(place, "default", &LedgerSettings::default()).expect("opens");
        let columns = ledger.reader().read(|tx| tx.list(sql, &[], |row| Ok((row.get(0)?, row.get(1)?))));
        columns.expect("reads").into_iter().collect()
    };
    let file = "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name <> 'migrations' AND c.name <> 'run'";
    let server = "SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND c.relnamespace = current_schema()::regnamespace
        AND c.relname NOT IN ('runs', 'migrations') AND a.attname <> 'run'";
    assert_eq!(list(folder.path().into(), file), list(home.place(), server));
}

#[test]
fn text_with_a_character_that_a_server_does_not_store_is_written_without_it() {
    let Some(home) = home() else { return };
    showing(&home, 1);
    let rig = Rig { ledger: Some(home.open()), home };
    let fault = Fault::permanent(Class::Refused, "http_404", "a\0b");
    rig.tell(Fact::Failed(Disposition::Rejected { work: image("/0").into(), fault, again: None }));
    let detail = "SELECT detail FROM entries WHERE state = 'rejected'";
    let detail = rig.reader().read(|tx| tx.one(detail, &[], |row| row.get::<String>(0)));
    assert_eq!(detail, Ok(Some("a\u{fffd}b".to_owned())));
}

#[test]
fn what_a_killed_server_had_answered_is_there_and_the_rest_is_whole_or_not_at_all() {
    let Some(server) = Server::start() else { return };
    let home = Home::on_server(&server, "postgres:secret");
    showing(&home, 2_000);
    // Many groups, so that the server dies between two of them or within one.
    let settings = LedgerSettings { group_max: 50, ..LedgerSettings::default() };
    let ledger = DatabaseLedger::open(home.place(), "default", &settings).expect("opens");
    assert_eq!(taken(&ledger).len(), 2_001);
    let append = |n: usize| ledger.append(kept(image(&format!("/{n}")), &format!("{n}")));
    let mut appends = (0..1_000).map(append).collect::<Vec<_>>().into_iter();
    let first = wait(appends.next().expect("there are some"));
    server.kill();
    // Those that are asked for now find it dead, however fast it was with the others.
    let appends = appends.chain((1_000..2_000).map(append).collect::<Vec<_>>());
    let (mut answered, mut failed) = (Vec::new(), Vec::new());
    for (n, outcome) in std::iter::once(first).chain(appends.map(wait)).enumerate() {
        match outcome {
            Ok(_) => answered.push(n),
            Err(error) => failed.push(error.to_string()),
        }
    }
    assert!(!answered.is_empty(), "the first was");
    let unclear =
        failed.iter().find(|said| !said.contains("postgres:***@") || !said.contains("the same command again"));
    assert!(!failed.is_empty() && unclear.is_none(), "{} failed: {unclear:?}", failed.len());
    drop(ledger);
    // Those that served us leave when they notice; until then it does not start.
    assert!((0..60).any(|_| server.up()), "it starts again");
    expire(&home);
    let rig = Rig { ledger: Some(home.open()), home };
    rig.check();
    let line = |n: usize| {
        rig.reader().read(|tx| {
            tx.one(&format!("SELECT picture FROM entries WHERE url = 'http://a.example/{n}'"), &[], |row| {
                row.get::<Option<i64>>(0)
            })
        })
    };
    assert!(answered.iter().all(|n| matches!(line(*n), Ok(Some(Some(_))))));
    let counts = "SELECT (SELECT count(*) FROM events WHERE kind = 'stored'), (SELECT count(*) FROM entries WHERE picture IS NOT NULL),
        (SELECT count(*) FROM pictures)";
    let counts = rig.reader().read(|tx| tx.one(counts, &[], |row| Ok([row.get::<i64>(0)?, row.get(1)?, row.get(2)?])));
    let [logged, settled, pictures] = counts.expect("reads").expect("a row");
    assert!(
        logged == settled && settled == pictures && logged >= answered.len() as i64,
        "{logged} {settled} {pictures}"
    );
    assert_eq!(taken(rig.ledger()).len() as i64, 2_001 - settled, "the rest is owed");
}
