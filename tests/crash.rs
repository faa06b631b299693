//! Killed and resumed: SIGKILL a real process in mid-run, run the same command again, and compare with an undisturbed run.

mod support;
mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use faceflow::core::blocking::blocking;
use faceflow::core::detector::{self, Detection, Detector, EngineInfo, Inferred, PictureView, View};
use faceflow::core::kill_point::{POINTS, VARIABLE};
use faceflow::core::record::ContentId;
use faceflow::core::sink::Sink;
use faceflow::core::{Class, Fault, Future, Time};
use faceflow::job::{Engine, Job};
use faceflow::views::results::Kind;
use serde_json::Value;
use support::Recorded;
use tempfile::tempdir;
use world::{Answer, Faceflow, Gallery, Plan, Script, World};

/// A small web with a server error and a dropped connection in it, so that retries are under way when the kill comes.
fn web() -> Gallery {
    let gallery = Plan { sites: 2, pages_per_site: 7, images: 60, ..Plan::default() }.serve();
    renew(&gallery);
    gallery
}

/// Lets the troubled images fail again, and forgets what was asked for.
fn renew(gallery: &Gallery) {
    let host = &gallery.sites[0];
    let photo = world::jpeg(&world::picture(99, 300, 200), 90);
    let busy = Script::times(2, Answer::status(503)).then(Answer::ok("image/jpeg", photo.clone()));
    let broken = Script::times(1, Answer::ok("image/jpeg", photo.clone()).drop_mid_body(100))
        .then(Answer::ok("image/jpeg", photo));
    host.put("/busy.jpg", busy).put("/broken.jpg", broken);
    host.page("/trouble", r#"<img src="/busy.jpg"><img src="/broken.jpg">"#);
    gallery.world.log().clear();
}

/// Tries of an address that fail by its script.
fn failures(url: &str) -> usize {
    if url.ends_with("/busy.jpg") { 2 } else { usize::from(url.ends_with("/broken.jpg")) }
}

const FLAGS: [&str; 10] = [
    "--set",
    "fetch.allow_networks=127.0.0.0/8",
    "--set",
    "crawl.shape=all",
    "--set",
    "retry.web.base_ms=50",
    "--set",
    "retry.web.jitter=0",
    "--set",
    "detect.seeta_px=320",
];

/// The command: every site, and a page that shows the troubled images.
fn command(gallery: &Gallery) -> Vec<String> {
    let mut command = vec!["run".to_owned()];
    command.extend(gallery.starts());
    command.push(gallery.sites[0].url("/trouble"));
    command.extend(FLAGS.map(str::to_owned));
    command
}

fn faceflow(folder: &Path) -> Faceflow {
    Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder).deadline(Duration::from_secs(120))
}

/// Results of pages and images. How often something was tried is left out where tries fail: a kill may fall between a
/// failure and its record.
fn settled(faceflow: &Faceflow) -> Vec<Value> {
    let mut lines = faceflow.results(&[]);
    lines.extend(faceflow.results(&["--kind", "pages"]));
    let troubled = |line: &Value| failures(line["url"].as_str().expect("a URL")) > 0;
    lines.iter_mut().filter(|line| troubled(line)).for_each(|line| line["attempts"] = Value::Null);
    lines
}

/// Compares what a run that was killed came to with an undisturbed one: nothing lost, nothing changed, nothing asked for more
/// often than a kill explains.
fn assert_same(faceflow: &Faceflow, expected: &[Value], (gallery, kills, what): (&Gallery, usize, &str)) {
    let lines = settled(faceflow);
    assert_eq!(lines.len(), expected.len(), "{what}");
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(line, expected, "{what}");
    }
    for (url, count) in gallery.world.log().counts() {
        let most = 1 + failures(&url) + kills;
        assert!(count <= most || url.ends_with("/robots.txt"), "{what}: {url} was asked for {count} times, not {most}");
    }
}

#[test]
fn killed_at_random_moments_and_resumed_the_results_are_those_of_an_undisturbed_run() {
    let gallery = web();
    let command = command(&gallery);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let folder = tempdir().expect("a folder");
    let undisturbed = faceflow(folder.path());
    let ended = undisturbed.run(&command);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let expected = settled(&undisturbed);
    assert!(expected.iter().all(|line| line["status"] != "open"));

    // Each round is killed a little later than the one before, several times over, then left to finish.
    let wanted = std::env::var("FACEFLOW_KILLS").ok().and_then(|kills| kills.parse::<usize>().ok()).unwrap_or(15);
    let (mut round, mut kills) = (0, 0_usize);
    while kills < wanted {
        let folder = tempdir().expect("a folder");
        let faceflow = faceflow(folder.path());
        renew(&gallery);
        let mut killed = vec![];
        for kill in 0..3 {
            let moment = Duration::from_millis(60 + 97 * (round * 3 + kill) as u64 % 900);
            match faceflow.start(&command).kill9_after(moment) {
                Ok(_) => killed.push(Recorded::of(&faceflow, &[], &gallery)),
                Err(ended) => assert_eq!(ended.code(), Some(0), "it ended before the kill: {}", ended.stderr),
            }
        }
        let (ended, what) = (faceflow.run(&command), format!("round {round}"));
        assert_eq!(ended.code(), Some(0), "{what}: {}", ended.stderr);
        assert_same(&faceflow, &expected, (&gallery, killed.len(), &what));
        killed.iter().for_each(|recorded| recorded.assert_not_asked_again(&gallery, &what));
        (round, kills) = (round + 1, kills + killed.len());
        assert!(round < 2 * wanted, "{kills} kills in {round} rounds: it ends before it can be killed");
    }
    println!("{kills} kills in {round} rounds");
}

#[test]
fn killed_at_every_durable_step_and_resumed_the_results_are_those_of_an_undisturbed_run() {
    let gallery = web();
    let command = command(&gallery);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let folder = tempdir().expect("a folder");
    let undisturbed = faceflow(folder.path());
    assert_eq!(undisturbed.run(&command).code(), Some(0));
    let expected = settled(&undisturbed);

    let mut kills = 0;
    for point in POINTS {
        for (n, time) in [1, 2, 5, 23, 70].into_iter().enumerate() {
            let (folder, what) = (tempdir().expect("a folder"), format!("{point}:{time}"));
            let workers = ["1", "2"][n % 2];
            let command = [&command[..], &["-w", workers]].concat();
            renew(&gallery);
            // The second life dies at the same step, on what the first left behind, if it comes so far.
            let lives = [0, 1].map(|_| {
                let ended = faceflow(folder.path()).env(VARIABLE, &what).run(&command);
                (ended, Recorded::of(&faceflow(folder.path()), &[], &gallery))
            });
            for (ended, _) in &lives {
                assert!(matches!(ended.code(), None | Some(0)), "{what}: {}", ended.stderr);
            }
            let killed = lives.iter().filter(|(ended, _)| ended.code().is_none()).count();
            assert!(n > 0 || killed > 0, "{what} is never reached");
            kills += killed;
            let ended = faceflow(folder.path()).run(&command);
            assert_eq!(ended.code(), Some(0), "{what}: {}", ended.stderr);
            assert_same(&faceflow(folder.path()), &expected, (&gallery, killed, &what));
            lives.iter().for_each(|(_, recorded)| recorded.assert_not_asked_again(&gallery, &what));
            if lives[0].0.code().is_some() {
                break;
            }
        }
    }
    println!("{kills} kills at {} points", POINTS.len());
}

/// An engine with a bug in the part that runs on the worker threads.
struct Violation;

impl Detector for Violation {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: "broken".into(), model: "none".into(), model_sha256: String::new() }
    }

    fn plan(&self, _: u32, _: u32) -> Vec<View> {
        panic!("a bug in the engine")
    }

    fn batch_max(&self) -> usize {
        1
    }

    fn infer(self: Arc<Self>, _: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(async { Ok(vec![]) })
    }
}

#[test]
fn a_panic_on_one_of_two_workers_ends_the_run_and_says_why() {
    let gallery = Plan { sites: 2, pages_per_site: 3, images: 9, ..Plan::default() }.serve();
    let folder = tempdir().expect("a folder");
    let mut job = support::job(folder.path(), &gallery.starts(), &[]);
    job.engine = Engine::Own(Arc::new(Violation));
    job.options.workers = 2;
    let error = job.run().expect_err("fails").to_string();
    assert!(error.contains("a worker panicked") && error.contains("a bug in the engine"), "{error}");
    support::finish(support::job(folder.path(), &gallery.starts(), &[]));
    let lines = support::lines(folder.path(), Kind::Images);
    assert!(!lines.is_empty() && lines.iter().all(|line| line["status"] != "open"), "the same state goes on");
}

#[test]
fn an_interrupt_drains_and_the_same_command_goes_on() {
    let gallery = web();
    let command = command(&gallery);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    // Until this one comes, nothing is over.
    let slow = Answer::ok("text/html", r#"<img src="/busy.jpg"><img src="/broken.jpg">"#).delayed(4_000);
    gallery.sites[0].put("/trouble", slow);
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path());
    let running = faceflow.start(&command);
    gallery.world.log().wait_for(Duration::from_secs(30), |requests| requests.len() > 10);
    running.signal("INT");
    let ended = running.finish();
    assert_eq!(ended.code(), Some(130), "{}", ended.stderr);
    let asked = gallery.world.log().total();
    let ended = faceflow.run(&command);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let lines = faceflow.results(&[]);
    assert!(lines.iter().all(|line| line["status"] != "open"));
    let again =
        gallery.world.log().requests().into_iter().skip(asked).filter(|request| !request.url.ends_with("robots.txt"));
    let repeated: Vec<String> = again
        .map(|request| request.url)
        .filter(|url| gallery.world.log().of(url)[0].ended_ms.is_some() && gallery.world.log().count(url) > 1)
        .filter(|url| !url.ends_with("busy.jpg") && !url.ends_with("broken.jpg"))
        .collect();
    assert!(
        repeated.is_empty(),
        "a drained run finished what was under way, yet these were asked for again: {repeated:?}"
    );
}

/// An engine that sees two faces at a small scale first, then one.
struct Improving(AtomicUsize);

impl Detector for Improving {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: "improving".into(), model: "none".into(), model_sha256: String::new() }
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        vec![View::as_is(width, height)]
    }

    fn batch_max(&self) -> usize {
        1
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(blocking(move || self.look(&views)))
    }
}

impl Improving {
    fn look(&self, views: &[PictureView]) -> Inferred {
        let degraded = self.0.fetch_add(1, Relaxed) == 0;
        let face = |n: usize| detector::Face {
            bbox: [10.0 + 40.0 * n as f32, 10.0, 50.0 + 40.0 * n as f32, 60.0],
            score: 0.9,
            quality: 0.0,
            landmarks: None,
        };
        let (faces, scale) = if degraded { (vec![face(1), face(2)], 0.5) } else { (vec![face(0)], 1.0) };
        let answer = detector::Answer { scale, degraded, ..detector::Answer::full(self.info(), faces) };
        Ok(views.iter().map(|_| Ok(answer.clone())).collect())
    }
}

const ANSWERS: &str = "FACEFLOW_TEST_ANSWERS";

fn improving(folder: &Path, site: &str, looks: usize) -> Job {
    let mut job = support::job(folder, &[site.to_owned()], &["retry.detect.base_ms=10", "dedupe.settle_ms=0"]);
    job.engine = Engine::Own(Arc::new(Improving(AtomicUsize::new(looks))));
    job
}

/// Does nothing unless the test below starts it: then it is killed by the variable that names the point.
#[test]
fn the_run_that_is_killed_between_two_answers() {
    let Ok(asked) = std::env::var(ANSWERS) else {
        println!("runs only as the child of a_second_answer_that_is_not_recorded_changes_nothing_of_the_first");
        return;
    };
    let (folder, site) = asked.split_once(' ').expect("a folder and a site");
    improving(Path::new(folder), site, 0).run().expect("is killed before it can fail");
}

#[test]
fn a_second_answer_that_is_not_recorded_changes_nothing_of_the_first() {
    let web = World::new();
    let site = web.site();
    site.page("/", "<img src=/a.jpg>").image("/a.jpg", world::jpeg(&world::picture(5, 300, 200), 90));
    let folder = tempdir().expect("a folder");
    // A probe of the store, the original, two crops and the thumbnail of the first answer; then the crop of the second.
    let killed = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "the_run_that_is_killed_between_two_answers", "--nocapture"])
        .env(ANSWERS, format!("{} {}", folder.path().display(), site.url("/")))
        .env(VARIABLE, "store.stored:6")
        .output()
        .expect("runs");
    assert_eq!(killed.status.code(), None, "it was killed: {}", String::from_utf8_lossy(&killed.stderr));
    let crops = || {
        let line = support::lines(folder.path(), Kind::Images).remove(0);
        let keys = line["faces"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|face| face["crop"].as_str().expect("a key").to_owned());
        let bytes =
            keys.clone().map(|key| std::fs::read(folder.path().join("out").join(key)).expect("what is named is there"));
        (
            line["status"].as_str().expect("a word").to_owned(),
            line["detector"]["degraded"] == true,
            keys.collect::<Vec<_>>(),
            bytes.collect::<Vec<_>>(),
        )
    };
    let (status, degraded, keys, first) = crops();
    assert_eq!((status.as_str(), degraded, first.len()), ("open", true, 2));
    let later = keys[0].replace("/0.jpg", "/g1-0.jpg");
    let second = std::fs::read(folder.path().join("out").join(&later)).expect("the second answer's crop is there");
    assert!(first.iter().all(|crop| *crop != second), "it is another picture");

    support::finish(improving(folder.path(), &site.url("/"), 1));
    let (status, degraded, now, bytes) = crops();
    assert_eq!((status.as_str(), degraded, &now[..]), ("done", false, &[later][..]));
    assert_eq!(bytes, [second]);
    assert!(keys.iter().all(|key| !folder.path().join("out").join(key).exists()), "nothing names them any more");
}

/// Takes what it is given, or nothing.
struct TenantStore(Arc<Mutex<Vec<ContentId>>>, bool);

impl Sink for TenantStore {
    fn write(&mut self, _: Time, batch: &[Detection]) -> Result<(), Fault> {
        if self.1 {
            return Err(Fault::transient(Class::Store, "sink", "the tenant_store is full"));
        }
        self.0.lock().expect("not poisoned").extend(batch.iter().map(Detection::picture));
        Ok(())
    }

    fn flush(&mut self, _: Time) -> Result<(), Fault> {
        Ok(())
    }
}

#[test]
fn a_detection_that_its_sink_did_not_take_is_owed() {
    let gallery = Plan { sites: 1, pages_per_site: 3, images: 9, ..Plan::default() }.serve();
    let folder = tempdir().expect("a folder");
    let taken = Arc::new(Mutex::new(Vec::new()));
    let job = |full: bool| {
        let mut job = support::job(folder.path(), &gallery.starts(), &[]);
        job.sinks = vec![Box::new(TenantStore(Arc::clone(&taken), full))];
        job
    };
    let error = job(true).run().expect_err("fails").to_string();
    assert!(error.contains("the tenant_store is full"), "{error}");
    assert!(support::lines(folder.path(), Kind::Images).iter().all(|line| line["status"] != "done"));
    support::finish(job(false));
    let lines = support::lines(folder.path(), Kind::Images);
    let done: BTreeSet<String> = lines
        .iter()
        .filter(|line| line["status"] == "done")
        .map(|line| line["image"]["id"].as_str().expect("an id").into())
        .collect();
    let taken: BTreeSet<String> = taken.lock().expect("not poisoned").iter().map(ToString::to_string).collect();
    assert_eq!(taken, done);
    assert!(!done.is_empty());
}
