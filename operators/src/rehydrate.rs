//! `rehydrate`: reads the pixels of frames back that are no longer in the pixel cache.
//!
//! A frame that waited for a retry, a duplicate that takes over, or a frame of an earlier run has no pixels in memory: its
//! original is read from the object store and decoded again. Frames with pixels pass straight through. It stands before
//! `detect` so that waiting for room in the cache never delays frames that have it.

use std::sync::Arc;

use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::map_async::MapAsync;
use faceflow_core::object_key::image_key;
use faceflow_core::record::{Frame, QueueId};
use faceflow_core::{Class, FailedRecord, Fault, Flow};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::core::OkErr;

use crate::picture_decoder::{Examined, PictureDecoder};
use crate::stored_contents::StoredContents;
use crate::tenant_store::TenantStore;

/// Originals read back at once, per worker.
const RECALLS_MAX: usize = 32;

/// Reads pixels back.
pub trait Rehydrate<'s> {
    /// Reads the originals of frames without pixels from their tenants' parts of `tenant_store` and has `decoder` decode them. What is
    /// missing there is noted among `contents`.
    fn rehydrate(
        self,
        tenant_store: TenantStore,
        known: (PictureDecoder, Arc<StoredContents>),
        executor: &Executor,
    ) -> (Flow<'s, Frame>, Flow<'s, FailedRecord<Frame>>);
}

impl<'s> Rehydrate<'s> for Flow<'s, Frame> {
    fn rehydrate(
        self,
        tenant_store: TenantStore,
        (decoder, contents): (PictureDecoder, Arc<StoredContents>),
        executor: &Executor,
    ) -> (Flow<'s, Frame>, Flow<'s, FailedRecord<Frame>>) {
        let cache = Arc::clone(&decoder.pixel_cache);
        let is_cached = move |frame: &Frame| frame.pixels.is_some_and(|pixels| cache.get(pixels).is_some());
        let (ready, gone) = self.ok_err(move |frame| if is_cached(&frame) { Ok(frame) } else { Err(frame) });
        let job = move |frame: Frame| {
            let body = tenant_store.store.get(image_key(&tenant_store.folder(frame.job), &frame.content));
            let (decoder, contents) = (decoder.clone(), Arc::clone(&contents));
            async move {
                let (tenant, content) = (frame.job.tenant, frame.content.id);
                let body = body.await.map_err(missing).inspect_err(|fault| {
                    if fault.reason == "original_missing" {
                        contents.note_missing(tenant, content);
                    }
                })?;
                let Examined { id: found, header } = decoder.examine(body.clone()).await?;
                if found != content {
                    contents.note_missing(tenant, content);
                    let detail = format!("the stored original of {content} has other bytes ({found})");
                    return Err(Fault::transient(Class::Content, "original_corrupt", detail));
                }
                let room = decoder.pixel_cache.reserve(tenant, header?.memory_bytes).await;
                let (_, pixels) = decoder.decode((content, body), room).await?;
                Ok(Frame { pixels: Some(pixels), ..frame })
            }
        };
        let limits = Limits::starting(RECALLS_MAX, RECALLS_MAX);
        let mapped = gone.map_async(Pipeline, "rehydrate", executor, (limits, |frame| QueueId::local(frame.job), job));
        let (recalled, lost) = mapped.ok_err(|answer| answer);
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
