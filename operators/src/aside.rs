//! `home` and `aside`: frames go back to where their pixels are; pixels that nobody needs are taken down.

use std::sync::Arc;

use faceflow_core::Flow;
use faceflow_core::record::Frame;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use crate::darkroom::Darkroom;

/// Sends frames home.
pub trait Home<'s> {
    /// Exchanges each frame to the worker in whose process its pixels are.
    fn home(self) -> Flow<'s, Frame>;
}

impl<'s> Home<'s> for Flow<'s, Frame> {
    fn home(self) -> Flow<'s, Frame> {
        self.exchange(|frame| frame.home as u64)
    }
}

/// Ends the way of frames whose pixels are not needed.
pub trait Aside<'s> {
    /// Takes their pixels down from `darkroom`.
    fn aside(self, darkroom: Arc<Darkroom>);
}

impl<'s> Aside<'s> for Flow<'s, Frame> {
    fn aside(self, darkroom: Arc<Darkroom>) {
        self.sink(Pipeline, "aside", move |(input, _)| {
            input.for_each(|_, frames| frames.drain(..).for_each(|frame| darkroom.clear(frame.ticket)));
        });
    }
}
