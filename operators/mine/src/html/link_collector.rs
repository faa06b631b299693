//! What has been found on a page so far: addresses resolved, each once, within the limits.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;

use bytes::Bytes;
use data_url::DataUrl;
use data_url::forgiving_base64::DecodeError;
use encoding_rs::Encoding;
use faceflow_core::record::ContentId;
use url::Url;

use super::body_kind::begins_like_picture;
use super::candidate::Candidate;
use super::url_extension::UrlExtension;
use super::{ExtractedImage, ExtractedPage, MineSettings};
use crate::url_normalization::{canonical, join_encoded, normalise, site_of};

/// Collects a page's pictures and links.
pub(crate) struct LinkCollector<'a> {
    settings: &'a MineSettings,
    /// What addresses are relative to.
    pub base: Url,
    /// Whether this is a text that a feed quotes: its pictures count, its links and `meta` tags are not the feed's.
    pub quoting: bool,
    encoding: &'static Encoding,
    /// The page itself as a picture's address, as a page's address, and its site.
    own: (Option<Url>, Option<Url>, String),
    reading: ExtractedPage,
    images: HashMap<Url, usize>,
    links: HashSet<Url>,
    /// What the addresses that were kept may still take, in bytes.
    bytes_left: usize,
    /// Whether addresses were passed over because there was too little of that.
    is_cut: bool,
}

impl<'a> LinkCollector<'a> {
    /// For the page at `url` whose addresses are relative to `base` and whose queries are written in `encoding`.
    pub fn new(settings: &'a MineSettings, url: &Url, base: Url, encoding: &'static Encoding) -> Self {
        let own = (canonical(url.clone()), normalise(url.clone()), site_of(url));
        let (reading, images, links) = (ExtractedPage::default(), HashMap::new(), HashSet::new());
        let (bytes_left, is_cut) = (settings.urls_max_bytes, false);
        Self { settings, base, quoting: false, encoding, own, reading, images, links, bytes_left, is_cut }
    }

    /// A picture with one address.
    pub fn image(&mut self, text: &str) {
        self.picture(vec![Candidate::plain(text)]);
    }

    /// One picture under any of several addresses. A `data:` URI among them is a picture by itself: it costs no
    /// request.
    pub(super) fn picture(&mut self, mut candidates: Vec<Candidate<'_>>) {
        candidates.sort_by(Candidate::rank);
        let mut addresses: Vec<Url> = Vec::new();
        for candidate in candidates {
            if is_data(&candidate.url) {
                if let Some((url, inline)) = decoded(&candidate.url, self.settings.data_uri_max_bytes) {
                    self.place(ExtractedImage { url, alternates: vec![], inline: Some(inline) });
                }
            } else if addresses.len() <= self.settings.alternates_max {
                let address = self.resolve(&candidate.url).and_then(canonical);
                let address = address.filter(|url| Some(url) != self.own.0.as_ref() && !addresses.contains(url));
                addresses.extend(address);
            }
        }
        let mut addresses = addresses.into_iter();
        if let Some(url) = addresses.next() {
            self.place(ExtractedImage { url, alternates: addresses.collect(), inline: None });
        }
    }

    /// A link to a page. Kept if it leads to another page of the same site.
    pub fn link(&mut self, text: &str) {
        self.follow(text, |file| file == UrlExtension::Unknown);
    }

    /// A link to a feed, which may be a file (`xml`, `txt`, `gz`). Kept if it leads to another one of the same site.
    pub fn feed_link(&mut self, text: &str) {
        self.follow(text, |file| matches!(file, UrlExtension::Unknown | UrlExtension::Other));
    }

    fn follow(&mut self, text: &str, fits: impl Fn(UrlExtension) -> bool) {
        let Some(url) = self.resolve(text).filter(|_| !self.quoting) else { return };
        if site_of(&url) != self.own.2 || !fits(UrlExtension::of(url.path())) {
            return;
        }
        let Some(url) = normalise(url).filter(|url| Some(url) != self.own.1.as_ref()) else { return };
        if self.reading.links.len() < self.settings.links_max && !self.links.contains(&url) && self.takes(&url, 0) {
            self.links.insert(url.clone());
            self.reading.links.push(url);
        }
    }

    /// A link of which only its extension tells whether it leads to a picture or to a page.
    pub fn link_or_image(&mut self, text: &str) {
        match UrlExtension::of(text) {
            UrlExtension::Picture => self.image(text),
            _ => self.link(text),
        }
    }

    /// What a named `meta` tag says.
    pub fn meta(&mut self, name: &str, content: &str) {
        if !self.quoting && self.reading.named_meta.len() < self.settings.metas_max {
            self.reading.named_meta.push((name.trim().to_ascii_lowercase(), content.to_owned()));
        }
    }

    /// Everything found. An address that is a picture of its own is nobody's alternate.
    pub fn finish(mut self) -> ExtractedPage {
        if self.is_cut {
            let page = self.own.1.as_ref().map_or("a page", Url::as_str);
            tracing::warn!("{page}: its addresses take more than mine.urls_max_bytes together; others are passed over");
        }
        for found in &mut self.reading.images {
            found.alternates.retain(|url| !self.images.contains_key(url));
        }
        self.reading
    }

    fn resolve(&self, text: &str) -> Option<Url> {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') || text.len() > self.settings.url_max_bytes {
            return None;
        }
        join_encoded(&self.base, text, self.encoding).filter(|url| url.as_str().len() <= self.settings.url_max_bytes)
    }

    fn place(&mut self, found: ExtractedImage) {
        let ExtractedImage { url, alternates, inline } = found;
        let at = match self.images.get(&url).copied() {
            Some(at) => at,
            None if self.reading.images.len() < self.settings.images_max && self.takes(&url, 0) => {
                let at = self.reading.images.len();
                self.images.insert(url.clone(), at);
                self.reading.images.push(ExtractedImage { url, alternates: vec![], inline });
                at
            }
            None => return,
        };
        for url in alternates {
            let known = &self.reading.images[at].alternates;
            // Half of the room is for pictures that have no address yet.
            if known.len() < self.settings.alternates_max
                && !known.contains(&url)
                && self.takes(&url, self.settings.urls_max_bytes / 2)
            {
                self.reading.images[at].alternates.push(url);
            }
        }
    }

    /// Whether there is room for an address, so that so many bytes are left for others; it is taken.
    fn takes(&mut self, url: &Url, left_for_others: usize) -> bool {
        let left = self.bytes_left.checked_sub(url.as_str().len()).filter(|left| *left >= left_for_others);
        self.is_cut |= left.is_none();
        self.bytes_left = left.unwrap_or(self.bytes_left);
        left.is_some()
    }
}

fn is_data(text: &str) -> bool {
    text.trim_start().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

/// The bytes of a `data:` URI that is a picture other than SVG and at most `bytes_max` long, and the address that
/// stands for them. The bytes decide what it is, since types are wrong or missing.
fn decoded(text: &str, bytes_max: usize) -> Option<(Url, Bytes)> {
    let uri = DataUrl::process(text.trim()).ok()?;
    let declared = uri.mime_type().type_ == "image" && !uri.mime_type().subtype.starts_with("svg");
    let mut bytes = Vec::new();
    let mut fits = true;
    let result: Result<_, DecodeError<Infallible>> = uri.decode(|part| {
        fits &= bytes.len() + part.len() <= bytes_max;
        bytes.extend_from_slice(if fits { part } else { &[] });
        Ok(())
    });
    if result.is_err() || !fits || bytes.is_empty() || !(declared || begins_like_picture(&bytes)) {
        return None;
    }
    let url = Url::parse(&format!("data:sha256,{}", ContentId::of(&bytes))).ok()?;
    Some((url, bytes.into()))
}
