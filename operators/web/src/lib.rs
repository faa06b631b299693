//! The web client: everything between a URL and its bytes.
//!
//! It exists so that no other part has to distrust the network: addresses are checked before a connection is made
//! ([`guard`]), robots.txt and opt-outs are obeyed ([`robots`], [`opt_out`]), hosts and the machines behind them are not
//! crowded ([`host_limiter`]), and every header, body, redirect chain and wait has a limit. Promise: what comes back is a complete
//! answer of a server we were allowed to ask, or a [`Fault`] that says why not.

pub mod client;
pub mod files;
pub mod guard;
pub mod host_limiter;
pub mod opt_out;
pub mod robots;
pub mod settings;

mod addresses;
mod body;
mod body_budget;
mod faults;
mod rules;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use faceflow_core::record::{PageVersion, queue_of};
use faceflow_core::{Fault, Future};
use url::Url;

pub use client::{Client, ClientError};
pub use opt_out::OptOuts;
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

    /// A number for the machine behind `url`, equal in every process, if it can be found out now. What has the same place is
    /// asked by the same process of a cluster.
    fn place(&self, url: &Url) -> Future<Option<u64>> {
        // Where there are no addresses, each host has a machine of its own.
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
