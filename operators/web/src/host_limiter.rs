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

use faceflow_core::{Fault, Reloadable};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::Origin;
use super::circuit_breaker::whole_ms;
use super::failure::Failure;
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
    rest: Mutex<Option<Rest>>,
}

/// That a host wants to be left alone.
#[derive(Clone, Debug)]
struct Rest {
    until: Instant,
    /// What it said.
    fault: Fault,
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
    /// bunch up starts. Whenever its turn has come it is asked again whether it may start at all: what `check` refuses is no
    /// start.
    pub async fn acquire(
        &self,
        origin: &Origin,
        address: IpAddr,
        (delay, check): (Duration, &(dyn Fn() -> Result<(), Failure> + Sync)),
    ) -> Result<HostPermit, Failure> {
        let limiters = [lock(&self.hosts).limiter(origin), lock(&self.addresses).limiter(&address)];
        let (permits, all) = {
            let [host, address] = &limiters;
            let (at_host, mut host_next) = host.turn(check).await?;
            let (at_address, mut address_next) = address.turn(check).await?;
            let all = permit(&self.all).await;
            check()?;
            let (now, settings) = (Instant::now(), self.settings.get());
            *host_next = now + delay.max(Duration::from_millis(settings.delay_ms));
            *address_next = now + Duration::from_millis(settings.ip_delay_ms);
            ([at_host, at_address], all)
        };
        Ok(HostPermit { _limiters: limiters, _permits: permits, _all: all })
    }

    /// Remembers that a host wants to be left alone for so long, at most a day, and what it said. The longest wish holds.
    pub fn hold_back(&self, origin: &Origin, delay_ms: u64, fault: &Fault) {
        let until = Instant::now() + Duration::from_millis(delay_ms.min(HOLD_BACK_MAX_MS));
        let limiter = lock(&self.hosts).limiter(origin);
        let mut rest = limiter.rest();
        if rest.as_ref().is_none_or(|rest| rest.until < until) {
            *rest = Some(Rest { until, fault: fault.clone() });
        }
    }

    /// Refuses whoever wants to ask a host that wants to be left alone.
    pub fn check(&self, origin: &Origin) -> Result<(), Failure> {
        let Some(Rest { until, fault }) = self.resting(origin) else { return Ok(()) };
        let wait_ms = whole_ms(until.saturating_duration_since(Instant::now()));
        let detail = format!("not asked, because {origin} wants to be left alone for {wait_ms} ms: {}", fault.detail);
        Err(Failure::of_host(Fault { detail, ..fault }.after(wait_ms), origin.clone()))
    }

    fn resting(&self, origin: &Origin) -> Option<Rest> {
        let limiter = lock(&self.hosts).known.get(origin).map(Arc::clone)?;
        let rest = limiter.rest().clone();
        rest.filter(|rest| rest.until > Instant::now())
    }

    /// How many hosts want to be left alone.
    pub fn resting_hosts(&self) -> usize {
        let now = Instant::now();
        lock(&self.hosts).known.values().filter(|limiter| limiter.rests(now)).count()
    }

    /// Until when a host wants to be left alone, if it does.
    pub fn not_before(&self, origin: &Origin) -> Option<Instant> {
        self.resting(origin).map(|rest| rest.until)
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
        let limiter = Arc::new(Limiter { permits, next, rest: Mutex::new(None) });
        self.known.insert(key.clone(), Arc::clone(&limiter));
        limiter
    }

    /// Forgets idle limiters; those that are held back only if there is no room otherwise, since any number of hosts may ask for that.
    /// Doubling the distance to the next sweep keeps the cost per limiter constant when few are idle.
    fn sweep(&mut self, now: Instant) {
        self.known.retain(|_, limiter| !limiter.is_idle(now) || limiter.rests(now));
        if self.known.len() >= self.known_max {
            self.known.retain(|_, limiter| !limiter.is_idle(now));
        }
        self.sweep_at = self.known_max.max(2 * self.known.len());
    }
}

impl Limiter {
    /// A permit, once there is one and the delay has passed; and the lock on the next start, which others wait for.
    async fn turn(
        &self,
        check: &(dyn Fn() -> Result<(), Failure> + Sync),
    ) -> Result<(OwnedSemaphorePermit, tokio::sync::MutexGuard<'_, Instant>), Failure> {
        let permits = permit(&self.permits).await;
        let next = self.next.lock().await;
        check()?;
        if *next > Instant::now() {
            sleep_until(*next).await;
            check()?;
        }
        Ok((permits, next))
    }

    fn rest(&self) -> MutexGuard<'_, Option<Rest>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rests(&self, now: Instant) -> bool {
        self.rest().as_ref().is_some_and(|rest| rest.until > now)
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
mod tests;
