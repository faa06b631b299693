//! The report as HTML, by the template `templates/report.html`. It escapes every text; every address goes through [`Address`].

use askama::Template;
use faceflow_core::tally::Tally;
use faceflow_ledger::FaceFields;
use faceflow_ledger::Status;
use url::Url;

use super::gather::{Card, Failed, Found};
use crate::SinkError;

/// The whole page.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    tenant: &'a str,
    as_of: Option<&'a str>,
    totals: [Total; 2],
    faces: i64,
    with_faces: i64,
    done: u64,
    cards: Vec<CardView<'a>>,
    failures: Vec<FailureView>,
}

struct Total {
    name: &'static str,
    discovered: u64,
    /// Those with anything in them.
    states: Vec<(&'static str, u64)>,
}

struct CardView<'a> {
    /// Where the original lies, as seen from the report.
    original: String,
    width: u32,
    height: u32,
    thumbnail: Option<&'a str>,
    faces: Vec<FaceView>,
    url: Address,
    page: Option<Address>,
    duplicates: Vec<(Address, u32)>,
    duplicates_total: i64,
    duplicates_more: i64,
}

struct FaceView {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
    score: String,
    quality: String,
}

struct FailureView {
    status: &'static str,
    kind: &'static str,
    reason: String,
    count: i64,
    examples: Vec<(Address, String)>,
    more: i64,
}

/// An address: a link if it is on the web, else just text.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"{% if let Some(href) = href %}<a class="url" href="{{ href }}" rel="noreferrer noopener" target="_blank">{{ text }}</a>{% else %}<span class="url">{{ text }}</span>{% endif %}"#
)]
pub struct Address {
    href: Option<String>,
    text: String,
}

impl Address {
    pub fn new(address: &str) -> Self {
        let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        Self { href: url.map(String::from), text: visible(address) }
    }
}

/// Text without controls, and without characters that reorder what stands beside them.
pub fn visible(text: &str) -> String {
    let odd = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if odd(c) { '\u{fffd}' } else { c }).collect()
}

/// The page, stamped with a time or not. `key` is the report's own, from which originals are linked; `thumbnails` are those of
/// the cards, one for each, in base64.
pub fn page(
    found: &Found,
    (key, thumbnails): (&str, &[Option<&str>]),
    as_of: Option<&str>,
) -> Result<String, SinkError> {
    let cards = found.cards.iter().zip(thumbnails).filter_map(|(card, thumbnail)| CardView::of(card, *thumbnail, key));
    let page = Page {
        tenant: &found.tenant,
        as_of,
        totals: [Total::of("images", &found.images), Total::of("pages", &found.pages)],
        faces: found.faces,
        with_faces: found.with_faces,
        done: found.images.done,
        cards: cards.collect(),
        failures: found.failures.iter().map(FailureView::of).collect(),
    };
    let page = page.render().map_err(|error| SinkError::Report(error.to_string()))?;
    Ok(page + "\n")
}

impl Total {
    fn of(name: &'static str, tally: &Tally) -> Self {
        let states = [
            (Status::Done, tally.done),
            (Status::Duplicate, tally.duplicate),
            (Status::Rejected, tally.rejected),
            (Status::Dead, tally.dead),
            (Status::Open, tally.open),
        ];
        let states = states.into_iter().filter(|(_, count)| *count > 0);
        Self {
            name,
            discovered: tally.discovered,
            states: states.map(|(state, count)| (state.word(), count)).collect(),
        }
    }
}

impl<'a> CardView<'a> {
    fn of(card: &'a Card, thumbnail: Option<&'a str>, key: &str) -> Option<Self> {
        let image = card.line.image.as_ref()?;
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let original = image.key.strip_prefix(folder).map_or(image.key.as_str(), |rest| rest.trim_start_matches('/'));
        Some(Self {
            original: original.to_owned(),
            width: image.width.max(1),
            height: image.height.max(1),
            thumbnail,
            faces: card.line.faces.iter().flatten().map(FaceView::of).collect(),
            url: Address::new(&card.line.url),
            page: card.line.page.as_deref().map(Address::new),
            duplicates: card.duplicates.iter().map(|(url, distance)| (Address::new(url), *distance)).collect(),
            duplicates_total: card.duplicates_total,
            duplicates_more: card.duplicates_total - card.duplicates.len() as i64,
        })
    }
}

impl FaceView {
    fn of(face: &FaceFields) -> Self {
        let [x, y, x2, y2] = face.bbox;
        Self {
            x,
            y,
            width: (x2 - x).max(0.0),
            height: (y2 - y).max(0.0),
            score: format!("{:.2}", face.score),
            quality: format!("{:.2}", face.quality),
        }
    }
}

impl FailureView {
    fn of(failed: &Failed) -> Self {
        let examples = failed.examples.iter().map(|(url, detail)| (Address::new(url), visible(detail)));
        Self {
            status: failed.failure.status.word(),
            kind: failed.failure.kind.word(),
            reason: visible(&failed.failure.reason),
            count: failed.count,
            examples: examples.collect(),
            more: failed.count - failed.examples.len() as i64,
        }
    }
}
