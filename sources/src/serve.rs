//! A small HTTP server: so many connections at once, one request each, each within its time.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

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

/// Answers connections for ever, each within `limit`.
pub async fn serve(listener: TcpListener, routes: Router, limit: Duration) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (places, mut connections) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), JoinSet::new());
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        // A connection that broke before it was accepted is the caller's affair.
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (by, routes) = (Instant::now() + limit, TowerToHyperService::new(routes.clone()));
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Deadline(by));
            routes.call(request)
        });
        connections.spawn(async move {
            let _place = place;
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(limit).keep_alive(false);
            // Whoever says nothing or breaks off gets no answer.
            let _ = timeout_at(by + FAREWELL, http.serve_connection(TokioIo::new(socket), service)).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
