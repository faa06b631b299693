//! Memory does not grow with what was crawled, nor with what is queued: the real graph and ledger on a scripted web, days of
//! virtual time in seconds.
//!
//! `FACEFLOW_SOAK=1000000 cargo test --release --test soak -- --nocapture` takes a million URLs instead of a CI-sized number.

mod support;
mod world;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use faceflow::core::blocking::blocking;
use faceflow::core::detector::{Detector, EngineInfo, Inferred, PictureView, View};
use faceflow::core::executor::Executor;
use faceflow::core::record::PageVersion;
use faceflow::core::testing::{EPOCH, simulate};
use faceflow::core::{Class, Fault, Future};
use faceflow::graph;
use faceflow::ledger::DatabaseLedger;
use faceflow::services::{Backends, Services};
use faceflow::sources::list::List;
use faceflow::web::{Response, Want, Web};
use support::{Nowhere, Still, markers, settings};
use tempfile::tempdir;
use url::Url;
use world::{picture, png};

/// One test at a time: they measure the memory of the process they share.
static ALONE: Mutex<()> = Mutex::new(());

/// The ledger's caches are small, so that they are full before anything is measured.
const SETTINGS: [&str; 4] = ["image.min_side_px=16", "crawl.shape=all", "crawl.max_pages=1000000", "ledger.cache_mb=1"];

/// Pages are looked at again every hour.
const HOURLY: [&str; 2] = ["recrawl.interval_ms=3600000", "recrawl.interval_max_ms=3600000"];

const HOSTS: usize = 8;
/// Images that a page shows.
const SHOWN: usize = 100;

/// Hosts `h0` to `h7` with pages that show numbered images, some of which are busy at first or are not there. Pictures are few,
/// so that what is measured is the crawl and not the index of pictures, which does grow.
struct Wide {
    urls: usize,
    pictures: Vec<Bytes>,
    asked: AtomicUsize,
    /// Resident memory, in bytes, by number of images asked for.
    memory: Mutex<Vec<(usize, u64)>>,
    end: End,
}

/// How a crawl ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Everything is settled.
    Settled,
    /// The host of the images never answers: when all of them are queued.
    Stuck,
    /// Pictures wait for a slow detector: when all of them are queued.
    Slow,
    /// Pages are looked at again: when that was done so often.
    LookedAgain(usize),
}

impl Wide {
    fn new(urls: usize, end: End) -> Self {
        let pictures = (0..20).map(|seed| png(&picture(seed, 32, 24)).into()).collect();
        Self { urls, pictures, asked: AtomicUsize::new(0), memory: Mutex::default(), end }
    }

    fn pages_per_host(&self) -> usize {
        self.urls / SHOWN / HOSTS
    }

    /// What the start page or page `n` of a host says.
    fn page(&self, host: &str, n: usize) -> String {
        let images = (0..SHOWN).map(|i| match self.end {
            End::Stuck => format!("<img src=http://stuck.example/{host}-{n}-{i}>"),
            End::Slow => format!(
                "<img src=http://slow.example/{}>",
                (n * HOSTS + host[1..2].parse::<usize>().unwrap_or(0)) * SHOWN + i
            ),
            _ => format!("<img src=/image/{n}-{i}>"),
        });
        let next = if n + 1 < self.pages_per_host() { format!("<a href=/page/{}>", n + 1) } else { String::new() };
        images.collect::<String>() + &next
    }
}

impl End {
    /// Whether the end comes when everything is queued.
    fn queues(self) -> bool {
        matches!(self, Self::Stuck | Self::Slow)
    }
}

struct WideWeb {
    wide: Arc<Wide>,
    executor: Executor,
}

impl Web for WideWeb {
    fn get(&self, url: &Url, _: Want) -> Future<Result<Response, Fault>> {
        let (wide, url, executor) = (Arc::clone(&self.wide), url.clone(), self.executor.clone());
        Box::pin(async move {
            let host = url.host_str().unwrap_or_default().to_owned();
            if host == "stuck.example" {
                return std::future::pending().await;
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
            if host == "slow.example" {
                let seed = url.path()[1..].parse().expect("a number");
                let headers = vec![("content-type".to_owned(), "image/png".to_owned())];
                return Ok(Response { final_url: url, status: 200, headers, body: png(&picture(seed, 32, 24)).into() });
            }
            let number = |text: &str| text.parse::<usize>().unwrap_or(0);
            let (kind, body) = match url.path().strip_prefix("/image/") {
                None => {
                    let n = url.path().strip_prefix("/page/").map_or(0, number);
                    if wide.end.queues() {
                        wide.note(SHOWN, &executor);
                    }
                    ("text/html", wide.page(&host, n).into())
                }
                Some(name) => {
                    let (page, i) = name.split_once('-').unwrap_or_default();
                    let counted = if wide.end == End::Settled { wide.note(1, &executor) } else { 0 };
                    let n = counted + number(page) + number(i);
                    match n % 200 {
                        7 => return Err(Fault::permanent(Class::Refused, "http_404", "not there")),
                        8 => return Err(Fault::transient(Class::Busy, "http_503", "not now")),
                        _ => ("image/png", wide.pictures[n % wide.pictures.len()].clone()),
                    }
                }
            };
            let headers = vec![("content-type".to_owned(), kind.to_owned())];
            Ok(Response { final_url: url, status: 200, headers, body })
        })
    }

    /// One page in ten has changed; some are down.
    fn get_again(&self, url: &Url, _: &PageVersion) -> Future<Result<Option<Response>, Fault>> {
        let (visits, got) = (self.wide.note(1, &self.executor), self.get(url, Want::Page));
        Box::pin(async move {
            match visits % 100 {
                50 => Err(Fault::transient(Class::Busy, "http_503", "not now")),
                n if n % 10 == 0 => got.await.map(Some),
                _ => Ok(None),
            }
        })
    }
}

impl Wide {
    /// Counts images; a hundred times in all, memory is looked at. The end comes when all of a stuck web is queued.
    fn note(&self, images: usize, executor: &Executor) -> usize {
        let asked = self.asked.fetch_add(images, Relaxed) + images;
        let (most, step) = match self.end {
            End::Settled => (usize::MAX, self.urls / 100),
            End::Stuck | End::Slow => (self.pages_per_host() * HOSTS * SHOWN, self.urls / 100),
            End::LookedAgain(times) => (times, times / 100),
        };
        if asked.is_multiple_of(step.max(SHOWN)) {
            self.memory.lock().expect("not poisoned").push((asked, resident()));
        }
        if asked >= most {
            executor.shutdown.stop();
            executor.wake_driver();
        }
        asked
    }
}

/// Quick, with batches of this size.
struct Quick(usize);

impl Detector for Quick {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: "scripted".into(), model: "none".into(), model_sha256: String::new() }
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        vec![View::as_is(width, height)]
    }

    fn batch_max(&self) -> usize {
        self.0
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(blocking(move || Ok(views.iter().map(|view| Ok(markers(&view.picture))).collect())))
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux says how much memory a process has");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4_096
}

/// Crawls it all. Returns the memory by number of images, and how long it took in virtual milliseconds.
fn crawl(wide: Wide, folder: &Path) -> (Vec<(usize, u64)>, u64) {
    let (wide, state) = (Arc::new(wide), folder.join("state"));
    let (web, again, slow) = (Arc::clone(&wide), matches!(wide.end, End::LookedAgain(_)), wide.end == End::Slow);
    let end = simulate(400 * 24 * 3_600_000, move |scope, executor| {
        let mut settings = settings(&[SETTINGS.as_slice(), &HOURLY].concat());
        // More pictures to a batch than can be in flight: it is never full, and looked at when it has waited.
        let (batch, linger_ms) = if slow { (1_000, 500) } else { (8, settings.detect.linger_ms) };
        settings.detect.linger_ms = linger_ms;
        let starts = (0..HOSTS).map(|n| Url::parse(&format!("http://h{n}.example/")).expect("a URL"));
        let backends = Backends {
            web: Arc::new(WideWeb { wide: web, executor: executor.clone() }),
            store: Arc::new(Nowhere),
            ledger: Arc::new(Still(
                DatabaseLedger::open(&state, "default", &settings.ledger).expect("a ledger"),
                Arc::default(),
            )),
            detector: Arc::new(Quick(batch)),
            sources: vec![Box::new(List::new(starts))],
            sinks: vec![],
        };
        let mut services = Services::new(Default::default(), settings, backends, executor.clone()).expect("services");
        services.again = again;
        graph::build(scope, &services)
    });
    let memory = wide.memory.lock().expect("not poisoned").clone();
    (memory, end)
}

/// How many URLs to take.
fn urls(usual: usize) -> usize {
    std::env::var("FACEFLOW_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The slope of memory over images, in bytes per image (least squares), and its mean.
fn slope(memory: &[(usize, u64)]) -> (f64, f64) {
    let n = memory.len() as f64;
    let (x, y) =
        memory.iter().fold((0.0, 0.0), |(x, y), (images, bytes)| (x + *images as f64 / n, y + *bytes as f64 / n));
    let (xy, xx) = memory.iter().fold((0.0, 0.0), |(xy, xx), (images, bytes)| {
        let (dx, dy) = (*images as f64 - x, *bytes as f64 - y);
        (xy + dx * dy, xx + dx * dx)
    });
    (xy / xx, y)
}

const MB: f64 = 1_048_576.0;
/// What a URL may leave in memory: less than its key in a set would, more than noise.
const BYTES_MAX: f64 = 20.0;

#[test]
fn memory_does_not_grow_with_what_was_crawled() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, urls) = (tempdir().expect("a folder"), urls(60_000));
    let (memory, took) = crawl(Wide::new(urls, End::Settled), folder.path());
    flat(&memory, &format!("{urls} URLs"), took);
}

#[test]
fn memory_does_not_grow_with_time() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, visits) = (tempdir().expect("a folder"), urls(20_000));
    let (memory, took) = crawl(Wide::new(2 * HOSTS * SHOWN, End::LookedAgain(visits)), folder.path());
    flat(&memory, &format!("{visits} visits to {} pages", 2 * HOSTS), took);
}

/// Memory has no slope after the first third, which fills caches, pools and the index of pictures.
fn flat(memory: &[(usize, u64)], what: &str, took: u64) {
    let settled = &memory[memory.len() / 3..];
    let (slope, mean) = slope(settled);
    let grown = slope * (settled[settled.len() - 1].0 - settled[0].0) as f64;
    let days = took as f64 / 86_400_000.0;
    println!("{what}, {days:.1} days: {:.1} MB, {slope:.2} bytes more for each", mean / MB);
    assert!(grown < 0.05 * mean && slope < BYTES_MAX, "{:.1} MB more on {:.1} MB", grown / MB, mean / MB);
}

#[test]
fn memory_does_not_grow_with_what_is_queued_behind_a_host_that_never_answers() {
    queued(End::Stuck);
}

#[test]
fn memory_does_not_grow_with_what_is_queued_before_a_slow_detector() {
    queued(End::Slow);
}

fn queued(end: End) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, urls) = (tempdir().expect("a folder"), urls(40_000));
    let (memory, took) = crawl(Wide::new(urls, end), folder.path());
    let at = |wanted: usize| {
        let (images, bytes) = memory.iter().find(|(images, _)| *images >= wanted).expect("so many were asked for");
        println!("{images} queued, in {} s: {:.1} MB", (took - EPOCH) / 1_000, *bytes as f64 / MB);
        *bytes as f64
    };
    let (first, last) = (at(10_000.min(urls / 4)), at(memory[memory.len() - 1].0));
    let queued = (urls - 10_000.min(urls / 4)) as f64;
    // Pictures that are looked at meanwhile stay in the index.
    let bytes_max = if end == End::Stuck { BYTES_MAX } else { f64::MAX };
    let flat = (last - first).abs() < 0.1 * first && (last - first) / queued < bytes_max;
    assert!(flat, "from {:.1} to {:.1} MB", first / MB, last / MB);
}
