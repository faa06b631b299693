//! Discovery: start pages, and what a page that was read leads to.
//!
//! Pages of a site are in an order, in which they were admitted. What a page leads to is taken up when every earlier page has been
//! tried; one that was read before that waits in a table of its own (`reorder_buffer.rs`). So budgets cut what a sequential breadth-first
//! search would cut. A page that failed gives up its place: nobody waits for a retry.

use std::borrow::Cow;
use std::collections::HashSet;

use faceflow_core::record::{Bounds, Image, Key, Page, queue_of};
use faceflow_core::transition::{Event, State};
use url::Url;

use super::column_codecs::{EntryKind, join_keys};
use super::error::TransactionError;
use super::event_feed::EventRow;
use super::log_record::{Discovered, Visited};
use super::transaction::{Entry, LedgerTransaction, step, try_step};

/// A page that was read: its row and site, and its place in the order if it still had one.
struct Read {
    page: i64,
    site: i64,
    sequence: Option<i64>,
}

impl LedgerTransaction<'_, '_> {
    pub fn discovered(&mut self, found: &Discovered<'_>) -> Result<(), TransactionError> {
        if let Some(visit) = &found.visit {
            // Whether it can be settled at all, before anything is changed by statements that cannot be taken back.
            self.read_entry(visit)?;
        }
        for site in found.removed.iter() {
            self.remove_site(*site)?;
        }
        let Some(visit) = &found.visit else {
            self.take_up(found, None)?;
            return self.resume();
        };
        let read = self.visited(visit, found)?;
        // Earlier pages of its site may not have been tried yet, or may have been read and not taken up yet: then it waits behind them.
        let early = match read.sequence {
            Some(sequence) => {
                let untried = self.rows.first_sequence(read.site)?;
                let buffered = self.rows.first_buffered(read.site)?;
                untried.into_iter().chain(buffered).any(|first| first < sequence).then_some(sequence)
            }
            None => None,
        };
        match early {
            Some(sequence) => self.buffer_until_in_sequence(found, (read.site, sequence), read.page)?,
            None => self.take_up(found, Some((read.page, read.site)))?,
        }
        if read.sequence.is_some() {
            self.freed.push(read.site);
        }
        self.resume()
    }

    /// Takes up what was found, by the page and site `by` or by a source.
    pub fn take_up(&mut self, found: &Discovered<'_>, by: Option<(i64, i64)>) -> Result<(), TransactionError> {
        if let Some((_, site)) = by
            && self.rows.site(site)?.removed
        {
            return Ok(());
        }
        for page in found.pages.iter() {
            // What was found at a site, and not by a page of it, comes from work that was under way when the site was removed.
            if by.is_none() && page.depth > 0 && self.is_removed(&page.site)? {
                continue;
            }
            self.admit_page(page, by.map(|(page, _)| page), found.bounds)?;
            if let Some(list) = &found.list {
                let site = self.site(&page.site)?;
                if self.rows.site(site)?.list.as_deref() != Some(list) {
                    self.rows.change_site(site)?.list = Some(list.as_ref().into());
                }
            }
        }
        for image in found.images.iter() {
            let newer = self.newer(image)?;
            let image = newer.as_ref().unwrap_or(image);
            let (page, site) = match by {
                Some((page, site)) => (Some(page), site),
                None => (self.find(Key::page(&image.page))?.map(|page| page.id), self.site(&image.site)?),
            };
            let known = self.find(image.key())?;
            if !self.is_taken_up(known, page)? {
                let Some(new) = self.within_image_budget(site, known, found.bounds.images_max)? else { continue };
                let entry = self.admit_image(image, known, page)?;
                if new {
                    self.rows.count_image(site, entry.id);
                    self.rows.change_site(site)?.images += 1;
                }
                self.sighted(&entry, page)?;
            }
            self.offered(image, page)?;
        }
        Ok(())
    }

    fn is_removed(&mut self, site: &Url) -> Result<bool, TransactionError> {
        let site = self.site(site)?;
        Ok(self.rows.site(site)?.removed)
    }

    /// A file that is not what it was when it was discovered, as an image of its own: its version is part of its address.
    fn newer(&mut self, image: &Image) -> Result<Option<Image>, TransactionError> {
        let Some(version) = &image.version else { return Ok(None) };
        let Some(row) = self.rows.find_entry(image.key())? else { return Ok(None) };
        let (id, known) = (row.id, row.version.clone());
        match known {
            None => {
                // It was discovered before versions were noted.
                self.rows.change_entry(id)?.version = Some(version.as_str().into());
                Ok(None)
            }
            Some(known) if *known == **version => Ok(None),
            Some(_) => {
                let mut newer = image.clone();
                newer.url.set_fragment(Some(version));
                Ok(Some(newer))
            }
        }
    }

    /// Whether a page was seen before to show an image that was taken up: then nothing is new about it.
    fn is_taken_up(&mut self, known: Option<Entry>, page: Option<i64>) -> Result<bool, TransactionError> {
        match (known.filter(|entry| entry.state != State::Alternate), page) {
            (Some(image), Some(page)) => self.rows.has_page_image(image.id, page),
            _ => Ok(false),
        }
    }

    /// Whether an image counts towards its site's budget from now on (`true`), or did before; `None` if it is beyond it.
    fn within_image_budget(
        &mut self,
        site: i64,
        known: Option<Entry>,
        max: u64,
    ) -> Result<Option<bool>, TransactionError> {
        if let Some(image) = known
            && self.rows.is_counted(site, image.id)?
        {
            return Ok(Some(false));
        }
        let used = self.rows.site(site)?.images as u64;
        Ok((used < max).then_some(true))
    }

    /// The entry of a page that was read, if it can take that step, and whether it is settled by it.
    fn read_entry(&mut self, visit: &Visited<'_>) -> Result<(Entry, Option<State>), TransactionError> {
        let page = &visit.page;
        let entry = self.find(page.key())?;
        let next = try_step(entry, Event::Settle, &page.url)?;
        let missing = || TransactionError::Damaged(format!("{} was settled but is not there", page.url));
        let entry = entry.ok_or_else(missing)?;
        if next.is_some() && !entry.outdates(page) {
            self.refuse_held(entry.run, &page.url)?;
        }
        Ok((entry, next))
    }

    /// Settles the page that was read.
    fn visited(&mut self, visit: &Visited<'_>, found: &Discovered<'_>) -> Result<Read, TransactionError> {
        let page = &visit.page;
        let (entry, next) = self.read_entry(visit)?;
        self.host_answered(entry.queue, page.host.as_deref())?;
        if next.is_none() {
            self.look_again(&entry, visit, found)?;
            return Ok(Read { page: entry.id, site: entry.site, sequence: None });
        }
        if entry.outdates(page) {
            // Since then it was reached on a shorter way, and that reading is still owed.
            self.open(entry.queue, 0, false);
            return Ok(Read { page: entry.id, site: self.site(&page.site)?, sequence: None });
        }
        self.rows.give_up_sequence(entry.id)?;
        let row = self.rows.change_entry(entry.id)?;
        row.set_state(State::Settled, None);
        (row.attempts, row.due_ms, row.terminal_retry_ms) = (page.attempts, None, None);
        (row.patch.reason, row.patch.detail) = (Some(None), Some(None));
        self.note_visit(&entry, visit, found)?;
        self.recount(EntryKind::Page, Some(entry.state), State::Settled);
        self.note(EventRow { kind: "visited", entry: Some(entry.id), ..EventRow::default() });
        self.due_again(&entry, found)?;
        Ok(Read { page: entry.id, site: entry.site, sequence: entry.sequence })
    }

    /// Notes what a visit saw.
    fn note_visit(
        &mut self,
        entry: &Entry,
        visit: &Visited<'_>,
        found: &Discovered<'_>,
    ) -> Result<(), TransactionError> {
        let shown: HashSet<Key> = found.images.iter().map(Image::key).collect();
        let final_url = (visit.final_url != Cow::Borrowed(&visit.page.url)).then(|| visit.final_url.as_str().into());
        let patch = &mut self.rows.change_entry(entry.id)?.patch;
        patch.final_url = Some(final_url);
        patch.http_status = Some(Some(visit.http_status.into()));
        patch.links = Some(Some(visit.links as i64));
        patch.images = Some(Some(shown.len() as i64));
        Ok(())
    }

    /// Notes another visit to a page that is settled.
    fn look_again(
        &mut self,
        entry: &Entry,
        visit: &Visited<'_>,
        found: &Discovered<'_>,
    ) -> Result<(), TransactionError> {
        // If it opted out meanwhile, it does so no more.
        let patch = &mut self.rows.change_entry(entry.id)?.patch;
        (patch.reason, patch.detail) = (Some(None), Some(None));
        if !visit.is_unchanged() {
            self.note_visit(entry, visit, found)?;
            self.note(EventRow { kind: "visited", entry: Some(entry.id), ..EventRow::default() });
        }
        self.due_again(entry, found)
    }

    /// Notes what a page was, and when it is due again, unless its site is no longer wanted.
    fn due_again(&mut self, entry: &Entry, found: &Discovered<'_>) -> Result<(), TransactionError> {
        let Some(again) = &found.again else { return Ok(()) };
        let (version, due) = &**again;
        let version = serde_json::to_string(version)
            .map_err(|error| TransactionError::Damaged(format!("the version of page {}: {error}", entry.id)))?;
        let wanted = !self.rows.site(entry.site)?.removed;
        let row = self.rows.change_entry(entry.id)?;
        row.patch.page_version = Some(Some(version.into()));
        row.recrawl_ms = wanted.then_some(*due as i64);
        self.open(entry.queue, *due, true);
        Ok(())
    }

    fn admit_page(&mut self, page: &Page, by: Option<i64>, bounds: Bounds) -> Result<(), TransactionError> {
        let known = self.find(page.key())?;
        // A page reached on a shorter way is a discovery of its own: what is known of it deeper down does not count.
        let again = known.filter(|entry| bounds.shorter_ways && entry.is_deeper_than(page));
        let before = if again.is_some() { None } else { known.map(|entry| entry.state) };
        if page.depth == 0 && by.is_none() {
            let site = self.site(&page.site)?;
            self.restore_site(site)?;
        }
        let Some(State::Open) = step(before, Event::Admit, &page.url)? else { return Ok(()) };
        let site = self.site(&page.site)?;
        let row = self.rows.site(site)?;
        let (pages, sequence) = (row.pages, row.sequences);
        if known.is_none() && pages as u64 >= bounds.pages_max {
            return Ok(());
        }
        let run = self.context.run;
        let id = match known {
            Some(entry) => {
                self.freed.extend(self.rows.give_up_sequence(entry.id)?);
                let row = self.rows.change_entry(entry.id)?;
                (row.site, row.due_ms, row.recrawl_ms, row.terminal_retry_ms) = (site, None, None, None);
                row.uncounted = 0;
                let patch = &mut row.patch;
                (patch.reason, patch.detail, patch.final_url) = (Some(None), Some(None), Some(None));
                (patch.http_status, patch.links, patch.images) = (Some(None), Some(None), Some(None));
                entry.id
            }
            None => {
                let owner = (site, page.job.number, queue_of(&page.url) as i64);
                self.rows.new_entry(EntryKind::Page, (page.key(), page.url.as_str()), owner)?.id
            }
        };
        let row = self.rows.change_entry(id)?;
        row.set_state(State::Open, run);
        (row.depth, row.attempts) = (Some(page.depth), page.attempts);
        row.patch.skip = Some(join_keys(&page.skip).map(Into::into));
        self.rows.take_sequence(id, sequence)?;
        let row = self.rows.change_site(site)?;
        row.pages += i64::from(known.is_none());
        row.sequences += 1;
        self.open(known.map_or((page.job.number, queue_of(&page.url)), |entry| entry.queue), 0, false);
        self.recount(EntryKind::Page, known.map(|entry| entry.state), State::Open);
        self.note(EventRow { kind: "admitted", entry: Some(id), other: by, ..EventRow::default() });
        Ok(())
    }

    fn admit_image(&mut self, image: &Image, known: Option<Entry>, by: Option<i64>) -> Result<Entry, TransactionError> {
        let (next, run) = (step(known.map(|entry| entry.state), Event::Admit, &image.url)?, self.context.run);
        let id = match (known, next) {
            (Some(entry), None) => return Ok(entry),
            (Some(alternate), Some(_)) => {
                self.leave(&alternate)?;
                alternate.id
            }
            (None, _) => {
                let owner = (self.site(&image.site)?, image.job.number, queue_of(&image.url) as i64);
                let row = self.rows.new_entry(EntryKind::Image, (image.key(), image.url.as_str()), owner)?;
                row.version = image.version.as_deref().map(Into::into);
                let id = row.id;
                self.tallies.discover(EntryKind::Image);
                id
            }
        };
        let row = self.rows.change_entry(id)?;
        row.set_state(State::Open, run);
        (row.attempts, row.uncounted, row.primary, row.rank) = (image.attempts, 0, None, None);
        row.patch.inline = Some(image.inline.clone());
        let entry = Entry::from(&*row);
        self.tallies.count(EntryKind::Image, super::Status::Open, 1);
        self.open(entry.queue, 0, false);
        self.note(EventRow { kind: "admitted", entry: Some(id), other: by, ..EventRow::default() });
        Ok(entry)
    }

    /// Notes that the page `by` shows an image.
    pub fn sighted(&mut self, image: &Entry, by: Option<i64>) -> Result<(), TransactionError> {
        let Some(page) = by else { return Ok(()) };
        let new = self.rows.add_page_image(image.id, page)?;
        if new && image.picture.is_some() {
            // What was written about the picture has to say so; earlier sightings are known when it is kept.
            self.note(EventRow {
                kind: "sighted",
                entry: Some(image.id),
                picture: image.picture,
                other: by,
                body: None,
            });
        }
        Ok(())
    }
}

impl Entry {
    /// Whether the entry was meanwhile admitted on a shorter way than this record of it.
    pub fn outdates(&self, page: &Page) -> bool {
        self.depth.is_some_and(|depth| depth < page.depth)
    }

    fn is_deeper_than(&self, page: &Page) -> bool {
        self.depth.is_some_and(|depth| depth > page.depth)
    }
}
