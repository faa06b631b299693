//! What a job came to, or why it did not come to its end.

use faceflow_core::ledger::LedgerError;
use faceflow_core::tally::Tally;
use faceflow_engine::EngineError;
use faceflow_ledger::{HostHistory, OpenError, QuarantinedFact};
use faceflow_store::ObjectsError;
use faceflow_views::failure_summary::FailureSummary;
use faceflow_web::GateError;

use crate::cluster::ClusterError;
use crate::run_options::{RunError, RunOutcome};

/// How many reasons and sites are named of what failed, at most.
pub const FAILURES_NAMED: (usize, usize) = (10, 20);

/// What a job came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How it ended.
    pub outcome: RunOutcome,
    /// Pages by state.
    pub pages: Tally,
    /// Images by state.
    pub images: Tally,
    /// Faces in images that are done.
    pub faces: u64,
    /// Why there is less than was asked for: of what was rejected or is dead the most frequent reasons, and the sites that gave
    /// nothing; what earlier runs left is among it. Only the first process of a cluster says it.
    pub failures: FailureSummary,
    /// Hosts that were given up, the first of them by name: what waited for them is dead.
    pub given_up: Vec<HostHistory>,
    /// How many facts are in the quarantine: the ledger could not take them, and a retry tries them again.
    pub quarantined: u64,
    /// The latest of them.
    pub quarantined_facts: Vec<QuarantinedFact>,
    /// Where the report lies, if one was written.
    pub report: Option<String>,
}

/// Why a job did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The detector.
    #[error("--detector: {0}")]
    Engine(#[from] EngineError),
    /// The web client.
    #[error("the web client: {0}")]
    Client(#[from] GateError),
    /// The output.
    #[error("--out: {0}")]
    Objects(#[from] ObjectsError),
    /// The state could not be opened.
    #[error("--state: {0}")]
    Open(#[from] OpenError),
    /// The output does not take a probe.
    #[error("--out: {0}")]
    Store(String),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The run itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The I/O threads.
    #[error("the I/O threads could not be started: {0}")]
    Runtime(#[from] std::io::Error),
    /// The processes of the cluster did not come together.
    #[error("the cluster: {0}")]
    Cluster(#[from] ClusterError),
    /// A folder cannot be the state of a cluster.
    #[error("--state: a cluster needs a state that every process can reach: name a postgres:// URL")]
    FolderState,
    /// Sidecars or report.
    #[error("writing the views of the ledger: {0}")]
    Views(String),
}
