//! The gate as others than the client use it.

use std::net::SocketAddr;
use std::time::Duration;

use faceflow_core::HostFaultKind;
use faceflow_core::record::queue_of;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::time::Instant;

use super::server::{Reply, Server, moved, ok, response};
use super::*;
use crate::http::Resource;
use crate::{AtFault, Failure, Gate, HeldBack, Origin, Permit, PinnedNames, Purpose};

const PURPOSES: [Purpose; 5] = [
    Purpose::Crawl(Want::Page),
    Purpose::Crawl(Want::Image),
    Purpose::RobotsTxt,
    Purpose::Webhook,
    Purpose::ModelDownload,
];

/// A gate to loopback that asks for no robots.txt; `change` sets the rest.
fn gate(change: impl FnOnce(&mut FetchSettings)) -> Gate {
    client(change).gate().clone()
}

fn url(text: &str) -> Url {
    Url::parse(text).expect(text)
}

/// The URL of a path of this server by the name of loopback.
fn named(server: &Server, path: &str) -> Url {
    let mut url = server.url(path);
    url.set_host(Some("localhost")).expect("a name");
    url
}

/// The reason of a failure, and whose doing it is.
fn refusal(admitted: Result<Permit, Failure>) -> (String, AtFault) {
    let failure = admitted.err().expect("a failure");
    (failure.fault.reason, failure.at_fault)
}

#[tokio::test]
async fn private_addresses_are_refused_whatever_a_request_is_for() {
    let gate = gate(|settings| {
        settings.respect_robots = true;
        settings.allow_networks.clear();
    });
    for purpose in PURPOSES {
        for ip in ["127.0.0.1", "10.1.2.3", "169.254.169.254"] {
            let refused = refusal(gate.admit(&url(&format!("http://{ip}/")), purpose).await);
            let address = AtFault::Address(ip.parse().expect(ip));
            assert_eq!(refused, ("private_address".to_owned(), address), "{purpose:?}");
        }
        let localhost = url("http://localhost/");
        let refused = refusal(gate.admit(&localhost, purpose).await);
        assert_eq!(refused, ("private_address".to_owned(), AtFault::Host(Origin::of(&localhost))), "{purpose:?}");
        let long = format!("http://9.9.9.9/{}", "a".repeat(9_000));
        for (text, reason) in [
            ("file:///etc/passwd", "bad_scheme"),
            ("http://user@9.9.9.9/", "userinfo"),
            ("http://9.9.9.9:22/", "port"),
            ("http://a.example:22/", "port"),
            (&long, "url_too_long"),
        ] {
            assert_eq!(
                refusal(gate.admit(&url(text), purpose).await),
                (reason.to_owned(), AtFault::Url),
                "{purpose:?}"
            );
        }
    }
}

#[tokio::test]
async fn robots_bind_the_crawl_and_no_webhook() {
    let server =
        Server::paths(|path| if path == "/robots.txt" { ok("User-agent: *\nDisallow: /") } else { ok(path) }).await;
    let gate = gate(|settings| settings.respect_robots = true);
    for purpose in PURPOSES {
        let admitted = gate.admit(&server.url("/x"), purpose).await;
        match purpose {
            Purpose::Crawl(_) => assert_eq!(refusal(admitted), ("robots".to_owned(), AtFault::Url)),
            _ => assert!(admitted.is_ok(), "{purpose:?}"),
        }
    }
    assert_eq!(server.asked(), ["/robots.txt"], "by the crawl alone, and once");
}

#[tokio::test(start_paused = true)]
async fn whoever_uses_a_gate_shares_the_pace_of_its_hosts() {
    let crawl = gate(|settings| settings.delay_ms = 1_000);
    let (webhooks, begin, host) = (crawl.clone(), Instant::now(), url("http://9.9.9.9/"));
    drop(crawl.admit(&host, Purpose::Crawl(Want::Page)).await.expect("admitted"));
    drop(webhooks.admit(&url("http://9.9.9.8/"), Purpose::Webhook).await.expect("admitted"));
    assert_eq!(begin.elapsed(), Duration::ZERO, "another host has a pace of its own");
    drop(webhooks.admit(&host, Purpose::Webhook).await.expect("admitted"));
    assert_eq!(begin.elapsed(), Duration::from_secs(1));
    drop(crawl.admit(&host, Purpose::Crawl(Want::Page)).await.expect("admitted"));
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_given_back_when_it_is_dropped() {
    let host = url("http://9.9.9.9/");
    for change in [
        |settings: &mut FetchSettings| settings.per_host = 1,
        |settings: &mut FetchSettings| settings.per_ip = 1,
        |settings: &mut FetchSettings| settings.concurrency = 1,
    ] {
        let gate = gate(change);
        let permit = gate.admit(&host, Purpose::ModelDownload).await.expect("admitted");
        let waiting = gate.admit(&host, Purpose::Webhook);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(permit);
        waiting.await.expect("admitted");
    }
    // A quarter of the memory is for beginnings of bodies, of 256 KiB each.
    let gate = gate(|settings| settings.memory_max_bytes = 16 << 20);
    let mut permits = vec![];
    for n in 0..16 {
        permits.push(gate.admit(&url(&format!("http://9.9.9.{n}/")), Purpose::Webhook).await.expect("admitted"));
    }
    let waiting = gate.admit(&host, Purpose::Webhook);
    tokio::pin!(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending(), "there is memory for no more");
    permits.pop();
    waiting.await.expect("admitted");
}

/// A URL of this server under a name that the gate knows and no name server does.
fn rebound(gate: &Gate, server: &Server) -> Url {
    let mut url = server.url("/");
    url.set_host(Some("rebound.example")).expect("a name");
    rebind(gate, [127, 0, 0, 1]);
    url
}

/// Has the name be at another address from now on.
fn rebind(gate: &Gate, ip: [u8; 4]) {
    gate.guard().names().believe("rebound.example", &[(ip, 0).into()]);
}

#[tokio::test]
async fn a_permit_pins_the_addresses_that_were_checked_for_it() {
    let server = Server::always(ok("here")).await;
    let http = reqwest::Client::builder().dns_resolver(PinnedNames).no_proxy().build().expect("a client");
    let gate = gate(|_| ());
    let target = rebound(&gate, &server);
    let port = target.port().expect("a port");
    let permit = gate.admit(&target, Purpose::Webhook).await.expect("admitted");
    assert_eq!(permit.addresses().collect::<Vec<_>>(), [SocketAddr::from(([127, 0, 0, 1], port))]);
    // The name is elsewhere when the connection is made.
    rebind(&gate, [127, 0, 0, 2]);
    let response = permit.connect(http.get(permit.url().clone()).send()).await.expect("the server is there");
    assert_eq!((response.status(), response.remote_addr()), (StatusCode::OK, Some(([127, 0, 0, 1], port).into())));
    assert_eq!(permit.answered(response.status(), response.headers()), Ok(()));
}

#[tokio::test]
async fn without_a_permit_no_connection_is_made_to_a_name() {
    let server = Server::always(ok("here")).await;
    let http = reqwest::Client::builder().dns_resolver(PinnedNames).no_proxy().build().expect("a client");
    let (gate, target) = (gate(|_| ()), named(&server, "/"));
    http.get(target.clone()).send().await.expect_err("nobody admitted it");
    let other = gate.admit(&server.url("/"), Purpose::Webhook).await.expect("admitted");
    let error = other.connect(http.get(target.clone()).send()).await.expect_err("this is for another host");
    let failure = other.failed(&error);
    assert_eq!((failure.fault.reason.as_str(), failure.at_fault), ("no_permit", AtFault::Us));
    assert!(server.heads().is_empty());
    let permit = gate.admit(&target, Purpose::Webhook).await.expect("admitted");
    permit.connect(http.get(target).send()).await.expect("it is for this one");
}

/// The head of a response.
fn head(status: u16, headers: &[(&'static str, &'static str)]) -> (StatusCode, HeaderMap) {
    let headers = headers.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
    (StatusCode::from_u16(status).expect("a status"), headers.collect())
}

#[tokio::test]
async fn opt_outs_are_failures_of_the_crawl_alone() {
    let (gate, host) = (gate(|_| ()), url("http://9.9.9.9/"));
    for purpose in PURPOSES {
        let permit = gate.admit(&host, purpose).await.expect("admitted");
        let answered = |status, headers: &[(&'static str, &'static str)]| {
            let (status, headers) = head(status, headers);
            permit.answered(status, &headers).map_err(|failure| (failure.fault.reason, failure.at_fault))
        };
        let opted_out = |word: &str| Err((format!("opt_out:{word}"), AtFault::Url));
        let noai = [("x-robots-tag", "all"), ("x-robots-tag", "noai")];
        for status in [200, 206, 304] {
            let expected = if purpose.obeys_robots() { opted_out("noai") } else { Ok(()) };
            assert_eq!(answered(status, &noai), expected, "{purpose:?} {status}");
        }
        let own = if purpose == Purpose::Crawl(Want::Image) { opted_out("noindex") } else { Ok(()) };
        assert_eq!(answered(200, &[("x-robots-tag", "noindex")]), own, "{purpose:?}");
        assert_eq!(answered(302, &noai), Ok(()), "a redirect shows nothing that could be used");
        assert_eq!(answered(410, &noai), Err(("http_410".to_owned(), AtFault::Url)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_gate_knows_when_a_host_wants_to_be_asked_again() {
    let (gate, begin) = (gate(|_| ()), Instant::now());
    let [a, same, b] = ["http://9.9.9.9/a", "http://9.9.9.9/b", "https://9.9.9.9/a"].map(url);
    let permit = gate.admit(&a, Purpose::Crawl(Want::Page)).await.expect("admitted");
    let wait = |url| gate.not_before(url).map(|moment| moment - begin);
    let (status, headers) = head(404, &[("retry-after", "9")]);
    permit.answered(status, &headers).expect_err("is not there");
    assert_eq!(wait(&a), None, "this is no wish of a host");
    let (status, headers) = head(429, &[("retry-after", "9")]);
    let failure = permit.answered(status, &headers).expect_err("not now");
    assert_eq!((failure.at_fault, failure.fault.retry_after_ms), (AtFault::Host(Origin::of(&a)), Some(9_000)));
    assert_eq!((wait(&a), wait(&same)), (Some(Duration::from_secs(9)), Some(Duration::from_secs(9))));
    assert_eq!(wait(&b), None, "another origin has said nothing");
    for purpose in PURPOSES {
        let failure = gate.admit(&same, purpose).await.err().expect("nobody asks it before");
        let (fault, host) = (&failure.fault, failure.fault.host.expect("it is about the host"));
        assert_eq!((fault.reason.as_str(), fault.retry_after_ms), ("http_429", Some(9_000)), "{purpose:?}");
        assert_eq!((host.queue, host.kind), (queue_of(&same), HostFaultKind::Resting), "{purpose:?}");
    }
    assert_eq!(gate.held_back(), HeldBack { hosts: 1, addresses: 0, refused: 5 });
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(wait(&a), None);
}

#[tokio::test]
async fn what_is_unreachable_is_the_hosts_doing_and_held_back() {
    let broken = Server::always(Reply::Bytes(response(503, "Retry-After: 60\r\n", b""))).await;
    let gate = gate(|settings| settings.respect_robots = true);
    // A label of 64 bytes cannot exist, so no name server is asked.
    let unknown = url(&format!("http://{}.invalid/", "a".repeat(64)));
    let crawl = Purpose::Crawl(Want::Page);
    for (url, purpose, (reason, kind)) in [
        (broken.url("/x"), crawl, ("robots_unreachable", HostFaultKind::Busy)),
        (closed().await, crawl, ("robots_unreachable", HostFaultKind::Unreachable)),
        (unknown, Purpose::Webhook, ("dns", HostFaultKind::Unreachable)),
    ] {
        assert_eq!(gate.not_before(&url), None);
        let failure = gate.admit(&url, purpose).await.err().expect("a failure");
        assert_eq!((failure.fault.reason.as_str(), failure.at_fault), (reason, AtFault::Host(Origin::of(&url))));
        let host = failure.fault.host.expect("it is about the host");
        assert_eq!((host.queue, host.kind), (queue_of(&url), kind), "{reason}");
        assert!(gate.not_before(&url).is_some(), "{reason}");
        let failure = gate.admit(&url, purpose).await.err().expect("it is not asked again");
        assert_eq!(failure.fault.host.map(|host| host.kind), Some(HostFaultKind::Resting), "{reason}");
    }
}

/// A URL at which nothing listens.
async fn closed() -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    url(&format!("http://{}/", listener.local_addr().expect("bound")))
}

#[tokio::test]
async fn where_nothing_takes_connections_nobody_tries_after_the_third_one() {
    let (gate, down) = (gate(|_| ()), closed().await);
    let other = Server::always(ok("here")).await;
    let why = |failure: &Failure| (failure.fault.reason.clone(), failure.fault.host.map(|host| host.kind));
    for n in 0..6 {
        let failure = gate.http().follow(&gate, down.clone(), Resource::Image).await.expect_err("a failure");
        assert_eq!(why(&failure), ("connect".to_owned(), Some(HostFaultKind::Unreachable)), "{n}");
        assert_eq!(failure.fault.retry_after_ms.is_some(), n >= 3, "it was asked until the circuit opened: {n}");
        assert_eq!(failure.fault.detail.starts_with("not asked"), n >= 3, "{}", failure.fault.detail);
    }
    assert_eq!(gate.held_back(), HeldBack { hosts: 0, addresses: 1, refused: 3 });
    for purpose in PURPOSES {
        gate.admit(&down, purpose).await.err().expect("whatever it is for");
    }
    gate.admit(&other.url("/"), Purpose::Webhook).await.expect("another port of that machine");
}

#[tokio::test]
async fn hosts_at_an_address_where_nothing_takes_connections_are_refused_together() {
    let (gate, down) = (gate(|_| ()), closed().await);
    let named = |name: &str| {
        let mut url = down.clone();
        url.set_host(Some(name)).expect("a name");
        gate.guard().names().believe(name, &[([127, 0, 0, 1], 0).into()]);
        url
    };
    let hosts: Vec<Url> = (0..6).map(|n| named(&format!("h{n}.example"))).collect();
    for (n, url) in hosts.iter().enumerate() {
        let failure = gate.http().follow(&gate, url.clone(), Resource::Image).await.expect_err("a failure");
        assert_eq!(failure.fault.detail.starts_with("not asked"), n >= 3, "{}", failure.fault.detail);
        let host = failure.fault.host.expect("it is about the host");
        assert_eq!((host.queue, host.kind), (queue_of(url), HostFaultKind::Unreachable), "each has failed");
    }
}

#[tokio::test]
async fn a_fault_names_the_host_that_failed_and_not_the_one_that_led_there() {
    let down = closed().await;
    let to = down.to_string();
    let server = Server::start(move |_, _| std::future::ready(moved(&to))).await;
    let failure = gate(|_| ());
    let failure = failure.http().follow(&failure, server.url("/x"), Resource::Image).await.expect_err("a failure");
    assert_eq!(failure.fault.host.map(|host| host.queue), Some(queue_of(&down)));
    let broken = Server::always(Reply::Bytes(response(503, "", b""))).await;
    let failure = at_fault(&gate(|_| ()), broken.url("/")).await;
    assert_eq!(failure, ("http_503".to_owned(), AtFault::Url), "one page may be broken");
}

/// Whose doing it is that `url` is not got.
async fn at_fault(gate: &Gate, url: Url) -> (String, AtFault) {
    let failure = gate.http().follow(gate, url, Resource::Image).await.expect_err("a failure");
    (failure.fault.reason, failure.at_fault)
}

#[tokio::test]
async fn a_request_fails_by_its_url_its_host_or_its_address() {
    let gate = gate(|settings| settings.read_timeout_ms = 300);
    let address = AtFault::Address([127, 0, 0, 1].into());
    assert_eq!(at_fault(&gate, closed().await).await, ("connect".to_owned(), address));
    let broken = Server::always(Reply::Close(b"no status line\r\n\r\n".to_vec())).await;
    assert_eq!(at_fault(&gate, broken.url("/")).await, ("bad_response".to_owned(), AtFault::Url));
    let silent = Server::always(Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec())).await;
    assert_eq!(at_fault(&gate, silent.url("/")).await, ("timeout".to_owned(), AtFault::Url));
    let mute = Server::always(Reply::Hang(vec![])).await;
    let hurried = super::client(|settings| (settings.connect_timeout_ms, settings.read_timeout_ms) = (200, 200));
    let asked = hurried.gate().http().follow(hurried.gate(), mute.url("/"), Resource::Image).await;
    let failure = asked.expect_err("a failure");
    assert_eq!(failure.at_fault, AtFault::Host(Origin::of(&mute.url("/"))), "it may be the host's doing");
    assert_eq!(failure.fault.host.map(|host| host.kind), Some(HostFaultKind::Silent));
    // It speaks no TLS.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let secure = url(&format!("https://{}/", listener.local_addr().expect("bound")));
    let garbage = async {
        let (mut stream, _) = listener.accept().await.expect("the client");
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
        stream
    };
    let (failed, _stream) = tokio::join!(at_fault(&gate, secure.clone()), garbage);
    assert_eq!(failed, ("tls".to_owned(), AtFault::Host(Origin::of(&secure))));
}

#[tokio::test]
async fn what_a_hop_leads_to_is_the_doing_of_its_host() {
    let busy = Server::always(Reply::Bytes(response(429, "Retry-After: 60\r\n", b""))).await;
    let target = busy.url("/picture");
    let to = target.to_string();
    let server = Server::start(move |_, _| std::future::ready(moved(&to))).await;
    let gate = gate(|_| ());
    let expected = ("http_429".to_owned(), AtFault::Host(Origin::of(&target)));
    assert_eq!(at_fault(&gate, server.url("/x")).await, expected);
    assert!(gate.not_before(&target).is_some() && gate.not_before(&server.url("/x")).is_none());
}

#[tokio::test]
async fn a_client_goes_through_the_gate_of_others() {
    let server = Server::paths(|path| if path == "/robots.txt" { ok("") } else { ok(path) }).await;
    let gate = gate(|settings| {
        settings.respect_robots = true;
        settings.per_host = 1;
    });
    let permit = gate.admit(&server.url("/hook"), Purpose::Webhook).await.expect("admitted");
    let (client, page_url) = (Client::through(gate), server.url("/page"));
    let waiting = page(&client, &page_url);
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(50), waiting.as_mut()).await;
    assert!(early.is_err() && server.heads().is_empty(), "it waits for the webhook");
    drop(permit);
    assert_eq!(waiting.await.expect("an answer").body, "/page");
}

#[tokio::test]
async fn a_client_connects_to_what_was_checked() {
    let server = Server::always(ok("here")).await;
    let gate = gate(|_| ());
    let target = rebound(&gate, &server);
    let answer = page(&Client::through(gate), &target).await;
    assert_eq!(answer.expect("no name server was asked").body, "here");
}

#[tokio::test]
async fn a_name_is_checked_again_after_the_wait_for_its_turn() {
    let server = Server::always(ok("here")).await;
    let gate = gate(|settings| settings.per_host = 1);
    let target = rebound(&gate, &server);
    let permit = gate.admit(&target, Purpose::Webhook).await.expect("an unusual port of an allowed network");
    let waiting = gate.admit(&target, Purpose::Webhook);
    tokio::pin!(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    rebind(&gate, [9, 9, 9, 9]);
    drop(permit);
    assert_eq!(refusal(waiting.await), ("port".to_owned(), AtFault::Url), "elsewhere this port is not asked");
}
