//! Kill points: where a process under test dies, as `kill -9` would end it, or where one of its threads panics.
//!
//! They stand around everything durable: before it, between its steps, after it. Promise: without the feature `testing` they
//! are not there.

/// The variable that names a point and the time it is reached at which the process dies: `ledger.commit:3`.
pub const VARIABLE: &str = "FACEFLOW_KILL_AT";

/// The same for a point at which the thread that reaches it panics.
pub const PANIC_VARIABLE: &str = "FACEFLOW_PANIC_AT";

/// Every point of a run, in the order in which it first comes to them.
pub const POINTS: [&str; 12] = [
    "state.migrate",
    "state.migrated",
    "store.put",
    "store.stored",
    "ledger.write",
    "ledger.commit",
    "ledger.committed",
    "run.ended",
    "sidecars.cursor",
    "sidecars.written",
    "report.write",
    "report.written",
];

/// Points that only a stream which takes submissions comes to.
pub const INBOX_POINTS: [&str; 2] = ["inbox.write", "inbox.written"];

/// The point before the half line of a submission that was not answered for is cut off.
pub const INBOX_CUT: &str = "inbox.cut";

/// The point before an inbox of which everything is in the ledger is emptied.
pub const INBOX_EMPTY: &str = "inbox.empty";

/// The points before and after a file with what is still needed takes the place of an inbox that is never read to its end.
pub const INBOX_REPLACE: [&str; 2] = ["inbox.rewritten", "inbox.replaced"];

/// Points that only runs which share a state on a server come to: the second one where another run has left something.
pub const LEASE_POINTS: [&str; 2] = ["lease.begun", "lease.taken_over"];

/// Points that only a process with a sink of its own comes to.
pub const SINK_POINTS: [&str; 2] = ["sink.flush", "sink.flushed"];

/// The point at which `faceflow retry` has driven everything and nothing is committed yet.
pub const RETRY_POINT: &str = "retry.driven";

/// The point at which the beginning of the log is removed and nothing of that is committed yet.
pub const LOG_POINT: &str = "log.remove";

/// Ends the process here if it is asked to.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn kill_point(_: &'static str) {}

/// Ends the process here if it is asked to, or panics.
#[cfg(feature = "testing")]
pub fn kill_point(point: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    /// A point, the time it counts, and how often it was reached.
    type Chosen = (String, u64, AtomicU64);
    static KILL: OnceLock<Option<Chosen>> = OnceLock::new();
    static PANIC: OnceLock<Option<Chosen>> = OnceLock::new();
    debug_assert!(is_listed(point), "{point} is not listed");
    let reached = |chosen: &OnceLock<Option<Chosen>>, variable| {
        let named = || {
            let text = std::env::var(variable).ok()?;
            let (point, time) = text.rsplit_once(':')?;
            Some((point.to_owned(), time.parse().ok()?, AtomicU64::new(0)))
        };
        let chosen = chosen.get_or_init(named).as_ref().filter(|(chosen, ..)| chosen == point);
        chosen.is_some_and(|(_, time, reached)| reached.fetch_add(1, SeqCst) + 1 == *time)
    };
    if reached(&KILL, VARIABLE) {
        // Cannot fail: a process may always kill itself.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    assert!(!reached(&PANIC, PANIC_VARIABLE), "asked to panic at {point}");
}

#[cfg(feature = "testing")]
fn is_listed(point: &str) -> bool {
    let all = POINTS.iter().chain(&INBOX_POINTS).chain(&INBOX_REPLACE).chain(&LEASE_POINTS).chain(&SINK_POINTS);
    all.chain([&INBOX_CUT, &RETRY_POINT, &LOG_POINT, &INBOX_EMPTY]).any(|listed| *listed == point)
}
