//! A wall clock that is set back or forward: within a run nothing notices, and between runs no work is lost.
//!
//! libfaketime puts another wall clock under the real binary; its monotonic one stays true.

mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use faceflow::core::testing::require;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::tempdir;
use world::{Answer, Faceflow, Gallery, Plan, Script};

/// Delay before the second attempt within a run, in milliseconds; doubled before each later one.
const DELAY_MS: u64 = 300;
const DAY_MS: i64 = 86_400_000;

const FLAGS: [&str; 6] =
    ["--set", "fetch.allow_networks=127.0.0.0/8", "--set", "detect.seeta_px=320", "--set", "retry.web.jitter=0"];

/// A small web with a picture that comes at the fourth try.
fn web() -> (Gallery, Vec<String>) {
    let gallery = Plan { sites: 1, pages_per_site: 7, images: 30, ..Plan::default() }.serve();
    let starts = gallery.starts().into_iter().chain([gallery.sites[0].url("/trouble")]).collect();
    gallery.sites[0].page("/trouble", r#"<img src="/busy.jpg">"#);
    renew(&gallery);
    (gallery, starts)
}

fn renew(gallery: &Gallery) {
    let photo = world::jpeg(&world::picture(99, 300, 200), 90);
    let busy = Script::times(3, Answer::status(503)).then(Answer::ok("image/jpeg", photo));
    gallery.sites[0].put("/busy.jpg", busy);
    gallery.world.log().clear();
}

fn faceflow(folder: &Path) -> Faceflow {
    Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder).deadline(Duration::from_secs(120))
}

/// The binary with a wall clock that is off by what the file says; nothing, with the reason printed, where there is no
/// libfaketime.
fn with_clock(folder: &Path, offset: &Path) -> Option<Faceflow> {
    let Some(library) = library() else {
        require::skip("faketime", "there is no libfaketime (apt-get install faketime)");
        return None;
    };
    let faceflow = faceflow(folder)
        .env("LD_PRELOAD", library.to_str().expect("UTF-8"))
        .env("FAKETIME_TIMESTAMP_FILE", offset.to_str().expect("UTF-8"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Some(faceflow)
}

/// The library for programs with threads, where Debian and others keep it.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = folders.chain([PathBuf::from("/usr/lib")]).map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    found.find(|library| library.is_file())
}

fn command<'a>(starts: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    ["run"].into_iter().chain(starts.iter().map(String::as_str)).chain(FLAGS).chain(more.iter().copied()).collect()
}

fn set(offset: &Path, days: &str) {
    // A reader finds the old file or the new one.
    let new = offset.with_extension("new");
    std::fs::write(&new, format!("{days}\n")).expect("writes");
    std::fs::rename(new, offset).expect("renames");
}

fn results(faceflow: &Faceflow) -> Vec<Value> {
    let mut lines = faceflow.results(&[]);
    lines.extend(faceflow.results(&["--kind", "pages"]));
    lines.iter_mut().for_each(|line| line["attempts"] = Value::Null);
    lines
}

/// What an undisturbed run comes to.
fn expected(gallery: &Gallery, starts: &[String]) -> Vec<Value> {
    let folder = tempdir().expect("a folder");
    let ended = faceflow(folder.path()).run(&command(starts, &["--set", "retry.web.base_ms=10"]));
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    renew(gallery);
    results(&faceflow(folder.path()))
}

/// Days between the earliest and the latest fact, by the wall clock under the process.
fn days(folder: &Path) -> i64 {
    let ledger = Connection::open(folder.join("faceflow-state/ledger.sqlite")).expect("opens");
    let span = ledger.query_row("SELECT max(at_ms) - min(at_ms) FROM events", [], |row| row.get::<_, i64>(0));
    span.expect("is read") / DAY_MS
}

#[test]
fn a_clock_that_is_set_in_mid_run_changes_nothing_and_no_retry_is_early() {
    let (gallery, starts) = web();
    let expected = expected(&gallery, &starts);
    let base = format!("retry.web.base_ms={DELAY_MS}");
    for steps in [["-400d", "+0d"], ["+400d", "-400d"]] {
        let (folder, notes) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
        let offset = notes.path().join("offset");
        set(&offset, "+0d");
        let Some(watched) = with_clock(folder.path(), &offset) else { return };
        renew(&gallery);
        let log = gallery.world.log();
        let busy = gallery.sites[0].url("/busy.jpg");
        let running = watched.start(&command(&starts, &["--set", &base]));
        for (n, step) in steps.iter().enumerate() {
            log.wait_for(Duration::from_secs(60), |requests| {
                requests.iter().filter(|request| request.url == busy && request.ended_ms.is_some()).count() > n
            });
            set(&offset, step);
        }
        let ended = running.finish();
        assert_eq!(ended.code(), Some(0), "{steps:?}: {}", ended.stderr);
        assert!(results(&faceflow(folder.path())) == expected, "{steps:?}: not the results of an undisturbed run");
        assert!(days(folder.path()) >= 399, "{steps:?}: the clock was not set");
        let tries = log.of(&busy);
        assert_eq!(tries.len(), 4, "{steps:?}");
        for (n, pair) in tries.windows(2).enumerate() {
            let waited = pair[1].started_ms - pair[0].ended_ms.expect("it has ended");
            // Both ends are whole milliseconds.
            assert!(waited + 3 >= DELAY_MS << n, "{steps:?}: try {} came after {waited} ms", n + 2);
        }
    }
}

#[test]
fn a_clock_that_is_set_between_runs_loses_nothing_and_says_when_it_goes_on() {
    let (gallery, starts) = web();
    let expected = expected(&gallery, &starts);
    let busy = gallery.sites[0].url("/busy.jpg");
    let hour = command(&starts, &["--set", "retry.web.base_ms=3600000", "--set", "retry.web.cap_ms=3600000"]);
    let soon = command(&starts, &["--set", "retry.web.base_ms=10"]);
    for step in ["+30d", "-30d"] {
        let (folder, notes) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
        let offset = notes.path().join("offset");
        set(&offset, "+0d");
        let Some(faceflow) = with_clock(folder.path(), &offset) else { return };
        renew(&gallery);
        let ended = faceflow.run(&[&hour[..], &["--patience", "0"]].concat());
        assert_eq!(ended.code(), Some(3), "{}", ended.stderr);
        let log = gallery.world.log();
        assert_eq!(log.count(&busy), 1);
        set(&offset, step);
        let asked = log.total();
        if step.starts_with('-') {
            // What is due in an hour is due in thirty days now, and nobody waits for that without being told.
            let ended = faceflow.run(&soon);
            assert_eq!(ended.code(), Some(3), "{}", ended.stderr);
            assert!(ended.stdout.contains("the next retry is due at"), "{}", ended.stdout);
            assert_eq!(log.total(), asked, "nothing that is settled is asked for again");
            assert_eq!(faceflow.run(&["retry"]).code(), Some(0));
        }
        let ended = faceflow.run(&soon);
        assert_eq!(ended.code(), Some(0), "{step}: {}", ended.stderr);
        assert_eq!(log.count(&busy), 4, "{step}");
        assert_eq!(
            log.requests().iter().skip(asked).filter(|request| request.url != busy).count(),
            1,
            "{step}: robots.txt"
        );
        assert!(results(&faceflow) == expected, "{step}: not the results of an undisturbed run");
    }
}
