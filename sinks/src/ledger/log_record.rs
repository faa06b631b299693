//! What a commit writes to the log: everything that the rows follow from, in the order in which it was taken in.
//!
//! A record is a fact as far as the ledger needs it, or something else that changes rows: work that is driven again, pictures that
//! are due because their run ended, pages that waited for their turn. The transitions take records and nothing else, so what is
//! not in the log cannot change a row; and replaying the log of a tenant through the same transitions makes the same rows.

use std::borrow::Cow;

use faceflow_core::Time;
use faceflow_core::detector::Detection;
use faceflow_core::fact::Fact;
use faceflow_core::record::{
    Bounds, Content, Discovery, Disposition, DuplicateAssignment, Image, Key, Page, PageKind, PageVersion, Priority,
};
use serde::{Deserialize, Serialize};
use url::Url;

use super::error::TransactionError;
use super::working_set::IdRanges;

/// Something that changes rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum LogRecord<'a> {
    Discovered(Discovered<'a>),
    Failed {
        fate: Cow<'a, Disposition>,
        /// Of a frame: another run has the picture, so that only the log says that this one failed.
        elsewhere: bool,
    },
    Stored {
        url: Cow<'a, Url>,
        attempts: u32,
        final_url: Cow<'a, Url>,
        headers: Cow<'a, [(String, String)]>,
        content: Cow<'a, Content>,
    },
    Detected {
        attempts: u32,
        detection: Cow<'a, Detection>,
    },
    Assigned(Cow<'a, DuplicateAssignment>),
    /// The tenant has a job of this name, or it has another priority than before.
    Job {
        number: u32,
        name: Cow<'a, str>,
        priority: Priority,
    },
    /// Entries and pictures are tried again, with their attempts counted anew.
    Redriven {
        entries: Vec<i64>,
        pictures: Vec<i64>,
    },
    /// Open pictures are due at once: the run that kept them has ended.
    Due {
        pictures: Vec<i64>,
    },
    /// What waits for its turn at a site is taken up further: a commit takes up so many pages at most.
    Resumed {
        site: i64,
    },
}

/// What was found, by a page that was read or by a source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Discovered<'a> {
    pub visit: Option<Visited<'a>>,
    pub pages: Cow<'a, [Page]>,
    pub images: Cow<'a, [Image]>,
    pub bounds: Bounds,
    pub again: Option<Cow<'a, (PageVersion, Time)>>,
    pub removed: Cow<'a, [Key]>,
    pub list: Option<Cow<'a, str>>,
}

/// A page that was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Visited<'a> {
    pub page: Cow<'a, Page>,
    pub kind: PageKind,
    pub final_url: Cow<'a, Url>,
    pub http_status: u16,
    /// How many links it has.
    pub links: u64,
}

impl Visited<'_> {
    /// Whether the page is as it was when it was read last, by the word of its server.
    pub fn is_unchanged(&self) -> bool {
        self.http_status == 304
    }
}

impl<'a> From<&'a Discovery> for Discovered<'a> {
    fn from(found: &'a Discovery) -> Self {
        let visit = found.visit.as_ref().map(|visit| Visited {
            page: Cow::Borrowed(&visit.page),
            kind: visit.kind,
            final_url: Cow::Borrowed(&visit.final_url),
            http_status: visit.http_status,
            links: visit.links.len() as u64,
        });
        Self {
            visit,
            pages: Cow::Borrowed(&found.pages),
            images: Cow::Borrowed(&found.images),
            bounds: found.bounds,
            again: found.again.as_ref().map(Cow::Borrowed),
            removed: Cow::Borrowed(&found.removed),
            list: found.list.as_deref().map(Cow::Borrowed),
        }
    }
}

impl<'a> From<&'a Fact> for LogRecord<'a> {
    fn from(fact: &'a Fact) -> Self {
        match fact {
            Fact::Discovered(found) => Self::Discovered(found.into()),
            Fact::Failed(fate) => Self::Failed { fate: Cow::Borrowed(fate), elsewhere: false },
            Fact::Stored(kept) => Self::Stored {
                url: Cow::Borrowed(&kept.image.url),
                attempts: kept.image.attempts,
                final_url: Cow::Borrowed(&kept.final_url),
                headers: Cow::Borrowed(&kept.headers),
                content: Cow::Borrowed(&kept.frame.content),
            },
            Fact::Detected(delivered) => {
                Self::Detected { attempts: delivered.frame.attempts, detection: Cow::Borrowed(&delivered.detection) }
            }
            Fact::Assigned(assigned) => Self::Assigned(Cow::Borrowed(&assigned.assignment)),
        }
    }
}

/// What holds for all records of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogHeader {
    /// Pages that waited for their turn and were taken up, at most.
    pub resumed_max: usize,
    /// The numbers that new rows were given.
    pub entries: IdRanges,
    pub pictures: IdRanges,
    pub sites: IdRanges,
    /// How records are written: 0 where it is not said.
    #[serde(default)]
    pub version: u32,
}

/// How records are written today. Before 1, a content had one perceptual hash and no list of them.
pub(super) const VERSION: u32 = 1;

/// The records of a commit as they are gathered: JSON, one to a line.
#[derive(Default)]
pub(super) struct LogRecords {
    lines: Vec<u8>,
    pub count: i64,
}

/// How hard the log is compressed: the fastest of the usual levels, since records repeat each other a lot.
const LEVEL: i32 = 1;

impl LogRecords {
    /// One record more.
    pub fn push(&mut self, record: &LogRecord<'_>) -> Result<(), TransactionError> {
        serde_json::to_writer(&mut self.lines, record).map_err(|error| unreadable(&error))?;
        self.lines.push(b'\n');
        self.count += 1;
        Ok(())
    }

    /// What is written to the log: the header and the records, compressed.
    pub fn pack(&self, header: &LogHeader) -> Result<Vec<u8>, TransactionError> {
        let mut all = serde_json::to_vec(header).map_err(|error| unreadable(&error))?;
        all.push(b'\n');
        all.extend(&self.lines);
        zstd::bulk::compress(&all, LEVEL).map_err(|error| unreadable(&error))
    }
}

/// The header and the records of a commit.
pub(super) fn unpack(body: &[u8]) -> Result<(LogHeader, Vec<LogRecord<'static>>), TransactionError> {
    let all = zstd::stream::decode_all(body).map_err(|error| unreadable(&error))?;
    let mut lines = all.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let header: LogHeader =
        serde_json::from_slice(lines.next().unwrap_or_default()).map_err(|error| unreadable(&error))?;
    let record = |line| match header.version {
        0 => serde_json::from_slice(line).and_then(|line| serde_json::from_value(with_hashes(line))),
        _ => serde_json::from_slice(line),
    };
    let records = lines.map(|line| record(line).map_err(|error| unreadable(&error)));
    let records = records.collect::<Result<_, _>>()?;
    Ok((header, records))
}

/// A record of version 0 as it is written today.
fn with_hashes(mut record: serde_json::Value) -> serde_json::Value {
    let content = record.get_mut("Stored").and_then(|stored| stored.get_mut("content"));
    if let Some(content) = content.and_then(serde_json::Value::as_object_mut)
        && let Some(hash) = content.remove("phash")
    {
        let bits = hash["bits"].as_u64().unwrap_or_default();
        let distinctive = hash["distinctive"].as_bool().unwrap_or_default();
        let hash = serde_json::json!({"kind": "dct64", "version": 1, "bits": format!("{bits:016x}"), "distinctive": distinctive});
        content.insert("hashes".to_owned(), serde_json::json!([hash]));
    }
    record
}

fn unreadable(error: &dyn std::error::Error) -> TransactionError {
    TransactionError::Damaged(format!("a record of the log: {error}"))
}

#[cfg(test)]
mod tests {
    use faceflow_core::record::{Hashes, PerceptualHash};

    use super::*;

    #[test]
    fn records_of_version_0_have_one_hash() {
        let header = r#"{"resumed_max":5,"entries":[],"pictures":[],"sites":[]}"#;
        let id: Vec<String> = vec!["7".to_owned(); 32];
        let stored = format!(
            r#"{{"Stored":{{"url":"http://a/","attempts":0,"final_url":"http://a/","headers":[],"content":{{"id":[{}],"bytes":1,
            "format":"png","width":2,"height":3,"phash":{{"bits":18446744073709551615,"distinctive":true}}}}}}}}"#,
            id.join(",")
        );
        let body = format!("{header}\n{}\n", stored.replace('\n', ""));
        let (_, records) = unpack(&zstd::bulk::compress(body.as_bytes(), LEVEL).expect("packs")).expect("is read");
        let Some(LogRecord::Stored { content, .. }) = records.first() else { panic!("{records:?}") };
        assert_eq!(content.hashes, Hashes::from(PerceptualHash::dct64(u64::MAX, true)));
    }
}
