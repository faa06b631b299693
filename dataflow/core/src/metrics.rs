//! Counters of a running process: how much waits and how much is under way at each stage, and what the ledger counted last.
//!
//! Operators change them; progress bars, backpressure, the metrics endpoint and the end of a drain read them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Time;
use crate::tally::Tally;

/// Counters of one stage of the pipeline, over all workers of the process.
#[derive(Debug, Default)]
pub struct StageMetrics {
    /// Records that arrived and were not started.
    pub waiting: AtomicUsize,
    /// Records whose work is under way.
    pub in_flight: AtomicUsize,
    /// Records dispatched from the ledger whose work has not come to an end; each of them counts at another stage too.
    pub dispatched: AtomicUsize,
    /// Records whose work ended, well or badly.
    pub ended: AtomicUsize,
    /// Those that ended badly.
    pub failed: AtomicUsize,
}

/// All counters of the process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    stages: Arc<Mutex<BTreeMap<&'static str, Arc<StageMetrics>>>>,
    tallies: Arc<Mutex<(Tally, Tally)>>,
    frontier: Arc<AtomicU64>,
}

impl Metrics {
    /// The counters of the stage called `name`, made on first use.
    pub fn stage(&self, name: &'static str) -> Arc<StageMetrics> {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(stages.entry(name).or_default())
    }

    /// Every stage by name.
    pub fn stages(&self) -> Vec<(&'static str, Arc<StageMetrics>)> {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.iter().map(|(name, stage)| (*name, Arc::clone(stage))).collect()
    }

    /// Records that wait or are under way in this process. What waits in the ledger does not count.
    pub fn load(&self) -> usize {
        self.stages().iter().map(|(_, stage)| stage.waiting.load(Relaxed) + stage.in_flight.load(Relaxed)).sum()
    }

    /// Records under way in this process.
    pub fn in_flight(&self) -> usize {
        self.stages().iter().map(|(_, stage)| stage.in_flight.load(Relaxed)).sum()
    }

    /// Pages and images by state, as the ledger counted them last: `(pages, images)`.
    pub fn tallies(&self) -> (Tally, Tally) {
        *self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the ledger has counted.
    pub fn set_tallies(&self, tallies: (Tally, Tally)) {
        *self.tallies.lock().unwrap_or_else(PoisonError::into_inner) = tallies;
    }

    /// The frontier of timely: everything due before it is settled, or due later. `None` before the beginning and after the end.
    pub fn frontier(&self) -> Option<Time> {
        Some(self.frontier.load(Relaxed)).filter(|frontier| (1..Time::MAX).contains(frontier))
    }

    /// Notes how far the frontier has come.
    pub fn set_frontier(&self, frontier: Time) {
        self.frontier.store(frontier, Relaxed);
    }
}
