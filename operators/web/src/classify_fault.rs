//! Faults: what a status, a header or an error of the HTTP library means for the work.
//!
//! One place decides what may pass and what will not, so that the retry loop never has to know HTTP. Promise: a fault is
//! transient exactly where asking again, later, could be answered differently.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::time::UNIX_EPOCH;

use faceflow_core::{Class, Fault, Time};
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::failure::{AtFault, Failure, Peer};
use super::inflate::Broken;
use super::settings::SizeLimit;

/// A fault on its way through the error type of a library.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct WrappedFault(pub Fault);

/// The failure of a response that is not a success: 408, 425, 429 and 5xx ask us to come back later, at the earliest after
/// their `Retry-After`; everything else is a refusal of this URL. 429 is said of a host (RFC 6585, section 4), and so is when it wants
/// to be asked again; a 503 without that may be of one page.
pub fn of_status(status: StatusCode, (headers, now): (&HeaderMap, Time), peer: &Peer) -> Failure {
    let reason = format!("http_{}", status.as_u16());
    let detail = status.canonical_reason().unwrap_or("a status unknown to HTTP");
    if !(matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()) {
        return Failure::of_url(Fault::permanent(Class::Refused, reason, detail));
    }
    let fault = Fault::transient(Class::Busy, reason, detail);
    match retry_after(headers, now) {
        Some(delay_ms) => Failure::of_host(fault.after(delay_ms), peer.host.clone()),
        None if status == StatusCode::TOO_MANY_REQUESTS => Failure::of_host(fault, peer.host.clone()),
        None => Failure::of_url(fault),
    }
}

/// An HTTP date (RFC 9110, section 5.6.7) in milliseconds since the Unix epoch.
fn date_ms(text: &str) -> Option<Time> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Time::try_from(since.as_millis()).ok()
}

/// `Retry-After` (RFC 9110, section 10.2.3) as a delay in milliseconds. A date is relative to the answer's own `Date`,
/// since the server's clock wrote both; without one to `now`.
pub fn retry_after(headers: &HeaderMap, now: Time) -> Option<u64> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1_000));
    }
    let sent = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(date_ms);
    Some(date_ms(value)?.saturating_sub(sent.unwrap_or(now)))
}

/// The failure of a request that got no response.
pub fn of_request(error: &reqwest::Error, peer: &Peer) -> Failure {
    if let Some(WrappedFault(fault)) = cause(error) {
        // The resolver knows no other than that there is no permit.
        return Failure { fault: fault.clone(), at_fault: AtFault::Us };
    }
    let detail = story(error);
    if error.is_timeout() {
        return Failure::of_address(timeout(format!("no connection in time: {detail}")), peer.address);
    }
    let system = cause::<io::Error>(error);
    if error.is_connect() {
        // A socket's errors have a number; what the TLS layer reports about certificates and handshakes has none.
        return match system.is_some_and(|error| error.raw_os_error().is_none()) {
            true => Failure::of_host(Fault::transient(Class::Connect, "tls", detail), peer.host.clone()),
            false => Failure::of_address(Fault::transient(Class::Connect, "connect", detail), peer.address),
        };
    }
    match system.map(io::Error::kind) {
        // The connection was there: this says as much about the URL as about its server.
        Some(ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe) => {
            Failure::of_url(Fault::transient(Class::Connect, "connect", detail))
        }
        _ => Failure::of_url(Fault::transient(Class::Protocol, "bad_response", detail)),
    }
}

/// The fault of a body that broke off.
pub fn of_body(error: &reqwest::Error) -> Fault {
    Fault::transient(Class::Protocol, "body_truncated", story(error))
}

/// The fault of a body whose content coding does not decode; a fault of the body underneath comes through as it is.
pub fn of_decoder(error: &io::Error) -> Fault {
    if let Some(fault) = underneath(error) {
        return fault.clone();
    }
    let cut = error.kind() == ErrorKind::UnexpectedEof;
    Fault::transient(Class::Protocol, if cut { "body_truncated" } else { "bad_encoding" }, error.to_string())
}

/// The fault of a body whose deflate data are broken.
pub fn of_deflate(broken: Broken) -> Fault {
    match broken {
        Broken::Cut => Fault::transient(Class::Protocol, "body_truncated", "the compressed data break off"),
        Broken::Damaged(how) => Fault::transient(Class::Protocol, "bad_encoding", how),
    }
}

/// The fault of a 206 that is not the whole, and nobody asked for a part (RFC 9110, section 15.3.7).
pub fn partial(range: &str) -> Fault {
    let detail = format!("a part that nobody asked for: Content-Range {range:?}");
    Fault::transient(Class::Protocol, "partial_content", detail)
}

/// The fault of the body that a decoder was reading from, if it is not the decoder's own.
fn underneath(error: &io::Error) -> Option<&Fault> {
    error.get_ref().and_then(|error| error.downcast_ref()).map(|WrappedFault(fault)| fault)
}

/// The fault of a deadline that passed.
pub fn timeout(detail: impl Into<String>) -> Fault {
    Fault::transient(Class::Timeout, "timeout", detail)
}

/// The fault of a body beyond its limit.
pub fn too_large(bytes: impl std::fmt::Display, limit: SizeLimit) -> Fault {
    let detail = format!("{bytes} bytes, allowed are {} (fetch.{})", limit.bytes, limit.key);
    Fault::permanent(Class::Policy, "too_large", detail)
}

/// The first error of this type among an error's causes.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// What happened, from the outside in, without the URL that the fault's record names anyway.
fn story(error: &reqwest::Error) -> String {
    let said: Vec<_> = causes(error).skip(1).map(ToString::to_string).collect();
    if said.is_empty() { "the HTTP library gives no reason".to_owned() } else { said.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    const NOW: Time = 784_111_777_000;

    fn failure(status: u16, headers: &[(&'static str, &str)]) -> Failure {
        let headers = headers.iter().map(|(name, value)| {
            (reqwest::header::HeaderName::from_static(name), value.parse().expect("a header value"))
        });
        let status = StatusCode::from_u16(status).expect("a status");
        of_status(status, (&headers.collect(), NOW), &Peer { host: host(), address: [9, 9, 9, 9].into() })
    }

    fn fault(status: u16, headers: &[(&'static str, &str)]) -> Fault {
        failure(status, headers).fault
    }

    fn host() -> Origin {
        Origin::of(&"http://a.example/".parse().expect("a URL"))
    }

    #[test]
    fn busy_hosts_are_told_from_broken_urls() {
        assert_eq!(failure(429, &[]).at_fault, AtFault::Host(host()));
        for status in [408, 500, 502, 503, 504, 404, 410] {
            assert_eq!(failure(status, &[]).at_fault, AtFault::Url, "{status}");
        }
        for status in [500, 503] {
            let at_fault = failure(status, &[("retry-after", "7")]).at_fault;
            assert_eq!(at_fault, AtFault::Host(host()), "it says when to come back");
        }
        assert_eq!(failure(404, &[("retry-after", "7")]).at_fault, AtFault::Url, "and a refusal does not");
    }

    #[test]
    fn statuses_say_later_or_no() {
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            let fault = fault(status, &[]);
            assert_eq!((fault.class, fault.permanent, fault.retry_after_ms), (Class::Busy, false, None), "{status}");
            assert_eq!(fault.reason, format!("http_{status}"));
        }
        for status in [300, 304, 400, 401, 403, 404, 410, 418, 451, 999] {
            let fault = fault(status, &[("retry-after", "9")]);
            assert_eq!((fault.class, fault.permanent, fault.retry_after_ms), (Class::Refused, true, None), "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |headers: &[(&'static str, &str)]| fault(503, headers).retry_after_ms;
        let date = "Sun, 06 Nov 1994 08:51:37 GMT";
        assert_eq!(after(&[("retry-after", "120")]), Some(120_000));
        assert_eq!(after(&[("retry-after", " 0 ")]), Some(0));
        assert_eq!(after(&[("retry-after", "99999999999999999999999")]), Some(u64::MAX));
        assert_eq!(after(&[("retry-after", date)]), Some(120_000), "relative to our clock");
        let wrong_clock = ("date", "Sun, 06 Nov 1994 08:51:07 GMT");
        assert_eq!(after(&[("retry-after", date), wrong_clock]), Some(30_000), "relative to the server's own clock");
        assert_eq!(after(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(0), "already past");
        assert_eq!(after(&[("retry-after", "soon")]), None);
        assert_eq!(after(&[("retry-after", "-5")]), None);
    }
}
