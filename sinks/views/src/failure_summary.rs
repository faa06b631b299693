//! Why there is less than was asked for: the reasons of what was rejected or is dead, by count, and the sites that gave nothing.
//!
//! For the end of a run and for `faceflow status`. Rows are read by ranges of their numbers, the latest first, each range in a
//! short transaction, and no more than a fixed number of them: it takes a moment for any ledger, and says so where it left rows
//! out. Memory is bounded by what is named.

use std::collections::HashMap;
use std::ops::Range;

use faceflow_core::ledger::LedgerError;
use faceflow_core::transition::State;

use faceflow_ledger::Sql;
use faceflow_ledger::{DbTransaction, Row, values};
use faceflow_ledger::{EntryKind, StateText, TransactionError};
use faceflow_ledger::{Reader, Status};

/// Rows of a table read in one transaction.
const RANGE: i64 = 64 * 1024;
/// Rows of a table that are looked at, the latest.
const ROWS_MAX: i64 = 1_000_000;
/// Sites looked at in one transaction; each costs a few look-ups.
const SITES_RANGE: i64 = 8 * 1024;
/// Sites that are looked at, the latest.
const SITES_MAX: i64 = 256 * 1024;
/// Kinds of failure told apart. Reasons are words of ours, so there are far fewer.
const KINDS_MAX: usize = 200;
/// Images of a site that are asked for their reasons.
const IMAGES_ASKED: i64 = 1_000;

/// Why there is less than was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureSummary {
    /// What was rejected or is dead, the most frequent first.
    pub reasons: Vec<ReasonCount>,
    /// How many entries have reasons that are not among these.
    pub other_reasons: u64,
    /// Whether all entries were counted, not only the latest of a large ledger.
    pub is_complete: bool,
    /// Sites that gave nothing, in the order in which they were taken up; the latest, if there are many.
    pub sites: Vec<SiteWithoutResult>,
    /// How many more there are.
    pub more_sites: u64,
    /// Whether all sites were looked at.
    pub all_sites: bool,
}

/// How many pages or images ended for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonCount {
    /// How many.
    pub count: u64,
    /// Whether they are pages, not images.
    pub pages: bool,
    /// Rejected or dead.
    pub status: Status,
    /// The stable word for why.
    pub reason: String,
}

/// A site of which no picture was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteWithoutResult {
    /// Its start page.
    pub url: String,
    /// What became of it.
    pub why: WhyNothing,
}

/// Why a site gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNothing {
    /// Its start page was not read.
    StartPage {
        /// Rejected, dead or open.
        status: Status,
        /// The stable word for why.
        reason: String,
        /// And in words.
        detail: String,
    },
    /// None of its images was taken.
    Images {
        /// How many it shows.
        images: u64,
        /// The most frequent reason.
        reason: String,
        /// One of them, in words.
        detail: String,
        /// That one's URL.
        url: String,
    },
    /// What was read of it shows no image.
    NoImages {
        /// Pages of it that are known.
        pages: u64,
    },
}

/// What went wrong so far, with at most so many reasons and sites.
pub fn failure_summary(
    reader: &Reader,
    (reasons_max, sites_max): (usize, usize),
) -> Result<FailureSummary, LedgerError> {
    let mut kinds = HashMap::new();
    let entries = each_range(reader, ("entries", RANGE, ROWS_MAX), |tx, range| {
        count_reasons(tx, (reader.tenant_id(), range), &ENTRY_REASONS, &mut kinds)
    })?;
    let pictures = each_range(reader, ("pictures", RANGE, ROWS_MAX), |tx, range| {
        count_reasons(tx, (reader.tenant_id(), range), &PICTURE_REASONS, &mut kinds)
    })?;
    let mut reasons: Vec<ReasonCount> = kinds.into_values().collect();
    reasons.sort_unstable_by(|one, other| {
        let order = |reason: &ReasonCount| (reason.status, !reason.pages);
        let by_kind = || order(one).cmp(&order(other)).then_with(|| one.reason.cmp(&other.reason));
        other.count.cmp(&one.count).then_with(by_kind)
    });
    let other_reasons = reasons.iter().skip(reasons_max).map(|reason| reason.count).sum();
    reasons.truncate(reasons_max);
    let (mut latest, mut more_sites) = (Vec::new(), 0);
    let all_sites = each_range(reader, ("sites", SITES_RANGE, SITES_MAX), |tx, range| {
        sites_without_result(tx, (reader.tenant_id(), range), &mut |site| match latest.len() < sites_max {
            true => latest.push(site),
            false => more_sites += 1,
        })
    })?;
    let described = |site: &Site| reader.read(|tx| site.described(tx));
    let sites = latest.iter().rev().map(described).collect::<Result<_, _>>()?;
    Ok(FailureSummary { reasons, other_reasons, is_complete: entries && pictures, sites, more_sites, all_sites })
}

/// Calls `each` with the ranges of a table's numbers, the latest first, each in a transaction of its own; whether that was all.
fn each_range(
    reader: &Reader,
    (table, range, max): (&str, i64, i64),
    mut each: impl FnMut(&DbTransaction<'_>, Range<i64>) -> Result<(), TransactionError>,
) -> Result<bool, LedgerError> {
    // Two questions that an index answers each; both at once are answered by reading all of it.
    let ends = format!("SELECT (SELECT min(id) FROM {table}), (SELECT max(id) FROM {table})");
    let ends =
        reader.read(|tx| tx.one(&ends, &[], |row| Ok((row.get::<Option<i64>>(0)?, row.get::<Option<i64>>(1)?))))?;
    let Some((Some(first), Some(last))) = ends else { return Ok(true) };
    let (mut end, least) = (last + 1, first.max(last + 1 - max));
    while end > least {
        let start = least.max(end - range);
        reader.read(|tx| each(tx, start..end))?;
        end = start;
    }
    Ok(least == first)
}

/// Of a tenant (?1), rows with numbers in a range (?2 to before ?3): kind, state, reason, and how many entries. A range is read by
/// numbers, which SQLite has to be told.
const ENTRY_REASONS: Sql = Sql {
    sqlite: "SELECT kind, state, coalesce(reason, 'unknown'), count(*) FROM entries NOT INDEXED
        WHERE tenant = ?1 AND id >= ?2 AND id < ?3 AND (state = 'rejected' OR state = 'dead') GROUP BY 1, 2, 3",
    postgres: "SELECT kind, state, coalesce(reason, 'unknown'), count(*) FROM entries
        WHERE tenant = ?1 AND id >= ?2 AND id < ?3 AND (state = 'rejected' OR state = 'dead') GROUP BY 1, 2, 3",
};
/// The same of pictures that stand for themselves, which count as the addresses that lead to them.
const PICTURE_REASONS: Sql = Sql {
    sqlite: "SELECT 'image', state, coalesce(reason, 'unknown'), sum(urls + behind) FROM pictures NOT INDEXED
        WHERE tenant = ?1 AND id >= ?2 AND id < ?3 AND (state = 'rejected' OR state = 'dead')
            AND coalesce(representative, id) = id GROUP BY 1, 2, 3",
    postgres: "SELECT 'image', state, coalesce(reason, 'unknown'), CAST(sum(urls + behind) AS BIGINT) FROM pictures
        WHERE tenant = ?1 AND id >= ?2 AND id < ?3 AND (state = 'rejected' OR state = 'dead')
            AND coalesce(representative, id) = id GROUP BY 1, 2, 3",
};

type Kinds = HashMap<(bool, Status, String), ReasonCount>;

fn count_reasons(
    tx: &DbTransaction<'_>,
    (tenant, range): (i64, Range<i64>),
    sql: &Sql,
    kinds: &mut Kinds,
) -> Result<(), TransactionError> {
    tx.each(sql.of(tx), values![tenant, range.start, range.end], |row| {
        let (pages, status) =
            (row.get::<EntryKind>(0)? == EntryKind::Page, Status::of_entry(row.get::<StateText>(1)?.0));
        let (mut reason, count) = (row.get::<String>(2)?, row.get::<i64>(3)? as u64);
        if kinds.len() >= KINDS_MAX && !kinds.contains_key(&(pages, status, reason.clone())) {
            reason = "other".to_owned();
        }
        let known = kinds.entry((pages, status, reason));
        let new = |(pages, status, reason): &(bool, Status, String)| ReasonCount {
            count: 0,
            pages: *pages,
            status: *status,
            reason: reason.clone(),
        };
        known.or_insert_with_key(new).count += count;
        Ok(())
    })
}

/// A site of which no picture was taken, as its rows say.
struct Site {
    id: i64,
    url: String,
    pages: i64,
    images: i64,
    /// Of its start page.
    state: State,
    reason: Option<String>,
    detail: Option<String>,
}

/// Of a tenant (?1), sites with numbers in a range (?2 to before ?3) that are on a list, of which no picture is done or a copy of one
/// that is. The start page was refused, failed, or waits for another try; or it was read, and nothing else of the site is open.
/// Folders of pictures have no start page.
const WITHOUT_RESULT: &str = "WITH barren AS MATERIALIZED (
        SELECT s.id, s.url, s.pages, s.images FROM sites s NOT INDEXED
        WHERE s.tenant = ?1 AND s.id >= ?2 AND s.id < ?3 AND NOT s.removed AND NOT EXISTS (
            SELECT 1 FROM site_images i JOIN entries e ON e.id = i.image JOIN pictures p ON p.id = e.picture
            WHERE i.site = s.id AND (p.state = 'settled' OR coalesce(p.representative, p.id) <> p.id))
        AND NOT EXISTS (
            SELECT 1 FROM site_images i JOIN offers o ON o.image = i.image JOIN entries e ON e.id = o.alternate
                JOIN pictures p ON p.id = e.picture
            WHERE i.site = s.id AND (p.state = 'settled' OR coalesce(p.representative, p.id) <> p.id)))
    SELECT b.id, b.url, b.pages, b.images, f.state, f.reason, f.detail
    FROM barren b JOIN entries f ON f.site = b.id AND f.kind = 'page' AND f.depth = 0
    WHERE f.state = 'rejected' OR f.state = 'dead' OR f.state = 'open' AND f.reason IS NOT NULL
        OR f.state = 'settled'
            AND NOT EXISTS (SELECT 1 FROM entries o WHERE o.site = b.id AND o.kind = 'page' AND o.state = 'open')
            AND NOT EXISTS (SELECT 1 FROM site_images i JOIN entries o ON o.id = i.image LEFT JOIN pictures p ON p.id = o.picture
                WHERE i.site = b.id AND (o.state = 'open' OR p.state = 'open'))
            AND NOT EXISTS (SELECT 1 FROM site_images i JOIN offers a ON a.image = i.image JOIN entries o ON o.id = a.alternate
                LEFT JOIN pictures p ON p.id = o.picture
                WHERE i.site = b.id AND (o.state = 'open' OR p.state = 'open'))
    ORDER BY b.id DESC";

fn sites_without_result(
    tx: &DbTransaction<'_>,
    (tenant, range): (i64, Range<i64>),
    each: &mut dyn FnMut(Site),
) -> Result<(), TransactionError> {
    tx.look_up_by_keys()?;
    tx.each(WITHOUT_RESULT, values![tenant, range.start, range.end], |row: &Row<'_>| {
        let (id, url, pages, images) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let (state, reason, detail) = (row.get::<StateText>(4)?.0, row.get(5)?, row.get(6)?);
        each(Site { id, url, pages, images, state, reason, detail });
        Ok(())
    })
}

impl Site {
    /// What became of it.
    fn described(&self, tx: &DbTransaction<'_>) -> Result<SiteWithoutResult, TransactionError> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let start = WhyNothing::StartPage {
            status: Status::of_entry(self.state),
            reason: text(&self.reason),
            detail: text(&self.detail),
        };
        let why = match self.state {
            State::Settled => match self.reason_of_images(tx)? {
                Some((reason, detail, url)) => WhyNothing::Images { images: self.images as u64, reason, detail, url },
                None => WhyNothing::NoImages { pages: self.pages as u64 },
            },
            _ => start,
        };
        Ok(SiteWithoutResult { url: self.url.clone(), why })
    }

    /// The reason for which most of its images were not taken, with one of them in words and its URL.
    fn reason_of_images(&self, tx: &DbTransaction<'_>) -> Result<Option<(String, String, String)>, TransactionError> {
        let sql = "SELECT reason, min(url) FROM (
                SELECT e.url, coalesce(CASE WHEN e.picture IS NULL THEN e.reason ELSE p.reason END, 'unknown') AS reason
                FROM site_images i JOIN entries e ON e.id = i.image LEFT JOIN pictures p ON p.id = e.picture
                WHERE i.site = ?1 AND e.state <> 'alternate' LIMIT ?2) asked
            GROUP BY reason ORDER BY count(*) DESC, reason LIMIT 1";
        let asked =
            tx.one(sql, values![self.id, IMAGES_ASKED], |row| Ok((row.get::<String>(0)?, row.get::<String>(1)?)))?;
        let Some((reason, url)) = asked else { return Ok(None) };
        let sql = "SELECT coalesce(CASE WHEN e.picture IS NULL THEN e.detail ELSE p.detail END, '')
            FROM site_images i JOIN entries e ON e.id = i.image LEFT JOIN pictures p ON p.id = e.picture
            WHERE i.site = ?1 AND e.url = ?2 LIMIT 1";
        let detail = tx.one(sql, values![self.id, &url], |row| row.get(0))?;
        Ok(Some((reason, detail.unwrap_or_default(), url)))
    }
}

#[cfg(test)]
mod tests;
