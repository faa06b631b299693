//! What must hold at the end of a history: the ledger's own invariants, the right answer, and that nobody was asked too often.

use std::collections::BTreeMap;
use std::path::Path;

use faceflow::core::ledger::Ledger;
use faceflow::core::tally::Tally;
use faceflow::ledger::DatabaseLedger;
use faceflow::views::results::Kind;
use serde_json::{Value, json};

use crate::oracle::{ATTEMPTS, End, ExpectedImage, Is, Oracle, QUARANTINED};
use crate::pool::pool;
use crate::script::{HostMood, Mood, World, host_of, lock};
use crate::support;

/// What every simulated history ends with, whatever was in it: everything here asks only the state that it left.
pub fn after_history(world: &World, folder: &Path) {
    let ledger = DatabaseLedger::open(&folder.join("state"), "default", &settings(world).ledger).expect("a ledger");
    assert_eq!(ledger.audit(5), Ok(vec![]), "at the end");
    assert_eq!(ledger.reader().replay_differences(), Ok(vec![]), "the rows that the log alone leads to");
    // The counts follow every step; here they are counted from what users see of each row.
    let counted = (recount(folder, Kind::Pages), recount(folder, Kind::Images));
    assert_eq!(ledger.tally(), Ok(counted), "what is counted is what is there");
    // Each of those is in the quarantine once, however often it was refused.
    let lines = [Kind::Pages, Kind::Images].map(|kind| support::lines(folder, kind)).concat();
    let dead: Vec<&Value> =
        lines.iter().filter(|line| line["status"] == "dead" && line["reason"] == QUARANTINED).collect();
    let facts = ledger.reader().quarantined(10).expect("reads");
    let subjects: Vec<&str> = facts.iter().map(|fact| &fact.subject[..]).collect();
    let expected: Vec<&str> = dead.into_iter().map(|line| text(&line["url"])).collect();
    assert_eq!(subjects, expected, "what is in the quarantine");
}

fn recount(folder: &Path, kind: Kind) -> Tally {
    let mut tally = Tally::default();
    for line in support::lines(folder, kind) {
        tally.discovered += 1;
        let count = match text(&line["status"]) {
            "done" => &mut tally.done,
            "duplicate" => &mut tally.duplicate,
            "rejected" => &mut tally.rejected,
            "dead" => &mut tally.dead,
            "open" => &mut tally.open,
            other => panic!("no status is called {other}: {line}"),
        };
        *count += 1;
    }
    tally
}

/// The settings of the process in this world.
pub fn settings(world: &World) -> faceflow::config::Settings {
    let settings = world.plan.settings();
    support::settings(&settings.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What may be true of a history besides its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    /// How often it was killed.
    pub kills: usize,
    /// Whether everything was looked at again.
    pub again: bool,
    /// Whether what was dead was driven again.
    pub driven: bool,
}

/// Everything that must hold at the end.
pub fn check(world: &World, folder: &Path, history: History) {
    after_history(world, folder);
    let oracle = Oracle::of(world);
    let images = support::lines(folder, Kind::Images);
    let pages = support::lines(folder, Kind::Pages);
    assert_eq!(urls(&pages), oracle.pages.keys().map(String::as_str).collect::<Vec<_>>(), "the pages that are found");
    assert_eq!(
        urls(&images),
        oracle.images.keys().map(String::as_str).collect::<Vec<_>>(),
        "the images that are found"
    );
    for line in &pages {
        check_page(world, &oracle, line, history);
    }
    let by_url: BTreeMap<&str, &Value> = urls(&images).into_iter().zip(&images).collect();
    let representatives = oracle.representatives(world);
    for line in &images {
        let expected = &oracle.images[text(&line["url"])];
        let page = expected.pages.first().expect("a page shows it");
        assert_eq!((text(&line["page"]), text(&line["site"])), (&page[..], &oracle.pages[page].site[..]), "{line}");
        match &expected.is {
            Is::Behind(front) => check_behind(line, by_url[&front[..]], &oracle, (front, history)),
            Is::Tried(End::Well(Some(picture))) => {
                check_picture(world, &oracle, line, (*picture, representatives[picture]));
            }
            Is::Tried(end) => check_end(line, *end),
        }
        if let Is::Tried(_) = expected.is {
            check_attempts(world, line, expected, history);
        }
        check_objects(world, line);
    }
    check_asked(world, history);
}

fn urls(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| text(&line["url"])).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn check_end(line: &Value, end: End) {
    let (status, reason) = match end {
        End::Well(_) => ("done", Value::Null),
        End::Rejected(reason) => ("rejected", json!(reason)),
        End::Dead(reason) => ("dead", json!(reason)),
    };
    assert_eq!((&line["status"], &line["reason"]), (&json!(status), &reason), "{line}");
    assert_eq!(line["due_ms"], Value::Null, "{line}");
}

fn check_page(world: &World, oracle: &Oracle, line: &Value, history: History) {
    let expected = &oracle.pages[text(&line["url"])];
    check_end(line, expected.end);
    assert_eq!((&line["site"], &line["depth"]), (&json!(expected.site), &json!(expected.depth)), "{line}");
    let shows = expected.shows.map_or([Value::Null, Value::Null], |(links, images)| [json!(links), json!(images)]);
    assert_eq!([&line["links"], &line["images"]], [&shows[0], &shows[1]], "{line}");
    check_tries(world, line, matches!(expected.end, End::Dead(_)), history);
}

/// How often an address was tried is known to whoever was asked, unless a kill came between the try and its record.
fn check_tries(world: &World, line: &Value, dead: bool, history: History) -> u64 {
    let url = text(&line["url"]);
    let asked = lock(&world.asked).get(url).map_or(0, Vec::len) as u64;
    let attempts = line["attempts"].as_u64().expect("a number");
    // Of a host that failed as a whole, that was no attempt of its addresses; and the last try of what is quarantined went well.
    if !history.again && !history.driven && world.host(url) == HostMood::Well && line["reason"] != QUARANTINED {
        assert!(!dead || attempts == u64::from(ATTEMPTS), "{line}");
        let known = asked.saturating_sub(history.kills as u64)..=asked;
        assert!(known.contains(&attempts) || line["image"].is_object(), "asked for {asked} times: {line}");
    }
    asked
}

fn check_attempts(world: &World, line: &Value, expected: &ExpectedImage, history: History) {
    let dead = matches!(expected.is, Is::Tried(End::Dead(_)));
    let asked = check_tries(world, line, dead, history);
    let Some(picture) = expected.picture() else { return };
    let whole = world.host(text(&line["url"])) != HostMood::Well;
    if history.again || history.driven || history.kills > 0 || whole {
        return;
    }
    // Those of its detection are added, also to what was looked at before something better came.
    let id = pool()[picture].id.to_string();
    let stored = lock(&world.store_failures).iter().filter(|(key, _)| key.contains(&id)).map(|(_, n)| n).sum::<u32>();
    let looks = u64::from(lock(&world.engine_failures).get(&picture).copied().unwrap_or(0));
    let attempts = line["attempts"].as_u64().expect("a number");
    let range = asked + looks..=asked + looks + u64::from(stored);
    assert!(range.contains(&attempts), "asked for {asked} times, looked at {looks} times in vain: {line}");
}

/// An alternate is settled by what it waits behind.
fn check_behind(line: &Value, front: &Value, oracle: &Oracle, (url, history): (&str, History)) {
    if history.driven {
        // What stood for something that was dead still does.
        assert!(line["status"] == "duplicate" || line["status"] == front["status"], "{line} behind {front}");
        return;
    }
    match oracle.images[url].picture().filter(|_| front["status"] == "done" || front["status"] == "duplicate") {
        Some(picture) => {
            let id = json!(pool()[picture].id.to_string());
            assert_eq!((&line["status"], &line["duplicate_of"]), (&json!("duplicate"), &id), "{line} behind {front}");
        }
        None => assert_eq!(line["status"], front["status"], "{line} behind {front}"),
    }
}

/// A picture, which `main` stands for.
fn check_picture(world: &World, oracle: &Oracle, line: &Value, (picture, main): (usize, usize)) {
    let (own, standing) = (&pool()[picture], &pool()[main]);
    let (width, height) = own.size.expect("it was decoded");
    assert_eq!(line["image"]["id"], json!(own.id.to_string()), "{line}");
    assert_eq!((&line["image"]["width"], &line["image"]["height"]), (&json!(width), &json!(height)), "{line}");
    let leading =
        |n: usize| oracle.images.iter().find(|(_, image)| image.picture() == Some(n)).map(|(url, _)| &url[..]);
    let is_main = picture == main && leading(picture) == Some(text(&line["url"]));
    if world.engine(main) == Mood::Violation {
        assert_eq!((&line["status"], &line["reason"]), (&json!("dead"), &json!("engine_error")), "{line}");
        assert_eq!(line["faces"], Value::Null, "{line}");
        return;
    }
    let duplicate_of = if is_main { Value::Null } else { json!(standing.id.to_string()) };
    let status = if is_main { "done" } else { "duplicate" };
    assert_eq!((&line["status"], &line["duplicate_of"]), (&json!(status), &duplicate_of), "{line}");
    assert_eq!(line["reason"], Value::Null, "{line}");
    let degraded = world.engine(main) == Mood::Degraded(u32::MAX);
    assert_eq!((&line["detector"]["engine"], &line["detector"]["degraded"]), (&json!("scripted"), &json!(degraded)));
    let faces = line["faces"].as_array().unwrap_or_else(|| panic!("no faces: {line}"));
    if degraded {
        assert!(faces.is_empty(), "the weaker answers saw none: {line}");
        return;
    }
    let [face] = &faces[..] else { panic!("one face is in it: {line}") };
    let (place, off) = standing.face;
    let (from, to) = (standing.size.expect("decoded"), own.size.expect("decoded"));
    let scale = [to.0 as f32 / from.0 as f32, to.1 as f32 / from.1 as f32];
    for (n, side) in place.iter().enumerate() {
        let found = face["bbox"][n].as_f64().expect("a number") as f32;
        assert!((found - side * scale[n % 2]).abs() <= off * scale[n % 2], "the face is at {place:?}: {line}");
    }
}

/// Nothing is named that is not there, and sinks were told.
fn check_objects(world: &World, line: &Value) {
    if line["status"] == "done" && line["image"].is_object() {
        assert!(lock(&world.told).contains(text(&line["image"]["id"])), "no sink was told of {line}");
    }
    let faces = line["faces"].as_array().into_iter().flatten();
    for key in faces.map(|face| &face["crop"]).chain([&line["image"]["key"]]).filter_map(Value::as_str) {
        assert!(lock(&world.objects).contains_key(key), "{key} is named by a result but not stored: {line}");
    }
}

/// Nobody was asked more often than failures, kills and second looks explain.
fn check_asked(world: &World, history: History) {
    for (url, asked) in &*lock(&world.asked) {
        let failed = asked.iter().filter(|(_, failed)| *failed).count();
        // A picture that could not be kept is asked for again.
        let content = world.picture(url).map(|bytes| faceflow::core::record::ContentId::of(bytes).to_string());
        let unkept = |(key, failures): (&String, &u32)| match &content {
            Some(content) if key.contains(content) => *failures as usize,
            _ => 0,
        };
        let unkept: usize = lock(&world.store_failures).iter().map(unkept).sum();
        let again = if history.again { 3 } else { 0 };
        let most = 1 + failed + unkept + history.kills + again + usize::from(history.driven);
        assert!(asked.len() <= most, "{url} was asked for {} times, at most {most} were due", asked.len());
    }
    // However many addresses a host has: those of the moment in which it failed, and then one by one.
    let mut in_vain = BTreeMap::<&str, usize>::new();
    let asked = lock(&world.asked_in_vain);
    for (url, times) in &*asked {
        *in_vain.entry(host_of(url)).or_default() += times;
    }
    for (host, times) in in_vain {
        let probes = 10 * (1 + history.kills + usize::from(history.driven));
        let most = asked.keys().filter(|url| host_of(url) == host).count() * (1 + history.kills) + probes;
        assert!(times <= most, "{host} was asked {times} times while it failed, at most {most} were due");
    }
}
