//! Opt-outs: the words with which a site keeps its pictures out of collections such as ours.
//!
//! They come as `X-Robots-Tag` headers and robots meta tags. Both are lists of words for everybody, or for one crawler
//! after its name; a word with a value of its own (`max-snippet:5`) hides none of the words beside it. Promise: a word of
//! the settings that is addressed to us or to everybody is found.

use faceflow_core::{Class, Fault};

use super::Want;
use super::settings::FetchSettings;

/// Which words opt out, and who we are.
#[derive(Clone, Debug)]
pub struct OptOuts {
    agent: String,
    words: Vec<String>,
}

impl OptOuts {
    /// The opt-outs of these settings: none where they are not respected.
    pub fn new(settings: &FetchSettings) -> Self {
        let words = if settings.respect_opt_outs { settings.opt_outs.clone() } else { vec![] };
        Self { agent: settings.agent().to_owned(), words }
    }

    /// Whether an opt-out that was found before still counts: its word does, and opt-outs are respected.
    pub fn respects(&self, fault: &Fault) -> bool {
        fault.reason.strip_prefix("opt_out:").is_some_and(|word| self.words.iter().any(|own| own == word))
    }

    /// The word by which one `X-Robots-Tag` header opts out of what was asked for, if any.
    ///
    /// A crawler's name before a colon addresses all words after it, up to the next name.
    pub fn in_header(&self, value: &str, want: Want) -> Option<String> {
        let mut to_us = true;
        for item in value.split(',') {
            let (name, word) = match item.split_once(':') {
                // A rule with a value speaks to whom the words before it speak.
                Some((name, value)) if has_value(name.trim()) || !self.is_rule(value.trim()) => continue,
                Some((name, word)) => (Some(name.trim()), word),
                None => (None, item),
            };
            to_us = name.map_or(to_us, |name| self.is_us(name));
            let found = self.word(word.trim(), want == Want::Image).filter(|_| to_us);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The word by which a page's `<meta name content>` opts out of the use of its pictures, if any. `name` is `robots`
    /// or a crawler's own name; other meta tags opt out of nothing.
    pub fn in_meta(&self, name: &str, content: &str) -> Option<String> {
        let to_us = name.trim().eq_ignore_ascii_case("robots") || self.is_us(name.trim());
        content.split(',').filter(|_| to_us).find_map(|word| self.word(word.trim(), false))
    }

    /// The fault of an opt-out: `word` was found in `said`.
    pub fn fault(word: &str, said: &str) -> Fault {
        let shown: String = said.chars().take(200).collect();
        Fault::permanent(Class::Policy, format!("opt_out:{word}"), format!("the site says {shown:?}"))
    }

    /// Whether what stands behind a colon is a rule, so that a crawler's name stands before it; otherwise it is the value of a rule
    /// that we do not know, which hides none of the words beside it.
    fn is_rule(&self, text: &str) -> bool {
        let word = text.to_ascii_lowercase();
        word.is_empty() || word.contains(':') || WORDS.contains(&word.as_str()) || self.words.contains(&word)
    }

    fn is_us(&self, name: &str) -> bool {
        let name = name.split('/').next().unwrap_or_default();
        name == "*" || name.eq_ignore_ascii_case(&self.agent)
    }

    /// `noindex` is about the very resource that carries it, so it only counts for a picture's own answer.
    fn word(&self, word: &str, own: bool) -> Option<String> {
        let word = word.to_ascii_lowercase();
        let means = if word == "none" { "noindex" } else { &word };
        let known = self.words.iter().any(|known| known == means);
        (known && (own || means != "noindex")).then(|| means.to_owned())
    }
}

/// What stands before a colon is the name of a rule with a value, or part of a date, rather than a crawler's name.
fn has_value(name: &str) -> bool {
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_*/.".contains(&byte));
    let lower = name.to_ascii_lowercase();
    name.is_empty() || !is_name || lower.starts_with("max-") || RULES.contains(&lower.as_str())
}

/// Rules without a value, besides those that opt out.
const WORDS: [&str; 20] = [
    "all",
    "none",
    "index",
    "noindex",
    "follow",
    "nofollow",
    "archive",
    "noarchive",
    "nocache",
    "snippet",
    "nosnippet",
    "noodp",
    "noydir",
    "notranslate",
    "noimageindex",
    "noimageai",
    "noai",
    "nositelinkssearchbox",
    "indexifembedded",
    "noml",
];

/// Rules that have a value (Google's robots rules; Content Signals; AIPREF; TDMRep), which are no names of crawlers.
const RULES: [&str; 11] = [
    "unavailable_after",
    "ai-train",
    "ai-input",
    "train-ai",
    "train-genai",
    "ai",
    "genai",
    "search",
    "tdm",
    "tdm-reservation",
    "tdm-policy",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn opt_outs() -> OptOuts {
        OptOuts::new(&FetchSettings::default())
    }

    #[test]
    fn headers_are_read_as_lists_for_everybody_or_somebody() {
        let cases = [
            ("noai", Some("noai")),
            ("NoAI", Some("noai")),
            (" nofollow ,\tnoimageai", Some("noimageai")),
            ("max-snippet:5, noai", Some("noai")),
            ("max-snippet: 5,max-image-preview:large,noai", Some("noai")),
            ("unavailable_after: Tue, 25 Jun 2030 15:00:00 PST, noai", Some("noai")),
            ("unavailable_after: 25-Jun-2030 15:00:00 PST", None),
            ("ai-train:no, noai", Some("noai")),
            ("ai-train: no , noai", Some("noai")),
            ("noai, ai-train:no", Some("noai")),
            ("search:yes, ai-train:no, noimageai", Some("noimageai")),
            ("train-ai:n,noai", Some("noai")),
            ("tdm-reservation:1, noai", Some("noai")),
            ("x-new-rule:7, noai", Some("noai")),
            ("x-new-rule:yes, noai", Some("noai")),
            ("max-video-preview:-1, noai", Some("noai")),
            ("x-licence: by-nc, noai", Some("noai")),
            ("ai-train:no", None),
            ("otherbot: max-snippet:5, noai", None),
            ("otherbot: nofollow, ai-train:no, noai", None),
            ("faceflow: ai-train:no, noai", Some("noai")),
            ("otherbot: nofollow, faceflow: ai-train:no, noai", Some("noai")),
            ("faceflow: noai", Some("noai")),
            ("FaceFlow:noai", Some("noai")),
            ("faceflow/1.0: nofollow, noai", Some("noai")),
            ("*: noai", Some("noai")),
            ("otherbot: noai", None),
            ("otherbot: nofollow, noai", None),
            ("otherbot: noai, faceflow: noimageai", Some("noimageai")),
            ("faceflow: nofollow, otherbot: noai", None),
            ("noai, otherbot: noindex", Some("noai")),
            ("all", None),
            ("noaifoo, xnoai, no ai", None),
            ("", None),
            (":::,,,:", None),
            (":, noai", Some("noai")),
        ];
        for (value, expected) in cases {
            assert_eq!(opt_outs().in_header(value, Want::Image).as_deref(), expected, "{value:?}");
        }
    }

    #[test]
    fn noindex_speaks_about_the_thing_itself() {
        let header = |value, want| opt_outs().in_header(value, want);
        assert_eq!(header("noindex", Want::Image).as_deref(), Some("noindex"));
        assert_eq!(header("none", Want::Image).as_deref(), Some("noindex"));
        assert_eq!(header("noindex, follow", Want::Page), None, "a listing page hides itself, not its pictures");
        assert_eq!(header("noindex, noimageindex", Want::Page).as_deref(), Some("noimageindex"));
    }

    #[test]
    fn meta_tags_are_for_robots_or_for_us() {
        let meta = |name, content| opt_outs().in_meta(name, content);
        assert_eq!(meta("robots", "max-snippet:5, NOAI").as_deref(), Some("noai"));
        assert_eq!(meta("ROBOTS", "index,noimageai").as_deref(), Some("noimageai"));
        assert_eq!(meta("faceflow", "noai").as_deref(), Some("noai"));
        assert_eq!(meta("otherbot", "noai"), None);
        assert_eq!(meta("description", "noai"), None);
        assert_eq!(meta("robots", "noindex, follow"), None);
    }

    #[test]
    fn settings_decide() {
        let settings = FetchSettings { respect_opt_outs: false, ..FetchSettings::default() };
        assert_eq!(OptOuts::new(&settings).in_header("noai", Want::Image), None);
        let settings = FetchSettings { opt_outs: vec!["nosnippet".into()], ..FetchSettings::default() };
        assert_eq!(OptOuts::new(&settings).in_header("noai, nosnippet", Want::Image).as_deref(), Some("nosnippet"));
        let fault = OptOuts::fault("noai", "noai, nofollow");
        assert_eq!((fault.reason.as_str(), fault.permanent, fault.class), ("opt_out:noai", true, Class::Policy));
    }
}
