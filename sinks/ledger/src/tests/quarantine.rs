//! Facts that the database refuses, planted by triggers: each is quarantined alone, everything else is written, and a retry drives
//! it again.

use super::place::Database;
use super::*;
use crate::Selection;

both![
    one_refused_fact_of_a_group_is_quarantined_alone,
    of_a_page_only_the_refused_image_is_left_out,
    a_refused_image_of_a_page_that_waits_is_left_out,
    a_refused_start_page_is_driven_again,
    a_page_that_is_refused_itself_is_dead,
    where_the_end_is_refused_too_the_work_is_withheld,
    a_refused_detection_ends_its_picture,
    a_retry_that_is_refused_passes_over_it,
    a_step_that_cannot_be_is_quarantined,
    after_a_kill_the_same_fact_is_quarantined_once,
    a_step_that_cannot_be_of_open_work_is_not_tried_again,
    what_was_refused_or_removed_was_taken_in,
    a_database_that_is_broken_still_ends_the_run,
];

/// Makes the database refuse rows of a table.
pub(super) fn plant(rig: &Rig, event: &str, table: &str, when: &str) {
    if rig.home.database() == Database::Postgres {
        rig.home.sql(&format!(
            "CREATE OR REPLACE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'poison here'; END $$;
            CREATE TRIGGER poison BEFORE {event} ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION poison()"
        ));
        return;
    }
    on_file(
        rig,
        &format!(
            "CREATE TRIGGER poison BEFORE {event} ON {table} WHEN {when} BEGIN SELECT RAISE(ABORT, 'poison here'); END"
        ),
    );
}

fn cure(rig: &Rig, table: &str) {
    match rig.home.database() {
        Database::Postgres => rig.home.sql(&format!("DROP TRIGGER poison ON {table}")),
        Database::Sqlite => on_file(rig, "DROP TRIGGER poison"),
    }
}

fn on_file(rig: &Rig, statements: &str) {
    let connection = rusqlite::Connection::open(rig.home.path().join("ledger.sqlite")).expect("opens");
    connection.execute_batch(statements).expect("runs");
}

pub(super) fn at(path: &str) -> String {
    format!("NEW.url = '{}'", url(path))
}

fn settled(path: &str) -> String {
    format!("{} AND NEW.state = 'settled'", at(path))
}

fn retry_dead(rig: &Rig) -> u64 {
    wait(rig.ledger().redrive(Selection { dead: true, ..Selection::default() })).expect("drives")
}

/// What is in the quarantine: kinds and what they are about.
fn quarantined(rig: &Rig) -> Vec<(String, String)> {
    let facts = rig.reader().quarantined(10).expect("reads");
    assert_eq!(rig.reader().quarantined_count(), Ok(facts.len() as u64));
    assert_eq!(rig.ledger().quarantined(), Ok(facts.len() as u64));
    facts
        .into_iter()
        .map(|fact| {
            assert!(fact.reason.contains("poison here"), "{fact:?}");
            (fact.kind, fact.subject)
        })
        .collect()
}

fn about(kind: &str, path: &str) -> (String, String) {
    (kind.to_owned(), url(path).to_string())
}

pub(super) fn is_quarantined(answer: &Result<Vec<QueueUpdate>, LedgerError>) -> bool {
    matches!(answer, Err(LedgerError::Quarantined { reason, .. }) if reason.contains("poison here"))
}

fn one_refused_fact_of_a_group_is_quarantined_alone() {
    let images: Vec<Image> = (0..100).map(|n| image(&format!("/{n}"))).collect();
    let rig = Rig::showing(images.clone());
    plant(&rig, "UPDATE", "entries", &settled("/57"));
    let facts = images.iter().enumerate().map(|(n, image)| kept(image.clone(), &format!("{n}"))).collect();
    let answers: Vec<_> = rig.ledger().append_group(facts).into_iter().map(wait).collect();
    for (n, answer) in answers.iter().enumerate() {
        assert!(if n == 57 { is_quarantined(answer) } else { answer.is_ok() }, "{n}: {answer:?}");
    }
    rig.check();
    let line = rig.line("/57");
    assert_eq!((&line["status"], &line["reason"]), (&"dead".into(), &"quarantined".into()));
    assert_eq!(quarantined(&rig), [about("stored", "/57")]);
    let named = rig.reader().quarantined_at(&url("/57")).expect("reads");
    assert!(matches!(&named[..], [fact] if fact.reason.contains("poison here")), "{named:?}");
    assert_eq!(rig.owed(), [], "all the others are stored");
    cure(&rig, "entries");
    assert_eq!(retry_dead(&rig), 1);
    rig.check();
    assert_eq!(rig.owed(), [(0, "/57".to_owned())]);
    assert_eq!(quarantined(&rig), []);
    rig.tell(kept(image("/57"), "57"));
}

fn of_a_page_only_the_refused_image_is_left_out() {
    let rig = Rig::new();
    rig.tell(start());
    plant(&rig, "INSERT", "entries", &format!("{} OR {}", at("/3"), at("/bad")));
    let images = (0..9).map(|n| image(&format!("/{n}"))).collect();
    rig.tell(read(page("/", 0), vec![page("/good", 1), page("/bad", 1)], images));
    assert_eq!(rig.images().len(), 8);
    assert_eq!(rig.pages().len(), 2);
    let mut left_out = quarantined(&rig);
    left_out.sort();
    assert_eq!(left_out, [about("image", "/3"), about("page", "/bad")]);
    let rig = rig.reopened();
    assert_eq!(retry_dead(&rig), 0, "they are still refused, and stay");
    assert_eq!(quarantined(&rig).len(), 2);
    cure(&rig, "entries");
    assert_eq!(retry_dead(&rig), 2);
    rig.check();
    assert_eq!(quarantined(&rig), []);
    assert_eq!(rig.line("/3")["status"], "open");
    assert_eq!(rig.pages().len(), 3);
}

fn a_refused_image_of_a_page_that_waits_is_left_out() {
    let rig = Rig::new();
    rig.tell(start());
    rig.tell(read(page("/", 0), (0..4).map(|n| page(&format!("/p{n}"), 1)).collect(), vec![]));
    plant(&rig, "INSERT", "entries", &at("/bad"));
    let shown = |n: usize| vec![image(&format!("/i{n}")), image(if n == 2 { "/bad" } else { "/fine" })];
    for n in 1..4 {
        rig.tell(read(page(&format!("/p{n}"), 1), vec![], shown(n)));
    }
    assert_eq!(rig.images().len(), 0, "they wait for the first page");
    rig.tell(read(page("/p0", 1), vec![], vec![image("/i0")]));
    assert_eq!(rig.statuses().len(), 5, "/fine and /i0 to /i3");
    assert_eq!(quarantined(&rig), [about("image", "/bad")]);
    assert!(rig.pages().iter().all(|line| line["status"] == "done"));
    rig.reopened().check();
}

fn a_refused_start_page_is_driven_again() {
    let rig = Rig::new();
    plant(&rig, "INSERT", "entries", &at("/bad"));
    let bad = Page::start(JobId::FIRST, url("/bad"));
    rig.tell(admitted(vec![page("/", 0), bad]));
    assert_eq!(rig.owed(), [(0, "/".to_owned())]);
    assert_eq!(quarantined(&rig), [about("page", "/bad")]);
    cure(&rig, "entries");
    let named = Selection { dead: true, waiting: false, urls: vec![url("/bad")] };
    assert_eq!(wait(rig.ledger().redrive(named)), Ok(1));
    rig.check();
    assert_eq!(rig.owed().len(), 2);
}

fn a_page_that_is_refused_itself_is_dead() {
    let rig = Rig::new();
    rig.tell(start());
    plant(&rig, "UPDATE", "entries", &settled("/"));
    assert!(is_quarantined(&rig.try_tell(read(page("/", 0), vec![page("/p", 1)], vec![image("/i")]))));
    rig.check();
    let pages = rig.pages();
    assert_eq!((pages.len(), &pages[0]["reason"]), (1, &"quarantined".into()));
    assert_eq!(rig.owed(), []);
    cure(&rig, "entries");
    assert_eq!(retry_dead(&rig), 1);
    rig.tell(read(page("/", 0), vec![page("/p", 1)], vec![image("/i")]));
    assert_eq!(quarantined(&rig), []);
}

fn where_the_end_is_refused_too_the_work_is_withheld() {
    let rig = Rig::showing(vec![image("/a"), image("/b")]);
    plant(&rig, "UPDATE", "entries", &at("/a"));
    for fact in [kept(image("/a"), "one"), retry(image("/a"), 5)] {
        assert!(is_quarantined(&rig.try_tell(fact)));
        rig.check();
        assert_eq!(rig.owed(), [(0, "/b".to_owned())], "it is open and not given out");
    }
    assert_eq!(rig.line("/a")["status"], "open");
    let rig = rig.reopened();
    assert_eq!(rig.owed(), [(0, "/b".to_owned())]);
    cure(&rig, "entries");
    assert_eq!(quarantined(&rig).len(), 2, "two facts about it");
    assert_eq!(retry_dead(&rig), 1);
    rig.check();
    assert_eq!(rig.owed().len(), 2);
    rig.tell(kept(image("/a"), "one"));
}

fn a_refused_detection_ends_its_picture() {
    let rig = Rig::showing(vec![image("/a"), image("/b")]);
    rig.tell_all([kept(image("/a"), "one"), kept(image("/b"), "two")]);
    plant(
        &rig,
        "UPDATE",
        "pictures",
        "NEW.state = 'settled' AND NEW.bytes = 3 AND NEW.content = OLD.content AND NEW.urls = 1",
    );
    let answers = rig.ledger().append_group(vec![delivered("one", 2), ruled("two", "one", 3)]);
    let answers: Vec<_> = answers.into_iter().map(wait).collect();
    assert!(is_quarantined(&answers[0]), "{answers:?}");
    // The representative has no answer, so it stands for nobody.
    assert!(matches!(answers[1], Err(LedgerError::Illegal { .. })), "{answers:?}");
    rig.check();
    assert_eq!((&rig.line("/a")["status"], &rig.line("/a")["reason"]), (&"dead".into(), &"quarantined".into()));
    cure(&rig, "pictures");
    assert_eq!(retry_dead(&rig), 1);
    rig.check();
    assert_eq!(rig.reader().quarantined_count(), Ok(0));
    rig.tell_all([delivered("one", 2), delivered("two", 1)]);
    assert_eq!(rig.statuses(), ["done", "done"]);
}

fn a_retry_that_is_refused_passes_over_it() {
    let images: Vec<Image> = (0..10).map(|n| image(&format!("/{n}"))).collect();
    let rig = Rig::showing(images.clone());
    rig.tell_all(images.into_iter().map(dead));
    plant(&rig, "UPDATE", "entries", &at("/4"));
    assert_eq!(retry_dead(&rig), 9);
    rig.check();
    assert_eq!(rig.line("/4")["status"], "dead");
    assert_eq!(rig.owed().len(), 9);
}

fn a_step_that_cannot_be_is_quarantined() {
    let rig = Rig::showing(vec![image("/a")]);
    rig.tell(dead(image("/a")));
    for _ in 0..2 {
        let refused = rig.try_tell(kept(image("/a"), "one"));
        assert!(matches!(refused, Err(LedgerError::Illegal { .. })), "{refused:?}");
    }
    rig.check();
    let facts = rig.reader().quarantined_at(&url("/a")).expect("reads");
    assert!(matches!(&facts[..], [fact] if fact.kind == "stored" && fact.reason.contains("cannot take")), "{facts:?}");
    assert_eq!(rig.line("/a")["reason"], "http_503", "what became of it stays");
    assert_eq!(retry_dead(&rig), 1);
    assert_eq!(rig.reader().quarantined_count(), Ok(0));
}

fn after_a_kill_the_same_fact_is_quarantined_once() {
    let rig = Rig::new();
    plant(&rig, "INSERT", "entries", &at("/"));
    for _ in 0..2 {
        rig.tell(start());
        assert_eq!(quarantined(&rig), [about("page", "/")]);
    }
    let rig = rig.reopened();
    rig.tell(start());
    assert_eq!(quarantined(&rig), [about("page", "/")]);
    cure(&rig, "entries");
    assert_eq!(retry_dead(&rig), 1);
    assert_eq!(rig.owed(), [(0, "/".to_owned())]);
}

/// Nothing can be written where the log takes nothing: that is no matter of one fact.
fn a_database_that_is_broken_still_ends_the_run() {
    let rig = Rig::showing(vec![image("/a"), image("/b")]);
    plant(&rig, "INSERT", "commits", "NEW.records > 0");
    let facts = vec![kept(image("/a"), "one"), kept(image("/b"), "two")];
    for answer in rig.ledger().append_group(facts).into_iter().map(wait) {
        let error = answer.expect_err("nothing is written");
        assert!(matches!(error, LedgerError::Storage { .. }) && !error.is_of_one_fact(), "{error}");
    }
    cure(&rig, "commits");
    rig.check();
    assert_eq!(rig.reader().quarantined_count(), Ok(0));
    rig.tell(kept(image("/a"), "one"));
}

/// An answer for a picture that no URL led to, of a page that is open: it would be given out at once, and fail again.
fn a_step_that_cannot_be_of_open_work_is_not_tried_again() {
    let rig = Rig::showing(vec![image("/a"), image("/b")]);
    let copy =
        CopiedImage { image: image("/a"), final_url: url("/a"), headers: vec![], content: ContentId::of(b"none") };
    let refused = rig.try_tell(Fact::Copied(copy));
    assert!(matches!(refused, Err(LedgerError::Illegal { .. })), "{refused:?}");
    assert_eq!(rig.owed(), [(0, "/b".to_owned())]);
    assert_eq!(retry_dead(&rig), 1);
    assert_eq!(rig.owed().len(), 2);
}

fn what_was_refused_or_removed_was_taken_in() {
    let rig = Rig::new();
    let sites = ["/one", "/bad", "/new"].map(url);
    rig.tell(admitted(vec![Page::start(JobId::FIRST, url("/one"))]));
    assert_eq!(rig.reader().sites_taken_up(&sites), Ok(1));
    plant(&rig, "INSERT", "entries", &at("/bad"));
    rig.tell(admitted(vec![Page::start(JobId::FIRST, url("/bad"))]));
    assert_eq!(rig.reader().sites_taken_up(&sites), Ok(2));
}
