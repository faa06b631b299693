//! The whole pipeline on a real web on loopback: everything placed is found, nothing else is asked for, nothing twice, and
//! the results depend neither on the number of workers nor on luck.

mod support;
mod world;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;

use faceflow::views::results::Kind;
use serde_json::Value;
use support::{finish, job, line_of, lines, markers};
use tempfile::tempdir;
use world::{Answer, Gallery, World, gallery_web, picture, variants};

/// Clears what may differ between webs: nothing but ports does, and one web is used throughout.
fn crawl(gallery: &Gallery, workers: usize, assignments: &[&str]) -> (Vec<Value>, Vec<Value>) {
    let folder = tempdir().expect("a folder");
    gallery.world.log().clear();
    let mut job = job(folder.path(), &gallery.starts(), assignments);
    job.options.workers = workers;
    let summary = finish(job);
    assert_eq!((summary.pages.open, summary.images.open, summary.images.dead), (0, 0, 0));
    (lines(folder.path(), Kind::Images), lines(folder.path(), Kind::Pages))
}

#[test]
fn everything_placed_is_found_once_and_the_results_do_not_depend_on_the_workers() {
    let gallery = gallery_web(3, 13, 120);
    let all = ["crawl.shape=all"];
    let (images, pages) = crawl(&gallery, 1, &all);

    let placed: BTreeSet<&str> = gallery.images.iter().map(|image| image.url.as_str()).collect();
    let found: BTreeSet<&str> = images.iter().filter_map(|line| line["url"].as_str()).collect();
    let missed: Vec<_> = placed.difference(&found).collect();
    assert!(missed.is_empty(), "missed {missed:?}");
    assert_eq!(pages.len(), gallery.pages.len());
    assert_eq!(gallery.trespasses(), [] as [String; 0]);
    assert_eq!(gallery.repeats(), []);

    for group in gallery.exact_groups() {
        let settled: Vec<&Value> = group.iter().map(|placed| line_of(&images, &placed.url)).collect();
        let ids: BTreeSet<_> = settled.iter().map(|line| line["image"]["id"].to_string()).collect();
        assert_eq!(ids.len(), 1, "the same bytes have one id: {settled:?}");
        let done = settled.iter().filter(|line| line["status"] == "done").count();
        assert!(done <= 1 && settled.iter().all(|line| line["status"] == "done" || line["status"] == "duplicate"));
    }
    for placed in gallery.images.iter().filter(|placed| matches!(placed.kind, world::Kind::Fresh)) {
        let line = line_of(&images, &placed.url);
        let faces = line["faces"].as_array().unwrap_or_else(|| panic!("{line}"));
        assert_eq!(faces.len(), placed.markers.len(), "{line}");
    }

    for workers in [2, 4] {
        let (again, pages_again) = crawl(&gallery, workers, &all);
        assert_eq!(images.len(), again.len());
        for (one, many) in images.iter().zip(&again) {
            assert_eq!(one, many, "with {workers} workers");
        }
        assert_eq!(pages, pages_again);
        assert_eq!(gallery.repeats(), []);
    }
}

#[test]
fn the_bounded_crawl_takes_the_first_links_of_each_page_and_no_others() {
    let gallery = gallery_web(2, 30, 60);
    for (shape, listings, details) in [("crawl.shape=3x3", 3, 3), ("crawl.shape=2x1", 2, 1), ("crawl.shape=0x0", 0, 0)]
    {
        let (_, pages) = crawl(&gallery, 2, &[shape]);
        let expected: BTreeSet<&str> =
            gallery.pages_within(listings, details).iter().map(|page| page.url.as_str()).collect();
        let visited: BTreeSet<&str> = pages.iter().filter_map(|line| line["url"].as_str()).collect();
        assert_eq!(visited, expected, "{shape}");
        assert_eq!(gallery.trespasses(), [] as [String; 0]);
    }
}

#[test]
fn near_duplicates_are_settled_by_the_largest_and_carry_its_faces_at_their_own_size() {
    let web = World::new();
    let site = web.site();
    let variants = variants(7);
    site.page("/", r#"<img src="/original.jpg"><img src="/exact.jpg"><img src="/small.jpg"><img src="/again.jpg">"#);
    site.image("/original.jpg", variants.original.clone()).image("/exact.jpg", variants.exact.clone());
    site.image("/small.jpg", variants.resized.clone()).image("/again.jpg", variants.reencoded.clone());
    let folder = tempdir().expect("a folder");
    finish(job(folder.path(), &[site.url("/")], &[]));
    let images = lines(folder.path(), Kind::Images);
    let mut by_status: HashMap<&str, usize> = HashMap::new();
    images.iter().for_each(|line| *by_status.entry(line["status"].as_str().unwrap_or_default()).or_default() += 1);
    assert_eq!(by_status, HashMap::from([("done", 1), ("duplicate", 3)]), "{images:#?}");
    let done = images.iter().find(|line| line["status"] == "done").expect("one is done");
    let small = line_of(&images, &site.url("/small.jpg"));
    assert_eq!(small["duplicate_of"], done["image"]["id"]);
    let ratio = small["image"]["width"].as_f64().expect("a width") / done["image"]["width"].as_f64().expect("a width");
    let x = |line: &Value| line["faces"][0]["bbox"][0].as_f64().expect("a face");
    assert!((x(small) - x(done) * ratio).abs() < 0.02, "{small} {done}");
}

#[test]
fn an_alternate_takes_over_when_the_best_candidate_fails() {
    let web = World::new();
    let site = web.site();
    site.page("/", r#"<img srcset="/big.jpg 800w, /middle.jpg 400w, /small.jpg 200w">"#);
    let photo = world::jpeg(&picture(3, 400, 300), 90);
    site.image("/middle.jpg", photo.clone()).image("/small.jpg", photo);
    let folder = tempdir().expect("a folder");
    finish(job(folder.path(), &[site.url("/")], &[]));
    let images = lines(folder.path(), Kind::Images);
    let status = |path: &str| line_of(&images, &site.url(path))["status"].as_str().expect("a status").to_owned();
    assert_eq!((status("/big.jpg"), status("/middle.jpg")), ("rejected".to_owned(), "done".to_owned()));
    assert_eq!((status("/small.jpg"), web.log().count(&site.url("/small.jpg"))), ("duplicate".to_owned(), 0));
}

#[test]
fn outputs_exist_for_everything_the_results_name() {
    let web = World::new();
    let site = web.site();
    let (portrait, faces) = world::portrait(11, 400, 300);
    site.page("/", r#"<img src="/a.jpg"><img src="/missing.jpg">"#).image("/a.jpg", world::jpeg(&portrait, 95));
    let folder = tempdir().expect("a folder");
    let summary = finish(job(folder.path(), &[site.url("/")], &[]));
    let images = lines(folder.path(), Kind::Images);
    let done = line_of(&images, &site.url("/a.jpg"));
    assert_eq!(done["faces"].as_array().map(Vec::len), Some(faces.len()), "{done}");
    let exists = |key: &Value| folder.path().join("out").join(key.as_str().expect("a key")).is_file();
    assert!(exists(&done["image"]["key"]));
    assert!(done["faces"].as_array().expect("faces").iter().all(|face| exists(&face["crop"])));
    let id = done["image"]["id"].as_str().expect("an id");
    let sidecar =
        std::fs::read(folder.path().join(format!("out/default/meta/{}/{id}.json", &id[..2]))).expect("a sidecar");
    let sidecar: Value = serde_json::from_slice(&sidecar).expect("JSON");
    assert_eq!(sidecar["url"], done["url"]);
    assert!(sidecar["pages"].to_string().contains(&site.url("/")), "{sidecar}");
    let report = summary.report.expect("a report");
    let html = std::fs::read_to_string(report.trim_start_matches("file://")).expect("a report");
    assert!(html.contains("http_404") && !html.contains("<script src"), "failures are listed, nothing is loaded");
    assert_eq!(line_of(&images, &site.url("/missing.jpg"))["faces"], Value::Null, "never looked at is not zero faces");
}

#[test]
fn a_second_run_repeats_nothing_and_takes_up_what_is_new() {
    let web = World::new();
    let (one, two) = (web.site(), web.site());
    for (site, seed) in [(&one, 21), (&two, 22)] {
        site.page("/", r#"<img src="/a.jpg">"#).image("/a.jpg", world::jpeg(&picture(seed, 200, 150), 90));
    }
    let folder = tempdir().expect("a folder");
    finish(job(folder.path(), &[one.url("/")], &[]));
    let before = (web.log().total(), lines(folder.path(), Kind::Images));
    finish(job(folder.path(), &[one.url("/")], &[]));
    assert_eq!((web.log().total(), lines(folder.path(), Kind::Images)), before, "settled work is not repeated");
    finish(job(folder.path(), &[one.url("/"), two.url("/")], &[]));
    assert_eq!(lines(folder.path(), Kind::Images).len(), 2);
    assert_eq!(web.log().count(&one.url("/a.jpg")), 1);
}

#[test]
fn a_copy_of_a_recorded_picture_is_neither_decoded_nor_looked_at() {
    let web = World::new();
    let (one, two) = (web.site(), web.site());
    let (portrait, faces) = world::portrait(1, 320, 240);
    let bytes = world::png(&portrait);
    for (site, path) in [(&one, "/a.png"), (&two, "/b.png")] {
        site.page("/", format!("<img src={path}>")).image(path, bytes.clone());
    }
    let folder = tempdir().expect("a folder");
    let looks = |site: &world::Site| {
        let job = job(folder.path(), &[site.url("/")], &[]);
        let metrics = job.metrics.clone();
        let summary = finish(job);
        assert_eq!((summary.images.open, summary.images.dead, summary.images.rejected), (0, 0, 0));
        ["decode", "store_original", "detect"].map(|stage| metrics.stage(stage).ended.load(Relaxed))
    };
    assert_eq!(looks(&one), [1, 1, 1]);
    assert_eq!(looks(&two), [0, 0, 0], "the bytes are known by their digest");
    let lines = lines(folder.path(), Kind::Images);
    let (first, copy) = (line_of(&lines, &one.url("/a.png")), line_of(&lines, &two.url("/b.png")));
    assert_eq!(copy["status"], "duplicate");
    assert_eq!(copy["faces"].as_array().map(Vec::len), Some(faces.len()));
    for same in ["image", "faces", "detector"] {
        assert_eq!(copy[same], first[same], "{same}");
    }
}

#[test]
fn one_slow_host_delays_nobody_else() {
    let web = World::new();
    let (slow, quick) = (web.site(), web.site());
    slow.put("/", Answer::silent());
    quick.page("/", r#"<img src="/a.jpg">"#).image("/a.jpg", world::jpeg(&picture(5, 200, 150), 90));
    let folder = tempdir().expect("a folder");
    let settings = ["fetch.total_timeout_ms=1500", "retry.web.attempts_max=1", "crawl.in_flight_max=1000"];
    let summary = finish(job(folder.path(), &[slow.url("/"), quick.url("/")], &settings));
    assert_eq!((summary.pages.dead, summary.images.done), (1, 1));
    let requests = web.log().requests();
    let ended = |url: String| requests.iter().find(|r| r.url == url).and_then(|r| r.ended_ms);
    let quick_ended = ended(quick.url("/a.jpg")).expect("the image was sent");
    assert!(ended(slow.url("/")).is_none_or(|at| at > quick_ended), "the quick host was done first");
}

#[test]
fn the_marker_detector_sees_what_was_painted() {
    let (portrait, faces) = world::portrait(1, 320, 240);
    let picture = faceflow::core::detector::PixelBuffer { width: 320, height: 240, rgb: portrait.into_raw().into() };
    assert_eq!(markers(&picture).faces.len(), faces.len());
}

#[test]
fn sitemaps_and_feeds_of_the_list_open_their_pages() {
    let web = World::new();
    let site = web.site();
    let names = ["a", "b", "c", "d", "e"];
    for (seed, name) in names.iter().enumerate() {
        site.page(&format!("/{name}"), format!("<img src=/{name}.jpg>"));
        site.image(&format!("/{name}.jpg"), world::jpeg(&picture(40 + seed as u64, 200, 150), 90));
    }
    let entry = |name: &&str| format!("<url><loc>{}</loc></url>", site.url(&format!("/{name}")));
    let map = format!("<urlset>{}</urlset>", names[..4].iter().map(entry).collect::<String>());
    site.put(
        "/index.xml",
        Answer::ok(
            "application/xml",
            format!("<sitemapindex><sitemap><loc>{}</loc></sitemap></sitemapindex>", site.url("/map.xml.gz")),
        ),
    );
    site.put("/map.xml.gz", Answer::ok("application/gzip", world::gzip(map.as_bytes())));
    let item = format!("<rss version='2.0'><channel><item><link>{}</link></item></channel></rss>", site.url("/e"));
    site.put("/feed", Answer::ok("application/rss+xml", item));
    let folder = tempdir().expect("a folder");
    let summary = finish(job(folder.path(), &[site.url("/index.xml"), site.url("/feed")], &[]));
    assert_eq!((summary.pages.done, summary.images.done), (8, 5), "{:?} {:?}", summary.pages, summary.images);
}

#[test]
fn a_retry_that_is_hours_away_does_not_end_a_run_whose_work_goes_on() {
    let web = World::new();
    let (busy, slow) = (web.site(), web.site());
    busy.put("/", Answer::status(429).header("retry-after", "7200"));
    slow.put("/", Answer::ok("text/html", "<a href=/p>").delayed(600));
    slow.put("/p", Answer::ok("text/html", "<img src=/a.jpg>").delayed(600));
    slow.put("/a.jpg", Answer::ok("image/jpeg", world::jpeg(&picture(6, 200, 150), 90)).delayed(600));
    let folder = tempdir().expect("a folder");
    let summary = finish(job(folder.path(), &[busy.url("/"), slow.url("/")], &[]));
    assert!(summary.outcome.next_due.is_some(), "the retry is left: {:?}", summary.outcome);
    assert_eq!((summary.pages.done, summary.pages.open, summary.images.done), (2, 1, 1));
}
