//! The ledger that the pipeline writes to.

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use faceflow_core::ledger::{Fact, KnownPicture, Ledger, LedgerError, OpenSite, Tally};
use faceflow_core::record::{Image, Key, Work};
use faceflow_core::{Future, Time};
use tokio::sync::oneshot;

use super::lock::StateLock;
use super::reader::{Reader, check_tenant};
use super::redrive::Selection;
use super::schema::Place;
use super::writer::{Job, Outcome, Task, Writer};
use super::{LedgerSettings, OpenError};

/// One tenant's ledger, held by this process alone. Dropping it writes what was appended, then lets go of the state.
pub struct SqliteLedger {
    reader: Reader,
    /// Positions of the work that was open at the beginning, ascending, with the depths of pages at that time.
    owed: Vec<(u64, u32)>,
    place: Place,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl SqliteLedger {
    /// Opens the state directory `dir` for `tenant`, and makes both if they are not there.
    pub fn open(dir: &Path, tenant: &str, settings: &LedgerSettings) -> Result<Self, OpenError> {
        check_tenant(tenant)?;
        let place = Place::new(dir, settings);
        let storage = |reason: String| OpenError::Storage { place: dir.display().to_string(), reason };
        std::fs::create_dir_all(dir).map_err(|error| storage(error.to_string()))?;
        let lock = StateLock::take(dir)?;
        let connection = place.connect_writer(&lock)?;
        let writer = Writer::new(connection, lock, place.clone(), tenant).map_err(|error| place.refused(&error))?;
        let reader = Reader::open(dir, tenant, settings)?;
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new().name("faceflow-ledger".to_owned());
        let writer = thread.spawn(move || writer.work(&queue)).map_err(|error| storage(error.to_string()))?;
        let owed = reader.open_positions().map_err(|error| storage(error.to_string()))?;
        Ok(Self { reader, owed, place, jobs: Some(jobs), writer: Some(writer) })
    }

    /// The reading side. It stays usable as long as the files are there.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Makes dead or waiting work due at once, with its attempts counted anew. Resolves to how many entries and pictures
    /// it drove, once that is durable.
    pub fn redrive(&self, selection: Selection) -> Future<Result<u64, LedgerError>> {
        let outcome = self.ask(Task::Redrive(selection));
        Box::pin(async move {
            match outcome.await? {
                Outcome::Driven(count) => Ok(count),
                other => unreachable!("a redrive is answered by a count, not {other:?}"),
            }
        })
    }

    /// Notes how far a view has followed the log.
    pub(crate) fn advance(&self, view: &'static str, seq: i64) -> Future<Result<(), LedgerError>> {
        let outcome = self.ask(Task::Advance { view, seq });
        Box::pin(async move { outcome.await.map(drop) })
    }

    /// Queues a task at once, so that tasks are written in the order in which they were asked for. Whoever asks holds what
    /// it asks for, so the queue is as long as its callers allow.
    fn ask(&self, task: Task) -> Future<Result<Outcome, LedgerError>> {
        let (answer, outcome) = oneshot::channel();
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(Job { task, answer }).is_ok());
        let place = self.place.file().display().to_string();
        Box::pin(async move {
            let gone = || LedgerError::Storage { place, reason: "its writer has ended; see the log".to_owned() };
            match outcome.await {
                Ok(outcome) if sent => outcome,
                _ => Err(gone()),
            }
        })
    }
}

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            tracing::error!("the ledger's writer panicked; what it had answered is durable");
        }
    }
}

impl Ledger for SqliteLedger {
    fn append(&self, fact: Fact) -> Future<Result<Vec<Image>, LedgerError>> {
        let outcome = self.ask(Task::Append(Box::new(fact)));
        Box::pin(async move {
            match outcome.await? {
                Outcome::Opened(images) => Ok(images),
                other => unreachable!("a fact is answered by the images it opened, not {other:?}"),
            }
        })
    }

    fn known_pages(&self, each: &mut dyn FnMut(Key, u32)) -> Result<(), LedgerError> {
        self.reader.known_pages(each)
    }

    fn known_images(&self, each: &mut dyn FnMut(Key)) -> Result<(), LedgerError> {
        self.reader.known_images(each)
    }

    fn known_pictures(&self, each: &mut dyn FnMut(KnownPicture)) -> Result<(), LedgerError> {
        self.reader.known_pictures(each)
    }

    /// Only what was open when the ledger was opened: whatever opens later, or is admitted again on a shorter way, is in the
    /// graph already.
    fn open_work(&self, mut after: u64, max: usize) -> Result<Vec<(u64, Time, Work)>, LedgerError> {
        loop {
            let mut work = self.reader.open_work(after, max)?;
            let Some((last, ..)) = work.last() else { return Ok(work) };
            after = *last;
            work.retain(|(position, _, work)| {
                let depth = if let Work::Page(page) = work { page.depth } else { 0 };
                self.owed.binary_search(&(*position, depth)).is_ok()
            });
            if !work.is_empty() {
                return Ok(work);
            }
        }
    }

    fn open_sites(&self, each: &mut dyn FnMut(OpenSite)) -> Result<(), LedgerError> {
        self.reader.open_sites(each)
    }

    fn tally(&self) -> Result<(Tally, Tally), LedgerError> {
        self.reader.tally()
    }
}
