//! The log: what was asked of the scripted web, when, and how much at once.
//!
//! Promise: a request is in the log before its answer begins, and has an end once its answer ended, however it did.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::server::Site;

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Request {
    /// `http://host:port/path?query`, as asked.
    pub url: String,
    /// `GET`, `HEAD`, …
    pub method: String,
    /// Names in lower case, values as sent, in order.
    pub headers: Vec<(String, String)>,
    /// Which connection to any site of this world it came on.
    pub connection: u64,
    /// Milliseconds since the world began.
    pub started_ms: u64,
    /// When the answer was written or given up; `None` while it is under way.
    pub ended_ms: Option<u64>,
}

impl Request {
    /// The first value of the header called `name` (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// All requests to all sites of one world. Clones share everything.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    began: tokio::time::Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    /// Under way now and at most, by host.
    hosts: HashMap<String, (usize, usize)>,
    under_way: (usize, usize),
}

impl Log {
    pub(super) fn new() -> Self {
        let began = tokio::time::Instant::now();
        Self(Arc::new(Shared { began, state: Mutex::default(), changed: Condvar::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.0.began.elapsed().as_millis() as u64
    }

    /// Notes a request to `host`; it is under way until the pixels is dropped.
    pub(super) fn begin(&self, host: &str, mut request: Request) -> Ticket {
        request.started_ms = self.now_ms();
        let mut state = self.state();
        let count = |(now, most): &mut (usize, usize)| {
            *now += 1;
            *most = (*most).max(*now);
        };
        count(&mut state.under_way);
        count(state.hosts.entry(host.to_owned()).or_default());
        state.requests.push(request);
        self.0.changed.notify_all();
        Ticket { log: self.clone(), index: state.requests.len() - 1, host: host.to_owned() }
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Requests for one URL.
    pub fn of(&self, url: &str) -> Vec<Request> {
        self.state().requests.iter().filter(|request| request.url == url).cloned().collect()
    }

    /// How often a URL was asked for.
    pub fn count(&self, url: &str) -> usize {
        self.state().requests.iter().filter(|request| request.url == url).count()
    }

    /// How often each URL was asked for.
    pub fn counts(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for request in &self.state().requests {
            *counts.entry(request.url.clone()).or_default() += 1;
        }
        counts
    }

    /// Every URL that was asked for.
    pub fn urls(&self) -> BTreeSet<String> {
        self.state().requests.iter().map(|request| request.url.clone()).collect()
    }

    /// Requests in all.
    pub fn total(&self) -> usize {
        self.state().requests.len()
    }

    /// The most requests under way at once, over all sites.
    pub fn concurrent_max(&self) -> usize {
        self.state().under_way.1
    }

    /// The most requests under way at once at one site.
    pub fn concurrent_max_of(&self, site: &Site) -> usize {
        self.state().hosts.get(site.host()).map_or(0, |(_, most)| *most)
    }

    /// Waits until the requests satisfy `enough`.
    ///
    /// # Panics
    /// When they do not within `limit`, with the last requests.
    pub fn wait_for(&self, limit: Duration, mut enough: impl FnMut(&[Request]) -> bool) {
        let waiting = |state: &mut State| !enough(&state.requests);
        let waited = self.0.changed.wait_timeout_while(self.state(), limit, waiting);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            let count = state.requests.len();
            let last: Vec<String> = state.requests.iter().rev().take(10).map(|request| request.url.clone()).collect();
            drop(state);
            panic!("not what was waited for within {limit:?}: {count} requests, the last ones for {last:#?}");
        }
    }

    /// Forgets every request and the maxima, once what is under way has ended.
    ///
    /// # Panics
    /// When something is still under way after ten seconds.
    pub fn clear(&self) {
        let busy = |state: &mut State| state.under_way.0 > 0;
        let waited = self.0.changed.wait_timeout_while(self.state(), Duration::from_secs(10), busy);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            drop(state);
            panic!("the log cannot be cleared while requests are under way");
        }
        *state = State::default();
    }
}

/// A request under way.
pub(super) struct Ticket {
    log: Log,
    index: usize,
    host: String,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = self.log.now_ms();
        let mut state = self.log.state();
        state.requests[self.index].ended_ms = Some(now);
        state.under_way.0 -= 1;
        if let Some((now, _)) = state.hosts.get_mut(&self.host) {
            *now -= 1;
        }
        self.log.0.changed.notify_all();
    }
}
