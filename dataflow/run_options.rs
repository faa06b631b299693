//! When a run ends by itself, how it ended, and why it may fail.

use faceflow_core::Time;

/// Workers, and when a run ends.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Worker threads of this process.
    pub workers: usize,
    /// Once only retries due later than this from now remain, the run ends, in milliseconds.
    pub patience_ms: u64,
    /// Whether only a signal ends the run: neither the end of its sources nor of its patience does.
    pub endless: bool,
    /// How long a drain may take before what is under way is left open, in milliseconds.
    pub grace_ms: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { workers: 1, patience_ms: 600_000, endless: false, grace_ms: 30_000 }
    }
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOutcome {
    /// The user asked to stop.
    pub interrupted: bool,
    /// Entries of the sources that were no sites.
    pub bad_input: usize,
    /// When the earliest remaining retry is due, if the run ended for lack of patience.
    pub next_due: Option<Time>,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The workers could not be started.
    #[error("the workers could not be started: {0}")]
    Start(String),
    /// A failure of ours; the ledger is whole and the same command goes on from it.
    #[error("{0}")]
    Failed(String),
}
