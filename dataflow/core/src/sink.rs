//! Where results go: the object store, and sinks that follow the frontier.

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::Future;
use crate::clock::Time;
use crate::detector::Detection;
use crate::fault::Fault;

/// An object as a listing names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size.
    pub bytes: u64,
}

/// Objects one after the other, read from the store as they are taken. It ends after the first fault.
pub type Listing = BoxStream<'static, Result<Listed, Fault>>;

/// An object store under one root. Keys are content-addressed, so writing an object twice is harmless; a crash leaves
/// no half-written object under its key.
pub trait Store: Send + Sync {
    /// Stores an object.
    fn put(&self, key: String, body: Bytes) -> Future<Result<(), Fault>>;

    /// Reads an object whole.
    fn get(&self, key: String) -> Future<Result<Bytes, Fault>>;

    /// Lists the objects in a folder and below it, in no certain order; `""` for all. One that is written or deleted meanwhile
    /// may be named or not.
    fn list(&self, folder: String) -> Listing;

    /// Deletes an object. One that is not there is deleted already.
    fn delete(&self, key: String) -> Future<Result<(), Fault>>;
}

/// Receives detections once their crops are stored, and before the ledger says so. Runs on a thread of its own, so it may
/// block.
///
/// A detection is recorded after the flush that follows its write, so none is lost; one may be written again after a crash
/// in between, so a sink with effects of its own should be idempotent by picture id.
pub trait Sink: Send {
    /// Takes detections of one time.
    fn write(&mut self, at: Time, batch: &[Detection]) -> Result<(), Fault>;

    /// Makes everything that was written durable. No detection with a time before `upto` will be written in this run; the last
    /// flush of a run that did not fail is `flush(Time::MAX)`, also when work is left for another run.
    fn flush(&mut self, upto: Time) -> Result<(), Fault>;
}
