//! Politeness: how many requests are under way, over all, at each host and at each address, and how fast these are asked.
//!
//! A host is slower than we are and shared with people, and one machine often serves many hosts. Promise: at no moment more
//! requests than the settings allow, and never two starts at one host or address closer together than its delay. Runs on
//! tokio's time alone, so a paused clock paces it.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use faceflow_core::Reloadable;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::Origin;
use super::settings::FetchSettings;

/// Every host and address that is being asked, or was a moment ago.
#[derive(Debug)]
pub struct HostLimiter {
    all: Arc<Semaphore>,
    settings: Reloadable<FetchSettings>,
    hosts: Mutex<Limiters<Origin>>,
    addresses: Mutex<Limiters<IpAddr>>,
}

/// The limiters of one kind, by host or by address.
#[derive(Debug)]
struct Limiters<K> {
    known: HashMap<K, Arc<Limiter>>,
    /// Requests under way at each, at most.
    in_flight_max: usize,
    known_max: usize,
    /// How many limiters there may be before the idle ones are forgotten.
    sweep_at: usize,
}

/// The limits of one host or address.
#[derive(Debug)]
struct Limiter {
    permits: Arc<Semaphore>,
    /// When the next request may start. Held by the one request whose turn it is.
    next: tokio::sync::Mutex<Instant>,
    /// When it wants to be asked again, as it said itself.
    not_before: Mutex<Option<Instant>>,
}

/// A permit for one request; dropping it says that the request has ended.
#[derive(Debug)]
pub struct HostPermit {
    _limiters: [Arc<Limiter>; 2],
    _permits: [OwnedSemaphorePermit; 2],
    _all: OwnedSemaphorePermit,
}

impl HostLimiter {
    /// Politeness by these settings.
    pub fn new(settings: &Reloadable<FetchSettings>) -> Self {
        let FetchSettings { concurrency, per_host, per_ip, hosts_max, .. } = *settings.get();
        Self {
            all: Arc::new(Semaphore::new(concurrency)),
            settings: settings.clone(),
            hosts: Mutex::new(Limiters::new(per_host, hosts_max)),
            addresses: Mutex::new(Limiters::new(per_ip, hosts_max)),
        }
    }

    /// Waits until a request to `origin` at `address` may start. `delay` is what the host itself asks for between two starts.
    ///
    /// The permit of the address is taken after that of the host, and the one among all requests last, so that what makes us
    /// wait keeps nobody else waiting; and each within the turns of what was taken before, so that a long wait for it does not
    /// bunch up starts.
    pub async fn acquire(&self, origin: &Origin, address: IpAddr, delay: Duration) -> HostPermit {
        let limiters = [lock(&self.hosts).limiter(origin), lock(&self.addresses).limiter(&address)];
        let (permits, all) = {
            let [host, address] = &limiters;
            let (at_host, mut host_next) = host.turn().await;
            let (at_address, mut address_next) = address.turn().await;
            let all = permit(&self.all).await;
            let (now, settings) = (Instant::now(), self.settings.get());
            *host_next = now + delay.max(Duration::from_millis(settings.delay_ms));
            *address_next = now + Duration::from_millis(settings.ip_delay_ms);
            ([at_host, at_address], all)
        };
        HostPermit { _limiters: limiters, _permits: permits, _all: all }
    }

    /// Remembers that a host wants to be left alone for so long, at most a day. The longest wish holds.
    pub fn hold_back(&self, origin: &Origin, delay_ms: u64) {
        let until = Instant::now() + Duration::from_millis(delay_ms.min(HOLD_BACK_MAX_MS));
        let limiter = lock(&self.hosts).limiter(origin);
        let mut not_before = limiter.not_before();
        *not_before = (*not_before).max(Some(until));
    }

    /// Until when a host wants to be left alone, if it does.
    pub fn not_before(&self, origin: &Origin) -> Option<Instant> {
        let limiter = lock(&self.hosts).known.get(origin).map(Arc::clone)?;
        let not_before = *limiter.not_before();
        not_before.filter(|moment| *moment > Instant::now())
    }
}

/// No host is remembered longer because it wants to be left alone, in milliseconds.
const HOLD_BACK_MAX_MS: u64 = 24 * 3_600_000;

fn lock<K>(limiters: &Mutex<Limiters<K>>) -> MutexGuard<'_, Limiters<K>> {
    limiters.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Clone + Eq + Hash> Limiters<K> {
    fn new(in_flight_max: usize, known_max: usize) -> Self {
        Self { known: HashMap::new(), in_flight_max, known_max, sweep_at: known_max }
    }

    fn limiter(&mut self, key: &K) -> Arc<Limiter> {
        if let Some(limiter) = self.known.get(key) {
            return Arc::clone(limiter);
        }
        let now = Instant::now();
        if self.known.len() >= self.sweep_at {
            self.sweep(now);
        }
        let (permits, next) = (Arc::new(Semaphore::new(self.in_flight_max)), tokio::sync::Mutex::new(now));
        let limiter = Arc::new(Limiter { permits, next, not_before: Mutex::new(None) });
        self.known.insert(key.clone(), Arc::clone(&limiter));
        limiter
    }

    /// Forgets idle limiters; those that are held back only if there is no room otherwise, since any number of hosts may ask for that.
    /// Doubling the distance to the next sweep keeps the cost per limiter constant when few are idle.
    fn sweep(&mut self, now: Instant) {
        self.known
            .retain(|_, limiter| !limiter.is_idle(now) || limiter.not_before().is_some_and(|moment| moment > now));
        if self.known.len() >= self.known_max {
            self.known.retain(|_, limiter| !limiter.is_idle(now));
        }
        self.sweep_at = self.known_max.max(2 * self.known.len());
    }
}

impl Limiter {
    /// A permit, once there is one and the delay has passed; and the lock on the next start, which others wait for.
    async fn turn(&self) -> (OwnedSemaphorePermit, tokio::sync::MutexGuard<'_, Instant>) {
        let permits = permit(&self.permits).await;
        let next = self.next.lock().await;
        if *next > Instant::now() {
            sleep_until(*next).await;
        }
        (permits, next)
    }

    fn not_before(&self) -> MutexGuard<'_, Option<Instant>> {
        self.not_before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No request is under way or waits, and the delay after the last one has passed. Only the map's own handle is left then.
    fn is_idle(self: &Arc<Self>, now: Instant) -> bool {
        Arc::strong_count(self) == 1 && self.next.try_lock().is_ok_and(|next| *next <= now)
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(semaphore).acquire_owned().await.expect("the semaphores are never closed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use url::Url;

    fn hosts(change: fn(&mut FetchSettings)) -> Arc<HostLimiter> {
        let mut settings = FetchSettings::default();
        change(&mut settings);
        Arc::new(HostLimiter::new(&settings.into()))
    }

    fn origin(name: &str) -> Origin {
        Origin::of(&Url::parse(&format!("http://{name}/")).expect(name))
    }

    fn address(n: u8) -> IpAddr {
        [9, 9, 9, n].into()
    }

    async fn enter(hosts: &HostLimiter, name: &str, ip: u8, delay_ms: u64) -> HostPermit {
        hosts.acquire(&origin(name), address(ip), Duration::from_millis(delay_ms)).await
    }

    /// When a request to each of these hosts at these addresses started, in milliseconds, each lasting 10 ms.
    async fn starts_at(hosts: &HostLimiter, visits: impl IntoIterator<Item = (String, u8)>) -> Vec<u64> {
        let begin = Instant::now();
        let visit = |(name, ip): (String, u8)| async move {
            let _here = enter(hosts, &name, ip, 0).await;
            let start = begin.elapsed().as_millis() as u64;
            tokio::time::sleep(Duration::from_millis(10)).await;
            start
        };
        let mut starts = futures::future::join_all(visits.into_iter().map(visit)).await;
        starts.sort_unstable();
        starts
    }

    /// When each of `count` requests to one host started, in milliseconds, each lasting `work_ms`.
    async fn starts(hosts: &Arc<HostLimiter>, count: usize, (delay_ms, work_ms): (u64, u64)) -> Vec<u64> {
        let begin = Instant::now();
        let request = |_| {
            let hosts = Arc::clone(hosts);
            async move {
                let _here = enter(&hosts, "a.example", 1, delay_ms).await;
                let start = begin.elapsed().as_millis() as u64;
                tokio::time::sleep(Duration::from_millis(work_ms)).await;
                start
            }
        };
        futures::future::join_all((0..count).map(request)).await
    }

    #[tokio::test(start_paused = true)]
    async fn starts_keep_the_longer_of_both_delays() {
        let hosts = hosts(|settings| settings.delay_ms = 200);
        assert_eq!(starts(&hosts, 4, (0, 1)).await, [0, 200, 400, 600]);
        // The last of them still paces the next.
        assert_eq!(starts(&hosts, 3, (1_000, 1)).await, [199, 1_199, 2_199]);
        hosts.settings.set(FetchSettings { delay_ms: 50, ..FetchSettings::default() });
        assert_eq!(starts(&hosts, 3, (0, 1)).await, [999, 1_049, 1_099], "a new delay holds from the next start");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_at_one_host() {
        let hosts = hosts(|settings| settings.per_host = 2);
        assert_eq!(starts(&hosts, 5, (0, 10)).await, [0, 0, 10, 10, 20]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_at_one_address_whatever_hosts_are_there() {
        let hosts = hosts(|settings| settings.per_ip = 3);
        let visits = (0..8).map(|n| (format!("h{}.example", n % 4), 1));
        assert_eq!(starts_at(&hosts, visits).await, [0, 0, 0, 10, 10, 10, 20, 20]);
        let elsewhere = (0..8).map(|n| (format!("h{n}.example"), n));
        assert_eq!(starts_at(&hosts, elsewhere).await, [0; 8], "every address has its own");
    }

    #[tokio::test(start_paused = true)]
    async fn starts_at_one_address_keep_its_delay_and_starts_at_one_host_the_hosts() {
        let hosts = hosts(|settings| {
            settings.ip_delay_ms = 100;
            settings.delay_ms = 250;
        });
        let visits = ["a.example", "b.example", "a.example", "c.example"].map(|name| (name.to_owned(), 1));
        assert_eq!(starts_at(&hosts, visits).await, [0, 100, 200, 300], "whoever waits for its host lets others pass");
        hosts.settings.set(FetchSettings { ip_delay_ms: 0, ..FetchSettings::default() });
        let visits = (0..4).map(|n| (format!("h{n}.example"), 1));
        assert_eq!(starts_at(&hosts, visits).await, [90; 4], "a new delay holds from the next start");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_for_the_address_does_not_bunch_up_starts_at_the_host() {
        let hosts = hosts(|settings| {
            settings.per_ip = 1;
            settings.delay_ms = 30;
        });
        let other = enter(&hosts, "other.example", 1, 0).await;
        let waiting = starts(&hosts, 3, (0, 1));
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(other);
        assert_eq!(waiting.await, [500, 530, 560]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_paced_address_holds_no_place_of_another() {
        let hosts = hosts(|settings| {
            settings.concurrency = 1;
            settings.ip_delay_ms = 1_000;
        });
        drop(enter(&hosts, "a.example", 1, 0).await);
        let waiting = enter(&hosts, "b.example", 1, 0);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        let begin = Instant::now();
        drop(enter(&hosts, "c.example", 2, 0).await);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        waiting.await;
        assert_eq!(begin.elapsed(), Duration::from_millis(1_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_paced_host_holds_no_place_of_another() {
        let hosts = hosts(|settings| {
            settings.concurrency = 1;
            settings.per_ip = 1;
            settings.delay_ms = 1_000;
        });
        drop(enter(&hosts, "slow.example", 1, 0).await);
        let waiting = enter(&hosts, "slow.example", 1, 0);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        let begin = Instant::now();
        drop(enter(&hosts, "b.example", 1, 0).await);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        waiting.await;
        assert_eq!(begin.elapsed(), Duration::from_millis(1_000));
    }

    #[tokio::test(start_paused = true)]
    async fn the_total_limit_holds_over_many_hosts() {
        let hosts = hosts(|settings| settings.concurrency = 3);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let visit = |n: usize| {
            let (hosts, now, most) = (&hosts, &now, &most);
            async move {
                let _here = enter(hosts, &format!("h{n}.example"), n as u8, 0).await;
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                now.fetch_sub(1, SeqCst);
            }
        };
        futures::future::join_all((0..20).map(visit)).await;
        assert_eq!(most.load(SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_is_held_back_as_long_as_it_says_and_a_day_at_most() {
        let (hosts, begin) = (hosts(|_| ()), Instant::now());
        let wait = |name| hosts.not_before(&origin(name)).map(|moment| moment - begin);
        hosts.hold_back(&origin("a.example"), 5_000);
        hosts.hold_back(&origin("a.example"), 1_000);
        hosts.hold_back(&origin("b.example"), u64::MAX);
        assert_eq!(wait("a.example"), Some(Duration::from_secs(5)), "a shorter wish takes nothing back");
        assert_eq!(wait("b.example"), Some(Duration::from_millis(HOLD_BACK_MAX_MS)));
        assert_eq!(wait("c.example"), None);
        drop(enter(&hosts, "a.example", 1, 0).await);
        assert_eq!(begin.elapsed(), Duration::ZERO, "nobody is kept from asking");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(wait("a.example"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_are_held_back_are_forgotten_last() {
        let hosts = hosts(|settings| settings.hosts_max = 10);
        let host = |n: usize| origin(&format!("h{n}.example"));
        (0..5).for_each(|n| hosts.hold_back(&host(n), 60_000));
        for n in 0..100 {
            drop(enter(&hosts, &format!("idle{n}.example"), 1, 0).await);
        }
        assert!((0..5).all(|n| hosts.not_before(&host(n)).is_some()));
        (5..100).for_each(|n| hosts.hold_back(&host(n), 60_000));
        assert!(lock(&hosts.hosts).known.len() <= 10 && hosts.not_before(&host(99)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_hosts_are_forgotten_and_busy_or_paced_ones_are_not() {
        let hosts = hosts(|settings| {
            settings.hosts_max = 10;
            settings.delay_ms = 1_000;
            settings.ip_delay_ms = 1_000;
        });
        let busy = enter(&hosts, "busy.example", 100, 0).await;
        for n in 0..9 {
            drop(enter(&hosts, &format!("old{n}.example"), n, 0).await);
        }
        tokio::time::sleep(Duration::from_millis(1_001)).await;
        drop(enter(&hosts, "paced.example", 101, 0).await);
        let known = |name| lock(&hosts.hosts).known.contains_key(&origin(name));
        assert!(known("busy.example") && known("paced.example") && !known("old0.example") && !known("old8.example"));
        let known = |n| lock(&hosts.addresses).known.contains_key(&address(n));
        assert!(known(100) && known(101) && !known(0) && !known(8));
        drop(busy);
    }
}
