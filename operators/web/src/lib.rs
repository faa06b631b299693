//! The web: everything between a URL and its bytes.
//!
//! It exists so that no other part has to distrust the network. Whoever asks a host that others name goes through the [`Gate`]:
//! addresses are checked before a connection is made (`ssrf_guard.rs`), robots.txt and opt-outs are obeyed (`robots_cache.rs`,
//! `opt_out.rs`), hosts and the machines behind them are not crowded (`host_limiter.rs`). The [`Client`] gets pages and pictures through
//! it, and every header, body, redirect chain and wait has a limit. Promise: what comes back is a complete response of a server we
//! were allowed to ask, or a [`Fault`] that says why not.

pub mod files;
pub mod settings;

mod body;
mod body_budget;
mod circuit_breaker;
mod classify_fault;
mod client;
mod connections;
mod content_coding;
mod cookies;
mod decoder_window;
mod dns_cache;
mod failure;
mod gate;
mod host_limiter;
mod http;
mod inflate;
mod opt_out;
mod permit;
mod public_addresses;
mod robots_cache;
mod robots_rules;
mod ssrf_guard;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use faceflow_core::record::{PageVersion, queue_of};
use faceflow_core::{Fault, Future};
use url::Url;

pub use client::Client;
pub use failure::{AtFault, Failure};
pub use gate::{Gate, GateError, HeldBack};
pub use opt_out::OptOuts;
pub use permit::{Permit, PinnedNames, Purpose};
pub use settings::{FetchSettings, Network};

/// Something that answers URLs: the [`Client`], or a script in simulation.
pub trait Web: Send + Sync {
    /// Asks for `url`. Only a complete 2xx answer is a [`Response`]; everything else is a [`Fault`].
    fn get(&self, url: &Url, want: Want) -> Future<Result<Response, Fault>>;

    /// Asks for a page that was read before (RFC 9110, section 13); `None` if its server says that it has not changed.
    fn get_again(&self, url: &Url, last: &PageVersion) -> Future<Result<Option<Response>, Fault>> {
        // Whoever keeps no validators gives it anew.
        let _ = last;
        let got = self.get(url, Want::Page);
        Box::pin(async move { got.await.map(Some) })
    }

    /// What it keeps requests from.
    fn held_back(&self) -> HeldBack {
        HeldBack::default()
    }

    /// A number for the address behind `url`, equal in every process, if it can be found out now. What is at the same address is
    /// asked by the same process of a cluster.
    fn address_hash(&self, url: &Url) -> Future<Option<u64>> {
        // Where there are no addresses, each host has one of its own.
        Box::pin(std::future::ready(Some(queue_of(url))))
    }
}

/// What a URL is asked for: decides the `Accept` header, the size limit and which opt-outs speak about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// A page to mine.
    Page,
    /// A picture.
    Image,
}

/// A complete, successful answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Where redirects ended, without a fragment.
    pub final_url: Url,
    /// The HTTP status, 200 to 299.
    pub status: u16,
    /// The headers that mean something to us or are kept as evidence, names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body, with its content coding removed.
    pub body: Bytes,
}

impl Response {
    /// The first value of the header called `name` (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// Scheme, host and port: what robots.txt speaks for and what politeness is owed to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// The origin of an http or https URL.
    pub fn of(url: &Url) -> Self {
        Self(url.origin().ascii_serialization())
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}
