//! New rows of a file: several with one statement, because to run a statement costs about as much as to make a row.
//!
//! Not where rows go to pages all over the file, as keys that are hashes do: while a statement makes several rows, SQLite keeps what
//! every page was like that it changes, so as to take all of them back, and that costs more than the statements.

use rusqlite::{CachedStatement, Connection, params_from_iter};

use super::error::TransactionError;
use super::value::Value;

/// How many rows one statement makes; what is left over is made by the next smaller ones.
const SIZES: [usize; 3] = [32, 8, 1];

/// Where the rows of a table go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// Beside each other, for the most part.
    Together,
    /// To pages of their own.
    Apart,
}

/// `(?1, ?2), (?3, ?4)`: rows of values.
pub(super) fn places(columns: usize, rows: usize) -> String {
    let row = |row: usize| {
        let places = (1..=columns).map(|column| format!("?{}", row * columns + column));
        format!("({})", places.collect::<Vec<_>>().join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// Rows of one table that are being made.
pub(super) struct NewRows<'c, 's, 'v> {
    connection: &'c Connection,
    /// The statement that makes so many rows, and how many values each row has.
    sql: &'s dyn Fn(usize) -> String,
    width: usize,
    places: Places,
    /// Values of rows that are not made yet.
    waiting: Vec<Value<'v>>,
    prepared: [Option<CachedStatement<'c>>; SIZES.len()],
}

impl<'c, 's, 'v> NewRows<'c, 's, 'v> {
    pub fn new(connection: &'c Connection, sql: &'s dyn Fn(usize) -> String, width: usize, places: Places) -> Self {
        Self { connection, sql, width, places, waiting: vec![], prepared: [const { None }; SIZES.len()] }
    }

    /// One row more. Rows are made in the order in which they are added.
    pub fn add(&mut self, values: impl IntoIterator<Item = Value<'v>>) -> Result<(), TransactionError> {
        self.waiting.extend(values);
        let most = if self.places == Places::Apart { 1 } else { SIZES[0] };
        if self.waiting.len() < most * self.width { Ok(()) } else { self.finish() }
    }

    /// Makes what waits.
    pub fn finish(&mut self) -> Result<(), TransactionError> {
        let mut left = &self.waiting[..];
        for (size, prepared) in SIZES.into_iter().zip(&mut self.prepared) {
            if left.len() < size * self.width {
                continue;
            }
            if prepared.is_none() {
                *prepared = Some(self.connection.prepare_cached(&(self.sql)(size))?);
            }
            let Some(statement) = prepared else { continue };
            let rows = left.chunks_exact(size * self.width);
            left = rows.remainder();
            for rows in rows {
                statement.execute(params_from_iter(rows))?;
            }
        }
        self.waiting.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_made_in_order_however_many_there_are() {
        let connection = Connection::open_in_memory().expect("opens");
        connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT)").expect("makes");
        let sql = |rows| format!("INSERT INTO t (a, b) VALUES {}", places(2, rows));
        for count in [0, 1, 7, 8, 31, 32, 33, 74, 75] {
            connection.execute("DELETE FROM t", []).expect("empties");
            let names: Vec<String> = (0..count).map(|n| format!("row {n}")).collect();
            let places = if count % 2 == 0 { Places::Together } else { Places::Apart };
            let mut rows = NewRows::new(&connection, &sql, 2, places);
            for (n, name) in names.iter().enumerate() {
                rows.add([Value::Int(n as i64), name.into()]).expect("adds");
            }
            rows.finish().expect("makes");
            let mut found = connection.prepare("SELECT a, b FROM t ORDER BY id").expect("is SQL");
            let found = found.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).expect("asks");
            let found: Vec<(i64, String)> = found.collect::<Result<_, _>>().expect("reads");
            assert_eq!(found, names.into_iter().enumerate().map(|(n, name)| (n as i64, name)).collect::<Vec<_>>());
        }
    }
}
