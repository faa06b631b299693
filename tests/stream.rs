//! Streaming: inputs stay open, results appear while it runs, a signal drains it, and what was accepted survives a kill.

mod support;
mod world;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use faceflow::core::kill_point::{INBOX_CUT, INBOX_EMPTY, INBOX_POINTS, INBOX_REPLACE, VARIABLE};
use serde_json::Value;
use tempfile::tempdir;
use world::disk::Disk;
use world::postgres::Server;
use world::{Answer, Faceflow, Running, Script, World};

const LIMIT: Duration = Duration::from_secs(60);

const FLAGS: [&str; 7] = [
    "stream",
    "--set",
    "fetch.allow_networks=127.0.0.0/8",
    "--set",
    "detect.seeta_px=320",
    "--set",
    "report.refresh_ms=200",
];

fn faceflow(folder: &Path) -> Faceflow {
    Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder).deadline(Duration::from_secs(120))
}

fn photo(seed: u64) -> Vec<u8> {
    world::jpeg(&world::portrait(seed, 300, 200).0, 90)
}

/// A web of sites that show one picture each.
fn sites(web: &World, count: u64) -> Vec<world::Site> {
    let site = |n: u64| {
        let site = web.site();
        site.page("/", "<img src=/a.jpg>").image("/a.jpg", photo(n));
        site
    };
    (0..count).map(site).collect()
}

/// Waits until the results say so many images are settled. They are read from the ledger of the running process.
fn settled(faceflow: &Faceflow, running: &mut Running, count: usize) -> Vec<Value> {
    let mut lines = vec![];
    let came = running.waits(LIMIT, || {
        let ended = faceflow.run(&["results"]);
        lines = if ended.code() == Some(0) { ended.lines() } else { vec![] };
        lines.iter().filter(|line| line["status"] != "open").count() >= count
    });
    assert!(came, "{count} images were not settled: {lines:?}");
    lines
}

#[test]
fn a_watched_list_a_watched_folder_and_a_signal() {
    let web = World::new();
    let sites = sites(&web, 3);
    let folder = tempdir().expect("a folder");
    let (list, pictures) = (folder.path().join("sites.txt"), folder.path().join("pictures"));
    std::fs::create_dir(&pictures).expect("makes");
    std::fs::write(&list, format!("{}\n", sites[0].url("/"))).expect("writes");
    std::fs::write(pictures.join("first.jpg"), photo(10)).expect("writes");
    let faceflow = faceflow(folder.path());
    let mut running =
        faceflow.start(&[&FLAGS[..], &["--sites", "sites.txt", "--images", "pictures", "-w", "2"]].concat());
    settled(&faceflow, &mut running, 2);

    // More comes while it runs: a line, and a file that gets its name once it is whole.
    std::fs::write(&list, format!("{}\n{}\n", sites[0].url("/"), sites[1].url("/"))).expect("writes");
    std::fs::write(pictures.join(".second.jpg.part"), photo(11)).expect("writes");
    std::fs::rename(pictures.join(".second.jpg.part"), pictures.join("second.jpg")).expect("renames");
    let lines = settled(&faceflow, &mut running, 4);
    let file = lines.iter().find(|line| line["url"].as_str().is_some_and(|url| url.ends_with("second.jpg")));
    let file = file.unwrap_or_else(|| panic!("{lines:?}"));
    assert!(file["url"].as_str().expect("a URL").starts_with("file:///") && file["status"] == "done", "{file}");
    let report = folder.path().join("faceflow-out/report.html");
    let told = || std::fs::read_to_string(&report).is_ok_and(|report| report.contains("second.jpg"));
    assert!(running.waits(LIMIT, told), "the report follows");

    running.signal("TERM");
    let ended = running.finish();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(faceflow.results(&[]).len(), 4);
    // The next stream does nothing twice.
    let asked = web.log().total();
    let mut running = faceflow.start(&[&FLAGS[..], &["--sites", "sites.txt", "--images", "pictures"]].concat());
    std::fs::write(&list, format!("{}\n", sites[2].url("/"))).expect("writes");
    settled(&faceflow, &mut running, 5);
    running.signal("INT");
    assert_eq!(running.finish().code(), Some(130));
    let again: Vec<String> = web.log().requests().into_iter().skip(asked).map(|request| request.url).collect();
    assert!(again.iter().all(|url| url.starts_with(sites[2].origin())), "{again:?}");

    // What the list lost and won while nobody watched it.
    let removed = |site: &world::Site| {
        let told = faceflow.run(&["explain", &site.url("/")]);
        assert_eq!(told.code(), Some(0), "{}", told.stderr);
        told.stdout.contains("removed from the list")
    };
    assert_eq!([0, 1, 2].map(|n| removed(&sites[n])), [true, true, false]);
    std::fs::write(&list, format!("{}\n", sites[0].url("/"))).expect("writes");
    let mut running = faceflow.start(&[&FLAGS[..], &["--sites", "sites.txt", "--images", "pictures"]].concat());
    let came = running.waits(LIMIT, || removed(&sites[2]));
    assert!(came, "a line that was removed before the start");
    assert_eq!([0, 1].map(|n| removed(&sites[n])), [false, true]);
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));

    // A site that another list names stays.
    let both = ["--sites", "sites.txt", "--sites", "other.txt"];
    std::fs::write(&list, format!("{}\n{}\n", sites[0].url("/"), sites[1].url("/"))).expect("writes");
    std::fs::write(folder.path().join("other.txt"), format!("{}\n", sites[0].url("/"))).expect("writes");
    let mut running = faceflow.start(&[&FLAGS[..], &both].concat());
    assert!(running.waits(LIMIT, || !removed(&sites[1])), "it is on a list again");
    std::fs::write(&list, "").expect("writes");
    assert!(running.waits(LIMIT, || removed(&sites[1])), "no list names it any more");
    assert!(!removed(&sites[0]), "another list names it");
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));

    // And if the list that named it last has lost it meanwhile.
    std::fs::write(&list, format!("{}\n{}\n", sites[0].url("/"), sites[1].url("/"))).expect("writes");
    let mut running = faceflow.start(&[&FLAGS[..], &["--sites", "sites.txt"]].concat());
    assert!(running.waits(LIMIT, || !removed(&sites[1])), "it is on a list again");
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));
    std::fs::write(&list, "").expect("writes");
    let mut running = faceflow.start(&[&FLAGS[..], &both].concat());
    assert!(running.waits(LIMIT, || removed(&sites[1])), "no list names it any more");
    assert!(!removed(&sites[0]), "another list names it");
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));
}

#[test]
fn a_file_that_was_read_too_early_or_is_replaced_is_read_again() {
    let folder = tempdir().expect("a folder");
    let pictures = folder.path().join("pictures");
    std::fs::create_dir(&pictures).expect("makes");
    let (slow, whole) = (pictures.join("slow.jpg"), photo(20));
    // Whoever writes it pauses for as long as it takes to be read.
    std::fs::write(&slow, &whole[..whole.len() / 2]).expect("writes");
    let faceflow = faceflow(folder.path());
    let command = [&FLAGS[..], &["--images", "pictures"]].concat();
    let mut running = faceflow.start(&command);
    let lines = settled(&faceflow, &mut running, 1);
    assert_eq!((&lines[0]["status"], &lines[0]["reason"]), (&"rejected".into(), &"corrupt_image".into()));
    std::fs::write(&slow, &whole).expect("writes");
    let lines = settled(&faceflow, &mut running, 2);
    let done = lines.iter().find(|line| line["status"] == "done").unwrap_or_else(|| panic!("{lines:?}"));
    assert!(done["url"].as_str().is_some_and(|url| url.contains("slow.jpg#")), "{done}");
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));

    // While nobody watches, another picture takes its name.
    std::fs::write(&slow, photo(21)).expect("writes");
    let mut running = faceflow.start(&command);
    let lines = settled(&faceflow, &mut running, 3);
    assert_eq!(lines.iter().filter(|line| line["status"] == "done").count(), 2, "{lines:?}");
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));
    let lines = faceflow.results(&[]);
    assert_eq!(lines.len(), 3);
    let rejected = lines.iter().find(|line| line["status"] == "rejected").and_then(|line| line["url"].as_str());
    let told = faceflow.run(&["explain", rejected.expect("one was")]);
    assert!(told.stdout.contains("corrupt_image"), "{}", told.stdout);
    let driven = faceflow.run(&["retry", rejected.expect("one was")]);
    assert!(driven.stdout.starts_with("1 entries"), "{} {}", driven.stdout, driven.stderr);
}

/// Submits a site; the status line of the answer.
fn submit(said: &str, site: &str) -> String {
    let (address, token) = said
        .split_once("POST http://")
        .and_then(|(_, rest)| rest.split_once("/v1/sites, bearer token "))
        .unwrap_or_else(|| panic!("no address in {said:?}"));
    let token = token.lines().next().unwrap_or_default();
    let body = format!(r#"{{"sites":["{site}"]}}"#);
    let mut stream = TcpStream::connect(address).expect("connects");
    let head = format!(
        "POST /v1/sites HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("writes");
    let mut answer = String::new();
    // A server that dies in the middle has answered nothing.
    stream.read_to_string(&mut answer).ok();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// A stream whose settings are in `my.toml`, and its submission desk.
fn with_settings(faceflow: &Faceflow, text: &str, config: &Path) -> Running {
    std::fs::write(config, text).expect("writes");
    let flags = ["--config", "my.toml", "--listen", "127.0.0.1:0", "--set", "mine.links_max=99"];
    let mut running = faceflow.start(&[&FLAGS[..], &flags].concat());
    assert!(running.hears("bearer token"), "it listens: {}", running.stderr());
    running
}

#[test]
fn new_settings_hold_for_what_comes_after_them_and_bad_ones_change_nothing() {
    let web = World::new();
    let sites: Vec<world::Site> = (0..4)
        .map(|n| {
            let site = web.site();
            site.page("/", "<a href=/deep>more</a><img src=/a.jpg>").page("/deep", "<img src=/b.jpg>");
            site.image("/a.jpg", photo(2 * n)).image("/b.jpg", photo(2 * n + 1));
            site
        })
        .collect();
    let asked = |site: usize, path: &str| web.log().count(&sites[site].url(path));
    let folder = tempdir().expect("a folder");
    let (faceflow, config) = (faceflow(folder.path()), folder.path().join("my.toml"));
    let mut running = with_settings(&faceflow, "[crawl]\nshape = \"0x0\"\n", &config);
    let said = running.stderr();
    let send = |site: usize| {
        let answer = submit(&said, &sites[site].url("/"));
        assert!(answer.contains("202"), "{answer}");
    };
    send(0);
    settled(&faceflow, &mut running, 1);
    running.signal("HUP");
    assert!(running.hears("settings reloaded: none has changed"), "{}", running.stderr());

    // What a flag says stays as it says, and what cannot change is named.
    let text = "[crawl]\nshape = \"1x0\"\n[mine]\nlinks_max = 9\n[image]\nmin_side_px = 16\n";
    std::fs::write(&config, text).expect("writes");
    running.signal("HUP");
    assert!(running.hears("settings reloaded: crawl.shape = \"1x0\"\n"), "{}", running.stderr());
    assert!(running.hears("need a restart and stay as they were: image.min_side_px\n"), "{}", running.stderr());
    send(1);
    settled(&faceflow, &mut running, 3);
    assert_eq!((asked(0, "/deep"), asked(1, "/deep")), (0, 1));

    // From here on nobody says that the file has changed.
    std::fs::write(&config, "[crawl]\nshape = \"wide\"\n").expect("writes");
    let refused = "settings are not reloaded, the old ones stay: my.toml: crawl.shape = \"wide\": \"wide\" is neither";
    assert!(running.hears(refused), "{}", running.stderr());
    send(2);
    settled(&faceflow, &mut running, 5);
    assert_eq!(asked(2, "/deep"), 1);

    let text = "[crawl]\nshape = \"0x0\"\n[recrawl]\ninterval_ms = 300\ninterval_min_ms = 100\n";
    std::fs::write(&config, text).expect("writes");
    let taken = "crawl.shape = \"0x0\", recrawl.interval_min_ms = 100, recrawl.interval_ms = 300\n";
    assert!(running.hears(taken), "{}", running.stderr());
    send(3);
    assert!(running.waits(LIMIT, || asked(3, "/") >= 3), "its page is looked at again and again");
    settled(&faceflow, &mut running, 6);
    assert_eq!((asked(3, "/deep"), asked(0, "/"), asked(1, "/")), (0, 1, 1), "the others were read before");

    running.signal("TERM");
    let ended = running.finish();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("are not reloaded").count(), 1, "said once: {}", ended.stderr);
}

#[test]
fn what_a_killed_process_left_half_written_is_removed_once_it_is_old() {
    let folder = tempdir().expect("a folder");
    let images = folder.path().join("faceflow-out/default/images/ab");
    std::fs::create_dir_all(&images).expect("makes it");
    let left = |name: &str, days: u64| {
        let path = images.join(name);
        let file = std::fs::File::create(&path).expect("makes it");
        let made = file.metadata().and_then(|file| file.modified()).expect("is known");
        file.set_modified(made - Duration::from_secs(days * 86_400)).expect("sets");
        path
    };
    let (old, young, whole) = (left("abcd.jpg#1", 3), left("abcd.jpg#2", 0), left("abcd.jpg", 3));
    std::fs::write(folder.path().join("sites.txt"), "").expect("writes");
    let mut running = faceflow(folder.path()).start(&[&FLAGS[..], &["--sites", "sites.txt"]].concat());
    assert!(running.waits(LIMIT, || !old.exists()), "{}", running.stderr());
    assert!(young.exists() && whole.exists());
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));
}

#[test]
fn a_submission_that_was_accepted_survives_a_kill() {
    let web = World::new();
    let sites = sites(&web, 4);
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path());
    let command = [&FLAGS[..], &["--listen", "127.0.0.1:0"]].concat();
    for site in &sites {
        let mut running = faceflow.start(&command);
        assert!(running.hears("bearer token"), "it listens");
        let answer = submit(&running.stderr(), &site.url("/"));
        assert!(answer.contains("202"), "{answer}");
        // At once: nothing of it may have left the inbox.
        running.kill9_when(|| true).expect("is killed");
    }
    let mut running = faceflow.start(&command);
    let lines = settled(&faceflow, &mut running, 4);
    assert!(lines.iter().all(|line| line["status"] == "done"), "{lines:?}");
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));
}

#[test]
fn a_submission_that_was_not_answered_is_there_as_a_whole_or_not_at_all() {
    let web = World::new();
    let sites = sites(&web, 2);
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path());
    let command = [&FLAGS[..], &["--listen", "127.0.0.1:0"]].concat();
    for (site, point) in sites.iter().zip(INBOX_POINTS) {
        let dying = self::faceflow(folder.path()).env(VARIABLE, &format!("{point}:1"));
        let mut running = dying.start(&command);
        assert!(running.hears("bearer token"), "it listens");
        assert_eq!(submit(&running.stderr(), &site.url("/")), "", "{point}");
        assert_eq!(running.finish().code(), None, "{point}: it was killed");
    }
    let mut running = faceflow.start(&command);
    let lines = settled(&faceflow, &mut running, 1);
    assert!(lines[0]["url"] == sites[1].url("/a.jpg"), "what was written is taken in: {lines:?}");
    assert!(running.hears("bearer token"));
    assert!(submit(&running.stderr(), &sites[0].url("/")).contains("202"), "what was not, can be sent again");
    settled(&faceflow, &mut running, 2);
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));
    assert_eq!(web.log().count(&sites[1].url("/a.jpg")), 1);
}

#[test]
fn a_kill_while_the_inbox_is_shortened_or_emptied_loses_no_submission() {
    // Refused before anything is asked, so they are done with as fast as they are taken up.
    let address = |n: usize| format!("http://10.0.0.1/{n:070}");
    let command = [&FLAGS[..], &["--listen", "127.0.0.1:0", "--set", "submit.inbox=inbox.txt"]].concat();
    // One that is longer than what is read until it is looked at again is not emptied, but replaced by what is left.
    for (point, count) in [(INBOX_REPLACE[0], 12_000), (INBOX_REPLACE[1], 12_000), (INBOX_EMPTY, 1_000)] {
        let folder = tempdir().expect("a folder");
        let inbox = folder.path().join("inbox.txt");
        let lines: String = (0..count).map(|n| address(n) + "\n").collect();
        std::fs::write(&inbox, format!("http://[broken\n{lines}")).expect("writes");
        let killed = faceflow(folder.path()).env(VARIABLE, &format!("{point}:1")).run(&command);
        assert_eq!(killed.code(), None, "{point}: {}", killed.stderr);
        let left = std::fs::read_to_string(&inbox).expect("reads");
        let whole = left.len() > lines.len();
        assert_eq!(whole, point != INBOX_REPLACE[1], "{point}: {} bytes are left", left.len());
        assert!(left.ends_with(&(address(count - 1) + "\n")), "{point}");
        assert_eq!(
            std::fs::read_to_string(folder.path().join("inbox.txt.refused")).expect("reads"),
            "http://[broken\n"
        );

        let faceflow = faceflow(folder.path());
        let mut running = faceflow.start(&command);
        let said = format!("pages   {count} discovered: 0 done, 0 duplicate, {count} rejected");
        let came = running.waits(LIMIT, || faceflow.run(&["status"]).stdout.starts_with(&said));
        assert!(came, "{point}: {}{}", faceflow.run(&["status"]).stdout, running.stderr());
        let short = running.waits(LIMIT, || std::fs::metadata(&inbox).is_ok_and(|inbox| inbox.len() < 64 * 1024));
        assert!(short && !folder.path().join("inbox.txt.next").exists(), "{point}: {}", running.stderr());
        running.signal("TERM");
        assert_eq!(running.finish().code(), Some(0), "{point}");
    }
}

#[test]
fn a_list_and_a_folder_that_go_away_and_come_back_are_no_bad_entries() {
    let web = World::new();
    let sites = sites(&web, 2);
    let folder = tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("pictures")).expect("makes");
    std::fs::write(path("pictures/first.jpg"), photo(10)).expect("writes");
    std::fs::write(path("sites.txt"), format!("{}\n", sites[0].url("/"))).expect("writes");
    let faceflow = faceflow(folder.path());
    let mut running = faceflow.start(&[&FLAGS[..], &["--sites", "sites.txt", "--images", "pictures"]].concat());
    settled(&faceflow, &mut running, 2);
    for name in ["sites.txt", "pictures"] {
        std::fs::rename(path(name), path("away")).expect("renames");
        assert!(running.hears(&format!("{name}: No such file or directory")), "{}", running.stderr());
        std::fs::rename(path("away"), path(name)).expect("renames");
        assert!(running.hears(&format!("{name} is back, and is watched as before")), "{}", running.stderr());
    }
    // They are read on.
    std::fs::write(path("sites.txt"), format!("{}\nhttp://[broken\n", sites[1].url("/"))).expect("writes");
    std::fs::write(path("pictures/second.jpg"), photo(11)).expect("writes");
    settled(&faceflow, &mut running, 4);
    running.signal("TERM");
    let ended = running.finish();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("skipped 1 entry of the site list that is no site"), "{}", ended.stdout);
}

#[test]
fn half_a_line_of_the_inbox_is_cut_off_also_if_the_process_dies_before_it_is() {
    let web = World::new();
    let sites = sites(&web, 2);
    let folder = tempdir().expect("a folder");
    let inbox = folder.path().join("inbox.txt");
    // The second one was not answered for: it may be a longer address.
    std::fs::write(&inbox, format!("{}\n{}", sites[0].url("/"), sites[1].url("/"))).expect("writes");
    let command = [&FLAGS[..], &["--listen", "127.0.0.1:0", "--set", "submit.inbox=inbox.txt"]].concat();
    let killed = faceflow(folder.path()).env(VARIABLE, &format!("{INBOX_CUT}:1")).run(&command);
    assert_eq!(killed.code(), None, "{}", killed.stderr);
    let faceflow = faceflow(folder.path());
    let mut running = faceflow.start(&command);
    assert!(running.hears("bearer token"), "it listens");
    assert_eq!(std::fs::read_to_string(&inbox).expect("reads"), format!("{}\n", sites[0].url("/")));
    settled(&faceflow, &mut running, 1);
    assert_eq!(web.log().count(&sites[1].url("/")), 0);
    assert!(submit(&running.stderr(), &sites[1].url("/")).contains("202"));
    settled(&faceflow, &mut running, 2);
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));
}

#[test]
fn a_submission_for_which_there_is_no_room_is_refused_and_leaves_nothing() {
    let web = World::new();
    let sites = sites(&web, 2);
    let folder = tempdir().expect("a folder");
    let place = folder.path().join("small");
    let Some(disk) = Disk::mount(&place, "64k") else { return };
    let faceflow = faceflow(folder.path());
    let mut running =
        faceflow.start(&[&FLAGS[..], &["--listen", "127.0.0.1:0", "--set", "submit.inbox=small/inbox.txt"]].concat());
    assert!(running.hears("bearer token"), "it listens");
    let said = running.stderr();
    assert!(submit(&said, &sites[0].url("/")).contains("202"));
    let before = std::fs::read(place.join("inbox.txt")).expect("reads");
    // The last page of the disk that the inbox has is filled by submissions of its own.
    let filled = std::fs::write(place.join("filler"), vec![0; 1 << 20]);
    assert!(filled.is_err(), "the disk is small");
    let mut refused = String::new();
    for n in 0..200 {
        refused = submit(&said, &format!("{}{}", sites[1].url("/"), n));
        if !refused.contains("202") {
            break;
        }
    }
    assert!(refused.contains("507"), "{refused}");
    let kept = std::fs::read(place.join("inbox.txt")).expect("reads");
    assert!(
        kept.starts_with(&before) && kept.ends_with(b"\n"),
        "only whole lines: {:?}",
        String::from_utf8_lossy(&kept)
    );
    disk.resize("1m");
    std::fs::remove_file(place.join("filler")).expect("removes");
    assert!(submit(&said, &sites[1].url("/")).contains("202"), "there is room again");
    let taken = |path: &str| web.log().count(&sites[1].url(path)) > 0;
    assert!(running.waits(LIMIT, || taken("/")), "it is crawled: {}", running.stderr());
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));
}

#[test]
fn a_stream_that_looks_again_comes_to_the_same_end_whenever_it_is_killed() {
    let web = World::new();
    let site = web.site();
    let show = |shown: u64| {
        let html: String = (0..shown).map(|n| format!("<img src=/{n}.jpg>")).collect();
        site.page("/", &html);
    };
    for n in 0..6 {
        site.image(&format!("/{n}.jpg"), photo(n));
    }
    let folder = tempdir().expect("a folder");
    std::fs::write(folder.path().join("sites.txt"), site.url("/")).expect("writes");
    let often = [
        "--set",
        "recrawl.interval_ms=200",
        "--set",
        "recrawl.interval_min_ms=200",
        "--set",
        "recrawl.interval_max_ms=200",
    ];
    let command = [&FLAGS[..], &["--sites", "sites.txt"], &often].concat();
    let kills = ["store.put:3", "ledger.write:2", "ledger.commit:4", "ledger.committed:6", "sidecars.written:1"];
    for (round, kill) in kills.into_iter().enumerate() {
        show(round as u64 + 1);
        let killed = faceflow(folder.path()).env(VARIABLE, kill).start(&command).finish();
        assert_eq!(killed.code(), None, "{kill}: {}", killed.stderr);
    }
    show(6);
    let faceflow = faceflow(folder.path());
    let mut running = faceflow.start(&command);
    let lines = settled(&faceflow, &mut running, 6);
    assert!(lines.iter().all(|line| line["status"] == "done"), "{lines:?}");
    running.signal("TERM");
    assert_eq!(running.finish().code(), Some(0));
    for n in 0..6 {
        let asked = web.log().count(&site.url(&format!("/{n}.jpg")));
        assert!(asked <= 1 + kills.len(), "/{n}.jpg was asked for {asked} times");
    }
    let asked = web.log().of(&site.url("/"));
    assert!(asked.len() > 1, "the page was looked at again, {} times", asked.len());
}

#[test]
fn of_two_streams_on_one_state_one_tries_again_and_goes_on_for_the_other() {
    let Some(server) = Server::shared() else { return };
    let state = server.schema("postgres");
    let web = World::new();
    let sites: Vec<_> = (0..2).map(|_| web.site()).collect();
    sites[0].page("/", "<img src=/a.jpg>").image("/a.jpg", photo(1));
    let later = Script::times(1, Answer::status(503)).then(Answer::ok("image/jpeg", photo(2)));
    sites[1].page("/", "<img src=/busy.jpg>").put("/busy.jpg", later);
    let many: String = (0..20).map(|n| format!("<img src=/{n}.jpg>")).collect();
    sites[1].page("/many", &many);
    for n in 0..20 {
        sites[1].image(&format!("/{n}.jpg"), photo(10 + n));
    }
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path());
    let start = |list: &str, urls: &[String], more: &[&str]| {
        std::fs::write(folder.path().join(list), urls.join("\n")).expect("writes");
        let agent = format!("fetch.user_agent={list}");
        let often = ["recrawl.interval_min_ms=300", "ledger.lease_ms=1500", "retry.web.attempts_max=1", &agent];
        let often: Vec<&str> = often.into_iter().chain(more.iter().copied()).flat_map(|set| ["--set", set]).collect();
        faceflow.start(&[&FLAGS[..], &["--state", &state, "--sites", list], &often].concat())
    };
    let done = |running: &mut Running, count: usize| {
        running.waits(LIMIT, || {
            let told = faceflow.run(&["results", "--state", &state]);
            told.code() == Some(0) && told.lines().iter().filter(|line| line["status"] == "done").count() >= count
        })
    };
    let mut first = start("first", &[sites[0].url("/")], &[]);
    assert!(done(&mut first, 1), "the first stream's own: {}", first.stderr());
    let urls = [sites[1].url("/"), sites[1].url("/many")];
    let second = start("second", &urls, &["fetch.delay_ms=1000", "fetch.per_host=1"]);
    // What dies with the second is tried again by the first, which has looked longer.
    let address = sites[1].url("/busy.jpg");
    web.log().wait_for(LIMIT, |requests| requests.iter().filter(|request| request.url == address).count() == 2);
    let busy = web.log().of(&address);
    let agents: Vec<_> = busy.iter().filter_map(|request| request.header("user-agent")).collect();
    assert_eq!(agents, ["second", "first"]);
    // And what the second has not come to when it is killed.
    let killed = second.kill9_when(|| web.log().count(&sites[1].url("/0.jpg")) > 0);
    assert!(killed.is_ok(), "it had time for it");
    assert!(done(&mut first, 22), "what the second left: {}", first.stderr());
    let asked: Vec<usize> = (0..20).map(|n| web.log().count(&sites[1].url(&format!("/{n}.jpg")))).collect();
    assert!(asked.iter().all(|count| *count <= 2) && asked.iter().sum::<usize>() <= 21, "{asked:?}");
    first.signal("TERM");
    assert_eq!(first.finish().code(), Some(0));
}
