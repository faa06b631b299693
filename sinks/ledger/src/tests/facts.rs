//! Every fact, every status, and what is refused.

use faceflow_core::ledger::KnownPicture;
use faceflow_core::record::{Bounds, Key, PageVersion};
use faceflow_core::transition::State;

use super::*;
use crate::Selection;

both![
    a_page_is_discovered_retried_and_read,
    pages_end_rejected_and_dead_and_are_driven_again,
    a_page_reached_on_a_shorter_way_is_read_again,
    images_are_done_duplicates_rejected_dead_and_open,
    a_detection_that_fails_waits_dies_and_is_driven_again,
    a_degraded_answer_is_kept_and_the_full_one_still_owed,
    what_the_store_failed_is_counted_apart,
    rejections_use_up_no_tries,
    broken_promises_are_refused_by_name,
    page_and_site_of_an_image_do_not_depend_on_who_came_first,
    the_records_of_open_work_come_back_whole,
    lanes_give_what_is_due_a_few_at_a_time_and_nothing_twice,
    an_owed_page_that_is_admitted_again_on_a_shorter_way_is_owed_once,
    a_budget_cuts_the_same_pages_whatever_is_read_first_and_whoever_reads_it,
    nobody_waits_for_a_page_that_failed,
    a_settled_page_is_looked_at_again_unless_its_site_is_removed,
    an_image_that_is_shown_again_uses_no_budget,
    what_ended_badly_is_tried_again_by_whoever_looks_again,
    a_list_is_remembered_with_the_sites_it_names,
    a_degraded_answer_brings_a_dead_picture_back,
    what_is_tried_while_its_site_is_removed_may_still_end,
    a_file_that_is_replaced_is_a_picture_of_its_own,
    tenants_share_a_file_and_nothing_else,
    a_copy_of_what_is_recorded_needs_its_digest_alone_and_follows_its_picture,
];

fn refused(rig: &Rig, fact: Fact) -> String {
    let (pages, images) = (rig.pages(), rig.images());
    let error = rig.try_tell(fact).expect_err("is illegal");
    assert!(matches!(error, LedgerError::Illegal { .. }), "{error}");
    assert_eq!((pages, images), (rig.pages(), rig.images()), "a refused fact leaves no trace");
    rig.check();
    error.to_string()
}

fn a_page_is_discovered_retried_and_read() {
    let rig = Rig::new();
    rig.tell(start());
    assert_eq!(rig.owed(), [(0, "/".to_owned())]);
    rig.tell(retry(page("/", 0), 5_000));
    assert_eq!(rig.owed(), [(5_000, "/".to_owned())]);
    let line = &rig.pages()[0];
    assert_eq!((&line["status"], &line["reason"], &line["attempts"]), (&"open".into(), &"http_503".into(), &1.into()));
    let tried = Page { attempts: 1, ..page("/", 0) };
    rig.tell(read(tried, vec![page("/l", 1)], vec![image("/a.jpg"), image("/b.jpg")]));
    let line = &rig.pages()[0];
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
    let statuses: Vec<Value> = rig.pages().iter().map(|line| line["status"].clone()).collect();
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
    rig.tell(admitted(sites.to_vec()));
    assert_eq!(rig.owed().len(), 3);
    // The reading that was under way when /f turned up does not settle what is now owed.
    rig.tell(read(page("/f", 2), vec![], vec![image("/f.jpg")]));
    rig.tell(retry(page("/e", 2), 7));
    assert_eq!(rig.owed().iter().filter(|(due, _)| *due == 0).count(), 4);
    let depths: Vec<_> = rig.pages().iter().map(|line| (line["url"].clone(), line["depth"].clone())).collect();
    let expected = [("/", 0), ("/d", 0), ("/e", 0), ("/f", 0), ("/l", 1)];
    assert_eq!(depths, expected.map(|(path, depth)| (url(path).as_str().into(), depth.into())));
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
    rig.ledger().known_pictures(JobId::FIRST.tenant, &mut |picture| pictures.push(picture)).expect("reads");
    let known = |name, retrying| KnownPicture {
        content: content(name),
        state: State::Open,
        retrying,
        has_degraded: false,
        generation: 0,
        representative: None,
    };
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

fn rejections_use_up_no_tries() {
    let rig = Rig::showing(vec![image("/a")]);
    rig.tell(admitted(vec![page("/gone", 1)]));
    let ask = [DispatchRequest { queue: QueueId::of(JobId::FIRST, &url("/")), max: 9, held: vec![], again: true }];
    let mut works = vec![Work::Page(page("/gone", 1)), Work::Image(image("/a"))];
    for times in 1..=3 {
        for work in works {
            rig.tell(with_a_chance(rejected(work), times));
        }
        works = rig.ledger().due_work(times, &ask).expect("reads").remove(0).work;
        let counted = |work: &Work| (u64::from(work.attempts()), work.attempts_counted());
        assert_eq!(works.iter().map(counted).collect::<Vec<_>>(), [(times, 0); 2]);
    }
    // One that is down now has all its chances.
    let down = works.remove(0).failed_once_more();
    assert_eq!((down.attempts(), down.attempts_counted()), (4, 1));
    rig.tell(Fact::Failed(Disposition::Retry { work: down.clone(), fault: fault("http_503"), due: 9, host: None }));
    assert!(owed(rig.ledger()).contains(&(9, down)));
}

fn what_the_store_failed_is_counted_apart() {
    let rig = Rig::showing(vec![image("/a"), image("/b")]);
    let Work::Image(failed) = Work::Image(image("/a")).failed_once_more().failed_once_more().uncounted() else {
        unreachable!("it is an image")
    };
    rig.tell(Fact::Failed(Disposition::Retry {
        work: failed.clone().into(),
        fault: fault("store"),
        due: 5,
        host: None,
    }));
    assert_eq!((failed.attempts, failed.uncounted), (2, 1));
    let again = |rig: &Rig| owed(rig.ledger()).into_iter().filter(|(due, _)| *due > 0).collect::<Vec<_>>();
    assert_eq!(again(&rig), [(5, Work::Image(failed))]);
    rig.tell(kept(image("/b"), "one"));
    let failed = Frame { pixels: None, owner: content("one").id.partition_hash() as usize, ..frame("one") };
    let failed = Work::Frame(failed).failed_once_more().uncounted();
    rig.tell(Fact::Failed(Disposition::Retry { work: failed.clone(), fault: fault("store"), due: 6, host: None }));
    assert_eq!(again(&rig)[1], (6, failed));
    let rig = rig.reopened();
    let urls = vec![url("/a"), url("/b")];
    wait(rig.ledger().redrive(Selection { waiting: true, urls, ..Selection::default() })).expect("drives");
    let anew = owed(rig.ledger()).into_iter().map(|(_, work)| work);
    let counted: Vec<_> = anew.map(|work| (work.attempts(), work.attempts_counted())).collect();
    assert_eq!(counted, [(0, 0), (0, 0)], "counted anew");
}

fn a_degraded_answer_is_kept_and_the_full_one_still_owed() {
    let rig = Rig::showing(vec![image("/a")]);
    rig.tell_all([kept(image("/a"), "one"), delivered_at(0.5, "one", 2)]);
    let mut pictures = Vec::new();
    rig.ledger()
        .known_pictures(JobId::FIRST.tenant, &mut |picture| pictures.push((picture.state, picture.has_degraded)))
        .expect("reads");
    assert_eq!(pictures, [(State::Open, true)], "a run that begins now looks again");
    let line = rig.line("/a");
    assert_eq!((&line["status"], line["faces"].as_array().map(Vec::len)), (&"open".into(), Some(2)));
    assert_eq!((&line["detector"]["degraded"], &line["detector"]["scale"]), (&true.into(), &0.5.into()));
    let has_degraded = Frame { has_degraded: true, ..frame("one") };
    rig.tell(retry(Work::Frame(has_degraded.clone()), 9));
    let owed = owed(rig.ledger());
    assert!(matches!(&owed[..], [(9, Work::Frame(Frame { has_degraded: true, attempts: 1, .. }))]), "{owed:?}");
    // A full answer takes its place, and no degraded one takes that of a full one.
    rig.tell_all([delivered("one", 3), delivered_at(0.25, "one", 1)]);
    let line = rig.line("/a");
    assert_eq!((&line["status"], line["faces"].as_array().map(Vec::len)), (&"done".into(), Some(3)));

    let rig = Rig::showing(vec![image("/a")]);
    rig.tell_all([kept(image("/a"), "one"), delivered_at(0.5, "one", 2)]);
    let has_degraded = Work::Frame(Frame { has_degraded: true, ..frame("one") }).failed_once_more();
    rig.tell(Fact::Failed(Disposition::DegradedAccepted { work: has_degraded, fault: fault("engine_error") }));
    let line = rig.line("/a");
    assert_eq!((&line["status"], &line["detector"]["degraded"]), (&"done".into(), &true.into()), "it stands");
    rig.tell(ruled("one", "one", 0));
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
        rig.tell(admitted(pages.to_vec()));
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
    rig.tell(admitted(vec![start.clone()]));
    assert_eq!(owed(rig.ledger()), [(0, Work::Page(start.clone()))]);
    let data = Url::parse("data:sha256,00ff").expect("a URL");
    let inline = Image { url: data, inline: Some(bytes::Bytes::from_static(b"\x00\xff")), ..image("/") };
    let news = rig.tell(read(start, vec![], vec![inline.clone(), image_with("/b", &["/b-small", "/b-tiny"])]));
    let mut queues =
        [queue_at(&inline.url), queue_at(&url("/b"))].map(|queue| QueueUpdate { queue, due: 0, again: false });
    queues.sort_by_key(|opened| opened.queue);
    assert_eq!(news, queues, "a data: URI has no host");
    // The other addresses of a picture wait in the ledger.
    assert_eq!(owed(rig.ledger()), [Work::Image(inline.clone()), Work::Image(image("/b"))].map(|work| (0, work)));
    // The bytes of a data: URI wait with its retry, and go once they are kept.
    assert_eq!(
        rig.tell(retry(inline.clone(), 4)),
        [QueueUpdate { queue: queue_at(&inline.url), due: 4, again: false }]
    );
    let again = Image { attempts: 1, ..inline };
    assert_eq!(owed(rig.ledger())[1], (4, Work::Image(again.clone())));
    rig.tell(kept(again, "one"));
    assert_eq!(
        rig.tell(retry(Work::Frame(frame("one")), 8)),
        [QueueUpdate { queue: pictures_queue(), due: 8, again: false }]
    );
    let waiting =
        Frame { attempts: 1, pixels: None, owner: content("one").id.partition_hash() as usize, ..frame("one") };
    assert_eq!(owed(rig.ledger())[1], (8, Work::Frame(waiting)));
}

fn lanes_give_what_is_due_a_few_at_a_time_and_nothing_twice() {
    let rig = Rig::showing((0..9).map(|n| image(&format!("/{n}"))).collect());
    rig.tell_all([retry(image("/7"), 30), retry(image("/2"), 50), retry(image("/5"), 40)]);
    let queue = QueueId::of(JobId::FIRST, &url("/"));
    let claim = |now, max, held: &[Key]| {
        let asks = [
            DispatchRequest { queue, max, held: held.to_vec(), again: false },
            DispatchRequest { queue: QueueId { job: JobId::FIRST, host: 77 }, max, held: vec![], again: true },
        ];
        let [claimed, none] = rig.ledger().due_work(now, &asks).expect("reads").try_into().expect("an answer for each");
        assert_eq!((none.work.len(), none.next), (0, None), "a queue with nothing");
        let paths = claimed.work.iter().map(|work| match work {
            Work::Image(image) => image.url.path().to_owned(),
            other => panic!("{other:?}"),
        });
        (paths.collect::<Vec<_>>().join(" "), claimed.work.iter().map(Work::key).collect::<Vec<_>>(), claimed.next)
    };
    let (first, mut held, next) = claim(45, 4, &[]);
    assert_eq!((&first[..], next), ("/7 /5 /0 /1", Some(0)), "retries that are due go first");
    let (second, more, next) = claim(45, 9, &held);
    assert_eq!((&second[..], next), ("/3 /4 /6 /8", Some(50)));
    held.extend(more);
    assert_eq!(claim(49, 9, &held), (String::new(), vec![], Some(50)));
    assert_eq!(claim(50, 9, &held).0, "/2");
    rig.tell(kept(image("/0"), "one"));
    let rig = rig.reopened();
    assert_eq!(rig.owed().len(), 8, "who opens it again owes what is not settled");
}

fn an_owed_page_that_is_admitted_again_on_a_shorter_way_is_owed_once() {
    let rig = Rig::showing(vec![]);
    rig.tell(admitted(vec![page("/deep", 2), page("/other", 1)]));
    let rig = rig.reopened();
    rig.tell(admitted(vec![page("/deep", 1)]));
    let both = [page("/deep", 1), page("/other", 1)].map(|page| (0, Work::Page(page)));
    assert_eq!(owed(rig.ledger()), both);
    // The reading that was under way on the longer way leaves it owed, and says so.
    assert_eq!(rig.tell(read(page("/deep", 2), vec![], vec![])), [opened("/", 0)]);
    assert_eq!(owed(rig.ledger()), both);
}

fn a_budget_cuts_the_same_pages_whatever_is_read_first_and_whoever_reads_it() {
    let bounds = Bounds { pages_max: 5, images_max: 3, shorter_ways: false };
    let run = |first: usize, reopen: bool| {
        let mut rig = Rig::new();
        rig.tell(start());
        rig.tell(read_within(bounds, page("/", 0), vec![page("/a", 1), page("/b", 1)], vec![image("/0.jpg")]));
        let of = |name: &str| {
            let (pages, images) =
                ([1, 2].map(|n| page(&format!("/{name}{n}"), 2)), [1, 2].map(|n| image(&format!("/{name}{n}.jpg"))));
            read_within(bounds, page(&format!("/{name}"), 1), pages.to_vec(), images.to_vec())
        };
        let order = if first == 0 { ["a", "b"] } else { ["b", "a"] };
        for name in order {
            rig.tell(of(name));
            rig = if reopen { rig.reopened() } else { rig };
        }
        rig.owed().into_iter().map(|(_, path)| path).collect::<Vec<_>>()
    };
    assert_eq!(run(0, false), ["/0.jpg", "/a1", "/a2", "/a1.jpg", "/a2.jpg"]);
    for (first, reopen) in [(0, true), (1, false), (1, true)] {
        assert_eq!(run(first, reopen), run(0, false), "{first} {reopen}");
    }
}

fn nobody_waits_for_a_page_that_failed() {
    for end in [retry(page("/a", 1), 9), dead(page("/a", 1)), rejected(page("/a", 1))] {
        let rig = Rig::new();
        rig.tell(start());
        rig.tell(read(page("/", 0), vec![page("/a", 1), page("/b", 1), page("/c", 1)], vec![]));
        assert_eq!(rig.tell(read(page("/c", 1), vec![page("/c1", 2)], vec![])), [], "it is a's turn");
        assert_eq!(rig.tell(read(page("/b", 1), vec![page("/b1", 2)], vec![])), [], "still");
        let statuses: Vec<Value> = rig.pages().iter().map(|line| line["status"].clone()).collect();
        assert_eq!(statuses, ["done", "open", "done", "done"], "they are read, and are not read again");
        let news = rig.tell(end.clone());
        assert!(news.contains(&opened("/", 0)), "{news:?}");
        let owed: Vec<String> = rig.owed().into_iter().filter(|(due, _)| *due == 0).map(|(_, path)| path).collect();
        assert_eq!(owed, ["/b1", "/c1"], "in the order of their turns");
        if matches!(&end, Fact::Failed(Disposition::Retry { .. })) {
            rig.tell(read(Page { attempts: 1, ..page("/a", 1) }, vec![page("/a1", 2)], vec![]));
            assert_eq!(rig.owed().len(), 3, "it succeeds later");
        }
    }
}

fn a_settled_page_is_looked_at_again_unless_its_site_is_removed() {
    let rig = Rig::new();
    rig.tell(admitted(vec![Page { skip: vec![Key(7)], ..page("/", 0) }]));
    let reading =
        |interval_ms| PageVersion { etag: Some("\"1\"".to_owned()), digest: 7, interval_ms, ..PageVersion::default() };
    let read = |page: Page, status, pages: Vec<Page>, due| {
        let visit = Visit { http_status: status, ..visit(page, vec![]) };
        let again = Some((reading(due), due));
        rig.tell(Fact::Discovered(Discovery {
            visit: Some(visit),
            pages,
            again,
            ..Discovery::nothing(JobId::FIRST, BOUNDS)
        }))
    };
    let claim = |now| {
        let ask = DispatchRequest { queue: QueueId::of(JobId::FIRST, &url("/")), max: 9, held: vec![], again: true };
        let DispatchReply { work, next, .. } = rig.ledger().due_work(now, &[ask]).expect("reads").remove(0);
        (work, next)
    };
    let look_again = |due| QueueUpdate { again: true, ..opened("/", due) };
    let first = Page { skip: vec![Key(7)], ..page("/", 0) };
    assert_eq!(read(first.clone(), 200, vec![], 100), [look_again(100)]);
    assert_eq!((rig.owed(), claim(99)), (vec![], (vec![], Some(100))), "it is settled");
    let again = Page { last: Some(reading(100)), ..first };
    assert_eq!(claim(100), (vec![Work::Page(again.clone())], None));
    // It has changed; then it has not; then it is down. It stays settled all the time.
    assert_eq!(read(again.clone(), 200, vec![page("/new", 1)], 200), [opened("/", 0), look_again(200)]);
    rig.tell(rejected(page("/new", 1)));
    let line = rig.pages().remove(0);
    assert_eq!(read(again.clone(), 304, vec![], 300), [look_again(300)]);
    assert_eq!(rig.tell(retry(again.clone(), 400)), [look_again(400)]);
    assert_eq!((claim(399), claim(400).0.len()), ((vec![], Some(400)), 1));
    assert_eq!(rig.pages()[0], line);

    let site = Key::page(&url("/"));
    rig.tell(Fact::Discovered(Discovery {
        removed: vec![site, Key::page(&url("/new"))],
        ..Discovery::nothing(JobId::FIRST, BOUNDS)
    }));
    assert_eq!(claim(u64::MAX), (vec![], None));
    read(again, 200, vec![page("/more", 1)], 500);
    assert_eq!(claim(u64::MAX), (vec![], None), "a visit that was under way leads to nothing");
    let pictures = QueueUpdate { queue: pictures_queue(), due: 0, again: true };
    assert_eq!(rig.tell(start()), [pictures, look_again(0)], "it is on the list again");
    assert_eq!(claim(0).0.len(), 2, "the page that was rejected too");
    assert_eq!(rig.tell(start()), []);
    let reopened = rig.reopened();
    let mut queues = vec![];
    reopened.ledger().queues(JobId::FIRST, false, &mut |opened| queues.push(opened)).expect("reads");
    assert_eq!(queues, []);
    reopened.ledger().queues(JobId::FIRST, true, &mut |opened| queues.push(opened)).expect("reads");
    queues.retain(|opened| opened.queue != pictures_queue());
    assert_eq!(queues, [look_again(0), look_again(0)], "a page that was read, and one that was not there");
}

fn what_ended_badly_is_tried_again_by_whoever_looks_again() {
    let rig = Rig::showing(vec![image("/a"), image("/b"), image("/no")]);
    rig.tell(admitted(vec![page("/gone", 1)]));
    let look_again = |queue, due| QueueUpdate { queue, due, again: true };
    let web = QueueId::of(JobId::FIRST, &url("/"));
    assert_eq!(rig.tell(with_a_chance(dead(image("/a")), 100)), [look_again(web, 100)]);
    rig.tell(with_a_chance(rejected(page("/gone", 1)), 110));
    rig.tell(rejected(image("/no")));
    rig.tell_all([kept(image("/b"), "one"), with_a_chance(dead(Work::Frame(frame("one"))), 120)]);
    let claim = |queue, now, again| {
        let ask = DispatchRequest { queue, max: 9, held: vec![], again };
        let DispatchReply { work, next, .. } = rig.ledger().due_work(now, &[ask]).expect("reads").remove(0);
        (work, next)
    };
    assert_eq!(
        (claim(web, 999, false), claim(pictures_queue(), 999, false)),
        ((vec![], None), (vec![], None)),
        "a batch does not"
    );
    assert_eq!((claim(web, 99, true), claim(pictures_queue(), 99, true)), ((vec![], Some(100)), (vec![], Some(120))));
    let (a, gone) = (Image { attempts: 1, ..image("/a") }, Page { attempts: 1, uncounted: 1, ..page("/gone", 1) });
    assert_eq!(claim(web, 110, true), (vec![Work::Image(a.clone()), Work::Page(gone.clone())], None));
    let (frames, _) = claim(pictures_queue(), 120, true);
    let [Work::Frame(one)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((one.content.id, one.attempts), (content("one").id, 1));
    assert_eq!(rig.statuses(), ["dead", "dead", "rejected"], "that it is tried changes nothing");
    // One fails again, one is there now, and one is looked at.
    rig.tell(with_a_chance(dead(a.clone()), 200));
    assert_eq!(claim(web, 110, true).0, [Work::Page(gone.clone())]);
    rig.tell(read(gone, vec![], vec![image("/new")]));
    rig.tell(with_a_chance(dead(frames[0].clone()), 130));
    rig.tell(delivered("one", 2));
    assert_eq!(rig.statuses(), ["dead", "done", "open", "rejected"]);
    let reopened = rig.reopened();
    let mut queues = vec![];
    reopened.ledger().queues(JobId::FIRST, true, &mut |opened| queues.push(opened)).expect("reads");
    queues.retain(|opened| opened.queue != pictures_queue());
    assert_eq!(queues, [opened("/", 0), look_again(web, 200)]);
    let lucky = Image { attempts: 2, ..a };
    reopened.tell_all([kept(lucky, "two"), delivered("two", 0)]);
    assert_eq!(reopened.statuses(), ["done", "done", "open", "rejected"]);
}

fn what_is_tried_while_its_site_is_removed_may_still_end() {
    for end in [
        dead(Page { attempts: 1, ..page("/gone", 1) }),
        rejected(Page { attempts: 1, ..page("/gone", 1) }),
        read(Page { attempts: 1, ..page("/gone", 1) }, vec![page("/more", 2)], vec![]),
    ] {
        let rig = Rig::showing(vec![image("/a")]);
        rig.tell(admitted(vec![page("/gone", 1)]));
        rig.tell_all([with_a_chance(dead(page("/gone", 1)), 5), with_a_chance(dead(image("/a")), 5)]);
        let ask = [DispatchRequest { queue: QueueId::of(JobId::FIRST, &url("/")), max: 9, held: vec![], again: true }];
        let claim = || rig.ledger().due_work(5, &ask).expect("reads").remove(0).work.len();
        assert_eq!(claim(), 2);
        let site = Key::page(&url("/"));
        rig.tell(Fact::Discovered(Discovery { removed: vec![site], ..Discovery::nothing(JobId::FIRST, BOUNDS) }));
        assert_eq!(claim(), 0, "nothing of a removed site is tried");
        rig.tell(end);
        rig.tell(kept(Image { attempts: 1, ..image("/a") }, "one"));
        rig.tell(admitted(vec![page("/behind-a-picture", 2)]));
        rig.tell(start());
        assert_eq!(
            rig.owed().len(),
            0,
            "the page led to nothing, and neither did what was found behind a link to a picture"
        );
    }
}

fn a_list_is_remembered_with_the_sites_it_names() {
    let rig = Rig::new();
    let name = |list: Option<&str>, paths: &[&str]| {
        let pages = paths.iter().map(|path| Page::start(JobId::FIRST, url(path))).collect();
        let list = list.map(str::to_owned);
        rig.tell(Fact::Discovered(Discovery { pages, list, ..Discovery::nothing(JobId::FIRST, BOUNDS) }));
    };
    let listed = |list| {
        let mut found: Vec<_> = rig.reader().listed(list).expect("reads").into_iter().collect();
        found.sort();
        found
    };
    let keys = |paths: &[&str]| {
        let mut keys: Vec<_> = paths.iter().map(|path| Key::page(&url(path))).collect();
        keys.sort();
        keys
    };
    name(None, &["/a", "/b"]);
    assert_eq!(listed("one"), [], "no list named them");
    name(Some("one"), &["/a", "/b", "/c"]);
    assert_eq!(listed("one"), keys(&["/a", "/b", "/c"]));
    name(Some("two"), &["/a"]);
    assert_eq!((listed("one"), listed("two")), (keys(&["/b", "/c"]), keys(&["/a"])), "whoever named it last");
    let removed = vec![Key::page(&url("/b"))];
    rig.tell(Fact::Discovered(Discovery { removed, ..Discovery::nothing(JobId::FIRST, BOUNDS) }));
    assert_eq!(listed("one"), keys(&["/c"]));
    name(None, &["/b"]);
    assert_eq!(listed("one"), keys(&["/c"]), "who wants it now is another");
    name(Some("one"), &["/b"]);
    assert_eq!(listed("one"), keys(&["/b", "/c"]));
}

fn a_degraded_answer_brings_a_dead_picture_back() {
    let rig = Rig::showing(vec![image("/a")]);
    rig.tell(kept(image("/a"), "one"));
    rig.tell(with_a_chance(dead(Work::Frame(frame("one"))), 5));
    rig.tell(delivered_at(0.5, "one", 2));
    assert_eq!(rig.statuses(), ["open"]);
    assert!(matches!(&rig.reopened().owed()[..], [(0, _)]), "also if the process ends right here");
}

fn a_file_that_is_replaced_is_a_picture_of_its_own() {
    let rig = Rig::new();
    let file = |version: &str| Image { version: Some(version.to_owned()), ..image("/a.jpg") };
    let offer = |version| {
        rig.tell(Fact::Discovered(Discovery {
            images: vec![file(version)],
            ..Discovery::nothing(JobId::FIRST, BOUNDS)
        }))
    };
    let urls = || rig.images().iter().map(|line| line["url"].clone()).collect::<Vec<Value>>();
    rig.tell(Fact::Discovered(Discovery { images: vec![image("/a.jpg")], ..Discovery::nothing(JobId::FIRST, BOUNDS) }));
    offer("1-10");
    offer("1-10");
    assert_eq!(urls(), [url("/a.jpg").as_str()]);
    rig.tell(rejected(image("/a.jpg")));
    offer("1-10");
    assert_eq!((urls().len(), rig.owed().len()), (1, 0), "it is what it is");
    offer("2-20");
    offer("2-20");
    assert_eq!(urls(), [url("/a.jpg").as_str(), url("/a.jpg#2-20").as_str()]);
    assert_eq!(rig.owed().len(), 1);
}

fn an_image_that_is_shown_again_uses_no_budget() {
    let bounds = Bounds { images_max: 3, ..BOUNDS };
    let rig = Rig::new();
    rig.tell(start());
    let show = |paths: &[&str]| paths.iter().map(|path| image(path)).collect::<Vec<_>>();
    rig.tell(read_within(bounds, page("/", 0), vec![page("/p", 1)], show(&["/1", "/2"])));
    rig.tell(kept(image("/1"), "one"));
    rig.tell(read_within(bounds, page("/p", 1), vec![], show(&["/2", "/3", "/4", "/1"])));
    assert_eq!(rig.statuses(), ["open", "open", "open"], "the fourth image is beyond the budget");
    // Another site has a budget of its own, also for pictures that are known.
    let other = Page { site: url("/q"), ..page("/q", 0) };
    rig.tell(admitted(vec![other.clone()]));
    rig.tell(read_within(Bounds { images_max: 1, ..BOUNDS }, other, vec![], show(&["/1", "/5"])));
    assert_eq!(rig.statuses().len(), 3);
}

fn tenants_share_a_file_and_nothing_else() {
    let mut rig = Rig::showing(vec![image("/a")]);
    rig.tell_all([kept(image("/a"), "one"), delivered("one", 1)]);
    drop(rig.ledger.take());
    let open = |tenant| rig.home.open_for(tenant);
    let other = open("other").expect("opens");
    assert_eq!(other.tally(), Ok((Tally::default(), Tally::default())));
    for fact in [start(), read(page("/", 0), vec![], vec![image("/a")]), kept(image("/a"), "one")] {
        wait(other.append(fact)).expect("is legal");
    }
    assert_eq!(images(other.reader())[0]["status"], "open", "its own detection is owed");
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

fn a_copy_of_what_is_recorded_needs_its_digest_alone_and_follows_its_picture() {
    let rig = Rig::showing(vec![image("/a"), image("/b"), image("/c"), image("/d")]);
    let copied = |path: &str, name: &str| {
        let (image, headers) = (image(path), vec![("etag".to_owned(), "\"copy\"".to_owned())]);
        Fact::Copied(CopiedImage { final_url: url("/moved"), image, headers, content: content(name).id })
    };
    let why = refused(&rig, copied("/b", "one"));
    assert!(why.contains(&content("one").id.to_string()), "nothing has these bytes yet: {why}");
    rig.tell_all([kept(image("/b"), "one"), copied("/c", "one")]);
    assert_eq!(rig.statuses(), ["open"; 4], "a detection is owed");
    rig.tell_all([delivered("one", 2), copied("/a", "one")]);
    assert_eq!(rig.statuses(), ["done", "duplicate", "duplicate", "open"], "the smallest URL is the picture's own");
    let (copy, first) = (rig.line("/a"), rig.line("/b"));
    for same in ["image", "faces", "detector"] {
        assert_eq!(copy[same], first[same], "{same}");
    }
    assert_eq!(copy["final_url"], url("/moved").as_str());
    assert_eq!(rig.tell(copied("/a", "one")), [], "it is settled");
    let rig = rig.reopened();
    rig.tell(copied("/d", "one"));
    assert_eq!(rig.statuses()[3], "duplicate");
}
