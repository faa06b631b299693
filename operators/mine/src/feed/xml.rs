//! XML feeds: sitemaps and their indexes, RSS 0.9x to 2.0 and Atom, in one pass over their tags.
//!
//! Feeds are written by hand and by broken programs, so tags need not match: an end tag closes the last element of its
//! name, with whatever was left open inside, and one that closes nothing is passed over. An entry ends where the next begins.

use std::ops::{ControlFlow, Range};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use url::Url;

use super::quote;
use super::tag::{Attributes, Name, referred};
use crate::html::dom_visitor::DomVisitor;
use crate::html::url_extension::{is_rooted, names_picture};
use crate::url_normalization::join;

/// Reads a document into what has been gathered, as far as it goes.
pub(super) fn read(text: &str, visitor: &mut DomVisitor<'_>) {
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    let mut feed = FeedReader {
        text,
        visitor,
        open: vec![],
        beyond: 0,
        entries: 0,
        said: String::new(),
        content: None,
        entry: Entry::default(),
        names_image: false,
    };
    loop {
        let before = reader.buffer_position() as usize;
        let Ok(event) = reader.read_event() else { return };
        let after = reader.buffer_position() as usize;
        if feed.take(event, before..after).is_break() {
            return;
        }
    }
}

struct FeedReader<'t, 'w, 's> {
    text: &'t str,
    visitor: &'w mut DomVisitor<'s>,
    open: Vec<Open>,
    /// Elements that are open beyond `depth_max`: nothing in them is read.
    beyond: usize,
    entries: usize,
    /// The text since the last tag.
    said: String,
    /// The quoted content that is open.
    content: Option<Content>,
    /// The entry of a feed that is open.
    entry: Entry,
    /// Whether the open `Attribute` of a page map names a picture.
    names_image: bool,
}

/// An element that is open.
struct Open {
    name: Name,
    /// What addresses were relative to before its `xml:base`.
    base: Option<Url>,
}

/// Content that is HTML: escaped, as XHTML, or written as if there were no XML around it.
struct Content {
    /// Where it begins.
    start: usize,
    /// How many elements are open around it.
    depth: usize,
    /// Whether there are tags in it, so that it was not escaped.
    has_tags: bool,
}

#[derive(Default)]
struct Entry {
    has_link: bool,
    id: String,
}

impl FeedReader<'_, '_, '_> {
    fn has_room(&self) -> bool {
        self.open.len() < self.visitor.settings.depth_max
    }

    fn parent(&self) -> Name {
        self.open.last().map_or(Name::Other, |open| open.name)
    }

    /// Takes what stands at `at`. Breaks at the end, and at an entry beyond the limit.
    fn take(&mut self, event: Event<'_>, at: Range<usize>) -> ControlFlow<()> {
        match event {
            Event::Start(tag) => self.start(&tag, at)?,
            Event::Empty(tag) if self.has_room() => {
                self.start(&tag, at.clone())?;
                self.end(Name::of(tag.local_name().as_ref()), at.end);
            }
            Event::End(tag) => self.end(Name::of(tag.local_name().as_ref()), at.start),
            Event::Text(said) => self.said.push_str(&said),
            Event::CData(said) => self.said.push_str(&said),
            Event::GeneralRef(name) => match referred(&name) {
                Some(char) => self.said.push(char),
                None => self.said.extend(["&", &name, ";"]),
            },
            Event::Eof => return ControlFlow::Break(()),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    /// Whether an element that begins here is an entry.
    fn is_entry(&self, name: Name) -> bool {
        matches!(name, Name::Sitemap | Name::Item) || (name == Name::Url && self.parent() != Name::Image)
    }

    /// A start tag, and where it stands. Breaks at an entry beyond the limit.
    fn start(&mut self, tag: &BytesStart<'_>, at: Range<usize>) -> ControlFlow<()> {
        let name = Name::of(tag.local_name().as_ref());
        if let Some(content) = &mut self.content {
            content.has_tags = true;
        } else if self.is_entry(name) && self.open.iter().any(|open| open.name == name) {
            self.end(name, at.start);
        }
        self.said.clear();
        if !self.has_room() {
            self.beyond += 1;
            return ControlFlow::Continue(());
        }
        let mut base = None;
        if self.content.is_none() && name != Name::Other {
            let attributes = Attributes::of(tag, self.visitor.settings.attributes_max);
            let own = attributes.get("xml:base").and_then(|text| join(&self.visitor.collector.base, text));
            base = own.map(|own| std::mem::replace(&mut self.visitor.collector.base, own));
            self.begin(name, &attributes, at.end)?;
        }
        self.open.push(Open { name, base });
        ControlFlow::Continue(())
    }

    fn begin(&mut self, name: Name, attributes: &Attributes, after: usize) -> ControlFlow<()> {
        let is_image = |address: &str| match attributes.get("medium").or_else(|| attributes.get("type")) {
            Some(_) => attributes.begins("medium", "image") || attributes.begins("type", "image/"),
            None => names_picture(address),
        };
        match (self.parent(), name) {
            _ if self.is_entry(name) => return self.enter(),
            (parent, Name::Link) => self.link(parent, attributes),
            (Name::Item, Name::Text) => self.content = Some(self.content_from(after)),
            (parent, Name::Content | Name::Enclosure) => {
                let address = attributes.get("url").or_else(|| attributes.get("src"));
                if let Some(address) = address.filter(|address| is_image(address)) {
                    self.visitor.collector.image(address);
                }
                if (parent, name, address) == (Name::Item, Name::Content, None) {
                    self.content = Some(self.content_from(after));
                }
            }
            (_, Name::Thumbnail | Name::Image) => {
                let address = attributes.get("url").or_else(|| attributes.get("href"));
                address.into_iter().for_each(|address| self.visitor.collector.image(address));
            }
            (_, Name::Attribute) => {
                self.names_image = matches!(attributes.get("name"), Some("image_src" | "src"));
                let address = attributes.get("value").filter(|address| self.names_image && names_picture(address));
                address.into_iter().for_each(|address| self.visitor.collector.image(address));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn content_from(&self, start: usize) -> Content {
        Content { start, depth: self.open.len(), has_tags: false }
    }

    fn enter(&mut self) -> ControlFlow<()> {
        self.entry = Entry::default();
        if self.entries == self.visitor.settings.feed_entries_max {
            return ControlFlow::Break(());
        }
        self.entries += 1;
        ControlFlow::Continue(())
    }

    /// `link` with an address: that of Atom, which RSS borrows. Relations are those of RFC 4287 and RFC 5005.
    fn link(&mut self, parent: Name, attributes: &Attributes) {
        let Some(href) = attributes.get("href") else { return };
        let is_page = || attributes.get("type").is_none_or(|kind| kind.to_ascii_lowercase().contains("html"));
        match (parent, attributes.get("rel").unwrap_or("alternate")) {
            (Name::Item, "alternate") if is_page() => {
                self.entry.has_link = true;
                self.visitor.collector.link_or_image(href);
            }
            // The same page in another language, which need not have an entry of its own (Google's sitemap extension).
            (Name::Url, "alternate") if is_page() => self.visitor.collector.link_or_image(href),
            (_, "enclosure") if attributes.begins("type", "image/") || names_picture(href) => {
                self.visitor.collector.image(href);
            }
            (Name::Feed | Name::Channel, "next" | "prev-archive") => self.visitor.collector.feed_link(href),
            _ => {}
        }
    }

    /// The end of an element called `name` whose content ends at `before`.
    fn end(&mut self, name: Name, before: usize) {
        let last = self.open.iter().rposition(|open| open.name == name);
        // Names that mean nothing are not told apart, so their end tags close nothing but one of them.
        let Some(at) = last.filter(|at| name != Name::Other || (self.beyond == 0 && at + 1 == self.open.len())) else {
            self.beyond = self.beyond.saturating_sub(1);
            self.said.clear();
            return;
        };
        self.beyond = 0;
        if let Some(content) = self.content.take_if(|content| at <= content.depth) {
            self.close(&content, before);
        }
        for open in self.open.drain(at..).rev() {
            if let Some(base) = open.base {
                self.visitor.collector.base = base;
            }
        }
        let said = std::mem::take(&mut self.said);
        if self.content.is_none() {
            self.finish(name, said.trim());
        }
    }

    fn close(&mut self, content: &Content, before: usize) {
        let html = match content.has_tags {
            true => self.text.get(content.start..before).unwrap_or_default().to_owned(),
            false => std::mem::take(&mut self.said),
        };
        quote(html, content.has_tags, self.visitor);
    }

    /// An element outside of content is complete; `said` is what it said last.
    fn finish(&mut self, name: Name, said: &str) {
        let collector = &mut self.visitor.collector;
        match (self.open.last().map_or(Name::Other, |open| open.name), name) {
            (Name::Image, Name::Loc | Name::Url) | (_, Name::ThumbnailLoc | Name::Logo) => collector.image(said),
            (Name::Url, Name::Loc) => collector.link_or_image(said),
            (Name::Sitemap, Name::Loc) => collector.feed_link(said),
            // Without `loc`, as some write it.
            (_, Name::Url) if is_rooted(said) => collector.link_or_image(said),
            (_, Name::Sitemap) if is_rooted(said) => collector.feed_link(said),
            (_, Name::Image) if is_rooted(said) => collector.image(said),
            (_, Name::Attribute) if self.names_image && names_picture(said) => collector.image(said),
            (Name::Item, Name::Link | Name::OrigLink) if !said.is_empty() => {
                self.entry.has_link = true;
                collector.link_or_image(said);
            }
            (Name::Item, Name::Id) => said.clone_into(&mut self.entry.id),
            // Many a feed names its entries by their addresses only.
            (_, Name::Item) if !self.entry.has_link && is_rooted(&self.entry.id) => {
                collector.link_or_image(&self.entry.id);
            }
            _ => {}
        }
    }
}
