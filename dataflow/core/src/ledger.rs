//! The ledger is the truth: facts, the states they lead to, and the one function that says which steps are legal.
//!
//! Facts are appended and never changed; states are derived from them. Everything that must survive a kill is a fact, and
//! a fact is written only after the outputs it speaks of exist.

use serde::{Deserialize, Serialize};

use crate::Future;
use crate::clock::Time;
use crate::record::{Admitted, Content, ContentId, Delivered, Fate, Kept, Key, Lane, Ruling, Work};

/// Something that happened and stays true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// Pages and images were discovered (and, with a visit, the page that shows them is done). One transaction: a page is
    /// never done before everything it leads to is known.
    Admitted(Admitted),
    /// A try failed: when it is due again, or why it never will be.
    Fate(Fate),
    /// An image's bytes are in the store.
    Kept(Kept),
    /// A picture's faces and crops are in the store.
    Delivered(Delivered),
    /// A picture has another representative than before.
    Ruled(Ruling),
}

/// A record that carries a fact to the ledger.
pub trait AsFact {
    /// The fact.
    fn fact(&self) -> Fact;

    /// The work that came to an end with it, for now or for good.
    fn ends(&self) -> Option<Key>;
}

macro_rules! carries {
    ($($record:ident as $variant:ident, $self:ident ends $key:expr;)*) => {$(
        impl AsFact for $record {
            fn fact(&self) -> Fact {
                Fact::$variant(self.clone())
            }

            fn ends(&$self) -> Option<Key> {
                $key
            }
        }
    )*};
}
carries! {
    Admitted as Admitted, self ends self.visit.as_ref().map(|visit| visit.page.key());
    Fate as Fate, self ends Some(self.work().key());
    Kept as Kept, self ends Some(self.image.key());
    // A degraded answer does not: its fate follows.
    Delivered as Delivered, self ends (!self.detection.degraded()).then(|| self.frame.key());
    Ruling as Ruled, self ends None;
}

/// The state of one discovered URL, page or image, or of one picture's detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Known only as another address of a picture that is expected from elsewhere.
    Alternate,
    /// Owed.
    Open,
    /// A page: read. An image: its bytes are kept, and its status is its picture's. A picture: detected.
    Settled,
    /// A rule or the answer itself says no.
    Rejected,
    /// Every attempt failed.
    Dead,
}

/// What can happen to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// It was discovered, or reached again on a shorter way.
    Admit,
    /// It was seen as another address of a picture.
    Offer,
    /// A try failed and will be repeated.
    Retry,
    /// A try failed for good.
    Reject,
    /// The last try failed.
    Die,
    /// It succeeded.
    Settle,
    /// The user, or a picture's need for a twin, wants it tried again.
    Redrive,
}

/// Which state an event leads to: the whole of the legal transitions.
///
/// `Ok(None)` means the event changes nothing (it was known already); `Err` means that a promise was broken, and the
/// ledger refuses the fact.
pub fn transition(state: Option<State>, event: Event) -> Result<Option<State>, IllegalTransition> {
    use Event::{Admit, Die, Offer, Redrive, Reject, Retry, Settle};
    use State::{Alternate, Dead, Open, Rejected, Settled};
    match (state, event) {
        (None | Some(Alternate), Admit) => Ok(Some(Open)),
        (Some(Open | Settled | Rejected | Dead), Admit) => Ok(None),
        (None, Offer) => Ok(Some(Alternate)),
        (Some(_), Offer) => Ok(None),
        (Some(Open), Retry) => Ok(Some(Open)),
        (Some(Open), Reject) => Ok(Some(Rejected)),
        (Some(Open), Die) => Ok(Some(Dead)),
        (Some(Open), Settle) => Ok(Some(Settled)),
        // A page reached again on a shorter way may be read twice; the first reading settled it.
        (Some(Settled), Settle | Retry | Reject | Die) => Ok(None),
        (Some(Alternate | Rejected | Dead), Redrive) => Ok(Some(Open)),
        (Some(Open | Settled), Redrive) => Ok(None),
        (None, Retry | Reject | Die | Settle | Redrive)
        | (Some(Alternate | Rejected | Dead), Retry | Reject | Die | Settle) => Err(IllegalTransition { state, event }),
    }
}

/// A step that [`transition`] does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry in state {state:?} cannot take the step {event:?}")]
pub struct IllegalTransition {
    /// The state the entry is in.
    pub state: Option<State>,
    /// What was to happen to it.
    pub event: Event,
}

/// Why the ledger did not do what it was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LedgerError {
    /// A promise was broken: the fact names an entry that cannot take that step.
    #[error("{key}: {step}")]
    Illegal {
        /// The URL or picture.
        key: String,
        /// The step.
        step: IllegalTransition,
    },
    /// The storage below failed.
    #[error("the ledger at {place} failed: {reason}")]
    Storage {
        /// The file or server.
        place: String,
        /// Its words.
        reason: String,
    },
}

/// A picture the ledger knows, as the duplicate index needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownPicture {
    /// What it is.
    pub content: Content,
    /// Whether its detection is owed, settled or dead.
    pub state: State,
    /// Whether a retry of its detection is already scheduled.
    pub retrying: bool,
    /// Whether a degraded answer is kept while its full detection is owed.
    pub weak: bool,
    /// Who stands for it by the last ruling.
    pub representative: Option<ContentId>,
}

/// Work that is open in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Where it waits.
    pub lane: Lane,
    /// When the first of it is due; 0 for at once.
    pub due: Time,
    /// Whether it is a settled page that is to be looked at again, or something that ended badly and is tried nevertheless.
    pub again: bool,
}

/// What is wanted of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The lane.
    pub lane: Lane,
    /// Work to give out, at most.
    pub max: usize,
    /// What was given out before and has not come to an end: it is not given out again.
    pub held: Vec<Key>,
    /// Whether settled pages are looked at again, and what ended badly is tried nevertheless.
    pub again: bool,
}

/// What a lane gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The lane.
    pub lane: Lane,
    /// Work that is due: retries first, the longest due before the others, then what is new in the order of its discovery,
    /// then settled pages that are looked at again, then what ended badly and is tried nevertheless.
    pub work: Vec<Work>,
    /// When the first of the rest is due, if there is any; 0 for at once.
    pub next: Option<Time>,
}

/// How many entries are in each state, as users see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Everything discovered.
    pub discovered: u64,
    /// Settled with an answer of its own.
    pub done: u64,
    /// Settled by its representative's answer.
    pub duplicate: u64,
    /// Settled by a rule or a refusal.
    pub rejected: u64,
    /// Out of attempts.
    pub dead: u64,
    /// Owed.
    pub open: u64,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { discovered, done, duplicate, rejected, dead, open } = self;
        write!(
            out,
            "{discovered} discovered: {done} done, {duplicate} duplicate, {rejected} rejected, {dead} dead, {open} open"
        )
    }
}

/// A law of the books that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What should be true.
    pub law: &'static str,
    /// URLs, pictures or counts of which it is not.
    pub keys: Vec<String>,
    /// Whether there are more of them.
    pub more: bool,
}

impl Broken {
    /// The law if there is something that breaks it, of which at most `keys_max` are named.
    pub fn of(law: &'static str, mut keys: Vec<String>, keys_max: usize) -> Option<Self> {
        let more = keys.len() > keys_max;
        keys.truncate(keys_max);
        (more || !keys.is_empty()).then_some(Self { law, keys, more })
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.more { " and more" } else { "" };
        write!(out, "not so that {}: {}{more}", self.law, self.keys.join(", "))
    }
}

/// The durable truth of one tenant.
pub trait Ledger: Send + Sync {
    /// Appends a fact; resolves once it is durable, to what is open now because of it, each lane once. Facts are written in
    /// the order of their appends.
    fn append(&self, fact: Fact) -> Future<Result<Vec<Opened>, LedgerError>>;

    /// Calls `each` with every lane that may have open work of ours (pages, images, frames whose retry is scheduled), and if
    /// `again`, with every lane that has settled pages to be looked at again, or what ended badly and is tried nevertheless, and
    /// when the first of that is due. A lane may be named more than once.
    fn lanes(&self, again: bool, each: &mut dyn FnMut(Opened)) -> Result<(), LedgerError>;

    /// What lanes have to give that is due by `now`; an answer for each that was asked, and after these perhaps for others.
    fn claim(&self, now: Time, asks: &[Ask]) -> Result<Vec<Claimed>, LedgerError>;

    /// Calls `each` with every known picture.
    fn known_pictures(&self, each: &mut dyn FnMut(KnownPicture)) -> Result<(), LedgerError>;

    /// Pages and images by state: `(pages, images)`.
    fn tally(&self) -> Result<(Tally, Tally), LedgerError>;

    /// Counts everything anew: which laws do not hold, with at most `keys_max` of what breaks each. It may take long. Whoever
    /// keeps no rows has nothing to say.
    fn audit(&self, keys_max: usize) -> Result<Vec<Broken>, LedgerError> {
        let _ = keys_max;
        Ok(vec![])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [Option<State>; 6] = [
        None,
        Some(State::Alternate),
        Some(State::Open),
        Some(State::Settled),
        Some(State::Rejected),
        Some(State::Dead),
    ];
    const EVENTS: [Event; 7] =
        [Event::Admit, Event::Offer, Event::Retry, Event::Reject, Event::Die, Event::Settle, Event::Redrive];

    #[test]
    fn every_pair_of_state_and_event_is_as_the_table_says() {
        // Rows: states; columns: Admit Offer Retry Reject Die Settle Redrive. '=' changes nothing, '!' is refused.
        let table = ["OA!!!!!", "O=!!!!O", "==ORDSx", "=======", "==!!!!O", "==!!!!O"];
        for (row, state) in table.iter().zip(STATES) {
            for (cell, event) in row.chars().zip(EVENTS) {
                let expected = match cell {
                    'O' => Ok(Some(State::Open)),
                    'A' => Ok(Some(State::Alternate)),
                    'S' => Ok(Some(State::Settled)),
                    'R' => Ok(Some(State::Rejected)),
                    'D' => Ok(Some(State::Dead)),
                    '!' => Err(IllegalTransition { state, event }),
                    _ => Ok(None),
                };
                assert_eq!(transition(state, event), expected, "{state:?} {event:?}");
            }
        }
    }
}
