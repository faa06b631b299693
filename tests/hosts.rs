//! Hosts that fail as a whole: the real graph, ledger and gate under a virtual clock, and a scripted world behind the gate.

mod support;
mod world;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use faceflow::core::executor::Executor;
use faceflow::core::record::queue_of;
use faceflow::core::testing::{EPOCH, simulate_from};
use faceflow::core::{Class, Fault, Future, HostFaultKind, Time};
use faceflow::graph;
use faceflow::ledger::DatabaseLedger;
use faceflow::services::{Backends, Services};
use faceflow::sources::list::List;
use faceflow::store::Objects;
use faceflow::views::results::Kind;
use faceflow::web::{Gate, Purpose, Response, Want, Web};
use serde_json::Value;
use support::{Markers, Still, lines, settings};
use tempfile::tempdir;
use url::Url;
use world::{Answer, Faceflow, Script as WebScript, Site, World};

const SECOND: Time = 1_000;
const MINUTE: Time = 60 * SECOND;
/// How long a page takes.
const LATENCY_MS: Time = 100;
/// How long somebody waits for a connection that never comes.
const CONNECT_MS: Time = 10 * SECOND;

/// And for an answer that does not begin.
const SILENT_MS: Time = 40 * SECOND;

/// What a host does with a request, its `n`-th, at a time after the beginning.
type Script = fn((&str, &str), usize, Time) -> Does;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Answers,
    /// No packet comes back.
    Nothing,
    /// It takes the connection and says nothing.
    Silent,
    /// 429, and when it wants to be asked again, in seconds.
    Rests(u64),
    /// Its robots.txt cannot be read, which is asked for again after five seconds.
    HidesRobots,
}

/// A request: when, to which host, for which URL, and what came of it.
type Requests = Arc<Mutex<Vec<(Time, String, String, Does)>>>;

/// What is behind the gate.
struct Outside {
    script: Script,
    gate: Gate,
    requests: Requests,
    executor: Executor,
    dead: Arc<AtomicBool>,
}

impl Web for Outside {
    fn get(&self, url: &Url, want: Want) -> Future<Result<Response, Fault>> {
        let (gate, requests, url) = (self.gate.clone(), Arc::clone(&self.requests), url.clone());
        let (script, clock, dead) = (self.script, Arc::clone(&self.executor.clock), Arc::clone(&self.dead));
        Box::pin(async move {
            let permit = gate.admit(&url, Purpose::Crawl(want)).await?;
            if dead.load(Relaxed) {
                return std::future::pending().await;
            }
            let (now, host) = (clock.now() - EPOCH, url.host_str().expect("it is on the web").to_owned());
            let does = {
                let mut requests = requests.lock().expect("not poisoned");
                let before = requests.iter().filter(|(_, asked, ..)| *asked == host).count();
                let does = script((&host, url.path()), before, now);
                requests.push((now, host, url.path().to_owned(), does));
                does
            };
            let pause = match does {
                Does::Nothing => CONNECT_MS,
                Does::Silent => SILENT_MS,
                _ => LATENCY_MS,
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if dead.load(Relaxed) {
                return std::future::pending().await;
            }
            let answered = |status, headers: &HeaderMap| permit.answered(status, headers);
            match does {
                Does::Answers => {
                    answered(StatusCode::OK, &HeaderMap::new())?;
                    let headers = vec![("content-type".to_owned(), "text/html".to_owned())];
                    Ok(Response { final_url: url, status: 200, headers, body: "<p>here".into() })
                }
                Does::Nothing => {
                    let fault = Fault::transient(Class::Timeout, "timeout", "no connection in time");
                    Err(permit.unconnected(fault).into())
                }
                Does::Silent => {
                    Err(permit.silent(Fault::transient(Class::Timeout, "timeout", "no headers in time")).into())
                }
                Does::Rests(seconds) => {
                    let mut headers = HeaderMap::new();
                    headers.insert("retry-after", HeaderValue::from(seconds));
                    Err(answered(StatusCode::TOO_MANY_REQUESTS, &headers).expect_err("it is no success").into())
                }
                Does::HidesRobots => {
                    let fault = Fault::transient(Class::Busy, "robots_unreachable", "robots.txt: http_503");
                    Err(fault.after(5 * SECOND).of_host(queue_of(&url), HostFaultKind::Busy))
                }
            }
        })
    }
}

/// One life of the process from a time on, until everything is settled or it is killed. Returns when that was.
fn live(folder: &Path, urls: &[Url], script: Script, (from, until): (Time, Time), requests: &Requests) -> Time {
    let (state, store) = (folder.join("state"), folder.join("out").display().to_string());
    let (urls, requests) = (urls.to_vec(), Arc::clone(requests));
    let end = simulate_from(EPOCH + from, 24 * 60 * MINUTE, move |scope, executor| {
        let settings = settings(&["retry.web.jitter=0", "retry.host.jitter=0", "fetch.respect_robots=false"]);
        let gate = Gate::new(settings.fetch.clone().into(), Arc::clone(&executor.clock)).expect("a gate");
        let dead = Arc::new(AtomicBool::new(false));
        let (dying, process) = (Arc::clone(&dead), executor.clone());
        executor.runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(until.saturating_sub(from))).await;
            dying.store(true, Relaxed);
            process.shutdown.stop();
            process.wake_driver();
        });
        let ledger = DatabaseLedger::open(&state, "default", &settings.ledger).expect("a ledger");
        let backends = Backends {
            web: Arc::new(Outside { script, gate, requests, executor: executor.clone(), dead: Arc::clone(&dead) }),
            store: Arc::new(Objects::open(&store).expect("a store")),
            ledger: Arc::new(Still(ledger, dead)),
            detector: Arc::new(Markers),
            sources: vec![Box::new(List::new(urls))],
            sinks: vec![],
        };
        let services = Services::new(Default::default(), settings, backends, executor.clone()).expect("services");
        graph::build(scope, &services)
    });
    end - EPOCH
}

/// What came of URLs in a process that is killed at these times, and started again a second later each time.
struct Told {
    end: Time,
    requests: Vec<(Time, String, String, Does)>,
    pages: Vec<Value>,
}

fn tell(urls: &[Url], script: Script, kills: &[Time]) -> Told {
    let (folder, requests) = (tempdir().expect("a folder"), Requests::default());
    let mut from = 0;
    for kill in kills {
        let end = live(folder.path(), urls, script, (from, *kill), &requests);
        assert_eq!(end, *kill, "it is killed in the middle");
        from = kill + SECOND;
    }
    let end = live(folder.path(), urls, script, (from, Time::MAX / 4), &requests);
    let requests = requests.lock().expect("not poisoned").clone();
    Told { end, requests, pages: lines(folder.path(), Kind::Pages) }
}

impl Told {
    /// How many pages of a host ended so.
    fn count(&self, host: &str, status: &str, reason: Option<&str>) -> usize {
        let of_host = |line: &&Value| line["url"].as_str().is_some_and(|url| url.contains(host));
        let ended = |line: &&Value| line["status"] == status && line["reason"].as_str() == reason;
        self.pages.iter().filter(of_host).filter(ended).count()
    }

    fn times(&self, host: &str) -> Vec<Time> {
        self.requests.iter().filter(|(_, asked, ..)| asked == host).map(|(at, ..)| *at).collect()
    }
}

fn urls(host: &str, count: usize) -> Vec<Url> {
    (0..count).map(|n| Url::parse(&format!("http://{host}/{n}")).expect("a URL")).collect()
}

const HOLE: &str = "9.9.9.9";
const WELL: &str = "8.8.8.8";

#[test]
fn ten_thousand_urls_of_a_black_holed_host_end_together_and_delay_nobody() {
    let script: Script = |(host, _), _, _| if host == HOLE { Does::Nothing } else { Does::Answers };
    let well = tell(&urls(WELL, 100), script, &[]);
    let all = [urls(HOLE, 10_000), urls(WELL, 100)].concat();
    let told = tell(&all, script, &[]);
    assert_eq!(told.count(HOLE, "dead", Some("timeout")), 10_000);
    assert_eq!(told.count(WELL, "done", None), 100);
    assert!(told.end <= 2 * MINUTE, "all ended after {} ms", told.end);
    assert!(told.times(HOLE).len() <= 8, "{:?}", told.times(HOLE));
    println!("{} requests, all ended after {} ms", told.times(HOLE).len(), told.end);
    assert_eq!(told.times(WELL), well.times(WELL), "the other host is asked when it would be asked anyway");
}

#[test]
fn a_host_that_never_answers_ends_with_all_its_urls_and_a_url_that_never_does_ends_alone() {
    let told = tell(&urls(HOLE, 10_000), |_, _, _| Does::Silent, &[]);
    assert_eq!(told.count(HOLE, "dead", Some("timeout")), 10_000);
    assert!(told.end <= 12 * MINUTE, "all ended after {} ms", told.end);
    println!("{} requests, all ended after {} ms", told.times(HOLE).len(), told.end);
    // The first of 50.
    let script: Script = |(_, path), _, _| if path == "/0" { Does::Silent } else { Does::Answers };
    let told = tell(&urls(WELL, 50), script, &[]);
    assert_eq!((told.count(WELL, "dead", Some("timeout")), told.count(WELL, "done", None)), (1, 49));
    let tries = told.requests.iter().filter(|(.., path, _)| path == "/0").count();
    assert_eq!(tries, 5);
}

#[test]
fn a_black_holed_host_ends_as_soon_after_kills() {
    let script: Script = |_, _, _| Does::Nothing;
    let told = tell(&urls(HOLE, 300), script, &[5 * SECOND, 15 * SECOND, 50 * SECOND]);
    assert_eq!(told.count(HOLE, "dead", Some("timeout")), 300);
    assert!(told.end <= 3 * MINUTE, "all ended after {} ms", told.end);
    // What was under way at a kill is asked for again.
    assert!(told.times(HOLE).len() <= 8 + 3 * 4, "{:?}", told.times(HOLE));
}

/// After every twenty requests it wants to be left alone for a minute.
const RESTING: Script = |_, before, _| if before % 21 == 20 { Does::Rests(60) } else { Does::Answers };

/// Nobody asked a host before its time, once it was known.
fn assert_rests(told: &Told) {
    for (at, _, _, does) in &told.requests {
        let Does::Rests(seconds) = does else { continue };
        let known = at + LATENCY_MS;
        let until = known + seconds * SECOND;
        let early: Vec<_> = told.requests.iter().filter(|(at, ..)| (known + 1..until).contains(at)).collect();
        assert!(early.is_empty(), "at {known} it asked to be left alone until {until}, and was asked: {early:?}");
    }
}

#[test]
fn a_host_that_says_when_to_come_back_is_not_asked_before_and_loses_nothing() {
    let told = tell(&urls(WELL, 200), RESTING, &[]);
    assert_eq!(told.count(WELL, "done", None), 200);
    // Those of the moment in which it said so were under way.
    let said = told.requests.iter().filter(|(.., does)| *does != Does::Answers).count() as u64;
    assert!((9..=11).contains(&said) && told.end < (said + 2) * MINUTE, "{said} times, in {} ms", told.end);
    assert_rests(&told);
}

#[test]
fn a_host_that_asked_for_rest_is_left_alone_after_a_kill_too() {
    let kills = [2 * SECOND, 30 * SECOND, 61 * SECOND, 200 * SECOND];
    for kills in [&kills[..0], &kills] {
        let told = tell(&urls(WELL, 200), RESTING, kills);
        assert_eq!(told.count(WELL, "done", None), 200);
        assert_rests(&told);
        let told = tell(&urls(WELL, 1), |_, before, _| if before < 6 { Does::Rests(60) } else { Does::Answers }, kills);
        assert_eq!(told.count(WELL, "done", None), 1, "{:?}", told.requests);
        assert_rests(&told);
    }
}

#[test]
fn robots_that_cannot_be_read_for_ten_minutes_kill_nothing() {
    let script: Script =
        |(host, _), _, at| if host == WELL && at < 10 * MINUTE { Does::HidesRobots } else { Does::Answers };
    for kills in [vec![], vec![7 * SECOND, 100 * SECOND, 590 * SECOND]] {
        let told = tell(&urls(WELL, 300), script, &kills);
        assert_eq!(told.count(WELL, "done", None), 300);
        assert!(told.end < 12 * MINUTE, "all ended after {} ms", told.end);
        let during = told.requests.iter().filter(|(.., does)| *does == Does::HidesRobots).count();
        assert!(during < 32 + 20 + 8 * kills.len(), "asked {during} times");
    }
}

#[test]
fn a_host_that_never_says_what_its_robots_allow_is_given_up_after_its_patience() {
    let told = tell(&urls(WELL, 300), |_, _, _| Does::HidesRobots, &[]);
    assert_eq!(told.count(WELL, "dead", Some("robots_unreachable")), 300);
    assert!((15 * MINUTE..17 * MINUTE).contains(&told.end), "all ended after {} ms", told.end);
}

const LOCAL: [&str; 4] = ["--set", "fetch.allow_networks=127.0.0.0/8", "--set", "detect.seeta_px=320"];

fn faceflow(folder: &Path) -> Faceflow {
    Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder).deadline(Duration::from_secs(120))
}

/// A gallery of 20 images, the first of which says once that the host wants to be left alone for so many seconds.
fn resting_site(seconds: u64) -> (World, Site) {
    let web = World::new();
    let site = web.site();
    let shown: String = (0..20).map(|n| format!("<img src=/{n}.jpg>")).collect();
    site.page("/", shown);
    let image = |n: u64| Answer::ok("image/jpeg", world::jpeg(&world::portrait(n, 200, 150).0, 90));
    let rests = Answer::status(429).header("retry-after", &seconds.to_string());
    site.put("/0.jpg", WebScript::times(1, rests).then(image(0)));
    for n in 1..20 {
        site.put(&format!("/{n}.jpg"), image(n).delayed(50));
    }
    (web, site)
}

/// Nobody asked the host after it had asked for rest, but those who were under way, before it was over.
fn assert_left_alone(web: &World, site: &Site, seconds: u64) {
    let requests = web.log().requests();
    let first = requests.iter().find(|request| request.url == site.url("/0.jpg")).expect("it was asked for");
    let said = first.ended_ms.expect("it was answered");
    // What was on its way when the answer came.
    let early: Vec<_> =
        requests.iter().filter(|request| (said + 100..said + 1_000 * seconds).contains(&request.started_ms)).collect();
    assert!(early.is_empty(), "it said so at {said}: {early:?}");
    assert!(requests.iter().any(|request| request.started_ms >= said + 1_000 * seconds), "it was asked again");
}

#[test]
fn a_real_host_that_asks_for_rest_gets_it_and_loses_nothing_also_after_a_kill() {
    for killed in [false, true] {
        let (seconds, folder) = (6, tempdir().expect("a folder"));
        let (web, site) = resting_site(seconds);
        let faceflow = faceflow(folder.path());
        let start = site.url("/");
        let run = [&["run", &start, "--set", "fetch.per_host=2"], &LOCAL[..]].concat();
        if killed {
            let knows = || {
                let told = faceflow.run(&["explain", &site.url("/0.jpg")]).stdout;
                told.contains("its host") && told.contains("http_429") && told.contains("it is asked again")
            };
            let killed = faceflow.start(&run).kill9_when(knows);
            assert!(killed.is_ok(), "it waits for the host");
        }
        let ended = faceflow.run(&run);
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(ended.stdout.contains("20 discovered"), "{}", ended.stdout);
        assert!(faceflow.results(&[]).iter().all(|line| line["status"] == "done" || line["status"] == "duplicate"));
        assert_left_alone(&web, &site, seconds);
    }
}

#[test]
fn a_real_outage_of_robots_kills_nothing_however_often_it_is_noticed() {
    let web = World::new();
    let site = web.site();
    let rules = Answer::ok("text/plain", "User-agent: *\nDisallow: /no");
    site.put("/robots.txt", WebScript::times(15, Answer::status(503)).then(rules));
    site.page("/", (0..40).map(|n| format!("<a href=/{n}>page</a>")).collect::<String>());
    for n in 0..40 {
        site.page(&format!("/{n}"), "<p>here");
    }
    let folder = tempdir().expect("a folder");
    let (faceflow, start) = (faceflow(folder.path()), site.url("/"));
    let urls: Vec<String> = (0..40).map(|n| site.url(&format!("/{n}"))).collect();
    let soon = ["fetch.robots_retry_ms=100", "retry.host.base_ms=50", "retry.host.cap_ms=100"];
    let soon: Vec<&str> = soon.into_iter().flat_map(|set| ["--set", set]).collect();
    let urls: Vec<&str> = std::iter::once(&start).chain(&urls).map(String::as_str).collect();
    let ended = faceflow.run(&[&["run"], &urls[..], &LOCAL, &soon].concat());
    assert_eq!(ended.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(web.log().count(&site.url("/robots.txt")), 16);
    assert!(faceflow.results(&["--kind", "pages"]).iter().all(|line| line["status"] == "done"));
}

#[test]
fn urls_of_a_real_host_that_takes_no_connections_end_together_and_the_summary_names_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let web = World::new();
    let site = web.site();
    site.page("/", "<p>here");
    let folder = tempdir().expect("a folder");
    let sites: String = (0..500).map(|n| format!("http://{address}/{n}\n")).collect();
    std::fs::write(folder.path().join("sites.txt"), format!("{sites}{}\n", site.url("/"))).expect("writes");
    let soon = ["--set", "retry.host.base_ms=50", "--set", "fetch.robots_retry_ms=50"];
    let run = [&["run", "--sites", "sites.txt"], &LOCAL[..], &soon].concat();
    let faceflow = faceflow(folder.path());
    let ended = faceflow.run(&run);
    assert_eq!(ended.code(), Some(3), "{}", ended.stderr);
    assert!(ended.stdout.contains("501 discovered: 1 done") && ended.stdout.contains("500 dead"), "{}", ended.stdout);
    let named = format!("host    {address} was given up: robots_unreachable: ");
    assert!(ended.stdout.contains(&named), "{}", ended.stdout);
    // They are driven again together with their host.
    let retried = faceflow.run(&["retry", "--dead"]);
    assert!(retried.stdout.starts_with("500 entries"), "{}", retried.stdout);
    let status = faceflow.run(&["explain", &format!("http://{address}/7")]);
    assert!(!status.stdout.contains("its host"), "{}", status.stdout);
}
