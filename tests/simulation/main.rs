//! Simulation: the real graph and ledger in a scripted world, under a virtual clock, where one seed decides everything.
//!
//! Each seed is run undisturbed, then again with kills at seeded steps, each followed by a restart on what the kill left. What
//! comes of it must be what the script says (`oracle.rs`), and twice the same. Some seeds have two workers, budgets that bind, dead
//! work that is driven again, or a stream afterwards in which everything is looked at again (`plan.rs`).
//! `SEEDS=20000 cargo test --test simulation` tries more seeds, `SEED=17` repeats one.

mod check;
mod ledger;
mod life;
mod oracle;
mod plan;
mod pool;
mod script;
#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use check::{History, check, settings};
use faceflow::core::Time;
use faceflow::core::executor::Executor;
use faceflow::core::invariants::conserved;
use faceflow::core::ledger::Ledger;
use faceflow::core::planted_bugs::{BUGS, VARIABLE};
use faceflow::core::testing::{EPOCH, simulate_from, simulate_workers};
use faceflow::graph;
use faceflow::ledger::{DatabaseLedger, Selection};
use faceflow::services::{Backends, Services};
use faceflow::sources::list::List;
use faceflow::views::results::Kind;
use ledger::{BROKEN, ScriptedLedger};
use life::{Death, Life, ScriptedEngine, ScriptedSink, ScriptedStore, ScriptedWeb};
use oracle::Oracle;
use script::{World, dice, lock};
use serde_json::Value;
use tempfile::TempDir;

/// No life lasts longer, in milliseconds of virtual time.
const LIMIT_MS: u64 = 7 * 24 * 3_600_000;
/// How long a stream looks at everything again: a day after it was read the first time, and then not for 19 hours at least.
const STREAM_MS: u64 = 40 * 3_600_000;

/// How a life ended.
#[derive(Debug, PartialEq)]
struct Lived {
    steps: u64,
    killed: bool,
    /// A digest of its history.
    history: u64,
    end: Time,
}

/// Lives through `world` from `epoch` to its natural end, or to this death; as a stream if that has a moment.
fn live(world: &Arc<World>, folder: &Path, epoch: Time, death: Death) -> Lived {
    let (made, state) = (Arc::new(Mutex::new(None)), folder.join("state"));
    let (theirs, theirs_world) = (Arc::clone(&made), Arc::clone(world));
    // Workers share what the first of them makes.
    let services = move |executor: &Executor| {
        let mut made = lock(&theirs);
        let (_, services) = made.get_or_insert_with(|| begin(&theirs_world, &state, (epoch, death), executor));
        Services::clone(services)
    };
    let end = match world.plan.workers {
        1 => simulate_from(epoch, LIMIT_MS, move |scope, executor| graph::build(scope, &services(executor))),
        workers => simulate_workers(workers, (epoch, LIMIT_MS), move |scope, executor| {
            graph::build(scope, &services(executor))
        }),
    };
    let (life, services): (Arc<Life>, Services) = lock(&made).take().expect("it lived");
    drop(services);
    let (steps, mut killed, history) = life.end();
    if let Some(failure) = life.executor.shutdown.failure() {
        assert!(death.ledger_fails && failure.contains(BROKEN), "the process failed: {failure}");
        killed = true;
    }
    assert_eq!(life.wrong(), [] as [String; 0]);
    Lived { steps, killed, history, end }
}

/// A life that begins now, and what the graph of it runs on.
fn begin(
    world: &Arc<World>,
    state: &Path,
    (epoch, death): (Time, Death),
    executor: &Executor,
) -> (Arc<Life>, Services) {
    let settings = settings(world);
    let ledger = Arc::new(DatabaseLedger::open(state, "default", &settings.ledger).expect("a ledger"));
    refuse(world, state);
    let (pages, images) = ledger.tally().expect("a tally");
    assert_eq!(conserved(&pages).and(conserved(&images)), Ok(()), "conservation after a restart");
    // What all the deaths before have left; an audit costs more than a short life.
    if death.step == 0 && epoch != EPOCH {
        assert_eq!(ledger.audit(5), Ok(vec![]), "after a restart");
    }
    let life = Arc::new(Life::new(Arc::clone(world), executor, death));
    let backends = Backends {
        web: Arc::new(ScriptedWeb(Arc::clone(&life))),
        store: Arc::new(ScriptedStore(Arc::clone(&life))),
        ledger: Arc::new(ScriptedLedger::new(&life, ledger)),
        detector: Arc::new(ScriptedEngine(Arc::clone(&life))),
        sources: vec![Box::new(List::new(world.starts.iter().cloned()))],
        sinks: vec![Box::new(ScriptedSink { life: Arc::clone(&life), written: vec![] })],
    };
    if let Some(moment) = death.moment {
        let dying = Arc::clone(&life);
        executor.runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(moment.saturating_sub(dying.began()))).await;
            dying.die();
        });
    }
    let mut services = Services::new(Default::default(), settings, backends, executor.clone()).expect("services");
    services.again = death.moment.is_some();
    (life, services)
}

/// Lets the database refuse what it refuses in this world.
fn refuse(world: &World, state: &Path) {
    let Some(refused) = &world.refused else { return };
    let trigger = match world.refuses(refused) {
        true => format!(
            "CREATE TRIGGER IF NOT EXISTS poison BEFORE UPDATE ON entries
            WHEN NEW.url = '{refused}' AND NEW.state = 'settled' BEGIN SELECT RAISE(ABORT, 'planted poison'); END"
        ),
        false => "DROP TRIGGER IF EXISTS poison".to_owned(),
    };
    let file = rusqlite::Connection::open(state.join("ledger.sqlite")).expect("opens");
    file.execute_batch(&trigger).expect("runs");
}

/// Results without what says how often something was tried: a kill may fall between a failure and its record.
fn results(folder: &Path) -> Vec<Value> {
    let mut lines = support::lines(folder, Kind::Pages);
    lines.extend(support::lines(folder, Kind::Images));
    for line in &mut lines {
        line["attempts"] = Value::Null;
        // How many degraded answers came before the full one depends on when the process died, and crops are named after that.
        for face in line["faces"].as_array_mut().into_iter().flatten() {
            let key = face["crop"].as_str().expect("a crop has a key");
            let (folder, name) = key.rsplit_once('/').expect("a key has folders");
            let number = name.rsplit_once('-').map_or(name, |(_, number)| number);
            face["crop"] = format!("{folder}/{number}").into();
        }
    }
    lines
}

fn folder() -> TempDir {
    // Memory where there is some: a thousand states are made and thrown away.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder")
}

/// What one seed's world goes through, killed or not.
struct Trial {
    world: Arc<World>,
    folder: TempDir,
    history: History,
    now: Time,
    /// Steps of all lives together.
    steps: u64,
    /// Of an undisturbed life, the steps within which kills are chosen; 0 for no kills.
    kill_within: u64,
}

impl Trial {
    fn new(seed: u64, kill_within: u64) -> Self {
        let (world, folder) = (Arc::new(World::new(seed)), folder());
        Self { world, folder, history: History::default(), now: EPOCH, steps: 0, kill_within }
    }

    /// Everything, from the first site to the last look.
    fn go(&mut self) {
        self.lives(None);
        if self.world.plan.redrive || self.world.plan.recrawl {
            check(&self.world, self.folder.path(), self.history);
        }
        if self.world.plan.redrive {
            *lock(&self.world.tried) = Oracle::of(&self.world).tried();
            self.world.mended.store(true, Relaxed);
            self.drive_dead();
            self.lives(None);
        }
        if self.world.plan.recrawl {
            self.world.grown.store(true, Relaxed);
            self.history.again = true;
            let end = self.now + STREAM_MS;
            self.lives(Some(end));
            self.now = self.now.max(end);
            self.everything_was_asked_for(end);
            // What was under way at the end, in a batch.
            self.lives(None);
        }
        check(&self.world, self.folder.path(), self.history);
    }

    /// Lives until everything is settled, or until `end`; killed up to four times on the way if this trial is.
    fn lives(&mut self, end: Option<Time>) {
        let (seed, kills) = (self.world.seed, self.history.kills as u64);
        for n in kills.. {
            let step = match self.kill_within > 0 && n < kills + 4 && (n < 4 || end.is_some()) {
                true => 1 + dice((seed, "kill", n)) % (self.kill_within / 2 + 1),
                false => 0,
            };
            let ledger_fails = step > 0 && dice((seed, "how", n)).is_multiple_of(4);
            let lived = live(&self.world, self.folder.path(), self.now, Death { step, ledger_fails, moment: end });
            (self.now, self.steps) = (lived.end, self.steps + lived.steps);
            let over = end.is_some_and(|end| lived.end >= end);
            if !lived.killed || over {
                self.history.kills += usize::from(over);
                return;
            }
            self.history.kills += 1;
            // Down for a moment, or for hours.
            self.now += [0, 1, 900, 70_000, 5_000_000][dice((seed, "down", n + 1)) as usize % 5];
            if end.is_some_and(|end| self.now >= end) {
                return;
            }
            if self.world.plan.redrive && n == kills + 1 && !self.world.mended.load(Relaxed) {
                // In the middle, where nothing has been mended.
                self.drive_dead();
            }
        }
    }

    /// `faceflow retry --dead`.
    fn drive_dead(&mut self) {
        let settings = settings(&self.world);
        let state = self.folder.path().join("state");
        let ledger = DatabaseLedger::open(&state, "default", &settings.ledger).expect("a ledger");
        let dead = Selection { dead: true, waiting: false, urls: vec![] };
        let driven = futures::executor::block_on(ledger.redrive(dead)).expect("it is driven");
        self.history.driven |= driven > 0;
        // Whatever hosts have said, they are asked at once.
        lock(&self.world.rests).clear();
        assert_eq!(ledger.audit(5), Ok(vec![]), "after {driven} were driven again");
    }

    /// Whatever was due while the stream ran was looked at again. (That it was at the right moment, the web has seen.)
    fn everything_was_asked_for(&self, end: Time) {
        let dues = lock(&self.world.dues);
        let missed: Vec<_> = dues.iter().filter(|(_, due)| **due + 60_000 < end && self.now <= end).collect();
        assert!(missed.is_empty(), "never looked at again by {end}: {missed:?}");
    }
}

/// One seed: undisturbed, then cut off again and again.
fn try_seed(seed: u64) -> (u64, u64) {
    let mut calm = Trial::new(seed, 0);
    if std::env::var_os("SEED").is_some() {
        // One seed is repeated because it fails.
        println!("{:?}", calm.world.plan);
        for (url, place) in &calm.world.places {
            println!("{url} ({:?}): {place:?}", calm.world.web(url));
        }
    }
    calm.go();
    let mut cut = Trial::new(seed, calm.steps);
    cut.go();
    let (lines, expected) = (results(cut.folder.path()), results(calm.folder.path()));
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!(line, expected, "after {} kills", cut.history.kills);
    }
    assert_eq!(lines.len(), expected.len());
    (cut.history.kills as u64, calm.steps)
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
    let mut workers = [false; 3];
    for seed in 1..=12 {
        let history = || {
            let (folder, world) = (folder(), Arc::new(World::new(seed)));
            live(&world, folder.path(), EPOCH, Death::default())
        };
        assert_eq!(history(), history(), "seed {seed}");
        workers[World::new(seed).plan.workers] = true;
    }
    assert_eq!(workers, [false, true, true], "with one worker and with two");
}

/// The simulation finds a bug that is planted: a child process with it fails where one without it does not.
#[test]
fn planted_bugs_are_found() {
    let with = |bug: &str| {
        let mut child = Command::new(std::env::current_exe().expect("a test has a file"));
        child.args(["--exact", "whatever_is_killed_whenever_the_end_is_that_of_an_undisturbed_run", "--nocapture"]);
        let child = child.env("SEEDS", "40").env_remove("SEED").env(VARIABLE, bug).output().expect("it starts");
        let said = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        (child.status.code(), said)
    };
    let (code, said) = with("none");
    assert!(code == Some(0) && said.contains("1 passed"), "without a bug: {said}");
    for bug in BUGS {
        let (code, said) = with(bug);
        assert!(code == Some(101) && said.contains("failing seeds, to repeat"), "{bug} is not found: {said}");
    }
}
