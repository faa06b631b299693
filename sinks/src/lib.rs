//! Where results go: the ledger in SQLite or PostgreSQL, the object store, results lines, sidecars and the report.
//!
//! Everything here but the ledger is a view of the ledger: it can be written again at any time and says the same.

mod entry_selection;
pub mod explain;
pub mod ledger;
pub mod objects;
pub mod report;
mod result_query;
mod result_schema;
pub mod results;
pub mod sidecar;
pub mod views;

use faceflow_core::Fault;
use faceflow_core::ledger::LedgerError;

/// Why a view of the ledger could not be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SinkError {
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The object store did not take it. Nothing is lost: the next run writes it again.
    #[error("the object store did not take {key}: {fault}")]
    Store {
        /// The object's key.
        key: String,
        /// What the store said.
        fault: Fault,
    },
    /// The report could not be put together.
    #[error("the report could not be put together: {0}")]
    Report(String),
    /// A thread of ours failed.
    #[error("{0}")]
    Failed(Fault),
}
