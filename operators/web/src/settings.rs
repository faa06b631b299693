//! The settings `[fetch]`: how the web client behaves.
//!
//! They live beside the client so that each limit is documented where it is kept. Promise: [`FetchSettings::check`]
//! refuses every value with which the client could not work.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Want;

/// The settings `[fetch]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchSettings {
    /// The `User-Agent` header. Its first word up to `/` is the name by which robots.txt and opt-outs address us. Put the
    /// address of a page there that says who crawls and how to reach you.
    pub user_agent: String,
    /// Networks (CIDR) or single addresses that may be reached although they are private or reserved, on any port.
    pub allow_networks: Vec<Network>,
    /// Ports that may be asked at public addresses.
    pub ports: Vec<u16>,
    /// A longer URL is refused, in bytes.
    pub url_max_bytes: usize,
    /// Redirects followed for one URL; one more is a fault.
    pub redirects_max: usize,

    /// Time between the starts of two requests to one host, in milliseconds. A longer crawl delay in its robots.txt wins.
    pub delay_ms: u64,
    /// Requests under way over all hosts.
    pub concurrency: usize,
    /// Requests under way at one host.
    pub per_host: usize,
    /// Time between the starts of two requests to one IP address, whatever hosts are there, in milliseconds.
    pub ip_delay_ms: u64,
    /// Requests under way at one IP address, whatever hosts are there. A host with several addresses counts at the least one.
    pub per_ip: usize,
    /// Hosts remembered for their pace, and as many addresses; beyond it those that are idle are forgotten. As many names are
    /// remembered with their addresses.
    pub hosts_max: usize,
    /// Connections to one address and port that fail in a row before nothing is asked there for a while, whatever hosts are there.
    pub circuit_failures_max: u32,
    /// How long that is at first, in milliseconds; each time after it twice as long. Then one request finds out.
    pub circuit_open_ms: u64,
    /// How long it is at most, in milliseconds.
    pub circuit_open_max_ms: u64,

    /// How long the addresses of a name are believed, in milliseconds. That it has none is believed for 5 seconds at most.
    pub dns_ttl_ms: u64,
    /// Deadline for the lookup of a name, and for a connection (TCP and TLS), in milliseconds.
    pub connect_timeout_ms: u64,
    /// Deadline for each next piece of a body, and with `connect_timeout_ms` added for connection and headers together, in
    /// milliseconds.
    pub read_timeout_ms: u64,
    /// Deadline for a whole answer with all its redirects, in milliseconds. Waiting for our own politeness does not count.
    pub total_timeout_ms: u64,
    /// How long an idle connection is kept for the next request, in milliseconds.
    pub keep_alive_ms: u64,
    /// Idle connections that are kept over all hosts; beyond it those used least recently are closed.
    pub idle_connections_max: usize,

    /// Headers of one answer.
    pub headers_max: usize,
    /// Names and values of all headers of one answer together, in bytes.
    pub headers_max_bytes: usize,
    /// Size of a body, counted both as sent and with its content coding removed, in bytes. Sitemaps and feeds have their own.
    pub body_max_bytes: usize,
    /// Size of a page, in bytes, where that is less than `body_max_bytes`.
    pub page_max_bytes: usize,
    /// Size of a sitemap or feed, in bytes: of what is declared as XML, JSON, plain text or gzip, and of every gzip file
    /// unpacked. The sitemap protocol allows 50 MiB.
    pub feed_max_bytes: usize,
    /// Memory for the bodies of all answers of the process together, from their first byte until they are parsed or stored, and
    /// for what their decoders remember, in bytes; requests wait for it. 0: a share of `memory.max_bytes`.
    pub memory_max_bytes: usize,

    /// Whether robots.txt is obeyed.
    pub respect_robots: bool,
    /// How much of a robots.txt is read, in bytes; the rest is ignored. RFC 9309 asks for at least 500 KiB.
    pub robots_max_bytes: usize,
    /// How long a robots.txt is believed, in milliseconds. RFC 9309 allows at most 24 hours.
    pub robots_ttl_ms: u64,
    /// How long a host whose robots.txt cannot be had is left alone before it is asked again, in milliseconds.
    pub robots_retry_ms: u64,
    /// A longer `Crawl-delay` is shortened to this, in milliseconds.
    pub robots_crawl_delay_max_ms: u64,
    /// Size of all remembered robots.txt together, in bytes; beyond it the oldest are forgotten. 0: a share of `memory.max_bytes`.
    pub robots_cache_max_bytes: usize,

    /// Whether opt-outs (`X-Robots-Tag` headers and robots meta tags) are obeyed.
    pub respect_opt_outs: bool,
    /// The words that opt out, in lower case. `noindex` (and `none`, which implies it) speaks about the very thing it comes
    /// with, so it counts for a picture's own answer; on a page it hides the page, not the pictures that the page shows.
    pub opt_outs: Vec<String>,
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self {
            user_agent: concat!("faceflow/", env!("CARGO_PKG_VERSION"), " (+https://example.org/faceflow)").to_owned(),
            allow_networks: vec![],
            ports: vec![80, 443, 8000, 8008, 8080, 8081, 8443, 8888],
            url_max_bytes: 8 << 10,
            redirects_max: 10,
            delay_ms: 0,
            concurrency: 64,
            per_host: 4,
            ip_delay_ms: 0,
            per_ip: 16,
            hosts_max: 10_000,
            circuit_failures_max: 3,
            circuit_open_ms: 1_000,
            circuit_open_max_ms: 60_000,
            dns_ttl_ms: 60_000,
            connect_timeout_ms: 10_000,
            read_timeout_ms: 30_000,
            total_timeout_ms: 60_000,
            keep_alive_ms: 5_000,
            idle_connections_max: 128,
            headers_max: 128,
            headers_max_bytes: 32 << 10,
            body_max_bytes: 32 << 20,
            page_max_bytes: 8 << 20,
            feed_max_bytes: 50 << 20,
            memory_max_bytes: 0,
            respect_robots: true,
            robots_max_bytes: 512 << 10,
            robots_ttl_ms: DAY_MS,
            robots_retry_ms: 5_000,
            robots_crawl_delay_max_ms: 30_000,
            robots_cache_max_bytes: 0,
            respect_opt_outs: true,
            opt_outs: ["noai", "noimageai", "noindex", "noimageindex"].map(str::to_owned).to_vec(),
        }
    }
}

const DAY_MS: u64 = 24 * 3_600_000;
/// Memory for bodies where nobody has shared memory out.
const BODIES_BYTES: usize = 128 << 20;
/// And for remembered robots.txt.
const ROBOTS_CACHE_BYTES: usize = 16 << 20;

impl FetchSettings {
    /// The name by which robots.txt and opt-outs address us (RFC 9309, product token).
    pub fn agent(&self) -> &str {
        let end = self.user_agent.find(|c: char| !(c.is_ascii_alphabetic() || c == '-' || c == '_'));
        &self.user_agent[..end.unwrap_or(self.user_agent.len())]
    }

    /// These settings with what can change while a client works taken from `new`: what is decided anew for every request. The
    /// rest is built into connections, limits over all requests, and what has been promised to hosts.
    pub fn taking(&self, new: &Self) -> Self {
        Self {
            redirects_max: new.redirects_max,
            delay_ms: new.delay_ms,
            ip_delay_ms: new.ip_delay_ms,
            dns_ttl_ms: new.dns_ttl_ms,
            read_timeout_ms: new.read_timeout_ms,
            total_timeout_ms: new.total_timeout_ms,
            body_max_bytes: new.body_max_bytes,
            page_max_bytes: new.page_max_bytes,
            feed_max_bytes: new.feed_max_bytes,
            respect_robots: new.respect_robots,
            robots_max_bytes: new.robots_max_bytes,
            robots_ttl_ms: new.robots_ttl_ms,
            robots_retry_ms: new.robots_retry_ms,
            robots_crawl_delay_max_ms: new.robots_crawl_delay_max_ms,
            robots_cache_max_bytes: new.robots_cache_max_bytes,
            ..self.clone()
        }
    }

    /// The memory for bodies, in bytes, also where nobody has shared memory out.
    pub(super) fn bodies_bytes(&self) -> usize {
        if self.memory_max_bytes == 0 { BODIES_BYTES } else { self.memory_max_bytes }
    }

    /// The size of all remembered robots.txt, in bytes, also where nobody has shared memory out.
    pub(super) fn robots_cache_bytes(&self) -> usize {
        if self.robots_cache_max_bytes == 0 { ROBOTS_CACHE_BYTES } else { self.robots_cache_max_bytes }
    }

    /// The size limit of a body asked for as `want` and declared as `content_type`.
    pub(super) fn body_max(&self, want: Want, content_type: Option<&str>) -> SizeLimit {
        match want {
            Want::Page if content_type.is_some_and(may_be_feed) => self.feed_max(),
            Want::Page if self.page_max_bytes < self.body_max_bytes => {
                SizeLimit { bytes: self.page_max_bytes, key: "page_max_bytes" }
            }
            Want::Page | Want::Image => SizeLimit { bytes: self.body_max_bytes, key: "body_max_bytes" },
        }
    }

    /// The size limit of a sitemap or feed.
    pub(super) fn feed_max(&self) -> SizeLimit {
        SizeLimit { bytes: self.feed_max_bytes, key: "feed_max_bytes" }
    }

    /// Names the first key with an impossible value, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let no_more_than_a_day = format!("1 to {DAY_MS}");
        let at_least_one = || "at least 1".to_owned();
        let printable = self.user_agent.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let word = |word: &String| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        let memory = self.memory_max_bytes == 0 || self.memory_max_bytes >= 16 << 20;
        let rules = [
            ("user_agent", printable && !self.agent().is_empty(), "a name of letters, then printable ASCII".to_owned()),
            ("url_max_bytes", self.url_max_bytes > 0, at_least_one()),
            ("concurrency", (1..=MANY).contains(&self.concurrency), format!("1 to {MANY}")),
            ("per_host", (1..=MANY).contains(&self.per_host), format!("1 to {MANY}")),
            ("ip_delay_ms", self.ip_delay_ms <= DAY_MS, format!("at most {DAY_MS}")),
            ("per_ip", (1..=MANY).contains(&self.per_ip), format!("1 to {MANY}")),
            ("hosts_max", self.hosts_max > 0, at_least_one()),
            ("circuit_failures_max", self.circuit_failures_max > 0, at_least_one()),
            ("circuit_open_ms", (1..=DAY_MS).contains(&self.circuit_open_ms), no_more_than_a_day.clone()),
            ("circuit_open_max_ms", (1..=DAY_MS).contains(&self.circuit_open_max_ms), no_more_than_a_day.clone()),
            ("delay_ms", self.delay_ms <= DAY_MS, format!("at most {DAY_MS}")),
            ("dns_ttl_ms", (1..=DAY_MS).contains(&self.dns_ttl_ms), no_more_than_a_day.clone()),
            ("connect_timeout_ms", (1..=DAY_MS).contains(&self.connect_timeout_ms), no_more_than_a_day.clone()),
            ("read_timeout_ms", (1..=DAY_MS).contains(&self.read_timeout_ms), no_more_than_a_day.clone()),
            ("total_timeout_ms", (1..=DAY_MS).contains(&self.total_timeout_ms), no_more_than_a_day.clone()),
            ("keep_alive_ms", self.keep_alive_ms <= DAY_MS, format!("at most {DAY_MS}")),
            ("idle_connections_max", self.idle_connections_max <= MANY, format!("at most {MANY}")),
            ("headers_max", (1..=MANY).contains(&self.headers_max), format!("1 to {MANY}")),
            ("headers_max_bytes", (1_024..=1 << 20).contains(&self.headers_max_bytes), "1024 to 1048576".to_owned()),
            ("body_max_bytes", self.body_max_bytes > 0, at_least_one()),
            ("page_max_bytes", self.page_max_bytes > 0, at_least_one()),
            ("feed_max_bytes", self.feed_max_bytes > 0, at_least_one()),
            ("memory_max_bytes", memory, "0 (a share of memory.max_bytes), or at least 16777216 (16 MiB)".to_owned()),
            ("robots_max_bytes", self.robots_max_bytes >= 500 << 10, "at least 512000 (RFC 9309)".to_owned()),
            ("robots_ttl_ms", (1..=DAY_MS).contains(&self.robots_ttl_ms), no_more_than_a_day.clone()),
            ("robots_retry_ms", (1..=DAY_MS).contains(&self.robots_retry_ms), no_more_than_a_day.clone()),
            ("robots_crawl_delay_max_ms", self.robots_crawl_delay_max_ms <= DAY_MS, format!("at most {DAY_MS}")),
            ("opt_outs", self.opt_outs.iter().all(word), "words of lower-case letters".to_owned()),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((key, _, allowed)) => Err((key, allowed)),
            None => Ok(()),
        }
    }
}

/// How large a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeLimit {
    /// In bytes.
    pub bytes: usize,
    /// The key under `fetch` that says so.
    pub key: &'static str,
}

/// Whether sitemaps and feeds are sent under this type, and pages are not.
fn may_be_feed(content_type: &str) -> bool {
    let declared = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match declared.as_str() {
        "application/xhtml+xml" => false,
        "text/plain" | "application/gzip" | "application/x-gzip" => true,
        other => ["/xml", "+xml", "json"].iter().any(|end| other.ends_with(end)),
    }
}

/// No count of things at once is larger.
const MANY: usize = 100_000;

/// An element of `allow_networks`: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| format!("{text:?} is neither a network like 10.0.0.0/8 nor an address"))
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_and_survive_a_round_trip() {
        let settings = FetchSettings::default();
        assert_eq!(settings.check(), Ok(()));
        assert_eq!(settings.agent(), "faceflow");
        let json = serde_json::to_string(&settings).expect("settings are data");
        assert_eq!(serde_json::from_str::<FetchSettings>(&json).expect("its own output"), settings);
    }

    #[test]
    fn networks_are_networks_or_addresses() {
        let read = |text: &str| serde_json::from_str::<FetchSettings>(&format!(r#"{{"allow_networks":[{text:?}]}}"#));
        let network = |text: &str| read(text).expect(text).allow_networks[0].to_string();
        assert_eq!(network("127.0.0.0/8"), "127.0.0.0/8");
        assert_eq!(network("127.0.0.1"), "127.0.0.1/32");
        assert_eq!(network("::1"), "::1/128");
        let error = read("localhost").expect_err("a name is no network").to_string();
        assert!(error.contains("localhost") && error.contains("10.0.0.0/8"), "{error}");
        assert!(serde_json::from_str::<FetchSettings>(r#"{"retries":1}"#).is_err(), "unknown keys are refused");
    }

    #[test]
    fn the_declared_type_chooses_the_limit_of_a_page() {
        let settings =
            FetchSettings { page_max_bytes: 10, body_max_bytes: 20, feed_max_bytes: 30, ..Default::default() };
        let key = |settings: &FetchSettings, want, content_type| settings.body_max(want, content_type).key;
        for page in [None, Some("text/html; charset=utf-8"), Some("application/xhtml+xml"), Some("image/png"), Some("")]
        {
            assert_eq!(key(&settings, Want::Page, page), "page_max_bytes", "{page:?}");
        }
        for listing in
            ["text/xml", "Application/RSS+XML; charset=x", "application/feed+json", "text/plain", "application/x-gzip"]
        {
            assert_eq!(settings.body_max(Want::Page, Some(listing)), settings.feed_max(), "{listing}");
            assert_eq!(key(&settings, Want::Image, Some(listing)), "body_max_bytes", "{listing}");
        }
        let small = FetchSettings { body_max_bytes: 5, ..settings };
        assert_eq!(small.body_max(Want::Page, None), SizeLimit { bytes: 5, key: "body_max_bytes" });
    }

    #[test]
    fn impossible_values_are_named() {
        let broken = |change: fn(&mut FetchSettings)| {
            let mut settings = FetchSettings::default();
            change(&mut settings);
            settings.check().map_err(|(key, _)| key)
        };
        assert_eq!(broken(|s| s.per_host = 0), Err("per_host"));
        assert_eq!(broken(|s| s.per_ip = 0), Err("per_ip"));
        assert_eq!(broken(|s| s.ip_delay_ms = DAY_MS + 1), Err("ip_delay_ms"));
        assert_eq!(broken(|s| s.concurrency = 0), Err("concurrency"));
        assert_eq!(broken(|s| s.user_agent = "/1.0".into()), Err("user_agent"));
        assert_eq!(broken(|s| s.user_agent = "bot\r\nX: y".into()), Err("user_agent"));
        assert_eq!(broken(|s| s.dns_ttl_ms = 0), Err("dns_ttl_ms"));
        assert_eq!(broken(|s| s.robots_ttl_ms = DAY_MS + 1), Err("robots_ttl_ms"));
        assert_eq!(broken(|s| s.robots_max_bytes = 100), Err("robots_max_bytes"));
        assert_eq!(broken(|s| s.opt_outs.push("NoAI".into())), Err("opt_outs"));
    }
}
