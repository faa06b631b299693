//! Near-duplicates: which pictures are detected, and which are given another's faces.
//!
//! Pictures whose hashes say something are grouped by leader (`leaders.rs`). Leaders are detected, and their members are given
//! their faces. Of pictures that die the next in rank takes the place; a picture that has lost its leader to a better one, and
//! is out of reach of that, is detected itself unless it has an answer. Promise: at the end, who leads whom depends on
//! the set of pictures and deaths alone, not on the order of arrival, on when pictures were settled, or on how often the process
//! was cut off and resumed; no picture is detected twice; and every decision is given once.

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;

use faceflow_core::ledger::KnownPicture;
use faceflow_core::record::{Content, ContentId, DuplicateAssignment, HashKind};
use faceflow_core::transition::State;

use crate::leaders::Leaders;
use crate::pictures::{DetectionStatus, NONE, Pictures, UNKNOWN_LEADER};
use crate::settings::DedupeSettings;

/// How a picture's detection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectionOutcome {
    /// Its faces are delivered.
    Done,
    /// It failed for good.
    Dead,
}

/// What must happen now.
#[derive(Clone, Debug, PartialEq)]
pub enum DedupeDecision {
    /// This picture is to be detected.
    Detect(ContentId),
    /// This picture has another leader than before, or is its own again.
    Assigned(DuplicateAssignment),
}

/// The bits by which a picture is compared with others; `None` if it resembles none, because its hash says nothing or is of a kind
/// or version that is not made today.
pub fn compared(content: &Content) -> Option<u64> {
    let hash = content.hashes.current(HashKind::Dct64)?;
    hash.bits.as_u64().filter(|_| hash.distinctive)
}

/// All pictures of a tenant, in groups.
pub struct NearDuplicates {
    pictures: Pictures,
    leaders: Leaders,
    /// Fingerprints of which something may be owed that nobody asked for yet.
    pending: Vec<u32>,
    /// Assignments of earlier runs whose leader had not been learned yet.
    unresolved: Vec<(u32, ContentId)>,
}

impl NearDuplicates {
    /// No pictures yet.
    pub fn new(settings: &DedupeSettings) -> Self {
        let leaders = Leaders::new(settings.radius_bits);
        Self { pictures: Pictures::default(), leaders, pending: Vec::new(), unresolved: Vec::new() }
    }

    /// Takes in a picture of an earlier run. When all are learned, [`NearDuplicates::decide_all`] says what is owed.
    pub fn load_known(&mut self, known: KnownPicture) {
        let status = match known.state {
            State::Settled => DetectionStatus::Done,
            State::Dead | State::Rejected => DetectionStatus::Dead,
            State::Open if known.retrying => DetectionStatus::Trying,
            State::Open | State::Alternate => DetectionStatus::Untried,
        };
        let Some(at) = self.enter(&known.content, status) else { return };
        self.unresolved.extend(known.representative.map(|leader| (at, leader)));
    }

    /// Takes in a new picture; one that is known changes nothing. [`NearDuplicates::decide`] says what follows from it.
    pub fn add(&mut self, content: &Content) {
        self.enter(content, DetectionStatus::Untried);
    }

    /// Notes how a picture's detection ended. What is done stays done. One that is not known was taken in by another run.
    pub fn outcome(&mut self, content: &Content, outcome: DetectionOutcome) {
        self.enter(content, DetectionStatus::Trying);
        let at = self.pictures.position_of(content.id).expect("it was taken in just now");
        match (self.pictures[at].status, outcome) {
            (DetectionStatus::Done, _) | (DetectionStatus::Dead, DetectionOutcome::Dead) => {}
            (_, DetectionOutcome::Done) => self.set_status(at, DetectionStatus::Done),
            (_, DetectionOutcome::Dead) => self.set_status(at, DetectionStatus::Dead),
        }
    }

    /// What must happen now because of a picture: its leader is to be detected, or, once that is done, it is assigned to it; and
    /// what the pictures that came and the detections that ended so far mean for others. While a leader is being tried, old
    /// assignments stand. Nothing is said twice.
    pub fn decide(&mut self, id: ContentId) -> Vec<DedupeDecision> {
        self.resolve();
        let at = self.pictures.position_of(id).expect("only a picture that was taken in is settled");
        let mut decisions = Vec::from_iter(self.decide_picture(at));
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_unstable();
        pending.dedup();
        pending.into_iter().for_each(|fingerprint| self.decide_fingerprint(fingerprint, &mut decisions));
        decisions
    }

    /// [`NearDuplicates::decide`] for every picture.
    pub fn decide_all(&mut self) -> Vec<DedupeDecision> {
        self.resolve();
        self.pending = Vec::new();
        (0..self.len() as u32).filter_map(|at| self.decide_picture(at)).collect()
    }

    /// Pictures taken in.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A new picture, in its group; `None` if it is known.
    fn enter(&mut self, content: &Content, status: DetectionStatus) -> Option<u32> {
        if self.pictures.position_of(content.id).is_some() {
            return None;
        }
        let Some(hash) = compared(content) else { return Some(self.pictures.push(content, NONE, status)) };
        let (known, fingerprint) = (self.leaders.len(), self.leaders.fingerprint(hash));
        let at = self.pictures.push(content, fingerprint, status);
        let best = self.leaders.best(fingerprint);
        let first = status != DetectionStatus::Dead && self.pictures.before(at, best);
        if first || self.leaders.len() > known {
            self.leaders.set_best(&self.pictures, fingerprint, if first { at } else { best });
            // What this means for the picture itself is asked for when it is settled.
            let others = self.leaders.take_changed().into_iter().filter(|changed| *changed != fingerprint);
            self.pending.extend(others);
        }
        Some(at)
    }

    fn set_status(&mut self, at: u32, status: DetectionStatus) {
        self.pictures[at].status = status;
        let fingerprint = self.pictures[at].fingerprint;
        if fingerprint == NONE {
            return;
        }
        let best = self.leaders.best(fingerprint);
        let next = match status {
            DetectionStatus::Dead if best == at => self.pictures.first_living(fingerprint),
            DetectionStatus::Done if self.pictures.before(at, best) => at,
            _ => best,
        };
        if next != best {
            self.leaders.set_best(&self.pictures, fingerprint, next);
            self.pending.append(&mut self.leaders.take_changed());
        }
        if self.leaders.leads(fingerprint) && self.pictures[next].status == DetectionStatus::Done {
            self.pending.push(fingerprint);
            self.leaders.each_member(fingerprint, |member| self.pending.push(member));
        }
    }

    /// The picture that leads a picture, itself perhaps; `None` if it is dead and no leader is within reach.
    fn leader_of(&self, at: u32) -> Option<u32> {
        match self.pictures[at].fingerprint {
            NONE => Some(at).filter(|at| self.pictures[*at].status != DetectionStatus::Dead),
            fingerprint => match self.leaders.leader_of(fingerprint) {
                NONE => None,
                leader => Some(self.leaders.best(leader)),
            },
        }
    }

    fn decide_picture(&mut self, at: u32) -> Option<DedupeDecision> {
        let Some(leader) = self.leader_of(at) else { return self.assign(at, at) };
        match self.pictures[leader].status {
            DetectionStatus::Untried => {
                self.pictures[leader].status = DetectionStatus::Trying;
                Some(DedupeDecision::Detect(self.pictures[leader].id))
            }
            // A picture that died before its turn as a member came has no leader.
            DetectionStatus::Done if self.pictures.before(at, leader) => self.assign(at, at),
            DetectionStatus::Done => self.assign(at, leader),
            DetectionStatus::Trying | DetectionStatus::Dead => None,
        }
    }

    /// Decides the pictures of a fingerprint. A leader that is not of it is not sent to the detector: its own turn comes.
    fn decide_fingerprint(&mut self, fingerprint: u32, decisions: &mut Vec<DedupeDecision>) {
        let leader = self.leaders.leader_of(fingerprint);
        let best = if leader == NONE { NONE } else { self.leaders.best(leader) };
        match (best != NONE).then(|| self.pictures[best].status) {
            Some(DetectionStatus::Untried) if leader == fingerprint => decisions.extend(self.decide_picture(best)),
            Some(DetectionStatus::Done) | None => {
                let pictures: Vec<u32> = self.pictures.of(fingerprint).collect();
                decisions.extend(pictures.into_iter().filter_map(|at| self.decide_picture(at)));
            }
            Some(_) => {}
        }
    }

    /// The assignment of a picture to its leader, if it is news.
    fn assign(&mut self, at: u32, leader: u32) -> Option<DedupeDecision> {
        let assigned = std::mem::replace(&mut self.pictures[at].assigned, leader);
        if assigned == leader || (at == leader && assigned == NONE) {
            return None;
        }
        let (picture, other) = (&self.pictures[at], &self.pictures[leader]);
        let distance = if at == leader { 0 } else { self.leaders.distance(picture.fingerprint, other.fingerprint) };
        Some(DedupeDecision::Assigned(DuplicateAssignment { picture: picture.id, representative: other.id, distance }))
    }

    /// Connects assignments of earlier runs with their leaders, now that all are learned.
    fn resolve(&mut self) {
        for (at, leader) in std::mem::take(&mut self.unresolved) {
            self.pictures[at].assigned = self.pictures.position_of(leader).unwrap_or(UNKNOWN_LEADER);
        }
    }
}
