//! The rows that the facts of a group touch, in memory: read once, changed here, written together.
//!
//! On a server the way there and back is what costs, so everything that the facts of a group may touch is read ahead, by arrays
//! (`prefetch.rs`); what that missed is read when it is asked for, as on a file, where a read is a function call. Nothing is
//! written before the group is done. A fact that is refused leaves no trace: every change can be taken back until the fact is
//! accepted.

mod flush;
mod ids;
pub(super) mod load;
mod prefetch;
mod row_statements;
mod rows;
mod sequences;
mod table;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use faceflow_core::record::{Content, ContentId, Key};
use faceflow_core::transition::State;

pub(super) use self::ids::IdRanges;
use self::ids::Ids;
pub(super) use self::prefetch::Wanted;
pub(super) use self::rows::{Buffered, DetectionRow, EntryRow, HOST_COLUMNS, HostKey, HostRow, PictureRow, SiteRow};
use self::rows::{HashId, HashRow, Offer, PageImage, SiteImage};
use self::sequences::Sequences;
use self::table::Table;
use super::column_codecs::EntryKind;
use super::database::DbTransaction;
use super::error::TransactionError;

/// Numbers for new rows, kept from one group to the next.
#[derive(Default)]
pub(super) struct IdAllocators {
    pub entries: Ids,
    pub pictures: Ids,
    pub sites: Ids,
}

/// A table that numbers its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdTable {
    Entries,
    Pictures,
    Sites,
}

/// The rows of one tenant that a group of facts touches.
pub(super) struct WorkingSet<'m, 'c> {
    tx: &'m DbTransaction<'c>,
    tenant: i64,
    numbers: &'m mut IdAllocators,
    entries: Table<i64, EntryRow>,
    entry_keys: Table<Key, i64>,
    pictures: Table<i64, PictureRow>,
    contents: Table<ContentId, i64>,
    hashes: Table<HashId, HashRow>,
    sites: Table<i64, SiteRow>,
    site_keys: Table<Key, i64>,
    page_images: Table<(i64, i64), PageImage>,
    site_images: Table<(i64, i64), SiteImage>,
    offers: Table<(i64, i64), Offer>,
    buffered: Table<(i64, i64), Buffered>,
    detections: Table<i64, DetectionRow>,
    hosts: Table<HostKey, HostRow>,
    /// Which alternates an image offers, which images offer an alternate, and which alternates stand behind an entry: more than
    /// there are, since the rows say which still do.
    offered_by: HashMap<i64, BTreeSet<i64>>,
    offering: HashMap<i64, BTreeSet<i64>>,
    behind: HashMap<i64, BTreeSet<i64>>,
    /// Of which entries all of these are known. Nothing in the database can name a new entry, so of those they are known too.
    offered_by_known: HashSet<i64>,
    offering_known: HashSet<i64>,
    behind_known: HashSet<i64>,
    /// Of pages that were not tried yet, and of those that wait for their turn.
    sequences: RefCell<Sequences>,
    waiting: RefCell<Sequences>,
    /// Those at the front of sites that are being read.
    first_sequences: HashMap<i64, Vec<i64>>,
    first_waiting: HashMap<i64, Vec<i64>>,
}

impl<'m, 'c> WorkingSet<'m, 'c> {
    /// Nothing is known yet.
    pub fn new(tx: &'m DbTransaction<'c>, tenant: i64, numbers: &'m mut IdAllocators) -> Self {
        Self {
            tx,
            tenant,
            numbers,
            entries: Table::default(),
            entry_keys: Table::default(),
            pictures: Table::default(),
            contents: Table::default(),
            hashes: Table::default(),
            sites: Table::default(),
            site_keys: Table::default(),
            page_images: Table::default(),
            site_images: Table::default(),
            offers: Table::default(),
            buffered: Table::default(),
            detections: Table::default(),
            hosts: Table::default(),
            offered_by: HashMap::new(),
            offering: HashMap::new(),
            behind: HashMap::new(),
            offered_by_known: HashSet::new(),
            offering_known: HashSet::new(),
            behind_known: HashSet::new(),
            sequences: RefCell::default(),
            waiting: RefCell::default(),
            first_sequences: HashMap::new(),
            first_waiting: HashMap::new(),
        }
    }

    /// Whether the current fact has changed any row.
    pub fn is_changed(&self) -> bool {
        self.entries.is_changed()
            || self.pictures.is_changed()
            || self.sites.is_changed()
            || self.page_images.is_changed()
            || self.site_images.is_changed()
            || self.offers.is_changed()
            || self.buffered.is_changed()
            || self.detections.is_changed()
            || self.hosts.is_changed()
    }

    /// The current fact stands.
    pub fn accept(&mut self) {
        self.entries.accept();
        self.entry_keys.accept();
        self.pictures.accept();
        self.contents.accept();
        self.hashes.accept();
        self.sites.accept();
        self.site_keys.accept();
        self.page_images.accept();
        self.site_images.accept();
        self.offers.accept();
        self.buffered.accept();
        self.detections.accept();
        self.hosts.accept();
        self.sequences.get_mut().accept();
        self.waiting.get_mut().accept();
        self.numbers.entries.accept();
        self.numbers.pictures.accept();
        self.numbers.sites.accept();
    }

    /// The current fact is refused: nothing of it is left.
    pub fn undo(&mut self) {
        self.entries.undo();
        self.entry_keys.undo();
        self.pictures.undo();
        self.contents.undo();
        self.hashes.undo();
        self.sites.undo();
        self.site_keys.undo();
        self.page_images.undo();
        self.site_images.undo();
        self.offers.undo();
        self.buffered.undo();
        self.detections.undo();
        self.hosts.undo();
        self.sequences.get_mut().undo();
        self.waiting.get_mut().undo();
        self.numbers.entries.undo();
        self.numbers.pictures.undo();
        self.numbers.sites.undo();
    }

    /// The numbers that were given to new rows of entries, pictures and sites.
    pub fn take_used(&mut self) -> [IdRanges; 3] {
        let IdAllocators { entries, pictures, sites } = &mut *self.numbers;
        [entries, pictures, sites].map(Ids::take_used)
    }

    fn next_id(&mut self, table: IdTable) -> Result<i64, TransactionError> {
        if let Some(id) = self.numbers.of(table).next() {
            return Ok(id);
        }
        self.reserve(table, 1)?;
        let id = self.numbers.of(table).next();
        id.ok_or_else(|| TransactionError::Damaged(format!("there is no number for a new row of {table:?}")))
    }

    /// Makes an entry of a site, a job and the queue of a host.
    pub fn new_entry(
        &mut self,
        kind: EntryKind,
        (key, url): (Key, &str),
        owner: (i64, u32, i64),
    ) -> Result<&mut EntryRow, TransactionError> {
        let id = self.next_id(IdTable::Entries)?;
        self.entry_keys.put(key, id);
        self.entries.put(id, EntryRow::new(id, kind, (key, url), owner));
        self.entries.change(id).ok_or_else(|| missing("entry", id))
    }

    /// The row of an entry, to be changed.
    pub fn change_entry(&mut self, id: i64) -> Result<&mut EntryRow, TransactionError> {
        self.need_entries(&[id])?;
        self.entries.change(id).ok_or_else(|| missing("entry", id))
    }

    /// The entry of an id.
    pub fn entry(&mut self, id: i64) -> Result<&EntryRow, TransactionError> {
        self.need_entries(&[id])?;
        self.entries.get(id).ok_or_else(|| missing("entry", id))
    }

    /// The entry of a key.
    pub fn find_entry(&mut self, key: Key) -> Result<Option<&EntryRow>, TransactionError> {
        self.need_entry_keys(&[key])?;
        Ok(self.entry_keys.get(key).and_then(|id| self.entries.get(*id)))
    }

    /// A page has a place in the order of its site from now on.
    pub fn take_sequence(&mut self, entry: i64, sequence: i64) -> Result<(), TransactionError> {
        let row = self.change_entry(entry)?;
        row.sequence = Some(sequence);
        let site = row.site;
        self.sequences.get_mut().add(site, sequence);
        Ok(())
    }

    /// A page has given up its place in the order of its site, if it had one: the site.
    pub fn give_up_sequence(&mut self, entry: i64) -> Result<Option<i64>, TransactionError> {
        let row = self.change_entry(entry)?;
        let Some(sequence) = row.sequence.take() else { return Ok(None) };
        let site = row.site;
        self.sequences.get_mut().remove(site, sequence);
        Ok(Some(site))
    }

    /// The first page of a site that was not tried yet.
    pub fn first_sequence(&self, site: i64) -> Result<Option<i64>, TransactionError> {
        self.sequences.borrow_mut().first(site, |after| self.read_sequences(site, after))
    }

    /// Keeps what a page leads to until its turn.
    pub fn buffer(&mut self, (site, sequence): (i64, i64), page: i64, body: Rc<str>) {
        self.buffered.put((site, sequence), Buffered { page, body });
        self.waiting.get_mut().add(site, sequence);
    }

    /// Of a site, the first page that waits for its turn.
    pub fn first_buffered(&self, site: i64) -> Result<Option<i64>, TransactionError> {
        self.waiting.borrow_mut().first(site, |after| self.read_buffered_sequences(site, after))
    }

    /// What a page that waited leads to. It waits no longer.
    pub fn take_buffered(&mut self, site: i64, sequence: i64) -> Result<Buffered, TransactionError> {
        self.need_buffered(site, sequence)?;
        self.waiting.get_mut().remove(site, sequence);
        self.buffered.remove((site, sequence)).ok_or_else(|| missing("page that waits for its turn", sequence))
    }

    /// Makes a picture.
    pub fn new_picture(&mut self, content: &Content, run: Option<i64>) -> Result<i64, TransactionError> {
        let id = self.next_id(IdTable::Pictures)?;
        self.contents.put(content.id, id);
        self.pictures.put(id, PictureRow::new(id, content, run));
        for hash in content.hashes.iter() {
            let row = HashRow { bits: hash.bits, distinctive: hash.distinctive };
            self.hashes.put((id, hash.kind, hash.version), row);
        }
        Ok(id)
    }

    /// The picture of a content id.
    pub fn find_picture(&mut self, content: ContentId) -> Result<Option<&PictureRow>, TransactionError> {
        self.need_contents(&[content])?;
        Ok(self.contents.get(content).and_then(|id| self.pictures.get(*id)))
    }

    /// The picture of an id.
    pub fn picture(&mut self, id: i64) -> Result<&PictureRow, TransactionError> {
        self.need_pictures(&[id])?;
        self.pictures.get(id).ok_or_else(|| missing("picture", id))
    }

    /// The row of a picture, to be changed.
    pub fn change_picture(&mut self, id: i64) -> Result<&mut PictureRow, TransactionError> {
        self.need_pictures(&[id])?;
        self.pictures.change(id).ok_or_else(|| missing("picture", id))
    }

    /// Sets what an engine answered.
    pub fn set_detection(&mut self, picture: i64, faces: i64, body: &str) {
        self.detections.put(picture, DetectionRow { faces, body: body.into() });
    }

    /// The site of a URL, if there is one.
    pub fn find_site(&mut self, key: Key, url: &str) -> Result<Option<i64>, TransactionError> {
        self.need_site_keys(&[(key, url)])?;
        Ok(self.site_keys.get(key).copied())
    }

    /// Makes a site.
    pub fn new_site(&mut self, key: Key, url: &str) -> Result<i64, TransactionError> {
        let id = self.next_id(IdTable::Sites)?;
        self.site_keys.put(key, id);
        let site = SiteRow { url: url.into(), pages: 0, images: 0, sequences: 0, removed: false, list: None };
        self.sites.put(id, site);
        self.sequences.get_mut().begin(id);
        self.waiting.get_mut().begin(id);
        Ok(id)
    }

    /// The row of a site.
    pub fn site(&mut self, id: i64) -> Result<&SiteRow, TransactionError> {
        self.need_sites(&[id])?;
        self.sites.get(id).ok_or_else(|| missing("site", id))
    }

    /// The row of a site, to be changed.
    pub fn change_site(&mut self, id: i64) -> Result<&mut SiteRow, TransactionError> {
        self.need_sites(&[id])?;
        self.sites.change(id).ok_or_else(|| missing("site", id))
    }

    /// What is known of a host, if it fails.
    pub fn host(&mut self, key: HostKey) -> Result<Option<&HostRow>, TransactionError> {
        self.need_hosts(&[key])?;
        Ok(self.hosts.get(key))
    }

    /// A host fails, and this is known of it.
    pub fn set_host(&mut self, key: HostKey, row: HostRow) -> Result<(), TransactionError> {
        if self.host(key)? != Some(&row) {
            self.hosts.put(key, row);
        }
        Ok(())
    }

    /// A host fails no longer.
    pub fn forget_host(&mut self, key: HostKey) -> Result<(), TransactionError> {
        self.need_hosts(&[key])?;
        self.hosts.remove(key);
        Ok(())
    }

    /// Whether a page was seen to show an image.
    pub fn has_page_image(&mut self, image: i64, page: i64) -> Result<bool, TransactionError> {
        self.need_page_images(&[(image, page)])?;
        Ok(self.page_images.get((image, page)).is_some())
    }

    /// Reads these entries and pictures, if they are not known.
    pub fn need(&mut self, entries: &[i64], pictures: &[i64]) -> Result<(), TransactionError> {
        self.need_entries(entries)?;
        self.need_pictures(pictures)
    }

    /// Notes that a page shows an image; whether that is new.
    pub fn add_page_image(&mut self, image: i64, page: i64) -> Result<bool, TransactionError> {
        let new = !self.has_page_image(image, page)?;
        if new {
            self.page_images.put((image, page), PageImage);
        }
        Ok(new)
    }

    /// Whether an image counts towards a site's budget.
    pub fn is_counted(&mut self, site: i64, image: i64) -> Result<bool, TransactionError> {
        self.need_site_images(&[(site, image)])?;
        Ok(self.site_images.get((site, image)).is_some())
    }

    /// An image counts towards a site's budget from now on.
    pub fn count_image(&mut self, site: i64, image: i64) {
        self.site_images.put((site, image), SiteImage);
    }

    /// An image offers an alternate; the best rank that it was ever offered at stays.
    pub fn offer(&mut self, image: i64, alternate: i64, rank: i64) -> Result<(), TransactionError> {
        self.need_offers(&[image], &[])?;
        let known = self.offers.get((image, alternate)).map(|offer| offer.rank);
        if known.is_none_or(|known| rank < known) {
            self.offers.put((image, alternate), Offer { rank });
            self.offered_by.entry(image).or_default().insert(alternate);
            self.offering.entry(alternate).or_default().insert(image);
        }
        Ok(())
    }

    /// The alternates that an image offers, with their ranks.
    pub fn offers_of(&mut self, image: i64) -> Result<Vec<(i64, i64)>, TransactionError> {
        self.need_offers(&[image], &[])?;
        let alternates = self.offered_by.get(&image).into_iter().flatten();
        let ranked = alternates.filter_map(|id| Some((*id, self.offers.get((image, *id))?.rank)));
        Ok(ranked.collect())
    }

    /// The images that offer an alternate, with their ranks, by id.
    pub fn offers_to(&mut self, alternate: i64) -> Result<Vec<(i64, i64)>, TransactionError> {
        self.need_offers(&[], &[alternate])?;
        let images = self.offering.get(&alternate).into_iter().flatten();
        let ranked = images.filter_map(|id| Some((*id, self.offers.get((*id, alternate))?.rank)));
        Ok(ranked.collect())
    }

    /// Puts an alternate behind an entry.
    pub fn stand_behind(&mut self, alternate: i64, front: i64, rank: i64) -> Result<(), TransactionError> {
        let row = self.change_entry(alternate)?;
        (row.primary, row.rank) = (Some(front), Some(rank));
        self.behind.entry(front).or_default().insert(alternate);
        Ok(())
    }

    /// The alternates that stand behind an entry, by id.
    pub fn behind(&mut self, front: i64) -> Result<Vec<i64>, TransactionError> {
        self.need_behind(&[front])?;
        let all: Vec<i64> = self.behind.get(&front).into_iter().flatten().copied().collect();
        self.need_entries(&all)?;
        let stands = |row: &EntryRow| row.primary == Some(front) && row.state == State::Alternate;
        Ok(all.into_iter().filter(|id| self.entries.get(*id).is_some_and(stands)).collect())
    }
}

impl IdAllocators {
    /// A group failed: what it was given is never used.
    pub fn abandon(&mut self) {
        for ids in [&mut self.entries, &mut self.pictures, &mut self.sites] {
            ids.abandon();
        }
    }

    /// Exactly the numbers that a group was given.
    pub fn replay(entries: &IdRanges, pictures: &IdRanges, sites: &IdRanges) -> Self {
        let [entries, pictures, sites] = [entries, pictures, sites].map(Ids::replay);
        Self { entries, pictures, sites }
    }

    fn of(&mut self, table: IdTable) -> &mut Ids {
        match table {
            IdTable::Entries => &mut self.entries,
            IdTable::Pictures => &mut self.pictures,
            IdTable::Sites => &mut self.sites,
        }
    }
}

fn missing(what: &str, id: i64) -> TransactionError {
    TransactionError::Damaged(format!("{what} {id} is named but not there"))
}
