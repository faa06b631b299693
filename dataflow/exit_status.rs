//! The exit statuses of the binary, and the error of a mistake on the command line.

/// Everything settled and nothing dead.
pub const DONE: u8 = 0;
/// A failure of ours.
pub const FAILED: u8 = 1;
/// Bad usage or settings.
pub const USAGE: u8 = 2;
/// Dead or still open entries.
pub const UNFINISHED: u8 = 3;
/// Interrupted, state kept.
pub const INTERRUPTED: u8 = 130;

/// A mistake of the user's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);
