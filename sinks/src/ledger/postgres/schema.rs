//! The tables on a server: the numbered steps from every older format to ours, taken by one opener at a time.

use super::client::Client;
use super::message::said;
use super::server::Server;
use crate::ledger::OpenError;
use crate::ledger::database::{Moment, values};
use crate::ledger::error::TransactionError as Trouble;

/// The steps: applying the `n`-th (from 1) leads to format `n`, which the table `migrations` notes.
const STEPS: [&str; 6] = [
    include_str!("../schema/postgres/001_ledger.sql"),
    include_str!("../schema/postgres/002_frontier.sql"),
    include_str!("../schema/postgres/003_chances.sql"),
    include_str!("../schema/postgres/004_lists.sql"),
    include_str!("../schema/postgres/005_commits.sql"),
    include_str!("../schema/postgres/006_urls.sql"),
];

/// Held while formats are looked at and changed; any number will do, if it is always the same.
const LOCK: i64 = 0x6661_6365_666c_6f77;

impl Server {
    /// A connection that writes, served by this thread. Tables are made if they are not there, and brought to our format.
    pub fn connect_writer(&self) -> Result<Client, OpenError> {
        let mut client = self.connect_here()?;
        // A commit that was answered is on the server's disk; one that sleeps while others wait for it is ended.
        let lease = self.settings.lease_ms;
        let session = format!(
            "SET synchronous_commit = on; SET idle_in_transaction_session_timeout = {lease}; SET client_min_messages = warning"
        );
        client.batch(&session).map_err(|error| self.refused(said(&error)))?;
        self.migrate(&mut client, STEPS.len())?;
        Ok(client)
    }

    /// A connection that only reads.
    pub fn connect_reader(&self) -> Result<Client, OpenError> {
        let mut client = self.connect()?;
        match self.version(&mut client)? {
            0 => Err(OpenError::Missing { place: self.address.to_string() }),
            version if version == STEPS.len() as i64 => Ok(client),
            version if version > STEPS.len() as i64 => Err(self.newer(version)),
            _ => {
                self.migrate(&mut client, STEPS.len())?;
                Ok(client)
            }
        }
    }

    /// Brings the tables to format `upto`, in one transaction.
    fn migrate(&self, client: &mut Client, upto: usize) -> Result<(), OpenError> {
        let migrated = client.write(|window| {
            let moment = &Moment::Postgres(window);
            moment.run("SELECT pg_advisory_xact_lock(?1)", values![LOCK])?;
            let found = version(moment)?;
            let Some(from) = usize::try_from(found).ok().filter(|found| *found <= STEPS.len()) else {
                return Ok(Err(self.newer(found)));
            };
            for (n, step) in STEPS.iter().enumerate().take(upto).skip(from) {
                if n == 0 {
                    let sql = "CREATE TABLE migrations (
                        format BIGINT PRIMARY KEY, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())";
                    moment.run(sql, &[])?;
                }
                moment.batch(step)?;
                moment.run("INSERT INTO migrations (format) VALUES (?1)", values![n as i64 + 1])?;
            }
            Ok(Ok(()))
        });
        migrated.map_err(|trouble| self.refused(trouble.to_string()))?
    }

    fn version(&self, client: &mut Client) -> Result<i64, OpenError> {
        client.read(|window| version(&Moment::Postgres(window))).map_err(|trouble| self.refused(trouble.to_string()))
    }

    fn newer(&self, found: i64) -> OpenError {
        OpenError::Newer { place: self.address.to_string(), found, known: STEPS.len() as i64 }
    }
}

/// The format of the tables; 0 where there are none.
fn version(moment: &Moment<'_>) -> Result<i64, Trouble> {
    let there = moment.one("SELECT to_regclass('migrations') IS NOT NULL", &[], |row| row.get(0))?;
    if there != Some(true) {
        return Ok(0);
    }
    Ok(moment.one("SELECT max(format) FROM migrations", &[], |row| row.get::<Option<i64>>(0))?.flatten().unwrap_or(0))
}
