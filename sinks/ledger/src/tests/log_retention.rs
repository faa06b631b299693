//! The log does not grow for ever, nothing is removed that anybody has still to follow, and positions go on.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use faceflow_core::kill_point::{LOG_POINT, VARIABLE};

use super::*;
use crate::database::values;
use crate::log_retention::{BATCH, removed};

both![
    a_long_stream_keeps_a_short_log,
    what_a_view_has_not_followed_stays,
    everything_is_kept_where_it_is_asked_for,
    a_batch_is_bounded_and_the_next_one_follows,
    a_tenant_does_not_lose_what_another_has_to_follow,
    killed_while_it_removes_nothing_is_removed_and_the_next_one_does,
];

const STATE: &str = "FACEFLOW_TEST_RETENTION_STATE";
const CHILD: &str = "tests::log_retention::the_process_that_is_killed";

/// Does nothing unless the test below starts it: then it removes until it is killed.
#[test]
fn the_process_that_is_killed() {
    let Ok(name) = std::env::var(STATE) else {
        println!("skipped: runs only as the child of killed_while_it_removes_nothing_is_removed_and_the_next_one_does");
        return;
    };
    let home = Home::named(name);
    (0..1_000).for_each(|_| drop(open(&home, "default", 1)));
}

fn killed_while_it_removes_nothing_is_removed_and_the_next_one_does() {
    let home = Home::new();
    let ledger = open(&home, "default", 0);
    begin(&ledger, vec![image("/a")]);
    try_again(&ledger, 5);
    follow(&ledger);
    let before = kept_of(&ledger);
    drop(ledger);
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", CHILD, "--nocapture"]).env(STATE, &home.name).env(VARIABLE, format!("{LOG_POINT}:1"));
    let ended = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("runs");
    assert_eq!(ended.signal(), Some(9), "{ended}");
    let ledger = open(&home, "default", 0);
    assert_eq!(kept_of(&ledger), before);
    assert_eq!(ledger.reader().replay_differences(), Ok(vec![]));
    drop(ledger);
    drop(removed_to(&home, "default", [1, 1]));
}

fn open(home: &Home, tenant: &str, log_keep_ms: u64) -> DatabaseLedger {
    let settings = LedgerSettings { log_keep_ms, ..LedgerSettings::default() };
    DatabaseLedger::open(home.place(), tenant, &settings).expect("opens")
}

fn number(ledger: &DatabaseLedger, sql: &str) -> i64 {
    let reader = ledger.reader();
    let read = reader.read(|tx| tx.one(sql, values![reader.tenant_id()], |row| row.get::<Option<i64>>(0)));
    read.expect("reads").flatten().unwrap_or(0)
}

/// Events and commits of the tenant.
fn kept_of(ledger: &DatabaseLedger) -> [i64; 2] {
    ["events", "commits"].map(|table| number(ledger, &format!("SELECT count(*) FROM {table} WHERE tenant = ?1")))
}

/// The last positions of both.
fn ends(ledger: &DatabaseLedger) -> [i64; 2] {
    ["events", "commits"].map(|table| number(ledger, &format!("SELECT max(seq) FROM {table} WHERE tenant = ?1")))
}

fn begin(ledger: &DatabaseLedger, images: Vec<Image>) {
    wait(ledger.append(start())).expect("is legal");
    wait(ledger.append(read(page("/", 0), vec![], images))).expect("is legal");
}

/// The image is tried so often again.
fn try_again(ledger: &DatabaseLedger, times: usize) {
    for n in 0..times {
        wait(ledger.append(retry(image("/a"), n as u64))).expect("is legal");
    }
}

/// Opens the ledger again and again, which each time removes a batch before anything else, until there is so much.
fn removed_to(home: &Home, tenant: &str, kept: [i64; 2]) -> DatabaseLedger {
    for _ in 0..1_000 {
        drop(open(home, tenant, 1));
        let ledger = open(home, tenant, 0);
        if kept_of(&ledger) == kept {
            return ledger;
        }
    }
    panic!("{:?} are left, not {kept:?}", kept_of(&open(home, tenant, 0)));
}

/// A view follows the log to its end.
fn follow(ledger: &DatabaseLedger) {
    let cursor = number(ledger, "SELECT max(seq) FROM cursors WHERE tenant = ?1");
    let [end, _] = ends(ledger);
    assert_eq!(wait(ledger.advance("sidecars", cursor, end)), Ok(true));
}

fn a_long_stream_keeps_a_short_log() {
    let home = Home::new();
    let ledger = open(&home, "default", 0);
    begin(&ledger, vec![image("/a"), image("/b")]);
    assert_eq!(ledger.reader().replay_differences(), Ok(vec![]));
    let (mut last, mut results) = (ends(&ledger), [vec![], vec![]]);
    drop(ledger);
    for _ in 0..5 {
        let ledger = open(&home, "default", 0);
        try_again(&ledger, 20);
        let now = ends(&ledger);
        assert_eq!([now[0] - last[0], now[1] - last[1]].map(|more| more >= 20), [true; 2], "{last:?} {now:?}");
        follow(&ledger);
        results = [images(ledger.reader()), pages(ledger.reader())];
        drop(ledger);
        // Everything but the last of both is gone; positions go on after it.
        let ledger = removed_to(&home, "default", [1, 1]);
        assert_eq!(ends(&ledger), now);
        last = now;
    }
    let ledger = open(&home, "default", 0);
    let why = ledger.reader().replay_differences().expect_err("it is not whole").to_string();
    assert!(why.contains("begins after commit") && why.contains("ledger.log_keep_ms"), "{why}");
    // Rows do not depend on it.
    assert_eq!(ledger.audit(3), Ok(vec![]));
    assert_eq!([images(ledger.reader()), pages(ledger.reader())], results);
    let reader = ledger.reader();
    let gone = reader.read(|tx| removed(tx, reader.tenant_id())).expect("reads");
    assert!(gone.any() && [gone.events, gone.commits] == last.map(|end| end - 1), "{gone:?}");
}

fn what_a_view_has_not_followed_stays() {
    let home = Home::new();
    let ledger = open(&home, "default", 0);
    begin(&ledger, vec![image("/a"), image("/b")]);
    follow(&ledger);
    let followed = number(&ledger, "SELECT max(seq) FROM cursors WHERE tenant = ?1");
    let sequel = [kept(image("/b"), "two"), delivered("two", 1)];
    for fact in sequel {
        wait(ledger.append(fact)).expect("is legal");
    }
    try_again(&ledger, 20);
    let after = "SELECT count(*) FROM events WHERE tenant = ?1 AND seq > (SELECT max(seq) FROM cursors)";
    let lagging = number(&ledger, after);
    assert!(lagging >= 22, "{lagging}");
    let commits = number(
        &ledger,
        "SELECT count(*) FROM commits WHERE tenant = ?1
            AND at_ms >= (SELECT min(at_ms) FROM events WHERE seq > (SELECT max(seq) FROM cursors))",
    );
    drop(ledger);
    let ledger = removed_to(&home, "default", [lagging, commits]);
    assert_eq!(number(&ledger, after), lagging);
    assert!(followed > 0);
    drop(ledger);
    let ledger = removed_to(&home, "default", [lagging, commits]);
    follow(&ledger);
    drop(ledger);
    drop(removed_to(&home, "default", [1, 1]));
}

fn everything_is_kept_where_it_is_asked_for() {
    let home = Home::new();
    for keep_ms in [0, LedgerSettings::default().log_keep_ms] {
        let ledger = open(&home, "default", keep_ms);
        wait(ledger.append(start())).expect("is legal");
        follow(&ledger);
        drop(ledger);
    }
    let ledger = open(&home, "default", LedgerSettings::default().log_keep_ms);
    assert_eq!(ledger.reader().replay_differences(), Ok(vec![]));
}

fn a_batch_is_bounded_and_the_next_one_follows() {
    let many = BATCH as usize + 500;
    let home = Home::new();
    let ledger = open(&home, "default", 0);
    begin(&ledger, (0..many).map(|n| image(&format!("/{n}"))).chain([image("/a")]).collect());
    try_again(&ledger, 1);
    follow(&ledger);
    let [events, _] = kept_of(&ledger);
    drop(ledger);
    let left = loop {
        drop(open(&home, "default", 1));
        let [left, _] = kept_of(&open(&home, "default", 0));
        if left < events {
            break left;
        }
    };
    assert_eq!(events - left, BATCH);
    // One writer that stays goes on by itself, although nobody asks anything of it.
    let ledger = open(&home, "default", 1);
    while kept_of(&ledger)[0] > 1 {
        std::thread::yield_now();
    }
}

fn a_tenant_does_not_lose_what_another_has_to_follow() {
    let home = Home::new();
    for tenant in ["one", "other"] {
        let ledger = open(&home, tenant, 0);
        begin(&ledger, vec![image("/a")]);
        try_again(&ledger, 10);
    }
    let other = kept_of(&open(&home, "other", 0));
    follow(&open(&home, "one", 0));
    drop(removed_to(&home, "one", [1, 1]));
    let ledger = open(&home, "other", 1);
    assert_eq!(kept_of(&ledger), other);
    assert_eq!(ledger.reader().replay_differences(), Ok(vec![]));
}
