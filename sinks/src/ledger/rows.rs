//! How keys, states and records are written in columns, and read back.

use faceflow_core::record::{Content, Key, Phash};
use faceflow_core::transition::State;
use url::Url;

pub(crate) use super::error::TransactionError;
use super::value::{Cell, Column, Row, Value};

/// A state as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateText(pub State);

const WORDS: [(State, &str); 5] = [
    (State::Alternate, "alternate"),
    (State::Open, "open"),
    (State::Settled, "settled"),
    (State::Rejected, "rejected"),
    (State::Dead, "dead"),
];

impl StateText {
    fn text(self) -> &'static str {
        WORDS.iter().find(|(state, _)| *state == self.0).map_or("", |(_, word)| *word)
    }
}

impl Column for StateText {
    const NAME: &'static str = "state";

    fn of(cell: Cell<'_>) -> Option<Self> {
        let Cell::Text(text) = cell else { return None };
        WORDS.iter().find(|(_, word)| *word == text).map(|(state, _)| Self(*state))
    }
}

impl From<StateText> for Value<'_> {
    fn from(word: StateText) -> Self {
        Self::Text(word.text())
    }
}

/// Pages and images share a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl Column for EntryKind {
    const NAME: &'static str = "kind";

    fn of(cell: Cell<'_>) -> Option<Self> {
        match cell {
            Cell::Text("page") => Some(Self::Page),
            Cell::Text("image") => Some(Self::Image),
            _ => None,
        }
    }
}

impl From<EntryKind> for Value<'_> {
    fn from(kind: EntryKind) -> Self {
        Self::Text(kind.word())
    }
}

/// Keys one after the other, 16 bytes each; `None` for no keys.
pub(super) fn join_keys(keys: &[Key]) -> Option<Vec<u8>> {
    (!keys.is_empty()).then(|| keys.iter().flat_map(|key| key.0.to_be_bytes()).collect())
}

/// The reverse of [`join_keys`].
pub(super) fn split_keys(bytes: Option<Vec<u8>>) -> Vec<Key> {
    let bytes = bytes.unwrap_or_default();
    let key = |chunk: &[u8]| Key(u128::from_be_bytes(std::array::from_fn(|i| chunk[i])));
    bytes.chunks_exact(16).map(key).collect()
}

/// A URL that we wrote.
pub(crate) fn parse_url(text: &str) -> Result<Url, TransactionError> {
    Url::parse(text).map_err(|error| TransactionError::Damaged(format!("{text:?} is not a URL: {error}")))
}

/// The columns of a picture's content, in the order that [`content_at`] reads them, for the table alias `p`.
pub(crate) const CONTENT: &str = "p.content, p.bytes, p.format, p.width, p.height, p.phash, p.distinctive";

/// The content whose columns begin at `first`.
pub(crate) fn content_at(row: &Row<'_>, first: usize) -> Result<Content, TransactionError> {
    Ok(Content {
        id: row.get(first)?,
        bytes: row.get::<i64>(first + 1)? as u64,
        format: row.get(first + 2)?,
        width: row.get(first + 3)?,
        height: row.get(first + 4)?,
        phash: Phash { bits: row.get::<i64>(first + 5)? as u64, distinctive: row.get(first + 6)? },
    })
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
            assert_eq!(StateText::of(Cell::Text(word)), Some(StateText(state)));
            assert_eq!(Value::from(StateText(state)), Value::Text(word));
        }
    }
}
