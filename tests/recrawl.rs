//! Pages are looked at again when they are due: the real graph and ledger on a scripted web, under a virtual clock.

mod support;
mod world;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use faceflow::core::blocking::blocking;
use faceflow::core::detector::{Detector, EngineInfo, Inferred, PictureView, View};
use faceflow::core::executor::Executor;
use faceflow::core::record::PageVersion;
use faceflow::core::testing::{EPOCH, simulate_from};
use faceflow::core::{Class, Fault, Future, Time};
use faceflow::graph;
use faceflow::ledger::DatabaseLedger;
use faceflow::services::{Backends, Services};
use faceflow::sources::list::List;
use faceflow::store::Objects;
use faceflow::views::results::Kind;
use faceflow::web::{Response, Want, Web};
use support::{Markers, Still, lines, markers, settings};
use tempfile::tempdir;
use url::Url;

/// What happens: what the page says from a time on (how many pictures it shows, or that it is down), and from when on pictures
/// can be had and the engine works.
#[derive(Clone, Copy)]
struct Script {
    page: &'static [(Time, Result<usize, ()>)],
    pictures_from: Time,
    /// Until then pictures are not down but not there.
    pictures_missing: bool,
    engine_from: Time,
    /// Whether the page is a feed with so many entries, instead.
    feed: bool,
    /// From when and until when the page opts out.
    opts_out: (Time, Time),
}

impl Script {
    const fn of(page: &'static [(Time, Result<usize, ()>)]) -> Self {
        Self { page, pictures_from: 0, pictures_missing: false, engine_from: 0, feed: false, opts_out: (0, 0) }
    }
}

/// A request: when, for what, and whether it was conditional and answered by 304.
type Requests = Arc<Mutex<Vec<(Time, String, bool)>>>;

/// `http://a.example/`, which changes as time goes by and knows its ETag.
struct Changing {
    script: Script,
    requests: Requests,
    executor: Executor,
    mortal: Mortal,
}

/// The process, which is killed at this time.
#[derive(Clone)]
struct Mortal {
    until: Time,
    dead: Arc<AtomicBool>,
    executor: Executor,
}

impl Mortal {
    /// Whether it is dead by now.
    fn is_dead(&self) -> bool {
        if self.executor.clock.now() - EPOCH >= self.until {
            self.dead.store(true, Relaxed);
            self.executor.shutdown.stop();
            self.executor.wake_driver();
        }
        self.dead.load(Relaxed)
    }
}

impl Changing {
    fn now(&self) -> Time {
        self.executor.clock.now() - EPOCH
    }

    fn note(&self, url: &Url, same: bool) {
        self.requests.lock().expect("not poisoned").push((self.now(), url.path().to_owned(), same));
    }

    fn shown(&self) -> Result<usize, Fault> {
        let current = self.script.page.iter().rev().find(|(from, _)| *from <= self.now());
        current.and_then(|(_, shown)| shown.ok()).ok_or_else(down)
    }

    fn page(&self, url: &Url) -> Result<Response, Fault> {
        if self.script.feed && url.path() != "/" {
            return Ok(response(url, [("content-type", "text/html")], format!("<img src={}.jpg>", url.path()).into()));
        }
        let shown = self.shown()?;
        if self.script.feed {
            let items: String = (0..shown).map(|n| format!("<item><link>http://a.example/{n}</link></item>")).collect();
            let feed = format!("<rss version='2.0'><channel>{items}</channel></rss>");
            let headers = [("content-type", "application/rss+xml"), ("etag", &format!("\"{shown}\""))];
            return Ok(response(url, headers, feed.into()));
        }
        if (self.script.opts_out.0..self.script.opts_out.1).contains(&self.now()) {
            let html = "<meta name=robots content=noai><img src=/0.jpg>";
            return Ok(response(url, [("content-type", "text/html"), ("etag", "\"noai\"")], html.into()));
        }
        let html: String = (0..shown).map(|n| format!("<img src=/{n}.jpg>")).collect();
        Ok(response(url, [("content-type", "text/html"), ("etag", &format!("\"{shown}\""))], html.into()))
    }
}

fn down() -> Fault {
    Fault::transient(Class::Busy, "http_503", "down")
}

fn response<const N: usize>(url: &Url, headers: [(&str, &str); N], body: Bytes) -> Response {
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Response { final_url: url.clone(), status: 200, headers, body }
}

impl Web for Changing {
    fn get(&self, url: &Url, _: Want) -> Future<Result<Response, Fault>> {
        if self.mortal.is_dead() {
            return Box::pin(std::future::pending());
        }
        self.note(url, false);
        let answer = match url.path().strip_suffix(".jpg") {
            None => self.page(url),
            Some(_) if self.now() < self.script.pictures_from => Err(match self.script.pictures_missing {
                true => Fault::permanent(Class::Refused, "http_404", "not there"),
                false => down(),
            }),
            Some(name) => {
                let seed = name[1..].parse().expect("a number");
                let (picture, _) = world::portrait(seed, 120, 90);
                Ok(response(url, [("content-type", "image/jpeg")], world::jpeg(&picture, 90).into()))
            }
        };
        Box::pin(async move { answer })
    }

    fn get_again(&self, url: &Url, last: &PageVersion) -> Future<Result<Option<Response>, Fault>> {
        if self.mortal.is_dead() {
            return Box::pin(std::future::pending());
        }
        let page = self.page(url);
        let same = page.as_ref().is_ok_and(|page| page.header("etag") == last.etag.as_deref());
        self.note(url, same);
        Box::pin(async move { page.map(|page| Some(page).filter(|_| !same)) })
    }
}

/// Sees markers once it works, and notes when it looked.
struct Engine {
    from: Time,
    requests: Requests,
    mortal: Mortal,
}

impl Detector for Engine {
    fn info(&self) -> EngineInfo {
        Markers.info()
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        Markers.plan(width, height).into_iter().map(|view| View { scale: 0.25, ..view }).collect()
    }

    fn batch_max(&self) -> usize {
        1
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(blocking(move || self.look(&views)))
    }
}

impl Engine {
    fn look(&self, views: &[PictureView]) -> Inferred {
        if self.mortal.is_dead() {
            return Err(Fault::transient(Class::Engine, "engine_error", "nobody hears of it"));
        }
        let now = self.mortal.executor.clock.now() - EPOCH;
        self.requests.lock().expect("not poisoned").push((now, "detect".to_owned(), false));
        if now < self.from {
            return Err(Fault::transient(Class::Engine, "engine_error", "the engine is down"));
        }
        Ok(views.iter().map(|view| Ok(markers(&view.picture))).collect())
    }
}

/// Lives from `from` to the first visit that is due at or after `until`. Returns when that was.
fn live(folder: &Path, script: Script, (from, until): (Time, Time), requests: &Requests) -> Time {
    let (state, requests) = (folder.join("state"), Arc::clone(requests));
    let store = folder.join("out").display().to_string();
    let end = simulate_from(EPOCH + from, until + 1_000_000_000, move |scope, executor| {
        let settings = settings(&[
            "recrawl.interval_ms=1000000",
            "recrawl.interval_min_ms=100000",
            "recrawl.interval_max_ms=1500000",
            "image.min_side_px=16",
            "retry.web.attempts_max=1",
            "retry.detect.attempts_max=1",
            "dedupe.settle_ms=0",
        ]);
        let mortal = Mortal { until, dead: Arc::default(), executor: executor.clone() };
        let dead = Arc::clone(&mortal.dead);
        let engine = Engine { from: script.engine_from, requests: Arc::clone(&requests), mortal: mortal.clone() };
        let backends = Backends {
            web: Arc::new(Changing { script, requests, executor: executor.clone(), mortal }),
            store: Arc::new(Objects::open(&store).expect("a store")),
            ledger: Arc::new(Still(DatabaseLedger::open(&state, "default", &settings.ledger).expect("a ledger"), dead)),
            detector: Arc::new(engine),
            sources: vec![Box::new(List::new([Url::parse("http://a.example/").expect("a URL")]))],
            sinks: vec![],
        };
        let mut services = Services::new(Default::default(), settings, backends, executor.clone()).expect("services");
        services.again = true;
        graph::build(scope, &services)
    });
    end - EPOCH
}

/// When a path was asked for, or the engine was.
fn times(requests: &Requests, of: &str) -> Vec<Time> {
    requests.lock().expect("not poisoned").iter().filter(|(_, path, _)| path == of).map(|(at, ..)| *at).collect()
}

fn visits(requests: &Requests) -> Vec<(Time, bool)> {
    let requests = requests.lock().expect("not poisoned");
    requests.iter().filter(|(_, path, _)| path == "/").map(|(at, _, same)| (*at, *same)).collect()
}

/// A page that stays, grows, is down for a while, and stays again.
const SCRIPT: Script = Script::of(&[(0, Ok(1)), (2_000_000, Ok(2)), (4_000_000, Err(())), (5_000_000, Ok(2))]);

/// Unchanged: 40 % more. Changed: 20 % less. Down: 40 % more. At most 1,500 s.
const VISITS: [(Time, bool); 6] =
    [(0, false), (1_000_000, true), (2_400_000, false), (3_520_000, true), (5_020_000, true), (6_520_000, true)];

#[test]
fn intervals_follow_the_changes_of_a_page_to_the_millisecond() {
    let (folder, requests) = (tempdir().expect("a folder"), Requests::default());
    live(folder.path(), SCRIPT, (0, 7_000_000), &requests);
    assert_eq!(visits(&requests), VISITS);
    let images: Vec<_> = lines(folder.path(), Kind::Images).iter().map(|line| line["status"].clone()).collect();
    assert_eq!(images, ["done", "done"], "what was added is found");
    let asked = requests.lock().expect("not poisoned").iter().filter(|(_, path, _)| path.ends_with(".jpg")).count();
    assert_eq!(asked, 2, "what is known is not downloaded again");
    let page = &lines(folder.path(), Kind::Pages)[0];
    assert_eq!((&page["status"], &page["images"]), (&"done".into(), &2.into()));
}

#[test]
fn a_restart_between_any_two_visits_changes_no_due_time() {
    for kill in VISITS.iter().skip(1).map(|(at, _)| *at) {
        let (folder, requests) = (tempdir().expect("a folder"), Requests::default());
        let killed = live(folder.path(), SCRIPT, (0, kill), &requests);
        assert_eq!(killed, kill);
        live(folder.path(), SCRIPT, (killed, 7_000_000), &requests);
        assert_eq!(visits(&requests), VISITS, "killed at {kill}");
    }
}

#[test]
fn a_page_that_is_down_when_it_is_looked_at_again_stays_read() {
    const DOWN: Script = Script::of(&[(0, Ok(1)), (500_000, Err(()))]);
    let (folder, requests) = (tempdir().expect("a folder"), Requests::default());
    live(folder.path(), DOWN, (0, 3_000_000), &requests);
    assert_eq!(visits(&requests), [(0, false), (1_000_000, false), (2_400_000, false)]);
    let page = &lines(folder.path(), Kind::Pages)[0];
    assert_eq!((&page["status"], &page["reason"]), (&"done".into(), &serde_json::Value::Null));
}

/// All is down at first: the page, then its picture, then the engine.
const REPAIRED: Script =
    Script { pictures_from: 1_000_000, engine_from: 2_000_000, ..Script::of(&[(0, Err(())), (250_000, Ok(1))]) };
/// After 100 s, and each time 40 % later.
const OF_THE_PAGE: [Time; 5] = [0, 100_000, 240_000, 436_000, 1_436_000];
const OF_THE_PICTURE: [Time; 5] = [436_000, 536_000, 676_000, 872_000, 1_146_400];
const OF_THE_ENGINE: [Time; 6] = [1_146_400, 1_246_400, 1_386_400, 1_582_400, 1_856_800, 2_240_960];

fn assert_repaired(folder: &Path, requests: &Requests, what: &str) {
    assert_eq!(times(requests, "/"), OF_THE_PAGE, "{what}");
    assert_eq!(times(requests, "/0.jpg"), OF_THE_PICTURE, "{what}");
    assert_eq!(times(requests, "detect"), OF_THE_ENGINE, "{what}");
    let line = &lines(folder, Kind::Images)[0];
    assert!(line["status"] == "done" && line["faces"].is_array(), "{what}: {line}");
}

#[test]
fn what_is_dead_is_tried_by_a_stream_until_it_is_repaired() {
    let (folder, requests) = (tempdir().expect("a folder"), Requests::default());
    live(folder.path(), REPAIRED, (0, 2_300_000), &requests);
    assert_repaired(folder.path(), &requests, "in one life");
}

#[test]
fn a_restart_between_any_two_chances_changes_no_due_time() {
    for kill in OF_THE_PAGE.iter().chain(&OF_THE_PICTURE).chain(&OF_THE_ENGINE).skip(1).copied() {
        let (folder, requests) = (tempdir().expect("a folder"), Requests::default());
        let killed = live(folder.path(), REPAIRED, (0, kill), &requests);
        assert_eq!(killed, kill);
        if kill == 872_000 {
            let line = &lines(folder.path(), Kind::Images)[0];
            assert_eq!(
                (&line["status"], &line["attempts"]),
                (&"dead".into(), &3.into()),
                "meanwhile it is dead: {line}"
            );
        }
        live(folder.path(), REPAIRED, (killed, 2_300_000), &requests);
        assert_repaired(folder.path(), &requests, &format!("killed at {kill}"));
    }
}

#[test]
fn a_feed_that_is_read_again_brings_its_new_entries() {
    const GROWING: Script = Script { feed: true, ..Script::of(&[(0, Ok(1)), (1_500_000, Ok(3))]) };
    let (folder, requests) = (tempdir().expect("a folder"), Requests::default());
    live(folder.path(), GROWING, (0, 3_000_000), &requests);
    assert_eq!(visits(&requests), [(0, false), (1_000_000, true), (2_400_000, false)]);
    for (entry, first) in [("/0", 0), ("/1", 2_400_000), ("/2", 2_400_000)] {
        assert_eq!(times(&requests, entry)[0], first, "{entry}");
        assert_eq!(times(&requests, &format!("{entry}.jpg")), [first], "its picture");
    }
}

#[test]
fn a_picture_that_was_not_there_is_found_when_it_is() {
    const MISSING: Script = Script { pictures_from: 2_000_000, pictures_missing: true, ..Script::of(&[(0, Ok(1))]) };
    let (folder, requests) = (tempdir().expect("a folder"), Requests::default());
    live(folder.path(), MISSING, (0, 1_500_000), &requests);
    let line = &lines(folder.path(), Kind::Images)[0];
    assert_eq!((&line["status"], &line["reason"]), (&"rejected".into(), &"http_404".into()), "meanwhile: {line}");
    live(folder.path(), MISSING, (1_500_000, 5_000_000), &requests);
    assert_eq!(times(&requests, "/0.jpg"), [0, 1_000_000, 2_400_000], "after 1,000 s, then 40 % later");
    let line = &lines(folder.path(), Kind::Images)[0];
    assert!(line["status"] == "done" && line["faces"].is_array(), "{line}");
}

/// A picture that could not be had is asked for again once the opt-out is taken back; one that was had is not looked at any more.
#[test]
fn an_opt_out_on_a_later_visit_ends_what_is_open_of_the_page_until_it_is_taken_back() {
    const OPTS_OUT: Script = Script { opts_out: (900_000, 3_000_000), ..Script::of(&[(0, Ok(1))]) };
    const NO_PICTURE: Script = Script { pictures_from: 3_500_000, ..OPTS_OUT };
    const NO_ENGINE: Script = Script { engine_from: 3_500_000, ..OPTS_OUT };
    for (script, asked) in [(NO_PICTURE, "/0.jpg"), (NO_ENGINE, "detect")] {
        let (folder, requests) = (tempdir().expect("a folder"), Requests::default());
        let during = live(folder.path(), script, (0, 2_000_000), &requests);
        assert_eq!(visits(&requests)[1], (1_000_000, false), "it says noai now");
        let page = &lines(folder.path(), Kind::Pages)[0];
        assert_eq!((&page["status"], &page["reason"]), (&"done".into(), &"opt_out:noai".into()), "{asked}");
        let line = &lines(folder.path(), Kind::Images)[0];
        assert_eq!((&line["status"], &line["reason"]), (&"rejected".into(), &"opt_out:noai".into()), "{line}");
        let before = times(&requests, asked);
        assert!(before.len() > 2 && before.iter().all(|at| *at < 1_000_000), "{before:?}");
        live(folder.path(), script, (during, 9_000_000), &requests);
        if asked == "detect" {
            assert_eq!(times(&requests, asked), before, "what was taken before is not looked at again");
            continue;
        }
        let after = times(&requests, asked);
        assert!(after[before.len()] > 3_000_000, "not while it opts out: {after:?}");
        let page = &lines(folder.path(), Kind::Pages)[0];
        assert_eq!((&page["status"], &page["reason"]), (&"done".into(), &serde_json::Value::Null));
        let line = &lines(folder.path(), Kind::Images)[0];
        assert!(line["status"] == "done" && line["faces"].is_array(), "{asked}: {line}");
    }
}
