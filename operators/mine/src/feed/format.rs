//! Which feed a body is, by its first element or lines.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE};

use crate::html::{Source, charset};

/// How much of a body is looked at for its first element, in bytes: comments and a document type may stand before it.
const START_BYTES: usize = 16 << 10;

/// So many lines of a text all have to be addresses.
const LINES: usize = 8;

/// What a feed is written in.
#[derive(Debug, PartialEq)]
pub(super) enum FeedFormat {
    /// A sitemap, a sitemap index, RSS or Atom.
    Xml,
    /// Perhaps a JSON Feed: its version tells, wherever it stands.
    Json {
        /// Whether it was declared as one.
        declared: bool,
    },
    /// One address a line.
    Text,
}

impl FeedFormat {
    /// `None`: not a feed.
    pub fn of(source: &Source<'_>) -> Option<Self> {
        let declared = source.content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        let declared = declared.trim().to_ascii_lowercase();
        let start = start(source.body);
        let start = start.trim_start_matches(|char: char| char.is_whitespace() || char == '\u{feff}');
        match start.as_bytes().first()? {
            b'<' => begins_listing(start).then_some(Self::Xml),
            b'{' => {
                let declared = declared == "application/feed+json";
                let sign = b"jsonfeed.org";
                let signed = || source.body.windows(sign.len()).any(|window| window == sign);
                (declared || signed()).then_some(Self::Json { declared })
            }
            _ => (is_plain(&declared) && are_addresses(start)).then_some(Self::Text),
        }
    }
}

/// The text of a feed, and the encoding in which it writes the queries of its URLs.
pub(super) fn decode<'a>(source: &Source<'a>) -> (Cow<'a, str>, &'static Encoding) {
    match unmarked_utf16(source.body) {
        Some(encoding) => (encoding.decode_without_bom_handling(source.body).0, encoding.output_encoding()),
        None => charset::decode(source),
    }
}

/// Whether a line is the absolute address of something on the web.
pub(super) fn is_address(line: &str) -> bool {
    let begins = |scheme: &str| line.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    (begins("http://") || begins("https://")) && !line.contains(char::is_whitespace)
}

/// UTF-16 without a byte order mark is known by the first `<` (XML 1.0, appendix F).
fn unmarked_utf16(body: &[u8]) -> Option<&'static Encoding> {
    match body {
        [b'<', 0, next, 0, ..] if *next != 0 => Some(UTF_16LE),
        [0, b'<', 0, next, ..] if *next != 0 => Some(UTF_16BE),
        _ => None,
    }
}

/// The beginning of a body; markup is the same in every other encoding.
fn start(body: &[u8]) -> Cow<'_, str> {
    let head = &body[..body.len().min(START_BYTES)];
    let marked = Encoding::for_bom(head).or_else(|| unmarked_utf16(head).map(|encoding| (encoding, 0)));
    match marked {
        Some((encoding, mark)) => encoding.decode_without_bom_handling(&head[mark..]).0,
        None => String::from_utf8_lossy(head),
    }
}

/// Whether the first element of a document is that of a sitemap or feed.
fn begins_listing(text: &str) -> bool {
    let Some(tag) = first_tag(text) else { return false };
    let name = tag.split(|char: char| char.is_ascii_whitespace() || char == '/').next().unwrap_or_default();
    match name.rsplit(':').next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "urlset" | "sitemapindex" | "rss" | "feed" => true,
        // RDF says anything; RSS 1.0 and 0.9 are named by their namespaces.
        "rdf" => ["purl.org/rss/1.0", "netscape.com/rdf"].iter().any(|space| tag.contains(space)),
        _ => false,
    }
}

/// What stands between `<` and `>` of the first element.
fn first_tag(mut text: &str) -> Option<&str> {
    loop {
        text = text.trim_start();
        text = if let Some(rest) = text.strip_prefix("<!--") {
            rest.split_once("-->")?.1
        } else if let Some(rest) = text.strip_prefix("<?") {
            rest.split_once("?>")?.1
        } else if let Some(rest) = text.strip_prefix("<!") {
            &rest[declaration_end(rest)?..]
        } else {
            return text.strip_prefix('<')?.split('>').next();
        };
    }
}

/// Behind the end of a document type, whose own declarations stand in brackets.
fn declaration_end(text: &str) -> Option<usize> {
    let (mut quote, mut inside) = (None, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if quote == Some(byte) => quote = None,
            _ if quote.is_some() => {}
            b'"' | b'\'' => quote = Some(byte),
            b'[' => inside = true,
            b']' => inside = false,
            b'>' if !inside => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The types under which text is sent, packed or not.
fn is_plain(declared: &str) -> bool {
    let packed = ["application/octet-stream", "binary/octet-stream", "application/gzip", "application/x-gzip"];
    matches!(declared, "" | "text/plain") || packed.contains(&declared)
}

fn are_addresses(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(LINES).peekable();
    lines.peek().is_some() && lines.all(is_address)
}
