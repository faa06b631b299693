//! The report as HTML. Every text goes through [`escape`], every address through [`link`].

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use faceflow_core::tally::Tally;
use url::Url;

use super::gather::{Card, Failure, Found, Group};
use crate::ledger::Status;
use crate::lines::FaceFields;

/// Head, style and frame of the page.
const PAGE: &str = include_str!("page.html");
const CONTENT: &str = "<!--content-->";

/// Writing to a `String` cannot fail.
macro_rules! put {
    ($page:expr, $($text:tt)*) => { write!($page, $($text)*).expect("writing to memory succeeds") };
}

/// Text that is text, wherever it came from.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Controls, and characters that reorder what stands beside them.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                safe.push('\u{fffd}')
            }
            c => safe.push(c),
        }
    }
    safe
}

/// An address: a link if it is on the web, else just text.
pub fn link(address: &str) -> String {
    let text = escape(address);
    match Url::parse(address) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            let href = escape(url.as_str());
            format!("<a class=\"url\" href=\"{href}\" rel=\"noreferrer noopener\" target=\"_blank\">{text}</a>")
        }
        _ => format!("<span class=\"url\">{text}</span>"),
    }
}

/// Everything before the first card.
pub fn begin(found: &Found) -> String {
    let (head, _) = PAGE.split_once(CONTENT).expect("the template has a place for the content");
    let mut page = String::with_capacity(head.len() + 24 * 1024 * found.cards.len());
    page.push_str(head);
    let as_of = found.as_of.as_ref().map(|at| format!(" as of {at}")).unwrap_or_default();
    put!(page, "<h1>faceflow</h1>\n<p class=\"soft\">tenant {}{}</p>\n", escape(&found.tenant), escape(&as_of));
    put!(page, "<div class=\"totals\">\n");
    total(&mut page, "images", &found.images);
    total(&mut page, "pages", &found.pages);
    let (faces, with_faces) = (found.faces, found.with_faces);
    put!(
        page,
        "<div class=\"box\"><b>{faces}</b>faces<p class=\"soft\">in {with_faces} distinct images</p></div>\n</div>\n"
    );
    let shown = found.cards.len();
    put!(
        page,
        "<h2>Images</h2>\n<p class=\"soft\">{shown} of {} distinct images with an answer, most faces first.</p>\n",
        found.images.done
    );
    page.push_str("<div class=\"gallery\">\n");
    page
}

fn total(page: &mut String, name: &str, tally: &Tally) {
    let states = [
        (Status::Done, tally.done),
        (Status::Duplicate, tally.duplicate),
        (Status::Rejected, tally.rejected),
        (Status::Dead, tally.dead),
        (Status::Open, tally.open),
    ];
    put!(page, "<div class=\"box\"><b>{}</b>{name}\n<div class=\"bar\">", tally.discovered);
    for (status, count) in states.iter().filter(|(_, count)| *count > 0) {
        put!(page, "<span class=\"{}\" style=\"flex:{count}\"></span>", status.word());
    }
    page.push_str("</div><div class=\"key\">");
    for (status, count) in states.iter().filter(|(_, count)| *count > 0) {
        put!(page, "<i class=\"{0}\">{count} {0}</i>", status.word());
    }
    page.push_str("</div></div>\n");
}

/// One picture with its faces and duplicates. `key` is the report's own, from which the original is linked.
pub fn card(page: &mut String, card: &Card, thumbnail: Option<&[u8]>, key: &str) {
    let Some(image) = &card.line.image else { return };
    let (width, height) = (image.width.max(1), image.height.max(1));
    let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
    let original = image.key.strip_prefix(folder).map_or(image.key.as_str(), |rest| rest.trim_start_matches('/'));
    let shape = format!("aspect-ratio:{width}/{height};max-width:calc(22rem*{width}/{height})");
    put!(page, "<figure><a class=\"frame\" href=\"{}\" style=\"{shape}\">", escape(original));
    if let Some(bytes) = thumbnail {
        put!(page, "<img alt=\"\" loading=\"lazy\" src=\"data:image/jpeg;base64,{}\">", STANDARD.encode(bytes));
    }
    put!(page, "<svg viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\">");
    let faces = card.line.faces.as_deref().unwrap_or_default();
    for face in faces {
        rect(page, face);
    }
    page.push_str("</svg></a><figcaption>");
    let plural = if faces.len() == 1 { "" } else { "s" };
    put!(page, "<p><strong>{} face{plural}</strong> <span class=\"soft\">{width}×{height}</span></p>", faces.len());
    put!(page, "<p>{}</p>", link(&card.line.url));
    if let Some(shown_by) = &card.line.page {
        put!(page, "<p class=\"soft\">on {}</p>", link(shown_by));
    }
    duplicates(page, card);
    page.push_str("</figcaption></figure>\n");
}

fn rect(page: &mut String, face: &FaceFields) {
    let [x1, y1, x2, y2] = face.bbox;
    let (width, height) = ((x2 - x1).max(0.0), (y2 - y1).max(0.0));
    put!(page, "<rect x=\"{x1}\" y=\"{y1}\" width=\"{width}\" height=\"{height}\"><title>");
    put!(page, "score {:.2}, quality {:.2}</title></rect>", face.score, face.quality);
}

fn duplicates(page: &mut String, card: &Card) {
    if card.duplicates_total == 0 {
        return;
    }
    let plural = if card.duplicates_total == 1 { "" } else { "s" };
    put!(page, "<details><summary>{} duplicate{plural}</summary><ul>", card.duplicates_total);
    for (url, distance) in &card.duplicates {
        put!(page, "<li>{} <span class=\"soft\">{distance} bits away</span></li>", link(url));
    }
    more(page, card.duplicates_total, card.duplicates.len());
    page.push_str("</ul></details>");
}

fn more(page: &mut String, total: i64, shown: usize) {
    let hidden = total - shown as i64;
    if hidden > 0 {
        put!(page, "<li class=\"soft\">and {hidden} more</li>");
    }
}

/// Everything after the last card.
pub fn end(page: &mut String, found: &Found) {
    page.push_str("</div>\n");
    if !found.failures.is_empty() {
        page.push_str("<h2>What did not work</h2>\n");
    }
    for (failure, group) in &found.failures {
        failed(page, failure, group);
    }
    let (_, foot) = PAGE.split_once(CONTENT).expect("the template has a place for the content");
    page.push_str(foot);
}

fn failed(page: &mut String, failure: &Failure, group: &Group) {
    let plural = if group.count == 1 { "" } else { "s" };
    let (status, kind) = (failure.status.word(), failure.kind);
    put!(page, "<details class=\"group {status}\"><summary><strong>{}</strong> ", escape(&failure.reason));
    put!(page, "{} {kind}{plural} <span class=\"soft\">{status}</span></summary><ul>", group.count);
    for (url, detail) in &group.examples {
        put!(page, "<li>{}<br><span class=\"soft\">{}</span></li>", link(url), escape(detail));
    }
    more(page, group.count, group.examples.len());
    page.push_str("</ul></details>\n");
}
