//! Opening the file of SQLite: connections, and the numbered steps from every older format to ours.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use faceflow_core::kill_point::kill_point;
use rusqlite::{Connection, OpenFlags};

use super::lock::StateLock;
use super::{Durability, LedgerSettings, OpenError};

/// The file inside a state directory.
pub(super) const FILE: &str = "ledger.sqlite";

/// The steps: applying the `n`-th (from 1) leads to format `n`, which SQLite keeps as `user_version`.
const STEPS: [&str; 9] = [
    include_str!("schema/001_ledger.sql"),
    include_str!("schema/002_cursors.sql"),
    include_str!("schema/003_shown.sql"),
    include_str!("schema/004_offers.sql"),
    include_str!("schema/005_frontier.sql"),
    include_str!("schema/006_chances.sql"),
    include_str!("schema/007_lists.sql"),
    include_str!("schema/008_commits.sql"),
    include_str!("schema/009_urls.sql"),
];

/// Pages of the write-ahead log after which it is folded into the file: 16 MiB.
const CHECKPOINT_PAGES: u32 = 4_000;
/// Memory for pages of a connection that reads, in MiB, at most: there are several, and the operating system has the file.
const READER_CACHE_MB: u32 = 4;
/// Prepared statements kept per connection; more than there are.
const STATEMENTS_MAX: usize = 128;

/// A state directory, with how to connect to its file.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub dir: PathBuf,
    pub settings: LedgerSettings,
}

impl Folder {
    pub fn new(dir: &Path, settings: &LedgerSettings) -> Self {
        Self { dir: dir.to_owned(), settings: settings.clone() }
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// The directory, for messages.
    pub fn name(&self) -> String {
        self.dir.display().to_string()
    }

    /// The one connection that writes. The file is made if it is not there, and brought to our format.
    pub fn connect_writer(&self, _held: &StateLock) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = self.connect(flags)?;
        let prepared = self.prepare_writer(&connection).map_err(|error| self.refused(&error));
        prepared?;
        self.migrate(&mut connection, STEPS.len())?;
        Ok(connection)
    }

    /// A connection that only reads. It never waits for the writer, nor the writer for it.
    pub fn connect_reader(&self) -> Result<Connection, OpenError> {
        if !self.file().is_file() {
            return Err(OpenError::Missing { place: self.name() });
        }
        // Not opened read-only: after a kill, the first to open the file recovers its log.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let known = |connection: Connection| self.version(&connection).map(|version| (connection, version));
        let (connection, version) = match self.connect(flags).and_then(known) {
            Err(refused) => match self.unwritable() {
                Some(why) => self.connect_unchanging(&why).and_then(known)?,
                None => return Err(refused),
            },
            opened => opened?,
        };
        match version {
            version if version == STEPS.len() as i64 => {}
            version if version > STEPS.len() as i64 => return Err(self.newer(version)),
            _ => drop(self.connect_writer(&StateLock::take(&self.dir)?)?),
        }
        connection.pragma_update(None, "query_only", true).map_err(|error| self.refused(&error))?;
        Ok(connection)
    }

    /// Why SQLite cannot share memory with others beside the file, if it cannot: then it does not open files that have a log.
    fn unwritable(&self) -> Option<Error> {
        let shared = self.dir.join(format!("{FILE}-shm"));
        let made = OpenOptions::new().write(true).create(true).truncate(false).open(shared);
        made.err().filter(|error| matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem))
    }

    /// A connection to a file that nobody is changing, because it is whole and cannot be written to here.
    fn connect_unchanging(&self, why: &Error) -> Result<Connection, OpenError> {
        let log = self.dir.join(format!("{FILE}-wal"));
        if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            let reason = format!(
                "{why}, and {} holds facts that are not in the file yet: run faceflow status once where both can be \
                 written, or name a copy of the folder with --state",
                log.display()
            );
            return Err(OpenError::Storage { place: self.name(), reason });
        }
        let mut uri = "file:".to_owned();
        for byte in self.file().as_os_str().as_encoded_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => uri.push(char::from(*byte)),
                byte => uri += &format!("%{byte:02X}"),
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        self.connect_to(Path::new(&format!("{uri}?immutable=1")), flags)
    }

    fn connect(&self, flags: OpenFlags) -> Result<Connection, OpenError> {
        self.connect_to(&self.file(), flags)
    }

    fn connect_to(&self, file: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(file, flags)?;
            connection.busy_timeout(Duration::from_millis(self.settings.busy_timeout_ms))?;
            let reads = !flags.contains(OpenFlags::SQLITE_OPEN_CREATE);
            let cache_mb = self.settings.cache_mb.min(if reads { READER_CACHE_MB } else { u32::MAX });
            connection.pragma_update(None, "cache_size", -1024 * i64::from(cache_mb))?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
            Ok(connection)
        };
        open().map_err(|error| self.refused(&error))
    }

    fn prepare_writer(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
        // In WAL mode NORMAL hands every commit to the operating system, FULL to the disk.
        let synchronous = match self.settings.durability {
            Durability::Process => "normal",
            Durability::Power => "full",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        // The audit looks at what names what; to look at every row as it is written costs more than to write it.
        connection.pragma_update(None, "foreign_keys", false)?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))
    }

    /// Brings the file to format `upto`, one step per transaction.
    pub fn migrate(&self, connection: &mut Connection, upto: usize) -> Result<(), OpenError> {
        let found = self.version(connection)?;
        let from =
            usize::try_from(found).ok().filter(|found| *found <= STEPS.len()).ok_or_else(|| self.newer(found))?;
        for (n, step) in STEPS.iter().enumerate().take(upto).skip(from) {
            let mut apply = || -> rusqlite::Result<()> {
                let transaction = connection.transaction()?;
                transaction.execute_batch(step)?;
                transaction.pragma_update(None, "user_version", n as i64 + 1)?;
                transaction.commit()
            };
            apply().map_err(|error| self.refused(&error))?;
            kill_point("state.migrated");
        }
        Ok(())
    }

    fn version(&self, connection: &Connection) -> Result<i64, OpenError> {
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0));
        version.map_err(|error| self.refused(&error))
    }

    fn newer(&self, found: i64) -> OpenError {
        OpenError::Newer { place: self.name(), found, known: STEPS.len() as i64 }
    }

    pub fn refused(&self, error: &rusqlite::Error) -> OpenError {
        OpenError::Storage { place: self.file().display().to_string(), reason: error.to_string() }
    }
}

/// An empty state of our format in memory.
pub(super) fn in_memory() -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    STEPS.iter().try_for_each(|step| connection.execute_batch(step))?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_older_format_is_brought_to_ours_with_its_rows() {
        for version in 0..STEPS.len() {
            let dir = tempfile::tempdir().expect("a folder");
            let place = Folder::new(dir.path(), &LedgerSettings::default());
            let mut old = place.connect(OpenFlags::default()).expect("opens");
            place.migrate(&mut old, version).expect("the steps apply");
            assert_eq!(place.version(&old), Ok(version as i64));
            if version > 0 {
                old.execute("INSERT INTO tenants (name) VALUES ('kept')", []).expect("inserts");
            }
            drop(old);
            let reader = place.connect_reader().expect("reading brings it to our format");
            assert_eq!(place.version(&reader), Ok(STEPS.len() as i64));
            let kept: i64 = reader.query_row("SELECT count(*) FROM tenants", [], |row| row.get(0)).expect("counts");
            assert_eq!(kept, i64::from(version > 0));
            reader.query_row("SELECT count(*) FROM offers", [], |_| Ok(())).expect("the newest table is there");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = Folder::new(dir.path(), &LedgerSettings::default());
        let connection = place.connect(OpenFlags::default()).expect("opens");
        connection.pragma_update(None, "user_version", 99).expect("sets");
        drop(connection);
        let lock = StateLock::take(dir.path()).expect("locks");
        for refused in [place.connect_writer(&lock).err(), place.connect_reader().err()] {
            let refused = refused.expect("is refused");
            assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused:?}");
            assert!(refused.to_string().contains("format 99"), "{refused}");
        }
    }

    #[test]
    fn facts_are_never_changed() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = Folder::new(dir.path(), &LedgerSettings::default());
        let lock = StateLock::take(dir.path()).expect("locks");
        let writer = place.connect_writer(&lock).expect("opens");
        let fact = "INSERT INTO tenants (id, name) VALUES (1, 'x'); INSERT INTO facts VALUES (1, 1, 0, 'kept', 1, 1, NULL, NULL);";
        writer.execute_batch(fact).expect("inserts");
        for statement in ["UPDATE facts SET at_ms = 1", "DELETE FROM facts"] {
            let refused = writer.execute(statement, []).expect_err("is refused");
            assert!(refused.to_string().contains("never"), "{refused}");
        }
    }
}
