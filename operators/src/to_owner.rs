//! `to_owner`: frames go to the worker in whose process their pixels are cached.

use faceflow_core::Flow;
use faceflow_core::record::Frame;
use timely::dataflow::operators::Exchange;

/// Sends frames to where their pixels are.
pub trait ToOwner<'s> {
    /// Exchanges each frame to the worker that owns its pixels.
    fn to_owner(self) -> Flow<'s, Frame>;
}

impl<'s> ToOwner<'s> for Flow<'s, Frame> {
    fn to_owner(self) -> Flow<'s, Frame> {
        self.exchange(|frame| frame.owner as u64)
    }
}
