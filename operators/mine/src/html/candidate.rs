//! Candidates: the addresses one picture is offered under, and which of them is best.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::url_extension::UrlExtension;

/// One address of a picture, as a page writes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate<'a> {
    /// The address, not yet resolved.
    pub url: Cow<'a, str>,
    /// The `w` descriptor in pixels; 0 without one.
    pub width: u64,
    /// The `x` descriptor; 1 without one.
    pub density: f64,
    /// Whether we read its format, as far as its type or extension tells.
    pub decodable: bool,
}

impl<'a> Candidate<'a> {
    /// An address without descriptors.
    pub fn plain(url: impl Into<Cow<'a, str>>) -> Self {
        let url = url.into();
        let decodable = UrlExtension::of(&url) != UrlExtension::Undecodable;
        Self { url, width: 0, density: 1.0, decodable }
    }

    /// Orders the best first: what we can decode, then the wider, then the denser; equals stay in document order.
    pub fn rank(&self, other: &Self) -> Ordering {
        let by_density = || other.density.total_cmp(&self.density);
        (other.decodable, other.width).cmp(&(self.decodable, self.width)).then_with(by_density)
    }
}

/// Whether a media type names a format we read, or none that we know of.
pub(super) fn decodable_type(media_type: &str) -> bool {
    let media_type = media_type.trim().to_ascii_lowercase();
    let undecodable = ["image/avif", "image/heic", "image/heif", "image/jxl", "image/svg", "image/jp2", "image/jxr"];
    !undecodable.iter().any(|prefix| media_type.starts_with(prefix))
}
