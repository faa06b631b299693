use std::collections::HashMap;

use faceflow_core::testing::require;

use super::*;

fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL")
}

fn normalised(text: &str) -> Option<String> {
    normalise(Url::parse(text).ok()?).map(String::from)
}

/// A file of the test data, or `None`, saying so.
fn suite(name: &str) -> Option<String> {
    let file = require::testdata(&format!("suites/urls/{name}"))?;
    Some(std::fs::read_to_string(file).expect("reads"))
}

/// The rows of a CSV file with comments: fields may be quoted, and quotes doubled inside.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(fields).collect()
}

fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted, mut start) = (vec![], false, 0);
    for (at, char) in line.char_indices().chain([(line.len(), ',')]) {
        quoted ^= char == '"';
        if char == ',' && (!quoted || at == line.len()) {
            let field = line[start..at].trim_matches(' ');
            let bare = field.strip_prefix('"').and_then(|field| field.strip_suffix('"'));
            fields.push(bare.map_or(field.to_owned(), |bare| bare.replace("\"\"", "\"")));
            start = (at + 1).min(line.len());
        }
    }
    fields
}

#[test]
fn pages_have_one_address() {
    for (text, expected) in [
        ("HTTP://User.Example:80/a/../b?#frag", "http://user.example/b"),
        ("https://a.example:443/?utm_source=x&b=2&a=1&UTM_medium=y", "https://a.example/?b=2&a=1"),
        ("https://a.example/?fbclid=1", "https://a.example/"),
        ("https://a.example/p?gclid&x", "https://a.example/p?x"),
        ("https://a.example/p?a=1&&b", "https://a.example/p?a=1&&b"),
        ("https://a.example/%7ejoe/%2f%c3%a9%", "https://a.example/~joe/%2F%C3%A9%"),
        ("https://a.example./x", "https://a.example/x"),
    ] {
        assert_eq!(normalised(text).as_deref(), Some(expected), "{text}");
    }
    for text in
        ["ftp://a.example/", "https://joe@a.example/", "https://:x@a.example/", "data:text/html,x", "mailto:a@b.c"]
    {
        assert_eq!(normalised(text), None, "{text}");
    }
    let picture = canonical(url("https://a.example/p.jpg?utm_source=x&v=%7e#top")).map(String::from);
    assert_eq!(picture.as_deref(), Some("https://a.example/p.jpg?utm_source=x&v=~"), "a signature may cover the query");
}

#[test]
fn sites_are_hosts_and_ports() {
    for (text, expected) in [
        ("https://www.a.example/x", "a.example"),
        ("http://A.example:80/", "a.example"),
        ("https://a.example:8443/", "a.example:8443"),
        ("https://blog.a.example/", "blog.a.example"),
        ("http://www.com/", "www.com"),
        ("http://a.example./", "a.example"),
        ("http://127.0.0.1:8000/", "127.0.0.1:8000"),
        ("http://[::1]/", "[::1]"),
    ] {
        assert_eq!(site_of(&url(text)), expected, "{text}");
    }
}

#[test]
fn a_line_of_a_site_list_may_leave_out_the_scheme() {
    for (text, expected) in [
        (" example.org ", "https://example.org/"),
        ("//example.org/x", "https://example.org/x"),
        ("example.org:8080/shop?b=1&utm_id=3#top", "https://example.org:8080/shop?b=1"),
        ("http://Bücher.example", "http://xn--bcher-kva.example/"),
        ("localhost:8000", "http://localhost:8000/"),
        ("127.0.0.1:8000/a", "http://127.0.0.1:8000/a"),
        ("[::1]:8000", "http://[::1]:8000/"),
        ("https://127.0.0.1/", "https://127.0.0.1/"),
    ] {
        assert_eq!(parse_site(text).map(String::from), Ok(expected.to_owned()), "{text}");
    }
    for (text, says) in [
        ("", "empty"),
        ("ftp://example.org", "\"ftp\""),
        ("file:///etc/passwd", "\"file\""),
        ("javascript:10000", "\"javascript\""),
        ("mailto:joe@example.org", "\"mailto\""),
        ("https://joe:pw@example.org", "user name"),
        ("joe@example.org", "user name"),
        ("two words.example", "not an address"),
        ("http://", "not an address"),
    ] {
        let error = parse_site(text).expect_err(text);
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn joining_gives_web_addresses_only() {
    let base = url("https://a.example/d/p.html?q#f");
    let joined = |text| join(&base, text).map(String::from);
    for (text, expected) in [
        ("x.jpg", "https://a.example/d/x.jpg"),
        ("\n /x y.jpg\t", "https://a.example/x%20y.jpg"),
        ("a\nb\tc.jpg", "https://a.example/d/abc.jpg"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("HTTP://B.example", "http://b.example/"),
        ("..\\x", "https://a.example/x"),
        ("\u{a0}x\u{a0}", "https://a.example/d/x"),
    ] {
        assert_eq!(joined(text).as_deref(), Some(expected), "{text:?}");
    }
    for text in
        ["javascript:alert(1)", "mailto:a@b.c", "data:image/gif,x", "blob:https://a/x", "file:///x", "http://[bad"]
    {
        assert_eq!(joined(text), None, "{text:?}");
    }
    let russian = join_encoded(&base, "?q=\u{43f}", encoding_rs::WINDOWS_1251).map(String::from);
    assert_eq!(russian.as_deref(), Some("https://a.example/d/p.html?q=%EF"));
}

/// Where the suite normalises further than keeps the resource: what we make of its rows, by reason.
const DEVIATIONS: [(&str, &[(&str, &str)]); 5] = [
    (
        "only http and https are crawled, a URL needs a host, and a scheme is added in site lists alone",
        &[
            ("file:///foo/bar.txt", ""),
            ("ftp:/", ""),
            ("http:////", ""),
            ("http:///////", ""),
            ("foo.com/index.html", ""),
            ("ftp://foo.com/index.html", ""),
            ("file:/path/index.html", ""),
            ("file:/var/www/html/////./bar/index.html", ""),
            ("file:/var/www/html/foo/../bar/index.html", ""),
        ],
    ),
    (
        "an empty path segment is a segment",
        &[
            ("http://foo.com//aa/bb/foo.html", "http://foo.com//aa/bb/foo.html"),
            ("http://foo.com/aa//bb/foo.html", "http://foo.com/aa//bb/foo.html"),
            ("http://foo.com/aa/bb//foo.html", "http://foo.com/aa/bb//foo.html"),
            ("http://foo.com//aa//bb//foo.html", "http://foo.com//aa//bb//foo.html"),
            ("http://foo.com////aa////bb//foo.html", "http://foo.com////aa////bb//foo.html"),
            ("http://foo.com////aa////bb////foo.html", "http://foo.com////aa////bb////foo.html"),
        ],
    ),
    (
        "the query percent-encode set of the URL standard leaves these alone",
        &[
            ("http://x.com/?x[y]=1", "http://x.com/?x[y]=1"),
            ("http://www.example.com/a/c/../b/search?q=foobar^", "http://www.example.com/a/b/search?q=foobar^"),
            ("http://www.example.com/a/c/../b/search?q=foobar`", "http://www.example.com/a/b/search?q=foobar`"),
            ("http://www.example.com/a/c/../b/search?q=foobar|", "http://www.example.com/a/b/search?q=foobar|"),
        ],
    ),
    (
        "a lone percent sign stays, as in the URL standard",
        &[
            (
                "https://www.last.fm/music/Prefuse+73/_/90%+of+My+Mind+Is+With+You",
                "https://www.last.fm/music/Prefuse+73/_/90%+of+My+Mind+Is+With+You",
            ),
            ("http://www.example.com/a/c/../b/search?q=foobar%", "http://www.example.com/a/b/search?q=foobar%"),
            ("http://www.example.com/p%zz%77%v", "http://www.example.com/p%zzw%v"),
            ("http://www.example.com/search?q=foobar%", "http://www.example.com/search?q=foobar%"),
            ("http://www.example.com/search?q=foobar%2", "http://www.example.com/search?q=foobar%2"),
        ],
    ),
    (
        "the order of parameters and their empty values may matter to the server",
        &[
            ("http://example.com/?b=1&a=1", "http://example.com/?b=1&a=1"),
            ("http://foo.com/foo.html?b=1&a=1", "http://foo.com/foo.html?b=1&a=1"),
            ("http://foo.com/index?b=2&a=1", "http://foo.com/index?b=2&a=1"),
            ("http://foo.com/index?b=2&a=1#c", "http://foo.com/index?b=2&a=1"),
            ("http://foo.com/index?a=1&b=", "http://foo.com/index?a=1&b="),
            ("http://foo.com/index?b&a=1", "http://foo.com/index?b&a=1"),
            ("http://foo.com/index?b=&a=1", "http://foo.com/index?b=&a=1"),
            ("http://foo.com/index?b=1&a=1&", "http://foo.com/index?b=1&a=1&"),
            ("http://foo.com/index?&b=1&a=1", "http://foo.com/index?&b=1&a=1"),
            ("http://foo.com/index?&=1&a=1", "http://foo.com/index?&=1&a=1"),
            ("http://foo.com/index?=1&b=1&a=1", "http://foo.com/index?=1&b=1&a=1"),
        ],
    ),
];

#[test]
fn crawler_suite_of_normalised_addresses() {
    let Some(text) = suite("weirdToNormalizedUrls.csv") else { return };
    let rows = rows(&text);
    let deviations: HashMap<&str, &str> = DEVIATIONS.iter().flat_map(|(_, rows)| *rows).copied().collect();
    assert!(deviations.keys().all(|input| rows.iter().any(|row| row[0] == *input)), "every deviation is of a row");
    for row in &rows {
        let expected = deviations.get(row[0].as_str()).copied().unwrap_or(&row[1]);
        assert_eq!(normalised(&row[0]).unwrap_or_default(), expected, "{}", row[0]);
    }
}

#[test]
fn crawler_suite_of_resolved_addresses() {
    let Some(text) = suite("url-resolve.csv") else { return };
    for row in rows(&text) {
        let base = Url::parse(&row[1]).unwrap_or_else(|_| url("about:blank"));
        let expected = Url::parse(&row[2]).ok().filter(is_web);
        assert_eq!(join(&base, &row[0]), expected, "{row:?}");
    }
    let Some(text) = suite("invalidUrls.csv") else { return };
    for row in rows(&text) {
        assert!(parse_site(&row[0]).is_err(), "{row:?}");
    }
}

/// Where a case is not http(s) in the end, the miner has no use for it; all others must come out as the standard says.
#[test]
fn web_platform_tests_of_urls() {
    let Some(text) = suite("wpt-urltestdata.json") else { return };
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let (mut agreed, mut other) = (0, vec![]);
    for case in cases.iter().filter(|case| case.is_object()) {
        let input = case["input"].as_str().expect("an input");
        let Ok(base) = Url::parse(case["base"].as_str().unwrap_or("about:blank")) else { continue };
        let href = case["href"].as_str().filter(|href| href.starts_with("http://") || href.starts_with("https://"));
        let ours = join(&base, input);
        match ours.as_ref().map(Url::as_str) == href {
            true => agreed += 1,
            false => other.push(format!("{input:?} on {base}: {ours:?}, not {href:?}")),
        }
    }
    // Names that no domain name server could hold: their Punycode does not decode.
    other.retain(|case| !case.to_ascii_lowercase().contains("xn--pokxncvks") && !case.contains("https://xn--/"));
    assert!(agreed > 800 && other.is_empty(), "{agreed} agree, but {other:#?}");
}

proptest::proptest! {
    #[test]
    fn normalising_is_idempotent_and_keeps_the_promise(text in "(https?://)?[a-z.@:%\\\\/?#&=A-F0-9\u{e9}\u{a0} ]{0,40}") {
        let base = url("https://a.example/d/p");
        if let Some(once) = join(&base, &text).and_then(normalise) {
            proptest::prop_assert!(is_web(&once) && !has_credentials(&once) && once.fragment().is_none());
            proptest::prop_assert_eq!(normalise(once.clone()), Some(once.clone()));
            proptest::prop_assert_eq!(Url::parse(once.as_str()), Ok(once));
        }
        let _ = parse_site(&text);
    }
}
