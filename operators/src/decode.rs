//! `decode`: bytes to pixels, once per image.
//!
//! Runs on blocking threads. The pixels stay in the pixel cache; what travels on is their description: size, digest and
//! perceptual hash. Promise: every image comes out again.

use bytes::Bytes;
use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::map_async::MapAsync;
use faceflow_core::record::{Frame, Image, QueueId, StoredImage};
use faceflow_core::{FailedRecord, Flow};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;

use crate::download::Download;
use crate::picture_decoder::PictureDecoder;

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
    /// Decodes each download by `decoder`, into the room it has.
    fn decode(
        self,
        decoder: PictureDecoder,
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, DecodedImage>, Flow<'s, FailedRecord<Image>>);
}

impl<'s> Decode<'s> for Flow<'s, Download> {
    fn decode(
        self,
        decoder: PictureDecoder,
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, DecodedImage>, Flow<'s, FailedRecord<Image>>) {
        let owner = self.scope().worker().index();
        let job = move |download: Download| {
            let decoder = decoder.clone();
            async move {
                let Download { image, final_url, headers, body, content, room } = download;
                let (content, pixels) = decoder.decode((content, body.clone()), room).await?;
                let frame = Frame {
                    job: image.job,
                    content,
                    owner,
                    pixels: Some(pixels),
                    attempts: 0,
                    uncounted: 0,
                    has_degraded: false,
                    opted_out: None,
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
