//! The guard: which URLs and addresses may be reached at all.
//!
//! A crawler follows what strangers write, so a page could make it ask the machines behind its own firewall
//! (server-side request forgery). Every URL is checked before every request and every redirect hop; a literal address is
//! checked right there, because no resolver is ever asked about one, and a name is resolved by us: all its addresses are
//! checked and only checked ones are remembered and connected to. Promise: no connection to a private or reserved address
//! outside `fetch.allow_networks`.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use faceflow_core::blocking::blocking;
use faceflow_core::{Class, Fault, Reloadable};
use ipnet::IpNet;
use tokio::time::timeout;
use url::{Host, Url};

use super::dns_cache::{DnsCache, LookupPermit, least};
use super::failure::Failure;
use super::public_addresses::is_public;
use super::settings::FetchSettings;
use super::{Origin, classify_fault};

/// Decides where requests may go.
#[derive(Debug)]
pub struct Guard {
    networks: Vec<IpNet>,
    ports: Vec<u16>,
    url_max_bytes: usize,
    lookup_max: Duration,
    /// What names were resolved to and may be connected to.
    names: DnsCache,
}

/// Addresses that may be connected to, at least one.
pub struct CheckedAddresses {
    /// All of them; their port is that of the URL.
    pub all: Arc<[SocketAddr]>,
    /// The one that politeness goes by.
    pub least: IpAddr,
}

impl Guard {
    /// The guard of these settings.
    pub fn new(live: &Reloadable<FetchSettings>) -> Self {
        let settings = live.get();
        Self {
            networks: settings.allow_networks.iter().map(|network| network.0).collect(),
            ports: settings.ports.clone(),
            url_max_bytes: settings.url_max_bytes,
            lookup_max: Duration::from_millis(settings.connect_timeout_ms),
            names: DnsCache::new(live),
        }
    }

    /// Refuses a URL that may not be asked. Names are resolved here only when their port is unusual; otherwise their addresses are
    /// checked before they are used ([`Self::addresses`]).
    pub async fn check(&self, url: &Url) -> Result<(), Failure> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refusal("bad_scheme", format!("{} is neither http nor https", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refusal("userinfo", "the URL carries a user name or password"));
        }
        let length = url.as_str().len();
        if length > self.url_max_bytes {
            return Err(refusal("url_too_long", format!("{length} bytes, allowed are {}", self.url_max_bytes)));
        }
        let is_usual = self.ports.contains(&port(url));
        match url.host() {
            Some(Host::Domain(_)) if is_usual => Ok(()),
            // This is known without a lookup.
            Some(Host::Domain(_)) if self.networks.is_empty() => Err(unusual(port(url))),
            _ => self.addresses(url).await.map(drop),
        }
    }

    /// The addresses that may be connected to where `url` is asked, as they are remembered or looked up now. An unusual port is for
    /// the allowed networks alone.
    pub async fn addresses(&self, url: &Url) -> Result<CheckedAddresses, Failure> {
        let all = match url.host() {
            Some(Host::Ipv4(ip)) => self.literal(ip.into())?,
            Some(Host::Ipv6(ip)) => self.literal(ip.into())?,
            Some(Host::Domain(name)) => {
                let resolved = self.resolve(name).await;
                resolved.map_err(|fault| Failure::of_host(fault, Origin::of(url)))?
            }
            None => return Err(refusal("bad_scheme", "the URL has no host")),
        };
        if !self.ports.contains(&port(url)) && !all.iter().all(|address| self.allows(address.ip())) {
            return Err(unusual(port(url)));
        }
        let least = least(&all).expect("a name without addresses does not resolve");
        Ok(CheckedAddresses { all, least })
    }

    fn literal(&self, ip: IpAddr) -> Result<Arc<[SocketAddr]>, Failure> {
        if self.allows(ip) || is_public(ip) {
            return Ok(Arc::from([SocketAddr::new(ip, 0)]));
        }
        Err(Failure::of_address(private(&ip.to_string()), ip.to_canonical()))
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> &DnsCache {
        &self.names
    }

    /// The addresses of a name that may be connected to, as they are remembered or looked up now.
    async fn resolve(&self, name: &str) -> Result<Arc<[SocketAddr]>, Fault> {
        self.names.of(name, |turn| self.look_up(name, turn)).await
    }

    async fn look_up(&self, name: &str, turn: LookupPermit) -> Result<Vec<SocketAddr>, Fault> {
        let asked = name.to_owned();
        let lookup = blocking(move || {
            // It has its thread until the system answers, however late that is.
            let _turn = turn;
            let found = (asked.as_str(), 0).to_socket_addrs();
            Ok(found.map_err(|error| unresolved(&asked, &error.to_string()))?.collect::<Vec<_>>())
        });
        let late =
            |_| classify_fault::timeout(format!("{name} was not looked up in {} ms", self.lookup_max.as_millis()));
        self.checked(name, timeout(self.lookup_max, lookup).await.map_err(late)??)
    }

    /// Where some addresses lie in the allowed networks these are the ones; otherwise all of them must be public, so that a
    /// name with a private address among public ones is refused.
    fn checked(&self, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Fault> {
        if found.is_empty() {
            return Err(without_address(name));
        }
        let allowed: Vec<_> = found.iter().copied().filter(|address| self.allows(address.ip())).collect();
        if !allowed.is_empty() {
            return Ok(allowed);
        }
        match found.iter().find(|address| !is_public(address.ip())) {
            Some(inside) => Err(private(&format!("{name} ({})", inside.ip()))),
            None => Ok(found),
        }
    }

    fn allows(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip) || network.contains(&ip.to_canonical()))
    }
}

fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or_default()
}

fn refusal(reason: &str, detail: impl Into<String>) -> Failure {
    Failure::of_url(Fault::permanent(Class::Policy, reason, detail))
}

fn private(whom: &str) -> Fault {
    Fault::permanent(
        Class::Policy,
        "private_address",
        format!("{whom} is not a public address and not in fetch.allow_networks"),
    )
}

fn unusual(port: u16) -> Failure {
    refusal("port", format!("port {port} is not in fetch.ports"))
}

fn unresolved(name: &str, why: &str) -> Fault {
    Fault::transient(Class::Dns, "dns", format!("{name} does not resolve: {why}"))
}

fn without_address(name: &str) -> Fault {
    unresolved(name, "it has no addresses")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &[&str]) -> Guard {
        let allow_networks = allow.iter().map(|text| text.parse().expect(text)).collect();
        Guard::new(&FetchSettings { allow_networks, ..FetchSettings::default() }.into())
    }

    async fn verdict(guard: &Guard, url: &str) -> Result<(), String> {
        let url = Url::parse(url).expect(url);
        guard.check(&url).await.map_err(|Failure { fault, .. }| {
            assert!(fault.permanent && fault.class == Class::Policy, "{fault:?}");
            fault.reason
        })
    }

    #[tokio::test]
    async fn odd_spellings_of_loopback_are_refused_unless_allowed() {
        let spellings = [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f000001/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://2130706433/",
            "http://127.0.0.1./",
            "http://①②⑦.0.0.1/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
        ];
        for url in spellings {
            assert_eq!(verdict(&guard(&[]), url).await, Err("private_address".into()), "{url}");
            assert_eq!(verdict(&guard(&["127.0.0.0/8"]), url).await, Ok(()), "{url} is allowed by its setting");
            assert_eq!(verdict(&guard(&["10.0.0.0/8"]), url).await, Err("private_address".into()), "{url}");
        }
        assert_eq!(verdict(&guard(&["127.0.0.0/8"]), "http://[::1]/").await, Err("private_address".into()));
        assert_eq!(verdict(&guard(&[]), "http://0/").await, Err("private_address".into()));
        assert_eq!(verdict(&guard(&[]), "http://9.9.9.9/").await, Ok(()));
    }

    #[tokio::test]
    async fn only_plain_web_urls_pass() {
        let strict = guard(&[]);
        let refused = |url: &'static str, reason: &'static str| {
            let strict = &strict;
            async move { assert_eq!(verdict(strict, url).await, Err(reason.into()), "{url}") }
        };
        refused("file:///etc/passwd", "bad_scheme").await;
        refused("data:text/html,hello", "bad_scheme").await;
        refused("ftp://example.com/", "bad_scheme").await;
        refused("javascript:alert(1)", "bad_scheme").await;
        refused("http://user@example.com/", "userinfo").await;
        refused("http://:secret@example.com/", "userinfo").await;
        refused("http://example.com:22/", "port").await;
        refused("http://9.9.9.9:6379/", "port").await;
        assert_eq!(verdict(&strict, "http://example.com:8080/").await, Ok(()));
        let of_length = |bytes: usize| format!("http://example.com/{}", "a".repeat(bytes - 19));
        assert_eq!(verdict(&strict, &of_length(8 << 10)).await, Ok(()));
        assert_eq!(verdict(&strict, &of_length((8 << 10) + 1)).await, Err("url_too_long".into()));
    }

    #[tokio::test]
    async fn any_port_is_usual_inside_the_allowed_networks() {
        let guard = guard(&["127.0.0.0/8", "::1"]);
        assert_eq!(verdict(&guard, "http://127.0.0.1:34567/").await, Ok(()));
        assert_eq!(verdict(&guard, "http://localhost:34567/").await, Ok(()));
        assert_eq!(verdict(&guard, "http://9.9.9.9:34567/").await, Err("port".into()));
    }

    #[tokio::test]
    async fn names_are_judged_by_all_their_addresses() {
        let refused = guard(&[]).resolve("localhost").await.expect_err("loopback");
        assert_eq!((refused.reason.as_str(), refused.permanent), ("private_address", true));
        assert!(guard(&["127.0.0.0/8", "::1"]).resolve("localhost").await.is_ok());

        let at = |ips: &[&str]| -> Vec<SocketAddr> {
            ips.iter().map(|ip| SocketAddr::new(ip.parse().expect(ip), 0)).collect()
        };
        let judge = |allow: &[&str], ips: &[&str]| guard(allow).checked("a.example", at(ips)).map_err(|f| f.reason);
        assert_eq!(judge(&[], &["9.9.9.9", "2620:fe::fe"]), Ok(at(&["9.9.9.9", "2620:fe::fe"])));
        assert_eq!(judge(&[], &["9.9.9.9", "10.0.0.1"]), Err("private_address".into()), "one bad address spoils all");
        assert_eq!(judge(&["10.0.0.0/8"], &["::1", "10.0.0.1"]), Ok(at(&["10.0.0.1"])), "only the allowed one");
        assert_eq!(judge(&[], &[]), Err("dns".into()));
    }

    #[tokio::test]
    async fn politeness_goes_by_one_address_of_a_host() {
        let address = async |url: &str| {
            let url = Url::parse(url).expect(url);
            guard(&["127.0.0.0/8"])
                .addresses(&url)
                .await
                .map(|found| found.least.to_string())
                .map_err(|failure| failure.fault.reason)
        };
        assert_eq!(address("http://9.9.9.9/").await, Ok("9.9.9.9".into()));
        assert_eq!(address("http://[::ffff:9.9.9.9]:8081/").await, Ok("9.9.9.9".into()));
        assert_eq!(address("http://[2620:fe::fe]/").await, Ok("2620:fe::fe".into()));
        assert_eq!(address("http://localhost/").await, Ok("127.0.0.1".into()));
        assert_eq!(address("data:,").await, Err("bad_scheme".into()));
        let refused = guard(&[]).addresses(&Url::parse("http://localhost/").expect("a URL")).await;
        assert_eq!(
            refused.err().expect("loopback").fault.reason,
            "private_address",
            "a name is judged before it is remembered"
        );
    }
}
