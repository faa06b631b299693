//! Writing what changed: by few statements to a file, by arrays to a server, where no statement waits for the answer to another.

use std::hash::Hash;

use rusqlite::params_from_iter;

use super::WorkingSet;
use super::row_statements::{Dialect, RowShape, Statement};
use super::rows::{HashId, HostKey, Stored};
use super::table::{Table, Write};
use crate::database::DbTransaction;
use crate::error::TransactionError;
use crate::new_rows::NewRows;
use crate::postgres::array::{Array, Parameter};
use crate::postgres::client::Pipeline;
use crate::value::Value;

/// Bytes of one statement, about: several are sent where there is more.
const BATCH_BYTES: usize = 4 << 20;

impl WorkingSet<'_, '_> {
    /// Writes everything that the facts so far have changed.
    pub fn flush(&mut self) -> Result<(), TransactionError> {
        let (tx, tenant) = (self.tx, self.tenant);
        write(tx, tenant, &mut self.sites)?;
        write(tx, tenant, &mut self.entries)?;
        write(tx, tenant, &mut self.pictures)?;
        write(tx, tenant, &mut self.hashes)?;
        write(tx, tenant, &mut self.page_images)?;
        write(tx, tenant, &mut self.site_images)?;
        write(tx, tenant, &mut self.offers)?;
        write(tx, tenant, &mut self.buffered)?;
        write(tx, tenant, &mut self.detections)?;
        write(tx, tenant, &mut self.hosts)?;
        // These only say where rows are.
        self.entry_keys.written(|_| ());
        self.contents.written(|_| ());
        self.site_keys.written(|_| ());
        Ok(())
    }

    /// Writes everything, then forgets all entries: statements that change many of them are about to run. The current fact is
    /// accepted with that.
    pub fn flush_and_forget_entries(&mut self) -> Result<(), TransactionError> {
        self.accept();
        self.flush()?;
        self.entries.forget();
        self.entry_keys.forget();
        Ok(())
    }
}

fn write<K: RowKey, V: Stored<K> + Clone>(
    tx: &DbTransaction<'_>,
    tenant: i64,
    table: &mut Table<K, V>,
) -> Result<(), TransactionError> {
    match tx {
        DbTransaction::Sqlite(connection) => write_rows(connection, tenant, table)?,
        DbTransaction::Postgres(pipeline) => write_arrays(pipeline, tenant, table)?,
    }
    table.written(V::clean);
    Ok(())
}

/// Keys as the values of the columns that they are in.
pub(super) trait RowKey: Copy + Eq + Hash {
    fn values(self) -> Vec<Value<'static>>;
}

impl RowKey for i64 {
    fn values(self) -> Vec<Value<'static>> {
        vec![self.into()]
    }
}

impl RowKey for (i64, i64) {
    fn values(self) -> Vec<Value<'static>> {
        vec![self.0.into(), self.1.into()]
    }
}

impl RowKey for HostKey {
    fn values(self) -> Vec<Value<'static>> {
        vec![self.0.into(), self.1.into(), self.2.into()]
    }
}

impl RowKey for HashId {
    fn values(self) -> Vec<Value<'static>> {
        vec![self.0.into(), self.1.name().into(), self.2.into()]
    }
}

/// All values of a row and its mask, of which a statement takes some; `values` is emptied first.
fn row_values<'t, K, V: Stored<K>>(key: &'t K, value: &'t V, tenant: i64, values: &mut Vec<Value<'t>>) {
    values.clear();
    value.values(key, tenant, values);
    values.push(Value::Int(value.mask()));
}

/// A statement on a file, prepared when it is needed.
struct Prepared<'c> {
    connection: &'c rusqlite::Connection,
    make: fn(&RowShape, Dialect) -> Statement,
    ready: Option<(rusqlite::CachedStatement<'c>, Vec<usize>)>,
}

impl<'c> Prepared<'c> {
    fn new(connection: &'c rusqlite::Connection, make: fn(&RowShape, Dialect) -> Statement) -> Self {
        Self { connection, make, ready: None }
    }

    fn run(&mut self, shape: &RowShape, values: &[Value<'_>]) -> Result<(), TransactionError> {
        let (statement, takes) = match &mut self.ready {
            Some(ready) => ready,
            ready => {
                let Statement { sql, takes } = (self.make)(shape, Dialect::Sqlite);
                ready.insert((self.connection.prepare_cached(&sql)?, takes))
            }
        };
        statement.execute(params_from_iter(takes.iter().map(|n| values[*n])))?;
        Ok(())
    }
}

fn write_rows<K: RowKey, V: Stored<K> + Clone>(
    connection: &rusqlite::Connection,
    tenant: i64,
    table: &Table<K, V>,
) -> Result<(), TransactionError> {
    let [mut update, mut delete] = [RowShape::update, RowShape::delete].map(|make| Prepared::new(connection, make));
    let takes = V::SHAPE.insert(Dialect::Sqlite, 1).takes;
    let insert = |rows| V::SHAPE.insert(Dialect::Sqlite, rows).sql;
    let mut inserts = NewRows::new(connection, &insert, takes.len(), V::SHAPE.places);
    let mut values = Vec::with_capacity(V::SHAPE.width());
    for change in table.writes() {
        match change {
            Write::Insert(key, value) => {
                row_values(key, value, tenant, &mut values);
                inserts.add(takes.iter().map(|n| values[*n]))?;
            }
            Write::Update(key, value) => {
                row_values(key, value, tenant, &mut values);
                update.run(&V::SHAPE, &values)?;
            }
            Write::Delete(key) => delete.run(&V::SHAPE, &key.values())?,
        }
    }
    inserts.finish()
}

/// Rows that one statement is to write, column by column.
struct Batch {
    statement: Statement,
    arrays: Vec<Array>,
}

impl Batch {
    fn new(statement: Statement) -> Self {
        let arrays = statement.takes.iter().map(|_| Array::default()).collect();
        Self { statement, arrays }
    }

    /// One row more; what there is is sent once it is much.
    fn add(&mut self, pipeline: &Pipeline<'_>, values: &[Value<'_>]) -> Result<(), TransactionError> {
        for (array, n) in self.arrays.iter_mut().zip(&self.statement.takes) {
            array.push(&values[*n]);
        }
        if self.arrays.iter().map(Array::size).sum::<usize>() < BATCH_BYTES { Ok(()) } else { self.send(pipeline) }
    }

    fn send(&mut self, pipeline: &Pipeline<'_>) -> Result<(), TransactionError> {
        if self.arrays.first().is_none_or(|array| array.size() == 0) {
            return Ok(());
        }
        let arrays = self.arrays.iter_mut().map(|array| Parameter::Many(std::mem::take(array)));
        pipeline.send(&self.statement.sql, arrays.collect())
    }
}

fn write_arrays<K: RowKey, V: Stored<K> + Clone>(
    pipeline: &Pipeline<'_>,
    tenant: i64,
    table: &Table<K, V>,
) -> Result<(), TransactionError> {
    let insert = V::SHAPE.insert(Dialect::Postgres, 1);
    let statements = [insert, V::SHAPE.update(Dialect::Postgres), V::SHAPE.delete(Dialect::Postgres)];
    let mut batches = statements.map(Batch::new);
    let [insert, update, delete] = &mut batches;
    let mut values = Vec::with_capacity(V::SHAPE.width());
    for change in table.writes() {
        match change {
            Write::Insert(key, value) => {
                row_values(key, value, tenant, &mut values);
                insert.add(pipeline, &values)?;
            }
            Write::Update(key, value) => {
                row_values(key, value, tenant, &mut values);
                update.add(pipeline, &values)?;
            }
            Write::Delete(key) => delete.add(pipeline, &key.values())?,
        }
    }
    batches.iter_mut().try_for_each(|batch| batch.send(pipeline))
}
