//! Reading rows into the working set: one by one from a file, many at a time from a server.

use std::collections::HashSet;
use std::sync::LazyLock;

use faceflow_core::record::{ContentId, Key};

use super::rows::{Buffered, ENTRY_COLUMNS, EntryRow, PICTURE_COLUMNS, PictureRow, SITE_COLUMNS, SiteRow};
use super::rows::{HOST_COLUMNS, HostKey, HostRow, Offer, PageImage, SiteImage};
use super::sequences::WINDOW;
use super::{IdTable, WorkingSet};
use crate::column_codecs::parse_url;
use crate::database::DbTransaction;
use crate::error::TransactionError;
use crate::postgres::array::{Array, Parameter};
use crate::postgres::client::Question;
use crate::value::{Row, Value, values};

/// What can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    EntriesByKey,
    EntriesById,
    PicturesByContent,
    PicturesById,
    /// By key on a server, by URL in a file.
    SitesByKey,
    SitesById,
    PageImages,
    SiteImage,
    OffersOf,
    OffersTo,
    Behind,
    /// The first pages of a site that were not tried yet.
    Sequences,
    /// The first pages of a site that wait for their turn.
    Waiting,
    Buffered,
    /// By job and queue.
    Hosts,
}

/// How a lookup is written: for one key, as a file is asked, and for arrays of keys. `?1` is the tenant where it is needed.
struct Text {
    one: String,
    many: String,
    tenant: bool,
}

static TEXTS: LazyLock<[Text; 15]> = LazyLock::new(|| {
    let tenant = |one: String, many: String| Text { one, many, tenant: true };
    let text = |one: String, many: String| Text { one, many, tenant: false };
    let first = |table: &str, filter: &str| {
        format!(
            "SELECT u.site, t.sequence FROM unnest($1::bigint[]) AS u (site),
            LATERAL (SELECT sequence FROM {table} WHERE site = u.site {filter} ORDER BY sequence LIMIT {WINDOW}) t"
        )
    };
    let pairs = |table: &str, (a, b): (&str, &str)| {
        text(
            format!("SELECT {a}, {b} FROM {table} WHERE {a} = ?1 AND {b} = ?2"),
            format!(
                "SELECT t.* FROM unnest($1::bigint[], $2::bigint[]) AS u (a, b),
                LATERAL (SELECT {a}, {b} FROM {table} WHERE {a} = u.a AND {b} = u.b OFFSET 0) t"
            ),
        )
    };
    let with_run = |columns: &str| format!("{columns}, run");
    // Each key is looked up by itself, whatever a server believes there to be: of `= ANY` or a plain join it may make a filter over
    // all rows of a tenant. (OFFSET keeps it from turning this into a plain join.)
    let each = |columns: &str, array: &str, table: &str, which: &str| {
        format!(
            "SELECT t.* FROM unnest({array}[]) AS u (wanted), LATERAL (SELECT {columns} FROM {table} WHERE {which} OFFSET 0) t"
        )
    };
    let (entry, picture, site) = (ENTRY_COLUMNS, PICTURE_COLUMNS, SITE_COLUMNS);
    [
        tenant(
            format!("SELECT {entry} FROM entries WHERE tenant = ?1 AND key = ?2"),
            each(&with_run(entry), "$2::bytea", "entries", "tenant = $1 AND key = u.wanted"),
        ),
        text(
            format!("SELECT {entry} FROM entries WHERE id = ?1"),
            each(&with_run(entry), "$1::bigint", "entries", "id = u.wanted"),
        ),
        tenant(
            format!("SELECT {picture} FROM pictures WHERE tenant = ?1 AND content = ?2"),
            each(&with_run(picture), "$2::bytea", "pictures", "tenant = $1 AND content = u.wanted"),
        ),
        text(
            format!("SELECT {picture} FROM pictures WHERE id = ?1"),
            each(&with_run(picture), "$1::bigint", "pictures", "id = u.wanted"),
        ),
        tenant(
            format!("SELECT {site} FROM sites WHERE tenant = ?1 AND url = ?2"),
            each(site, "$2::bytea", "sites", "tenant = $1 AND site_key(url) = u.wanted"),
        ),
        text(format!("SELECT {site} FROM sites WHERE id = ?1"), each(site, "$1::bigint", "sites", "id = u.wanted")),
        pairs("page_images", ("image", "page")),
        pairs("site_images", ("site", "image")),
        text(
            "SELECT image, alternate, rank FROM offers WHERE image = ?1".to_owned(),
            each("image, alternate, rank", "$1::bigint", "offers", "image = u.wanted"),
        ),
        text(
            "SELECT image, alternate, rank FROM offers WHERE alternate = ?1".to_owned(),
            each("image, alternate, rank", "$1::bigint", "offers", "alternate = u.wanted"),
        ),
        text(
            format!("SELECT {entry} FROM entries WHERE primary_entry = ?1 AND state = 'alternate'"),
            each(&with_run(entry), "$1::bigint", "entries", "primary_entry = u.wanted AND state = 'alternate'"),
        ),
        text(
            format!("SELECT site, sequence FROM entries WHERE site = ?1 AND sequence IS NOT NULL ORDER BY sequence LIMIT {WINDOW}"),
            first("entries", "AND sequence IS NOT NULL"),
        ),
        text(format!("SELECT site, sequence FROM reorder_buffer WHERE site = ?1 ORDER BY sequence LIMIT {WINDOW}"), first("reorder_buffer", "")),
        text(
            "SELECT site, sequence, page, body FROM reorder_buffer WHERE site = ?1 AND sequence = ?2".to_owned(),
            "SELECT t.* FROM unnest($1::bigint[], $2::bigint[]) AS u (a, b),
                LATERAL (SELECT site, sequence, page, body FROM reorder_buffer WHERE site = u.a AND sequence = u.b OFFSET 0) t"
                .to_owned(),
        ),
        tenant(
            format!("SELECT {HOST_COLUMNS} FROM hosts WHERE tenant = ?1 AND job = ?2 AND queue = ?3"),
            format!(
                "SELECT t.* FROM unnest($2::bigint[], $3::bigint[]) AS u (a, b),
                LATERAL (SELECT {HOST_COLUMNS} FROM hosts WHERE tenant = $1 AND job = u.a AND queue = u.b OFFSET 0) t"
            ),
        ),
    ]
});

/// The keys of a lookup: one or two values each.
pub(super) struct Keys<'v> {
    pub lookup: Lookup,
    pub first: Vec<Value<'v>>,
    pub second: Vec<Value<'v>>,
}

impl<'v> Keys<'v> {
    pub fn new(lookup: Lookup, keys: impl IntoIterator<Item = impl Into<Value<'v>>>) -> Self {
        Self { lookup, first: keys.into_iter().map(Into::into).collect(), second: vec![] }
    }

    pub fn pairs(lookup: Lookup, pairs: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let (first, second) = pairs.into_iter().map(|(a, b)| (Value::from(a), Value::from(b))).unzip();
        Self { lookup, first, second }
    }
}

impl WorkingSet<'_, '_> {
    /// Reads what these keys lead to: on a server everything on one way there and back.
    pub(super) fn read(&mut self, asked: &[Keys<'_>]) -> Result<(), TransactionError> {
        let tx = self.tx;
        match tx {
            DbTransaction::Sqlite(_) => {
                for keys in asked {
                    let text = &TEXTS[keys.lookup as usize];
                    for (n, first) in keys.first.iter().enumerate() {
                        let second = keys.second.get(n).copied();
                        let mut values = Vec::with_capacity(3);
                        values.extend(text.tenant.then_some(Value::Int(self.tenant)));
                        values.push(*first);
                        values.extend(second);
                        tx.each(&text.one, &values, |row| self.take(keys.lookup, row, false))?;
                    }
                }
            }
            DbTransaction::Postgres(pipeline) => {
                let asked: Vec<_> = asked.iter().filter(|keys| !keys.first.is_empty()).collect();
                let questions = asked.iter().map(|keys| {
                    let text = &TEXTS[keys.lookup as usize];
                    let mut parameters = Vec::with_capacity(3);
                    parameters.extend(text.tenant.then(|| Parameter::from(Value::Int(self.tenant))));
                    let arrays = [&keys.first, &keys.second].into_iter().filter(|values| !values.is_empty());
                    parameters.extend(arrays.map(|values| Parameter::Many(Array::of(values))));
                    Question { sql: &text.many, parameters }
                });
                let answers = pipeline.ask(questions.collect())?;
                for (keys, rows) in asked.into_iter().zip(answers) {
                    for row in rows {
                        self.take(keys.lookup, &Row::Postgres(&row), true)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, lookup: Lookup, row: &Row<'_>, server: bool) -> Result<(), TransactionError> {
        match lookup {
            Lookup::EntriesByKey | Lookup::EntriesById | Lookup::Behind => {
                let entry = EntryRow::read(row, server)?;
                if let Some(front) = entry.primary.filter(|_| lookup == Lookup::Behind) {
                    self.behind.entry(front).or_default().insert(entry.id);
                }
                self.entry_keys.loaded(entry.key, Some(entry.id));
                self.entries.loaded(entry.id, Some(entry));
            }
            Lookup::PicturesByContent | Lookup::PicturesById => {
                let picture = PictureRow::read(row, server)?;
                self.contents.loaded(picture.content, Some(picture.id));
                self.pictures.loaded(picture.id, Some(picture));
            }
            Lookup::SitesByKey | Lookup::SitesById => {
                let (id, site) = SiteRow::read(row)?;
                self.site_keys.loaded(Key::page(&parse_url(&site.url)?), Some(id));
                self.sites.loaded(id, Some(site));
            }
            Lookup::PageImages => self.page_images.loaded((row.get(0)?, row.get(1)?), Some(PageImage)),
            Lookup::SiteImage => self.site_images.loaded((row.get(0)?, row.get(1)?), Some(SiteImage)),
            Lookup::OffersOf | Lookup::OffersTo => {
                let (image, alternate) = (row.get(0)?, row.get(1)?);
                self.offers.loaded((image, alternate), Some(Offer { rank: row.get(2)? }));
                self.offered_by.entry(image).or_default().insert(alternate);
                self.offering.entry(alternate).or_default().insert(image);
            }
            Lookup::Sequences => self.first_sequences.entry(row.get(0)?).or_default().push(row.get(1)?),
            Lookup::Waiting => self.first_waiting.entry(row.get(0)?).or_default().push(row.get(1)?),
            Lookup::Buffered => {
                let body = row.get::<String>(3)?.into();
                self.buffered.loaded((row.get(0)?, row.get(1)?), Some(Buffered { page: row.get(2)?, body }));
            }
            Lookup::Hosts => {
                let (key, host) = HostRow::read(row)?;
                self.hosts.loaded(key, Some(host));
            }
        }
        Ok(())
    }

    pub(super) fn need_entry_keys(&mut self, keys: &[Key]) -> Result<(), TransactionError> {
        let unknown: Vec<Key> = keys.iter().copied().filter(|key| !self.entry_keys.knows(*key)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        self.read(&[Keys::new(Lookup::EntriesByKey, unknown.iter().copied())])?;
        unknown.into_iter().for_each(|key| self.entry_keys.loaded(key, None));
        Ok(())
    }

    pub(super) fn need_entries(&mut self, ids: &[i64]) -> Result<(), TransactionError> {
        let unknown: Vec<i64> = ids.iter().copied().filter(|id| !self.entries.knows(*id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        self.read(&[Keys::new(Lookup::EntriesById, unknown)])
    }

    pub(super) fn need_contents(&mut self, contents: &[ContentId]) -> Result<(), TransactionError> {
        let unknown: Vec<&ContentId> = contents.iter().filter(|content| !self.contents.knows(**content)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        self.read(&[Keys::new(Lookup::PicturesByContent, unknown.iter().copied())])?;
        unknown.into_iter().for_each(|content| self.contents.loaded(*content, None));
        Ok(())
    }

    pub(super) fn need_pictures(&mut self, ids: &[i64]) -> Result<(), TransactionError> {
        let unknown: Vec<i64> = ids.iter().copied().filter(|id| !self.pictures.knows(*id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        self.read(&[Keys::new(Lookup::PicturesById, unknown)])
    }

    pub(super) fn need_site_keys(&mut self, sites: &[(Key, &str)]) -> Result<(), TransactionError> {
        let unknown: Vec<(Key, &str)> = sites.iter().copied().filter(|(key, _)| !self.site_keys.knows(*key)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let keys = self.site_lookup(&unknown);
        self.read(&[keys])?;
        unknown.into_iter().for_each(|(key, _)| self.site_keys.loaded(key, None));
        Ok(())
    }

    /// A URL may be longer than what an index on a server takes, so there a digest of it is looked up.
    pub(super) fn site_lookup<'v>(&self, sites: &[(Key, &'v str)]) -> Keys<'v> {
        match self.tx {
            DbTransaction::Sqlite(_) => Keys::new(Lookup::SitesByKey, sites.iter().map(|(_, url)| *url)),
            DbTransaction::Postgres(_) => Keys::new(Lookup::SitesByKey, sites.iter().map(|(key, _)| *key)),
        }
    }

    pub(super) fn need_sites(&mut self, ids: &[i64]) -> Result<(), TransactionError> {
        let unknown: Vec<i64> = ids.iter().copied().filter(|id| !self.sites.knows(*id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        self.read(&[Keys::new(Lookup::SitesById, unknown)])
    }

    /// Whether the database has a row of this entry, so that other rows of it may name it.
    fn is_old(&self, entry: i64) -> bool {
        !self.entries.knows(entry) || self.entries.is_stored(entry)
    }

    pub(super) fn unknown_page_images(&self, pairs: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let unknown = |(image, page): &(i64, i64)| {
            !self.page_images.knows((*image, *page)) && self.is_old(*image) && self.is_old(*page)
        };
        pairs.iter().copied().filter(unknown).collect()
    }

    pub(super) fn need_page_images(&mut self, pairs: &[(i64, i64)]) -> Result<(), TransactionError> {
        let unknown = self.unknown_page_images(pairs);
        if !unknown.is_empty() {
            self.read(&[Keys::pairs(Lookup::PageImages, unknown)])?;
        }
        pairs.iter().for_each(|pair| self.page_images.loaded(*pair, None));
        Ok(())
    }

    pub(super) fn unknown_site_images(&self, pairs: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let is_old = |site: i64| !self.sites.knows(site) || self.sites.is_stored(site);
        let unknown = |(site, image): &(i64, i64)| {
            !self.site_images.knows((*site, *image)) && is_old(*site) && self.is_old(*image)
        };
        pairs.iter().copied().filter(unknown).collect()
    }

    pub(super) fn need_site_images(&mut self, pairs: &[(i64, i64)]) -> Result<(), TransactionError> {
        let unknown = self.unknown_site_images(pairs);
        if !unknown.is_empty() {
            self.read(&[Keys::pairs(Lookup::SiteImage, unknown)])?;
        }
        pairs.iter().for_each(|pair| self.site_images.loaded(*pair, None));
        Ok(())
    }

    /// Of these images, those of which it is to be read what they offer.
    pub(super) fn unknown_offers_of(&self, images: &[i64]) -> Vec<i64> {
        self.old_and_not_in(&self.offered_by_known, images)
    }

    /// Of these alternates, those of which it is to be read what offers them.
    pub(super) fn unknown_offers_to(&self, alternates: &[i64]) -> Vec<i64> {
        self.old_and_not_in(&self.offering_known, alternates)
    }

    /// Of these entries, those of which it is to be read what stands behind them.
    pub(super) fn unknown_behind(&self, fronts: &[i64]) -> Vec<i64> {
        self.old_and_not_in(&self.behind_known, fronts)
    }

    fn old_and_not_in(&self, known: &HashSet<i64>, ids: &[i64]) -> Vec<i64> {
        ids.iter().copied().filter(|id| !known.contains(id) && self.is_old(*id)).collect()
    }

    /// Everything that these images offer, and everything that offers these alternates.
    pub(super) fn need_offers(&mut self, of: &[i64], to: &[i64]) -> Result<(), TransactionError> {
        let of = self.unknown_offers_of(of);
        let to = self.unknown_offers_to(to);
        if of.is_empty() && to.is_empty() {
            return Ok(());
        }
        self.read(&[Keys::new(Lookup::OffersOf, of.iter().copied()), Keys::new(Lookup::OffersTo, to.iter().copied())])?;
        self.offered_by_known.extend(of);
        self.offering_known.extend(to);
        Ok(())
    }

    /// Everything that stands behind these entries.
    pub(super) fn need_behind(&mut self, fronts: &[i64]) -> Result<(), TransactionError> {
        let unknown = self.unknown_behind(fronts);
        if unknown.is_empty() {
            return Ok(());
        }
        self.read(&[Keys::new(Lookup::Behind, unknown.iter().copied())])?;
        self.behind_known.extend(unknown);
        Ok(())
    }

    pub(super) fn need_buffered(&mut self, site: i64, sequence: i64) -> Result<(), TransactionError> {
        if self.buffered.knows((site, sequence)) {
            return Ok(());
        }
        self.read(&[Keys::pairs(Lookup::Buffered, [(site, sequence)])])
    }

    /// Of these hosts, those of which it is to be read whether they fail.
    pub(super) fn unknown_hosts(&self, keys: impl IntoIterator<Item = HostKey>) -> Vec<HostKey> {
        keys.into_iter().filter(|key| !self.hosts.knows(*key)).collect()
    }

    /// The jobs and queues of hosts, to be looked up.
    pub(super) fn host_lookup(hosts: &[HostKey]) -> Keys<'static> {
        Keys::pairs(Lookup::Hosts, hosts.iter().map(|(_, job, queue)| (*job, *queue)))
    }

    /// Whether these hosts fail, and how.
    pub fn need_hosts(&mut self, keys: &[HostKey]) -> Result<(), TransactionError> {
        let unknown = self.unknown_hosts(keys.iter().copied());
        if unknown.is_empty() {
            return Ok(());
        }
        self.read(&[Self::host_lookup(&unknown)])?;
        unknown.into_iter().for_each(|key| self.hosts.loaded(key, None));
        Ok(())
    }

    /// Pages of a site that were not tried yet, after a place in its order.
    pub(super) fn read_sequences(&self, site: i64, after: i64) -> Result<Vec<i64>, TransactionError> {
        let sql = "SELECT sequence FROM entries WHERE site = ?1 AND sequence IS NOT NULL AND sequence > ?2 ORDER BY sequence LIMIT ?3";
        self.tx.list(sql, values![site, after, WINDOW as i64], |row| row.get(0))
    }

    /// Pages of a site that wait for their turn, after a place in its order.
    pub(super) fn read_buffered_sequences(&self, site: i64, after: i64) -> Result<Vec<i64>, TransactionError> {
        let sql = "SELECT sequence FROM reorder_buffer WHERE site = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3";
        self.tx.list(sql, values![site, after, WINDOW as i64], |row| row.get(0))
    }

    /// Takes more numbers for new rows, at least `count`.
    pub(super) fn reserve(&mut self, table: IdTable, count: usize) -> Result<(), TransactionError> {
        const BLOCK: i64 = 1_000;
        let tx = self.tx;
        let name = match table {
            IdTable::Entries => "entries",
            IdTable::Pictures => "pictures",
            IdTable::Sites => "sites",
        };
        match tx {
            DbTransaction::Sqlite(_) => {
                let sql = format!("SELECT coalesce(max(id), 0) + 1 FROM {name}");
                let next = tx.one(&sql, &[], |row| row.get::<i64>(0))?.unwrap_or(1);
                self.numbers.of(table).extend(next..i64::MAX);
            }
            DbTransaction::Postgres(_) => {
                // The sequence goes on by a block each time.
                let blocks = count.div_ceil(BLOCK as usize).max(1) as i64;
                let sql = format!(
                    "SELECT nextval(pg_get_serial_sequence('{name}', 'id')) FROM generate_series(1, ?1::bigint)"
                );
                for first in tx.list(&sql, values![blocks], |row| row.get::<i64>(0))? {
                    self.numbers.of(table).extend(first..first + BLOCK);
                }
            }
        }
        Ok(())
    }
}

/// What is asked of a server, with how many parameters each takes.
#[cfg(test)]
pub(crate) fn questions() -> impl Iterator<Item = (&'static str, usize)> {
    let parameters = |text: &str| (1..=3).filter(|n| text.contains(&format!("${n}"))).count();
    TEXTS.iter().map(move |text| (text.many.as_str(), parameters(&text.many)))
}
