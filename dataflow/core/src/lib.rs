//! What every part of faceflow agrees on: records, faults, time, the bridge to tokio, and the traits behind
//! which sources, engines, sinks and the ledger live.
//!
//! This crate knows no network, no SQL, no image codec, no inference runtime and no command line. The other crates
//! know this one and not each other, so the compiler keeps the arrows of the workspace straight.

pub mod bridge;
pub mod clock;
pub mod cluster;
pub mod detector;
pub mod disk;
pub mod fault;
pub mod invariants;
pub mod kill;
pub mod layout;
pub mod ledger;
pub mod live;
pub mod pulse;
pub mod record;
pub mod retry;
pub mod sink;
pub mod source;
#[cfg(feature = "testing")]
pub mod testing;

pub use clock::{Clock, Time};
pub use fault::{Class, Fault, Lost};
pub use live::Live;

/// A stream of records in the graph: a timely stream whose timestamps are due times.
pub type Flow<'s, D> = timely::dataflow::StreamVec<'s, Time, D>;

/// A boxed future that can cross threads; what the object-safe async traits of this crate return.
pub type Future<T> = std::pin::Pin<Box<dyn std::future::Future<Output = T> + Send>>;
