//! Whether everything discovered is accounted for: checked as the frontier moves, and explained once it is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use faceflow_core::executor::Executor;
use faceflow_core::invariants::conserved;
use faceflow_core::ledger::Ledger;

/// How often conservation is checked at most, in milliseconds.
const CHECK_EVERY_MS: u64 = 100;
/// Of what breaks an invariant of the ledger, so many are named.
const KEYS_MAX: usize = 5;

/// Checks by the ledger's counts, one at a time and with pauses.
#[derive(Default)]
pub(crate) struct ConservationCheck {
    running: Arc<AtomicBool>,
    /// When the next check is due.
    next: AtomicU64,
    violated: Arc<AtomicBool>,
}

impl ConservationCheck {
    /// Starts a check on a blocking thread, unless one is running or the last one is too recent. A violation fails the process.
    pub(crate) fn check(&self, executor: &Executor, ledger: &Arc<dyn Ledger>) {
        let now = executor.clock.now();
        if now < self.next.load(Relaxed) || self.running.swap(true, Relaxed) {
            return;
        }
        self.next.store(now + CHECK_EVERY_MS, Relaxed);
        let Executor { metrics, shutdown, .. } = executor.clone();
        let ledger = Arc::clone(ledger);
        let (running, violated) = (Arc::clone(&self.running), Arc::clone(&self.violated));
        executor.runtime.spawn_blocking(move || {
            match ledger.tally() {
                Ok((pages, images)) => {
                    metrics.set_tallies((pages, images));
                    if let Err(why) = conserved(&pages).and(conserved(&images)) {
                        violated.store(true, Relaxed);
                        shutdown.fail(format!("conservation is violated: {why}"));
                    }
                }
                Err(error) => shutdown.fail(error.to_string()),
            }
            running.store(false, Relaxed);
        });
    }

    /// Whether a check has found something unaccounted for.
    pub(crate) fn is_violated(&self) -> bool {
        self.violated.load(Relaxed)
    }
}

/// Which invariants of the ledger do not hold, as the continuation of a message; empty if all hold. Everything is counted anew,
/// which takes its time: the workers must have left.
pub(crate) fn violations(ledger: &dyn Ledger) -> String {
    match ledger.audit(KEYS_MAX) {
        Ok(violations) => violations.iter().map(|violation| format!("; {violation}")).collect(),
        Err(error) => format!("; where, the ledger does not say: {error}"),
    }
}
