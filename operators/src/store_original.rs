//! `store_original`: original bytes to the object store, before the fact that names them.
//!
//! Every distinct picture that decodes is stored under its content address: retries, duplicates that take over and restarts read
//! it back from there instead of asking the web again. Promise: when an image comes out, its bytes are durable.

use std::sync::Arc;

use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::map_async::MapAsync;
use faceflow_core::object_key::image_key;
use faceflow_core::record::{Image, QueueId, StoredImage};
use faceflow_core::{FailedRecord, Flow};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;

use crate::decode::DecodedImage;
use crate::pixel_cache::PixelCache;
use crate::tenant_store::TenantStore;

/// Originals that are put at once, per worker.
const PUTS_MAX: usize = 256;

/// Stores originals.
pub trait StoreOriginal<'s> {
    /// Puts each picture's bytes into its tenant's part of `tenant_store`. A picture whose bytes cannot be stored leaves `pixel_cache`.
    fn store_original(
        self,
        tenant_store: TenantStore,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
    ) -> (Flow<'s, StoredImage>, Flow<'s, FailedRecord<Image>>);
}

impl<'s> StoreOriginal<'s> for Flow<'s, DecodedImage> {
    fn store_original(
        self,
        tenant_store: TenantStore,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
    ) -> (Flow<'s, StoredImage>, Flow<'s, FailedRecord<Image>>) {
        let job = move |decoded: DecodedImage| {
            let folder = tenant_store.folder(decoded.kept.frame.job);
            let put = tenant_store.store.put(image_key(&folder, &decoded.kept.frame.content), decoded.body);
            async move {
                put.await?;
                Ok(decoded.kept)
            }
        };
        let limits = Limits::finishing(PUTS_MAX);
        let (kept, lost) = self
            .map_async(
                Pipeline,
                "store_original",
                executor,
                (limits, |decoded| QueueId::local(decoded.kept.image.job), job),
            )
            .ok_err(|answer| answer);
        let lost = lost.map(move |lost| {
            pixel_cache.remove(lost.record.kept.frame.pixels);
            FailedRecord { record: lost.record.kept.image, fault: lost.fault }
        });
        (kept, lost)
    }
}
