//! `unique`: lets every picture through once, by the SHA-256 of its bytes.
//!
//! Exchanged by content. A second URL with the same bytes needs nothing more: the ledger knows both URLs' content, and the
//! picture's fate is theirs. Promise: one picture, one detection.

use std::collections::HashSet;

use faceflow_core::Flow;
use faceflow_core::record::{ContentId, Frame};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

/// What `unique` says of a picture.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Verdict {
    /// Not seen before.
    First(Frame),
    /// An exact copy of a known picture; its pixels can go.
    Copy(Frame),
}

/// Tells first sightings from copies.
pub trait Unique<'s> {
    /// A frame is a copy when its content is in `known` (this worker's share) or came through before.
    fn unique(self, known: HashSet<ContentId>) -> Flow<'s, Verdict>;
}

impl<'s> Unique<'s> for Flow<'s, Frame> {
    fn unique(self, mut known: HashSet<ContentId>) -> Flow<'s, Verdict> {
        let by_content = Exchange::new(|frame: &Frame| frame.content.id.route());
        self.unary(by_content, "unique", move |_, _| {
            move |input, output| {
                input.for_each_time(|time, data| {
                    let verdicts = data.flat_map(|batch| batch.drain(..)).map(|frame| {
                        if known.insert(frame.content.id) { Verdict::First(frame) } else { Verdict::Copy(frame) }
                    });
                    output.session(&time).give_iterator(verdicts);
                });
            }
        })
    }
}
