//! Discovery: start pages, and what a page that was read leads to.
//!
//! Pages of a site have turns, in the order in which they were admitted. What a page leads to is taken up when every page with
//! an earlier turn has been tried; one that was read before its turn waits in a table of its own. So budgets cut what a
//! sequential breadth-first search would cut. A page that failed gives up its turn: nobody waits for a retry.

use std::collections::HashSet;

use faceflow_core::record::{Bounds, DETECTION_QUEUE, Discovery, Image, Key, Page, QueueId, Visit, queue_of};
use faceflow_core::transition::{Event, State};

use super::books::{Books, Entry, Line, step, try_step};
use super::database::values;
use super::rows::{EntryKind, Trouble, join_keys};

/// A page that was read: its row and site, and its turn if it still had one.
struct Read {
    page: i64,
    site: i64,
    turn: Option<i64>,
}

/// How many images of a site count towards its budget: those that did, and those that do from now on.
#[derive(Default)]
struct Budget {
    site: Option<i64>,
    used: u64,
    new: u64,
}

impl Books<'_, '_> {
    pub fn admitted(&mut self, admitted: &Discovery) -> Result<(), Trouble> {
        for site in &admitted.removed {
            self.remove_site(*site)?;
        }
        let Some(visit) = &admitted.visit else {
            self.take_up(admitted, None)?;
            return self.pass_turns();
        };
        let read = self.visited(visit, admitted)?;
        let early = match read.turn {
            Some(turn) => self.first_turn(read.site)?.filter(|first| *first < turn).map(|_| turn),
            None => None,
        };
        match early {
            Some(turn) => self.wait_for_turn(admitted, &read, turn)?,
            None => self.take_up(admitted, Some((read.page, read.site)))?,
        }
        if read.turn.is_some() {
            self.freed.push(read.site);
        }
        self.pass_turns()
    }

    /// Takes up what was found, by the page and site `by` or by a source.
    fn take_up(&mut self, found: &Discovery, by: Option<(i64, i64)>) -> Result<(), Trouble> {
        if let Some((_, site)) = by
            && self.is_removed(site)?
        {
            return Ok(());
        }
        for page in &found.pages {
            self.admit_page(page, by.map(|(page, _)| page), found.bounds)?;
            if let Some(list) = &found.list {
                let site = self.site(page.site.as_str())?;
                let sql = "UPDATE sites SET list = ?2 WHERE id = ?1 AND list IS DISTINCT FROM ?2";
                self.run(sql, values![site, list.as_str()])?;
            }
        }
        let mut budget = Budget::default();
        for image in &found.images {
            let newer = self.newer(image)?;
            let image = newer.as_ref().unwrap_or(image);
            let (page, site) = match by {
                Some((page, site)) => (Some(page), site),
                None => (self.find(Key::page(&image.page))?.map(|page| page.id), self.site(image.site.as_str())?),
            };
            let known = self.find(image.key())?;
            if !self.is_sighted(known, page)? {
                let Some(new) = self.count_image(&mut budget, site, known, found.bounds.images_max)? else { continue };
                let entry = self.admit_image(image, known, page)?;
                if new {
                    self.run("INSERT INTO shown (site, image) VALUES (?1, ?2)", values![site, entry.id])?;
                }
                self.sighted(&entry, page)?;
            }
            self.offered(image, page)?;
        }
        self.spend(&budget)
    }

    /// A file that is not what it was when it was discovered, as an image of its own: its version is part of its address.
    fn newer(&self, image: &Image) -> Result<Option<Image>, Trouble> {
        let Some(version) = &image.version else { return Ok(None) };
        let sql = "SELECT version FROM entries WHERE tenant = ?1 AND key = ?2";
        match self.moment.one(sql, values![self.tenant, image.key()], |row| row.get::<Option<String>>(0))? {
            None => return Ok(None),
            Some(None) => {
                // It was discovered before versions were noted.
                let sql = "UPDATE entries SET version = ?3 WHERE tenant = ?1 AND key = ?2";
                self.run(sql, values![self.tenant, image.key(), version.as_str()])?;
                return Ok(None);
            }
            Some(Some(known)) if known == *version => return Ok(None),
            Some(Some(_)) => {}
        }
        let mut newer = image.clone();
        newer.url.set_fragment(Some(version));
        Ok(Some(newer))
    }

    /// Whether a page was seen before to show an image that was taken up: then nothing is new about it.
    fn is_sighted(&self, known: Option<Entry>, page: Option<i64>) -> Result<bool, Trouble> {
        let (Some(image), Some(page)) = (known.filter(|entry| entry.state != State::Alternate), page) else {
            return Ok(false);
        };
        let sql = "SELECT 1 FROM sightings WHERE image = ?1 AND page = ?2";
        Ok(self.moment.one(sql, values![image.id, page], |_| Ok(()))?.is_some())
    }

    /// Whether an image counts towards its site's budget from now on, or did before; `None` if it is beyond it.
    fn count_image(
        &mut self,
        budget: &mut Budget,
        site: i64,
        known: Option<Entry>,
        max: u64,
    ) -> Result<Option<bool>, Trouble> {
        if let Some(image) = known {
            let sql = "SELECT 1 FROM shown WHERE site = ?1 AND image = ?2";
            if self.moment.one(sql, values![site, image.id], |_| Ok(()))?.is_some() {
                return Ok(Some(false));
            }
        }
        if budget.site != Some(site) {
            self.spend(budget)?;
            let used = "SELECT images FROM sites WHERE id = ?1";
            let used = self.moment.one(used, values![site], |row| row.get::<i64>(0))?;
            *budget = Budget { site: Some(site), used: used.unwrap_or(0) as u64, new: 0 };
        }
        if budget.used + budget.new >= max {
            return Ok(None);
        }
        budget.new += 1;
        Ok(Some(true))
    }

    /// Notes what was used of a budget.
    fn spend(&mut self, budget: &Budget) -> Result<(), Trouble> {
        match budget.site.filter(|_| budget.new > 0) {
            Some(site) => {
                self.run("UPDATE sites SET images = images + ?2 WHERE id = ?1", values![site, budget.new as i64])
            }
            None => Ok(()),
        }
    }

    /// The earliest turn of a site.
    fn first_turn(&self, site: i64) -> Result<Option<i64>, Trouble> {
        let sql = "SELECT min(turn) FROM entries WHERE site = ?1 AND turn IS NOT NULL";
        Ok(self.moment.one(sql, values![site], |row| row.get(0))?.flatten())
    }

    /// Keeps what a page leads to until its turn.
    fn wait_for_turn(&mut self, found: &Discovery, read: &Read, turn: i64) -> Result<(), Trouble> {
        let found = Discovery { visit: None, ..found.clone() };
        let body = serde_json::to_string(&found)
            .map_err(|error| Trouble::Damaged(format!("what page {} leads to: {error}", read.page)))?;
        let sql = "INSERT INTO early (site, turn, page, body) VALUES (?1, ?2, ?3, ?4)";
        self.run(sql, values![read.site, turn, read.page, &body])
    }

    /// After turns have become free: takes up what whose turn it now is leads to.
    pub fn pass_turns(&mut self) -> Result<(), Trouble> {
        while let Some(site) = self.freed.pop() {
            while let Some((turn, page, body)) = self.next_turn(site)? {
                let found = serde_json::from_str(&body)
                    .map_err(|error| Trouble::Damaged(format!("what page {page} leads to: {error}")))?;
                self.run("DELETE FROM early WHERE site = ?1 AND turn = ?2", values![site, turn])?;
                self.take_up(&found, Some((page, site)))?;
            }
        }
        Ok(())
    }

    /// The page that was read before its turn, if the turn has come: its turn, its row, and what it leads to.
    fn next_turn(&self, site: i64) -> Result<Option<(i64, i64, String)>, Trouble> {
        let first = self.first_turn(site)?.unwrap_or(i64::MAX);
        let sql = "SELECT turn, page, body FROM early WHERE site = ?1 AND turn < ?2 ORDER BY turn LIMIT 1";
        self.moment.one(sql, values![site, first], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
    }

    /// Settles the page that was read.
    fn visited(&mut self, visit: &Visit, found: &Discovery) -> Result<Read, Trouble> {
        let page = &visit.page;
        let entry = self.find(page.key())?;
        let next = try_step(entry, Event::Settle, &page.url);
        let (entry, next) = match (entry, next) {
            (_, Err(trouble)) => return Err(trouble),
            (None, Ok(_)) => return Err(Trouble::Damaged(format!("{} was settled but is not there", page.url))),
            (Some(entry), Ok(next)) => (entry, next),
        };
        if next.is_none() {
            self.look_again(&entry, visit, found)?;
            return Ok(Read { page: entry.id, site: entry.site, turn: None });
        }
        if entry.outdates(page) {
            // Since then it was reached on a shorter way, and that reading is still owed.
            self.open(entry.lane, 0, false);
            return Ok(Read { page: entry.id, site: self.site(page.site.as_str())?, turn: None });
        }
        self.refuse_held(entry.run, &page.url)?;
        let shown: HashSet<Key> = found.images.iter().map(Image::key).collect();
        let final_url = (visit.final_url != page.url).then(|| visit.final_url.as_str());
        let sql = "UPDATE entries SET state = 'settled', attempts = ?2, due_ms = NULL, reason = NULL, detail = NULL,
            final_url = ?3, http_status = ?4, links = ?5, images = ?6, turn = NULL, revive_ms = NULL WHERE id = ?1";
        let (links, images) = (visit.links.len() as i64, shown.len() as i64);
        self.run(sql, values![entry.id, page.attempts, final_url, visit.http_status, links, images])?;
        self.recount(EntryKind::Page, Some(entry.state), State::Settled);
        self.log(Line { kind: "visited", entry: Some(entry.id), ..Line::default() })?;
        self.due_again(&entry, found)?;
        Ok(Read { page: entry.id, site: entry.site, turn: entry.turn })
    }

    /// Notes another visit to a page that is settled.
    fn look_again(&mut self, entry: &Entry, visit: &Visit, found: &Discovery) -> Result<(), Trouble> {
        if !visit.is_unchanged() {
            let shown: HashSet<Key> = found.images.iter().map(Image::key).collect();
            let final_url = (visit.final_url != visit.page.url).then(|| visit.final_url.as_str());
            let sql = "UPDATE entries SET final_url = ?2, http_status = ?3, links = ?4, images = ?5 WHERE id = ?1";
            let (links, images) = (visit.links.len() as i64, shown.len() as i64);
            self.run(sql, values![entry.id, final_url, visit.http_status, links, images])?;
            self.log(Line { kind: "visited", entry: Some(entry.id), ..Line::default() })?;
        }
        self.due_again(entry, found)
    }

    /// Notes what a page was, and when it is due again, unless its site is no longer wanted.
    fn due_again(&mut self, entry: &Entry, found: &Discovery) -> Result<(), Trouble> {
        let Some((reading, due)) = &found.again else { return Ok(()) };
        let reading = serde_json::to_string(reading)
            .map_err(|error| Trouble::Damaged(format!("the reading of page {}: {error}", entry.id)))?;
        let sql = "UPDATE entries SET reading = ?2, again_ms = CASE (SELECT removed FROM sites WHERE id = ?3) WHEN FALSE THEN CAST(?4 AS BIGINT) END
            WHERE id = ?1";
        self.run(sql, values![entry.id, &reading, entry.site, *due as i64])?;
        self.open(entry.lane, *due, true);
        Ok(())
    }

    fn is_removed(&self, site: i64) -> Result<bool, Trouble> {
        let removed = self.moment.one("SELECT removed FROM sites WHERE id = ?1", values![site], |row| row.get(0))?;
        Ok(removed.unwrap_or(false))
    }

    /// A site is no longer wanted: its pages are not looked at again, and lead to nothing.
    fn remove_site(&mut self, page: Key) -> Result<(), Trouble> {
        let sql = "SELECT s.id FROM entries e JOIN sites s ON s.url = e.url AND s.tenant = e.tenant WHERE e.tenant = ?1 AND e.key = ?2";
        let Some(site) = self.moment.one(sql, values![self.tenant, page], |row| row.get::<i64>(0))? else {
            return Ok(());
        };
        self.run("UPDATE sites SET removed = TRUE, list = NULL WHERE id = ?1", values![site])?;
        // What ended badly may be under way; claims pass over it.
        let sql = "UPDATE entries SET again_ms = NULL WHERE site = ?1 AND kind = 'page' AND again_ms IS NOT NULL";
        self.run(sql, values![site])
    }

    /// A site is on a list again: its pages are looked at again, now, those that failed too.
    fn restore_site(&mut self, site: i64) -> Result<(), Trouble> {
        if self.moment.change("UPDATE sites SET removed = FALSE WHERE id = ?1 AND removed", values![site])? == 0 {
            return Ok(());
        }
        let lanes =
            "SELECT lane FROM entries WHERE site = ?1 AND kind = 'page' AND state IN ('settled', 'rejected', 'dead')
            UNION SELECT lane FROM entries WHERE site = ?1 AND revive_ms IS NOT NULL";
        self.open(DETECTION_QUEUE, 0, true);
        for lane in self.moment.list(lanes, values![site], |row| row.get::<i64>(0))? {
            self.open(lane as QueueId, 0, true);
        }
        let sql = "UPDATE entries SET again_ms = CASE state WHEN 'settled' THEN 0 END,
            revive_ms = CASE state WHEN 'settled' THEN NULL ELSE 0 END
            WHERE site = ?1 AND kind = 'page' AND state IN ('settled', 'rejected', 'dead')";
        self.run(sql, values![site])
    }

    fn admit_page(&mut self, page: &Page, by: Option<i64>, bounds: Bounds) -> Result<(), Trouble> {
        let known = self.find(page.key())?;
        // A page reached on a shorter way is a discovery of its own: what is known of it deeper down does not count.
        let again = known.filter(|entry| bounds.shorter_ways && entry.is_deeper_than(page));
        let before = if again.is_some() { None } else { known.map(|entry| entry.state) };
        if page.depth == 0 && by.is_none() {
            let site = self.site(page.site.as_str())?;
            self.restore_site(site)?;
        }
        let Some(State::Open) = step(before, Event::Admit, &page.url)? else { return Ok(()) };
        let site = self.site(page.site.as_str())?;
        let used = "SELECT pages, turns FROM sites WHERE id = ?1";
        let used = self.moment.one(used, values![site], |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)))?;
        let Some((pages, turn)) = used else { return Err(Trouble::Damaged(format!("site {site} is not there"))) };
        if known.is_none() && pages as u64 >= bounds.pages_max {
            return Ok(());
        }
        let (lane, skip) = (queue_of(&page.url), join_keys(&page.skip));
        let skip = skip.as_deref();
        let id = match known {
            Some(entry) => {
                let sql =
                    "UPDATE entries SET state = 'open', depth = ?2, attempts = ?3, spared = 0, site = ?4, skip = ?5,
                    due_ms = NULL, reason = NULL, detail = NULL, final_url = NULL, http_status = NULL, links = NULL, images = NULL,
                    turn = ?6, again_ms = NULL, revive_ms = NULL WHERE id = ?1";
                self.run(sql, values![entry.id, page.depth, page.attempts, site, skip, turn])?;
                self.freed.extend(entry.turn.map(|_| entry.site));
                entry.id
            }
            None => {
                let sql = "INSERT INTO entries (tenant, key, kind, state, depth, attempts, site, url, skip, lane, turn)
                    VALUES (?1, ?2, 'page', 'open', ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
                let (key, url, lane) = (page.key(), page.url.as_str(), lane as i64);
                let values = values![self.tenant, key, page.depth, page.attempts, site, url, skip, lane, turn];
                self.moment.insert(sql, values)?
            }
        };
        let sql = "UPDATE sites SET pages = pages + ?2, turns = turns + 1 WHERE id = ?1";
        self.run(sql, values![site, i64::from(known.is_none())])?;
        self.open(known.map_or(lane, |entry| entry.lane), 0, false);
        self.recount(EntryKind::Page, known.map(|entry| entry.state), State::Open);
        self.log(Line { kind: "admitted", entry: Some(id), other: by, ..Line::default() })
    }

    fn admit_image(&mut self, image: &Image, known: Option<Entry>, by: Option<i64>) -> Result<Entry, Trouble> {
        let next = step(known.map(|entry| entry.state), Event::Admit, &image.url)?;
        let entry = match (known, next) {
            (Some(entry), None) => return Ok(entry),
            (Some(alternate), Some(_)) => {
                self.leave(&alternate)?;
                let sql = "UPDATE entries SET state = 'open', attempts = ?2, spared = 0, inline = ?3,
                    primary_entry = NULL, rank = NULL WHERE id = ?1";
                self.run(sql, values![alternate.id, image.attempts, image.inline.as_deref()])?;
                Entry { state: State::Open, primary: None, ..alternate }
            }
            (None, _) => {
                let (site, lane) = (self.site(image.site.as_str())?, queue_of(&image.url));
                let sql = "INSERT INTO entries (tenant, key, kind, state, attempts, site, url, inline, lane, version)
                    VALUES (?1, ?2, 'image', 'open', ?3, ?4, ?5, ?6, ?7, ?8)";
                let (key, url, inline) = (image.key(), image.url.as_str(), image.inline.as_deref());
                let (attempts, version) = (image.attempts, image.version.as_deref());
                let values = values![self.tenant, key, attempts, site, url, inline, lane as i64, version];
                let id = self.moment.insert(sql, values)?;
                self.tallies.discover(EntryKind::Image);
                Entry { id, ..Entry::new(key, State::Open, (site, lane)) }
            }
        };
        self.tallies.count(EntryKind::Image, super::Status::Open, 1);
        self.open(entry.lane, 0, false);
        self.log(Line { kind: "admitted", entry: Some(entry.id), other: by, ..Line::default() })?;
        Ok(entry)
    }

    /// Notes that the page `by` shows an image.
    pub fn sighted(&mut self, image: &Entry, by: Option<i64>) -> Result<(), Trouble> {
        let Some(page) = by else { return Ok(()) };
        let sql = "INSERT INTO sightings (image, page) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        let Some(_) = image.picture else { return self.run(sql, values![image.id, page]) };
        let new = self.moment.change(sql, values![image.id, page])? == 1;
        if new {
            // What was written about the picture has to say so; earlier sightings are known when it is kept.
            self.log(Line { kind: "sighted", entry: Some(image.id), picture: image.picture, other: by, body: None })?;
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
