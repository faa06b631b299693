//! `evict`: ends the way of frames whose pixels nobody needs.

use std::sync::Arc;

use faceflow_core::Flow;
use faceflow_core::record::Frame;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::pixel_cache::PixelCache;

/// Frees the pixels of frames.
pub trait Evict<'s> {
    /// Removes the pixels of each frame from `pixel_cache`.
    fn evict(self, pixel_cache: Arc<PixelCache>);
}

impl<'s> Evict<'s> for Flow<'s, Frame> {
    fn evict(self, pixel_cache: Arc<PixelCache>) {
        self.sink(Pipeline, "evict", move |(input, _)| {
            input.for_each(|_, frames| frames.drain(..).for_each(|frame| pixel_cache.remove(frame.pixels)));
        });
    }
}
