//! What is said of failures is what the results say line by line.

use super::*;
use faceflow_core::fact::Fact;
use faceflow_core::record::{Discovery, Image, JobId, Key, Page, Work};
use faceflow_ledger::both;
use faceflow_ledger::testing::{
    BOUNDS, Rig, dead, delivered, frame, image, image_with, kept, page, rejected, retry, ruled, start, url, visit,
};

both![
    every_rejected_and_dead_entry_is_counted_with_its_reason,
    the_most_frequent_reasons_are_named_and_the_rest_is_counted,
    sites_that_gave_nothing_are_named_and_others_are_not,
    the_latest_sites_are_named_and_the_rest_is_counted,
    ranges_that_are_read_one_by_one_are_all_rows,
];

fn summary(rig: &Rig, most: (usize, usize)) -> FailureSummary {
    failure_summary(rig.reader(), most).expect("reads")
}

fn every_rejected_and_dead_entry_is_counted_with_its_reason() {
    let rig = Rig::showing(vec![image("/a"), image("/b"), image("/c"), image_with("/d", &["/e"]), image("/f")]);
    rig.tell_all([rejected(image("/a")), dead(image("/b")), retry(image("/f"), 5)]);
    rig.tell_all([kept(image("/c"), "one"), kept(image("/d"), "one"), dead(Work::Frame(frame("one")))]);
    let summary = summary(&rig, (10, 10));
    let count = |count, status, reason: &str| ReasonCount { count, pages: false, status, reason: reason.to_owned() };
    // The picture is dead with both of its addresses and the alternate of one; what waits for a retry is not.
    let expected = [count(4, Status::Dead, "http_503"), count(1, Status::Rejected, "http_404")];
    assert_eq!((&summary.reasons[..], summary.other_reasons), (&expected[..], 0));
    let (_, images) = rig.reader().tally().expect("reads");
    assert_eq!(images.dead + images.rejected, summary.reasons.iter().map(|reason| reason.count).sum::<u64>());
    assert!(summary.is_complete && summary.all_sites);
}

fn the_most_frequent_reasons_are_named_and_the_rest_is_counted() {
    let images: Vec<Image> = (0..6).map(|n| image(&format!("/{n}"))).collect();
    let rig = Rig::showing(images.clone());
    rig.tell_all(images.iter().take(2).cloned().map(dead));
    rig.tell_all(images.iter().skip(2).cloned().map(rejected));
    let summary = summary(&rig, (1, 0));
    assert_eq!((summary.reasons.len(), summary.reasons[0].count, summary.other_reasons), (1, 4, 2));
    assert_eq!(summary.reasons[0].reason, "http_404");
    assert_eq!((summary.sites, summary.more_sites), (vec![], 1));
}

/// The start page of a site of its own.
fn site(path: &str) -> Page {
    Page::start(JobId::FIRST, url(path))
}

fn of_site(path: &str, image: Image) -> Image {
    Image { site: url(path), page: url(path), ..image }
}

fn listed(paths: &[&str]) -> Fact {
    let pages = paths.iter().map(|path| site(path)).collect();
    Fact::Discovered(Discovery { pages, ..Discovery::nothing(JobId::FIRST, BOUNDS) })
}

fn showing(path: &str, images: Vec<Image>) -> Fact {
    let images = images.into_iter().map(|image| of_site(path, image)).collect();
    Fact::Discovered(Discovery {
        visit: Some(visit(site(path), vec![])),
        images,
        ..Discovery::nothing(JobId::FIRST, BOUNDS)
    })
}

fn sites_that_gave_nothing_are_named_and_others_are_not() {
    let rig = Rig::new();
    rig.tell(listed(&[
        "/no", "/dead", "/waits", "/new", "/done", "/copy", "/empty", "/refused", "/owed", "/removed", "/other",
    ]));
    rig.tell_all([rejected(site("/no")), dead(site("/dead")), retry(site("/waits"), 77), rejected(site("/removed"))]);
    rig.tell_all([
        showing("/done", vec![image("/1")]),
        kept(of_site("/done", image("/1")), "one"),
        delivered("one", 0),
    ]);
    rig.tell_all([showing("/copy", vec![image("/2")]), kept(of_site("/copy", image("/2")), "two")]);
    rig.tell(ruled("two", "one", 3));
    rig.tell(showing("/empty", vec![]));
    rig.tell(showing("/refused", vec![image("/3"), image("/4"), image("/5")]));
    let [third, fourth, fifth] = ["/3", "/4", "/5"].map(|path| of_site("/refused", image(path)));
    rig.tell_all([rejected(third), dead(fourth), rejected(fifth)]);
    rig.tell(showing("/owed", vec![image("/6")]));
    // Another address of the picture was taken in place of the one that is shown.
    rig.tell(showing("/other", vec![image_with("/7", &["/8"])]));
    rig.tell(rejected(of_site("/other", image("/7"))));
    rig.tell_all([kept(of_site("/other", image("/8")), "three"), delivered("three", 1)]);
    let removed = vec![Key::page(&url("/removed"))];
    rig.tell(Fact::Discovered(Discovery { removed, ..Discovery::nothing(JobId::FIRST, BOUNDS) }));
    let named = summary(&rig, (10, 10)).sites.into_iter();
    let named: Vec<_> =
        named.map(|SiteWithoutResult { url, why }| (url.replace("http://a.example", ""), why)).collect();
    let start = |status, reason: &str, detail: &str| WhyNothing::StartPage {
        status,
        reason: reason.to_owned(),
        detail: detail.to_owned(),
    };
    let said = "the server said so";
    let expected = [
        ("/no", start(Status::Rejected, "http_404", "not there")),
        ("/dead", start(Status::Dead, "http_503", said)),
        ("/waits", start(Status::Open, "http_503", said)),
        ("/empty", WhyNothing::NoImages { pages: 1 }),
        (
            "/refused",
            WhyNothing::Images {
                images: 3,
                reason: "http_404".into(),
                detail: "not there".into(),
                url: url("/3").into(),
            },
        ),
    ];
    assert_eq!(named, expected.map(|(path, why)| (path.to_owned(), why)));
}

fn the_latest_sites_are_named_and_the_rest_is_counted() {
    let rig = Rig::new();
    let paths: Vec<String> = (0..7).map(|n| format!("/{n}")).collect();
    rig.tell(listed(&paths.iter().map(String::as_str).collect::<Vec<_>>()));
    rig.tell_all(paths.iter().map(|path| rejected(site(path))));
    let FailureSummary { sites, more_sites, .. } = summary(&rig, (10, 3));
    let named: Vec<_> = sites.iter().map(|site| &*site.url).collect();
    assert_eq!(named, ["http://a.example/4", "http://a.example/5", "http://a.example/6"]);
    assert_eq!(more_sites, 4);
}

fn ranges_that_are_read_one_by_one_are_all_rows() {
    let rig = Rig::new();
    assert_eq!(summary(&rig, (10, 10)), FailureSummary { is_complete: true, all_sites: true, ..Default::default() });
    rig.tell(start());
    rig.tell(Fact::Discovered(Discovery {
        visit: Some(visit(page("/", 0), vec![])),
        images: (0..50).map(|n| image(&format!("/{n}"))).collect(),
        ..Discovery::nothing(JobId::FIRST, BOUNDS)
    }));
    let rows = |range, max| {
        let (mut seen, mut times) = (vec![], 0);
        let all = each_range(rig.reader(), ("entries", range, max), |_, range| {
            times += 1;
            seen.splice(0..0, range);
            Ok(())
        });
        (seen.len(), seen.is_sorted(), times, all.expect("reads"))
    };
    assert_eq!(rows(7, 1_000), (51, true, 8, true));
    assert_eq!(rows(7, 51), (51, true, 8, true));
    assert_eq!(rows(7, 20), (20, true, 3, false));
}
