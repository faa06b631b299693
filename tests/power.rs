//! Power cuts: the real binary over a layer that knows what is on disk and what is not yet.
//!
//! A kill leaves everything that was written; a power cut leaves what was synced, and of the rest what chance will have. The
//! layer (`power/layer.c`, loaded into the process) writes a journal of all changes to files, and any moment of it can be cut
//! (`power/disk.rs`). `FACEFLOW_CUTS=200` cuts that often instead of a few times, `FACEFLOW_SEED=17` begins with that seed.

#[path = "power/disk.rs"]
mod disk;
mod support;
mod world;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use disk::{Dice, Journal, tree};
use faceflow::core::kill_point::VARIABLE;
use faceflow::core::record::ContentId;
use faceflow::core::testing::require;
use faceflow::ledger::Reader;
use faceflow::views::results::Kind;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use world::{Answer, Ended, Faceflow, Gallery, Plan};

/// Below the folder that is watched, so that folders are made whose entries can be lost.
const STATE: &str = "kept/here/state";
const OUT: &str = "kept/there/out";

const FLAGS: [&str; 12] = [
    "--set",
    "fetch.allow_networks=127.0.0.0/8",
    "--set",
    "crawl.shape=all",
    "--set",
    "detect.seeta_px=320",
    "--set",
    "ledger.group_max=8",
    "--state",
    STATE,
    "--out",
    OUT,
];

const POWER: [&str; 2] = ["--set", "ledger.durability=power"];
const PROCESS: [&str; 2] = ["--set", "ledger.durability=process"];

/// A small web, with a photograph in which there are faces.
fn web() -> Gallery {
    let gallery = Plan { sites: 2, pages_per_site: 5, images: 30, ..Plan::default() }.serve();
    let photo = image::load_from_memory(&world::rustface_photo()).expect("a picture").crop_imm(1000, 60, 310, 280);
    gallery.sites[0].put("/faces.jpg", Answer::ok("image/jpeg", world::jpeg(&photo.into_rgb8(), 90)));
    gallery.sites[0].page("/people", r#"<img src="/faces.jpg">"#);
    gallery
}

fn command<'a>(starts: &'a [String], durability: &[&'a str]) -> Vec<&'a str> {
    ["run"]
        .into_iter()
        .chain(starts.iter().map(String::as_str))
        .chain(FLAGS)
        .chain(durability.iter().copied())
        .collect()
}

fn starts(gallery: &Gallery) -> Vec<String> {
    gallery.starts().into_iter().chain([gallery.sites[0].url("/people")]).collect()
}

fn faceflow(folder: &Path) -> Faceflow {
    Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder).deadline(Duration::from_secs(120))
}

/// The layer, compiled; nothing where a library cannot be put before others.
fn layer() -> Option<&'static Path> {
    static LAYER: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    if !cfg!(target_os = "linux") {
        require::skip("preload", "the layer between process and files is made for Linux");
        return None;
    }
    let (_, library) = LAYER.get_or_init(|| {
        let folder = tempdir().expect("a folder");
        let library = folder.path().join("layer.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/layer.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-pthread", "-o"]).arg(&library).arg(source);
        let compiled = compiler.output().expect("there is a C compiler, as Rust links with it");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        (folder, library)
    });
    Some(library)
}

/// A folder in which processes live, with the journal of what they did there.
struct Machine {
    folder: TempDir,
    notes: TempDir,
    journal: Journal,
}

impl Machine {
    fn new(folder: TempDir) -> Self {
        let journal = Journal::of(folder.path());
        Self { folder, notes: tempdir().expect("a folder"), journal }
    }

    fn notes(&self) -> PathBuf {
        self.notes.path().join("journal")
    }

    /// The binary over the layer; [`Machine::note`] comes after its end.
    fn watched(&self, layer: &Path) -> Faceflow {
        let notes = self.notes();
        std::fs::remove_file(&notes).ok();
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        faceflow(self.folder.path())
            .env("LD_PRELOAD", &path(layer))
            .env("POWER_CUT_ROOT", &path(self.folder.path()))
            .env("POWER_CUT_JOURNAL", &path(&notes))
    }

    /// Takes over what a process did that ended by itself, or was killed.
    fn note(&mut self, ended: &Ended) {
        let missed = self.journal.add(&self.notes());
        // A kill may fall between one change and its record; a rename shows at two paths.
        let most = if ended.code().is_none() { 2 } else { 0 };
        assert!(missed <= most, "the layer missed changes at {missed} paths");
    }

    /// One life, which must end well or by the kill that it was asked to die of.
    fn live(&mut self, layer: &Path, command: &[&str], kill: Option<&str>) {
        let watched = self.watched(layer);
        let watched = kill.into_iter().fold(watched, |watched, kill| watched.env(VARIABLE, kill));
        let ended = watched.run(command);
        let expected = if kill.is_some() { None } else { Some(0) };
        assert_eq!(ended.code(), expected, "{kill:?}: {}", ended.stderr);
        self.note(&ended);
    }

    /// The folder as a power cut after so many changes leaves it.
    fn cut(&self, upto: usize, seed: u64) -> TempDir {
        let after = tempdir().expect("a folder");
        self.journal.cut(upto, &mut Dice(seed), after.path());
        after
    }

    /// The log at that moment but for its last group, whose commit may not have been answered.
    fn answered(&self, upto: usize) -> Vec<Fact> {
        let folder = tempdir().expect("a folder");
        self.journal.killed(upto, folder.path());
        let mut facts = facts(folder.path());
        let last = facts.last().map(|fact| fact.1);
        facts.retain(|fact| Some(fact.1) != last);
        facts
    }
}

/// A line of the log: its number, its time, what it is about.
type Fact = (i64, i64, String);

/// The log of the state in `folder`; none where there is none yet. The state must open.
fn facts(folder: &Path) -> Vec<Fact> {
    let file = folder.join(STATE).join("ledger.sqlite");
    if !file.is_file() {
        return vec![];
    }
    let ledger = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).expect("opens");
    let check: String = ledger.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("can be checked");
    assert_eq!(check, "ok");
    let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'events'";
    if ledger.query_row(tables, [], |row| row.get::<_, i64>(0)).expect("is read") == 0 {
        return vec![];
    }
    let sql = "SELECT seq, at_ms, kind || ' ' || coalesce(entry, '') || ' ' || coalesce(picture, '') FROM events ORDER BY seq";
    let mut statement = ledger.prepare(sql).expect("prepares");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("is read");
    rows.map(|row| row.expect("is read")).collect()
}

/// Results of images and pages, in one.
fn lines(folder: &Path) -> Vec<Value> {
    let faceflow = faceflow(folder);
    let mut lines = faceflow.results(&["--state", STATE]);
    lines.extend(faceflow.results(&["--state", STATE, "--kind", "pages"]));
    lines
}

/// Objects that the results in `folder` name and that are not there as they should be.
fn missing(folder: &Path) -> Vec<String> {
    if Reader::open(&folder.join(STATE), "default", &Default::default()).is_err() {
        return vec![];
    }
    let out = folder.join(OUT);
    let whole = |key: &str| std::fs::read(out.join(key)).is_ok_and(|bytes| image::load_from_memory(&bytes).is_ok());
    let mut missing = Vec::new();
    for line in support::lines_at(&folder.join(STATE), Kind::Images) {
        let (Some(id), Some(key)) = (line["image"]["id"].as_str(), line["image"]["key"].as_str()) else { continue };
        let original = std::fs::read(out.join(key)).ok();
        if original.is_none_or(|bytes| ContentId::of(&bytes).to_string() != id) {
            missing.push(key.to_owned());
        }
        let crops = line["faces"].as_array().into_iter().flatten().map(|face| face["crop"].as_str().expect("a key"));
        missing.extend(crops.filter(|crop| !whole(crop)).map(str::to_owned));
        let thumb = format!("default/thumbs/{}/{id}.jpg", &id[..2]);
        if line["status"] == "done" && !whole(&thumb) {
            missing.push(thumb);
        }
    }
    missing
}

/// Originals and sidecars. Crops and thumbnails may be there of pictures that are duplicates by now.
fn objects(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut objects = tree(&folder.join(OUT));
    let common = |path: &Path| ["default/images", "default/meta"].iter().any(|kind| path.starts_with(kind));
    objects.retain(|path, _| common(path) && !path.to_string_lossy().contains('#'));
    objects
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

/// Lives that end with a kill at this point, before the one whose changes are cut.
const DEATHS: [&[&str]; 5] =
    [&[], &["state.migrated:1"], &["store.stored:7"], &["ledger.committed:9", "store.put:3"], &["ledger.commit:12"]];

/// A moment of a journal: the first steps and the very end more often than their share.
fn moment(journal: &Journal, from: usize, dice: &mut Dice) -> usize {
    match dice.below(8) {
        0 => journal.len(),
        1 => from + dice.below(60.min(journal.len() - from)),
        _ => from + dice.below(journal.len() - from),
    }
}

#[test]
fn a_power_cut_takes_nothing_that_was_recorded_and_the_same_command_goes_on() {
    let Some(layer) = layer() else { return };
    let gallery = web();
    let starts = starts(&gallery);
    let command = command(&starts, &POWER);
    let mut undisturbed = Machine::new(tempdir().expect("a folder"));
    undisturbed.live(layer, &command, None);
    let (expected, stored) = (lines(undisturbed.folder.path()), objects(undisturbed.folder.path()));
    assert_eq!(missing(undisturbed.folder.path()), [""; 0]);
    assert!(expected.iter().any(|line| line["faces"].as_array().is_some_and(|faces| !faces.is_empty())), "faces");
    let mut machines = vec![undisturbed];
    for deaths in &DEATHS[1..] {
        let mut machine = Machine::new(tempdir().expect("a folder"));
        deaths.iter().for_each(|kill| machine.live(layer, &command, Some(kill)));
        machine.live(layer, &command, None);
        machines.push(machine);
    }

    let (first, cuts, mut checked) = (number("FACEFLOW_SEED", 0), number("FACEFLOW_CUTS", 10), 0);
    for seed in first..first + cuts {
        let (machine, mut dice) = (&machines[seed as usize % machines.len()], Dice(seed));
        // Many moments are looked at; at the last one the run goes on.
        let mut after = tempdir().expect("a folder");
        for _ in 0..8 {
            after = survive(machine, moment(&machine.journal, 0, &mut dice), (seed, &mut dice));
            checked += 1;
        }
        // The life that recovers is cut, too.
        let mut second = Machine::new(after);
        let from = second.journal.len();
        second.live(layer, &command, None);
        let after = survive(&second, moment(&second.journal, from, &mut dice), (seed, &mut dice));
        let ended = faceflow(after.path()).run(&command);
        assert_eq!(ended.code(), Some(0), "seed {seed}: {}", ended.stderr);
        for folder in [second.folder.path(), after.path()] {
            for (line, expected) in lines(folder).iter().zip(&expected) {
                assert_eq!(line, expected, "seed {seed}");
            }
            assert_eq!(lines(folder).len(), expected.len(), "seed {seed}");
            let now = objects(folder);
            let differ: Vec<_> =
                now.keys().chain(stored.keys()).filter(|path| now.get(*path) != stored.get(*path)).collect();
            assert!(differ.is_empty(), "seed {seed}: {differ:?}");
            assert_eq!(missing(folder), [""; 0], "seed {seed}");
        }
        checked += 1;
    }
    println!("{checked} cuts, {cuts} of them twice and gone on with");
}

/// Cuts the power there. Nothing that was answered may be gone, nothing that a result names may be missing or torn.
fn survive(machine: &Machine, upto: usize, (seed, dice): (u64, &mut Dice)) -> TempDir {
    let what = format!("seed {seed}, cut after {upto} of {} changes", machine.journal.len());
    let after = machine.cut(upto, dice.below(usize::MAX) as u64);
    let (answered, kept) = (machine.answered(upto), facts(after.path()));
    let lost = answered.iter().filter(|fact| kept.binary_search(fact).is_err()).count();
    assert_eq!(lost, 0, "{what}: so many of {} facts that were answered are lost", answered.len());
    let missing = missing(after.path());
    assert!(missing.is_empty(), "{what}: results name what is not there: {missing:?}");
    after
}

/// The test of the test, and what `"process"` costs when the power fails.
#[test]
fn without_syncs_a_power_cut_takes_facts_and_objects_and_the_state_still_opens() {
    let Some(layer) = layer() else { return };
    let gallery = web();
    let starts = starts(&gallery);
    let command = command(&starts, &PROCESS);
    let mut machine = Machine::new(tempdir().expect("a folder"));
    machine.live(layer, &command, None);
    let expected = lines(machine.folder.path());
    let (first, cuts) = (number("FACEFLOW_SEED", 0), 100);
    let (mut answered, mut lost_facts, mut lost_objects) = (0, 0, 0);
    for seed in first..first + cuts {
        let mut dice = Dice(seed);
        let upto = moment(&machine.journal, 0, &mut dice);
        let after = machine.cut(upto, seed);
        let (all, kept) = (machine.answered(upto), facts(after.path()));
        answered += all.len();
        lost_facts += all.iter().filter(|fact| kept.binary_search(fact).is_err()).count();
        lost_objects += missing(after.path()).len();
        if seed >= first + number("FACEFLOW_CUTS", 5) {
            continue;
        }
        // What the ledger has lost is done again. What only the output has lost is not noticed unless it is needed: a picture
        // that waits for its faces has no original.
        let ended = faceflow(after.path()).run(&[&command[..], &["--patience", "0"]].concat());
        let waits = lines(after.path()).iter().any(|line| line["reason"] == "original_missing");
        assert!(ended.code() == Some(0) || waits && ended.code() == Some(3), "seed {seed}: {}", ended.stderr);
        assert_eq!(lines(after.path()).len(), expected.len(), "seed {seed}");
    }
    println!("{cuts} cuts: {lost_facts} of {answered} facts lost, {lost_objects} objects that results name lost");
    assert!(lost_facts > 0, "the layer loses no facts");
    assert!(lost_objects > 0, "the layer loses no objects");
}

#[test]
fn a_submission_that_was_answered_survives_a_power_cut() {
    let Some(layer) = layer() else { return };
    let gallery = web();
    let mut machine = Machine::new(tempdir().expect("a folder"));
    let watched = machine.watched(layer);
    let listen = ["stream", "--listen", "127.0.0.1:0", "--set", "submit.token=secret"];
    let mut running = watched.start(&[&listen[..], &FLAGS, &POWER].concat());
    assert!(running.hears("/v1/sites"), "{}", running.stderr());
    let said = running.stderr();
    let address = said.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let site = gallery.sites[0].url("/people");
    let body = serde_json::json!({ "sites": [site] }).to_string();
    let head = format!(
        "POST /v1/sites HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer secret\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.write_all(head.as_bytes()).expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    assert!(answer.contains("202"), "{answer}");
    // Whatever follows, this much was done before the answer.
    let before = tempdir().expect("a folder");
    let notes = before.path().join("journal");
    std::fs::copy(machine.notes(), &notes).expect("copies");
    let earliest = machine.journal.len() + Journal::records(&notes);
    // Until it is at work, a signal ends it as it would end any process.
    gallery.world.log().wait_for(Duration::from_secs(30), |requests| !requests.is_empty());
    running.signal("TERM");
    let ended = running.finish();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    machine.note(&ended);
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let upto = earliest + dice.below(machine.journal.len() - earliest);
        let after = machine.cut(upto, seed);
        let inbox = std::fs::read_to_string(after.path().join(STATE).join("inbox-default.txt"));
        let inbox = inbox.unwrap_or_else(|error| panic!("seed {seed}: the inbox is lost: {error}"));
        assert_eq!(inbox.trim_end(), site, "seed {seed}");
    }
}
