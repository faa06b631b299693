//! Feeds: sitemaps, and RSS, Atom and JSON feeds, read like pages. Here and in the settings both are called feeds.
//!
//! A feed names pages one by one: a sitemap (XML or text), a sitemap index, RSS, Atom, JSON Feed. Its content says what
//! it is, never its address: servers send feeds as HTML, and sitemaps under any name. What an entry links to is a link
//! where a link of a page would be one, which leaves links to other sites out: that is stricter than the protocol, by which
//! a sitemap may speak for hosts that name it in their robots.txt. An entry that is a picture is a picture, and so is what
//! its content shows. Links inside quoted content are not entries. Entities that a document declares are not expanded.
//!
//! A feed that breaks off or is no longer well-formed gives what stood before the fault: sites cut them, and half of a
//! list is a list. Promise: [`read`] never panics, and its time and memory grow with the length of the feed.

mod format;
mod json;
mod tag;
#[cfg(test)]
mod tests;
mod xml;

use crate::html::dom_visitor::DomVisitor;
use crate::html::link_collector::LinkCollector;
use crate::html::{ExtractedPage, MineSettings, Source};
use format::FeedFormat;

/// Reads a feed; `None` if the body is none. CPU-bound: meant for a blocking thread.
///
/// Links and pictures are those of a page by the same rules ([`crate::html`]), with limits of their own. The links of a
/// sitemap index, and those to the next part of a feed, lead to feeds.
pub fn read(source: &Source<'_>, settings: &MineSettings) -> Option<ExtractedPage> {
    let kind = FeedFormat::of(source)?;
    let settings = &MineSettings {
        links_max: settings.feed_entries_max,
        images_max: settings.feed_images_max,
        ..settings.for_text(source.body.len())
    };
    let (text, encoding) = format::decode(source);
    let collector = LinkCollector::new(settings, source.url, source.url.clone(), encoding);
    let mut visitor = DomVisitor { settings, collector };
    let is_feed = match kind {
        FeedFormat::Xml => {
            xml::read(&text, &mut visitor);
            true
        }
        FeedFormat::Json { declared } => json::read(&text, &mut visitor) || declared,
        FeedFormat::Text => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(settings.feed_entries_max);
            lines.filter(|line| format::is_address(line)).for_each(|line| visitor.collector.link_or_image(line));
            true
        }
    };
    is_feed.then(|| visitor.collector.finish())
}

/// Reads HTML that a feed quotes: what it shows counts, where it leads does not.
fn quote(html: String, xml: bool, visitor: &mut DomVisitor<'_>) {
    if html.contains('<') {
        visitor.collector.quoting = true;
        visitor.read(html, xml, visitor.settings.srcdoc_depth_max);
        visitor.collector.quoting = false;
    }
}
