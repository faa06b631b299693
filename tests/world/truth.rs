//! What is true of a gallery: its pages, its pictures, where they are shown and which of them are the same.
//!
//! A test compares what the pipeline found with this, and never looks at the HTML. Promise: nothing here is read back from
//! the pages; pages and truth are both written from the same plan.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use super::embed::Embedding;
use super::server::{Site, World};

/// A web of picture pages, served, with its truth.
pub struct Gallery {
    /// The servers and their log.
    pub world: World,
    /// The sites to crawl; each starts at `/`.
    pub sites: Vec<Site>,
    /// A host that holds some of the pictures. Pages link to pages of it, which belong to no site.
    pub cdn: Site,
    /// A host that is linked to and never to be asked for anything.
    pub outside: Site,
    /// Every page of the sites, site by site, start pages first.
    pub pages: Vec<PageTruth>,
    /// Every picture address, data URIs included.
    pub images: Vec<Placed>,
}

/// One page.
#[derive(Clone, Debug)]
pub struct PageTruth {
    /// Its address.
    pub url: String,
    /// Which of the sites it belongs to.
    pub site: usize,
    /// Links to follow from the start page: 0, 1 for listings, 2 for details.
    pub depth: u32,
    /// Links to pages of its own site, in document order, each once.
    pub links: Vec<String>,
}

/// One picture address.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The address, absolute; `data:sha256,<hex>` for a data URI.
    pub url: String,
    /// Whether its picture is at other addresses too.
    pub kind: Kind,
    /// What is seen; two addresses with the same number show the same picture, byte by byte or nearly.
    pub picture: u64,
    /// What the address serves.
    pub bytes: Bytes,
    /// Width in pixels as stored.
    pub width: u32,
    /// Height in pixels as stored.
    pub height: u32,
    /// Rectangles in the marker colour; none for photographs.
    pub markers: Vec<[u32; 4]>,
    /// Where it is shown, at least once.
    pub places: Vec<Place>,
}

/// How one picture address came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A picture that was not there before.
    Fresh,
    /// The bytes of that image (an index into [`Gallery::images`]).
    Exact(usize),
    /// That image at another size or in another encoding.
    Near(usize),
}

/// One appearance of a picture address on a page.
#[derive(Clone, Debug)]
pub struct Place {
    /// The page's address.
    pub page: String,
    /// How the page refers to it.
    pub embedding: Embedding,
    /// Smaller candidates of the same reference, absolute, best first. They exist, and nobody needs them.
    pub alternates: Vec<String>,
}

impl Gallery {
    /// The start page of each site.
    pub fn starts(&self) -> Vec<String> {
        self.sites.iter().map(|site| site.url("/")).collect()
    }

    /// The pages of a crawl that takes the first `listings` links of a start page and the first `details` links of each of
    /// these, in document order, and never one that it took before.
    pub fn pages_within(&self, listings: usize, details: usize) -> Vec<&PageTruth> {
        let page = |url: &String| self.pages.iter().find(|page| page.url == *url).expect("links lead to pages");
        let mut within: Vec<&PageTruth> = Vec::new();
        for start in self.pages.iter().filter(|page| page.depth == 0) {
            let first: Vec<&PageTruth> =
                start.links.iter().filter(|link| **link != start.url).take(listings).map(page).collect();
            let mut taken: Vec<&PageTruth> = [start].into_iter().chain(first.iter().copied()).collect();
            let chosen = taken.clone();
            for listing in first {
                let fresh = listing.links.iter().filter(|link| chosen.iter().all(|page| page.url != **link));
                taken.extend(fresh.take(details).map(page));
            }
            within.append(&mut taken);
        }
        let mut seen = HashSet::new();
        within.retain(|page| seen.insert(&page.url));
        within
    }

    /// The pictures that any of these pages shows.
    pub fn images_on(&self, pages: &[&PageTruth]) -> Vec<&Placed> {
        let pages: HashSet<&String> = pages.iter().map(|page| &page.url).collect();
        self.images.iter().filter(|image| image.places.iter().any(|place| pages.contains(&place.page))).collect()
    }

    /// Groups of two or more addresses that serve the same bytes.
    pub fn exact_groups(&self) -> Vec<Vec<&Placed>> {
        let mut groups: BTreeMap<&[u8], Vec<&Placed>> = BTreeMap::new();
        self.images.iter().for_each(|image| groups.entry(&image.bytes).or_default().push(image));
        groups.into_values().filter(|group| group.len() > 1).collect()
    }

    /// Groups of two or more addresses that show the same picture, exact duplicates included.
    pub fn picture_groups(&self) -> Vec<Vec<&Placed>> {
        let mut groups: BTreeMap<u64, Vec<&Placed>> = BTreeMap::new();
        self.images.iter().for_each(|image| groups.entry(image.picture).or_default().push(image));
        groups.into_values().filter(|group| group.len() > 1).collect()
    }

    /// Requested addresses that are neither a page of the sites, nor a picture, nor a host's rules for crawlers.
    pub fn trespasses(&self) -> Vec<String> {
        let rules = ["/robots.txt", "/.well-known/tdmrep.json"];
        let hosts = self.sites.iter().chain([&self.cdn]);
        let mut allowed: HashSet<String> = hosts.flat_map(|host| rules.map(|rule| host.url(rule))).collect();
        allowed.extend(self.pages.iter().map(|page| page.url.clone()));
        allowed.extend(self.images.iter().map(|image| image.url.clone()));
        self.world.log().urls().into_iter().filter(|url| !allowed.contains(url)).collect()
    }

    /// Addresses that were requested more than once, and how often.
    pub fn repeats(&self) -> Vec<(String, usize)> {
        self.world.log().counts().into_iter().filter(|(_, count)| *count > 1).collect()
    }
}
