//! Hosts that fail as a whole: how long they are left alone, and when they are given up.
//!
//! What a host did is no attempt of any of its URLs. So it is the host that is asked less and less often, by one request at a time,
//! and the host that is given up, with all that waits for it.

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::policy::Policy;
use crate::clock::Time;
use crate::fault::{Fault, HostFault, HostFaultKind};
use crate::record::{HostHold, HostState};

/// The settings `retry.host.*`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostPolicy {
    /// How long a host is left alone after its first failure, in milliseconds.
    pub base_ms: u64,
    /// Each later time is this many times the one before.
    pub factor: f64,
    /// No time is longer, in milliseconds; a longer `Retry-After` still counts. A host that was given up is asked again after this.
    pub cap_ms: u64,
    /// Failures in a row, the first included, after which a host is given up and its URLs are dead.
    pub attempts_max: u32,
    /// Up to this share is added to each time. 0 for exact times.
    pub jitter: f64,
    /// A host that answers, but with 429, `Retry-After` or no robots.txt, is not given up before it has done so for this long, in
    /// milliseconds.
    pub patience_ms: u64,
}

impl Default for HostPolicy {
    fn default() -> Self {
        let Policy { base_ms, factor, cap_ms, attempts_max, jitter } = Policy::WEB;
        Self { base_ms, factor, cap_ms, attempts_max, jitter, patience_ms: 15 * 60_000 }
    }
}

impl HostPolicy {
    /// As a policy of attempts.
    pub(super) fn attempts(&self) -> Policy {
        let Self { base_ms, factor, cap_ms, attempts_max, jitter, .. } = *self;
        Policy { base_ms, factor, cap_ms, attempts_max, jitter }
    }

    /// What a failure that happened now says of its host, which was in the state `known` when the work was dispatched; it wants to be
    /// left alone for `asked_ms`.
    pub(super) fn hold(
        &self,
        (about, known): (HostFault, Option<&HostState>),
        asked_ms: u64,
        (seed, now): (u64, Time),
    ) -> HostHold {
        let (before, since) = known.map_or((0, now), |known| (known.failures, known.since));
        if about.kind == HostFaultKind::Resting {
            return HostHold { failures: before, since, not_before: now + asked_ms.max(1), given_up: false };
        }
        let failures = before.saturating_add(1);
        let tried_enough = failures >= self.attempts_max;
        let waited_enough = about.kind != HostFaultKind::Busy || now >= since.saturating_add(self.patience_ms);
        let given_up = tried_enough && waited_enough;
        // Equal in every process, like the jitter of work.
        let dice = SipHasher13::new_with_keys(seed, about.queue).hash(&failures.to_le_bytes());
        let delay = if given_up { self.cap_ms } else { self.attempts().delay_ms(failures, dice) };
        HostHold { failures, since, not_before: now + delay.max(asked_ms).max(1), given_up }
    }
}

/// What a fault says of the host of a URL that waits in the queues `queue`; nothing if it is about the URL alone or another host.
pub(super) fn about_host(fault: &Fault, queue: Option<u64>) -> Option<HostFault> {
    fault.host.filter(|about| !fault.permanent && queue.is_some_and(|queue| about.concerns(queue)))
}
