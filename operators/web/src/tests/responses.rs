//! Answers that follow the rules: bodies, codings, statuses, redirects, opt-outs.

use faceflow_core::record::PageVersion;
use faceflow_core::testing::require;

use super::server::{Reply, Server, moved, ok, response};
use super::*;
use faceflow_mine::{feed, html};

#[tokio::test]
async fn a_good_answer_comes_back_whole() {
    let headers =
        "Content-Type: text/html\r\nETag: \"1\"\r\nX-Robots-Tag: all\r\nX-Robots-Tag: nofollow\r\nSet-Cookie: a=b\r\n";
    let server = Server::always(Reply::Bytes(response(200, headers, b"hello"))).await;
    let client = client(|_| ());
    for _ in 0..2 {
        let response = page(&client, &server.url("/a?b#c")).await.expect("an answer");
        assert_eq!((response.status, &response.body[..]), (200, &b"hello"[..]));
        assert_eq!(response.final_url, server.url("/a?b"));
        assert_eq!(response.header("etag"), Some("\"1\""));
        let names: Vec<_> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["content-type", "etag", "x-robots-tag", "x-robots-tag"]);
    }
    let heads = server.heads().join("").to_ascii_lowercase();
    assert!(heads.contains("user-agent: faceflow/") && heads.contains("accept: text/html"), "{heads}");
    assert!(["application/rss+xml", "application/atom+xml", "*/*"].iter().all(|kind| heads.contains(kind)), "{heads}");
    assert!(!heads.contains("cookie") && !heads.contains("authorization") && !heads.contains("referer"), "{heads}");
}

#[tokio::test]
async fn a_page_that_has_not_changed_is_not_sent_again() {
    let server = Server::paths(|path| match path {
        "/same" => Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n".to_vec()),
        "/moved" => moved("/same"),
        "/closed" => Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\nX-Robots-Tag: noai\r\n\r\n".to_vec()),
        _ => ok("new"),
    })
    .await;
    let client = client(|_| ());
    let last = |path: &str| PageVersion {
        url: Some(server.url(path)),
        etag: Some("\"1\"".to_owned()),
        last_modified: Some("Sat, 21 Nov 2026 08:00:00 GMT".to_owned()),
        ..PageVersion::default()
    };
    assert_eq!(client.get_again(&server.url("/same"), &last("/same")).await, Ok(None));
    let changed = client.get_again(&server.url("/changed"), &last("/changed")).await;
    assert_eq!(&changed.expect("an answer").expect("it changed").body[..], b"new");
    let conditions = || {
        let heads = server.heads().join("").to_ascii_lowercase();
        let since = heads.matches("if-modified-since: sat, 21 nov 2026 08:00:00 gmt\r\n").count();
        (heads.matches("if-none-match: \"1\"\r\n").count(), since)
    };
    assert_eq!(conditions(), (2, 2));
    let opted_out = client.get_again(&server.url("/closed"), &last("/closed")).await.expect_err("it opts out");
    assert!(opted_out.permanent, "{opted_out}");
    // Validators of another address are not sent, and nobody asked whether it changed then.
    let elsewhere = client.get_again(&server.url("/same"), &last("/changed")).await.expect_err("is no answer");
    assert_eq!((elsewhere.reason.as_str(), conditions()), ("http_304", (3, 3)));
    let redirected = client.get_again(&server.url("/moved"), &last("/same")).await;
    assert_eq!((redirected, conditions()), (Ok(None), (4, 4)), "they are those of where redirects end");
    // A validator that cannot be sent is not.
    let odd = PageVersion { etag: Some("a\nb".to_owned()), last_modified: None, ..last("/") };
    assert!(client.get_again(&server.url("/"), &odd).await.is_ok_and(|answer| answer.is_some()));
}

#[tokio::test]
async fn new_settings_hold_from_the_next_request() {
    let server = Server::always(ok("hello")).await;
    let (client, url) = (client(|_| ()), server.url("/"));
    assert_eq!(&page(&client, &url).await.expect("an answer").body[..], b"hello");
    let live = client.gate().settings();
    live.set(FetchSettings { page_max_bytes: 4, ..live.get().as_ref().clone() });
    assert_fault(page(&client, &url).await, Class::Policy, "too_large", true);
    let image = client.get(&url, Want::Image).await.expect("only pages are limited");
    assert_eq!(&image.body[..], b"hello");
}

#[tokio::test]
async fn a_chunked_answer_is_whole_when_its_last_chunk_is() {
    let body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let server = Server::always(Reply::Bytes(body.to_vec())).await;
    assert_eq!(&page(&client(|_| ()), &server.url("/")).await.expect("an answer").body[..], b"abcde");
}

/// The text in each content coding, by hand, in its stored form.
pub(super) fn coded(coding: &str, text: &[u8]) -> Vec<u8> {
    let length = text.len() as u16;
    let stored = |text: &[u8]| [&[1][..], &length.to_le_bytes(), &(!length).to_le_bytes(), text].concat();
    match coding {
        "gzip" => {
            let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
            [&head[..], &stored(text), &crc32(text).to_le_bytes(), &u32::from(length).to_le_bytes()].concat()
        }
        "deflate" => [&[0x78, 1][..], &stored(text), &adler32(text).to_be_bytes()].concat(),
        "br" => [&((u32::from(length) - 1) << 4 | 1 << 20).to_le_bytes()[..3], text, &[3]].concat(),
        "zstd" => {
            let block = (u32::from(length) << 3 | 1).to_le_bytes();
            [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x38][..], &block[..3], text].concat()
        }
        other => panic!("no coding {other}"),
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes
        .iter()
        .fold((1, 0), |(a, b), byte| ((a + u32::from(*byte)) % 65_521, (a + b + u32::from(*byte)) % 65_521));
    b << 16 | a
}

#[tokio::test]
async fn every_content_coding_is_removed() {
    let server = Server::start(|path, _| async move {
        let coding = path.trim_start_matches('/');
        Reply::Bytes(response(200, &format!("Content-Encoding: {coding}\r\n"), &coded(coding, b"hello, hello")))
    })
    .await;
    let client = client(|_| ());
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let response = page(&client, &server.url(&format!("/{coding}"))).await.expect(coding);
        assert_eq!(&response.body[..], b"hello, hello", "{coding}");
    }
    let heads = server.heads().join("").to_ascii_lowercase();
    assert!(["gzip", "deflate", "br", "zstd"].iter().all(|coding| heads.contains(coding)), "{heads}");
}

#[tokio::test]
async fn an_unknown_or_broken_coding_is_a_fault() {
    let server = Server::paths(|path| match path {
        "/unknown" => Reply::Bytes(response(200, "Content-Encoding: sdch\r\n", b"\x01\x02")),
        "/garbage" => Reply::Bytes(response(200, "Content-Encoding: gzip\r\n", b"\0this is no gzip at all")),
        "/crc" => {
            let mut bytes = coded("gzip", b"hello, hello");
            let crc = bytes.len() - 8;
            bytes[crc] ^= 1;
            Reply::Bytes(response(200, "Content-Encoding: gzip\r\n", &bytes))
        }
        _ => Reply::Bytes(response(200, "Content-Encoding: gzip\r\n", &coded("gzip", b"hello, hello")[..20])),
    })
    .await;
    let client = client(|_| ());
    assert_fault(page(&client, &server.url("/unknown")).await, Class::Content, "content_encoding", true);
    assert_fault(page(&client, &server.url("/garbage")).await, Class::Protocol, "bad_encoding", false);
    assert_fault(page(&client, &server.url("/crc")).await, Class::Protocol, "bad_encoding", false);
    assert_fault(page(&client, &server.url("/cut")).await, Class::Protocol, "body_truncated", false);
}

#[tokio::test]
async fn a_page_that_is_a_gzip_file_is_unpacked() {
    let server = Server::start(|path, _| async move {
        let file = coded("gzip", b"hello, hello");
        let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        match path.as_str() {
            "/twice" => Reply::Bytes(response(200, "Content-Encoding: gzip\r\n", &coded("gzip", &file))),
            "/members" => Reply::Bytes(response(200, "", &[&file[..], &file].concat())),
            "/bytewise" => {
                let chunks = file.iter().flat_map(|byte| chunk(&[*byte])).collect::<Vec<_>>();
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                Reply::Bytes([head, &chunks[..], b"0\r\n\r\n"].concat())
            }
            "/cut" => Reply::Bytes(response(200, "", &file[..20])),
            "/tail" => Reply::Bytes(response(200, "", &[&file[..], b"and more"].concat())),
            "/sign" => Reply::Bytes(response(200, "", b"\x1f\x8b")),
            "/half" => Reply::Bytes(response(200, "", b"\x1f")),
            "/short" => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n\x1f\x8b\x08".to_vec()),
            _ => Reply::Bytes(response(200, "Content-Type: application/gzip\r\n", &file)),
        }
    })
    .await;
    let client = client(|_| ());
    for (path, expected) in [
        ("/a.gz", "hello, hello"),
        ("/twice", "hello, hello"),
        ("/members", "hello, hellohello, hello"),
        ("/bytewise", "hello, hello"),
        ("/cut", "hello"),
        ("/tail", "hello, hello"),
        ("/sign", ""),
        ("/half", "\x1f"),
    ] {
        assert_eq!(page(&client, &server.url(path)).await.expect(path).body, expected, "{path}");
    }
    assert_fault(page(&client, &server.url("/short")).await, Class::Protocol, "body_truncated", false);
    let picture = client.get(&server.url("/a.gz"), Want::Image).await.expect("an answer");
    assert_eq!(picture.body, coded("gzip", b"hello, hello"), "only pages are unpacked");
}

/// The packed sitemaps of the suite; each names the same five pages.
#[tokio::test]
async fn packed_sitemaps_come_out_as_feeds() {
    let Some(folder) = require::testdata("suites/sitemaps") else { return };
    let server = Server::start(move |path, _| {
        let file = std::fs::read(folder.join(path.trim_start_matches('/'))).expect("a file of the suite");
        std::future::ready(Reply::Bytes(response(200, "Content-Type: application/octet-stream\r\n", &file)))
    })
    .await;
    let url = Url::parse("http://www.example.com/sitemap").expect("a URL");
    for file in ["/sitemap.txt.gz", "/xmlSitemap.gz"] {
        let response = page(&client(|_| ()), &server.url(file)).await.expect(file);
        let source = html::Source { url: &url, content_type: response.header("content-type"), body: &response.body };
        let links = feed::read(&source, &html::MineSettings::default()).expect(file).links;
        assert_eq!(links.len(), 5, "{file}");
        assert_eq!(links[1].as_str(), "http://www.example.com/catalog?item=12&desc=vacation_hawaii", "{file}");
    }
}

#[tokio::test]
async fn statuses_become_faults() {
    let server = Server::start(|path, before| async move {
        match (path.as_str(), before) {
            ("/busy", 0) => Reply::Bytes(response(503, "Retry-After: 7\r\n", b"later")),
            ("/busy", 1) => Reply::Bytes(response(429, "Retry-After: Sun, 06 Nov 1994 08:50:37 GMT\r\n", b"later")),
            ("/busy", _) => ok("at last"),
            _ => Reply::Bytes(response(404, "", b"gone")),
        }
    })
    .await;
    // Each client asks once: it would not ask again before the host's time.
    let client = || client(|_| ());
    let busy = server.url("/busy");
    let fault = assert_fault(page(&client(), &busy).await, Class::Busy, "http_503", false);
    assert_eq!(fault.retry_after_ms, Some(7_000));
    let fault = assert_fault(page(&client(), &busy).await, Class::Busy, "http_429", false);
    let wait = fault.retry_after_ms.expect("a date");
    assert!((30_000..=60_000).contains(&wait), "a minute by our clock, less what the test took: {wait}");
    assert_eq!(page(&client(), &busy).await.expect("an answer").body, "at last");
    assert_fault(page(&client(), &server.url("/gone")).await, Class::Refused, "http_404", true);
}

#[tokio::test]
async fn redirects_are_followed_to_their_end() {
    let server = Server::paths(|path| match path {
        "/a" => moved("b?x=1#part"),
        "/b?x=1" => ok("beside it"),
        "/chain/0" => ok("the end"),
        path if path.starts_with("/chain/") => {
            let left: u32 = path[7..].parse().expect("a number");
            moved(&format!("/chain/{}", left - 1))
        }
        "/spin" => moved("/spun"),
        "/spun" => moved("/spin"),
        "/self" => moved("#again"),
        "/nowhere" => Reply::Bytes(response(302, "", b"")),
        _ => Reply::Bytes(response(302, "Location: http://[\r\n", b"")),
    })
    .await;
    let client = client(|settings| settings.redirects_max = 10);
    let response = page(&client, &server.url("/a")).await.expect("a relative Location");
    assert_eq!((response.final_url, &response.body[..]), (server.url("/b?x=1"), &b"beside it"[..]));
    let response = page(&client, &server.url("/chain/10")).await.expect("ten are allowed");
    assert_eq!((response.final_url, &response.body[..]), (server.url("/chain/0"), &b"the end"[..]));
    assert_fault(page(&client, &server.url("/chain/11")).await, Class::Refused, "too_many_redirects", true);
    assert_fault(page(&client, &server.url("/spin")).await, Class::Refused, "redirect_loop", true);
    assert_fault(page(&client, &server.url("/self")).await, Class::Refused, "redirect_loop", true);
    assert_fault(page(&client, &server.url("/nowhere")).await, Class::Refused, "bad_redirect", true);
    assert_fault(page(&client, &server.url("/broken")).await, Class::Refused, "bad_redirect", true);
}

#[tokio::test]
async fn every_hop_is_guarded() {
    let server = Server::start(|path, _| async move { moved(path.trim_start_matches("/to/")) }).await;
    let client = client(|settings| settings.allow_networks = vec!["127.0.0.1".parse().expect("an address")]);
    let refused = [
        ("http://127.0.0.2/", "private_address"),
        ("http://10.0.0.1/", "private_address"),
        ("http://169.254.169.254/latest/meta-data", "private_address"),
        ("http://[::1]/", "private_address"),
        ("http://[::ffff:10.0.0.1]/", "private_address"),
        ("http://[64:ff9b::10.0.0.1]/", "private_address"),
        ("file:///etc/passwd", "bad_scheme"),
        ("data:text/html,hello", "bad_scheme"),
        ("ftp://127.0.0.1/", "bad_scheme"),
        ("http://root:secret@127.0.0.1/", "userinfo"),
        ("http://9.9.9.9:22/", "port"),
    ];
    for (to, reason) in refused {
        assert_fault(page(&client, &server.url(&format!("/to/{to}"))).await, Class::Policy, reason, true);
    }
    assert_eq!(server.heads().len(), refused.len());
}

#[tokio::test]
async fn loopback_is_refused_in_every_spelling_unless_allowed() {
    let server = Server::always(ok("inside")).await;
    let port = server.url("/").port().expect("a port");
    let strict = client(|settings| settings.allow_networks.clear());
    let usual = client(|settings| {
        settings.allow_networks.clear();
        settings.ports.push(port);
    });
    let open = client(|_| ());
    for host in ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "[::ffff:127.0.0.1]", "localhost"] {
        let url = Url::parse(&format!("http://{host}:{port}/")).expect(host);
        assert_fault(page(&usual, &url).await, Class::Policy, "private_address", true);
        let reason = if host == "localhost" { "port" } else { "private_address" };
        assert_fault(page(&strict, &url).await, Class::Policy, reason, true);
        assert_eq!(page(&open, &url).await.expect(host).body, "inside");
    }
    assert_eq!(server.heads().len(), 7, "only the allowed requests arrived");
}

#[tokio::test]
async fn names_that_do_not_exist_and_ports_that_are_closed() {
    let client = client(|_| ());
    // A label of 64 bytes cannot exist, so no name server is asked.
    let url = Url::parse(&format!("http://{}.invalid/", "a".repeat(64))).expect("a URL");
    assert_fault(page(&client, &url).await, Class::Dns, "dns", false);
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        listener.local_addr().expect("bound")
    };
    let url = Url::parse(&format!("http://{closed}/")).expect("a URL");
    assert_fault(page(&client, &url).await, Class::Connect, "connect", false);
}

#[tokio::test]
async fn a_server_without_tls_is_no_https_server() {
    let server = Server::always(Reply::Close(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())).await;
    let mut url = server.url("/");
    url.set_scheme("https").expect("a web scheme");
    // The client's hello ends in no blank line, so the server never answers it; a listener that answers garbage does.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    url.set_port(Some(listener.local_addr().expect("bound").port())).expect("a port");
    let garbage = async {
        let (mut stream, _) = listener.accept().await.expect("the client");
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
        stream
    };
    let client = client(|_| ());
    let (answer, _stream) = tokio::join!(page(&client, &url), garbage);
    assert_fault(answer, Class::Connect, "tls", false);
}

#[tokio::test]
async fn opt_outs_in_headers_are_obeyed() {
    let server = Server::start(|path, _| async move {
        let headers: String =
            path[1..].split('/').map(|value| format!("X-Robots-Tag: {}\r\n", value.replace('_', " "))).collect();
        Reply::Bytes(response(200, &headers, b"picture"))
    })
    .await;
    let client = client(|_| ());
    let image = |path: &'static str| {
        let (client, url) = (client.clone(), server.url(path));
        async move { client.get(&url, Want::Image).await }
    };
    assert_fault(image("/noai").await, Class::Policy, "opt_out:noai", true);
    assert_fault(image("/all/noimageai").await, Class::Policy, "opt_out:noimageai", true);
    assert_fault(image("/max-snippet:5,_noai").await, Class::Policy, "opt_out:noai", true);
    assert_fault(image("/faceflow:_noai").await, Class::Policy, "opt_out:noai", true);
    assert_fault(image("/noindex").await, Class::Policy, "opt_out:noindex", true);
    assert!(image("/otherbot:_noai").await.is_ok());
    assert!(page(&client, &server.url("/noindex,_follow")).await.is_ok(), "a page may hide from indexes");
    let disrespectful = super::client(|settings| settings.respect_opt_outs = false);
    let response = disrespectful.get(&server.url("/noai"), Want::Image).await.expect("an answer");
    assert_eq!(response.header("x-robots-tag"), Some("noai"), "the evidence is kept");
}
