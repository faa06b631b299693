//! The views of the ledger: results, sidecars, the report and what `faceflow explain` says.
//!
//! Each can be written again at any time and says the same. They read the ledger in short transactions and never write to it,
//! except for the cursors that say how far they have followed its log.

pub mod explain;
pub mod failure_summary;
#[cfg(test)]
mod measure;
pub mod report;
pub mod results;
pub mod sidecar;
mod view_updater;

pub use view_updater::ViewUpdater;

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
