//! Politeness: how many requests are under way, over all and at each host, and how fast a host is asked.
//!
//! A host is slower than we are and shared with people. Promise: at no moment more requests than the settings allow, and
//! never two starts at one host closer together than its delay. Runs on tokio's time alone, so a paused clock moves it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use faceflow_core::Live;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::Origin;
use super::settings::FetchSettings;

/// Every host that is being asked, or was a moment ago.
#[derive(Debug)]
pub struct Hosts {
    all: Arc<Semaphore>,
    settings: Live<FetchSettings>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    hosts: HashMap<Origin, Arc<Host>>,
    hosts_max: usize,
    /// How many hosts there may be before the idle ones are forgotten.
    sweep_at: usize,
}

#[derive(Debug)]
struct Host {
    here: Arc<Semaphore>,
    /// When the next request may start. Held by the one request whose turn it is.
    next: tokio::sync::Mutex<Instant>,
}

/// The right to have one request under way; dropping it ends the request.
#[derive(Debug)]
pub struct Visitor {
    _host: Arc<Host>,
    _here: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Hosts {
    /// Politeness by these settings.
    pub fn new(settings: &Live<FetchSettings>) -> Self {
        let FetchSettings { concurrency, hosts_max, .. } = *settings.get();
        Self {
            all: Arc::new(Semaphore::new(concurrency)),
            settings: settings.clone(),
            known: Mutex::new(Known { hosts: HashMap::new(), hosts_max, sweep_at: hosts_max }),
        }
    }

    /// Waits until a request to `origin` may start. `delay` is what the host itself asks for between two starts.
    ///
    /// The place among all requests is taken last, so that a host that makes us wait keeps no other host waiting; and
    /// within the host's turn, so that a long wait for it does not bunch up starts.
    pub async fn enter(&self, origin: &Origin, delay: Duration) -> Visitor {
        let host = self.host(origin);
        let here = permit(&host.here).await;
        let all = {
            let mut next = host.next.lock().await;
            if *next > Instant::now() {
                sleep_until(*next).await;
            }
            let all = permit(&self.all).await;
            *next = Instant::now() + delay.max(Duration::from_millis(self.settings.get().delay_ms));
            all
        };
        Visitor { _host: host, _here: here, _all: all }
    }

    fn host(&self, origin: &Origin) -> Arc<Host> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = known.hosts.get(origin) {
            return Arc::clone(host);
        }
        if known.hosts.len() >= known.sweep_at {
            known.sweep(Instant::now());
        }
        let (here, next) =
            (Arc::new(Semaphore::new(self.settings.get().per_host)), tokio::sync::Mutex::new(Instant::now()));
        let host = Arc::new(Host { here, next });
        known.hosts.insert(origin.clone(), Arc::clone(&host));
        host
    }
}

impl Known {
    /// Forgets idle hosts. Doubling the distance to the next sweep keeps the cost per host constant when few are idle.
    fn sweep(&mut self, now: Instant) {
        self.hosts.retain(|_, host| !host.is_idle(now));
        self.sweep_at = self.hosts_max.max(2 * self.hosts.len());
    }
}

impl Host {
    /// Nobody is here or waits, and the delay after the last request has passed. Only the map's own handle is left then.
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

    fn hosts(change: fn(&mut FetchSettings)) -> Arc<Hosts> {
        let mut settings = FetchSettings::default();
        change(&mut settings);
        Arc::new(Hosts::new(&settings.into()))
    }

    fn origin(name: &str) -> Origin {
        Origin::of(&Url::parse(&format!("http://{name}/")).expect(name))
    }

    /// When each of `count` requests to one host started, in milliseconds, each lasting `work_ms`.
    async fn starts(hosts: &Arc<Hosts>, count: usize, (delay_ms, work_ms): (u64, u64)) -> Vec<u64> {
        let begin = Instant::now();
        let request = |_| {
            let hosts = Arc::clone(hosts);
            async move {
                let _here = hosts.enter(&origin("a.example"), Duration::from_millis(delay_ms)).await;
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
    async fn a_paced_host_holds_no_place_of_another() {
        let hosts = hosts(|settings| {
            settings.concurrency = 1;
            settings.delay_ms = 1_000;
        });
        let slow = origin("slow.example");
        drop(hosts.enter(&slow, Duration::ZERO).await);
        let waiting = hosts.enter(&slow, Duration::ZERO);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        let begin = Instant::now();
        drop(hosts.enter(&origin("b.example"), Duration::ZERO).await);
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
                let _here = hosts.enter(&origin(&format!("h{n}.example")), Duration::ZERO).await;
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                now.fetch_sub(1, SeqCst);
            }
        };
        futures::future::join_all((0..20).map(visit)).await;
        assert_eq!(most.load(SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_hosts_are_forgotten_and_busy_or_paced_ones_are_not() {
        let hosts = hosts(|settings| {
            settings.hosts_max = 10;
            settings.delay_ms = 1_000;
        });
        let busy = hosts.enter(&origin("busy.example"), Duration::ZERO).await;
        for n in 0..9 {
            drop(hosts.enter(&origin(&format!("old{n}.example")), Duration::ZERO).await);
        }
        tokio::time::sleep(Duration::from_millis(1_001)).await;
        drop(hosts.enter(&origin("paced.example"), Duration::ZERO).await);
        let known = |name| hosts.known.lock().expect("not poisoned").hosts.contains_key(&origin(name));
        assert!(known("busy.example") && known("paced.example") && !known("old0.example") && !known("old8.example"));
        drop(busy);
    }
}
