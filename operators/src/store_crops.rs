//! `store_crops`: crops of faces and the thumbnail to the object store, with the quality of each face measured.
//!
//! Promise: when a detected frame comes out, every object that its results line names exists; its pixels are evicted either way,
//! before the puts.

use std::sync::Arc;

use bytes::Bytes;
use faceflow_core::detector::PixelBuffer;
use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::map_async::MapAsync;
use faceflow_core::object_key::{crop_key, thumb_key};
use faceflow_core::record::{DetectedFrame, Frame, QueueId};
use faceflow_core::{Class, FailedRecord, Fault, Flow};
use futures::{StreamExt, stream};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;

use crate::pixel_cache::PixelCache;
use crate::tenant_store::TenantStore;
use faceflow_pixels::DeliverSettings;

/// Pictures whose objects are made and put at once, per worker.
const STORES_MAX: usize = 256;
/// Objects of one picture that are put at once.
const PUTS_MAX: usize = 8;

/// Stores crops.
pub trait StoreCrops<'s> {
    /// Puts crops and thumbnail into its tenant's part of `tenant_store`, as the settings of its job say.
    fn store_crops(
        self,
        tenant_store: TenantStore,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
    ) -> (Flow<'s, DetectedFrame>, Flow<'s, FailedRecord<Frame>>);
}

impl<'s> StoreCrops<'s> for Flow<'s, DetectedFrame> {
    fn store_crops(
        self,
        tenant_store: TenantStore,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
    ) -> (Flow<'s, DetectedFrame>, Flow<'s, FailedRecord<Frame>>) {
        let (cache, cpu) = (Arc::clone(&pixel_cache), executor.cpu.clone());
        let job = move |delivered: DetectedFrame| {
            let (cache, cpu) = (Arc::clone(&cache), cpu.clone());
            let picture = delivered.frame.pixels.and_then(|pixels| cache.get(pixels));
            let (job, tenant_store) = (delivered.frame.job, tenant_store.clone());
            let settings = tenant_store.jobs.settings(job).deliver;
            async move {
                let gone =
                    || Fault::transient(Class::Panic, "pixels_missing", "the frame's pixels were removed too early");
                let picture = picture.ok_or_else(gone)?;
                let tenant = tenant_store.folder(job);
                let (delivered, outputs) =
                    cpu.blocking(move || outputs(delivered, &picture, &tenant, &settings)).await?;
                // The pixels go, and of their room stays what the objects take until they are put.
                let room = cache.take_room(delivered.frame.pixels);
                let bytes = outputs.iter().map(|(_, body)| body.len() as u64).sum();
                room.iter().for_each(|room| room.shrink_to(bytes));
                let puts = outputs.into_iter().map(|(key, body)| tenant_store.store.put(key, body));
                // All of them end before the picture does, so that none of a failed try is still under way in the next.
                let put: Vec<Result<(), Fault>> = stream::iter(puts).buffer_unordered(PUTS_MAX).collect().await;
                put.into_iter().collect::<Result<(), Fault>>().map(|()| delivered)
            }
        };
        let mapped = self.map_async(
            Pipeline,
            "store_crops",
            executor,
            (Limits::finishing(STORES_MAX), |found| QueueId::local(found.frame.job), job),
        );
        let clear = move |mut frame: Frame| {
            pixel_cache.remove(frame.pixels.take());
            frame
        };
        let cleared = mapped.map(move |answer| match answer {
            Ok(DetectedFrame { frame, detection }) => Ok(DetectedFrame { frame: clear(frame), detection }),
            Err(FailedRecord { record, fault }) => Err(FailedRecord { record: clear(record.frame), fault }),
        });
        cleared.ok_err(|answer| answer)
    }
}

type Outputs = Vec<(String, Bytes)>;

/// Measures and cuts out every face.
fn outputs(
    delivered: DetectedFrame,
    picture: &PixelBuffer,
    tenant: &str,
    settings: &DeliverSettings,
) -> Result<(DetectedFrame, Outputs), Fault> {
    let DetectedFrame { frame, detection } = delivered;
    let (generation, id) = (frame.generation, detection.picture());
    let detection = detection.with_quality(|face| faceflow_pixels::quality(picture, face)).of_generation(generation);
    let faces = detection.faces();
    let mut outputs = Vec::with_capacity(faces.len() + 1);
    for (n, face) in faces.iter().enumerate() {
        outputs
            .push((crop_key(tenant, id, generation, n), faceflow_pixels::crop(picture, face.bbox, settings)?.into()));
    }
    // The first answer's thumbnail shows the same picture: what it named is never written again.
    if settings.thumb_px > 0 && generation == 0 {
        outputs.push((thumb_key(tenant, id), faceflow_pixels::thumbnail(picture, settings)?.into()));
    }
    Ok((DetectedFrame { frame, detection }, outputs))
}
