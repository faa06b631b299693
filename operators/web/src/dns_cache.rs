//! The addresses of names, looked up once and remembered for a while.
//!
//! Politeness asks for a host's address before every request, and a lookup holds a thread of the runtime. Promise: one lookup
//! for any number of simultaneous questions, no answer believed longer than its time, and a bounded memory.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use faceflow_core::{Fault, Reloadable};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::settings::FetchSettings;

/// A failed lookup is remembered so long at most, in milliseconds.
const FAILURE_MS: u64 = 5_000;
/// Lookups under way at once. Each is a thread of the runtime, and the ledger needs some of these, too.
const LOOKUPS_MAX: usize = 64;

/// Addresses of names that were looked up, by name.
#[derive(Debug)]
pub struct DnsCache {
    settings: Reloadable<FetchSettings>,
    lookups: Arc<Semaphore>,
    names: Mutex<HashMap<String, Arc<CachedName>>>,
}

/// The right to have one lookup under way.
pub type LookupPermit = OwnedSemaphorePermit;

/// One name; its cell is filled by whoever asks first.
type CachedName = OnceCell<Known>;

#[derive(Debug)]
struct Known {
    found: Result<Arc<[SocketAddr]>, Fault>,
    expires: Instant,
}

impl Known {
    /// How long it is believed from now on, in milliseconds, rounded up.
    fn millis_left(&self) -> u64 {
        self.expires.saturating_duration_since(Instant::now()).as_nanos().div_ceil(1_000_000) as u64
    }
}

impl DnsCache {
    /// Nothing remembered yet.
    pub fn new(settings: &Reloadable<FetchSettings>) -> Self {
        Self { settings: settings.clone(), lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)), names: Mutex::default() }
    }

    /// The addresses of `name`. `look_up` gets them; it is called only where none are remembered, and keeps what it is given for
    /// as long as it holds a thread. A failure that may pass says when it is looked up again.
    pub async fn of<F>(&self, name: &str, look_up: impl FnOnce(LookupPermit) -> F) -> Result<Arc<[SocketAddr]>, Fault>
    where
        F: Future<Output = Result<Vec<SocketAddr>, Fault>>,
    {
        let cached = self.cached(name);
        let known = cached.get_or_init(|| async {
            let permit = Arc::clone(&self.lookups).acquire_owned().await.expect("the semaphore is never closed");
            let found = look_up(permit).await.map(Arc::from);
            let ttl_ms = self.settings.get().dns_ttl_ms;
            let lasts_ms = if found.is_ok() { ttl_ms } else { ttl_ms.min(FAILURE_MS) };
            Known { found, expires: Instant::now() + Duration::from_millis(lasts_ms) }
        });
        let known = known.await;
        known.found.clone().map_err(|fault| if fault.permanent { fault } else { fault.after(known.millis_left()) })
    }

    /// The cell of a name: the one that is remembered or being looked up, else an empty one.
    fn cached(&self, name: &str) -> Arc<CachedName> {
        let (mut names, now) = (self.names(), Instant::now());
        if let Some(cached) = names.get(name).filter(|cached| cached.get().is_none_or(|known| known.expires > now)) {
            return Arc::clone(cached);
        }
        let names_max = self.settings.get().hosts_max;
        if names.len() >= names_max {
            make_room(&mut names, names_max, now);
        }
        let cached = Arc::new(CachedName::new());
        names.insert(name.to_owned(), Arc::clone(&cached));
        cached
    }

    /// Believes that `name` has these addresses, and forgets what was believed before.
    #[cfg(test)]
    pub fn believe(&self, name: &str, addresses: &[SocketAddr]) {
        let expires = Instant::now() + Duration::from_millis(self.settings.get().dns_ttl_ms);
        let known = Known { found: Ok(addresses.into()), expires };
        self.names().insert(name.to_owned(), Arc::new(CachedName::new_with(Some(known))));
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Arc<CachedName>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what has expired, and lookups that nobody waits for any more; if that is not enough, also the half of the rest that
/// expires first. Names that are being looked up stay.
fn make_room(names: &mut HashMap<String, Arc<CachedName>>, names_max: usize, now: Instant) {
    forget(names, now);
    if names.len() < names_max {
        return;
    }
    let mut expiries: Vec<_> = names.values().filter_map(|cached| cached.get().map(|known| known.expires)).collect();
    expiries.sort_unstable();
    if let Some(middle) = expiries.get(expiries.len() / 2) {
        forget(names, *middle);
    }
}

/// Forgets what expires until `moment`.
fn forget(names: &mut HashMap<String, Arc<CachedName>>, moment: Instant) {
    names.retain(|_, cached| match cached.get() {
        Some(known) => known.expires > moment,
        None => Arc::strong_count(cached) > 1,
    });
}

/// The one of these addresses that politeness goes by: the least one, so that it stays when a name server gives them in
/// another order.
pub fn least(addresses: &[SocketAddr]) -> Option<IpAddr> {
    addresses.iter().map(|address| address.ip().to_canonical()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use faceflow_core::Class;

    fn cache(change: fn(&mut FetchSettings)) -> DnsCache {
        let mut settings = FetchSettings::default();
        change(&mut settings);
        DnsCache::new(&settings.into())
    }

    fn at(ips: &[&str]) -> Vec<SocketAddr> {
        ips.iter().map(|ip| SocketAddr::new(ip.parse().expect(ip), 0)).collect()
    }

    /// Asks for `name`, which has this answer; counts the lookups, of which each lasts 10 ms.
    async fn ask(
        cache: &DnsCache,
        name: &str,
        (answer, lookups): (Result<Vec<SocketAddr>, Fault>, &AtomicUsize),
    ) -> Result<Arc<[SocketAddr]>, Fault> {
        let look_up = |permit| async move {
            let _permit: LookupPermit = permit;
            lookups.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer
        };
        cache.of(name, look_up).await
    }

    #[tokio::test(start_paused = true)]
    async fn one_lookup_serves_every_question_until_it_expires() {
        let (cache, lookups) = (cache(|settings| settings.dns_ttl_ms = 60_000), AtomicUsize::new(0));
        let (first, second) = (Ok(at(&["9.9.9.9"])), Ok(at(&["9.9.9.10"])));
        let questions = (0..20).map(|_| ask(&cache, "a.example", (first.clone(), &lookups)));
        for found in futures::future::join_all(questions).await {
            assert_eq!(found.expect("found").to_vec(), at(&["9.9.9.9"]));
        }
        ask(&cache, "b.example", (first.clone(), &lookups)).await.expect("found");
        assert_eq!(lookups.load(SeqCst), 2);
        tokio::time::sleep(Duration::from_millis(59_980)).await;
        let found = ask(&cache, "a.example", (second.clone(), &lookups)).await.expect("found");
        assert_eq!((found.to_vec(), lookups.load(SeqCst)), (at(&["9.9.9.9"]), 2));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let found = ask(&cache, "a.example", (second, &lookups)).await.expect("found");
        assert_eq!((found.to_vec(), lookups.load(SeqCst)), (at(&["9.9.9.10"]), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_remembered_shortly_and_says_when_to_ask_again() {
        let (patient, lookups) = (cache(|_| ()), AtomicUsize::new(0));
        let unknown = Fault::transient(Class::Dns, "dns", "a.example does not resolve");
        let fault = ask(&patient, "a.example", (Err(unknown.clone()), &lookups)).await.expect_err("unknown");
        assert_eq!((fault.reason.as_str(), fault.retry_after_ms), ("dns", Some(FAILURE_MS)));
        tokio::time::sleep(Duration::from_millis(4_000)).await;
        let fault = ask(&patient, "a.example", (Ok(at(&["9.9.9.9"])), &lookups)).await.expect_err("remembered");
        assert_eq!((fault.retry_after_ms, lookups.load(SeqCst)), (Some(1_000), 1));
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        assert!(ask(&patient, "a.example", (Ok(at(&["9.9.9.9"])), &lookups)).await.is_ok());

        let hasty = cache(|settings| settings.dns_ttl_ms = 700);
        let fault = ask(&hasty, "a.example", (Err(unknown), &lookups)).await.expect_err("unknown");
        assert_eq!(fault.retry_after_ms, Some(700), "no longer than an answer");
        let inside = Fault::permanent(Class::Policy, "private_address", "b.example (10.0.0.1)");
        assert_eq!(ask(&hasty, "b.example", (Err(inside.clone()), &lookups)).await, Err(inside));
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_lookup_is_taken_over() {
        let (cache, lookups) = (cache(|_| ()), AtomicUsize::new(0));
        {
            let abandoned = ask(&cache, "a.example", (Ok(at(&["9.9.9.9"])), &lookups));
            tokio::pin!(abandoned);
            assert!(futures::poll!(abandoned.as_mut()).is_pending());
        }
        assert!(ask(&cache, "a.example", (Ok(at(&["9.9.9.9"])), &lookups)).await.is_ok());
        assert_eq!(lookups.load(SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn abandoned_lookups_are_forgotten_and_others_stay() {
        let (cache, lookups) = (cache(|settings| settings.hosts_max = 20), AtomicUsize::new(0));
        let mut waiting = Box::pin(ask(&cache, "slow.example", (Ok(at(&["9.9.9.9"])), &lookups)));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        for n in 0..100 {
            let name = format!("h{n}.example");
            let mut abandoned = Box::pin(ask(&cache, &name, (Ok(at(&["9.9.9.9"])), &lookups)));
            assert!(futures::poll!(abandoned.as_mut()).is_pending());
            drop(abandoned);
            assert!(cache.names().len() <= 21, "{}", cache.names().len());
        }
        waiting.await.expect("found");
        assert_eq!(
            ask(&cache, "slow.example", (Ok(at(&["9.9.9.8"])), &lookups)).await.expect("known")[0].ip(),
            at(&["9.9.9.9"])[0].ip()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_lookups_at_once_are_bounded() {
        let (cache, lookups) = (cache(|settings| settings.hosts_max = 20), AtomicUsize::new(0));
        let name = |n: usize| format!("h{n}.example");
        for n in 0..200 {
            ask(&cache, &name(n), (Ok(at(&["9.9.9.9"])), &lookups)).await.expect("found");
            assert!(cache.names().len() <= 20);
        }
        ask(&cache, &name(199), (Ok(at(&["9.9.9.9"])), &lookups)).await.expect("found");
        assert_eq!(lookups.load(SeqCst), 200, "the newest are remembered");

        let begin = Instant::now();
        let names: Vec<_> = (1_000..1_000 + 3 * LOOKUPS_MAX).map(name).collect();
        let questions = names.iter().map(|name| ask(&cache, name, (Ok(at(&["9.9.9.9"])), &lookups)));
        assert!(futures::future::join_all(questions).await.iter().all(Result::is_ok));
        assert_eq!(begin.elapsed(), Duration::from_millis(30), "they take turns");
    }

    #[test]
    fn the_least_address_does_not_depend_on_their_order_or_spelling() {
        let least = |ips: &[&str]| least(&at(ips)).map(|ip| ip.to_string());
        assert_eq!(least(&["9.9.9.9", "9.9.9.10", "2620:fe::fe"]), Some("9.9.9.9".into()));
        assert_eq!(least(&["2620:fe::fe", "9.9.9.10", "9.9.9.9"]), Some("9.9.9.9".into()));
        assert_eq!(least(&["2620:fe::fe", "::ffff:9.9.9.9"]), Some("9.9.9.9".into()));
        assert_eq!(least(&[]), None);
    }
}
