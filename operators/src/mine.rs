//! `mine`: responses to links and images.
//!
//! Parses each page once, on a blocking thread; sitemaps and feeds are pages, too. Promise: every page comes out again, as a visit or as a loss.

use std::sync::Arc;

use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::map_async::MapAsync;
use faceflow_core::planted_bugs::{LAST_IMAGE, planted};
use faceflow_core::record::{Image, Page, PageKind, QueueId, Visit};
use faceflow_core::{FailedRecord, Fault, Flow};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;
use url::Url;

use crate::fetch::Fetched;
use crate::jobs::Jobs;
use faceflow_mine::feed;
use faceflow_mine::html::{self, MineSettings};
use faceflow_web::{FetchSettings, OptOuts};

/// Reads pages.
pub trait Mine<'s> {
    /// Finds links and images within the settings of the job of each page in `jobs`; a page whose meta tags opt out (by the rules of `fetch`) is rejected.
    fn mine(
        self,
        jobs: Jobs,
        fetch: FetchSettings,
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, Visit>, Flow<'s, FailedRecord<Page>>);
}

impl<'s> Mine<'s> for Flow<'s, Fetched> {
    fn mine(
        self,
        jobs: Jobs,
        fetch: FetchSettings,
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, Visit>, Flow<'s, FailedRecord<Page>>) {
        let (opt_outs, cpu) = (Arc::new(OptOuts::new(&fetch)), executor.cpu.clone());
        let job = move |fetched: Fetched| {
            let (settings, opt_outs) = (jobs.settings(fetched.page.job).mine, Arc::clone(&opt_outs));
            let cpu = cpu.clone();
            async move { cpu.blocking(move || read(fetched, &settings, &opt_outs)).await }
        };
        let (visits, lost) = self
            .map_async(Pipeline, "mine", executor, (limits, |fetched| QueueId::local(fetched.page.job), job))
            .ok_err(|answer| answer);
        (visits, lost.map(|lost| FailedRecord { record: lost.record.page, fault: lost.fault }))
    }
}

fn read(fetched: Fetched, settings: &MineSettings, opt_outs: &OptOuts) -> Result<Visit, Fault> {
    let Fetched { page, response } = fetched;
    let Some(response) = response else { return Ok(unchanged(page)) };
    let content_type = response.header("content-type");
    let source = html::Source { url: &response.final_url, content_type, body: &response.body };
    let refresh = response.header("refresh").map(|header| html::refresh(&source, header, settings)).unwrap_or_default();
    let leads_on = !refresh.links.is_empty() || !refresh.images.is_empty();
    let (kind, mut reading) = match feed::read(&source, settings) {
        Some(reading) => (PageKind::Feed, reading),
        None => match html::read(&source, settings) {
            // Where it leads counts, whatever its own body is.
            Err(_) if leads_on => (PageKind::Page, html::ExtractedPage::default()),
            read => (PageKind::Page, read?),
        },
    };
    let new = |link: &Url| !reading.links.contains(link);
    let (links, images) = (refresh.links.into_iter().filter(new).collect::<Vec<_>>(), refresh.images);
    reading.links.splice(0..0, links);
    reading.images.extend(images);
    for (name, content) in &reading.named_meta {
        if let Some(word) = opt_outs.in_meta(name, content) {
            return Err(OptOuts::fault(&word, content));
        }
    }
    let shown = reading.images.len().saturating_sub(usize::from(planted(LAST_IMAGE)));
    let images = reading.images.into_iter().take(shown).map(|found| Image {
        job: page.job,
        url: found.url,
        page: page.url.clone(),
        site: page.site.clone(),
        attempts: 0,
        inline: found.inline,
        uncounted: 0,
        alternates: found.alternates,
        version: None,
        host: None,
    });
    let header = |name| response.header(name).map(str::to_owned);
    Ok(Visit {
        images: images.collect(),
        etag: header("etag"),
        last_modified: header("last-modified"),
        links: reading.links,
        final_url: response.final_url.clone(),
        http_status: response.status,
        kind,
        page,
    })
}

/// A visit to a page that is as it was.
fn unchanged(page: Page) -> Visit {
    let final_url = page.url.clone();
    Visit {
        page,
        kind: PageKind::Page,
        final_url,
        http_status: 304,
        etag: None,
        last_modified: None,
        links: vec![],
        images: vec![],
    }
}

#[cfg(test)]
mod tests {
    use faceflow_core::Class;
    use faceflow_core::record::JobId;

    use super::*;
    use faceflow_web::{FetchSettings, Response};

    fn visit(content_type: &str, body: &'static str) -> Result<Visit, Fault> {
        visit_with(&[("content-type", content_type)], body)
    }

    fn visit_with(headers: &[(&str, &str)], body: &'static str) -> Result<Visit, Fault> {
        let url = Url::parse("https://site.example/x.xml").expect("a URL");
        let final_url = Url::parse("https://www.site.example/y/").expect("a URL");
        let page = Page { depth: 1, ..Page::start(JobId::FIRST, url) };
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let response = Response { final_url, status: 200, headers, body: body.into() };
        let fetched = Fetched { page, response: Some(Arc::new(response)) };
        read(fetched, &MineSettings::default(), &OptOuts::new(&FetchSettings::default()))
    }

    #[test]
    fn a_visit_says_whether_it_is_a_feed() {
        let sitemap = "<urlset><url><loc>a</loc><image:image><image:loc>a.jpg</image:loc></image:image></url></urlset>";
        for (content_type, body, kind) in [
            ("text/html", "<a href=a><img src=a.jpg></a>", PageKind::Page),
            (
                "application/xhtml+xml",
                "<?xml version='1.0'?><html><a href='a'><img src='a.jpg'/></a></html>",
                PageKind::Page,
            ),
            ("text/html", sitemap, PageKind::Feed),
            ("application/xml", sitemap, PageKind::Feed),
        ] {
            let visit = visit(content_type, body).expect(body);
            assert_eq!(visit.kind, kind, "{body}");
            assert_eq!(
                visit.links.iter().map(Url::as_str).collect::<Vec<_>>(),
                ["https://www.site.example/y/a"],
                "{body}"
            );
            assert_eq!(visit.images.len(), 1, "{body}");
            let image = &visit.images[0];
            assert_eq!((image.url.path(), &image.page, &image.site), ("/y/a.jpg", &visit.page.url, &visit.page.site));
        }
    }

    #[test]
    fn a_refresh_header_leads_on() {
        for (header, target) in [
            ("0;url=/q", Some("/q")),
            ("0; URL='/q'", Some("/q")),
            ("5;/q", Some("/q")),
            ("0, url = \"q\" more", Some("/y/q")),
            ("0", None),
            ("0;url=https://other.example/", None),
        ] {
            for (content_type, body) in [("text/html", "<p>moving"), ("text/plain", "moving"), ("text/html", "")] {
                let headers = [("content-type", content_type), ("refresh", header)];
                let links = visit_with(&headers, body).map(|visit| visit.links).unwrap_or_default();
                assert_eq!(links.first().map(Url::path), target, "{header} {body}");
            }
        }
        let visit =
            visit_with(&[("content-type", "text/html"), ("refresh", "0;url=/q")], "<a href=/q>a</a><a href=/r>b</a>");
        let links = visit.expect("a page").links;
        assert_eq!(links.iter().map(Url::path).collect::<Vec<_>>(), ["/q", "/r"]);
    }

    #[test]
    fn what_is_neither_page_nor_feed_is_refused() {
        let fault = visit("application/xml", "<opml><outline xmlUrl='/feed'/></opml>").expect_err("no listing");
        assert_eq!((fault.class, fault.reason.as_str(), fault.permanent), (Class::Content, "not_html", true));
        let fault = visit("text/html", "<meta name=robots content=noai><rss>").expect_err("an opt-out");
        assert_eq!(fault.class, OptOuts::fault("noai", "noai").class);
    }
}
