//! Values of statements and cells of rows, the same for both databases.

use faceflow_core::record::{ContentId, Key};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use super::error::TransactionError;

/// A value for a statement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Int(i64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
    /// A key of an entry.
    Key([u8; 16]),
}

/// `values![a, b]`: what a statement's `?1` and `?2` stand for.
#[macro_export]
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::Value::from($value)),*] };
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
pub enum Row<'r> {
    /// Of a file.
    Sqlite(&'r rusqlite::Row<'r>),
    /// Of a server.
    Postgres(&'r tokio_postgres::Row),
}

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'r> {
    /// Nothing.
    Null,
    /// A number, or true or false.
    Int(i64),
    /// Text.
    Text(&'r str),
    /// Bytes.
    Blob(&'r [u8]),
}

impl Row<'_> {
    /// The value in a column, counted from 0.
    pub fn get<T: Column>(&self, column: usize) -> Result<T, TransactionError> {
        let cell = match self {
            Self::Sqlite(row) => match row.get_ref(column)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(value) => Cell::Int(value),
                ValueRef::Text(_) => Cell::Text(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?),
                ValueRef::Blob(bytes) => Cell::Blob(bytes),
                ValueRef::Real(_) => {
                    return Err(TransactionError::Damaged(format!("column {column} holds a real number")));
                }
            },
            Self::Postgres(row) => row.try_get(column)?,
        };
        let wrong = || TransactionError::Damaged(format!("column {column} holds {cell:?}, which is no {}", T::NAME));
        T::of(cell).ok_or_else(wrong)
    }
}

/// What a column can be read as.
pub trait Column: Sized {
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
