//! `dedupe_exact`: tells the first sighting of a picture from the others, by the SHA-256 of its bytes.
//!
//! Exchanged by content, after the picture's fact. Most copies are recognised when they are downloaded
//! ([`download`](crate::download)); those that come here were under way when the first of them was recorded. A second URL with the
//! same bytes needs nothing more: the ledger knows both URLs' content, and the answer for the picture is theirs. The same bytes of
//! two tenants are two pictures. Promise: one picture, one detection.

use std::sync::Arc;

use faceflow_core::Flow;
use faceflow_core::record::Frame;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::generic::operator::Operator;

use crate::stored_contents::StoredContents;

/// Whether a picture was seen before.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Seen {
    /// Not seen before.
    First(Frame),
    /// An exact copy of a known picture; its pixels can go.
    Before(Frame),
}

/// Tells first sightings from copies.
pub trait DedupeExact<'s> {
    /// A recorded frame is a copy when its content is among `contents`, and is among them from then on.
    fn dedupe_exact(self, contents: Arc<StoredContents>) -> Flow<'s, Seen>;
}

impl<'s> DedupeExact<'s> for Flow<'s, Frame> {
    fn dedupe_exact(self, contents: Arc<StoredContents>) -> Flow<'s, Seen> {
        let by_content = Exchange::new(|frame: &Frame| frame.content.id.partition_hash());
        let stored_here = Arc::clone(&contents);
        let noted = self.inspect(move |frame| stored_here.note_stored(frame.job.tenant, frame.content.id));
        noted.unary(by_content, "dedupe_exact", move |_, _| {
            move |input, output| {
                input.for_each_time(|time, data| {
                    let seen = data.flat_map(|batch| batch.drain(..)).map(|frame| {
                        let is_first = contents.is_first(frame.job.tenant, frame.content.id);
                        if is_first { Seen::First(frame) } else { Seen::Before(frame) }
                    });
                    output.session(&time).give_iterator(seen);
                });
            }
        })
    }
}
