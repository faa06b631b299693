//! What users see: the one definition of an entry's status, used by the tally, the results, the sidecars and the report.

use faceflow_core::transition::State;
use serde::Serialize;

/// What became of a page or image, as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Settled with an answer of its own.
    Done,
    /// Settled by another's answer.
    Duplicate,
    /// Settled by a rule or a refusal.
    Rejected,
    /// Out of attempts.
    Dead,
    /// Owed.
    Open,
}

impl Status {
    /// Of a page, or of an image that has no picture yet.
    pub fn of_entry(state: State) -> Self {
        match state {
            State::Settled => Self::Done,
            State::Rejected => Self::Rejected,
            State::Dead => Self::Dead,
            State::Open | State::Alternate => Self::Open,
        }
    }

    /// Of an image URL whose picture is in `state`. `own`: no other picture stands for it; `main`: no smaller URL leads to it.
    ///
    /// A ruling for another representative is only taken once that one is detected, so such a picture is a duplicate.
    pub fn of_picture(state: State, own: bool, main: bool) -> Self {
        match (own, Self::of_entry(state)) {
            (false, _) => Self::Duplicate,
            (true, Self::Done) if !main => Self::Duplicate,
            (true, status) => status,
        }
    }

    /// Of an alternate: it follows the image it stands behind.
    pub fn of_alternate(primary: Self) -> Self {
        match primary {
            Self::Done | Self::Duplicate => Self::Duplicate,
            status => status,
        }
    }

    /// As it is written in the results.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Duplicate => "duplicate",
            Self::Rejected => "rejected",
            Self::Dead => "dead",
            Self::Open => "open",
        }
    }
}
