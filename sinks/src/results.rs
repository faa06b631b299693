//! `faceflow results`: what is known, from the ledger alone, ordered by URL (byte order).
//!
//! Lines are streamed: only the order by URL is held, by the database, which spills it to disk when it is long. All lines of one
//! call are of one moment, also while a run is writing.

use std::io::{self, Write};

use faceflow_core::ledger::LedgerError;
use serde::Serialize;

use crate::ledger::Reader;
use crate::ledger::database::values;
use crate::ledger::rows::{EntryKind, Trouble};
use crate::lines::{FaceLine, ImageLine, PageLine, image_line, page_line};

mod csv;

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
    let header = match kind {
        Kind::Images => csv::IMAGES,
        Kind::Pages => csv::PAGES,
        Kind::Faces => csv::FACES,
    };
    if format == Format::Csv {
        csv::write_row(out, header.iter().copied())?;
    }
    // What went wrong with `out`; the ledger's own troubles come back from `read`.
    let mut written: io::Result<()> = Ok(());
    reader.read(|moment| {
        let sql = "SELECT id FROM entries WHERE tenant = ?1 AND kind = ?2 ORDER BY url";
        let kind_of = if kind == Kind::Pages { EntryKind::Page } else { EntryKind::Image };
        let listed = moment.each(sql, values![reader.tenant_id(), kind_of], |row| {
            let id = row.get(0)?;
            written = match kind {
                Kind::Pages => page_line(reader, moment, id)?.write(format, out),
                Kind::Images => image_line(reader, moment, id)?.write(format, out),
                Kind::Faces => {
                    let line = image_line(reader, moment, id)?;
                    line.face_lines().try_for_each(|face| face.write(format, out))
                }
            };
            // Nobody reads on: there is no point in going on.
            written.as_ref().map_or_else(|error| Err(Trouble::Stopped(error.to_string())), |()| Ok(()))
        });
        match listed {
            Err(Trouble::Stopped(_)) => Ok(()),
            listed => listed,
        }
    })?;
    written?;
    Ok(out.flush()?)
}

/// A line in either form.
trait Written: Serialize {
    fn write(&self, format: Format, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Jsonl => {
                serde_json::to_writer(&mut *out, self)?;
                out.write_all(b"\n")
            }
            Format::Csv => csv::write_row(out, self.fields().iter().map(String::as_str)),
        }
    }

    /// The fields of its row in CSV, as many as the header has.
    fn fields(&self) -> Vec<String>;
}

impl Written for ImageLine {
    fn fields(&self) -> Vec<String> {
        csv::image_fields(self)
    }
}

impl Written for PageLine {
    fn fields(&self) -> Vec<String> {
        csv::page_fields(self)
    }
}

impl Written for FaceLine<'_> {
    fn fields(&self) -> Vec<String> {
        csv::face_fields(self)
    }
}

#[cfg(test)]
mod tests;
