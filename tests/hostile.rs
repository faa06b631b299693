//! A hostile web: every misbehaviour ends in a status with its reason, within its limits, and costs nobody else anything.

mod support;
mod world;

use faceflow::views::results::Kind;
use serde_json::Value;
use support::{finish, job, line_of, lines};
use tempfile::tempdir;
use world::{Answer, Script, World};

const LIMITS: [&str; 10] = [
    "fetch.total_timeout_ms=1500",
    "fetch.read_timeout_ms=1000",
    "fetch.per_host=32",
    "fetch.body_max_bytes=1000000",
    "retry.web.base_ms=10",
    "retry.web.jitter=0",
    "retry.web.attempts_max=3",
    "retry.host.base_ms=10",
    "retry.host.attempts_max=3",
    "fetch.robots_retry_ms=1",
];

fn status(lines: &[Value], url: &str) -> (String, String) {
    let line = line_of(lines, url);
    let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    (word("status"), word("reason"))
}

#[test]
fn every_kind_of_bad_answer_is_settled_with_its_reason_and_the_good_one_is_not_lost() {
    let web = World::new();
    let site = web.site();
    let photo = world::jpeg(&world::portrait(4, 300, 200).0, 90);
    let image = || Answer::ok("image/jpeg", photo.clone());
    site.put("/busy.jpg", Script::times(2, Answer::status(503)).then(image()));
    site.put("/dropped.jpg", Script::times(2, image().drop_mid_body(500)).then(image()));
    site.put("/cut.jpg", image().drop_mid_body(500));
    site.put("/drip.jpg", image().drip(1, 1_000));
    site.put("/idle.jpg", Answer::idle_after_headers("image/jpeg"));
    site.put("/endless.jpg", Answer::endless("image/jpeg"));
    site.put("/bomb.jpg", Answer::gzip_bomb("image/jpeg", 50));
    site.put("/long.jpg", image().lie_length(photo.len() + 5_000));
    site.put("/typed.jpg", image().lie_type("text/html"));
    site.put("/page.jpg", Answer::ok("image/jpeg", "<html><body>not a picture</body></html>"));
    site.put("/empty.jpg", Answer::ok("image/jpeg", ""));
    site.put("/pixels.png", Answer::ok("image/png", world::png_bomb()));
    site.put("/pixels.gif", Answer::ok("image/gif", world::gif_bomb()));
    site.put("/noai.jpg", image().header("X-Robots-Tag", "noai"));
    site.put("/nostatus.jpg", Answer::no_status_line());
    site.put("/file.jpg", Answer::redirect("file:///etc/passwd"));
    site.put("/private.jpg", Answer::redirect("http://10.1.2.3/a.jpg"));
    site.redirect_loop("/loop.jpg", 3);
    let tiny = world::png(&world::picture(1, 4, 4));
    site.image("/pixel.png", tiny).image("/good.jpg", photo.clone());
    let paths =
        "busy dropped cut drip idle endless bomb long typed page empty noai nostatus file private loop good missing";
    let mut html: String = paths.split(' ').map(|path| format!(r#"<img src="/{path}.jpg">"#)).collect();
    html += r#"<img src="/pixels.png"><img src="/pixels.gif"><img src="/pixel.png"><img src="http://127.1:9/forbidden.jpg">"#;
    site.page("/", html);

    let folder = tempdir().expect("a folder");
    let summary = finish(job(folder.path(), &[site.url("/")], &LIMITS));
    let images = lines(folder.path(), Kind::Images);
    let expected = [
        ("/missing.jpg", "rejected", "http_404"),
        ("/cut.jpg", "dead", "body_truncated"),
        ("/long.jpg", "dead", "body_truncated"),
        ("/drip.jpg", "dead", "timeout"),
        ("/idle.jpg", "dead", "timeout"),
        ("/endless.jpg", "rejected", "too_large"),
        ("/bomb.jpg", "rejected", "too_large"),
        ("/page.jpg", "rejected", "not_an_image"),
        ("/empty.jpg", "rejected", "not_an_image"),
        ("/pixels.png", "rejected", "too_many_pixels"),
        ("/pixels.gif", "rejected", "too_many_pixels"),
        ("/pixel.png", "rejected", "too_small"),
        ("/noai.jpg", "rejected", "opt_out:noai"),
        ("/nostatus.jpg", "dead", "bad_response"),
        ("/file.jpg", "rejected", "bad_scheme"),
        ("/private.jpg", "rejected", "private_address"),
        ("/loop.jpg", "rejected", "redirect_loop"),
    ];
    for (path, state, reason) in expected {
        assert_eq!(status(&images, &site.url(path)), (state.to_owned(), reason.to_owned()), "{path}");
    }
    let same: Vec<(String, String)> = ["/good.jpg", "/busy.jpg", "/dropped.jpg", "/typed.jpg"]
        .iter()
        .map(|path| status(&images, &site.url(path)))
        .collect();
    let done = same.iter().filter(|(state, _)| state == "done").count();
    assert!(done == 1 && same.iter().all(|(state, _)| state == "done" || state == "duplicate"), "{same:?}");
    assert_eq!(line_of(&images, &site.url("/busy.jpg"))["attempts"], 3);
    assert_eq!(summary.images.open, 0);
    for line in images.iter().filter(|line| line["status"] == "rejected" || line["status"] == "dead") {
        assert_eq!(line["faces"], Value::Null, "a failure is never zero faces: {line}");
    }
}

#[test]
fn private_addresses_are_refused_in_every_spelling_unless_allowed() {
    let web = World::new();
    let site = web.site();
    let port = site.host().split(':').nth(1).expect("a port").to_owned();
    let folder = tempdir().expect("a folder");
    let spellings = ["127.0.0.2", "127.2", "0x7f000002", "2130706434", "[::ffff:127.0.0.2]"];
    let sites: Vec<String> = spellings.iter().map(|host| format!("http://{host}:{port}/")).collect();
    let mut spelled = job(folder.path(), &sites, &LIMITS);
    spelled.settings.fetch.allow_networks = vec![];
    finish(spelled);
    let pages = lines(folder.path(), Kind::Pages);
    assert!(!pages.is_empty());
    for page in &pages {
        assert_eq!(
            (page["status"].as_str(), page["reason"].as_str()),
            (Some("rejected"), Some("private_address")),
            "{page}"
        );
    }
    let mut named = job(folder.path(), &[format!("http://localhost:{port}/")], &LIMITS);
    named.settings.fetch.allow_networks = vec![];
    named.settings.fetch.ports.push(port.parse().expect("a port"));
    finish(named);
    let pages = lines(folder.path(), Kind::Pages);
    assert_eq!(
        status(&pages, &format!("http://localhost:{port}/")),
        ("rejected".to_owned(), "private_address".to_owned())
    );
    assert_eq!(web.log().total(), 0, "nothing was asked for");
}

#[test]
fn robots_rules_are_obeyed_for_pages_and_images() {
    let web = World::new();
    let site = web.site();
    site.robots("User-agent: *\nDisallow: /private\n");
    site.page("/", r#"<a href="/private/page">p</a><a href="/open">o</a><img src="/private.jpg"><img src="/a.jpg">"#);
    site.page("/open", "<p>open").image("/a.jpg", world::jpeg(&world::picture(1, 100, 80), 90));
    let folder = tempdir().expect("a folder");
    finish(job(folder.path(), &[site.url("/")], &LIMITS));
    let (pages, images) = (lines(folder.path(), Kind::Pages), lines(folder.path(), Kind::Images));
    assert_eq!(status(&pages, &site.url("/private/page")), ("rejected".to_owned(), "robots".to_owned()));
    assert_eq!(status(&images, &site.url("/private.jpg")), ("rejected".to_owned(), "robots".to_owned()));
    assert_eq!(web.log().count(&site.url("/private.jpg")) + web.log().count(&site.url("/private/page")), 0);
    assert_eq!(status(&images, &site.url("/a.jpg")).0, "done");
}

#[test]
fn hosts_that_make_us_wait_delay_nobody_else() {
    let web = World::new();
    let photo = world::jpeg(&world::portrait(4, 300, 200).0, 90);
    let shown = |n: usize| (0..n).map(|i| format!(r#"<img src="/{i}.jpg">"#)).collect::<String>();
    let open = |images: usize, robots: &str| {
        let site = web.site();
        site.robots(robots).page("/", shown(images));
        for i in 0..images {
            site.image(&format!("/{i}.jpg"), photo.clone());
        }
        site
    };
    let slow: Vec<_> = (0..6).map(|_| open(3, "User-agent: *\nCrawl-delay: 1\n")).collect();
    let fast = open(12, "");
    let sites: Vec<String> = slow.iter().chain([&fast]).map(|site| site.url("/")).collect();
    let folder = tempdir().expect("a folder");
    finish(job(folder.path(), &sites, &["fetch.concurrency=2"]));
    let last = |site: &world::Site| {
        let requests = web.log().requests().into_iter().filter(|request| request.url.starts_with(site.origin()));
        requests.map(|request| request.started_ms).max().expect("was asked")
    };
    let first_of_the_slow = slow.iter().map(last).min().expect("several");
    assert!(last(&fast) < first_of_the_slow, "{} {first_of_the_slow}", last(&fast));
    assert_eq!(lines(folder.path(), Kind::Images).len(), 6 * 3 + 12);
}
