//! Why a transaction or a fact in it failed.

use faceflow_core::ledger::LedgerError;
use faceflow_core::transition::IllegalTransition;
use rusqlite::ErrorCode;

use super::postgres::message::said;

/// Why a statement or a fact failed.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// The fact names an entry that cannot take that step.
    #[error("{key}: {step}")]
    Illegal {
        /// The entry.
        key: String,
        /// The step.
        step: IllegalTransition,
    },
    /// The fact is about work that another run has.
    #[error("{key} is with run {run}, which lives: this run has lost it, or never had it")]
    Held {
        /// The work.
        key: String,
        /// The run that has it.
        run: i64,
    },
    /// This run may not write any more.
    #[error("{0}")]
    Lost(String),
    /// SQLite refused.
    #[error("{0}")]
    Sql(rusqlite::Error),
    /// The server refused, or is gone.
    #[error("{}", said(.0))]
    Server(tokio_postgres::Error),
    /// A try that is not kept, although nothing refused it.
    #[error("a try that is not kept")]
    Tried,
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

/// Classes of what a server says about the data that it was given: cardinality, a value, a constraint, a view's condition, a limit of
/// the program (a row or key that is too long), and what a trigger raises.
const DATA_CLASSES: [&str; 6] = ["21", "22", "23", "44", "54", "P0"];

impl TransactionError {
    /// Whether what was to be written was refused for what it says. A full disk, a lost connection or lease, or a damaged state is
    /// another matter: then nothing else can be written either.
    pub(super) fn is_about_data(&self) -> bool {
        match self {
            Self::Sql(rusqlite::Error::SqliteFailure(error, _)) => {
                matches!(error.code, ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
            }
            Self::Sql(rusqlite::Error::ToSqlConversionFailure(_)) => true,
            Self::Server(error) => {
                error.code().and_then(|code| code.code().get(..2)).is_some_and(|class| DATA_CLASSES.contains(&class))
            }
            _ => false,
        }
    }

    /// The error that callers see.
    pub(super) fn at(self, place: &str) -> LedgerError {
        match self {
            Self::Illegal { key, step } => LedgerError::Illegal { key, step },
            Self::Held { key, run } => LedgerError::Held { key, run },
            other => LedgerError::Storage { place: place.to_owned(), reason: other.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(code: i32) -> TransactionError {
        TransactionError::Sql(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))
    }

    #[test]
    fn only_what_is_about_data_is_taken_for_that() {
        use rusqlite::ffi;
        for code in
            [ffi::SQLITE_CONSTRAINT_TRIGGER, ffi::SQLITE_CONSTRAINT_CHECK, ffi::SQLITE_MISMATCH, ffi::SQLITE_TOOBIG]
        {
            assert!(file(code).is_about_data(), "{code}");
        }
        let broken =
            [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_BUSY];
        for code in broken.into_iter().chain([ffi::SQLITE_NOMEM, ffi::SQLITE_READONLY, ffi::SQLITE_CANTOPEN]) {
            assert!(!file(code).is_about_data(), "{code}");
        }
        for other in [TransactionError::Lost(String::new()), TransactionError::Damaged(String::new())] {
            assert!(!other.is_about_data(), "{other}");
        }
    }
}
