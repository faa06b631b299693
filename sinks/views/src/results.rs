//! `faceflow results`: what is known, from the ledger alone, ordered by URL (byte order).
//!
//! Lines are read in pages, each in a transaction of its own, and written after it has ended: however long the results are and
//! however slowly they are taken, memory stays flat and the database is held up by nothing. Promise: a line is of one moment, and
//! every URL that is known from the beginning to the end has exactly one; one that comes meanwhile may have one or none.

use std::io::{self, Write};
use std::panic::resume_unwind;
use std::sync::mpsc::{SyncSender, sync_channel};

use faceflow_core::ledger::LedgerError;
use faceflow_ledger::DbTransaction;
use faceflow_ledger::EntrySelection;
use faceflow_ledger::Reader;
use faceflow_ledger::{EntryKind, TransactionError};
use faceflow_ledger::{FaceLine, ImageLine, PageLine};
use faceflow_ledger::{image_lines, page_lines};
use serde::Serialize;

mod csv;

/// Lines read at a time.
const PAGE: usize = 512;

/// What each line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every image URL that was discovered.
    Images,
    /// Every page.
    Pages,
    /// Every face of every done image.
    Faces,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// RFC 4180, with a header line.
    Csv,
}

/// Why results ended early.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// They could not be written.
    #[error("the results could not be written: {0}")]
    Io(#[from] io::Error),
}

/// Writes the results to `out`.
pub fn write_results(reader: &Reader, kind: Kind, format: Format, out: &mut dyn Write) -> Result<(), ResultsError> {
    let mut writer = ResultWriter::new(format, out);
    match kind {
        Kind::Pages => {
            writer.header(csv::PAGES)?;
            let read = |tx: &DbTransaction<'_>, chosen: &EntrySelection<'_>| page_lines(reader, tx, chosen);
            in_pages(reader, EntryKind::Page, read, |line: &PageLine| writer.write(line))?;
        }
        Kind::Images => {
            writer.header(csv::IMAGES)?;
            in_pages(reader, EntryKind::Image, images(reader), |line| writer.write(line))?;
        }
        Kind::Faces => {
            writer.header(csv::FACES)?;
            let write = |line: &ImageLine| line.face_lines().try_for_each(|face| writer.write(&face));
            in_pages(reader, EntryKind::Image, images(reader), write)?;
        }
    }
    Ok(writer.finish()?)
}

fn images(
    reader: &Reader,
) -> impl Fn(&DbTransaction<'_>, &EntrySelection<'_>) -> Result<Vec<ImageLine>, TransactionError> {
    |tx, chosen| Ok(image_lines(reader, tx, chosen)?.into_iter().map(|described| described.line).collect())
}

/// Gives every line of a kind to `write`, page by page; the next page is read while one is written.
fn in_pages<L: Line>(
    reader: &Reader,
    kind: EntryKind,
    read: impl Fn(&DbTransaction<'_>, &EntrySelection<'_>) -> Result<Vec<L>, TransactionError> + Send,
    mut write: impl FnMut(&L) -> io::Result<()>,
) -> Result<(), ResultsError> {
    std::thread::scope(|threads| {
        // One page waits, one is being read, one is being written.
        let (pages, written) = sync_channel::<Vec<L>>(1);
        let reading = threads.spawn(move || read_pages(reader, kind, &read, &pages));
        // Whoever reads ends when nobody takes its pages any more.
        let wrote = written.into_iter().flatten().try_for_each(|line| write(&line));
        let read = reading.join().unwrap_or_else(|panic| resume_unwind(panic));
        wrote?;
        Ok(read?)
    })
}

/// Reads every line of a kind, page by page, until there are no more or nobody takes them.
fn read_pages<L: Line>(
    reader: &Reader,
    kind: EntryKind,
    read: &impl Fn(&DbTransaction<'_>, &EntrySelection<'_>) -> Result<Vec<L>, TransactionError>,
    pages: &SyncSender<Vec<L>>,
) -> Result<(), LedgerError> {
    let mut after = String::new();
    loop {
        let lines = reader.read(|tx| read(tx, &EntrySelection::Next { kind, after: &after, max: PAGE }))?;
        let more = lines.len() == PAGE;
        if let Some(last) = lines.last() {
            last.url().clone_into(&mut after);
        }
        if pages.send(lines).is_err() || !more {
            return Ok(());
        }
    }
}

/// Writes lines in one form.
enum ResultWriter<'o> {
    Jsonl(&'o mut dyn Write),
    Csv(::csv::Writer<&'o mut dyn Write>),
}

impl<'o> ResultWriter<'o> {
    fn new(format: Format, out: &'o mut dyn Write) -> Self {
        match format {
            Format::Jsonl => Self::Jsonl(out),
            Format::Csv => Self::Csv(csv::writer(out)),
        }
    }

    fn header(&mut self, names: &[&str]) -> io::Result<()> {
        match self {
            Self::Jsonl(_) => Ok(()),
            Self::Csv(writer) => csv::written(writer.write_record(names)),
        }
    }

    /// Nothing is left in a buffer.
    fn finish(self) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => out.flush(),
            Self::Csv(mut writer) => writer.flush(),
        }
    }

    fn write(&mut self, line: &impl Row) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => {
                serde_json::to_writer(&mut *out, line)?;
                out.write_all(b"\n")
            }
            Self::Csv(writer) => csv::written(writer.write_record(line.fields())),
        }
    }
}

/// A line of its own in the ledger.
trait Line: Send {
    /// What it is about.
    fn url(&self) -> &str;
}

impl Line for ImageLine {
    fn url(&self) -> &str {
        &self.url
    }
}

impl Line for PageLine {
    fn url(&self) -> &str {
        &self.url
    }
}

/// A line in either form.
trait Row: Serialize {
    /// The fields of its row in CSV, as many as the header has.
    fn fields(&self) -> Vec<String>;
}

impl Row for ImageLine {
    fn fields(&self) -> Vec<String> {
        csv::image_fields(self)
    }
}

impl Row for PageLine {
    fn fields(&self) -> Vec<String> {
        csv::page_fields(self)
    }
}

impl Row for FaceLine<'_> {
    fn fields(&self) -> Vec<String> {
        csv::face_fields(self)
    }
}

#[cfg(test)]
mod tests;
