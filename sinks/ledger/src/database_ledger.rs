//! The ledger that the pipeline writes to, wherever it is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use faceflow_core::fact::Fact;
use faceflow_core::ledger::{
    DispatchReply, DispatchRequest, FailingHosts, KnownPicture, Ledger, LedgerError, QueueUpdate,
};
use faceflow_core::record::{JobId, Priority, QueueId, TenantNumber};
use faceflow_core::tally::{Tally, Violation};
use faceflow_core::{Future, Time};
use futures::executor::block_on;
use tokio::sync::oneshot;

use super::location::{Backend, StateLocation};
use super::reader::{Reader, check_tenant};
use super::redrive::Selection;
use super::writer::{Task, WriteReply, WriteRequest, Writer};
use super::{LedgerSettings, OpenError};

/// One tenant's ledger: in a folder held by this process alone, on a server shared with other runs. Dropping it writes
/// what was appended, then lets go of the state or gives back the work it has.
pub struct DatabaseLedger {
    reader: Reader,
    /// The number of this run, where the state is shared.
    run: Option<i64>,
    /// Work that is open and not given out.
    /// From when on the others are looked after, where the state is shared: what runs have left that are over, and what queues
    /// have that this one has not heard of.
    look_around_at: AtomicU64,
    /// Jobs whose queues were asked for: those that this process does.
    own_jobs: Mutex<BTreeSet<u32>>,
    place: String,
    jobs: Option<mpsc::Sender<Vec<WriteRequest>>>,
    writer: Option<JoinHandle<()>>,
}

impl DatabaseLedger {
    /// Opens the state at `place` for `tenant`, and makes both if they are not there.
    pub fn open(place: impl Into<StateLocation>, tenant: &str, settings: &LedgerSettings) -> Result<Self, OpenError> {
        Self::open_for(None, place, tenant, settings)
    }

    /// Opens the state for another process of the same cluster: what one of them has, all have. `run` is the first one's
    /// [`DatabaseLedger::run`].
    pub fn join(
        run: i64,
        place: impl Into<StateLocation>,
        tenant: &str,
        settings: &LedgerSettings,
    ) -> Result<Self, OpenError> {
        Self::open_for(Some(run), place, tenant, settings)
    }

    fn open_for(
        joined: Option<i64>,
        place: impl Into<StateLocation>,
        tenant: &str,
        settings: &LedgerSettings,
    ) -> Result<Self, OpenError> {
        Self::of(Backend::new(&place.into(), settings)?, tenant, joined)
    }

    /// The ledger of a tenant in a state that may be shared with other tenants' ledgers in this process.
    pub(super) fn of(backend: Backend, tenant: &str, joined: Option<i64>) -> Result<Self, OpenError> {
        check_tenant(tenant)?;
        let storage = |reason: String| OpenError::Storage { place: backend.name(), reason };
        let (jobs, queue) = mpsc::channel();
        let (opened, opening) = mpsc::channel();
        let (whose, theirs) = (tenant.to_owned(), backend.clone());
        let work = move || match Writer::open(&theirs, &whose, joined) {
            Ok(writer) => {
                drop(opened.send(Ok(writer.run())));
                writer.work(&queue);
            }
            Err(error) => drop(opened.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("faceflow-ledger".to_owned());
        let writer = thread.spawn(work).map_err(|error| storage(error.to_string()))?;
        let run = opening.recv().unwrap_or_else(|_| Err(storage("its writer panicked; see the log".to_owned())))?;
        let reader = Reader::of(backend.clone(), tenant)?;
        Ok(Self {
            reader,
            run,
            look_around_at: AtomicU64::new(0),
            own_jobs: Mutex::default(),
            place: backend.storage(),
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }

    /// The reading side. It stays usable as long as the files are there.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The number of this run, where the state is shared.
    pub fn run(&self) -> Option<i64> {
        self.run
    }

    /// Makes dead or waiting work due at once, with its attempts counted anew. Resolves to how many entries and pictures
    /// it drove, once that is durable.
    pub fn redrive(&self, selection: Selection) -> Future<Result<u64, LedgerError>> {
        let outcome = self.ask(Task::Redrive(selection));
        Box::pin(async move {
            match outcome.await? {
                WriteReply::Driven(count) => Ok(count),
                other => unreachable!("a redrive is answered by a count, not {other:?}"),
            }
        })
    }

    /// Sees to it that the tenant has a job of this name and priority. Waits until that is durable, and returns its id.
    pub fn add_job(&self, name: &str, priority: Priority) -> Result<JobId, LedgerError> {
        match block_on(self.ask(Task::AddJob { name: name.to_owned(), priority }))? {
            WriteReply::Job(number) => Ok(JobId { tenant: self.reader.tenant_number(), number }),
            other => unreachable!("a job is answered by its number, not {other:?}"),
        }
    }

    /// Notes how far a view has followed the log, from where it was. Whether nobody else has moved it meanwhile.
    pub fn advance(&self, view: &'static str, from: i64, seq: i64) -> Future<Result<bool, LedgerError>> {
        let outcome = self.ask(Task::Advance { view, from, seq });
        Box::pin(async move {
            match outcome.await? {
                WriteReply::Advanced(moved) => Ok(moved),
                other => unreachable!("a cursor is answered by whether it moved, not {other:?}"),
            }
        })
    }

    /// The queue of pictures.
    fn pictures(&self) -> QueueId {
        QueueId::detection(self.reader.tenant_number())
    }

    /// Takes over what runs have left that are over, where there may be others; with `running`, also pictures that were not
    /// looked at are due.
    fn take_over(&self, running: bool) -> Result<(), LedgerError> {
        if self.run.is_some() {
            block_on(self.ask(Task::TakeOver { running }))?;
        }
        Ok(())
    }

    /// Takes over what others have left while this run looks again, and tells every queue that has something, for the news of
    /// other runs do not reach it. Does so once in a lease.
    fn look_around(&self, now: Time, claimed: &mut Vec<DispatchReply>) -> Result<(), LedgerError> {
        if now < self.look_around_at.load(Relaxed) {
            return Ok(());
        }
        self.look_around_at.store(now.saturating_add(self.reader.settings().lease_ms), Relaxed);
        self.take_over(true)?;
        let jobs = self.own_jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        jobs.into_iter().try_for_each(|job| {
            self.reader.queues(job, true, &mut |opened| {
                let QueueUpdate { queue, due, .. } = opened;
                claimed.push(DispatchReply { queue, work: vec![], next: Some(due), hold: None });
            })
        })
    }

    /// Appends facts that are written in one transaction, if no refusal of the database comes between them.
    pub fn append_group(&self, facts: Vec<Fact>) -> Vec<Future<Result<Vec<QueueUpdate>, LedgerError>>> {
        let (jobs, outcomes): (Vec<_>, Vec<_>) = facts
            .into_iter()
            .map(|fact| {
                let (answer, outcome) = oneshot::channel();
                (WriteRequest { task: Task::Append(Box::new(fact)), answer }, outcome)
            })
            .unzip();
        let sent = self.send(jobs);
        outcomes.into_iter().map(|outcome| opened_by(self.answer(outcome, sent))).collect()
    }

    /// Queues a task at once, so that tasks are written in the order in which they were asked for. Whoever asks holds what
    /// it asks for, so the queue is as long as its callers allow.
    fn ask(&self, task: Task) -> Future<Result<WriteReply, LedgerError>> {
        let (answer, outcome) = oneshot::channel();
        let sent = self.send(vec![WriteRequest { task, answer }]);
        self.answer(outcome, sent)
    }

    fn send(&self, jobs: Vec<WriteRequest>) -> bool {
        self.jobs.as_ref().is_some_and(|queue| queue.send(jobs).is_ok())
    }

    fn answer(
        &self,
        outcome: oneshot::Receiver<Result<WriteReply, LedgerError>>,
        sent: bool,
    ) -> Future<Result<WriteReply, LedgerError>> {
        let place = self.place.clone();
        Box::pin(async move {
            let gone = || LedgerError::Storage { place, reason: "its writer has ended; see the log".to_owned() };
            match outcome.await {
                Ok(outcome) if sent => outcome,
                _ => Err(gone()),
            }
        })
    }
}

/// What a fact opened.
fn opened_by(outcome: Future<Result<WriteReply, LedgerError>>) -> Future<Result<Vec<QueueUpdate>, LedgerError>> {
    Box::pin(async move {
        match outcome.await? {
            WriteReply::Opened(opened) => Ok(opened),
            other => unreachable!("a fact is answered by what it opened, not {other:?}"),
        }
    })
}

impl Drop for DatabaseLedger {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            tracing::error!("the ledger's writer panicked; what it had answered is durable");
        }
    }
}

impl Ledger for DatabaseLedger {
    fn append(&self, fact: Fact) -> Future<Result<Vec<QueueUpdate>, LedgerError>> {
        opened_by(self.ask(Task::Append(Box::new(fact))))
    }

    fn queues(&self, job: JobId, again: bool, each: &mut dyn FnMut(QueueUpdate)) -> Result<(), LedgerError> {
        self.own_jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(job.number);
        if again && self.run.is_some() {
            block_on(self.ask(Task::LookAgain))?;
            // With the queue of pictures it is asked what the other runs do.
            each(QueueUpdate { queue: self.pictures(), due: 0, again });
        }
        self.reader.queues(job.number, again, each)
    }

    /// Only what no other run has. Of the runs that look again at what is settled, the one that has done so longest does, and takes
    /// over what ended runs have left; the queue of pictures is asked for that, once in a lease.
    fn due_work(&self, now: Time, asks: &[DispatchRequest]) -> Result<Vec<DispatchReply>, LedgerError> {
        let again = self.run.filter(|_| asks.iter().any(|ask| ask.again));
        let looks = again.map(|run| self.reader.looks_again(run)).transpose()?.unwrap_or(true);
        let patience_ms = (!looks).then_some(self.reader.settings().lease_ms);
        let mut claimed = self.reader.due_work((self.run, patience_ms), now, asks)?;
        if again.is_some() && looks && asks.iter().any(|ask| ask.queue.is_detection()) {
            self.look_around(now, &mut claimed)?;
            let next = self.look_around_at.load(Relaxed);
            claimed.push(DispatchReply { queue: self.pictures(), work: vec![], next: Some(next), hold: None });
        }
        Ok(claimed)
    }

    /// Without the open ones of other runs: what becomes of them is not known here. Takes over what runs have left that are
    /// over, since a duplicate waits for what becomes of its representative.
    fn known_pictures(&self, _: TenantNumber, each: &mut dyn FnMut(KnownPicture)) -> Result<(), LedgerError> {
        self.take_over(false)?;
        self.reader.pictures_for(self.run, each)
    }

    fn tally(&self) -> Result<(Tally, Tally), LedgerError> {
        self.reader.tally()
    }

    fn failing_hosts(&self) -> Result<FailingHosts, LedgerError> {
        self.reader.failing_hosts()
    }

    fn quarantined(&self) -> Result<u64, LedgerError> {
        self.reader.quarantined_count()
    }

    fn audit(&self, keys_max: usize) -> Result<Vec<Violation>, LedgerError> {
        self.reader.audit(keys_max)
    }
}
