//! Parameters of statements: single values, and whole columns as arrays in the binary format of the wire.

use std::error::Error as StdError;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::codec::{Owned, storable};
use crate::value::Value;

/// What stands for `$1` and so on.
#[derive(Debug)]
pub(crate) enum Parameter {
    One(Owned),
    Many(Array),
}

impl From<Value<'_>> for Parameter {
    fn from(value: Value<'_>) -> Self {
        Self::One(value.into())
    }
}

/// The values of one column, as they are sent.
#[derive(Debug, Default)]
pub(crate) struct Array {
    count: i32,
    nulls: bool,
    elements: Vec<u8>,
}

impl Array {
    /// These values.
    pub fn of(values: &[Value<'_>]) -> Self {
        let mut array = Self::default();
        values.iter().for_each(|value| array.push(value));
        array
    }

    /// One value more.
    pub fn push(&mut self, value: &Value<'_>) {
        self.count += 1;
        match value {
            Value::Null => {
                self.nulls = true;
                self.elements.extend((-1_i32).to_be_bytes());
            }
            Value::Bool(value) => self.element(&[u8::from(*value)]),
            Value::Int(value) => self.element(&value.to_be_bytes()),
            Value::Text(text) => self.element(storable(text).as_bytes()),
            Value::Blob(bytes) => self.element(bytes),
            Value::Key(bytes) => self.element(bytes),
        }
    }

    fn element(&mut self, bytes: &[u8]) {
        // A value of 2 GiB is refused long before by whoever makes it.
        self.elements.extend((bytes.len() as i32).to_be_bytes());
        self.elements.extend(bytes);
    }

    /// How many bytes it is.
    pub fn size(&self) -> usize {
        self.elements.len()
    }
}

impl ToSql for Array {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let element = match *kind {
            Type::INT8_ARRAY => Type::INT8,
            Type::BOOL_ARRAY => Type::BOOL,
            Type::TEXT_ARRAY => Type::TEXT,
            Type::BYTEA_ARRAY => Type::BYTEA,
            _ => return Err(format!("{kind} is no array of ours").into()),
        };
        // Dimensions (none for an empty array), whether there are nulls, what the elements are, how many, and from where.
        out.put_i32(i32::from(self.count > 0));
        out.put_i32(i32::from(self.nulls));
        out.put_u32(element.oid());
        if self.count > 0 {
            out.put_i32(self.count);
            out.put_i32(1);
            out.put_slice(&self.elements);
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl ToSql for Parameter {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Self::One(value) => ToSql::to_sql(value, kind, out),
            Self::Many(array) => ToSql::to_sql(array, kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
