//! The ledger is the truth: facts, the states they lead to, and the one function that says which steps are legal.
//!
//! Facts are appended and never changed; states are derived from them. Everything that must survive a kill is a fact, and
//! a fact is written only after the outputs it speaks of exist.

use serde::{Deserialize, Serialize};

use crate::Future;
use crate::clock::Time;
use crate::record::{Admitted, Content, ContentId, Delivered, Fate, Image, Kept, Key, Ruling, Work};

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
}

macro_rules! carries {
    ($($record:ident as $variant:ident),*) => {$(
        impl AsFact for $record {
            fn fact(&self) -> Fact {
                Fact::$variant(self.clone())
            }
        }
    )*};
}
carries!(Admitted as Admitted, Fate as Fate, Kept as Kept, Delivered as Delivered, Ruling as Ruled);

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
    /// Who stands for it by the last ruling.
    pub representative: Option<ContentId>,
}

/// A site whose crawl is not finished, as the frontier needs it to go on where it was.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenSite {
    /// Its entry in the site list.
    pub site: url::Url,
    /// Pages admitted for it so far.
    pub pages: u64,
    /// The images that its pages showed so far and that count towards its budget.
    pub images: Vec<Key>,
    /// Its open pages that have not failed yet, in the order in which they were admitted.
    pub turns: Vec<Key>,
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

/// The durable truth of one tenant.
pub trait Ledger: Send + Sync {
    /// Appends a fact; resolves once it is durable. Returns images that the fact opened: another address of a picture
    /// whose expected one failed.
    fn append(&self, fact: Fact) -> Future<Result<Vec<Image>, LedgerError>>;

    /// Calls `each` with the key and depth of every known page.
    fn known_pages(&self, each: &mut dyn FnMut(Key, u32)) -> Result<(), LedgerError>;

    /// Calls `each` with the key of every known image that is more than an alternate.
    fn known_images(&self, each: &mut dyn FnMut(Key)) -> Result<(), LedgerError>;

    /// Calls `each` with every known picture.
    fn known_pictures(&self, each: &mut dyn FnMut(KnownPicture)) -> Result<(), LedgerError>;

    /// Up to `max` open entries after the position `after` (0 at first): position, due time (0 for at once) and work.
    /// Pages, images, and frames whose retry is scheduled; entries opened later than the first call may or may not be
    /// included.
    fn open_work(&self, after: u64, max: usize) -> Result<Vec<(u64, Time, Work)>, LedgerError>;

    /// Calls `each` with every site that has open pages.
    fn open_sites(&self, each: &mut dyn FnMut(OpenSite)) -> Result<(), LedgerError>;

    /// Pages and images by state: `(pages, images)`.
    fn tally(&self) -> Result<(Tally, Tally), LedgerError>;
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
