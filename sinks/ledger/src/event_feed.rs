//! Events: what happened to which entry or picture, in order, for people and for views that follow it. They follow from the records of
//! the log (`log_record.rs`), like every row.

use super::database::DbTransaction;
use super::error::TransactionError;
use super::new_rows::{NewRows, Places, places};
use super::postgres::array::{Array, Parameter};
use super::value::values;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EventRow {
    pub kind: &'static str,
    /// The URL it is about.
    pub entry: Option<i64>,
    /// The picture it is about.
    pub picture: Option<i64>,
    /// The page that led there, the entry stood behind, or the representative.
    pub other: Option<i64>,
    pub body: Option<String>,
}

/// The rows that a transaction adds.
#[derive(Default)]
pub(super) struct EventFeed(Vec<EventRow>);

impl EventFeed {
    pub fn push(&mut self, row: EventRow) {
        self.0.push(row);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Writes them in order. On a server their numbers are taken from a sequence in that order.
    pub fn write(&self, tx: &DbTransaction<'_>, tenant: i64, at_ms: i64) -> Result<(), TransactionError> {
        match tx {
            DbTransaction::Sqlite(connection) => {
                let sql = |rows| {
                    let places = places(7, rows);
                    format!("INSERT INTO events (tenant, at_ms, kind, entry, picture, other, body) VALUES {places}")
                };
                let mut rows = NewRows::new(connection, &sql, 7, Places::Together);
                for EventRow { kind, entry, picture, other, body } in &self.0 {
                    let row = values![tenant, at_ms, *kind, *entry, *picture, *other, body.as_deref()];
                    rows.add(row.iter().copied())?;
                }
                rows.finish()
            }
            DbTransaction::Postgres(window) => {
                let sql = "INSERT INTO events (tenant, at_ms, kind, entry, picture, other, body)
                    SELECT $1::bigint, $2::bigint, unnest($3::text[]), unnest($4::bigint[]), unnest($5::bigint[]),
                        unnest($6::bigint[]), unnest($7::text[])";
                let mut arrays: [Array; 5] = Default::default();
                for EventRow { kind, entry, picture, other, body } in &self.0 {
                    let row = values![*kind, *entry, *picture, *other, body.as_deref()];
                    arrays.iter_mut().zip(row).for_each(|(array, value)| array.push(value));
                }
                let [tenant, at_ms] = values![tenant, at_ms].each_ref().map(|value| Parameter::from(*value));
                let parameters = [tenant, at_ms].into_iter().chain(arrays.map(Parameter::Many));
                window.send(sql, parameters.collect())
            }
        }
    }
}
