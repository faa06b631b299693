//! The command line as scripts see it: exit statuses, what goes to which stream, and mistakes that are named.

mod world;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::tempdir;
use world::{Answer, Faceflow, World};

fn faceflow(folder: &Path) -> Faceflow {
    Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder).deadline(Duration::from_secs(60))
}

const LOCAL: [&str; 2] = ["--set", "fetch.allow_networks=127.0.0.0/8"];

#[test]
fn a_state_of_an_unknown_scheme_is_refused() {
    let folder = tempdir().expect("a folder");
    let faceflow = Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder.path());
    let ended = faceflow.run(&["run", "http://a.example/", "--state", "postgre://x/y"]);
    assert_eq!(ended.code(), Some(2), "bad usage: {}", ended.stderr);
    assert!(
        ended.stderr.contains("--state") && ended.stderr.contains("neither a folder nor postgres://"),
        "{}",
        ended.stderr
    );
    assert!(!folder.path().join("postgre:").exists());
}

#[test]
fn exit_statuses_say_how_it_ended() {
    let web = World::new();
    let (well, busy) = (web.site(), web.site());
    well.page("/", "<p>nothing to see");
    busy.put("/", Answer::status(503));
    let folder = tempdir().expect("a folder");
    let ended = faceflow(folder.path()).run(&[&["run", &well.url("/")], &LOCAL[..]].concat());
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("pages   1 discovered: 1 done"), "{}", ended.stdout);

    let quick = ["--set", "retry.web.attempts_max=1"];
    let ended = faceflow(folder.path()).run(&[&["run", &busy.url("/")], &LOCAL[..], &quick[..]].concat());
    assert_eq!(ended.code(), Some(3), "a dead page: {}", ended.stderr);

    let folder = tempdir().expect("a folder");
    let patience = ["--patience", "1", "--set", "retry.web.base_ms=50000"];
    let ended = faceflow(folder.path()).run(&[&["run", &busy.url("/")], &LOCAL[..], &patience[..]].concat());
    assert_eq!(ended.code(), Some(3), "an open page: {}", ended.stderr);
    let pages = faceflow(folder.path()).results(&["--kind", "pages"]);
    assert_eq!(
        (pages[0]["status"].as_str(), pages[0]["reason"].as_str()),
        (Some("open"), Some("http_503")),
        "{pages:?}"
    );
    let ended = faceflow(folder.path()).run(&["retry", &busy.url("/")]);
    assert_eq!((ended.code(), ended.stdout.starts_with("1 entries")), (Some(0), true), "{}", ended.stdout);
}

#[test]
fn mistakes_are_bad_usage_and_name_what_is_wrong() {
    let folder = tempdir().expect("a folder");
    std::fs::write(folder.path().join("my.toml"), "[fetch]\nper_hots = 3\n").expect("a file");
    let config = folder.path().join("my.toml").display().to_string();
    let cases: [(&[&str], &[&str]); 16] = [
        (&["run", "--config", &config], &["my.toml", "fetch.per_hots", "per_host"]),
        (&["run", "--set", "detect.input_px=big"], &["detect.input_px", "big"]),
        (&["run", "--set", "dedupe.radius_bits=99"], &["dedupe.radius_bits", "99"]),
        (&["run", "http://"], &["http://"]),
        (&["run", "--sites", "no-such-file.txt"], &["no-such-file.txt"]),
        (&["run", "a.example", "--detector", "onnx:no-such-model.onnx"], &["no-such-model.onnx"]),
        (&["run", "a.example", "--detector", "magic"], &["magic", "seeta"]),
        (&["run", "a.example", "--set", "recrawl.interval_ms=5"], &["interval_ms = 5", "3600000 to 2592000000"]),
        (&["run", "a.example", "--crawl", "3"], &["faceflow: --crawl 3: crawl.shape", "3x3"]),
        (&["run", "a.example", "--max-pages", "0"], &["faceflow: --max-pages 0: crawl.max_pages"]),
        (&["run", "a.example", "--metrics", "nonsense"], &["--metrics nonsense", "HOST:PORT", "127.0.0.1:9090"]),
        (&["run"], &["--sites"]),
        (&["run", "-w", "100000", "a.example"], &["-w 100000"]),
        (&["retry", "--state", "nowhere"], &["nowhere"]),
        (&["run", "--tenant", "../up"], &["--tenant", "../up"]),
        (&["frobnicate"], &["frobnicate"]),
    ];
    for (arguments, words) in cases {
        let ended = faceflow(folder.path()).run(arguments);
        assert_eq!(ended.code(), Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(words.iter().all(|word| ended.stderr.contains(word)), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{arguments:?}: {}", ended.stdout);
    }
    let ended = faceflow(folder.path()).run(&["status"]);
    assert_eq!(ended.code(), Some(2), "there is no ledger yet: {}", ended.stderr);
    let ended = faceflow(folder.path()).run(&["stream", "--listen", "nonsense"]);
    assert!(ended.code() == Some(2) && ended.stderr.contains("HOST:PORT is wanted"), "{}", ended.stderr);
}

#[test]
fn detect_writes_one_line_per_file_in_path_order_and_a_broken_file_is_a_line() {
    let folder = tempdir().expect("a folder");
    let photos = folder.path().join("photos");
    std::fs::create_dir_all(photos.join("b")).expect("a folder");
    std::fs::write(photos.join("b/people.png"), world::rustface_photo()).expect("a file");
    std::fs::write(photos.join("a.jpg"), world::jpeg(&world::picture(1, 200, 150), 90)).expect("a file");
    std::fs::write(photos.join("broken.jpg"), b"not an image").expect("a file");
    let ended = faceflow(folder.path()).run(&["detect", &photos.display().to_string()]);
    assert_eq!(ended.code(), Some(3), "{}", ended.stderr);
    assert!(!ended.stderr.contains("passed over"), "{}", ended.stderr);
    let lines = ended.lines();
    let files: Vec<&str> = lines.iter().filter_map(|line| line["file"].as_str()).collect();
    assert_eq!(files, ["a.jpg", "b/people.png", "broken.jpg"]);
    assert!(lines[1]["faces"].as_array().is_some_and(|faces| faces.len() >= 15), "{}", lines[1]);
    assert_eq!((&lines[2]["faces"], lines[2]["error"].is_string()), (&Value::Null, true));
    assert_eq!(lines[1]["width"], 1666);
}

#[test]
fn detect_passes_over_what_is_no_picture_in_a_folder_and_answers_for_every_file_that_is_named() {
    let folder = tempdir().expect("a folder");
    let photos = folder.path().join("photos");
    std::fs::create_dir_all(photos.join("b")).expect("a folder");
    let photo = world::jpeg(&world::picture(1, 200, 150), 90);
    let others = ["notes.txt", "movie.mp4", "empty", "b/index.html", "logo.svg", "Thumbs.db", "README"];
    let texts: [&[u8]; 7] = [
        b"notes",
        b"\0\0\0\x18ftypmp42",
        b"",
        b"<html><img src=a.jpg>",
        b"<svg/>",
        b"\xd0\xcf\x11\xe0",
        b"GIF of a cat",
    ];
    for (name, text) in others.into_iter().zip(texts) {
        std::fs::write(photos.join(name), text).expect("a file");
    }
    for name in ["a.jpg", "b/without ending", "c.JPE", "scan.dat"] {
        std::fs::write(photos.join(name), &photo).expect("a file");
    }
    std::fs::write(photos.join("phone.HEIC"), b"whatever").expect("a file");
    std::os::unix::fs::symlink("nowhere", photos.join("link")).expect("links");
    let detect = |paths: &[&str]| {
        let ended = faceflow(&photos).run(&[&["detect"], paths].concat());
        let files: Vec<String> =
            ended.lines().iter().map(|line| line["file"].as_str().expect("a name").to_owned()).collect();
        (ended, files)
    };
    let (ended, files) = detect(&["."]);
    assert_eq!(files, ["a.jpg", "b/without ending", "c.JPE", "link", "phone.HEIC", "scan.dat"]);
    assert!(ended.stderr.contains("passed over 7 files that are no pictures"), "{}", ended.stderr);
    assert_eq!(ended.code(), Some(3), "two of them could not be looked at");
    let errors: Vec<bool> = ended.lines().iter().map(|line| line["error"].is_string()).collect();
    assert_eq!(errors, [false, false, false, true, true, false]);

    // What is named is answered, whatever it is.
    let (ended, files) = detect(&["notes.txt", "a.jpg", "empty", "b"]);
    assert_eq!(files, ["notes.txt", "a.jpg", "empty", "without ending"]);
    assert!(ended.code() == Some(3) && ended.lines()[0]["error"].is_string(), "{}", ended.stdout);
    assert!(ended.stderr.contains("passed over 1 file that is no picture"), "{}", ended.stderr);
    // A folder of nothing but other things is no failure.
    std::fs::remove_file(photos.join("b/without ending")).expect("removes");
    let (ended, files) = detect(&["b"]);
    assert_eq!((ended.code(), files.len()), (Some(0), 0), "{}", ended.stderr);
}

#[test]
fn the_faces_of_a_crawl_are_those_that_detect_sees_in_the_same_file() {
    let web = World::new();
    let site = web.site();
    let photo = world::rustface_photo();
    site.page("/", r#"<img src="/people.png">"#).image("/people.png", photo.clone());
    let folder = tempdir().expect("a folder");
    std::fs::write(folder.path().join("people.png"), photo).expect("a file");
    let crawler = faceflow(folder.path());
    assert_eq!(crawler.run(&[&["run", &site.url("/")], &LOCAL[..]].concat()).code(), Some(0));
    let crawled = crawler.results(&[]);
    let seen = crawler.run(&["detect", &folder.path().join("people.png").display().to_string()]).lines();
    let plain = |faces: &Value| -> Vec<Value> {
        let mut faces = faces.as_array().expect("faces").clone();
        faces.iter_mut().for_each(|face| face["crop"] = Value::Null);
        faces
    };
    assert_eq!(plain(&crawled[0]["faces"]), plain(&seen[0]["faces"]));
    assert_eq!(crawled[0]["detector"], seen[0]["detector"]);

    let explained = crawler.run(&["explain", &site.url("/people.png")]);
    assert!(
        explained.stdout.contains("discovered on") && explained.stdout.contains("22 faces"),
        "{}",
        explained.stdout
    );
    let csv = crawler.run(&["results", "--kind", "faces", "--format", "csv"]);
    assert_eq!(csv.stdout.lines().count(), 1 + seen[0]["faces"].as_array().map_or(0, Vec::len));
    let doctor = crawler.run(&["doctor"]);
    assert_eq!(doctor.code(), Some(0), "{}", doctor.stdout);
    // An output that is not that of the state is noticed.
    let elsewhere = crawler.run(&["doctor", "--out", "elsewhere"]);
    assert_eq!(elsewhere.code(), Some(1), "{}", elsewhere.stdout);
    let said = elsewhere.stdout.lines().find(|line| line.starts_with("FAIL  originals"));
    assert!(
        said.is_some_and(|said| said.contains("1 of 1 recorded") && said.contains("images/")),
        "{}",
        elsewhere.stdout
    );
}

#[test]
fn a_bad_line_of_the_site_list_is_named_and_the_others_are_crawled() {
    let web = World::new();
    let site = web.site();
    site.page("/", "<p>here");
    let folder = tempdir().expect("a folder");
    let list = folder.path().join("sites.txt");
    std::fs::write(&list, format!("# sites\nhttp://[broken\n{} # the good one\n", site.url("/"))).expect("a file");
    let ended = faceflow(folder.path()).run(&[&["run", "--sites", &list.display().to_string()], &LOCAL[..]].concat());
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("line 2"), "{}", ended.stderr);
    assert!(ended.stdout.contains("1 discovered: 1 done"), "{}", ended.stdout);
}

#[test]
fn a_state_in_use_is_refused() {
    let web = World::new();
    let site = web.site();
    site.put("/", Answer::silent());
    let folder = tempdir().expect("a folder");
    let running = faceflow(folder.path()).start(&[&["run", &site.url("/")], &LOCAL[..]].concat());
    web.log().wait_for(Duration::from_secs(20), |requests| requests.len() > 1);
    let second = faceflow(folder.path()).run(&[&["run", &site.url("/")], &LOCAL[..]].concat());
    assert_eq!(second.code(), Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("in use"), "{}", second.stderr);
    running.signal("KILL");
    assert_eq!(running.finish().code(), None, "it was killed");
}
