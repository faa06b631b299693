//! Permits: the right to make one request, held while it is under way.
//!
//! Promise: under a permit connections are made to the addresses that the gate has checked for it, whatever name servers say by
//! then (DNS rebinding); without a permit they are made to no name at all.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use faceflow_core::record::queue_of;
use faceflow_core::{Class, Clock, Fault, HostFaultKind};
use futures::future::BoxFuture;
use reqwest::StatusCode;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderMap;
use tokio::time::Instant;
use url::Url;

use super::body_budget::BodyPermit;
use super::circuit_breaker::Connecting;
use super::classify_fault::{self, WrappedFault};
use super::failure::{AtFault, Failure, Peer};
use super::host_limiter::{HostLimiter, HostPermit};
use super::{OptOuts, Want};

/// What a request is made for: decides which rules bind it. URL rules, checked addresses, pace and limits bind each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A page or picture of the crawl. robots.txt binds it, with its crawl delay, and so do opt-outs in its response.
    Crawl(Want),
    /// A robots.txt, which no robots.txt forbids.
    RobotsTxt,
    /// A notification to an address that a user gave.
    Webhook,
    /// A file of a detector.
    ModelDownload,
}

impl Purpose {
    /// Whether robots.txt binds it.
    pub fn obeys_robots(self) -> bool {
        matches!(self, Self::Crawl(_))
    }
}

/// Who lets requests through: the gate.
pub trait Admit: Send + Sync {
    /// Waits until `url` may be asked, if it may.
    fn admit<'a>(&'a self, url: &'a Url, purpose: Purpose) -> BoxFuture<'a, Result<Permit, Failure>>;
}

/// What responses are judged by.
pub struct Judge {
    /// Hosts, some of which want to be left alone for a while.
    pub hosts: HostLimiter,
    /// The words that opt out.
    pub opt_outs: OptOuts,
    /// For `Retry-After` dates of servers that do not tell their own time.
    pub clock: Arc<dyn Clock>,
}

impl Judge {
    /// Remembers when a host wants to be asked again, and has the fault of whoever asked for `url` say what it means for the host of
    /// that.
    pub fn note(&self, mut failure: Failure, url: &Url) -> Failure {
        let was_asked = failure.fault.host.is_none_or(|host| host.kind != HostFaultKind::Resting);
        if let (AtFault::Host(host), Some(delay_ms), true) =
            (&failure.at_fault, failure.fault.retry_after_ms, was_asked)
        {
            self.hosts.hold_back(host, delay_ms, &failure.fault);
        }
        failure.judge_host(url);
        failure
    }
}

/// The right to make one request to one URL. It is held until the response has been read, or is not wanted any more; then, with
/// its drop, others get its place at the host and address.
pub struct Permit {
    pub(super) url: Url,
    pub(super) purpose: Purpose,
    pub(super) peer: Peer,
    pub(super) addresses: Arc<[SocketAddr]>,
    pub(super) judge: Arc<Judge>,
    pub(super) body: BodyPermit,
    pub(super) connecting: Connecting,
    pub(super) _host: HostPermit,
}

tokio::task_local! {
    /// The permit that the present task makes a request under.
    static PINNED: (Option<String>, Arc<[SocketAddr]>);
}

impl Permit {
    /// What may be asked.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The addresses that were checked for it, with its port.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let port = self.url.port_or_known_default().unwrap_or_default();
        self.addresses.iter().map(move |address| SocketAddr::new(address.ip(), port))
    }

    /// Makes a request with an HTTP client whose resolver is [`PinnedNames`]: new connections go to the checked addresses. The
    /// client follows no redirects, for each hop needs a permit of its own.
    pub async fn connect<F: Future>(&self, request: F) -> F::Output {
        let host = self.url.host_str().map(str::to_owned);
        PINNED.scope((host, Arc::clone(&self.addresses)), request).await
    }

    /// What the head of a response means. A redirect and a 304 are no failures; opt-outs are, where the purpose respects them. When
    /// the host wants to be asked again is remembered.
    pub fn answered(&self, status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
        let checked = match status.as_u16() {
            301 | 302 | 303 | 307 | 308 => Ok(()),
            304 => self.check_opt_outs(headers),
            200..=299 => self.check_opt_outs(headers),
            _ => Err(self.refused(status, headers)),
        };
        self.connecting.succeeded();
        checked.map_err(|failure| self.judge.note(failure, &self.url))
    }

    /// How long the host wants to be left alone before the redirect is followed (RFC 9110, section 10.2.3), which the limiter is told;
    /// a failure if that is not over `by` then.
    pub(super) fn rest_before_redirect(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        by: Instant,
    ) -> Result<Duration, Failure> {
        let Some(rest_ms) = classify_fault::retry_after(headers, self.judge.clock.now()).filter(|rest| *rest > 0)
        else {
            return Ok(Duration::ZERO);
        };
        let fault =
            Fault::transient(Class::Busy, format!("http_{}", status.as_u16()), "its redirect is to be followed later");
        let rest = Duration::from_millis(rest_ms);
        if rest >= by.saturating_duration_since(Instant::now()) {
            let failure = Failure::of_host(fault.after(rest_ms), self.peer.host.clone());
            return Err(self.judge.note(failure, &self.url));
        }
        self.judge.hosts.hold_back(&self.peer.host, rest_ms, &fault);
        // Not a moment too early.
        Ok(rest + Duration::from_millis(1))
    }

    /// The failure of a response with this status, which is not a success.
    pub(super) fn refused(&self, status: StatusCode, headers: &HeaderMap) -> Failure {
        classify_fault::of_status(status, (headers, self.judge.clock.now()), &self.peer)
    }

    /// What an error means with which the HTTP client ended before there was a response.
    pub fn failed(&self, error: &reqwest::Error) -> Failure {
        let failure = classify_fault::of_request(error, &self.peer);
        match failure.at_fault {
            AtFault::Address(_) => return self.unconnected(failure.fault),
            AtFault::Host(_) | AtFault::Url => self.connecting.succeeded(),
            AtFault::Us => {}
        }
        self.judge.note(failure, &self.url)
    }

    /// What it means that no answer has begun in time, wherever that was spent.
    pub fn silent(&self, fault: Fault) -> Failure {
        let fault = fault.of_host(queue_of(&self.url), HostFaultKind::Silent);
        self.judge.note(Failure::of_host(fault, self.peer.host.clone()), &self.url)
    }

    /// What it means that no connection came about, for whoever makes connections otherwise.
    pub fn unconnected(&self, fault: Fault) -> Failure {
        self.connecting.failed(&fault);
        self.judge.note(Failure::of_address(fault, self.peer.address), &self.url)
    }

    fn check_opt_outs(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let Purpose::Crawl(want) = self.purpose else { return Ok(()) };
        for value in headers.get_all("x-robots-tag") {
            let value = String::from_utf8_lossy(value.as_bytes());
            if let Some(word) = self.judge.opt_outs.in_header(&value, want) {
                return Err(Failure::of_url(OptOuts::fault(&word, &value)));
            }
        }
        Ok(())
    }
}

/// The resolver of HTTP clients whose requests are made under permits: a name has the addresses of the permit that the request is
/// made under ([`Permit::connect`]), and outside of that none.
#[derive(Clone, Copy, Debug, Default)]
pub struct PinnedNames;

impl Resolve for PinnedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let pinned =
            PINNED.try_with(|(host, addresses)| (host.as_deref() == Some(name.as_str())).then(|| addresses.to_vec()));
        let pinned = pinned.ok().flatten();
        let resolved = pinned.map(|addresses| Box::new(addresses.into_iter()) as Addrs);
        Box::pin(ready(resolved.ok_or_else(|| {
            let detail = format!("a connection to {} without a permit for it", name.as_str());
            WrappedFault(Fault::transient(Class::Policy, "no_permit", detail)).into()
        })))
    }
}
