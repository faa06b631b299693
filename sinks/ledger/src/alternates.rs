//! Alternates: other addresses of a picture. They wait behind the image that offers them, and when it fails they are tried one
//! after the other, the best first, until one stands.
//!
//! An address may be offered by several images, and is tried as soon as it is the turn of one of them. Promise: which
//! addresses are tried, and whom the others stand behind, depends on the offers and on what fails, not on the order of events;
//! and no alternate ever stands behind an image that has failed.

use faceflow_core::record::{Image, Key, queue_of};
use faceflow_core::transition::{Event, State};
use faceflow_core::{Class, Fault};
use url::Url;

use super::Status;
use super::column_codecs::EntryKind;
use super::database::{DbTransaction, values};
use super::error::TransactionError;
use super::event_feed::EventRow;
use super::transaction::{Entry, LedgerTransaction, step};

impl LedgerTransaction<'_, '_> {
    /// Takes in the other addresses of `image`, which `by` shows. If `image` has failed before, the next one is opened.
    pub fn offered(&mut self, image: &Image, by: Option<i64>) -> Result<(), TransactionError> {
        if image.alternates.is_empty() {
            return Ok(());
        }
        let Some(primary) = self.find(image.key())? else { return Ok(()) };
        for (rank, url) in image.alternates.iter().enumerate() {
            if Key::image(url) != primary.key {
                self.offer(image, (rank as i64, url), (&primary, by))?;
            }
        }
        match primary.state {
            State::Rejected | State::Dead => self.hand_on(&primary),
            _ => Ok(()),
        }
    }

    fn offer(
        &mut self,
        image: &Image,
        (rank, url): (i64, &Url),
        (primary, by): (&Entry, Option<i64>),
    ) -> Result<(), TransactionError> {
        let known = self.find(Key::image(url))?;
        step(known.map(|entry| entry.state), Event::Offer, url)?;
        let alternate = match known {
            Some(entry) => entry,
            None => self.new_alternate(image, (rank, url), primary)?,
        };
        self.rows.offer(primary.id, alternate.id, rank)?;
        self.sighted(&alternate, by)?;
        self.restand(alternate.id)
    }

    fn new_alternate(
        &mut self,
        image: &Image,
        (rank, url): (i64, &Url),
        primary: &Entry,
    ) -> Result<Entry, TransactionError> {
        let (site, key, queue) = (self.site(&image.site)?, Key::image(url), queue_of(url) as i64);
        let owner = (site, image.job.number, queue);
        let row = self.rows.new_entry(EntryKind::Image, (key, url.as_str()), owner)?;
        row.set_state(State::Alternate, None);
        let id = row.id;
        self.rows.stand_behind(id, primary.id, rank)?;
        self.tallies.discover(EntryKind::Image);
        self.count_behind(primary, 1)?;
        self.note(EventRow { kind: "offered", entry: Some(id), other: Some(primary.id), ..EventRow::default() });
        self.entry(id)
    }

    /// Puts an alternate where it belongs: behind the image with the smallest key that offers it, or, if that has failed,
    /// behind whatever stands for it.
    fn restand(&mut self, alternate: i64) -> Result<(), TransactionError> {
        let alternate = self.entry(alternate)?;
        if alternate.state != State::Alternate {
            return Ok(());
        }
        let mut offers = Vec::new();
        for (image, rank) in self.rows.offers_to(alternate.id)? {
            offers.push((self.entry(image)?, rank));
        }
        let Some((image, rank)) = offers.into_iter().min_by_key(|(image, _)| image.key) else { return Ok(()) };
        let front = match image.state {
            State::Rejected | State::Dead => self.standing(image.id)?.unwrap_or(image),
            _ => image,
        };
        if alternate.primary != Some(front.id) {
            self.leave(&alternate)?;
            self.count_behind(&front, 1)?;
        }
        let row = self.rows.entry(alternate.id)?;
        if (row.primary, row.rank) != (Some(front.id), Some(rank)) {
            self.rows.stand_behind(alternate.id, front.id, rank)?;
        }
        Ok(())
    }

    /// What stands for an image that has failed: the best of its alternates that is open or settled.
    fn standing(&mut self, failed: i64) -> Result<Option<Entry>, TransactionError> {
        let alternates = self.alternates_of(failed)?;
        Ok(alternates.into_iter().find(|alternate| matches!(alternate.state, State::Open | State::Settled)))
    }

    /// The alternates that an image offers, the best first.
    fn alternates_of(&mut self, image: i64) -> Result<Vec<Entry>, TransactionError> {
        let mut alternates = Vec::new();
        for (alternate, rank) in self.rows.offers_of(image)? {
            alternates.push((rank, self.entry(alternate)?));
        }
        alternates.sort_by_key(|(rank, entry)| (*rank, entry.key));
        Ok(alternates.into_iter().map(|(_, entry)| entry).collect())
    }

    /// An alternate leaves its place.
    pub fn leave(&mut self, alternate: &Entry) -> Result<(), TransactionError> {
        let Some(primary) = alternate.primary else { return Ok(()) };
        let primary = self.entry(primary)?;
        self.count_behind(&primary, -1)
    }

    /// One alternate more or fewer stands behind `front`.
    fn count_behind(&mut self, front: &Entry, change: i64) -> Result<(), TransactionError> {
        match front.picture {
            Some(picture) => self.change_picture(picture, |row| row.behind += change),
            None => {
                self.tallies.count(EntryKind::Image, Status::Open, change);
                Ok(())
            }
        }
    }

    /// After an image has failed: the next alternate of everyone who relied on it is opened, and those that stood behind it
    /// find another place.
    pub fn hand_on(&mut self, failed: &Entry) -> Result<(), TransactionError> {
        let mut relying = vec![failed.id];
        relying.extend(self.rows.offers_to(failed.id)?.into_iter().map(|(image, _)| image));
        for image in relying {
            if matches!(self.entry(image)?.state, State::Rejected | State::Dead) {
                self.advance(image)?;
            }
        }
        for alternate in self.rows.behind(failed.id)? {
            self.restand(alternate)?;
        }
        Ok(())
    }

    /// Opens the best alternate of a failed image that has not failed itself, unless it stands already.
    fn advance(&mut self, failed: i64) -> Result<(), TransactionError> {
        let mut alternates = self.alternates_of(failed)?.into_iter();
        let next = alternates.find(|alternate| !matches!(alternate.state, State::Rejected | State::Dead));
        let Some(next) = next.filter(|next| next.state == State::Alternate) else { return Ok(()) };
        step(Some(State::Alternate), Event::Redrive, format!("entry {}", next.id))?;
        self.leave(&next)?;
        let run = self.context.run;
        let row = self.rows.change_entry(next.id)?;
        row.set_state(State::Open, run);
        (row.primary, row.rank) = (None, None);
        self.open(next.queue, 0, false);
        self.tallies.count(EntryKind::Image, Status::Open, 1);
        self.note(EventRow { kind: "opened", entry: Some(next.id), other: Some(failed), ..EventRow::default() });
        Ok(())
    }
}

/// Where an image was found.
#[derive(Default)]
pub(super) struct Shown {
    /// The smallest URL of the pages that show it.
    pub page: Option<String>,
    /// Why it is not asked for, if every page that shows it has opted out since.
    pub opted_out: Option<Fault>,
}

/// Why a picture is not looked at, if every page that shows it has opted out since. One that no page shows came from a source, whose
/// word counts.
pub(super) fn picture_opted_out(tx: &DbTransaction<'_>, picture: i64) -> Result<Option<Fault>, TransactionError> {
    const PAGES: &str = "FROM entries i LEFT JOIN page_images s ON s.image = i.id LEFT JOIN entries p ON p.id = s.page
        WHERE i.picture = ?1";
    // Mostly the first page allows it.
    let allows = format!("SELECT 1 {PAGES} AND (p.reason IS NULL OR p.reason NOT LIKE 'opt_out:%') LIMIT 1");
    if tx.one(&allows, values![picture], |_| Ok(()))?.is_some() {
        return Ok(None);
    }
    let reason =
        tx.one(&format!("SELECT min(p.reason) {PAGES}"), values![picture], |row| row.get::<Option<String>>(0))?;
    let fault = |reason| Fault::permanent(Class::Policy, reason, "every page that shows it says so by now");
    Ok(reason.flatten().map(fault))
}

/// Where an image was found: by pages that show it, or, for another address of a picture, by those that show what offers it.
pub(super) fn shown_by(tx: &DbTransaction<'_>, image: i64) -> Result<Shown, TransactionError> {
    let columns =
        "SELECT min(p.url), min(CASE WHEN p.reason LIKE 'opt_out:%' THEN 1 ELSE 0 END), min(p.reason), min(p.detail)";
    let shows = "JOIN entries p ON p.id = s.page WHERE";
    let read = |sql: &str| {
        tx.one(sql, values![image], |row| {
            let reason = row.get::<Option<i64>>(1)?.filter(|all| *all == 1).and(row.get::<Option<String>>(2)?);
            let detail = row.get::<Option<String>>(3)?.unwrap_or_default();
            let opted_out = reason.map(|reason| Fault::permanent(Class::Policy, reason, detail));
            Ok(Shown { page: row.get(0)?, opted_out })
        })
    };
    let shown = read(&format!("{columns} FROM page_images s {shows} s.image = ?1"))?.unwrap_or_default();
    if shown.page.is_some() {
        return Ok(shown);
    }
    let offered =
        read(&format!("{columns} FROM offers o JOIN page_images s ON s.image = o.image {shows} o.alternate = ?1"))?;
    Ok(Shown { page: None, ..offered.unwrap_or_default() })
}
