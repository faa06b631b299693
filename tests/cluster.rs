//! Clusters: two and three processes on one machine do what one does, stop when one of them is killed or hangs, and refuse to
//! start when they do not fit together.

mod support;
mod world;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use faceflow::core::kill_point::{LEASE_POINTS, VARIABLE};
use faceflow::core::testing::require;
use serde_json::Value;
use support::Recorded;
use tempfile::{TempDir, tempdir};
use world::postgres::Server;
use world::{Answer, Faceflow, Gallery, Plan, Running, Site, World};

const LIMIT: Duration = Duration::from_secs(60);

const FLAGS: [&str; 8] = [
    "--set",
    "fetch.allow_networks=127.0.0.0/8",
    "--set",
    "detect.seeta_px=320",
    "--set",
    "crawl.shape=all",
    "--set",
    "cluster.silence_ms=3000",
];

fn web(images: usize) -> Gallery {
    Plan { sites: 3, pages_per_site: 7, images, ..Plan::default() }.serve()
}

fn faceflow(folder: &Path) -> Faceflow {
    Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder).deadline(Duration::from_secs(120))
}

/// A cluster: one folder, one state, and a hosts file of free ports.
struct Cluster {
    folder: TempDir,
    state: String,
    starts: Vec<String>,
}

impl Cluster {
    fn new(server: &Server, gallery: &Gallery) -> Self {
        Self::of(server, gallery.starts())
    }

    fn of(server: &Server, starts: Vec<String>) -> Self {
        let cluster = Self { folder: tempdir().expect("a folder"), state: server.schema("postgres"), starts };
        cluster.hosts(2);
        cluster
    }

    /// Writes the hosts file: ports that are free now.
    fn hosts(&self, count: usize) {
        let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let lines = listeners.iter().map(|listener| format!("{}\n", listener.local_addr().expect("an address")));
        std::fs::write(self.folder.path().join("hosts.txt"), lines.collect::<String>()).expect("writes");
    }

    fn command<'a>(&'a self, cluster: &[&'a str]) -> Vec<&'a str> {
        let sites = self.starts.iter().map(String::as_str);
        ["run", "--state", &self.state].into_iter().chain(sites).chain(FLAGS).chain(cluster.iter().copied()).collect()
    }

    fn start(&self, process: &str, of: &str, more: &[&str]) -> Running {
        let cluster = ["-n", of, "-p", process, "-h", "hosts.txt"];
        faceflow(self.folder.path()).start(&self.command(&[&cluster[..], more].concat()))
    }

    fn results(&self) -> Vec<Value> {
        let mut lines = faceflow(self.folder.path()).results(&["--state", &self.state]);
        lines.extend(faceflow(self.folder.path()).results(&["--state", &self.state, "--kind", "pages"]));
        lines
    }
}

/// What one process comes to.
fn alone(gallery: &Gallery) -> Vec<Value> {
    let lines = alone_at(&gallery.starts(), &[]);
    gallery.world.log().clear();
    lines
}

fn alone_at(starts: &[String], more: &[&str]) -> Vec<Value> {
    let folder = tempdir().expect("a folder");
    let faceflow = faceflow(folder.path());
    let starts: Vec<&str> = starts.iter().map(String::as_str).collect();
    let ended = faceflow.run(&[&["run"], &starts[..], &FLAGS, more].concat());
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let mut lines = faceflow.results(&[]);
    lines.extend(faceflow.results(&["--kind", "pages"]));
    lines
}

fn assert_same(lines: &[Value], expected: &[Value], what: &str) {
    assert_eq!(lines.len(), expected.len(), "{what}");
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(line, expected, "{what}");
    }
}

#[test]
fn two_and_three_processes_do_what_one_does_and_ask_for_nothing_twice() {
    let Some(server) = Server::shared() else { return };
    let gallery = web(90);
    let expected = alone(&gallery);
    for (of, workers) in [(2, "1"), (2, "2"), (3, "1")] {
        let cluster = Cluster::new(server, &gallery);
        cluster.hosts(of);
        gallery.world.log().clear();
        let names: Vec<String> = (0..of).map(|process| process.to_string()).collect();
        let running: Vec<Running> =
            names.iter().map(|process| cluster.start(process, &of.to_string(), &["-w", workers])).collect();
        for running in running {
            let ended = running.finish();
            assert_eq!(ended.code(), Some(0), "{of} processes: {}", ended.stderr);
        }
        assert_same(&cluster.results(), &expected, &format!("{of} processes with {workers} workers"));
        assert_eq!(gallery.repeats(), [], "{of} processes");
        let crops = cluster.folder.path().join("faceflow-out");
        assert!(crops.join("report.html").is_file());
    }
}

#[test]
fn killed_where_tables_and_leases_are_made_and_taken_over_a_run_goes_on() {
    // The server waits for its disk, and dies itself once.
    let Some(server) = Server::durable() else { return };
    let gallery = web(40);
    let expected = alone(&gallery);
    for points in
        [["state.migrate:2", "state.migrate:4"], [LEASE_POINTS[0], ""], ["ledger.committed:8", LEASE_POINTS[1]]]
    {
        let cluster = Cluster::new(&server, &gallery);
        for point in points.into_iter().filter(|point| !point.is_empty()) {
            let kill = if point.contains(':') { point.to_owned() } else { format!("{point}:1") };
            let killed = faceflow(cluster.folder.path()).env(VARIABLE, &kill).run(&cluster.command(&[]));
            assert_eq!(killed.code(), None, "{point} is never reached: {}", killed.stderr);
        }
        server.kill();
        assert!(restarts(&server), "it starts again");
        let ended = faceflow(cluster.folder.path()).run(&cluster.command(&[]));
        assert_eq!(ended.code(), Some(0), "{points:?}: {}", ended.stderr);
        assert_same(&cluster.results(), &expected, &format!("killed at {points:?}"));
    }
}

/// Starts a server that was killed, once its last process has left.
fn restarts(server: &Server) -> bool {
    #[allow(clippy::disallowed_methods)]
    let began = std::time::Instant::now();
    while began.elapsed() < LIMIT {
        if server.up() {
            return true;
        }
    }
    false
}

#[test]
fn sites_at_one_address_are_crowded_by_no_number_of_processes() {
    let Some(server) = Server::shared() else { return };
    let web = World::new();
    let first = web.site();
    let beside = (0..7).map(|_| web.site_beside(&first));
    let sites: Vec<Site> = beside.chain([first.clone()]).collect();
    let slow = |kind: &str, body| Answer::ok(kind, body).delayed(20);
    for (number, site) in sites.iter().enumerate() {
        let names: Vec<String> = (0..6).map(|n| format!("/{n}.jpg")).collect();
        let shown: String = names.iter().map(|name| format!("<img src={name}>")).collect();
        site.put("/", slow("text/html", bytes::Bytes::from(shown)));
        for (n, name) in names.iter().enumerate() {
            let picture = world::portrait((6 * number + n) as u64, 200, 150).0;
            site.put(name, slow("image/jpeg", world::jpeg(&picture, 90).into()));
        }
    }
    let (starts, polite): (Vec<_>, _) = (sites.iter().map(|site| site.url("/")).collect(), ["--set", "fetch.per_ip=2"]);
    let expected = alone_at(&starts, &polite);
    assert_eq!(web.log().concurrent_max(), 2, "alone");
    for workers in ["1", "2"] {
        web.log().clear();
        let cluster = Cluster::of(server, starts.clone());
        let more = [&["-w", workers][..], &polite].concat();
        for ended in ["0", "1"].map(|process| cluster.start(process, "2", &more)).map(Running::finish) {
            assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        }
        assert_eq!(web.log().concurrent_max(), 2, "two processes with {workers} workers");
        assert_same(&cluster.results(), &expected, &format!("two processes with {workers} workers"));
    }
}

#[test]
fn a_process_that_is_killed_or_hangs_ends_the_others_and_a_restart_of_another_shape_goes_on() {
    let Some(server) = Server::shared() else { return };
    let gallery = web(120);
    let expected = alone(&gallery);
    for (signal, victim) in [("KILL", 1), ("KILL", 0), ("STOP", 1), ("STOP", 0)] {
        let what = format!("SIG{signal} to process {victim}");
        let cluster = Cluster::new(server, &gallery);
        gallery.world.log().clear();
        let mut running: Vec<Running> = ["0", "1"].map(|process| cluster.start(process, "2", &[])).into();
        gallery.world.log().wait_for(LIMIT, |requests| requests.len() > 20);
        let hit = running.remove(victim);
        hit.signal(signal);
        let ended = running.remove(0).finish();
        assert_eq!(ended.code(), Some(1), "{what}: {}", ended.stderr);
        let name = format!("process {victim} (127.0.0.1:");
        assert!(ended.stderr.contains(&name), "{what}: the others name it: {}", ended.stderr);
        if signal == "STOP" {
            let silent = ended.stderr.split(" ms (cluster.silence_ms)").next().and_then(|said| said.rsplit(' ').next());
            let silent_ms: u64 = silent.and_then(|silent| silent.parse().ok()).expect("it says for how long");
            assert!((3_000..6_000).contains(&silent_ms), "{what}: {}", ended.stderr);
            hit.signal("CONT");
            let awake = hit.finish();
            let said = awake.code() == Some(1) && awake.stderr.contains("this process did not run for");
            assert!(
                said && !awake.stderr.contains("was not events of"),
                "{what}: it was asleep itself: {}",
                awake.stderr
            );
        } else {
            drop(hit);
        }
        // Another number of processes and workers goes on.
        let again = faceflow(cluster.folder.path()).run(&cluster.command(&["-w", "2"]));
        assert_eq!(again.code(), Some(0), "{what}: {}", again.stderr);
        assert_same(&cluster.results(), &expected, &what);
        for (url, count) in gallery.world.log().counts() {
            assert!(count <= 2 || url.ends_with("/robots.txt"), "{what}: {url} was asked for {count} times");
        }
    }
}

#[test]
fn killed_at_random_moments_and_started_again_a_cluster_comes_to_the_same_end() {
    let Some(server) = Server::shared() else { return };
    let gallery = web(60);
    let expected = alone(&gallery);
    let wanted = std::env::var("FACEFLOW_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6);
    let (mut round, mut all) = (0, 0);
    while all < wanted {
        let cluster = Cluster::new(server, &gallery);
        gallery.world.log().clear();
        let (mut kills, mut recorded) = (0, vec![]);
        for life in 0..2 {
            let mut running: Vec<Running> = ["0", "1"].map(|process| cluster.start(process, "2", &[])).into();
            let victim = running.remove((round + life) % 2);
            let moment = Duration::from_millis((120 + 131 * (2 * round + life) as u64) % 1_400);
            let killed = victim.kill9_after(moment).is_ok();
            kills += usize::from(killed);
            let ended = running.remove(0).finish();
            // It may be through when the other one dies on its last steps.
            let well = ended.code() == Some(0) || killed && ended.code() == Some(1);
            assert!(well, "round {round}: {:?} {}", ended.code(), ended.stderr);
            let state = ["--state", &cluster.state];
            recorded.push(Recorded::of(&faceflow(cluster.folder.path()), &state, &gallery));
        }
        let ended = ["0", "1"].map(|process| cluster.start(process, "2", &[])).map(Running::finish);
        for ended in ended {
            assert_eq!(ended.code(), Some(0), "round {round}: {}", ended.stderr);
        }
        assert_same(&cluster.results(), &expected, &format!("round {round}, after {kills} kills"));
        for (url, count) in gallery.world.log().counts() {
            let most = 1 + kills;
            assert!(count <= most || url.ends_with("/robots.txt"), "round {round}: {url} was asked for {count} times");
        }
        recorded.iter().for_each(|recorded| recorded.assert_not_asked_again(&gallery, &format!("round {round}")));
        (round, all) = (round + 1, all + kills);
        assert!(round < 2 * wanted, "{all} kills in {round} rounds: it ends before it can be killed");
    }
    println!("{all} kills in {round} rounds");
}

#[test]
fn a_run_that_dies_at_a_durable_step_of_a_shared_state_goes_on_at_once() {
    let Some(server) = Server::shared() else { return };
    let gallery = web(60);
    let expected = alone(&gallery);
    for (point, time) in [("ledger.write", 1), ("ledger.commit", 1), ("ledger.commit", 9), ("ledger.committed", 5)] {
        let (cluster, what) = (Cluster::new(server, &gallery), format!("{point}:{time}"));
        let killed = faceflow(cluster.folder.path()).env(VARIABLE, &what).run(&cluster.command(&[]));
        assert_eq!(killed.code(), None, "{what}: {}", killed.stderr);
        let ended = faceflow(cluster.folder.path()).run(&cluster.command(&[]));
        assert_eq!(ended.code(), Some(0), "{what}: {}", ended.stderr);
        assert_same(&cluster.results(), &expected, &what);
    }
}

#[test]
fn one_that_is_told_to_stop_stops_all_in_good_order() {
    let Some(server) = Server::shared() else { return };
    let gallery = web(120);
    // Until this one comes, nothing is over.
    gallery.sites[0].put("/slow", Answer::ok("text/html", "<p>here").delayed(4_000));
    let starts = gallery.starts().into_iter().chain([gallery.sites[0].url("/slow")]);
    let cluster = Cluster::of(server, starts.collect());
    let running = ["0", "1"].map(|process| cluster.start(process, "2", &[]));
    gallery.world.log().wait_for(LIMIT, |requests| requests.len() > 20);
    running[1].signal("INT");
    for running in running {
        let ended = running.finish();
        assert_eq!(ended.code(), Some(130), "{}", ended.stderr);
    }
    let ended = faceflow(cluster.folder.path()).run(&cluster.command(&[]));
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(cluster.results().iter().all(|line| line["status"] != "open"));
    let repeats: Vec<_> = gallery.repeats().into_iter().filter(|(url, _)| !url.ends_with("/robots.txt")).collect();
    assert_eq!(repeats, [], "what was under way was finished");
}

#[test]
fn a_cluster_streams_until_a_signal_to_one_of_it() {
    let Some(server) = Server::shared() else { return };
    let gallery = web(60);
    let cluster = Cluster::new(server, &gallery);
    std::fs::write(cluster.folder.path().join("sites.txt"), cluster.starts[..2].join("\n")).expect("writes");
    let start = |process| {
        let place = ["-n", "2", "-p", process, "-h", "hosts.txt", "--state", &cluster.state];
        let stream = ["stream", "--sites", "sites.txt"];
        faceflow(cluster.folder.path()).start(&[&stream[..], &place, &FLAGS].concat())
    };
    let running = ["0", "1"].map(start);
    gallery.world.log().wait_for(LIMIT, |requests| requests.len() > 20);
    // A line that comes later is crawled too.
    std::fs::write(cluster.folder.path().join("sites.txt"), cluster.starts.join("\n")).expect("writes");
    let third = cluster.starts[2].clone();
    gallery.world.log().wait_for(LIMIT, |requests| requests.iter().filter(|r| r.url.starts_with(&third)).count() > 5);
    running[1].signal("TERM");
    for running in running {
        let ended = running.finish();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    }
    let ended = faceflow(cluster.folder.path()).run(&cluster.command(&[]));
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_same(&cluster.results(), &alone(&gallery), "a stream, and a run for the rest");
}

#[test]
fn a_process_that_dies_while_its_cluster_drains_is_not_taken_for_done() {
    let Some(server) = Server::shared() else { return };
    let gallery = web(60);
    let expected = alone(&gallery);
    let cluster = Cluster::new(server, &gallery);
    // Drains that last: every request waits for its host.
    let slow = ["--set", "fetch.delay_ms=400", "--set", "fetch.per_host=1"];
    let running = ["0", "1"].map(|process| cluster.start(process, "2", &slow));
    gallery.world.log().wait_for(LIMIT, |requests| requests.len() > 6);
    let [first, second] = running;
    // What is stopped hears nothing more; then it is dead.
    second.signal("STOP");
    first.signal("INT");
    second.signal("KILL");
    let ended = first.finish();
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("process 1 (127.0.0.1:"), "{}", ended.stderr);
    drop(second);
    let ended = faceflow(cluster.folder.path()).run(&cluster.command(&[]));
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_same(&cluster.results(), &expected, "after a death in a drain");
}

/// Runs a test of this file again in a network namespace of its own, whose routes it may change. Whether this is it.
fn in_a_network_of_its_own(test: &str) -> bool {
    const MARK: &str = "FACEFLOW_OWN_NETWORK";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let unshare = |arguments: &[&str]| Command::new("unshare").arg("--net").args(arguments).env(MARK, "1").output();
    if !unshare(&["ip", "rule"]).is_ok_and(|probe| probe.status.success()) {
        require::skip("unshare", "unshare --net or ip does not work here (it needs root, util-linux and iproute2)");
        return false;
    }
    let this = std::env::current_exe().expect("a test has a file");
    let ran = unshare(&[this.to_str().expect("a plain path"), "--exact", test, "--nocapture"]).expect("it starts");
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    false
}

fn ip(arguments: &str) {
    let ran = Command::new("ip").args(arguments.split(' ')).output().expect("ip starts");
    assert!(ran.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn a_network_that_is_cut_ends_both_sides_and_each_names_the_other() {
    if !in_a_network_of_its_own("a_network_that_is_cut_ends_both_sides_and_each_names_the_other") {
        return;
    }
    let Some(server) = Server::shared() else { return };
    ip("link set lo up");
    // So that other rules may come before it.
    ip("rule add pref 10 lookup local");
    ip("rule del pref 0");
    let gallery = web(120);
    let expected = alone(&gallery);
    let cluster = Cluster::new(server, &gallery);
    let running = ["0", "1"].map(|process| cluster.start(process, "2", &[]));
    gallery.world.log().wait_for(LIMIT, |requests| requests.len() > 20);
    let hosts = std::fs::read_to_string(cluster.folder.path().join("hosts.txt")).expect("reads");
    for port in hosts.lines().map(|line| line.rsplit(':').next().expect("a port")) {
        // Packets vanish: nobody is told that a connection is gone.
        ip(&format!("rule add pref 5 ipproto tcp dport {port} blackhole"));
        ip(&format!("rule add pref 5 ipproto tcp sport {port} blackhole"));
    }
    let [first, second] = running.map(Running::finish);
    assert_eq!((first.code(), second.code()), (Some(1), Some(1)), "{}\n{}", first.stderr, second.stderr);
    assert!(first.stderr.contains("process 1 (127.0.0.1:"), "{}", first.stderr);
    assert!(second.stderr.contains("process 0 (127.0.0.1:"), "{}", second.stderr);
    // Nobody has to wait for the network: the ledger goes on with one.
    let ended = faceflow(cluster.folder.path()).run(&cluster.command(&[]));
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_same(&cluster.results(), &expected, "after a cut");
}

#[test]
fn two_runs_of_one_state_share_what_their_sites_have_in_common() {
    let Some(server) = Server::shared() else { return };
    let web = World::new();
    let (common, one, two) = (web.site(), web.site(), web.site());
    let names: Vec<String> = (0..12).map(|n| format!("/{n}.jpg")).collect();
    let shown: String = names.iter().map(|name| format!("<img src={}>", common.url(name))).collect();
    for (n, name) in names.iter().enumerate() {
        common.image(name, world::jpeg(&world::portrait(n as u64, 300, 200).0, 90));
    }
    for site in [&one, &two] {
        site.page("/", &shown);
    }
    let (folder, state) = (tempdir().expect("a folder"), server.schema("postgres"));
    let start = |site: &Site, out: &str| {
        let place = ["--state", &state, "--out", out];
        faceflow(folder.path()).start(&[&["run", &site.url("/")][..], &place, &FLAGS].concat())
    };
    let running = [start(&one, "out"), start(&two, "out")];
    for running in running {
        let ended = running.finish();
        // What the other one still has is open for this one.
        assert!(matches!(ended.code(), Some(0 | 3)), "{:?} {}", ended.code(), ended.stderr);
    }
    let lines = faceflow(folder.path()).results(&["--state", &state]);
    assert!(lines.len() == 12 && lines.iter().all(|line| line["status"] == "done"), "{lines:?}");
    for name in names {
        assert_eq!(web.log().count(&common.url(&name)), 1, "{name}");
    }
}

#[test]
fn settings_of_a_cluster_do_not_change_while_it_runs() {
    let Some(server) = Server::shared() else { return };
    let gallery = web(1);
    let cluster = Cluster::new(server, &gallery);
    cluster.hosts(2);
    std::fs::write(cluster.folder.path().join("my.toml"), "[retry.web]\nbase_ms = 900\n").expect("writes");
    let sites: Vec<&str> = cluster.starts.iter().map(String::as_str).collect();
    let stream = |process| {
        let common = ["stream", "--state", &cluster.state, "--config", "my.toml", "-n", "2", "-p", process, "-h"];
        let command = [&common[..], &["hosts.txt"], &FLAGS, &sites].concat();
        faceflow(cluster.folder.path()).start(&command)
    };
    let mut running = ["0", "1"].map(stream);
    gallery.world.log().wait_for(LIMIT, |requests| !requests.is_empty());
    running[1].signal("HUP");
    let refused = "all processes of a cluster must have the same ones";
    assert!(running[1].hears(refused), "{}", running[1].stderr());
    std::fs::write(cluster.folder.path().join("my.toml"), "[retry.web]\nbase_ms = 800\n").expect("writes");
    assert!(running[0].hears(refused), "{}", running[0].stderr());
    running[0].signal("TERM");
    for running in running {
        let ended = running.finish();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    }
}

#[test]
fn processes_that_do_not_fit_together_are_refused_with_what_they_differ_in() {
    let Some(server) = Server::shared() else { return };
    let gallery = web(12);
    let cluster = Cluster::new(server, &gallery);
    let said = |first: &[&str], second: &[&str]| {
        let running = [cluster.start("0", "2", first), cluster.start("1", "2", second)];
        running.map(|running| {
            let ended = running.finish();
            assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
            ended.stderr
        })
    };
    let [first, second] = said(&["-w", "1"], &["-w", "2"]);
    assert!(first.contains("the number of workers (-w): 1 here, 2 there"), "{first}");
    assert!(second.contains("the number of workers (-w): 2 here, 1 there"), "{second}");
    let [first, _] = said(&[], &["--max-pages", "7"]);
    assert!(first.contains("the setting crawl.max_pages: "), "{first}");
    // One that comes later as a process that runs already.
    let running = ["0", "1"].map(|process| cluster.start(process, "2", &["--set", "fetch.delay_ms=300"]));
    gallery.world.log().wait_for(LIMIT, |requests| !requests.is_empty());
    for process in ["0", "1"] {
        let again = cluster.start(process, "2", &["--set", "fetch.delay_ms=300"]).finish();
        assert_eq!(again.code(), Some(2), "{}", again.stderr);
        assert!(again.stderr.contains(&format!("started with -p {process}")), "{}", again.stderr);
    }
    for running in running {
        let ended = running.finish();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    }
    let [first, _] = said(&[], &["--tenant", "other"]);
    assert!(first.contains("--tenant"), "{first}");

    let alone = |arguments: &[&str]| {
        let ended = faceflow(cluster.folder.path()).run(&cluster.command(arguments));
        assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
        ended.stderr
    };
    assert!(alone(&["-n", "3", "-h", "hosts.txt"]).contains("2 addresses for -n 3"));
    assert!(alone(&["-n", "2", "-p", "2", "-h", "hosts.txt"]).contains("0 to 1"));
    let here = std::fs::read_to_string(cluster.folder.path().join("hosts.txt")).expect("reads");
    let _taken = TcpListener::bind(here.lines().next().expect("a line")).expect("binds");
    let refused = alone(&["-n", "2", "-p", "0", "-h", "hosts.txt"]);
    assert!(refused.contains("process 0 cannot listen at"), "{refused}");
    let absent = cluster.start("1", "2", &["--set", "cluster.join_ms=500"]).finish();
    assert_eq!(absent.code(), Some(1), "{}", absent.stderr);
    assert!(absent.stderr.contains("process 0") && absent.stderr.contains("cluster.join_ms"), "{}", absent.stderr);
    let folder = tempdir().expect("a folder");
    let ended = faceflow(folder.path()).run(&["run", "http://a.example/", "-n", "2"]);
    assert!(ended.code() == Some(2) && ended.stderr.contains("postgres://"), "{}", ended.stderr);
}
