//! When a page is looked at again: sooner than last time if it has changed, later if it has not; and when something that came to
//! a bad end is tried nevertheless.
//!
//! The rates are those of the adaptive schedule of Apache Nutch (`AdaptiveFetchSchedule`): an interval grows by 40 % or shrinks
//! by 20 %, within bounds.

use faceflow_core::record::{ContentId, Page, PageVersion, Visit, Work};
use faceflow_core::{Class, Fault, Time};
use serde::{Deserialize, Serialize};

/// The settings `recrawl.*`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecrawlSettings {
    /// Whether `faceflow stream` looks at pages again that were read, and tries what ended badly.
    pub enabled: bool,
    /// How long after its first reading a page is looked at again, in milliseconds; what was rejected, after its end.
    pub interval_ms: u64,
    /// The shortest interval, in milliseconds; also how long after its end something that is dead is tried again.
    pub interval_min_ms: u64,
    /// The longest interval, in milliseconds.
    pub interval_max_ms: u64,
    /// By which part an interval grows when the page has not changed, or what ended badly has failed again.
    pub grow: f64,
    /// By which part an interval shrinks when the page has changed.
    pub shrink: f64,
}

const HOUR_MS: u64 = 3_600_000;
/// Longer validators are not kept, in bytes: a ledger holds one of each for every page.
const VALIDATOR_MAX: usize = 256;

impl Default for RecrawlSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            interval_ms: 24 * HOUR_MS,
            interval_min_ms: HOUR_MS,
            interval_max_ms: 30 * 24 * HOUR_MS,
            grow: 0.4,
            shrink: 0.2,
        }
    }
}

impl RecrawlSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.interval_min_ms == 0 {
            return Err(("interval_min_ms", "1 or more".to_owned()));
        }
        if self.interval_max_ms < self.interval_min_ms {
            return Err(("interval_max_ms", format!("{} (interval_min_ms) or more", self.interval_min_ms)));
        }
        if !(self.interval_min_ms..=self.interval_max_ms).contains(&self.interval_ms) {
            let Self { interval_min_ms: min, interval_max_ms: max, .. } = self;
            return Err(("interval_ms", format!("{min} to {max} (interval_min_ms to interval_max_ms)")));
        }
        if !(0.0..=100.0).contains(&self.grow) {
            return Err(("grow", "0 to 100".to_owned()));
        }
        if !(0.0..1.0).contains(&self.shrink) {
            return Err(("shrink", "0 to less than 1".to_owned()));
        }
        Ok(())
    }

    /// What a page was at this visit, and when it is due again after `now`.
    pub fn reading(&self, visit: &Visit, now: Time) -> (PageVersion, Time) {
        let last = visit.page.last.as_ref();
        let digest = match last.filter(|_| visit.is_unchanged()) {
            Some(last) => last.digest,
            None => digest(visit),
        };
        let interval_ms = match last {
            Some(last) => self.next(last.interval_ms, last.digest != digest),
            None => self.interval_ms,
        };
        // A server that says "not changed" need not repeat its validators.
        let kept = |new: &Option<String>, old: fn(&PageVersion) -> &Option<String>| {
            new.clone()
                .filter(|new| new.len() <= VALIDATOR_MAX)
                .or_else(|| last.filter(|_| visit.is_unchanged()).and_then(|last| old(last).clone()))
        };
        let etag = kept(&visit.etag, |last| &last.etag);
        let last_modified = kept(&visit.last_modified, |last| &last.last_modified);
        let url = match last.filter(|_| visit.is_unchanged()) {
            Some(last) => last.url.clone(),
            None => Some(visit.final_url.clone()),
        };
        (PageVersion { url, etag, last_modified, digest, interval_ms }, now + interval_ms)
    }

    /// When a page is due again that could not be read this time; `None` for one that was never read.
    pub fn after_failure(&self, page: &Page, now: Time) -> Option<Time> {
        page.last.as_ref().map(|last| now + self.next(last.interval_ms, false))
    }

    /// When a stream tries this nevertheless, which `fault` ended now: what was rejected after `interval_ms`, since sites get
    /// repaired and rules change, and what is dead after `interval_min_ms`; by the rate of what does not change later for each
    /// failure before, and beyond the `attempts_max` of its retry policy. `None` for an image whose bytes were rejected: those
    /// are what they are; and for a picture of which every page opted out.
    pub fn terminal_retry_due(&self, work: &Work, fault: &Fault, attempts_max: u32, now: Time) -> Option<Time> {
        let (first_ms, before) = match (work, fault.permanent) {
            (Work::Image(image), true) if fault.class == Class::Content || image.inline.is_some() => return None,
            (Work::Page(_) | Work::Image(_), true) => (self.interval_ms, work.attempts()),
            (Work::Frame(_), true) if fault.is_opt_out() => return None,
            _ => (self.interval_min_ms, work.attempts_counted().saturating_sub(attempts_max)),
        };
        let grown = first_ms as f64 * (1.0 + self.grow).powi(before.min(1_000) as i32);
        Some(now + (grown.round() as u64).clamp(self.interval_min_ms, self.interval_max_ms))
    }

    fn next(&self, interval_ms: u64, changed: bool) -> u64 {
        let factor = if changed { 1.0 - self.shrink } else { 1.0 + self.grow };
        ((interval_ms as f64 * factor).round() as u64).clamp(self.interval_min_ms, self.interval_max_ms)
    }
}

/// What has to change for a page to have changed: its links and the addresses of its images.
fn digest(visit: &Visit) -> u64 {
    let images = visit.images.iter().flat_map(|image| std::iter::once(&image.url).chain(&image.alternates));
    let addresses = visit.links.iter().map(|link| ("link ", link)).chain(images.map(|image| ("image ", image)));
    let text: String = addresses.flat_map(|(kind, url)| [kind, url.as_str(), "\n"]).collect();
    ContentId::of(text.as_bytes()).partition_hash()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use faceflow_core::record::{Image, JobId, PageKind};
    use url::Url;

    use super::*;

    fn refused(class: Class) -> Fault {
        Fault::permanent(class, "no", "")
    }

    fn visit(last: Option<PageVersion>, http_status: u16, links: &[&str], etag: Option<&str>) -> Visit {
        let url = Url::parse("http://a.example/").expect("a URL");
        let links = links.iter().map(|link| url.join(link).expect("a URL")).collect();
        let (page, etag) = (Page { last, ..Page::start(JobId::FIRST, url.clone()) }, etag.map(str::to_owned));
        Visit {
            page,
            kind: PageKind::Page,
            final_url: url,
            http_status,
            etag,
            last_modified: None,
            links,
            images: vec![],
        }
    }

    #[test]
    fn intervals_grow_while_nothing_changes_and_shrink_with_every_change() {
        let settings = RecrawlSettings { interval_max_ms: 40 * HOUR_MS, ..RecrawlSettings::default() };
        let (first, due) = settings.reading(&visit(None, 200, &["/a"], Some("1")), 1_000);
        assert_eq!((first.interval_ms, due), (24 * HOUR_MS, 1_000 + 24 * HOUR_MS));
        let (same, _) = settings.reading(&visit(Some(first.clone()), 304, &[], None), 0);
        assert_eq!((same.interval_ms, &same.etag, same.digest), (120_960_000, &Some("1".to_owned()), first.digest));
        let (equal, _) = settings.reading(&visit(Some(same), 200, &["/a"], Some("2")), 0);
        assert_eq!(
            (equal.interval_ms, &equal.etag),
            (40 * HOUR_MS, &Some("2".to_owned())),
            "what counts did not change"
        );
        let (other, _) = settings.reading(&visit(Some(equal), 200, &["/a", "/b"], None), 0);
        assert_eq!((other.interval_ms, other.etag), (32 * HOUR_MS, None), "it has no validator any more");
        assert_ne!(other.digest, first.digest);
    }

    #[test]
    fn a_page_that_fails_is_given_more_time() {
        let settings = RecrawlSettings::default();
        let (first, _) = settings.reading(&visit(None, 200, &[], None), 0);
        let page = visit(Some(first), 200, &[], None).page;
        assert_eq!(settings.after_failure(&page, 5), Some(5 + 120_960_000));
        assert_eq!(settings.after_failure(&Page { last: None, ..page }, 5), None);
    }

    #[test]
    fn what_ended_badly_is_tried_less_and_less_often() {
        let settings = RecrawlSettings::default();
        let page = |attempts| Work::Page(Page { attempts, ..visit(None, 200, &[], None).page });
        let hours = |work, fault: &Fault| settings.terminal_retry_due(&work, fault, 5, 0).map(|due| due / HOUR_MS);
        let (busy, gone) = (Fault::transient(Class::Busy, "http_503", ""), refused(Class::Refused));
        assert_eq!([5, 6, 8].map(|attempts| hours(page(attempts), &busy)), [Some(1), Some(1), Some(2)]);
        assert_eq!([0, 1, 1_000_000].map(|attempts| hours(page(attempts), &gone)), [Some(24), Some(33), Some(720)]);
    }

    #[test]
    fn an_image_that_was_refused_is_tried_again_unless_its_bytes_say_no() {
        let again = |url: &str, inline: Option<Bytes>, class| {
            let (url, page) = (Url::parse(url).expect("a URL"), Url::parse("http://a.example/").expect("a URL"));
            let site = page.clone();
            let (job, version) = (JobId::FIRST, None);
            let image = Image {
                job,
                url,
                page,
                site,
                attempts: 1,
                uncounted: 0,
                inline,
                alternates: vec![],
                version,
                host: None,
            };
            RecrawlSettings::default()
                .terminal_retry_due(&Work::Image(image), &refused(class), 5, 0)
                .map(|due| due / HOUR_MS)
        };
        assert_eq!(again("http://a.example/1.jpg", None, Class::Refused), Some(33));
        assert_eq!(again("http://a.example/1.jpg", None, Class::Policy), Some(33), "robots.txt may change");
        assert_eq!(again("http://a.example/1.jpg", None, Class::Content), None);
        assert_eq!(again("data:sha256,00", Some(Bytes::new()), Class::Policy), None);
    }

    #[test]
    fn a_validator_that_is_too_long_is_not_kept() {
        let etag = |bytes: usize| {
            let tag = "x".repeat(bytes);
            RecrawlSettings::default().reading(&visit(None, 200, &[], Some(&tag)), 0).0.etag.map(|tag| tag.len())
        };
        assert_eq!([1, VALIDATOR_MAX, VALIDATOR_MAX + 1].map(etag), [Some(1), Some(VALIDATOR_MAX), None]);
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        let base = RecrawlSettings::default();
        assert_eq!(base.check(), Ok(()));
        let always = RecrawlSettings { interval_min_ms: 7, interval_ms: 7, interval_max_ms: 7, ..base };
        assert_eq!(always.check(), Ok(()), "an interval may be a point");
        let wrong = [
            (RecrawlSettings { interval_min_ms: 0, ..base }, "interval_min_ms"),
            (RecrawlSettings { interval_max_ms: 1, ..base }, "interval_max_ms"),
            (RecrawlSettings { interval_ms: 1, ..base }, "interval_ms"),
            (RecrawlSettings { grow: f64::NAN, ..base }, "grow"),
            (RecrawlSettings { shrink: 1.0, ..base }, "shrink"),
        ];
        for (settings, key) in wrong {
            assert_eq!(settings.check().map_err(|(key, _)| key), Err(key));
        }
        let (_, allowed) = RecrawlSettings { interval_ms: 1, ..base }.check().expect_err("is too short");
        assert!(allowed.starts_with("3600000 to 2592000000 ("), "{allowed}");
    }
}
