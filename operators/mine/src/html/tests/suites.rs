use faceflow_core::testing::require;
use proptest::prelude::*;

use super::super::srcset;
use super::*;

#[test]
fn srcset_suite() {
    let Some(file) = require::testdata("suites/html/srcset.json") else { return };
    let text = std::fs::read_to_string(file).expect("reads");
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    assert!(cases.len() > 80);
    for case in cases {
        let text = case["srcset"].as_str().expect("a text");
        let candidates = srcset::parse(text);
        // All are 1x, so that a browser takes the first.
        assert_eq!(candidates.first().map_or("", |first| &first.url), case["first_or_chosen"], "{text:?}");
    }
}

/// A page made of the words that matter, in any order.
fn markup() -> impl Strategy<Value = String> {
    let words = [
        "<img src=",
        "a.jpg",
        " srcset='",
        "' ",
        ", ",
        " 2x",
        " 100w",
        "<picture>",
        "</picture>",
        "<source ",
        ">",
        "<a href=",
        "/x",
        "<style>",
        "</style>",
        "url(",
        ")",
        "{",
        "}",
        "@import ",
        "<script type=application/ld+json>",
        "</script>",
        "{\"image\":",
        "\"",
        "<svg>",
        "</svg>",
        "<title/>",
        "<template>",
        "</template>",
        "<table>",
        "<td background=",
        "<noscript>",
        "</noscript>",
        "<!--",
        "-->",
        "<base href=",
        "//h/",
        "data:image/gif,x",
        "http://",
        "\\",
        "\u{e9}",
        "\0",
        "&amp;",
        "=",
        "<b>",
        "</p>",
        "<body ",
        "<iframe srcdoc='",
        "<select>",
        "<frameset>",
        "<math>",
        "/>",
        "%zz",
        "[",
        "]",
        "http:\\\\",
    ];
    let word = prop_oneof![8 => prop::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,4}"];
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

fn keeps_promises(reading: &ExtractedPage) -> bool {
    let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.fragment().is_none();
    let images = reading.images.iter().all(|found| match &found.inline {
        Some(_) => found.url.as_str().starts_with("data:sha256,") && found.alternates.is_empty(),
        None => is_web(&found.url) && found.alternates.iter().all(is_web),
    });
    images && reading.links.iter().all(is_web)
}

proptest! {
    #[test]
    fn srcset_takes_anything(text in "[a-z,() \t\u{e9}0-9.wxhe+-]{0,60}|\\PC{0,40}") {
        for candidate in srcset::parse(&text) {
            prop_assert!(!candidate.url.is_empty() && !candidate.url.contains(' ') && text.contains(&*candidate.url));
        }
    }

    #[test]
    fn read_takes_any_bytes(body in prop::collection::vec(any::<u8>(), 0..400), content_type in "(text/html|image/png|)(; charset=[a-z0-9-]{0,10})?") {
        if let Ok(reading) = read_as(&content_type, &body) {
            prop_assert!(keeps_promises(&reading));
        }
    }

    #[test]
    fn read_takes_any_markup(html in markup()) {
        prop_assert!(keeps_promises(&reading(&html)));
        let small = MineSettings { depth_max: 1, tags_max: 3, attributes_max: 2, ..MineSettings::default() };
        let url = Url::parse(PAGE).expect("a URL");
        let source = Source { url: &url, content_type: Some("text/html"), body: html.as_bytes() };
        prop_assert!(keeps_promises(&read(&source, &small).expect("a page")));
    }
}
