//! What the report shows, read from the ledger in one moment. Bounded by the settings, however large the ledger.

use std::collections::BTreeMap;

use faceflow_core::ledger::LedgerError;
use faceflow_core::tally::Tally;

use super::ReportSettings;
use crate::explain::as_text;
use crate::ledger::database::{Moment, Row, values};
use crate::ledger::rows::{EntryKind, Trouble, Word};
use crate::ledger::{Reader, Status};
use crate::lines::{ImageLine, image_line};

/// Kinds of failure told apart; reasons are words of ours, so there are far fewer.
const GROUPS_MAX: usize = 200;

/// Everything the report shows.
pub struct Found {
    pub tenant: String,
    /// When the last fact was written, UTC.
    pub as_of: Option<String>,
    pub pages: Tally,
    pub images: Tally,
    /// Faces in pictures that stand for themselves.
    pub faces: i64,
    /// Those pictures that have any.
    pub with_faces: i64,
    pub cards: Vec<Card>,
    pub failures: BTreeMap<Failure, Group>,
}

/// A picture with its duplicates.
pub struct Card {
    pub line: ImageLine,
    /// URL and distance in bits.
    pub duplicates: Vec<(String, u32)>,
    pub duplicates_total: i64,
}

/// One kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    pub status: Status,
    pub kind: &'static str,
    pub reason: String,
}

/// How often it happened, with examples.
#[derive(Default)]
pub struct Group {
    pub count: i64,
    /// URL to detail: the smallest URLs.
    pub examples: BTreeMap<String, String>,
}

pub fn gather(reader: &Reader, settings: &ReportSettings) -> Result<Found, LedgerError> {
    let (pages, images) = reader.tally()?;
    reader.read(|moment| {
        let tenant = reader.tenant_id();
        let as_of = "SELECT at_ms FROM facts WHERE seq = (SELECT max(seq) FROM facts)";
        let as_of = moment.one(as_of, &[], |row| row.get(0))?.map(as_text);
        let faces = "SELECT CAST(coalesce(sum(d.faces), 0) AS BIGINT), count(*) FILTER (WHERE d.faces > 0)
            FROM pictures p JOIN detections d ON d.picture = p.id
            WHERE p.tenant = ?1 AND coalesce(p.representative, p.id) = p.id";
        let counted = moment.one(faces, values![tenant], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (faces, with_faces) = counted.unwrap_or_default();
        Ok(Found {
            tenant: reader.tenant().to_owned(),
            // To the minute.
            as_of: as_of.map(|at: String| at.chars().take(16).collect()),
            pages,
            images,
            faces,
            with_faces,
            cards: cards(reader, moment, settings)?,
            failures: failures(reader, moment, settings)?,
        })
    })
}

fn cards(reader: &Reader, moment: &Moment<'_>, settings: &ReportSettings) -> Result<Vec<Card>, Trouble> {
    let sql =
        "SELECT p.id, p.main FROM pictures p JOIN detections d ON d.picture = p.id JOIN entries e ON e.id = p.main
        WHERE p.tenant = ?1 AND p.state = 'settled' AND coalesce(p.representative, p.id) = p.id
        ORDER BY d.faces DESC, e.url LIMIT ?2";
    moment.list(sql, values![reader.tenant_id(), settings.images_max as i64], |row| {
        let (picture, main): (i64, i64) = (row.get(0)?, row.get(1)?);
        let line = image_line(reader, moment, main)?;
        let total = "SELECT p.urls - 1 + p.behind
            + (SELECT CAST(coalesce(sum(q.urls + q.behind), 0) AS BIGINT) FROM pictures q WHERE q.representative = p.id AND q.representative <> q.id)
            FROM pictures p WHERE p.id = ?1";
        let duplicates_total = moment.one(total, values![picture], |row| row.get(0))?.unwrap_or(0);
        let duplicates = duplicates(moment, (picture, main), settings.examples_max)?;
        Ok(Card { line, duplicates, duplicates_total })
    })
}

fn duplicates(moment: &Moment<'_>, (picture, main): (i64, i64), max: usize) -> Result<Vec<(String, u32)>, Trouble> {
    let sql = "SELECT e.url, 0 AS distance FROM entries e WHERE e.picture = ?1 AND e.id <> ?2
        UNION ALL SELECT e.url, q.distance FROM pictures q JOIN entries e ON e.picture = q.id
            WHERE q.representative = ?1 AND q.representative <> q.id
        ORDER BY distance, url LIMIT ?3";
    moment.list(sql, values![picture, main, max as i64], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn failures(
    reader: &Reader,
    moment: &Moment<'_>,
    settings: &ReportSettings,
) -> Result<BTreeMap<Failure, Group>, Trouble> {
    let entries = "SELECT kind, state, reason, detail, url, 1 FROM entries
        WHERE tenant = ?1 AND (state IN ('rejected', 'dead') OR state = 'open' AND reason IS NOT NULL)";
    let pictures = "SELECT 'image', p.state, p.reason, p.detail, e.url, p.urls + p.behind
        FROM pictures p JOIN entries e ON e.id = p.main
        WHERE p.tenant = ?1 AND p.state <> 'settled' AND p.reason IS NOT NULL AND coalesce(p.representative, p.id) = p.id";
    let mut groups = BTreeMap::new();
    for sql in [entries, pictures] {
        moment.each(sql, values![reader.tenant_id()], |row| sort_in(&mut groups, row, settings.examples_max))?;
    }
    Ok(groups)
}

fn sort_in(groups: &mut BTreeMap<Failure, Group>, row: &Row<'_>, max: usize) -> Result<(), Trouble> {
    let kind = row.get::<EntryKind>(0)?.word();
    let status = Status::of_entry(row.get::<Word>(1)?.0);
    let reason = row.get::<Option<String>>(2)?.unwrap_or_else(|| "unknown".to_owned());
    let mut failure = Failure { status, kind, reason };
    if groups.len() >= GROUPS_MAX && !groups.contains_key(&failure) {
        failure.reason = "other".to_owned();
    }
    let group = groups.entry(failure).or_default();
    group.count += row.get::<i64>(5)?;
    group.examples.insert(row.get(4)?, row.get::<Option<String>>(3)?.unwrap_or_default());
    if group.examples.len() > max {
        group.examples.pop_last();
    }
    Ok(())
}
