//! The ledger in PostgreSQL: a database or schema per state, shared by any number of runs.
//!
//! Nothing of what facts mean is here, only what a server needs that a file does not: connections, the other dialect, a
//! schema of its own, and leases in place of the file's lock.

pub(super) mod address;
pub(super) mod array;
pub(super) mod client;
mod codec;
mod dialect;
pub(super) mod lease;
mod lease_renewal;
mod live_runs;
pub(super) mod message;
pub(super) mod migrate;
pub(super) mod server;
mod tls;
