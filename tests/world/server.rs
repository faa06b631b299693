//! The servers: HTTP/1.1 written by hand, so that they can break it wherever a script says.
//!
//! Each [`Site`] listens on a loopback address of its own (127.0.0.2, 127.0.0.3, …), so that sites are different hosts.
//! (Linux answers on all of 127.0.0.0/8; elsewhere the addresses need an alias.) Promise: the servers run on a thread of
//! their own, so a test may block or pause its own time, and they all end with the [`World`].

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use super::answer::Answer;
use super::log::{Log, Request};
use super::script::{Prepared, Script, ScriptedDetector};

/// A larger request head ends the connection, in bytes.
const HEAD_MAX: usize = 1 << 20;

/// A web of scripted sites, with its log.
pub struct World {
    runtime: Option<Runtime>,
    log: Log,
    next_host: AtomicU32,
    connections: Arc<AtomicU64>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A web without sites.
    pub fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("world").enable_all().build();
        let runtime = Some(runtime.expect("a runtime for the servers"));
        Self { runtime, log: Log::new(), next_host: AtomicU32::new(2), connections: Arc::default() }
    }

    /// A new site at the next loopback address.
    pub fn site(&self) -> Site {
        let next = self.next_host.fetch_add(1, Ordering::Relaxed);
        self.open(Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() + next))
    }

    /// A new site at the address of `other`, on another port.
    pub fn site_beside(&self, other: &Site) -> Site {
        self.open(other.0.address)
    }

    /// Everything that was asked for.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Prints the origin of each site and serves until standard input ends: a web to look at from outside.
    pub fn serve_until_stdin_closes(&self, sites: &[Site]) {
        sites.iter().for_each(|site| println!("{}/", site.origin()));
        io::copy(&mut io::stdin(), &mut io::sink()).expect("standard input can be read");
    }

    fn open(&self, address: Ipv4Addr) -> Site {
        let runtime = self.runtime.as_ref().expect("the runtime lives as long as the world");
        let listener = std::net::TcpListener::bind((address, 0));
        let listener = listener.unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
        listener.set_nonblocking(true).expect("a listener that does not block");
        let host = listener.local_addr().expect("a bound listener has an address").to_string();
        let site =
            Site(Arc::new(Inner { origin: format!("http://{host}"), host, address, scripts: RwLock::default() }));
        let (visited, log, connections) = (site.clone(), self.log.clone(), Arc::clone(&self.connections));
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener on the runtime");
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let visit = Visit {
                    site: visited.clone(),
                    log: log.clone(),
                    number: connections.fetch_add(1, Ordering::Relaxed),
                };
                // A connection ends in an error whenever a client leaves in the middle; the log has what it asked.
                tokio::runtime::Handle::current().spawn(async move { visit.converse(stream).await.ok() });
            }
        });
        site
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Not by waiting, which is not allowed where a test is async.
        self.runtime.take().expect("dropped once").shutdown_background();
    }
}

/// One scripted server. Clones are the same server. A path without a script is a 404.
#[derive(Clone)]
pub struct Site(Arc<Inner>);

struct Inner {
    origin: String,
    host: String,
    address: Ipv4Addr,
    scripts: RwLock<HashMap<String, Arc<ScriptedDetector>>>,
}

impl Site {
    /// `http://127.0.0.2:4711`
    pub fn origin(&self) -> &str {
        &self.0.origin
    }

    /// `127.0.0.2:4711`
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The absolute URL of a path on this site.
    pub fn url(&self, path: &str) -> String {
        assert!(path.starts_with('/'), "{path:?} does not start with a slash");
        format!("{}{path}", self.0.origin)
    }

    /// Sets what a path answers from now on, with or without a query; a path without one answers for every query
    /// that has no script of its own.
    pub fn put(&self, path: &str, script: impl Into<Script>) -> &Self {
        let scripted = Arc::new(ScriptedDetector::new(script.into()));
        assert!(path.starts_with('/'), "{path:?} does not start with a slash");
        self.0.scripts.write().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), scripted);
        self
    }

    /// An HTML page.
    pub fn page(&self, path: &str, html: impl Into<String>) -> &Self {
        self.put(path, Answer::ok("text/html; charset=utf-8", html.into()))
    }

    /// A picture, declared as what its bytes are.
    pub fn image(&self, path: &str, bytes: impl Into<Bytes>) -> &Self {
        let bytes = bytes.into();
        self.put(path, Answer::ok(super::encode::media_type(&bytes), bytes))
    }

    /// The text of /robots.txt.
    pub fn robots(&self, text: &str) -> &Self {
        self.put("/robots.txt", Answer::ok("text/plain", text.to_owned()))
    }

    /// `length` redirects from `path` through `path/1`, `path/2`, … back to `path`.
    pub fn redirect_loop(&self, path: &str, length: usize) -> &Self {
        let step = |n: usize| if n.is_multiple_of(length) { path.to_owned() } else { format!("{path}/{n}") };
        for n in 0..length {
            self.put(&step(n), Answer::redirect(&step(n + 1)));
        }
        self
    }

    fn answer(&self, target: &str) -> Prepared {
        let scripts = self.0.scripts.read().unwrap_or_else(PoisonError::into_inner);
        let path = target.split('?').next().unwrap_or(target);
        match scripts.get(target).or_else(|| scripts.get(path)) {
            Some(scripted) => scripted.next(),
            None => Answer::status(404).prepare(),
        }
    }
}

/// One connection.
struct Visit {
    site: Site,
    log: Log,
    number: u64,
}

impl Visit {
    /// Answers requests until one side has had enough.
    async fn converse(self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut received = BytesMut::new();
        while let Some(request) = self.receive(&mut stream, &mut received).await? {
            let target = &request.url[self.site.origin().len()..];
            let (head_only, last) = (request.method == "HEAD", request.header("connection") == Some("close"));
            let answer = self.site.answer(target);
            let pixels = self.log.begin(self.site.host(), request);
            let go_on = answer.send(&mut stream, head_only).await;
            drop(pixels);
            if !go_on? || last {
                break;
            }
        }
        Ok(())
    }

    /// The next request without its body, or `None` once the client is gone.
    async fn receive(&self, stream: &mut TcpStream, received: &mut BytesMut) -> io::Result<Option<Request>> {
        let end = loop {
            if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if received.len() > HEAD_MAX || stream.read_buf(received).await? == 0 {
                return Ok(None);
            }
        };
        let head = received.split_to(end + 4);
        let head = String::from_utf8_lossy(&head[..end]);
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target)) = (first.next(), first.next().filter(|target| target.starts_with('/'))) else {
            return Ok(None);
        };
        let header =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        let request = Request {
            url: format!("{}{target}", self.site.origin()),
            method: method.to_owned(),
            headers: lines.filter_map(header).collect(),
            connection: self.number,
            started_ms: 0,
            ended_ms: None,
        };
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while received.len() < length {
            if received.len() > HEAD_MAX || stream.read_buf(received).await? == 0 {
                return Ok(None);
            }
        }
        received.advance(length);
        Ok(Some(request))
    }
}
