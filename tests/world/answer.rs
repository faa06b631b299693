//! Answers: what a path says, byte by byte.
//!
//! An [`Answer`] is an honest HTTP message until one of its methods makes it lie or stop. Promise: what goes over the
//! wire is exactly head and body as documented here, and a connection is kept open unless the answer says otherwise.

use std::time::Duration;

use bytes::Bytes;

use super::script::Prepared;

/// One answer to one request.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    content_type: Option<String>,
    headers: Vec<(String, String)>,
    body: Bytes,
    length: Length,
    delivery: Delivery,
    delay: Duration,
    verbatim: bool,
}

/// What the head says about the length of the body.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Length {
    True,
    DispatchReply(usize),
    Chunked,
    Untold,
}

/// How the body is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Delivery {
    /// At once; the connection stays open.
    Whole,
    /// At once; then the connection is closed.
    Closing,
    /// So many bytes at each tick.
    Drip { bytes: usize, tick: Duration },
    /// So many bytes, then the connection is closed, or reset.
    Cut { after: usize, reset: bool },
    /// Over and over again until the client leaves.
    Endless,
    /// Not at all: silence until the client leaves.
    Never,
}

impl Answer {
    /// `200 OK` with this body.
    pub fn ok(content_type: &str, body: impl Into<Bytes>) -> Self {
        Self { content_type: Some(content_type.to_owned()), body: body.into(), ..Self::status(200) }
    }

    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            content_type: None,
            headers: vec![],
            body: Bytes::new(),
            length: Length::True,
            delivery: Delivery::Whole,
            delay: Duration::ZERO,
            verbatim: false,
        }
    }

    /// `302 Found` to an absolute or relative URL.
    pub fn redirect(to: &str) -> Self {
        Self::redirect_as(302, to)
    }

    /// A redirect with this status.
    pub fn redirect_as(status: u16, to: &str) -> Self {
        Self::status(status).header("Location", to)
    }

    /// `200 OK` with a chunked body, honest.
    pub fn chunked(content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut chunks = Vec::new();
        for chunk in body.into().chunks(1_000) {
            chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunks.extend_from_slice(chunk);
            chunks.extend_from_slice(b"\r\n");
        }
        chunks.extend_from_slice(b"0\r\n\r\n");
        Self { length: Length::Chunked, ..Self::ok(content_type, chunks) }
    }

    /// A chunked body whose second chunk has no length.
    pub fn broken_chunks(content_type: &str) -> Self {
        let body = Bytes::from_static(b"4\r\nwell\r\nnonsense\r\nno chunk at all\r\n");
        Self { length: Length::Chunked, delivery: Delivery::Closing, ..Self::ok(content_type, body) }
    }

    /// `200 OK` with a body in gzip, honest.
    pub fn gzip(content_type: &str, body: &[u8]) -> Self {
        Self::ok(content_type, super::nasty::gzip(body)).header("Content-Encoding", "gzip")
    }

    /// `200 OK` with zeros that gzip has made about 160 times smaller: `megabytes` of them once decompressed.
    pub fn gzip_bomb(content_type: &str, megabytes: usize) -> Self {
        Self::ok(content_type, super::nasty::gzip_bomb(megabytes << 20)).header("Content-Encoding", "gzip")
    }

    /// A body that never ends, without a length.
    pub fn endless(content_type: &str) -> Self {
        let body = Bytes::from(vec![b'.'; 64 << 10]);
        Self { length: Length::Untold, delivery: Delivery::Endless, ..Self::ok(content_type, body) }
    }

    /// Exactly these bytes instead of an HTTP message; then the connection is closed.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { verbatim: true, body: bytes.into(), delivery: Delivery::Closing, ..Self::status(200) }
    }

    /// A text that has no status line.
    pub fn no_status_line() -> Self {
        Self::raw("<html>this server speaks no HTTP</html>\r\n\r\n")
    }

    /// Accepts the request and says nothing.
    pub fn silent() -> Self {
        Self { verbatim: true, delivery: Delivery::Never, ..Self::status(200) }
    }

    /// A complete head that promises 1,000 bytes, then silence.
    pub fn idle_after_headers(content_type: &str) -> Self {
        Self { length: Length::DispatchReply(1_000), delivery: Delivery::Never, ..Self::ok(content_type, Bytes::new()) }
    }

    /// An honest answer with one header of so many bytes.
    pub fn huge_header(bytes: usize) -> Self {
        Self::ok("text/html", "huge").header("X-Huge", &"h".repeat(bytes))
    }

    /// An honest answer with so many headers.
    pub fn many_headers(count: usize) -> Self {
        (0..count).fold(Self::ok("text/html", "many"), |answer, n| answer.header(&format!("X-Number-{n}"), "1"))
    }

    /// One more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits before the first byte.
    pub fn delayed(self, delay_ms: u64) -> Self {
        Self { delay: Duration::from_millis(delay_ms), ..self }
    }

    /// Sends `bytes` of the body each `tick_ms`.
    pub fn drip(self, bytes: usize, tick_ms: u64) -> Self {
        Self { delivery: Delivery::Drip { bytes, tick: Duration::from_millis(tick_ms) }, ..self }
    }

    /// Closes the connection after so many bytes of the body.
    pub fn drop_mid_body(self, after: usize) -> Self {
        Self { delivery: Delivery::Cut { after, reset: false }, ..self }
    }

    /// Resets the connection after so many bytes of the body.
    pub fn reset_mid_body(self, after: usize) -> Self {
        Self { delivery: Delivery::Cut { after, reset: true }, ..self }
    }

    /// Declares another type than the body has.
    pub fn lie_type(self, content_type: &str) -> Self {
        Self { content_type: Some(content_type.to_owned()), ..self }
    }

    /// Declares another length than the body has. Where too much is promised, the connection is closed after the body.
    pub fn lie_length(self, bytes: usize) -> Self {
        let delivery = if bytes > self.body.len() { Delivery::Closing } else { self.delivery };
        Self { length: Length::DispatchReply(bytes), delivery, ..self }
    }

    /// The bytes to send.
    pub(super) fn prepare(self) -> Prepared {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let mut line = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
        if let Some(content_type) = &self.content_type {
            line("Content-Type", content_type);
        }
        match self.length {
            Length::True => line("Content-Length", &self.body.len().to_string()),
            Length::DispatchReply(bytes) => line("Content-Length", &bytes.to_string()),
            Length::Chunked => line("Transfer-Encoding", "chunked"),
            Length::Untold => line("Connection", "close"),
        }
        self.headers.iter().for_each(|(name, value)| line(name, value));
        head.push_str("\r\n");
        let head = if self.verbatim { Bytes::new() } else { Bytes::from(head) };
        Prepared { head, body: self.body, delivery: self.delivery, delay: self.delay }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        404 => "Not Found",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "ScriptedDetector",
    }
}
