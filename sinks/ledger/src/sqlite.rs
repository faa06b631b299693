//! Opening the file of SQLite: connections, and the numbered steps from every older format to ours.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use faceflow_core::kill_point::kill_point;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::format_compatibility::{Formats, Found};
use super::lock::{SharedLock, StateLock};
use super::{Durability, LedgerSettings, OpenError};

/// The file inside a state directory.
pub(super) const FILE: &str = "ledger.sqlite";

/// The steps: applying the `n`-th (from 1) leads to format `n`, which SQLite keeps as `user_version`.
const STEPS: [&str; 12] = [
    include_str!("migrations/001_ledger.sql"),
    include_str!("migrations/002_cursors.sql"),
    include_str!("migrations/003_shown.sql"),
    include_str!("migrations/004_offers.sql"),
    include_str!("migrations/005_frontier.sql"),
    include_str!("migrations/006_chances.sql"),
    include_str!("migrations/007_lists.sql"),
    include_str!("migrations/008_commits.sql"),
    include_str!("migrations/009_tenants.sql"),
    include_str!("migrations/010_log_retention.sql"),
    include_str!("migrations/011_hosts.sql"),
    include_str!("migrations/012_quarantine.sql"),
];

/// The formats that this faceflow can use.
const FORMATS: Formats = Formats { ours: STEPS.len() as i64, reads_from: STEPS.len() as i64 };

/// How large the write-ahead log may stay once it is folded into the file; it grows beyond that while a reader holds it up.
const LOG_BYTES: i64 = 32 << 20;

/// Pages of the write-ahead log after which it is folded into the file: 16 MiB.
const CHECKPOINT_PAGES: u32 = 4_000;
/// Memory for pages of a connection that reads, in MiB, at most: there are several, and the operating system has the file.
const READER_CACHE_MB: u32 = 4;
/// Prepared statements kept per connection; more than there are.
const STATEMENTS_MAX: usize = 128;

/// A state directory, with how to connect to its file.
#[derive(Clone, Debug)]
pub(super) struct SqliteBackend {
    pub dir: PathBuf,
    pub settings: LedgerSettings,
    /// The lock that the writers of this process share.
    pub lock: SharedLock,
}

impl SqliteBackend {
    pub fn new(dir: &Path, settings: &LedgerSettings) -> Self {
        Self { dir: dir.to_owned(), settings: settings.clone(), lock: SharedLock::default() }
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

    /// A connection that only reads. It never waits for the writer, nor the writer for it, and it changes nothing, not even an
    /// older format.
    pub fn connect_reader(&self) -> Result<Connection, OpenError> {
        if !self.file().is_file() {
            return Err(OpenError::Missing { place: self.name() });
        }
        // Not opened read-only: after a kill, the first to open the file recovers its log.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let known = |connection: Connection| self.found(&connection).map(|found| (connection, found));
        let (connection, found) = match self.connect(flags).and_then(known) {
            Err(refused) => match self.unwritable() {
                Some(why) => self.connect_unchanging(&why).and_then(known)?,
                None => return Err(refused),
            },
            opened => opened?,
        };
        FORMATS.check_reader(&self.name(), found)?;
        connection.pragma_update(None, "query_only", true).map_err(|error| self.refused(&error))?;
        Ok(connection)
    }

    /// Brings the write-ahead log to disk: what was committed is there, or in the file, which is synced before the log begins anew.
    pub fn sync(&self) -> std::io::Result<()> {
        match std::fs::File::open(self.dir.join(format!("{FILE}-wal"))) {
            Ok(log) => log.sync_all(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
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
        connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))
    }

    /// Brings the file to format `upto`, in one transaction: a kill in between leaves the format that was there, so that a state
    /// which is being made is not there yet.
    pub fn migrate(&self, connection: &mut Connection, upto: usize) -> Result<(), OpenError> {
        let found = self.found(connection)?;
        let Some(from) = FORMATS.check_writer(&self.name(), found)? else { return Ok(()) };
        let mut apply = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            for (n, step) in STEPS.iter().enumerate().take(upto).skip(from) {
                transaction.execute_batch(step)?;
                transaction.pragma_update(None, "user_version", n as i64 + 1)?;
                kill_point("state.migrate");
            }
            transaction.commit()
        };
        apply().map_err(|error| self.refused(&error))?;
        kill_point("state.migrated");
        Ok(())
    }

    /// What the file says of its format.
    fn found(&self, connection: &Connection) -> Result<Found, OpenError> {
        let found = || -> rusqlite::Result<Found> {
            let format = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let noted = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'migrations'";
            if connection.query_row(noted, [], |_| Ok(())).optional()?.is_none() {
                return Ok(Found::alone(format));
            }
            let sql = "SELECT reader_min, writer_min FROM migrations WHERE format = ?1";
            let read = |row: &rusqlite::Row<'_>| Ok(Found { format, reader_min: row.get(0)?, writer_min: row.get(1)? });
            Ok(connection.query_row(sql, [format], read).optional()?.unwrap_or(Found::alone(format)))
        };
        found().map_err(|error| self.refused(&error))
    }

    pub fn refused(&self, error: &rusqlite::Error) -> OpenError {
        OpenError::Storage { place: self.file().display().to_string(), reason: error.to_string() }
    }
}

/// An empty state of our format in memory.
pub(super) fn in_memory() -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.pragma_update(None, "foreign_keys", false)?;
    STEPS.iter().try_for_each(|step| connection.execute_batch(step))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = SqliteBackend::new(dir.path(), &LedgerSettings::default());
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
    fn the_log_of_the_file_shrinks_once_nobody_holds_it_up() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = SqliteBackend::new(dir.path(), &LedgerSettings::default());
        let lock = StateLock::take(dir.path()).expect("locks");
        let writer = place.connect_writer(&lock).expect("opens");
        let mut reader = place.connect_reader().expect("opens");
        let fill = || {
            let sql = "INSERT INTO cursors VALUES (1, hex(randomblob(1000000)), 1)";
            assert_eq!(writer.execute(sql, []), Ok(1));
        };
        let log = || std::fs::metadata(dir.path().join("ledger.sqlite-wal")).expect("is there").len() as i64;
        let reading = reader.transaction().expect("begins");
        reading.query_row("SELECT count(*) FROM cursors", [], |row| row.get::<_, i64>(0)).expect("reads");
        while log() <= 2 * LOG_BYTES {
            fill();
        }
        reading.finish().expect("ends");
        // The next writes fold it into the file and begin it anew.
        (0..3).for_each(|_| fill());
        assert!(log() <= LOG_BYTES, "{} bytes", log());
    }

    #[test]
    fn facts_are_never_changed() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = SqliteBackend::new(dir.path(), &LedgerSettings::default());
        let lock = StateLock::take(dir.path()).expect("locks");
        let writer = place.connect_writer(&lock).expect("opens");
        let fact = "INSERT INTO tenants (id, name) VALUES (1, 'x'); INSERT INTO events VALUES (1, 1, 0, 'stored', 1, 1, NULL, NULL);";
        writer.execute_batch(fact).expect("inserts");
        for statement in ["UPDATE events SET at_ms = 1", "DELETE FROM events"] {
            let refused = writer.execute(statement, []).expect_err("is refused");
            assert!(refused.to_string().contains("never"), "{refused}");
        }
    }
}
