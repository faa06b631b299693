//! The ledger, in SQLite or PostgreSQL: one file per state directory for one process, or a database that runs share.
//!
//! Facts go through one thread that commits whatever waits as one transaction; readers have connections of their own and
//! never block it. What a fact does is written once, over rows in memory (`transaction.rs` and what it names), for both databases
//! of `database.rs`. The promise: once an append has resolved, its fact survives `kill -9`, and with `durability = "power"`,
//! as on any server, a power cut too; a fact that breaks a promise is refused and leaves no trace.
//!
//! Views read through [`Reader::read`], in short transactions: lines by `result_query.rs`, anything else by SQL of their own.

mod alternates;
mod apply_outcomes;
mod audit;
mod column_codecs;
mod database;
mod database_ledger;
mod discover;
mod due_work;
mod entry_selection;
mod error;
mod event_feed;
mod format_compatibility;
mod hosts;
mod isolation;
mod jobs;
mod location;
mod lock;
mod log_record;
mod log_retention;
mod new_rows;
mod postgres;
mod quarantine;
mod quarantine_list;
mod reader;
mod redrive;
mod redrive_batches;
mod references;
mod reorder_buffer;
mod replay_check;
mod result_query;
mod result_schema;
mod sql;
mod sqlite;
mod startup_queries;
mod status;
mod tallies;
mod tenants;
#[cfg(any(test, feature = "testing"))]
#[allow(missing_docs, clippy::new_without_default, reason = "for tests alone")]
pub mod testing;
#[cfg(test)]
mod tests;
mod transaction;
mod value;
mod working_set;
mod writer;

use serde::{Deserialize, Serialize};

pub use column_codecs::{EntryKind, StateText};
pub use database::DbTransaction;
pub use database_ledger::DatabaseLedger;
pub use entry_selection::{EntrySelection, THESE_MAX, numbers, these};
pub use error::TransactionError;
pub use hosts::HostHistory;
pub use location::StateLocation;
pub use log_retention::{Removed, removed};
/// The name of a location outside this crate.
pub use postgres::address::Address;
pub use quarantine_list::QuarantinedFact;
pub use reader::Reader;
pub use redrive::Selection;
pub use result_query::{Described, image_lines, page_lines};
pub use result_schema::{Detector, FaceFields, FaceLine, ImageLine, PageLine, Picture};
pub use sql::Sql;
pub use status::Status;
pub use tenants::TenantLedgers;
pub use value::{Cell, Column, Row, Value};

/// The settings `ledger.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerSettings {
    /// What a committed fact survives: `"process"` the end of the process, however it ends; `"power"` a power cut too, at the
    /// price of waiting for the disk at every commit. A PostgreSQL server always waits for its disk.
    pub durability: Durability,
    /// Facts in one transaction, at most.
    pub group_max: usize,
    /// Pages and images that one transaction takes up, at most, by the facts of a group or of pages that were read before their
    /// turn; a single page may have more. It bounds the memory of a transaction: about 1.5 kB for each.
    pub transaction_max: usize,
    /// How long to wait for another program that has the file locked, in milliseconds.
    pub busy_timeout_ms: u64,
    /// Memory for pages of the file, in MiB: of the connection that writes; those that read have at most 4.
    pub cache_mb: u32,
    /// How long to wait for a connection to a PostgreSQL server, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a run that shares a PostgreSQL state may be silent before others take over its work, in milliseconds. It
    /// gives a sign of life three times as often.
    pub lease_ms: u64,
    /// Pages and URLs listed in the sidecar of one picture, at most (each).
    pub sidecar_pages_max: usize,
    /// How long the log is kept, in milliseconds; 0 for ever. What is older and was followed by every view is removed by whoever
    /// writes: `explain` does not list it any more, and the rows cannot be rebuilt from the log. Results and states do not depend
    /// on it.
    pub log_keep_ms: u64,
}

/// What a committed fact survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The end of the process, `kill -9` included.
    Process,
    /// A power cut too.
    Power,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            durability: Durability::Process,
            group_max: 4_096,
            transaction_max: 20_000,
            busy_timeout_ms: 5_000,
            cache_mb: 32,
            connect_timeout_ms: 10_000,
            lease_ms: 30_000,
            sidecar_pages_max: 10_000,
            log_keep_ms: 30 * 24 * 3_600_000,
        }
    }
}

impl LedgerSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=1_000_000).contains(&self.group_max) {
            return Err(("group_max", "1 to 1000000".to_owned()));
        }
        if !(1..=10_000_000).contains(&self.transaction_max) {
            return Err(("transaction_max", "1 to 10000000".to_owned()));
        }
        if self.busy_timeout_ms > 3_600_000 {
            return Err(("busy_timeout_ms", "at most 3600000 (an hour)".to_owned()));
        }
        if !(1..=65_536).contains(&self.cache_mb) {
            return Err(("cache_mb", "1 to 65536".to_owned()));
        }
        if !(1..=3_600_000).contains(&self.connect_timeout_ms) {
            return Err(("connect_timeout_ms", "1 to 3600000 (an hour)".to_owned()));
        }
        if !(1_000..=3_600_000).contains(&self.lease_ms) {
            return Err(("lease_ms", "1000 to 3600000 (an hour)".to_owned()));
        }
        if self.sidecar_pages_max == 0 {
            return Err(("sidecar_pages_max", "1 or more".to_owned()));
        }
        if self.log_keep_ms > LOG_KEEP_MS_MAX {
            return Err(("log_keep_ms", "at most 3153600000000 (100 years); 0 keeps everything".to_owned()));
        }
        Ok(())
    }
}

/// A hundred years.
const LOG_KEEP_MS_MAX: u64 = 100 * 365 * 24 * 3_600_000;

/// Why a state could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not there.
    #[error("there is no state at {place}: run `faceflow run` first, or name the right one with --state")]
    Missing {
        /// The directory or server.
        place: String,
    },
    /// Another process writes to it.
    #[error(
        "the state at {place} is in use by another faceflow process{by}: wait for it to end, or name another --state"
    )]
    InUse {
        /// The directory or server.
        place: String,
        /// ` (process 123)`, where it is known.
        by: String,
    },
    /// It was written by a later version.
    #[error(
        "the state at {place} has format {found}, and this faceflow knows formats up to {known}: use the faceflow that wrote it, or a newer one"
    )]
    Newer {
        /// The directory or server.
        place: String,
        /// Its format.
        found: i64,
        /// The latest format we know.
        known: i64,
    },
    /// It was written by an earlier version, and only a writer changes it.
    #[error(
        "the state at {place} has format {found}, and this faceflow reads formats from {oldest} on: run `faceflow run` on it \
         once, which brings it to the newest, or read it with the faceflow that wrote it"
    )]
    Older {
        /// The directory or server.
        place: String,
        /// Its format.
        found: i64,
        /// The oldest format that is read.
        oldest: i64,
    },
    /// It was written by an earlier version, which is still at work on it.
    #[error(
        "the state at {place} has format {found}, and {runs} run(s) of the faceflow that wrote it are at work on it: wait for \
         them to end, then run the same command again; or use that faceflow"
    )]
    InOlderUse {
        /// The server.
        place: String,
        /// Its format.
        found: i64,
        /// How many.
        runs: i64,
    },
    /// A tenant's name that cannot be the name of a folder.
    #[error(
        "{tenant:?} cannot be a tenant: allowed are 1 to 64 letters, digits, '-', '_' and '.', not starting with '.'"
    )]
    Tenant {
        /// The name.
        tenant: String,
    },
    /// A tenant the state does not know.
    #[error("the state at {place} has no tenant {tenant:?}; it has: {known}")]
    NoTenant {
        /// The directory or server.
        place: String,
        /// The name.
        tenant: String,
        /// Those it has.
        known: String,
    },
    /// The file system, SQLite or the server refused.
    #[error("the state at {place} cannot be opened: {reason}")]
    Storage {
        /// The directory, file or server.
        place: String,
        /// Its words.
        reason: String,
    },
}
