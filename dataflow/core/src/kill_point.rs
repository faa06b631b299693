//! Kill points: where a process under test dies, as `kill -9` would end it.
//!
//! They stand around everything durable: before it, between its steps, after it. Promise: without the feature `testing` they
//! are not there.

/// The variable that names a point and the time it is reached at which the process dies: `ledger.commit:3`.
pub const VARIABLE: &str = "FACEFLOW_KILL_AT";

/// Every point of a run, in the order in which it first comes to them.
pub const POINTS: [&str; 11] = [
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

/// Ends the process here if it is asked to.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn kill_point(_: &'static str) {}

/// Ends the process here if it is asked to.
#[cfg(feature = "testing")]
pub fn kill_point(point: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);
    debug_assert!(POINTS.contains(&point) || INBOX_POINTS.contains(&point), "{point} is not listed");
    let chosen = CHOSEN.get_or_init(|| {
        let (point, time) =
            std::env::var(VARIABLE).ok()?.rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned()))?;
        Some((point, time.parse().ok()?))
    });
    let Some((_, time)) = chosen.as_ref().filter(|(chosen, _)| chosen == point) else { return };
    if REACHED.fetch_add(1, SeqCst) + 1 == *time {
        // Cannot fail: a process may always kill itself.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
