//! The `srcset` attribute: "parsing a srcset attribute" of the HTML standard.
//!
//! URLs may contain commas, so the text cannot be split at them. Where the standard drops a candidate for a descriptor
//! it does not know, browsers keep it; so does this parser, since the address is good either way.

use std::str::FromStr;

use super::candidate::Candidate;

/// The candidates of a `srcset` attribute, in document order.
pub(super) fn parse(text: &str) -> Vec<Candidate<'_>> {
    let mut candidates = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|char| is_space(char) || char == ',');
        if rest.is_empty() {
            return candidates;
        }
        let (url, after) = rest.split_at(rest.find(is_space).unwrap_or(rest.len()));
        rest = after;
        let bare = url.trim_end_matches(',');
        if bare.len() < url.len() {
            candidates.push(Candidate::plain(bare));
            continue;
        }
        let (descriptors, after) = split_descriptors(rest);
        rest = after;
        if let Some((width, density)) = read_descriptors(&descriptors) {
            candidates.push(Candidate { width, density, ..Candidate::plain(url) });
        }
    }
}

fn is_space(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

/// The descriptors of one candidate, and what follows its comma. Commas and spaces in parentheses belong to a
/// descriptor.
fn split_descriptors(text: &str) -> (Vec<&str>, &str) {
    let mut descriptors = Vec::new();
    let (mut start, mut in_parentheses) = (None, false);
    for (at, char) in text.char_indices() {
        let ends = !in_parentheses && (is_space(char) || char == ',');
        if ends {
            descriptors.extend(start.take().map(|start: usize| &text[start..at]));
        } else {
            start = start.or(Some(at));
        }
        match char {
            ',' if !in_parentheses => return (descriptors, &text[at + 1..]),
            '(' => in_parentheses = true,
            ')' => in_parentheses = false,
            _ => {}
        }
    }
    descriptors.extend(start.map(|start| &text[start..]));
    (descriptors, "")
}

/// Width and density; `None` if the descriptors contradict each other.
fn read_descriptors(descriptors: &[&str]) -> Option<(u64, f64)> {
    let (mut width, mut height, mut density) = (None, None, None);
    for descriptor in descriptors {
        let last = descriptor.chars().next_back()?;
        let number = &descriptor[..descriptor.len() - last.len_utf8()];
        match last {
            'w' if is_integer(number) => {
                let value = u64::from_str(number).unwrap_or(u64::MAX);
                let known = width.replace(value).is_some() || density.is_some();
                (!known && value > 0).then_some(())?;
            }
            'h' if is_integer(number) => {
                let known = height.replace(()).is_some() || density.is_some();
                (!known && number.bytes().any(|digit| digit != b'0')).then_some(())?;
            }
            'x' => {
                let Some(value) = float(number).filter(|value| *value >= 0.0) else { continue };
                let known = density.replace(value).is_some() || width.is_some() || height.is_some();
                (!known).then_some(())?;
            }
            _ => {}
        }
    }
    (height.is_none() || width.is_some()).then_some((width.unwrap_or(0), density.unwrap_or(1.0)))
}

fn is_integer(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A "valid floating-point number" of the HTML standard.
fn float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(left, right)| (left, Some(right)));
    let digits = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    let valid_digits = match fraction {
        Some(fraction) => is_integer(fraction) && (whole.is_empty() || is_integer(whole)),
        None => is_integer(whole),
    };
    let valid_exponent =
        exponent.is_none_or(|exponent| is_integer(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)));
    (valid_digits && valid_exponent).then(|| f64::from_str(text).ok()).flatten()
}
