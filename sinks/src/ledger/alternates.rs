//! Alternates: other addresses of a picture. They wait behind one image, and the best takes its place when it fails.
//!
//! An alternate never stands behind an image that has failed: whoever fails hands its followers on in the same fact.

use faceflow_core::ledger::{Event, State};
use faceflow_core::record::{Image, Key};
use url::Url;

use super::Status;
use super::books::{Books, Entry, Line, step};
use super::database::{Moment, values};
use super::rows::{EntryKind, Trouble, parse_url};

impl Books<'_, '_> {
    /// Another address of `image`, the `rank`-th best. Returns an image that has to be tried now, because `image` has
    /// failed before.
    pub fn offer(
        &mut self,
        image: &Image,
        (rank, url): (usize, &Url),
        by: Option<i64>,
    ) -> Result<Option<Image>, Trouble> {
        let (key, rank) = (Key::image(url), rank as i64);
        let Some(primary) = self.find(image.key())?.filter(|primary| primary.key != key) else { return Ok(None) };
        let front = self.front(primary)?;
        let known = self.find(key)?;
        step(known.map(|entry| entry.state), Event::Offer, url)?;
        let alternate = match known {
            None => self.new_alternate(image, (rank, url), &front)?,
            Some(entry) => entry,
        };
        self.sighted(&alternate, by)?;
        match known {
            Some(entry) if entry.state != State::Alternate || !self.prefers(&entry, &front, rank)? => return Ok(None),
            Some(entry) => {
                self.leave(&entry)?;
                self.stand(&entry, &front, rank)?;
            }
            None => {}
        }
        match front.state {
            State::Rejected | State::Dead => self.promote(front.id),
            _ => Ok(None),
        }
    }

    fn new_alternate(&mut self, image: &Image, (rank, url): (i64, &Url), front: &Entry) -> Result<Entry, Trouble> {
        let site = self.site(image.site.as_str())?;
        let sql = "INSERT INTO entries (tenant, key, kind, state, site, url, primary_entry, rank)
            VALUES (?1, ?2, 'image', 'alternate', ?3, ?4, ?5, ?6)";
        let key = Key::image(url);
        let id = self.moment.insert(sql, values![self.tenant, key, site, url.as_str(), front.id, rank])?;
        self.tallies.discover(EntryKind::Image);
        self.count_behind(front, 1)?;
        self.log(Line { kind: "offered", entry: Some(id), other: Some(front.id), ..Line::default() })?;
        Ok(Entry { id, key, state: State::Alternate, depth: None, picture: None, primary: Some(front.id), run: None })
    }

    /// Whoever stands for `image` now: itself, or what was opened when it failed.
    fn front(&self, image: Entry) -> Result<Entry, Trouble> {
        let mut front = image;
        while let (State::Rejected | State::Dead, Some(instead)) = (front.state, front.primary) {
            front = self.entry(instead)?;
        }
        Ok(front)
    }

    /// Whether an alternate should stand behind `front` rather than where it stands: the smallest key wins, so that it
    /// does not depend on who came first.
    fn prefers(&self, alternate: &Entry, front: &Entry, rank: i64) -> Result<bool, Trouble> {
        let Some(now) = alternate.primary.filter(|_| alternate.id != front.id) else { return Ok(false) };
        if now == front.id {
            let sql = "SELECT rank > ?2 FROM entries WHERE id = ?1";
            return Ok(self.moment.one(sql, values![alternate.id, rank], |row| row.get(0))?.unwrap_or(false));
        }
        Ok(front.key < self.entry(now)?.key)
    }

    /// An alternate leaves its place.
    pub fn leave(&mut self, alternate: &Entry) -> Result<(), Trouble> {
        let Some(primary) = alternate.primary else { return Ok(()) };
        let primary = self.entry(primary)?;
        self.count_behind(&primary, -1)
    }

    fn stand(&mut self, alternate: &Entry, front: &Entry, rank: i64) -> Result<(), Trouble> {
        let sql = "UPDATE entries SET primary_entry = ?2, rank = ?3 WHERE id = ?1";
        self.run(sql, values![alternate.id, front.id, rank])?;
        self.count_behind(front, 1)
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

    /// Opens the best alternate of an image that failed; the others go on behind that one.
    pub fn promote(&mut self, failed: i64) -> Result<Option<Image>, Trouble> {
        let sql = "SELECT e.id, e.url, s.url FROM entries e JOIN sites s ON s.id = e.site
            WHERE e.primary_entry = ?1 AND e.state = 'alternate' ORDER BY e.rank, e.url LIMIT 1";
        let best = self
            .moment
            .one(sql, values![failed], |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?, row.get::<String>(2)?)))?;
        let Some((best, url, site)) = best else { return Ok(None) };
        step(Some(State::Alternate), Event::Redrive, &url)?;
        self.run("UPDATE entries SET state = 'open', primary_entry = NULL, rank = NULL WHERE id = ?1", values![best])?;
        let sql = "UPDATE entries SET primary_entry = ?2 WHERE id = ?1 OR (primary_entry = ?1 AND state = 'alternate')";
        self.run(sql, values![failed, best])?;
        self.log(Line { kind: "opened", entry: Some(best), other: Some(failed), ..Line::default() })?;
        let page = first_page(self.moment, best)?;
        let (url, site) = (parse_url(&url)?, parse_url(&site)?);
        let page = page.map(|page| parse_url(&page)).transpose()?.unwrap_or_else(|| site.clone());
        Ok(Some(Image { url, page, site, attempts: 0, inline: None, alternates: vec![] }))
    }
}

/// The smallest URL of the pages that show an image.
pub(super) fn first_page(moment: &Moment<'_>, image: i64) -> Result<Option<String>, Trouble> {
    let sql = "SELECT min(p.url) FROM sightings s JOIN entries p ON p.id = s.page WHERE s.image = ?1";
    Ok(moment.one(sql, values![image], |row| row.get(0))?.flatten())
}
