//! The guard: which URLs and addresses may be reached at all.
//!
//! A crawler follows what strangers write, so a page could make it ask the machines behind its own firewall
//! (server-side request forgery). Every URL is checked before every request and every redirect hop; a literal address is
//! checked right there, because no resolver is ever asked about one, and a name is resolved by us: all its addresses are
//! checked and only checked ones are remembered and connected to. Promise: no connection to a private or reserved address
//! outside `fetch.allow_networks`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use faceflow_core::blocking::blocking;
use faceflow_core::{Class, Fault, Reloadable};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::timeout;
use url::{Host, Url};

use super::addresses::{Addresses, Turn, least};
use super::faults;
use super::settings::FetchSettings;

/// Decides where requests may go.
#[derive(Debug)]
pub struct Guard {
    networks: Vec<IpNet>,
    ports: Vec<u16>,
    url_max_bytes: usize,
    lookup_max: Duration,
    /// What names were resolved to and may be connected to.
    names: Addresses,
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
            names: Addresses::new(live),
        }
    }

    /// Refuses a URL that may not be asked. Names are resolved here only when their port is unusual; otherwise the guard
    /// sees their addresses before a connection is made.
    pub async fn check(&self, url: &Url) -> Result<(), Fault> {
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
        let port = url.port_or_known_default().unwrap_or_default();
        let usual_port = self.ports.contains(&port);
        match url.host() {
            Some(Host::Ipv4(ip)) => self.check_literal(ip.into(), usual_port, port),
            Some(Host::Ipv6(ip)) => self.check_literal(ip.into(), usual_port, port),
            Some(Host::Domain(_)) if usual_port => Ok(()),
            Some(Host::Domain(name)) => self.check_unusual_port(name, port).await,
            None => Err(without_host()),
        }
    }

    fn check_literal(&self, ip: IpAddr, usual_port: bool, port: u16) -> Result<(), Fault> {
        if self.allows(ip) {
            return Ok(());
        }
        if !is_public(ip) {
            return Err(private(&ip.to_string()));
        }
        if usual_port { Ok(()) } else { Err(unusual(port)) }
    }

    /// An unusual port is for hosts inside the allowed networks alone.
    async fn check_unusual_port(&self, name: &str, port: u16) -> Result<(), Fault> {
        if self.networks.is_empty() {
            return Err(unusual(port));
        }
        let addresses = self.resolve(name).await?;
        if addresses.iter().all(|address| self.allows(address.ip())) { Ok(()) } else { Err(unusual(port)) }
    }

    /// The address that politeness goes by where `url` is asked: that of its host, the least one if there are several.
    pub async fn address(&self, url: &Url) -> Result<IpAddr, Fault> {
        match url.host() {
            Some(Host::Ipv4(ip)) => Ok(ip.into()),
            Some(Host::Ipv6(ip)) => Ok(ip.to_canonical()),
            Some(Host::Domain(name)) => least(&self.resolve(name).await?).ok_or_else(|| without_address(name)),
            None => Err(without_host()),
        }
    }

    /// The addresses of a name that may be connected to, as they are remembered or looked up now.
    async fn resolve(&self, name: &str) -> Result<Arc<[SocketAddr]>, Fault> {
        self.names.of(name, |turn| self.look_up(name, turn)).await
    }

    async fn look_up(&self, name: &str, turn: Turn) -> Result<Vec<SocketAddr>, Fault> {
        let asked = name.to_owned();
        let lookup = blocking(move || {
            // It has its thread until the system answers, however late that is.
            let _turn = turn;
            let found = (asked.as_str(), 0).to_socket_addrs();
            Ok(found.map_err(|error| unresolved(&asked, &error.to_string()))?.collect::<Vec<_>>())
        });
        let late = |_| faults::timeout(format!("{name} was not looked up in {} ms", self.lookup_max.as_millis()));
        self.admitted(name, timeout(self.lookup_max, lookup).await.map_err(late)??)
    }

    /// Where some addresses lie in the allowed networks these are the ones; otherwise all of them must be public, so that a
    /// name with a private address among public ones is refused.
    fn admitted(&self, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Fault> {
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

/// The resolver that connections are made with: a name's checked addresses and no others.
pub(super) struct CheckedNames(pub Arc<Guard>);

impl Resolve for CheckedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let addresses = guard.resolve(name.as_str()).await.map_err(faults::WrappedFault)?.to_vec();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn refusal(reason: &str, detail: impl Into<String>) -> Fault {
    Fault::permanent(Class::Policy, reason, detail)
}

fn private(whom: &str) -> Fault {
    refusal("private_address", format!("{whom} is not a public address and not in fetch.allow_networks"))
}

fn unusual(port: u16) -> Fault {
    refusal("port", format!("port {port} is not in fetch.ports"))
}

fn unresolved(name: &str, why: &str) -> Fault {
    Fault::transient(Class::Dns, "dns", format!("{name} does not resolve: {why}"))
}

fn without_address(name: &str) -> Fault {
    unresolved(name, "it has no addresses")
}

fn without_host() -> Fault {
    refusal("bad_scheme", "the URL has no host")
}

/// Whether an address is globally reachable, by IANA's registries of special-purpose addresses (RFC 6890). An IPv6
/// address that carries an IPv4 address is public only if that one is too.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !is_reserved_v4(ip),
        IpAddr::V6(ip) => !is_reserved_v6(ip) && carried_v4(ip).into_iter().flatten().all(|ip| !is_reserved_v4(ip)),
    }
}

fn is_reserved_v4(ip: Ipv4Addr) -> bool {
    match ip.octets() {
        // This network, private, loopback, link-local.
        [0 | 10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [169, 254, ..] => true,
        // Carrier-grade NAT, protocol assignments, benchmarks.
        [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] => true,
        // Documentation.
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        // Multicast, reserved, broadcast.
        [224..=255, ..] => true,
        _ => false,
    }
}

fn is_reserved_v6(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        // Unspecified, loopback and the obsolete IPv4-compatible addresses.
        [0, 0, 0, 0, 0, 0, ..] => true,
        // Unique local, link-local, the obsolete site-local, multicast.
        [0xfc00..=0xfdff, ..] | [0xfe80..=0xfeff, ..] | [0xff00..=0xffff, ..] => true,
        // Documentation, discard-only, local-use NAT64.
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x100, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => true,
        _ => false,
    }
}

/// IPv4 addresses inside an IPv6 address: mapped and translated (RFC 4291, RFC 2765), NAT64 (RFC 6052), 6to4 (RFC 3056),
/// and Teredo's server and, inverted, client (RFC 4380).
fn carried_v4(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => [v4(high, low), None],
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => [v4(high, low), None],
        [0x2001, 0, high, low, _, _, client_high, client_low] => [v4(high, low), v4(!client_high, !client_low)],
        _ => [None, None],
    }
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
        guard.check(&url).await.map_err(|fault| {
            assert!(fault.permanent && fault.class == Class::Policy, "{fault:?}");
            fault.reason
        })
    }

    /// The first and last address of every denied range, and the public neighbours on both sides.
    #[test]
    fn every_denied_range_ends_where_it_ends() {
        let ranges = [
            ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
            ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
            ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
            ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
            ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
            ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
            ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
            ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
            ("198.51.100.0", "198.51.100.255", Some("198.51.99.255"), Some("198.51.101.0")),
            ("203.0.113.0", "203.0.113.255", Some("203.0.112.255"), Some("203.0.114.0")),
            ("224.0.0.0", "255.255.255.255", Some("223.255.255.255"), None),
            ("::", "::ffff:ffff", None, None),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("fbff::"), Some("fe00::")),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("fe7f::"), None),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:db7::"), Some("2001:db9::")),
            ("100::", "100::ffff:ffff:ffff:ffff", Some("ff::"), Some("100:0:0:1::")),
        ];
        let public = |text: &str| is_public(text.parse().expect(text));
        for (first, last, before, after) in ranges {
            assert!(!public(first) && !public(last), "{first} to {last} is denied");
            for neighbour in [before, after].into_iter().flatten() {
                assert!(public(neighbour), "{neighbour} is public");
            }
        }
    }

    #[test]
    fn an_embedded_private_address_is_private() {
        let private = "10.1.2.3 127.0.0.1 169.254.169.254 192.168.0.1";
        let public = "9.9.9.9 93.184.216.34";
        let wrap = |text: &str| -> Vec<Ipv6Addr> {
            let v4: Ipv4Addr = text.parse().expect(text);
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            vec![
                Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !0x0909, !0x0909),
                Ipv6Addr::new(0x2001, 0, 0x0909, 0x0909, 0, 0, !high, !low),
            ]
        };
        for v6 in private.split(' ').flat_map(wrap) {
            assert!(!is_public(v6.into()), "{v6}");
        }
        for v6 in public.split(' ').flat_map(wrap) {
            assert!(is_public(v6.into()), "{v6}");
        }
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
        let long = format!("http://example.com/{}", "a".repeat(9_000));
        assert_eq!(verdict(&strict, &long).await, Err("url_too_long".into()));
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
        let judge = |allow: &[&str], ips: &[&str]| guard(allow).admitted("a.example", at(ips)).map_err(|f| f.reason);
        assert_eq!(judge(&[], &["9.9.9.9", "2620:fe::fe"]), Ok(at(&["9.9.9.9", "2620:fe::fe"])));
        assert_eq!(judge(&[], &["9.9.9.9", "10.0.0.1"]), Err("private_address".into()), "one bad address spoils all");
        assert_eq!(judge(&["10.0.0.0/8"], &["::1", "10.0.0.1"]), Ok(at(&["10.0.0.1"])), "only the allowed one");
        assert_eq!(judge(&[], &[]), Err("dns".into()));
    }

    #[tokio::test]
    async fn politeness_goes_by_one_address_of_a_host() {
        let address = async |url: &str| {
            let url = Url::parse(url).expect(url);
            guard(&["127.0.0.0/8"]).address(&url).await.map(|ip| ip.to_string()).map_err(|fault| fault.reason)
        };
        assert_eq!(address("http://9.9.9.9/").await, Ok("9.9.9.9".into()));
        assert_eq!(address("http://[::ffff:9.9.9.9]:81/").await, Ok("9.9.9.9".into()));
        assert_eq!(address("http://[2620:fe::fe]/").await, Ok("2620:fe::fe".into()));
        assert_eq!(address("http://localhost/").await, Ok("127.0.0.1".into()));
        assert_eq!(address("data:,").await, Err("bad_scheme".into()));
        let refused = guard(&[]).address(&Url::parse("http://localhost/").expect("a URL")).await;
        assert_eq!(
            refused.expect_err("loopback").reason,
            "private_address",
            "a name is judged before it is remembered"
        );
    }
}
