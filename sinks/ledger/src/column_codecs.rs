//! How keys, states and records are written in columns, and read back.

use faceflow_core::Class;
use faceflow_core::record::{Content, HashBits, HashKind, Hashes, Key, PerceptualHash};
use faceflow_core::transition::State;
use url::Url;

use super::database::DbTransaction;
pub(crate) use super::error::TransactionError;
use super::sql::Sql;
use super::value::{Cell, Column, Row, Value};

/// A state as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateText(pub State);

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

/// The class of a fault as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassText(pub Class);

const CLASSES: [(Class, &str); 11] = [
    (Class::Dns, "dns"),
    (Class::Connect, "connect"),
    (Class::Timeout, "timeout"),
    (Class::Protocol, "protocol"),
    (Class::Busy, "busy"),
    (Class::Refused, "refused"),
    (Class::Policy, "policy"),
    (Class::Content, "content"),
    (Class::Store, "store"),
    (Class::Engine, "engine"),
    (Class::Panic, "panic"),
];

impl Column for ClassText {
    const NAME: &'static str = "class";

    fn of(cell: Cell<'_>) -> Option<Self> {
        let Cell::Text(text) = cell else { return None };
        CLASSES.iter().find(|(_, word)| *word == text).map(|(class, _)| Self(*class))
    }
}

impl From<ClassText> for Value<'_> {
    fn from(class: ClassText) -> Self {
        Self::Text(CLASSES.iter().find(|(known, _)| *known == class.0).map_or("", |(_, word)| *word))
    }
}

/// Pages and images share a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A page.
    Page,
    /// An image URL.
    Image,
}

impl EntryKind {
    /// As the column says it.
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

/// The hashes of the picture `p`, in one column.
const HASHES: Sql = Sql {
    sqlite: "(SELECT group_concat(h.kind || ' ' || h.version || ' ' || h.distinctive || ' ' || hex(h.bits))
        FROM hashes h WHERE h.picture = p.id)",
    postgres: "(SELECT string_agg(h.kind || ' ' || h.version || ' ' || CAST(h.distinctive AS INT) || ' ' || encode(h.bits, 'hex'), ',')
        FROM hashes h WHERE h.picture = p.id)",
};

/// The columns of a picture's content, in the order that [`content_at`] reads them, for the table alias `p`.
pub(crate) fn content_columns(tx: &DbTransaction<'_>) -> String {
    format!("p.content, p.bytes, p.format, p.width, p.height, {}", HASHES.of(tx))
}

/// The content whose columns begin at `first`.
pub(crate) fn content_at(row: &Row<'_>, first: usize) -> Result<Content, TransactionError> {
    Ok(Content {
        id: row.get(first)?,
        bytes: row.get::<i64>(first + 1)? as u64,
        format: row.get(first + 2)?,
        width: row.get(first + 3)?,
        height: row.get(first + 4)?,
        hashes: hashes(&row.get::<Option<String>>(first + 5)?.unwrap_or_default())?,
    })
}

/// Hashes as [`HASHES`] lists them. Of a kind that a newer faceflow has made nothing is known here.
fn hashes(text: &str) -> Result<Hashes, TransactionError> {
    let hash = |text: &str| {
        let mut words = text.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let kind = HashKind::of_name(word())?;
        let (version, distinctive) = (word().parse().map_err(|_| "its version is no number"), word() == "1");
        let bits = HashBits::try_from(word().to_owned());
        let hash = version.and_then(|version| Ok(PerceptualHash { kind, version, bits: bits?, distinctive }));
        Some(hash.map_err(|why| TransactionError::Damaged(format!("the hash {text:?} of a picture: {why}"))))
    };
    text.split(',').filter_map(hash).collect::<Result<Vec<_>, _>>().map(Hashes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_back_and_those_of_unknown_kinds_left_out() {
        let one = PerceptualHash::dct64(0xabc, true);
        let old = PerceptualHash { version: 0, distinctive: false, ..one };
        let text = "dct64 1 1 0000000000000ABC,of-tomorrow 1 1 00,dct64 0 0 0000000000000abc";
        let read = |text| hashes(text).map_err(|error| error.to_string());
        assert_eq!(read(text), Ok(vec![one, old].into()));
        assert_eq!(read(""), Ok(vec![].into()));
        for damaged in ["dct64 one 1 00", "dct64 1 1", "dct64 1 1 xy"] {
            let refused = read(damaged).expect_err("is damaged");
            assert!(refused.contains(damaged), "{refused}");
        }
    }

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
