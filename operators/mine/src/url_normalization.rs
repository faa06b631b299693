//! Addresses: how a URL is read, when two URLs are one, and which site a URL belongs to.
//!
//! Everything that is deduplicated is keyed by its address, so there is one place that decides what the address is.
//! Parsing is the WHATWG URL standard; on top of it come only changes that keep the resource. Promise: whatever comes
//! out is an absolute http or https URL with a host, without credentials and without a fragment.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};
use url::{Host, Url};

/// Query parameters that tell a site where its visitor came from; the page is the same without them.
const TRACKING: [&str; 20] = [
    "_ga", "_gl", "_hsenc", "_hsmi", "dclid", "fbclid", "gbraid", "gclid", "gclsrc", "igsh", "igshid", "mc_cid",
    "mc_eid", "mkt_tok", "msclkid", "ttclid", "twclid", "vero_id", "wbraid", "yclid",
];

/// Schemes that are written without slashes; any other word before a colon is a host with its port.
const OTHER_SCHEMES: [&str; 10] =
    ["about", "blob", "data", "file", "ftp", "javascript", "mailto", "tel", "urn", "view-source"];

/// Reads a line of a site list. The scheme may be left out: then it is https, or http for `localhost` and IP addresses.
///
/// # Errors
/// A sentence for the person who wrote the line.
pub fn parse_site(text: &str) -> Result<Url, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("an empty line is not a site".to_owned());
    }
    if text.contains(char::is_control) {
        // A URL parser would leave it out and make one address of two.
        return Err(format!("{text:?} has a line break or another control character in it"));
    }
    if let Some((scheme, _)) =
        text.split_once(':').filter(|(word, _)| OTHER_SCHEMES.contains(&word.to_ascii_lowercase().as_str()))
        && !text.contains("://")
    {
        return Err(format!("{text:?} has the scheme {scheme:?}: only http and https are crawled"));
    }
    let url = match text.find("://") {
        Some(_) => Url::parse(text),
        None => Url::parse(&format!("https://{}", text.trim_start_matches('/'))),
    };
    let mut url = url.map_err(|error| format!("{text:?} is not an address: {error}"))?;
    if !is_web(&url) {
        return Err(format!("{text:?} has the scheme {:?}: only http and https are crawled", url.scheme()));
    }
    if has_credentials(&url) {
        // What is said is written to logs, where no password belongs.
        let host = url.host_str().unwrap_or_default();
        return Err(format!("the address of {host:?} carries a user name: write it without"));
    }
    if !text.contains("://") && is_local(&url) {
        url.set_scheme("http").expect("https and http are both special schemes");
    }
    normalise(url).ok_or_else(|| format!("{text:?} is not an address: it has no host"))
}

/// Resolves what a page says against the address it is relative to. `None` unless that gives an http or https URL.
pub fn join(base: &Url, text: &str) -> Option<Url> {
    join_encoded(base, text, UTF_8)
}

/// Like [`join`], on a page in `encoding`: the URL standard writes the query in the page's own encoding.
pub(crate) fn join_encoded(base: &Url, text: &str, encoding: &'static Encoding) -> Option<Url> {
    let text = text.trim();
    // "Special authority ignore slashes": browsers read `///host` like `//host`, the parser does not.
    let host = text.trim_start_matches(['/', '\\']);
    let many_slashes = text.len() - host.len() > 2 && is_web(base);
    let text = if many_slashes { Cow::Owned(format!("//{host}")) } else { Cow::Borrowed(text) };
    let encode: &dyn Fn(&str) -> Cow<'_, [u8]> = &|query| encoding.encode(query).0;
    let options = Url::options().base_url(Some(base));
    let url = match encoding == UTF_8 {
        true => options.parse(&text),
        false => options.encoding_override(Some(encode)).parse(&text),
    };
    url.ok().filter(is_web)
}

/// The address of a picture: without fragment and empty query, escapes written in one way (RFC 3986, section 6.2.2), no
/// final dot after the host. The query is otherwise left alone. `None` for other schemes and for URLs with credentials.
pub fn canonical(mut url: Url) -> Option<Url> {
    if !is_web(&url) || has_credentials(&url) {
        return None;
    }
    url.set_fragment(None);
    if url.query() == Some("") {
        url.set_query(None);
    }
    if let Some(host) = url.domain().filter(|domain| domain.ends_with('.')) {
        let host = host.trim_end_matches('.').to_owned();
        url.set_host(Some(&host)).ok()?;
    }
    if let Cow::Owned(path) = unescaped(url.path()) {
        url.set_path(&path);
    }
    if let Some(Cow::Owned(query)) = url.query().map(unescaped) {
        url.set_query(Some(&query));
    }
    Some(url)
}

/// The address of a page: [`canonical`], and without the parameters that only track visitors. The order of the others
/// is kept: it may matter to the server.
pub fn normalise(url: Url) -> Option<Url> {
    let mut url = canonical(url)?;
    let query = url.query().unwrap_or_default();
    if query.split('&').any(tracks) {
        let kept: Vec<&str> = query.split('&').filter(|pair| !tracks(pair)).collect();
        let kept = kept.join("&");
        url.set_query(Some(kept.as_str()).filter(|kept| !kept.is_empty()));
    }
    Some(url)
}

/// What makes two URLs the same site: the host without a leading `www.`, and the port unless it is the scheme's own.
pub fn site_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    let bare = host.strip_prefix("www.").filter(|rest| rest.contains('.')).unwrap_or(host);
    match url.port() {
        Some(port) => format!("{bare}:{port}"),
        None => bare.to_owned(),
    }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost" || domain.ends_with(".localhost"),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        None => false,
    }
}

fn tracks(pair: &str) -> bool {
    let key = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
    key.starts_with("utm_") || TRACKING.contains(&key.as_str())
}

/// Percent escapes in upper case, and none for letters, digits, `-`, `.`, `_` and `~`.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let escape = rest.get(at..at + 3).filter(|escape| escape[1..].bytes().all(|byte| byte.is_ascii_hexdigit()));
        match escape.and_then(|escape| u8::from_str_radix(&escape[1..], 16).ok()) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
            Some(byte) => out.push_str(&format!("%{byte:02X}")),
            None => out.push('%'),
        }
        rest = &rest[at + if escape.is_some() { 3 } else { 1 }..];
    }
    out.push_str(rest);
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}
