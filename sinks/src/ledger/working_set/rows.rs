//! The rows that facts change, as they are in memory, and the columns in which they are written.

use std::rc::Rc;

use bytes::Bytes;
use faceflow_core::record::{Content, ContentId, HashBits, HashKind, Key};
use faceflow_core::transition::State;

use super::row_statements::Kind::{Blob, Bool, Int, Text};
use super::row_statements::Role::{Always, Fixed, Key as Identity, Patch, Server};
use super::row_statements::RowShape;
use crate::ledger::column_codecs::{EntryKind, StateText};
use crate::ledger::error::TransactionError;
use crate::ledger::new_rows::Places;
use crate::ledger::value::{Row, Value};

/// A row that can be written.
pub(in crate::ledger) trait Stored<K> {
    const SHAPE: RowShape;

    /// The values of the row with key `key`, one for each column.
    fn values<'v>(&'v self, key: &'v K, tenant: i64, out: &mut Vec<Value<'v>>);

    /// Which of the columns that are not read are set.
    fn mask(&self) -> i64 {
        0
    }

    /// It was written: what is not read need not be kept.
    fn clean(&mut self) {}
}

/// A discovered URL.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct EntryRow {
    pub id: i64,
    pub key: Key,
    pub kind: EntryKind,
    pub state: State,
    pub depth: Option<u32>,
    pub attempts: u32,
    pub uncounted: u32,
    pub due_ms: Option<i64>,
    pub picture: Option<i64>,
    pub primary: Option<i64>,
    pub rank: Option<i64>,
    pub site: i64,
    pub url: Rc<str>,
    /// The number of the job that discovered it first.
    pub job: u32,
    pub queue: i64,
    pub sequence: Option<i64>,
    pub version: Option<Rc<str>>,
    pub recrawl_ms: Option<i64>,
    pub terminal_retry_ms: Option<i64>,
    pub run: Option<i64>,
    pub patch: EntryPatch,
}

/// Columns of an entry that are written and never read here; `None` for those that stay as they are.
#[derive(Clone, Debug, Default)]
pub(in crate::ledger) struct EntryPatch {
    pub final_url: Option<Option<Rc<str>>>,
    pub http_status: Option<Option<i64>>,
    pub links: Option<Option<i64>>,
    pub images: Option<Option<i64>>,
    pub reason: Option<Option<Rc<str>>>,
    pub detail: Option<Option<Rc<str>>>,
    pub headers: Option<Option<Rc<str>>>,
    pub skip: Option<Option<Rc<[u8]>>>,
    pub inline: Option<Option<Bytes>>,
    pub page_version: Option<Option<Rc<str>>>,
}

/// What is read of an entry, in the order of [`EntryRow::read`]; `run` on a server.
pub(super) const ENTRY_COLUMNS: &str = "id, key, kind, state, depth, attempts, uncounted, due_ms, picture, primary_entry, rank, site, url, \
     queue, sequence, version, recrawl_ms, terminal_retry_ms, job";

impl EntryRow {
    /// One that nothing happened to yet.
    pub fn new(id: i64, kind: EntryKind, (key, url): (Key, &str), (site, job, queue): (i64, u32, i64)) -> Self {
        Self {
            id,
            key,
            kind,
            state: State::Open,
            depth: None,
            attempts: 0,
            uncounted: 0,
            due_ms: None,
            picture: None,
            primary: None,
            rank: None,
            site,
            url: url.into(),
            job,
            queue,
            sequence: None,
            version: None,
            recrawl_ms: None,
            terminal_retry_ms: None,
            run: None,
            patch: EntryPatch::default(),
        }
    }

    pub(super) fn read(row: &Row<'_>, has_run: bool) -> Result<Self, TransactionError> {
        let rc = |text: Option<String>| text.map(Into::into);
        Ok(Self {
            id: row.get(0)?,
            key: row.get(1)?,
            kind: row.get(2)?,
            state: row.get::<StateText>(3)?.0,
            depth: row.get(4)?,
            attempts: row.get(5)?,
            uncounted: row.get(6)?,
            due_ms: row.get(7)?,
            picture: row.get(8)?,
            primary: row.get(9)?,
            rank: row.get(10)?,
            site: row.get(11)?,
            url: row.get::<String>(12)?.into(),
            queue: row.get(13)?,
            sequence: row.get(14)?,
            version: rc(row.get(15)?),
            recrawl_ms: row.get(16)?,
            terminal_retry_ms: row.get(17)?,
            job: row.get(18)?,
            run: if has_run { row.get(19)? } else { None },
            patch: EntryPatch::default(),
        })
    }

    /// Whoever opens work has it, and nobody has what is not open.
    pub fn set_state(&mut self, state: State, run: Option<i64>) {
        self.state = state;
        self.run = run.filter(|_| state == State::Open);
    }
}

impl Stored<i64> for EntryRow {
    const SHAPE: RowShape = RowShape {
        table: "entries",
        columns: &[
            ("id", Int, Identity),
            ("tenant", Int, Fixed),
            ("key", Blob, Fixed),
            ("kind", Text, Fixed),
            ("url", Text, Fixed),
            ("job", Int, Fixed),
            ("queue", Int, Fixed),
            ("state", Text, Always),
            ("depth", Int, Always),
            ("attempts", Int, Always),
            ("uncounted", Int, Always),
            ("due_ms", Int, Always),
            ("picture", Int, Always),
            ("primary_entry", Int, Always),
            ("rank", Int, Always),
            ("site", Int, Always),
            ("sequence", Int, Always),
            ("version", Text, Always),
            ("recrawl_ms", Int, Always),
            ("terminal_retry_ms", Int, Always),
            ("run", Int, Server),
            ("final_url", Text, Patch(0)),
            ("http_status", Int, Patch(1)),
            ("links", Int, Patch(2)),
            ("images", Int, Patch(3)),
            ("reason", Text, Patch(4)),
            ("detail", Text, Patch(5)),
            ("headers", Text, Patch(6)),
            ("skip", Blob, Patch(7)),
            ("inline", Blob, Patch(8)),
            ("page_version", Text, Patch(9)),
        ],
        replaces: false,
        places: Places::Apart,
    };

    fn values<'v>(&'v self, _: &'v i64, tenant: i64, out: &mut Vec<Value<'v>>) {
        let patch = &self.patch;
        let text = |text: &'v Option<Option<Rc<str>>>| Value::from(text.as_ref().and_then(Option::as_deref));
        let int = |value: Option<Option<i64>>| Value::from(value.flatten());
        out.extend_from_slice(&[
            self.id.into(),
            tenant.into(),
            self.key.into(),
            self.kind.into(),
            self.url.as_ref().into(),
            self.job.into(),
            self.queue.into(),
            StateText(self.state).into(),
            self.depth.into(),
            self.attempts.into(),
            self.uncounted.into(),
            self.due_ms.into(),
            self.picture.into(),
            self.primary.into(),
            self.rank.into(),
            self.site.into(),
            self.sequence.into(),
            self.version.as_deref().into(),
            self.recrawl_ms.into(),
            self.terminal_retry_ms.into(),
            self.run.into(),
            text(&patch.final_url),
            int(patch.http_status),
            int(patch.links),
            int(patch.images),
            text(&patch.reason),
            text(&patch.detail),
            text(&patch.headers),
            patch.skip.as_ref().and_then(Option::as_deref).into(),
            patch.inline.as_ref().and_then(Option::as_deref).into(),
            text(&patch.page_version),
        ]);
    }

    fn mask(&self) -> i64 {
        let EntryPatch { final_url, http_status, links, images, reason, detail, headers, skip, inline, page_version } =
            &self.patch;
        let set = [
            final_url.is_some(),
            http_status.is_some(),
            links.is_some(),
            images.is_some(),
            reason.is_some(),
            detail.is_some(),
            headers.is_some(),
            skip.is_some(),
            inline.is_some(),
            page_version.is_some(),
        ];
        mask(&set)
    }

    fn clean(&mut self) {
        self.patch = EntryPatch::default();
    }
}

fn mask(set: &[bool]) -> i64 {
    set.iter().enumerate().map(|(bit, set)| i64::from(*set) << bit).sum()
}

/// A distinct picture.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct PictureRow {
    pub id: i64,
    pub content: ContentId,
    pub state: State,
    pub attempts: u32,
    pub uncounted: u32,
    pub due_ms: Option<i64>,
    pub representative: Option<i64>,
    pub distance: Option<u32>,
    pub main: Option<i64>,
    pub urls: i64,
    pub behind: i64,
    pub terminal_retry_ms: Option<i64>,
    pub scale_ppm: Option<i64>,
    pub run: Option<i64>,
    pub reason: Option<Option<Rc<str>>>,
    pub detail: Option<Option<Rc<str>>>,
    /// Of a new one: what it is.
    pub new: Option<Rc<Content>>,
}

/// What is read of a picture, in the order of [`PictureRow::read`]; `run` on a server.
pub(super) const PICTURE_COLUMNS: &str = "id, content, state, attempts, uncounted, due_ms, representative, distance, main, urls, behind, \
     terminal_retry_ms, scale_ppm";

impl PictureRow {
    pub fn new(id: i64, content: &Content, run: Option<i64>) -> Self {
        Self {
            id,
            content: content.id,
            state: State::Open,
            attempts: 0,
            uncounted: 0,
            due_ms: None,
            representative: None,
            distance: None,
            main: None,
            urls: 0,
            behind: 0,
            terminal_retry_ms: None,
            scale_ppm: None,
            run,
            reason: None,
            detail: None,
            new: Some(Rc::new(content.clone())),
        }
    }

    pub(super) fn read(row: &Row<'_>, has_run: bool) -> Result<Self, TransactionError> {
        Ok(Self {
            id: row.get(0)?,
            content: row.get(1)?,
            state: row.get::<StateText>(2)?.0,
            attempts: row.get(3)?,
            uncounted: row.get(4)?,
            due_ms: row.get(5)?,
            representative: row.get(6)?,
            distance: row.get(7)?,
            main: row.get(8)?,
            urls: row.get(9)?,
            behind: row.get(10)?,
            terminal_retry_ms: row.get(11)?,
            scale_ppm: row.get(12)?,
            run: if has_run { row.get(13)? } else { None },
            reason: None,
            detail: None,
            new: None,
        })
    }

    /// Whoever opens work has it, and nobody has what is not open.
    pub fn set_state(&mut self, state: State, run: Option<i64>) {
        self.state = state;
        self.run = run.filter(|_| state == State::Open);
    }

    /// Whether no other picture stands for it.
    pub fn is_own(&self) -> bool {
        self.representative.is_none_or(|id| id == self.id)
    }
}

impl Stored<i64> for PictureRow {
    const SHAPE: RowShape = RowShape {
        table: "pictures",
        columns: &[
            ("id", Int, Identity),
            ("tenant", Int, Fixed),
            ("content", Blob, Fixed),
            ("bytes", Int, Fixed),
            ("format", Text, Fixed),
            ("width", Int, Fixed),
            ("height", Int, Fixed),
            ("state", Text, Always),
            ("attempts", Int, Always),
            ("uncounted", Int, Always),
            ("due_ms", Int, Always),
            ("representative", Int, Always),
            ("distance", Int, Always),
            ("main", Int, Always),
            ("urls", Int, Always),
            ("behind", Int, Always),
            ("terminal_retry_ms", Int, Always),
            ("scale_ppm", Int, Always),
            ("run", Int, Server),
            ("reason", Text, Patch(0)),
            ("detail", Text, Patch(1)),
        ],
        replaces: false,
        places: Places::Apart,
    };

    fn values<'v>(&'v self, _: &'v i64, tenant: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[self.id.into(), tenant.into(), (&self.content).into()]);
        match &self.new {
            Some(content) => out.extend_from_slice(&[
                (content.bytes as i64).into(),
                content.format.as_str().into(),
                content.width.into(),
                content.height.into(),
            ]),
            // What never changes is not written again.
            None => out.extend_from_slice(&[Value::Null; 4]),
        }
        out.extend_from_slice(&[
            StateText(self.state).into(),
            self.attempts.into(),
            self.uncounted.into(),
            self.due_ms.into(),
            self.representative.into(),
            self.distance.into(),
            self.main.into(),
            self.urls.into(),
            self.behind.into(),
            self.terminal_retry_ms.into(),
            self.scale_ppm.into(),
            self.run.into(),
            self.reason.as_ref().and_then(Option::as_deref).into(),
            self.detail.as_ref().and_then(Option::as_deref).into(),
        ]);
    }

    fn mask(&self) -> i64 {
        mask(&[self.reason.is_some(), self.detail.is_some()])
    }

    fn clean(&mut self) {
        (self.reason, self.detail, self.new) = (None, None, None);
    }
}

/// An entry of the site lists.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct SiteRow {
    pub url: Rc<str>,
    pub pages: i64,
    pub images: i64,
    pub sequences: i64,
    pub removed: bool,
    pub list: Option<Rc<str>>,
}

/// What is read of a site, in the order of [`SiteRow::read`].
pub(super) const SITE_COLUMNS: &str = "id, url, pages, images, sequences, removed, list";

impl SiteRow {
    pub(super) fn read(row: &Row<'_>) -> Result<(i64, Self), TransactionError> {
        let site = Self {
            url: row.get::<String>(1)?.into(),
            pages: row.get(2)?,
            images: row.get(3)?,
            sequences: row.get(4)?,
            removed: row.get(5)?,
            list: row.get::<Option<String>>(6)?.map(Into::into),
        };
        Ok((row.get(0)?, site))
    }
}

impl Stored<i64> for SiteRow {
    const SHAPE: RowShape = RowShape {
        table: "sites",
        columns: &[
            ("id", Int, Identity),
            ("tenant", Int, Fixed),
            ("url", Text, Fixed),
            ("pages", Int, Always),
            ("images", Int, Always),
            ("sequences", Int, Always),
            ("removed", Bool, Always),
            ("list", Text, Always),
        ],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, id: &'v i64, tenant: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[
            (*id).into(),
            tenant.into(),
            self.url.as_ref().into(),
            self.pages.into(),
            self.images.into(),
            self.sequences.into(),
            self.removed.into(),
            self.list.as_deref().into(),
        ]);
    }
}

/// That a page shows an image: `(image, page)`.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct PageImage;

impl Stored<(i64, i64)> for PageImage {
    const SHAPE: RowShape = RowShape {
        table: "page_images",
        columns: &[("image", Int, Identity), ("page", Int, Identity)],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, (image, page): &'v (i64, i64), _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[(*image).into(), (*page).into()]);
    }
}

/// That an image counts towards a site's budget: `(site, image)`.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct SiteImage;

impl Stored<(i64, i64)> for SiteImage {
    const SHAPE: RowShape = RowShape {
        table: "site_images",
        columns: &[("site", Int, Identity), ("image", Int, Identity)],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, (site, image): &'v (i64, i64), _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[(*site).into(), (*image).into()]);
    }
}

/// That an image offers another address of its picture, and how good that is: `(image, alternate)`.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct Offer {
    pub rank: i64,
}

impl Stored<(i64, i64)> for Offer {
    const SHAPE: RowShape = RowShape {
        table: "offers",
        columns: &[("image", Int, Identity), ("alternate", Int, Identity), ("rank", Int, Always)],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, (image, alternate): &'v (i64, i64), _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[(*image).into(), (*alternate).into(), self.rank.into()]);
    }
}

/// What a page that was read before its turn leads to: `(site, sequence)`.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Buffered {
    pub page: i64,
    pub body: Rc<str>,
}

impl Stored<(i64, i64)> for Buffered {
    const SHAPE: RowShape = RowShape {
        table: "reorder_buffer",
        columns: &[("site", Int, Identity), ("sequence", Int, Identity), ("page", Int, Fixed), ("body", Text, Fixed)],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, (site, sequence): &'v (i64, i64), _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[(*site).into(), (*sequence).into(), self.page.into(), self.body.as_ref().into()]);
    }
}

/// A perceptual hash of a picture: `(picture, kind, version)`. It is not read, and made with its picture.
pub(in crate::ledger) type HashId = (i64, HashKind, u16);

#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct HashRow {
    pub bits: HashBits,
    pub distinctive: bool,
}

impl Stored<HashId> for HashRow {
    const SHAPE: RowShape = RowShape {
        table: "hashes",
        columns: &[
            ("picture", Int, Identity),
            ("kind", Text, Identity),
            ("version", Int, Identity),
            ("bits", Blob, Fixed),
            ("distinctive", Bool, Fixed),
        ],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, (picture, kind, version): &'v HashId, _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[
            (*picture).into(),
            kind.name().into(),
            (*version).into(),
            self.bits.as_bytes().into(),
            self.distinctive.into(),
        ]);
    }
}

/// What an engine answered. It is not read: a new answer replaces the one before.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct DetectionRow {
    pub faces: i64,
    pub body: Rc<str>,
}

impl Stored<i64> for DetectionRow {
    const SHAPE: RowShape = RowShape {
        table: "detections",
        columns: &[("picture", Int, Identity), ("faces", Int, Always), ("body", Text, Always)],
        replaces: true,
        places: Places::Together,
    };

    fn values<'v>(&'v self, picture: &'v i64, _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[(*picture).into(), self.faces.into(), self.body.as_ref().into()]);
    }
}
