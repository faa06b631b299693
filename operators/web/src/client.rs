//! The client: one pooled HTTP client, asked politely and within limits.
//!
//! Redirects are followed here rather than by the HTTP library, so that every hop is guarded, obeys its own host's
//! robots.txt and waits its turn at its own host and address. No cookies, no credentials, no proxies. Promise: see [`super`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use faceflow_core::record::{PageVersion, number};
use faceflow_core::{Class, Clock, Fault, Future, Reloadable};
use futures::future::BoxFuture;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LOCATION,
};
use reqwest::redirect::Policy;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::body::{self, Deadline, Limit};
use super::body_budget::{BodyMemory, Held};
use super::guard::{CheckedNames, Guard};
use super::host_limiter::{HostLimiter, RequestPermit};
use super::robots::Robots;
use super::settings::{FetchSettings, SizeLimit};
use super::{OptOuts, Origin, Response, Want, Web, faults};

/// The web client. Clones share connections, politeness and remembered robots.txt.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    settings: Reloadable<FetchSettings>,
    clock: Arc<dyn Clock>,
    http: reqwest::Client,
    guard: Arc<Guard>,
    hosts: HostLimiter,
    robots: Robots,
    opt_outs: OptOuts,
    memory: Arc<BodyMemory>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
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

/// Headers that the miner reads or that are kept as evidence of what a site allows.
const KEPT_HEADERS: [&str; 9] = [
    "content-type",
    "content-language",
    "etag",
    "last-modified",
    "x-robots-tag",
    "tdm-reservation",
    "tdm-policy",
    "content-usage",
    "content-signal",
];

impl Client {
    /// A client with these settings; what [`FetchSettings::taking`] takes over may change while it works. `clock` reads `Retry-After` dates of servers that do not tell their own time.
    pub fn new(live: Reloadable<FetchSettings>, clock: Arc<dyn Clock>) -> Result<Self, ClientError> {
        let settings = live.get();
        settings.check().map_err(|(key, allowed)| ClientError::Setting { key, allowed })?;
        let guard = Arc::new(Guard::new(&live));
        let http = reqwest::Client::builder()
            .user_agent(&settings.user_agent)
            .dns_resolver(CheckedNames(Arc::clone(&guard)))
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .pool_max_idle_per_host(settings.per_host)
            .pool_idle_timeout(Duration::from_millis(settings.keep_alive_ms))
            .http1_max_headers(settings.headers_max)
            .http2_max_header_list_size(u32::try_from(settings.headers_max_bytes).unwrap_or(u32::MAX))
            .build()?;
        let (hosts, robots) = (HostLimiter::new(&live), Robots::new(&live));
        let (opt_outs, memory) = (OptOuts::new(&settings), Arc::new(BodyMemory::new(settings.memory_max_bytes)));
        Ok(Self(Arc::new(Inner { settings: live, clock, http, guard, hosts, robots, opt_outs, memory })))
    }
}

impl Client {
    /// The memory that its bodies are held in.
    pub(super) fn memory(&self) -> Arc<BodyMemory> {
        Arc::clone(&self.0.memory)
    }

    /// Its settings.
    pub(super) fn settings(&self) -> Reloadable<FetchSettings> {
        self.0.settings.clone()
    }
}

impl Web for Client {
    fn get(&self, url: &Url, want: Want) -> Future<Result<Response, Fault>> {
        let (inner, url) = (Arc::clone(&self.0), url.clone());
        Box::pin(async move { answered(inner.follow(url, Errand::Get(want, None)).await?) })
    }

    fn get_again(&self, url: &Url, last: &PageVersion) -> Future<Result<Option<Response>, Fault>> {
        let (inner, url, last) = (Arc::clone(&self.0), url.clone(), last.clone());
        Box::pin(async move { inner.follow(url, Errand::Get(Want::Page, Some(&last))).await })
    }

    fn place(&self, url: &Url) -> Future<Option<u64>> {
        let (inner, url) = (Arc::clone(&self.0), url.clone());
        Box::pin(async move {
            // No name is looked up for a URL that is never asked.
            inner.guard.check(&url).await.ok()?;
            Some(number(&inner.guard.address(&url).await.ok()?.to_string()))
        })
    }
}

/// The response to a request without conditions.
fn answered(response: Option<Response>) -> Result<Response, Fault> {
    response.ok_or_else(|| Fault::transient(Class::Protocol, "bad_response", "a 304 to a request without conditions"))
}

/// What a request is for.
#[derive(Clone, Copy, Debug)]
enum Errand<'a> {
    /// What was read last is not read again unless it has changed.
    Get(Want, Option<&'a PageVersion>),
    /// The rules themselves: asked without asking the rules.
    Robots,
}

impl Errand<'_> {
    /// Formats that can be read come first, so that servers that choose do not choose another; a page before a feed of it.
    fn accept(self) -> &'static str {
        match self {
            Self::Get(Want::Page, _) => {
                "text/html,application/xhtml+xml,application/xml;q=0.9,application/rss+xml;q=0.9,\
                 application/atom+xml;q=0.9,application/feed+json;q=0.9,*/*;q=0.1"
            }
            Self::Get(Want::Image, _) => "image/webp,image/png,image/jpeg,image/gif,image/bmp,image/tiff,*/*;q=0.1",
            Self::Robots => "text/plain,*/*;q=0.1",
        }
    }
}

/// What one request led to.
enum Answer {
    Arrived(Response),
    Moved(Url),
    Unchanged,
}

impl Inner {
    /// Asks for `url` and follows where the answers point; `None` if what was read last has not changed.
    async fn follow(&self, mut url: Url, errand: Errand<'_>) -> Result<Option<Response>, Fault> {
        let settings = self.settings.get();
        let mut left = Duration::from_millis(settings.total_timeout_ms);
        let mut passed = vec![];
        url.set_fragment(None);
        loop {
            let (_permit, held) = self.enter(&url, errand, &settings).await?;
            let start = Instant::now();
            let deadline = Deadline { at: start + left, total_ms: settings.total_timeout_ms };
            let next = match self.ask(&url, errand, &settings, (deadline, held)).await? {
                Answer::Arrived(response) => return Ok(Some(response)),
                Answer::Unchanged => return Ok(None),
                Answer::Moved(next) => next,
            };
            left = left.saturating_sub(start.elapsed());
            passed.push(std::mem::replace(&mut url, next));
            if passed.contains(&url) {
                return Err(refused("redirect_loop", format!("{url} leads back to itself")));
            }
            if passed.len() > settings.redirects_max {
                return Err(refused("too_many_redirects", format!("more than {}", settings.redirects_max)));
            }
        }
    }

    /// Waits until `url` may be asked, if it may, and until there is memory for an answer.
    async fn enter(
        &self,
        url: &Url,
        errand: Errand<'_>,
        settings: &FetchSettings,
    ) -> Result<(RequestPermit, Held), Fault> {
        self.guard.check(url).await?;
        let delay = match errand {
            Errand::Get(..) if settings.respect_robots => self.robots.admit(url, |file| self.rules(file)).await?,
            _ => Duration::ZERO,
        };
        let address = self.guard.address(url).await?;
        // Memory comes last: whoever waits for a host's pace holds none.
        let permit = self.hosts.enter(&Origin::of(url), address, delay).await;
        Ok((permit, self.memory.share().await))
    }

    /// The body of a robots.txt. Boxed, because asking for a page asks for its rules first.
    fn rules(&self, file: Url) -> BoxFuture<'_, Result<Bytes, Fault>> {
        Box::pin(async move { Ok(answered(self.follow(file, Errand::Robots).await?)?.body) })
    }

    /// One request to an address that may be asked, with its deadline and its share of memory.
    async fn ask(
        &self,
        url: &Url,
        errand: Errand<'_>,
        settings: &FetchSettings,
        (deadline, held): (Deadline, Held),
    ) -> Result<Answer, Fault> {
        let read_timeout = Duration::from_millis(settings.read_timeout_ms);
        // The HTTP library does not tell whether the connection was there already or when it was made.
        let patience = Duration::from_millis(settings.connect_timeout_ms) + read_timeout;
        let request = self.http.get(url.clone()).header(ACCEPT, errand.accept());
        let mut request = request.header(ACCEPT_ENCODING, body::CODINGS);
        let last = if let Errand::Get(_, last) = errand { last } else { None };
        // Validators are those of one address, and nobody else's business.
        let last = last.filter(|last| last.url.as_ref() == Some(url));
        let mut conditional = false;
        for (name, value) in
            last.into_iter().flat_map(|last| [(IF_NONE_MATCH, &last.etag), (IF_MODIFIED_SINCE, &last.last_modified)])
        {
            // A value that we may not send is one that its server did not mean to see again.
            if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
                request = request.header(name, value);
                conditional = true;
            }
        }
        let request = request.send();
        let by = Instant::now() + patience;
        let late = |_| match by < deadline.at {
            true => faults::timeout(format!("no headers in {} ms", patience.as_millis())),
            false => deadline.missed(),
        };
        let answer = timeout_at(by.min(deadline.at), request).await.map_err(late)?;
        let answer = answer.map_err(|error| faults::of_request(&error))?;
        let (status, headers) = (answer.status(), answer.headers());
        check_size(headers, settings.headers_max_bytes)?;
        if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(Answer::Moved(target(url, headers)?));
        }
        if status.as_u16() == 304 && conditional {
            self.check_opt_outs(headers, Want::Page)?;
            return Ok(Answer::Unchanged);
        }
        if !status.is_success() {
            return Err(faults::of_status(status, headers, self.clock.now()));
        }
        let kept = kept(headers);
        let (size, whole) = match errand {
            Errand::Get(want, _) => {
                self.check_opt_outs(headers, want)?;
                let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                (settings.body_max(want, content_type), true)
            }
            Errand::Robots => (SizeLimit { bytes: settings.robots_max_bytes, key: "robots_max_bytes" }, false),
        };
        let unpacked = matches!(errand, Errand::Get(Want::Page, _)).then(|| settings.listing_max());
        let limit = Limit { size, whole, unpacked, patience: read_timeout, deadline };
        let body = body::read(answer, limit, (&self.memory, held)).await?;
        Ok(Answer::Arrived(Response { final_url: url.clone(), status: status.as_u16(), headers: kept, body }))
    }

    fn check_opt_outs(&self, headers: &HeaderMap, want: Want) -> Result<(), Fault> {
        for value in headers.get_all("x-robots-tag") {
            let value = String::from_utf8_lossy(value.as_bytes());
            if let Some(word) = self.opt_outs.in_header(&value, want) {
                return Err(OptOuts::fault(&word, &value));
            }
        }
        Ok(())
    }
}

fn check_size(headers: &HeaderMap, bytes_max: usize) -> Result<(), Fault> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes <= bytes_max {
        return Ok(());
    }
    let detail = format!("headers of {bytes} bytes, allowed are {bytes_max}");
    Err(Fault::transient(Class::Protocol, "bad_response", detail))
}

/// Where a redirect points, seen from `base`.
fn target(base: &Url, headers: &HeaderMap) -> Result<Url, Fault> {
    let bad = |detail: &str| refused("bad_redirect", detail);
    let location = headers.get(LOCATION).ok_or_else(|| bad("a redirect without a Location"))?;
    let location = std::str::from_utf8(location.as_bytes()).map_err(|_| bad("a Location that is not UTF-8"))?;
    let mut target = base.join(location).map_err(|error| bad(&format!("a Location that is no URL: {error}")))?;
    target.set_fragment(None);
    Ok(target)
}

fn refused(reason: &str, detail: impl Into<String>) -> Fault {
    Fault::permanent(Class::Refused, reason, detail)
}

fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    let kept = headers.iter().filter(|(name, _)| KEPT_HEADERS.contains(&name.as_str()));
    kept.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}
