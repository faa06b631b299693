//! What one robots.txt says to us (RFC 9309): which paths are barred and how slowly to go.
//!
//! The matching of groups and paths is the crate robotxt's; this adds what it leaves out: the crawl delay, files in
//! UTF-16, and names with a version. Promise: any bytes at all give rules, in time linear in their number.

use std::borrow::Cow;
use std::time::Duration;

use robotxt::Robots;
use url::{Position, Url};

/// The rules of one robots.txt that apply to us.
#[derive(Debug)]
pub struct RobotsRules {
    robots: Robots,
    /// The time its `Crawl-delay` asks for between two requests; zero where it asks for none.
    pub delay: Duration,
}

/// Stands in for `Crawl-delay` in the second reading; no path begins like this by accident.
const DELAY_MARK: &str = "/.faceflow-crawl-delay/";

impl RobotsRules {
    /// Everything may be asked: the rules of a host without a robots.txt.
    pub fn none() -> Self {
        Self { robots: Robots::allow_all(), delay: Duration::ZERO }
    }

    /// Reads a robots.txt for the crawler called `agent` (a bare product token).
    ///
    /// "Other records", as RFC 9309 calls `Crawl-delay` and the like, must not end a group's list of names (section
    /// 2.2.4), so the rules are read from the text without them. Their own groups are the same ones, so the delay is read
    /// by the same parser in a second reading where each delay line stands as a rule that is then found again. Of several
    /// delays the longest counts.
    pub fn parse(body: &[u8], agent: &str) -> Self {
        let text = decoded(body);
        let lines: Vec<Line<'_>> = text.split(['\n', '\r', '\0']).map(Line::of).collect();
        let plain = joined(lines.iter().filter_map(Line::plain));
        let robots = Robots::parse(plain.as_bytes(), agent);
        if !lines.iter().any(|line| matches!(line, Line::Delay(_))) {
            return Self { robots, delay: Duration::ZERO };
        }
        let marked = Robots::parse(joined(lines.iter().filter_map(Line::marked)).as_bytes(), agent);
        let delays = marked.rules().iter().filter_map(|rule| rule.pattern().strip_prefix(DELAY_MARK));
        Self { robots, delay: delays.filter_map(delay).max().unwrap_or_default() }
    }

    /// What the rules hold in memory, about, in bytes.
    pub fn bytes(&self) -> usize {
        let rules = self.robots.rules();
        std::mem::size_of_val(rules) + rules.iter().map(|rule| rule.pattern().len() + 16).sum::<usize>()
    }

    /// Whether the URL may be asked. `/robots.txt` itself always may.
    pub fn allow(&self, url: &Url) -> bool {
        if url.path() == "/robots.txt" {
            return true;
        }
        let path = escaped_path(&url[Position::BeforePath..Position::AfterQuery]);
        // The rule that wins stands first.
        self.robots.rules().iter().find(|rule| matches(rule.pattern(), &path)).is_none_or(|rule| rule.is_allow())
    }
}

/// Path and query as rules are written: with `*`, `$` and escapes of what need not be escaped in one spelling (RFC 9309, 2.2.2 and
/// 2.2.3). In a rule `*` and `$` have a meaning and `%2A` and `%24` stand for the characters, so an address has the latter.
fn escaped_path(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        let escaped = match (byte, after) {
            (b'%', [high, low, after @ ..]) => hex(*high, *low).map(|byte| (byte, after)),
            _ => None,
        };
        let byte = escaped.map_or(*byte, |(byte, after)| {
            rest = after;
            byte
        });
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let plain = byte.is_ascii_graphic() && !b"\"<>`{}*$".contains(&byte);
        match unreserved || (plain && escaped.is_none()) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// Whether a pattern in the parser's spelling matches: `*` is any text, a final `$` the end, and everything else itself. A `$` inside
/// is the character, which stands escaped in an address.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, anchored) = pattern.strip_suffix('$').map_or((pattern, false), |pattern| (pattern, true));
    let pattern = if pattern.contains('$') { Cow::Owned(pattern.replace('$', "%24")) } else { Cow::Borrowed(pattern) };
    let mut parts = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return !anchored || rest.is_empty() };
    // The first place of each part leaves most for the next.
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    if anchored { rest.ends_with(last) } else { rest.contains(last) }
}

/// RFC 9309 asks for UTF-8; a byte order mark that says otherwise is believed.
fn decoded(body: &[u8]) -> Cow<'_, str> {
    match encoding_rs::Encoding::for_bom(body) {
        Some((encoding, mark)) => encoding.decode_without_bom_handling(&body[mark..]).0,
        None => String::from_utf8_lossy(body),
    }
}

/// A line, as far as this module reads it.
enum Line<'a> {
    Delay(&'a str),
    Sitemap,
    Other(&'a str),
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        let Some((key, value)) = line.split_once(':') else { return Self::Other(line) };
        let is = |names: [&str; 3]| names.iter().any(|name| key.trim().eq_ignore_ascii_case(name));
        if is(["crawl-delay", "crawldelay", "crawl delay"]) {
            return Self::Delay(value.split('#').next().unwrap_or_default().trim());
        }
        if is(["sitemap", "site-map", "site map"]) {
            return Self::Sitemap;
        }
        // `User-agent: faceflow/1.0` means faceflow: a product token has no version.
        let named = is(["user-agent", "useragent", "user agent"]);
        let end = value.find('/').filter(|_| named).map_or(line.len(), |slash| line.len() - value.len() + slash);
        Self::Other(&line[..end])
    }

    /// The line in a text without delays and sitemaps.
    fn plain(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Other(line) => Some(Cow::Borrowed(line)),
            Self::Delay(_) | Self::Sitemap => None,
        }
    }

    /// The line in a text where delays stand as rules.
    fn marked(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Delay(value) => Some(Cow::Owned(format!("allow: {DELAY_MARK}{value}"))),
            Self::Other(_) | Self::Sitemap => self.plain(),
        }
    }
}

fn joined<'a>(lines: impl Iterator<Item = Cow<'a, str>>) -> String {
    lines.fold(String::new(), |mut text, line| {
        text.push_str(&line);
        text.push('\n');
        text
    })
}

/// Seconds, possibly with a fraction.
fn delay(value: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(value.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use faceflow_core::testing::require;

    use super::*;

    /// The robots.txt suite of the test data, if it is here.
    fn suite(name: &str) -> Option<Vec<u8>> {
        let file = require::testdata(&format!("suites/robots/{name}"))?;
        Some(std::fs::read(file).expect("reads"))
    }

    /// Which of the paths are allowed to an agent.
    fn allowed<'a>(body: &[u8], agent: &str, paths: &'a str) -> Vec<&'a str> {
        let rules = RobotsRules::parse(body, agent);
        let url = |path: &str| Url::parse(&format!("http://a.example{path}")).expect("a URL");
        paths.split(' ').filter(|path| rules.allow(&url(path))).collect()
    }

    fn delay_ms(body: &[u8], agent: &str) -> u128 {
        RobotsRules::parse(body, agent).delay.as_millis()
    }

    #[test]
    fn rules_hold_what_their_patterns_hold() {
        let bytes = |rules: &str| RobotsRules::parse(format!("user-agent: *\n{rules}").as_bytes(), "faceflow").bytes();
        let (short, long) = (bytes("disallow: /ab\n"), bytes("disallow: /abcdefghijkl\n"));
        assert_eq!(RobotsRules::none().bytes(), 0);
        assert!(short > 16 && long == short + 10, "{short} and {long}");
        assert_eq!(bytes("disallow: /ab\ndisallow: /cd\n"), 2 * short);
    }

    #[test]
    fn the_longest_match_wins_and_a_tie_allows() {
        let body =
            b"User-agent: *\nDisallow: /a\nAllow: /a/b\nDisallow: /c\nAllow: /c\nDisallow: /*.gif$\nDisallow: /%7Ejoe";
        let paths = "/ /a /a/x /a/b /c /x.gif /x.gif?y /~joe/ /%7ejoe/ /A /robots.txt";
        assert_eq!(allowed(body, "faceflow", paths), ["/", "/a/b", "/c", "/x.gif?y", "/A", "/robots.txt"]);
        assert_eq!(allowed(b"User-agent: *\nDisallow: /", "faceflow", "/ /robots.txt"), ["/robots.txt"]);
        assert_eq!(allowed(b"", "faceflow", "/ /x"), ["/", "/x"]);
    }

    /// RFC 9309, 2.2.2 and 2.2.3: each rule alone, what it bars and what not.
    #[test]
    fn rules_and_addresses_are_compared_in_one_spelling() {
        for (rule, barred, open) in [
            ("/a-%2A.html", "/a-*.html /a-%2a.html", "/a-x.html /a-.html"),
            ("/foo-%24", "/foo-$ /foo-%24x /foo-$/y", "/foo- /foo-x"),
            ("/foo-%24$", "/foo-$", "/foo-$x /foo-"),
            ("/a$b", "/a$b /a%24bc", "/a /ab"),
            ("/a*$b", "/a$b /axx$bc", "/a /ab /axb"),
            ("/$", "/", "/x /$"),
            ("/*%2Fhidden", "/list%2Fhidden /a/b%2fhidden", "/list/hidden"),
            ("/list/hidden", "/list/hidden", "/list%2Fhidden"),
            ("/\u{442}\u{430}", "/\u{442}\u{430}/1 /%D1%82%D0%B0 /%d1%82%d0%b0x", "/%D1%82"),
            ("/%e3%83%84/", "/\u{30c4}/2 /%E3%83%84/", "/\u{30c4}"),
            ("/%7Ejoe", "/~joe /%7ejoe", "/joe"),
            ("/~joe", "/~joe /%7Ejoe", "/joe"),
            ("/%41", "/A /%41b", "/a"),
            ("/*?sort=", "/l?sort=up /?sort=", "/l?x=1 /sort="),
            ("/*?*a%2Ab", "/l?q=a*b", "/l?q=aab"),
            ("/*.bak$", "/old.bak /x/.bak", "/old.bakery /old.bak?x"),
            ("/**x", "/x /ax", "/a"),
            ("/a b", "/a%20b", "/ab"),
        ] {
            let body = format!("User-agent: *\nDisallow: {rule}\n");
            assert_eq!(allowed(body.as_bytes(), "faceflow", barred), [] as [&str; 0], "{rule}");
            assert_eq!(allowed(body.as_bytes(), "faceflow", open), open.split(' ').collect::<Vec<_>>(), "{rule}");
        }
        let body = "User-agent: *\nDisallow: /a-%2A\nAllow: /a-*b\n";
        assert_eq!(allowed(body.as_bytes(), "faceflow", "/a-*b /a-*c /a-xb"), ["/a-xb"], "the longer rule wins");
    }

    #[test]
    fn our_own_group_replaces_the_one_for_everybody() {
        let body = b"User-agent: *\nDisallow: /\nUser-agent: FaceFlow/2.1 # us\nDisallow: /no\n";
        assert_eq!(allowed(body, "faceflow", "/ /no"), ["/"]);
        assert_eq!(allowed(body, "facef", "/ /no"), [] as [&str; 0], "a prefix of our name is not our name");
    }

    #[test]
    fn delays_belong_to_groups() {
        assert_eq!(delay_ms(b"User-agent: *\nCrawl-delay: 2.5\n", "faceflow"), 2_500);
        assert_eq!(delay_ms(b"User-agent: faceflow\nDisallow:\nUser-agent: *\nCrawl-delay: 9\n", "faceflow"), 0);
        assert_eq!(
            delay_ms(b"User-agent: a\nUser-agent: faceflow\nDisallow: /x\nCRAWL-DELAY : 3 # s", "faceflow"),
            3_000
        );
        assert_eq!(delay_ms(b"User-agent: *\nCrawl-delay: 1\n\nUser-agent: *\nCrawl-delay: 4", "faceflow"), 4_000);
        for nonsense in ["-1", "soon", "", "nan", "1e400"] {
            assert_eq!(
                delay_ms(format!("User-agent: *\nCrawl-delay: {nonsense}").as_bytes(), "faceflow"),
                0,
                "{nonsense}"
            );
        }
    }

    /// RFC 9309, 2.2.4: another record, here a crawl delay, does not end the list of names of a group.
    #[test]
    fn suite_crawl_delay_does_not_interfere() {
        let Some(body) = suite("crawl-delay-group-merging.txt") else { return };
        // "mybot" and "yourbot" share the group of /private/; "yourbot" has /login/ besides; merging is by name (2.2.1).
        assert_eq!(allowed(&body, "mybot", "/private/x /login/ /x"), ["/login/", "/x"]);
        assert_eq!(allowed(&body, "yourbot", "/private/x /login/ /x"), ["/x"]);
        assert_eq!(allowed(&body, "faceflow", "/private/x /login/ /x"), ["/private/x", "/login/", "/x"]);
        // A delay is for the names that stand before it.
        assert_eq!((delay_ms(&body, "mybot"), delay_ms(&body, "faceflow")), (10_000, 30_000));
        assert_eq!(delay_ms(&body, "yourbot"), 0);
    }

    /// RFC 9309, 2.2.1 and 2.2.4: unknown records are skipped, groups of one name are merged.
    #[test]
    fn suite_extensions_do_not_interfere() {
        let Some(body) = suite("extensions-group-merging.txt") else { return };
        assert_eq!(allowed(&body, "faceflow", "/llms.txt /x"), ["/llms.txt"], "both groups of * together");
        // Request-rate and Clean-Param end no list of names: mybot and yourbot share both groups.
        assert_eq!(allowed(&body, "mybot", "/private/ /login/ /x"), ["/x"]);
        assert_eq!(allowed(&body, "yourbot", "/private/ /login/ /x"), ["/x"]);
        let Some(body) = suite("extension-robots.txt") else { return };
        assert_eq!(allowed(&body, "mybot", "/private/ /secret/"), ["/secret/"], "No-index is not Disallow");
        assert_eq!(allowed(&body, "faceflow", "/private/ /admin/"), ["/private/", "/admin/"]);
        let Some(body) = suite("extended-standard-robots.txt") else { return };
        for bot in ["bot1", "bot2", "bot3", "bot4", "faceflow"] {
            assert_eq!(allowed(&body, bot, "/x"), ["/x"], "an empty Disallow bars nothing (2.2.2)");
        }
    }

    /// The examples of RFC 9309 itself, sections 5.1, 5.2 and 2.2.1.
    #[test]
    fn suite_examples_of_the_rfc() {
        let Some(body) = suite("rfc9309-example-simple-robots.txt") else { return };
        let paths = "/a.gif /example/page.html /example/allowed.gif /publications/ /";
        assert_eq!(allowed(&body, "faceflow", paths), ["/publications/", "/"]);
        assert_eq!(allowed(&body, "foobot", paths), ["/example/page.html", "/example/allowed.gif"]);
        assert_eq!(allowed(&body, "bazbot", paths), ["/a.gif", "/example/allowed.gif", "/publications/", "/"]);
        assert_eq!(allowed(&body, "quxbot", paths).len(), 5, "a group without rules allows everything");
        let Some(body) = suite("rfc9309-example-longest-match-robots.txt") else { return };
        let paths = "/example/page/ /example/page/disallowed.gif";
        assert_eq!(allowed(&body, "foobot", paths), ["/example/page/"]);
        let Some(body) = suite("rfc9309-example-rule-group-merging.txt") else { return };
        assert_eq!(allowed(&body, "examplebot", "/foo /bar /baz /qux"), ["/qux"], "names match in any case");
        assert_eq!(allowed(&body, "bazbot", "/foo /bar /baz"), ["/foo", "/bar"]);
    }

    /// RFC 9309, 2.2.1 and 2.2.2: merging, the longest match, and Allow on a tie.
    #[test]
    fn suite_merging_and_precedence() {
        let Some(body) = suite("merge-rules.txt") else { return };
        assert_eq!(allowed(&body, "wget", "/foo/bar /tmp/bar /ckh/bar"), ["/foo/bar", "/ckh/bar"], "the tie allows");
        assert_eq!(allowed(&body, "faceflow", "/foo/bar /tmp/bar /ckh/bar"), ["/ckh/bar"]);
        let Some(body) = suite("precedence-of-rules.txt") else { return };
        assert_eq!(allowed(&body, "wget", "/foo /index.html /other"), ["/foo", "/index.html"], "/* is longer than /");
        assert_eq!(allowed(&body, "testy", "/foo /foo/bar /foo/baz"), ["/foo/bar"]);
        let Some(body) = suite("wildcards.txt") else { return };
        let paths = "/wishlist/x /wishlist/universal-x /gp/registry/wishlist/a/reserve /gp/cart /x";
        assert_eq!(allowed(&body, "faceflow", paths), ["/wishlist/universal-x", "/x"]);
    }

    /// A byte order mark is skipped; one of UTF-16 is believed, which bars what the site meant to bar.
    #[test]
    fn suite_byte_order_marks() {
        for name in ["robots-with-utf8-bom.txt", "robots-with-utf16be-bom.txt", "robots-with-utf16le-bom.txt"] {
            let Some(body) = suite(name) else { return };
            let paths = "/login.aspx /a/output/print /profiles /x";
            assert_eq!(allowed(&body, "faceflow", paths), ["/x"], "{name}");
        }
    }

    /// RFC 9309, 2.2: parsers may forgive; what is forgiven here is read as the site meant it.
    #[test]
    fn suite_broken_files() {
        let Some(body) = suite("format-errors-robots.txt") else { return };
        assert_eq!(
            allowed(&body, "bot1", "/whitespace-before-colon/ /x"),
            ["/x"],
            "blanks before a colon are forgiven"
        );
        assert_eq!(allowed(&body, "bot3", "/whitespace-before-colon /x"), ["/whitespace-before-colon"]);
        let Some(body) = suite("directive-typos-robots.txt") else { return };
        assert_eq!(allowed(&body, "bot1", "/dissalow/ /x"), ["/x"]);
        assert_eq!(allowed(&body, "bot2", "/useragent/"), [] as [&str; 0]);
        let Some(body) = suite("malformed-path.txt") else { return };
        let path = "/wiki/Wikipedia_talk:Mediation_Committee/ /wiki/x";
        assert_eq!(allowed(&body, "faceflow", path), ["/wiki/x"], "a broken escape spoils its own rule only");
        let Some(body) = suite("dos-line-endings.txt") else { return };
        assert_eq!((delay_ms(&body, "faceflow"), allowed(&body, "faceflow", "/x")), (1_000, vec!["/x"]));
        let Some(body) = suite("relative-sitemap-robots.txt") else { return };
        assert_eq!(allowed(&body, "faceflow", "/cache/ /files/ /x"), ["/x"], "the last line needs no end");
    }

    #[test]
    fn suite_many_agents() {
        let Some(body) = suite("many-user-agents.txt") else { return };
        assert_eq!(allowed(&body, "WebBandit", "/x"), [] as [&str; 0], "one of hundreds of names");
        assert_eq!(allowed(&body, "faceflow", "/x"), ["/x"]);
    }

    #[test]
    fn hostile_files_are_read_in_no_time() {
        let agents: String = (0..10_000).map(|n| format!("User-agent: bot{n}\n")).collect();
        assert_eq!(allowed(format!("{agents}User-agent: faceflow\nDisallow: /").as_bytes(), "faceflow", "/x").len(), 0);
        assert_eq!(allowed(format!("{agents}Disallow: /").as_bytes(), "faceflow", "/x"), ["/x"]);
        let stars = format!("User-agent: *\nDisallow: /{}b$", "*a".repeat(200_000));
        assert_eq!(allowed(stars.as_bytes(), "faceflow", &format!("/{}", "a".repeat(8_000))).len(), 1);
        let noise: Vec<u8> = (0..500_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(allowed(&noise, "faceflow", "/x"), ["/x"]);
    }
}
