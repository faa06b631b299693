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
    Bounds, Content, ContentId, Discovery, Disposition, DuplicateAssignment, HostState, Image, Key, Page, PageKind,
    PageVersion, Priority,
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
        // As it stands in logs.
        #[serde(rename = "fate")]
        disposition: Cow<'a, Disposition>,
        /// Of a frame: another run has the picture, so that only the log says that this one failed.
        elsewhere: bool,
    },
    Stored {
        url: Cow<'a, Url>,
        attempts: u32,
        final_url: Cow<'a, Url>,
        headers: Cow<'a, [(String, String)]>,
        content: Cow<'a, Content>,
        /// What was known of its host when it was dispatched.
        #[serde(default)]
        host: Option<Cow<'a, HostState>>,
    },
    /// An image whose bytes are those of a picture that has a row.
    Copied {
        url: Cow<'a, Url>,
        attempts: u32,
        final_url: Cow<'a, Url>,
        headers: Cow<'a, [(String, String)]>,
        content: ContentId,
        #[serde(default)]
        host: Option<Cow<'a, HostState>>,
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
    /// A fact, or a part of one, was refused.
    Quarantined(Quarantined<'a>),
    /// These rows of the quarantine are done with.
    Released {
        ids: Vec<ContentId>,
    },
    /// What a page leads to, whose turn at a site has come, is taken up without these pages and images.
    ResumedWithout {
        site: i64,
        sequence: i64,
        without: Vec<Key>,
    },
    /// What waits for its turn at a site is taken up further: a commit takes up so many pages at most.
    Resumed {
        site: i64,
    },
}

/// A fact, or a part of one, that was refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Quarantined<'a> {
    /// What kind of fact it is.
    pub kind: Cow<'a, str>,
    /// The URL or picture that it is about.
    pub subject: Cow<'a, str>,
    pub work: QuarantinedWork,
    /// The number of the job whose work it is.
    pub job: Option<u32>,
    pub end: WorkEnd,
    /// When a settled page is looked at again nevertheless.
    pub due: Option<Time>,
    /// Whether the body is taken in anew when it is driven again.
    pub again: bool,
    pub reason: Cow<'a, str>,
    /// The fact, as a record.
    pub body: Cow<'a, str>,
}

/// What becomes of the work that a refused fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WorkEnd {
    /// It comes to an end.
    Ends,
    /// It stays as it is: it has ended already, or the fact is part of what was found elsewhere.
    Stays,
    /// The database refuses the end too, so it is open and not given out.
    Withheld,
}

/// What a refused fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum QuarantinedWork {
    /// A page or an image.
    Entry(Key),
    Picture(ContentId),
    /// What a source found.
    None,
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
            Fact::Failed(disposition) => Self::Failed { disposition: Cow::Borrowed(disposition), elsewhere: false },
            Fact::Stored(kept) => Self::Stored {
                url: Cow::Borrowed(&kept.image.url),
                attempts: kept.image.attempts,
                final_url: Cow::Borrowed(&kept.final_url),
                headers: Cow::Borrowed(&kept.headers),
                content: Cow::Borrowed(&kept.frame.content),
                host: kept.image.host.as_deref().map(Cow::Borrowed),
            },
            Fact::Copied(copied) => Self::Copied {
                url: Cow::Borrowed(&copied.image.url),
                attempts: copied.image.attempts,
                final_url: Cow::Borrowed(&copied.final_url),
                headers: Cow::Borrowed(&copied.headers),
                content: copied.content,
                host: copied.image.host.as_deref().map(Cow::Borrowed),
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
    let record = |line: &[u8]| match header.version {
        0 => serde_json::from_slice(with_hashes(line)?.as_bytes()).map_err(|error| unreadable(&error)),
        _ => serde_json::from_slice(line).map_err(|error| unreadable(&error)),
    };
    let records = lines.map(record).collect::<Result<_, _>>()?;
    Ok((header, records))
}

/// A record of version 0 as it is written today: wherever a content has one hash, it has a list of that one. The text is changed and
/// not a tree of values, because keys are numbers of 128 bits, which such a tree cannot hold. In a string the quotes would be escaped.
fn with_hashes(line: &[u8]) -> Result<String, TransactionError> {
    const HASH: &str = r#""phash":{"bits":"#;
    let mut rest = std::str::from_utf8(line).map_err(|error| unreadable(&error))?;
    let mut changed = String::with_capacity(line.len());
    while let Some((before, hash)) = rest.split_once(HASH) {
        let parts = hash.split_once(r#","distinctive":"#).and_then(|(bits, hash)| Some((bits, hash.split_once('}')?)));
        let found =
            parts.and_then(|(bits, (distinctive, after))| Some((bits.parse::<u64>().ok()?, distinctive, after)));
        let Some((bits, distinctive, after)) = found else {
            return Err(TransactionError::Damaged("a record of the log has a hash that is none".to_owned()));
        };
        changed += before;
        changed +=
            &format!(r#""hashes":[{{"kind":"dct64","version":1,"bits":"{bits:016x}","distinctive":{distinctive}}}]"#);
        rest = after;
    }
    Ok(changed + rest)
}

fn unreadable(error: &dyn std::error::Error) -> TransactionError {
    TransactionError::Damaged(format!("a record of the log: {error}"))
}

#[cfg(test)]
mod tests {
    use faceflow_core::record::{Hashes, PerceptualHash};

    use super::*;

    /// As it is written: the tenant is that of the log.
    fn text(record: &LogRecord<'_>) -> String {
        serde_json::to_string(record).expect("serialises")
    }

    /// A log of version 0 with this record.
    fn read_version_0(record: &LogRecord<'_>, hash: &PerceptualHash) -> LogRecord<'static> {
        let bits = hash.bits.as_u64().expect("it has 64 bits");
        let today = format!(r#""hashes":[{}]"#, serde_json::to_string(hash).expect("serialises"));
        let before = format!(r#""phash":{{"bits":{bits},"distinctive":{}}}"#, hash.distinctive);
        let text = text(record).replace(&today, &before);
        assert!(!text.contains("hashes"), "{text}");
        let body = format!("{}\n{text}\n", r#"{"resumed_max":5,"entries":[],"pictures":[],"sites":[]}"#);
        let (_, records) = unpack(&zstd::bulk::compress(body.as_bytes(), LEVEL).expect("packs")).expect("is read");
        records.into_iter().next().expect("one record")
    }

    #[test]
    fn records_of_version_0_are_read_with_their_hashes_and_keys() {
        use crate::testing::{dead, frame, page};
        let hash = PerceptualHash::dct64(u64::MAX, true);
        let mut failed = frame("one");
        failed.content.hashes = Hashes::from(hash);
        let Fact::Failed(disposition) = dead(failed.clone()) else { panic!("it is a failure") };
        let record = LogRecord::Failed { disposition: Cow::Owned(disposition), elsewhere: false };
        let read = read_version_0(&record, &hash);
        assert_eq!(text(&read), text(&record));
        // Keys are larger than what a number of a JSON value holds.
        let pages = vec![Page { skip: vec![Key(u128::MAX - 1)], ..page("/p", 1) }];
        let found = Discovered {
            visit: None,
            pages: Cow::Owned(pages),
            images: Cow::Owned(vec![]),
            bounds: Bounds { pages_max: 1, images_max: 1, shorter_ways: true },
            again: None,
            removed: Cow::Owned(vec![Key(u128::MAX)]),
            list: None,
        };
        let record = LogRecord::Discovered(found);
        assert_eq!(text(&read_version_0(&record, &hash)), text(&record));
    }

    #[test]
    fn records_that_were_written_before_anything_was_known_of_hosts_are_read() {
        use crate::testing::{image, kept, page, retry};
        for fact in [retry(page("/p", 1), 9), retry(image("/i"), 9), kept(image("/i"), "one")] {
            let today = text(&LogRecord::from(&fact));
            let before = today.replace(r#","host":null"#, "");
            assert!(today.matches("host\":null").count() > 0 && !before.contains("host"), "{before}");
            let read: LogRecord<'_> = serde_json::from_str(&before).expect("is read");
            assert_eq!(text(&read), today);
        }
    }
}
