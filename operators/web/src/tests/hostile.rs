//! Servers that break the rules, by accident or on purpose.

use std::time::Duration;

use super::server::{Reply, Server, ok, response};
use super::*;

fn head(headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes()
}

fn with(mut bytes: Vec<u8>, more: &[u8]) -> Vec<u8> {
    bytes.extend_from_slice(more);
    bytes
}

/// Asks a server that always does this, with small limits.
async fn ask(reply: Reply) -> Result<Response, Fault> {
    let server = Server::always(reply).await;
    let client = client(|settings| {
        settings.read_timeout_ms = 700;
        settings.total_timeout_ms = 2_000;
        settings.page_max_bytes = 1 << 20;
    });
    tokio::time::timeout(Duration::from_secs(20), page(&client, &server.url("/")))
        .await
        .expect("the client's own limits")
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_body() {
    let cut = |bytes: Vec<u8>| async {
        assert_fault(ask(Reply::Close(bytes)).await, Class::Protocol, "body_truncated", false)
    };
    cut(with(head("Content-Length: 100\r\n"), b"only this")).await;
    cut(with(head("Transfer-Encoding: chunked\r\n"), b"5\r\nhello\r\n")).await;
    cut(with(head("Transfer-Encoding: chunked\r\n"), b"5\r\nhel")).await;
    cut(with(head("Transfer-Encoding: chunked\r\n"), b"zz\r\nhello\r\n0\r\n\r\n")).await;
    cut(with(head("Content-Encoding: gzip\r\nContent-Length: 100\r\n"), &[0x1f, 0x8b, 8, 0, 0])).await;
}

#[tokio::test]
async fn a_body_ends_where_its_length_says() {
    let response = ask(Reply::Close(with(head("Content-Length: 5\r\n"), b"hello and more"))).await.expect("an answer");
    assert_eq!(response.body, "hello");
}

#[tokio::test]
async fn a_body_without_length_ends_with_the_connection() {
    assert_eq!(ask(Reply::Close(with(head(""), b"hello"))).await.expect("an answer").body, "hello");
}

#[tokio::test]
async fn contradictions_and_garbage_are_no_answer() {
    let bad =
        |bytes: Vec<u8>| async { assert_fault(ask(Reply::Close(bytes)).await, Class::Protocol, "bad_response", false) };
    bad(b"hello, I am no HTTP server\r\n\r\n".to_vec()).await;
    bad(b"<html>no status line</html>".to_vec()).await;
    bad(b"HTTP/1.1 2000 OK\r\n\r\n".to_vec()).await;
    bad(with(head("Content-Length: 5\r\nContent-Length: 6\r\n"), b"hello!")).await;
    bad(with(head("Content-Length: -5\r\n"), b"hello")).await;
    bad(with(head("Content-Length: many\r\n"), b"hello")).await;
    bad(vec![]).await;
    bad(vec![0; 100_000]).await;
}

#[tokio::test]
async fn headers_have_limits() {
    let large = head(&format!("X-Large: {}\r\nContent-Length: 0\r\n", "a".repeat(64 << 10)));
    assert_fault(ask(Reply::Bytes(large)).await, Class::Protocol, "bad_response", false);
    let many: String = (0..10_000).map(|n| format!("X-{n}: a\r\n")).collect();
    assert_fault(ask(Reply::Bytes(head(&many))).await, Class::Protocol, "bad_response", false);
    let endless = Reply::Repeat(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-More: and more\r\n".repeat(1_000), Duration::ZERO);
    assert_fault(ask(endless).await, Class::Protocol, "bad_response", false);
    let some: String = (0..50).map(|n| format!("X-{n}: {}\r\n", "a".repeat(200))).collect();
    assert!(ask(Reply::Bytes(head(&format!("{some}Content-Length: 0\r\n")))).await.is_ok(), "10 KB are usual");
}

#[tokio::test]
async fn silence_ends_at_the_read_deadline() {
    let fault = assert_fault(ask(Reply::Hang(head("Content-Length: 5\r\n"))).await, Class::Timeout, "timeout", false);
    assert!(fault.detail.contains("700 ms"), "{}", fault.detail);
    assert_fault(
        ask(Reply::Hang(with(head("Content-Length: 9\r\n"), b"hello"))).await,
        Class::Timeout,
        "timeout",
        false,
    );
    let fault = assert_fault(ask(Reply::Hang(vec![])).await, Class::Timeout, "timeout", false);
    assert!(fault.detail.contains("2000 ms"), "the total deadline is the shorter one here: {}", fault.detail);
}

#[tokio::test]
async fn a_drip_ends_at_the_total_deadline() {
    let drip = Reply::Repeat(head("Content-Length: 1000000\r\n"), b"a".to_vec(), Duration::from_millis(50));
    let fault = assert_fault(ask(drip).await, Class::Timeout, "timeout", false);
    assert!(fault.detail.contains("2000 ms"), "{}", fault.detail);
    let headers = Reply::Repeat(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-A: b\r\n".to_vec(), Duration::from_millis(50));
    assert_fault(ask(headers).await, Class::Timeout, "timeout", false);
}

#[tokio::test]
async fn endless_and_oversized_bodies_end_at_the_limit() {
    let endless = Reply::Repeat(head(""), vec![b'a'; 64 << 10], Duration::ZERO);
    assert_fault(ask(endless).await, Class::Policy, "too_large", true);
    let announced = Reply::Hang(head("Content-Length: 10000000\r\n"));
    let fault = assert_fault(ask(announced).await, Class::Policy, "too_large", true);
    assert!(fault.detail.contains("10000000"), "refused by its length alone: {}", fault.detail);
    let chunks = with(b"10000\r\n".to_vec(), &with(vec![b'a'; 0x10000], b"\r\n"));
    let chunked = Reply::Repeat(head("Transfer-Encoding: chunked\r\n"), chunks, Duration::ZERO);
    assert_fault(ask(chunked).await, Class::Policy, "too_large", true);
    let exact = ask(Reply::Bytes(response(200, "", &vec![b'a'; 1 << 20]))).await.expect("as much as is allowed");
    assert_eq!(exact.body.len(), 1 << 20);
    assert_fault(
        ask(Reply::Bytes(response(200, "", &vec![b'a'; (1 << 20) + 1]))).await,
        Class::Policy,
        "too_large",
        true,
    );
}

/// 100 MB of zeros in 630 KB: one literal, then copies of 258 bytes from one byte back, in the fixed Huffman code.
fn gzip_bomb() -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (mut bits, mut count) = (0_u64, 0);
    // A final block of type 1; literal 0; then length code 285 and distance code 0. Codes go in most significant bit first.
    let literal = ["1", "10", "00110000"].concat();
    for bit in literal.bytes().chain("1100010100000".bytes().cycle().take(13 * 390_000)).chain("0000000".bytes()) {
        bits |= u64::from(bit - b'0') << count;
        count += 1;
        if count == 8 {
            bytes.push(bits as u8);
            (bits, count) = (0, 0);
        }
    }
    bytes
}

/// 125 MB of zeros in 4 KB: blocks of one repeated byte.
fn zstd_bomb() -> Vec<u8> {
    let block = ((128_u32 << 10) << 3 | 1 << 1).to_le_bytes();
    let blocks = [block[0], block[1], block[2], 0].repeat(1_000);
    with(vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38], &blocks)
}

#[tokio::test]
async fn bombs_end_at_the_limit() {
    for (coding, bomb) in [("gzip", gzip_bomb()), ("zstd", zstd_bomb())] {
        assert!(bomb.len() < 1 << 20, "its Content-Length is harmless");
        let reply = Reply::Bytes(response(200, &format!("Content-Encoding: {coding}\r\n"), &bomb));
        assert_fault(ask(reply).await, Class::Policy, "too_large", true);
    }
}

#[tokio::test]
async fn the_message_of_a_limit_names_its_key() {
    let server = Server::start(|path, _| async move {
        let kind = path.trim_start_matches('/').replace('.', "/");
        Reply::Bytes(response(200, &format!("Content-Type: {kind}\r\n"), &vec![b' '; 3_000]))
    })
    .await;
    let client = client(|settings| (settings.page_max_bytes, settings.feed_max_bytes) = (1_000, 2_000));
    for (path, key) in [("/text.html", "1000 (fetch.page_max_bytes)"), ("/text.xml", "2000 (fetch.feed_max_bytes)")] {
        let fault = assert_fault(page(&client, &server.url(path)).await, Class::Policy, "too_large", true);
        assert!(fault.detail.ends_with(key), "{}", fault.detail);
    }
}

#[tokio::test]
async fn a_bomb_in_a_gzip_file_ends_at_the_limit_of_feeds() {
    let server = Server::always(Reply::Bytes(response(200, "Content-Type: text/html\r\n", &gzip_bomb()))).await;
    let client = client(|settings| (settings.page_max_bytes, settings.feed_max_bytes) = (1 << 20, 2 << 20));
    let fault = assert_fault(page(&client, &server.url("/")).await, Class::Policy, "too_large", true);
    assert!(fault.detail.contains("2097152 (fetch.feed_max_bytes)"), "{}", fault.detail);
    let nothing = Reply::Repeat(
        with(head("Content-Type: text/xml\r\n"), &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]),
        [0, 0, 0, 255, 255].repeat(10_000),
        Duration::ZERO,
    );
    let server = Server::always(nothing).await;
    let fault = assert_fault(page(&client, &server.url("/")).await, Class::Policy, "too_large", true);
    assert!(fault.detail.contains("still coded"), "{}", fault.detail);
}

#[tokio::test]
async fn a_coded_body_that_decodes_to_nothing_ends_at_the_limit() {
    let gzip = with(head("Content-Encoding: gzip\r\n"), &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    let nothing = [0, 0, 0, 255, 255].repeat(10_000);
    let fault = assert_fault(ask(Reply::Repeat(gzip, nothing, Duration::ZERO)).await, Class::Policy, "too_large", true);
    assert!(fault.detail.contains("still coded"), "{}", fault.detail);
}

#[tokio::test]
async fn a_stale_connection_is_replaced() {
    // The server closes every connection after its answer, without saying so.
    let server = Server::start(|_, _| async {
        let Reply::Bytes(bytes) = ok("again") else { unreachable!("ok writes bytes") };
        Reply::Close(bytes)
    })
    .await;
    let client = client(|_| ());
    for _ in 0..20 {
        assert_eq!(page(&client, &server.url("/")).await.expect("an answer").body, "again");
    }
}
