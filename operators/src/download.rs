//! `download`: images to bytes, and bytes to what they are: those of a picture that is recorded already, or others.
//!
//! Images come to the worker that asks their host ([`route`](crate::route)), like pages. Bytes are known by their SHA-256: an exact
//! copy is neither decoded nor stored again. A download of other bytes counts as under way until the pixel cache has room for its
//! picture, so a slow detector slows downloads instead of filling memory. Promise: every image comes out again.

use std::sync::Arc;

use bytes::Bytes;
use faceflow_core::clock::Clock;
use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::map_async::MapAsync;
use faceflow_core::record::{ContentId, CopiedImage, Image, Page, QueueId};
use faceflow_core::{FailedRecord, Fault, Flow};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;
use url::Url;

use crate::branch::{Branch, Branched};
use crate::found_pages::FoundPages;
use crate::picture_decoder::{Examined, PictureDecoder};
use crate::pixel_cache::Room;
use crate::stored_contents::StoredContents;
use faceflow_mine::html::{self, Source};
use faceflow_mine::url_normalization::{normalise, site_of};
use faceflow_web::{Response, Want, Web};

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

/// Links followed to a page that was taken for a picture, as far as anybody knows: a bounded crawl takes the pictures that it shows,
/// and follows none of its links.
const DEPTH: u32 = 2;

/// What became of images: what is to be decoded, and the rest.
pub struct Downloads<'s> {
    /// Bytes that are not recorded yet.
    pub new: Flow<'s, Download>,
    /// Bytes that are.
    pub copies: Flow<'s, CopiedImage>,
    /// Pages that were found where pictures were expected; these images are among the losses, too.
    pub pages: Flow<'s, Page>,
    /// Images that gave no picture.
    pub missing: Flow<'s, FailedRecord<Image>>,
}

/// What a response was.
#[derive(Clone, Debug)]
enum Downloaded {
    New(Download),
    Copy(CopiedImage),
    Page(Page, FailedRecord<Image>),
}

/// Downloads images.
pub trait DownloadImages<'s> {
    /// Sends each image's request through the web, at most `limits` at once. Bytes that are not among the known contents wait until
    /// the cache of the decoder has room. The answers of pages that are found are kept for whoever fetches them.
    fn download(
        self,
        backends: (Arc<dyn Web>, Arc<FoundPages>),
        known: (Arc<StoredContents>, PictureDecoder),
        executor: &Executor,
        limits: Limits,
    ) -> Downloads<'s>;
}

impl<'s> DownloadImages<'s> for Flow<'s, Image> {
    fn download(
        self,
        (web, found): (Arc<dyn Web>, Arc<FoundPages>),
        (contents, decoder): (Arc<StoredContents>, PictureDecoder),
        executor: &Executor,
        limits: Limits,
    ) -> Downloads<'s> {
        let clock = Arc::clone(&executor.clock);
        let job = move |image: Image| {
            let (web, contents, decoder) = (Arc::clone(&web), Arc::clone(&contents), decoder.clone());
            let (found, clock) = (Arc::clone(&found), Arc::clone(&clock));
            async move { download(image, web.as_ref(), (&contents, &decoder), (&found, clock.as_ref())).await }
        };
        let (downloaded, lost) = self
            .map_async(Pipeline, "download", executor, (limits, |image| QueueId::of(image.job, &image.url), job))
            .ok_err(|answer| answer);
        let (new, copies, behind_links) = downloaded.branch("downloads", |downloaded| match downloaded {
            Downloaded::New(download) => Branched::A(download),
            Downloaded::Copy(copied) => Branched::B(copied),
            Downloaded::Page(page, lost) => Branched::C((page, lost)),
        });
        let pages = behind_links.clone().map(|(page, _)| page);
        Downloads { new, copies, pages, missing: lost.concat(behind_links.map(|(_, lost)| lost)) }
    }
}

async fn download(
    image: Image,
    web: &dyn Web,
    (contents, decoder): (&StoredContents, &PictureDecoder),
    (found, clock): (&FoundPages, &dyn Clock),
) -> Result<Downloaded, Fault> {
    let response = match image.inline.clone() {
        Some(body) => Response { final_url: image.url.clone(), status: 200, headers: vec![], body },
        None => web.get(&image.url, Want::Image).await?,
    };
    let body = &response.body;
    let Examined { id: content, header } = decoder.examine(body.clone()).await?;
    if contents.holds(image.job.tenant, content) {
        let Response { final_url, headers, .. } = response;
        return Ok(Downloaded::Copy(CopiedImage { image, final_url, headers, content }));
    }
    match header {
        Ok(header) => {
            let room = decoder.pixel_cache.reserve(image.job.tenant, header.memory_bytes).await;
            let Response { final_url, headers, body, .. } = response;
            Ok(Downloaded::New(Download { image, final_url, headers, body, content, room }))
        }
        Err(fault) => {
            let source = Source { url: &response.final_url, content_type: response.header("content-type"), body };
            let Some(page) = page_behind_link(&image, &source) else { return Err(fault) };
            found.keep((page.job, &page.url), &response, clock.now());
            Ok(Downloaded::Page(page, FailedRecord { record: image, fault }))
        }
    }
}

/// The page that was found where a picture was expected (`/wiki/File:Name.jpg`), if it is one of the site that linked it and its address looks like that of a picture. The picture
/// itself is rejected for what it is.
fn page_behind_link(image: &Image, found: &Source<'_>) -> Option<Page> {
    let is_own = site_of(&image.url) == site_of(&image.page) && site_of(found.url) == site_of(&image.page);
    // A site that answers every address with a page that shows more of them would never end.
    let looks_so = html::names_picture(image.url.as_str()) && !html::names_picture(image.page.as_str());
    let fits = looks_so && image.inline.is_none() && image.version.is_none() && is_own && html::is_page(found);
    let url = fits.then(|| normalise(image.url.clone())).flatten()?;
    Some(Page { depth: DEPTH, site: image.site.clone(), ..Page::start(image.job, url) })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use faceflow_core::Future;
    use faceflow_core::blocking::CpuPermits;
    use faceflow_core::record::JobId;
    use faceflow_core::testing::simulate;
    use timely::dataflow::operators::{Probe, ToStream};

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
            host: None,
        }
    }

    #[test]
    fn bytes_of_a_recorded_picture_are_a_copy_and_wait_for_no_room() {
        let contents = Arc::new(StoredContents::default());
        contents.load(JobId::FIRST.tenant, ContentId::of(&body("/known")));
        // There is room for one picture, and it is taken.
        let pixel_cache = Arc::new(PixelCache::new(1, 1));
        let room = futures::executor::block_on(pixel_cache.reserve(JobId::FIRST.tenant, 1));
        let (settings, cpu) = (Arc::default(), CpuPermits::new(1));
        let decoder = PictureDecoder { settings, pixel_cache, cpu };
        let log = Arc::new(Mutex::new(Vec::new()));
        let (of_copies, of_others) = (Arc::clone(&log), Arc::clone(&log));
        let room = Mutex::new(Some(room));
        simulate(100_000, move |scope, executor| {
            let images = [image("/new"), image("/known")].to_stream(scope).container::<Vec<_>>();
            let known = (contents, decoder);
            let Downloads { new: others, copies, missing: lost, .. } =
                images.download((Arc::new(Echo), Arc::default()), known, executor, Limits::starting(8, 8));
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
