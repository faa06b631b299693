//! What a running process says about itself: metrics, and where it found its books broken.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use tempfile::tempdir;
use world::{Answer, Faceflow, Running, World};

const LIMIT: Duration = Duration::from_secs(60);

const FLAGS: [&str; 4] = ["--set", "fetch.allow_networks=127.0.0.0/8", "--set", "detect.seeta_px=320"];

fn faceflow(folder: &Path) -> Faceflow {
    Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder).deadline(Duration::from_secs(120))
}

/// A site that shows one picture.
fn site(web: &World) -> world::Site {
    let site = web.site();
    site.page("/", "<img src=/a.jpg>").image("/a.jpg", world::jpeg(&world::portrait(1, 300, 200).0, 90));
    site
}

/// Where it tells metrics.
fn address(running: &mut Running) -> String {
    assert!(running.hears("/metrics"), "it listens: {}", running.stderr());
    let said = running.stderr();
    let address = said.split_once("metrics at http://").and_then(|(_, rest)| rest.split_once("/metrics"));
    address.unwrap_or_else(|| panic!("no address in {said:?}")).0.to_owned()
}

/// Head and body of the answer.
fn ask(address: &str, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// Every sample by its name and labels.
fn scrape(address: &str) -> BTreeMap<String, f64> {
    let (head, body) = ask(address, "GET", "/metrics");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    let mut typed = BTreeSet::new();
    let mut samples = BTreeMap::new();
    for line in body.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            typed.insert(kind.split(' ').next().expect("a name").to_owned());
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
            assert!(typed.contains(name.split('{').next().expect("a name")), "{name} has no type");
            assert!(samples.insert(name.to_owned(), value.parse().expect("a number")).is_none(), "{name} twice");
        }
    }
    assert!(!body.contains("127.0.0."), "hosts are no labels: {body}");
    samples
}

#[test]
fn a_running_process_tells_how_far_it_is() {
    for command in ["stream", "run"] {
        let web = World::new();
        let (quick, stuck) = (site(&web), web.site());
        stuck.put("/", Answer::silent());
        let folder = tempdir().expect("a folder");
        let (quick, stuck) = (quick.url("/"), stuck.url("/"));
        let command = [&[command, &quick, &stuck, "--metrics", "127.0.0.1:0"], &FLAGS[..]].concat();
        let mut running = faceflow(folder.path()).start(&command);
        let (address, mut samples) = (address(&mut running), BTreeMap::new());
        // What a silent server holds up is due for ever longer, while everything else comes to its end.
        let done = "faceflow_entries{kind=\"image\",state=\"done\"}";
        let came = running.waits(LIMIT, || {
            samples = scrape(&address);
            samples.get(done) == Some(&1.0) && samples.get("faceflow_frontier_lag_ms").is_some_and(|lag| *lag > 500.0)
        });
        assert!(came, "{samples:?}");
        let expected = [
            ("faceflow_discovered{kind=\"page\"}", 2.0),
            ("faceflow_entries{kind=\"page\",state=\"done\"}", 1.0),
            ("faceflow_entries{kind=\"page\",state=\"open\"}", 1.0),
            ("faceflow_conservation_ok", 1.0),
            ("faceflow_stage_in_flight{stage=\"fetch\"}", 1.0),
            ("faceflow_stage_ended_total{stage=\"fetch\"}", 1.0),
            ("faceflow_stage_failed_total{stage=\"fetch\"}", 0.0),
            ("faceflow_stage_ended_total{stage=\"detect\"}", 1.0),
            ("faceflow_stage_dispatched{stage=\"dispatch\"}", 1.0),
        ];
        for (name, value) in expected {
            assert_eq!(samples.get(name), Some(&value), "{name} in {samples:?}");
        }
        assert!(samples["process_resident_memory_bytes"] > 1_000_000.0, "{samples:?}");
        assert!(ask(&address, "GET", "/").0.starts_with("HTTP/1.1 404"));
        assert!(ask(&address, "POST", "/metrics").0.starts_with("HTTP/1.1 405"));
    }
}

#[test]
fn broken_books_end_the_run_and_doctor_finds_the_same() {
    let web = World::new();
    let site = site(&web);
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path());
    let healthy = |ended: &world::Ended| ended.stdout.lines().any(|line| line.starts_with("ok    state"));
    let page = site.url("/");
    let mut running = faceflow.start(&[&["stream", &page], &FLAGS[..]].concat());
    let done = running.waits(LIMIT, || faceflow.run(&["status"]).stdout.contains("images  1 discovered: 1 done"));
    assert!(done, "{}", running.stderr());
    let doctor = faceflow.run(&["doctor"]);
    assert!(healthy(&doctor), "{}", doctor.stdout);

    let books = rusqlite::Connection::open(folder.path().join("faceflow-state/ledger.sqlite")).expect("opens");
    let damage = "BEGIN IMMEDIATE; UPDATE tallies SET done = done + 1 WHERE kind = 'image';
        UPDATE pictures SET urls = 7; COMMIT;";
    books.execute_batch(damage).expect("runs");
    let ended = running.finish();
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    let invariant = "not so that a picture counts the URLs that lead to it: ";
    let key = format!("({})", site.url("/a.jpg"));
    let said = ended.stderr.lines().find(|line| line.contains("conservation is violated: 1 entries were discovered"));
    assert!(said.is_some_and(|said| said.contains(invariant) && said.contains(&key)), "{}", ended.stderr);
    let doctor = faceflow.run(&["doctor"]);
    let said = doctor.stdout.lines().find(|line| line.starts_with("FAIL  state"));
    assert!(said.is_some_and(|said| said.contains(invariant) && said.contains(&key)), "{}", doctor.stdout);
    assert_eq!(doctor.code(), Some(1));
}
