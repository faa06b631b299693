//! The robots.txt of every origin we ask, fetched once and remembered for a while (RFC 9309).
//!
//! A rules file that cannot be had is not permission: while a host's robots.txt is unreachable its last rules hold for a day more, and
//! where there are none its pages wait. Promise:
//! one fetch for any number of simultaneous questions, nothing believed longer than its time, and a bounded memory.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use faceflow_core::record::queue_of;
use faceflow_core::{Class, Fault, HostFaultKind, Reloadable};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::Url;

use super::Origin;
use super::failure::Failure;
use super::robots_rules::RobotsRules;
use super::settings::FetchSettings;

/// Remembered robots.txt, by origin.
pub struct RobotsCache {
    settings: Reloadable<FetchSettings>,
    files: Mutex<Files>,
}

/// The files by origin, and at least what they hold in memory, in bytes.
#[derive(Default)]
struct Files {
    by_origin: HashMap<Origin, Arc<File>>,
    bytes: usize,
}

/// One robots.txt; its cell is filled by whoever asks first.
#[derive(Default)]
struct File {
    known: OnceCell<Known>,
    /// The rules that were had before, and until when they hold if there are no others.
    last: Option<(Arc<RobotsRules>, Instant)>,
}

struct Known {
    rules: Result<Arc<RobotsRules>, Fault>,
    expires: Instant,
    /// Until when they hold if no others can be had.
    lasts_until: Instant,
}

/// A question about a file. Dropped without an answer by the last of those who ask, nothing is left of it.
struct Question<'c> {
    cache: &'c RobotsCache,
    origin: Origin,
    file: Arc<File>,
}

/// How much longer than they are believed rules hold while the file cannot be had.
const LAST_RULES_HOLD: Duration = Duration::from_secs(24 * 3_600);

impl RobotsCache {
    /// Nothing remembered yet.
    pub fn new(settings: &Reloadable<FetchSettings>) -> Self {
        Self { settings: settings.clone(), files: Mutex::default() }
    }

    /// The delay that `url`'s host asks for between requests, if `url` may be asked at all. `fetch` gets the body of a
    /// robots.txt; it is called only where none is remembered.
    pub async fn admit<F>(&self, url: &Url, fetch: impl FnOnce(Url) -> F) -> Result<Duration, Failure>
    where
        F: Future<Output = Result<Bytes, Failure>>,
    {
        let origin = Origin::of(url);
        let question = Question { cache: self, origin: origin.clone(), file: self.file(&origin) };
        let last = question.file.last.clone();
        let known = question
            .file
            .known
            .get_or_init(|| async {
                let file_url = url.join("/robots.txt").expect("a web URL is a base");
                let known = self.interpret(fetch(file_url).await.map_err(Fault::from), (queue_of(url), last));
                self.files().grow(known.bytes() + question.file.last_bytes(), self.settings.get().robots_cache_bytes());
                known
            })
            .await;
        match &known.rules {
            Ok(rules) if rules.allow(url) => {
                Ok(rules.delay.min(Duration::from_millis(self.settings.get().robots_crawl_delay_max_ms)))
            }
            Ok(_) => {
                let detail = format!("{origin}/robots.txt disallows {}", url.path());
                Err(Failure::of_url(Fault::permanent(Class::Policy, "robots", detail)))
            }
            Err(fault) if fault.permanent => Err(Failure::of_host(fault.clone(), origin)),
            Err(fault) => Err(Failure::of_host(fault.clone().after(millis_until(known.expires)), origin)),
        }
    }

    /// What a fetched robots.txt means.
    ///
    /// RFC 9309, 2.3.1: a status that says no, or too many redirects, means that there are no rules; an unreachable file
    /// means that everything is disallowed, for now, unless its `last` rules still hold. A file where our own policy does not let us go
    /// stays unread for good.
    fn interpret(
        &self,
        fetched: Result<Bytes, Fault>,
        (queue, last): (u64, Option<(Arc<RobotsRules>, Instant)>),
    ) -> Known {
        let now = Instant::now();
        let settings = self.settings.get();
        let ttl = Duration::from_millis(settings.robots_ttl_ms);
        let (rules, lasts) = match fetched {
            Ok(body) => (Ok(Arc::new(RobotsRules::parse(&body, settings.agent()))), ttl),
            Err(fault) if fault.permanent && fault.class == Class::Refused => (Ok(Arc::new(RobotsRules::none())), ttl),
            Err(fault) if fault.permanent => {
                let detail = format!("its robots.txt cannot be read: {}", fault.detail);
                (Err(Fault { detail, ..fault }), ttl)
            }
            Err(fault) => {
                let asked = Duration::from_millis(fault.retry_after_ms.unwrap_or(0)).min(ttl);
                let wait = Duration::from_millis(settings.robots_retry_ms).max(asked);
                if let Some((rules, lasts_until)) = last.filter(|(_, lasts_until)| *lasts_until > now) {
                    return Known { rules: Ok(rules), expires: (now + wait).min(lasts_until), lasts_until };
                }
                let rules = Fault::transient(fault.class, "robots_unreachable", format!("robots.txt: {fault}"));
                // Whether the host is there at all is known from who asked for it.
                let kind = match fault.host.map(|host| host.kind) {
                    None if fault.class == Class::Timeout => HostFaultKind::Unreachable,
                    Some(HostFaultKind::Silent) => HostFaultKind::Unreachable,
                    kind => kind.unwrap_or(HostFaultKind::Busy),
                };
                (Err(rules.of_host(queue, kind)), wait)
            }
        };
        Known { rules, expires: now + lasts, lasts_until: now + lasts + LAST_RULES_HOLD }
    }

    /// The file of an origin: the one that is remembered or being fetched, else an empty one.
    fn file(&self, origin: &Origin) -> Arc<File> {
        let mut files = self.files();
        let now = Instant::now();
        let known = files.by_origin.get(origin);
        let fresh = |file: &&Arc<File>| file.known.get().is_none_or(|known| known.expires > now);
        if let Some(file) = known.filter(fresh) {
            return Arc::clone(file);
        }
        let last = known.and_then(|file| file.known.get());
        let last = last.and_then(|known| known.rules.clone().ok().map(|rules| (rules, known.lasts_until)));
        let file = Arc::new(File { known: OnceCell::new(), last });
        files.by_origin.insert(origin.clone(), Arc::clone(&file));
        file
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if self.file.known.get().is_some() {
            return;
        }
        let mut files = self.cache.files();
        let is_last = Arc::strong_count(&self.file) == 2;
        if is_last && files.by_origin.get(&self.origin).is_some_and(|file| Arc::ptr_eq(file, &self.file)) {
            files.by_origin.remove(&self.origin);
        }
    }
}

impl Files {
    /// Counts a file that has arrived; beyond `bytes_max` the files that expire first are forgotten, down to half of it.
    /// Files that are being fetched stay.
    fn grow(&mut self, bytes: usize, bytes_max: usize) {
        self.bytes += bytes;
        if self.bytes <= bytes_max {
            return;
        }
        let arrived = self.by_origin.iter().filter_map(|(origin, file)| {
            file.known.get().map(|known| (known.lasts_until, known.bytes() + file.last_bytes(), origin.clone()))
        });
        let mut arrived: Vec<_> = arrived.collect();
        arrived.sort_unstable_by_key(|(lasts_until, ..)| std::cmp::Reverse(*lasts_until));
        self.bytes = 0;
        for (_, bytes, origin) in arrived {
            if self.bytes + bytes <= bytes_max / 2 {
                self.bytes += bytes;
            } else {
                self.by_origin.remove(&origin);
            }
        }
    }
}

impl File {
    /// What the rules hold in memory that were had before, about, in bytes.
    fn last_bytes(&self) -> usize {
        self.last.as_ref().map_or(0, |(rules, _)| rules.bytes())
    }
}

impl Known {
    /// What it holds in memory, about, in bytes.
    fn bytes(&self) -> usize {
        CACHED_FILE_BYTES + self.rules.as_ref().map_or(0, |rules| rules.bytes())
    }
}

/// What a remembered file needs besides its rules, about, in bytes.
const CACHED_FILE_BYTES: usize = 512;

fn millis_until(moment: Instant) -> u64 {
    moment.saturating_duration_since(Instant::now()).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    fn url(text: &str) -> Url {
        Url::parse(text).expect(text)
    }

    fn robots(change: fn(&mut FetchSettings)) -> RobotsCache {
        let mut settings = FetchSettings::default();
        change(&mut settings);
        RobotsCache::new(&settings.into())
    }

    /// Asks about `url` of a host whose robots.txt is `answer`; counts the fetches.
    async fn ask(
        robots: &RobotsCache,
        text: &str,
        (answer, fetches): (Result<&'static str, Fault>, &AtomicUsize),
    ) -> Result<Duration, Fault> {
        let fetch = |file_url: Url| async move {
            assert_eq!(file_url.path(), "/robots.txt");
            fetches.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer.map(|text| Bytes::from_static(text.as_bytes())).map_err(Failure::of_url)
        };
        Ok(robots.admit(&url(text), fetch).await?)
    }

    #[tokio::test(start_paused = true)]
    async fn one_fetch_serves_every_question_until_it_expires() {
        let robots = robots(|settings| settings.robots_ttl_ms = 60_000);
        let fetches = AtomicUsize::new(0);
        let text = Ok("User-agent: *\nDisallow: /no\nCrawl-delay: 900");
        let (a, b) = tokio::join!(
            ask(&robots, "http://a.example/yes", (text.clone(), &fetches)),
            ask(&robots, "http://a.example/no", (text.clone(), &fetches)),
        );
        assert_eq!(a, Ok(Duration::from_secs(30)), "an over-long delay is shortened, never ignored");
        let fault = b.expect_err("disallowed");
        assert_eq!((fault.reason.as_str(), fault.permanent, fault.class), ("robots", true, Class::Policy));
        assert_eq!(fetches.load(SeqCst), 1);
        ask(&robots, "https://a.example/yes", (text.clone(), &fetches)).await.expect("allowed");
        ask(&robots, "http://a.example:81/yes", (text.clone(), &fetches)).await.expect("allowed");
        assert_eq!(fetches.load(SeqCst), 3, "scheme and port have rules of their own");
        tokio::time::sleep(Duration::from_millis(60_001)).await;
        ask(&robots, "http://a.example/yes", (text, &fetches)).await.expect("allowed");
        assert_eq!(fetches.load(SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_file_disallows_for_now_and_says_when_to_ask_again() {
        let (robots, fetches) = (robots(|_| ()), AtomicUsize::new(0));
        let busy = Fault::transient(Class::Busy, "http_503", "Service Unavailable");
        let asked = (Err(busy.clone()), &fetches);
        let fault = ask(&robots, "http://a.example/", asked).await.expect_err("unreachable");
        assert_eq!((fault.reason.as_str(), fault.permanent, fault.class), ("robots_unreachable", false, Class::Busy));
        assert_eq!(fault.retry_after_ms, Some(5_000));
        tokio::time::sleep(Duration::from_millis(4_000)).await;
        let fault = ask(&robots, "http://a.example/", (Ok(""), &fetches)).await.expect_err("not asked again yet");
        assert_eq!((fault.retry_after_ms, fetches.load(SeqCst)), (Some(1_000), 1));
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        assert_eq!(ask(&robots, "http://a.example/", (Ok(""), &fetches)).await, Ok(Duration::ZERO));
        let fault = ask(&robots, "http://b.example/", (Err(busy.after(90_000)), &fetches)).await.expect_err("busy");
        assert_eq!(fault.retry_after_ms, Some(90_000), "its own Retry-After is honoured");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_means_no_rules_and_our_own_policy_means_no() {
        let (robots, fetches) = (robots(|_| ()), AtomicUsize::new(0));
        let gone = Fault::permanent(Class::Refused, "http_404", "Not Found");
        assert!(ask(&robots, "http://a.example/", (Err(gone), &fetches)).await.is_ok());
        let inside = Fault::permanent(Class::Policy, "private_address", "10.0.0.1");
        let fault = ask(&robots, "http://b.example/", (Err(inside), &fetches)).await.expect_err("refused");
        assert_eq!((fault.reason.as_str(), fault.permanent), ("private_address", true));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_rules_hold_for_a_day_more_where_no_others_can_be_had() {
        let (robots, fetches) = (robots(|settings| settings.robots_ttl_ms = 3_600_000), AtomicUsize::new(0));
        let rules = Ok("User-agent: *\nDisallow: /no");
        let down = || Err(Fault::transient(Class::Busy, "http_503", "down"));
        ask(&robots, "http://a.example/yes", (rules.clone(), &fetches)).await.expect("allowed");
        // An hour, in which they are believed, and then almost a day.
        for _ in 0..24 {
            tokio::time::sleep(Duration::from_millis(3_600_000)).await;
            ask(&robots, "http://a.example/yes", (down(), &fetches)).await.expect("allowed still");
            let fault = ask(&robots, "http://a.example/no", (down(), &fetches)).await.expect_err("disallowed still");
            assert_eq!(fault.reason, "robots");
        }
        assert_eq!(fetches.load(SeqCst), 25, "and each time others were asked for");
        tokio::time::sleep(Duration::from_millis(3_600_000)).await;
        let fault = ask(&robots, "http://a.example/yes", (down(), &fetches)).await.expect_err("no longer");
        assert_eq!(fault.reason, "robots_unreachable");
        tokio::time::sleep(Duration::from_millis(5_001)).await;
        ask(&robots, "http://a.example/no", (Ok(""), &fetches)).await.expect("these are new rules");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_of_an_abandoned_fetch() {
        let (robots, fetches) = (robots(|_| ()), AtomicUsize::new(0));
        for n in 0..50 {
            let (url, other) = (format!("http://h{n}.example/"), format!("http://h{n}.example/x"));
            let mut asked = Box::pin(ask(&robots, &url, (Ok(""), &fetches)));
            let mut beside = Box::pin(ask(&robots, &other, (Ok(""), &fetches)));
            assert!(futures::poll!(asked.as_mut()).is_pending() && futures::poll!(beside.as_mut()).is_pending());
            drop(asked);
            assert_eq!(robots.files().by_origin.len(), 1, "somebody still asks");
            drop(beside);
            assert_eq!(robots.files().by_origin.len(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_fetch_is_taken_over() {
        let (robots, fetches) = (robots(|_| ()), AtomicUsize::new(0));
        {
            let abandoned = ask(&robots, "http://a.example/", (Ok(""), &fetches));
            tokio::pin!(abandoned);
            assert!(futures::poll!(abandoned.as_mut()).is_pending());
        }
        assert!(ask(&robots, "http://a.example/", (Ok(""), &fetches)).await.is_ok());
        assert_eq!(fetches.load(SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let (robots, fetches) =
            (robots(|settings| settings.robots_cache_max_bytes = 20 * CACHED_FILE_BYTES), AtomicUsize::new(0));
        for n in 0..500 {
            ask(&robots, &format!("http://h{n}.example/"), (Ok(""), &fetches)).await.expect("allowed");
            let files = robots.files();
            assert!(files.by_origin.len() <= 21 && files.bytes <= 20 * CACHED_FILE_BYTES, "{}", files.by_origin.len());
        }
        ask(&robots, "http://h498.example/", (Ok(""), &fetches)).await.expect("allowed");
        assert_eq!(fetches.load(SeqCst), 500, "the newest are remembered");
    }
}
