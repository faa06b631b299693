//! Rows of hosts that fail.

use std::rc::Rc;

use faceflow_core::Class;

use super::Stored;
use crate::column_codecs::ClassText;
use crate::error::TransactionError;
use crate::new_rows::Places;
use crate::value::{Row, Value};
use crate::working_set::row_statements::Kind::{Bool, Int, Text};
use crate::working_set::row_statements::Role::{Always, Fixed, Key as Identity};
use crate::working_set::row_statements::RowShape;

/// A failing host: its tenant, the number of a job, and its queue.
pub(crate) type HostKey = (i64, i64, i64);

/// What is known of a host that fails.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostRow {
    /// Its name and port.
    pub name: Rc<str>,
    pub failures: u32,
    pub since_ms: i64,
    pub not_before_ms: i64,
    pub given_up: bool,
    pub class: Class,
    pub reason: Rc<str>,
    pub detail: Rc<str>,
}

/// What is read of a host, in the order of [`HostRow::read`].
pub(crate) const HOST_COLUMNS: &str =
    "tenant, job, queue, name, failures, since_ms, not_before_ms, given_up, class, reason, detail";

impl HostRow {
    pub(crate) fn read(row: &Row<'_>) -> Result<(HostKey, Self), TransactionError> {
        let host = Self {
            name: row.get::<String>(3)?.into(),
            failures: row.get(4)?,
            since_ms: row.get(5)?,
            not_before_ms: row.get(6)?,
            given_up: row.get(7)?,
            class: row.get::<ClassText>(8)?.0,
            reason: row.get::<String>(9)?.into(),
            detail: row.get::<String>(10)?.into(),
        };
        Ok(((row.get(0)?, row.get(1)?, row.get(2)?), host))
    }
}

impl Stored<HostKey> for HostRow {
    const SHAPE: RowShape = RowShape {
        table: "hosts",
        columns: &[
            ("tenant", Int, Identity),
            ("job", Int, Identity),
            ("queue", Int, Identity),
            ("name", Text, Fixed),
            ("failures", Int, Always),
            ("since_ms", Int, Always),
            ("not_before_ms", Int, Always),
            ("given_up", Bool, Always),
            ("class", Text, Always),
            ("reason", Text, Always),
            ("detail", Text, Always),
        ],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, (tenant, job, queue): &'v HostKey, _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[
            (*tenant).into(),
            (*job).into(),
            (*queue).into(),
            self.name.as_ref().into(),
            self.failures.into(),
            self.since_ms.into(),
            self.not_before_ms.into(),
            self.given_up.into(),
            ClassText(self.class).into(),
            self.reason.as_ref().into(),
            self.detail.as_ref().into(),
        ]);
    }
}
