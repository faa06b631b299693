//! Where results go: the object store, and sinks that follow the frontier.

use bytes::Bytes;

use crate::Future;
use crate::clock::Time;
use crate::detector::Detection;
use crate::fault::Fault;

/// An object store under one root. Keys are content-addressed, so writing an object twice is harmless; a crash leaves
/// no half-written object under its key.
pub trait Store: Send + Sync {
    /// Stores an object.
    fn put(&self, key: String, body: Bytes) -> Future<Result<(), Fault>>;

    /// Reads an object whole.
    fn get(&self, key: String) -> Future<Result<Bytes, Fault>>;
}

/// Receives detections once they are delivered and recorded. Runs on a thread of its own, so it may block.
///
/// After `flush(upto)` no detection with a time before `upto` will be written. A detection may be written again after a
/// crash between its record and the flush, so a sink with effects of its own should be idempotent by picture id.
pub trait Sink: Send {
    /// Takes detections of one time.
    fn write(&mut self, at: Time, batch: &[Detection]) -> Result<(), Fault>;

    /// Everything before `upto` has been written.
    fn flush(&mut self, upto: Time) -> Result<(), Fault>;
}
