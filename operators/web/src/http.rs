//! HTTP: asks for a URL and follows where its responses point, each hop under a permit of its own.
//!
//! Redirects are followed here rather than by the HTTP library, so that every hop is guarded, obeys its own host's robots.txt and
//! waits its turn at its own host and address. Promise: what comes back is complete and within its limits.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use faceflow_core::record::PageVersion;
use faceflow_core::{Class, Fault, Reloadable};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LOCATION,
};
use reqwest::{RequestBuilder, StatusCode};
use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

use super::body::{self, Deadline, Limit};
use super::connections::Connections;
use super::content_coding::CODINGS;
use super::cookies::Cookies;
use super::failure::Failure;
use super::gate::GateError;
use super::permit::{Admit, Permit, Purpose};
use super::settings::{FetchSettings, SizeLimit};
use super::{Response, Want, classify_fault};

/// The HTTP client of every host.
pub struct Http {
    connections: Connections,
    settings: Reloadable<FetchSettings>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Resource<'a> {
    /// A page; the one that was read last is not sent again unless it has changed.
    Page(Option<&'a PageVersion>),
    /// A picture.
    Image,
    /// The robots.txt of a host.
    RobotsTxt,
}

/// A chain of redirects comes back to one URL with the same cookies so often at most; once more is a loop. Some servers count.
const SAME_REQUESTS_MAX: usize = 3;

/// What one request led to.
enum Hop {
    Arrived(Response),
    /// Where to, and how long the host wants to be left alone before.
    Redirect(Url, Duration),
    NotModified,
}

/// Headers that the miner reads or that are kept as evidence of what a site allows.
const KEPT_HEADERS: [&str; 10] = [
    "content-type",
    "refresh",
    "content-language",
    "etag",
    "last-modified",
    "x-robots-tag",
    "tdm-reservation",
    "tdm-policy",
    "content-usage",
    "content-signal",
];

impl Resource<'_> {
    fn purpose(self) -> Purpose {
        match self {
            Self::Page(_) => Purpose::Crawl(Want::Page),
            Self::Image => Purpose::Crawl(Want::Image),
            Self::RobotsTxt => Purpose::RobotsTxt,
        }
    }

    /// Formats that can be read come first, so that servers that choose do not choose another; a page before a feed of it.
    fn accept(self) -> &'static str {
        match self {
            Self::Page(_) => {
                "text/html,application/xhtml+xml,application/xml;q=0.9,application/rss+xml;q=0.9,\
                 application/atom+xml;q=0.9,application/feed+json;q=0.9,*/*;q=0.1"
            }
            Self::Image => "image/webp,image/png,image/jpeg,image/gif,image/bmp,image/tiff,*/*;q=0.1",
            Self::RobotsTxt => "text/plain,*/*;q=0.1",
        }
    }

    /// The limit of a body that comes with these headers, and whether a longer one is a fault; otherwise it is cut there.
    fn size(self, headers: &HeaderMap, settings: &FetchSettings) -> (SizeLimit, bool) {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match self {
            Self::Page(_) => (settings.body_max(Want::Page, content_type), true),
            Self::Image => (settings.body_max(Want::Image, content_type), true),
            Self::RobotsTxt => (SizeLimit { bytes: settings.robots_max_bytes, key: "robots_max_bytes" }, false),
        }
    }

    /// The size of what comes as a gzip file, without its packing; `None` if it stays packed.
    fn unpacked(self, size: SizeLimit, settings: &FetchSettings) -> Option<SizeLimit> {
        match self {
            Self::Page(_) => Some(settings.feed_max()),
            Self::Image => None,
            Self::RobotsTxt => Some(size),
        }
    }

    /// The conditions on which `url` is asked again.
    fn conditions(self, url: &Url) -> HeaderMap {
        let Self::Page(Some(last)) = self else { return HeaderMap::new() };
        // Validators are those of one URL, and nobody else's business.
        if last.url.as_ref() != Some(url) {
            return HeaderMap::new();
        }
        let values = [(IF_NONE_MATCH, &last.etag), (IF_MODIFIED_SINCE, &last.last_modified)];
        // A value that we may not send is one that its server did not mean to see again.
        let sendable = |value: &Option<String>| value.as_deref().and_then(|value| HeaderValue::from_str(value).ok());
        values.into_iter().filter_map(|(name, value)| Some((name, sendable(value)?))).collect()
    }
}

/// The response to a request without conditions.
pub fn modified(response: Option<Response>) -> Result<Response, Failure> {
    let unexpected = || Fault::transient(Class::Protocol, "bad_response", "a 304 to a request without conditions");
    response.ok_or_else(|| Failure::of_url(unexpected()))
}

impl Http {
    /// A client with these settings, which connects under permits alone.
    pub fn new(live: Reloadable<FetchSettings>) -> Result<Self, GateError> {
        Ok(Self { connections: Connections::new(live.get())?, settings: live })
    }

    /// Asks for `url` and follows where the responses point; `None` if what was read last has not changed.
    pub async fn follow(
        &self,
        gate: &dyn Admit,
        mut url: Url,
        resource: Resource<'_>,
    ) -> Result<Option<Response>, Failure> {
        let settings = self.settings.get();
        let mut left = Duration::from_millis(settings.total_timeout_ms);
        let (mut passed, mut cookies) = (vec![], Cookies::default());
        url.set_fragment(None);
        loop {
            let permit = gate.admit(&url, resource.purpose()).await?;
            let brought = cookies.header(&url);
            let start = Instant::now();
            let deadline = Deadline { at: start + left, total_ms: settings.total_timeout_ms };
            let next = match self.ask(permit, (resource, &mut cookies), (&settings, deadline)).await? {
                Hop::Arrived(response) => return Ok(Some(response)),
                Hop::NotModified => return Ok(None),
                Hop::Redirect(next, rest) => {
                    sleep(rest).await;
                    next
                }
            };
            left = left.saturating_sub(start.elapsed());
            passed.push((std::mem::replace(&mut url, next), brought));
            // The second visit of one URL is no loop yet: the first may have set a cookie, or been counted.
            let brings = cookies.header(&url);
            let again = passed.iter().filter(|(passed, brought)| (passed, brought) == (&url, &brings)).count();
            if passed.len() > settings.redirects_max || again > SAME_REQUESTS_MAX {
                return Err(match passed.iter().any(|(passed, _)| *passed == url) {
                    true => refused("redirect_loop", format!("{url} leads back to itself")),
                    false => refused("too_many_redirects", format!("more than {}", settings.redirects_max)),
                });
            }
        }
    }

    /// The body of a robots.txt.
    pub async fn robots_txt(&self, gate: &dyn Admit, file: Url) -> Result<Bytes, Failure> {
        Ok(modified(self.follow(gate, file, Resource::RobotsTxt).await?)?.body)
    }

    /// One request to what may be asked.
    async fn ask(
        &self,
        permit: Permit,
        (resource, cookies): (Resource<'_>, &mut Cookies),
        (settings, deadline): (&FetchSettings, Deadline),
    ) -> Result<Hop, Failure> {
        let conditions = resource.conditions(permit.url());
        let is_conditional = !conditions.is_empty();
        let lease = self.connections.lease(&permit.peer.host)?;
        let request = lease.client.get(permit.url().clone()).headers(conditions);
        let mut request = request.header(ACCEPT, resource.accept()).header(ACCEPT_ENCODING, CODINGS);
        if let Some(cookies) = cookies.header(permit.url()) {
            request = request.header(COOKIE, cookies);
        }
        let response = head(request, &permit, (settings, deadline)).await?;
        let (status, headers) = (response.status(), response.headers());
        check_size(headers, settings.headers_max_bytes)?;
        if status == StatusCode::NOT_MODIFIED && !is_conditional {
            return Err(permit.refused(status, headers));
        }
        permit.answered(status, headers)?;
        if status == StatusCode::NOT_MODIFIED {
            return Ok(Hop::NotModified);
        }
        if status.is_redirection() {
            cookies.take(permit.url(), headers, permit.judge.clock.now());
            let rest = permit.rest_before_redirect(status, headers, deadline.at)?;
            return Ok(Hop::Redirect(target(permit.url(), headers)?, rest));
        }
        let range = (status == StatusCode::PARTIAL_CONTENT).then(|| whole_range(headers)).transpose()?;
        let kept = kept(headers);
        let (size, whole) = resource.size(headers, settings);
        let unpacked = resource.unpacked(size, settings);
        let patience = Duration::from_millis(settings.read_timeout_ms);
        let limit = Limit { size, whole, unpacked, patience, deadline };
        let sent = response.content_length();
        let body = body::read(response, limit, permit.body).await.map_err(Failure::of_url)?;
        if let Some(total) = range.filter(|total| sent.unwrap_or(body.len() as u64) < *total) {
            return Err(Failure::of_url(classify_fault::partial(&format!("of {total} bytes, and fewer came"))));
        }
        Ok(Hop::Arrived(Response { final_url: permit.url, status: status.as_u16(), headers: kept, body }))
    }
}

/// Sends a request and waits for the head of its response.
async fn head(
    request: RequestBuilder,
    permit: &Permit,
    (settings, deadline): (&FetchSettings, Deadline),
) -> Result<reqwest::Response, Failure> {
    // The HTTP library does not tell whether the connection was there already or when it was made.
    let patience = Duration::from_millis(settings.connect_timeout_ms) + Duration::from_millis(settings.read_timeout_ms);
    let by = Instant::now() + patience;
    let late = |_| match by < deadline.at {
        true => permit.silent(classify_fault::timeout(format!("no headers in {} ms", patience.as_millis()))),
        false => permit.silent(deadline.missed()),
    };
    let sent = timeout_at(by.min(deadline.at), permit.connect(request.send())).await.map_err(late)?;
    sent.map_err(|error| permit.failed(&error))
}

fn check_size(headers: &HeaderMap, bytes_max: usize) -> Result<(), Failure> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes <= bytes_max {
        return Ok(());
    }
    let detail = format!("headers of {bytes} bytes, allowed are {bytes_max}");
    Err(Failure::of_url(Fault::transient(Class::Protocol, "bad_response", detail)))
}

/// Where a redirect points, seen from `base`.
fn target(base: &Url, headers: &HeaderMap) -> Result<Url, Failure> {
    let bad = |detail: &str| refused("bad_redirect", detail);
    let location = headers.get(LOCATION).ok_or_else(|| bad("a redirect without a Location"))?;
    // What is not UTF-8 is in an encoding that only its server knows: its bytes go back as they came.
    let location = match std::str::from_utf8(location.as_bytes()) {
        Ok(location) => Cow::Borrowed(location),
        Err(_) => Cow::Owned(location.as_bytes().iter().map(|byte| escaped(*byte)).collect()),
    };
    let mut target = base.join(&location).map_err(|error| bad(&format!("a Location that is no URL: {error}")))?;
    target.set_fragment(None);
    Ok(target)
}

/// A byte of an address, escaped unless it is ASCII.
fn escaped(byte: u8) -> String {
    if byte.is_ascii() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
}

/// The length of what a 206 brings, if it is the whole (`Content-Range: bytes 0-99/100`).
fn whole_range(headers: &HeaderMap) -> Result<u64, Failure> {
    let range = headers.get(CONTENT_RANGE).map(|range| String::from_utf8_lossy(range.as_bytes()).into_owned());
    let range = range.unwrap_or_default();
    let whole = || {
        let (first_and_last, total) = range.trim().strip_prefix("bytes")?.trim().split_once('/')?;
        let (first, last) = first_and_last.split_once('-')?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let (first, last, total) = (number(first)?, number(last)?, number(total)?);
        (first == 0 && last.checked_add(1) == Some(total)).then_some(total)
    };
    whole().ok_or_else(|| Failure::of_url(classify_fault::partial(&range)))
}

fn refused(reason: &str, detail: impl Into<String>) -> Failure {
    Failure::of_url(Fault::permanent(Class::Refused, reason, detail))
}

fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    let kept = headers.iter().filter(|(name, _)| KEPT_HEADERS.contains(&name.as_str()));
    kept.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}
