//! The quarantine: facts that were refused, each for itself, with the reason.
//!
//! A fact is quarantined when the database refuses what it says (`isolation.rs` finds which one of a group), or when it speaks of a
//! step that cannot be. Its work comes to an end: the entry or picture is dead, with the reason [`REASON`], until it is driven
//! again. Promise: nothing of a row depends on what the database thinks of the fact, for the fact is in it as bytes; and the rows
//! follow from the log.

use std::borrow::Cow;

use faceflow_core::fact::Fact;
use faceflow_core::record::{ContentId, Disposition, Image, Key, Page, Work};
use faceflow_core::transition::{Event, State};
use faceflow_core::{Class, Fault, Time};

use super::column_codecs::EntryKind;
use super::database::{DbTransaction, values};
use super::error::TransactionError;
use super::event_feed::EventRow;
use super::log_record::{Discovered, LogRecord, Quarantined, QuarantinedWork, WorkEnd};
use super::transaction::{Context, Entry, LedgerTransaction, Picture, fault_body, step};

/// The reason of entries and pictures that ended because a fact about them was refused.
pub(crate) const REASON: &str = "quarantined";

/// Bytes of a fact that are kept, at most. Of a longer one the beginning is kept.
const BODY_MAX: usize = 1 << 20;
/// Bytes of a reason that are kept, at most.
const REASON_MAX: usize = 1_000;

/// A change of the quarantine.
#[derive(Debug)]
pub(super) enum QuarantineChange {
    Put(Box<QuarantineRow>),
    /// These entries and pictures are tried again: what is said about them is over.
    Drive {
        entries: Vec<i64>,
        pictures: Vec<i64>,
    },
    Release(Vec<ContentId>),
}

/// A row of the quarantine.
#[derive(Debug)]
pub(super) struct QuarantineRow {
    id: ContentId,
    refused: Quarantined<'static>,
    entry: Option<i64>,
    picture: Option<i64>,
}

impl<'a> Quarantined<'a> {
    /// A fact that was refused, whose work comes to an end.
    pub fn fact(fact: &'a Fact, reason: &str) -> Result<Self, TransactionError> {
        let entry = |kind, url: &'a url::Url, key: Key, job: u32| {
            (kind, Cow::Borrowed(url.as_str()), QuarantinedWork::Entry(key), Some(job))
        };
        let picture = |kind, id: ContentId| (kind, Cow::Owned(id.to_string()), QuarantinedWork::Picture(id), None);
        let mut due = None;
        let (kind, subject, work, job) = match fact {
            Fact::Discovered(found) => match &found.visit {
                Some(visit) => {
                    due = found.again.as_ref().map(|(_, due)| *due);
                    entry("discovered", &visit.page.url, visit.page.key(), visit.page.job.number)
                }
                None => {
                    let sites: Vec<&str> = found.pages.iter().map(|page| page.url.as_str()).collect();
                    ("discovered", Cow::Owned(sites.join(" ")), QuarantinedWork::None, Some(found.job.number))
                }
            },
            Fact::Failed(disposition) => match disposition.work() {
                Work::Page(page) => {
                    if let Disposition::Retry { due: next, .. } = disposition {
                        due = Some(*next);
                    }
                    entry("failed", &page.url, page.key(), page.job.number)
                }
                Work::Image(image) => entry("failed", &image.url, image.key(), image.job.number),
                Work::Frame(frame) => picture("failed", frame.content.id),
            },
            Fact::Stored(kept) => entry("stored", &kept.image.url, kept.image.key(), kept.image.job.number),
            Fact::Copied(copied) => entry("stored", &copied.image.url, copied.image.key(), copied.image.job.number),
            Fact::Detected(delivered) => picture("detected", delivered.frame.content.id),
            Fact::Assigned(assigned) => picture("assigned", assigned.assignment.picture),
        };
        let (body, whole) = body(&LogRecord::from(fact))?;
        // What a source found is found again from the body, for no entry says so.
        let again = whole && work == QuarantinedWork::None;
        let reason = Cow::Owned(sanitised(reason));
        Ok(Self {
            kind: Cow::Borrowed(kind),
            subject,
            work,
            job,
            end: WorkEnd::Ends,
            due,
            again,
            reason,
            body: body.into(),
        })
    }

    /// A page that `found` leads to, which was refused.
    pub fn page(page: &'a Page, found: &Discovered<'_>, reason: &str) -> Result<Self, TransactionError> {
        let alone = Discovered { pages: Cow::Borrowed(std::slice::from_ref(page)), ..alone(found) };
        Self::part(("page", page.url.as_str(), page.key(), page.job.number), alone, reason)
    }

    /// An image that `found` leads to, which was refused.
    pub fn image(image: &'a Image, found: &Discovered<'_>, reason: &str) -> Result<Self, TransactionError> {
        let alone = Discovered { images: Cow::Borrowed(std::slice::from_ref(image)), ..alone(found) };
        Self::part(("image", image.url.as_str(), image.key(), image.job.number), alone, reason)
    }

    fn part(
        (kind, url, key, job): (&'static str, &'a str, Key, u32),
        alone: Discovered<'_>,
        reason: &str,
    ) -> Result<Self, TransactionError> {
        let (body, again) = body(&LogRecord::Discovered(alone))?;
        Ok(Self {
            kind: Cow::Borrowed(kind),
            subject: Cow::Borrowed(url),
            work: QuarantinedWork::Entry(key),
            job: Some(job),
            end: WorkEnd::Stays,
            due: None,
            again,
            reason: Cow::Owned(sanitised(reason)),
            body: body.into(),
        })
    }

    /// The key by which the work is dispatched.
    pub fn key(&self) -> Option<Key> {
        match self.work {
            QuarantinedWork::Entry(key) => Some(key),
            // As that of a frame.
            QuarantinedWork::Picture(id) => Some(Key(u128::from_be_bytes(std::array::from_fn(|i| id.0[i])))),
            QuarantinedWork::None => None,
        }
    }

    /// The same fact is in the quarantine once.
    fn id(&self) -> ContentId {
        ContentId::of(format!("{}\n{}", self.kind, self.subject).as_bytes())
    }

    fn into_owned(self) -> Quarantined<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let Self { kind, subject, reason, body, work, job, end, due, again } = self;
        let (kind, subject, reason, body) = (owned(kind), owned(subject), owned(reason), owned(body));
        Quarantined { kind, subject, reason, body, work, job, end, due, again }
    }
}

/// What holds for every part of what was found, without any.
fn alone<'a>(found: &Discovered<'_>) -> Discovered<'a> {
    Discovered {
        visit: None,
        pages: Cow::Borrowed(&[]),
        images: Cow::Borrowed(&[]),
        bounds: found.bounds,
        again: None,
        removed: Cow::Borrowed(&[]),
        list: found.list.as_deref().map(|list| Cow::Owned(list.to_owned())),
    }
}

/// A record as it is kept, and whether that is all of it.
fn body(record: &LogRecord<'_>) -> Result<(String, bool), TransactionError> {
    let unreadable = |error| TransactionError::Damaged(format!("a fact cannot be written down: {error}"));
    let mut body = serde_json::to_string(record).map_err(unreadable)?;
    let whole = body.len() <= BODY_MAX;
    body.truncate(body.floor_char_boundary(BODY_MAX));
    Ok((body, whole))
}

/// Words of others without control characters, as much as is kept.
fn sanitised(reason: &str) -> String {
    let mut clean: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.truncate(clean.floor_char_boundary(REASON_MAX));
    clean
}

impl LedgerTransaction<'_, '_> {
    /// Takes in that a fact was refused: its work ends, if that is wanted and it has not.
    pub fn quarantined(&mut self, refused: &Quarantined<'_>) -> Result<(), TransactionError> {
        let (mut entry, mut picture) = (None, None);
        match refused.work {
            QuarantinedWork::Entry(key) => entry = self.find(key)?,
            QuarantinedWork::Picture(id) => picture = self.find_picture(id)?,
            QuarantinedWork::None => {}
        }
        let (entry_id, picture_id) = (entry.map(|entry| entry.id), picture.map(|picture| picture.id));
        if refused.end == WorkEnd::Ends {
            if let Some(entry) = entry {
                self.end_entry(&entry, refused)?;
            }
            if let Some(picture) = picture {
                self.end_picture(&picture, refused)?;
            }
        }
        let row = QuarantineRow {
            id: refused.id(),
            refused: refused.clone().into_owned(),
            entry: entry_id,
            picture: picture_id,
        };
        self.quarantine.push(QuarantineChange::Put(Box::new(row)));
        self.resume()
    }

    /// Whether the work that a refused fact is about is open.
    pub fn is_open(&mut self, refused: &Quarantined<'_>) -> Result<bool, TransactionError> {
        let state = match refused.work {
            QuarantinedWork::Entry(key) => self.find(key)?.map(|entry| entry.state),
            QuarantinedWork::Picture(id) => self.find_picture(id)?.map(|picture| picture.state),
            QuarantinedWork::None => None,
        };
        Ok(state == Some(State::Open))
    }

    fn end_entry(&mut self, entry: &Entry, refused: &Quarantined<'_>) -> Result<(), TransactionError> {
        if entry.state == State::Settled {
            if self.rows.entry(entry.id)?.recrawl_ms.is_some() {
                self.look_again_at(entry, refused.due)?;
            }
            return Ok(());
        }
        // One that ended badly and was tried nevertheless has ended again.
        let is_open = entry.state == State::Open;
        if !is_open && !entry.retried {
            return Ok(());
        }
        self.refuse_held(entry.run, &refused.subject)?;
        if is_open {
            step(Some(entry.state), Event::Die, &refused.subject)?;
        }
        let kind = if entry.depth.is_some() { EntryKind::Page } else { EntryKind::Image };
        self.freed.extend(self.rows.give_up_sequence(entry.id)?);
        let row = self.rows.change_entry(entry.id)?;
        row.set_state(State::Dead, None);
        (row.due_ms, row.terminal_retry_ms) = (None, None);
        row.patch.reason = Some(Some(REASON.into()));
        row.patch.detail = Some(Some(refused.reason.as_ref().into()));
        let attempts = row.attempts;
        self.recount(kind, Some(entry.state), State::Dead);
        let body = Some(fault_body(&fault(refused), attempts, (None, None)));
        self.note(EventRow { kind: "dead", entry: Some(entry.id), body, ..EventRow::default() });
        if is_open && kind == EntryKind::Image {
            self.hand_on(entry)?;
        }
        Ok(())
    }

    /// A settled page stays settled; it is looked at again when that visit would have said, or not by itself.
    fn look_again_at(&mut self, entry: &Entry, due: Option<Time>) -> Result<(), TransactionError> {
        self.rows.change_entry(entry.id)?.recrawl_ms = due.map(|due| due as i64);
        if let Some(due) = due {
            self.open(entry.queue, due, true);
        }
        Ok(())
    }

    fn end_picture(&mut self, picture: &Picture, refused: &Quarantined<'_>) -> Result<(), TransactionError> {
        if self.is_held(picture.run) {
            // Only the log says that this one came to nothing.
            self.elsewhere = true;
            return Ok(());
        }
        if picture.state != State::Open && !picture.retried {
            return Ok(());
        }
        // A degraded answer that is kept stands.
        let answered = "SELECT 1 FROM detections WHERE picture = ?1";
        let answered = self.tx.one(answered, values![picture.id], |_| Ok(()))?.is_some();
        let (state, event) = if answered { (State::Settled, "detected") } else { (State::Dead, "dead") };
        let mut attempts = 0;
        self.change_picture(picture.id, |row| {
            row.set_state(state, None);
            (row.due_ms, row.terminal_retry_ms) = (None, None);
            (row.reason, row.detail) = (Some(Some(REASON.into())), Some(Some(refused.reason.as_ref().into())));
            attempts = row.attempts;
        })?;
        let body = Some(fault_body(&fault(refused), attempts, (None, None)));
        self.note(EventRow { kind: event, picture: Some(picture.id), body, ..EventRow::default() });
        Ok(())
    }
}

/// What the end of the work is put down to.
fn fault(refused: &Quarantined<'_>) -> Fault {
    Fault::permanent(Class::Panic, REASON, refused.reason.as_ref())
}

/// Writes changes of the quarantine, in their order.
pub(super) fn write(
    tx: &DbTransaction<'_>,
    context: &Context<'_>,
    changes: &[QuarantineChange],
) -> Result<(), TransactionError> {
    let (tenant, now_ms) = (context.tenant, context.now_ms);
    let mut is_empty = None;
    for change in changes {
        match change {
            QuarantineChange::Put(row) => {
                put(tx, (tenant, now_ms), row)?;
                is_empty = Some(false);
            }
            QuarantineChange::Release(ids) => {
                let sql = "DELETE FROM quarantine WHERE tenant = ?1 AND id = ?2";
                ids.iter().try_for_each(|id| tx.run(sql, values![tenant, id]))?;
            }
            QuarantineChange::Drive { entries, pictures } => {
                let any = "SELECT 1 FROM quarantine WHERE tenant = ?1 LIMIT 1";
                let empty = match is_empty {
                    Some(known) => known,
                    None => tx.one(any, values![tenant], |_| Ok(()))?.is_none(),
                };
                is_empty = Some(empty);
                if empty {
                    continue;
                }
                let of_entry = "DELETE FROM quarantine WHERE entry = ?1 AND tenant = ?2";
                let of_picture = "DELETE FROM quarantine WHERE picture = ?1 AND tenant = ?2";
                entries.iter().try_for_each(|id| tx.run(of_entry, values![*id, tenant]))?;
                pictures.iter().try_for_each(|id| tx.run(of_picture, values![*id, tenant]))?;
            }
        }
    }
    Ok(())
}

/// Writes a row. The latest refusal of a fact counts.
fn put(tx: &DbTransaction<'_>, (tenant, now_ms): (i64, i64), row: &QuarantineRow) -> Result<(), TransactionError> {
    let QuarantineRow { id, refused, entry, picture } = row;
    tx.run("DELETE FROM quarantine WHERE tenant = ?1 AND id = ?2", values![tenant, id])?;
    let sql = "INSERT INTO quarantine (tenant, id, kind, subject, key, job, entry, picture, withheld, again, reason, body, at_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let (subject, body) = (refused.subject.as_bytes(), refused.body.as_bytes());
    let values = values![
        tenant,
        id,
        refused.kind.as_ref(),
        subject,
        refused.key(),
        refused.job,
        *entry,
        *picture,
        refused.end == WorkEnd::Withheld,
        refused.again,
        refused.reason.as_ref(),
        body,
        now_ms
    ];
    tx.run(sql, values)
}
