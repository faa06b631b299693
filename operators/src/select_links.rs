//! `select_links`: decides which links and images of a page are discovered.
//!
//! The choice is a pure function of the page and its record. What other pages led to, what is known already and the budgets are
//! weighed by the ledger. Promise: every arrival comes out again, as a discovery.

use std::sync::Arc;

use faceflow_core::record::{Bounds, Discovery, Image, JobId, Key, Page, PageKind, Visit};
use faceflow_core::{Clock, Flow};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::Map;
use url::Url;

use crate::jobs::Jobs;

/// How far a site is crawled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CrawlShape {
    /// At most this many listing pages from the start page, and this many detail pages from each.
    Bounded {
        /// Listing pages.
        listings: u32,
        /// Detail pages from each listing page.
        details: u32,
    },
    /// Everything on the site.
    All,
}

impl TryFrom<String> for CrawlShape {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let sides = text.split_once('x').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (listings, details) = sides.ok_or_else(|| format!("{text:?} is neither \"all\" nor like \"3x3\""))?;
        Ok(Self::Bounded { listings, details })
    }
}

impl From<CrawlShape> for String {
    fn from(shape: CrawlShape) -> Self {
        match shape {
            CrawlShape::Bounded { listings, details } => format!("{listings}x{details}"),
            CrawlShape::All => "all".to_owned(),
        }
    }
}

/// The settings `crawl.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrawlSettings {
    /// `"AxB"`: at most A listing pages from the start page and B detail pages from each; `"all"`: the whole site.
    pub shape: CrawlShape,
    /// Pages admitted per site, at most.
    pub max_pages: u64,
    /// Images admitted per site, at most.
    pub max_images: u64,
    /// Pages, images and retries that are in memory at once; all others wait in the ledger. When so many hosts of a tenant wait for
    /// their turn, no further sites of that tenant are read. About the process, whatever a job says.
    pub in_flight_max: usize,
    /// Those of one host and job, at most; fewer when many hosts share the room.
    pub in_flight_per_host: usize,
}

impl Default for CrawlSettings {
    fn default() -> Self {
        let shape = CrawlShape::Bounded { listings: 3, details: 3 };
        Self { shape, max_pages: 10_000, max_images: 1_000_000, in_flight_max: 8_192, in_flight_per_host: 32 }
    }
}

impl CrawlSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let at_least_one = |key, value: u64| if value == 0 { Err((key, "1 or more".to_owned())) } else { Ok(()) };
        at_least_one("max_pages", self.max_pages)?;
        at_least_one("in_flight_max", self.in_flight_max as u64)?;
        at_least_one("in_flight_per_host", self.in_flight_per_host as u64)
    }

    /// How much of what is found is taken up.
    fn bounds(&self) -> Bounds {
        // A crawl of everything reads each page of the site anyway.
        let shorter_ways = self.shape != CrawlShape::All;
        Bounds { pages_max: self.max_pages, images_max: self.max_images, shorter_ways }
    }

    /// The links that the shape of the crawl follows.
    fn follow(&self, visit: &Visit) -> Vec<Page> {
        let page = &visit.page;
        // What the user listed may be a list itself; one that a page merely links to is a page like any other.
        let entries = visit.kind == PageKind::Feed && page.depth == 0;
        let width = match (self.shape, page.depth) {
            _ if entries => usize::MAX,
            (CrawlShape::All, _) => usize::MAX,
            (CrawlShape::Bounded { listings, .. }, 0) => listings as usize,
            (CrawlShape::Bounded { details, .. }, 1) => details as usize,
            (CrawlShape::Bounded { .. }, _) => 0,
        };
        let own = [page.key(), Key::page(&visit.final_url), Key::page(&page.site)];
        let fresh = |link: &&Url| !own.contains(&Key::page(link)) && !page.skip.contains(&Key::page(link));
        let links: Vec<&Url> = visit.links.iter().filter(fresh).take(width).collect();
        let skip = match self.shape {
            CrawlShape::Bounded { .. } if page.depth == 0 && !entries => {
                links.iter().map(|link| Key::page(link)).collect()
            }
            _ => vec![],
        };
        let next = |link: &Url| Page {
            job: page.job,
            url: link.clone(),
            site: page.site.clone(),
            depth: if entries { 0 } else { page.depth + 1 },
            attempts: 0,
            uncounted: 0,
            skip: skip.clone(),
            last: None,
            host: None,
        };
        links.into_iter().map(next).collect()
    }
}

/// What arrives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Arrival {
    /// A site, and the watched list that names it, if one does.
    Start(JobId, Url, Option<String>),
    /// A picture that no page shows.
    Picture(Image),
    /// A page that was found where a picture was expected.
    Page(Page),
    /// A page that was read.
    Visit(Visit),
    /// The page of a site that is no longer on the list.
    Removed(JobId, Key),
}

impl Arrival {
    /// Whose it is.
    fn job(&self) -> JobId {
        match self {
            Self::Start(job, ..) | Self::Removed(job, _) => *job,
            Self::Picture(image) => image.job,
            Self::Page(page) => page.job,
            Self::Visit(visit) => visit.page.job,
        }
    }

    /// What there is to take up.
    fn found(self, settings: &CrawlSettings) -> Discovery {
        let nothing = Discovery::nothing(self.job(), settings.bounds());
        match self {
            Self::Start(job, url, list) => Discovery { pages: vec![Page::start(job, url)], list, ..nothing },
            Self::Picture(image) => Discovery { images: vec![image], ..nothing },
            Self::Page(page) => Discovery { pages: vec![page], ..nothing },
            Self::Removed(_, site) => Discovery { removed: vec![site], ..nothing },
            Self::Visit(mut visit) => {
                let (pages, images) = (settings.follow(&visit), std::mem::take(&mut visit.images));
                Discovery { visit: Some(visit), pages, images, ..nothing }
            }
        }
    }
}

/// Selects links and images.
pub trait SelectLinks<'s> {
    /// Follows the settings of the job of each arrival in `jobs`, which also say when pages are due again.
    fn select_links(self, jobs: Jobs, clock: Arc<dyn Clock>) -> Flow<'s, Discovery>;
}

impl<'s> SelectLinks<'s> for Flow<'s, Arrival> {
    fn select_links(self, jobs: Jobs, clock: Arc<dyn Clock>) -> Flow<'s, Discovery> {
        self.map(move |arrival| {
            let settings = jobs.settings(arrival.job());
            let again = match &arrival {
                Arrival::Visit(visit) => Some(settings.recrawl.get().reading(visit, clock.now())),
                _ => None,
            };
            Discovery { again, ..arrival.found(&settings.crawl.get()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(path: &str) -> Url {
        Url::parse("http://a.example/").and_then(|base| base.join(path)).expect("a URL")
    }

    fn visit(page: &Page, links: &[&str]) -> Arrival {
        let links = links.iter().map(|link| url(link)).collect();
        let (page, final_url) = (page.clone(), page.url.clone());
        Arrival::Visit(Visit {
            page,
            kind: PageKind::Page,
            final_url,
            http_status: 200,
            etag: None,
            last_modified: None,
            links,
            images: vec![],
        })
    }

    fn paths(found: &Discovery) -> Vec<&str> {
        found.pages.iter().map(|page| page.url.path()).collect()
    }

    #[test]
    fn a_shape_is_what_it_says() {
        for text in ["all", "3x4", "0x0"] {
            assert_eq!(CrawlShape::try_from(text.to_owned()).map(String::from).as_deref(), Ok(text));
        }
        assert_eq!(CrawlShape::try_from("3x4".to_owned()), Ok(CrawlShape::Bounded { listings: 3, details: 4 }));
        for text in ["", "3", "3x", "x3", "3x4x5", "-1x2", "everything"] {
            assert!(CrawlShape::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        let base = CrawlSettings::default();
        assert_eq!(base.check(), Ok(()));
        for (settings, key) in [
            (CrawlSettings { max_pages: 0, ..base.clone() }, "max_pages"),
            (CrawlSettings { in_flight_max: 0, ..base.clone() }, "in_flight_max"),
            (CrawlSettings { in_flight_per_host: 0, ..base }, "in_flight_per_host"),
        ] {
            assert_eq!(settings.check(), Err((key, "1 or more".to_owned())));
        }
        assert_eq!(CrawlSettings { max_images: 0, ..CrawlSettings::default() }.check(), Ok(()));
    }

    #[test]
    fn what_is_found_is_taken_up_within_the_bounds() {
        let settings = CrawlSettings { max_pages: 7, max_images: 9, ..CrawlSettings::default() };
        let bounds = |settings: &CrawlSettings| Arrival::Removed(JobId::FIRST, Key(1)).found(settings).bounds;
        assert_eq!(bounds(&settings), Bounds { pages_max: 7, images_max: 9, shorter_ways: true });
        let all = CrawlSettings { shape: CrawlShape::All, ..settings };
        assert_eq!(bounds(&all), Bounds { pages_max: 7, images_max: 9, shorter_ways: false });
    }

    #[test]
    fn what_arrives_comes_out_again() {
        let settings = CrawlSettings::default();
        let listed = Arrival::Start(JobId::FIRST, url("/"), Some("sites.txt".to_owned())).found(&settings);
        assert_eq!((paths(&listed), listed.list.as_deref()), (vec!["/"], Some("sites.txt")));
        assert_eq!(Arrival::Removed(JobId::FIRST, Key(3)).found(&settings).removed, [Key(3)]);
        let picture = Image {
            job: JobId::FIRST,
            url: url("/1.jpg"),
            page: url("/"),
            site: url("/"),
            attempts: 0,
            inline: None,
            uncounted: 0,
            alternates: vec![],
            version: None,
            host: None,
        };
        assert_eq!(Arrival::Picture(picture.clone()).found(&settings).images, [picture]);
    }

    #[test]
    fn what_a_start_page_chooses_is_not_chosen_again_by_what_it_leads_to() {
        let settings =
            CrawlSettings { shape: CrawlShape::Bounded { listings: 2, details: 2 }, ..CrawlSettings::default() };
        let start = Arrival::Start(JobId::FIRST, url("/"), None).found(&settings);
        assert_eq!(start.pages[0].skip, []);
        let listings = visit(&start.pages[0], &["/l1", "/l2", "/l3"]).found(&settings);
        let chosen = ["/l1", "/l2"].map(|path| Key::page(&url(path)));
        assert!(listings.pages.iter().all(|page| page.skip == chosen && page.depth == 1));
        let details = visit(&listings.pages[0], &["/d1"]).found(&settings);
        assert_eq!(details.pages[0].skip, [], "it leads nowhere");
        let all = CrawlSettings { shape: CrawlShape::All, ..settings.clone() };
        assert_eq!(visit(&start.pages[0], &["/l1"]).found(&all).pages[0].skip, []);
        let Arrival::Visit(sitemap) = visit(&start.pages[0], &["/l1"]) else { panic!("it is one") };
        let entries = Arrival::Visit(Visit { kind: PageKind::Feed, ..sitemap }).found(&settings);
        assert_eq!((entries.pages[0].depth, &entries.pages[0].skip[..]), (0, &[][..]), "they are start pages");
    }

    /// Not even where it was redirected to.
    #[test]
    fn a_page_does_not_lead_to_itself() {
        let settings = CrawlSettings { shape: CrawlShape::All, ..CrawlSettings::default() };
        let page = Page { site: url("/"), depth: 1, ..Page::start(JobId::FIRST, url("/old")) };
        let Arrival::Visit(moved) = visit(&page, &["/old", "/new", "/", "/other"]) else { panic!("it is one") };
        let found = Arrival::Visit(Visit { final_url: url("/new"), ..moved }).found(&settings);
        assert_eq!(paths(&found), ["/other"]);
    }

    #[test]
    fn a_visit_is_due_again_and_nothing_else_is() {
        use faceflow_core::testing::{EPOCH, simulate};
        use timely::dataflow::operators::vec::Map;
        use timely::dataflow::operators::{Probe, ToStream};
        let (tell, told) = std::sync::mpsc::channel();
        simulate(1, move |scope, executor| {
            let start = Page::start(JobId::FIRST, url("/"));
            let arrivals = [
                visit(&start, &["/a"]),
                Arrival::Removed(JobId::FIRST, Key(1)),
                Arrival::Start(JobId::FIRST, url("/"), None),
            ];
            let arrivals: Flow<'_, Arrival> = arrivals.to_stream(scope).container::<Vec<_>>();
            let found = arrivals.select_links(crate::jobs::tests::one_tenant(), Arc::clone(&executor.clock));
            let sent =
                found.map(move |found| tell.send((found.visit.is_some(), found.again)).expect("somebody listens"));
            sent.probe().0
        });
        let told: Vec<_> = told.iter().collect();
        let interval_ms = crate::recrawl::RecrawlSettings::default().interval_ms;
        assert_eq!(told.len(), 3);
        for (visited, again) in told {
            assert_eq!(again.map(|(_, due)| due), visited.then_some(EPOCH + interval_ms));
        }
    }

    #[test]
    fn a_bounded_crawl_follows_its_shape_and_chooses_nothing_twice() {
        let settings =
            CrawlSettings { shape: CrawlShape::Bounded { listings: 2, details: 2 }, ..CrawlSettings::default() };
        let start = Arrival::Start(JobId::FIRST, url("/"), None).found(&settings);
        let listings = visit(&start.pages[0], &["/", "/l1", "/l2", "/l3"]).found(&settings);
        assert_eq!(paths(&listings), ["/l1", "/l2"]);
        let details = visit(&listings.pages[0], &["/", "/l2", "/d1", "/l1", "/d2", "/d3"]).found(&settings);
        assert_eq!(paths(&details), ["/d1", "/d2"]);
        let deep = visit(&details.pages[0], &["/e1"]).found(&settings);
        assert_eq!(paths(&deep), [] as [&str; 0], "details are leaves");
    }

    #[test]
    fn a_crawl_of_everything_follows_all_links_at_any_depth() {
        let settings = CrawlSettings { shape: CrawlShape::All, ..CrawlSettings::default() };
        let mut page = Arrival::Start(JobId::FIRST, url("/"), None).found(&settings).pages.remove(0);
        for depth in 1..5 {
            let found = visit(&page, &["/", "/a", "/b"]).found(&settings);
            let expected = ["/a", "/b"].into_iter().filter(|path| *path != page.url.path());
            assert_eq!(paths(&found), expected.collect::<Vec<_>>());
            page = found.pages[0].clone();
            assert_eq!(page.depth, depth);
        }
    }

    #[test]
    fn entries_of_a_sitemap_are_start_pages_if_the_sitemap_is_one() {
        let settings =
            CrawlSettings { shape: CrawlShape::Bounded { listings: 1, details: 1 }, ..CrawlSettings::default() };
        let listing = |page: &Page, links: &[&str]| match visit(page, links) {
            Arrival::Visit(visit) => Arrival::Visit(Visit { kind: PageKind::Feed, ..visit }).found(&settings),
            other => panic!("{other:?}"),
        };
        let index = Arrival::Start(JobId::FIRST, url("/sitemap.xml"), None).found(&settings).pages.remove(0);
        let maps = listing(&index, &["/a.xml", "/b.xml", "/sitemap.xml"]);
        assert_eq!(paths(&maps), ["/a.xml", "/b.xml"]);
        let entries = listing(&maps.pages[1], &["/1", "/2", "/3"]);
        assert_eq!(paths(&entries), ["/1", "/2", "/3"]);
        assert!(entries.pages.iter().all(|page| (page.depth, &page.site) == (0, &url("/sitemap.xml"))));
        assert_eq!(paths(&visit(&entries.pages[2], &["/l1", "/l2"]).found(&settings)), ["/l1"], "each has the shape");
        // WordPress links a feed from every page: that does not open the whole site.
        let feed = Page { depth: 1, ..index };
        assert_eq!(paths(&listing(&feed, &["/1", "/2"])), ["/1"]);
    }

    #[test]
    fn a_visit_hands_its_images_over() {
        let image = Image {
            job: JobId::FIRST,
            url: url("/1.jpg"),
            page: url("/"),
            site: url("/"),
            attempts: 0,
            inline: None,
            uncounted: 0,
            alternates: vec![],
            version: None,
            host: None,
        };
        let start = Arrival::Start(JobId::FIRST, url("/"), None).found(&CrawlSettings::default()).pages.remove(0);
        let Arrival::Visit(visit) = visit(&start, &[]) else { panic!("it is one") };
        let found = Arrival::Visit(Visit { images: vec![image.clone()], ..visit }).found(&CrawlSettings::default());
        assert_eq!((found.images, found.visit.map(|visit| visit.images)), (vec![image], Some(vec![])));
    }
}
