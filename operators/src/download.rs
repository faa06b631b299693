//! `download`: images to bytes.
//!
//! Images come to the worker that asks their host ([`route`](crate::route)), like pages. A download counts as under way
//! until the pixel cache has a slot for its picture, so a slow detector slows downloads instead of filling memory. Promise: every image
//! comes out again.

use std::sync::Arc;

use bytes::Bytes;
use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::map_async::MapAsync;
use faceflow_core::record::{Image, QueueId};
use faceflow_core::{FailedRecord, Flow};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use url::Url;

use crate::pixel_cache::{CacheSlot, PixelCache};
use faceflow_web::{Want, Web};

/// An image with its bytes. Stays on its worker.
#[derive(Clone, Debug)]
pub struct Download {
    /// The image.
    pub image: Image,
    /// Where redirects ended.
    pub final_url: Url,
    /// Response headers worth keeping.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The slot of its picture in the cache.
    pub slot: Arc<CacheSlot>,
}

/// Downloads images.
pub trait Downloads<'s> {
    /// Sends each image's request through `web`, at most `limits` at once, and waits until `pixel_cache` has room.
    fn download(
        self,
        web: Arc<dyn Web>,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, Download>, Flow<'s, FailedRecord<Image>>);
}

impl<'s> Downloads<'s> for Flow<'s, Image> {
    fn download(
        self,
        web: Arc<dyn Web>,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, Download>, Flow<'s, FailedRecord<Image>>) {
        let job = move |image: Image| {
            let (web, pixel_cache) = (Arc::clone(&web), Arc::clone(&pixel_cache));
            async move {
                let (final_url, headers, body) = match image.inline.clone() {
                    Some(body) => (image.url.clone(), vec![], body),
                    None => {
                        let response = web.get(&image.url, Want::Image).await?;
                        (response.final_url, response.headers, response.body)
                    }
                };
                Ok(Download { image, final_url, headers, body, slot: pixel_cache.slot().await })
            }
        };
        self.map_async(Pipeline, "download", executor, (limits, |image| QueueId::of(image.job, &image.url), job))
            .ok_err(|answer| answer)
    }
}
