//! What the report shows, read from the ledger. Bounded by the settings, however large the ledger.

use std::collections::HashMap;

use faceflow_core::ledger::LedgerError;
use faceflow_core::tally::Tally;
use faceflow_ledger::ImageLine;
use faceflow_ledger::Reader;
use faceflow_ledger::TransactionError;
use faceflow_ledger::image_lines;
use faceflow_ledger::{DbTransaction, values};
use faceflow_ledger::{EntrySelection, THESE_MAX, numbers, these};

use super::follow::{Counts, ENTRIES, FAILED_ENTRIES, FAILED_PICTURES, PICTURES, UNKNOWN};
use super::settings::ReportSettings;
use super::sums::{BLOCK, Candidate, Failure, Table};
use crate::explain::as_text;

/// Everything the report shows.
pub struct Found {
    pub tenant: String,
    /// When the last fact was written, UTC, to the minute.
    pub as_of: Option<String>,
    pub pages: Tally,
    pub images: Tally,
    /// Faces in pictures that stand for themselves.
    pub faces: i64,
    /// Those pictures that have any.
    pub with_faces: i64,
    pub cards: Vec<Card>,
    pub failures: Vec<Failed>,
}

/// A picture with its duplicates.
pub struct Card {
    pub line: ImageLine,
    /// URL and distance in bits.
    pub duplicates: Vec<(String, u32)>,
    pub duplicates_total: i64,
}

/// How often something failed, with examples: URL and detail, of what was discovered first.
pub struct Failed {
    pub failure: Failure,
    pub count: i64,
    pub examples: Vec<(String, String)>,
}

pub fn gather(reader: &Reader, counts: &Counts, settings: &ReportSettings) -> Result<Found, LedgerError> {
    let (pages, images) = reader.tally()?;
    let mut cards = Vec::new();
    for chunk in counts.best.shown().unwrap_or_default().chunks(THESE_MAX) {
        cards.extend(reader.read(|tx| self::cards(reader, tx, chunk, settings.examples_max))?);
    }
    let mut failures = Vec::new();
    for (failure, count, blocks) in counts.failures.kinds(settings.examples_max as i64) {
        let examples = reader.read(|tx| examples(reader, tx, (failure, &blocks), settings.examples_max))?;
        failures.push(Failed { failure: failure.clone(), count, examples });
    }
    let as_of = counts.at_ms.map(|at_ms| as_text(at_ms).chars().take(16).collect());
    let (faces, with_faces) = (counts.faces.faces, counts.faces.pictures);
    Ok(Found { tenant: reader.tenant().to_owned(), as_of, pages, images, faces, with_faces, cards, failures })
}

fn cards(
    reader: &Reader,
    tx: &DbTransaction<'_>,
    candidates: &[Candidate],
    duplicates_max: usize,
) -> Result<Vec<Card>, TransactionError> {
    let mains: Vec<i64> = candidates.iter().map(|candidate| candidate.main).collect();
    let pictures: Vec<i64> = candidates.iter().map(|candidate| candidate.picture).collect();
    let lines = image_lines(reader, tx, &EntrySelection::These(&mains))?;
    let mut lines: HashMap<i64, ImageLine> =
        lines.into_iter().map(|described| (described.entry, described.line)).collect();
    let totals = totals(tx, &pictures)?;
    let mut duplicates = duplicates(tx, &pictures, duplicates_max)?;
    let card = |candidate: &Candidate| {
        Some(Card {
            line: lines.remove(&candidate.main)?,
            duplicates: duplicates.remove(&candidate.picture).unwrap_or_default(),
            duplicates_total: totals.get(&candidate.picture).copied().unwrap_or(0),
        })
    };
    Ok(candidates.iter().filter_map(card).collect())
}

/// How many URLs are duplicates of each picture.
fn totals(tx: &DbTransaction<'_>, pictures: &[i64]) -> Result<HashMap<i64, i64>, TransactionError> {
    let sql = format!(
        "SELECT p.id, p.urls - 1 + p.behind + (SELECT CAST(coalesce(sum(q.urls + q.behind), 0) AS BIGINT)
            FROM pictures q WHERE q.representative = p.id AND q.representative <> q.id)
        FROM pictures p WHERE p.id IN ({})",
        numbers()
    );
    let totals = tx.list(&sql, &these(pictures), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(totals.into_iter().collect())
}

type Duplicates = HashMap<i64, Vec<(String, u32)>>;

/// The nearest duplicates of each picture.
fn duplicates(tx: &DbTransaction<'_>, pictures: &[i64], max: usize) -> Result<Duplicates, TransactionError> {
    let sql = format!(
        "SELECT leader, url, distance FROM (
            SELECT leader, url, distance, row_number() OVER (PARTITION BY leader ORDER BY distance, url) AS nth FROM (
                SELECT p.id AS leader, e.url, 0 AS distance FROM pictures p JOIN entries e ON e.picture = p.id
                    WHERE p.id IN ({0}) AND e.id <> p.main
                UNION ALL SELECT q.representative, e.url, q.distance FROM pictures q JOIN entries e ON e.picture = q.id
                    WHERE q.representative IN ({0}) AND q.representative <> q.id
            ) followers
        ) ordered WHERE nth <= ?{1} ORDER BY leader, nth",
        numbers(),
        THESE_MAX + 1
    );
    let mut values = these(pictures);
    values.push((max as i64).into());
    let mut duplicates = Duplicates::new();
    tx.each(&sql, &values, |row| {
        duplicates.entry(row.get(0)?).or_default().push((row.get(1)?, row.get(2)?));
        Ok(())
    })?;
    Ok(duplicates)
}

/// Examples of a failure, from the blocks that have some.
fn examples(
    reader: &Reader,
    tx: &DbTransaction<'_>,
    (failure, blocks): (&Failure, &[(Table, i64)]),
    max: usize,
) -> Result<Vec<(String, String)>, TransactionError> {
    let entries = format!(
        "SELECT e.url, e.detail FROM {} WHERE {FAILED_ENTRIES} AND e.kind = ?4 AND e.state = ?5
            AND coalesce(e.reason, '{UNKNOWN}') = ?6 ORDER BY e.id LIMIT ?7",
        ENTRIES.of(tx)
    );
    let pictures = format!(
        "SELECT m.url, p.detail FROM {} LEFT JOIN entries m ON m.id = p.main WHERE {FAILED_PICTURES}
            AND CAST(?4 AS TEXT) = 'image' AND p.state = ?5 AND p.reason = ?6 ORDER BY p.id LIMIT ?7",
        PICTURES.of(tx)
    );
    let mut examples = Vec::new();
    for (table, block) in blocks {
        let (first, last, left) = (block * BLOCK, (block + 1) * BLOCK, (max - examples.len()) as i64);
        let sql = if *table == Table::Entries { &entries } else { &pictures };
        let (kind, state, reason) = (failure.kind, failure.status.word(), &failure.reason);
        let values = values![reader.tenant_id(), first, last, kind, state, reason, left];
        examples.extend(tx.list(sql, values, |row| Ok((row.get(0)?, row.get::<Option<String>>(1)?)))?);
    }
    Ok(examples.into_iter().map(|(url, detail)| (url, detail.unwrap_or_default())).collect())
}
