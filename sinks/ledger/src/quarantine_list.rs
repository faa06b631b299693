//! What is in the quarantine: for people, and for driving it again.

use std::collections::HashSet;

use faceflow_core::ledger::LedgerError;
use faceflow_core::record::{ContentId, Key};
use url::Url;

use super::column_codecs::TransactionError;
use super::database::{DbTransaction, Row, values};
use super::log_record::LogRecord;
use super::quarantine::REASON;
use super::reader::Reader;
use super::transaction::LedgerTransaction;

/// A fact that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedFact {
    /// What kind of fact: `discovered`, `failed`, `stored`, `detected`, `assigned`; of what a page or source leads to, `page` or
    /// `image`.
    pub kind: String,
    /// The URL or picture that it is about.
    pub subject: String,
    /// Why it was refused.
    pub reason: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

const COLUMNS: &str = "kind, subject, reason, at_ms";

fn fact_at(row: &Row<'_>) -> Result<QuarantinedFact, TransactionError> {
    let subject = String::from_utf8_lossy(&row.get::<Vec<u8>>(1)?).into_owned();
    Ok(QuarantinedFact { kind: row.get(0)?, subject, reason: row.get(2)?, at_ms: row.get(3)? })
}

impl Reader {
    /// How many facts are in the quarantine.
    pub fn quarantined_count(&self) -> Result<u64, LedgerError> {
        let sql = "SELECT count(*) FROM quarantine WHERE tenant = ?1";
        self.read(|tx| Ok(tx.one(sql, values![self.tenant_id()], |row| row.get::<i64>(0))?.unwrap_or(0) as u64))
    }

    /// The latest facts in the quarantine, `max` at most.
    pub fn quarantined(&self, max: usize) -> Result<Vec<QuarantinedFact>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM quarantine WHERE tenant = ?1 ORDER BY at_ms DESC, id LIMIT ?2");
        self.read(|tx| tx.list(&sql, values![self.tenant_id(), max as i64], fact_at))
    }

    /// The facts in the quarantine about the page or image at `url`, or about its picture.
    pub fn quarantined_at(&self, url: &Url) -> Result<Vec<QuarantinedFact>, LedgerError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM quarantine WHERE tenant = ?1 AND (key = ?2 OR key = ?3 OR picture IN
                (SELECT picture FROM entries WHERE tenant = ?1 AND key = ?3 AND picture IS NOT NULL)) ORDER BY at_ms, id"
        );
        self.read(|tx| tx.list(&sql, values![self.tenant_id(), Key::page(url), Key::image(url)], fact_at))
    }
}

/// Keys of work that is open and not given out.
pub(super) fn withheld(tx: &DbTransaction<'_>, tenant: i64) -> Result<HashSet<Key>, TransactionError> {
    let sql = "SELECT key FROM quarantine WHERE tenant = ?1 AND withheld AND key IS NOT NULL";
    Ok(tx.list(sql, values![tenant], |row| row.get::<Key>(0))?.into_iter().collect())
}

/// A row to be done with.
pub(super) struct Releasable {
    pub id: ContentId,
    again: bool,
    /// The key of work that was not given out.
    withheld: Option<Key>,
    body: Vec<u8>,
}

/// The next rows after `after`, `max` at most; where URLs are named, those about them. Without those whose entry or picture is dead
/// because of them: it was not driven again, so they still say why; a picture that another stands for needs no answer of its own.
pub(super) fn releasable(
    tx: &DbTransaction<'_>,
    tenant: i64,
    (urls, after): (&[Url], Option<ContentId>),
    max: usize,
) -> Result<Vec<Releasable>, TransactionError> {
    let sql = format!(
        "SELECT q.id, q.again, q.body, q.key, q.withheld FROM quarantine q
        LEFT JOIN entries e ON e.id = q.entry LEFT JOIN pictures p ON p.id = q.picture
        WHERE q.tenant = ?1 AND q.id > ?2 AND NOT (coalesce(e.state, '') = 'dead' AND coalesce(e.reason, '') = '{REASON}')
            AND NOT (coalesce(p.state, '') = 'dead' AND coalesce(p.reason, '') = '{REASON}'
                AND coalesce(p.representative, p.id) = p.id)
        ORDER BY q.id"
    );
    let first = after.as_ref().map_or(&[][..], |id| &id.0[..]);
    let named: HashSet<Key> = urls.iter().flat_map(|url| [Key::page(url), Key::image(url)]).collect();
    if named.is_empty() {
        let sql = format!("{sql} LIMIT ?3");
        return tx.list(&sql, values![tenant, first, max as i64], releasable_at);
    }
    let mut rows = Vec::new();
    tx.each(&sql, values![tenant, first], |row| {
        if rows.len() < max && row.get::<Option<Key>>(3)?.is_some_and(|key| named.contains(&key)) {
            rows.push(releasable_at(row)?);
        }
        Ok(())
    })?;
    Ok(rows)
}

fn releasable_at(row: &Row<'_>) -> Result<Releasable, TransactionError> {
    let withheld = if row.get(4)? { row.get(3)? } else { None };
    Ok(Releasable { id: row.get(0)?, again: row.get(1)?, withheld, body: row.get(2)? })
}

impl LedgerTransaction<'_, '_> {
    /// Is done with rows of the quarantine: what was found is taken in after all, and what was withheld is given out. How much that
    /// is; a fact that could not be leads to nothing.
    pub fn release(&mut self, rows: Vec<Releasable>) -> Result<u64, TransactionError> {
        if rows.is_empty() {
            return Ok(0);
        }
        let damaged = |error| TransactionError::Damaged(format!("a fact of the quarantine: {error}"));
        for row in rows.iter().filter(|row| row.again) {
            let record: LogRecord<'static> = serde_json::from_slice(&row.body).map_err(damaged)?;
            self.take_in(record)?;
        }
        let ids: Vec<ContentId> = rows.iter().map(|row| row.id).collect();
        self.take_in(LogRecord::Released { ids })?;
        let given_out: HashSet<Key> = rows.iter().filter_map(|row| row.withheld).collect();
        Ok((rows.iter().filter(|row| row.again).count() + given_out.len()) as u64)
    }
}
