//! Cookies of one chain of redirects: sites set one, send the visitor back, and answer only who brings it.
//!
//! They live as long as the chain and go to the host alone that set them (RFC 6265, with every cookie host-only). Promise: nothing is
//! remembered from one URL to the next, and their number and size are bounded.

use std::time::{Duration, UNIX_EPOCH};

use faceflow_core::Time;
use reqwest::header::{HeaderMap, HeaderValue, SET_COOKIE};
use url::Url;

/// Cookies of one chain, at most.
const COOKIES_MAX: usize = 50;
/// Name and value of one, in bytes; a longer one is passed over.
const COOKIE_MAX_BYTES: usize = 4_096;
/// A `Cookie` header, in bytes; what does not fit is left out.
const HEADER_MAX_BYTES: usize = 8 << 10;

/// What the responses of one chain have set.
#[derive(Debug, Default)]
pub struct Cookies(Vec<Cookie>);

#[derive(Debug, PartialEq)]
struct Cookie {
    host: String,
    path: String,
    secure: bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Cookies {
    /// Takes in what a response from `url` sets at the moment `now`.
    pub fn take(&mut self, url: &Url, headers: &HeaderMap, now: Time) {
        for line in headers.get_all(SET_COOKIE) {
            let Some((cookie, lives)) = Cookie::read(url, line.as_bytes(), now) else { continue };
            self.0.retain(|known| !known.is_same(&cookie));
            if lives && self.0.len() < COOKIES_MAX {
                self.0.push(cookie);
            }
        }
    }

    /// The `Cookie` header of a request to `url`, if any are for it: those of the longest path first.
    pub fn header(&self, url: &Url) -> Option<HeaderValue> {
        let mut fitting: Vec<&Cookie> = self.0.iter().filter(|cookie| cookie.is_for(url)).collect();
        fitting.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let mut header = vec![];
        for Cookie { name, value, .. } in fitting {
            if header.len() + name.len() + value.len() + 3 > HEADER_MAX_BYTES {
                continue;
            }
            if !header.is_empty() {
                header.extend_from_slice(b"; ");
            }
            header.extend_from_slice(name);
            if !name.is_empty() {
                header.push(b'=');
            }
            header.extend_from_slice(value);
        }
        HeaderValue::from_bytes(&header).ok().filter(|header| !header.is_empty())
    }
}

impl Cookie {
    /// Reads a `Set-Cookie` line, and whether it sets the cookie or takes it away (RFC 6265, section 5.2).
    fn read(url: &Url, line: &[u8], now: Time) -> Option<(Self, bool)> {
        let mut parts = line.split(|byte| *byte == b';');
        let (name, value) = pair(parts.next()?);
        let (name, value) = match value {
            Some(value) => (name, value),
            None => (&b""[..], name),
        };
        if (name.is_empty() && value.is_empty()) || name.len() + value.len() > COOKIE_MAX_BYTES {
            return None;
        }
        let (mut path, mut secure, mut lives) = (default_path(url), false, true);
        let mut has_age = false;
        for part in parts {
            let (key, value) = pair(part);
            let value = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
            match key.to_ascii_lowercase().as_slice() {
                b"path" if value.starts_with('/') => path = value,
                b"secure" => secure = true,
                b"max-age" => {
                    if let Ok(seconds) = value.parse::<f64>() {
                        (lives, has_age) = (seconds > 0.0, true);
                    }
                }
                b"expires" if !has_age => {
                    let gone = httpdate::parse_http_date(&value.replace('-', " "))
                        .or_else(|_| httpdate::parse_http_date(&value));
                    lives = gone.map_or(true, |moment| moment > UNIX_EPOCH + Duration::from_millis(now));
                }
                _ => {}
            }
        }
        let host = url.host_str()?.to_owned();
        Some((Self { host, path, secure, name: name.to_vec(), value: value.to_vec() }, lives))
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.host, &self.path, &self.name) == (&other.host, &other.path, &other.name)
    }

    fn is_for(&self, url: &Url) -> bool {
        let inside = url.path().strip_prefix(self.path.as_str());
        let path = inside.is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'));
        path && url.host_str() == Some(&self.host) && (!self.secure || url.scheme() == "https")
    }
}

/// What stands before and behind the first `=`, without blanks.
fn pair(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == b'=') {
        Some(at) => (text[..at].trim_ascii(), Some(text[at + 1..].trim_ascii())),
        None => (text.trim_ascii(), None),
    }
}

/// The folder of the URL that set it (RFC 6265, section 5.1.4).
fn default_path(url: &Url) -> String {
    match url.path().rfind('/') {
        None | Some(0) => "/".to_owned(),
        Some(end) => url.path()[..end].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect(text)
    }

    /// What a request to `to` brings after `from` has set these.
    fn brought(from: &str, lines: &[&str], to: &str) -> Option<String> {
        let mut cookies = Cookies::default();
        let lines = lines.iter().map(|line| (SET_COOKIE, HeaderValue::from_bytes(line.as_bytes()).expect(line)));
        cookies.take(&url(from), &lines.collect(), 784_111_777_000);
        cookies.header(&url(to)).map(|header| String::from_utf8_lossy(header.as_bytes()).into_owned())
    }

    #[test]
    fn cookies_go_back_to_whom_they_are_from() {
        let from = "http://a.example/in/door.html";
        for (lines, to, expected) in [
            (&["seen=1; Path=/"][..], "http://a.example/x", Some("seen=1")),
            (&["seen=1"], "http://a.example/in/x", Some("seen=1")),
            (&["seen=1"], "http://a.example/x", None),
            (&["seen=1"], "http://a.example/inner", None),
            (&["seen=1; path=/"], "http://b.example/x", None),
            (&["seen=1; Domain=example; Path=/"], "http://www.a.example/x", None),
            (&["seen=1; Path=/; Secure"], "http://a.example/x", None),
            (&["seen=1; Path=/; Secure; HttpOnly; SameSite=Lax"], "https://a.example/x", Some("seen=1")),
            (&["a=1; Path=/", "b = \"2 3\" ;Path=/in"], "http://a.example/in/x", Some("b=\"2 3\"; a=1")),
            (&["a=1; Path=/", "a=2; Path=/"], "http://a.example/", Some("a=2")),
            (&["a=1; Path=/", "a=; Max-Age=0; Path=/"], "http://a.example/", None),
            (&["a=1; Path=/; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], "http://a.example/", Some("a=1")),
            (&["a=1; Path=/; Expires=Thu, 01-Jan-1970 00:00:00 GMT"], "http://a.example/", None),
            (&["a=b=c; Path=/"], "http://a.example/", Some("a=b=c")),
            (&["a=; Path=/"], "http://a.example/", Some("a=")),
            (&["word; Path=/"], "http://a.example/", Some("word")),
            (&["", ";;;", "="], "http://a.example/in/", None),
            (&["a=J\u{fc}rgen; Path=/"], "http://a.example/", Some("a=J\u{fc}rgen")),
        ] {
            assert_eq!(brought(from, lines, to).as_deref(), expected, "{lines:?} {to}");
        }
    }

    #[test]
    fn number_and_size_are_bounded() {
        let long = format!("a={}", "x".repeat(COOKIE_MAX_BYTES));
        assert_eq!(brought("http://a.example/", &[&long], "http://a.example/"), None);
        let many: Vec<String> = (0..1_000).map(|n| format!("c{n}={}", "x".repeat(1_000))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let sent = brought("http://a.example/", &many, "http://a.example/").expect("some");
        assert!(sent.len() <= HEADER_MAX_BYTES && sent.contains("c0="), "{}", sent.len());
    }
}
