//! Every fact, every status, and what is refused.

use faceflow_core::ledger::{KnownPicture, OpenSite, State};
use faceflow_core::record::Key;

use super::*;
use crate::ledger::Selection;

both![
    a_page_is_discovered_retried_and_read,
    pages_end_rejected_and_dead_and_are_driven_again,
    a_page_reached_on_a_shorter_way_is_read_again,
    images_are_done_duplicates_rejected_dead_and_open,
    a_detection_that_fails_waits_dies_and_is_driven_again,
    broken_promises_are_refused_by_name,
    page_and_site_of_an_image_do_not_depend_on_who_came_first,
    the_records_of_open_work_come_back_whole,
    a_ledger_gives_out_only_what_was_owed_when_it_was_opened,
    an_unfinished_site_goes_on_where_it_was,
    an_owed_page_that_is_admitted_again_on_a_shorter_way_is_not_owed_twice,
    known_images_are_those_that_were_taken_up,
    tenants_share_a_file_and_nothing_else,
];

fn refused(rig: &Rig, fact: Fact) -> String {
    let (pages, images) = (rig.lines(Kind::Pages), rig.lines(Kind::Images));
    let error = rig.try_tell(fact).expect_err("is illegal");
    assert!(matches!(error, LedgerError::Illegal { .. }), "{error}");
    assert_eq!((pages, images), (rig.lines(Kind::Pages), rig.lines(Kind::Images)), "a refused fact leaves no trace");
    rig.check();
    error.to_string()
}

fn a_page_is_discovered_retried_and_read() {
    let rig = Rig::new();
    rig.tell(start());
    assert_eq!(rig.owed(), [(0, "/".to_owned())]);
    rig.tell(retry(page("/", 0), 5_000));
    assert_eq!(rig.owed(), [(5_000, "/".to_owned())]);
    let line = &rig.lines(Kind::Pages)[0];
    assert_eq!((&line["status"], &line["reason"], &line["attempts"]), (&"open".into(), &"http_503".into(), &1.into()));
    let tried = Page { attempts: 1, ..page("/", 0) };
    rig.tell(read(tried, vec![page("/l", 1)], vec![image("/a.jpg"), image("/b.jpg")]));
    let line = &rig.lines(Kind::Pages)[0];
    let expected = serde_json::json!({"url": "http://a.example/", "final_url": "http://a.example/", "site": "http://a.example/",
        "tenant": "default", "status": "done", "reason": null, "http_status": 200, "depth": 0, "attempts": 2, "links": 1, "images": 2});
    assert_eq!(line, &expected);
    assert_eq!(rig.owed().len(), 3, "the new page and two images");
}

fn pages_end_rejected_and_dead_and_are_driven_again() {
    let rig = Rig::new();
    rig.tell(start());
    rig.tell(read(page("/", 0), vec![page("/x", 1), page("/y", 1), page("/z", 1)], vec![]));
    rig.tell(rejected(page("/x", 1)));
    rig.tell(dead(page("/y", 1)));
    rig.tell(retry(page("/z", 1), 9));
    let statuses: Vec<Value> = rig.lines(Kind::Pages).iter().map(|line| line["status"].clone()).collect();
    assert_eq!(statuses, ["done", "rejected", "dead", "open"]);
    refused(&rig, rejected(page("/x", 1)));
    let drive = |selection| {
        let count = wait(rig.ledger().redrive(selection)).expect("drives");
        rig.check();
        count
    };
    assert_eq!(drive(Selection { dead: true, ..Selection::default() }), 1);
    assert_eq!(rig.owed(), [(0, "/y".to_owned()), (9, "/z".to_owned())]);
    assert_eq!(drive(Selection { waiting: true, ..Selection::default() }), 1);
    assert_eq!(rig.owed(), [(0, "/y".to_owned()), (0, "/z".to_owned())]);
    assert_eq!(drive(Selection { dead: true, waiting: false, urls: vec![url("/x"), url("/nowhere")] }), 1);
    assert_eq!(rig.owed().len(), 3, "a rejected page is driven again when it is named");
    rig.tell(read(page("/x", 1), vec![], vec![]));
}

fn a_page_reached_on_a_shorter_way_is_read_again() {
    let rig = Rig::new();
    rig.tell(start());
    rig.tell(read(page("/", 0), vec![page("/l", 1)], vec![]));
    rig.tell(read(page("/l", 1), vec![page("/d", 2), page("/e", 2), page("/f", 2)], vec![]));
    rig.tell(read(page("/d", 2), vec![], vec![]));
    rig.tell(rejected(page("/e", 2)));
    // Now all three turn up as start pages.
    let sites = ["/d", "/e", "/f"].map(|path| Page { site: url(path), ..page(path, 0) });
    rig.tell(Fact::Admitted(Admitted { visit: None, pages: sites.to_vec(), images: vec![] }));
    assert_eq!(rig.owed().len(), 3);
    // The reading that was under way when /f turned up does not settle what is now owed.
    rig.tell(read(page("/f", 2), vec![], vec![image("/f.jpg")]));
    rig.tell(retry(page("/e", 2), 7));
    assert_eq!(rig.owed().iter().filter(|(due, _)| *due == 0).count(), 4);
    let mut depths = Vec::new();
    rig.ledger().known_pages(&mut |key, depth| depths.push((key, depth))).expect("reads");
    depths.sort();
    let mut expected =
        [("/", 0), ("/l", 1), ("/d", 0), ("/e", 0), ("/f", 0)].map(|(path, depth)| (Key::page(&url(path)), depth));
    expected.sort();
    assert_eq!(depths, expected);
    for site in sites {
        rig.tell(read(site, vec![], vec![]));
    }
    assert_eq!(rig.ledger().tally().expect("counts").0.done, 5);
    rig.tell(read(page("/f", 2), vec![], vec![]));
}

fn images_are_done_duplicates_rejected_dead_and_open() {
    let rig = Rig::showing(["/a", "/b", "/c", "/d", "/e", "/f"].map(image).to_vec());
    rig.tell(kept(image("/b"), "one"));
    rig.tell(kept(image("/a"), "one"));
    rig.tell(kept(image("/c"), "two"));
    rig.tell(rejected(image("/d")));
    rig.tell(dead(image("/e")));
    assert_eq!(rig.statuses(), ["open", "open", "open", "rejected", "dead", "open"]);
    rig.tell(delivered("one", 2));
    assert_eq!(rig.statuses(), ["done", "duplicate", "open", "rejected", "dead", "open"]);
    rig.tell(ruled("two", "one", 3));
    let (one, b, c) = (content("one").id.to_string(), rig.line("/b"), rig.line("/c"));
    assert_eq!(
        (&b["duplicate_of"], &b["distance"], &b["faces"][1]["id"]),
        (&one.clone().into(), &0.into(), &format!("{one}/1").into())
    );
    assert_eq!((&c["status"], &c["duplicate_of"], &c["distance"]), (&"duplicate".into(), &one.into(), &3.into()));
    assert_eq!(rig.statuses(), ["done", "duplicate", "duplicate", "rejected", "dead", "open"]);
    rig.tell(delivered("one", 2));
    rig.tell(kept(image("/a"), "one"));
    assert_eq!(
        rig.statuses(),
        ["done", "duplicate", "duplicate", "rejected", "dead", "open"],
        "told twice changes nothing"
    );
}

fn a_detection_that_fails_waits_dies_and_is_driven_again() {
    let rig = Rig::showing(vec![image("/a"), image("/b")]);
    rig.tell_all([kept(image("/a"), "one"), kept(image("/b"), "two")]);
    rig.tell(retry(Work::Frame(frame("one")), 60_000));
    let line = rig.line("/a");
    assert_eq!((&line["status"], &line["due_ms"], &line["attempts"]), (&"open".into(), &60_000.into(), &2.into()));
    assert_eq!((&line["reason"], &line["faces"], &line["detector"]), (&"http_503".into(), &Value::Null, &Value::Null));
    assert_eq!(rig.owed(), [(60_000, content("one").id.to_string())], "only frames with a scheduled retry");
    let mut pictures = Vec::new();
    rig.ledger().known_pictures(&mut |picture| pictures.push(picture)).expect("reads");
    let known =
        |name, retrying| KnownPicture { content: content(name), state: State::Open, retrying, representative: None };
    assert_eq!(pictures, [known("one", true), known("two", false)]);
    rig.tell(dead(Work::Frame(Frame { attempts: 1, ..frame("one") })));
    assert_eq!(
        (rig.statuses(), &rig.line("/a")["reason"]),
        (vec!["dead".to_owned(), "open".to_owned()], &"http_503".into())
    );
    refused(&rig, delivered("one", 1));
    let all = Selection { dead: true, waiting: true, urls: vec![] };
    assert_eq!(wait(rig.ledger().redrive(all)), Ok(1));
    assert_eq!(rig.owed(), [(0, content("one").id.to_string())]);
    rig.tell(delivered("one", 1));
    assert_eq!(rig.line("/a")["attempts"], 1);
}

fn broken_promises_are_refused_by_name() {
    let rig = Rig::showing(vec![image("/a"), image_with("/b", &["/c"])]);
    rig.tell(kept(image("/a"), "one"));
    let said = refused(&rig, kept(image("/nowhere"), "one"));
    assert!(said.contains("/nowhere"), "{said}");
    refused(&rig, kept(image("/c"), "two"));
    refused(&rig, delivered("two", 0));
    refused(&rig, ruled("two", "one", 1));
    let said = refused(&rig, ruled("one", "two", 1));
    assert!(said.contains(&content("two").id.to_string()), "{said}");
    rig.tell(kept(image("/b"), "two"));
    refused(&rig, ruled("one", "two", 1));
    refused(&rig, read(page("/nowhere", 1), vec![page("/x", 2)], vec![image("/y")]));
    refused(&rig, retry(page("/nowhere", 0), 1));
}

fn page_and_site_of_an_image_do_not_depend_on_who_came_first() {
    let run = |order: [&str; 2]| {
        let rig = Rig::new();
        let pages = ["/p", "/q"].map(|path| Page { site: url(path), ..page(path, 0) });
        rig.tell(Fact::Admitted(Admitted { visit: None, pages: pages.to_vec(), images: vec![] }));
        for path in order {
            let image = Image { page: url(path), site: url(path), ..image("/i") };
            rig.tell(read(Page { site: url(path), ..page(path, 0) }, vec![], vec![image]));
        }
        rig.line("/i")
    };
    let line = run(["/q", "/p"]);
    assert_eq!((&line["page"], &line["site"]), (&url("/p").as_str().into(), &url("/p").as_str().into()));
    assert_eq!(line, run(["/p", "/q"]));
}

fn the_records_of_open_work_come_back_whole() {
    let rig = Rig::new();
    let start = Page { skip: vec![Key(7), Key(u128::MAX)], ..page("/", 0) };
    rig.tell(Fact::Admitted(Admitted { visit: None, pages: vec![start.clone()], images: vec![] }));
    assert_eq!(rig.reader().open_work(0, 9), Ok(vec![(1, 0, Work::Page(start.clone()))]));
    let data = Url::parse("data:sha256,00ff").expect("a URL");
    let inline = Image { url: data, inline: Some(bytes::Bytes::from_static(b"\x00\xff")), ..image("/") };
    let plain = image_with("/b", &["/b-small", "/b-tiny"]);
    rig.tell(read(start, vec![], vec![inline.clone(), plain.clone()]));
    let work = rig.reader().open_work(0, 9).expect("reads");
    let found: Vec<_> = work.iter().map(|(_, due, work)| (*due, work.clone())).collect();
    assert_eq!(found, [(0, Work::Image(inline.clone())), (0, Work::Image(plain.clone()))]);
    // Position by position, one at a time.
    let next = rig.reader().open_work(work[0].0, 1).expect("reads");
    assert_eq!(next, work[1..]);
    assert_eq!(rig.reader().open_work(work[1].0, 1), Ok(vec![]));
    // The bytes of a data: URI wait with its retry, and go once they are kept.
    rig.tell(retry(inline.clone(), 4));
    let again = rig.reader().open_work(0, 1).expect("reads");
    assert_eq!(again[0].2, Work::Image(Image { attempts: 1, ..inline.clone() }));
    rig.tell(kept(Image { attempts: 1, ..inline }, "one"));
    rig.tell(retry(Work::Frame(frame("one")), 8));
    let frames = rig.reader().open_work(0, 9).expect("reads");
    let Some((position, 8, Work::Frame(waiting))) = frames.last() else { panic!("{frames:?}") };
    assert_eq!((waiting.attempts, waiting.ticket, &waiting.content), (1, None, &content("one")));
    assert_eq!(rig.reader().open_work(*position, 9), Ok(vec![]));
}

fn a_ledger_gives_out_only_what_was_owed_when_it_was_opened() {
    let rig = Rig::showing(vec![image("/a"), image("/b")]);
    assert_eq!(rig.ledger().open_work(0, 9), Ok(vec![]), "all of it is in the graph already");
    rig.tell(kept(image("/a"), "one"));
    rig.tell(retry(Work::Frame(frame("one")), 8));
    let rig = rig.reopened();
    rig.tell(read(page("/", 0), vec![], vec![image("/c")]));
    let first = rig.ledger().open_work(0, 1).expect("reads");
    let Work::Image(found) = &first[0].2 else { panic!("{first:?}") };
    assert_eq!(found.url, url("/b"));
    let second = rig.ledger().open_work(first[0].0, 1).expect("reads");
    assert!(
        matches!(&second[0].2, Work::Frame(found) if found.content == content("one")),
        "past what is new: {second:?}"
    );
    assert_eq!(rig.ledger().open_work(second[0].0, 1), Ok(vec![]));
}

fn an_unfinished_site_goes_on_where_it_was() {
    let sites = |rig: &Rig| {
        let mut sites = Vec::new();
        rig.ledger().open_sites(&mut |site| sites.push(site)).expect("reads");
        sites
    };
    let rig = Rig::showing(vec![image("/a"), image_with("/b", &["/c"])]);
    assert_eq!(sites(&rig), [], "its only page is read");
    let (again, failing, last) = (page("/again", 1), page("/failing", 1), page("/last", 1));
    let pages = vec![again.clone(), failing.clone(), last.clone()];
    rig.tell(Fact::Admitted(Admitted { visit: None, pages, images: vec![] }));
    rig.tell(retry(Page { attempts: 1, ..failing }, 9));
    let mut open = sites(&rig);
    open[0].images.sort();
    let mut images = vec![Key::image(&url("/a")), Key::image(&url("/b"))];
    images.sort();
    let turns = vec![again.key(), last.key()];
    assert_eq!(open, [OpenSite { site: url("/"), pages: 4, images, turns }], "a page that failed gave up its turn");
    rig.tell(read(again, vec![], vec![image("/a"), image("/d")]));
    let open = sites(&rig);
    assert_eq!((open[0].images.len(), &open[0].turns[..]), (3, &[last.key()][..]), "an image counts once");
}

fn an_owed_page_that_is_admitted_again_on_a_shorter_way_is_not_owed_twice() {
    let rig = Rig::showing(vec![]);
    rig.tell(Fact::Admitted(Admitted {
        visit: None,
        pages: vec![page("/deep", 2), page("/other", 1)],
        images: vec![],
    }));
    let rig = rig.reopened();
    rig.tell(Fact::Admitted(Admitted { visit: None, pages: vec![page("/deep", 1)], images: vec![] }));
    let owed: Vec<Work> = rig.ledger().open_work(0, 9).expect("reads").into_iter().map(|(_, _, work)| work).collect();
    assert_eq!(owed, [Work::Page(page("/other", 1))], "the shorter way is in the graph already");
}

fn known_images_are_those_that_were_taken_up() {
    let rig = Rig::showing(vec![image("/a"), image_with("/b", &["/c"])]);
    let mut images = Vec::new();
    rig.ledger().known_images(&mut |key| images.push(key)).expect("reads");
    images.sort();
    let mut expected = [Key::image(&url("/a")), Key::image(&url("/b"))];
    expected.sort();
    assert_eq!(images, expected, "an alternate is not known yet");
}

fn tenants_share_a_file_and_nothing_else() {
    let mut rig = Rig::showing(vec![image("/a")]);
    rig.tell_all([kept(image("/a"), "one"), delivered("one", 1)]);
    drop(rig.ledger.take());
    let open = |tenant| rig.home.open_for(tenant);
    let other = open("other").expect("opens");
    assert_eq!(other.tally(), Ok((Tally::default(), Tally::default())));
    assert_eq!(wait(other.append(start())), Ok(vec![]));
    assert_eq!(wait(other.append(read(page("/", 0), vec![], vec![image("/a")]))), Ok(vec![]));
    assert_eq!(wait(other.append(kept(image("/a"), "one"))), Ok(vec![]));
    assert_eq!(lines(other.reader(), Kind::Images)[0]["status"], "open", "its own detection is owed");
    drop(other);
    for name in ["", "..", "a/b", "ü", &"x".repeat(65)] {
        assert!(open(name).is_err_and(|error| error.to_string().contains("tenant")), "{name:?}");
    }
    let missing = Reader::open(rig.home.place(), "third", &LedgerSettings::default()).err().expect("is not there");
    assert!(missing.to_string().contains("default, other"), "{missing}");
    let rig = rig.reopened();
    rig.check();
    assert_eq!(rig.statuses(), ["done"]);
}
