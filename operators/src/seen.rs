//! `seen`: lets every image URL through once.
//!
//! Exchanged by URL, so each worker remembers its own share: 16 bytes of key per URL. Promise: an image that was ever let
//! through, in this run or an earlier one of the same state, is not let through again.

use std::collections::HashSet;

use faceflow_core::Flow;
use faceflow_core::record::{Image, Key};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

/// Drops what was seen before.
pub trait Seen<'s> {
    /// Lets through images whose key is not in `known` (this worker's share) and was not let through before.
    fn seen(self, known: HashSet<Key>) -> Flow<'s, Image>;
}

impl<'s> Seen<'s> for Flow<'s, Image> {
    fn seen(self, mut known: HashSet<Key>) -> Flow<'s, Image> {
        let by_url = Exchange::new(|image: &Image| image.key().route());
        self.unary(by_url, "seen", move |_, _| {
            move |input, output| {
                input.for_each_time(|time, data| {
                    let fresh = data.flat_map(|batch| batch.drain(..)).filter(|image| known.insert(image.key()));
                    output.session(&time).give_iterator(fresh);
                });
            }
        })
    }
}
