//! One retry policy type for pages, images and frames: exponential backoff with a cap and a last attempt.

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::clock::Time;
use crate::fault::{Class, FailedRecord};
use crate::record::{Disposition, Frame, Work};

/// The longest delay after a failure of the object store, in milliseconds.
const STORE_CAP_MS: u64 = 3_600_000;

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

/// The settings `retry.*`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// For pages and images.
    pub web: Policy,
    /// For frames.
    pub detect: DetectPolicy,
    /// The longest `Retry-After` that is believed, in milliseconds.
    pub retry_after_max_ms: u64,
    /// Seed of the jitter: the same seed gives the same delays.
    pub seed: u64,
}

/// [`Policy`] with the defaults of frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "PartialPolicy", into = "Policy")]
pub struct DetectPolicy(pub Policy);

impl Default for RetrySettings {
    fn default() -> Self {
        Self { web: Policy::WEB, detect: DetectPolicy(Policy::DETECT), retry_after_max_ms: 24 * 3_600_000, seed: 0 }
    }
}

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

impl RetrySettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let policies = [
            (self.web, ["web.factor", "web.attempts_max", "web.jitter"]),
            (self.detect.0, ["detect.factor", "detect.attempts_max", "detect.jitter"]),
        ];
        for (policy, [factor, attempts, jitter]) in policies {
            if !(policy.factor >= 1.0 && policy.factor.is_finite()) {
                return Err((factor, "1 or more".to_owned()));
            }
            if policy.attempts_max == 0 {
                return Err((attempts, "1 or more (the first attempt counts)".to_owned()));
            }
            if !(0.0..=1.0).contains(&policy.jitter) {
                return Err((jitter, "0 to 1".to_owned()));
            }
        }
        Ok(())
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
        let FailedRecord { record: work, fault } = lost;
        if fault.permanent && !matches!(work, Work::Frame(_)) {
            return Disposition::Rejected { work, fault, again: None };
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
                _ => Disposition::Dead { work, fault, again: None },
            };
        }
        let asked = fault.retry_after_ms.unwrap_or(0).min(self.retry_after_max_ms);
        let delay = policy.delay_ms(failures, self.dice(&work)).max(asked).max(1);
        Disposition::Retry { work, fault, due: now + delay }
    }

    /// A number that depends on the seed, the work and its attempt alone: SipHash, which is specified, so that every process and
    /// every version comes to the same.
    fn dice(&self, work: &Work) -> u64 {
        SipHasher13::new_with_keys(self.seed, work.partition_hash()).hash(&work.attempts().to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use crate::record::{Image, JobId, Page};

    fn page(attempts: u32) -> Work {
        let url = url::Url::parse("http://a.example/").expect("a URL");
        Work::Page(Page { attempts, ..Page::start(JobId::FIRST, url) })
    }

    #[test]
    fn backoff_doubles_to_the_cap() {
        let delays: Vec<_> = (1..=8).map(|n| Policy::DETECT.delay_ms(n, 0)).collect();
        assert_eq!(delays, [60_000, 120_000, 240_000, 480_000, 960_000, 1_920_000, 3_600_000, 3_600_000]);
        assert_eq!(Policy::DETECT.delay_ms(u32::MAX, u64::MAX), 3_600_000, "no overflow, no jitter");
    }

    #[test]
    fn jitter_adds_at_most_its_share_and_repeats() {
        for dice in [0, 1 << 20, u64::MAX / 3, u64::MAX] {
            let delay = Policy::WEB.delay_ms(1, dice);
            assert!((2_000..=2_200).contains(&delay), "{delay}");
        }
        let busy = Fault::transient(Class::Busy, "http_503", "");
        let settings = RetrySettings::default();
        let decide = || settings.decide(FailedRecord { record: page(0), fault: busy.clone() }, 5);
        assert_eq!(decide(), decide());
    }

    /// The delay of this site's start page at its `attempts`-th failure, of which up to half is jitter.
    fn jittered(seed: u64, site: u32, attempts: u32) -> u64 {
        let mut settings = RetrySettings { seed, ..RetrySettings::default() };
        settings.web = Policy { base_ms: 1_000_000, factor: 1.0, attempts_max: u32::MAX, jitter: 0.5, ..Policy::WEB };
        settings.web.cap_ms = 1_000_000;
        let url = url::Url::parse(&format!("http://s{site}.example/")).expect("a URL");
        let record = Work::Page(Page { attempts, ..Page::start(JobId::FIRST, url) });
        match settings.decide(FailedRecord { record, fault: Fault::transient(Class::Busy, "http_503", "") }, 0) {
            Disposition::Retry { due, .. } => due,
            other => panic!("{other:?}"),
        }
    }

    /// Failures that happened at once come back evenly over the whole interval, whatever it is by which they differ.
    #[test]
    fn jitter_spreads_what_failed_together() {
        let by_site: Vec<u64> = (0..4_000).map(|site| jittered(0, site, 0)).collect();
        let by_attempt: Vec<u64> = (0..4_000).map(|attempts| jittered(0, 7, attempts)).collect();
        let by_seed: Vec<u64> = (0..4_000).map(|seed| jittered(seed, 7, 0)).collect();
        for (what, delays) in [("sites", &by_site), ("attempts", &by_attempt), ("seeds", &by_seed)] {
            assert!(delays.iter().all(|delay| (1_000_000..=1_500_000).contains(delay)), "{what}");
            let mut tenths = [0_i32; 10];
            delays.iter().for_each(|delay| tenths[((delay - 1_000_000) / 50_000).min(9) as usize] += 1);
            // 400 each, and a standard deviation of 19.
            assert!(tenths.iter().all(|count| (count - 400).abs() < 95), "{what}: {tenths:?}");
            let apart = delays.iter().collect::<std::collections::BTreeSet<_>>().len();
            assert!(apart > 3_900, "{what}: {apart} different delays");
            // Neighbours are not near each other: a third of the interval apart, in the mean.
            let steps = delays.windows(2).map(|pair| pair[0].abs_diff(pair[1])).sum::<u64>() / 3_999;
            assert!((155_000..179_000).contains(&steps), "{what}: {steps}");
        }
    }

    /// Whoever restarts with another version waits as long as before.
    #[test]
    fn jitter_is_the_same_in_every_process_and_version() {
        assert_eq!([jittered(0, 1, 0), jittered(0, 1, 1), jittered(9, 1, 0)], [1_139_286, 1_432_093, 1_455_136]);
    }

    #[test]
    fn the_last_attempt_is_the_last() {
        let busy = Fault::transient(Class::Busy, "http_503", "");
        let settings = RetrySettings::default();
        assert!(matches!(
            settings.decide(FailedRecord { record: page(3), fault: busy.clone() }, 0),
            Disposition::Retry { .. }
        ));
        assert!(matches!(settings.decide(FailedRecord { record: page(4), fault: busy }, 0), Disposition::Dead { .. }));
    }

    #[test]
    fn nothing_dies_of_the_object_store() {
        let settings = RetrySettings::default();
        let full = || Fault::transient(Class::Store, "store", "full");
        let decided = |record, fault| match settings.decide(FailedRecord { record, fault }, 0) {
            Disposition::Retry { work, due, .. } => Ok((work, due)),
            Disposition::Dead { work, .. } => Err(work.attempts()),
            other => panic!("{other:?}"),
        };
        let url = url::Url::parse("http://a.example/").expect("a URL");
        let (page, site, alternates) = (url.clone(), url.clone(), vec![]);
        let job = JobId::FIRST;
        let image = Image { job, url, page, site, attempts: 0, uncounted: 0, inline: None, alternates, version: None };
        let mut failing = Work::Image(image);
        let mut dues = vec![];
        for _ in 0..41 {
            let (work, due) = decided(failing, full()).expect("it is not given up");
            (failing, _) = (work, dues.push(due));
        }
        assert!((2_000..=2_200).contains(&dues[0]) && dues[40] >= STORE_CAP_MS, "{dues:?}");
        // Once it is back, the web has all its chances, as if nothing had been.
        let busy = || Fault::transient(Class::Busy, "http_503", "");
        for failed in 1..settings.web.attempts_max {
            let (work, due) = decided(failing, busy()).expect("it has failed too seldom");
            assert!(due <= 2_200 << (failed - 1), "{due}");
            failing = work;
        }
        assert_eq!(decided(failing, busy()).map(|(work, _)| work), Err(41 + settings.web.attempts_max));
    }

    /// A picture whose detection failed so often.
    fn frame(attempts: u32, has_degraded: bool) -> Work {
        let hashes = crate::record::PerceptualHash::dct64(0, false).into();
        let id = crate::record::ContentId::of(b"picture");
        let content = crate::record::Content { id, bytes: 7, format: "png".to_owned(), width: 1, height: 1, hashes };
        Work::Frame(Frame {
            job: JobId::FIRST,
            content,
            owner: 0,
            pixels: None,
            attempts,
            uncounted: 0,
            has_degraded,
            generation: 0,
            scale: None,
        })
    }

    #[test]
    fn no_is_an_answer_for_what_the_web_holds_and_an_end_for_a_picture() {
        let settings = RetrySettings::default();
        let no = || Fault::permanent(Class::Content, "corrupt_image", "");
        let decide = |record, fault| settings.decide(FailedRecord { record, fault }, 0);
        assert!(matches!(decide(page(0), no()), Disposition::Rejected { .. }));
        assert!(matches!(decide(frame(0, false), no()), Disposition::Dead { .. }));
        let failed = || Fault::transient(Class::Engine, "engine_error", "");
        assert!(matches!(decide(frame(4, false), failed()), Disposition::Retry { due: 960_000, .. }));
        assert!(matches!(decide(frame(5, false), failed()), Disposition::Dead { .. }));
        // A degraded answer stands once every attempt at a full one has failed.
        assert!(matches!(decide(frame(4, true), failed()), Disposition::Retry { .. }));
        assert!(matches!(decide(frame(5, true), failed()), Disposition::DegradedAccepted { .. }));
    }

    #[test]
    fn impossible_policies_are_refused_by_name() {
        let base = RetrySettings::default();
        assert_eq!(base.check(), Ok(()));
        let web = |change: fn(&mut Policy)| {
            let mut settings = base;
            change(&mut settings.web);
            settings.check().map_err(|(key, _)| key)
        };
        assert_eq!(web(|policy| policy.factor = 0.9), Err("web.factor"));
        assert_eq!(web(|policy| policy.factor = f64::INFINITY), Err("web.factor"));
        assert_eq!(web(|policy| policy.factor = f64::NAN), Err("web.factor"));
        assert_eq!(web(|policy| policy.factor = 1.0), Ok(()));
        assert_eq!(web(|policy| policy.attempts_max = 0), Err("web.attempts_max"));
        assert_eq!(web(|policy| policy.jitter = 1.1), Err("web.jitter"));
        assert_eq!(web(|policy| policy.jitter = -0.1), Err("web.jitter"));
        assert_eq!(web(|policy| policy.jitter = 1.0), Ok(()));
        let detect = RetrySettings { detect: DetectPolicy(Policy { factor: 0.5, ..Policy::DETECT }), ..base };
        assert_eq!(detect.check(), Err(("detect.factor", "1 or more".to_owned())));
    }

    #[test]
    fn a_part_of_the_policy_for_pictures_can_be_set() {
        let partial: DetectPolicy = serde_json::from_str(r#"{"attempts_max": 2}"#).expect("a policy");
        assert_eq!(Policy::from(partial), Policy { attempts_max: 2, ..Policy::DETECT });
        assert!(serde_json::from_str::<DetectPolicy>(r#"{"attempts": 2}"#).is_err());
    }

    #[test]
    fn retry_after_is_a_floor_with_a_ceiling() {
        let mut settings = RetrySettings::default();
        settings.web.jitter = 0.0;
        let due = |asked| match settings.decide(
            FailedRecord { record: page(0), fault: Fault::transient(Class::Busy, "http_429", "").after(asked) },
            100,
        ) {
            Disposition::Retry { due, .. } => due,
            other => panic!("{other:?}"),
        };
        assert_eq!((due(0), due(10_000), due(u64::MAX)), (2_100, 10_100, 86_400_100));
    }
}
