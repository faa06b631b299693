//! Jobs that run behind a handle: sources enter and leave one running graph, a drain and a cancel leave a ledger that goes on,
//! and nothing waits for ever.

mod support;
mod world;

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use faceflow::core::record::Key;
use faceflow::core::shutdown::Mode;
use faceflow::core::source::{Source, SourceItem};
use faceflow::core::{Clock, Time, clock::RuntimeClock};
use faceflow::job::{Engine, Job, JobError, Summary};
use faceflow::job_handle::{AddSourceError, JobHandle, JobProgress};
use faceflow::mine::url_normalization::parse_site;
use faceflow::sources::list::List;
use faceflow::views::results::Kind;
use serde_json::Value;
use support::{LIMIT, finish, job, line_of, lines, until};
use tempfile::tempdir;
use world::{Answer, Script, World, gallery_web, jpeg, picture};

fn list(sites: &[String]) -> Box<dyn Source> {
    Box::new(List::new(sites.iter().map(|site| parse_site(site).expect("a site"))))
}

fn progress(handle: &JobHandle) -> JobProgress {
    handle.progress().expect("progress")
}

/// Waits until so many pages and images are known, and all of them are settled.
fn settled(handle: &JobHandle, pages: usize, images: usize) {
    until(&format!("{pages} pages and {images} images"), || {
        let now = progress(handle);
        assert!(!handle.is_finished(), "it runs on: {now:?}");
        let known = (now.pages.discovered as usize, now.images.discovered as usize);
        known == (pages, images) && now.pages.open + now.images.open == 0
    });
}

/// Does what may block on a thread of its own, and fails if it does not return in time.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(work()));
    receive.recv_timeout(LIMIT).unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn ended(handle: JobHandle) -> Summary {
    in_time("the end of the job", move || handle.wait()).unwrap_or_else(|error| panic!("the job failed: {error}"))
}

/// A source that yields what a test puts in, and never ends.
#[derive(Clone, Default)]
struct Feed {
    sites: Arc<Mutex<VecDeque<String>>>,
    name: Option<&'static str>,
    remembered: Arc<Mutex<Option<HashSet<Key>>>>,
}

impl Feed {
    fn put(&self, site: String) {
        self.sites.lock().expect("the sites").push_back(site);
    }

    fn is_empty(&self) -> bool {
        self.sites.lock().expect("the sites").is_empty()
    }

    /// Whether a source of the job shares it still.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.sites) > 1
    }
}

impl Source for Feed {
    fn poll(&mut self, _now: Time) -> SourceItem {
        let next = self.sites.lock().expect("the sites").pop_front();
        next.map_or(SourceItem::Later, |site| SourceItem::Site(parse_site(&site).expect("a site")))
    }

    fn list(&self) -> Option<&str> {
        self.name
    }

    fn remember(&mut self, sites: HashSet<Key>) {
        *self.remembered.lock().expect("what is remembered") = Some(sites);
    }
}

/// Pages and images.
fn results(folder: &Path) -> (Vec<Value>, Vec<Value>) {
    (lines(folder, Kind::Pages), lines(folder, Kind::Images))
}

#[test]
fn sources_enter_and_leave_one_running_graph_and_the_results_are_those_of_a_batch() {
    let gallery = gallery_web(3, 9, 45);
    let starts = gallery.starts();
    let (batch, running) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let all = ["crawl.shape=all"];
    finish(job(batch.path(), &starts, &all));
    let expected = results(batch.path());
    gallery.world.log().clear();

    let mut job = job(running.path(), &[], &all);
    job.sources.clear();
    job.options.workers = 2;
    let handle = job.start().expect("starts");
    assert_eq!(progress(&handle).sources, []);
    let first = handle.add_source(list(&starts[..1])).expect("is added");
    let feed = Feed::default();
    let second = handle.add_source(Box::new(feed.clone())).expect("is added");
    feed.put(starts[1].clone());
    let of_both =
        |line: &&Value| starts[..2].iter().any(|site| line["url"].as_str().is_some_and(|url| url.starts_with(site)));
    let pages = expected.0.iter().filter(of_both).count();
    assert!(pages > 2 && pages < expected.0.len(), "{pages} of {}", expected.0.len());
    until("the sites of the first two sources", || {
        let now = progress(&handle);
        assert!(!handle.is_finished(), "it runs on: {now:?}");
        now.sources == [second] && now.pages.discovered as usize >= pages && now.pages.open + now.images.open == 0
    });
    assert_ne!(first, second);
    assert!(!handle.remove_source(first), "it has ended");

    assert!(handle.remove_source(second), "it was read until now");
    until("the removed source is let go", || !feed.is_held());
    assert!(!handle.remove_source(second) && progress(&handle).sources.is_empty());
    feed.put("http://127.0.0.1:9/".to_owned());
    handle.add_source(list(&starts[2..])).expect("is added");
    settled(&handle, expected.0.len(), expected.1.len());

    let summary = ended(handle);
    assert!(!summary.outcome.interrupted && !feed.is_empty(), "{:?}", summary.outcome);
    assert_eq!(results(running.path()), expected);
    assert_eq!(gallery.repeats(), []);
}

#[test]
fn the_frontier_follows_the_clock_while_the_input_is_open_and_a_distant_retry_ends_nothing_before_it_is_closed() {
    let web = World::new();
    let (busy, later) = (web.site(), web.site());
    busy.put("/", Answer::status(429).header("retry-after", "7200"));
    later.page("/", "<img src=/a.jpg>").image("/a.jpg", jpeg(&picture(1, 200, 150), 90));
    let folder = tempdir().expect("a folder");
    let handle = job(folder.path(), &[busy.url("/")], &[]).start().expect("starts");
    until("the retry is recorded", || {
        let now = progress(&handle);
        now.sources.is_empty() && web.log().count(&busy.url("/")) == 1 && in_flight(&now) == 0
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let clock = RuntimeClock::wall(runtime.handle().clone());
    for _ in 0..3 {
        // By now the process has nothing to do but to wait: the frontier must move all the same, and never past the clock.
        let before = clock.now();
        until("the frontier follows the clock", || {
            let frontier = progress(&handle).frontier.expect("it runs");
            assert!(frontier <= clock.now() + 1_000, "{frontier} lies ahead of {}", clock.now());
            frontier >= before
        });
    }
    assert!(!handle.is_finished(), "others may come");
    handle.add_source(list(&[later.url("/")])).expect("is added");
    until("what came later is done", || progress(&handle).images.done == 1);
    let summary = ended(handle);
    assert!(summary.outcome.next_due.is_some() && !summary.outcome.interrupted, "{:?}", summary.outcome);
    assert_eq!((summary.pages.done, summary.pages.open, summary.images.done), (1, 1, 1));
}

fn in_flight(now: &JobProgress) -> usize {
    let count = |name: &str| {
        let stage = now.stages.iter().find(|(stage, _)| *stage == name);
        stage.map_or(0, |(_, stage)| stage.in_flight.load(std::sync::atomic::Ordering::Relaxed))
    };
    ["fetch", "mine", "download"].into_iter().map(count).sum()
}

/// A web in which every page is quick but one, which never answers when it is asked the first time.
fn stuck_web() -> (World, [String; 3]) {
    let web = World::new();
    let (quick, stuck) = (web.site(), web.site());
    quick.page("/", "<img src=/a.jpg>").image("/a.jpg", jpeg(&picture(2, 200, 150), 90));
    let page = Answer::ok("text/html", "<img src=/b.jpg>");
    stuck.put("/", Script::times(1, Answer::silent()).then(page));
    stuck.image("/b.jpg", jpeg(&picture(3, 200, 150), 90));
    let urls = [quick.url("/"), stuck.url("/"), quick.url("/a.jpg")];
    (web, urls)
}

/// Waits until all is settled but the page that does not answer.
fn is_stuck(handle: &JobHandle, web: &World, stuck: &str) {
    until("one page is under way, all else is settled", || {
        let now = progress(handle);
        now.images.done == 1 && now.pages.open == 1 && web.log().count(stuck) == 1
    });
}

#[test]
fn a_job_that_is_cancelled_says_what_is_open_and_goes_on_from_its_ledger() {
    let (web, [quick, stuck, image]) = stuck_web();
    let folder = tempdir().expect("a folder");
    let sites = [quick.clone(), stuck.clone()];
    let handle = job(folder.path(), &sites, &[]).start().expect("starts");
    is_stuck(&handle, &web, &stuck);
    handle.cancel();
    let added = handle.add_source(list(&sites));
    assert!(matches!(added, Err(AddSourceError::Closed)), "{added:?}");
    until("it has ended", || handle.is_finished());
    let now = progress(&handle);
    assert_eq!((now.pages.done, now.pages.open, now.mode), (1, 1, Mode::Stopped), "the counts of the end");
    // Before anybody has waited for it: the state is free.
    let resumed = job(folder.path(), &[], &[]).start().expect("starts");
    let summary = ended(handle);
    assert!(summary.outcome.interrupted);
    assert_eq!((summary.pages.done, summary.pages.open, summary.images.done), (1, 1, 1));

    let summary = ended(resumed);
    assert!(!summary.outcome.interrupted);
    assert_eq!((summary.pages.done, summary.pages.open, summary.images.done), (2, 0, 2));
    let asked = [&quick, &image, &stuck].map(|url| web.log().count(url));
    assert_eq!(asked, [1, 1, 2], "what was settled is not asked for again");
    assert_eq!(line_of(&lines(folder.path(), Kind::Pages), &stuck)["status"], "done");
}

#[test]
fn a_drain_finishes_what_is_under_way_and_leaves_the_rest_open() {
    let web = World::new();
    let site = web.site();
    site.put("/", Answer::ok("text/html", "<a href=/p>more</a>").delayed(700));
    site.page("/p", "nothing");
    let folder = tempdir().expect("a folder");
    let handle = job(folder.path(), &[], &[]).start().expect("starts");
    let feed = Feed::default();
    let source = handle.add_source(Box::new(feed.clone())).expect("is added");
    feed.put(site.url("/"));
    until("the page is asked for", || web.log().count(&site.url("/")) == 1);
    handle.drain();
    let added = handle.add_source(list(&[site.url("/other")]));
    assert!(matches!(added, Err(AddSourceError::Closed)), "{added:?}");
    // Whether the drain or the removal comes first: it is not read any more.
    handle.remove_source(source);
    until("the source is let go", || !feed.is_held());
    let summary = ended(handle);
    assert!(summary.outcome.interrupted);
    assert_eq!((summary.pages.done, summary.pages.open), (1, 1), "{:?}", summary.pages);
    assert_eq!(web.log().count(&site.url("/p")), 0, "nothing new was begun");
    let summary = finish(job(folder.path(), &[], &[]));
    assert_eq!((summary.pages.done, summary.pages.open), (2, 0));
}

#[test]
fn a_handle_that_is_dropped_ends_its_job_and_frees_the_state() {
    let (web, [quick, stuck, _]) = stuck_web();
    let folder = tempdir().expect("a folder");
    let handle = job(folder.path(), &[quick, stuck.clone()], &[]).start().expect("starts");
    is_stuck(&handle, &web, &stuck);
    in_time("the drop", move || drop(handle));
    let summary = finish(job(folder.path(), &[], &[]));
    assert_eq!((summary.pages.done, summary.pages.open, summary.images.done), (2, 0, 2));
}

#[test]
fn an_endless_job_is_ended_by_its_handle_alone() {
    let web = World::new();
    let site = web.site();
    site.page("/", "<img src=/a.jpg>").image("/a.jpg", jpeg(&picture(4, 200, 150), 90));
    let folder = tempdir().expect("a folder");
    let mut job = job(folder.path(), &[site.url("/")], &[]);
    job.options.endless = true;
    let shutdown = job.shutdown.clone();
    let handle = job.start().expect("starts");
    settled(&handle, 1, 1);
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(handle.wait()));
    let early = receive.recv_timeout(Duration::from_millis(500));
    assert!(matches!(early, Err(mpsc::RecvTimeoutError::Timeout)), "its sources have ended, and it goes on");
    shutdown.drain();
    let summary = receive.recv_timeout(LIMIT).expect("ends").expect("well");
    assert!(summary.outcome.interrupted && summary.images.done == 1);
}

/// A source that names one site again and again, and never pauses.
struct Restless(String);

impl Source for Restless {
    fn poll(&mut self, _now: Time) -> SourceItem {
        SourceItem::Site(parse_site(&self.0).expect("a site"))
    }
}

#[test]
fn a_source_that_never_pauses_holds_up_no_other() {
    let web = World::new();
    let (one, other) = (web.site(), web.site());
    one.page("/", "nothing");
    other.page("/", "<img src=/a.jpg>").image("/a.jpg", jpeg(&picture(5, 200, 150), 90));
    let folder = tempdir().expect("a folder");
    let handle = job(folder.path(), &[], &[]).start().expect("starts");
    let restless = handle.add_source(Box::new(Restless(one.url("/")))).expect("is added");
    until("it is read", || web.log().count(&one.url("/")) == 1);
    handle.add_source(list(&[other.url("/")])).expect("is added");
    until("the other is read", || progress(&handle).images.done == 1);
    assert!(handle.remove_source(restless));
    let summary = ended(handle);
    assert_eq!((summary.pages.done, summary.pages.open, summary.images.done), (2, 0, 1));
}

#[test]
fn a_list_that_is_added_later_remembers_what_it_named() {
    let web = World::new();
    let site = web.site();
    site.page("/", "nothing");
    let folder = tempdir().expect("a folder");
    let named = || Feed { name: Some("the list"), ..Feed::default() };
    for known in [false, true] {
        let handle = job(folder.path(), &[], &[]).start().expect("starts");
        let feed = named();
        handle.add_source(Box::new(feed.clone())).expect("is added");
        let remembered = feed.remembered.lock().expect("what is remembered").clone().expect("it is asked at once");
        let key = Key::page(&parse_site(&site.url("/")).expect("a site"));
        assert_eq!(remembered, HashSet::from_iter(known.then_some(key)));
        feed.put(site.url("/"));
        until("it is taken in", || feed.is_empty());
        settled(&handle, 1, 0);
        handle.cancel();
        ended(handle);
    }
}

#[test]
fn what_cannot_be_opened_is_said_by_start() {
    let folder = tempdir().expect("a folder");
    let mut bad = job(folder.path(), &[], &[]);
    bad.engine = Engine::Named("no such engine".to_owned());
    assert!(matches!(bad.start().err(), Some(JobError::Engine(_))));
    let handle = job(folder.path(), &[], &[]).start().expect("starts");
    let second: Job = job(folder.path(), &[], &[]);
    assert!(matches!(second.start().err(), Some(JobError::Open(_))), "the state is in use");
    ended(handle);
}
