//! `decode`: bytes to pixels, once per image.
//!
//! Runs on blocking threads. The pixels hang in the darkroom; what travels on is their description: size, digest and
//! perceptual hash. Promise: no allocation before the limits are checked, and every image comes out again.

use std::sync::Arc;

use bytes::Bytes;
use faceflow_core::bridge::{Bridge, Cross, Limits, blocking};
use faceflow_core::detector::Picture;
use faceflow_core::record::{Content, ContentId, Frame, Image, Kept};
use faceflow_core::{Fault, Flow, Lost};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;

use crate::darkroom::{Darkroom, Place};
use crate::download::Download;
use crate::pixels::{self, ImageSettings};

/// A decoded image with the bytes that are still to be kept. Stays on its worker.
#[derive(Clone, Debug)]
pub struct Developed {
    /// What will be recorded once the bytes are kept.
    pub kept: Kept,
    /// The original bytes.
    pub body: Bytes,
}

/// Decodes images.
pub trait Decode<'s> {
    /// Decodes each download within `settings` and hangs its pixels in `darkroom`.
    fn decode(
        self,
        settings: ImageSettings,
        darkroom: Arc<Darkroom>,
        bridge: &Bridge,
        limits: Limits,
    ) -> (Flow<'s, Developed>, Flow<'s, Lost<Image>>);
}

impl<'s> Decode<'s> for Flow<'s, Download> {
    fn decode(
        self,
        settings: ImageSettings,
        darkroom: Arc<Darkroom>,
        bridge: &Bridge,
        limits: Limits,
    ) -> (Flow<'s, Developed>, Flow<'s, Lost<Image>>) {
        let home = self.scope().worker().index();
        let job = move |download: Download| {
            let (darkroom, settings) = (Arc::clone(&darkroom), settings.clone());
            async move {
                let Download { image, final_url, headers, body, place } = download;
                let (content, ticket) = develop(body.clone(), settings, darkroom, place).await?;
                let frame =
                    Frame { content, home, ticket: Some(ticket), attempts: 0, spared: 0, weak: false, scale: None };
                Ok(Developed { kept: Kept { image, final_url, headers, frame }, body })
            }
        };
        let (developed, lost) = self.cross(Pipeline, "decode", bridge, (limits, |_| 0, job)).ok_err(|answer| answer);
        (developed, lost.map(|lost| Lost { record: lost.record.image, fault: lost.fault }))
    }
}

/// Decodes bytes into the darkroom: the description of the picture, and its ticket.
pub async fn develop(
    body: Bytes,
    settings: ImageSettings,
    darkroom: Arc<Darkroom>,
    place: Arc<Place>,
) -> Result<(Content, u64), Fault> {
    let header = pixels::peek(&body, &settings)?;
    let memory = darkroom.reserve(header.memory_bytes).await;
    blocking(move || {
        let (content, picture) = describe(&body, &settings)?;
        Ok((content, darkroom.hang(picture, (place, memory))))
    })
    .await
}

/// Decodes bytes and describes the picture they are.
pub fn describe(body: &[u8], settings: &ImageSettings) -> Result<(Content, Picture), Fault> {
    let decoded = pixels::decode(body, settings)?;
    let picture = decoded.picture;
    let content = Content {
        id: ContentId::of(body),
        bytes: body.len() as u64,
        format: decoded.format.to_owned(),
        width: picture.width,
        height: picture.height,
        phash: pixels::phash(&picture),
    };
    Ok((content, picture))
}
