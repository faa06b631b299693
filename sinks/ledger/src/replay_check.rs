//! Rebuilding: all rows of a tenant from its log alone, through the same transitions, and how they differ from those that are there.
//!
//! Promise: where the log is whole, the rows that it leads to are the rows. Not part of that is who has what at the moment (runs,
//! leases, the holder of a row) and how far views have followed the log.

use faceflow_core::ledger::LedgerError;

use super::database::{Connection, DbTransaction};
use super::error::TransactionError;
use super::jobs;
use super::log_record::unpack;
use super::log_retention::removed;
use super::reader::Reader;
use super::sqlite;
use super::tallies::Tallies;
use super::transaction::{Context, LedgerTransaction};
use super::value::{Cell, Column, values};
use super::working_set::IdAllocators;

/// A table with the columns that follow from the log, of the tenant ?1, in an order.
struct Compared {
    table: &'static str,
    columns: &'static str,
    which: &'static str,
    order: &'static str,
}

const OF_SITE: &str = "site IN (SELECT id FROM sites WHERE tenant = ?1)";
const OF_IMAGE: &str = "image IN (SELECT id FROM entries WHERE tenant = ?1)";

const COMPARED: [Compared; 14] = [
    Compared {
        table: "sites",
        columns: "id, url, pages, images, sequences, removed, list",
        which: "tenant = ?1",
        order: "id",
    },
    Compared {
        table: "entries",
        columns: "id, key, kind, state, depth, attempts, uncounted, due_ms, picture, primary_entry, rank, site, url, final_url, \
            http_status, links, images, reason, detail, headers, skip, inline, job, queue, sequence, page_version, recrawl_ms, terminal_retry_ms, \
            version",
        which: "tenant = ?1",
        order: "id",
    },
    Compared {
        table: "pictures",
        columns: "id, content, state, bytes, format, width, height, attempts, uncounted, due_ms, reason, detail, \
            representative, distance, main, urls, behind, terminal_retry_ms, scale_ppm",
        which: "tenant = ?1",
        order: "id",
    },
    Compared {
        table: "detections",
        columns: "picture, faces, body",
        which: "picture IN (SELECT id FROM pictures WHERE tenant = ?1)",
        order: "picture",
    },
    Compared {
        table: "hashes",
        columns: "picture, kind, version, bits, distinctive",
        which: "picture IN (SELECT id FROM pictures WHERE tenant = ?1)",
        order: "picture, kind, version",
    },
    Compared { table: "offers", columns: "image, alternate, rank", which: OF_IMAGE, order: "image, alternate" },
    Compared { table: "page_images", columns: "image, page", which: OF_IMAGE, order: "image, page" },
    Compared { table: "site_images", columns: "site, image", which: OF_SITE, order: "site, image" },
    Compared {
        table: "reorder_buffer",
        columns: "site, sequence, page, body",
        which: OF_SITE,
        order: "site, sequence",
    },
    Compared {
        table: "tallies",
        columns: "kind, discovered, done, duplicate, rejected, dead, open",
        which: "tenant = ?1",
        order: "kind",
    },
    Compared {
        table: "hosts",
        columns: "job, queue, name, failures, since_ms, not_before_ms, given_up, class, reason, detail",
        which: "tenant = ?1",
        order: "job, queue",
    },
    Compared {
        table: "quarantine",
        columns: "id, kind, subject, key, job, entry, picture, withheld, again, reason, body, at_ms",
        which: "tenant = ?1",
        order: "id",
    },
    Compared { table: "jobs", columns: "number, name, priority", which: "tenant = ?1", order: "number" },
    Compared {
        table: "events",
        columns: "at_ms, kind, entry, picture, other, body",
        which: "tenant = ?1",
        order: "seq",
    },
];

/// Differences that are named of one table, at most.
const NAMED_MAX: usize = 5;

impl Reader {
    /// How the rows of this tenant differ from those that its log leads to: nothing, unless something is wrong. Holds all of them in
    /// memory, twice: for tests, and for the curious with small states.
    pub fn replay_differences(&self) -> Result<Vec<String>, LedgerError> {
        self.read(|tx| {
            let mut rebuilt = rebuild(tx, self.tenant_id())?;
            rebuilt.read(|rebuilt| {
                let mut differences = Vec::new();
                for compared in &COMPARED {
                    let (there, from_log) =
                        (compared.rows(tx, self.tenant_id())?, compared.rows(rebuilt, self.tenant_id())?);
                    differences.extend(compared.differences(&there, &from_log));
                }
                Ok(differences)
            })
        })
    }
}

/// An empty state in memory, into which the log of a tenant is replayed.
fn rebuild(tx: &DbTransaction<'_>, tenant: i64) -> Result<Connection, TransactionError> {
    let whole = "SELECT whole_log FROM tenants WHERE id = ?1";
    if tx.one(whole, values![tenant], |row| row.get::<bool>(0))? != Some(true) {
        let why = "the log of this tenant begins in the middle: the state was begun by an older faceflow";
        return Err(TransactionError::Stopped(why.to_owned()));
    }
    let gone = removed(tx, tenant)?;
    if gone.any() {
        let why = format!(
            "the log of this tenant begins after commit {} and event {}: what was older was removed (ledger.log_keep_ms), so its \
             rows cannot be rebuilt from it",
            gone.commits, gone.events
        );
        return Err(TransactionError::Stopped(why));
    }
    let mut memory = Connection::Sqlite(sqlite::in_memory()?);
    memory.write(|tx| {
        tx.run("INSERT INTO tenants (id, name) VALUES (?1, 'rebuilt')", values![tenant])?;
        jobs::add_default(tx, tenant)
    })?;
    let (mut tallies, others) = (Tallies::default(), Default::default());
    tx.each("SELECT at_ms, body FROM commits WHERE tenant = ?1 ORDER BY seq", values![tenant], |row| {
        let (header, records) = unpack(&row.get::<Vec<u8>>(1)?)?;
        let now_ms = row.get(0)?;
        let mut numbers = IdAllocators::replay(&header.entries, &header.pictures, &header.sites);
        memory.write(|tx| {
            let context = Context { tenant, run: None, others: &others, now_ms, resumed_max: header.resumed_max };
            let mut transaction = LedgerTransaction::new(tx, context, tallies, &mut numbers);
            records.into_iter().try_for_each(|record| transaction.take_in(record).map(drop))?;
            tallies = transaction.write()?;
            Ok(())
        })
    })?;
    Ok(memory)
}

impl Compared {
    /// Every row, as text.
    fn rows(&self, tx: &DbTransaction<'_>, tenant: i64) -> Result<Vec<String>, TransactionError> {
        let Self { table, columns, which, order } = self;
        let width = columns.split(',').count();
        let sql = format!("SELECT {columns} FROM {table} WHERE {which} ORDER BY {order}");
        let mut rows = Vec::new();
        tx.each(&sql, values![tenant], |row| {
            let cells = (0..width).map(|column| row.get::<Text>(column).map(|text| text.0));
            rows.push(cells.collect::<Result<Vec<_>, _>>()?.join(", "));
            Ok(())
        })?;
        Ok(rows)
    }

    fn differences(&self, there: &[String], from_log: &[String]) -> Vec<String> {
        let table = self.table;
        let mut differences = Vec::new();
        if there.len() != from_log.len() {
            differences.push(format!("{table}: {} rows, and {} from the log", there.len(), from_log.len()));
        }
        let differing = there.iter().zip(from_log).filter(|(there, from_log)| there != from_log);
        differences.extend(
            differing.take(NAMED_MAX).map(|(there, from_log)| format!("{table}: {there}; from the log: {from_log}")),
        );
        differences
    }
}

/// Whatever is in a cell, as text.
struct Text(String);

impl Column for Text {
    const NAME: &'static str = "value";

    fn of(cell: Cell<'_>) -> Option<Self> {
        Some(Self(match cell {
            Cell::Null => "-".to_owned(),
            Cell::Int(value) => value.to_string(),
            // A server does not store this one character.
            Cell::Text(text) => text.replace('\0', "\u{fffd}"),
            Cell::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        }))
    }
}
