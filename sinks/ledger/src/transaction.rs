//! A transaction of the ledger: the records of a group, taken in one after the other, and what is written because of them.
//!
//! Records change rows in memory and nothing else; when the group is done, rows, counts and log are written together. A fact that
//! breaks a promise is refused and leaves no trace, and its neighbours in the group are written all the same.

use std::collections::{BTreeMap, HashSet};

use faceflow_core::fact::Fact;
use faceflow_core::ledger::QueueUpdate;
use faceflow_core::record::{ContentId, DETECTION_QUEUE, JobId, Key, QueueId, TenantNumber};
use faceflow_core::transition::{Event, State, transition};
use faceflow_core::{Fault, Time};
use serde_json::json;
use url::Url;

use super::column_codecs::EntryKind;
use super::database::DbTransaction;
use super::error::TransactionError;
use super::event_feed::{EventFeed, EventRow};
use super::log_record::{LogHeader, LogRecord, LogRecords, VERSION, WorkEnd};
use super::quarantine::{self, QuarantineChange};
use super::status::Status;
use super::tallies::Tallies;
use super::working_set::{EntryRow, IdAllocators, PictureRow, WorkingSet};

/// What a fault may say about itself, in bytes; hostile servers have a say in it.
const DETAIL_MAX: usize = 1_000;

/// Whose transaction it is, and when.
pub(super) struct Context<'b> {
    pub tenant: i64,
    /// The run that writes; none where the state belongs to one process.
    pub run: Option<i64>,
    /// Other runs that live, and those whose work they have.
    pub others: &'b HashSet<i64>,
    /// When the group is written.
    pub now_ms: i64,
    /// Pages that waited for their turn and are taken up in this transaction, at most.
    pub resumed_max: usize,
}

/// A queue of the tenant: the number of its job, and its host.
pub(super) type TenantQueue = (u32, u64);

/// That of pictures whose detection is to be repeated.
pub(super) const PICTURES: TenantQueue = (0, DETECTION_QUEUE);

/// An open transaction of one tenant's ledger.
pub(super) struct LedgerTransaction<'b, 'c> {
    pub tx: &'b DbTransaction<'c>,
    pub context: Context<'b>,
    pub rows: WorkingSet<'b, 'c>,
    pub tallies: Tallies,
    /// What the current record opened: by queue and whether it is to be looked at again, when the first of it is due.
    pub opened: BTreeMap<(TenantQueue, bool), Time>,
    /// Sites of which a page has given up its turn.
    pub freed: Vec<i64>,
    /// Pages that waited for their turn and may still be taken up.
    pub resumable: usize,
    /// Sites that have more of them.
    pub unfinished: Vec<i64>,
    /// Whether the current failure is about a picture that another run has.
    pub elsewhere: bool,
    /// Whether rows were changed by a statement of their own.
    pub bulk: bool,
    pub log: EventFeed,
    /// Changes of the quarantine.
    pub quarantine: Vec<QuarantineChange>,
    records: LogRecords,
    /// The site asked for last: facts come in runs of one site.
    last_site: Option<(String, i64)>,
}

/// An entry, as far as its next step needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub id: i64,
    pub key: Key,
    pub state: State,
    pub depth: Option<u32>,
    pub picture: Option<i64>,
    /// What an alternate stands behind.
    pub primary: Option<i64>,
    /// The run that has it, while it is open.
    pub run: Option<i64>,
    pub site: i64,
    pub queue: TenantQueue,
    /// Of a page that was not tried yet.
    pub sequence: Option<i64>,
    /// Whether it came to a bad end and is tried nevertheless.
    pub retried: bool,
}

impl From<&EntryRow> for Entry {
    fn from(row: &EntryRow) -> Self {
        Self {
            id: row.id,
            key: row.key,
            state: row.state,
            depth: row.depth,
            picture: row.picture,
            primary: row.primary,
            run: row.run,
            site: row.site,
            queue: (row.job, row.queue as u64),
            sequence: row.sequence,
            retried: row.terminal_retry_ms.is_some(),
        }
    }
}

/// A picture, as far as its next step needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picture {
    pub id: i64,
    pub state: State,
    /// The run that has it, while it is open.
    pub run: Option<i64>,
    pub main: Option<i64>,
    /// Whether it is dead and tried nevertheless.
    pub retried: bool,
}

impl From<&PictureRow> for Picture {
    fn from(row: &PictureRow) -> Self {
        let retried = row.terminal_retry_ms.is_some();
        Self { id: row.id, state: row.state, run: row.run, main: row.main, retried }
    }
}

impl Context<'_> {
    pub fn tenant_number(&self) -> TenantNumber {
        TenantNumber(self.tenant as u32)
    }
}

impl<'b, 'c> LedgerTransaction<'b, 'c> {
    pub fn new(
        tx: &'b DbTransaction<'c>,
        context: Context<'b>,
        tallies: Tallies,
        numbers: &'b mut IdAllocators,
    ) -> Self {
        let (rows, resumable) = (WorkingSet::new(tx, context.tenant, numbers), context.resumed_max);
        Self {
            tx,
            context,
            rows,
            tallies,
            opened: BTreeMap::new(),
            freed: vec![],
            resumable,
            unfinished: vec![],
            elsewhere: false,
            bulk: false,
            log: EventFeed::default(),
            quarantine: vec![],
            records: LogRecords::default(),
            last_site: None,
        }
    }

    /// Takes in a fact. Returns what is open now because of it.
    pub fn append(&mut self, fact: &Fact) -> Result<Vec<QueueUpdate>, TransactionError> {
        self.take_in(LogRecord::from(fact))
    }

    /// Takes in a record and notes it, if it changed anything. One that is refused leaves no trace.
    pub fn take_in(&mut self, mut record: LogRecord<'_>) -> Result<Vec<QueueUpdate>, TransactionError> {
        let before = (self.tallies, self.log.len(), self.resumable, self.unfinished.len());
        let quarantined = self.quarantine.len();
        (self.elsewhere, self.bulk) = (false, false);
        if let Err(refused) = self.apply(&record) {
            self.rows.undo();
            self.log.truncate(before.1);
            self.quarantine.truncate(quarantined);
            self.unfinished.truncate(before.3);
            (self.tallies, self.resumable) = (before.0, before.2);
            self.opened.clear();
            self.freed.clear();
            self.last_site = None;
            return Err(refused);
        }
        if self.rows.is_changed() || self.bulk || self.log.len() > before.1 || self.quarantine.len() > quarantined {
            match &mut record {
                LogRecord::Failed { elsewhere, .. } => *elsewhere = self.elsewhere,
                LogRecord::Quarantined(refused) if self.elsewhere => refused.end = WorkEnd::Stays,
                _ => {}
            }
            self.records.push(&record)?;
        }
        self.rows.accept();
        let tenant = self.context.tenant_number();
        let queue = |(number, host)| QueueId { job: JobId { tenant, number }, host };
        let opened = std::mem::take(&mut self.opened).into_iter();
        Ok(opened.map(|((of, again), due)| QueueUpdate { queue: queue(of), due, again }).collect())
    }

    fn apply(&mut self, record: &LogRecord<'_>) -> Result<(), TransactionError> {
        match record {
            LogRecord::Discovered(found) => self.discovered(found),
            LogRecord::Failed { disposition, elsewhere } => self.failed(disposition, *elsewhere),
            LogRecord::Stored { url, attempts, final_url, headers, content, host } => {
                self.stored((url, *attempts, host.as_deref()), (final_url, headers), (content.id, Some(content)))
            }
            LogRecord::Copied { url, attempts, final_url, headers, content, host } => {
                self.stored((url, *attempts, host.as_deref()), (final_url, headers), (*content, None))
            }
            LogRecord::Detected { attempts, detection } => self.detected(*attempts, detection),
            LogRecord::Assigned(ruling) => self.assigned(ruling),
            LogRecord::Redriven { entries, pictures } => self.redrive(entries, pictures),
            LogRecord::Job { number, name, priority } => self.job_added(*number, name, *priority),
            LogRecord::Due { pictures } => self.due_at_once(pictures),
            LogRecord::Quarantined(refused) => self.quarantined(refused),
            LogRecord::Released { ids } => {
                self.quarantine.push(QuarantineChange::Release(ids.clone()));
                Ok(())
            }
            LogRecord::ResumedWithout { site, sequence, without } => self.resume_without((*site, *sequence), without),
            LogRecord::Resumed { site } => {
                self.freed.push(*site);
                self.resume()
            }
        }
    }

    /// Writes everything: rows, counts, the log, and the records that all of it follows from.
    pub fn write(mut self) -> Result<Tallies, TransactionError> {
        self.rows.flush()?;
        quarantine::write(self.tx, &self.context, &self.quarantine)?;
        if self.records.count == 0 {
            return Ok(self.tallies);
        }
        let Context { tenant, run, now_ms, resumed_max, .. } = self.context;
        self.log.write(self.tx, tenant, now_ms)?;
        self.tallies.store(self.tx, tenant)?;
        let [entries, pictures, sites] = self.rows.take_used();
        let body = self.records.pack(&LogHeader { resumed_max, entries, pictures, sites, version: VERSION })?;
        let sql = "INSERT INTO commits (tenant, at_ms, run, records, body) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.tx.run(sql, super::value::values![tenant, now_ms, run, self.records.count, &body[..]])?;
        Ok(self.tallies)
    }

    /// Notes that something waits in a queue from now on, to be done or to be looked at again.
    pub fn open(&mut self, queue: TenantQueue, due: Time, again: bool) {
        let first = self.opened.entry((queue, again)).or_insert(due);
        *first = due.min(*first);
    }

    /// The entry of a key.
    pub fn find(&mut self, key: Key) -> Result<Option<Entry>, TransactionError> {
        Ok(self.rows.find_entry(key)?.map(Entry::from))
    }

    /// The entry of an id.
    pub fn entry(&mut self, id: i64) -> Result<Entry, TransactionError> {
        self.rows.entry(id).map(Entry::from)
    }

    /// The picture of a content id.
    pub fn find_picture(&mut self, id: ContentId) -> Result<Option<Picture>, TransactionError> {
        Ok(self.rows.find_picture(id)?.map(Picture::from))
    }

    /// Changes a picture's row, and lets the counts follow.
    pub fn change_picture(&mut self, id: i64, change: impl FnOnce(&mut PictureRow)) -> Result<(), TransactionError> {
        let row = self.rows.change_picture(id)?;
        let before = shares(row);
        change(row);
        let after = shares(row);
        if before != after {
            before.iter().for_each(|(status, count)| self.tallies.count(EntryKind::Image, *status, -count));
            after.iter().for_each(|(status, count)| self.tallies.count(EntryKind::Image, *status, *count));
        }
        Ok(())
    }

    /// Takes a step in the counts from one status to another; `None` for an entry that was not there.
    pub fn recount(&mut self, kind: EntryKind, from: Option<State>, to: State) {
        match from {
            Some(from) => self.tallies.count(kind, Status::of_entry(from), -1),
            None => self.tallies.discover(kind),
        }
        self.tallies.count(kind, Status::of_entry(to), 1);
    }

    /// The id of a site, made on first use.
    pub fn site(&mut self, url: &Url) -> Result<i64, TransactionError> {
        if let Some((_, id)) = self.last_site.as_ref().filter(|(last, _)| last == url.as_str()) {
            return Ok(*id);
        }
        let key = Key::page(url);
        let id = match self.rows.find_site(key, url.as_str())? {
            Some(id) => id,
            None => self.rows.new_site(key, url.as_str())?,
        };
        self.last_site = Some((url.to_string(), id));
        Ok(id)
    }

    /// Adds a row to the log.
    pub fn note(&mut self, row: EventRow) {
        self.log.push(row);
    }

    /// Refuses a fact about work that another living run has.
    pub fn refuse_held(&self, run: Option<i64>, key: impl ToString) -> Result<(), TransactionError> {
        match run.filter(|_| self.is_held(run)) {
            Some(run) => Err(TransactionError::Held { key: key.to_string(), run }),
            None => Ok(()),
        }
    }

    /// Whether another living run has what `run` has.
    pub fn is_held(&self, run: Option<i64>) -> bool {
        run.is_some_and(|run| self.context.others.contains(&run))
    }
}

/// How many entries have which status because of a picture: its main URL, its other URLs, and their alternates.
fn shares(row: &PictureRow) -> [(Status, i64); 3] {
    let main = Status::of_picture(row.state, row.is_own(), true);
    let other = Status::of_picture(row.state, row.is_own(), false);
    [(main, row.urls.min(1)), (other, (row.urls - 1).max(0)), (Status::of_alternate(main), row.behind)]
}

/// Where something stands: its state, and whether it is tried although that is a bad end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    state: State,
    retried: bool,
}

impl From<Entry> for Standing {
    fn from(Entry { state, retried, .. }: Entry) -> Self {
        Self { state, retried }
    }
}

impl From<Picture> for Standing {
    fn from(Picture { state, retried, .. }: Picture) -> Self {
        Self { state, retried }
    }
}

/// What `event` makes of a try's subject. One that is tried although it ended is driven again first.
pub(super) fn try_step(
    subject: Option<impl Into<Standing>>,
    event: Event,
    key: impl ToString,
) -> Result<Option<State>, TransactionError> {
    let state = match subject.map(Into::into) {
        Some(Standing { state, retried: true }) => step(Some(state), Event::Redrive, key.to_string())?.or(Some(state)),
        subject => subject.map(|subject| subject.state),
    };
    step(state, event, key)
}

/// The state that `event` leads to, or that nothing changes; an illegal step names `key`.
pub(super) fn step(state: Option<State>, event: Event, key: impl ToString) -> Result<Option<State>, TransactionError> {
    transition(state, event).map_err(|step| TransactionError::Illegal { key: key.to_string(), step })
}

/// A fault as the body of a row of the log: its class and words, how often it was tried, when it is due again, and the scale of a
/// detection.
pub(super) fn fault_body(fault: &Fault, attempts: u32, (due_ms, scale): (Option<Time>, Option<f32>)) -> String {
    let (class, reason, detail) = (fault.class, &fault.reason, brief(&fault.detail));
    let mut body = json!({"class": class, "reason": reason, "detail": detail, "attempts": attempts, "due_ms": due_ms});
    if let Some(scale) = scale {
        body["scale"] = scale.into();
    }
    body.to_string()
}

/// The beginning of a detail, as much as is kept.
pub(super) fn brief(detail: &str) -> &str {
    &detail[..detail.floor_char_boundary(DETAIL_MAX)]
}
