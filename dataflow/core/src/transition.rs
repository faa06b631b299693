//! The states of an entry of the ledger, and the one function that says which steps between them are legal.

use serde::{Deserialize, Serialize};

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
