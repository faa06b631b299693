//! What makes a page safe to build a tree of.
//!
//! The tree builder of the HTML standard has corners in which a hostile page costs time or memory quadratic in its
//! length (deep nesting, formatting elements that are opened anew in every paragraph, a million attributes) and others
//! that hide content from a reader without scripts (`noscript`). [`sanitize`] renames and blanks in place what leads there,
//! comments included, and cuts the page into pieces that are parsed one after the other. Promise: no tree is deeper
//! than a small multiple of `depth_max` or has more than a few times `tags_max` nodes, and no picture or link is lost.

use std::ops::Range;

use super::MineSettings;
use super::markup::{MarkupToken, MarkupTokenizer, Tag, find, is_space};

/// What the tree builder makes of an element, as far as it matters here.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// Its content is text up to its end tag.
    RawText,
    /// It has no content.
    Void,
    /// The tree builder closes it by itself, or there is only one: it does not nest without others.
    Implied,
    /// `html` and `body`: their attributes are gathered on one element.
    Merged,
    /// It is renamed: as an unknown element it does no harm and hides nothing.
    Renamed,
    /// `svg` and `math`: renamed, and self-closing tags inside are honoured.
    Foreign,
    /// Any other.
    Plain,
}

fn role(name: &[u8]) -> Role {
    match name {
        b"script" | b"style" | b"textarea" | b"title" | b"xmp" | b"iframe" => Role::RawText,
        b"area" | b"base" | b"basefont" | b"bgsound" | b"br" | b"col" | b"embed" | b"hr" | b"image" | b"img"
        | b"input" | b"keygen" | b"link" | b"meta" | b"param" | b"source" | b"track" | b"wbr" => Role::Void,
        b"head" | b"p" | b"li" | b"dd" | b"dt" | b"option" | b"tr" | b"td" | b"th" | b"tbody" | b"thead" | b"tfoot"
        | b"colgroup" => Role::Implied,
        b"html" | b"body" => Role::Merged,
        b"svg" | b"math" => Role::Foreign,
        b"select" | b"frameset" | b"frame" | b"noscript" | b"noframes" | b"noembed" | b"b" | b"big" | b"code"
        | b"em" | b"font" | b"i" | b"nobr" | b"s" | b"small" | b"strike" | b"strong" | b"tt" | b"u" => Role::Renamed,
        _ => Role::Plain,
    }
}

/// A page that is safe to parse.
pub(super) struct SanitizedPage {
    /// The page, as long as it was.
    pub text: String,
    /// The pieces to parse, in order. Together they are the page.
    pub pieces: Vec<Range<usize>>,
    /// The first `base` tag with an address.
    pub base: Option<Range<usize>>,
}

/// Makes a page safe to parse. `xml` says that self-closing tags mean what they say.
pub(super) fn sanitize(text: String, xml: bool, settings: &MineSettings) -> SanitizedPage {
    let mut sanitizer =
        Sanitizer { text: text.into_bytes(), open: vec![], pieces: vec![0], base: None, merged: 0, tags: 0 };
    let mut marks = MarkupTokenizer::new(settings.attributes_max);
    let mut at = 0;
    while let Some(mark) = marks.next(&sanitizer.text, at) {
        let tag = match mark {
            MarkupToken::Tag(tag) => tag,
            MarkupToken::Comment(comment) => {
                at = comment.end;
                sanitizer.blank(comment);
                continue;
            }
        };
        let is_base = !tag.closing && sanitizer.text[tag.name.clone()].eq_ignore_ascii_case(b"base");
        let has_href =
            || marks.attributes.iter().any(|(name, _)| sanitizer.text[name.clone()].eq_ignore_ascii_case(b"href"));
        if sanitizer.base.is_none() && is_base && has_href() {
            sanitizer.base = Some(tag.whole.clone());
        }
        at = sanitizer.take(&tag, xml, settings);
    }
    let text = String::from_utf8(sanitizer.text).expect("only ASCII was written, over whole characters");
    let ends = sanitizer.pieces.iter().skip(1).copied().chain([text.len()]);
    let pieces = sanitizer.pieces.iter().copied().zip(ends).map(|(start, end)| start..end).collect();
    SanitizedPage { text, pieces, base: sanitizer.base }
}

/// So many `html` and `body` tags are slips; thousands would gather their attributes on one element.
const MERGED_MAX: usize = 4;

struct Sanitizer {
    text: Vec<u8>,
    /// The elements that are open at most. An end tag counts only where it closes the last of them, since the tree
    /// builder may ignore any other.
    open: Vec<Range<usize>>,
    pieces: Vec<usize>,
    base: Option<Range<usize>>,
    /// `html` and `body` tags so far.
    merged: usize,
    /// Tags in this piece so far.
    tags: usize,
}

impl Sanitizer {
    /// The name in lower case; longer names are none that matter.
    fn name(&self, name: &Range<usize>) -> [u8; 10] {
        let mut out = [0; 10];
        if name.len() <= out.len() {
            out[..name.len()].copy_from_slice(&self.text[name.clone()]);
            out.make_ascii_lowercase();
        }
        out
    }

    /// Takes a tag; says where the next one may begin.
    fn take(&mut self, tag: &Tag, xml: bool, settings: &MineSettings) -> usize {
        let name = self.name(&tag.name);
        let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())];
        let role = role(name);
        if let Some(excess) = tag.excess {
            self.blank(excess..tag.whole.end - 1);
        }
        if tag.self_closing && self.is_empty_element(name, role, xml) {
            return self.drop_empty(tag, name);
        }
        self.merged += usize::from(role == Role::Merged && !tag.closing);
        if matches!(role, Role::Renamed | Role::Foreign)
            || (role == Role::Merged && self.merged > MERGED_MAX && !tag.closing)
        {
            self.text[tag.name.start] = b'x';
        }
        let nests = match role {
            Role::RawText | Role::Void | Role::Implied => false,
            Role::Merged => self.merged > MERGED_MAX,
            Role::Renamed | Role::Foreign | Role::Plain => true,
        };
        let is_candidate = matches!(name, b"source" | b"img" | b"image");
        self.cut_if_full(tag, nests, is_candidate, settings);
        match tag.closing {
            true => self.close(&tag.name),
            false => self.open.extend(nests.then(|| tag.name.clone())),
        }
        match role == Role::RawText && !tag.closing {
            true => self.raw_text_end(&tag.name, tag.whole.end),
            false => tag.whole.end,
        }
    }

    fn is_empty_element(&self, name: &[u8], role: Role, xml: bool) -> bool {
        let is_foreign = |range: &Range<usize>| {
            let name = &self.text[range.clone()];
            name.eq_ignore_ascii_case(b"xvg") || name.eq_ignore_ascii_case(b"xath")
        };
        match role {
            Role::Void => false,
            Role::Foreign => true,
            Role::RawText if xml => true,
            _ => name != b"a" && self.open.iter().any(is_foreign),
        }
    }

    /// In HTML a self-closing tag opens its element all the same; those of drawings show nothing, except `feImage`.
    fn drop_empty(&mut self, tag: &Tag, name: &[u8]) -> usize {
        if name == b"feimage" {
            self.text[tag.name.clone()].copy_from_slice(b"image  ");
        } else {
            self.blank(tag.whole.clone());
        }
        tag.whole.end
    }

    fn blank(&mut self, range: Range<usize>) {
        self.text[range].fill(b' ');
    }

    /// Begins a new piece before a tag that is too deep or one too many. The candidates of one picture stay together.
    fn cut_if_full(&mut self, tag: &Tag, nests: bool, is_candidate: bool, settings: &MineSettings) {
        self.tags += 1;
        let deep = nests && !tag.closing && self.open.len() >= settings.depth_max;
        let long = self.tags > settings.tags_max * if is_candidate { 2 } else { 1 };
        if deep || long {
            self.pieces.push(tag.whole.start);
            self.open.clear();
            self.tags = 1;
        }
    }

    fn close(&mut self, name: &Range<usize>) {
        let closes = |last: &Range<usize>| self.text[last.clone()].eq_ignore_ascii_case(&self.text[name.clone()]);
        if self.open.last().is_some_and(closes) {
            self.open.pop();
        }
    }

    /// Where the end tag of a raw text element begins whose content begins at `at`.
    fn raw_text_end(&self, name: &Range<usize>, mut at: usize) -> usize {
        let name = &self.text[name.clone()];
        loop {
            at = find(&self.text, at, |byte| byte == b'<');
            let Some(after) = self.text[at..].strip_prefix(b"</") else {
                if at >= self.text.len() {
                    return at;
                }
                at += 1;
                continue;
            };
            let named = after.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
            let ends = after.get(name.len()).is_none_or(|byte| is_space(*byte) || matches!(byte, b'/' | b'>'));
            if named && ends {
                return at;
            }
            at += 2;
        }
    }
}
