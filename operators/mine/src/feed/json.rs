//! JSON Feed (jsonfeed.org, versions 1 and 1.1), read value by value: nothing but the value at hand is held in memory.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::quote;
use crate::html::dom_visitor::DomVisitor;
use crate::html::url_extension::names_picture;

/// Reads a feed into what has been gathered, as far as it goes; says whether it is one.
pub(super) fn read(text: &str, visitor: &mut DomVisitor<'_>) -> bool {
    let mut feed = Feed { visitor, entries: 0, is_feed: false, attachment: Attachment::default() };
    // A fault is where the feed ends.
    drop(
        Value { feed: &mut feed, place: FeedContext::Feed }.deserialize(&mut serde_json::Deserializer::from_str(text)),
    );
    feed.is_feed
}

struct Feed<'w, 's> {
    visitor: &'w mut DomVisitor<'s>,
    entries: usize,
    is_feed: bool,
    /// The attachment that is open.
    attachment: Attachment,
}

#[derive(Default)]
struct Attachment {
    address: String,
    media_type: Option<String>,
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq)]
enum FeedContext {
    Feed,
    Item,
    Attachment,
    Author,
    /// A text to take, and what it says.
    Text(FeedField),
}

#[derive(Clone, Copy, PartialEq)]
enum FeedField {
    Version,
    NextPart,
    Page,
    Image,
    Content,
    Address,
    MediaType,
}

impl FeedContext {
    /// Where the value of a key stands; `None`: of no interest.
    fn of(self, key: &str) -> Option<Self> {
        let place = match (self, key) {
            (Self::Feed, "version") => Self::Text(FeedField::Version),
            (Self::Feed, "next_url") => Self::Text(FeedField::NextPart),
            (Self::Feed, "items") => Self::Item,
            (Self::Feed, "icon") | (Self::Item, "image" | "banner_image") | (Self::Author, "avatar") => {
                Self::Text(FeedField::Image)
            }
            (Self::Feed | Self::Item, "author" | "authors") => Self::Author,
            (Self::Item, "url" | "external_url") => Self::Text(FeedField::Page),
            (Self::Item, "content_html") => Self::Text(FeedField::Content),
            (Self::Item, "attachments") => Self::Attachment,
            (Self::Attachment, "url") => Self::Text(FeedField::Address),
            (Self::Attachment, "mime_type") => Self::Text(FeedField::MediaType),
            _ => return None,
        };
        Some(place)
    }
}

/// A value of any type in its place. What has the wrong type is passed over.
struct Value<'f, 'w, 's> {
    feed: &'f mut Feed<'w, 's>,
    place: FeedContext,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { feed, place } = self;
        if place == FeedContext::Item {
            if feed.entries == feed.visitor.settings.feed_entries_max {
                return Err(A::Error::custom("enough entries"));
            }
            feed.entries += 1;
        }
        while let Some(key) = map.next_key::<String>()? {
            match place.of(&key) {
                Some(place) => map.next_value_seed(Value { feed: &mut *feed, place })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if place == FeedContext::Attachment {
            let Attachment { address, media_type } = std::mem::take(&mut feed.attachment);
            let declared = media_type.map(|media_type| media_type.to_ascii_lowercase().starts_with("image/"));
            if declared.unwrap_or_else(|| names_picture(&address)) {
                feed.visitor.collector.image(&address);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { feed, place } = self;
        while list.next_element_seed(Value { feed: &mut *feed, place })?.is_some() {}
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let collector = &mut self.feed.visitor.collector;
        match self.place {
            FeedContext::Text(FeedField::Version) => {
                self.feed.is_feed |= text.split_once("://").is_some_and(|(_, rest)| rest.starts_with("jsonfeed.org/"));
            }
            FeedContext::Text(FeedField::NextPart) => collector.feed_link(text),
            FeedContext::Text(FeedField::Page) => collector.link_or_image(text),
            FeedContext::Text(FeedField::Image) => collector.image(text),
            FeedContext::Text(FeedField::Content) => quote(text.to_owned(), false, self.feed.visitor),
            FeedContext::Text(FeedField::Address) => text.clone_into(&mut self.feed.attachment.address),
            FeedContext::Text(FeedField::MediaType) => self.feed.attachment.media_type = Some(text.to_owned()),
            FeedContext::Feed | FeedContext::Item | FeedContext::Attachment | FeedContext::Author => {}
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
