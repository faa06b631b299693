//! Galleries: whole webs of picture pages, planned, painted and served.
//!
//! A start page leads to listings, listings to detail pages; pictures are spread over all of them by every [`Embedding`] in
//! turn. Promise: the same plan gives the same pages and bytes (but for the ports), and everything is painted before the
//! first request, so serving costs next to nothing.

use bytes::Bytes;
use faceflow_core::record::ContentId;

use super::embed::{Embedding, Reference};
use super::encode::extension;
use super::paint::{COARSE, FINE, Painted, Painting, SMALL, paint};
use super::picture::Dice;
use super::server::{Site, World};
use super::truth::{Gallery, Kind, PageTruth, Place, Placed};

/// What a gallery is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sites, each on a host of its own.
    pub sites: usize,
    /// Pages of each site, the start page included.
    pub pages_per_site: usize,
    /// Picture addresses over all sites.
    pub images: usize,
    /// How many of them serve the bytes of another one, in percent.
    pub exact_percent: u64,
    /// How many of them show the picture of another one in another size or encoding, in percent.
    pub near_percent: u64,
    /// Width and height of painted pictures in pixels.
    pub size: (u32, u32),
    /// JPEG files to show before any picture is painted (never where an embedding needs smaller candidates).
    pub photos: Vec<Bytes>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            sites: 3,
            pages_per_site: 13,
            images: 120,
            exact_percent: 10,
            near_percent: 10,
            size: (288, 216),
            photos: vec![],
        }
    }
}

/// A gallery of so many sites, pages for each, and painted pictures in all.
pub fn gallery_web(sites: usize, pages_per_site: usize, images: usize) -> Gallery {
    Plan { sites, pages_per_site, images, ..Plan::default() }.serve()
}

impl Plan {
    /// Paints and serves it.
    pub fn serve(self) -> Gallery {
        let world = World::new();
        let sites: Vec<Site> = (0..self.sites).map(|_| world.site()).collect();
        let (cdn, outside) = (world.site(), world.site());
        cdn.page("/", "<p>pages of another host</p>").page("/about.html", "<p>not of this site</p>");
        outside.page("/", "<p>nothing to do with it</p>");
        let pages: Vec<PageTruth> = sites.iter().enumerate().flat_map(|(n, site)| self.pages(n, site)).collect();
        let mut gallery = Gallery { world, sites, cdn, outside, pages, images: vec![] };
        let drafts = self.drafts(gallery.pages.len());
        let painted = paint(drafts.iter().flat_map(Draft::paintings).collect());
        let mut html = vec![(String::new(), String::new()); gallery.pages.len()];
        let mut painted = painted.into_iter();
        for (number, draft) in drafts.iter().enumerate() {
            let files = painted.by_ref().take(draft.paintings().count()).collect();
            let (placed, (head, body)) = self.place((number, draft), files, &gallery);
            html[draft.page].0 += &head;
            html[draft.page].1 += &body;
            gallery.images.push(placed);
        }
        gallery.show_on_listings(&mut html);
        gallery.publish(html);
        gallery
    }

    /// The pages of one site: the start page, listings, details.
    fn pages(&self, number: usize, site: &Site) -> Vec<PageTruth> {
        let others = self.pages_per_site.saturating_sub(1);
        let listings = (others as f64).sqrt().round() as usize;
        let details = others - listings;
        let listing = |n: usize| site.url(&format!("/list/{n}"));
        let detail = |listing: usize, n: usize| site.url(&format!("/item/{listing}/{n}.html"));
        let count = |listing: usize| details / listings + usize::from(listing < details % listings);
        let page = |url, depth, links| PageTruth { url, site: number, depth, links };
        let home = site.url("/");
        let mut pages = vec![page(home.clone(), 0, (0..listings).map(listing).collect())];
        for n in 0..listings {
            let mut links = vec![home.clone()];
            links.extend((0..count(n)).map(|m| detail(n, m)));
            // A listing of fewer details than a usual crawl takes leads nowhere else.
            links.extend((count(n) >= 3 && n + 1 < listings).then(|| listing(n + 1)));
            pages.push(page(listing(n), 1, links));
        }
        for n in 0..listings {
            for m in 0..count(n) {
                let mut links = vec![home.clone(), listing(n)];
                links.extend((m + 1 < count(n)).then(|| detail(n, m + 1)));
                pages.push(page(detail(n, m), 2, links));
            }
        }
        pages
    }

    /// What each picture address is to be.
    fn drafts(&self, pages: usize) -> Vec<Draft> {
        let mut dice = Dice(0);
        let mut photos = self.photos.iter().cloned();
        let (mut fresh, mut painted): (Vec<usize>, Vec<usize>) = (vec![], vec![]);
        let mut drafts: Vec<Draft> = Vec::new();
        for number in 0..self.images {
            let page = number % pages;
            let mut embedding = Embedding::ALL[(number + number / pages) % Embedding::ALL.len()];
            // Whether a page has a base is the page's matter.
            if matches!(embedding, Embedding::Relative | Embedding::BaseRelative) {
                embedding = if has_base(page) { Embedding::BaseRelative } else { Embedding::Relative };
            }
            let (roll, pick) = (dice.next() % 100, dice.next() as usize);
            let mut draft = Draft {
                page,
                embedding,
                kind: Kind::Fresh,
                picture: number as u64,
                size: self.size,
                style: number,
                bytes: None,
            };
            if embedding == Embedding::DataUri {
                draft.size = (self.size.0 / 2, self.size.1 / 2);
            } else if roll < self.exact_percent && !fresh.is_empty() {
                let of = fresh[pick % fresh.len()];
                let Draft { picture, size, style, bytes, .. } = drafts[of].clone();
                draft = Draft { kind: Kind::Exact(of), picture, size, style, bytes, ..draft };
            } else if (self.exact_percent..self.exact_percent + self.near_percent).contains(&roll)
                && !painted.is_empty()
            {
                let at = pick % painted.len();
                let of = painted[at];
                let before = drafts.iter().filter(|draft| draft.kind == Kind::Near(of)).count();
                draft = Draft { kind: Kind::Near(of), ..draft }.near(&drafts[of], before);
                if before + 1 == NEAR_WAYS {
                    painted.swap_remove(at);
                }
            } else {
                draft.bytes = if embedding.smaller().is_empty() { photos.next() } else { None };
            }
            if draft.kind == Kind::Fresh {
                fresh.push(number);
                painted.extend((draft.bytes.is_none() && embedding != Embedding::DataUri).then_some(number));
            }
            drafts.push(draft);
        }
        drafts
    }

    /// Puts one picture on its host; what is true of it and the HTML that shows it.
    fn place(
        &self,
        (number, draft): (usize, &Draft),
        files: Vec<Painted>,
        gallery: &Gallery,
    ) -> (Placed, (String, String)) {
        let mut files = files.into_iter();
        let whole = files.next().expect("every draft is painted");
        let page = &gallery.pages[draft.page];
        let elsewhere = number % 6 == 5 && !draft.embedding.needs_own_host();
        let host = if elsewhere { &gallery.cdn } else { &gallery.sites[page.site] };
        let ending = extension(&whole.bytes);
        let path = draft.embedding.path(number, ending);
        let smaller: Vec<(String, u32)> = files
            .map(|file| {
                let path = format!("/img/{number}-{}.jpg", file.width);
                host.image(&path, file.bytes);
                (path, file.width)
            })
            .collect();
        let shown = Reference {
            origin: host.origin(),
            own_host: !elsewhere,
            path: &path,
            width: whole.width,
            smaller: &smaller,
            number,
            bytes: &whole.bytes,
        };
        let html = draft.embedding.html(&shown);
        let url = if draft.embedding == Embedding::DataUri {
            format!("data:sha256,{}", ContentId::of(&whole.bytes))
        } else {
            host.image(&path, whole.bytes.clone());
            host.url(&path)
        };
        let alternates = smaller.iter().map(|(path, _)| host.url(path)).collect();
        let places = vec![Place { page: page.url.clone(), embedding: draft.embedding, alternates }];
        let Painted { bytes, width, height, markers } = whole;
        (Placed { url, kind: draft.kind, picture: draft.picture, bytes, width, height, markers, places }, html)
    }
}

/// Every other page has a `<base>`.
fn has_base(page: usize) -> bool {
    page % 2 == 1
}

impl Gallery {
    /// Shows some pictures of detail pages on their listings, too.
    fn show_on_listings(&mut self, html: &mut [(String, String)]) {
        for (number, page) in self.pages.iter().enumerate().filter(|(_, page)| page.depth == 1) {
            let linked = |image: &&mut Placed| {
                !image.url.starts_with("data:")
                    && image.places.iter().any(|place| page.links[1..].contains(&place.page))
            };
            let Some(image) = self.images.iter_mut().find(linked) else { continue };
            html[number].1 += &format!(r#"<img src="{}">"#, image.url.replace('&', "&amp;"));
            image.places.push(Place { page: page.url.clone(), embedding: Embedding::ImgSrc, alternates: vec![] });
        }
    }

    /// Puts the pages on their sites.
    fn publish(&self, html: Vec<(String, String)>) {
        for (number, (page, (head, body))) in self.pages.iter().zip(html).enumerate() {
            let site = &self.sites[page.site];
            let base = if has_base(number) { r#"<base href="/img/">"# } else { "" };
            let paths = page.links.iter().map(|link| &link[site.origin().len()..]).enumerate();
            let links: String = paths
                .map(|(n, path)| match n % 3 {
                    0 => format!("<a href=\"{path}\">{n}</a> <a href=\"{path}#again\">{n} again</a>\n"),
                    1 => format!("<a href='{}'>{n}</a>\n", site.url(path)),
                    _ => format!("<a class=item href={path}>{n}</a>\n"),
                })
                .collect();
            let (cdn, outside) = (self.cdn.origin(), self.outside.origin());
            let html = format!(
                "<!doctype html>\n<html><head><meta charset=\"utf-8\"><title>Page {number}</title>{base}{head}</head>\n<body>\n\
                 <nav>{links}</nav>\n{body}\n<!-- <img src=\"/never/comment.jpg\"> <a href=\"/never/comment.html\"></a> -->\n\
                 <footer><a href=\"{cdn}/about.html\">host</a> <a href=\"{outside}/\">elsewhere</a> \
                 <a href=\"mailto:a@example.com\">mail</a> <a href=\"javascript:void(0)\">top</a> <a href=\"tel:1\">call</a>\
                 </footer></body></html>\n"
            );
            site.page(&page.url[site.origin().len()..], html);
        }
    }
}

/// One picture address before it is painted.
#[derive(Clone)]
struct Draft {
    page: usize,
    embedding: Embedding,
    kind: Kind,
    picture: u64,
    size: (u32, u32),
    /// Chooses the encoding.
    style: usize,
    /// A photograph.
    bytes: Option<Bytes>,
}

impl Draft {
    /// The picture of `other`, in a size or encoding that `before` others of it do not have.
    fn near(self, other: &Self, before: usize) -> Self {
        let (width, height) = other.size;
        let ways =
            [((width * 3 / 4, height * 3 / 4), SMALL), ((width, height), COARSE), ((width / 2, height / 2), FINE)];
        let (size, style) = ways[before % NEAR_WAYS];
        Self { picture: other.picture, size, style, ..self }
    }

    /// What to paint: the picture, then its smaller candidates.
    fn paintings(&self) -> impl Iterator<Item = Painting> {
        let whole = Painting { picture: self.picture, size: self.size, style: self.style, bytes: self.bytes.clone() };
        let (picture, (width, height)) = (self.picture, self.size);
        let smaller = self.embedding.smaller().iter().map(move |percent| {
            let size = (width * percent / 100, height * percent / 100);
            Painting { picture, size, style: SMALL, bytes: None }
        });
        [whole].into_iter().chain(smaller)
    }
}

/// Near duplicates of one picture at most, each in its own way.
const NEAR_WAYS: usize = 3;
