//! Disks that fill up, files that are damaged, object stores that are slow to come: each is a clear error or a retry, and
//! nothing is lost.

mod support;
mod world;

use std::ffi::OsStr;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use faceflow::core::kill_point::VARIABLE;
use faceflow::core::testing::require;
use serde_json::Value;
use tempfile::tempdir;
use world::disk::Disk;
use world::postgres::Server;
use world::unruly::Unruly;
use world::{Faceflow, Gallery, Plan};

const FLAGS: [&str; 8] = [
    "--set",
    "fetch.allow_networks=127.0.0.0/8",
    "--set",
    "detect.seeta_px=320",
    "--set",
    "retry.web.base_ms=100",
    "--set",
    "retry.detect.base_ms=100",
];

/// The account that every emulator of Azure's storage has, with the key that its manual prints.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// So long after its start an object store takes connections.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);

fn web() -> Gallery {
    Plan { sites: 2, pages_per_site: 7, images: 60, ..Plan::default() }.serve()
}

fn faceflow(folder: &Path) -> Faceflow {
    Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder).deadline(Duration::from_secs(120))
}

fn command<'a>(starts: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    ["run"].into_iter().chain(starts.iter().map(String::as_str)).chain(FLAGS).chain(more.iter().copied()).collect()
}

fn results(faceflow: &Faceflow, more: &[&str]) -> Vec<Value> {
    let mut lines = faceflow.results(more);
    lines.iter_mut().for_each(|line| line["attempts"] = Value::Null);
    lines
}

/// What an undisturbed run comes to.
fn expected(gallery: &Gallery, starts: &[String]) -> Vec<Value> {
    let folder = tempdir().expect("a folder");
    let undisturbed = faceflow(folder.path());
    let ended = undisturbed.run(&command(starts, &[]));
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    gallery.world.log().clear();
    results(&undisturbed, &[])
}

#[test]
fn a_full_output_is_retried_and_a_full_state_is_a_clear_error_and_both_go_on_when_there_is_room() {
    let gallery = web();
    let starts = gallery.starts();
    let expected = expected(&gallery, &starts);
    for (part, flag) in [("out", "--out"), ("state", "--state")] {
        let folder = tempdir().expect("a folder");
        let path = folder.path().join(part);
        let Some(disk) = Disk::mount(&path, if part == "out" { "600k" } else { "400k" }) else { return };
        let place = path.to_string_lossy().into_owned();
        let faceflow = faceflow(folder.path());
        let command = command(&starts, &[flag, &place, "--patience", "0"]);
        let ended = faceflow.run(&command);
        // There is no room for the sidecars and the report either.
        assert_eq!(ended.code(), Some(1), "{part}: {}", ended.stderr);
        assert!(ended.stderr.contains("full") || ended.stderr.contains("No space"), "{part}: {}", ended.stderr);
        disk.resize("64m");
        let retried = faceflow.run(&[&["retry"][..], &[flag, &place]].concat());
        assert_eq!(retried.code(), Some(0), "{part}: {}", retried.stderr);
        let ended = faceflow.run(&command);
        assert_eq!(ended.code(), Some(0), "{part}: {}", ended.stderr);
        let more: &[&str] = if part == "state" { &[flag, &place] } else { &[] };
        assert!(results(&faceflow, more) == expected, "{part}: the results are not those of an undisturbed run");
    }
}

#[test]
fn a_state_that_cannot_be_written_is_read_as_it_is_and_refuses_runs_in_one_sentence() {
    let gallery = Plan { sites: 1, pages_per_site: 3, images: 9, ..Plan::default() }.serve();
    let starts = gallery.starts();
    let folder = tempdir().expect("a folder");
    let Some(disk) = Disk::mount(&folder.path().join("a state? 100%"), "64m") else { return };
    let state = ["--state", "a state? 100%"];
    let faceflow = faceflow(folder.path());
    let run = command(&starts, &[]);
    assert_eq!(faceflow.run(&[&run[..], &state].concat()).code(), Some(0));
    let explain = ["explain", &starts[0]];
    let reading: [&[&str]; 4] = [&["results"], &["status"], &explain, &["doctor"]];
    let said = || reading.map(|command| faceflow.run(&[command, &state].concat()));
    let before = said();
    assert!(disk.remount("ro"));
    for (ended, before) in said().iter().zip(&before) {
        assert_eq!(ended.code(), Some(0), "{} {}", ended.stdout, ended.stderr);
        assert_eq!(ended.stdout, before.stdout);
    }
    let asked = gallery.world.log().total();
    let listen = ["stream", "--listen", "127.0.0.1:0"];
    for (command, status) in [(&run[..], 1), (&["retry"], 1), (&listen, 2)] {
        let ended = faceflow.run(&[command, &state].concat());
        assert_eq!(ended.code(), Some(status), "{}", ended.stderr);
        let named = ended.stderr.contains("a state? 100%") && ended.stderr.contains("Read-only");
        assert!(named && ended.stderr.lines().count() == 1, "{}", ended.stderr);
        assert!(status == 2 || ended.stderr.contains("name another --state"), "{}", ended.stderr);
    }
    assert_eq!(gallery.world.log().total(), asked, "nothing was begun");
    assert!(disk.remount("rw"));
    assert_eq!(faceflow.run(&[&run[..], &state].concat()).code(), Some(0), "it goes on");
}

#[test]
fn the_log_that_a_kill_left_on_a_disk_that_cannot_be_written_is_read_or_named() {
    let gallery = Plan { sites: 1, pages_per_site: 3, images: 9, ..Plan::default() }.serve();
    let starts = gallery.starts();
    let folder = tempdir().expect("a folder");
    let Some(disk) = Disk::mount(&folder.path().join("faceflow-state"), "64m") else { return };
    let killed = faceflow(folder.path()).env(VARIABLE, "ledger.committed:9").run(&command(&starts, &[]));
    assert_eq!(killed.code(), None, "{}", killed.stderr);
    let left = |name: &str| folder.path().join("faceflow-state").join(name);
    assert!(std::fs::metadata(left("ledger.sqlite-wal")).is_ok_and(|log| log.len() > 0));
    let faceflow = faceflow(folder.path());
    assert!(disk.remount("ro"));
    let as_left = results(&faceflow, &[]);
    assert!(!as_left.is_empty());
    // A copy of what seems to matter.
    assert!(disk.remount("rw"));
    std::fs::remove_file(left("ledger.sqlite-shm")).expect("removes");
    assert!(disk.remount("ro"));
    let ended = faceflow.run(&["results"]);
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    let advice = ended.stderr.contains("ledger.sqlite-wal") && ended.stderr.contains("--state");
    assert!(advice && ended.stderr.lines().count() == 1, "{}", ended.stderr);
    assert!(disk.remount("rw"));
    assert_eq!(results(&faceflow, &[]), as_left, "nothing is lost");
}

#[test]
fn an_output_that_cannot_be_written_is_named_at_the_start_and_waited_for_later() {
    let gallery = web();
    let starts = gallery.starts();
    let expected = expected(&gallery, &starts);
    let folder = tempdir().expect("a folder");
    let Some(disk) = Disk::mount(&folder.path().join("faceflow-out"), "64m") else { return };
    let faceflow = faceflow(folder.path());
    assert!(disk.remount("ro"));
    let ended = faceflow.run(&command(&starts, &[]));
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    let named = ["faceflow-out", "Read-only", "name another --out"].iter().all(|word| ended.stderr.contains(word));
    assert!(named && ended.stderr.lines().count() == 1, "{}", ended.stderr);

    assert!(disk.remount("rw"));
    let mut running = faceflow.start(&command(&starts, &[]));
    let limit = Duration::from_secs(60);
    assert!(running.waits(limit, || gallery.world.log().total() > 20 && disk.remount("ro")), "{}", running.stderr());
    assert!(running.hears("Read-only"), "{}", running.stderr());
    assert!(disk.remount("rw"));
    let ended = running.finish();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(results(&faceflow, &[]) == expected, "the results are not those of an undisturbed run");
}

#[test]
fn a_damaged_ledger_is_named_and_left_as_it_is() {
    let gallery = Plan { sites: 1, pages_per_site: 3, images: 9, ..Plan::default() }.serve();
    let starts = gallery.starts();
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path());
    assert_eq!(faceflow.run(&command(&starts, &[])).code(), Some(0));
    let file = folder.path().join("faceflow-state/ledger.sqlite");
    let whole = std::fs::read(&file).expect("reads");
    let torn: Vec<u8> = whole.iter().take(whole.len() / 2).copied().collect();
    let scribbled: Vec<u8> = whole
        .iter()
        .enumerate()
        .map(|(at, byte)| if (100..9_000).contains(&at) { byte ^ 0x5a } else { *byte })
        .collect();
    for (what, bytes) in [("no database", vec![7; 20_000]), ("half of it", torn), ("scribbled over", scribbled)] {
        std::fs::write(&file, &bytes).expect("writes");
        for command in [command(&starts, &[]), vec!["results"], vec!["doctor"]] {
            let ended = faceflow.run(&command);
            assert_eq!(ended.code(), Some(1), "{what}: {} {}", ended.stdout, ended.stderr);
            let said = ended.stderr + &ended.stdout;
            assert!(said.contains("ledger.sqlite") || said.contains("faceflow-state"), "{what}: {said}");
        }
        assert_eq!(std::fs::read(&file).expect("reads"), bytes, "{what}: nothing was written over it");
    }
    std::fs::write(&file, &whole).expect("writes");
    assert_eq!(faceflow.run(&command(&starts, &[])).code(), Some(0), "the backup goes on");
}

#[test]
fn a_database_server_that_stops_in_mid_run_is_named_and_the_same_command_goes_on_when_it_is_back() {
    let Some(server) = Server::durable() else { return };
    let gallery = web();
    let starts = gallery.starts();
    let expected = expected(&gallery, &starts);
    for (moment, workers) in [(5, "1"), (25, "2"), (45, "1")] {
        let (folder, state) = (tempdir().expect("a folder"), server.schema("postgres"));
        let faceflow = faceflow(folder.path());
        let command = command(&starts, &["--state", &state, "-w", workers]);
        gallery.world.log().clear();
        let mut running = faceflow.start(&command);
        let came = running.waits(Duration::from_secs(60), || gallery.world.log().total() >= moment);
        assert!(came, "{}", running.stderr());
        server.stop();
        let ended = running.finish();
        assert_eq!(ended.code(), Some(1), "after {moment} requests: {}", ended.stderr);
        let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("faceflow: ")).collect();
        let [error] = errors[..] else { panic!("one error: {}", ended.stderr) };
        let (place, _) = state.split_once("&options").expect("the schema comes last");
        let words = [place.rsplit('=').next().expect("the folder of its socket"), "the same command again"];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        // While it is down.
        for command in [&command[..], &["status", "--state", &state]] {
            let ended = faceflow.run(command);
            let named = words.iter().all(|word| ended.stderr.contains(word));
            assert!(ended.code() == Some(1) && named, "{:?} {}", ended.code(), ended.stderr);
        }
        assert!(server.up(), "it starts again");
        let ended = faceflow.run(&command);
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(results(&faceflow, &["--state", &state]) == expected, "not the results of an undisturbed run");
        for (url, count) in gallery.world.log().counts() {
            assert!(count <= 2 || url.ends_with("/robots.txt"), "{url} was asked for {count} times");
        }
    }
}

/// A real object store, stopped when dropped.
struct Objects {
    child: Child,
    port: u16,
}

impl Objects {
    /// Starts `program`, which is told its port after these arguments. `None` where there is none.
    fn start(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<Self> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let port = free.port();
        let mut server = Command::new(program);
        server.args(arguments).arg(port.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = server.spawn().ok()?;
        // A server has a process and a clock of its own.
        #[allow(clippy::disallowed_methods)]
        let began = std::time::Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            assert!(began.elapsed() < LISTENS_WITHIN, "the server does not listen within {LISTENS_WITHIN:?}");
            std::thread::yield_now();
        }
        Some(Self { child, port })
    }

    /// moto, which speaks S3.
    fn s3() -> Option<Self> {
        let server = Self::start("moto_server", &["-H", "127.0.0.1", "-p"]);
        if server.is_none() {
            require::skip("s3", "there is no moto_server (pip install 'moto[server]')");
        }
        server
    }

    /// Azurite, which speaks Azure's: in the path, or in the target folder, where `.ci/run` puts it.
    fn azure() -> Option<Self> {
        let target = Path::new(env!("CARGO_BIN_EXE_faceflow")).ancestors().nth(2).expect("the target folder");
        let arguments =
            ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--blobHost", "127.0.0.1", "--blobPort"];
        let local = target.join("azurite/node_modules/.bin/azurite-blob");
        let server = Self::start("azurite-blob", &arguments).or_else(|| Self::start(local, &arguments));
        if server.is_none() {
            require::skip("azurite", "there is no azurite-blob (npm install azurite)");
        }
        server
    }

    fn make_container(&self, name: &str) {
        let script = r#"
            const [port, name, account, key] = process.argv.slice(1);
            const date = new Date().toUTCString(), version = '2023-11-03';
            const headers = `x-ms-date:${date}\nx-ms-version:${version}\n`;
            const signed = 'PUT' + '\n'.repeat(12) + headers + `/${account}/${account}/${name}\nrestype:container`;
            const hmac = require('crypto').createHmac('sha256', Buffer.from(key, 'base64')).update(signed);
            const authorization = `SharedKey ${account}:${hmac.digest('base64')}`;
            fetch(`http://127.0.0.1:${port}/${account}/${name}?restype=container`, {
                method: 'PUT', headers: { 'x-ms-date': date, 'x-ms-version': version, authorization },
            }).then(async answer => { console.log(await answer.text()); process.exit(answer.status == 201 ? 0 : 1) });"#;
        let mut node = Command::new("node");
        let made = node.args(["-e", script, &self.port.to_string(), name, ACCOUNT, KEY]).output().expect("node runs");
        assert!(made.status.success(), "{made:?}");
    }

    fn make_bucket(&self, name: &str) {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connects");
        let head = format!("PUT /{name} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("reads");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A run against a store whose bucket or container is missing, then made; the results are those of a folder.
fn late_store(faceflow: impl Fn(Faceflow) -> Faceflow, out: &str, make: impl Fn()) {
    let gallery = web();
    let starts = gallery.starts();
    let expected = expected(&gallery, &starts);
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(self::faceflow(folder.path()));
    let command = command(&starts, &["--out", out]);
    let ended = faceflow.run(&command);
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains(out) && ended.stderr.contains("bucket"), "{}", ended.stderr);
    make();
    let ended = faceflow.run(&command);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(results(&faceflow, &[]), expected);
    let asked = gallery.world.log().total();
    assert_eq!(faceflow.run(&command).code(), Some(0));
    assert_eq!(gallery.world.log().total(), asked, "everything is settled");
}

#[test]
fn a_real_s3_server_holds_what_a_folder_would_and_a_missing_bucket_is_retried_until_it_is_there() {
    let Some(server) = Objects::s3() else { return };
    let with = |faceflow: Faceflow| {
        faceflow
            .env("AWS_ENDPOINT", &format!("http://127.0.0.1:{}", server.port))
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_REGION", "us-east-1")
    };
    late_store(with, "s3://faces/first", || server.make_bucket("faces"));
}

/// The server is real, and half of what is said to it goes wrong for a while.
#[test]
fn a_store_that_is_busy_denies_and_breaks_off_in_mid_run_loses_nothing() {
    let Some(server) = Objects::s3() else { return };
    server.make_bucket("faces");
    let unruly = Unruly::before(server.port, 60);
    let gallery = web();
    let starts = gallery.starts();
    let expected = expected(&gallery, &starts);
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path())
        .env("AWS_ENDPOINT", &format!("http://127.0.0.1:{}", unruly.port))
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "us-east-1");
    let mut running = faceflow.start(&command(&starts, &["--out", "s3://faces"]));
    assert!(running.waits(Duration::from_secs(60), || gallery.world.log().total() > 0), "it asks the web");
    unruly.armed.store(true, SeqCst);
    let ended = running.finish();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(unruly.dealt().len(), 60, "there was enough to break");
    assert_eq!(results(&faceflow, &[]), expected);
    let doctor = faceflow.run(&["doctor", "--out", "s3://faces"]);
    assert_eq!(doctor.code(), Some(0), "{}", doctor.stderr);
}

#[test]
fn a_real_azure_server_holds_what_a_folder_would_and_a_missing_container_is_retried_until_it_is_there() {
    let Some(server) = Objects::azure() else { return };
    let with = |faceflow: Faceflow| {
        faceflow
            .env("AZURE_STORAGE_ENDPOINT", &format!("http://127.0.0.1:{}/{ACCOUNT}", server.port))
            .env("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
            .env("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    };
    late_store(with, "az://faces/first", || server.make_container("faces"));
}
