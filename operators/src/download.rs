//! `download`: images to bytes.
//!
//! Images come to the worker that asks their host ([`route`](crate::route)), like pages. A download keeps its slot until there is
//! a place in the darkroom for its picture, so a slow detector slows the download instead of filling memory. Promise: every image
//! comes out again.

use std::sync::Arc;

use bytes::Bytes;
use faceflow_core::bridge::{Bridge, Cross, Limits};
use faceflow_core::record::{Image, lane};
use faceflow_core::{Flow, Lost};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use url::Url;

use crate::darkroom::{Darkroom, Place};
use crate::web::{Want, Web};

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
    /// The picture's place in the darkroom, for whoever develops it.
    pub place: Arc<Place>,
}

/// Downloads images.
pub trait Downloads<'s> {
    /// Sends each image's request through `web`, at most `limits` at once, and waits until `darkroom` has room.
    fn download(
        self,
        web: Arc<dyn Web>,
        darkroom: Arc<Darkroom>,
        bridge: &Bridge,
        limits: Limits,
    ) -> (Flow<'s, Download>, Flow<'s, Lost<Image>>);
}

impl<'s> Downloads<'s> for Flow<'s, Image> {
    fn download(
        self,
        web: Arc<dyn Web>,
        darkroom: Arc<Darkroom>,
        bridge: &Bridge,
        limits: Limits,
    ) -> (Flow<'s, Download>, Flow<'s, Lost<Image>>) {
        let job = move |image: Image| {
            let (web, darkroom) = (Arc::clone(&web), Arc::clone(&darkroom));
            async move {
                let (final_url, headers, body) = match image.inline.clone() {
                    Some(body) => (image.url.clone(), vec![], body),
                    None => {
                        let response = web.get(&image.url, Want::Image).await?;
                        (response.final_url, response.headers, response.body)
                    }
                };
                Ok(Download { image, final_url, headers, body, place: darkroom.place().await })
            }
        };
        self.cross(Pipeline, "download", bridge, (limits, |image| lane(&image.url), job)).ok_err(|answer| answer)
    }
}
