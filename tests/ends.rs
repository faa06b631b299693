//! How a process is asked to end, and how it ends when a part of it breaks: each end has its exit status, and the state goes on.

mod support;
mod world;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use faceflow::core::detector::{Detection, Detector, EngineInfo, Inferred, PictureView, View};
use faceflow::core::kill_point::{PANIC_VARIABLE, RETRY_POINT, SINK_POINTS, VARIABLE};
use faceflow::core::sink::Sink;
use faceflow::core::{Class, Fault, Future, Time};
use faceflow::job::Engine;
use faceflow::ledger::{DatabaseLedger, Selection};
use faceflow::views::results::Kind;
use serde_json::Value;
use support::Markers;
use tempfile::tempdir;
use world::{Answer, Faceflow, Gallery, Plan, World};

const LOCAL: [&str; 2] = ["--set", "fetch.allow_networks=127.0.0.0/8"];
const LIMIT: Duration = Duration::from_secs(60);

/// A drain waits 30 s, and a request is given up later still; whatever ends within this was not waited for.
fn faceflow(folder: &Path) -> Faceflow {
    Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder).deadline(Duration::from_secs(20))
}

fn signal_to_run(faceflow: &Faceflow, world: &World, site: &str) -> world::Running {
    let asked = world.log().total();
    let running = faceflow.start(&[&["run", site], &LOCAL[..]].concat());
    // Its robots.txt, and then the page that never comes.
    world.log().wait_for(LIMIT, |requests| requests.len() >= asked + 2);
    running
}

#[test]
fn the_second_interrupt_ends_the_process_at_once_and_a_hangup_ends_a_run() {
    let web = World::new();
    let site = web.site();
    site.put("/", Answer::silent());
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path());
    for (second, status) in [("INT", 130), ("TERM", 130)] {
        let mut running = signal_to_run(&faceflow, &web, &site.url("/"));
        running.signal("INT");
        assert!(running.hears("once more stops at once"), "{}", running.stderr());
        running.signal(second);
        let ended = running.finish();
        assert_eq!(ended.code(), Some(status), "{second}: {}", ended.stderr);
    }
    // Under nohup the test is deaf to it, and would hand that on.
    let hearing = Faceflow::new("/usr/bin/env", folder.path()).deadline(Duration::from_secs(20));
    let asked = web.log().total();
    let words = ["--default-signal=HUP", env!("CARGO_BIN_EXE_faceflow"), "run", &site.url("/")];
    let running = hearing.start(&[&words[..], &LOCAL].concat());
    web.log().wait_for(LIMIT, |requests| requests.len() >= asked + 2);
    running.signal("HUP");
    assert_eq!(running.finish().status.signal(), Some(1), "like any program");

    site.page("/", "<p>here");
    let ended = faceflow.run(&[&["run", &site.url("/")], &LOCAL[..]].concat());
    assert_eq!(ended.code(), Some(0), "the same command goes on: {}", ended.stderr);
    assert!(ended.stdout.contains("pages   1 discovered: 1 done"), "{}", ended.stdout);
}

#[test]
fn a_drain_takes_as_long_as_grace_allows_and_finishes_what_comes_within_it() {
    let web = World::new();
    let (silent, slow) = (web.site(), web.site());
    silent.put("/", Answer::silent());
    slow.put("/", Answer::ok("text/html", "<p>here").delayed(1_500));
    let status = |folder: &Path| faceflow(folder).results(&["--kind", "pages"])[0]["status"].clone();
    for (site, grace, ends_as) in [(&silent, "1", "open"), (&slow, "30", "done")] {
        let folder = tempdir().expect("a folder");
        let running =
            faceflow(folder.path()).start(&[&["stream", &site.url("/"), "--grace", grace], &LOCAL[..]].concat());
        web.log().wait_for(LIMIT, |requests| requests.iter().any(|request| request.url == site.url("/")));
        running.signal("TERM");
        let ended = running.finish();
        assert_eq!(ended.code(), Some(0), "--grace {grace}: {}", ended.stderr);
        assert_eq!(status(folder.path()), ends_as, "--grace {grace}");
    }
}

/// A small web, and what an undisturbed run makes of it.
fn gallery() -> (Gallery, Vec<Value>) {
    let gallery = Plan { sites: 1, pages_per_site: 3, images: 12, ..Plan::default() }.serve();
    let folder = tempdir().expect("a folder");
    support::finish(support::job(folder.path(), &gallery.starts(), &[]));
    let lines = support::lines(folder.path(), Kind::Images);
    assert!(lines.iter().filter(|line| line["status"] == "done").count() > 3, "there is something to see");
    (gallery, lines)
}

#[test]
fn a_writer_that_panics_fails_the_run_and_what_it_answered_is_durable() {
    let gallery = Plan { sites: 1, pages_per_site: 3, images: 12, ..Plan::default() }.serve();
    let starts = gallery.starts();
    let command = |more: &[&str]| -> Vec<String> {
        let words = ["run"].into_iter().chain(starts.iter().map(String::as_str)).chain(LOCAL);
        words.chain(["--set", "detect.seeta_px=320"]).chain(more.iter().copied()).map(str::to_owned).collect()
    };
    let run = |faceflow: &Faceflow| {
        let command = command(&[]);
        faceflow.run(&command.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let patient = |folder: &Path| faceflow(folder).deadline(Duration::from_secs(120));
    let undisturbed = tempdir().expect("a folder");
    assert_eq!(run(&patient(undisturbed.path())).code(), Some(0));
    let expected = patient(undisturbed.path()).results(&[]);
    for time in [1, 6] {
        let folder = tempdir().expect("a folder");
        let ended = run(&patient(folder.path()).env(PANIC_VARIABLE, &format!("ledger.commit:{time}")));
        assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("asked to panic at ledger.commit"), "{}", ended.stderr);
        assert!(ended.stderr.contains("its writer has ended; see the log"), "{}", ended.stderr);
        let ended = run(&patient(folder.path()));
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert_eq!(patient(folder.path()).results(&[]), expected, "after a panic at commit {time}");
    }
}

#[test]
fn a_retry_that_is_killed_has_driven_nothing_and_can_be_repeated() {
    let web = World::new();
    let site = web.site();
    site.put("/", Answer::status(503));
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path());
    let start = site.url("/");
    let run = [&["run", &start, "--set", "retry.web.attempts_max=1"], &LOCAL[..]].concat();
    assert_eq!(faceflow.run(&run).code(), Some(3), "a dead page");
    let pages = || faceflow.results(&["--kind", "pages"]);
    let before = pages();
    for point in [RETRY_POINT, "ledger.commit"] {
        let killed = self::faceflow(folder.path()).env(VARIABLE, &format!("{point}:1")).run(&["retry", "--dead"]);
        assert_eq!(killed.code(), None, "{point}: {}", killed.stderr);
        assert_eq!(pages(), before, "{point}: nothing is driven");
    }
    let killed = self::faceflow(folder.path()).env(VARIABLE, "ledger.committed:1").run(&["retry", "--dead"]);
    assert_eq!(killed.code(), None, "{}", killed.stderr);
    assert_eq!(pages()[0]["status"], "open", "what was committed stays");
    let ended = faceflow.run(&["retry", "--dead"]);
    assert_eq!((ended.code(), &ended.stdout[..10]), (Some(0), "0 entries "), "nothing is dead any more");
    site.page("/", "<p>here");
    assert_eq!(faceflow.run(&run).code(), Some(0));
    assert_eq!(pages()[0]["status"], "done");
}

/// Writes the pictures it was told of to a file, when it is flushed.
struct Notes(PathBuf, Vec<String>);

impl Sink for Notes {
    fn write(&mut self, _: Time, batch: &[Detection]) -> Result<(), Fault> {
        self.1.extend(batch.iter().map(|detection| detection.picture().to_string()));
        Ok(())
    }

    fn flush(&mut self, _: Time) -> Result<(), Fault> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0);
        let written = file.and_then(|mut file| self.1.drain(..).try_for_each(|id| writeln!(file, "{id}")));
        written.map_err(|error| Fault::transient(Class::Store, "sink", error.to_string()))
    }
}

const CHILD: &str = "the_process_with_a_sink_that_is_killed";
const CHILD_FOLDER: &str = "FACEFLOW_TEST_FOLDER";
const CHILD_SITES: &str = "FACEFLOW_TEST_SITES";

/// Does nothing unless the test below starts it.
#[test]
fn the_process_with_a_sink_that_is_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER).map(PathBuf::from) else { return };
    let sites = std::env::var(CHILD_SITES).expect("sites");
    let sites: Vec<String> = sites.lines().map(str::to_owned).collect();
    let mut job = support::job(&folder, &sites, &[]);
    job.sinks = vec![Box::new(Notes(folder.join("notes.txt"), vec![]))];
    support::finish(job);
}

#[test]
fn killed_around_a_flush_a_sink_is_told_again_and_misses_nothing() {
    let (gallery, expected) = gallery();
    for point in SINK_POINTS {
        for time in [1, 3, 6] {
            let folder = tempdir().expect("a folder");
            let live = |kill: Option<String>| {
                let mut child = Command::new(std::env::current_exe().expect("a test has a file"));
                child.args(["--exact", CHILD, "--nocapture"]);
                child.env(CHILD_FOLDER, folder.path()).env(CHILD_SITES, gallery.starts().join("\n"));
                child.envs(kill.map(|kill| (VARIABLE, kill))).output().expect("it starts")
            };
            let killed = live(Some(format!("{point}:{time}")));
            assert_eq!(killed.status.signal(), Some(9), "{point}:{time} is never reached: {killed:?}");
            let ended = live(None);
            assert_eq!(ended.status.code(), Some(0), "{point}:{time}: {ended:?}");
            assert_eq!(support::lines(folder.path(), Kind::Images), expected, "{point}:{time}");
            let notes = std::fs::read_to_string(folder.path().join("notes.txt")).expect("notes");
            let told: BTreeSet<&str> = notes.lines().collect();
            let done = expected.iter().filter(|line| line["status"] == "done");
            let done: BTreeSet<&str> = done.filter_map(|line| line["image"]["id"].as_str()).collect();
            assert!(told.is_superset(&done), "{point}:{time}: {done:?} are done, and it was told of {told:?}");
            // It may have events of one that something better stands for, which came while nothing was recorded yet.
            let seen: BTreeSet<&str> = expected.iter().filter_map(|line| line["image"]["id"].as_str()).collect();
            assert!(told.is_subset(&seen), "{point}:{time}: of {told:?}, there are {seen:?}");
        }
    }
}

/// An engine that is down.
struct Down;

impl Detector for Down {
    fn info(&self) -> EngineInfo {
        Markers.info()
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        Markers.plan(width, height)
    }

    fn batch_max(&self) -> usize {
        1
    }

    fn infer(self: Arc<Self>, _: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(async { Err(Fault::transient(Class::Engine, "engine_error", "down")) })
    }
}

/// What is done to a file that holds these bytes; the last ones are those of another picture.
type Damage = fn(&Path, &[u8], &[u8]);

/// Pictures are kept while the engine is down, and what was kept is damaged before it is read back.
#[test]
fn damaged_originals_are_dead_and_named_and_never_taken_for_pictures_without_faces() {
    let (gallery, expected) = gallery();
    let folder = tempdir().expect("a folder");
    let job = |engine: Arc<dyn Detector>| {
        let quick = ["retry.detect.attempts_max=2", "retry.detect.base_ms=1"];
        let mut job = support::job(folder.path(), &gallery.starts(), &quick);
        job.engine = Engine::Own(engine);
        job
    };
    support::finish(job(Arc::new(Down)));
    let lines = support::lines(folder.path(), Kind::Images);
    let kept: BTreeSet<&str> = lines.iter().filter_map(|line| line["image"]["key"].as_str()).collect();
    assert!(kept.len() > 5 && lines.iter().all(|line| line["status"] != "done"), "{lines:?}");
    let out = folder.path().join("out");
    let whole: Vec<(PathBuf, Vec<u8>)> =
        kept.iter().map(|key| (out.join(key), std::fs::read(out.join(key)).expect("it is kept"))).collect();
    let damage: [Damage; 4] = [
        |file, _, _| std::fs::remove_file(file).expect("removes"),
        |file, bytes, _| std::fs::write(file, &bytes[..bytes.len() / 2]).expect("writes"),
        |file, bytes, _| std::fs::write(file, vec![7; bytes.len()]).expect("writes"),
        // Another picture, whole.
        |file, _, other| std::fs::write(file, other).expect("writes"),
    ];
    for (n, (file, bytes)) in whole.iter().enumerate() {
        damage[n % damage.len()](file, bytes, &whole[(n + 1) % whole.len()].1);
    }
    drive(folder.path());
    support::finish(job(Arc::new(Markers)));
    let mut reasons = BTreeSet::new();
    for line in support::lines(folder.path(), Kind::Images).iter().filter(|line| line["image"].is_object()) {
        assert_eq!((&line["status"], &line["faces"]), (&"dead".into(), &Value::Null), "{line}");
        reasons.insert(line["reason"].as_str().expect("a reason").to_owned());
    }
    let words: BTreeSet<&str> = reasons.iter().map(String::as_str).collect();
    assert!(words.contains("original_missing") && words.contains("original_corrupt"), "{words:?}");

    for (file, bytes) in &whole {
        std::fs::write(file, bytes).expect("writes");
    }
    drive(folder.path());
    support::finish(job(Arc::new(Markers)));
    let plain = |mut lines: Vec<Value>| {
        lines.iter_mut().for_each(|line| line["attempts"] = Value::Null);
        lines
    };
    assert_eq!(plain(support::lines(folder.path(), Kind::Images)), plain(expected), "mended, and driven again");
}

/// `faceflow retry --dead`.
fn drive(folder: &Path) {
    let ledger =
        DatabaseLedger::open(&folder.join("state"), "default", &support::settings(&[]).ledger).expect("a ledger");
    let dead = Selection { dead: true, waiting: false, urls: vec![] };
    assert!(futures::executor::block_on(ledger.redrive(dead)).expect("drives") > 0);
}
