//! `recall`: gets pixels back that have left the darkroom.
//!
//! A frame that waited for a retry, a twin that takes over, or a frame of an earlier run has no pixels in memory: its
//! original is read from the object store and decoded again. Frames with pixels pass straight through. It stands before
//! `detect` so that waiting for a place in the darkroom never holds up frames that have one.

use std::sync::Arc;

use faceflow_core::bridge::{Bridge, Cross, Limits};
use faceflow_core::layout::image_key;
use faceflow_core::record::Frame;
use faceflow_core::{Class, Fault, Flow, Lost};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::core::OkErr;

use crate::darkroom::Darkroom;
use crate::decode::develop;
use crate::keep::Shelf;
use crate::pixels::ImageSettings;

/// Originals read back at once, per worker.
const RECALLS_MAX: usize = 8;

/// Gets pixels back.
pub trait Recall<'s> {
    /// Reads the originals of frames without pixels from `shelf` and decodes them into `darkroom`.
    fn recall(
        self,
        shelf: Shelf,
        darkroom: Arc<Darkroom>,
        settings: ImageSettings,
        bridge: &Bridge,
    ) -> (Flow<'s, Frame>, Flow<'s, Lost<Frame>>);
}

impl<'s> Recall<'s> for Flow<'s, Frame> {
    fn recall(
        self,
        shelf: Shelf,
        darkroom: Arc<Darkroom>,
        settings: ImageSettings,
        bridge: &Bridge,
    ) -> (Flow<'s, Frame>, Flow<'s, Lost<Frame>>) {
        let room = Arc::clone(&darkroom);
        let hangs = move |frame: &Frame| frame.ticket.is_some_and(|ticket| room.look(ticket).is_some());
        let (ready, gone) = self.ok_err(move |frame| if hangs(&frame) { Ok(frame) } else { Err(frame) });
        let job = move |frame: Frame| {
            let body = shelf.store.get(image_key(&shelf.tenant, &frame.content));
            let (darkroom, settings) = (Arc::clone(&darkroom), settings.clone());
            async move {
                let (content, ticket) =
                    develop(body.await.map_err(missing)?, settings, Arc::clone(&darkroom), darkroom.place().await)
                        .await?;
                if content.id == frame.content.id {
                    return Ok(Frame { ticket: Some(ticket), ..frame });
                }
                darkroom.clear(Some(ticket));
                let detail = format!("the stored original of {} has other bytes ({})", frame.content.id, content.id);
                Err(Fault::transient(Class::Content, "original_corrupt", detail))
            }
        };
        let limits = Limits::starting(RECALLS_MAX, RECALLS_MAX);
        let crossed = gone.cross(Pipeline, "recall", bridge, (limits, |_| 0, job));
        let (recalled, lost) = crossed.ok_err(|answer| answer);
        (ready.concat(recalled), lost)
    }
}

/// A store that works and does not have the original will not have it later either: that counts as a failed try of this picture.
fn missing(fault: Fault) -> Fault {
    match fault.reason.as_str() {
        "store_missing" => Fault::transient(Class::Content, "original_missing", fault.detail),
        _ => fault,
    }
}
