//! The report's counts follow the log: what was touched since the last look is read again, a block at a time, each in a short
//! transaction. A process reads everything once, when it looks for the first time.

use std::collections::BTreeSet;
use std::ops::Range;

use faceflow_core::ledger::LedgerError;
use faceflow_ledger::Sql;
use faceflow_ledger::removed;
use faceflow_ledger::{DbTransaction, Row, values};
use faceflow_ledger::{EntryKind, StateText, TransactionError};
use faceflow_ledger::{Reader, Status};

use super::sums::{BLOCK, Best, Candidate, Faces, Failure, Failures, Table};

/// Blocks read in one transaction.
const RANGE: i64 = 64;
/// Lines of the log followed in one transaction.
const WINDOW: i64 = 50_000;

/// Everything counted, up to a position of the log.
pub struct Counts {
    /// The position, and when the fact there was written.
    seq: i64,
    pub at_ms: Option<i64>,
    pub failures: Failures,
    pub faces: Faces,
    pub best: Best,
}

impl Counts {
    /// Counts everything.
    pub fn all(reader: &Reader, shown_max: usize) -> Result<Self, LedgerError> {
        // What is written while this reads is followed later, whether it was seen already or not.
        let last = reader.read(|tx| last(reader, tx, 0))?;
        let (seq, at_ms) = last.map_or((0, None), |(seq, at_ms)| (seq, Some(at_ms)));
        let mut counts =
            Self { seq, at_ms, failures: Failures::default(), faces: Faces::default(), best: Best::new(shown_max) };
        for table in [Table::Entries, Table::Pictures] {
            counts.read_all(reader, table)?;
        }
        Ok(counts)
    }

    fn read_all(&mut self, reader: &Reader, table: Table) -> Result<(), LedgerError> {
        let end = match table {
            Table::Entries => "SELECT max(id) FROM entries",
            Table::Pictures => "SELECT max(id) FROM pictures",
        };
        let last = reader.read(|tx| tx.one(end, &[], |row| row.get::<Option<i64>>(0)))?.flatten();
        let blocks = last.map_or(0, |last| last / BLOCK + 1);
        for first in (0..blocks).step_by(RANGE as usize) {
            self.read(reader, table, first..(first + RANGE).min(blocks))?;
        }
        Ok(())
    }

    /// Brings the counts up to date. Returns whether anything was added to the log.
    pub fn follow(&mut self, reader: &Reader) -> Result<bool, LedgerError> {
        let Some((end, at_ms)) = reader.read(|tx| last(reader, tx, self.seq))? else { return Ok(false) };
        while self.seq < end {
            let upto = end.min(self.seq.saturating_add(WINDOW));
            let touched = reader.read(|tx| {
                let whole = removed(tx, reader.tenant_id())?.events <= self.seq;
                whole.then(|| touched(reader, tx, (self.seq, upto))).transpose()
            })?;
            // What was to be followed was removed meanwhile: everything is counted again.
            let Some(touched) = touched else {
                *self = Self::all(reader, self.best.kept_max() / 2)?;
                return Ok(true);
            };
            for (table, blocks) in touched {
                for range in runs(&blocks) {
                    self.read(reader, table, range)?;
                }
            }
            self.seq = upto;
        }
        self.at_ms = Some(at_ms);
        if self.best.shown().is_none() {
            self.best = Best::new(self.best.kept_max() / 2);
            self.read_all(reader, Table::Pictures)?;
        }
        Ok(true)
    }

    fn read(&mut self, reader: &Reader, table: Table, blocks: Range<i64>) -> Result<(), LedgerError> {
        let range = (blocks.start * BLOCK, blocks.end * BLOCK);
        match table {
            Table::Entries => {
                let failed = reader.read(|tx| failed_entries(reader, tx, range))?;
                self.failures.replace(table, blocks, failed);
            }
            Table::Pictures => {
                let kept_max = self.best.kept_max();
                let (failed, faces, best) = reader.read(|tx| {
                    let failed = failed_pictures(reader, tx, range)?;
                    Ok((failed, faces(reader, tx, range)?, best(reader, tx, range, kept_max)?))
                })?;
                self.failures.replace(table, blocks.clone(), failed);
                self.faces.replace(blocks.clone(), faces);
                self.best.replace(blocks, best);
            }
        }
        Ok(())
    }
}

/// The last fact of the tenant after a position, and when it was written.
pub(crate) const LAST: &str = "SELECT seq, at_ms FROM events WHERE tenant = ?1 AND seq > ?2 ORDER BY seq DESC LIMIT 1";

fn last(reader: &Reader, tx: &DbTransaction<'_>, after: i64) -> Result<Option<(i64, i64)>, TransactionError> {
    tx.one(LAST, values![reader.tenant_id(), after], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The blocks of which the facts in (`from`, `upto`] may have changed what is counted: of the entries they name, of the pictures
/// they name, and of the pictures that count those entries or the alternates which such an entry offers.
fn touched(
    reader: &Reader,
    tx: &DbTransaction<'_>,
    (from, upto): (i64, i64),
) -> Result<[(Table, BTreeSet<i64>); 2], TransactionError> {
    const NAMED: &str = "WITH named AS (
        SELECT entry AS id FROM events WHERE seq > ?1 AND seq <= ?2 AND tenant = ?3 AND entry IS NOT NULL
        UNION SELECT other FROM events WHERE seq > ?1 AND seq <= ?2 AND tenant = ?3 AND other IS NOT NULL AND kind <> 'assigned')";
    let entries = format!("{NAMED} SELECT DISTINCT id / {BLOCK} FROM named");
    let pictures = format!(
        "{NAMED} SELECT DISTINCT id / {BLOCK} FROM (
            SELECT picture AS id FROM events WHERE seq > ?1 AND seq <= ?2 AND tenant = ?3
            UNION SELECT other FROM events WHERE seq > ?1 AND seq <= ?2 AND tenant = ?3 AND kind = 'assigned'
            UNION SELECT e.picture FROM named n JOIN entries e ON e.id = n.id
            UNION SELECT f.picture FROM named n JOIN entries e ON e.id = n.id JOIN entries f ON f.id = e.primary_entry
            UNION SELECT f.picture FROM named n JOIN offers o ON o.image = n.id JOIN entries a ON a.id = o.alternate
                JOIN entries f ON f.id = a.primary_entry
        ) counted WHERE id IS NOT NULL"
    );
    let blocks = |sql: &str| -> Result<BTreeSet<i64>, TransactionError> {
        let blocks = tx.list(sql, values![from, upto, reader.tenant_id()], |row| row.get(0))?;
        Ok(blocks.into_iter().collect())
    };
    Ok([(Table::Entries, blocks(&entries)?), (Table::Pictures, blocks(&pictures)?)])
}

/// Blocks that follow each other, as ranges to read at once.
fn runs(blocks: &BTreeSet<i64>) -> Vec<Range<i64>> {
    let mut runs: Vec<Range<i64>> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(run) if run.end == *block && run.end - run.start < RANGE => run.end += 1,
            _ => runs.push(*block..*block + 1),
        }
    }
    runs
}

/// A range of rows is read by their numbers.
pub const ENTRIES: Sql = Sql::hinted("entries e NOT INDEXED", "entries e");
pub const PICTURES: Sql = Sql::hinted("pictures p NOT INDEXED", "pictures p");

/// The rows of a tenant (?1) in a range (?2 to before ?3) that failed.
pub const FAILED_ENTRIES: &str = "e.tenant = ?1 AND e.id >= ?2 AND e.id < ?3
    AND (e.state IN ('rejected', 'dead') OR e.state = 'open' AND e.reason IS NOT NULL)";
pub const FAILED_PICTURES: &str = "p.tenant = ?1 AND p.id >= ?2 AND p.id < ?3
    AND p.state <> 'settled' AND p.reason IS NOT NULL AND p.main IS NOT NULL AND coalesce(p.representative, p.id) = p.id";
/// What a failure is called that has no reason.
pub const UNKNOWN: &str = "unknown";

type FacesOfBlocks = Vec<(i64, (i64, i64))>;
type Failed = Vec<(i64, Failure, i64)>;

fn failed_entries(
    reader: &Reader,
    tx: &DbTransaction<'_>,
    (first, last): (i64, i64),
) -> Result<Failed, TransactionError> {
    let sql = format!(
        "SELECT e.id / {BLOCK}, e.kind, e.state, coalesce(e.reason, '{UNKNOWN}'), count(*) FROM {}
        WHERE {FAILED_ENTRIES} GROUP BY 1, 2, 3, 4",
        ENTRIES.of(tx)
    );
    tx.list(&sql, values![reader.tenant_id(), first, last], failed_at)
}

fn failed_pictures(
    reader: &Reader,
    tx: &DbTransaction<'_>,
    (first, last): (i64, i64),
) -> Result<Failed, TransactionError> {
    let sql = format!(
        "SELECT p.id / {BLOCK}, 'image', p.state, p.reason, CAST(sum(p.urls + p.behind) AS BIGINT) FROM {}
        WHERE {FAILED_PICTURES} GROUP BY 1, 2, 3, 4",
        PICTURES.of(tx)
    );
    tx.list(&sql, values![reader.tenant_id(), first, last], failed_at)
}

fn failed_at(row: &Row<'_>) -> Result<(i64, Failure, i64), TransactionError> {
    let status = Status::of_entry(row.get::<StateText>(2)?.0);
    let failure = Failure { status, kind: row.get::<EntryKind>(1)?, reason: row.get(3)? };
    Ok((row.get(0)?, failure, row.get(4)?))
}

/// Faces in pictures that stand for themselves, and those of them that have any.
fn faces(
    reader: &Reader,
    tx: &DbTransaction<'_>,
    (first, last): (i64, i64),
) -> Result<FacesOfBlocks, TransactionError> {
    let sql = format!(
        "SELECT p.id / {BLOCK}, CAST(sum(d.faces) AS BIGINT), count(*) FROM {}
        LEFT JOIN detections d ON d.picture = p.id
        WHERE p.tenant = ?1 AND p.id >= ?2 AND p.id < ?3 AND coalesce(p.representative, p.id) = p.id AND d.faces > 0
        GROUP BY 1",
        PICTURES.of(tx)
    );
    tx.list(&sql, values![reader.tenant_id(), first, last], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))
}

/// The pictures of a range with an answer of their own that come first in the report.
fn best(
    reader: &Reader,
    tx: &DbTransaction<'_>,
    (first, last): (i64, i64),
    max: usize,
) -> Result<Vec<Candidate>, TransactionError> {
    let sql = format!(
        "SELECT d.faces, e.url, e.id, p.id FROM {}
        LEFT JOIN detections d ON d.picture = p.id LEFT JOIN entries e ON e.id = p.main
        WHERE p.tenant = ?1 AND p.id >= ?2 AND p.id < ?3 AND p.state = 'settled'
            AND coalesce(p.representative, p.id) = p.id AND d.faces IS NOT NULL AND e.url IS NOT NULL
        ORDER BY d.faces DESC, e.url LIMIT ?4",
        PICTURES.of(tx)
    );
    tx.list(&sql, values![reader.tenant_id(), first, last, max as i64], |row| {
        Ok(Candidate { faces: row.get(0)?, url: row.get(1)?, main: row.get(2)?, picture: row.get(3)? })
    })
}
