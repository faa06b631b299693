//! The two databases that a ledger can be in, as transactions see them.
//!
//! Rows that facts change are read and written by `working_set/`, in the words of each database. What is asked here is the same for
//! both but for the name of a parameter: `?1` is `$1` on a server (`postgres/dialect.rs`, which also takes out which index a file is to
//! use). A [`DbTransaction`] is an open transaction: everything seen through it is of one moment, and what was written through it is there as
//! a whole or not at all.

use std::rc::Rc;

use rusqlite::{TransactionBehavior, params_from_iter};

use super::error::TransactionError;
use super::postgres::client::{Client, Pipeline};
pub(crate) use super::value::{Row, Value, values};

/// Planned once, whatever the values, and for looking up by keys. What an index has in order is not sorted again as a whole.
const BY_KEYS: &str =
    "SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true),
    set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
    set_config('enable_sort', 'off', true)";

/// A connection of either kind.
pub(super) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(Client),
}

impl Connection {
    /// Reads in one transaction.
    pub fn read<T>(
        &mut self,
        work: impl FnOnce(&DbTransaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        match self {
            Self::Sqlite(connection) => {
                let transaction = connection.transaction()?;
                let read = work(&DbTransaction::Sqlite(&transaction));
                transaction.finish()?;
                read
            }
            Self::Postgres(client) => client.read(|pipeline| work(&DbTransaction::Postgres(pipeline))),
        }
    }

    /// Writes in one transaction, which is rolled back if `work` fails.
    pub fn write<T>(
        &mut self,
        work: impl FnOnce(&DbTransaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        match self {
            Self::Sqlite(connection) => {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let written = work(&DbTransaction::Sqlite(&transaction))?;
                transaction.commit()?;
                Ok(written)
            }
            Self::Postgres(client) => client.write(|pipeline| work(&DbTransaction::Postgres(pipeline))),
        }
    }
}

/// An open transaction.
pub enum DbTransaction<'c> {
    /// Of a file.
    Sqlite(&'c rusqlite::Connection),
    /// On a server, which may answer later.
    Postgres(Rc<Pipeline<'c>>),
}

impl DbTransaction<'_> {
    /// Runs a statement. On a server it need not have answered yet; what it refuses is known before the commit.
    pub fn run(&self, sql: &str, values: &[Value<'_>]) -> Result<(), TransactionError> {
        match self {
            Self::Sqlite(_) => self.change(sql, values).map(drop),
            Self::Postgres(pipeline) => pipeline.run(sql, values),
        }
    }

    /// Runs a statement; how many rows it changed.
    pub fn change(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, TransactionError> {
        match self {
            Self::Sqlite(connection) => Ok(connection.prepare_cached(sql)?.execute(params_from_iter(values))? as u64),
            Self::Postgres(pipeline) => pipeline.change(sql, values),
        }
    }

    /// Inserts a row into a table that numbers its rows; its number.
    pub fn insert(&self, sql: &str, values: &[Value<'_>]) -> Result<i64, TransactionError> {
        match self {
            Self::Sqlite(connection) => {
                connection.prepare_cached(sql)?.execute(params_from_iter(values))?;
                Ok(connection.last_insert_rowid())
            }
            Self::Postgres(pipeline) => pipeline.insert(sql, values),
        }
    }

    /// One row or none.
    pub fn one<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T, TransactionError>,
    ) -> Result<Option<T>, TransactionError> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(params_from_iter(values))?;
                rows.next()?.map(|row| read(&Row::Sqlite(row))).transpose()
            }
            Self::Postgres(pipeline) => pipeline.one(sql, values)?.map(|row| read(&Row::Postgres(&row))).transpose(),
        }
    }

    /// Calls `each` with every row, a few of which are in memory at a time. `each` may ask for more through this moment.
    pub fn each(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut each: impl FnMut(&Row<'_>) -> Result<(), TransactionError>,
    ) -> Result<(), TransactionError> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(params_from_iter(values))?;
                while let Some(row) = rows.next()? {
                    each(&Row::Sqlite(row))?;
                }
                Ok(())
            }
            Self::Postgres(pipeline) => pipeline.each(sql, values, &mut |row| each(&Row::Postgres(row))),
        }
    }

    /// Every row, of which there are few.
    pub fn list<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Result<T, TransactionError>,
    ) -> Result<Vec<T>, TransactionError> {
        let mut list = Vec::new();
        match self {
            Self::Sqlite(_) => self.each(sql, values, |row| {
                list.push(read(row)?);
                Ok(())
            })?,
            Self::Postgres(pipeline) => {
                for row in pipeline.all(sql, values)? {
                    list.push(read(&Row::Postgres(&row))?);
                }
            }
        }
        Ok(list)
    }

    /// Runs statements without values, separated by semicolons.
    pub fn batch(&self, sql: &str) -> Result<(), TransactionError> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Self::Postgres(pipeline) => pipeline.batch(sql),
        }
    }

    /// From here to the end of the transaction, rows that others name are looked up by their keys, as a file does anyway: a server
    /// would rather read a whole table to find the few hundred rows of it that a page of lines names.
    pub fn look_up_by_keys(&self) -> Result<(), TransactionError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(pipeline) => pipeline.run(BY_KEYS, &[]),
        }
    }

    /// When it is, by the database's clock, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> Result<i64, TransactionError> {
        let now = match self {
            Self::Sqlite(_) => "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Self::Postgres(_) => "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        };
        Ok(self.one(now, &[], |row| row.get(0))?.unwrap_or(0))
    }
}
