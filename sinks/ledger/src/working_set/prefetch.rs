//! What a group of facts may touch, read from a server in three steps, each one way there and back, however many facts there are.
//!
//! Nothing depends on it: what is missing here is read when it is asked for.

use std::collections::{BTreeSet, HashMap};

use faceflow_core::fact::Fact;
use faceflow_core::record::{ContentId, Discovery, Disposition, JobId, Key, Work, queue_of};
use url::Url;

use super::WorkingSet;
use super::load::{Keys, Lookup};
use crate::database::DbTransaction;
use crate::error::TransactionError;

/// What facts name.
#[derive(Default)]
pub(crate) struct Wanted {
    entries: BTreeSet<Key>,
    contents: BTreeSet<ContentId>,
    sites: HashMap<Key, String>,
    /// Images with the page and the site that show them.
    shown: Vec<(Key, Key, Option<Key>)>,
    /// Images that offer others, and those.
    offering: Vec<Key>,
    offered: Vec<Key>,
    /// Images that end: others that offer the same picture are concerned.
    ended: Vec<Key>,
    /// Images whose bytes are stored: those that stand behind them are concerned, and the main image of their picture.
    stored: Vec<Key>,
    kept: BTreeSet<ContentId>,
    /// Pages that give up their place in the order of their site.
    tried: Vec<Key>,
    /// Hosts that were asked, by the number of a job and their queue.
    hosts: BTreeSet<(u32, u64)>,
}

impl Wanted {
    /// What a fact names.
    pub fn add(&mut self, fact: &Fact) {
        match fact {
            Fact::Discovered(found) => {
                let page = found.visit.as_ref().map(|visit| visit.page.key());
                self.entries.extend(page);
                self.tried.extend(page);
                self.hosts.extend(found.visit.as_ref().map(|visit| host(visit.page.job, &visit.page.url)));
                self.add_found(found, page);
            }
            Fact::Failed(disposition) => self.add_failed(disposition),
            Fact::Stored(kept) => {
                let key = kept.image.key();
                self.entries.insert(key);
                self.stored.push(key);
                self.hosts.insert(host(kept.image.job, &kept.image.url));
                self.contents.insert(kept.frame.content.id);
                self.kept.insert(kept.frame.content.id);
            }
            Fact::Copied(copied) => {
                let key = copied.image.key();
                self.entries.insert(key);
                self.stored.push(key);
                self.hosts.insert(host(copied.image.job, &copied.image.url));
                self.contents.insert(copied.content);
                self.kept.insert(copied.content);
            }
            Fact::Detected(delivered) => {
                self.contents.insert(delivered.detection.picture());
            }
            Fact::Assigned(assigned) => {
                let ruling = &assigned.assignment;
                self.contents.extend([ruling.picture, ruling.representative]);
            }
        }
    }

    fn add_failed(&mut self, disposition: &Disposition) {
        let key = disposition.work().key();
        match disposition.work() {
            Work::Frame(frame) => {
                self.contents.insert(frame.content.id);
                return;
            }
            Work::Page(page) => {
                self.tried.push(key);
                self.hosts.insert(host(page.job, &page.url));
            }
            Work::Image(image) => {
                self.ended.push(key);
                self.hosts.insert(host(image.job, &image.url));
            }
        }
        self.entries.insert(key);
    }

    /// What was found names, by the page `by` or by a source.
    pub fn add_found(&mut self, found: &Discovery, by: Option<Key>) {
        for page in &found.pages {
            self.entries.insert(page.key());
            self.sites.entry(Key::page(&page.site)).or_insert_with(|| page.site.to_string());
        }
        for image in &found.images {
            let key = image.key();
            self.entries.insert(key);
            let page = by.unwrap_or_else(|| Key::page(&image.page));
            self.entries.insert(page);
            let site = Key::page(&image.site);
            self.sites.entry(site).or_insert_with(|| image.site.to_string());
            self.shown.push((key, page, by.is_none().then_some(site)));
            if !image.alternates.is_empty() {
                self.offering.push(key);
            }
            for alternate in &image.alternates {
                let alternate = Key::image(alternate);
                self.entries.insert(alternate);
                self.offered.push(alternate);
                self.shown.push((alternate, page, None));
            }
        }
    }
}

/// The host that is asked for a URL, for a job.
fn host(job: JobId, url: &Url) -> (u32, u64) {
    (job.number, queue_of(url))
}

impl WorkingSet<'_, '_> {
    /// Reads what these name and what that leads to. Only a server is far away.
    pub fn prefetch(&mut self, wanted: &Wanted) -> Result<(), TransactionError> {
        if matches!(self.tx, DbTransaction::Sqlite(_)) {
            return Ok(());
        }
        self.fetch_named(wanted)?;
        self.fetch_relations(wanted)?;
        self.fetch_related(wanted)
    }

    fn fetch_named(&mut self, wanted: &Wanted) -> Result<(), TransactionError> {
        let keys: Vec<Key> = wanted.entries.iter().copied().filter(|key| !self.entry_keys.knows(*key)).collect();
        let contents: Vec<&ContentId> = wanted.contents.iter().filter(|id| !self.contents.knows(**id)).collect();
        let sites = wanted.sites.iter().filter(|(key, _)| !self.site_keys.knows(**key));
        let sites: Vec<(Key, &str)> = sites.map(|(key, url)| (*key, url.as_str())).collect();
        let hosts = wanted.hosts.iter().map(|(job, queue)| (self.tenant, i64::from(*job), *queue as i64));
        let hosts = self.unknown_hosts(hosts);
        let asked = [
            Keys::new(Lookup::EntriesByKey, keys.iter().copied()),
            Keys::new(Lookup::PicturesByContent, contents.iter().copied()),
            self.site_lookup(&sites),
            Self::host_lookup(&hosts),
        ];
        self.read(&asked)?;
        keys.into_iter().for_each(|key| self.entry_keys.loaded(key, None));
        contents.into_iter().for_each(|id| self.contents.loaded(*id, None));
        sites.into_iter().for_each(|(key, _)| self.site_keys.loaded(key, None));
        hosts.into_iter().for_each(|key| self.hosts.loaded(key, None));
        Ok(())
    }

    fn ids(&self, keys: &[Key]) -> Vec<i64> {
        keys.iter().filter_map(|key| self.entry_keys.get(*key).copied()).collect()
    }

    fn fetch_relations(&mut self, wanted: &Wanted) -> Result<(), TransactionError> {
        let id = |key: Key| self.entry_keys.get(key).copied();
        let site_of = |page: i64| self.entries.get(page).map(|row| row.site);
        let (mut page_images, mut shown) = (Vec::new(), Vec::new());
        for (image, page, site) in &wanted.shown {
            let Some(image) = id(*image) else { continue };
            let page = id(*page);
            page_images.extend(page.map(|page| (image, page)));
            let site = match site {
                Some(site) => self.site_keys.get(*site).copied(),
                None => page.and_then(site_of),
            };
            shown.extend(site.map(|site| (site, image)));
        }
        let (page_images, shown) = (self.unknown_page_images(&page_images), self.unknown_site_images(&shown));
        let (mut of, mut to) = (self.ids(&wanted.offering), self.ids(&wanted.offered));
        let mut behind = self.ids(&wanted.ended);
        of.extend(&behind);
        to.extend(&behind);
        behind.extend(self.ids(&wanted.stored));
        let (of, to, behind) = (self.unknown_offers_of(&of), self.unknown_offers_to(&to), self.unknown_behind(&behind));
        let sites: BTreeSet<i64> = self.ids(&wanted.tried).into_iter().filter_map(site_of).collect();
        let unread = |id: &&i64| !self.sequences.borrow().knows(**id) && !self.waiting.borrow().knows(**id);
        let ordered: Vec<i64> = sites.iter().filter(unread).copied().collect();
        let sites: Vec<i64> = sites.into_iter().filter(|id| !self.sites.knows(*id)).collect();
        let (entries, pictures) = self.named_by(&wanted.entries, &wanted.kept);
        self.read(&[
            Keys::pairs(Lookup::PageImages, page_images.iter().copied()),
            Keys::pairs(Lookup::SiteImage, shown.iter().copied()),
            Keys::new(Lookup::OffersOf, of.iter().copied()),
            Keys::new(Lookup::OffersTo, to.iter().copied()),
            Keys::new(Lookup::Behind, behind.iter().copied()),
            Keys::new(Lookup::SitesById, sites),
            Keys::new(Lookup::Sequences, ordered.iter().copied()),
            Keys::new(Lookup::Waiting, ordered.iter().copied()),
            Keys::new(Lookup::EntriesById, entries),
            Keys::new(Lookup::PicturesById, pictures),
        ])?;
        page_images.into_iter().for_each(|pair| self.page_images.loaded(pair, None));
        shown.into_iter().for_each(|pair| self.site_images.loaded(pair, None));
        self.offered_by_known.extend(of);
        self.offering_known.extend(to);
        self.behind_known.extend(behind);
        for site in ordered {
            let first = self.first_sequences.remove(&site).unwrap_or_default();
            self.sequences.get_mut().loaded(site, &first);
            let first = self.first_waiting.remove(&site).unwrap_or_default();
            self.waiting.get_mut().loaded(site, &first);
        }
        Ok(())
    }

    /// Entries and pictures that known rows name and that are not known.
    fn named_by(&self, entries: &BTreeSet<Key>, kept: &BTreeSet<ContentId>) -> (Vec<i64>, Vec<i64>) {
        let rows = entries.iter().filter_map(|key| self.entries.get(*self.entry_keys.get(*key)?));
        let (mut ids, mut pictures) = (BTreeSet::new(), BTreeSet::new());
        for row in rows {
            ids.extend(row.primary);
            pictures.extend(row.picture);
        }
        let rows = kept.iter().filter_map(|id| self.pictures.get(*self.contents.get(*id)?));
        ids.extend(rows.filter_map(|row| row.main));
        ids.retain(|id| !self.entries.knows(*id));
        pictures.retain(|id| !self.pictures.knows(*id));
        (ids.into_iter().collect(), pictures.into_iter().collect())
    }

    /// The entries that offers name, and their pictures.
    fn fetch_related(&mut self, wanted: &Wanted) -> Result<(), TransactionError> {
        let named: Vec<i64> =
            [&wanted.offering, &wanted.offered, &wanted.ended].into_iter().flat_map(|keys| self.ids(keys)).collect();
        let mut entries = BTreeSet::new();
        for id in &named {
            entries.extend(self.offered_by.get(id).into_iter().flatten());
            entries.extend(self.offering.get(id).into_iter().flatten());
            entries.extend(self.behind.get(id).into_iter().flatten());
        }
        let rows: Vec<_> = named.iter().chain(&entries).filter_map(|id| self.entries.get(*id)).collect();
        let pictures: BTreeSet<i64> = rows.iter().filter_map(|row| row.picture).collect();
        entries.extend(rows.iter().filter_map(|row| row.primary));
        entries.retain(|id| !self.entries.knows(*id));
        let pictures: Vec<i64> = pictures.into_iter().filter(|id| !self.pictures.knows(*id)).collect();
        if entries.is_empty() && pictures.is_empty() {
            return Ok(());
        }
        self.read(&[Keys::new(Lookup::EntriesById, entries), Keys::new(Lookup::PicturesById, pictures)])
    }
}
