//! `decode`: bytes to pixels, once per image.
//!
//! Runs on blocking threads. The pixels stay in the pixel cache; what travels on is their description: size, digest and
//! perceptual hash. Promise: no allocation before the limits are checked, and every image comes out again.

use std::sync::Arc;

use bytes::Bytes;
use faceflow_core::blocking::blocking;
use faceflow_core::detector::Picture;
use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::map_async::MapAsync;
use faceflow_core::record::{Content, ContentId, Frame, Image, QueueId, StoredImage};
use faceflow_core::{FailedRecord, Fault, Flow};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;

use crate::download::Download;
use crate::pixel_cache::{CacheSlot, PixelCache};
use faceflow_pixels::ImageSettings;

/// A decoded image with the bytes that are still to be stored. Stays on its worker.
#[derive(Clone, Debug)]
pub struct DecodedImage {
    /// What will be recorded once the bytes are stored.
    pub kept: StoredImage,
    /// The original bytes.
    pub body: Bytes,
}

/// Decodes images.
pub trait Decode<'s> {
    /// Decodes each download within `settings` and puts its pixels into `pixel_cache`.
    fn decode(
        self,
        settings: ImageSettings,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, DecodedImage>, Flow<'s, FailedRecord<Image>>);
}

impl<'s> Decode<'s> for Flow<'s, Download> {
    fn decode(
        self,
        settings: ImageSettings,
        pixel_cache: Arc<PixelCache>,
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, DecodedImage>, Flow<'s, FailedRecord<Image>>) {
        let owner = self.scope().worker().index();
        let job = move |download: Download| {
            let (pixel_cache, settings) = (Arc::clone(&pixel_cache), settings.clone());
            async move {
                let Download { image, final_url, headers, body, slot } = download;
                let (content, pixels) = decode_picture(body.clone(), settings, pixel_cache, slot).await?;
                let frame = Frame {
                    job: image.job,
                    content,
                    owner,
                    pixels: Some(pixels),
                    attempts: 0,
                    uncounted: 0,
                    has_degraded: false,
                    generation: 0,
                    scale: None,
                };
                Ok(DecodedImage { kept: StoredImage { image, final_url, headers, frame }, body })
            }
        };
        let (decoded, lost) = self
            .map_async(Pipeline, "decode", executor, (limits, |download| QueueId::local(download.image.job), job))
            .ok_err(|answer| answer);
        (decoded, lost.map(|lost| FailedRecord { record: lost.record.image, fault: lost.fault }))
    }
}

/// Decodes bytes into the pixel cache: the description of the picture, and its pixels.
pub async fn decode_picture(
    body: Bytes,
    settings: ImageSettings,
    pixel_cache: Arc<PixelCache>,
    slot: Arc<CacheSlot>,
) -> Result<(Content, u64), Fault> {
    let header = faceflow_pixels::peek(&body, &settings)?;
    let memory = pixel_cache.reserve(header.memory_bytes).await;
    blocking(move || {
        let (content, picture) = describe(&body, &settings)?;
        Ok((content, pixel_cache.insert(picture, (slot, memory))))
    })
    .await
}

/// Decodes bytes and describes the picture they are.
pub fn describe(body: &[u8], settings: &ImageSettings) -> Result<(Content, Picture), Fault> {
    let decoded = faceflow_pixels::decode(body, settings)?;
    let picture = decoded.picture;
    let content = Content {
        id: ContentId::of(body),
        bytes: body.len() as u64,
        format: decoded.format.to_owned(),
        width: picture.width,
        height: picture.height,
        hashes: faceflow_pixels::phash(&picture).into(),
    };
    Ok((content, picture))
}
