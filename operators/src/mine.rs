//! `mine`: responses to links and images.
//!
//! Parses each page once, on a blocking thread. Promise: every page comes out again, as a visit or as a loss.

use std::sync::Arc;

use faceflow_core::bridge::{Bridge, Cross, Limits, blocking};
use faceflow_core::record::{Image, Page, Visit};
use faceflow_core::{Fault, Flow, Lost};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;

use crate::fetch::Fetched;
use crate::html::{self, MineSettings};
use crate::web::{FetchSettings, OptOuts};

/// Reads pages.
pub trait Mine<'s> {
    /// Finds links and images within `settings`; a page whose meta tags opt out (by the rules of `fetch`) is rejected.
    fn mine(
        self,
        settings: MineSettings,
        fetch: FetchSettings,
        bridge: &Bridge,
        limits: Limits,
    ) -> (Flow<'s, Visit>, Flow<'s, Lost<Page>>);
}

impl<'s> Mine<'s> for Flow<'s, Fetched> {
    fn mine(
        self,
        settings: MineSettings,
        fetch: FetchSettings,
        bridge: &Bridge,
        limits: Limits,
    ) -> (Flow<'s, Visit>, Flow<'s, Lost<Page>>) {
        let settings = Arc::new((settings, OptOuts::new(&fetch)));
        let job = move |fetched: Fetched| {
            let settings = Arc::clone(&settings);
            async move { blocking(move || read(fetched, &settings.0, &settings.1)).await }
        };
        let (visits, lost) = self.cross(Pipeline, "mine", bridge, (limits, |_| 0, job)).ok_err(|answer| answer);
        (visits, lost.map(|lost| Lost { record: lost.record.page, fault: lost.fault }))
    }
}

fn read(fetched: Fetched, settings: &MineSettings, opt_outs: &OptOuts) -> Result<Visit, Fault> {
    let Fetched { page, response } = fetched;
    let Some(response) = response else { return Ok(unchanged(page)) };
    let content_type = response.header("content-type");
    let source = html::Source { url: &response.final_url, content_type, body: &response.body };
    let reading = html::read(&source, settings)?;
    for (name, content) in &reading.robots_meta {
        if let Some(word) = opt_outs.in_meta(name, content) {
            return Err(OptOuts::fault(&word, content));
        }
    }
    let images = reading.images.into_iter().map(|found| Image {
        url: found.url,
        page: page.url.clone(),
        site: page.site.clone(),
        attempts: 0,
        inline: found.inline,
        alternates: found.alternates,
    });
    let header = |name| response.header(name).map(str::to_owned);
    Ok(Visit {
        images: images.collect(),
        etag: header("etag"),
        last_modified: header("last-modified"),
        links: reading.links,
        final_url: response.final_url.clone(),
        http_status: response.status,
        page,
    })
}

/// A visit to a page that is as it was.
fn unchanged(page: Page) -> Visit {
    let final_url = page.url.clone();
    Visit { page, final_url, http_status: 304, etag: None, last_modified: None, links: vec![], images: vec![] }
}
