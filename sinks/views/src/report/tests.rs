//! The report shows what there is, and is safe whatever the web sent.

use bytes::Bytes;
use faceflow_core::Fault;
use faceflow_core::fact::Fact;
use faceflow_core::fault::Class;
use faceflow_core::object_key::thumb_key;
use faceflow_core::record::{Disposition, Frame, Image, Work};
use faceflow_ledger::Selection;
use faceflow_ledger::both;
use faceflow_ledger::testing::{
    Rig, admitted, content, dead, delivered, delivered_at, fault, frame, image, image_with, kept, page, read, rejected,
    retry, ruled, wait,
};
use faceflow_store::Objects;
use url::Url;

use super::html::{Address, visible};
use super::*;

both![
    faces_duplicates_totals_and_failures_are_shown,
    limits_hold,
    an_empty_ledger_has_a_report,
    hostile_text_stays_text,
    a_report_that_follows_is_that_of_one_look,
];

fn report(rig: &Rig, store: &Objects, settings: &ReportSettings) -> String {
    let key = wait(Report::default().write(rig.reader(), store, settings)).expect("writes").expect("is wanted");
    assert_eq!(key, "report.html");
    String::from_utf8(wait(store.get(key)).expect("is there").to_vec()).expect("text")
}

fn world() -> (Rig, Objects) {
    let images = ["/b", "/c", "/d", "/e", "/f"].map(image);
    let rig = Rig::showing([vec![image_with("/a", &["/a-small"])], images.to_vec()].concat());
    rig.tell_all([kept(image("/a"), "one"), delivered("one", 3), kept(image("/b"), "two"), ruled("two", "one", 2)]);
    rig.tell_all([kept(image("/c"), "three"), delivered("three", 0), rejected(image("/d")), retry(image("/e"), 5)]);
    rig.tell_all([kept(image("/f"), "four"), dead(Work::Frame(frame("four")))]);
    let store = Objects::open("memory://").expect("opens");
    wait(store.put(thumb_key("default", content("one").id), Bytes::from_static(b"a thumbnail"))).expect("puts");
    (rig, store)
}

fn faces_duplicates_totals_and_failures_are_shown() {
    let (rig, store) = world();
    let page = report(&rig, &store, &ReportSettings::default());
    let cards: Vec<&str> = page.split("<figure>").skip(1).collect();
    assert_eq!(cards.len(), 2);
    assert_eq!(cards[0].matches("<rect").count(), 3, "most faces first");
    assert!(
        cards[0].contains(r#"<svg viewBox="0 0 40 30""#)
            && cards[0].contains(r#"<rect x="11" y="2" width="10" height="20">"#)
    );
    assert!(cards[0].contains("data:image/jpeg;base64,YSB0aHVtYm5haWw="), "the thumbnail is inside");
    assert!(cards[0].contains("2 duplicates") && cards[0].contains("2 bits away") && cards[0].contains("and 1 more"));
    assert!(cards[1].contains("0 faces") && !cards[1].contains("<img"), "no thumbnail is no failure");
    for word in ["http_404", "http_503", "1 image <span class=\"soft\">dead", "7</b>images", "3</b>faces", "1 rejected"]
    {
        assert!(page.contains(word), "{word}");
    }
    assert!(!page.contains("<script") && !page.contains("src=\"http"), "nothing is fetched and nothing runs");
    assert!(page.contains(&format!("href=\"{}\"", cards_key())), "the original is a click away");
}

fn cards_key() -> String {
    faceflow_core::object_key::image_key("default", &content("one"))
}

fn limits_hold() {
    let (rig, store) = world();
    let one = report(&rig, &store, &ReportSettings { images_max: 1, examples_max: 1, ..ReportSettings::default() });
    assert_eq!(one.matches("<figure>").count(), 1);
    let none = ReportSettings { images_max: 0, ..ReportSettings::default() };
    assert_eq!(wait(Report::default().write(rig.reader(), &store, &none)).expect("is not wanted"), None);
    assert_eq!(ReportSettings::default().check(), Ok(()));
    let wrong = ReportSettings { images_max: 1 << 20, ..ReportSettings::default() };
    assert_eq!(wrong.check().expect_err("is impossible").0, "images_max");
    assert_eq!(report_key("acme"), "acme/report.html");
}

fn an_empty_ledger_has_a_report() {
    let page = report(&Rig::new(), &Objects::open("memory://").expect("opens"), &ReportSettings::default());
    assert!(page.contains("0</b>images") && page.ends_with("</html>\n"));
}

fn hostile_text_stays_text() {
    let hostile =
        Image { url: Url::parse("http://a.example/x?\"><script>alert(1)</script>&'").expect("a URL"), ..image("/") };
    let scripted = Image { url: Url::parse("javascript:alert('<b>')").expect("a URL"), ..image("/") };
    let rig = Rig::showing(vec![hostile.clone(), scripted.clone()]);
    rig.tell_all([kept(scripted, "one"), delivered("one", 1)]);
    let fault = Fault::permanent(Class::Refused, "<i>reason", "</span><img src=x onerror=alert(1)>\u{202e}");
    rig.tell(Fact::Failed(Disposition::Rejected { work: Work::Image(hostile), fault, again: None }));
    let page = report(&rig, &Objects::open("memory://").expect("opens"), &ReportSettings::default());
    for bad in ["<script", "<img src=x", "<i>reason", "('<b>", "(&#39;<b>", "href=\"javascript", "\u{202e}"] {
        assert!(!page.contains(bad), "{bad}");
    }
    assert!(page.contains("&#60;i&#62;reason") && page.contains("javascript:alert("), "it is all there to read");
}

#[test]
fn only_the_web_is_linked() {
    let link = |address: &str| Address::new(address).to_string();
    assert!(
        link("https://a.example/?a=1&b=<2>")
            .contains("href=\"https://a.example/?a=1&#38;b=%3C2%3E\" rel=\"noreferrer noopener\"")
    );
    for address in ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "vbscript:x", "no address"] {
        assert!(!link(address).contains("href"), "{address}");
    }
    let text = link("<a b='c' d=\"e\">&");
    assert!(
        !text["<span class=\"url\">".len()..text.len() - "</span>".len()].contains(['<', '>', '"', '\'']),
        "{text}"
    );
    assert_eq!(visible("a\u{7}\u{202e}b"), "a\u{fffd}\u{fffd}b");
}

/// A life with everything in it that moves something in the report.
fn life() -> Vec<Fact> {
    let frame_work = |name: &str| Work::Frame(frame(name));
    let answered = Work::Frame(Frame { has_degraded: true, generation: 1, ..frame("three") });
    let stands = Fact::Failed(Disposition::DegradedAccepted { work: answered.clone(), fault: fault("degraded") });
    vec![
        retry(image("/a"), 5),
        kept(image("/b"), "two"),
        kept(image("/c"), "two"),
        retry(frame_work("two"), 7),
        dead(frame_work("two")),
        rejected(image("/a")),
        kept(image("/a-small"), "one"),
        delivered("one", 3),
        kept(image("/d"), "three"),
        delivered_at(0.5, "three", 1),
        retry(answered, 9),
        retry(image("/e"), 9),
        retry(image("/f"), 9),
        stands,
        ruled("two", "one", 4),
        kept(image("/e"), "four"),
        delivered("four", 2),
        ruled("two", "four", 2),
        ruled("one", "four", 3),
        dead(image("/f")),
        admitted(vec![page("/p", 0)]),
        retry(page("/p", 0), 3),
        read(page("/p", 0), vec![], vec![image("/a"), image_with("/g", &["/g-small", "/a-small"]), image("/h")]),
        rejected(image("/g")),
        rejected(image("/g-small")),
        kept(image("/h"), "four"),
    ]
}

fn a_report_that_follows_is_that_of_one_look() {
    let images = ["/b", "/c", "/d", "/e", "/f"].map(image).to_vec();
    let rig = Rig::showing([vec![image_with("/a", &["/a-small", "/a-smaller"])], images].concat());
    let (store, settings) =
        (Objects::open("memory://").expect("opens"), ReportSettings { images_max: 2, ..ReportSettings::default() });
    let mut following = Report::default();
    let mut followed = || {
        let key = wait(following.write(rig.reader(), &store, &settings)).expect("writes").expect("is wanted");
        String::from_utf8(wait(store.get(key)).expect("is there").to_vec()).expect("text")
    };
    let fresh = Objects::open("memory://").expect("opens");
    let mut pages = vec![followed()];
    for fact in life() {
        rig.tell(fact.clone());
        let page = followed();
        assert_eq!(page, report(&rig, &fresh, &settings), "after {fact:?}");
        pages.push(page);
    }
    let all = Selection { dead: true, waiting: true, urls: vec![] };
    assert!(wait(rig.ledger().redrive(all)).expect("drives") > 0);
    assert_eq!(followed(), report(&rig, &fresh, &settings), "after all were driven again");
    pages.dedup();
    assert!(pages.len() > 20, "nearly every fact shows: {}", pages.len());
}
