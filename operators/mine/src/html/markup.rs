//! Markup before it is parsed: where its tags and comments are.
//!
//! Promise: the tokenizer of the HTML standard (section 13.2.5) finds the same ones, in time linear in the text.

use std::ops::Range;

/// What stands in markup besides text, as positions in it.
pub(super) enum MarkupToken {
    /// A start or end tag.
    Tag(Tag),
    /// A comment, a document type, or what is read as a comment.
    Comment(Range<usize>),
}

/// A tag, as positions in the text.
pub(super) struct Tag {
    /// From `<` to behind `>`.
    pub whole: Range<usize>,
    /// The name.
    pub name: Range<usize>,
    /// Whether it is an end tag.
    pub closing: bool,
    /// Whether it ends in `/>`.
    pub self_closing: bool,
    /// Where the attributes beyond the limit begin.
    pub excess: Option<usize>,
}

/// An attribute's name and value, as positions in the text.
pub(super) type Attribute = (Range<usize>, Range<usize>);

/// Finds marks as the tokenizer of the HTML standard does (section 13.2.5), in text that is not inside `script` and the
/// like.
pub(super) struct MarkupTokenizer {
    /// The attributes of the last tag, at most `attributes_max` of them.
    pub attributes: Vec<Attribute>,
    attributes_max: usize,
}

impl MarkupTokenizer {
    pub fn new(attributes_max: usize) -> Self {
        Self { attributes: Vec::new(), attributes_max }
    }

    /// The next mark that begins at `at` or later.
    pub fn next(&mut self, text: &[u8], mut at: usize) -> Option<MarkupToken> {
        loop {
            let start = at + text.get(at..)?.iter().position(|byte| *byte == b'<')?;
            let name = match &text[start + 1..] {
                [b'!', b'-', b'-', ..] => return Some(MarkupToken::Comment(start..comment_end(text, start + 4))),
                [b'/', letter, ..] if letter.is_ascii_alphabetic() => start + 2,
                [letter, ..] if letter.is_ascii_alphabetic() => start + 1,
                [b'!' | b'?' | b'/', ..] => {
                    let end = find(text, start + 1, |byte| byte == b'>');
                    return Some(MarkupToken::Comment(start..(end + 1).min(text.len())));
                }
                _ => {
                    at = start + 1;
                    continue;
                }
            };
            return self.tag(text, start, name).map(MarkupToken::Tag);
        }
    }

    fn tag(&mut self, text: &[u8], start: usize, name: usize) -> Option<Tag> {
        self.attributes.clear();
        let name = name..find(text, name, |byte| is_space(byte) || byte == b'/' || byte == b'>');
        let (mut at, mut excess, mut self_closing) = (name.end, None, false);
        loop {
            at = find(text, at, |byte| !is_space(byte));
            match *text.get(at)? {
                b'>' => break,
                b'/' => (at, self_closing) = (at + 1, text.get(at + 1) == Some(&b'>')),
                _ => {
                    let (attribute, end) = attribute(text, at);
                    match self.attributes.len() < self.attributes_max {
                        true => self.attributes.push(attribute),
                        false => excess = excess.or(Some(at)),
                    }
                    at = end;
                }
            }
        }
        Some(Tag { whole: start..at + 1, closing: text[start + 1] == b'/', name, self_closing, excess })
    }
}

/// The attribute that begins at `at`, and where reading goes on. Its first byte belongs to the name whatever it is.
fn attribute(text: &[u8], at: usize) -> (Attribute, usize) {
    let name = at..find(text, at + 1, |byte| is_space(byte) || matches!(byte, b'/' | b'>' | b'='));
    let equals = find(text, name.end, |byte| !is_space(byte));
    if text.get(equals) != Some(&b'=') {
        return ((name.clone(), name.end..name.end), equals);
    }
    let start = find(text, equals + 1, |byte| !is_space(byte));
    match text.get(start) {
        Some(&quote @ (b'"' | b'\'')) => {
            let end = find(text, start + 1, |byte| byte == quote);
            ((name, start + 1..end), (end + 1).min(text.len()))
        }
        _ => {
            let end = find(text, start, |byte| is_space(byte) || byte == b'>');
            ((name, start..end), end)
        }
    }
}

/// The first position from `at` on whose byte is `wanted`, else the end.
pub(super) fn find(text: &[u8], at: usize, wanted: impl Fn(u8) -> bool) -> usize {
    text.get(at..).and_then(|rest| rest.iter().position(|byte| wanted(*byte))).map_or(text.len(), |found| at + found)
}

/// Behind the end of a comment whose text begins at `at`. `<!-->` and `<!--->` are comments, too.
fn comment_end(text: &[u8], at: usize) -> usize {
    let mut at = at - 2;
    loop {
        at = find(text, at, |byte| byte == b'-');
        match &text[at.min(text.len())..] {
            [] => return text.len(),
            [b'-', b'-', b'>', ..] => return at + 3,
            [b'-', b'-', b'!', b'>', ..] => return at + 4,
            _ => at += 1,
        }
    }
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}
