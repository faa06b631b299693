//! The books while a group of facts is being written: rows by key, the log, and counts that follow every step.
//!
//! Every fact is checked before anything of it is written, so that a refused one leaves no trace in its group.

use std::collections::BTreeMap;

use faceflow_core::fact::Fact;
use faceflow_core::ledger::QueueUpdate;
use faceflow_core::record::{ContentId, Key, QueueId};
use faceflow_core::transition::{Event, State, transition};
use faceflow_core::{Fault, Time};
use serde_json::json;

use super::database::{Moment, Row, Value, values};
use super::rows::{EntryKind, Trouble, Word};
use super::status::Status;
use super::tallies::Tallies;

/// What a fault may say about itself, in bytes; hostile servers have a say in it.
const DETAIL_MAX: usize = 1_000;

/// The open books of one tenant, inside a transaction.
pub(super) struct Books<'b, 'c> {
    pub moment: &'b Moment<'c>,
    pub tenant: i64,
    /// Other runs that live; none where the state belongs to one process.
    pub others: &'b [i64],
    /// When the group is written.
    pub now_ms: i64,
    pub tallies: Tallies,
    /// The site asked for last: facts come in runs of one site.
    pub last_site: Option<(String, i64)>,
    /// What the fact opened: by lane and whether it is to look again, when the first of it is due.
    pub opened: BTreeMap<(QueueId, bool), Time>,
    /// Sites of which a page has given up its turn.
    pub freed: Vec<i64>,
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
    pub lane: QueueId,
    /// Of a page that was not tried yet.
    pub turn: Option<i64>,
    /// Whether it came to a bad end and is tried nevertheless.
    pub revives: bool,
}

impl Entry {
    /// One that nothing is known of yet.
    pub fn new(key: Key, state: State, (site, lane): (i64, QueueId)) -> Self {
        Self {
            id: 0,
            key,
            state,
            depth: None,
            picture: None,
            primary: None,
            run: None,
            site,
            lane,
            turn: None,
            revives: false,
        }
    }
}

/// A picture, as far as its next step needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PictureRow {
    pub id: i64,
    pub state: State,
    own: bool,
    urls: i64,
    behind: i64,
    /// The run that has it, while it is open.
    pub run: Option<i64>,
    /// Whether it is dead and tried nevertheless.
    pub revives: bool,
}

/// A line of the log.
#[derive(Clone, Copy, Default)]
pub(super) struct Line<'a> {
    pub kind: &'static str,
    pub entry: Option<i64>,
    pub picture: Option<i64>,
    pub other: Option<i64>,
    pub body: Option<&'a str>,
}

const FIND_ENTRY: &str =
    "SELECT id, key, state, depth, picture, primary_entry, NULL AS run, site, lane, turn, revive_ms IS NOT NULL FROM entries
    WHERE tenant = ?1 AND key = ?2";
const ENTRY: &str = "SELECT id, key, state, depth, picture, primary_entry, NULL AS run, site, lane, turn, revive_ms IS NOT NULL FROM entries
    WHERE id = ?1";
const FIND_PICTURE: &str =
    "SELECT id, state, coalesce(representative, id) = id, urls, behind, NULL AS run, revive_ms IS NOT NULL FROM pictures
    WHERE tenant = ?1 AND content = ?2";
const PICTURE: &str = "SELECT id, state, coalesce(representative, id) = id, urls, behind, NULL AS run, revive_ms IS NOT NULL FROM pictures WHERE id = ?1";

impl Books<'_, '_> {
    /// Writes a fact. Returns what is open now because of it.
    pub fn write(&mut self, fact: &Fact) -> Result<Vec<QueueUpdate>, Trouble> {
        match fact {
            Fact::Discovered(admitted) => self.admitted(admitted),
            Fact::Failed(fate) => self.fate(fate),
            Fact::Stored(kept) => self.kept(kept),
            Fact::Detected(delivered) => self.delivered(delivered),
            Fact::Assigned(ruling) => self.ruled(ruling),
        }?;
        let opened = std::mem::take(&mut self.opened).into_iter();
        Ok(opened.map(|((lane, again), due)| QueueUpdate { lane, due, again }).collect())
    }

    /// Notes that something waits in a lane from now on, to be done or to be looked at again.
    pub fn open(&mut self, lane: QueueId, due: Time, again: bool) {
        let first = self.opened.entry((lane, again)).or_insert(due);
        *first = due.min(*first);
    }

    /// The entry of a key.
    pub fn find(&self, key: Key) -> Result<Option<Entry>, Trouble> {
        self.moment.one(FIND_ENTRY, values![self.tenant, key], entry_at)
    }

    /// The entry of an id.
    pub fn entry(&self, id: i64) -> Result<Entry, Trouble> {
        let entry = self.moment.one(ENTRY, values![id], entry_at)?;
        entry.ok_or_else(|| Trouble::Damaged(format!("entry {id} is named but not there")))
    }

    /// The picture of a content id.
    pub fn find_picture(&self, id: ContentId) -> Result<Option<PictureRow>, Trouble> {
        self.moment.one(FIND_PICTURE, values![self.tenant, &id], picture_at)
    }

    /// Changes a picture's row, or how many URLs lead to it, and lets the counts follow.
    pub fn change_picture(
        &mut self,
        id: i64,
        change: impl FnOnce(&mut Self) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        self.count_picture(id, -1)?;
        change(self)?;
        self.count_picture(id, 1)
    }

    fn count_picture(&mut self, id: i64, sign: i64) -> Result<(), Trouble> {
        let picture = self.moment.one(PICTURE, values![id], picture_at)?;
        let picture = picture.ok_or_else(|| Trouble::Damaged(format!("picture {id} is named but not there")))?;
        for (status, count) in picture.shares() {
            self.tallies.count(EntryKind::Image, status, sign * count);
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
    pub fn site(&mut self, url: &str) -> Result<i64, Trouble> {
        if let Some((_, id)) = self.last_site.as_ref().filter(|(last, _)| last == url) {
            return Ok(*id);
        }
        let known = "SELECT id FROM sites WHERE tenant = ?1 AND url = ?2";
        let id = match self.moment.one(known, values![self.tenant, url], |row| row.get(0))? {
            Some(id) => id,
            None => self.moment.insert("INSERT INTO sites (tenant, url) VALUES (?1, ?2)", values![self.tenant, url])?,
        };
        self.last_site = Some((url.to_owned(), id));
        Ok(id)
    }

    /// Adds a line to the log.
    pub fn log(&self, line: Line<'_>) -> Result<(), Trouble> {
        let sql =
            "INSERT INTO facts (tenant, at_ms, kind, entry, picture, other, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let Line { kind, entry, picture, other, body } = line;
        self.run(sql, values![self.tenant, self.now_ms, kind, entry, picture, other, body])
    }

    /// Runs a statement.
    pub fn run(&self, sql: &str, values: &[Value<'_>]) -> Result<(), Trouble> {
        self.moment.run(sql, values)
    }

    /// Refuses a fact about work that another living run has.
    pub fn refuse_held(&self, run: Option<i64>, key: impl ToString) -> Result<(), Trouble> {
        match run.filter(|_| self.is_held(run)) {
            Some(run) => Err(Trouble::Held { key: key.to_string(), run }),
            None => Ok(()),
        }
    }

    /// Whether another living run has what `run` has.
    pub fn is_held(&self, run: Option<i64>) -> bool {
        run.is_some_and(|run| self.others.contains(&run))
    }
}

fn entry_at(row: &Row<'_>) -> Result<Entry, Trouble> {
    Ok(Entry {
        id: row.get(0)?,
        key: row.get(1)?,
        state: row.get::<Word>(2)?.0,
        depth: row.get(3)?,
        picture: row.get(4)?,
        primary: row.get(5)?,
        run: row.get(6)?,
        site: row.get(7)?,
        lane: row.get::<i64>(8)? as QueueId,
        turn: row.get(9)?,
        revives: row.get(10)?,
    })
}

fn picture_at(row: &Row<'_>) -> Result<PictureRow, Trouble> {
    let state = row.get::<Word>(1)?.0;
    let (urls, behind) = (row.get(3)?, row.get(4)?);
    Ok(PictureRow { id: row.get(0)?, state, own: row.get(2)?, urls, behind, run: row.get(5)?, revives: row.get(6)? })
}

impl PictureRow {
    /// How many entries have which status because of this picture: its main URL, its other URLs, and their alternates.
    fn shares(&self) -> [(Status, i64); 3] {
        let main = Status::of_picture(self.state, self.own, true);
        let other = Status::of_picture(self.state, self.own, false);
        [(main, self.urls.min(1)), (other, (self.urls - 1).max(0)), (Status::of_alternate(main), self.behind)]
    }
}

/// Where something stands: its state, and whether it is tried although that is a bad end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    state: State,
    revives: bool,
}

impl From<Entry> for Standing {
    fn from(Entry { state, revives, .. }: Entry) -> Self {
        Self { state, revives }
    }
}

impl From<PictureRow> for Standing {
    fn from(PictureRow { state, revives, .. }: PictureRow) -> Self {
        Self { state, revives }
    }
}

/// What `event` makes of a try's subject. One that is tried although it ended is driven again first.
pub(super) fn try_step(
    subject: Option<impl Into<Standing>>,
    event: Event,
    key: impl ToString,
) -> Result<Option<State>, Trouble> {
    let state = match subject.map(Into::into) {
        Some(Standing { state, revives: true }) => step(Some(state), Event::Redrive, key.to_string())?.or(Some(state)),
        subject => subject.map(|subject| subject.state),
    };
    step(state, event, key)
}

/// The state that `event` leads to, or that nothing changes; an illegal step names `key`.
pub(super) fn step(state: Option<State>, event: Event, key: impl ToString) -> Result<Option<State>, Trouble> {
    transition(state, event).map_err(|step| Trouble::Illegal { key: key.to_string(), step })
}

/// A fault as a line's body: its class and words, how often it was tried, when it is due again, and the scale of a detection.
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
