//! The two databases that a ledger can be in, as the books need them: one dialect of statements, values of five kinds.
//!
//! Statements are written as SQLite takes them; what PostgreSQL says otherwise is put right in `postgres/dialect.rs` and
//! nowhere else. A [`Moment`] is an open transaction: everything seen through it is of one moment, and what was written
//! through it is there as a whole or not at all.

use faceflow_core::record::{ContentId, Key};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{TransactionBehavior, params_from_iter};

use super::postgres::client::{Client, Window};
use super::rows::Trouble;

/// A connection of either kind.
pub(super) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(Client),
}

impl Connection {
    /// Reads in one transaction.
    pub fn read<T>(&mut self, work: impl FnOnce(&Moment<'_>) -> Result<T, Trouble>) -> Result<T, Trouble> {
        match self {
            Self::Sqlite(connection) => {
                let transaction = connection.transaction()?;
                let read = work(&Moment::Sqlite(&transaction));
                transaction.finish()?;
                read
            }
            Self::Postgres(client) => client.read(work),
        }
    }

    /// Writes in one transaction, which is rolled back if `work` fails.
    pub fn write<T>(&mut self, work: impl FnOnce(&Moment<'_>) -> Result<T, Trouble>) -> Result<T, Trouble> {
        match self {
            Self::Sqlite(connection) => {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let written = work(&Moment::Sqlite(&transaction))?;
                transaction.commit()?;
                Ok(written)
            }
            Self::Postgres(client) => client.write(work),
        }
    }
}

/// An open transaction.
pub(crate) enum Moment<'c> {
    Sqlite(&'c rusqlite::Connection),
    Postgres(Window<'c>),
}

impl Moment<'_> {
    /// Runs a statement. On a server it need not have answered yet; what it refuses is known before the commit.
    pub fn run(&self, sql: &str, values: &[Value<'_>]) -> Result<(), Trouble> {
        match self {
            Self::Sqlite(_) => self.change(sql, values).map(drop),
            Self::Postgres(window) => window.run(sql, values),
        }
    }

    /// Runs a statement; how many rows it changed.
    pub fn change(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, Trouble> {
        match self {
            Self::Sqlite(connection) => Ok(connection.prepare_cached(sql)?.execute(params_from_iter(values))? as u64),
            Self::Postgres(window) => window.change(sql, values),
        }
    }

    /// Inserts a row into a table that numbers its rows; its number.
    pub fn insert(&self, sql: &str, values: &[Value<'_>]) -> Result<i64, Trouble> {
        match self {
            Self::Sqlite(connection) => {
                connection.prepare_cached(sql)?.execute(params_from_iter(values))?;
                Ok(connection.last_insert_rowid())
            }
            Self::Postgres(window) => window.insert(sql, values),
        }
    }

    /// One row or none.
    pub fn one<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T, Trouble>,
    ) -> Result<Option<T>, Trouble> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(params_from_iter(values))?;
                rows.next()?.map(|row| read(&Row::Sqlite(row))).transpose()
            }
            Self::Postgres(window) => window.one(sql, values)?.map(|row| read(&Row::Postgres(&row))).transpose(),
        }
    }

    /// Calls `each` with every row, a few of which are in memory at a time. `each` may ask for more through this moment.
    pub fn each(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut each: impl FnMut(&Row<'_>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(params_from_iter(values))?;
                while let Some(row) = rows.next()? {
                    each(&Row::Sqlite(row))?;
                }
                Ok(())
            }
            Self::Postgres(window) => window.each(sql, values, &mut |row| each(&Row::Postgres(row))),
        }
    }

    /// Every row, of which there are few.
    pub fn list<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Result<T, Trouble>,
    ) -> Result<Vec<T>, Trouble> {
        let mut list = Vec::new();
        match self {
            Self::Sqlite(_) => self.each(sql, values, |row| {
                list.push(read(row)?);
                Ok(())
            })?,
            Self::Postgres(window) => {
                for row in window.all(sql, values)? {
                    list.push(read(&Row::Postgres(&row))?);
                }
            }
        }
        Ok(list)
    }

    /// Runs statements without values, separated by semicolons.
    pub fn batch(&self, sql: &str) -> Result<(), Trouble> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Self::Postgres(window) => window.batch(sql),
        }
    }

    /// When it is, by the database's clock, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> Result<i64, Trouble> {
        let now = match self {
            Self::Sqlite(_) => "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Self::Postgres(_) => "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        };
        Ok(self.one(now, &[], |row| row.get(0))?.unwrap_or(0))
    }

    /// A condition, with its `AND`, that is true of rows which no other living run holds or tries just now. A file has one writer.
    pub fn free(&self, alias: &str) -> String {
        match self {
            Self::Sqlite(_) => String::new(),
            Self::Postgres(_) => format!(
                " AND held_elsewhere({alias}.run) IS NOT TRUE AND is_tried({alias}.revive_ms, {alias}.tenant) IS NOT TRUE"
            ),
        }
    }
}

/// A value for a statement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
    Key([u8; 16]),
}

/// `values![a, b]`: what a statement's `?1` and `?2` stand for.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::ledger::database::Value::from($value)),*] };
}
pub(crate) use values;

macro_rules! becomes {
    ($($from:ty, $value:ident => $into:expr;)*) => {$(
        impl<'a> From<$from> for Value<'a> {
            fn from($value: $from) -> Self {
                $into
            }
        }
    )*};
}
becomes! {
    bool, value => Self::Bool(value);
    i64, value => Self::Int(value);
    u32, value => Self::Int(value.into());
    u16, value => Self::Int(value.into());
    &'a str, value => Self::Text(value);
    &'a String, value => Self::Text(value);
    &'a [u8], value => Self::Blob(value);
    &'a ContentId, value => Self::Blob(&value.0);
    Key, value => Self::Key(value.0.to_be_bytes());
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Bool(value) => ValueRef::Integer((*value).into()),
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
            Self::Key(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A row of an answer.
pub(crate) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r tokio_postgres::Row),
}

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell<'r> {
    Null,
    Int(i64),
    Text(&'r str),
    Blob(&'r [u8]),
}

impl Row<'_> {
    /// The value in a column, counted from 0.
    pub fn get<T: Column>(&self, column: usize) -> Result<T, Trouble> {
        let cell = match self {
            Self::Sqlite(row) => match row.get_ref(column)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(value) => Cell::Int(value),
                ValueRef::Text(_) => Cell::Text(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?),
                ValueRef::Blob(bytes) => Cell::Blob(bytes),
                ValueRef::Real(_) => return Err(Trouble::Damaged(format!("column {column} holds a real number"))),
            },
            Self::Postgres(row) => row.try_get(column)?,
        };
        let wrong = || Trouble::Damaged(format!("column {column} holds {cell:?}, which is no {}", T::NAME));
        T::of(cell).ok_or_else(wrong)
    }
}

/// What a column can be read as.
pub(crate) trait Column: Sized {
    /// For messages.
    const NAME: &'static str;

    /// `None` if that is not what the cell holds.
    fn of(cell: Cell<'_>) -> Option<Self>;
}

macro_rules! column {
    ($($type:ty: $pattern:pat => $read:expr;)*) => {$(
        impl Column for $type {
            const NAME: &'static str = stringify!($type);

            fn of(cell: Cell<'_>) -> Option<Self> {
                match cell {
                    $pattern => $read,
                    _ => None,
                }
            }
        }
    )*};
}

column! {
    i64: Cell::Int(value) => Some(value);
    u32: Cell::Int(value) => value.try_into().ok();
    u16: Cell::Int(value) => value.try_into().ok();
    bool: Cell::Int(value) => Some(value != 0);
    String: Cell::Text(text) => Some(text.to_owned());
    Vec<u8>: Cell::Blob(bytes) => Some(bytes.to_owned());
    Key: Cell::Blob(bytes) => Some(Self(u128::from_be_bytes(bytes.try_into().ok()?)));
    ContentId: Cell::Blob(bytes) => Some(Self(bytes.try_into().ok()?));
}

impl<T: Column> Column for Option<T> {
    const NAME: &'static str = T::NAME;

    fn of(cell: Cell<'_>) -> Option<Self> {
        match cell {
            Cell::Null => Some(None),
            cell => T::of(cell).map(Some),
        }
    }
}
