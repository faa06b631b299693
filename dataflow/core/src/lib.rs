//! What every part of faceflow agrees on: records, faults, time, the way to tokio, and the traits behind
//! which sources, engines, sinks and the ledger live.
//!
//! This crate knows no network, no SQL, no image codec, no inference runtime and no command line. The other crates
//! know this one and not each other, so the compiler keeps the arrows of the workspace straight.

pub mod blocking;
pub mod clock;
pub mod detector;
pub mod executor;
pub mod fact;
pub mod fair_queue;
pub mod fault;
pub mod fsync;
pub mod in_flight;
pub mod invariants;
pub mod kill_point;
pub mod ledger;
pub mod map_async;
pub mod metrics;
pub mod object_key;
pub mod peer_liveness;
pub mod planted_bugs;
pub mod record;
pub mod reloadable;
pub mod retry_policy;
pub mod shutdown;
pub mod sink;
pub mod source;
pub mod tally;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timer;
pub mod transition;

pub use clock::{Clock, Time};
pub use fault::{Class, FailedRecord, Fault, HostFault, HostFaultKind};
pub use reloadable::Reloadable;

/// A stream of records in the graph: a timely stream whose timestamps are due times.
pub type Flow<'s, D> = timely::dataflow::StreamVec<'s, Time, D>;

/// A boxed future that can cross threads; what the object-safe async traits of this crate return.
pub type Future<T> = std::pin::Pin<Box<dyn std::future::Future<Output = T> + Send>>;
