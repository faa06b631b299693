//! When a run ends before everything is settled: patience is over, a drain has nothing under way any more, or another process
//! of the cluster ends it or is missing. (When all is settled the frontier is empty, and the worker loop leaves by itself.)
//!
//! Patience: once the frontier lies further ahead than the user waits for, only retries due later remain, and they stay open in
//! the ledger.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::Time;
use faceflow_core::executor::Executor;
use faceflow_core::peer_liveness::{Heartbeat, Peers};
use faceflow_core::shutdown::{Mode, Shutdown};

use crate::run_options::RunOptions;

/// How long a worker is parked at most when nothing wakes it, in milliseconds.
pub(crate) const PARK_MAX_MS: u64 = 20;
/// A drain ends once nothing was under way for so many parks: between two stages a record is under way nowhere, for a step or two.
const IDLE_PARKS: u64 = 3;
/// In a cluster, and for so many heartbeats: between two processes, a record is under way nowhere for one or two.
const IDLE_HEARTBEATS: u64 = 2;

/// What the workers of the process share about the end of the run.
pub(crate) struct StopConditions {
    options: RunOptions,
    peers: Option<Arc<Peers>>,
    /// Whether this process drains and has nothing under way.
    idle: AtomicBool,
    /// When the earliest remaining retry is due, once patience is over; 0 before.
    next_due: AtomicU64,
    drain: Mutex<Option<Drain>>,
}

/// When a drain began, and when work was last seen under way.
struct Drain {
    since: Time,
    busy: Time,
}

impl StopConditions {
    pub(crate) fn new(options: RunOptions, peers: Option<Arc<Peers>>) -> Self {
        Self { options, peers, idle: AtomicBool::new(false), next_due: AtomicU64::new(0), drain: Mutex::new(None) }
    }

    /// Workers of this process.
    pub(crate) fn workers(&self) -> usize {
        self.options.workers.max(1)
    }

    /// All processes, in a cluster.
    pub(crate) fn peers(&self) -> Option<&Arc<Peers>> {
        self.peers.as_ref()
    }

    /// When the earliest remaining retry is due, if the run ended for lack of patience.
    pub(crate) fn next_due(&self) -> Option<Time> {
        Some(self.next_due.load(Relaxed)).filter(|due| *due > 0)
    }

    /// What this process sends to the others of its cluster.
    pub(crate) fn heartbeat(&self, process: usize, shutdown: &Shutdown) -> Heartbeat {
        Heartbeat { process, mode: shutdown.mode(), idle: self.idle.load(Relaxed), leaves_until: self.next_due() }
    }

    /// Ends or drains the run if one of the conditions holds. `frontier` is the time before which everything is settled.
    pub(crate) fn check(&self, executor: &Executor, frontier: Time) {
        self.follow_peers(executor);
        self.check_patience(executor, frontier);
        self.check_drain(executor);
    }

    /// Ends the run when everything that remains is due too late.
    fn check_patience(&self, executor: &Executor, frontier: Time) {
        let limit = executor.clock.now().saturating_add(self.options.patience_ms);
        if self.options.endless || frontier == Time::MAX || frontier <= limit {
            return;
        }
        match &self.peers {
            None => {
                self.next_due.store(frontier, Relaxed);
                executor.shutdown.stop();
            }
            // Clocks differ, so one process decides it for all, itself included: its heartbeat says so.
            Some(peers) if peers.process() == 0 => self.next_due.store(frontier, Relaxed),
            Some(_) => {}
        }
    }

    /// Drains or ends with the other processes, and fails the run if one is missing.
    fn follow_peers(&self, executor: &Executor) {
        let Some(peers) = &self.peers else { return };
        let shutdown = &executor.shutdown;
        if let Some(missing) = peers.missing(executor.clock.now()) {
            shutdown.fail(missing);
        }
        match peers.wanted_end() {
            (_, Some(due)) => {
                self.next_due.store(due, Relaxed);
                shutdown.stop();
            }
            (Mode::Running, None) => {}
            (_, None) => shutdown.drain(),
        }
    }

    /// Ends a drain when nothing is under way any more, or its grace is over.
    fn check_drain(&self, executor: &Executor) {
        let Executor { metrics, shutdown, .. } = executor;
        if shutdown.mode() != Mode::Draining {
            return;
        }
        let now = executor.clock.now();
        let mut drain = self.drain.lock().unwrap_or_else(PoisonError::into_inner);
        let drain = drain.get_or_insert(Drain { since: now, busy: now });
        if metrics.in_flight() > 0 {
            drain.busy = now;
        }
        let between_processes = self.peers.as_ref().map_or(0, |peers| IDLE_HEARTBEATS * peers.heartbeat_ms());
        let idle = now > drain.busy + IDLE_PARKS * PARK_MAX_MS + between_processes;
        self.idle.store(idle, Relaxed);
        let all_idle = idle && self.peers.as_ref().is_none_or(|peers| peers.others_are_idle());
        if all_idle || now > drain.since + self.options.grace_ms {
            shutdown.stop();
        }
    }
}
