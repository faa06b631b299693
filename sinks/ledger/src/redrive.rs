//! `faceflow retry`: dead and waiting work is due at once, with its attempts counted anew.
//!
//! There may be very much of it, so it is selected and driven in batches, each a transaction of its own: a process that is killed
//! half-way has driven the first of them, and the same command goes on with the rest.

use std::collections::BTreeSet;

use faceflow_core::kill_point::kill_point;
use faceflow_core::record::Key;
use faceflow_core::transition::{Event, State};
use url::Url;

use super::column_codecs::EntryKind;
use super::error::TransactionError;
use super::event_feed::EventRow;
use super::log_record::LogRecord;
use super::quarantine::QuarantineChange;
use super::transaction::{LedgerTransaction, step};
use super::value::{Value, values};

/// Which entries to drive again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The dead. Of URLs that are named, the rejected too.
    pub dead: bool,
    /// Those that wait for a retry.
    pub waiting: bool,
    /// Only these pages and images; empty for all.
    pub urls: Vec<Url>,
}

/// How far a redrive has come: what is after these numbers, and after so many of the URLs that were named.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    entry: i64,
    picture: i64,
    url: usize,
    pub driven: u64,
    pub done: bool,
}

/// Entries that are dead (?2) or waiting (?3). What another run has is not ours to drive, nor what one tries just now.
const ENTRIES: &str = "SELECT id FROM entries WHERE tenant = ?1
    AND (?2 AND state = 'dead' OR ?3 AND state = 'open' AND due_ms IS NOT NULL) AND id > ?4";

/// The same for pictures that no other stands for.
const PICTURES: &str = "SELECT id FROM pictures WHERE tenant = ?1 AND coalesce(representative, id) = id
    AND (?2 AND state = 'dead' OR ?3 AND state = 'open' AND due_ms IS NOT NULL) AND id > ?4";

/// Of a URL that is named, the rejected too; but the bytes of a data: URI are not kept once it is rejected: that one could not be
/// tried again.
const NAMED_ENTRY: &str = "SELECT id FROM entries WHERE tenant = ?1 AND (?2 AND state = 'dead'
    OR ?3 AND state = 'open' AND due_ms IS NOT NULL OR ?2 AND state = 'rejected' AND url NOT LIKE 'data:%') AND id = ?4";

const NAMED_PICTURE: &str = "SELECT id FROM pictures WHERE tenant = ?1 AND coalesce(representative, id) = id
    AND (?2 AND (state = 'dead' OR state = 'rejected') OR ?3 AND state = 'open' AND due_ms IS NOT NULL) AND id = ?4";

impl LedgerTransaction<'_, '_> {
    /// Drives the next of what is selected, at most `max`. `tried`: another run tries just now what ended badly and is due.
    pub fn redrive_some(
        &mut self,
        selection: &Selection,
        progress: &mut Progress,
        (max, tried): (usize, bool),
    ) -> Result<(), TransactionError> {
        let chosen = |state: &Self, sql: &str, from: i64, max: usize| {
            let values = values![state.context.tenant, selection.dead, selection.waiting, from, max as i64];
            state.free(tried, |free, theirs| {
                let sql = format!("{sql}{free} ORDER BY id LIMIT ?5");
                state.tx.list(&sql, &[values, theirs].concat(), |row| row.get::<i64>(0))
            })
        };
        let (mut entries, mut pictures) = (Vec::new(), Vec::new());
        if selection.urls.is_empty() {
            entries = chosen(self, ENTRIES, progress.entry, max)?;
            pictures = chosen(self, PICTURES, progress.picture, max - entries.len())?;
            progress.done = entries.len() + pictures.len() < max;
        } else {
            let named = selection.urls.iter().skip(progress.url).take(max);
            let keys: Vec<Key> = named.flat_map(|url| [Key::page(url), Key::image(url)]).collect();
            for key in keys {
                let Some(found) = self.find(key)? else { continue };
                entries.extend(chosen(self, NAMED_ENTRY, found.id, 1)?);
                if let Some(picture) = found.picture {
                    pictures.extend(chosen(self, NAMED_PICTURE, picture, 1)?);
                }
            }
            entries.sort_unstable();
            entries.dedup();
            pictures.sort_unstable();
            pictures.dedup();
            progress.url += max;
            progress.done = progress.url >= selection.urls.len();
        }
        progress.entry = entries.last().copied().unwrap_or(progress.entry);
        progress.picture = pictures.last().copied().unwrap_or(progress.picture);
        progress.driven += (entries.len() + pictures.len()) as u64;
        if !entries.is_empty() || !pictures.is_empty() {
            self.take_in(LogRecord::Redriven { entries, pictures })?;
            kill_point("retry.driven");
        }
        Ok(())
    }

    /// Calls `select` with a condition, and the values it takes from ?6 on, that is true of rows which no other living run has or
    /// tries just now. A file has one writer.
    fn free<T>(&self, tried: bool, select: impl FnOnce(&str, &[Value<'_>]) -> T) -> T {
        if self.context.run.is_none() {
            return select("", &[]);
        }
        // An array as text: the statement stays the same whoever the others are.
        let others: Vec<String> = self.context.others.iter().map(i64::to_string).collect();
        let others = format!("{{{}}}", others.join(","));
        // Runs note times by their own clocks.
        let soon = self.context.now_ms + 60_000;
        let free = " AND (run IS NULL OR run <> ALL (CAST(CAST(?6 AS TEXT) AS BIGINT[])))
            AND (NOT ?7 OR terminal_retry_ms IS NULL OR terminal_retry_ms > ?8)";
        select(free, values![&others, tried, soon])
    }

    /// Drives entries and pictures again.
    pub fn redrive(&mut self, entries: &[i64], pictures: &[i64]) -> Result<(), TransactionError> {
        self.rows.need(entries, pictures)?;
        self.redrive_hosts(entries)?;
        self.quarantine.push(QuarantineChange::Drive { entries: entries.to_vec(), pictures: pictures.to_vec() });
        entries.iter().try_for_each(|id| self.redrive_entry(*id))?;
        pictures.iter().try_for_each(|id| self.redrive_picture(*id))
    }

    /// Hosts that are to be asked are asked at once.
    fn redrive_hosts(&mut self, entries: &[i64]) -> Result<(), TransactionError> {
        let queues = entries.iter().map(|id| self.entry(*id).map(|entry| entry.queue));
        let queues = queues.collect::<Result<BTreeSet<_>, _>>()?;
        self.need_hosts(&queues)?;
        queues.into_iter().try_for_each(|queue| self.host_redriven(queue))
    }

    fn redrive_entry(&mut self, id: i64) -> Result<(), TransactionError> {
        let (entry, run) = (self.entry(id)?, self.context.run);
        let next = step(Some(entry.state), Event::Redrive, format!("entry {id}"))?;
        let row = self.rows.change_entry(id)?;
        row.set_state(State::Open, run);
        (row.attempts, row.uncounted, row.due_ms, row.terminal_retry_ms) = (0, 0, None, None);
        (row.patch.reason, row.patch.detail) = (Some(None), Some(None));
        if let Some(next) = next {
            let kind = if entry.depth.is_some() { EntryKind::Page } else { EntryKind::Image };
            self.recount(kind, Some(entry.state), next);
        }
        self.note(EventRow { kind: "redriven", entry: Some(id), ..EventRow::default() });
        Ok(())
    }

    fn redrive_picture(&mut self, id: i64) -> Result<(), TransactionError> {
        let (state, run) = (self.rows.picture(id)?.state, self.context.run);
        let next = step(Some(state), Event::Redrive, format!("picture {id}"))?.unwrap_or(state);
        self.change_picture(id, |row| {
            row.set_state(next, run);
            // Due at once, and still a scheduled retry: it goes straight to the detector.
            (row.attempts, row.uncounted, row.due_ms, row.terminal_retry_ms) = (0, 0, Some(0), None);
            (row.reason, row.detail) = (Some(None), Some(None));
        })?;
        self.note(EventRow { kind: "redriven", picture: Some(id), ..EventRow::default() });
        Ok(())
    }

    /// Pictures of a run that has ended, which were not looked at, are due at once.
    pub fn due_at_once(&mut self, pictures: &[i64]) -> Result<(), TransactionError> {
        self.rows.need(&[], pictures)?;
        pictures.iter().try_for_each(|id| self.change_picture(*id, |row| row.due_ms = Some(0)))
    }
}
