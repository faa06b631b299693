//! The scripted web keeps its promises: tested at the byte level, with a client that knows nothing of it.

mod world;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use faceflow::core::testing::require;
use world::*;

const SOON: Duration = Duration::from_secs(20);

/// A connection to the host of `url`.
fn connect(url: &str) -> TcpStream {
    let host = url.trim_start_matches("http://").split('/').next().expect("a host");
    let stream = TcpStream::connect(host).expect("the world listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream
}

/// Asks for `url`; `more` are further header lines.
fn ask(stream: &mut TcpStream, url: &str, more: &str) {
    let (host, path) = url.trim_start_matches("http://").split_once('/').expect("a path");
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bare\r\n{more}\r\n").expect("sent");
}

/// Everything the server says until it closes.
fn all(url: &str) -> Vec<u8> {
    let (mut stream, mut bytes) = (connect(url), Vec::new());
    ask(&mut stream, url, "Connection: close\r\n");
    stream.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("{url}: {error}"));
    bytes
}

/// The head as text, and the body.
fn split(bytes: &[u8]) -> (String, Vec<u8>) {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), bytes[end + 4..].to_vec())
}

fn get(url: &str) -> (String, Vec<u8>) {
    split(&all(url))
}

/// Exactly one answer with a length, from a connection that stays open.
fn one(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        bytes.extend(byte);
    }
    let (head, _) = split(&bytes);
    let mut body = vec![0; header(&head, "Content-Length").expect("a length").parse().expect("a number")];
    stream.read_exact(&mut body).expect("a body");
    (head, body)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn honest_answers_share_a_connection_and_are_logged() {
    let web = World::new();
    let (site, other) = (web.site(), web.site());
    let beside = web.site_beside(&site);
    let host = |site: &Site| site.host().split(':').next().map(str::to_owned);
    assert_ne!(host(&site), host(&other), "sites are different hosts");
    assert_eq!(host(&site), host(&beside));
    assert_ne!(site.host(), beside.host());
    site.page("/", "start")
        .page("/?page=2", "second")
        .put("/", Answer::ok("text/html", "new start"))
        .robots("User-agent: *\n");
    let mut stream = connect(site.origin());
    for (path, body) in
        [("/", "new start"), ("/?page=2", "second"), ("/?page=3", "new start"), ("/robots.txt", "User-agent: *\n")]
    {
        ask(&mut stream, &site.url(path), "");
        let (head, said) = one(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(said, body.as_bytes(), "{path}");
    }
    ask(&mut stream, &site.url("/nowhere"), "");
    assert!(one(&mut stream).0.starts_with("HTTP/1.1 404"));
    let log = web.log();
    log.wait_for(SOON, |requests| requests.len() == 5 && requests.iter().all(|request| request.ended_ms.is_some()));
    let requests = log.requests();
    assert!(requests.iter().all(|request| request.connection == requests[0].connection));
    assert_eq!(requests[1].url, site.url("/?page=2"));
    assert_eq!((requests[0].method.as_str(), requests[0].header("user-agent")), ("GET", Some("bare")));
    assert_eq!((log.count(&site.url("/")), log.of(&site.url("/")).len(), log.total(), log.urls().len()), (1, 1, 5, 5));
    assert_eq!((log.concurrent_max_of(&site), log.concurrent_max_of(&other)), (1, 0));
    log.clear();
    assert_eq!((log.total(), log.concurrent_max()), (0, 0));
}

#[test]
fn head_and_posts_are_understood() {
    let web = World::new();
    let site = web.site();
    site.page("/", "start");
    let mut stream = connect(site.origin());
    write!(stream, "HEAD / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nConnection: close\r\n\r\n").expect("sent");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("three answers");
    assert_eq!((said.matches("HTTP/1.1 200").count(), said.matches("start").count()), (3, 2), "{said}");
    assert_eq!(
        web.log().requests().iter().map(|request| request.method.clone()).collect::<Vec<_>>(),
        ["HEAD", "POST", "GET"]
    );
}

#[test]
fn scripts_go_on_and_their_last_answer_stays() {
    let web = World::new();
    let site = web.site();
    let busy = Answer::status(503).header("Retry-After", "7");
    site.put(
        "/a",
        Script::times(2, busy).then(Script::times(1, Answer::status(500)).then(Answer::ok("text/plain", "well"))),
    );
    let answers: Vec<_> = (0..5).map(|_| get(&site.url("/a"))).collect();
    let statuses: Vec<_> = answers.iter().map(|(head, _)| &head[9..12]).collect();
    assert_eq!(statuses, ["503", "503", "500", "200", "200"]);
    assert_eq!((header(&answers[0].0, "Retry-After"), answers[4].1.as_slice()), (Some("7"), b"well".as_slice()));
    assert_eq!(web.log().count(&site.url("/a")), 5);
}

#[test]
fn requests_at_once_are_counted_and_delays_kept() {
    let web = World::new();
    let site = web.site();
    site.put("/slow", Answer::ok("text/plain", "late").delayed(300));
    std::thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| assert_eq!(get(&site.url("/slow")).1, b"late"));
        }
    });
    assert_eq!((web.log().concurrent_max(), web.log().concurrent_max_of(&site)), (3, 3));
    let quickest = web.log().requests().iter().filter_map(|request| Some(request.ended_ms? - request.started_ms)).min();
    assert!(quickest.is_some_and(|ms| ms >= 299), "{quickest:?}");
}

#[test]
fn redirects_and_loops() {
    let web = World::new();
    let site = web.site();
    site.put("/moved", Answer::redirect_as(308, "/new")).redirect_loop("/loop", 3);
    let (head, _) = get(&site.url("/moved"));
    assert!(head.starts_with("HTTP/1.1 308"));
    assert_eq!(header(&head, "Location"), Some("/new"));
    let mut path = "/loop".to_owned();
    let mut way = Vec::new();
    for _ in 0..4 {
        path = header(&get(&site.url(&path)).0, "Location").expect("it goes on").to_owned();
        way.push(path.clone());
    }
    assert_eq!(way, ["/loop/1", "/loop/2", "/loop", "/loop/1"]);
}

#[test]
fn bodies_break_off_where_the_script_says() {
    let web = World::new();
    let site = web.site();
    let honest = Answer::ok("image/jpeg", vec![7; 5_000]);
    site.put("/cut", Script::times(1, honest.clone().drop_mid_body(1_234)).then(honest.clone()));
    let (head, body) = get(&site.url("/cut"));
    assert_eq!((header(&head, "Content-Length"), body.len()), (Some("5000"), 1_234));
    assert_eq!(get(&site.url("/cut")).1.len(), 5_000);
    site.put("/reset", honest.reset_mid_body(10));
    let mut stream = connect(site.origin());
    ask(&mut stream, &site.url("/reset"), "");
    let error = stream.read_to_end(&mut Vec::new()).expect_err("a reset is not an end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn types_and_lengths_lie() {
    let web = World::new();
    let site = web.site();
    site.put("/type", Answer::ok("text/html", "<p>").lie_type("image/jpeg"));
    assert_eq!(header(&get(&site.url("/type")).0, "Content-Type"), Some("image/jpeg"));
    site.put("/more", Answer::ok("text/plain", "four").lie_length(40))
        .put("/less", Answer::ok("text/plain", "fourteen").lie_length(4));
    let mut stream = connect(site.origin());
    ask(&mut stream, &site.url("/less"), "");
    assert_eq!(one(&mut stream).1, b"four");
    let mut rest = [0; 4];
    stream.read_exact(&mut rest).expect("the bytes nobody was told of, on an open connection");
    assert_eq!(&rest, b"teen");
    let mut stream = connect(site.origin());
    ask(&mut stream, &site.url("/more"), "");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("it closes by itself");
    let (head, body) = split(&said);
    assert_eq!((header(&head, "Content-Length"), body.as_slice()), (Some("40"), b"four".as_slice()));
}

#[test]
fn slow_and_silent_bodies() {
    let web = World::new();
    let site = web.site();
    site.put("/drip", Answer::ok("text/plain", "by drops.").drip(1, 100))
        .put("/idle", Answer::idle_after_headers("image/png"));
    site.put("/silent", Answer::silent()).put("/endless", Answer::endless("image/jpeg"));
    let mut stream = connect(site.origin());
    ask(&mut stream, &site.url("/drip"), "");
    let mut pieces = Vec::new();
    while pieces.last().is_none_or(|last: &String| !last.ends_with('.')) {
        let mut piece = [0; 4_096];
        let read = stream.read(&mut piece).expect("a piece");
        pieces.push(String::from_utf8_lossy(&piece[..read]).into_owned());
    }
    assert!(pieces.len() > 2 && pieces.concat().ends_with("\r\n\r\nby drops."), "{pieces:?}");
    web.log()
        .wait_for(SOON, |requests| requests[0].ended_ms.is_some_and(|ended| ended - requests[0].started_ms >= 899));
    for (path, says) in [("/idle", true), ("/silent", false)] {
        let mut stream = connect(site.origin());
        ask(&mut stream, &site.url(path), "");
        stream.set_read_timeout(Some(Duration::from_millis(if says { 20_000 } else { 200 }))).expect("a timeout");
        let mut head = vec![0; 4_096];
        if says {
            let read = stream.read(&mut head).expect("a head");
            assert!(head[..read].ends_with(b"Content-Length: 1000\r\n\r\n"));
            stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        }
        let error = stream.read(&mut head).expect_err("nothing comes");
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        assert_eq!(web.log().of(&site.url(path))[0].ended_ms, None, "still under way");
    }
    let mut stream = connect(site.origin());
    ask(&mut stream, &site.url("/endless"), "");
    stream.read_exact(&mut vec![0; 3 << 20]).expect("as much as one likes");
    drop(stream);
    web.log()
        .wait_for(SOON, |requests| requests.len() == 4 && requests.iter().all(|request| request.ended_ms.is_some()));
}

#[test]
fn heads_and_chunks_out_of_order() {
    let web = World::new();
    let site = web.site();
    site.put("/none", Answer::no_status_line())
        .put("/huge", Answer::huge_header(64 << 10))
        .put("/many", Answer::many_headers(10_000));
    site.put("/chunks", Answer::chunked("text/plain", "a".repeat(2_500)))
        .put("/broken", Answer::broken_chunks("text/plain"));
    assert!(all(&site.url("/none")).starts_with(b"<html>"));
    assert_eq!(header(&get(&site.url("/huge")).0, "X-Huge").map(str::len), Some(64 << 10));
    assert_eq!(get(&site.url("/many")).0.matches("X-Number-").count(), 10_000);
    let (head, body) = get(&site.url("/chunks"));
    assert_eq!((header(&head, "Transfer-Encoding"), header(&head, "Content-Length")), (Some("chunked"), None));
    let body = String::from_utf8(body).expect("text");
    let sizes: Vec<_> = body.split("\r\n").step_by(2).collect();
    assert_eq!(sizes[..4], ["3e8", "3e8", "1f4", "0"]);
    assert!(get(&site.url("/broken")).1.starts_with(b"4\r\nwell\r\nnonsense"));
}

#[test]
fn gzip_is_gzip_and_bombs_go_off() {
    let web = World::new();
    let site = web.site();
    site.put("/plain", Answer::gzip("text/plain", b"well")).put("/bomb", Answer::gzip_bomb("text/html", 32));
    for (path, length) in [("/plain", 4), ("/bomb", 32 << 20)] {
        let (head, body) = get(&site.url(path));
        assert_eq!(header(&head, "Content-Encoding"), Some("gzip"));
        assert!(body.len() < 300_000, "{}", body.len());
        let gunzip = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut gunzip) = gunzip else {
            require::skip("gzip", "there is none to check against");
            return;
        };
        let mut stdin = gunzip.stdin.take().expect("piped");
        let feed = std::thread::spawn(move || stdin.write_all(&body));
        let out = gunzip.wait_with_output().expect("it ends");
        feed.join().expect("no panic").expect("gzip takes all of it");
        assert!(out.status.success(), "checksum and length are right");
        let count = out.stdout.len();
        assert!(count <= length && count + 258 > length, "{count}");
    }
}

/// Servers have time of their own: a test whose clock stands still can use them, and drop them.
#[tokio::test(start_paused = true)]
async fn a_test_with_a_paused_clock_can_use_a_world() {
    let web = World::new();
    let site = web.site();
    site.put("/", Answer::ok("text/plain", "well").delayed(50));
    assert_eq!(get(&site.url("/")).1, b"well");
}

#[test]
#[should_panic(expected = "not what was waited for")]
fn waiting_in_vain_fails_loudly() {
    World::new().log().wait_for(Duration::from_millis(20), |requests| !requests.is_empty());
}
