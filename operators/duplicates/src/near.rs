//! Groups of near-duplicates: which pictures resemble each other, which is detected, and which represents which.
//!
//! A group is a connected component of "both hashes say something and are within the radius"; its order is largest
//! picture first, then smallest content id. The first that does not die is detected and represents the rest. Promise: at
//! the end, who represents whom depends on the set of pictures and deaths alone, not on the order of arrival, on when
//! groups were settled, or on how often the process was cut off and resumed; and every decision is given once.

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use faceflow_core::ledger::KnownPicture;
use faceflow_core::record::{Content, ContentId, DuplicateAssignment, HashKind};
use faceflow_core::transition::State;

use crate::index::HammingIndex;
use crate::settings::DedupeSettings;

/// No picture, no group.
const NONE: u32 = u32::MAX;
/// A representative that is not (or no longer) known.
const UNKNOWN_REPRESENTATIVE: u32 = u32::MAX - 1;

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
    /// This picture has another representative than before.
    Assigned(DuplicateAssignment),
}

/// Where a picture's detection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DetectionStatus {
    Untried,
    Trying,
    Done,
    Dead,
}

struct Entry {
    id: ContentId,
    hash: u64,
    pixels: u32,
    /// Its group; `NONE` while it is alone.
    group: u32,
    /// Who stands for it by the last assignment; `NONE` without one.
    assigned: u32,
    status: DetectionStatus,
}

/// A group of two or more.
struct Group {
    members: Vec<u32>,
    /// The first in order that is not dead.
    best: u32,
    /// Whom the members before `assigned` were last assigned to.
    representative: u32,
    assigned: u32,
}

/// The bits by which a picture is compared with others; `None` if it resembles none, because its hash says nothing or is of a kind
/// or version that is not made today.
pub fn compared(content: &Content) -> Option<u64> {
    let hash = content.hashes.current(HashKind::Dct64)?;
    hash.bits.as_u64().filter(|_| hash.distinctive)
}

/// All pictures of a tenant, in groups.
pub struct NearDuplicates {
    index: HammingIndex,
    entries: Vec<Entry>,
    /// Pictures by the first 64 bits of their ids; those whose bits were taken already, by the whole id.
    by_prefix: HashMap<u64, u32>,
    prefix_collisions: HashMap<ContentId, u32>,
    groups: Vec<Group>,
    /// Rulings of earlier runs whose representative had not been learned yet.
    unresolved: Vec<(u32, ContentId)>,
}

impl NearDuplicates {
    /// No pictures yet.
    pub fn new(settings: &DedupeSettings) -> Self {
        Self {
            index: HammingIndex::new(settings.radius_bits),
            entries: Vec::new(),
            by_prefix: HashMap::new(),
            prefix_collisions: HashMap::new(),
            groups: Vec::new(),
            unresolved: Vec::new(),
        }
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
        match known.representative {
            Some(representative) if representative == known.content.id => self.entries[at as usize].assigned = at,
            Some(representative) => self.unresolved.push((at, representative)),
            None => {}
        }
    }

    /// Takes in a new picture; one that is known changes nothing. [`NearDuplicates::decide`] says what follows from it.
    pub fn add(&mut self, content: &Content) {
        self.enter(content, DetectionStatus::Untried);
    }

    /// Notes how a picture's detection ended. What is done stays done. One that is not known was taken in by another run.
    pub fn outcome(&mut self, content: &Content, outcome: DetectionOutcome) {
        self.enter(content, DetectionStatus::Trying);
        let at = self.position_of(content.id).expect("it was taken in just now");
        match (self.entries[at as usize].status, outcome) {
            (DetectionStatus::Done, _) | (DetectionStatus::Dead, DetectionOutcome::Dead) => {}
            (_, DetectionOutcome::Done) => self.status(at, DetectionStatus::Done),
            (_, DetectionOutcome::Dead) => self.status(at, DetectionStatus::Dead),
        }
    }

    /// Whether a detected picture stands for this one, so that it will never be detected itself.
    pub fn is_represented(&self, id: ContentId) -> bool {
        let Some(at) = self.position_of(id) else { return false };
        let group = self.entries[at as usize].group;
        let best = if group == NONE { NONE } else { self.groups[group as usize].best };
        best != NONE && best != at && self.entries[best as usize].status == DetectionStatus::Done
    }

    /// What must happen now in the group of a picture: its best picture is to be detected, or, once that is done,
    /// every picture below it that has another representative so far is assigned to it. While the best is being tried, and
    /// for pictures that died above it, old assignments stand. Nothing is said twice.
    pub fn decide(&mut self, id: ContentId) -> Vec<DedupeDecision> {
        self.resolve();
        let at = self.position_of(id).expect("only a picture that was taken in is settled");
        self.decide_group_of(at)
    }

    /// [`NearDuplicates::decide`] for every group.
    pub fn decide_all(&mut self) -> Vec<DedupeDecision> {
        self.resolve();
        let first = |groups: &Self, at: u32| match groups.entries[at as usize].group {
            NONE => true,
            group => groups.groups[group as usize].members[0] == at,
        };
        let mut decisions = Vec::new();
        for at in 0..self.entries.len() as u32 {
            if first(self, at) {
                decisions.append(&mut self.decide_group_of(at));
            }
        }
        decisions
    }

    /// Pictures taken in.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn position_of(&self, id: ContentId) -> Option<u32> {
        let first = *self.by_prefix.get(&id.partition_hash())?;
        if self.entries[first as usize].id == id { Some(first) } else { self.prefix_collisions.get(&id).copied() }
    }

    /// A new entry, in its group; `None` if the picture is known.
    fn enter(&mut self, content: &Content, status: DetectionStatus) -> Option<u32> {
        if self.position_of(content.id).is_some() {
            return None;
        }
        let at = u32::try_from(self.entries.len())
            .ok()
            .filter(|at| *at < UNKNOWN_REPRESENTATIVE)
            .expect("pictures fit 32 bits");
        if *self.by_prefix.entry(content.id.partition_hash()).or_insert(at) != at {
            self.prefix_collisions.insert(content.id, at);
        }
        let pixels = u64::from(content.width) * u64::from(content.height);
        self.entries.push(Entry {
            id: content.id,
            hash: compared(content).unwrap_or_default(),
            pixels: u32::try_from(pixels).unwrap_or(u32::MAX),
            group: NONE,
            assigned: NONE,
            status,
        });
        if let Some(hash) = compared(content) {
            self.link_neighbours(at, hash);
        }
        Some(at)
    }

    fn link_neighbours(&mut self, at: u32, hash: u64) {
        let twin = self.index.insert(at, hash);
        let mut relatives = Vec::from_iter(twin);
        if twin.is_none() {
            self.index.each_within(hash, |other, _| relatives.push(other));
        }
        relatives.into_iter().for_each(|other| self.merge(at, other));
    }

    /// Makes one group of two pictures' groups.
    fn merge(&mut self, one: u32, other: u32) {
        match (self.entries[one as usize].group, self.entries[other as usize].group) {
            _ if one == other => {}
            (NONE, NONE) => {
                let group = self.groups.len() as u32;
                self.groups.push(Group { members: Vec::new(), best: NONE, representative: NONE, assigned: 0 });
                self.join(group, &[one, other]);
            }
            (NONE, group) => self.join(group, &[one]),
            (group, NONE) => self.join(group, &[other]),
            (one, other) if one == other => {}
            (one, other) => {
                let size = |group: u32| self.groups[group as usize].members.len();
                let (large, small) = if size(one) < size(other) { (other, one) } else { (one, other) };
                let members = std::mem::take(&mut self.groups[small as usize].members);
                self.join(large, &members);
            }
        }
    }

    fn join(&mut self, group: u32, members: &[u32]) {
        self.groups[group as usize].members.extend(members);
        for &at in members {
            self.entries[at as usize].group = group;
            self.update_best(at);
        }
    }

    /// Makes a picture its group's best if it is.
    fn update_best(&mut self, at: u32) {
        let Entry { group, status, .. } = self.entries[at as usize];
        if group == NONE || status == DetectionStatus::Dead {
            return;
        }
        let best = self.groups[group as usize].best;
        if best == NONE || self.before(at, best) {
            self.groups[group as usize].best = at;
        }
    }

    /// Whether `one` comes before `other` in the order of a group.
    fn before(&self, one: u32, other: u32) -> bool {
        let rank = |at: u32| {
            let entry = &self.entries[at as usize];
            (std::cmp::Reverse(entry.pixels), entry.id)
        };
        rank(one) < rank(other)
    }

    fn status(&mut self, at: u32, status: DetectionStatus) {
        self.entries[at as usize].status = status;
        let group = self.entries[at as usize].group;
        if status == DetectionStatus::Dead && group != NONE && self.groups[group as usize].best == at {
            self.groups[group as usize].best = NONE;
            for position in 0..self.groups[group as usize].members.len() {
                self.update_best(self.groups[group as usize].members[position]);
            }
        }
        self.update_best(at);
    }

    fn decide_group_of(&mut self, at: u32) -> Vec<DedupeDecision> {
        let group = self.entries[at as usize].group;
        let best = if group == NONE { at } else { self.groups[group as usize].best };
        if best == NONE {
            return vec![];
        }
        match self.entries[best as usize].status {
            DetectionStatus::Untried => {
                self.entries[best as usize].status = DetectionStatus::Trying;
                vec![DedupeDecision::Detect(self.entries[best as usize].id)]
            }
            DetectionStatus::Done if group == NONE => self.assignment(at, at).into_iter().collect(),
            DetectionStatus::Done => self.assign_group(group, best),
            DetectionStatus::Trying | DetectionStatus::Dead => vec![],
        }
    }

    /// Rules every member to the representative that has not been yet.
    fn assign_group(&mut self, group: u32, representative: u32) -> Vec<DedupeDecision> {
        let Group { members, representative: former, assigned, .. } = &mut self.groups[group as usize];
        let from = if *former == representative { *assigned as usize } else { 0 };
        (*former, *assigned) = (representative, members.len() as u32);
        let members = std::mem::take(members);
        let decisions = members[from..].iter().filter_map(|&at| self.assignment(at, representative)).collect();
        self.groups[group as usize].members = members;
        decisions
    }

    /// The assignment of one picture, if it is news.
    fn assignment(&mut self, at: u32, representative: u32) -> Option<DedupeDecision> {
        let assigned = self.entries[at as usize].assigned;
        let itself = at == representative;
        if assigned == representative || (itself && assigned == NONE) || (!itself && self.before(at, representative)) {
            return None;
        }
        self.entries[at as usize].assigned = representative;
        let (picture, other) = (&self.entries[at as usize], &self.entries[representative as usize]);
        let distance = (picture.hash ^ other.hash).count_ones();
        Some(DedupeDecision::Assigned(DuplicateAssignment { picture: picture.id, representative: other.id, distance }))
    }

    /// Connects rulings of earlier runs with their representatives, now that all are learned.
    fn resolve(&mut self) {
        for (at, representative) in std::mem::take(&mut self.unresolved) {
            self.entries[at as usize].assigned = self.position_of(representative).unwrap_or(UNKNOWN_REPRESENTATIVE);
        }
    }
}
