//! What is read out of feeds, format by format; the hostile and the suites have files of their own.

mod hostile;
mod suites;

use faceflow_core::record::ContentId;
use url::Url;

use super::*;
use crate::html::ExtractedImage;

const LISTING: &str = "https://www.site.example/dir/listing";

pub(super) fn read_with(settings: &MineSettings, content_type: &str, body: &[u8]) -> Option<ExtractedPage> {
    let url = Url::parse(LISTING).expect("a URL");
    let content_type = Some(content_type).filter(|content_type| !content_type.is_empty());
    read(&Source { url: &url, content_type, body }, settings)
}

pub(super) fn read_as(content_type: &str, body: &[u8]) -> Option<ExtractedPage> {
    read_with(&MineSettings::default(), content_type, body)
}

/// Relative to the feed's folder where that is shorter.
fn short(url: &Url) -> String {
    let text = url.as_str();
    let rest =
        text.strip_prefix("https://www.site.example/dir/").or_else(|| text.strip_prefix("https://www.site.example"));
    rest.unwrap_or(text).to_owned()
}

/// Links and pictures, each separated by spaces.
pub(super) fn found(reading: &ExtractedPage) -> (String, String) {
    let images = reading.images.iter().map(|ExtractedImage { url, .. }| short(url)).collect::<Vec<_>>();
    (reading.links.iter().map(short).collect::<Vec<_>>().join(" "), images.join(" "))
}

#[track_caller]
fn check(body: &str, links: &str, images: &str) {
    let reading = read_as("application/xml", body.as_bytes()).unwrap_or_else(|| panic!("a feed: {body}"));
    assert_eq!(found(&reading), (links.to_owned(), images.to_owned()), "{body}");
}

fn urlset(entries: &str) -> String {
    format!("<urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>{entries}</urlset>")
}

fn rss(items: &str) -> String {
    format!("<?xml version='1.0'?><rss version='2.0'><channel><link>/home</link>{items}</channel></rss>")
}

fn atom(entries: &str) -> String {
    format!("<feed xmlns='http://www.w3.org/2005/Atom'><link href='/home'/>{entries}</feed>")
}

#[test]
fn sitemaps_name_pages_and_their_pictures() {
    for (entries, links, images) in [
        (
            "<url><loc>\n https://www.site.example/a \n</loc><lastmod>2026-01-01</lastmod></url><url><loc>b</loc></url>",
            "/a b",
            "",
        ),
        (
            "<url><loc>/a?x=1&amp;y=2#z</loc></url><url><loc><![CDATA[/b?x=1&y=2]]></loc></url>",
            "/a?x=1&y=2 /b?x=1&y=2",
            "",
        ),
        ("<url><loc>/a?x=1&y=2</loc></url><url><loc>/a?x=1&#38;y=2</loc></url>", "/a?x=1&y=2", ""),
        (
            "<url><loc>https://other.example/</loc></url><url><loc>//site.example/b</loc></url>",
            "https://site.example/b",
            "",
        ),
        (
            "<url><loc>/a.jpg</loc></url><url><loc>/a.pdf</loc></url><url><loc>listing</loc></url><url><loc/></url>",
            "",
            "/a.jpg",
        ),
        (
            "<url><loc>/a</loc><image:image><image:loc>https://cdn.example/1.jpg</image:loc><image:license>/no</image:license></image:image><image:image><image:loc>2</image:loc></image:image></url>",
            "/a",
            "https://cdn.example/1.jpg 2",
        ),
        (
            "<url><video:video><video:thumbnail_loc>t</video:thumbnail_loc><video:content_loc>/v.mp4</video:content_loc><video:player_loc>/p</video:player_loc></video:video><loc>/a</loc></url>",
            "/a",
            "t",
        ),
        ("<url><loc>/a</loc><xhtml:link rel='alternate' hreflang='de' href='/de'/></url>", "/a /de", ""),
        ("<url>https://www.site.example/bare</url><url> words </url>", "/bare", ""),
    ] {
        check(&urlset(entries), links, images);
    }
    check("<s:urlset xmlns:s='x'><s:url><s:loc>/a</s:loc></s:url></s:urlset>", "/a", "");
}

#[test]
fn an_index_names_feeds_which_are_files() {
    let index = "<sitemapindex><sitemap><loc>/a.xml</loc></sitemap><sitemap><loc>/b.xml.gz?c</loc><lastmod>x</lastmod></sitemap>\
                 <sitemap><loc>/c</loc></sitemap><sitemap><loc>https://other.example/d.xml</loc></sitemap>\
                 <sitemap><loc>/e.jpg</loc></sitemap><sitemap><loc>/f.txt</loc></sitemap></sitemapindex>";
    check(index, "/a.xml /b.xml.gz?c /c /f.txt", "");
    check(&urlset("<url><loc>/a.xml</loc></url>"), "", "");
}

#[test]
fn texts_name_one_page_a_line() {
    let text = "\u{feff}https://www.site.example/a\r\n\r\n https://www.site.example/b?c=d&e \nhttps://www.site.example/c.jpg\nHTTP://other.example/\n";
    for content_type in ["text/plain; charset=utf-8", "application/octet-stream", "application/x-gzip", ""] {
        let reading = read_as(content_type, text.as_bytes()).expect(content_type);
        assert_eq!(found(&reading), ("/a /b?c=d&e".to_owned(), "/c.jpg".to_owned()), "{content_type}");
    }
    let late = format!("{}no address\n/c\nhttps://www.site.example/d", "https://www.site.example/a\n".repeat(9));
    assert_eq!(found(&read_as("text/plain", late.as_bytes()).expect("eight lines suffice")).0, "/a /d");
    for other in [
        "see https://www.site.example/a",
        "https://www.site.example/a is a page",
        "",
        "\n \n",
        "https://www.site.example/a\nwords",
    ] {
        assert_eq!(read_as("text/plain", other.as_bytes()), None, "{other}");
    }
    assert_eq!(read_as("text/html", text.as_bytes()), None, "HTML stays HTML");
}

#[test]
fn rss_names_its_items() {
    for (items, links, images) in [
        ("<item><link>/a</link></item><item><link> https://www.site.example/b </link></item>", "/a /b", ""),
        ("<item><guid>https://www.site.example/a</guid></item><item><guid>17</guid></item>", "/a", ""),
        ("<item><guid>https://www.site.example/no</guid><link>/a</link><comments>/no</comments></item>", "/a", ""),
        ("<item><link>https://feeds.example/~r/1</link><feedburner:origLink>/a</feedburner:origLink></item>", "/a", ""),
        (
            "<atom:link rel='self' href='/no'/><atom:link rel='next' href='page2.xml'/><item><atom:link href='/a'/></item>",
            "page2.xml /a",
            "",
        ),
        (
            "<image><url>logo.png</url><title>x</title><link>/no</link></image><itunes:image href='i'/>",
            "",
            "logo.png i",
        ),
        (
            "<item><enclosure url='a.jpg' type='image/jpeg'/><enclosure url='b' type='IMAGE/PNG'/><enclosure url='c.mp3' type='audio/mpeg'/><enclosure url='d.jpg'/></item>",
            "",
            "a.jpg b d.jpg",
        ),
        (
            "<item><media:content url='a' medium='image'/><media:content url='b.jpg' medium='video'/><media:group><media:content url='c' type='image/png'/><media:content url='d.jpg'/><media:content url='e'/></media:group><media:thumbnail url='f'/></item>",
            "",
            "a c d.jpg f",
        ),
        (
            "<item><link>/a</link><itunes:image href='a.jpg'/><image>b.jpg</image><image>https://www.site.example/c</image></item>",
            "/a",
            "a.jpg /c",
        ),
        (
            "<item><description>&lt;p&gt;&lt;img src='a.jpg?x=1&amp;amp;y'&gt;&lt;a href='/no'&gt;&lt;/a&gt;&lt;a href='b.jpg'&gt;</description></item>",
            "",
            "a.jpg?x=1&y b.jpg",
        ),
        (
            "<item><content:encoded><![CDATA[<img srcset='a.jpg 1x, b.jpg 2x'><meta name=robots content=noai><style>i{background:url(c.jpg)}</style>]]></content:encoded><link>/a</link></item>",
            "/a",
            "b.jpg c.jpg",
        ),
        (
            "<item><description><p>text <img src='a.jpg'><br>more<link>/no</link></description><link>/a</link></item>",
            "/a",
            "a.jpg",
        ),
        (
            "<item><link>/1</link><media:thumbnail url='1.jpg'/></item><item><link>/2</link><link>/1</link><media:thumbnail url='1.jpg'/></item>",
            "/1 /2",
            "1.jpg",
        ),
    ] {
        check(&rss(items), links, images);
    }
    let reading =
        read_as("", rss("<item><description>&lt;meta name=robots content=noai&gt;</description></item>").as_bytes());
    assert_eq!(reading.expect("a feed").named_meta, [], "what is quoted is not the feed's");
}

#[test]
fn old_rss_is_read_alike() {
    let rdf = "<?xml version='1.0'?><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' xmlns='http://purl.org/rss/1.0/'>\
               <channel rdf:about='/no'><link>/no</link><items><rdf:Seq><rdf:li resource='/no'/></rdf:Seq></items></channel>\
               <image rdf:about='/no'><url>logo.gif</url><link>/no</link></image><item rdf:about='/a'><link>/a</link></item></rdf:RDF>";
    check(rdf, "/a", "logo.gif");
    let old = "<!DOCTYPE rss PUBLIC '-//Netscape Communications//DTD RSS 0.91//EN' 'http://my.netscape.com/publish/formats/rss-0.91.dtd' [<!ENTITY a '>'> ]>\
               <rss version='0.91'><channel><item><link>/a</link></item></channel></rss>";
    check(old, "/a", "");
    assert_eq!(read_as("", b"<rdf:RDF xmlns:rdf='x' xmlns='http://xmlns.com/foaf/0.1/'><item/></rdf:RDF>"), None);
}

#[test]
fn atom_names_its_entries() {
    for (entries, links, images) in [
        (
            "<entry><link href='/a'/><link rel='alternate' type='text/html' href='/a.html'/><link rel='edit' href='/no'/></entry>",
            "/a /a.html",
            "",
        ),
        (
            "<entry><link rel='alternate' type='application/pdf' href='/no'/><id>https://www.site.example/a</id></entry>",
            "/a",
            "",
        ),
        (
            "<entry><link href='https://www.site.example/a'/><id>https://www.site.example/no</id></entry><entry><id>urn:x</id></entry>",
            "/a",
            "",
        ),
        (
            "<link rel='next' href='?page=2'/><link rel='prev-archive' href='old.xml'/><link rel='prev' href='/no'/><logo>l.png</logo><icon>/no.ico</icon>",
            "listing?page=2 old.xml",
            "l.png",
        ),
        (
            "<entry><link rel='enclosure' type='image/png' href='a'/><link rel='enclosure' type='audio/mpeg' href='b'/><media:thumbnail url='c'/></entry>",
            "",
            "a c",
        ),
        ("<entry><content type='html'>&lt;img src=a.jpg&gt;</content><summary>plain</summary></entry>", "", "a.jpg"),
        (
            "<entry><content type='xhtml'><div xmlns='http://www.w3.org/1999/xhtml'><p><img src='a.jpg?x&amp;y'/><a href='/no'>x</a><summary>s</summary><content>t</content></p></div></content><link href='/a'/></entry>",
            "/a",
            "a.jpg?x&y",
        ),
        (
            "<entry><content type='image/png' src='a'/><content type='text/html' src='no'/></entry><entry><link href='/b'/></entry>",
            "/b",
            "a",
        ),
        (
            "<entry xml:base='/x/'><link href='a'/><content xml:base='y/' type='html'>&lt;img src=a.jpg&gt;</content><link href='b'/></entry><entry><link href='c'/></entry>",
            "/x/a /x/b c",
            "/x/y/a.jpg",
        ),
    ] {
        check(&atom(entries), links, images);
    }
    check(
        "<feed version='0.3' xmlns='http://purl.org/atom/ns#'><entry><link rel='alternate' type='text/html' href='/a'/></entry></feed>",
        "/a",
        "",
    );
}

#[test]
fn json_feeds_are_read_value_by_value() {
    let feed = r#"{"version":"https:\/\/jsonfeed.org\/version\/1.1","home_page_url":"/no","next_url":"?2","icon":"icon.png","favicon":"no.ico",
        "author":{"name":"A","avatar":"author.jpg"},"items":[
        {"id":"/no","url":"/a","external_url":"https://other.example/","image":"a.jpg","banner_image":"b","content_html":"<img src=c.jpg><a href=/no>","content_text":"<img src=no.jpg>"},
        {"url":null,"image":7,"tags":["x"],"authors":[{"avatar":"d.jpg"},5],"attachments":[{"mime_type":"image/png","url":"e"},{"url":"f.mp3","mime_type":"audio/mpeg"},{"url":"g.jpg"}]},
        "no item",{"url":"/b","_x":{"url":"/no","image":"no"}}]}"#;
    let expected = ("listing?2 /a /b".to_owned(), "icon.png author.jpg a.jpg b c.jpg d.jpg e g.jpg".to_owned());
    for content_type in ["application/feed+json", "application/json; charset=utf-8", "text/plain", ""] {
        assert_eq!(found(&read_as(content_type, feed.as_bytes()).expect(content_type)), expected, "{content_type}");
    }
    let last = r#"{"items":[{"url":"/a"}],"version":"https://jsonfeed.org/version/1"}"#;
    assert_eq!(found(&read_as("application/json", last.as_bytes()).expect("a feed")).0, "/a");
    let cut = &last[..last.len() - 40];
    assert_eq!(read_as("application/json", cut.as_bytes()), None, "nothing says that it is a feed");
    assert_eq!(found(&read_as("application/feed+json", cut.as_bytes()).expect("a feed")).0, "/a");
    for other in [
        r#"{"items":[{"url":"/a"}]}"#,
        r#"{"version":"1","text":"jsonfeed.org"}"#,
        r#"["https://jsonfeed.org/version/1"]"#,
        "{",
    ] {
        assert_eq!(read_as("application/json", other.as_bytes()), None, "{other}");
    }
}

#[test]
fn the_content_says_what_is_a_listing() {
    let sitemap = urlset("<url><loc>/a</loc></url>");
    for content_type in ["text/html", "text/plain", "application/octet-stream", "image/jpeg", "application/gzip", ""] {
        assert!(read_as(content_type, sitemap.as_bytes()).is_some(), "{content_type}");
    }
    for start in [
        "\u{feff}",
        "\n\n",
        "<?xml version='1.0'?>\n<?xml-stylesheet href='x'?>",
        "<!-- <html> --><!---->",
        "<!DOCTYPE urlset>",
    ] {
        check(&format!("{start}{sitemap}"), "/a", "");
    }
    for page in [
        "<?xml version='1.0' encoding='utf-8'?><!DOCTYPE html PUBLIC 'x' 'y'><html xmlns='http://www.w3.org/1999/xhtml'><urlset/></html>",
        "<!-- <rss> --><html><rss></html>",
        "<p><rss><channel>",
        "<svg xmlns='x'><feed/></svg>",
        "<feedback/>",
        "words <rss>",
        "<rs",
        "<",
        "<!-- <rss>",
        "<!DOCTYPE [ <rss>",
        "",
    ] {
        assert_eq!(read_as("application/xml", page.as_bytes()), None, "{page}");
    }
    assert_eq!(found(&read_as("", b"<rss").expect("the beginning of a feed")), (String::new(), String::new()));
}

#[test]
fn the_languages_of_a_page_are_pages() {
    let entry = |links: &str| read_as("", urlset(&format!("<url><loc>/p</loc>{links}</url>")).as_bytes());
    let links = |links: &str| found(&entry(links).expect("a sitemap")).0;
    for (alternates, expected) in [
        ("<xhtml:link rel='alternate' hreflang='fr' href='/fr/p'/>", "/p /fr/p"),
        ("<xhtml:link rel=\"alternate\" hreflang=\"de\" href=\" /de/p \"></xhtml:link>", "/p /de/p"),
        ("<link rel='alternate' media='only screen' href='/m/p'/>", "/p /m/p"),
        ("<xhtml:link rel='alternate' hreflang='en' href='/p'/>", "/p"),
        ("<xhtml:link rel='alternate' type='application/rss+xml' href='/feed'/>", "/p"),
        ("<xhtml:link rel='amphtml' href='/amp/p'/>", "/p"),
        ("<xhtml:link rel='alternate' hreflang='fr' href='https://other.example/p'/>", "/p"),
    ] {
        assert_eq!(links(alternates), expected, "{alternates}");
    }
}

#[test]
fn character_sets_are_those_of_pages() {
    let sitemap = |encoding: &str| {
        format!("<?xml version='1.0' encoding='{encoding}'?><urlset><url><loc>/\u{e9}?\u{e9}</loc></url></urlset>")
    };
    let latin = |text: &str| text.chars().map(|char| char as u8).collect::<Vec<_>>();
    let wide = |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<_>>();
    let links = |content_type: &str, body: &[u8]| found(&read_as(content_type, body).expect("a sitemap")).0;
    let (unicode, in_latin) = ("/%C3%A9?%C3%A9", "/%C3%A9?%E9");
    assert_eq!(links("", sitemap("UTF-8").as_bytes()), unicode);
    assert_eq!(
        links("text/xml; charset=utf-8", sitemap("iso-8859-1").as_bytes()),
        unicode,
        "the header is asked first"
    );
    assert_eq!(links("text/xml", &latin(&sitemap("ISO-8859-1"))), in_latin);
    assert_eq!(links("text/xml; charset=iso-8859-1", &latin(&sitemap("UTF-8"))), in_latin);
    for unit in [u16::to_le_bytes, u16::to_be_bytes] {
        assert_eq!(links("application/xml", &wide(&sitemap("UTF-16"), unit)), unicode, "without a mark");
        assert_eq!(
            links("application/xml", &wide(&format!("\u{feff}{}", sitemap("UTF-16")), unit)),
            unicode,
            "with a mark"
        );
    }
}

#[test]
fn limits_are_kept() {
    let entries = |from: usize, to: usize| {
        (from..to)
            .map(|i| format!("<url><loc>/{i}</loc><i:image><i:loc>{i}.jpg</i:loc></i:image></url>"))
            .collect::<String>()
    };
    let settings = MineSettings {
        feed_entries_max: 3,
        feed_images_max: 2,
        links_max: 1,
        images_max: 1,
        ..MineSettings::default()
    };
    let read = |body: &str| found(&read_with(&settings, "", body.as_bytes()).expect("a listing"));
    assert_eq!(read(&urlset(&entries(0, 9))), ("/0 /1 /2".to_owned(), "0.jpg 1.jpg".to_owned()));
    assert_eq!(read(&rss(&"<item><link>/a</link></item>".repeat(2))).0, "/a");
    assert_eq!(
        read(&atom(&(0..9).map(|i| format!("<entry><link href='{i}'/></entry>")).collect::<String>())).0,
        "0 1 2"
    );
    assert_eq!(read(&(0..9).map(|i| format!("https://www.site.example/{i}\n")).collect::<String>()).0, "/0 /1 /2");
    let items = (0..9).map(|i| format!("{{\"url\":\"/{i}\"}}")).collect::<Vec<_>>().join(",");
    assert_eq!(read(&format!("{{\"version\":\"https://jsonfeed.org/version/1\",\"items\":[{items}]}}")).0, "/0 /1 /2");
    assert_eq!(
        found(&read_as("", urlset(&entries(0, 50_001)).as_bytes()).expect("a sitemap")).0.split(' ').count(),
        50_000
    );
}

#[test]
fn pictures_inside_the_feed_keep_their_bytes() {
    let feed =
        rss("<item><description>&lt;img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='&gt;</description></item>");
    let images = read_as("", feed.as_bytes()).expect("a feed").images;
    let bytes = b"GIF89a\x01\x00\x01\x00\x00\x00\x00\x2c";
    assert_eq!(images.len(), 1);
    assert_eq!(
        (images[0].url.as_str(), images[0].inline.as_deref()),
        (format!("data:sha256,{}", ContentId::of(bytes)).as_str(), Some(&bytes[..]))
    );
}
