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

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use faceflow_core::{Clock, Reloadable};
use futures::future::BoxFuture;
use tokio::time::Instant;
use url::Url;

use super::body_budget::BodyBudget;
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
    /// What robots.txt are fetched with, and whatever its client asks for.
    http: Http,
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
    /// The HTTP library refused to start.
    #[error("the HTTP client cannot start (are there root certificates on this system?): {0}")]
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
            bodies: Arc::new(BodyBudget::new(settings.memory_max_bytes)),
            judge: Arc::new(judge),
            http: Http::new(live.clone())?,
            settings: live,
        })))
    }

    /// Waits until `url` may be asked for this purpose, if it may, and until there is memory for a response.
    pub async fn admit(&self, url: &Url, purpose: Purpose) -> Result<Permit, Failure> {
        let admitted = self.enter(url, purpose).await;
        if let Err(failure) = &admitted {
            self.0.judge.note(failure);
        }
        admitted
    }

    /// Until when the host of `url` wants to be left alone, if it does, as its responses and its robots.txt say. Nobody is kept from
    /// asking it: each URL that failed knows from its fault when it may be tried again.
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

    async fn enter(&self, url: &Url, purpose: Purpose) -> Result<Permit, Failure> {
        let Inner { settings, guard, robots, bodies, judge, .. } = &*self.0;
        guard.check(url).await?;
        let delay = match purpose.obeys_robots() && settings.get().respect_robots {
            true => robots.delay(url, |file| self.robots_txt(file)).await?,
            false => Duration::ZERO,
        };
        let peer = Peer { host: Origin::of(url), address: guard.addresses(url).await?.least };
        // Memory comes last: whoever waits for a host's pace holds none.
        let host = judge.hosts.acquire(&peer.host, peer.address, delay).await;
        let body = bodies.share().await;
        // They may have waited longer than addresses are believed.
        let addresses = guard.addresses(url).await?.all;
        Ok(Permit { url: url.clone(), purpose, peer, addresses, judge: Arc::clone(judge), body, _host: host })
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
