//! Tags: the elements that mean something in a feed, and attributes read with patience.

use quick_xml::events::{BytesRef, BytesStart};

/// The elements that mean something, by their names without prefix. Prefixes are the author's choice, and so, in practice,
/// are namespaces: sitemaps with wrong ones are common, and no two elements of one place share a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// `url`: an entry of a sitemap, or the address of a feed's picture.
    Url,
    Sitemap,
    Loc,
    ThumbnailLoc,
    /// `Attribute` of a page map.
    Attribute,
    Image,
    Channel,
    Feed,
    /// `item` or `entry` of a feed.
    Item,
    Link,
    /// `feedburner:origLink`: where a counted link leads.
    OrigLink,
    /// `guid` or `id`.
    Id,
    Enclosure,
    /// `content` of Atom, or `media:content`.
    Content,
    /// `content:encoded`, `description` or `summary`.
    Text,
    Thumbnail,
    Logo,
    Other,
}

impl Name {
    pub fn of(local: &str) -> Self {
        if local.len() > 16 {
            return Self::Other;
        }
        match local.to_ascii_lowercase().as_str() {
            "url" => Self::Url,
            "sitemap" => Self::Sitemap,
            "loc" => Self::Loc,
            "thumbnail_loc" => Self::ThumbnailLoc,
            "attribute" => Self::Attribute,
            "image" => Self::Image,
            "channel" => Self::Channel,
            "feed" => Self::Feed,
            "item" | "entry" => Self::Item,
            "link" => Self::Link,
            "origlink" => Self::OrigLink,
            "guid" | "id" => Self::Id,
            "enclosure" => Self::Enclosure,
            "content" => Self::Content,
            "encoded" | "description" | "summary" => Self::Text,
            "thumbnail" => Self::Thumbnail,
            "logo" => Self::Logo,
            _ => Self::Other,
        }
    }
}

/// The attributes of a tag.
#[derive(Default)]
pub(super) struct Attributes(Vec<(String, String)>);

impl Attributes {
    /// At most `most` of them.
    pub fn of(tag: &BytesStart<'_>, most: usize) -> Self {
        let mut attributes = tag.html_attributes();
        let read = attributes.with_checks(false).take(most).flatten();
        Self(read.map(|pair| (pair.key.as_ref().to_owned(), unescaped(&pair.value))).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim())
    }

    /// Whether the attribute is there and begins so.
    pub fn begins(&self, name: &str, start: &str) -> bool {
        let value = self.get(name).and_then(|value| value.get(..start.len()));
        value.is_some_and(|value| value.eq_ignore_ascii_case(start))
    }
}

/// The longest reference that means something, `&#x10FFFF;`, with room for zeros.
const REFERENCE_BYTES: usize = 16;

/// A value with its references replaced; an `&` that begins none stays, as it does in the addresses of careless writers.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.bytes().take(REFERENCE_BYTES).position(|byte| byte == b';');
        match end.and_then(|end| Some((referred(&rest[..end])?, end))) {
            Some((char, end)) => {
                out.push(char);
                rest = &rest[end + 1..];
            }
            None => out.push('&'),
        }
    }
    out + rest
}

/// What `&name;` stands for: a character by its number, or one of the five of XML. Others are never looked up.
pub(super) fn referred(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => BytesRef::new(name).resolve_char_ref().ok().flatten(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_and_loose_ampersands_stay() {
        for (text, expected) in [
            ("/?a=1&amp;b=2", "/?a=1&b=2"),
            ("/?a=1&b=2", "/?a=1&b=2"),
            ("/?a=1&amp;b=2&c=3;d", "/?a=1&b=2&c=3;d"),
            ("&#38;&#x26;&quot;&apos;&lt;&gt;", "&&\"'<>"),
            ("&lol;&;&#;&#0;&#xd800;&#99999999;", "&lol;&;&#;&#0;&#xd800;&#99999999;"),
            ("&amp;amp;", "&amp;"),
            (
                "\u{e9}&\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9};&",
                "\u{e9}&\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9};&",
            ),
        ] {
            assert_eq!(unescaped(text), expected);
        }
    }
}
