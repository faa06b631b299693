//! What a user can do about a reason: for the end of a run and `faceflow status`.

use std::net::IpAddr;

use url::{Host, Url};

/// What can be done about work at `url` that ended for a `reason`; `detail` is that in words. Nothing where nobody can do anything.
pub fn advice(url: &str, reason: &str, detail: &str) -> Option<String> {
    let setting = |what: &str, assignment: &str| Some(format!("{what}, allow it: --set {assignment}"));
    if let Some(word) = reason.strip_prefix("opt_out:") {
        let what = format!("it says {word}; if it is yours or its owner agrees");
        return setting(&what, "fetch.respect_opt_outs=false");
    }
    let said = match reason {
        "private_address" => {
            let networks = format!("fetch.allow_networks={}", network(url, detail)?);
            return setting("if that is a network of yours, beside those you allow already", &networks);
        }
        "port" => {
            let named = detail.strip_prefix("port ").and_then(|rest| rest.split(' ').next()?.parse().ok());
            let port: u16 = named.or_else(|| Url::parse(url).ok()?.port_or_known_default())?;
            return setting(
                "if that port is meant, beside those you allow already",
                &format!("fetch.ports=80,443,{port}"),
            );
        }
        "robots" => {
            let what = "its robots.txt forbids it; if it is yours or its owner agrees";
            return setting(what, "fetch.respect_robots=false");
        }
        // As a rule that is what became of the whole host.
        "robots_unreachable" => match detail.strip_prefix("robots.txt: ").and_then(|why| why.split_once(": ")) {
            Some((reason @ ("dns" | "connect" | "tls" | "timeout"), why)) => return advice(url, reason, why),
            _ => "its robots.txt cannot be read, which forbids everything for now: try it later",
        },
        "dns" => "check the spelling of the name, and that this machine can look names up",
        "connect" => "check address and port, and that the server runs and can be reached from here",
        "tls" => "check that it speaks TLS at this address (http:// or https://?), and its certificate",
        "timeout" => {
            "it did not answer in time: try it later, or give it longer (fetch.read_timeout_ms, fetch.total_timeout_ms)"
        }
        "http_401" | "http_403" | "http_407" | "http_451" => {
            "the server refuses it: see whether a browser without a login may see it"
        }
        "http_404" | "http_410" => "nothing is there: check the spelling of the address",
        "http_429" => "it wants to be asked less often: try it later, with --set fetch.delay_ms=2000",
        "not_html" => "name a page, a sitemap or a feed, which lead to pictures",
        "too_large" | "too_many_pixels" | "too_much_memory" | "url_too_long" | "too_small" => {
            return raised(reason, detail);
        }
        "redirect_loop" | "too_many_redirects" | "bad_redirect" => {
            "its redirects lead nowhere: name the address where a browser ends"
        }
        "userinfo" => "write the address without user name and password",
        "bad_scheme" => "only http:// and https:// are asked",
        "unsupported_format" | "svg" => "this version decodes JPEG, PNG, GIF, WebP, BMP and TIFF",
        "quarantined" => "the ledger could not take it: faceflow explain URL says why",
        "folder_not_named" | "forbidden_file" => "name its folder with faceflow stream --images",
        _ if reason.starts_with("http_5") => "the server has a fault of its own: try it later",
        _ if reason.starts_with("engine") => "the detector failed: faceflow doctor checks it",
        _ if reason.starts_with("store") => "the object store failed: faceflow doctor checks it",
        _ => return None,
    };
    Some(said.to_owned())
}

/// For what a limit refused: the setting that raises it.
fn raised(reason: &str, detail: &str) -> Option<String> {
    let named = detail.rsplit_once('(').and_then(|(_, key)| key.strip_suffix(')'));
    let key = match reason {
        "too_small" => return Some("pictures of at least so many pixels are taken: image.min_side_px".to_owned()),
        "too_many_pixels" => "image.pixels_max",
        "too_much_memory" => "image.decode_memory_max_bytes",
        "url_too_long" => "fetch.url_max_bytes",
        _ => named?,
    };
    Some(format!("if it is wanted all the same, raise {key}"))
}

/// The smallest network that the address in a refusal is usually said to be of: all of loopback, else the address alone. None for
/// link-local addresses, where clouds keep their secrets.
fn network(url: &str, detail: &str) -> Option<String> {
    let named = || detail.split(['(', ')']).nth(1)?.parse::<IpAddr>().ok();
    let leading = || detail.split(' ').next()?.parse::<IpAddr>().ok();
    let literal = match Url::parse(url).ok().as_ref().and_then(Url::host) {
        Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
        _ => None,
    };
    match named().or_else(leading).or(literal).map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) if ip.is_loopback() => Some("127.0.0.0/8".to_owned()),
        Some(IpAddr::V4(ip)) => Some(format!("{ip}/32")).filter(|_| !ip.is_link_local()),
        Some(IpAddr::V6(ip)) => Some(format!("{ip}/128")).filter(|_| !ip.is_unicast_link_local()),
        None => Some("NETWORK".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_guarded_comes_with_the_network_to_allow() {
        for (url, detail, network) in [
            ("http://127.0.40.7:8000/", "127.0.40.7 is not a public address", "127.0.0.0/8"),
            ("http://localhost/", "localhost (127.0.0.1) is not a public address", "127.0.0.0/8"),
            ("http://nas.example/", "nas.example (10.1.2.3) is not a public address", "10.1.2.3/32"),
            ("http://[::1]/", "::1 is not a public address", "::1/128"),
            ("http://[::ffff:127.0.0.1]/", "::ffff:7f00:1 is not a public address", "127.0.0.0/8"),
            ("http://a.example/", "moved to nowhere", "NETWORK"),
        ] {
            let said = advice(url, "private_address", detail).expect("something can be done");
            assert!(said.ends_with(&format!("--set fetch.allow_networks={network}")), "{url}: {said}");
        }
        let elsewhere = advice("http://203.0.113.5/", "private_address", "10.0.0.5 is not a public address");
        assert!(elsewhere.is_some_and(|said| said.ends_with("10.0.0.5/32")), "it was led there");
        let secret = "169.254.169.254 is not a public address";
        assert_eq!(advice("http://a.example/", "private_address", secret), None);
    }

    #[test]
    fn a_limit_is_named_by_its_setting() {
        let detail = "9000000 bytes, allowed are 8388608 (fetch.page_max_bytes)";
        assert!(
            advice("http://a.example/", "too_large", detail).is_some_and(|said| said.contains("fetch.page_max_bytes"))
        );
        assert!(advice("http://a.example:81/", "port", "").is_some_and(|said| said.ends_with("fetch.ports=80,443,81")));
        let led = advice("https://a.example/", "port", "port 8443 is not in fetch.ports");
        assert!(led.is_some_and(|said| said.ends_with("fetch.ports=80,443,8443")));
        assert!(advice("http://a.example/", "opt_out:noai", "").is_some_and(|said| said.contains("says noai")));
        assert_eq!(advice("http://a.example/", "unknown", ""), None);
    }
}
