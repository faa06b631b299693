//! `download`: images to bytes, and bytes to what they are: those of a picture that is recorded already, or others.
//!
//! Images come to the worker that asks their host ([`route`](crate::route)), like pages. Bytes are known by their SHA-256: an exact
//! copy is neither decoded nor stored again. A download of other bytes counts as under way until the pixel cache has room for its
//! picture, so a slow detector slows downloads instead of filling memory. Promise: every image comes out again.

use std::sync::Arc;

use bytes::Bytes;
use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::map_async::MapAsync;
use faceflow_core::record::{ContentId, CopiedImage, Image, QueueId};
use faceflow_core::{FailedRecord, Flow};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use url::Url;

use crate::picture_decoder::{Examined, PictureDecoder};
use crate::pixel_cache::Room;
use crate::stored_contents::StoredContents;
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
    /// Their SHA-256.
    pub content: ContentId,
    /// The room that decoding them takes.
    pub room: Arc<Room>,
}

/// Downloads images.
pub trait Downloads<'s> {
    /// Sends each image's request through `web`, at most `limits` at once. Bytes that are not among `contents` wait until
    /// the cache of `decoder` has room. The flows: what is to be decoded, copies, and losses.
    fn download(
        self,
        web: Arc<dyn Web>,
        known: (Arc<StoredContents>, PictureDecoder),
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, Download>, Flow<'s, CopiedImage>, Flow<'s, FailedRecord<Image>>);
}

impl<'s> Downloads<'s> for Flow<'s, Image> {
    fn download(
        self,
        web: Arc<dyn Web>,
        (contents, decoder): (Arc<StoredContents>, PictureDecoder),
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, Download>, Flow<'s, CopiedImage>, Flow<'s, FailedRecord<Image>>) {
        let job = move |image: Image| {
            let (web, contents, decoder) = (Arc::clone(&web), Arc::clone(&contents), decoder.clone());
            async move {
                let (final_url, headers, body) = match image.inline.clone() {
                    Some(body) => (image.url.clone(), vec![], body),
                    None => {
                        let response = web.get(&image.url, Want::Image).await?;
                        (response.final_url, response.headers, response.body)
                    }
                };
                let Examined { id: content, header } = decoder.examine(body.clone()).await?;
                if contents.holds(image.job.tenant, content) {
                    return Ok(Err(CopiedImage { image, final_url, headers, content }));
                }
                let room = decoder.pixel_cache.reserve(header?.memory_bytes).await;
                Ok(Ok(Download { image, final_url, headers, body, content, room }))
            }
        };
        let (downloaded, lost): (Flow<'s, Result<Download, CopiedImage>>, _) = self
            .map_async(Pipeline, "download", executor, (limits, |image| QueueId::of(image.job, &image.url), job))
            .ok_err(|answer| answer);
        let (downloads, copies) = downloaded.ok_err(|downloaded| downloaded);
        (downloads, copies, lost)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use faceflow_core::blocking::CpuPermits;
    use faceflow_core::record::JobId;
    use faceflow_core::testing::simulate;
    use faceflow_core::{Fault, Future};
    use faceflow_web::Response;
    use timely::dataflow::operators::vec::Map;
    use timely::dataflow::operators::{Concat, Probe, ToStream};

    use super::*;
    use crate::pixel_cache::PixelCache;

    /// Answers with the beginning of a picture, and the path behind it.
    struct Echo;

    /// The header of a bitmap of 32 by 32 pixels, and the path.
    fn body(path: &str) -> Bytes {
        let header = [b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x20\0\0\0\x20\0\0\0\x01\0\x18\0", &[0; 24][..]].concat();
        [header.as_slice(), path.as_bytes()].concat().into()
    }

    impl Web for Echo {
        fn get(&self, url: &Url, _: Want) -> Future<Result<Response, Fault>> {
            let body = body(url.path());
            let response = Response { final_url: url.clone(), status: 200, headers: vec![], body };
            Box::pin(std::future::ready(Ok(response)))
        }
    }

    fn image(path: &str) -> Image {
        let url = Url::parse("http://a.example").and_then(|site| site.join(path)).expect("a URL");
        Image {
            job: JobId::FIRST,
            page: url.clone(),
            site: url.clone(),
            url,
            attempts: 0,
            uncounted: 0,
            inline: None,
            alternates: vec![],
            version: None,
        }
    }

    #[test]
    fn bytes_of_a_recorded_picture_are_a_copy_and_wait_for_no_room() {
        let contents = Arc::new(StoredContents::default());
        contents.load(JobId::FIRST.tenant, ContentId::of(&body("/known")));
        // There is room for one picture, and it is taken.
        let pixel_cache = Arc::new(PixelCache::new(1, 1));
        let room = futures::executor::block_on(pixel_cache.reserve(1));
        let (settings, cpu) = (Arc::default(), CpuPermits::new(1));
        let decoder = PictureDecoder { settings, pixel_cache, cpu };
        let log = Arc::new(Mutex::new(Vec::new()));
        let (of_copies, of_others) = (Arc::clone(&log), Arc::clone(&log));
        let room = Mutex::new(Some(room));
        simulate(100_000, move |scope, executor| {
            let images = [image("/new"), image("/known")].to_stream(scope).container::<Vec<_>>();
            let known = (contents, decoder);
            let (others, copies, lost) = images.download(Arc::new(Echo), known, executor, Limits::starting(8, 8));
            let copies = copies.map(move |copy| {
                assert_eq!(copy.content, ContentId::of(&body("/known")));
                of_copies.lock().expect("not poisoned").push(copy.image.url.path().to_owned());
                room.lock().expect("not poisoned").take();
            });
            let others = others.map(move |other| {
                assert_eq!(other.content, ContentId::of(&other.body));
                of_others.lock().expect("not poisoned").push(other.image.url.path().to_owned());
            });
            copies.concat(others).concat(lost.map(|lost| panic!("{:?}", lost.fault))).probe().0
        });
        assert_eq!(*log.lock().expect("not poisoned"), ["/known", "/new"]);
    }
}
