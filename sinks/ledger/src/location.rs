//! Where a state is: a folder of this machine, or a database of a server. The one place that tells them apart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use faceflow_core::fsync::sync_entries;

use super::database::Connection;
use super::error::TransactionError;
use super::lock::{StateLock, WriteLockGuard, unwritable};
use super::postgres::address::Address;
use super::postgres::lease::Lease;
use super::postgres::server::Server;
use super::sqlite::SqliteBackend;
use super::{Durability, LedgerSettings, OpenError};

/// What `--state` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateLocation {
    /// A folder: SQLite, one writing process at a time.
    Folder(PathBuf),
    /// `postgres://…`: PostgreSQL, any number of processes.
    Server(Address),
}

impl StateLocation {
    /// What `text` names: `postgres://` and `postgresql://` a server, anything else a folder.
    pub fn new(text: &str) -> Self {
        if Address::is_one(text) { Self::Server(Address::new(text)) } else { Self::Folder(text.into()) }
    }

    /// Whether nothing was ever written there. A server may have to be asked, so it counts as something.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::Folder(dir) if !dir.exists())
    }
}

impl From<&Path> for StateLocation {
    fn from(dir: &Path) -> Self {
        Self::Folder(dir.to_owned())
    }
}

impl From<&PathBuf> for StateLocation {
    fn from(dir: &PathBuf) -> Self {
        Self::Folder(dir.clone())
    }
}

/// Never with a password.
impl fmt::Display for StateLocation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(dir) => dir.display().fmt(out),
            Self::Server(address) => address.fmt(out),
        }
    }
}

/// A location with how to connect to it.
#[derive(Clone, Debug)]
pub(super) enum Backend {
    Folder(SqliteBackend),
    Server(Server),
}

/// What keeps others from the work of a process that writes.
pub(super) enum ExclusiveAccess {
    /// The lock of the folder: there are no others.
    Lock(Arc<StateLock>),
    /// A lease on what it has.
    Lease(Lease),
}

impl ExclusiveAccess {
    /// Waits for the other writers of this process; where there are other processes, it is for the database to have them wait.
    pub fn write_turn(&self) -> Option<WriteLockGuard<'_>> {
        match self {
            Self::Lock(lock) => Some(lock.write_turn()),
            Self::Lease(_) => None,
        }
    }

    /// Whether other writers of this process write to the same tables.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Lock(lock) if lock.is_shared())
    }
}

impl Backend {
    pub fn new(location: &StateLocation, settings: &LedgerSettings) -> Result<Self, OpenError> {
        Ok(match location {
            StateLocation::Folder(dir) if dir.to_string_lossy().contains("://") => {
                let reason = "it is neither a folder nor postgres://…; see --state".to_owned();
                return Err(OpenError::Storage { place: dir.display().to_string(), reason });
            }
            StateLocation::Folder(dir) => Self::Folder(SqliteBackend::new(dir, settings)),
            StateLocation::Server(address) => Self::Server(Server::new(address.clone(), settings)?),
        })
    }

    /// The folder or server, for messages.
    pub fn name(&self) -> String {
        match self {
            Self::Folder(folder) => folder.name(),
            Self::Server(server) => server.address.to_string(),
        }
    }

    /// The file or server, for messages about what is in it.
    pub fn storage(&self) -> String {
        match self {
            Self::Folder(folder) => folder.file().display().to_string(),
            Self::Server(server) => server.address.to_string(),
        }
    }

    /// Brings what was committed to disk, where commits alone do not; a server does that itself.
    pub fn sync(&self) -> std::io::Result<()> {
        match self {
            Self::Folder(folder) => folder.sync(),
            Self::Server(_) => Ok(()),
        }
    }

    pub fn settings(&self) -> &LedgerSettings {
        match self {
            Self::Folder(folder) => &folder.settings,
            Self::Server(server) => &server.settings,
        }
    }

    /// The connection that writes, with what keeps others away. The state is made if it is not there. On a server it writes
    /// for the run `joined`, if that is given, else for one of its own.
    pub fn connect_writer(&self, joined: Option<i64>) -> Result<(Connection, ExclusiveAccess), OpenError> {
        match self {
            Self::Folder(folder) => {
                let refused = |error: std::io::Error| unwritable(&folder.dir, &error);
                std::fs::create_dir_all(&folder.dir).map_err(refused)?;
                if folder.settings.durability == Durability::Power {
                    // SQLite sees to what is in the folder, not to the folder.
                    sync_entries(&folder.dir, |_| false).map_err(refused)?;
                }
                let lock = folder.lock.take(&folder.dir)?;
                let connection = folder.connect_writer(&lock)?;
                Ok((Connection::Sqlite(connection), ExclusiveAccess::Lock(lock)))
            }
            Self::Server(server) => {
                let mut connection = Connection::Postgres(server.connect_writer()?);
                let lease = Lease::begin(server, &mut connection, joined)?;
                Ok((connection, ExclusiveAccess::Lease(lease)))
            }
        }
    }

    /// A connection that only reads. On a server it reads for the run `run`, if that is given.
    pub fn connect_reader(&self) -> Result<Connection, OpenError> {
        Ok(match self {
            Self::Folder(folder) => Connection::Sqlite(folder.connect_reader()?),
            Self::Server(server) => Connection::Postgres(server.connect_reader()?),
        })
    }

    pub fn refused(&self, error: &TransactionError) -> OpenError {
        OpenError::Storage { place: self.storage(), reason: error.to_string() }
    }
}
