//! Simulation: the real graph and ledger in a scripted world, under a virtual clock, where one seed decides everything.
//!
//! Each seed is run undisturbed, then again with kills at seeded steps, each followed by a restart on what the kill left.
//! `SEEDS=20000 cargo test --test simulation` tries more seeds, `SEED=17` repeats one.

mod life;
mod script;
#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use faceflow::core::Time;
use faceflow::core::invariants::conserved;
use faceflow::core::ledger::Ledger;
use faceflow::core::record::ContentId;
use faceflow::core::testing::{EPOCH, simulate_from};
use faceflow::graph;
use faceflow::services::{Backends, Services};
use faceflow::sinks::ledger::StateLedger;
use faceflow::sinks::results::Kind;
use faceflow::sources::list::List;
use life::{BROKEN, Life, ScriptedEngine, ScriptedLedger, ScriptedSink, ScriptedStore, ScriptedWeb};
use script::{Place, World, dice, lock};
use serde_json::Value;
use tempfile::TempDir;

/// No life lasts longer, in milliseconds of virtual time.
const LIMIT_MS: u64 = 7 * 24 * 3_600_000;

const SETTINGS: [&str; 6] = [
    "image.min_side_px=16",
    "deliver.thumb_px=32",
    "detect.batch_max=3",
    "fetch.per_host=1000",
    "retry.web.jitter=0",
    "crawl.shape=3x3",
];

/// Lives through `world` until step `kill_at` (0: to its natural end), when it is killed or its ledger fails. Returns its steps, whether it was killed, a digest of
/// its history, and when it ended.
fn live(world: &Arc<World>, folder: &Path, epoch: Time, death: (u64, bool)) -> (u64, bool, u64, Time) {
    let lived = Arc::new(Mutex::new(None));
    let (told, state, world) = (Arc::clone(&lived), folder.join("state"), Arc::clone(world));
    let end = simulate_from(epoch, LIMIT_MS, move |scope, executor| {
        let settings = support::settings(&SETTINGS);
        let ledger = Arc::new(StateLedger::open(&state, "default", &settings.ledger).expect("a ledger"));
        let (pages, images) = ledger.tally().expect("a tally");
        assert_eq!(conserved(&pages).and(conserved(&images)), Ok(()), "conservation after a restart");
        // What all the deaths before have left; an audit costs more than a short life.
        if death.0 == 0 && epoch != EPOCH {
            assert_eq!(ledger.audit(5), Ok(vec![]), "after a restart");
        }
        let sources = List::new(world.starts.iter().cloned());
        let life = Arc::new(Life::new(world, executor, death));
        *lock(&told) = Some(Arc::clone(&life));
        let backends = Backends {
            web: Arc::new(ScriptedWeb(Arc::clone(&life))),
            store: Arc::new(ScriptedStore(Arc::clone(&life))),
            ledger: Arc::new(ScriptedLedger { life: Arc::clone(&life), ledger, turn: Arc::default() }),
            detector: Arc::new(ScriptedEngine(Arc::clone(&life))),
            sources: vec![Box::new(sources)],
            sinks: vec![Box::new(ScriptedSink { life: Arc::clone(&life), written: vec![] })],
        };
        let services = Services::new("default", settings, backends, executor.clone()).expect("services");
        graph::build(scope, &services)
    });
    let life = lock(&lived).take().expect("it lived");
    let (steps, mut killed, history) = life.end();
    if let Some(failure) = life.executor.shutdown.failure() {
        assert!(death.1 && failure.contains(BROKEN), "the process failed: {failure}");
        killed = true;
    }
    assert_eq!(life.wrong(), [] as [String; 0]);
    (steps, killed, history, end)
}

/// Results without what says how often something was tried: a kill may fall between a failure and its record.
fn results(folder: &Path) -> Vec<Value> {
    let mut lines = support::lines(folder, Kind::Pages);
    lines.extend(support::lines(folder, Kind::Images));
    lines.iter_mut().for_each(|line| line["attempts"] = Value::Null);
    lines
}

fn folder() -> TempDir {
    // Memory where there is some: a thousand states are made and thrown away.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder")
}

/// Everything that must hold at the end.
fn check(world: &World, folder: &Path, kills: usize) {
    let settings = support::settings(&SETTINGS);
    let ledger = StateLedger::open(&folder.join("state"), "default", &settings.ledger).expect("a ledger");
    assert_eq!(ledger.audit(5), Ok(vec![]), "at the end");
    let lines = results(folder);
    for line in &lines {
        assert_ne!(line["status"], "open", "{line}");
        let faces = line["faces"].as_array();
        assert!(faces.is_none() || !line["detector"].is_null(), "faces without an engine's answer: {line}");
        if line["status"] == "done" && line["image"].is_object() {
            let id = line["image"]["id"].as_str().expect("an id");
            assert!(lock(&world.told).contains(id), "no sink was told of {line}");
        }
        let keys = faces.into_iter().flatten().map(|face| &face["crop"]).chain([&line["image"]["key"]]);
        for key in keys.filter_map(Value::as_str) {
            assert!(lock(&world.objects).contains_key(key), "{key} is named by a result but not stored: {line}");
        }
    }
    for (url, asked) in &*lock(&world.asked) {
        let failed = asked.iter().filter(|(_, failed)| *failed).count();
        // A picture that could not be kept is asked for again.
        let content = match world.places.get(url) {
            Some(Place::Picture(bytes)) => ContentId::of(bytes).to_string(),
            _ => "no picture".to_owned(),
        };
        let unkept = |(key, failures): (&String, &u32)| if key.contains(&content) { *failures as usize } else { 0 };
        let unkept: usize = lock(&world.store_failures).iter().map(unkept).sum();
        let most = 1 + failed + unkept + kills;
        assert!(asked.len() <= most, "{url} was asked for {} times, at most {most} were due", asked.len());
    }
}

/// One seed: an undisturbed life, then one that is cut off again and again.
fn try_seed(seed: u64) -> (u64, u64) {
    let (quiet, calm) = (folder(), Arc::new(World::new(seed)));
    let (steps, killed, ..) = live(&calm, quiet.path(), EPOCH, (0, false));
    assert!(!killed);
    check(&calm, quiet.path(), 0);
    let expected = results(quiet.path());

    let (cut, world) = (folder(), Arc::new(World::new(seed)));
    let (mut epoch, mut kills) = (EPOCH, 0);
    loop {
        let chosen = if kills < 4 { 1 + dice((seed, "kill", kills)) % (steps / 2 + 1) } else { 0 };
        let (_, killed, _, end) =
            live(&world, cut.path(), epoch, (chosen, chosen > 0 && dice((seed, "how", kills)) % 4 == 0));
        if !killed {
            break;
        }
        kills += 1;
        // Down for a moment, or for hours.
        epoch = end + [0, 1, 900, 70_000, 5_000_000][dice((seed, "down", kills)) as usize % 5];
    }
    check(&world, cut.path(), kills);
    let lines = results(cut.path());
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!(line, expected, "after {kills} kills");
    }
    assert_eq!(lines.len(), expected.len());
    (kills as u64, steps)
}

fn seeds() -> std::ops::RangeInclusive<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("SEEDS").unwrap_or(1_000),
    }
}

#[test]
fn whatever_is_killed_whenever_the_end_is_that_of_an_undisturbed_run() {
    let (seeds, failed) = (seeds(), Mutex::new(BTreeMap::new()));
    let (next, kills, steps) = (AtomicU64::new(*seeds.start()), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed > *seeds.end() || lock(&failed).len() >= 3 {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| try_seed(seed))) {
                        Ok((killed, stepped)) => {
                            kills.fetch_add(killed, Relaxed);
                            steps.fetch_add(stepped, Relaxed);
                        }
                        Err(_) => drop(lock(&failed).insert(seed, ())),
                    }
                }
            });
        }
    });
    println!("{} kills in worlds of {} steps together", kills.load(Relaxed), steps.load(Relaxed));
    let failed: Vec<u64> = lock(&failed).keys().copied().collect();
    let commands: Vec<String> = failed.iter().map(|seed| format!("SEED={seed} cargo test --test simulation")).collect();
    assert!(failed.is_empty(), "failing seeds, to repeat:\n{}", commands.join("\n"));
}

#[test]
fn one_seed_is_one_history() {
    for seed in 1..=5 {
        let history = || {
            let (folder, world) = (folder(), Arc::new(World::new(seed)));
            live(&world, folder.path(), EPOCH, (0, false))
        };
        assert_eq!(history(), history(), "seed {seed}");
    }
}
