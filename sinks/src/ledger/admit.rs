//! Discovery: start pages, and what a page that was read leads to.

use std::collections::HashSet;

use faceflow_core::ledger::{Event, State};
use faceflow_core::record::{Admitted, Image, Key, Page, Visit};

use super::books::{Books, Entry, Line, step};
use super::database::values;
use super::rows::{EntryKind, Trouble, join_keys};

impl Books<'_, '_> {
    pub fn admitted(&mut self, admitted: &Admitted) -> Result<Vec<Image>, Trouble> {
        let read = admitted.visit.as_ref().map(|visit| self.visited(visit, &admitted.images)).transpose()?;
        for page in &admitted.pages {
            self.admit_page(page, read)?;
        }
        let mut opened = Vec::new();
        for image in &admitted.images {
            let by = match read {
                Some(page) => Some(page),
                None => self.find(Key::page(&image.page))?.map(|page| page.id),
            };
            let entry = self.admit_image(image, by)?;
            self.sighted(&entry, by)?;
            let site = self.site(admitted.visit.as_ref().map_or(&image.site, |visit| &visit.page.site).as_str())?;
            let sql = "INSERT INTO shown (site, image) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            self.run(sql, values![site, entry.id])?;
            opened.extend(self.offered(image, by)?);
        }
        Ok(opened)
    }

    /// Settles the page that was read. Returns its id.
    fn visited(&mut self, visit: &Visit, admitted: &[Image]) -> Result<i64, Trouble> {
        let page = &visit.page;
        let entry = self.find(page.key())?;
        let next = step(entry.map(|entry| entry.state), Event::Settle, &page.url);
        let entry = match (entry, next) {
            // Since then it was reached on a shorter way, and that reading is still owed.
            (Some(entry), _) if entry.outdates(page) => return Ok(entry.id),
            (Some(entry), Ok(Some(_))) => entry,
            (Some(entry), Ok(None)) => return Ok(entry.id),
            (_, Err(trouble)) => return Err(trouble),
            (None, Ok(_)) => return Err(Trouble::Damaged(format!("{} was settled but is not there", page.url))),
        };
        self.refuse_held(entry.run, &page.url)?;
        let shown: HashSet<Key> = visit.images.iter().chain(admitted).map(Image::key).collect();
        let final_url = (visit.final_url != page.url).then(|| visit.final_url.as_str());
        let sql = "UPDATE entries SET state = 'settled', attempts = ?2, due_ms = NULL, reason = NULL, detail = NULL,
            final_url = ?3, http_status = ?4, links = ?5, images = ?6, skip = NULL WHERE id = ?1";
        let (links, images) = (visit.links.len() as i64, shown.len() as i64);
        self.run(sql, values![entry.id, page.attempts, final_url, visit.http_status, links, images])?;
        self.recount(EntryKind::Page, Some(entry.state), State::Settled);
        self.log(Line { kind: "visited", entry: Some(entry.id), ..Line::default() })?;
        Ok(entry.id)
    }

    fn admit_page(&mut self, page: &Page, by: Option<i64>) -> Result<(), Trouble> {
        let known = self.find(page.key())?;
        // A page reached on a shorter way is a discovery of its own: what is known of it deeper down does not count.
        let before = known.filter(|entry| !entry.is_deeper_than(page)).map(|entry| entry.state);
        let Some(State::Open) = step(before, Event::Admit, &page.url)? else { return Ok(()) };
        let site = self.site(page.site.as_str())?;
        let skip = join_keys(&page.skip);
        let id = match known {
            Some(entry) => {
                let sql =
                    "UPDATE entries SET state = 'open', depth = ?2, attempts = ?3, site = ?4, skip = ?5, due_ms = NULL,
                    reason = NULL, detail = NULL, final_url = NULL, http_status = NULL, links = NULL, images = NULL
                    WHERE id = ?1";
                self.run(sql, values![entry.id, page.depth, page.attempts, site, skip.as_deref()])?;
                entry.id
            }
            None => {
                let sql = "INSERT INTO entries (tenant, key, kind, state, depth, attempts, site, url, skip)
                    VALUES (?1, ?2, 'page', 'open', ?3, ?4, ?5, ?6, ?7)";
                let (key, url, skip) = (page.key(), page.url.as_str(), skip.as_deref());
                let id =
                    self.moment.insert(sql, values![self.tenant, key, page.depth, page.attempts, site, url, skip])?;
                self.run("UPDATE sites SET pages = pages + 1 WHERE id = ?1", values![site])?;
                id
            }
        };
        self.recount(EntryKind::Page, known.map(|entry| entry.state), State::Open);
        self.log(Line { kind: "admitted", entry: Some(id), other: by, ..Line::default() })
    }

    fn admit_image(&mut self, image: &Image, by: Option<i64>) -> Result<Entry, Trouble> {
        let known = self.find(image.key())?;
        let next = step(known.map(|entry| entry.state), Event::Admit, &image.url)?;
        let entry = match (known, next) {
            (Some(entry), None) => return Ok(entry),
            (Some(alternate), Some(_)) => {
                self.leave(&alternate)?;
                let sql =
                    "UPDATE entries SET state = 'open', attempts = ?2, inline = ?3, primary_entry = NULL, rank = NULL
                    WHERE id = ?1";
                self.run(sql, values![alternate.id, image.attempts, image.inline.as_deref()])?;
                Entry { state: State::Open, primary: None, ..alternate }
            }
            (None, _) => {
                let site = self.site(image.site.as_str())?;
                let sql = "INSERT INTO entries (tenant, key, kind, state, attempts, site, url, inline)
                    VALUES (?1, ?2, 'image', 'open', ?3, ?4, ?5, ?6)";
                let (key, url, inline) = (image.key(), image.url.as_str(), image.inline.as_deref());
                let id = self.moment.insert(sql, values![self.tenant, key, image.attempts, site, url, inline])?;
                self.tallies.discover(EntryKind::Image);
                Entry { id, key, state: State::Open, depth: None, picture: None, primary: None, run: None }
            }
        };
        self.tallies.count(EntryKind::Image, super::Status::Open, 1);
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
