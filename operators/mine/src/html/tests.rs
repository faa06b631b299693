//! What is mined, rule by rule; the hostile and the suites have files of their own.

mod charsets;
mod hostile;
mod suites;

use super::*;

const PAGE: &str = "https://www.site.example/dir/page.html";

pub(super) fn read_as(content_type: &str, body: &[u8]) -> Result<ExtractedPage, Fault> {
    let url = Url::parse(PAGE).expect("a URL");
    read(&Source { url: &url, content_type: Some(content_type), body }, &MineSettings::default())
}

pub(super) fn reading(html: &str) -> ExtractedPage {
    read_as("text/html; charset=utf-8", html.as_bytes()).expect("a page")
}

/// Relative to the page's folder where that is shorter.
fn short(url: &Url) -> String {
    let text = url.as_str();
    text.strip_prefix("https://www.site.example/dir/")
        .unwrap_or(text.strip_prefix("https://www.site.example").unwrap_or(text))
        .to_owned()
}

/// The pictures as `best|alternate|alternate`, separated by spaces.
pub(super) fn images(html: &str) -> String {
    let one = |found: &ExtractedImage| {
        [&found.url].into_iter().chain(&found.alternates).map(short).collect::<Vec<_>>().join("|")
    };
    reading(html).images.iter().map(one).collect::<Vec<_>>().join(" ")
}

pub(super) fn links(html: &str) -> String {
    reading(html).links.iter().map(short).collect::<Vec<_>>().join(" ")
}

fn check(cases: &[(&str, &str)]) {
    for (html, expected) in cases {
        assert_eq!(images(html), *expected, "{html}");
    }
}

#[test]
fn img_and_srcset() {
    check(&[
        ("<img src=a.jpg>", "a.jpg"),
        ("<IMG SRC=' \n/a.jpg\t'>", "/a.jpg"),
        (
            "<img src=//cdn.example/a.jpg><img src='HTTPS://B.example/b.jpg'>",
            "https://cdn.example/a.jpg https://b.example/b.jpg",
        ),
        ("<img src='a.jpg?x=1&amp;y=2&z=3#f'>", "a.jpg?x=1&y=2&z=3"),
        ("<img src=a.jpg><p><img src='./a.jpg#x'>", "a.jpg"),
        ("<img src=s.jpg srcset='m.jpg 600w, l.jpg 1200w, s.jpg 300w'>", "l.jpg|m.jpg|s.jpg"),
        ("<img src=s.jpg srcset='x1.jpg, x3.jpg 3x, x2.jpg 2x' sizes=100vw>", "x3.jpg|x2.jpg|x1.jpg|s.jpg"),
        ("<img srcset='/w,1/a.jpg 1x,/w,2/a.jpg 2x'>", "/w,2/a.jpg|/w,1/a.jpg"),
        ("<img src=a.jpg srcset='a.avif 2000w, b.webp 1000w'>", "b.webp|a.jpg|a.avif"),
        ("<img src=''><img src='#'><img src='#x'><img><img src=page.html>", ""),
        ("<img src=blob:https://x/1><img src=javascript:x><img src=file:///a.jpg><img src=mailto:a@b.c>", ""),
        ("<amp-img src=a.jpg></amp-img><image src=b.jpg>", "a.jpg b.jpg"),
        ("<img src=a.jpg srcset='a.jpg 1x, b.jpg 2x'><img src=a.jpg>", "b.jpg a.jpg"),
    ]);
}

#[test]
fn a_picture_element_is_one_picture() {
    check(&[
        (
            "<picture><source srcset='a.avif 900w' type=image/avif><source srcset='a.webp 400w, b.webp 800w'><img src=c.jpg></picture>",
            "b.webp|a.webp|c.jpg|a.avif",
        ),
        ("<picture><source srcset=x type=image/avif><img src=y></picture>", "y|x"),
        ("<picture><source srcset=a.webp></picture><img src=b.jpg>", "a.webp b.jpg"),
        (
            "<picture><source srcset=a.webp></picture><picture><source srcset=b.webp><img src=b.jpg></picture>",
            "a.webp b.webp|b.jpg",
        ),
        (
            "<picture><source data-srcset='b.webp 2x, a.webp 1x'><img data-src=c.jpg src=p.gif></picture>",
            "b.webp|a.webp|c.jpg p.gif",
        ),
        ("<picture><source srcset=a.webp><noscript><img src=b.jpg></noscript></picture>", "a.webp|b.jpg"),
        (
            "<picture><source type=image/avif data-srcset='a.avif 9w'><source data-srcset='a.webp 9w'><img data-src=a.jpg></picture>",
            "a.webp|a.jpg|a.avif",
        ),
        ("<video poster=p.jpg><source src=v.mp4 srcset=no.jpg></video>", "p.jpg"),
    ]);
}

#[test]
fn lazy_attributes() {
    for name in [
        "data-src",
        "data-original",
        "data-lazy",
        "data-lazy-src",
        "data-lazyload",
        "data-original-src",
        "data-full",
        "data-full-src",
        "data-large_image",
        "data-zoom-image",
        "data-hi-res-src",
        "data-bg",
        "data-background",
        "data-background-image",
        "data-image",
        "data-img",
        "data-thumb",
        "data-url",
        "data-echo",
        "data-flickity-lazyload",
        "nitro-lazy-src",
        "data-anything",
        "data-srcset",
        "data-lazy-srcset",
        "data-bgset",
        "data-cfsrc",
    ] {
        assert_eq!(
            images(&format!("<img src=p.gif {name}=/x/a.jpg>")).split(' ').collect::<std::collections::BTreeSet<_>>(),
            ["/x/a.jpg", "p.gif"].into(),
            "{name} on img"
        );
        assert_eq!(images(&format!("<div {name}=/x/a.jpg></div>")), "/x/a.jpg", "{name} on div");
        assert_eq!(
            images(&format!("<div {name}='https://cdn.example/a.jpg'></div>")),
            "https://cdn.example/a.jpg",
            "{name} on div"
        );
    }
    check(&[
        (
            "<img data-src=photo?id=7 src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>",
            &format!("photo?id=7 {}", gif()),
        ),
        ("<img src=p.gif data-src=m.jpg data-srcset='m.jpg 300w, l.jpg 600w' class=lazyload>", "l.jpg|m.jpg p.gif"),
        ("<img src=a.jpg data-src=a.jpg>", "a.jpg"),
        ("<img src=s.jpg data-src=m.jpg data-large_image=l.jpg>", "m.jpg s.jpg l.jpg"),
        ("<img src=a.jpg data-lazy=true data-zoom=2 data-original='{\"a\":1}' data-src=auto>", "a.jpg"),
        (
            "<div data-bg=\"url('a b.jpg')\"></div><div data-background='#fff'></div><div data-bg=dark></div>",
            "a%20b.jpg",
        ),
        ("<div data-url=/next-page data-href='/shop/' data-image=/media/42 data-src=/ajax/list></div>", "/media/42"),
        ("<div data-title='see /a.jpg' data-name=a.jpg data-json='[\"/a.jpg\"]'></div>", ""),
    ]);
}

fn gif() -> String {
    let bytes = b"GIF89a\x01\x00\x01\x00\x00\x00\x00\x2c";
    format!("data:sha256,{}", faceflow_core::record::ContentId::of(bytes))
}

#[test]
fn metadata() {
    check(&[
        ("<meta property=og:image content=a.jpg><meta name=og:image:url content=b.jpg>", "a.jpg b.jpg"),
        (
            "<meta property='og:image:secure_url' content='https://x.example/a'><meta property=og:image:width content=7>",
            "https://x.example/a",
        ),
        (
            "<meta name=twitter:image content=a.jpg><meta property=TWITTER:IMAGE:SRC content=b.jpg><meta name=twitter:image1 content=c>",
            "a.jpg b.jpg c",
        ),
        (
            "<link rel=image_src href=a.jpg><link rel='preload' as=image href=b.jpg imagesrcset='b.jpg 1x, c.jpg 2x'>",
            "a.jpg c.jpg|b.jpg",
        ),
        (
            "<link rel=icon href=favicon.png><link rel='apple-touch-icon' href=i.png><link rel=stylesheet href=a.css>",
            "",
        ),
        ("<link rel=preload as=font href=a.woff2><meta name=msapplication-TileImage content=t.png>", ""),
        (
            "<span itemprop=image content=a.jpg></span><a itemprop='name thumbnailUrl' href=b></a><meta itemprop=image content=c>",
            "a.jpg b c",
        ),
        (
            "<link itemprop='http://schema.org/image' href=a.jpg><meta itemprop=contentUrl content=v.mp4><meta itemprop=contentUrl content=b.jpg>",
            "a.jpg b.jpg",
        ),
    ]);
}

fn ld(json: &str) -> String {
    images(&format!("<script type='application/ld+json; charset=utf-8'>{json}</script>"))
}

#[test]
fn json_ld() {
    for (json, expected) in [
        (r#"{"image":"a.jpg"}"#, "a.jpg"),
        (r#"{"image":["a.jpg",{"url":"b"},{"@type":"ImageObject","contentUrl":"c","url":"page"}]}"#, "a.jpg b c"),
        (
            r#"{"@graph":[{"@type":["Thing","ImageObject"],"url":"a"},{"publisher":{"logo":{"url":"https:\/\/x.example\/l.png"}}}]}"#,
            "a https://x.example/l.png",
        ),
        (
            r#"[{"thumbnailUrl":["a.jpg","b.jpg"]},{"@type":"VideoObject","contentUrl":"v.mp4","thumbnailUrl":"t"}]"#,
            "a.jpg b.jpg t",
        ),
        (r#"{"https://schema.org/image":{"@value":"a.jpg"},"url":"no","author":{"url":"no","image":"b"}}"#, "b a.jpg"),
        ("<!-- {\"image\":\"a.jpg\",} -->", "a.jpg"),
        (
            "//<![CDATA[\n{\"description\":\"two\nlines // <!-- \\\" \",/* c */\"image\":[\"a.jpg\",\"b.jpg\" , ],\n}\n//]]>",
            "a.jpg b.jpg",
        ),
        (r#"{"image":"a.jpg"} {"image":"b.jpg"};"#, "a.jpg b.jpg"),
        (r#"{"image":"a.jpg""#, ""),
        (r#"{"image":null,"logo":7,"@context":{"image":"no"}}"#, ""),
    ] {
        assert_eq!(ld(json), expected, "{json}");
    }
    assert_eq!(images("<script>{\"image\":\"a.jpg\"}</script>"), "");
    let deep = |levels: usize| format!("{}{{\"image\":\"a.jpg\"}}{}", "{\"x\":".repeat(levels), "}".repeat(levels));
    assert_eq!((ld(&deep(20)).as_str(), ld(&deep(60)).as_str(), ld(&deep(100_000)).as_str()), ("a.jpg", "", ""));
}

#[test]
fn styles() {
    check(&[
        ("<p style=\"background:#fff url( 'a b.jpg' ) no-repeat\">", "a%20b.jpg"),
        ("<p style='background-image:url(a.jpg),URL(\"b.jpg\")'>", "a.jpg b.jpg"),
        (
            "<p style='background:url(&quot;a.jpg&quot;)'><p style='background:\\75rl(b.jpg)'><p style='color:url'>",
            "a.jpg b.jpg",
        ),
        ("<p style='background:url(a\\(1\\).jpg)'>", "a(1).jpg"),
        (
            "<p style='--x:url(a.jpg);list-style-image:url(b.png);content:url(c.png);border-image:url(d.png) 3'>",
            "a.jpg b.png c.png d.png",
        ),
        (
            "<p style='background:image-set(\"a.jpg\" 1x, url(b.jpg) 2x, \"c.avif\" type(\"image/avif\") 4x)'>",
            "b.jpg|a.jpg|c.avif",
        ),
        ("<p style='background:-webkit-image-set(url(a.jpg) 96dpi, url(b.jpg) 192dpi)'>", "b.jpg|a.jpg"),
        ("<p style='filter:url(#f);mask:url()'>", ""),
        (
            "<style>@import url(no.jpg);@import 'no.jpg';@namespace x url(no.jpg);a{background:url(a.jpg)}</style>",
            "a.jpg",
        ),
        ("<style>@font-face{font-family:x;src:url(no.jpg),url(f.woff2)}b{background:url(b.jpg)}</style>", "b.jpg"),
        (
            "<style><!-- @media (min-width:9px){@supports (display:grid){.a:hover,[x='url(no.jpg)']{background:url(a.jpg)}}} --></style>",
            "a.jpg",
        ),
        (
            "<style>/* url(no.jpg) */ a{b:'url(no.jpg)';background:cross-fade(url(a.jpg),url(b.jpg))} c{d:url(x.css)}</style>",
            "a.jpg b.jpg",
        ),
        ("<style>a{broken;}}} b{background:url(a.jpg)", "a.jpg"),
        ("<div data-style='background:url(a.jpg)'></div>", "a.jpg"),
    ]);
}

#[test]
fn everything_else_that_shows_pictures() {
    check(&[
        ("<noscript><img src=a.jpg></noscript><p>", "a.jpg"),
        (
            "<head><noscript><img src=a.jpg><style>a{background:url(b.jpg)}</style></noscript><meta property=og:image content=c.jpg>",
            "a.jpg b.jpg c.jpg",
        ),
        ("<template><img src=a.jpg><table><tr><td background=b.jpg></table></template>", "a.jpg b.jpg"),
        (
            "<a href='A.JPG?x=1#y'>x</a><a href=b.jfif></a><area href='c.TIFF'><a href='x.php?f=d.jpg'></a>",
            "A.JPG?x=1 b.jfif c.TIFF",
        ),
        ("<input type=IMAGE src=a.png><input type=text src=no.png>", "a.png"),
        (
            "<svg><title/><style/><image href=a.jpg /><g><image xlink:href='b.jpg'></image></g><path/></svg><img src=c.jpg>",
            "a.jpg b.jpg c.jpg",
        ),
        ("<svg><script/><filter><feImage href=a.jpg /></filter></svg><img src=b.jpg>", "a.jpg b.jpg"),
        (
            "<object data=a type=image/png></object><object data=b.gif></object><object data=c.swf></object><embed src=d.jpg>",
            "a b.gif d.jpg",
        ),
        ("<body background=a.jpg><table background=b.jpg><tr><td background='c.jpg'>", "a.jpg b.jpg c.jpg"),
        ("<select><option><img src=a.jpg></select><img src=b.jpg>", "a.jpg b.jpg"),
        ("<iframe srcdoc='<img src=a.jpg><iframe srcdoc=\"<img src=b.jpg>\">'></iframe>", "a.jpg b.jpg"),
        ("<table><img src=a.jpg><tr><td><img src=b.jpg></table><img src=c.jpg>", "a.jpg b.jpg c.jpg"),
        (
            "<!-- <img src=no.jpg> --><textarea><img src=no.jpg></textarea><script>'<img src=no.jpg>'</script><img src=a.jpg>",
            "a.jpg",
        ),
        ("<img src=b.jpg><base href='https://cdn.example/x/'><base href=/no/>", "https://cdn.example/x/b.jpg"),
        ("<base target=_top><base href='../up/&amp;/'><img src=b.jpg>", "/up/&/b.jpg"),
        ("<base href='javascript:x'><img src=b.jpg>", "b.jpg"),
    ]);
}

#[test]
fn data_uris_are_pictures_with_their_bytes() {
    let found = reading(
        "<img src='data:image/gif;base64,R0lGODlhAQABAAAA\nACw='><i style='background:url(data:image/gif;base64,R0lGODlhAQABAAAAACw=)'>",
    );
    assert_eq!(found.images.len(), 1);
    assert_eq!(
        (found.images[0].url.as_str(), found.images[0].inline.as_deref()),
        (gif().as_str(), Some(&b"GIF89a\x01\x00\x01\x00\x00\x00\x00,"[..]))
    );
    assert_eq!(
        images("<img src='DATA:image/gif,GIF89a%01%00%01%00%00%00%00,' srcset=a.jpg>"),
        format!("{} a.jpg", gif())
    );
    for kind in ["", "text/plain", "application/octet-stream", "image/svg+xml", "image/jpg", "img/gif", "nonsense"] {
        let uri = format!("data:{kind};base64,R0lGODlhAQABAAAAACw=");
        assert_eq!(images(&format!("<img src='{uri}'>")), gif(), "the bytes decide, whatever {kind:?} says");
    }
    assert_eq!(
        images(
            "<img src='data:text/html,x'><img src='data:image/svg+xml,<svg/>'><img src='data:image/png;base64,!'><img src=data:>"
        ),
        ""
    );
    let url = Url::parse(PAGE).expect("a URL");
    let html = format!("<img src='data:image/gif,{}'>", "x".repeat(101));
    let source = Source { url: &url, content_type: None, body: html.as_bytes() };
    let read = |bytes| {
        read(&source, &MineSettings { data_uri_max_bytes: bytes, ..MineSettings::default() })
            .map_err(|fault| fault.reason)
    };
    assert_eq!(read(101), Err("not_html".to_owned()), "no type, and it does not begin like a page");
    let source = Source { content_type: Some("text/html"), ..source };
    let read = |bytes| {
        super::read(&source, &MineSettings { data_uri_max_bytes: bytes, ..MineSettings::default() })
            .expect("a page")
            .images
            .len()
    };
    assert_eq!((read(100), read(101)), (0, 1));
}

#[test]
fn page_links() {
    for (html, expected) in [
        ("<a href=a>1</a><area href=/b><a href=a#x>2</a><a href='?q=1&amp;utm_source=x'>3</a>", "a /b page.html?q=1"),
        ("<a href=page.html#top></a><a href=''></a><a href=#></a><a href='page.html?utm_id=1'></a>", ""),
        (
            "<a href='http://site.example/x'></a><a href='https://www.site.example:443/y'></a>",
            "http://site.example/x /y",
        ),
        (
            "<a href='https://other.example/'></a><a href='https://site.example:8443/'></a><a href='//blog.site.example/'></a>",
            "",
        ),
        (
            "<a href=a.pdf></a><a href=a.zip?x></a><a href=a.mp4></a><a href=a.svg></a><a href=a.png></a><a href=v1.2/x.html></a>",
            "v1.2/x.html",
        ),
        (
            "<a href=mailto:a@b.c></a><a href=javascript:x></a><a href=tel:1></a><a href='https://joe@site.example/'></a>",
            "",
        ),
        (
            "<a rel=nofollow href=a></a><link rel='next' href='?p=2'><iframe src=f.html></iframe>",
            "a page.html?p=2 f.html",
        ),
        (
            "<frameset><frame src=a.html><frame src=b.html></frameset><noframes><a href=c></a></noframes>",
            "a.html b.html c",
        ),
        (
            "<meta http-equiv=Refresh content=\"5; URL='a b'\"><meta http-equiv=refresh content=7><meta http-equiv=refresh content='0;b'>",
            "a%20b b",
        ),
        ("<base href=/z/><a href=a></a><svg><a xlink:href=b></a></svg>", "/z/a /z/b"),
    ] {
        assert_eq!(links(html), expected, "{html}");
    }
}

#[test]
fn robots_rules_are_handed_on() {
    let metas = reading(
        "<meta name=' Robots' content='noai, max-snippet:5'><meta name=faceflow content=noimageai><meta name=x>",
    )
    .named_meta;
    let expected = [("robots", "noai, max-snippet:5"), ("faceflow", "noimageai")];
    assert_eq!(metas, expected.map(|(name, content)| (name.to_owned(), content.to_owned())));
}

#[test]
fn bodies_are_what_they_begin_with() {
    let of = |content_type: &str, body: &[u8]| match read_as(content_type, body) {
        Ok(reading) if reading.images.iter().any(|found| found.url.as_str() == PAGE) => "picture",
        Ok(_) => "page",
        Err(fault) if fault.permanent && fault.class == Class::Content && fault.reason == "not_html" => "other",
        Err(fault) => panic!("{fault}"),
    };
    for (content_type, body, expected) in [
        ("text/html", &b"\x89PNG\r\n\x1a\n"[..], "picture"),
        ("text/html", b"\xff\xd8\xff\xe0", "picture"),
        ("image/webp", b"unknown bytes", "picture"),
        ("image/jpeg", b"\n<!DOCTYPE html><p>x", "page"),
        ("image/svg+xml", b"<svg xmlns='x'></svg>", "other"),
        ("text/html", b"BMW cars", "page"),
        ("", b"BM\x00\x00", "picture"),
        ("text/html", b"", "page"),
        ("text/html", b"%PDF-1.7", "other"),
        ("application/pdf", b"", "other"),
        ("", b"<!-- x --><?xml version='1'?> <HTML>", "page"),
        ("application/octet-stream", b"\xef\xbb\xbf<html>", "page"),
        ("", b"\xff\xfe<\0h\0t\0m\0l\0>\0", "page"),
        ("", b"{\"a\":1}", "other"),
        ("", b"", "other"),
        ("application/rss+xml", b"<?xml version='1'?><rss/>", "other"),
        ("application/xhtml+xml", b"<?xml version='1'?><html/>", "page"),
    ] {
        assert_eq!(of(content_type, body), expected, "{content_type:?} {:?}", String::from_utf8_lossy(body));
    }
    let xhtml = "<html><head><title/><script src='x'/></head><body><img src='a.jpg'/></body></html>";
    assert_eq!(read_as("application/xhtml+xml", xhtml.as_bytes()).expect("a page").images.len(), 1);
}

#[test]
fn impossible_settings_are_refused() {
    assert_eq!(MineSettings::default().check(), Ok(()));
    let settings = MineSettings { depth_max: 4, ..MineSettings::default() };
    assert_eq!(settings.check(), Err(("depth_max", "16 to 1024".to_owned())));
    assert!(serde_json::from_str::<MineSettings>("{\"image_max\":1}").is_err());
}
