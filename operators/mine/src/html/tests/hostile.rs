//! Pages made to be expensive: each must be read, quickly, and with everything on it.

use std::fmt::Write;

use super::*;

/// Reads a page on a thread with the small stack of a blocking thread; fails if it costs more than `seconds` of
/// CPU-bound time (several times what it takes, since tests run side by side).
fn within(seconds: u64, html: String) -> ExtractedPage {
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let (done, wait) = std::sync::mpsc::channel();
    let run = move || done.send(reading(&html)).expect("somebody waits");
    let handle = thread.spawn(run).expect("a thread");
    let reading = wait.recv_timeout(std::time::Duration::from_secs(seconds)).expect("read in time");
    handle.join().expect("no panic");
    reading
}

const LAST: &str = "<img src=last.jpg><a href=last>x</a>";

fn survives(html: String) {
    let start: String = html.chars().take(60).collect();
    let reading = within(20, html + LAST);
    assert!(reading.images.iter().any(|found| short(&found.url) == "last.jpg"), "{start}");
    assert!(reading.links.iter().any(|link| short(link) == "last"), "{start}");
}

#[test]
fn deep_nesting_is_read_to_the_bottom() {
    for tag in [
        "div", "span", "b", "table", "ul><li", "svg", "math", "select", "template", "a href=x", "object", "p><b",
        "frameset", "form", "button", "td", "rb", "h1",
    ] {
        survives(format!("<{tag}>").repeat(100_000));
    }
}

#[test]
fn nesting_that_end_tags_hide_is_bounded() {
    for part in [
        "<div><table></div></table>",
        "<span><div></span></div>",
        "<a><object></a></object>",
        "<svg><desc></svg><style><div></style></desc>",
        "<p><b x=1></p>",
        "<b><p></b>",
        "<table><b>",
        "<a><table>",
    ] {
        survives(part.repeat(50_000));
    }
}

#[test]
fn attributes_comments_and_bodies_without_end_are_bounded() {
    let attributes = (0..300_000).fold(String::from("<p "), |mut out, i| {
        write!(out, "a{i}=1 ").expect("memory");
        out
    });
    survives(attributes + ">");
    survives((0..100_000).fold(String::new(), |mut out, i| {
        write!(out, "<body a{i}=1>").expect("memory");
        out
    }));
    survives("<!-->x".repeat(300_000));
    survives("</p>".repeat(300_000));
    survives("<br>".repeat(300_000));
    survives("<x y='".to_owned() + &"<".repeat(1_000_000) + "'>");
    survives("<style>".to_owned() + &"a{".repeat(300_000) + "</style>");
    survives("<p style='a:".to_owned() + &"url(".repeat(300_000) + "'>");
    survives("<script type=application/ld+json>".to_owned() + &"[".repeat(500_000) + "</script>");
    survives("<picture>".to_owned() + &"<source srcset=a.jpg>".repeat(100_000) + "</picture>");
    survives(format!("<img srcset='{}'>", "a.jpg 1x,".repeat(100_000)));
    survives("a\0b<p\0>".repeat(100_000));
}

#[test]
fn unfinished_markup_is_read_as_far_as_it_goes() {
    for end in [
        "<",
        "<a",
        "<a href",
        "<a href=",
        "<a href='x",
        "<!--",
        "<!-",
        "<style>",
        "<script>x</scrip",
        "<img src=x.jpg",
        "</",
        "<!",
    ] {
        let html = format!("<img src=a.jpg>{end}");
        assert_eq!(images(&html), "a.jpg", "{html}");
    }
}

#[test]
fn a_million_links_are_read_within_limits() {
    let links = (0..1_000_000).fold(String::new(), |mut out, i| {
        write!(out, "<a href=/{i}>").expect("memory");
        out
    });
    let reading = within(60, links);
    assert_eq!((reading.links.len(), short(&reading.links[9_999]).as_str()), (10_000, "/9999"));
    let images = within(20, "<img src=a.jpg><i data-src=b.jpg style='background:url(c.jpg)'>".repeat(20_000));
    assert_eq!(images.images.len(), 3);
}

#[test]
fn what_is_repeated_in_one_attribute_is_read_once() {
    let long = "x".repeat(8_000);
    survives(format!("<p itemprop='{}' content='{long}'>", "image ".repeat(500_000)));
    survives(format!("<link rel='{}' href='{long}'>", "next image_src ".repeat(200_000)));
    survives(format!("<meta property='{}' content='{long}'>", "og:image ".repeat(300_000)));
}

#[test]
fn a_page_in_pieces_loses_nothing() {
    let html = (0..5_000).fold(String::from("<table>"), |mut out, i| {
        write!(out, "<tr><td><div><a href={i}><picture><source srcset='{i}.webp 9w'><img src={i}.jpg></picture></a>")
            .expect("memory");
        out
    });
    let url = Url::parse(PAGE).expect("a URL");
    let source = Source { url: &url, content_type: Some("text/html"), body: html.as_bytes() };
    let settings = MineSettings { tags_max: 100, depth_max: 16, ..MineSettings::default() };
    let pieces = read(&source, &settings).expect("a page");
    assert_eq!((pieces.links.len(), pieces.images.len()), (5_000, 5_000));
    assert_eq!(pieces, read(&source, &MineSettings::default()).expect("a page"));
}

#[test]
fn what_addresses_take_together_is_bounded_and_every_picture_comes_before_further_alternates() {
    let base = format!("<base href=\"http://a.example/{}/\">", "x".repeat(8_000));
    let image = |n: usize| {
        let candidates: Vec<String> = (0..17).map(|m| format!("{n:x}/{m} {}w", m + 1)).collect();
        format!("<img srcset=\"{}\">", candidates.join(","))
    };
    let html = base + &(0..10_000).map(image).collect::<String>();
    let text = html.len();
    let reading = within(60, html);
    let bytes = |found: &ExtractedImage| {
        found.url.as_str().len() + found.alternates.iter().map(|url| url.as_str().len()).sum::<usize>()
    };
    let all: usize = reading.images.iter().map(bytes).sum();
    assert!(all <= text.max(16 << 20), "{all} bytes of addresses, of {text} bytes of text");
    assert!(reading.images.len() > 1_000, "{} pictures", reading.images.len());
    assert!(reading.images.iter().any(|found| !found.alternates.is_empty()));
}
