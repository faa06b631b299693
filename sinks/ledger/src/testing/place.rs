//! Places for states: folders, and schemas of a PostgreSQL server that this process starts for itself.

use std::cell::Cell;
use std::path::Path;

use tempfile::TempDir;

use super::postgres::Server;
use crate::postgres::address::Address;
use crate::postgres::client::Client;
use crate::postgres::message::said;
use crate::postgres::server::Server as Known;
use crate::{DatabaseLedger, LedgerSettings, OpenError, Reader, StateLocation};

/// Which database a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

thread_local! {
    static DATABASE: Cell<Database> = const { Cell::new(Database::Sqlite) };
}

/// Runs a test over one database.
pub fn on(database: Database, test: fn()) {
    if database == Database::Postgres && Server::shared().is_none() {
        return;
    }
    DATABASE.set(database);
    test();
}

/// `both![a, b]`: the functions `a` and `b` are tests, over SQLite and over PostgreSQL.
#[macro_export]
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { $crate::testing::place::on($crate::testing::place::Database::Sqlite, super::$name) })*
        }
        mod postgres {
            $(#[test] fn $name() { $crate::testing::place::on($crate::testing::place::Database::Postgres, super::$name) })*
        }
    };
}

/// A place for one state, empty at first.
pub struct Home {
    /// What `--state` would say.
    pub name: String,
    _dir: Option<TempDir>,
}

impl Home {
    pub fn new() -> Self {
        if DATABASE.get() == Database::Postgres {
            return Self::on_server(Server::shared().expect("it was there when the test began"), "postgres");
        }
        let dir = tempfile::tempdir().expect("a folder");
        Self { name: dir.path().display().to_string(), _dir: Some(dir) }
    }

    /// A schema of its own, for this login.
    pub fn on_server(server: &Server, login: &str) -> Self {
        Self { name: server.schema(login), _dir: None }
    }

    /// A state on a server at this address.
    pub fn named(name: String) -> Self {
        Self { name, _dir: None }
    }

    pub fn place(&self) -> StateLocation {
        StateLocation::new(&self.name)
    }

    /// Which database it is in.
    pub fn database(&self) -> Database {
        if self._dir.is_some() { Database::Sqlite } else { Database::Postgres }
    }

    pub fn path(&self) -> &Path {
        Path::new(&self.name)
    }

    pub fn open(&self) -> DatabaseLedger {
        self.open_for("default").expect("opens")
    }

    pub fn open_for(&self, tenant: &str) -> Result<DatabaseLedger, OpenError> {
        DatabaseLedger::open(self.place(), tenant, &LedgerSettings::default())
    }

    pub fn reader(&self) -> Reader {
        Reader::open(self.place(), "default", &LedgerSettings::default()).expect("opens")
    }

    /// Runs statements beside every ledger; only on a server.
    pub fn sql(&self, statements: &str) {
        self.try_sql(statements).expect("runs");
    }

    pub fn try_sql(&self, statements: &str) -> Result<(), String> {
        self.connect().batch(statements).map_err(|error| said(&error))
    }

    #[cfg(test)]
    /// A connection that has every row of a table locked for as long as it lives.
    pub(crate) fn locked(&self, table: &str) -> Client {
        let client = self.connect();
        client.batch(&format!("BEGIN; SELECT * FROM {table} FOR UPDATE")).expect("locks");
        client
    }

    fn connect(&self) -> Client {
        let server = Known::new(Address::new(&self.name), &LedgerSettings::default()).expect("an address");
        server.connect().expect("connects")
    }
}
