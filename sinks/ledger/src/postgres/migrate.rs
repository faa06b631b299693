//! The tables on a server: the numbered steps from every older format to ours, taken by one opener at a time.

use faceflow_core::kill_point::kill_point;

use super::client::Client;
use super::live_runs::LIVING;
use super::message::said;
use super::server::Server;
use crate::OpenError;
use crate::database::{DbTransaction, values};
use crate::error::TransactionError;
use crate::format_compatibility::{Formats, Found};

/// The steps: applying the `n`-th (from 1) leads to format `n`, which the table `migrations` notes.
const STEPS: [&str; 9] = [
    include_str!("../migrations/postgres/001_ledger.sql"),
    include_str!("../migrations/postgres/002_frontier.sql"),
    include_str!("../migrations/postgres/003_chances.sql"),
    include_str!("../migrations/postgres/004_lists.sql"),
    include_str!("../migrations/postgres/005_commits.sql"),
    include_str!("../migrations/postgres/006_tenants.sql"),
    include_str!("../migrations/postgres/007_log_retention.sql"),
    include_str!("../migrations/postgres/008_hosts.sql"),
    include_str!("../migrations/postgres/009_quarantine.sql"),
];

/// The formats that this faceflow can use.
const FORMATS: Formats = Formats { ours: STEPS.len() as i64, reads_from: STEPS.len() as i64 };

/// Formats from which on the table `migrations` notes who can use them.
const NOTED_FROM: i64 = 5;

/// Before this format, the column `heartbeat_at` was called `beat_at`.
const RENAMED_IN: i64 = 6;

/// Held while formats are looked at and changed; any number will do, if it is always the same.
const LOCK: i64 = 0x6661_6365_666c_6f77;

impl Server {
    /// A connection that writes. Tables are made if they are not there, and brought to our format.
    pub fn connect_writer(&self) -> Result<Client, OpenError> {
        let mut client = self.connect()?;
        // A commit that was answered is on the server's disk; one that sleeps while others wait for it is ended. Statements are
        // planned once, whatever the arrays that they take and however little there is at that time: there is one good way to each
        // row, by its key.
        let lease = self.settings.lease_ms;
        let session = format!(
            "SET synchronous_commit = on; SET idle_in_transaction_session_timeout = {lease}; SET client_min_messages = warning;
            SET plan_cache_mode = force_generic_plan; SET jit = off;
            SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
        );
        client.batch(&session).map_err(|error| self.refused(said(&error)))?;
        self.migrate(&mut client, STEPS.len())?;
        Ok(client)
    }

    /// A connection that only reads, and changes nothing, not even an older format.
    pub fn connect_reader(&self) -> Result<Client, OpenError> {
        let mut client = self.connect()?;
        let found = client.read(|pipeline| found(&DbTransaction::Postgres(pipeline)));
        let found = found.map_err(|error| self.refused(error.to_string()))?;
        FORMATS.check_reader(&self.address.to_string(), found)?;
        Ok(client)
    }

    /// Brings the tables to format `upto`, in one transaction, unless an older faceflow is at work on them.
    pub(crate) fn migrate(&self, client: &mut Client, upto: usize) -> Result<(), OpenError> {
        let place = self.address.to_string();
        let migrated = client.write(|pipeline| {
            let tx = &DbTransaction::Postgres(pipeline);
            tx.run("SELECT pg_advisory_xact_lock(?1)", values![LOCK])?;
            let found = found(tx)?;
            let from = match FORMATS.check_writer(&place, found) {
                Ok(Some(from)) => from,
                Ok(None) => return Ok(Ok(())),
                Err(refused) => return Ok(Err(refused)),
            };
            if from > 0 {
                let living = if found.format < RENAMED_IN {
                    LIVING.replace("heartbeat_at", "beat_at")
                } else {
                    LIVING.to_owned()
                };
                let sql = format!("SELECT count(*) FROM runs WHERE {living}");
                let runs = tx.one(&sql, &[], |row| row.get::<i64>(0))?.unwrap_or(0);
                if runs > 0 {
                    return Ok(Err(OpenError::InOlderUse { place, found: found.format, runs }));
                }
            }
            for (n, step) in STEPS.iter().enumerate().take(upto).skip(from) {
                take_step(tx, n as i64 + 1, step)?;
                kill_point("state.migrate");
            }
            Ok(Ok(()))
        });
        migrated.map_err(|error| self.refused(error.to_string()))?
    }
}

fn take_step(tx: &DbTransaction<'_>, format: i64, step: &str) -> Result<(), TransactionError> {
    if format == 1 {
        let sql = "CREATE TABLE migrations (
            format BIGINT PRIMARY KEY, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())";
        tx.run(sql, &[])?;
    }
    tx.batch(step)?;
    let noted = match format {
        // Nobody but its own faceflow uses a format, so far.
        NOTED_FROM.. => "INSERT INTO migrations (format, reader_min, writer_min) VALUES (?1, ?1, ?1)",
        _ => "INSERT INTO migrations (format) VALUES (?1)",
    };
    tx.run(noted, values![format])
}

/// What the tables say of their format; 0 where there are none.
fn found(tx: &DbTransaction<'_>) -> Result<Found, TransactionError> {
    let there = tx.one("SELECT to_regclass('migrations') IS NOT NULL", &[], |row| row.get(0))?;
    if there != Some(true) {
        return Ok(Found::alone(0));
    }
    let format = tx.one("SELECT max(format) FROM migrations", &[], |row| row.get::<Option<i64>>(0))?;
    let format = format.flatten().unwrap_or(0);
    if format < NOTED_FROM {
        return Ok(Found::alone(format));
    }
    let sql = "SELECT reader_min, writer_min FROM migrations WHERE format = ?1";
    let noted =
        tx.one(sql, values![format], |row| Ok(Found { format, reader_min: row.get(0)?, writer_min: row.get(1)? }))?;
    Ok(noted.unwrap_or(Found::alone(format)))
}

/// Keeps others from changing the format until the end of the transaction, in which a run begins: it is there before anybody asks
/// who is at work. Fails if the format was changed since the connection was made.
pub(super) fn keep_format(tx: &DbTransaction<'_>) -> Result<(), TransactionError> {
    tx.run("SELECT pg_advisory_xact_lock_shared(?1)", values![LOCK])?;
    let found = found(tx)?;
    if found.format == FORMATS.ours || found.writer_min <= FORMATS.ours && found.format > FORMATS.ours {
        return Ok(());
    }
    Err(TransactionError::Lost(format!("its format is {} by now: run the same command again", found.format)))
}
