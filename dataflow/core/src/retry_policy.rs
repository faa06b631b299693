//! What becomes of failures: one policy type for pages, images and frames, and one for the hosts that are asked for them.

mod host;
mod policy;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

pub use self::host::HostPolicy;
use self::host::about_host;
pub use self::policy::{DetectPolicy, Policy};
use crate::clock::Time;
use crate::fault::{Class, FailedRecord, Fault, HostFault, HostFaultKind};
use crate::record::{Disposition, Frame, HostHold, Work};

/// The longest delay after a failure of the object store, in milliseconds.
const STORE_CAP_MS: u64 = 3_600_000;

/// The settings `retry.*`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// For pages and images.
    pub web: Policy,
    /// For hosts that fail as a whole.
    pub host: HostPolicy,
    /// For frames.
    pub detect: DetectPolicy,
    /// The longest `Retry-After` that is believed, in milliseconds.
    pub retry_after_max_ms: u64,
    /// Seed of the jitter: the same seed gives the same delays.
    pub seed: u64,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            web: Policy::WEB,
            host: HostPolicy::default(),
            detect: DetectPolicy(Policy::DETECT),
            retry_after_max_ms: 24 * 3_600_000,
            seed: 0,
        }
    }
}

impl RetrySettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.web.check(["web.factor", "web.attempts_max", "web.jitter"])?;
        self.host.attempts().check(["host.factor", "host.attempts_max", "host.jitter"])?;
        self.detect.0.check(["detect.factor", "detect.attempts_max", "detect.jitter"])
    }

    /// The policy for this work.
    pub fn policy(&self, work: &Work) -> Policy {
        match work {
            Work::Page(_) | Work::Image(_) => self.web,
            Work::Frame(_) => self.detect.0,
        }
    }

    /// Decides what becomes of a failure that happened now.
    pub fn decide(&self, lost: FailedRecord<Work>, now: Time) -> Disposition {
        if let Some(about) = about_host(&lost.fault, lost.record.host_queue()) {
            return self.decide_host(lost, about, now);
        }
        let FailedRecord { record: work, fault } = lost;
        if fault.permanent && (fault.is_opt_out() || !matches!(work, Work::Frame(_))) {
            return match work {
                // What was seen of a picture before its pages opted out stays.
                Work::Frame(Frame { has_degraded: true, .. }) => Disposition::DegradedAccepted { work, fault },
                _ => Disposition::Rejected { work, fault, again: None },
            };
        }
        if !fault.permanent && fault.host.is_some_and(|host| host.kind == HostFaultKind::Resting) {
            // It led to another host, which rests: that one was not asked.
            let due = now + self.asked_ms(&fault).max(1);
            return Disposition::Retry { work: work.failed_once_more().uncounted(), fault, due, host: None };
        }
        let mut policy = self.policy(&work);
        let mut work = work.failed_once_more();
        let mut failures = work.attempts_counted();
        if fault.class == Class::Store {
            // The store is ours to mend, and no picture is given up for it: it is asked less and less often.
            (policy.attempts_max, policy.cap_ms) = (u32::MAX, policy.cap_ms.max(STORE_CAP_MS));
            (failures, work) = (work.attempts(), work.uncounted());
        }
        if fault.permanent || failures >= policy.attempts_max {
            return match work {
                Work::Frame(Frame { has_degraded: true, .. }) => Disposition::DegradedAccepted { work, fault },
                _ => Disposition::Dead { work, fault, again: None, host: None },
            };
        }
        let delay = policy.delay_ms(failures, self.dice(&work)).max(self.asked_ms(&fault)).max(1);
        Disposition::Retry { work, fault, due: now + delay, host: None }
    }

    /// What a failure says of the host of its work, if that failed and was asked.
    pub fn hold(&self, work: &Work, fault: &Fault, now: Time) -> Option<HostHold> {
        let about = about_host(fault, work.host_queue()).filter(|about| about.kind != HostFaultKind::GivenUp)?;
        Some(self.host.hold((about, work.host()), self.asked_ms(fault), (self.seed, now)))
    }

    /// Decides about work whose host failed. That is no attempt of the work, unless its host was silent, which may be its own doing,
    /// or was well when it was dispatched: a URL that is refused again and again while others of its host are not comes to an end
    /// too, much later.
    fn decide_host(&self, lost: FailedRecord<Work>, about: HostFault, now: Time) -> Disposition {
        let FailedRecord { record: work, fault } = lost;
        let host = self.hold(&work, &fault, now);
        let (counts, limit) = match about.kind {
            HostFaultKind::Silent => (true, self.web.attempts_max),
            HostFaultKind::Resting => (false, u32::MAX),
            _ => (work.host().is_none(), self.web.attempts_max.saturating_mul(self.host.attempts_max)),
        };
        let work = work.failed_once_more();
        let alone = counts && work.attempts_counted() >= limit;
        let Some(hold) = host.filter(|hold| !hold.given_up && !alone) else {
            return Disposition::Dead { work, fault, again: None, host };
        };
        let (work, later) = match counts {
            // Others of its host go first next time, the more often it fails.
            true => {
                let before = work.attempts_counted() - 1;
                let later = if before == 0 { 0 } else { self.web.delay_ms(before, self.dice(&work)) };
                (work, later)
            }
            false => (work.uncounted(), 0),
        };
        Disposition::Retry { work, fault, due: hold.not_before + later, host }
    }

    /// How long the other side wants to be left alone, as far as that is believed.
    fn asked_ms(&self, fault: &Fault) -> u64 {
        fault.retry_after_ms.unwrap_or(0).min(self.retry_after_max_ms)
    }

    /// A number that depends on the seed, the work and its attempt alone: SipHash, which is specified, so that every process and
    /// every version comes to the same.
    fn dice(&self, work: &Work) -> u64 {
        SipHasher13::new_with_keys(self.seed, work.partition_hash()).hash(&work.attempts().to_le_bytes())
    }
}
