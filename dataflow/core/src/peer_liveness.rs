//! Which processes of a cluster live, as one of them sees it: when each was heard of last, what it is doing, and which is missing.
//!
//! Every process sends heartbeats to all others through the dataflow itself, so whatever breaks the dataflow (a kill, a hang, a cut
//! cable) also stops the heartbeats. Promise: a process that is missing is named within `cluster.silence_ms`, and a process that
//! did not run itself for that long (a stopped process, a sleeping machine) says so and names no other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::shutdown::Mode;

/// How long a process that has closed its connections may have been right to do so, in milliseconds: at the end of a run
/// some notice it a moment later than others.
const CLOSE_GRACE_MS: Time = 3_000;

/// A process that reads a large ledger may take this many times as long as connecting may.
pub const LOADING_FACTOR: u64 = 60;

/// The settings `cluster.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSettings {
    /// How long to wait for all processes to come together at the start, in milliseconds; 60 times as long for one that takes in
    /// what the ledger knows.
    pub join_ms: u64,
    /// How long a process that has begun its work may say nothing before the others give the run up, in milliseconds.
    pub silence_ms: u64,
    /// How often each process sends a heartbeat, in milliseconds.
    pub heartbeat_ms: u64,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self { join_ms: 60_000, silence_ms: 10_000, heartbeat_ms: 250 }
    }
}

impl ClusterSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.join_ms == 0 {
            return Err(("join_ms", "1 or more".to_owned()));
        }
        if self.heartbeat_ms == 0 {
            return Err(("heartbeat_ms", "1 or more".to_owned()));
        }
        if self.silence_ms < 4 * self.heartbeat_ms {
            return Err(("silence_ms", format!("at least four heartbeats ({} ms)", 4 * self.heartbeat_ms)));
        }
        Ok(())
    }
}

/// What a process reports of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Which process.
    pub process: usize,
    /// What it is doing about its work.
    pub mode: Mode,
    /// Whether nothing is under way in it.
    pub idle: bool,
    /// That the run ends, because everything that remains is due at this time or later.
    pub leaves_until: Option<Time>,
}

/// All processes of a cluster, as one of them sees them.
pub struct Peers {
    process: usize,
    addresses: Vec<String>,
    settings: ClusterSettings,
    peers: Mutex<Vec<Peer>>,
    own: Mutex<OwnHeartbeat>,
}

/// This process, by its own clock.
struct OwnHeartbeat {
    /// When it last sent a heartbeat, once it has.
    beat: Option<Time>,
    /// How long it sent none, where that was longer than the others wait, and when it noticed.
    paused: Option<(Time, Time)>,
}

struct Peer {
    heard_at: Time,
    heartbeat: Option<Heartbeat>,
    gone_at: Option<Time>,
    /// Whether it closed its connection as agreed.
    closed_cleanly: bool,
}

impl Peers {
    /// The cluster of these addresses, of which `process` is this one, all of them heard of at `now`.
    pub fn new(process: usize, addresses: Vec<String>, settings: ClusterSettings, now: Time) -> Self {
        let peers = addresses
            .iter()
            .map(|_| Peer { heard_at: now, heartbeat: None, gone_at: None, closed_cleanly: false })
            .collect();
        let own = Mutex::new(OwnHeartbeat { beat: None, paused: None });
        Self { process, addresses, settings, peers: Mutex::new(peers), own }
    }

    /// Which process this is.
    pub fn process(&self) -> usize {
        self.process
    }

    /// How often to send a heartbeat, in milliseconds.
    pub fn heartbeat_ms(&self) -> u64 {
        self.settings.heartbeat_ms
    }

    /// Notes a heartbeat of a process.
    pub fn note_heartbeat(&self, beat: &Heartbeat, now: Time) {
        if let Some(peer) = self.lock().get_mut(beat.process) {
            (peer.heard_at, peer.heartbeat) = (now, Some(beat.clone()));
        }
    }

    /// Notes that a process has closed its connection, as agreed or not.
    pub fn left(&self, process: usize, closed_cleanly: bool, now: Time) {
        if let Some(peer) = self.lock().get_mut(process) {
            peer.closed_cleanly |= closed_cleanly;
            peer.gone_at.get_or_insert(now);
        }
    }

    /// Who is missing, in words.
    pub fn missing(&self, now: Time) -> Option<String> {
        drop(self.check_own_pause(now));
        let peers = self.lock();
        let others = peers.iter().enumerate().filter(|(process, _)| *process != self.process);
        let mut missing = others.filter_map(|(process, peer)| {
            let name = format!("process {process} ({})", self.addresses[process]);
            let silent = now.saturating_sub(peer.heard_at);
            // Until it has said something, it takes in what the ledger knows.
            let (limit, which) = match peer.heartbeat {
                Some(_) => (self.settings.silence_ms, "cluster.silence_ms"),
                None => (LOADING_FACTOR.saturating_mul(self.settings.join_ms), "60 times cluster.join_ms"),
            };
            match peer.gone_at {
                Some(gone_at) if now > gone_at + CLOSE_GRACE_MS => {
                    Some(format!("{name} is gone; its own log says why"))
                }
                _ if silent > limit => Some(format!("{name} was not heard of for {silent} ms ({which})")),
                _ => None,
            }
        });
        let why = missing.next()?;
        let why = self.own_pause(now).unwrap_or(why);
        Some(format!("{why}. Start every process of the cluster again: the ledger goes on from here"))
    }

    /// Notes that this process sends a heartbeat.
    pub fn note_own_heartbeat(&self, now: Time) {
        self.check_own_pause(now).beat = Some(now);
    }

    /// That this process did not run until a moment ago, for longer than the others wait, in words.
    pub fn own_pause(&self, now: Time) -> Option<String> {
        let (pause, _) = self.own().paused.filter(|(_, until)| self.is_recent(*until, now))?;
        let seconds = pause as f64 / 1_000.0;
        Some(format!(
            "this process did not run for {seconds:.1} s, so the others have given it up (cluster.silence_ms)"
        ))
    }

    /// Notes for how long this process did not run, if it just did not.
    fn check_own_pause(&self, now: Time) -> MutexGuard<'_, OwnHeartbeat> {
        let mut own = self.own();
        let pause = own.beat.map_or(0, |beat| now.saturating_sub(beat));
        if pause > self.settings.silence_ms && own.paused.is_none_or(|(_, until)| !self.is_recent(until, now)) {
            own.paused = Some((pause, now));
        }
        own
    }

    /// Whether what others did about a pause that ended at `until` may not have been noticed yet.
    fn is_recent(&self, until: Time, now: Time) -> bool {
        now <= until + self.settings.silence_ms + CLOSE_GRACE_MS
    }

    fn own(&self) -> MutexGuard<'_, OwnHeartbeat> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the others want the run to end: whether one drains, and until when work is left, if one says so.
    pub fn wanted_end(&self) -> (Mode, Option<Time>) {
        let peers = self.lock();
        let beats = || peers.iter().filter_map(|peer| peer.heartbeat.as_ref());
        let mode = if beats().any(|beat| beat.mode == Mode::Draining) { Mode::Draining } else { Mode::Running };
        (mode, beats().find_map(|beat| beat.leaves_until))
    }

    /// Whether every other process drains and has nothing under way, or has left as agreed.
    pub fn others_are_idle(&self) -> bool {
        let peers = self.lock();
        let mut others = peers.iter().enumerate().filter(|(process, _)| *process != self.process);
        others.all(|(_, peer)| {
            let idle = |beat: &Heartbeat| beat.idle && beat.mode != Mode::Running && peer.gone_at.is_none();
            peer.closed_cleanly || peer.heartbeat.as_ref().is_some_and(idle)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(process: usize, mode: Mode, idle: bool) -> Heartbeat {
        Heartbeat { process, mode, idle, leaves_until: None }
    }

    #[test]
    fn a_silent_process_and_one_that_is_gone_are_named() {
        let addresses = ["a:1", "b:2", "c:3"].map(str::to_owned).to_vec();
        let peers = Peers::new(1, addresses, ClusterSettings::default(), 1_000);
        assert_eq!(
            (peers.missing(3_601_000), peers.own_pause(3_601_000)),
            (None, None),
            "all may be reading the ledger"
        );
        assert!(peers.missing(3_601_001).is_some_and(|missing| missing.contains("cluster.join_ms")));
        peers.note_heartbeat(&beat(2, Mode::Running, false), 1_000);
        peers.note_own_heartbeat(8_000);
        peers.note_heartbeat(&beat(0, Mode::Running, false), 9_000);
        let missing = peers.missing(11_001).expect("2 is silent");
        assert!(missing.contains("process 2 (c:3)") && missing.contains("10001 ms"), "{missing}");
        peers.note_heartbeat(&beat(2, Mode::Running, false), 11_000);
        peers.left(0, false, 12_000);
        assert_eq!(peers.missing(12_000 + CLOSE_GRACE_MS), None, "it may have been right to go");
        assert!(
            peers.missing(12_001 + CLOSE_GRACE_MS).is_some_and(|missing| missing.contains("process 0 (a:1) is gone"))
        );
    }

    #[test]
    fn who_was_asleep_says_so_and_blames_nobody() {
        let addresses = ["a:1", "b:2"].map(str::to_owned).to_vec();
        let peers = Peers::new(1, addresses, ClusterSettings::default(), 0);
        peers.note_heartbeat(&beat(0, Mode::Running, false), 1_000);
        peers.note_own_heartbeat(1_000);
        assert_eq!((peers.missing(11_000), peers.own_pause(11_000)), (None, None));
        let missing = peers.missing(13_400).expect("0 is silent");
        let asleep = peers.own_pause(13_400).expect("it was");
        assert!(missing.starts_with(&asleep) && asleep.contains("this process did not run for 12.4 s"), "{missing}");
        // What 0 said last has been on its way meanwhile.
        peers.note_heartbeat(&beat(0, Mode::Running, false), 13_400);
        assert_eq!(peers.missing(13_401), None);
        peers.left(0, false, 13_500);
        assert!(peers.missing(13_501 + CLOSE_GRACE_MS).is_some_and(|missing| missing.starts_with(&asleep)));
        assert_eq!(peers.own_pause(13_401 + 10_000 + CLOSE_GRACE_MS), None, "that is long ago");
    }

    #[test]
    fn one_that_drains_drains_all_and_all_must_be_idle() {
        let addresses = ["a:1", "b:2"].map(str::to_owned).to_vec();
        let peers = Peers::new(0, addresses, ClusterSettings::default(), 0);
        assert_eq!((peers.wanted_end(), peers.others_are_idle()), ((Mode::Running, None), false));
        peers.note_heartbeat(&beat(1, Mode::Draining, false), 1);
        assert_eq!((peers.wanted_end().0, peers.others_are_idle()), (Mode::Draining, false));
        peers.note_heartbeat(&Heartbeat { leaves_until: Some(7), ..beat(1, Mode::Draining, true) }, 2);
        assert_eq!((peers.wanted_end(), peers.others_are_idle()), ((Mode::Draining, Some(7)), true));
        peers.left(1, false, 3);
        assert!(!peers.others_are_idle(), "who died in a drain was not done");
        peers.left(1, true, 3);
        assert!(peers.others_are_idle());
    }
}
