//! A small world for tests of the ledger and of its views: records by short names, and a ledger that is checked after every fact.

pub mod crawl;
pub mod place;
#[allow(dead_code, reason = "shared with the integration tests, which use all of it")]
#[path = "../../../tests/world/postgres.rs"]
pub mod postgres;

use faceflow_core::detector::{Answer, Detection, EngineInfo, Face};
use faceflow_core::fact::Fact;
use faceflow_core::invariants::conserved;
use faceflow_core::ledger::{DispatchReply, DispatchRequest, Ledger, LedgerError, QueueUpdate};
use faceflow_core::record::{
    Bounds, Content, ContentId, DetectedFrame, Discovery, Disposition, DuplicateAssignment, Frame, Image, JobId, Page,
    PageKind, PerceptualHash, QueueId, StoredImage, TenantAssignment, Visit, Work,
};
use faceflow_core::tally::Tally;
use faceflow_core::{Class, Fault};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use self::place::Home;
use super::{DatabaseLedger, Reader};
use crate::column_codecs::EntryKind;
use crate::entry_selection::EntrySelection;
use crate::result_query::{image_lines, page_lines};

pub fn url(path: &str) -> Url {
    Url::parse("http://a.example/").and_then(|base| base.join(path)).expect("a URL")
}

pub fn page(path: &str, depth: u32) -> Page {
    Page { url: url(path), depth, ..Page::start(JobId::FIRST, url("/")) }
}

pub fn image(path: &str) -> Image {
    Image {
        job: JobId::FIRST,
        url: url(path),
        page: url("/"),
        site: url("/"),
        attempts: 0,
        inline: None,
        uncounted: 0,
        alternates: vec![],
        version: None,
        host: None,
    }
}

pub fn image_with(path: &str, alternates: &[&str]) -> Image {
    Image { alternates: alternates.iter().map(|path| url(path)).collect(), ..image(path) }
}

/// A picture of 40 x 30 pixels, different for every name.
pub fn content(name: &str) -> Content {
    let id = ContentId::of(name.as_bytes());
    let hashes = PerceptualHash::dct64(id.partition_hash(), true).into();
    Content { id, bytes: name.len() as u64, format: "jpeg".to_owned(), width: 40, height: 30, hashes }
}

pub fn frame(name: &str) -> Frame {
    Frame {
        job: JobId::FIRST,
        content: content(name),
        owner: 0,
        pixels: Some(3),
        attempts: 0,
        uncounted: 0,
        has_degraded: false,
        opted_out: None,
        generation: 0,
        scale: None,
    }
}

pub fn detection(id: ContentId, size: (u32, u32), faces: usize) -> Detection {
    let face = |n: usize| {
        let x = n as f32 * 10.0;
        let landmarks = (n == 0).then_some([[3.0, 4.0], [5.0, 4.0], [4.0, 6.0], [3.0, 8.0], [5.0, 8.0]]);
        Face { bbox: [1.0 + x, 2.0, 11.0 + x, 22.0], score: 0.98, quality: 0.5, landmarks }
    };
    let engine = EngineInfo { engine: "scripted".to_owned(), model: "none".to_owned(), model_sha256: "00".to_owned() };
    Detection::new(id, size, Answer::full(engine, (0..faces).map(face).collect()))
}

/// As good as none.
pub const BOUNDS: Bounds = Bounds { pages_max: 1_000_000, images_max: 1_000_000, shorter_ways: true };

/// These were found by a source.
pub fn admitted(pages: Vec<Page>) -> Fact {
    Fact::Discovered(Discovery { pages, ..Discovery::nothing(JobId::FIRST, BOUNDS) })
}

pub fn start() -> Fact {
    admitted(vec![page("/", 0)])
}

pub fn visit(page: Page, links: Vec<Url>) -> Visit {
    let final_url = page.url.clone();
    Visit {
        page,
        kind: PageKind::Page,
        final_url,
        http_status: 200,
        etag: None,
        last_modified: None,
        links,
        images: vec![],
    }
}

/// The queue of a page or image.
pub fn queue_at(url: &Url) -> QueueId {
    QueueId::of(JobId::FIRST, url)
}

/// The queue of pictures.
pub fn pictures_queue() -> QueueId {
    QueueId::detection(JobId::FIRST.tenant)
}

/// Something is open in the queue of `path`.
pub fn opened(path: &str, due: u64) -> QueueUpdate {
    QueueUpdate { queue: QueueId::of(JobId::FIRST, &url(path)), due, again: false }
}

/// The page was read and leads to these.
pub fn read(page: Page, pages: Vec<Page>, images: Vec<Image>) -> Fact {
    read_within(BOUNDS, page, pages, images)
}

pub fn read_within(bounds: Bounds, page: Page, pages: Vec<Page>, images: Vec<Image>) -> Fact {
    let links = pages.iter().map(|page| page.url.clone()).collect();
    Fact::Discovered(Discovery {
        visit: Some(visit(page, links)),
        pages,
        images,
        ..Discovery::nothing(JobId::FIRST, bounds)
    })
}

pub fn kept(image: Image, name: &str) -> Fact {
    let headers = vec![("etag".to_owned(), format!("\"{name}\""))];
    Fact::Stored(StoredImage { final_url: image.url.clone(), image, headers, frame: frame(name) })
}

pub fn delivered(name: &str, faces: usize) -> Fact {
    delivered_at(1.0, name, faces)
}

/// The answer that follows `generation` others.
pub fn delivered_later(generation: u32, name: &str, faces: usize) -> Fact {
    let Fact::Detected(DetectedFrame { frame, detection }) = delivered(name, faces) else {
        unreachable!("it is delivered")
    };
    let frame = Frame { has_degraded: true, generation, ..frame };
    Fact::Detected(DetectedFrame { frame, detection: detection.of_generation(generation) })
}

/// An answer at this scale; less than 1 is a degraded one.
pub fn delivered_at(scale: f32, name: &str, faces: usize) -> Fact {
    let content = content(name);
    let full = detection(content.id, (content.width, content.height), faces);
    let answer = Answer::full(full.engine().clone(), full.faces().to_vec());
    let detection = Detection::new(content.id, full.size(), Answer { scale, degraded: scale < 1.0, ..answer });
    Fact::Detected(DetectedFrame { frame: frame(name), detection })
}

pub fn ruled(picture: &str, representative: &str, distance: u32) -> Fact {
    let (picture, representative) = (content(picture).id, content(representative).id);
    let assignment = DuplicateAssignment { picture, representative, distance };
    Fact::Assigned(TenantAssignment { tenant: JobId::FIRST.tenant, assignment })
}

pub fn fault(reason: &str) -> Fault {
    Fault::transient(Class::Busy, reason, "the server said so")
}

pub fn retry(work: impl Into<Work>, due: u64) -> Fact {
    Fact::Failed(Disposition::Retry { work: work.into().failed_once_more(), fault: fault("http_503"), due, host: None })
}

pub fn rejected(work: impl Into<Work>) -> Fact {
    Fact::Failed(Disposition::Rejected {
        work: work.into(),
        fault: Fault::permanent(Class::Refused, "http_404", "not there"),
        again: None,
    })
}

pub fn dead(work: impl Into<Work>) -> Fact {
    Fact::Failed(Disposition::Dead {
        work: work.into().failed_once_more(),
        fault: fault("http_503"),
        again: None,
        host: None,
    })
}

/// The end of something that a stream tries nevertheless.
pub fn with_a_chance(fact: Fact, at: u64) -> Fact {
    match fact {
        Fact::Failed(Disposition::Dead { work, fault, .. }) => {
            Fact::Failed(Disposition::Dead { work, fault, again: Some(at), host: None })
        }
        Fact::Failed(Disposition::Rejected { work, fault, .. }) => {
            Fact::Failed(Disposition::Rejected { work, fault, again: Some(at) })
        }
        other => panic!("{other:?} is no end"),
    }
}

/// Waits for a future on a runtime of its own.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// A ledger in a place of its own.
pub struct Rig {
    pub ledger: Option<DatabaseLedger>,
    pub home: Home,
}

impl Rig {
    pub fn new() -> Self {
        let home = Home::new();
        Self { ledger: Some(home.open()), home }
    }

    /// The same state, opened again.
    pub fn reopened(mut self) -> Self {
        drop(self.ledger.take());
        Self { ledger: Some(self.home.open()), home: self.home }
    }

    /// With the start page read, showing these images.
    pub fn showing(images: Vec<Image>) -> Self {
        let rig = Self::new();
        rig.tell(start());
        rig.tell(read(page("/", 0), vec![], images));
        rig
    }

    pub fn ledger(&self) -> &DatabaseLedger {
        self.ledger.as_ref().expect("it is open")
    }

    pub fn reader(&self) -> &Reader {
        self.ledger().reader()
    }

    pub fn try_tell(&self, fact: Fact) -> Result<Vec<QueueUpdate>, LedgerError> {
        wait(self.ledger().append(fact))
    }

    /// Appends a legal fact; everything must add up afterwards. Returns what it opened.
    pub fn tell(&self, fact: Fact) -> Vec<QueueUpdate> {
        let opened = self.try_tell(fact.clone()).unwrap_or_else(|error| panic!("{error} after {fact:?}"));
        self.check();
        opened
    }

    pub fn tell_all(&self, facts: impl IntoIterator<Item = Fact>) {
        for fact in facts {
            self.tell(fact);
        }
    }

    /// The rows add up, and the log says everything: the same rows follow from it alone.
    pub fn check(&self) {
        self.check_rows();
        assert_eq!(self.reader().replay_differences(), Ok(vec![]), "the log says everything");
    }

    /// Conservation, no broken invariant, and counts that equal what the results say line by line.
    pub fn check_rows(&self) {
        let (pages, images) = self.ledger().tally().expect("counts");
        conserved(&pages).and(conserved(&images)).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(self.reader().audit(3), Ok(vec![]));
        assert_eq!(pages, counted(&self.pages()), "pages");
        assert_eq!(images, counted(&self.images()), "images");
    }

    /// A line for each page, ordered by URL.
    pub fn pages(&self) -> Vec<Value> {
        pages(self.reader())
    }

    /// A line for each image, ordered by URL.
    pub fn images(&self) -> Vec<Value> {
        images(self.reader())
    }

    /// The line of the image at `path`.
    pub fn line(&self, path: &str) -> Value {
        let url = url(path);
        let line = self.images().into_iter().find(|line| line["url"] == url.as_str());
        line.unwrap_or_else(|| panic!("{url} has no line"))
    }

    /// The status of each image, ordered by URL.
    pub fn statuses(&self) -> Vec<String> {
        self.images().iter().map(|line| line["status"].as_str().expect("a word").to_owned()).collect()
    }

    /// The open work as paths and content ids, with due times: what is due at once first, as it was discovered.
    pub fn owed(&self) -> Vec<(u64, String)> {
        let name = |work: Work| match work {
            Work::Page(page) => page.url.path().to_owned(),
            Work::Image(image) => image.url.path().to_owned(),
            Work::Frame(frame) => frame.content.id.to_string(),
        };
        owed(self.ledger()).into_iter().map(|(due, work)| (due, name(work))).collect()
    }
}

/// Everything that a ledger gives out, with when it is due. Time passes as it must; a few are taken at once.
pub fn owed(ledger: &DatabaseLedger) -> Vec<(u64, Work)> {
    let (mut queues, mut owed) = (Vec::new(), Vec::new());
    ledger.known_pictures(JobId::FIRST.tenant, &mut |_| ()).expect("takes over what others have left");
    ledger.queues(JobId::FIRST, false, &mut |opened| queues.push(opened.queue)).expect("reads");
    for queue in queues {
        let (mut now, mut held, mut due) = (0, Vec::new(), Some(0));
        while let Some(next) = due {
            now = next.max(now);
            let ask = DispatchRequest { queue, max: 7, held: held.clone(), again: false };
            let DispatchReply { work, next, .. } = ledger.due_work(now, &[ask]).expect("reads").remove(0);
            held.extend(work.iter().map(Work::key));
            owed.extend(work.into_iter().map(|work| (now, work)));
            due = next;
        }
    }
    owed.sort_by_key(|(due, _)| *due);
    owed
}

/// A line for each page, ordered by URL.
pub fn pages(reader: &Reader) -> Vec<Value> {
    lines(|after| {
        let next = EntrySelection::Next { kind: EntryKind::Page, after, max: PAGE };
        let lines = reader.read(|tx| page_lines(reader, tx, &next)).expect("reads");
        lines.iter().map(|line| (line.url.clone(), as_written(line))).collect()
    })
}

/// A line for each image, ordered by URL.
pub fn images(reader: &Reader) -> Vec<Value> {
    lines(|after| {
        let next = EntrySelection::Next { kind: EntryKind::Image, after, max: PAGE };
        let lines = reader.read(|tx| image_lines(reader, tx, &next)).expect("reads");
        lines.iter().map(|described| (described.line.url.clone(), as_written(&described.line))).collect()
    })
}

/// Numbers as a reader of the text sees them.
fn as_written(line: &impl Serialize) -> Value {
    let text = serde_json::to_string(line).expect("JSON");
    serde_json::from_str(&text).expect("JSON")
}

/// Lines read at a time.
const PAGE: usize = 100;

/// The lines that `next` gives after one URL and another, until there are no more.
fn lines(next: impl Fn(&str) -> Vec<(String, Value)>) -> Vec<Value> {
    let (mut lines, mut after) = (Vec::new(), String::new());
    loop {
        let read = next(&after);
        let Some((last, _)) = read.last() else { return lines };
        after.clone_from(last);
        lines.extend(read.into_iter().map(|(_, line)| line));
    }
}

fn counted(lines: &[Value]) -> Tally {
    let count = |status: &str| lines.iter().filter(|line| line["status"] == status).count() as u64;
    Tally {
        discovered: lines.len() as u64,
        done: count("done"),
        duplicate: count("duplicate"),
        rejected: count("rejected"),
        dead: count("dead"),
        open: count("open"),
    }
}
