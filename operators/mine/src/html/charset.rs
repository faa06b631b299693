//! Character sets: byte order mark, then the HTTP header, then what the page declares, then a guess, as browsers do.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use url::Url;

use super::Source;
use super::markup::{MarkupToken, MarkupTokenizer};

/// How far into a page its declaration may stand (HTML standard, section 13.2.3.2), in bytes.
const PRESCAN_BYTES: usize = 1_024;

/// The text of a page, and the encoding in which it writes the queries of its URLs.
pub(crate) fn decode<'a>(source: &Source<'a>) -> (Cow<'a, str>, &'static Encoding) {
    let body = source.body;
    if let Some((encoding, mark)) = Encoding::for_bom(body) {
        return (encoding.decode_without_bom_handling(&body[mark..]).0, encoding.output_encoding());
    }
    let encoding = declared_in_header(source.content_type)
        .or_else(|| prescan(&body[..body.len().min(PRESCAN_BYTES)]))
        .unwrap_or_else(|| guess(body, source.url));
    (encoding.decode_without_bom_handling(body).0, encoding.output_encoding())
}

fn declared_in_header(content_type: Option<&str>) -> Option<&'static Encoding> {
    let parameters = content_type?.split(';').skip(1);
    let charset =
        parameters.filter_map(|pair| pair.split_once('=')).find(|(key, _)| key.trim().eq_ignore_ascii_case("charset"));
    charset.and_then(|(_, label)| Encoding::for_label(label.trim().trim_matches(['"', '\'']).as_bytes()))
}

/// The declaration in the page's first bytes: `<meta charset>`, `<meta http-equiv=content-type>` or an XML declaration.
fn prescan(start: &[u8]) -> Option<&'static Encoding> {
    if let Some(declaration) = start.strip_prefix(b"<?xml") {
        let end = declaration.iter().position(|byte| *byte == b'>').unwrap_or(declaration.len());
        if let Some(encoding) = after_word(&declaration[..end], b"encoding").and_then(of_page) {
            return Some(encoding);
        }
    }
    let mut marks = MarkupTokenizer::new(64);
    let mut at = 0;
    while let Some(mark) = marks.next(start, at) {
        let tag = match mark {
            MarkupToken::Tag(tag) => tag,
            MarkupToken::Comment(comment) => {
                at = comment.end;
                continue;
            }
        };
        at = tag.whole.end;
        if tag.closing || !start[tag.name].eq_ignore_ascii_case(b"meta") {
            continue;
        }
        let value = |wanted: &[u8]| {
            let named = marks.attributes.iter().find(|(name, _)| start[name.clone()].eq_ignore_ascii_case(wanted));
            named.map(|(_, value)| &start[value.clone()])
        };
        let is_content_type = value(b"http-equiv").is_some_and(|kind| kind.eq_ignore_ascii_case(b"content-type"));
        let in_content = value(b"content").filter(|_| is_content_type).and_then(|text| after_word(text, b"charset"));
        if let Some(encoding) = value(b"charset").or(in_content).and_then(of_page) {
            return Some(encoding);
        }
    }
    None
}

/// What stands behind `word =`, without quotes.
fn after_word<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))?;
    let value = text[at + word.len()..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let value = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value);
    let end = value.iter().position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b';' | b'?'));
    Some(&value[..end.unwrap_or(value.len())])
}

/// The encoding of a label inside a page. A page whose label could be read is not UTF-16, whatever it says.
fn of_page(label: &[u8]) -> Option<&'static Encoding> {
    let encoding = Encoding::for_label(label)?;
    match encoding {
        _ if encoding == UTF_16BE || encoding == UTF_16LE => Some(UTF_8),
        _ if encoding.name() == "x-user-defined" => Some(WINDOWS_1252),
        _ => Some(encoding),
    }
}

fn guess(body: &[u8], url: &Url) -> &'static Encoding {
    // An escape character may begin ISO-2022-JP, which is valid UTF-8 as well.
    if !body.contains(&0x1b) && std::str::from_utf8(body).is_ok() {
        return UTF_8;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(body, true);
    let country = url.domain().and_then(|domain| domain.rsplit('.').next()).filter(|label| !label.is_empty());
    detector.guess(country.map(str::as_bytes), Utf8Detection::Allow)
}
