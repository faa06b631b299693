//! Many at once, one writer at a time, and readers beside it.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;
use crate::column_codecs::TransactionError;
use crate::{OpenError, Selection};

both![
    concurrent_appends_are_all_durable_and_share_commits,
    facts_are_written_in_the_order_in_which_they_were_told,
    a_reader_sees_one_moment_and_does_not_block_the_writer,
    what_was_appended_before_the_drop_is_written,
    a_page_that_held_up_many_frees_them_in_bounded_transactions,
    a_page_never_overtakes_earlier_ones_that_wait,
    very_much_is_driven_again_in_bounded_transactions,
];

fn transactions(rig: &Rig) -> i64 {
    let sql = "SELECT count(*) FROM commits";
    rig.reader().read(|tx| tx.one(sql, &[], |row| row.get(0))).expect("counts").expect("a row")
}

fn concurrent_appends_are_all_durable_and_share_commits() {
    let rig = Rig::new();
    rig.tell(start());
    let images: Vec<Image> = (0..500).map(|n| image(&format!("/{n}"))).collect();
    rig.tell(read(page("/", 0), vec![], images.clone()));
    let ledger = Arc::new(rig.ledger.expect("it is open"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().expect("a runtime");
    runtime.block_on(async {
        let mut appends = JoinSet::new();
        for (n, image) in images.into_iter().enumerate() {
            // Every tenth is illegal: its neighbours in the group are committed all the same.
            let fact = if n % 10 == 0 { delivered(&format!("unknown {n}"), 0) } else { kept(image, &format!("{n}")) };
            let ledger = Arc::clone(&ledger);
            appends.spawn(async move { (n, ledger.append(fact).await) });
        }
        while let Some(ended) = appends.join_next().await {
            let (n, answer) = ended.expect("no panic");
            assert_eq!(matches!(answer, Err(LedgerError::Illegal { .. })), n % 10 == 0, "{n}: {answer:?}");
        }
    });
    let ledger = Arc::try_unwrap(ledger).ok().expect("nobody else holds it");
    let rig = Rig { ledger: Some(ledger), home: rig.home };
    rig.check();
    let kept = rig.images().iter().filter(|line| !line["image"].is_null()).count();
    assert_eq!(kept, 450);
    assert!(transactions(&rig) < 450, "450 facts took {} groups", transactions(&rig));
    // A commit says how many it holds, and all of them are there: two before, those that are legal, and that fifty are not.
    let sql = "SELECT CAST(sum(records) AS BIGINT) FROM commits";
    assert_eq!(rig.reader().read(|tx| tx.one(sql, &[], |row| row.get::<i64>(0))), Ok(Some(502)));
}

fn facts_are_written_in_the_order_in_which_they_were_told() {
    let rig = Rig::new();
    let facts = [start(), read(page("/", 0), vec![], vec![image("/a")]), kept(image("/a"), "one"), delivered("one", 1)];
    let answers: Vec<_> = facts.into_iter().map(|fact| rig.ledger().append(fact)).collect();
    for answer in answers {
        wait(answer).expect("is legal");
    }
    assert_eq!(rig.statuses(), ["done"]);
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let mut rig = Rig::showing(vec![image("/a")]);
    let second = rig.home.open_for("default").err().expect("is refused");
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    let said = second.to_string();
    assert!(
        said.contains("in use by another faceflow process") && said.contains(&std::process::id().to_string()),
        "{said}"
    );
    let reader = rig.home.reader();
    assert_eq!(images(&reader).len(), 1);
    rig.tell(read(page("/", 0), vec![], vec![image("/b")]));
    assert_eq!(images(&reader).len(), 2);
    drop(rig.ledger.take());
    drop(rig.home.open());
    assert_eq!(reader.check(), Ok(()));
}

fn a_reader_sees_one_moment_and_does_not_block_the_writer() {
    let rig = Rig::showing(vec![image("/a")]);
    rig.reader()
        .read(|tx| {
            let count = || tx.one("SELECT count(*) FROM entries", &[], |row| row.get::<i64>(0));
            let before = count()?;
            rig.try_tell(read(page("/", 0), vec![], vec![image("/b")])).expect("the writer goes on");
            assert_eq!(count()?, before, "still the tx of the beginning");
            Ok::<_, TransactionError>(())
        })
        .expect("reads");
    assert_eq!(rig.images().len(), 2);
}

fn what_was_appended_before_the_drop_is_written() {
    let mut rig = Rig::new();
    let answer = rig.ledger().append(start());
    drop(rig.ledger.take());
    wait(answer).expect("is legal");
    let reader = rig.home.reader();
    assert_eq!(pages(&reader).len(), 1);
}

fn a_page_that_held_up_many_frees_them_in_bounded_transactions() {
    const PAGES: usize = 600;
    let rig = with_small_transactions(400);
    rig.tell(start());
    let path = |n: usize| format!("/p{n}");
    rig.tell(read(page("/", 0), (0..=PAGES).map(|n| page(&path(n), 1)).collect(), vec![]));
    let reads = (1..=PAGES).map(|n| read(page(&path(n), 1), vec![], vec![image(&format!("/i{n}"))]));
    let answers: Vec<_> = reads.map(|fact| rig.ledger().append(fact)).collect();
    assert!(answers.into_iter().all(|answer| wait(answer) == Ok(vec![])), "they wait for the first page");
    let before = transactions(&rig);
    assert_eq!(rig.try_tell(read(page("/p0", 1), vec![], vec![])), Ok(vec![opened("/", 0)]));
    assert_eq!(transactions(&rig) - before, 3, "two hundred pages with an image each in every one");
    let (pages, images) = rig.ledger().tally().expect("counts");
    assert_eq!((pages.open, images.open), (0, PAGES as u64));
    rig.check();
}

/// A ledger that takes up so many pages and images in a transaction.
fn with_small_transactions(transaction_max: usize) -> Rig {
    let mut rig = Rig::new();
    drop(rig.ledger.take());
    let settings = LedgerSettings { transaction_max, ..LedgerSettings::default() };
    rig.ledger = Some(DatabaseLedger::open(rig.home.place(), "default", &settings).expect("opens"));
    rig
}

/// Also while those that wait are being taken up, a few in each transaction.
fn a_page_never_overtakes_earlier_ones_that_wait() {
    let rig = with_small_transactions(4);
    rig.tell(start());
    let path = |n: usize| format!("/p{n}");
    rig.tell(read(page("/", 0), (0..=9).map(|n| page(&path(n), 1)).collect(), vec![]));
    let leads_on = |n: usize| read(page(&path(n), 1), vec![page(&format!("/next/{n}"), 2)], vec![]);
    (1..=8).for_each(|n| drop(rig.tell(leads_on(n))));
    let group = vec![read(page("/p0", 1), vec![], vec![]), leads_on(9)];
    rig.ledger().append_group(group).into_iter().for_each(|answer| drop(wait(answer).expect("is legal")));
    let sql = "SELECT url FROM entries WHERE sequence IS NOT NULL ORDER BY sequence";
    let in_order = rig.home.reader().read(|tx| tx.list(sql, &[], |row| row.get::<String>(0))).expect("reads");
    assert_eq!(in_order, (1..=9).map(|n| url(&format!("/next/{n}")).to_string()).collect::<Vec<_>>());
    rig.check();
}

fn very_much_is_driven_again_in_bounded_transactions() {
    const IMAGES: usize = 120;
    let mut rig = Rig::new();
    drop(rig.ledger.take());
    let settings = LedgerSettings { group_max: 50, ..LedgerSettings::default() };
    rig.ledger = Some(DatabaseLedger::open(rig.home.place(), "default", &settings).expect("opens"));
    let images: Vec<_> = (0..IMAGES).map(|n| image(&format!("/{n}"))).collect();
    let pictures = (0..3).map(|n| kept(images[n].clone(), &format!("{n}")));
    let ends = (0..3).map(|n| dead(Work::Frame(frame(&format!("{n}")))));
    let dead = images[3..].iter().map(|image| dead(image.clone()));
    let facts = [start(), read(page("/", 0), vec![], images.clone())].into_iter();
    let answers: Vec<_> = facts.chain(pictures).chain(ends).chain(dead).map(|fact| rig.ledger().append(fact)).collect();
    answers.into_iter().for_each(|answer| drop(wait(answer).expect("is legal")));
    assert_eq!(rig.ledger().tally().expect("counts").1.dead, IMAGES as u64);
    let before = transactions(&rig);
    let all = Selection { dead: true, ..Selection::default() };
    assert_eq!(wait(rig.ledger().redrive(all.clone())), Ok(IMAGES as u64));
    assert_eq!(transactions(&rig) - before, 3, "50, 50 and 20");
    assert_eq!(rig.ledger().tally().expect("counts").1.open, IMAGES as u64);
    assert_eq!(wait(rig.ledger().redrive(all)), Ok(0));
    rig.check();
}

#[test]
fn a_state_that_is_not_there_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = Reader::open(dir.path().join("nowhere").as_path(), "default", &LedgerSettings::default())
        .err()
        .expect("is not there");
    assert!(matches!(missing, OpenError::Missing { .. }) && missing.to_string().contains("faceflow run"), "{missing}");
    std::fs::write(dir.path().join("file"), "x").expect("writes");
    let refused =
        DatabaseLedger::open(&dir.path().join("file"), "default", &LedgerSettings::default()).err().expect("is a file");
    assert!(matches!(refused, OpenError::Storage { .. }), "{refused}");
}

#[test]
fn impossible_settings_are_named() {
    assert_eq!(LedgerSettings::default().check(), Ok(()));
    let wrong = LedgerSettings { group_max: 0, ..LedgerSettings::default() };
    assert_eq!(wrong.check().expect_err("is impossible").0, "group_max");
    let power: LedgerSettings = serde_json::from_str(r#"{"durability": "power"}"#).expect("parses");
    let dir = tempfile::tempdir().expect("a folder");
    let ledger = DatabaseLedger::open(dir.path(), "default", &power).expect("opens");
    wait(ledger.append(start())).expect("is legal");
}
