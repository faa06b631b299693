//! `keep`: original bytes to the object store, before anything is said about them.
//!
//! Every distinct picture that decodes is kept under its content address: retries, twins and restarts read it back from
//! there instead of asking the web again. Promise: when an image comes out, its bytes are durable.

use std::sync::Arc;

use faceflow_core::bridge::{Bridge, Cross, Limits};
use faceflow_core::layout::image_key;
use faceflow_core::record::{Image, Kept};
use faceflow_core::sink::Store;
use faceflow_core::{Flow, Lost};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;

use crate::darkroom::Darkroom;
use crate::decode::Developed;

/// One tenant's part of the object store. Clones share it.
#[derive(Clone)]
pub struct Shelf {
    /// The store.
    pub store: Arc<dyn Store>,
    /// First folder of every key.
    pub tenant: Arc<str>,
}

/// Keeps originals.
pub trait Keep<'s> {
    /// Puts each picture's bytes on `shelf`. A picture whose bytes cannot be kept leaves `darkroom`.
    fn keep(self, shelf: Shelf, darkroom: Arc<Darkroom>, bridge: &Bridge) -> (Flow<'s, Kept>, Flow<'s, Lost<Image>>);
}

impl<'s> Keep<'s> for Flow<'s, Developed> {
    fn keep(self, shelf: Shelf, darkroom: Arc<Darkroom>, bridge: &Bridge) -> (Flow<'s, Kept>, Flow<'s, Lost<Image>>) {
        let job = move |developed: Developed| {
            let put = shelf.store.put(image_key(&shelf.tenant, &developed.kept.frame.content), developed.body);
            async move {
                put.await?;
                Ok(developed.kept)
            }
        };
        let limits = Limits::finishing(64);
        let (kept, lost) = self.cross(Pipeline, "keep", bridge, (limits, |_| 0, job)).ok_err(|answer| answer);
        let lost = lost.map(move |lost| {
            darkroom.clear(lost.record.kept.frame.ticket);
            Lost { record: lost.record.kept.image, fault: lost.fault }
        });
        (kept, lost)
    }
}
