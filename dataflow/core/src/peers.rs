//! A cluster as one of its processes sees it: who was heard of when, what they are about, and who is missing.
//!
//! Every process tells all others how it is, again and again, through the dataflow itself, so whatever breaks the dataflow
//! (a kill, a hang, a cut cable) also breaks the telling. Promise: a process that is missing is named within the silence
//! that the settings allow, and one that was asleep itself does not blame the others.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::shutdown::Mode;

/// How long a process that has closed its connections may have been right to do so, in milliseconds: at the end of a run
/// some notice it a moment later than others.
const FAREWELL_MS: Time = 3_000;

/// Reading a large ledger takes longer than coming together: this many times as long is waited for it.
pub const READING: u64 = 60;

/// The settings `cluster.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSettings {
    /// How long to wait for all processes to come together at the start, in milliseconds; 60 times as long for one that takes in
    /// what the ledger knows.
    pub join_ms: u64,
    /// How long a process that has begun its work may say nothing before the others give the run up, in milliseconds.
    pub silence_ms: u64,
    /// How often each process says how it is, in milliseconds.
    pub beat_ms: u64,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self { join_ms: 60_000, silence_ms: 10_000, beat_ms: 250 }
    }
}

impl ClusterSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.join_ms == 0 {
            return Err(("join_ms", "1 or more".to_owned()));
        }
        if self.beat_ms == 0 {
            return Err(("beat_ms", "1 or more".to_owned()));
        }
        if self.silence_ms < 4 * self.beat_ms {
            return Err(("silence_ms", format!("at least four beats ({} ms)", 4 * self.beat_ms)));
        }
        Ok(())
    }
}

/// What a process says of itself.
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
    own: Mutex<Own>,
}

/// This process, by its own clock.
struct Own {
    /// When it last told the others how it is, once it has.
    beat: Option<Time>,
    /// How long it did not, where that was longer than the others wait, and when it noticed.
    slept: Option<(Time, Time)>,
}

struct Peer {
    heard: Time,
    beat: Option<Heartbeat>,
    gone: Option<Time>,
    /// Whether it went as agreed.
    farewell: bool,
}

impl Peers {
    /// The cluster of these addresses, of which `process` is this one, all of them heard of `now`.
    pub fn new(process: usize, addresses: Vec<String>, settings: ClusterSettings, now: Time) -> Self {
        let peers = addresses.iter().map(|_| Peer { heard: now, beat: None, gone: None, farewell: false }).collect();
        let own = Mutex::new(Own { beat: None, slept: None });
        Self { process, addresses, settings, peers: Mutex::new(peers), own }
    }

    /// Which process this is.
    pub fn process(&self) -> usize {
        self.process
    }

    /// How often to beat, in milliseconds.
    pub fn beat_ms(&self) -> u64 {
        self.settings.beat_ms
    }

    /// Notes a beat.
    pub fn hear(&self, beat: &Heartbeat, now: Time) {
        if let Some(peer) = self.lock().get_mut(beat.process) {
            (peer.heard, peer.beat) = (now, Some(beat.clone()));
        }
    }

    /// Notes that a process has closed its connection, as agreed or not.
    pub fn left(&self, process: usize, farewell: bool, now: Time) {
        if let Some(peer) = self.lock().get_mut(process) {
            peer.farewell |= farewell;
            peer.gone.get_or_insert(now);
        }
    }

    /// Who is missing, in words.
    pub fn missing(&self, now: Time) -> Option<String> {
        drop(self.wake(now));
        let peers = self.lock();
        let others = peers.iter().enumerate().filter(|(process, _)| *process != self.process);
        let mut missing = others.filter_map(|(process, peer)| {
            let name = format!("process {process} ({})", self.addresses[process]);
            let silent = now.saturating_sub(peer.heard);
            // Until it has said something, it takes in what the ledger knows.
            let (limit, which) = match peer.beat {
                Some(_) => (self.settings.silence_ms, "cluster.silence_ms"),
                None => (READING.saturating_mul(self.settings.join_ms), "60 times cluster.join_ms"),
            };
            match peer.gone {
                Some(gone) if now > gone + FAREWELL_MS => Some(format!("{name} is gone; its own log says why")),
                _ if silent > limit => Some(format!("{name} was not heard of for {silent} ms ({which})")),
                _ => None,
            }
        });
        let why = missing.next()?;
        let why = self.asleep(now).unwrap_or(why);
        Some(format!("{why}. Start every process of the cluster again: the ledger goes on from here"))
    }

    /// Notes that this process tells the others how it is.
    pub fn beat(&self, now: Time) {
        self.wake(now).beat = Some(now);
    }

    /// That this process was asleep until a moment ago, for longer than the others wait, in words.
    pub fn asleep(&self, now: Time) -> Option<String> {
        let (pause, _) = self.own().slept.filter(|(_, until)| self.is_recent(*until, now))?;
        let seconds = pause as f64 / 1_000.0;
        Some(format!(
            "this process did not run for {seconds:.1} s, so the others have given it up (cluster.silence_ms)"
        ))
    }

    /// Notes for how long this process was asleep, if it just was.
    fn wake(&self, now: Time) -> MutexGuard<'_, Own> {
        let mut own = self.own();
        let pause = own.beat.map_or(0, |beat| now.saturating_sub(beat));
        if pause > self.settings.silence_ms && own.slept.is_none_or(|(_, until)| !self.is_recent(until, now)) {
            own.slept = Some((pause, now));
        }
        own
    }

    /// Whether what others did about a sleep that ended at `until` may not have been noticed yet.
    fn is_recent(&self, until: Time, now: Time) -> bool {
        now <= until + self.settings.silence_ms + FAREWELL_MS
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the others are about: whether one drains, and until when work is left, if one says so. One that has stopped will be
    /// gone in a moment, for better or worse.
    pub fn wish(&self) -> (Mode, Option<Time>) {
        let peers = self.lock();
        let beats = || peers.iter().filter_map(|peer| peer.beat.as_ref());
        let mode = if beats().any(|beat| beat.mode == Mode::Draining) { Mode::Draining } else { Mode::Running };
        (mode, beats().find_map(|beat| beat.leaves_until))
    }

    /// Whether every other process drains and has nothing under way, or has left as agreed.
    pub fn others_are_idle(&self) -> bool {
        let peers = self.lock();
        let mut others = peers.iter().enumerate().filter(|(process, _)| *process != self.process);
        others.all(|(_, peer)| {
            let idle = |beat: &Heartbeat| beat.idle && beat.mode != Mode::Running && peer.gone.is_none();
            peer.farewell || peer.beat.as_ref().is_some_and(idle)
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
        assert_eq!((peers.missing(3_601_000), peers.asleep(3_601_000)), (None, None), "all may be reading the ledger");
        assert!(peers.missing(3_601_001).is_some_and(|missing| missing.contains("cluster.join_ms")));
        peers.hear(&beat(2, Mode::Running, false), 1_000);
        peers.beat(8_000);
        peers.hear(&beat(0, Mode::Running, false), 9_000);
        let missing = peers.missing(11_001).expect("2 is silent");
        assert!(missing.contains("process 2 (c:3)") && missing.contains("10001 ms"), "{missing}");
        peers.hear(&beat(2, Mode::Running, false), 11_000);
        peers.left(0, false, 12_000);
        assert_eq!(peers.missing(12_000 + FAREWELL_MS), None, "it may have been right to go");
        assert!(peers.missing(12_001 + FAREWELL_MS).is_some_and(|missing| missing.contains("process 0 (a:1) is gone")));
    }

    #[test]
    fn who_was_asleep_says_so_and_blames_nobody() {
        let addresses = ["a:1", "b:2"].map(str::to_owned).to_vec();
        let peers = Peers::new(1, addresses, ClusterSettings::default(), 0);
        peers.hear(&beat(0, Mode::Running, false), 1_000);
        peers.beat(1_000);
        assert_eq!((peers.missing(11_000), peers.asleep(11_000)), (None, None));
        let missing = peers.missing(13_400).expect("0 is silent");
        let asleep = peers.asleep(13_400).expect("it was");
        assert!(missing.starts_with(&asleep) && asleep.contains("this process did not run for 12.4 s"), "{missing}");
        // What 0 said last has been on its way meanwhile.
        peers.hear(&beat(0, Mode::Running, false), 13_400);
        assert_eq!(peers.missing(13_401), None);
        peers.left(0, false, 13_500);
        assert!(peers.missing(13_501 + FAREWELL_MS).is_some_and(|missing| missing.starts_with(&asleep)));
        assert_eq!(peers.asleep(13_401 + 10_000 + FAREWELL_MS), None, "that is long ago");
    }

    #[test]
    fn one_that_drains_drains_all_and_all_must_be_idle() {
        let addresses = ["a:1", "b:2"].map(str::to_owned).to_vec();
        let peers = Peers::new(0, addresses, ClusterSettings::default(), 0);
        assert_eq!((peers.wish(), peers.others_are_idle()), ((Mode::Running, None), false));
        peers.hear(&beat(1, Mode::Draining, false), 1);
        assert_eq!((peers.wish().0, peers.others_are_idle()), (Mode::Draining, false));
        peers.hear(&Heartbeat { leaves_until: Some(7), ..beat(1, Mode::Draining, true) }, 2);
        assert_eq!((peers.wish(), peers.others_are_idle()), ((Mode::Draining, Some(7)), true));
        peers.left(1, false, 3);
        assert!(!peers.others_are_idle(), "who died in a drain was not done");
        peers.left(1, true, 3);
        assert!(peers.others_are_idle());
    }
}
