//! What the terminal says: at the end of a run and in `status`, why there is less than was asked for, and what to do about it.

mod world;

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use tempfile::tempdir;
use world::{Answer, Ended, Faceflow, World};

fn faceflow(folder: &Path) -> Faceflow {
    Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder).deadline(Duration::from_secs(60))
}

const LOCAL: [&str; 2] = ["--set", "fetch.allow_networks=127.0.0.0/8"];

/// The line that names `url`, and the next one, which says what to do.
fn named<'a>(ended: &'a Ended, url: &str) -> (&'a str, &'a str) {
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let at = lines.iter().position(|line| line.starts_with(&format!("  {url}  ")));
    let at = at.unwrap_or_else(|| panic!("{url} is not named: {}", ended.stdout));
    (lines[at], lines.get(at + 1).copied().unwrap_or_default())
}

#[test]
fn a_site_that_the_address_guard_refuses_is_named_and_what_is_said_about_it_helps() {
    let web = World::new();
    let site = web.site();
    site.page("/", r#"<img src="/a.jpg">"#).image("/a.jpg", world::jpeg(&world::picture(1, 200, 150), 90));
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path());
    let refused = faceflow.run(&["run", &site.url("/")]);
    assert_eq!(refused.code(), Some(0), "a refusal is an answer: {}", refused.stderr);
    assert!(
        refused.stdout.contains("why     1 page rejected: private_address\n1 site gave nothing:\n"),
        "{}",
        refused.stdout
    );
    let (why, what) = named(&refused, &site.url("/"));
    assert!(why.contains("rejected, private_address: 127.0.0.2 is not a public address"), "{why}");
    let status = faceflow.run(&["status"]);
    assert_eq!((named(&status, &site.url("/")), status.code()), ((why, what), Some(0)), "status says the same");

    // As it is said: retry, then the same command with what was named.
    assert!(
        refused
            .stdout
            .contains("to try again: faceflow retry URL… (of pages and images; without a URL: all that is dead), then"),
        "{}",
        refused.stdout
    );
    let (_, setting) = what.split_once("--set ").expect("a setting is named");
    assert_eq!(faceflow.run(&["retry", &site.url("/")]).code(), Some(0));
    let ended = faceflow.run(&["run", &site.url("/"), "--set", setting]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("images  1 discovered: 1 done"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("why") && !ended.stdout.contains("gave nothing"), "{}", ended.stdout);
}

#[test]
fn every_kind_of_refusal_is_told_with_what_to_do() {
    let web = World::new();
    let [robots, opt_out, gone, text, empty, hidden, good, kept] = [(); 8].map(|()| web.site());
    let photo = world::jpeg(&world::picture(1, 200, 150), 90);
    robots.page("/", "<p>here").robots("User-agent: *\nDisallow: /\n");
    opt_out.put("/", Answer::ok("text/html", "<p>here").header("X-Robots-Tag", "noai"));
    gone.page("/other", "<p>here");
    text.put("/", Answer::ok("application/octet-stream", vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    empty.page("/", "<p>no pictures");
    hidden.page("/", r#"<img src="/a.jpg"><img src="/b.jpg">"#).robots("User-agent: *\nDisallow: /*.jpg\n");
    good.page("/", r#"<img src="/a.jpg">"#).image("/a.jpg", photo.clone());
    // A copy of another site's picture is something, too.
    kept.page("/", r#"<img src="/a.jpg">"#).image("/a.jpg", photo);
    let nobody = TcpListener::bind("127.0.0.99:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let nobody = format!("http://{nobody}/");
    let nowhere = "http://faceflow-test.invalid/";
    let sites = [&robots, &opt_out, &gone, &text, &empty, &hidden, &good, &kept].map(|site| site.url("/"));
    let mut command = vec!["run", &nobody, nowhere];
    command.extend(sites.iter().map(String::as_str));
    let quick = ["--set", "retry.host.attempts_max=1", "--set", "retry.web.attempts_max=1"];
    let folder = tempdir().expect("a folder");
    let ended = faceflow(folder.path()).run(&[&command[..], &LOCAL[..], &quick[..]].concat());
    assert_eq!(ended.code(), Some(3), "two are dead: {}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("8 sites gave nothing:\n"), "{}", ended.stdout);
    let told = [
        (&*nobody, "connect: ", "that the server runs"),
        (nowhere, "dns: ", "check the spelling of the name"),
        (&sites[0], "rejected, robots: ", "--set fetch.respect_robots=false"),
        (&sites[1], "rejected, opt_out:noai: ", "--set fetch.respect_opt_outs=false"),
        (&sites[2], "rejected, http_404: ", "check the spelling of the address"),
        (&sites[3], "rejected, not_html: ", "name a page"),
        (&sites[4], "1 page known, and no image", "--crawl all"),
        (&sites[5], "none of its 2 images was taken, such as ", "--set fetch.respect_robots=false"),
    ];
    for (url, why, what) in told {
        let (line, _) = named(&ended, url);
        assert!(line.contains(why), "{url}: {line}");
        // Those about which the same can be done stand together.
        let lines: Vec<&str> = ended.stdout.lines().collect();
        let at = lines.iter().position(|other| *other == line).expect("it is there");
        let next = lines[at..].iter().find(|line| line.starts_with("    ")).expect("something can be done");
        assert!(next.contains(what), "{url}: {next}");
    }
    for site in &sites[6..] {
        assert!(!ended.stdout.contains(site.as_str()), "{site} gave something: {}", ended.stdout);
    }
    let reasons: Vec<&str> = ended.stdout.lines().filter_map(|line| line.strip_prefix("why     ")).collect();
    assert_eq!(reasons[0], "2 images rejected: robots", "the most frequent first: {reasons:?}");
    assert_eq!(reasons.len(), 6, "{reasons:?}");
}

#[test]
fn explain_of_a_copy_tells_what_happened_to_itself_before_it_tells_of_its_twin() {
    let web = World::new();
    let site = web.site();
    let photo = world::jpeg(&world::picture(1, 200, 150), 90);
    site.page("/", r#"<img src="/first.jpg"><a href="/later">later</a>"#).image("/first.jpg", photo.clone());
    // Long after the first one was looked at.
    site.put("/later", Answer::ok("text/html", r#"<img src="/copy.jpg">"#).delayed(4_000)).image("/copy.jpg", photo);
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path());
    let ended = faceflow.run(&[&["run", &site.url("/")], &LOCAL[..]].concat());
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let told = faceflow.run(&["explain", &site.url("/copy.jpg")]).stdout;
    let at = |what: &str| told.find(what).unwrap_or_else(|| panic!("{what} is not told: {told}"));
    let [discovered, kept] = [at(&format!("discovered on {}", site.url("/later"))), at("downloaded")];
    let twin = at(&format!("it is a copy; before, while {} led to the picture:\n    ", site.url("/first.jpg")));
    assert!(discovered < kept && kept < twin && twin < at("looked at; its faces are stored"), "{told}");
    let first = faceflow.run(&["explain", &site.url("/first.jpg")]).stdout;
    assert!(!first.contains("copy"), "{first}");
}

#[test]
fn of_many_sites_that_gave_nothing_some_are_named_and_all_are_counted() {
    let web = World::new();
    let site = web.site();
    let folder = tempdir().expect("a folder");
    let sites: String = (0..30).map(|n| format!("{}\n", site.url(&format!("/{n}")))).collect();
    std::fs::write(folder.path().join("sites.txt"), sites).expect("writes");
    let ended = faceflow(folder.path()).run(&[&["run", "--sites", "sites.txt"], &LOCAL[..]].concat());
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("why     30 pages rejected: http_404\n30 sites gave nothing:\n"), "{}", ended.stdout);
    let sites = ended.stdout.lines().filter(|line| line.starts_with("  http://")).count();
    let said = ended.stdout.matches("check the spelling of the address").count();
    assert_eq!((sites, said), (20, 1), "what to do is said once: {}", ended.stdout);
    assert!(ended.stdout.contains("  and 10 more: faceflow results"), "{}", ended.stdout);
}
