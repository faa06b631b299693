//! Sitemaps and feeds of others, and anything that looks a little like one. What the suite's files hold is in the files;
//! which of it counts follows from the sitemap protocol and from what a page's links and pictures are.

use faceflow_core::testing::require;
use proptest::prelude::*;

use super::*;

#[test]
fn sitemap_suite() {
    let Some(folder) = require::testdata("suites/sitemaps") else { return };
    for (file, url, links, images) in [
        ("atom.xml", "http://example.org/feed/", "/2003/12/13/atom03 /2003/12/13/atom03.html", ""),
        ("do-not-visit.txt", "http://www.example.com/robots", "/do-not-visit-here", ""),
        ("sitemap.txt", "http://www.domain.com/sitemap.txt", "/page1.html /page2.html", ""),
        ("sitemap-with-bom.txt", "http://www.domain.com/sitemap.txt", "/page1.html /page2.html", ""),
        ("sitemap.badns.xml", "http://www.example.com/sitemap.xml", "/1 /2", ""),
        ("sitemap.ns.xml", "http://www.example.com/sitemap.xml", "/1 /2", ""),
        ("extension/pagemaps-sitemap.xml", "http://www.example.com/s", "/foo /bar", "/foo.gif"),
        (
            "extension/sitemap-images.xml",
            "http://www.example.com/s",
            "/images/some_image_landing_page.html",
            "http://example.com/image.jpg http://example.com/photo.jpg",
        ),
        ("extension/sitemap-links.xml", "http://www.example.com/s", "/english/ /deutsch/ /schweiz-deutsch/", ""),
        (
            "extension/sitemap-mobile.xml",
            "http://www.example.com/s",
            "/mobile-friendly-1/ /mobile-friendly-2/ /no-mobile/",
            "",
        ),
        (
            "extension/sitemap-news.xml",
            "http://www.example.org/s",
            "/business/article55.html /empty_news_name.html",
            "",
        ),
        (
            "extension/sitemap-videos.xml",
            "http://www.example.com/s",
            "/videos/some_video_landing_page.html /videos/some_video_landing_page-2.html /videos/some_video_landing_page-3.html",
            "/thumbs/123.jpg /thumbs/123-2.jpg /thumbs/123-3.jpg",
        ),
        ("extension/sitemap-videos-tvshow.xml", "https://example.org/s", "/my-tv-show/23/13/", "/my-tv-show.jpg"),
        ("rss/feed.rss", "https://www.example.com/feed", "/blog/post/1 /guid.html /foo?q=a&l=en /foo?q=a&l=fr", ""),
        (
            "rss/xmlRss_pubDate.xml",
            "http://www.example.com/rss.xml",
            "/article_1 /article_2 /article_3 /article_4 /article_5 /article_6 /article_7",
            "",
        ),
    ] {
        let body = std::fs::read(folder.join(file)).expect(file);
        let url = Url::parse(url).expect("a URL");
        let content_type = if file.ends_with("txt") { "text/plain" } else { "text/xml" };
        let source = Source { url: &url, content_type: Some(content_type), body: &body };
        let reading = read(&source, &MineSettings::default()).expect(file);
        let origin = url.origin().ascii_serialization();
        let short = |url: &Url| url.as_str().strip_prefix(&origin).unwrap_or(url.as_str()).to_owned();
        assert_eq!(reading.links.iter().map(short).collect::<Vec<_>>().join(" "), links, "{file}");
        assert_eq!(
            reading.images.iter().map(|found| short(&found.url)).collect::<Vec<_>>().join(" "),
            images,
            "{file}"
        );
    }
}

#[test]
fn larger_sitemaps_of_the_suite() {
    let Some(folder) = require::testdata("suites/sitemaps") else { return };
    let counts = |file: &str, url: &str| {
        let body = std::fs::read(folder.join(file)).expect(file);
        let (url, text) = (Url::parse(url).expect("a URL"), String::from_utf8_lossy(&body).into_owned());
        let source = Source { url: &url, content_type: Some("application/xml"), body: &body };
        let reading = read(&source, &MineSettings::default()).expect(file);
        (reading.links.len(), reading.images.len(), text)
    };
    // Its entries have no `loc`, only its text.
    let (links, images, text) = counts("sitemap.index.xml", "https://example.com/sitemap.xml");
    assert_eq!((links, images), (text.matches("<sitemap>").count(), 0));
    let (links, images, text) =
        counts("extension/shinpaideshou-news-sitemap.xml", "https://shinpaideshou.wordpress.com/s.xml");
    assert_eq!((links, images), (text.matches("<loc>").count(), 0));
    let (links, images, text) =
        counts("extension/hebdenbridgetimes-articles-sitemap.xml", "http://www.hebdenbridgetimes.co.uk/s.xml");
    let distinct = |tag: &str| {
        let tag = format!("<{tag}>");
        let values = text.split(&tag).skip(1).filter_map(|rest| rest.split('<').next());
        values.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(links, distinct("loc"));
    assert_eq!(images, distinct("image:loc") + distinct("video:thumbnail_loc"), "no picture is also a thumbnail");
}

/// A feed made of the words that matter, in any order.
fn feed() -> impl Strategy<Value = String> {
    let words = [
        "<url>",
        "</url>",
        "<loc>",
        "</loc>",
        "<sitemap>",
        "</sitemap>",
        "<image:image>",
        "</image:image>",
        "<item>",
        "</item>",
        "<entry xml:base='",
        "<link href='",
        "' rel='next'/>",
        "'/>",
        "'>",
        "<link>",
        "</link>",
        "<guid>",
        "</guid>",
        "<description>",
        "</description>",
        "<content type='xhtml'>",
        "</content>",
        "<![CDATA[",
        "]]>",
        "<img src=",
        "<media:content url='",
        "' medium='image",
        "&lt;img src=",
        "&gt;",
        "&amp;",
        "&",
        ";",
        "&#x",
        "<!--",
        "-->",
        "<?",
        "?>",
        "<!DOCTYPE ",
        "[",
        "]",
        "<",
        ">",
        "/",
        "a",
        "b.jpg",
        "https://www.site.example/",
        "http://",
        "\0",
        "\u{e9}",
        "\n",
        "{\"items\":[",
        "{\"url\":\"",
        "\"image\":\"",
        "\",",
        "\"}",
        "]}",
        "\"version\":\"https://jsonfeed.org/version/1\",",
    ];
    let starts = [
        "<urlset>",
        "<sitemapindex>",
        "<rss><channel>",
        "<feed>",
        "{\"version\":\"https://jsonfeed.org/version/1\",",
        "https://a.example/\n",
        "",
    ];
    let word = prop_oneof![8 => prop::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,4}"];
    let rest = prop::collection::vec(word, 0..60).prop_map(|words| words.concat());
    (prop::sample::select(starts.to_vec()), rest).prop_map(|(start, rest)| start.to_owned() + &rest)
}

proptest! {
    #[test]
    fn read_takes_anything(body in feed(), content_type in "(text/plain|text/xml|application/feed\\+json|)", cut in 0..100_usize) {
        let small = MineSettings { feed_entries_max: 5, feed_images_max: 3, depth_max: 16, attributes_max: 8, ..MineSettings::default() };
        for settings in [MineSettings::default(), small] {
            let Some(reading) = read_with(&settings, &content_type, body.as_bytes()) else { continue };
            prop_assert!(reading.links.len() <= settings.feed_entries_max && reading.images.len() <= settings.feed_images_max);
            for url in reading.links.iter().chain(reading.images.iter().map(|found| &found.url)) {
                prop_assert!(matches!(url.scheme(), "http" | "https") && url.has_host() && url.fragment().is_none(), "{url}");
            }
            let site = |url: &Url| url.host_str().map(|host| host.trim_start_matches("www.").to_owned());
            prop_assert!(reading.links.iter().all(|url| site(url).as_deref() == Some("site.example")));
            let mut links = reading.links.clone();
            links.sort();
            links.dedup();
            prop_assert_eq!(links.len(), reading.links.len());
        }
        // Any piece of it is taken as well.
        let end = body.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(body.len());
        drop(read_as(&content_type, &body.as_bytes()[..end]));
    }

    #[test]
    fn read_takes_any_bytes(body in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(read_as("text/plain", &body));
        drop(read_as("", &[b"<rss>", &body[..]].concat()));
    }
}
