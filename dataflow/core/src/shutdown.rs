//! Whether the process runs, drains or stops, and the failure that stopped it. Nothing turns back.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

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

/// The stop signal of a process. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    mode: Arc<AtomicU8>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Shutdown {
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
