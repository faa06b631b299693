//! What must come of a world, worked out from its script alone, without anything of the pipeline.
//!
//! Pages: a breadth-first search of each site, three links wide and two deep, cut by the budgets. Images: those that the pages show,
//! and of the other candidates those whose turn comes because all before them fail. Pictures: of each group that shows the
//! same, the largest that the engine can look at is looked at and stands for the others.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use faceflow::core::record::Key;
use url::Url;

use crate::pool::pool;
use crate::script::{HostMood, Mood, PageTruth, Place, World, lock};

/// Links that are followed from a page.
const WIDTH: usize = 3;
const DEPTH: u32 = 2;
/// Tries of an address before it is given up.
pub const ATTEMPTS: u32 = 5;
/// Why what the database refuses is dead.
pub const QUARANTINED: &str = "quarantined";

/// What must be said of a page.
#[derive(Debug, PartialEq)]
pub struct ExpectedPage {
    pub site: String,
    pub depth: u32,
    pub end: End,
    /// Links on it, and images.
    pub shows: Option<(u64, u64)>,
}

/// How a page or an image ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// It is read; an image leads to this picture of the pool.
    Well(Option<usize>),
    Rejected(&'static str),
    Dead(&'static str),
}

/// What must be said of an image.
#[derive(Debug)]
pub struct ExpectedImage {
    /// The pages that show it.
    pub pages: BTreeSet<String>,
    pub is: Is,
}

#[derive(Debug)]
pub enum Is {
    /// It was asked for.
    Tried(End),
    /// It waits behind this image.
    Behind(String),
}

/// The right answer.
pub struct Oracle {
    pub pages: BTreeMap<String, ExpectedPage>,
    pub images: BTreeMap<String, ExpectedImage>,
}

/// An image that pages show, with the other candidates by rank.
#[derive(Default)]
struct Offer {
    alternates: BTreeMap<String, usize>,
}

impl Oracle {
    pub fn of(world: &World) -> Self {
        let (mut pages, mut shown_by) = (BTreeMap::new(), BTreeMap::<String, BTreeSet<String>>::new());
        let mut offers = BTreeMap::<String, Offer>::new();
        for start in &world.starts {
            let site = crawl(world, start.as_str());
            let mut budget = (world.plan.budget.map_or(usize::MAX, |(_, images)| images as usize), HashSet::new());
            for (url, page, truth) in site {
                for candidates in truth.into_iter().flat_map(|truth| shown(world, truth)) {
                    let (most, counted) = &mut budget;
                    if !counted.contains(&candidates[0]) && counted.len() >= *most {
                        continue;
                    }
                    counted.insert(candidates[0].clone());
                    let offer = offers.entry(candidates[0].clone()).or_default();
                    for (rank, alternate) in candidates.iter().enumerate().skip(1) {
                        let known = offer.alternates.entry(alternate.clone()).or_insert(rank);
                        *known = rank.min(*known);
                    }
                    for candidate in candidates {
                        shown_by.entry(candidate).or_default().insert(url.clone());
                    }
                }
                pages.insert(url, page);
            }
        }
        let tried = tried(world, &offers);
        let is = |url: &String| match tried.contains(url) {
            true => Is::Tried(end(world, url)),
            false => Is::Behind(front(world, url, &offers)),
        };
        let images = shown_by.into_iter().map(|(url, pages)| (url.clone(), ExpectedImage { pages, is: is(&url) }));
        Self { pages, images: images.collect() }
    }

    /// The images that were asked for.
    pub fn tried(&self) -> BTreeSet<String> {
        let tried = self.images.iter().filter(|(_, image)| matches!(image.is, Is::Tried(_)));
        tried.map(|(url, _)| url.clone()).collect()
    }

    /// Which picture of the pool leads each one, of those that were found. Pictures that show the same are all within reach of each
    /// other and of no others, so it is the largest that the engine can look at, and of equals the one with the smallest
    /// id; itself for one that it cannot look at and would rather.
    pub fn representatives(&self, world: &World) -> BTreeMap<usize, usize> {
        let found: BTreeSet<usize> = self.images.values().filter_map(|image| image.picture()).collect();
        let rank = |n: &usize| {
            let (width, height) = pool()[*n].size.expect("it was decoded");
            (std::cmp::Reverse(width * height), pool()[*n].id)
        };
        let of = |n: &usize| {
            let same = found.iter().filter(|other| pool()[**other].group == pool()[*n].group);
            let alive = same.filter(|other| world.engine(**other) != Mood::Violation);
            let first = alive.min_by_key(|other| rank(other)).copied().unwrap_or(*n);
            // One that comes before it was looked at first, and is dead.
            if world.engine(*n) == Mood::Violation && rank(n) < rank(&first) { *n } else { first }
        };
        found.iter().map(|n| (*n, of(n))).collect()
    }
}

impl ExpectedImage {
    /// The picture that it leads to.
    pub fn picture(&self) -> Option<usize> {
        match self.is {
            Is::Tried(End::Well(picture)) => picture,
            _ => None,
        }
    }
}

/// The pages of a site in the order of their discovery, with what those say that can be read.
fn crawl<'w>(world: &'w World, start: &str) -> Vec<(String, ExpectedPage, Option<&'w PageTruth>)> {
    let most = world.plan.budget.map_or(usize::MAX, |(pages, _)| pages as usize);
    let mut known: Vec<(String, u32)> = vec![(start.to_owned(), 0)];
    let (mut read, mut chosen) = (Vec::new(), Vec::new());
    while let Some((url, depth)) = known.get(read.len()).cloned() {
        let end = end(world, &url);
        let truth = match world.places.get(&url) {
            Some(Place::Page(truth)) if end == End::Well(None) => Some(truth),
            _ => None,
        };
        if let Some(truth) = truth.filter(|_| depth < DEPTH) {
            let fresh = |link: &&String| **link != url && *link != start && !chosen.contains(*link);
            let links: Vec<String> = truth.links.iter().filter(fresh).take(WIDTH).cloned().collect();
            if depth == 0 {
                chosen.clone_from(&links);
            }
            for link in links {
                if known.len() < most && known.iter().all(|(other, _)| *other != link) {
                    known.push((link, depth + 1));
                }
            }
        }
        let shows = truth.map(|truth| (truth.links.len() as u64, shown(world, truth).count() as u64));
        read.push((url, ExpectedPage { site: start.to_owned(), depth, end, shows }, truth));
    }
    read
}

/// The images that a page shows by now, each with its candidates. What is shown by itself is nobody's candidate.
fn shown<'w>(world: &World, truth: &'w PageTruth) -> impl Iterator<Item = Vec<String>> + 'w {
    let later = truth.later.iter().filter(|_| world.is_grown()).map(|later| vec![later.clone()]);
    let own = |url: &String| truth.shown.iter().any(|candidates| candidates[0] == *url);
    let counts = move |(n, url): &(usize, &String)| *n == 0 || !own(url);
    let shown = truth
        .shown
        .iter()
        .map(move |image| image.iter().enumerate().filter(counts).map(|(_, url)| url.clone()).collect());
    shown.chain(later.collect::<Vec<_>>())
}

/// How an address ends that is asked for.
fn end(world: &World, url: &str) -> End {
    if world.host(url) == HostMood::Gone {
        return End::Dead("connect");
    }
    match (world.web(url), world.places.get(url)) {
        (Mood::Violation, _) => End::Dead("http_503"),
        (Mood::Missing, _) | (_, None) => End::Rejected("http_404"),
        (_, Some(Place::Page(_))) if world.refuses(url) => End::Dead(QUARANTINED),
        (_, Some(Place::Page(_))) => End::Well(None),
        (_, Some(Place::Picture(picture))) => match pool()[*picture].size {
            Ok(_) if world.refuses(url) => End::Dead(QUARANTINED),
            Ok(_) => End::Well(Some(*picture)),
            Err(reason) => End::Rejected(reason),
        },
    }
}

fn fails(world: &World, url: &str) -> bool {
    !matches!(end(world, url), End::Well(_))
}

/// The addresses that are asked for: what pages show first, and what comes after something that fails, until something does not.
fn tried(world: &World, offers: &BTreeMap<String, Offer>) -> HashSet<String> {
    let mut tried: HashSet<String> = offers.keys().chain(&*lock(&world.tried)).cloned().collect();
    for (_, offer) in offers.iter().filter(|(url, _)| fails(world, url)) {
        for alternate in offer.by_rank() {
            tried.insert(alternate.clone());
            if !fails(world, alternate) {
                break;
            }
        }
    }
    tried
}

impl Offer {
    fn by_rank(&self) -> Vec<&String> {
        let mut alternates: Vec<_> = self.alternates.iter().collect();
        alternates.sort_by_key(|(url, rank)| (**rank, key(url)));
        alternates.into_iter().map(|(url, _)| url).collect()
    }
}

/// What an address that is not asked for waits behind: of those that offer it the one with the smallest key, or what stands for it.
fn front(world: &World, url: &str, offers: &BTreeMap<String, Offer>) -> String {
    let offering = offers.iter().filter(|(_, offer)| offer.alternates.contains_key(url));
    let (first, offer) = offering.min_by_key(|(first, _)| key(first)).expect("somebody offers it");
    let standing = offer.by_rank().into_iter().find(|alternate| !fails(world, alternate));
    if fails(world, first) { standing.unwrap_or(first).clone() } else { first.clone() }
}

fn key(url: &str) -> Key {
    Key::image(&Url::parse(url).expect("a URL"))
}
