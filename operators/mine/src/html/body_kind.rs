//! What a body is: the first bytes decide before the declared type, since servers lie.

use super::Source;

/// What a body is.
#[derive(Debug, PartialEq)]
pub(super) enum BodyKind {
    /// A page; whether it was declared as XML.
    Page {
        /// Its empty elements end with their tag.
        xml: bool,
    },
    /// A picture.
    Picture,
    /// Neither; what it is instead.
    Other(String),
}

impl BodyKind {
    pub fn of(source: &Source<'_>) -> Self {
        let declared = source.content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        let declared = declared.trim().to_ascii_lowercase();
        let is_page_type = matches!(declared.as_str(), "text/html" | "application/xhtml+xml");
        let xml = declared.ends_with("xml");
        if let Some(kind) = by_signature(source.body, is_page_type) {
            return kind;
        }
        let looks_like_page = looks_like_page(source.body);
        match declared.as_str() {
            _ if is_page_type || looks_like_page => Self::Page { xml },
            _ if declared.starts_with("image/") && declared != "image/svg+xml" => Self::Picture,
            "" | "text/plain" | "application/octet-stream" | "text/xml" | "application/xml" => {
                Self::Other(format!("a body of {} bytes that does not begin like a page", source.body.len()))
            }
            _ => Self::Other(format!("declared as {declared:?}")),
        }
    }
}

/// Whether the first bytes are those of a picture, whatever they are declared as.
pub(super) fn begins_like_picture(body: &[u8]) -> bool {
    by_signature(body, true) == Some(BodyKind::Picture)
}

/// Bodies whose first bytes leave no doubt. `BM` begins bitmaps, but also words, and a page may begin with a word.
fn by_signature(body: &[u8], declared_as_page: bool) -> Option<BodyKind> {
    let other = |what: &str| Some(BodyKind::Other(what.to_owned()));
    match body {
        [0xff, 0xd8, 0xff, ..] | [0x89, b'P', b'N', b'G', ..] | [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => {
            Some(BodyKind::Picture)
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(BodyKind::Picture),
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => Some(BodyKind::Picture),
        [b'B', b'M', ..] if !declared_as_page => Some(BodyKind::Picture),
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] if is_picture_brand(brand) => Some(BodyKind::Picture),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => other("a video"),
        [b'%', b'P', b'D', b'F', b'-', ..] => other("a PDF document"),
        [b'P', b'K', 3, 4, ..] => other("a ZIP archive"),
        [0x1f, 0x8b, ..] => other("a gzip archive"),
        _ => None,
    }
}

fn is_picture_brand(brand: &[u8]) -> bool {
    ["avif", "avis", "heic", "heix", "mif1"].iter().any(|known| brand.starts_with(known.as_bytes()))
}

/// Whether the first tag is one that pages begin with ("rules for distinguishing" of the MIME sniffing standard).
fn looks_like_page(body: &[u8]) -> bool {
    const STARTS: [&str; 18] = [
        "<!doctype html",
        "<html",
        "<head",
        "<script",
        "<iframe",
        "<h1",
        "<div",
        "<font",
        "<table",
        "<a",
        "<style",
        "<title",
        "<b",
        "<body",
        "<br",
        "<p",
        "<meta",
        "<link",
    ];
    let (encoding, mark) = encoding_rs::Encoding::for_bom(body).unwrap_or((encoding_rs::UTF_8, 0));
    let start = encoding.decode_without_bom_handling(&body[mark..body.len().min(1_024 + mark)]).0;
    let mut start = start.trim_start();
    // Comments and an XML declaration may come first.
    while let Some(rest) = ["<!--", "<?"].iter().find_map(|open| start.strip_prefix(open)) {
        let end = if start.starts_with("<!--") { "-->" } else { "?>" };
        let Some((_, after)) = rest.split_once(end) else { return start.starts_with("<!--") };
        start = after.trim_start();
    }
    let begins = |tag: &str| {
        let (head, next) = (start.get(..tag.len()), start.as_bytes().get(tag.len()));
        head.is_some_and(|head| head.eq_ignore_ascii_case(tag))
            && next.is_none_or(|byte| b" \t\r\n\x0c>/".contains(byte))
    };
    STARTS.iter().any(|tag| begins(tag))
}
