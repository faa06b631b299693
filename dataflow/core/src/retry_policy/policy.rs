//! How often and how patiently work is tried again: exponential backoff with a cap and a last attempt.

use serde::{Deserialize, Serialize};

/// How often and how patiently one kind of work is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Delay before the second attempt, in milliseconds.
    pub base_ms: u64,
    /// Each later delay is this many times the one before.
    pub factor: f64,
    /// No delay is longer, in milliseconds; a longer `Retry-After` still counts.
    pub cap_ms: u64,
    /// Attempts in all, the first included; then the work is dead (and `faceflow retry --dead` can drive it again).
    pub attempts_max: u32,
    /// Up to this share is added to each delay, so that many failures do not come back at once. 0 for exact delays.
    pub jitter: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self::WEB
    }
}

impl Policy {
    /// For pages and images: 2 s doubling to 60 s, 5 attempts.
    pub const WEB: Self = Self { base_ms: 2_000, factor: 2.0, cap_ms: 60_000, attempts_max: 5, jitter: 0.1 };

    /// For frames whose detection failed: 60 s doubling to an hour, 5 retries after the first look.
    pub const DETECT: Self = Self { base_ms: 60_000, factor: 2.0, cap_ms: 3_600_000, attempts_max: 6, jitter: 0.0 };

    /// The delay after the `failures`-th failure (from 1), in milliseconds. `dice` decides the jitter.
    pub fn delay_ms(&self, failures: u32, dice: u64) -> u64 {
        let exponent = failures.saturating_sub(1).min(1_000) as i32;
        let plain = (self.base_ms as f64 * self.factor.powi(exponent)).min(self.cap_ms as f64);
        let share = (dice >> 11) as f64 / (1_u64 << 53) as f64;
        (plain * (1.0 + self.jitter * share)).round() as u64
    }
}

/// [`Policy`] with the defaults of frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "PartialPolicy", into = "Policy")]
pub struct DetectPolicy(pub Policy);

/// A policy as written in a settings file, where each key may be missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartialPolicy {
    base_ms: Option<u64>,
    factor: Option<f64>,
    cap_ms: Option<u64>,
    attempts_max: Option<u32>,
    jitter: Option<f64>,
}

impl From<PartialPolicy> for DetectPolicy {
    fn from(written: PartialPolicy) -> Self {
        let default = Policy::DETECT;
        Self(Policy {
            base_ms: written.base_ms.unwrap_or(default.base_ms),
            factor: written.factor.unwrap_or(default.factor),
            cap_ms: written.cap_ms.unwrap_or(default.cap_ms),
            attempts_max: written.attempts_max.unwrap_or(default.attempts_max),
            jitter: written.jitter.unwrap_or(default.jitter),
        })
    }
}

impl From<DetectPolicy> for Policy {
    fn from(policy: DetectPolicy) -> Self {
        policy.0
    }
}

impl Policy {
    /// Refuses impossible values: the key, of these for `factor`, `attempts_max` and `jitter`, and what is allowed.
    pub(super) fn check(&self, [factor, attempts, jitter]: [&'static str; 3]) -> Result<(), (&'static str, String)> {
        if !(self.factor >= 1.0 && self.factor.is_finite()) {
            return Err((factor, "1 or more".to_owned()));
        }
        if self.attempts_max == 0 {
            return Err((attempts, "1 or more (the first attempt counts)".to_owned()));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err((jitter, "0 to 1".to_owned()));
        }
        Ok(())
    }
}
