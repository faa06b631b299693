//! JSON-LD: the pictures that a page's structured data (schema.org) names.
//!
//! Contexts are never fetched; keys are taken at their schema.org meaning, with or without its prefix.

use serde_json::{Deserializer, Value};

use super::url_extension::names_picture;

/// The addresses of pictures in a JSON-LD script, fields of an object in the order of their names. Values nested deeper
/// than `depth_max` are not looked at. A script that is not JSON even after the usual mistakes are mended names none.
pub(super) fn pictures(script: &str, depth_max: usize) -> Vec<String> {
    let values = values(script).or_else(|_| values(&mended(script)));
    let values = values.unwrap_or_else(|error| {
        tracing::debug!(%error, "a JSON-LD script is not JSON");
        vec![]
    });
    let mut pictures = Vec::new();
    values.iter().for_each(|value| look(value, false, depth_max, &mut pictures));
    pictures
}

fn values(text: &str) -> Result<Vec<Value>, serde_json::Error> {
    Deserializer::from_str(text).into_iter::<Value>().collect()
}

/// `shown`: whether the value stands where a picture is expected.
fn look(value: &Value, shown: bool, depth_left: usize, pictures: &mut Vec<String>) {
    let Some(depth_left) = depth_left.checked_sub(1) else { return };
    match value {
        Value::String(text) if shown => pictures.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| look(item, shown, depth_left, pictures)),
        Value::Object(fields) => {
            let is_picture = shown || fields.get("@type").or_else(|| fields.get("type")).is_some_and(is_picture_type);
            let has_content = fields.keys().any(|key| short(key) == "contentUrl");
            for (key, value) in fields {
                match short(key) {
                    "image" | "images" | "thumbnailUrl" | "thumbnail" | "primaryImageOfPage" | "logo" | "photo"
                    | "photos" | "screenshot" => look(value, true, depth_left, pictures),
                    "@value" | "@list" | "@set" => look(value, shown, depth_left, pictures),
                    "contentUrl" => look(value, is_picture || is_address(value), depth_left, pictures),
                    "url" | "@id" if is_picture => {
                        let sure = is_address(value) || (short(key) == "url" && !has_content);
                        look(value, sure, depth_left, pictures);
                    }
                    "@context" => {}
                    _ => look(value, false, depth_left, pictures),
                }
            }
        }
        _ => {}
    }
}

fn short(key: &str) -> &str {
    ["http://schema.org/", "https://schema.org/", "schema:"]
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix))
        .unwrap_or(key)
}

fn is_picture_type(value: &Value) -> bool {
    match value {
        Value::String(name) => matches!(short(name), "ImageObject" | "ImageObjectSnapshot" | "Photograph" | "Barcode"),
        Value::Array(names) => names.iter().any(|name| name.is_string() && is_picture_type(name)),
        _ => false,
    }
}

fn is_address(value: &Value) -> bool {
    value.as_str().is_some_and(names_picture)
}

/// The script without comments, HTML comment marks, CDATA marks and trailing commas, and with spaces for the control
/// characters that JSON forbids in strings.
fn mended(script: &str) -> String {
    const MARKS: [&str; 5] = ["<!--", "-->", "<![CDATA[", "]]>", ";"];
    let mut out = String::with_capacity(script.len());
    let mut rest = script;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '"' => {
                let end = string_end(rest);
                out.extend(rest[..end].chars().map(|char| if char.is_control() { ' ' } else { char }));
                rest = &rest[end..];
                continue;
            }
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '/' if rest.starts_with("//") => rest.find(['\n', '\r']).unwrap_or(rest.len()),
            _ => MARKS.iter().find(|mark| rest.starts_with(**mark)).map_or(0, |mark| mark.len()),
        };
        if skipped == 0 {
            if matches!(first, '}' | ']') && out.trim_end().ends_with(',') {
                out.truncate(out.trim_end().len() - 1);
            }
            out.push(first);
        }
        rest = &rest[if skipped == 0 { first.len_utf8() } else { skipped }..];
    }
    out
}

/// Where the string that opens the text ends, after its closing quote.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
