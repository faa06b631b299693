//! How keys, states and records are written in columns, and read back.

use faceflow_core::ledger::{IllegalTransition, LedgerError, State};
use faceflow_core::record::{Content, ContentId, Key, Phash};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{OptionalExtension, Params, Row};
use url::Url;

use super::schema::Place;

/// Why a statement or a fact failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The fact names an entry that cannot take that step.
    Illegal { key: String, step: IllegalTransition },
    /// SQLite refused.
    Sql(rusqlite::Error),
    /// The file holds something that we did not write.
    Damaged(String),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Trouble {
    /// The error that callers see.
    pub(super) fn at(self, place: &Place) -> LedgerError {
        let reason = match self {
            Self::Illegal { key, step } => return LedgerError::Illegal { key, step },
            Self::Sql(error) => error.to_string(),
            Self::Damaged(what) => format!("the file is damaged: {what}"),
        };
        LedgerError::Storage { place: place.file().display().to_string(), reason }
    }
}

/// A state as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub State);

const WORDS: [(State, &str); 5] = [
    (State::Alternate, "alternate"),
    (State::Open, "open"),
    (State::Settled, "settled"),
    (State::Rejected, "rejected"),
    (State::Dead, "dead"),
];

impl FromSql for Word {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        WORDS.iter().find(|(_, word)| *word == text).map(|(state, _)| Self(*state)).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for Word {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let word = WORDS.iter().find(|(state, _)| *state == self.0).map_or("", |(_, word)| *word);
        Ok(ToSqlOutput::Borrowed(word.into()))
    }
}

/// Pages and images share a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Page,
    Image,
}

impl EntryKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Image => "image",
        }
    }
}

impl FromSql for EntryKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "page" => Ok(Self::Page),
            "image" => Ok(Self::Image),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl ToSql for EntryKind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.word().into()))
    }
}

/// A key as 16 bytes.
pub(crate) fn key_bytes(key: Key) -> [u8; 16] {
    key.0.to_be_bytes()
}

/// The key in a column.
pub(super) fn key_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Key> {
    Ok(Key(u128::from_be_bytes(row.get(column)?)))
}

/// Keys one after the other, 16 bytes each; `None` for no keys.
pub(super) fn join_keys(keys: &[Key]) -> Option<Vec<u8>> {
    (!keys.is_empty()).then(|| keys.iter().flat_map(|key| key_bytes(*key)).collect())
}

/// The reverse of [`join_keys`].
pub(super) fn split_keys(bytes: Option<Vec<u8>>) -> Vec<Key> {
    let bytes = bytes.unwrap_or_default();
    let key = |chunk: &[u8]| Key(u128::from_be_bytes(std::array::from_fn(|i| chunk[i])));
    bytes.chunks_exact(16).map(key).collect()
}

/// A URL that we wrote.
pub(crate) fn parse_url(text: &str) -> Result<Url, Trouble> {
    Url::parse(text).map_err(|error| Trouble::Damaged(format!("{text:?} is not a URL: {error}")))
}

/// The columns of a picture's content, in the order that [`content_at`] reads them, for the table alias `p`.
pub(crate) const CONTENT: &str = "p.content, p.bytes, p.format, p.width, p.height, p.phash, p.distinctive";

/// The content whose columns begin at `first`.
pub(crate) fn content_at(row: &Row<'_>, first: usize) -> rusqlite::Result<Content> {
    Ok(Content {
        id: ContentId(row.get(first)?),
        bytes: row.get::<_, i64>(first + 1)? as u64,
        format: row.get(first + 2)?,
        width: row.get(first + 3)?,
        height: row.get(first + 4)?,
        phash: Phash { bits: row.get::<_, i64>(first + 5)? as u64, distinctive: row.get(first + 6)? },
    })
}

/// One row or none.
pub(crate) fn one<T>(
    connection: &rusqlite::Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(params, read).optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_states_survive_their_columns() {
        let keys = vec![Key(0), Key(u128::MAX), Key(0x0123_4567 << 90)];
        assert_eq!(split_keys(join_keys(&keys)), keys);
        assert_eq!(split_keys(join_keys(&[])), []);
        for (state, word) in WORDS {
            assert_eq!(Word::column_result(ValueRef::Text(word.as_bytes())), Ok(Word(state)));
            assert_eq!(Word(state).to_sql().expect("writes"), ToSqlOutput::Borrowed(word.into()));
        }
    }
}
