//! `admit`: the crawl frontier. Decides which links and images of a page are taken up.
//!
//! Exchanged by site, so one worker sees all of a site. Pages are released in the order of a breadth-first search, however
//! their fetches overtake each other, so budgets cut the same pages whatever the timing; a page whose fetch failed gives up
//! its turn, so that nobody waits for a retry. Promise: a page is admitted once (again only when reached on a shorter way).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::Flow;
use faceflow_core::ledger::OpenSite;
use faceflow_core::record::{Admitted, Image, Key, Page, Visit};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;
use url::Url;

use crate::address::site_of;

/// How far a site is crawled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Shape {
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

impl TryFrom<String> for Shape {
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

impl From<Shape> for String {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Bounded { listings, details } => format!("{listings}x{details}"),
            Shape::All => "all".to_owned(),
        }
    }
}

/// The settings `crawl.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrawlSettings {
    /// `"AxB"`: at most A listing pages from the start page and B detail pages from each; `"all"`: the whole site.
    pub shape: Shape,
    /// Pages admitted per site, at most.
    pub max_pages: u64,
    /// Images admitted per site, at most.
    pub max_images: u64,
    /// Sites, pages and images under way in the process above which no further site is read.
    pub ahead_max: usize,
}

impl Default for CrawlSettings {
    fn default() -> Self {
        let shape = Shape::Bounded { listings: 3, details: 3 };
        Self { shape, max_pages: 10_000, max_images: 1_000_000, ahead_max: 2_000 }
    }
}

impl CrawlSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let at_least_one = |key, value: u64| if value == 0 { Err((key, "1 or more".to_owned())) } else { Ok(()) };
        at_least_one("max_pages", self.max_pages)?;
        at_least_one("ahead_max", self.ahead_max as u64)
    }
}

/// What arrives at the frontier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Arrival {
    /// A site of the list.
    Start(Url),
    /// A picture that no page shows.
    Picture(Image),
    /// A page that was read.
    Visit(Visit),
    /// A page whose fetch failed, for now or for good: nobody waits for it.
    Stuck(Page),
}

impl Arrival {
    fn site(&self) -> &Url {
        match self {
            Self::Start(url) => url,
            Self::Picture(image) => &image.site,
            Self::Visit(visit) => &visit.page.site,
            Self::Stuck(page) => &page.site,
        }
    }
}

/// What earlier runs of the same state admitted.
#[derive(Debug, Default)]
pub struct Earlier {
    /// Every page, with its depth.
    pub pages: HashMap<Key, u32>,
    /// The sites whose crawl is not finished; each is taken by the worker that goes on with it.
    pub sites: Mutex<HashMap<Url, OpenSite>>,
}

/// Admits pages and images.
pub trait Admit<'s> {
    /// Follows `settings`, going on from `earlier` runs.
    fn admit(self, settings: CrawlSettings, earlier: Arc<Earlier>) -> Flow<'s, Admitted>;
}

impl<'s> Admit<'s> for Flow<'s, Arrival> {
    fn admit(self, settings: CrawlSettings, earlier: Arc<Earlier>) -> Flow<'s, Admitted> {
        let by_site = Exchange::new(|arrival: &Arrival| route(&site_of(arrival.site())));
        self.unary(by_site, "admit", move |_, _| {
            let mut frontier = Frontier { settings, earlier, known: HashMap::new(), sites: HashMap::new() };
            move |input, output| {
                input.for_each_time(|time, data| {
                    for arrival in data.flat_map(|batch| batch.drain(..)) {
                        let capability = time.retain(output.output_index());
                        for (capability, admitted) in frontier.take_in(arrival, capability) {
                            output.session(&capability).give(admitted);
                        }
                    }
                });
            }
        })
    }
}

fn route(site: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    site.hash(&mut hasher);
    hasher.finish()
}

/// The frontier of this worker's sites. `C` is what a visit carries while it waits for its turn.
struct Frontier<C> {
    settings: CrawlSettings,
    earlier: Arc<Earlier>,
    known: HashMap<Key, u32>,
    sites: HashMap<Url, Site<C>>,
}

/// One site: whose turn it is, who came too early, and what is left of the budget.
struct Site<C> {
    turns: VecDeque<Key>,
    early: HashMap<Key, (C, Visit)>,
    pages_left: u64,
    images_max: u64,
    /// Images that used up some of the budget; one that is shown again does not.
    images: HashSet<Key>,
}

impl<C> Site<C> {
    /// Whether an image is within the budget.
    fn admits(&mut self, image: Key) -> bool {
        if (self.images.len() as u64) < self.images_max {
            self.images.insert(image);
            return true;
        }
        self.images.contains(&image)
    }
}

impl<C> Frontier<C> {
    fn take_in(&mut self, arrival: Arrival, capability: C) -> Vec<(C, Admitted)> {
        if let Arrival::Picture(image) = arrival {
            return vec![(capability, Admitted { visit: None, pages: vec![], images: vec![image] })];
        }
        let url = arrival.site().clone();
        let mut site = self.sites.remove(&url).unwrap_or_else(|| self.open(&url));
        let released = match arrival {
            Arrival::Start(url) => {
                self.start(url, &mut site).map(|admitted| (capability, admitted)).into_iter().collect()
            }
            Arrival::Visit(visit) if site.turns.contains(&visit.page.key()) => {
                site.early.insert(visit.page.key(), (capability, visit));
                self.release(&mut site)
            }
            Arrival::Visit(visit) => vec![(capability, self.expand(visit, &mut site))],
            Arrival::Picture(_) => vec![],
            Arrival::Stuck(page) => {
                site.turns.retain(|key| *key != page.key());
                self.release(&mut site)
            }
        };
        self.sites.insert(url, site);
        released
    }

    /// A site as earlier runs left it.
    fn open(&self, site: &Url) -> Site<C> {
        let earlier = self.earlier.sites.lock().unwrap_or_else(PoisonError::into_inner).remove(site);
        let (pages, images, turns) = earlier.map(|site| (site.pages, site.images, site.turns)).unwrap_or_default();
        Site {
            turns: turns.into(),
            early: HashMap::new(),
            pages_left: self.settings.max_pages.saturating_sub(pages),
            images_max: self.settings.max_images,
            images: images.into_iter().collect(),
        }
    }

    fn start(&mut self, url: Url, site: &mut Site<C>) -> Option<Admitted> {
        let page = Page { site: url.clone(), url, depth: 0, attempts: 0, skip: vec![] };
        let page = self.admit_page(page, site)?;
        Some(Admitted { visit: None, pages: vec![page], images: vec![] })
    }

    /// Everyone whose turn has come.
    fn release(&mut self, site: &mut Site<C>) -> Vec<(C, Admitted)> {
        let mut released = Vec::new();
        while let Some(early) = site.turns.front().and_then(|key| site.early.remove(key)) {
            site.turns.pop_front();
            let (capability, visit) = early;
            released.push((capability, self.expand(visit, site)));
        }
        released
    }

    /// Admits what a page leads to.
    fn expand(&mut self, mut visit: Visit, site: &mut Site<C>) -> Admitted {
        let pages = self.choose(&visit).into_iter().filter_map(|page| self.admit_page(page, site)).collect();
        let images = visit.images.drain(..).filter(|image| site.admits(image.key())).collect();
        Admitted { pages, images, visit: Some(visit) }
    }

    /// The links that the shape of the crawl follows. A pure function of the page and its record: it does not depend on
    /// what other pages led to.
    fn choose(&self, visit: &Visit) -> Vec<Page> {
        let page = &visit.page;
        let width = match (self.settings.shape, page.depth) {
            (Shape::All, _) => usize::MAX,
            (Shape::Bounded { listings, .. }, 0) => listings as usize,
            (Shape::Bounded { details, .. }, 1) => details as usize,
            (Shape::Bounded { .. }, _) => 0,
        };
        let own = [page.key(), Key::page(&visit.final_url), Key::page(&page.site)];
        let fresh = |link: &&Url| !own.contains(&Key::page(link)) && !page.skip.contains(&Key::page(link));
        let links: Vec<&Url> = visit.links.iter().filter(fresh).take(width).collect();
        let skip = match self.settings.shape {
            Shape::Bounded { .. } if page.depth == 0 => links.iter().map(|link| Key::page(link)).collect(),
            _ => vec![],
        };
        let next = |link: &Url| Page {
            url: link.clone(),
            site: page.site.clone(),
            depth: page.depth + 1,
            attempts: 0,
            skip: skip.clone(),
        };
        links.into_iter().map(next).collect()
    }

    fn admit_page(&mut self, page: Page, site: &mut Site<C>) -> Option<Page> {
        let key = page.key();
        let before = self.known.get(&key).or_else(|| self.earlier.pages.get(&key)).copied();
        let news = match (before, self.settings.shape) {
            (None, _) => true,
            (Some(depth), Shape::Bounded { .. }) => page.depth < depth,
            // Every page of the site is read anyway.
            (Some(_), Shape::All) => false,
        };
        if !news || (before.is_none() && site.pages_left == 0) {
            return None;
        }
        site.pages_left -= u64::from(before.is_none());
        self.known.insert(key, page.depth);
        site.turns.push_back(key);
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(path: &str) -> Url {
        Url::parse("http://a.example/").and_then(|base| base.join(path)).expect("a URL")
    }

    fn frontier(shape: Shape, max_pages: u64) -> Frontier<&'static str> {
        let settings = CrawlSettings { shape, max_pages, ..CrawlSettings::default() };
        Frontier { settings, earlier: Arc::default(), known: HashMap::new(), sites: HashMap::new() }
    }

    fn visit(page: &Page, links: &[&str]) -> Arrival {
        let links = links.iter().map(|link| url(link)).collect();
        let (page, final_url) = (page.clone(), page.url.clone());
        Arrival::Visit(Visit { page, final_url, http_status: 200, links, images: vec![] })
    }

    fn pages_of(released: &[(&'static str, Admitted)]) -> Vec<String> {
        let pages = released.iter().flat_map(|(_, admitted)| &admitted.pages);
        pages.map(|page| page.url.path().to_owned()).collect()
    }

    #[test]
    fn a_bounded_crawl_follows_its_shape_and_chooses_nothing_twice() {
        let mut frontier = frontier(Shape::Bounded { listings: 2, details: 2 }, 100);
        let start = frontier.take_in(Arrival::Start(url("/")), "t");
        let listings = frontier.take_in(visit(&start[0].1.pages[0], &["/", "/l1", "/l2", "/l3"]), "t");
        assert_eq!(pages_of(&listings), ["/l1", "/l2"]);
        let first = &listings[0].1.pages[0];
        let details = frontier.take_in(visit(first, &["/", "/l2", "/d1", "/l1", "/d2", "/d3"]), "t");
        assert_eq!(pages_of(&details), ["/d1", "/d2"]);
        let deep = frontier.take_in(visit(&details[0].1.pages[0], &["/e1"]), "t");
        assert_eq!(pages_of(&deep), [] as [&str; 0], "details are leaves");
        assert!(frontier.take_in(Arrival::Start(url("/")), "t").is_empty(), "a site listed twice is crawled once");
        assert_eq!(pages_of(&frontier.take_in(Arrival::Start(url("/d1")), "t")), ["/d1"], "now it is a start page");
    }

    #[test]
    fn a_budget_cuts_the_same_pages_however_fetches_overtake_each_other() {
        let run = |first: usize| {
            let mut frontier = frontier(Shape::All, 5);
            let start = frontier.take_in(Arrival::Start(url("/")), "t");
            let two = frontier.take_in(visit(&start[0].1.pages[0], &["/a", "/b"]), "t");
            let two = &two[0].1.pages;
            let links = |page: &Page| if page.url.path() == "/a" { ["/a1", "/a2"] } else { ["/b1", "/b2"] };
            let mut released = frontier.take_in(visit(&two[first], &links(&two[first])), "t");
            released.extend(frontier.take_in(visit(&two[1 - first], &links(&two[1 - first])), "t"));
            pages_of(&released)
        };
        assert_eq!(run(0), ["/a1", "/a2"]);
        assert_eq!(run(1), run(0));
    }

    #[test]
    fn a_resumed_site_keeps_its_turns_and_what_its_budget_was_used_for() {
        let run = |first: usize| {
            let listing = |path: &str| Page { url: url(path), site: url("/"), depth: 1, attempts: 0, skip: vec![] };
            let (a, b) = (listing("/a"), listing("/b"));
            let open = OpenSite {
                site: url("/"),
                pages: 3,
                images: vec![Key::image(&url("/1.jpg"))],
                turns: vec![a.key(), b.key()],
            };
            let pages = [url("/"), url("/a"), url("/b")].map(|url| (Key::page(&url), 0)).into();
            let mut frontier = frontier(Shape::All, 5);
            frontier.settings.max_images = 1;
            frontier.earlier = Arc::new(Earlier { pages, sites: Mutex::new([(url("/"), open)].into()) });
            let visits = [visit(&a, &["/a1", "/a2"]), visit(&b, &["/b1", "/b2"])];
            let order = if first == 0 { [0, 1] } else { [1, 0] };
            let released: Vec<_> = order.into_iter().flat_map(|n| frontier.take_in(visits[n].clone(), "t")).collect();
            let site = frontier.sites.get_mut(&url("/")).expect("is open");
            let images = ["/1.jpg", "/2.jpg"].map(|path| site.admits(Key::image(&url(path))));
            (pages_of(&released), images)
        };
        assert_eq!(run(0), (vec!["/a1".to_owned(), "/a2".to_owned()], [true, false]));
        assert_eq!(run(1), run(0));
    }

    #[test]
    fn nobody_waits_for_a_page_that_failed() {
        let mut frontier = frontier(Shape::All, 100);
        let start = frontier.take_in(Arrival::Start(url("/")), "t");
        let two = frontier.take_in(visit(&start[0].1.pages[0], &["/a", "/b"]), "t");
        let [a, b] = &two[0].1.pages[..] else { panic!("two pages") };
        assert!(frontier.take_in(visit(b, &["/b1"]), "held").is_empty(), "it is a's turn");
        let released = frontier.take_in(Arrival::Stuck(a.clone()), "t");
        assert_eq!((released[0].0, pages_of(&released)), ("held", vec!["/b1".to_owned()]));
        assert_eq!(pages_of(&frontier.take_in(visit(a, &["/a1", "/b1"]), "t")), ["/a1"], "a succeeds later");
    }

    #[test]
    fn an_image_that_is_shown_again_uses_no_budget() {
        let mut frontier = frontier(Shape::All, 100);
        frontier.settings.max_images = 3;
        let start = frontier.take_in(Arrival::Start(url("/")), "t");
        let start = &start[0].1.pages[0];
        let image = |path: &str| faceflow_core::record::Image {
            url: url(path),
            page: start.url.clone(),
            site: start.site.clone(),
            attempts: 0,
            inline: None,
            alternates: vec![],
        };
        let mut admitted = |images: &[&str]| {
            let images = images.iter().map(|path| image(path)).collect();
            let (page, final_url) = (start.clone(), start.url.clone());
            let visit = Visit { page, final_url, http_status: 200, links: vec![], images };
            frontier.take_in(Arrival::Visit(visit), "t")[0].1.images.len()
        };
        assert_eq!(admitted(&["/1.jpg", "/2.jpg"]), 2);
        assert_eq!(admitted(&["/2.jpg", "/3.jpg", "/4.jpg", "/1.jpg"]), 3, "the fourth image is beyond the budget");
    }
}
