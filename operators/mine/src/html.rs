//! The miner: what a page shows and where it leads.
//!
//! A page is decoded, made safe to parse, parsed once and walked once. Everything a browser might show as a picture
//! counts, and what scripts would put there, but no script is run: `srcset`, `picture`, lazy attributes, meta tags,
//! JSON-LD, microdata, styles, `noscript`, links to picture files. Favicons do not count: they belong to the site, not
//! to the page. Links marked `nofollow` are followed: the mark is about ranking. Promise: [`read`] never panics, its
//! time and memory grow with the length of the page and no faster, and every address it gives is an absolute http(s)
//! URL or `data:sha256,…`.

mod attribute;
mod body_kind;
mod candidate;
pub(crate) mod charset;
pub(crate) mod dom_visitor;
mod json_ld;
pub(crate) mod link_collector;
mod markup;
mod sanitize;
mod srcset;
mod style;
#[cfg(test)]
mod tests;
pub(crate) mod url_extension;

pub use url_extension::names_picture;

use bytes::Bytes;
use faceflow_core::{Class, Fault};
use scraper::Html;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::url_normalization::{canonical, join};
use body_kind::BodyKind;
use dom_visitor::DomVisitor;
use link_collector::LinkCollector;

/// The settings `mine.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MineSettings {
    /// Pictures taken from one page, at most.
    pub images_max: usize,
    /// Links taken from one page, at most.
    pub links_max: usize,
    /// Other addresses kept for one picture, at most.
    pub alternates_max: usize,
    /// Named `meta` tags kept of one page, at most.
    pub metas_max: usize,
    /// Length of an address in bytes; longer ones are passed over.
    pub url_max_bytes: usize,
    /// Length of all addresses kept of one page together, in bytes, or of its text where that is longer; what does not fit is passed
    /// over, with a warning. A page of a few MB can lead to addresses of some GB, since each repeats the page's `base`.
    pub urls_max_bytes: usize,
    /// Size of a picture inside a `data:` URI in bytes, decoded; larger ones are passed over.
    pub data_uri_max_bytes: usize,
    /// Elements nested in one another, about; what is deeper is read as if it began anew.
    pub depth_max: usize,
    /// Tags parsed at a time; a longer page is parsed in pieces, which bounds memory.
    pub tags_max: usize,
    /// Attributes of one tag; the others are passed over.
    pub attributes_max: usize,
    /// Size of a JSON-LD script in bytes; larger ones are passed over.
    pub json_ld_max_bytes: usize,
    /// Values nested in one another in a JSON-LD script; deeper ones are passed over. At most 127.
    pub json_ld_depth_max: usize,
    /// Blocks nested in one another in a style sheet; deeper ones are read as if they were flat. At most 127.
    pub style_depth_max: u8,
    /// Pages inside `srcdoc` attributes inside one another; deeper ones are passed over. At most 8.
    pub srcdoc_depth_max: usize,
    /// Entries read from one sitemap or feed, and links taken from it, at most. The sitemap protocol allows 50,000.
    pub feed_entries_max: usize,
    /// Pictures taken from one sitemap or feed, at most.
    pub feed_images_max: usize,
}

impl Default for MineSettings {
    fn default() -> Self {
        Self {
            images_max: 10_000,
            links_max: 10_000,
            alternates_max: 16,
            metas_max: 1_000,
            url_max_bytes: 8_192,
            urls_max_bytes: 16 << 20,
            data_uri_max_bytes: 1 << 20,
            depth_max: 256,
            tags_max: 50_000,
            attributes_max: 256,
            json_ld_max_bytes: 1 << 20,
            json_ld_depth_max: 32,
            style_depth_max: 32,
            srcdoc_depth_max: 2,
            feed_entries_max: 50_000,
            feed_images_max: 50_000,
        }
    }
}

impl MineSettings {
    /// The same for a text of this length: the addresses that stand in it as they are all have room.
    pub(crate) fn for_text(&self, bytes: usize) -> Self {
        Self { urls_max_bytes: self.urls_max_bytes.max(bytes), ..self.clone() }
    }

    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let ranges = [
            ("images_max", self.images_max, 1, usize::MAX),
            ("links_max", self.links_max, 0, usize::MAX),
            ("alternates_max", self.alternates_max, 0, 1_000),
            ("metas_max", self.metas_max, 1, usize::MAX),
            ("url_max_bytes", self.url_max_bytes, 64, 1 << 20),
            ("urls_max_bytes", self.urls_max_bytes, 64 << 10, usize::MAX),
            ("depth_max", self.depth_max, 16, 1_024),
            ("tags_max", self.tags_max, 100, 10_000_000),
            ("attributes_max", self.attributes_max, 8, 1_024),
            ("json_ld_depth_max", self.json_ld_depth_max, 1, 127),
            ("style_depth_max", usize::from(self.style_depth_max), 1, 127),
            ("srcdoc_depth_max", self.srcdoc_depth_max, 0, 8),
            ("feed_entries_max", self.feed_entries_max, 1, usize::MAX),
            ("feed_images_max", self.feed_images_max, 1, usize::MAX),
        ];
        let wrong = ranges.into_iter().find(|(_, value, least, most)| value < least || value > most);
        match wrong {
            Some((key, _, least, usize::MAX)) => Err((key, format!("{least} or more"))),
            Some((key, _, least, most)) => Err((key, format!("{least} to {most}"))),
            None => Ok(()),
        }
    }
}

/// A page as it came over the network.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Where it was found, after redirects.
    pub url: &'a Url,
    /// Its `Content-Type` header.
    pub content_type: Option<&'a str>,
    /// Its body, without content coding.
    pub body: &'a [u8],
}

/// Whether a body is a page, whatever its address looks like.
pub fn is_page(source: &Source<'_>) -> bool {
    matches!(BodyKind::of(source), BodyKind::Page { .. })
}

/// Follows a `Refresh` header, which is a `meta` refresh by other means (HTML standard, "shared declarative refresh steps"), from a
/// page of any kind.
pub fn refresh(source: &Source<'_>, header: &str, settings: &MineSettings) -> ExtractedPage {
    let mut collector = LinkCollector::new(settings, source.url, source.url.clone(), encoding_rs::UTF_8);
    dom_visitor::refresh_target(header).into_iter().for_each(|target| collector.link_or_image(target));
    collector.finish()
}

/// A picture that a page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtractedImage {
    /// The address of its best version; `data:sha256,<hex of the bytes>` for a `data:` URI.
    pub url: Url,
    /// Other addresses of the same picture, best first.
    pub alternates: Vec<Url>,
    /// The bytes of a `data:` URI.
    pub inline: Option<Bytes>,
}

/// What a page shows and where it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtractedPage {
    /// Links to other pages of the same site (the site of [`Source::url`]), in document order, each once.
    pub links: Vec<Url>,
    /// Pictures in document order, each once.
    pub images: Vec<ExtractedImage>,
    /// Name (in lower case) and content of every named `meta` tag, in document order: a robots rule may be addressed to
    /// a crawler by its name.
    pub named_meta: Vec<(String, String)>,
}

/// Reads a page. CPU-bound: meant for a blocking thread. A body that is a picture is a page that shows itself.
///
/// # Errors
/// `not_html` if the body is neither a page nor a picture.
pub fn read(source: &Source<'_>, settings: &MineSettings) -> Result<ExtractedPage, Fault> {
    match BodyKind::of(source) {
        BodyKind::Page { xml } => Ok(read_page(source, xml, settings)),
        BodyKind::Picture => {
            let url = canonical(source.url.clone()).unwrap_or_else(|| source.url.clone());
            let images = vec![ExtractedImage { url, alternates: vec![], inline: None }];
            Ok(ExtractedPage { images, ..ExtractedPage::default() })
        }
        BodyKind::Other(what) => Err(Fault::permanent(Class::Content, "not_html", format!("not a page: {what}"))),
    }
}

fn read_page(source: &Source<'_>, xml: bool, settings: &MineSettings) -> ExtractedPage {
    let settings = &settings.for_text(source.body.len());
    let (text, encoding) = charset::decode(source);
    let sanitize = sanitize::sanitize(text.into_owned(), xml, settings);
    let base = sanitize.base.as_ref().and_then(|tag| base_address(&sanitize.text[tag.clone()], source.url));
    let collector = LinkCollector::new(settings, source.url, base.unwrap_or_else(|| source.url.clone()), encoding);
    let mut visitor = DomVisitor { settings, collector };
    for piece in sanitize.pieces {
        visitor.read_tree(&Html::parse_document(&sanitize.text[piece]), settings.srcdoc_depth_max);
    }
    visitor.collector.finish()
}

/// Where a `base` tag says that the page's addresses start from.
fn base_address(tag: &str, page: &Url) -> Option<Url> {
    let html = Html::parse_fragment(tag);
    let mut elements = html.tree.nodes().filter_map(scraper::ElementRef::wrap);
    let href = elements.find_map(|element| (element.value().name() == "base").then(|| element.attr("href")).flatten());
    href.and_then(|href| join(page, href))
}
