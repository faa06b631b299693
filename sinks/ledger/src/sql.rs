//! A piece of a statement where SQLite and PostgreSQL want different words.

use super::database::DbTransaction;

/// The same question to both databases.
#[derive(Clone, Copy, Debug)]
pub struct Sql {
    /// To SQLite.
    pub sqlite: &'static str,
    /// To PostgreSQL.
    pub postgres: &'static str,
}

impl Sql {
    /// For an index that SQLite is told to use, or not to use any: a server finds out for itself.
    pub const fn hinted(sqlite: &'static str, postgres: &'static str) -> Self {
        Self { sqlite, postgres }
    }

    /// The words for the database of this transaction.
    pub fn of(self, tx: &DbTransaction<'_>) -> &'static str {
        match tx {
            DbTransaction::Sqlite(_) => self.sqlite,
            DbTransaction::Postgres(_) => self.postgres,
        }
    }
}
