//! What rows name: the schema does not look at it as they are written, since that costs more than writing them, so the audit does.

use faceflow_core::tally::Violation;

use super::database::DbTransaction;
use super::error::TransactionError;
use super::value::values;

/// What does not hold if something that a row names is not there.
const NAMED: &str = "every row that is named is there";

/// A table, a column of it, and the table whose rows it names by their ids.
type Reference = (&'static str, &'static str, &'static str);

const REFERENCES: [Reference; 16] = [
    ("entries", "site", "sites"),
    ("entries", "picture", "pictures"),
    ("entries", "primary_entry", "entries"),
    ("pictures", "representative", "pictures"),
    ("pictures", "main", "entries"),
    ("detections", "picture", "pictures"),
    ("hashes", "picture", "pictures"),
    ("offers", "image", "entries"),
    ("offers", "alternate", "entries"),
    ("page_images", "image", "entries"),
    ("page_images", "page", "entries"),
    ("site_images", "site", "sites"),
    ("site_images", "image", "entries"),
    ("reorder_buffer", "site", "sites"),
    ("reorder_buffer", "page", "entries"),
    ("sites", "tenant", "tenants"),
];

/// Only on a server.
const OF_RUNS: [Reference; 2] = [("entries", "run", "runs"), ("pictures", "run", "runs")];

/// Rows that name what is not there, of any tenant: whose a row is may be what is missing.
pub(super) fn dangling(tx: &DbTransaction<'_>, keys_max: usize) -> Result<Option<Violation>, TransactionError> {
    let server = matches!(tx, DbTransaction::Postgres(_));
    let mut dangling = Vec::new();
    for (table, column, named) in REFERENCES.into_iter().chain(OF_RUNS.into_iter().filter(|_| server)) {
        let sql = format!(
            "SELECT t.{column} FROM {table} t LEFT JOIN {named} n ON n.id = t.{column}
            WHERE t.{column} IS NOT NULL AND n.id IS NULL LIMIT ?1"
        );
        let found = tx.list(&sql, values![keys_max as i64 + 1], |row| row.get::<i64>(0))?;
        dangling.extend(found.into_iter().map(|id| format!("{table}.{column} {id}")));
    }
    Ok(Violation::of(NAMED, dangling, keys_max))
}
