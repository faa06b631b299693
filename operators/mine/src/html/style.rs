//! Style sheets and `style` attributes: every `url()` in them that a browser would fetch as a picture.
//!
//! Reads tokens, not properties: a background may hide in a shorthand, a custom property or a nested function. What is
//! imported, named or a font is told by its at-rule.

use cssparser::{ParseError, Parser, Token};

use super::candidate::{Candidate, decodable_type};
use super::url_extension::UrlExtension;

/// The pictures of a style sheet or of a declaration list, in document order, each as its candidates. Blocks nested
/// deeper than `depth_max` are not entered.
pub(super) fn pictures(css: &str, depth_max: u8) -> Vec<Vec<Candidate<'static>>> {
    let mut pictures = Vec::new();
    if may_name_picture(css) {
        let mut parser = Parser::new(css);
        parser.set_nested_block_limit(depth_max);
        scan(&mut parser, &mut pictures);
        // Fonts, behaviours and cursors of old.
        pictures
            .iter_mut()
            .for_each(|picture| picture.retain(|candidate| UrlExtension::of(&candidate.url) != UrlExtension::Other));
    }
    pictures
}

/// Most style attributes name none; this is much cheaper than reading them. A backslash may hide letters.
fn may_name_picture(css: &str) -> bool {
    let parenthesis = |at: usize| {
        let before = &css.as_bytes()[..at];
        let ends_with =
            |word: &[u8]| before.len() >= word.len() && before[before.len() - word.len()..].eq_ignore_ascii_case(word);
        ends_with(b"url") || ends_with(b"image-set") || ends_with(b"src")
    };
    css.contains('\\') || css.match_indices('(').any(|(at, _)| parenthesis(at))
}

/// Where in an at-rule the scan is.
#[derive(Clone, Copy, PartialEq)]
enum AtRule {
    None,
    /// Between its name and its block or semicolon; whether the block may hold pictures.
    Prelude(bool),
}

fn scan(parser: &mut Parser<'_>, pictures: &mut Vec<Vec<Candidate<'static>>>) {
    let mut at_rule = AtRule::None;
    while let Ok(token) = parser.next() {
        match token.clone() {
            Token::AtKeyword(name) => at_rule = AtRule::Prelude(!name.eq_ignore_ascii_case("font-face")),
            Token::Semicolon => at_rule = AtRule::None,
            Token::CurlyBracketBlock => {
                if at_rule != AtRule::Prelude(false) {
                    nested(parser, |parser| scan(parser, pictures));
                }
                at_rule = AtRule::None;
            }
            _ if at_rule != AtRule::None => {}
            Token::UnquotedUrl(url) => pictures.push(vec![Candidate::plain(url.to_string())]),
            Token::Function(name) => function(parser, &name, pictures),
            Token::ParenthesisBlock => nested(parser, |parser| scan(parser, pictures)),
            _ => {}
        }
    }
}

fn function(parser: &mut Parser<'_>, name: &str, pictures: &mut Vec<Vec<Candidate<'static>>>) {
    match name.to_ascii_lowercase().as_str() {
        "url" | "src" => {
            nested(parser, |parser| pictures.extend(string(parser).map(|url| vec![Candidate::plain(url)])))
        }
        "image-set" | "-webkit-image-set" => nested(parser, |parser| pictures.push(image_set(parser))),
        _ => nested(parser, |parser| scan(parser, pictures)),
    }
}

/// The options of an `image-set()`: an address, then its resolution and type in any order.
fn image_set(parser: &mut Parser<'_>) -> Vec<Candidate<'static>> {
    let mut candidates: Vec<Candidate<'static>> = Vec::new();
    while let Ok(token) = parser.next() {
        match token.clone() {
            Token::UnquotedUrl(url) | Token::QuotedString(url) => candidates.push(Candidate::plain(url.to_string())),
            Token::Function(name) if name.eq_ignore_ascii_case("url") || name.eq_ignore_ascii_case("src") => {
                nested(parser, |parser| candidates.extend(string(parser).map(Candidate::plain)));
            }
            Token::Function(name) if name.eq_ignore_ascii_case("type") => nested(parser, |parser| {
                if let (Some(media_type), Some(last)) = (string(parser), candidates.last_mut()) {
                    last.decodable &= decodable_type(&media_type);
                }
            }),
            Token::Dimension { value, unit, .. } => {
                if let Some(last) = candidates.last_mut() {
                    last.density = f64::from(value) / dots(&unit);
                }
            }
            _ => {}
        }
    }
    candidates
}

/// How many of a resolution unit make 1x (CSS Values and Units 4, section 7.4).
fn dots(unit: &str) -> f64 {
    match unit.to_ascii_lowercase().as_str() {
        "dpi" => 96.0,
        "dpcm" => 96.0 / 2.54,
        _ => 1.0,
    }
}

fn string(parser: &mut Parser<'_>) -> Option<String> {
    parser.expect_string().ok().map(|text| text.to_string())
}

/// Enters the block whose opening token was just read. A block too deep to enter is read on as if it were flat.
fn nested<'i>(parser: &mut Parser<'i>, read: impl FnOnce(&mut Parser<'i>)) {
    let _too_deep: Result<(), ParseError<()>> = parser.parse_nested_block(|parser| {
        read(parser);
        Ok(())
    });
}
