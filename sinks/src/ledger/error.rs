//! Why a transaction or a fact in it failed.

use faceflow_core::ledger::LedgerError;
use faceflow_core::transition::IllegalTransition;

use super::postgres::message::said;

/// Why a statement or a fact failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransactionError {
    /// The fact names an entry that cannot take that step.
    #[error("{key}: {step}")]
    Illegal { key: String, step: IllegalTransition },
    /// The fact is about work that another run has.
    #[error("{key} is with run {run}, which lives: this run has lost it, or never had it")]
    Held { key: String, run: i64 },
    /// This run may not write any more.
    #[error("{0}")]
    Lost(String),
    /// SQLite refused.
    #[error("{0}")]
    Sql(rusqlite::Error),
    /// The server refused, or is gone.
    #[error("{}", said(.0))]
    Server(tokio_postgres::Error),
    /// Whoever reads wants no more.
    #[error("stopped: {0}")]
    Stopped(String),
    /// The state holds something that we did not write.
    #[error("the state is damaged: {0}")]
    Damaged(String),
}

impl From<rusqlite::Error> for TransactionError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<tokio_postgres::Error> for TransactionError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

impl TransactionError {
    /// The error that callers see.
    pub(super) fn at(self, place: &str) -> LedgerError {
        match self {
            Self::Illegal { key, step } => LedgerError::Illegal { key, step },
            other => LedgerError::Storage { place: place.to_owned(), reason: other.to_string() },
        }
    }
}
