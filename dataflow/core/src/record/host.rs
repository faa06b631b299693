//! Hosts that fail as a whole: what the ledger knew of one when it dispatched work there, and what a failure says of it.

use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::fault::Fault;

/// A failing host, as the ledger knew it when it dispatched work there. Of a host that is well nothing is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// How often it has failed in a row; 0 for one that was not asked since it asked for rest.
    pub failures: u32,
    /// Since when.
    pub since: Time,
    /// Why it was given up, if it was and is not to be asked again yet: work that waits for it ends with this fault, unasked. A
    /// permanent fault is about that work alone, whatever its host does: an opt-out that was found since.
    pub given_up: Option<Fault>,
}

/// What a failure says of its host: nothing of it is dispatched before `not_before`, and one request at a time from then on until
/// one succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostHold {
    /// How often it has failed in a row, this time included.
    pub failures: u32,
    /// Since when.
    pub since: Time,
    /// When it may be asked again.
    pub not_before: Time,
    /// Whether it is given up: until then its work ends without being asked.
    pub given_up: bool,
}
