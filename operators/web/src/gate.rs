//! The gate: what every request to a host that others name goes through, whoever makes it.
//!
//! A crawler, a browser's proxy, webhooks and downloads reach hosts that strangers wrote down. The gate keeps them from machines
//! behind our own firewall (`ssrf_guard.rs`), obeys robots.txt, and shares one pace for each host and address
//! and one memory for bodies among all of them. Whoever has a [`Permit`] makes one request under it and tells the permit what came
//! back. Promise: each hop of every request was checked and waited its turn, and a [`Failure`] says whose doing it was.
//!
//! ```no_run
//! # async fn notify(gate: faceflow_web::Gate, http: reqwest::Client, url: url::Url) -> Result<(), faceflow_web::Failure> {
//! use faceflow_web::Purpose;
//!
//! // `http` was built with `PinnedNames` as its resolver and follows no redirects.
//! let permit = gate.admit(&url, Purpose::Webhook).await?;
//! let response = permit.connect(http.post(url).send()).await.map_err(|error| permit.failed(&error))?;
//! permit.answered(response.status(), response.headers())
//! # }
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use faceflow_core::record::queue_of;
use faceflow_core::{Clock, HostFaultKind, Reloadable};
use futures::future::BoxFuture;
use tokio::time::Instant;
use url::Url;

use super::body_budget::BodyBudget;
use super::circuit_breaker::CircuitBreakers;
use super::failure::{Failure, Peer};
use super::host_limiter::HostLimiter;
use super::http::Http;
use super::permit::{Admit, Judge, Permit, Purpose};
use super::robots_cache::RobotsCache;
use super::settings::FetchSettings;
use super::ssrf_guard::Guard;
use super::{OptOuts, Origin};

/// The gate. Clones share paces, budgets, and what is remembered of names and robots.txt.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    settings: Reloadable<FetchSettings>,
    guard: Guard,
    robots: RobotsCache,
    bodies: Arc<BodyBudget>,
    judge: Arc<Judge>,
    breakers: Arc<CircuitBreakers>,
    /// Requests that were not made, because a host wants to be left alone or nothing at its address takes connections.
    refused: AtomicU64,
    /// What robots.txt are fetched with, and whatever its client asks for.
    http: Http,
}

/// What the gate keeps requests from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// Hosts that want to be left alone.
    pub hosts: usize,
    /// Addresses at which nothing takes connections.
    pub addresses: usize,
    /// Requests that were refused because of either, so far.
    pub refused: u64,
}

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// An impossible setting.
    #[error("fetch.{key} must be {allowed}")]
    Setting {
        /// The key under `fetch`.
        key: &'static str,
        /// What is allowed.
        allowed: String,
    },
    /// The TLS library refused to start.
    #[error("the HTTP client cannot start (are there root certificates on this system?): {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP library refused to start.
    #[error("the HTTP client cannot start: {0}")]
    Http(#[from] reqwest::Error),
}

impl Gate {
    /// A gate with these settings; what [`FetchSettings::taking`] takes over may change while it works. `clock` reads `Retry-After`
    /// dates of servers that do not tell their own time.
    pub fn new(live: Reloadable<FetchSettings>, clock: Arc<dyn Clock>) -> Result<Self, GateError> {
        let settings = live.get();
        settings.check().map_err(|(key, allowed)| GateError::Setting { key, allowed })?;
        let judge = Judge { hosts: HostLimiter::new(&live), opt_outs: OptOuts::new(&settings), clock };
        Ok(Self(Arc::new(Inner {
            guard: Guard::new(&live),
            robots: RobotsCache::new(&live),
            bodies: Arc::new(BodyBudget::new(settings.bodies_bytes())),
            judge: Arc::new(judge),
            breakers: Arc::new(CircuitBreakers::new(&settings)),
            refused: AtomicU64::new(0),
            http: Http::new(live.clone())?,
            settings: live,
        })))
    }

    /// Waits until `url` may be asked for this purpose, if it may, and until there is memory for a response.
    pub async fn admit(&self, url: &Url, purpose: Purpose) -> Result<Permit, Failure> {
        self.enter(url, purpose).await
    }

    /// Until when the host of `url` wants to be left alone, if it does, as its responses and its robots.txt say. Nobody is let through
    /// to it before.
    pub fn not_before(&self, url: &Url) -> Option<Instant> {
        self.0.judge.hosts.not_before(&Origin::of(url))
    }

    /// A number for the address behind `url`, equal in every process; none for what may not be asked.
    pub(super) async fn address_hash(&self, url: &Url) -> Option<u64> {
        // No name is looked up for a URL that is never asked.
        self.0.guard.check(url).await.ok()?;
        let addresses = self.0.guard.addresses(url).await.ok()?;
        Some(faceflow_core::record::number(&addresses.least.to_string()))
    }

    /// The HTTP client that shares connections with the fetching of robots.txt.
    pub(super) fn http(&self) -> &Http {
        &self.0.http
    }

    /// The memory for bodies.
    pub(super) fn bodies(&self) -> Arc<BodyBudget> {
        Arc::clone(&self.0.bodies)
    }

    /// Its settings.
    pub(super) fn settings(&self) -> Reloadable<FetchSettings> {
        self.0.settings.clone()
    }

    #[cfg(test)]
    pub(super) fn guard(&self) -> &Guard {
        &self.0.guard
    }

    /// How many hosts want to be left alone, at how many addresses nothing takes connections, and how many requests were refused
    /// because of either.
    pub fn held_back(&self) -> HeldBack {
        let Inner { judge, breakers, refused, .. } = &*self.0;
        HeldBack { hosts: judge.hosts.resting_hosts(), addresses: breakers.open(), refused: refused.load(Relaxed) }
    }

    async fn enter(&self, url: &Url, purpose: Purpose) -> Result<Permit, Failure> {
        let origin = Origin::of(url);
        self.rested(url, &origin)?;
        self.let_through(url, origin, purpose).await.map_err(|failure| self.0.judge.note(failure, url))
    }

    /// Refuses whoever asks a host before its time. It is not asked, and so it has not failed once more.
    fn rested(&self, url: &Url, origin: &Origin) -> Result<(), Failure> {
        let Inner { judge, refused, .. } = &*self.0;
        judge.hosts.check(origin).map_err(|mut failure| {
            refused.fetch_add(1, Relaxed);
            failure.fault = failure.fault.of_host(queue_of(url), HostFaultKind::Resting);
            failure.judge_host(url);
            failure
        })
    }

    async fn let_through(&self, url: &Url, origin: Origin, purpose: Purpose) -> Result<Permit, Failure> {
        let Inner { settings, guard, robots, bodies, judge, breakers, refused, .. } = &*self.0;
        guard.check(url).await?;
        let delay = match purpose.obeys_robots() && settings.get().respect_robots {
            true => robots.admit(url, |file| self.robots_txt(file)).await?,
            false => Duration::ZERO,
        };
        let peer = Peer { host: origin, address: guard.addresses(url).await?.least };
        let socket = SocketAddr::new(peer.address, url.port_or_known_default().unwrap_or_default());
        let is_open = |failure| {
            refused.fetch_add(1, Relaxed);
            failure
        };
        let check = || {
            self.rested(url, &peer.host)?;
            breakers.check(socket).map_err(is_open)
        };
        // Memory comes last: whoever waits for a host's pace holds none.
        let host = judge.hosts.acquire(&peer.host, peer.address, (delay, &check)).await?;
        let body = bodies.share().await;
        // They may have waited longer than addresses are believed, and than the host was well.
        let addresses = guard.addresses(url).await?.all;
        self.rested(url, &peer.host)?;
        let connecting = breakers.connect(socket).map_err(is_open)?;
        let (url, judge) = (url.clone(), Arc::clone(judge));
        Ok(Permit { url, purpose, peer, addresses, judge, body, connecting, _host: host })
    }

    /// The body of a robots.txt. Boxed, because admitting a page asks for its rules first.
    fn robots_txt(&self, file: Url) -> BoxFuture<'_, Result<Bytes, Failure>> {
        Box::pin(self.http().robots_txt(self, file))
    }
}

impl Admit for Gate {
    fn admit<'a>(&'a self, url: &'a Url, purpose: Purpose) -> BoxFuture<'a, Result<Permit, Failure>> {
        Box::pin(Self::admit(self, url, purpose))
    }
}
