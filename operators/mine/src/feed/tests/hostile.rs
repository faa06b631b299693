//! Feeds made to be expensive or broken: each must be read, quickly, and with everything that stood before the fault.

use std::fmt::Write;

use super::*;

/// Reads a feed on a thread with the small stack of a blocking thread; fails if it takes longer than `seconds` (several
/// times what it takes, since tests run side by side).
#[track_caller]
fn within(seconds: u64, body: String) -> (String, String) {
    let start: String = body.chars().take(60).collect();
    let (done, wait) = std::sync::mpsc::channel();
    let run = move || drop(done.send(read_as("", body.as_bytes()).as_ref().map(found)));
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).expect("a thread");
    let reading = wait.recv_timeout(std::time::Duration::from_secs(seconds));
    reading.unwrap_or_else(|error| panic!("{error}: {start}")).expect("a listing")
}

const FIRST: &str = "<item><link>/first</link></item>";
const LAST: &str = "<item><link>/last</link></item>";

#[track_caller]
fn survives(between: &str) {
    assert_eq!(within(20, rss(&format!("{FIRST}{between}{LAST}"))).0, "/first /last");
}

#[test]
fn tags_that_do_not_match_cost_only_themselves() {
    for between in [
        "<item><link>https://other.example/</b></item>",
        "<item><title>a</item>",
        "</item></title></x>",
        "<item><x><y></item>",
        "<item><description>&lt;p</item>",
        "<item><br><br></title></item>",
        "<title>a < b</title>",
        "<title>a & b &nbsp; &#; &#0; &amp</title>",
        "<title a=1 a=1 b c='>'>]]></title>",
        "\0\u{1}<title>\0</title>",
        "<?php echo 1 ?>",
        "<!-- a -- b --->",
    ] {
        survives(between);
    }
    assert_eq!(within(5, rss("<item><link>/a</item><item><link>/b</link></item>")).0, "/b");
    assert_eq!(
        within(5, rss("<item><link>/a</link><item><link>/b</link><item><guid>https://site.example/c</guid>")).0,
        "/a /b"
    );
    assert_eq!(within(5, urlset("<url><loc>/a</loc><url><loc>/b</loc></url><url><loc>/c")).0, "/a /b");
}

#[test]
fn what_stands_before_a_fault_counts() {
    let (first, second) =
        ("<url><loc>/a</loc></url>", "<url><loc>/b</loc><image:image><image:loc>b.jpg</image:loc></image:image></url>");
    let whole = urlset(&format!("{first}{second}"));
    let links = |body: &str| found(&read_as("", body.as_bytes()).expect("a sitemap")).0;
    let before = whole.find("/a</loc>").expect("is there") + "/a</loc>".len();
    let between = whole.find("/b</loc>").expect("is there") + "/b</loc>".len();
    for end in whole.find('>').expect("is there") + 1..=whole.len() {
        let expected = if end < before {
            ""
        } else if end < between {
            "/a"
        } else {
            "/a /b"
        };
        assert_eq!(links(&whole[..end]), expected, "{}", &whole[..end]);
    }
    for fault in ["<", "<!", "<!x>", "<!-- ", "<![CDATA[", "<?x", "</", "<x a='"] {
        assert_eq!(links(&urlset(&format!("{first}{fault}{second}"))).split(' ').next(), Some("/a"), "{fault}");
    }
}

#[test]
fn entities_are_not_expanded() {
    let mut laughs = String::from("<!DOCTYPE rss [<!ENTITY a0 'ha'>");
    for i in 1..30 {
        write!(laughs, "<!ENTITY a{i} '{}'>", format!("&a{};", i - 1).repeat(10)).expect("memory");
    }
    laughs += "<!ENTITY secret SYSTEM 'file:///etc/passwd'>]>";
    let body = laughs
        + &rss(&format!("{FIRST}<item><link>/&a29;&secret;</link></item>{LAST}")).replace("<?xml version='1.0'?>", "");
    assert_eq!(within(5, body).0, "/first /&a29;&secret; /last");
}

#[test]
fn depth_and_length_are_bounded() {
    survives(&format!("{}{}", "<x>".repeat(200_000), "</x>".repeat(200_000)));
    survives(&format!("<item>{}</item>", "<x>".repeat(200_000)));
    let unclosed = rss(&format!("{FIRST}{}{LAST}", "<x>".repeat(200_000)));
    assert_eq!(within(20, unclosed).0, "/first", "nothing closes it, and what is too deep is passed over");
    survives(&"<item>".repeat(40_000));
    survives(&format!("{}{}", "<link>".repeat(100_000), "</link>".repeat(100_000)));
    survives(&format!("<item><description>{}</description></item>", "<div>".repeat(100_000)));
    survives(&format!("<item><description>{}</description></item>", "&lt;div&gt;".repeat(100_000)));
    survives(&"<item><description>&lt;b&gt;</description></item>".repeat(20_000));
    survives(&format!("<item x='{}'></item>", "y".repeat(4_000_000)));
    survives(&format!("<item {}></item>", (0..200_000).map(|i| format!("a{i}='' ")).collect::<String>()));
    survives(&format!("{}<x/>", (0..20_000).map(|i| format!("<x xmlns:a{i}='b'></x>")).collect::<String>()));
    survives(&format!("<{}/>", "x".repeat(1_000_000)));
    survives(&format!("<title>{}</title>", "&".repeat(1_000_000)));
    survives(&format!("<title>{}</title>", "&amp;".repeat(500_000)));
    survives(&format!("<item><link>/{}</link></item>", "x".repeat(4_000_000)));
    survives(&"</x>".repeat(500_000));
    survives(&"<!---->".repeat(300_000));
}

#[test]
fn hostile_json_and_text_are_bounded() {
    let feed = |items: &str| {
        format!("{{\"version\":\"https://jsonfeed.org/version/1\",\"items\":[{{\"url\":\"/first\"}}{items}")
    };
    assert_eq!(within(10, feed(&",[".repeat(1_000_000))).0, "/first");
    assert_eq!(within(10, feed(&format!(",{}", "{\"items\":[".repeat(200_000)))).0, "/first");
    assert_eq!(
        within(10, feed(&format!(",{{\"url\":\"/{}\"}},{{\"url\":\"/last\"}}", "x".repeat(4_000_000)))).0,
        "/first /last"
    );
    assert_eq!(within(10, feed(",{\"url\":\"\\ud800\"},{\"url\":\"/no\"}")).0, "/first", "the fault is where it ends");
    assert_eq!(within(20, feed(&",{}".repeat(1_000_000))).0, "/first");
    let lines = format!(
        "https://www.site.example/first\n{}\nhttps://www.site.example/last",
        "https://www.site.example/".repeat(200_000)
    );
    assert_eq!(within(10, lines).0, "/first /last");
    assert_eq!(within(10, "https://www.site.example/first\n".repeat(8) + &"\0\n".repeat(1_000_000)).0, "/first");
}
