//! A history is in order, and matches the results.

use super::*;
use crate::sidecar::write_sidecars;
use faceflow_core::fact::Fact;
use faceflow_core::ledger::Ledger;
use faceflow_core::record::{Discovery, Disposition, Frame, HostHold, JobId, Key, Work, queue_of};
use faceflow_core::{Class, Fault, HostFaultKind};
use faceflow_ledger::testing::place::Home;
use faceflow_ledger::testing::{
    BOUNDS, Rig, admitted, content, dead, delivered, frame, image, image_with, kept, page, read, rejected, retry,
    ruled, start, url, wait, with_a_chance,
};
use faceflow_ledger::{DatabaseLedger, LedgerSettings, Selection, both};
use faceflow_store::Objects;

both![
    an_image_from_its_discovery_to_its_representative,
    the_next_look_is_told_until_the_site_is_removed,
    a_page_and_a_stranger,
    a_copy_tells_its_own_events_and_then_those_of_its_twin,
    what_a_host_did_is_told_with_each_of_its_urls,
    what_was_removed_from_the_log_is_not_told_and_that_is_said,
];

fn history(rig: &Rig, path: &str) -> History {
    let mut found = explain(rig.reader(), &url(path)).expect("reads");
    assert_eq!(found.len(), 1, "{path}");
    found.remove(0)
}

fn told(rig: &Rig, path: &str) -> Vec<String> {
    history(rig, path).events().map(|event| event.what.clone()).collect()
}

fn an_image_from_its_discovery_to_its_representative() {
    let rig = Rig::showing(vec![image_with("/a", &["/b"]), image("/c")]);
    rig.tell_all([kept(image("/c"), "one"), delivered("one", 1), retry(image("/a"), 77), rejected(image("/a"))]);
    let looked = Frame { scale: Some(0.5), ..frame("two") };
    rig.tell_all([kept(image("/b"), "two"), retry(Work::Frame(looked), 9), dead(Work::Frame(frame("two")))]);
    wait(rig.ledger().redrive(Selection { dead: true, ..Selection::default() })).expect("drives");
    rig.tell_all([delivered("two", 0), ruled("two", "one", 3)]);
    assert_eq!(
        told(&rig, "/a"),
        [
            "discovered on http://a.example/",
            "failed, http_503: the server said so (1 failed so far; due again at 1970-01-01T00:00:00.077Z)",
            "rejected, http_404: not there (0 failed so far)",
        ]
    );
    assert_eq!(
        told(&rig, "/b"),
        [
            "offered as another address of http://a.example/a".to_owned(),
            "to be tried, because http://a.example/a failed".to_owned(),
            "downloaded, decoded and kept".to_owned(),
            "failed, http_503: the server said so, at scale 0.500 (1 failed so far; due again at 1970-01-01T00:00:00.009Z)".to_owned(),
            "failed for the last time, http_503: the server said so (1 failed so far)".to_owned(),
            "driven again by the user".to_owned(),
            "looked at; its faces are stored".to_owned(),
            format!("{} stands for its picture, 3 bits away", content("one").id),
        ]
    );
    let text = history(&rig, "/b").to_string();
    assert!(text.starts_with("image http://a.example/b\n  duplicate, 1 attempts\n  picture "), "{text}");
    assert!(text.contains("\n  shown by http://a.example/\n"), "{text}");
    let json = serde_json::to_value(history(&rig, "/b")).expect("JSON");
    assert_eq!((&json["kind"], &json["status"]), (&"image".into(), &"duplicate".into()));
}

#[test]
fn times_are_told_for_people_however_late_they_are() {
    assert_eq!(as_text(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    assert_eq!(as_text(i64::MAX), "9999-12-31T23:59:59.999Z");
}

fn the_next_look_is_told_until_the_site_is_removed() {
    let rig = Rig::showing(vec![image("/a"), image("/b")]);
    rig.tell_all([with_a_chance(dead(image("/a")), 77), kept(image("/b"), "two")]);
    rig.tell(with_a_chance(dead(Work::Frame(frame("two"))), 88));
    let says = |path: &str, text: &str| history(&rig, path).to_string().contains(text);
    assert!(says("/a", "a stream looks at it again at 1970-01-01T00:00:00.077Z"));
    assert!(says("/b", "a stream looks at it again at 1970-01-01T00:00:00.088Z"), "its picture is tried");
    assert!(!says("/", "a stream looks at it again"));
    let removed = vec![Key::page(&url("/"))];
    rig.tell(Fact::Discovered(Discovery { removed, ..Discovery::nothing(JobId::FIRST, BOUNDS) }));
    assert!(!says("/a", "looks at it again") && says("/a", "its site was removed from the list"));
}

fn a_page_and_a_stranger() {
    let rig = Rig::showing(vec![]);
    assert_eq!(told(&rig, "/"), ["discovered: an entry of the input", "read; everything it leads to is known"]);
    assert!(history(&rig, "/").to_string().starts_with("page http://a.example/\n  done, 1 attempts, depth 0\n"));
    assert_eq!(explain(rig.reader(), &url("/nowhere")), Ok(vec![]));
}

fn a_copy_tells_its_own_events_and_then_those_of_its_twin() {
    let rig = Rig::showing(vec![image("/first"), image("/copy")]);
    rig.tell_all([kept(image("/first"), "one"), retry(Work::Frame(frame("one")), 9), delivered("one", 2)]);
    rig.tell(kept(image("/copy"), "one"));
    rig.tell(ruled("one", "one", 0));
    let [discovered, kept] = ["discovered on http://a.example/", "downloaded, decoded and kept"];
    assert_eq!(told(&rig, "/copy")[..2], [discovered, kept], "what happened to itself");
    let text = history(&rig, "/copy").to_string();
    let (own, before) =
        text.split_once("it is a copy; before, while http://a.example/first led to the picture:\n").expect("whose");
    assert!(own.contains(kept) && !own.contains("looked at"), "{text}");
    let [failed, looked] = before.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(failed.starts_with("    ") && failed.contains("failed, http_503"), "{text}");
    assert!(looked.ends_with("looked at; its faces are stored"), "{text}");
    // What came to the picture since is of both, and the first address has nothing to tell of another.
    assert!(told(&rig, "/copy")[2].contains("stands for its picture"), "{text}");
    assert_eq!(told(&rig, "/first").len(), 5);
    assert!(!history(&rig, "/first").to_string().contains("it is a copy"));
    let json = serde_json::to_value(history(&rig, "/copy")).expect("JSON");
    assert_eq!(
        (&json["before"]["url"], &json["before"]["events"][1]["what"]),
        (&"http://a.example/first".into(), &"looked at; its faces are stored".into())
    );
}

fn what_a_host_did_is_told_with_each_of_its_urls() {
    let rig = Rig::showing(vec![image("/a"), image("/b")]);
    assert!(!history(&rig, "/b").to_string().contains("host"));
    let failed = |failures, not_before, given_up| {
        let fault = Fault::transient(Class::Connect, "connect", "refused");
        let fault = fault.of_host(queue_of(&url("/a")), HostFaultKind::Unreachable);
        let host = Some(HostHold { failures, since: 1_000, not_before, given_up });
        let work = Work::Image(image("/a")).failed_once_more();
        Fact::Failed(match given_up {
            true => Disposition::Dead { work, fault, again: None, host },
            false => Disposition::Retry { work, fault, due: not_before, host },
        })
    };
    rig.tell(failed(2, 5_000, false));
    let told = history(&rig, "/b").to_string();
    let said = "its host a.example:80 has failed 2 times in a row since 1970-01-01T00:00:01.000Z: connect: refused\n  \
        it is asked again, by one request, from 1970-01-01T00:00:05.000Z on\n";
    assert!(told.contains(said), "{told}");
    rig.tell(failed(5, 65_000, true));
    let told = history(&rig, "/b").to_string();
    assert!(told.contains("given up") && told.contains("asks it again from 1970-01-01T00:01:05.000Z on"), "{told}");
    let json = serde_json::to_value(history(&rig, "/b")).expect("JSON");
    assert_eq!((&json["host"]["host"], &json["host"]["given_up"]), (&"a.example:80".into(), &true.into()), "{json}");
}

fn what_was_removed_from_the_log_is_not_told_and_that_is_said() {
    const TOLD: &str = "were removed from the log (ledger.log_keep_ms)";
    let home = Home::new();
    let open = |log_keep_ms| {
        let settings = LedgerSettings { log_keep_ms, ..LedgerSettings::default() };
        DatabaseLedger::open(home.place(), "default", &settings).expect("opens")
    };
    let says = |ledger: &DatabaseLedger, path: &str| explain(ledger.reader(), &url(path)).expect("reads").remove(0);
    let ledger = open(0);
    for fact in [start(), read(page("/", 0), vec![], vec![image("/a")]), retry(image("/a"), 1), retry(image("/a"), 2)] {
        wait(ledger.append(fact)).expect("is legal");
    }
    let store = Objects::open("memory://").expect("opens");
    wait(write_sidecars(&ledger, &store)).expect("writes");
    assert_eq!(says(&ledger, "/a").events().count(), 3);
    drop(ledger);
    // Each time it is opened, what is old enough is removed before anything else.
    let opened_again = (0..1_000).map(|_| drop(open(1))).map(|()| says(&open(0), "/a"));
    let told = opened_again.into_iter().find(|told| told.events().count() < 3).expect("it is old by now");
    assert!(told.to_string().contains(TOLD), "{told}");
    // What is discovered later has its whole history.
    let ledger = open(0);
    wait(ledger.append(admitted(vec![page("/later", 0)]))).expect("is legal");
    assert!(!says(&ledger, "/later").to_string().contains(TOLD));
}
