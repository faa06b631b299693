//! What tests of the whole pipeline share: a detector that sees marker rectangles, jobs, and results.

// Every test file compiles this module anew and uses its own part of it.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use faceflow::config::{Layers, Settings};
use faceflow::core::blocking::blocking;
use faceflow::core::detector::{Answer, Detector, EngineInfo, Face, Inferred, PictureView, PixelBuffer, Shape, View};
use faceflow::core::fact::Fact;
use faceflow::core::ledger::{DispatchReply, DispatchRequest, KnownPicture, Ledger, LedgerError, QueueUpdate};
use faceflow::core::record::{JobId, TenantNumber};
use faceflow::core::sink::{Listing, Store};
use faceflow::core::tally::{Tally, Violation};
use faceflow::core::{Class, Fault, Future, Time};
use faceflow::job::{Engine, Job, Summary};
use faceflow::ledger::{DatabaseLedger, Reader};
use faceflow::mine::url_normalization::parse_site;
use faceflow::sources::list::List;
use faceflow::views::results::{self, Format, Kind};
use serde_json::Value;

use crate::world::{Faceflow, Gallery, find_markers};

/// How long anything may take before a test fails.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let came = (0..LIMIT.as_millis() / 10).any(|_| {
        // Between two looks at the condition.
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(Duration::from_millis(10));
        condition()
    });
    assert!(came, "{what}: not within {LIMIT:?}");
}

/// Sees every rectangle in the marker colour as a face.
pub struct Markers;

impl Detector for Markers {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: "markers".into(), model: "none".into(), model_sha256: String::new() }
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        let shape = Shape { width: width.next_multiple_of(256), height: height.next_multiple_of(256) };
        vec![View::full((width, height), shape, 1.0)]
    }

    fn batch_max(&self) -> usize {
        4
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(blocking(move || Ok(views.iter().map(|view| Ok(markers(&view.picture))).collect())))
    }
}

/// The answer for one picture.
pub fn markers(picture: &PixelBuffer) -> Answer {
    let face =
        |marker: [u32; 4]| Face { bbox: marker.map(|side| side as f32), score: 1.0, quality: 0.0, landmarks: None };
    let faces = find_markers(picture.width, picture.height, &picture.rgb).into_iter().map(face).collect();
    Answer::full(Markers.info(), faces)
}

/// Settings for a web on loopback, with these assignments on top.
pub fn settings(assignments: &[&str]) -> Settings {
    let layers = Layers::default().set("fetch.allow_networks=127.0.0.0/8").expect("a setting");
    let layers = assignments.iter().fold(layers, |layers, assignment| layers.set(assignment).expect("a setting"));
    layers.settings().expect("valid settings")
}

/// A job over these sites with state and output under `folder`.
pub fn job(folder: &Path, sites: &[String], assignments: &[&str]) -> Job {
    let place = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let mut job = Job::new(&place("state"), &place("out"));
    job.settings = settings(assignments);
    job.sources = vec![Box::new(List::new(sites.iter().map(|site| parse_site(site).expect("a site"))))];
    job.engine = Engine::Own(Arc::new(Markers));
    job
}

/// Runs a job that must come to its end.
pub fn finish(job: Job) -> Summary {
    job.run().unwrap_or_else(|error| panic!("the job failed: {error}"))
}

/// The results under `folder`.
pub fn lines(folder: &Path, kind: Kind) -> Vec<Value> {
    lines_at(&folder.join("state"), kind)
}

/// The results in the state at `state`.
pub fn lines_at(state: &Path, kind: Kind) -> Vec<Value> {
    let ledger = Reader::open(state, "default", &Default::default()).expect("a ledger");
    let mut out = Vec::new();
    results::write_results(&ledger, kind, Format::Jsonl, &mut out).expect("results");
    out.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect()
}

/// What a process that was killed had recorded, and how much it had asked the web for by then.
pub struct Recorded {
    urls: BTreeSet<String>,
    asked: usize,
}

impl Recorded {
    /// As the state tells that `more` names. A state that is not there yet holds nothing.
    pub fn of(faceflow: &Faceflow, more: &[&str], gallery: &Gallery) -> Self {
        let asked = gallery.world.log().total();
        let mut urls = BTreeSet::new();
        for kind in ["pages", "images"] {
            let told = faceflow.run(&[&["results", "--kind", kind][..], more].concat());
            if told.code() != Some(0) {
                let nothing = ["there is no state", "has no tenant"].iter().any(|words| told.stderr.contains(words));
                assert!(nothing, "{}", told.stderr);
                continue;
            }
            // Of a picture that waits for its faces, the bytes are kept.
            let is_kept = |line: &&Value| line["status"] != "open" || line["image"].is_object();
            urls.extend(told.lines().iter().filter(is_kept).filter_map(|line| line["url"].as_str()).map(str::to_owned));
        }
        Self { urls, asked }
    }

    /// Nothing of it was asked for since.
    pub fn assert_not_asked_again(&self, gallery: &Gallery, what: &str) {
        let since = gallery.world.log().requests().into_iter().skip(self.asked);
        let again: Vec<String> = since.map(|request| request.url).filter(|url| self.urls.contains(url)).collect();
        assert!(again.is_empty(), "{what}: recorded, and asked for again: {again:?}");
    }
}

/// The line of one URL.
pub fn line_of<'a>(lines: &'a [Value], url: &str) -> &'a Value {
    lines.iter().find(|line| line["url"] == url).unwrap_or_else(|| panic!("no line for {url}"))
}

/// The real ledger. Its writer is a thread that a virtual clock knows nothing of, so time stands still while it writes. Nothing
/// is written once the process is dead.
pub struct Still(pub DatabaseLedger, pub Arc<AtomicBool>);

impl Ledger for Still {
    fn append(&self, fact: Fact) -> Future<Result<Vec<QueueUpdate>, LedgerError>> {
        if self.1.load(Relaxed) {
            return Box::pin(std::future::pending());
        }
        let written = self.0.append(fact);
        Box::pin(async { futures::executor::block_on(written) })
    }

    fn queues(&self, job: JobId, again: bool, each: &mut dyn FnMut(QueueUpdate)) -> Result<(), LedgerError> {
        self.0.queues(job, again, each)
    }

    fn due_work(&self, now: Time, asks: &[DispatchRequest]) -> Result<Vec<DispatchReply>, LedgerError> {
        self.0.due_work(now, asks)
    }

    fn known_pictures(&self, tenant: TenantNumber, each: &mut dyn FnMut(KnownPicture)) -> Result<(), LedgerError> {
        self.0.known_pictures(tenant, each)
    }

    fn tally(&self) -> Result<(Tally, Tally), LedgerError> {
        self.0.tally()
    }

    fn audit(&self, keys_max: usize) -> Result<Vec<Violation>, LedgerError> {
        self.0.audit(keys_max)
    }
}

/// Takes everything and keeps nothing.
pub struct Nowhere;

impl Store for Nowhere {
    fn put(&self, _: String, _: Bytes) -> Future<Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn get(&self, key: String) -> Future<Result<Bytes, Fault>> {
        Box::pin(async { Err(Fault::transient(Class::Store, "store_missing", key)) })
    }

    fn list(&self, _: String) -> Listing {
        Box::pin(futures::stream::empty())
    }

    fn delete(&self, _: String) -> Future<Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
