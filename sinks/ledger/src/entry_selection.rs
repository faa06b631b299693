//! Which entries lines are read of: the next ones in the order of their URLs, or those with certain numbers.

use crate::column_codecs::EntryKind;
use crate::database::{DbTransaction, Value};
use crate::sql::Sql;

/// Numbers that can be named at once. Every statement has room for as many, so that it stays one prepared statement.
pub const THESE_MAX: usize = 32;

/// The next entries of a kind by URL: from after ?3. SQLite finds its index by itself.
/// A server has them in order by the first 500 characters only, since what an index
/// holds is limited there, and sorts those that share them.
const NEXT: Sql = Sql {
    sqlite: "(SELECT * FROM entries WHERE tenant = ?1 AND kind = ?2 AND url > ?3
        ORDER BY url LIMIT ",
    postgres: "(SELECT * FROM entries WHERE tenant = ?1 AND kind = ?2 AND left(url, 500) >= left(?3, 500) AND url > ?3
        ORDER BY left(url, 500), url LIMIT ",
};

/// Entries of one tenant.
pub enum EntrySelection<'a> {
    /// Those of a kind that come next after a URL, in the order of their URLs.
    Next {
        /// Pages or images.
        kind: EntryKind,
        /// The URL before the first of them.
        after: &'a str,
        /// So many at most.
        max: usize,
    },
    /// Those with these numbers, [`THESE_MAX`] at most; whoever names them knows that they are the tenant's.
    These(&'a [i64]),
}

impl EntrySelection<'_> {
    /// What to select from, as `e`.
    pub fn from(&self, tx: &DbTransaction<'_>) -> String {
        match self {
            // How many is said in words, so that a server plans for as many.
            Self::Next { max, .. } => format!("{}{max}) e", NEXT.of(tx)),
            Self::These(_) => format!("(SELECT * FROM entries WHERE id IN ({})) e", numbers()),
        }
    }

    /// What the placeholders in it stand for.
    pub fn values(&self, tenant: i64) -> Vec<Value<'_>> {
        match self {
            Self::Next { kind, after, .. } => vec![tenant.into(), (*kind).into(), (*after).into()],
            Self::These(ids) => these(ids),
        }
    }
}

/// `?1, ?2, …` for as many numbers as can be named.
pub fn numbers() -> String {
    (1..=THESE_MAX).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ")
}

/// What [`numbers`] stands for; places that are left over name nothing.
pub fn these(ids: &[i64]) -> Vec<Value<'static>> {
    assert!(ids.len() <= THESE_MAX, "{} numbers are more than a statement has room for", ids.len());
    let nothing = std::iter::repeat_n(-1, THESE_MAX - ids.len());
    ids.iter().copied().chain(nothing).map(Value::from).collect()
}
