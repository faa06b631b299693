//! `faceflow retry`: dead and waiting work is due at once, with its attempts counted anew.

use faceflow_core::record::Key;
use faceflow_core::transition::{Event, State};
use url::Url;

use super::books::{Books, Line, step};
use super::database::values;
use super::rows::{EntryKind, Trouble, Word};

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

/// Entries of a tenant that are dead (?2) or waiting (?3). What another run has is not ours to drive, nor what one tries
/// just now.
const ENTRIES: &str = "SELECT id FROM entries WHERE tenant = ?1
    AND (?2 AND state = 'dead' OR ?3 AND state = 'open' AND due_ms IS NOT NULL)";

/// The same for pictures that no other stands for.
const PICTURES: &str = "SELECT id FROM pictures WHERE tenant = ?1 AND coalesce(representative, id) = id
    AND (?2 AND state = 'dead' OR ?3 AND state = 'open' AND due_ms IS NOT NULL)";

impl Books<'_, '_> {
    /// Drives entries and pictures again. Returns how many.
    pub fn redrive(&mut self, selection: &Selection) -> Result<u64, Trouble> {
        let (entries, pictures) = match &selection.urls[..] {
            [] => (self.ids("entries", ENTRIES, selection)?, self.ids("pictures", PICTURES, selection)?),
            urls => self.named(urls, selection)?,
        };
        for id in &entries {
            self.redrive_entry(*id)?;
        }
        for id in &pictures {
            self.redrive_picture(*id)?;
        }
        Ok((entries.len() + pictures.len()) as u64)
    }

    fn ids(&self, table: &str, sql: &str, selection: &Selection) -> Result<Vec<i64>, Trouble> {
        let values = values![self.tenant, selection.dead, selection.waiting];
        self.moment.list(&format!("{sql}{}", self.moment.free(table)), values, |row| row.get(0))
    }

    fn named(&self, urls: &[Url], selection: &Selection) -> Result<(Vec<i64>, Vec<i64>), Trouble> {
        let (mut entries, mut pictures) = (Vec::new(), Vec::new());
        // The bytes of a data: URI are not kept once it is rejected: that one could not be tried again.
        let entry = "SELECT id FROM entries WHERE id = ?1 AND (?2 AND state = 'dead' OR ?3 AND state = 'open' AND due_ms IS NOT NULL
            OR ?2 AND state = 'rejected' AND url NOT LIKE 'data:%')";
        let picture = "SELECT id FROM pictures WHERE id = ?1 AND coalesce(representative, id) = id
            AND (?2 AND state = 'dead' OR ?3 AND state = 'open' AND due_ms IS NOT NULL)";
        for key in urls.iter().flat_map(|url| [Key::page(url), Key::image(url)]) {
            let Some(found) = self.find(key)? else { continue };
            let chosen = |table, sql, id: i64| {
                let values = values![id, selection.dead, selection.waiting];
                self.moment.one(&format!("{sql}{}", self.moment.free(table)), values, |row| row.get::<i64>(0))
            };
            entries.extend(chosen("entries", entry, found.id)?);
            if let Some(id) = found.picture {
                pictures.extend(chosen("pictures", picture, id)?);
            }
        }
        entries.sort_unstable();
        entries.dedup();
        pictures.sort_unstable();
        pictures.dedup();
        Ok((entries, pictures))
    }

    fn redrive_entry(&mut self, id: i64) -> Result<(), Trouble> {
        let entry = self.entry(id)?;
        let next = step(Some(entry.state), Event::Redrive, format!("entry {id}"))?;
        let sql = "UPDATE entries SET state = 'open', attempts = 0, spared = 0, due_ms = NULL, reason = NULL,
            detail = NULL, revive_ms = NULL WHERE id = ?1";
        self.run(sql, values![id])?;
        if let Some(next) = next {
            let kind = if entry.depth.is_some() { EntryKind::Page } else { EntryKind::Image };
            self.recount(kind, Some(entry.state), next);
        }
        self.log(Line { kind: "redriven", entry: Some(id), ..Line::default() })
    }

    fn redrive_picture(&mut self, id: i64) -> Result<(), Trouble> {
        self.change_picture(id, |books| {
            let state = "SELECT state FROM pictures WHERE id = ?1";
            let state = books.moment.one(state, values![id], |row| row.get::<Word>(0))?;
            let state = state.map(|word| word.0);
            let next = step(state, Event::Redrive, format!("picture {id}"))?.or(state).unwrap_or(State::Open);
            // Due at once, and still a scheduled retry: it goes straight to the detector.
            let sql = "UPDATE pictures SET state = ?2, attempts = 0, spared = 0, due_ms = 0, reason = NULL,
                detail = NULL, revive_ms = NULL WHERE id = ?1";
            books.run(sql, values![id, Word(next)])
        })?;
        self.log(Line { kind: "redriven", picture: Some(id), ..Line::default() })
    }
}
