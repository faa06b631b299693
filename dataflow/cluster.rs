//! A cluster: several processes run one graph. Here they connect, agree, and watch each other.
//!
//! Every process connects to every other, and they exchange what they believe about the cluster before anything starts:
//! version, settings, state, number of processes and workers. Then the ledger's run is shared, everybody reads what the
//! ledger holds, and only when all have done so does the dataflow begin. Promise: processes that would not fit together
//! never start together, and say in what they differ.

mod agreement;
mod connections;
mod error;
mod handshake;
mod heartbeat_exchange;
mod membership;
mod messages;
mod watched_socket;

pub use agreement::Agreement;
pub use connections::{PeerConnections, Started};
pub use error::ClusterError;
pub use heartbeat_exchange::exchange_heartbeats;
pub use membership::Membership;
