//! Retries at their timestamps: the real graph, ledger and store on a scripted web, under a virtual clock.

mod support;
mod world;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use faceflow::core::blocking::blocking;
use faceflow::core::detector::{Answer, Detector, EngineInfo, Inferred, PictureView, View};
use faceflow::core::sink::Store;
use faceflow::core::testing::{EPOCH, simulate};
use faceflow::core::{Class, Clock, Fault, Future};
use faceflow::graph;
use faceflow::ledger::DatabaseLedger;
use faceflow::services::{Backends, Services};
use faceflow::sources::list::List;
use faceflow::store::Objects;
use faceflow::views::results::Kind;
use faceflow::web::{Response, Want, Web};
use support::{Nowhere, Still, line_of, lines, markers, settings};
use tempfile::tempdir;
use url::Url;

type Times = Arc<Mutex<Vec<(String, u64)>>>;
type Script = HashMap<&'static str, Vec<Result<(&'static str, Bytes), Fault>>>;

/// Answers each path by its script, the last answer for ever, and notes when it was asked.
struct ScriptedDetector {
    script: Mutex<Script>,
    times: Times,
    clock: Arc<dyn Clock>,
}

impl Web for ScriptedDetector {
    fn get(&self, url: &Url, _want: Want) -> Future<Result<Response, Fault>> {
        self.times.lock().expect("not poisoned").push((url.path().to_owned(), self.clock.now() - EPOCH));
        let mut script = self.script.lock().expect("not poisoned");
        let answers = script.get_mut(url.path()).unwrap_or_else(|| panic!("{url} was never placed"));
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        let answer = answer.map(|(kind, body)| Response {
            final_url: url.clone(),
            status: 200,
            headers: vec![("content-type".to_owned(), kind.to_owned())],
            body,
        });
        Box::pin(async move { answer })
    }
}

/// What the engine does: each of these once, then it sees markers.
type Engine = Vec<Look>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Fails,
    /// It sees markers at half the scale.
    Degraded,
}

struct Failing {
    looks: Mutex<Engine>,
    times: Times,
    clock: Arc<dyn Clock>,
}

impl Detector for Failing {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: "failing".into(), model: "none".into(), model_sha256: String::new() }
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

impl Failing {
    fn look(&self, views: &[PictureView]) -> Inferred {
        self.times.lock().expect("not poisoned").push(("detect".to_owned(), self.clock.now() - EPOCH));
        let look = self.looks.lock().expect("not poisoned").pop();
        let degraded = look == Some(Look::Degraded);
        let scale = if degraded { 0.5 } else { 1.0 };
        match look {
            Some(Look::Fails) => Err(Fault::transient(Class::Engine, "engine_error", "scripted")),
            _ => {
                let answer =
                    |view: &PictureView| Ok(Answer { engine: self.info(), scale, degraded, ..markers(&view.picture) });
                Ok(views.iter().map(answer).collect())
            }
        }
    }
}

/// Runs the graph over `http://a.example/` and returns when each path was asked for and when the engine was.
fn run(
    folder: &std::path::Path,
    script: Script,
    engine: Engine,
    assignments: &'static [&'static str],
) -> Vec<(String, u64)> {
    let store = Arc::new(Objects::open("memory://").expect("a store in memory"));
    run_into(store, folder, script, engine, assignments)
}

fn run_into(
    store: Arc<dyn Store>,
    folder: &std::path::Path,
    script: Script,
    engine: Engine,
    assignments: &'static [&'static str],
) -> Vec<(String, u64)> {
    let times = Times::default();
    let (seen, state) = (Arc::clone(&times), folder.join("state"));
    let script = Mutex::new(script);
    simulate(48 * 3_600_000, move |scope, executor| {
        let clock = || Arc::clone(&executor.clock);
        let start = Url::parse("http://a.example/").expect("a URL");
        let mut settings = settings(assignments);
        settings.retry.web.jitter = 0.0;
        settings.dedupe.settle_ms = 0;
        settings.detect.linger_ms = 0;
        let backends = Backends {
            web: Arc::new(ScriptedDetector { script, times: Arc::clone(&seen), clock: clock() }),
            store,
            ledger: Arc::new(Still(
                DatabaseLedger::open(&state, "default", &settings.ledger).expect("a ledger"),
                Arc::default(),
            )),
            detector: Arc::new(Failing {
                looks: Mutex::new(engine.into_iter().rev().collect()),
                times: seen,
                clock: clock(),
            }),
            sources: vec![Box::new(List::new([start]))],
            sinks: vec![],
        };
        let services = Services::new(Default::default(), settings, backends, executor.clone()).expect("services");
        graph::build(scope, &services)
    });
    times.lock().expect("not poisoned").clone()
}

fn busy() -> Fault {
    Fault::transient(Class::Busy, "http_503", "scripted")
}

fn html(text: &'static str) -> Result<(&'static str, Bytes), Fault> {
    Ok(("text/html", Bytes::from_static(text.as_bytes())))
}

fn photo() -> Result<(&'static str, Bytes), Fault> {
    let (portrait, _) = world::portrait(4, 200, 150);
    Ok(("image/jpeg", world::jpeg(&portrait, 90).into()))
}

/// The gaps between the times of one name, from the first on.
fn gaps(times: &[(String, u64)], name: &str) -> Vec<u64> {
    let at: Vec<u64> = times.iter().filter(|(known, _)| known == name).map(|(_, at)| *at).collect();
    at.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn pages_and_images_come_back_after_two_four_and_eight_seconds() {
    let folder = tempdir().expect("a folder");
    let script = HashMap::from([
        ("/", vec![Err(busy()), Err(busy()), html("<img src=/a.jpg>")]),
        ("/a.jpg", vec![Err(busy()), Err(busy()), Err(busy()), photo()]),
    ]);
    let times = run(folder.path(), script, vec![], &[]);
    assert_eq!(gaps(&times, "/"), [2_000, 4_000]);
    assert_eq!(gaps(&times, "/a.jpg"), [2_000, 4_000, 8_000]);
    let images = lines(folder.path(), Kind::Images);
    assert_eq!((images[0]["status"].as_str(), images[0]["attempts"].as_u64()), (Some("done"), Some(4)), "{images:?}");
}

#[test]
fn retry_after_is_honoured() {
    let folder = tempdir().expect("a folder");
    let script = HashMap::from([("/", vec![Err(busy().after(90_000)), html("<p>nothing")])]);
    assert_eq!(gaps(&run(folder.path(), script, vec![], &[]), "/"), [90_000]);
}

#[test]
fn a_frame_backs_off_from_a_minute_to_an_hour_and_is_never_taken_for_a_picture_without_faces() {
    let folder = tempdir().expect("a folder");
    let script = || HashMap::from([("/", vec![html("<img src=/a.jpg>")]), ("/a.jpg", vec![photo()])]);
    let times = run(folder.path(), script(), vec![Look::Fails; 5], &[]);
    assert_eq!(gaps(&times, "detect"), [60_000, 120_000, 240_000, 480_000, 960_000]);
    assert_eq!(
        times.iter().filter(|(name, _)| name == "/a.jpg").count(),
        1,
        "the original is read back from the store"
    );
    let images = lines(folder.path(), Kind::Images);
    assert_eq!(
        (images[0]["status"].as_str(), images[0]["faces"].as_array().map(Vec::len)),
        (Some("done"), Some(1)),
        "{images:?}"
    );

    let folder = tempdir().expect("a folder");
    run(folder.path(), script(), vec![Look::Fails; 6], &[]);
    let images = lines(folder.path(), Kind::Images);
    let dead = line_of(&images, "http://a.example/a.jpg");
    assert_eq!((dead["status"].as_str(), &dead["faces"]), (Some("dead"), &serde_json::Value::Null), "{dead}");
    assert_eq!(dead["reason"], "engine_error");
}

#[test]
fn after_a_degraded_answer_the_full_one_is_still_owed_and_if_it_never_comes_the_degraded_one_stands() {
    use Look::{Degraded, Fails};
    let script = || HashMap::from([("/", vec![html("<img src=/a.jpg>")]), ("/a.jpg", vec![photo()])]);
    let end = |engine: Engine| {
        let folder = tempdir().expect("a folder");
        let times = run(folder.path(), script(), engine, &[]);
        let line = lines(folder.path(), Kind::Images).remove(0);
        let seen = (line["status"].as_str().map(str::to_owned), line["detector"]["degraded"].as_bool());
        (gaps(&times, "detect").len(), seen)
    };
    let done = |degraded| (Some("done".to_owned()), Some(degraded));
    assert_eq!(end(vec![Degraded, Fails]), (2, done(false)), "a full answer comes in the end");
    assert_eq!(end(vec![Degraded; 9]), (5, done(true)), "as often as for any failure");
    assert_eq!(end(vec![Fails, Fails, Degraded, Fails, Fails, Fails]), (5, done(true)));
    assert_eq!(end(vec![Fails; 9]), (5, (Some("dead".to_owned()), None)));
}

#[test]
fn a_picture_whose_original_is_gone_is_dead_after_the_last_attempt_and_the_run_ends() {
    let folder = tempdir().expect("a folder");
    let script = HashMap::from([("/", vec![html("<img src=/a.jpg>")]), ("/a.jpg", vec![photo()])]);
    run_into(Arc::new(Nowhere), folder.path(), script, vec![Look::Fails], &[]);
    let line = lines(folder.path(), Kind::Images).remove(0);
    assert_eq!((&line["status"], &line["reason"]), (&"dead".into(), &"original_missing".into()), "{line}");
}

#[test]
fn a_page_that_stays_busy_is_dead_after_the_last_attempt() {
    let folder = tempdir().expect("a folder");
    let times = run(folder.path(), HashMap::from([("/", vec![Err(busy())])]), vec![], &["retry.web.attempts_max=3"]);
    assert_eq!(gaps(&times, "/"), [2_000, 4_000]);
    let pages = lines(folder.path(), Kind::Pages);
    assert_eq!((pages[0]["status"].as_str(), pages[0]["reason"].as_str()), (Some("dead"), Some("http_503")));
}
