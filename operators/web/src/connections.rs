//! Connections: kept for the next request to their host, within a limit over all hosts.
//!
//! The HTTP library limits idle connections of one host and not of all, and each holds a buffer that grew with what it read. So every
//! host has an HTTP client of its own here. Where more connections may be idle than the limit says, the client that was used least
//! recently is dropped, and its connections with it. Promise: the connections of all clients that no request uses are no more than
//! the limit; those of a client are counted by the most requests that it had under way at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use faceflow_core::{Class, Fault};
use reqwest::redirect::Policy;
use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::time::Instant;

use super::Origin;
use super::failure::{AtFault, Failure};
use super::gate::GateError;
use super::permit::PinnedNames;
use super::settings::FetchSettings;

/// HTTP clients by host, with the connections that each keeps.
pub struct Connections {
    settings: Arc<FetchSettings>,
    tls: ClientConfig,
    hosts: Arc<Mutex<Hosts>>,
}

/// The clients, and how many connections they may have in all.
#[derive(Default)]
struct Hosts {
    by_origin: HashMap<Origin, HostClient>,
    connections: usize,
    leases: u64,
}

/// The client of one host.
struct HostClient {
    client: reqwest::Client,
    in_flight: usize,
    /// The most requests that were under way at once, and so the most connections that it may have.
    connections: usize,
    /// The number of its last lease.
    used: u64,
    /// When its last request ended.
    ended: Instant,
}

/// The use of a host's client, from before a request until its response has been read.
pub struct Lease {
    /// The client.
    pub client: reqwest::Client,
    origin: Origin,
    hosts: Arc<Mutex<Hosts>>,
    idle_max: usize,
}

impl Connections {
    /// No connection yet. What these settings say of connections holds from now on.
    pub fn new(settings: Arc<FetchSettings>) -> Result<Self, GateError> {
        let provider = CryptoProvider::get_default().cloned();
        let builder =
            ClientConfig::builder_with_provider(provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider())));
        let builder = builder.with_safe_default_protocol_versions()?.with_platform_verifier()?;
        let mut tls = builder.with_no_client_auth();
        tls.alpn_protocols = [&b"h2"[..], b"http/1.1"].map(<[u8]>::to_vec).to_vec();
        let connections = Self { settings, tls, hosts: Arc::default() };
        connections.client()?;
        Ok(connections)
    }

    /// The client of a host.
    pub fn lease(&self, origin: &Origin) -> Result<Lease, Failure> {
        let keep_alive = Duration::from_millis(self.settings.keep_alive_ms);
        let mut hosts = lock(&self.hosts);
        hosts.leases += 1;
        let used = hosts.leases;
        if !hosts.by_origin.contains_key(origin) {
            let client = self.client().map_err(|error| no_client(&error))?;
            let new = HostClient { client, in_flight: 0, connections: 0, used, ended: Instant::now() };
            hosts.by_origin.insert(origin.clone(), new);
        }
        let host = hosts.by_origin.get_mut(origin).expect("it was just looked for");
        let before = host.connections;
        if host.in_flight == 0 && host.ended.elapsed() > keep_alive {
            // None of them is kept so long.
            host.connections = 0;
        }
        (host.in_flight, host.used) = (host.in_flight + 1, used);
        host.connections = host.connections.max(host.in_flight);
        let (client, now) = (host.client.clone(), host.connections);
        hosts.connections = hosts.connections - before + now;
        let idle_max = self.settings.idle_connections_max;
        Ok(Lease { client, origin: origin.clone(), hosts: Arc::clone(&self.hosts), idle_max })
    }

    fn client(&self) -> reqwest::Result<reqwest::Client> {
        let settings = &self.settings;
        reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .user_agent(&settings.user_agent)
            .dns_resolver(PinnedNames)
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .pool_max_idle_per_host(settings.per_host)
            .pool_idle_timeout(Duration::from_millis(settings.keep_alive_ms))
            .http1_max_headers(settings.headers_max)
            // A malformed line that matters to nobody is passed over, as browsers do; what frames the message is never guessed.
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http2_max_header_list_size(u32::try_from(settings.headers_max_bytes).unwrap_or(u32::MAX))
            .build()
    }
}

impl Hosts {
    /// Drops clients that no request uses, the one used least recently first, until what the others may have idle is within
    /// `idle_max`.
    fn shrink(&mut self, idle_max: usize) {
        let in_flight: usize = self.by_origin.values().map(|host| host.in_flight).sum();
        while self.connections - in_flight > idle_max {
            let unused = self.by_origin.iter().filter(|(_, host)| host.in_flight == 0);
            let Some(origin) = unused.min_by_key(|(_, host)| host.used).map(|(origin, _)| origin.clone()) else {
                break;
            };
            let gone = self.by_origin.remove(&origin).expect("it was just found");
            self.connections -= gone.connections;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut hosts = lock(&self.hosts);
        if let Some(host) = hosts.by_origin.get_mut(&self.origin) {
            (host.in_flight, host.ended) = (host.in_flight - 1, Instant::now());
        }
        hosts.shrink(self.idle_max);
    }
}

fn lock(hosts: &Mutex<Hosts>) -> MutexGuard<'_, Hosts> {
    hosts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_client(error: &reqwest::Error) -> Failure {
    let fault = Fault::transient(Class::Protocol, "no_http_client", format!("the HTTP client cannot start: {error}"));
    Failure { fault, at_fault: AtFault::Us }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(n: usize) -> Origin {
        Origin::of(&format!("http://h{n}.example/").parse().expect("a URL"))
    }

    fn connections(idle_connections_max: usize) -> Connections {
        Connections::new(Arc::new(FetchSettings { idle_connections_max, ..Default::default() })).expect("clients")
    }

    fn kept(connections: &Connections) -> (usize, usize) {
        let hosts = lock(&connections.hosts);
        (hosts.by_origin.len(), hosts.connections)
    }

    #[tokio::test]
    async fn clients_used_least_recently_go_first_and_those_in_use_stay() {
        let connections = connections(3);
        let lease = |n| connections.lease(&origin(n)).expect("a client");
        let busy = [lease(0), lease(0), lease(0), lease(0)];
        for n in 1..10 {
            drop(lease(n));
        }
        assert_eq!(kept(&connections), (4, 7), "three that are idle, and four under way");
        let known = |n| lock(&connections.hosts).by_origin.contains_key(&origin(n));
        assert!(known(0) && known(7) && !known(6));
        drop(lease(7));
        drop(lease(10));
        assert!(known(7) && !known(8), "it was used again meanwhile");
        drop(busy);
        assert_eq!(kept(&connections), (0, 0), "its four connections are more than may be idle");
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_are_too_old_are_not_counted() {
        let connections = connections(3);
        let both = [connections.lease(&origin(0)), connections.lease(&origin(0))];
        drop(both);
        assert_eq!(kept(&connections), (1, 2));
        tokio::time::advance(Duration::from_secs(6)).await;
        drop(connections.lease(&origin(0)));
        assert_eq!(kept(&connections), (1, 1));
    }
}
