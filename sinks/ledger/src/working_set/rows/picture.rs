//! Rows of distinct pictures.

use std::rc::Rc;

use faceflow_core::record::{Content, ContentId};
use faceflow_core::transition::State;

use super::{Stored, mask};
use crate::column_codecs::StateText;
use crate::error::TransactionError;
use crate::new_rows::Places;
use crate::value::{Row, Value};
use crate::working_set::row_statements::Kind::{Blob, Int, Text};
use crate::working_set::row_statements::Role::{Always, Fixed, Key as Identity, Patch, Server};
use crate::working_set::row_statements::RowShape;

/// A distinct picture.
#[derive(Clone, Debug)]
pub(crate) struct PictureRow {
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
pub(in crate::working_set) const PICTURE_COLUMNS: &str = "id, content, state, attempts, uncounted, due_ms, representative, distance, main, urls, behind, \
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

    pub(in crate::working_set) fn read(row: &Row<'_>, has_run: bool) -> Result<Self, TransactionError> {
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
