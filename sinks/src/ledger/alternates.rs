//! Alternates: other addresses of a picture. They wait behind the image that offers them, and when it fails they are tried one
//! after the other, the best first, until one stands.
//!
//! An address may be offered by several images, and is tried as soon as it is the turn of one of them. Promise: which
//! addresses are tried, and whom the others stand behind, depends on the offers and on what fails, not on the order of events;
//! and no alternate ever stands behind an image that has failed.

use faceflow_core::record::{Image, Key, queue_of};
use faceflow_core::transition::{Event, State};
use url::Url;

use super::Status;
use super::books::{Books, Entry, Line, step};
use super::database::{Moment, values};
use super::rows::{EntryKind, Trouble, Word};

impl Books<'_, '_> {
    /// Takes in the other addresses of `image`, which `by` shows. If `image` has failed before, the next one is opened.
    pub fn offered(&mut self, image: &Image, by: Option<i64>) -> Result<(), Trouble> {
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
    ) -> Result<(), Trouble> {
        let known = self.find(Key::image(url))?;
        step(known.map(|entry| entry.state), Event::Offer, url)?;
        let alternate = match known {
            Some(entry) => entry,
            None => self.new_alternate(image, (rank, url), primary)?,
        };
        let sql = "INSERT INTO offers (image, alternate, rank) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        self.run(sql, values![primary.id, alternate.id, rank])?;
        let sql = "UPDATE offers SET rank = ?3 WHERE image = ?1 AND alternate = ?2 AND rank > ?3";
        self.run(sql, values![primary.id, alternate.id, rank])?;
        self.sighted(&alternate, by)?;
        self.restand(&alternate)
    }

    fn new_alternate(&mut self, image: &Image, (rank, url): (i64, &Url), primary: &Entry) -> Result<Entry, Trouble> {
        let site = self.site(image.site.as_str())?;
        let sql = "INSERT INTO entries (tenant, key, kind, state, site, url, primary_entry, rank, lane)
            VALUES (?1, ?2, 'image', 'alternate', ?3, ?4, ?5, ?6, ?7)";
        let (key, lane) = (Key::image(url), queue_of(url));
        let values = values![self.tenant, key, site, url.as_str(), primary.id, rank, lane as i64];
        let id = self.moment.insert(sql, values)?;
        self.tallies.discover(EntryKind::Image);
        self.count_behind(primary, 1)?;
        self.log(Line { kind: "offered", entry: Some(id), other: Some(primary.id), ..Line::default() })?;
        Ok(Entry { id, primary: Some(primary.id), ..Entry::new(key, State::Alternate, (site, lane)) })
    }

    /// Puts an alternate where it belongs: behind the image with the smallest key that offers it, or, if that has failed,
    /// behind whatever stands for it.
    fn restand(&mut self, alternate: &Entry) -> Result<(), Trouble> {
        if alternate.state != State::Alternate {
            return Ok(());
        }
        let sql = "SELECT o.image, o.rank FROM offers o JOIN entries e ON e.id = o.image WHERE o.alternate = ?1
            ORDER BY e.key LIMIT 1";
        let offer = self.moment.one(sql, values![alternate.id], |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)))?;
        let Some((image, rank)) = offer else { return Ok(()) };
        let image = self.entry(image)?;
        let front = match image.state {
            State::Rejected | State::Dead => self.standing(image.id)?.unwrap_or(image),
            _ => image,
        };
        if alternate.primary != Some(front.id) {
            self.leave(alternate)?;
            self.count_behind(&front, 1)?;
        }
        let sql = "UPDATE entries SET primary_entry = ?2, rank = ?3 WHERE id = ?1";
        self.run(sql, values![alternate.id, front.id, rank])
    }

    /// What stands for an image that has failed: the best of its alternates that is open or settled.
    fn standing(&self, failed: i64) -> Result<Option<Entry>, Trouble> {
        let alternates = self.alternates_of(failed)?;
        let standing = alternates.into_iter().find(|(_, state)| matches!(state, State::Open | State::Settled));
        standing.map(|(id, _)| self.entry(id)).transpose()
    }

    /// The alternates that an image offers, the best first.
    fn alternates_of(&self, image: i64) -> Result<Vec<(i64, State)>, Trouble> {
        let sql = "SELECT e.id, e.state FROM offers o JOIN entries e ON e.id = o.alternate WHERE o.image = ?1
            ORDER BY o.rank, e.key";
        self.moment.list(sql, values![image], |row| Ok((row.get::<i64>(0)?, row.get::<Word>(1)?.0)))
    }

    /// An alternate leaves its place.
    pub fn leave(&mut self, alternate: &Entry) -> Result<(), Trouble> {
        let Some(primary) = alternate.primary else { return Ok(()) };
        let primary = self.entry(primary)?;
        self.count_behind(&primary, -1)
    }

    /// One alternate more or fewer stands behind `front`.
    fn count_behind(&mut self, front: &Entry, change: i64) -> Result<(), Trouble> {
        let Some(picture) = front.picture else {
            self.tallies.count(EntryKind::Image, Status::Open, change);
            return Ok(());
        };
        let sql = "UPDATE pictures SET behind = behind + ?2 WHERE id = ?1";
        self.change_picture(picture, |books| books.run(sql, values![picture, change]))
    }

    /// How many alternates stand behind an entry.
    pub fn behind(&self, entry: i64) -> Result<i64, Trouble> {
        let sql = "SELECT count(*) FROM entries WHERE primary_entry = ?1 AND state = 'alternate'";
        Ok(self.moment.one(sql, values![entry], |row| row.get(0))?.unwrap_or(0))
    }

    /// After an image has failed: the next alternate of everyone who relied on it is opened, and those that stood behind it
    /// find another place.
    pub fn hand_on(&mut self, failed: &Entry) -> Result<(), Trouble> {
        let sql = "SELECT image FROM offers WHERE alternate = ?1 ORDER BY image";
        let mut relying = self.moment.list(sql, values![failed.id], |row| row.get::<i64>(0))?;
        relying.insert(0, failed.id);
        for image in relying {
            if matches!(self.entry(image)?.state, State::Rejected | State::Dead) {
                self.advance(image)?;
            }
        }
        let sql = "SELECT id FROM entries WHERE primary_entry = ?1 AND state = 'alternate' ORDER BY id";
        for alternate in self.moment.list(sql, values![failed.id], |row| row.get::<i64>(0))? {
            let alternate = self.entry(alternate)?;
            self.restand(&alternate)?;
        }
        Ok(())
    }

    /// Opens the best alternate of a failed image that has not failed itself, unless it stands already.
    fn advance(&mut self, failed: i64) -> Result<(), Trouble> {
        let alternates = self.alternates_of(failed)?;
        let next = alternates.into_iter().find(|(_, state)| !matches!(state, State::Rejected | State::Dead));
        let Some((next, State::Alternate)) = next else { return Ok(()) };
        let entry = self.entry(next)?;
        step(Some(State::Alternate), Event::Redrive, format!("entry {next}"))?;
        self.leave(&entry)?;
        self.run("UPDATE entries SET state = 'open', primary_entry = NULL, rank = NULL WHERE id = ?1", values![next])?;
        self.open(entry.lane, 0, false);
        self.tallies.count(EntryKind::Image, Status::Open, 1);
        self.log(Line { kind: "opened", entry: Some(next), other: Some(failed), ..Line::default() })
    }
}

/// The smallest URL of the pages that show an image.
pub(super) fn first_page(moment: &Moment<'_>, image: i64) -> Result<Option<String>, Trouble> {
    let sql = "SELECT min(p.url) FROM sightings s JOIN entries p ON p.id = s.page WHERE s.image = ?1";
    Ok(moment.one(sql, values![image], |row| row.get(0))?.flatten())
}
