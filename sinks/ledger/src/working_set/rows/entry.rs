//! Rows of discovered URLs.

use std::rc::Rc;

use bytes::Bytes;
use faceflow_core::record::Key;
use faceflow_core::transition::State;

use super::{Stored, mask};
use crate::column_codecs::{EntryKind, StateText};
use crate::error::TransactionError;
use crate::new_rows::Places;
use crate::value::{Row, Value};
use crate::working_set::row_statements::Kind::{Blob, Int, Text};
use crate::working_set::row_statements::Role::{Always, Fixed, Key as Identity, Patch, Server};
use crate::working_set::row_statements::RowShape;

/// A discovered URL.
#[derive(Clone, Debug)]
pub(crate) struct EntryRow {
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
pub(crate) struct EntryPatch {
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
pub(in crate::working_set) const ENTRY_COLUMNS: &str = "id, key, kind, state, depth, attempts, uncounted, due_ms, picture, primary_entry, rank, site, url, \
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

    pub(in crate::working_set) fn read(row: &Row<'_>, has_run: bool) -> Result<Self, TransactionError> {
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
