//! `faceflow explain URL`: the history of one URL, from the log and from what it added up to.
//!
//! The log has no index by entry, since it is written far more often than it is asked; it is read through, a part at a time, each
//! in a transaction of its own.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use faceflow_core::ledger::LedgerError;
use faceflow_core::record::{ContentId, Key};
use faceflow_ledger::EntrySelection;
use faceflow_ledger::HostHistory;
use faceflow_ledger::Reader;
use faceflow_ledger::removed;
use faceflow_ledger::{DbTransaction, Row, values};
use faceflow_ledger::{EntryKind, TransactionError};
use faceflow_ledger::{ImageLine, PageLine};
use faceflow_ledger::{image_lines, page_lines};
use serde::Serialize;
use serde_json::Value;
use url::Url;

/// Pages listed of those that show an image.
const PAGES_MAX: i64 = 20;
/// Events listed, the latest; a page may have been read a thousand times.
const EVENTS_MAX: usize = 1_000;
/// Lines of the log read in one transaction.
const WINDOW: i64 = 200_000;

/// The history of one page or image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct History {
    /// Its line in the results.
    #[serde(flatten)]
    line: Line,
    /// Whether its site is no longer on the list: then nothing of it is looked at or tried again.
    site_removed: bool,
    /// When a stream looks at it again, or tries it although it ended, in milliseconds since the Unix epoch; 0 for at once.
    again_ms: Option<i64>,
    /// Pages that show it, the first few by URL.
    pages: Vec<String>,
    /// What its host did, if that fails.
    host: Option<HostHistory>,
    /// What happened, in order; the latest of it, if it is much.
    events: VecDeque<HistoryEvent>,
    /// How much happened before that.
    earlier: usize,
    /// Of a copy: what had happened to the picture before, when other addresses led to it.
    before: Option<BeforeCopy>,
    /// Where the log no longer says how it was discovered: until when it was removed (`ledger.log_keep_ms`), in milliseconds since
    /// the Unix epoch. What happened before that is not listed.
    removed_upto_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
enum Line {
    Image(Box<ImageLine>),
    Page(PageLine),
}

/// What happened to a picture before a further address led to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct BeforeCopy {
    /// The address that led to it first.
    url: Option<String>,
    /// What happened, in order; the latest of it, if it is much.
    events: VecDeque<HistoryEvent>,
}

/// One step of a history.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HistoryEvent {
    /// When it was written, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The same as text: UTC by RFC 3339.
    pub at: String,
    /// What happened.
    pub what: String,
}

impl History {
    /// What happened, in order; the latest of it, if it is much.
    pub fn events(&self) -> impl Iterator<Item = &HistoryEvent> {
        self.events.iter()
    }
}

/// The histories of the page and of the image at `url`; empty if neither was ever discovered.
pub fn explain(reader: &Reader, url: &Url) -> Result<Vec<History>, LedgerError> {
    let keys = [Key::page(url), Key::image(url)];
    let known = reader.read(|tx| keys.into_iter().map(|key| known(reader, tx, key)).collect::<Result<Vec<_>, _>>())?;
    let mut known: Vec<Known> = known.into_iter().flatten().collect();
    let mut from = Some(0);
    while let Some(after) = from.filter(|_| !known.is_empty()) {
        from = reader.read(|tx| follow(reader, tx, after, &mut known))?;
    }
    let gone = reader.read(|tx| removed(tx, reader.tenant_id()))?;
    let tell = |known: Known| {
        let whole = known.whole;
        let mut history = reader.read(|tx| known.told(tx))?;
        history.removed_upto_ms = (gone.any() && !whole).then_some(gone.upto_ms);
        Ok(history)
    };
    known.into_iter().map(tell).collect()
}

/// A history while the log is read.
struct Known {
    entry: i64,
    picture: Option<i64>,
    /// Whether its discovery is in the log, and so everything that followed.
    whole: bool,
    /// Whether it has led to its picture by now.
    has_led: bool,
    /// What happened to it, and to its picture since it leads there.
    own: LatestEvents,
    /// What happened to its picture before.
    before: LatestEvents,
    history: History,
}

/// The latest events, by their place in the log.
#[derive(Default)]
struct LatestEvents {
    events: VecDeque<(i64, HistoryEvent)>,
    /// How many came before them.
    earlier: usize,
}

impl LatestEvents {
    fn push(&mut self, seq: i64, event: HistoryEvent) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
            self.earlier += 1;
        }
        self.events.push_back((seq, event));
    }

    fn in_order(self) -> VecDeque<HistoryEvent> {
        self.events.into_iter().map(|(_, event)| event).collect()
    }
}

impl Known {
    /// The history, once the log was read.
    fn told(mut self, tx: &DbTransaction<'_>) -> Result<History, TransactionError> {
        if !self.has_led {
            // That it leads to its picture is no longer in the log, so all that is in it came after that.
            let Self { own, before, .. } = &mut self;
            own.events.extend(before.events.drain(..));
            own.events.make_contiguous().sort_by_key(|(seq, _)| *seq);
            own.earlier += before.earlier;
        }
        if !self.before.events.is_empty() {
            let first = "SELECT url FROM entries WHERE picture = ?1 AND id <> ?2 ORDER BY id LIMIT 1";
            let url = tx.one(first, values![self.picture, self.entry], |row| row.get(0))?;
            self.history.before = Some(BeforeCopy { url, events: self.before.in_order() });
        }
        self.history.earlier = self.own.earlier;
        self.history.events = self.own.in_order();
        Ok(self.history)
    }
}

/// What the rows say of an entry.
fn known(reader: &Reader, tx: &DbTransaction<'_>, key: Key) -> Result<Option<Known>, TransactionError> {
    let sql =
        "SELECT e.id, e.kind, e.picture, s.removed, coalesce(e.recrawl_ms, e.terminal_retry_ms, p.terminal_retry_ms)
        FROM entries e JOIN sites s ON s.id = e.site LEFT JOIN pictures p ON p.id = e.picture
        WHERE e.tenant = ?1 AND e.key = ?2";
    let found = tx.one(sql, values![reader.tenant_id(), key], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<bool>(3)?, row.get::<Option<i64>>(4)?))
    })?;
    let Some((entry, kind, picture, site_removed, again_ms)) = found else { return Ok(None) };
    let this = [entry];
    let line = match kind {
        EntryKind::Page => page_lines(reader, tx, &EntrySelection::These(&this))?.pop().map(Line::Page),
        EntryKind::Image => {
            let line = image_lines(reader, tx, &EntrySelection::These(&this))?.pop();
            line.map(|described| Line::Image(Box::new(described.line)))
        }
    };
    let line = line.ok_or_else(|| TransactionError::Damaged(format!("entry {entry} is named but not there")))?;
    let again_ms = again_ms.filter(|_| !site_removed);
    let (pages, host) = (pages(tx, entry)?, HostHistory::of_entry(tx, entry)?);
    let (events, before) = (VecDeque::new(), None);
    let history =
        History { line, site_removed, again_ms, pages, host, events, earlier: 0, before, removed_upto_ms: None };
    let (own, before) = (LatestEvents::default(), LatestEvents::default());
    Ok(Some(Known { entry, picture, whole: false, has_led: false, own, before, history }))
}

fn pages(tx: &DbTransaction<'_>, image: i64) -> Result<Vec<String>, TransactionError> {
    let sql =
        "SELECT p.url FROM page_images s JOIN entries p ON p.id = s.page WHERE s.image = ?1 ORDER BY p.url LIMIT ?2";
    tx.list(sql, values![image, PAGES_MAX], |row| row.get(0))
}

/// Reads the next part of the log after `after`. Returns where it ended, unless that is the end of the log.
fn follow(
    reader: &Reader,
    tx: &DbTransaction<'_>,
    after: i64,
    known: &mut [Known],
) -> Result<Option<i64>, TransactionError> {
    let end = "SELECT max(seq) FROM (SELECT seq FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2) w";
    let upto = tx.one(end, values![after, WINDOW], |row| row.get::<Option<i64>>(0))?.flatten();
    let Some(upto) = upto else { return Ok(None) };
    let sql = "SELECT f.at_ms, f.kind, f.body, o.url, r.content, f.seq, f.entry
        FROM events f
        LEFT JOIN entries o ON o.id = f.other AND f.kind <> 'assigned'
        LEFT JOIN pictures r ON r.id = f.other AND f.kind = 'assigned'
        WHERE f.seq > ?1 AND f.seq <= ?2 AND f.tenant = ?3 AND (f.entry = ?4 OR (f.entry IS NULL AND f.picture = ?5))
        ORDER BY f.seq";
    for Known { entry, picture, whole, has_led, own, before, .. } in known {
        tx.each(sql, values![after, upto, reader.tenant_id(), *entry, *picture], |row| {
            let (kind, seq, of_entry) = (row.get::<String>(1)?, row.get(5)?, row.get::<Option<i64>>(6)?.is_some());
            *whole |= kind == "admitted";
            *has_led |= of_entry && kind == "stored";
            let events = if of_entry || *has_led { &mut *own } else { &mut *before };
            events.push(seq, event_at(row)?);
            Ok(())
        })?;
    }
    Ok(Some(upto))
}

fn event_at(row: &Row<'_>) -> Result<HistoryEvent, TransactionError> {
    let kind: String = row.get(1)?;
    let body: Option<String> = row.get(2)?;
    let damaged = |error| TransactionError::Damaged(format!("the body of a line of the log: {error}"));
    let body = body.map(|body| serde_json::from_str(&body).map_err(damaged)).transpose()?.unwrap_or(Value::Null);
    let other: Option<String> = row.get(3)?;
    let what = match row.get::<Option<ContentId>>(4)? {
        Some(id) => format!("{id} stands for its picture, {} bits away", body["distance"]),
        None => what(&kind, &body, other.as_deref()),
    };
    let at_ms = row.get(0)?;
    Ok(HistoryEvent { at_ms, at: as_text(at_ms), what })
}

/// A time for people: UTC by RFC 3339, to the millisecond.
pub fn as_text(at_ms: i64) -> String {
    // The last moment that the form can say.
    const LAST_MS: i64 = 253_402_300_799_999;
    let at = UNIX_EPOCH + Duration::from_millis(at_ms.clamp(0, LAST_MS) as u64);
    humantime::format_rfc3339_millis(at).to_string()
}

fn what(kind: &str, body: &Value, other: Option<&str>) -> String {
    let fault = || {
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let when = if kind == "retry" { "due again" } else { "a stream tries it again" };
        let due = body["due_ms"].as_i64().map(|due| format!("; {when} at {}", as_text(due))).unwrap_or_default();
        let scale = body["scale"].as_f64().map(|scale| format!(", at scale {scale:.3}")).unwrap_or_default();
        format!("{}: {}{scale} ({} failed so far{due})", text("reason"), text("detail"), body["attempts"])
    };
    match (kind, other) {
        ("admitted", Some(page)) => format!("discovered on {page}"),
        ("admitted", None) => "discovered: an entry of the input".to_owned(),
        ("offered", Some(primary)) => format!("offered as another address of {primary}"),
        ("opened", Some(failed)) => format!("to be tried, because {failed} failed"),
        ("sighted", Some(page)) => format!("also shown by {page}"),
        ("visited", _) => "read; everything it leads to is known".to_owned(),
        ("stored", _) => "downloaded, decoded and kept".to_owned(),
        ("detected", _) => "looked at; its faces are stored".to_owned(),
        ("retry", _) => format!("failed, {}", fault()),
        ("rejected", _) => format!("rejected, {}", fault()),
        ("dead", _) => format!("failed for the last time, {}", fault()),
        ("redriven", _) => "driven again by the user".to_owned(),
        (kind, _) => kind.to_owned(),
    }
}

impl fmt::Display for History {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.line {
            Line::Page(page) => {
                writeln!(out, "page {}", page.url)?;
                let reason = page.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                writeln!(out, "  {}{reason}, {} attempts, depth {}", page.status.word(), page.attempts, page.depth)?;
            }
            Line::Image(image) => write_image(image, out)?,
        }
        for page in &self.pages {
            writeln!(out, "  shown by {page}")?;
        }
        if self.site_removed {
            writeln!(out, "  its site was removed from the list: it is not looked at or tried again")?;
        }
        if let Some(again_ms) = self.again_ms {
            let when = if again_ms == 0 { "when one runs".to_owned() } else { format!("at {}", as_text(again_ms)) };
            writeln!(out, "  a stream looks at it again {when}")?;
        }
        if let Some(host) = &self.host {
            write_host(host, out)?;
        }
        if let Some(upto_ms) = self.removed_upto_ms {
            let upto = as_text(upto_ms);
            writeln!(out, "  events until {upto} were removed from the log (ledger.log_keep_ms) and are not listed")?;
        }
        if self.earlier > 0 {
            writeln!(out, "  {} earlier events are left out", self.earlier)?;
        }
        for event in &self.events {
            writeln!(out, "  {} {}", event.at, event.what)?;
        }
        if let Some(BeforeCopy { url, events }) = &self.before {
            let url = url.as_deref().unwrap_or("another address");
            writeln!(out, "  it is a copy; before, while {url} led to the picture:")?;
            for event in events {
                writeln!(out, "    {} {}", event.at, event.what)?;
            }
        }
        Ok(())
    }
}

fn write_host(host: &HostHistory, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let HostHistory { host: name, failures, since_ms, not_before_ms, given_up, reason, detail } = host;
    let (since, again) = (as_text(*since_ms), as_text(*not_before_ms));
    match failures {
        0 => writeln!(out, "  its host {name} wants to be left alone since {since}: {reason}: {detail}")?,
        _ => writeln!(out, "  its host {name} has failed {failures} times in a row since {since}: {reason}: {detail}")?,
    }
    match given_up {
        true => {
            writeln!(out, "  it was given up, with all that waits for it; what is new asks it again from {again} on")
        }
        false => writeln!(out, "  it is asked again, by one request, from {again} on"),
    }
}

fn write_image(image: &ImageLine, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(out, "image {}", image.url)?;
    let reason = image.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    writeln!(out, "  {}{reason}, {} attempts", image.status.word(), image.attempts)?;
    if let Some(picture) = &image.image {
        writeln!(
            out,
            "  picture {}: {} {}x{}, {} bytes",
            picture.id, picture.format, picture.width, picture.height, picture.bytes
        )?;
    }
    if let Some(representative) = &image.duplicate_of {
        writeln!(out, "  a duplicate of {representative}")?;
    }
    if let (Some(faces), Some(detector)) = (&image.faces, &image.detector) {
        writeln!(out, "  {} faces, by {} {}", faces.len(), detector.engine, detector.model)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
