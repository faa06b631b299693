//! The loose web: what servers get wrong and browsers read all the same.

use super::responses::coded;
use super::server::{Reply, Server, moved, ok, response};
use super::*;

const PAGE: &[u8] = b"<!doctype html><title>words</title><p>and more of them</p>";
const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0";

/// What a client that obeys robots.txt gets from a server that always sends these bytes and closes.
async fn read(bytes: Vec<u8>, want: Want) -> Result<Response, Fault> {
    let server = Server::always(Reply::Close(bytes)).await;
    client(|_| ()).get(&server.url("/"), want).await
}

/// The bare deflate data of a zlib stream.
fn bare(text: &[u8]) -> Vec<u8> {
    let zlib = coded("deflate", text);
    zlib[2..zlib.len() - 4].to_vec()
}

/// A gzip member with every optional field.
fn decorated(text: &[u8]) -> Vec<u8> {
    let gzip = coded("gzip", text);
    let head = [0x1f, 0x8b, 8, 0b1_1110, 0, 0, 0, 0, 0, 255];
    [&head[..], &[3, 0, 1, 2, 3], b"name.html\0", b"a comment\0", &[7, 7], &gzip[10..]].concat()
}

/// A stream that was flushed and never closed.
fn flushed(text: &[u8]) -> Vec<u8> {
    let mut gzip = coded("gzip", text);
    gzip[10] = 0;
    gzip.truncate(gzip.len() - 8);
    [&gzip[..], &[0, 0, 0, 0xff, 0xff]].concat()
}

/// The decoder holds back what does not fit, also when all of the input was read.
#[tokio::test]
async fn long_bodies_whose_streams_do_not_end_are_whole() {
    use std::io::Write;

    for length in (5_000..160_000).step_by(7_919) {
        let words = (0_u32..).flat_map(|n| format!("<p>{} ", n.wrapping_mul(2_654_435_761)).into_bytes());
        let text: Vec<u8> = b"<!doctype html>".iter().copied().chain(words).take(length).collect();
        let level = flate2::Compression::default();
        let mut coder = flate2::write::DeflateEncoder::new(vec![], level);
        let bare = coder.write_all(&text).and_then(|()| coder.finish()).expect("into memory");
        let mut coder = flate2::write::GzEncoder::new(vec![], level);
        coder.write_all(&text).and_then(|()| coder.flush()).expect("into memory");
        let flushed = coder.get_ref().clone();
        let gzip = coder.finish().expect("into memory");
        let cases = [
            ("deflate", [&[0x78, 0x9c], &bare[..]].concat()),
            ("deflate", bare),
            ("gzip", gzip[..gzip.len() - 8].to_vec()),
            ("gzip", flushed),
        ];
        for (n, (coding, body)) in cases.into_iter().enumerate() {
            let head = format!("Content-Encoding: {coding}\r\n");
            let got = read(response(200, &head, &body), Want::Page).await;
            let got = got.unwrap_or_else(|fault| panic!("case {n} of {length} bytes: {fault}"));
            assert!(got.body == text, "case {n}: {} of {length} bytes", got.body.len());
        }
    }
}

#[tokio::test]
async fn content_codings_are_what_the_bytes_say() {
    let chain = |codings: &[&str], text: &[u8]| codings.iter().fold(text.to_vec(), |text, coding| coded(coding, &text));
    for text in [PAGE, PICTURE] {
        let (gzip, deflate, zstd, br) =
            (coded("gzip", text), coded("deflate", text), coded("zstd", text), coded("br", text));
        let with = |bytes: &[u8], tail: &[u8]| [bytes, tail].concat();
        let cases = [
            // Words that are no coding.
            ("none", text.to_vec()),
            ("UTF-8", text.to_vec()),
            ("binary", text.to_vec()),
            ("identity, identity", text.to_vec()),
            ("", text.to_vec()),
            (" , ,", text.to_vec()),
            ("aws-chunked", text.to_vec()),
            ("8bit;q=1", text.to_vec()),
            ("compress", text.to_vec()),
            ("\u{fc}ber", text.to_vec()),
            // Lists, and words among codings.
            ("gzip, none", gzip.clone()),
            ("aws-chunked,gzip", gzip.clone()),
            ("utf-8 gzip", gzip.clone()),
            ("GZIP", gzip.clone()),
            ("X-GZip", gzip.clone()),
            ("\"gzip\"", gzip.clone()),
            ("gzip, gzip", chain(&["gzip", "gzip"], text)),
            ("deflate, br, gzip, zstd", chain(&["deflate", "br", "gzip", "zstd"], text)),
            ("gzip\r\nContent-Encoding: br", chain(&["gzip", "br"], text)),
            ("gzip\r\nTransfer-Encoding: gzip", chain(&["gzip", "gzip"], text)),
            // Stated and not applied, or another.
            ("gzip", text.to_vec()),
            ("deflate", text.to_vec()),
            ("br", text.to_vec()),
            ("zstd", text.to_vec()),
            ("gzip, gzip", gzip.clone()),
            ("gzip, gzip", text.to_vec()),
            ("br", gzip.clone()),
            ("deflate", gzip.clone()),
            ("zstd", gzip.clone()),
            ("gzip", deflate.clone()),
            ("gzip", zstd.clone()),
            ("br", zstd.clone()),
            // Forms and tails.
            ("deflate", bare(text)),
            ("deflate", with(&bare(text), b"and more")),
            ("deflate", deflate[..deflate.len() - 4].to_vec()),
            ("deflate", deflate[..deflate.len() - 2].to_vec()),
            ("deflate", with(&deflate, &[0; 9])),
            ("gzip", decorated(text)),
            ("gzip", gzip[..gzip.len() - 8].to_vec()),
            ("gzip", gzip[..gzip.len() - 3].to_vec()),
            ("gzip", with(&gzip, &[0; 100])),
            ("gzip", with(&gzip, b"<!-- served by -->")),
            ("gzip", with(&gzip, &[0x1f, 0x8b])),
            ("gzip", flushed(text)),
            ("br", with(&br, b"\0\0")),
            ("br", br.clone()),
            ("zstd", zstd.clone()),
        ];
        for (coding, body) in cases {
            let bytes = response(200, &format!("Content-Encoding: {coding}\r\n"), &body);
            for want in [Want::Page, Want::Image] {
                let got = read(bytes.clone(), want).await.unwrap_or_else(|fault| panic!("{coding} {body:?}: {fault}"));
                assert_eq!(got.body, text, "{coding} {body:?}");
            }
        }
    }
    // What a decoder keeps in memory is bounded, whatever is announced: a window of 128 MiB, three codings with windows, and brotli of
    // a window of 16 MiB and no data in the spelling of "large window brotli", which allows a GiB.
    let wide = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x88][..], &coded("zstd", PAGE)[6..]].concat();
    for (coding, body) in
        [("zstd", wide), ("br", vec![0x11, 0xd8]), ("br, zstd, br", chain(&["br", "zstd", "br"], PAGE))]
    {
        let got = read(response(200, &format!("Content-Encoding: {coding}\r\n"), &body), Want::Page).await;
        assert!(got.is_err(), "{coding}");
    }
    let members = [coded("gzip", PAGE), decorated(b"x"), coded("gzip", b"y")].concat();
    let got = read(response(200, "Content-Encoding: gzip\r\n", &members), Want::Image).await.expect("three members");
    assert_eq!(got.body, [PAGE, b"xy"].concat());
    let frames = [coded("zstd", PAGE), coded("zstd", b"x")].concat();
    let got = read(response(200, "Content-Encoding: zstd\r\n", &frames), Want::Image).await.expect("two frames");
    assert_eq!(got.body, [PAGE, b"x"].concat());
    for coding in ["gzip", "br", "deflate", "zstd", "none"] {
        let empty = response(200, &format!("Content-Encoding: {coding}\r\n"), b"");
        assert!(read(empty, Want::Page).await.expect("an empty body").body.is_empty(), "{coding}");
    }
}

#[tokio::test]
async fn coded_bodies_that_break_off_are_no_answer() {
    let gzip = coded("gzip", PAGE);
    let damaged = |at: usize| [&gzip[..at], &[gzip[at] ^ 1], &gzip[at + 1..]].concat();
    let cases = [
        ("gzip", gzip[..gzip.len() - 9].to_vec(), "body_truncated"),
        ("gzip", gzip[..5].to_vec(), "body_truncated"),
        ("gzip", gzip[..1].to_vec(), "body_truncated"),
        ("gzip", [&gzip[..], &gzip[..20]].concat(), "body_truncated"),
        ("deflate", bare(PAGE)[..20].to_vec(), "body_truncated"),
        ("deflate", coded("deflate", PAGE)[..20].to_vec(), "body_truncated"),
        ("br", coded("br", PAGE)[..20].to_vec(), "body_truncated"),
        ("zstd", coded("zstd", PAGE)[..20].to_vec(), "body_truncated"),
        ("gzip", damaged(gzip.len() - 8), "bad_encoding"),
        ("gzip", damaged(gzip.len() - 1), "bad_encoding"),
        ("gzip", damaged(20), "bad_encoding"),
        ("gzip", vec![0, 1, 2, 3], "bad_encoding"),
    ];
    for (coding, body, reason) in cases {
        let bytes = response(200, &format!("Content-Encoding: {coding}\r\n"), &body);
        assert_fault(read(bytes, Want::Image).await, Class::Protocol, reason, false);
    }
    let unframed = [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", &flushed(PAGE)[..]].concat();
    assert_fault(read(unframed, Want::Page).await, Class::Protocol, "body_truncated", false);
    for (coding, body) in [("compress", &b"\x1f\x9d\x90\0\x01\x02"[..]), ("sdch", b"\0\x01\x02")] {
        let bytes = response(200, &format!("Content-Encoding: {coding}\r\n"), body);
        assert_fault(read(bytes, Want::Page).await, Class::Content, "content_encoding", true);
    }
    let many = response(200, "Content-Encoding: gzip, gzip, gzip, gzip, gzip, gzip\r\n", PAGE);
    assert_fault(read(many, Want::Page).await, Class::Content, "content_encoding", true);
}

#[tokio::test]
async fn header_lines_that_are_none_are_passed_over() {
    let length = format!("Content-Length: {}", PAGE.len());
    let lines = [
        "X-Thing : 1",
        "PHP Warning:  Module 'gd' already loaded in Unknown on line 0",
        "X-Powered-By: one,\r\n two",
        "X-Powered-By: one,\r\n\ttwo\r\n  three",
        "X-Empty:\r\n folded",
        "X-Author: J\u{fc}rgen",
        "this line is no header",
        ": no name",
        "=: odd",
        "X-\u{fc}: odd",
        "X[1]: brackets",
        "X-Control: a\x01b",
        "X-Empty:",
        "<!-- a comment -->",
        "HTTP/1.1 200 OK",
    ];
    for line in lines {
        for bytes in [
            format!("HTTP/1.1 200 OK\r\n{line}\r\n{length}\r\nX-Robots-Tag: all\r\n\r\n"),
            format!("HTTP/1.1 200 OK\r\n{length}\r\nX-Robots-Tag: all\r\n{line}\r\n\r\n").replace("\r\n", "\n"),
        ] {
            // Latin-1, as it is sent.
            let head: Vec<u8> = bytes.chars().map(|char| char as u8).collect();
            let got = read([&head[..], PAGE].concat(), Want::Page).await;
            let got = got.unwrap_or_else(|fault| panic!("{line:?}: {fault}"));
            assert_eq!((&got.body[..], got.header("x-robots-tag")), (PAGE, Some("all")), "{line:?}");
        }
    }
    let early = format!("HTTP/1.1 200 OK\r\n folded onto nothing\r\n{length}\r\n\r\n");
    assert_eq!(read([early.as_bytes(), PAGE].concat(), Want::Page).await.expect("a page").body, PAGE);
    for status in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 200 OK", "HTTP/1.1 200 D'accord \u{e9}"] {
        let head: Vec<u8> = format!("{status}\r\n{length}\r\n\r\n").chars().map(|char| char as u8).collect();
        let got = read([&head[..], PAGE].concat(), Want::Page).await;
        assert_eq!(got.unwrap_or_else(|fault| panic!("{status:?}: {fault}")).body, PAGE, "{status:?}");
    }
}

#[tokio::test]
async fn a_location_may_hold_any_bytes() {
    let server = Server::paths(|path| match path {
        "/utf8" => moved("/m\u{fc}nchen?x=\u{fc}"),
        "/latin1" => Reply::Bytes(response(302, "", b"")).with_location(b"/m\xfcnchen?x=\xfc"),
        "/blanks" => moved(" /a b\t"),
        "/slashes" => moved("\\c"),
        path => ok(path),
    })
    .await;
    let client = client(|_| ());
    for (path, end) in [
        ("/utf8", "/m%C3%BCnchen?x=%C3%BC"),
        ("/latin1", "/m%FCnchen?x=%FC"),
        ("/blanks", "/a%20b"),
        ("/slashes", "/c"),
    ] {
        assert_eq!(page(&client, &server.url(path)).await.expect(path).body, end, "{path}");
    }
}

impl Reply {
    /// The same with a `Location` of these bytes.
    fn with_location(self, location: &[u8]) -> Self {
        let Self::Bytes(bytes) = self else { panic!("bytes are written") };
        let (status, rest) = bytes.split_at(bytes.windows(2).position(|end| end == b"\r\n").expect("a line") + 2);
        Self::Bytes([status, b"Location: ", location, b"\r\n", rest].concat())
    }
}

/// What a server of doors says: each lets through who brings what it asks for.
fn door(head: &str, before: usize) -> Reply {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let brings = |cookie: &str| {
        let lines =
            head.lines().filter_map(|line| line.to_ascii_lowercase().strip_prefix("cookie: ").map(str::to_owned));
        lines.flat_map(|line| line.split("; ").map(str::to_owned).collect::<Vec<_>>()).any(|one| one == cookie)
    };
    let set = |to: &str, cookie: &str| {
        Reply::Bytes(response(302, &format!("Location: {to}\r\nSet-Cookie: {cookie}\r\n"), b""))
    };
    match path {
        "/once" if before == 0 => moved("/once"),
        "/thrice" if before < 3 => moved("/thrice"),
        "/cookie" if !brings("seen=1") => set("/cookie", "seen=1; Path=/"),
        "/via" if !brings("via=1") => moved("/set?back=/via"),
        "/set?back=/via" => set("/via", "via=1; Path=/; HttpOnly"),
        "/two" if !brings("a=1") => set("/two", "a=1"),
        "/two" if !brings("b=1") => set("/two", "b=1"),
        "/robots.txt" if !brings("r=1") => set("/robots.txt", "r=1"),
        "/robots.txt" => ok("User-agent: *\nDisallow: /no"),
        "/loop" => moved("/loop"),
        path => ok(path),
    }
}

#[tokio::test]
async fn a_site_may_send_back_to_where_one_was() {
    for path in ["/once", "/thrice", "/cookie", "/via", "/two"] {
        let server = Server::heads_start(door).await;
        assert_eq!(page(&client(|_| ()), &server.url(path)).await.expect(path).body, path);
    }
    let server = Server::heads_start(door).await;
    let polite = client(|settings| settings.respect_robots = true);
    assert!(page(&polite, &server.url("/yes")).await.is_ok());
    assert_fault(page(&polite, &server.url("/no")).await, Class::Policy, "robots", true);
    assert_fault(page(&polite, &server.url("/loop")).await, Class::Refused, "redirect_loop", true);
    let asked = server.asked().iter().filter(|path| *path == "/loop").count();
    assert_eq!(asked, 4, "the same request is not made for ever");
    let again = page(&polite, &server.url("/cookie")).await.expect("an answer");
    assert_eq!(again.body, "/cookie");
    let heads = server.heads();
    assert!(!heads[heads.len() - 2].to_ascii_lowercase().contains("cookie:"), "nothing is remembered: {heads:?}");
}

#[tokio::test]
async fn cookies_stay_with_their_host() {
    let other = Server::always(ok("there")).await;
    let target = other.url("/").to_string().replace("127.0.0.1", "localhost");
    let server = Server::start(move |_, _| {
        let reply = response(302, &format!("Location: {target}\r\nSet-Cookie: a=1; Path=/; Domain=localhost\r\n"), b"");
        async move { Reply::Bytes(reply) }
    })
    .await;
    assert_eq!(page(&client(|_| ()), &server.url("/")).await.expect("an answer").body, "there");
    assert!(!other.heads().join("").to_ascii_lowercase().contains("cookie"));
}

#[tokio::test]
async fn a_part_that_nobody_asked_for_is_not_the_whole() {
    let length = PAGE.len();
    let part = |range: &str| response(206, range, PAGE);
    for range in [
        format!("Content-Range: bytes 0-{}/{}\r\n", length - 1, 2 * length),
        format!("Content-Range: bytes 1-{length}/{}\r\n", length + 1),
        format!("Content-Range: bytes 0-{}/*\r\n", length - 1),
        format!("Content-Range: bytes 0-{}/{}\r\n", 2 * length - 1, 2 * length),
        "Content-Range: nonsense\r\n".to_owned(),
        "Content-Type: multipart/byteranges; boundary=x\r\n".to_owned(),
        String::new(),
    ] {
        for want in [Want::Page, Want::Image] {
            assert_fault(read(part(&range), want).await, Class::Protocol, "partial_content", false);
        }
    }
    let whole = part(&format!("Content-Range: bytes 0-{}/{length}\r\n", length - 1));
    assert_eq!(read(whole, Want::Page).await.expect("the whole").body, PAGE);
}

#[tokio::test]
async fn a_robots_txt_is_read_however_it_is_served() {
    let rules = b"User-agent: *\r\nDisallow: /no\r\n";
    let wide: Vec<u8> = "\u{feff}User-agent: *\nDisallow: /no\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let gzip = coded("gzip", rules);
    for (headers, body) in [
        ("Content-Type: text/html\r\n", rules.to_vec()),
        ("Content-Type: image/png\r\n", rules.to_vec()),
        ("", gzip.clone()),
        ("Content-Type: text/plain\r\nContent-Encoding: gzip\r\n", gzip.clone()),
        ("Content-Encoding: gzip\r\n", rules.to_vec()),
        ("Content-Encoding: gzip\r\n", gzip[..gzip.len() - 8].to_vec()),
        ("Content-Encoding: br\r\n", gzip.clone()),
        ("Content-Encoding: deflate\r\n", bare(rules)),
        ("Content-Encoding: none\r\nX-Thing : 1\r\n", rules.to_vec()),
        ("Content-Encoding: gzip\r\n", coded("gzip", &gzip)),
        ("", [b"\xef\xbb\xbf", &rules[..]].concat()),
        ("", String::from_utf8_lossy(rules).replace("\r\n", "\r").into_bytes()),
        ("", wide),
    ] {
        let reply = Reply::Bytes(response(200, headers, &body));
        let server = Server::start(move |path, _| {
            let reply = if path == "/robots.txt" { reply.clone() } else { ok(&path) };
            async move { reply }
        })
        .await;
        let polite = client(|settings| settings.respect_robots = true);
        assert_fault(page(&polite, &server.url("/no")).await, Class::Policy, "robots", true);
        assert!(page(&polite, &server.url("/yes")).await.is_ok(), "{headers:?}");
    }
    for bytes in [
        response(206, "Content-Range: bytes 0-9/99\r\n", &rules[..10]),
        response(200, "Content-Encoding: gzip\r\n", &gzip[..20]),
        response(200, "", &gzip[..20]),
    ] {
        let server = Server::always(Reply::Bytes(bytes)).await;
        let polite = client(|settings| settings.respect_robots = true);
        assert_fault(page(&polite, &server.url("/")).await, Class::Protocol, "robots_unreachable", false);
    }
}
