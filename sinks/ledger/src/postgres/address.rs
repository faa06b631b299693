//! The address of a state on a server, and a name for it that holds no password.

use std::fmt;

/// What stands for a password wherever an address is shown.
const HIDDEN: &str = "***";

/// The address of a state on a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// With the password.
    pub(super) url: String,
    /// Without it.
    name: String,
}

impl Address {
    /// Whether `text` is an address of this kind, or was meant to be one and may hold a password.
    pub(crate) fn is_one(text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        text.starts_with("postgres:") || text.starts_with("postgresql:") || text.contains("password=")
    }

    /// The address `url`. A password that it does not hold is taken from `PGPASSWORD` when it connects.
    pub(crate) fn new(url: &str) -> Self {
        // Schemes are case-insensitive (RFC 3986, section 3.1).
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(&scheme[..], "postgres" | "postgresql") {
            return Self { url: String::new(), name: "an address that begins otherwise than postgres://".to_owned() };
        }
        let url = format!("{scheme}://{rest}");
        Self { name: redacted(&url), url }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, out)
    }
}

/// The URL with every password hidden, also where it is no valid one: messages are about those too.
fn redacted(url: &str) -> String {
    let (place, query) = url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
    let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
    // The last @ ends the password, whatever an unescaped one holds.
    let shown = match rest.rsplit_once('@') {
        Some((login, host)) => {
            let login = login.split_once(':').map_or(login.to_owned(), |(user, _)| format!("{user}:{HIDDEN}"));
            format!("{scheme}://{login}@{host}")
        }
        None => place.to_owned(),
    };
    // A password with an unescaped ? runs into what looks like the query.
    let Some(query) = query.filter(|query| !query.contains('@') || rest.contains('@')) else {
        return match query {
            Some(query) => redacted_across(scheme, rest, query),
            None => shown,
        };
    };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) if key.to_ascii_lowercase().contains("pass") => format!("{key}={HIDDEN}"),
        _ => pair.to_owned(),
    });
    format!("{shown}?{}", pairs.collect::<Vec<_>>().join("&"))
}

fn redacted_across(scheme: &str, rest: &str, query: &str) -> String {
    let user = rest.split(':').next().unwrap_or_default();
    let host = query.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{user}:{HIDDEN}@{host}")
}
