//! The pulse of a running process: how much waits and how much is under way at each stage, and the wish to stop.
//!
//! Everything here is a plain counter that operators bump and that progress bars, backpressure and the shutdown read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::ledger::Tally;

/// Counters of one stage of the pipeline, over all workers of the process.
#[derive(Debug, Default)]
pub struct Stage {
    /// Records that arrived and were not started.
    pub waiting: AtomicUsize,
    /// Records whose work is under way.
    pub flying: AtomicUsize,
    /// Records given out and not back yet; each of them counts at another stage too.
    pub lent: AtomicUsize,
    /// Records whose work ended, well or badly.
    pub ended: AtomicUsize,
    /// Those that ended badly.
    pub lost: AtomicUsize,
}

/// All stages of the process, and whether it should stop. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    stages: Arc<Mutex<BTreeMap<&'static str, Arc<Stage>>>>,
    mode: Arc<AtomicU8>,
    failure: Arc<Mutex<Option<String>>>,
    tallies: Arc<Mutex<(Tally, Tally)>>,
    frontier: Arc<AtomicU64>,
}

/// What the process is doing about its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Everything runs.
    Running,
    /// What is under way is finished and recorded; nothing new is started.
    Draining,
    /// The workers leave as they are.
    Stopped,
}

impl Pulse {
    /// The counters of the stage called `name`, made on first use.
    pub fn stage(&self, name: &'static str) -> Arc<Stage> {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(stages.entry(name).or_default())
    }

    /// Every stage by name.
    pub fn stages(&self) -> Vec<(&'static str, Arc<Stage>)> {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.iter().map(|(name, stage)| (*name, Arc::clone(stage))).collect()
    }

    /// Records that wait or are under way in this process. What waits in the ledger does not count.
    pub fn load(&self) -> usize {
        self.stages().iter().map(|(_, stage)| stage.waiting.load(Relaxed) + stage.flying.load(Relaxed)).sum()
    }

    /// Records under way in this process.
    pub fn flying(&self) -> usize {
        self.stages().iter().map(|(_, stage)| stage.flying.load(Relaxed)).sum()
    }

    /// Pages and images by state, as the ledger had them a moment ago: `(pages, images)`.
    pub fn tallies(&self) -> (Tally, Tally) {
        *self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the ledger has.
    pub fn count(&self, tallies: (Tally, Tally)) {
        *self.tallies.lock().unwrap_or_else(PoisonError::into_inner) = tallies;
    }

    /// Everything due before this time is settled, or due later; `None` before the beginning and after the end.
    pub fn frontier(&self) -> Option<Time> {
        Some(self.frontier.load(Relaxed)).filter(|frontier| (1..Time::MAX).contains(frontier))
    }

    /// Notes how far the frontier of time has come.
    pub fn reach(&self, frontier: Time) {
        self.frontier.store(frontier, Relaxed);
    }

    /// What the process is doing.
    pub fn mode(&self) -> Mode {
        match self.mode.load(Relaxed) {
            0 => Mode::Running,
            1 => Mode::Draining,
            _ => Mode::Stopped,
        }
    }

    /// Start nothing new; finish what is under way.
    pub fn drain(&self) {
        self.mode.fetch_max(1, Relaxed);
    }

    /// Leave now. What is under way stays open in the ledger.
    pub fn stop(&self) {
        self.mode.fetch_max(2, Relaxed);
    }

    /// Leave now, because of a failure of ours. The first one is kept.
    pub fn fail(&self, why: impl Into<String>) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(why.into());
        self.stop();
    }

    /// The failure of ours that stopped the process, if any.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
