//! A small HTTP server: so many connections at once, one request each, each within its time. Where there is no room for another,
//! the one that has been silent longest makes room.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

/// Connections at once; more wait to be accepted while each of these has asked for something.
const CONNECTIONS_MAX: usize = 256;

/// How long an answer that is given at the last moment may take to be taken.
const FAREWELL: Duration = Duration::from_secs(1);

/// When a request must be there as a whole; among its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// What an address is.
const WANTED: &str = "HOST:PORT is wanted, such as 127.0.0.1:9090";

/// A socket to [`serve`] at.
pub fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => io::Error::new(error.kind(), format!("{error}; {WANTED}")),
        _ => error,
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A connection whose request may not be there yet.
struct Caller {
    /// Whether the head of its request has come.
    heard: Arc<AtomicBool>,
    connection: AbortHandle,
}

impl Caller {
    fn is_silent(&self) -> bool {
        !self.heard.load(Relaxed) && !self.connection.is_finished()
    }
}

/// Answers connections for ever, each within `limit`.
pub async fn serve(listener: TcpListener, routes: Router, limit: Duration) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (mut connections, mut callers) = (JoinSet::new(), VecDeque::<Caller>::new());
    loop {
        // A connection that broke before it was accepted is the caller's affair.
        let Ok((socket, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        callers.retain(Caller::is_silent);
        if connections.len() >= CONNECTIONS_MAX {
            if let Some(silent) = callers.pop_front() {
                silent.connection.abort();
            }
            // One that was silent is gone at once; else the first to be answered.
            connections.join_next().await;
        }
        let (by, routes) = (Instant::now() + limit, TowerToHyperService::new(routes.clone()));
        let heard = Arc::new(AtomicBool::new(false));
        let hears = Arc::clone(&heard);
        let service = service_fn(move |mut request: Request<Incoming>| {
            hears.store(true, Relaxed);
            request.extensions_mut().insert(Deadline(by));
            routes.call(request)
        });
        let connection = connections.spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(limit).keep_alive(false);
            // Whoever says nothing or breaks off gets no answer.
            let _ = timeout_at(by + FAREWELL, http.serve_connection(TokioIo::new(socket), service)).await;
        });
        callers.push_back(Caller { heard, connection });
    }
}
