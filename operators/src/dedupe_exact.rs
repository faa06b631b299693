//! `dedupe_exact`: tells the first sighting of a picture from the others, by the SHA-256 of its bytes.
//!
//! Exchanged by content. A second URL with the same bytes needs nothing more: the ledger knows both URLs' content, and the
//! answer for the picture is theirs. The same bytes of two tenants are two pictures. Promise: one picture, one detection.

use std::collections::{HashMap, HashSet};

use faceflow_core::Flow;
use faceflow_core::record::{ContentId, Frame, TenantNumber};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

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
    /// A frame is a copy when its content came through before, or is among those that were `known` of its tenant when the first of
    /// it came through (this worker's share).
    fn dedupe_exact(self, known: impl Fn(TenantNumber) -> HashSet<ContentId> + 'static) -> Flow<'s, Seen>;
}

impl<'s> DedupeExact<'s> for Flow<'s, Frame> {
    fn dedupe_exact(self, known: impl Fn(TenantNumber) -> HashSet<ContentId> + 'static) -> Flow<'s, Seen> {
        let by_content = Exchange::new(|frame: &Frame| frame.content.id.partition_hash());
        self.unary(by_content, "dedupe_exact", move |_, _| {
            let mut tenants = HashMap::<TenantNumber, HashSet<ContentId>>::new();
            move |input, output| {
                input.for_each_time(|time, data| {
                    let seen = data.flat_map(|batch| batch.drain(..)).map(|frame| {
                        let tenant = frame.job.tenant;
                        let contents = tenants.entry(tenant).or_insert_with(|| known(tenant));
                        if contents.insert(frame.content.id) { Seen::First(frame) } else { Seen::Before(frame) }
                    });
                    output.session(&time).give_iterator(seen);
                });
            }
        })
    }
}
