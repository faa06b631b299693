//! Groups of near-duplicates: which pictures resemble each other, which is detected, and which represents which.
//!
//! A cluster is a connected component of "both hashes say something and are within the radius"; its order is largest
//! picture first, then smallest content id. The first that does not die is detected and represents the rest. Promise: at
//! the end, who represents whom depends on the set of pictures and deaths alone, not on the order of arrival, on when
//! clusters were settled, or on how often the process was cut off and resumed; and every verdict is given once.

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

/// No picture, no cluster.
const NONE: u32 = u32::MAX;
/// A representative that is not (or no longer) known.
const FOREIGN: u32 = u32::MAX - 1;

/// How a picture's detection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its faces are delivered.
    Done,
    /// It failed for good.
    Dead,
}

/// What must happen now.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// This picture is to be detected.
    Detect(ContentId),
    /// This picture has another representative than before.
    Assigned(DuplicateAssignment),
}

/// Where a picture's detection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Untried,
    Trying,
    Done,
    Dead,
}

struct Entry {
    id: ContentId,
    hash: u64,
    pixels: u32,
    /// Its cluster; `NONE` while it is alone.
    cluster: u32,
    /// Who stands for it by the last ruling; `NONE` without one.
    ruled: u32,
    stand: Stand,
}

/// A cluster of two or more.
struct Group {
    members: Vec<u32>,
    /// The first in order that is not dead.
    best: u32,
    /// Whom the members before `ruled` were last ruled to.
    representative: u32,
    ruled: u32,
}

/// The bits by which a picture is compared with others; `None` if it resembles none, because its hash says nothing or is of a kind
/// or version that is not made today.
pub fn compared(content: &Content) -> Option<u64> {
    let hash = content.hashes.current(HashKind::Dct64)?;
    hash.bits.as_u64().filter(|_| hash.distinctive)
}

/// All pictures of a tenant, clustered.
pub struct NearDuplicates {
    index: HammingIndex,
    entries: Vec<Entry>,
    /// Pictures by the first 64 bits of their ids; those whose bits were taken already, by the whole id.
    places: HashMap<u64, u32>,
    namesakes: HashMap<ContentId, u32>,
    clusters: Vec<Group>,
    /// Rulings of earlier runs whose representative had not been learned yet.
    unresolved: Vec<(u32, ContentId)>,
}

impl NearDuplicates {
    /// No pictures yet.
    pub fn new(settings: &DedupeSettings) -> Self {
        Self {
            index: HammingIndex::new(settings.radius_bits),
            entries: Vec::new(),
            places: HashMap::new(),
            namesakes: HashMap::new(),
            clusters: Vec::new(),
            unresolved: Vec::new(),
        }
    }

    /// Takes in a picture of an earlier run. When all are learned, [`NearDuplicates::evaluate_all`] says what is owed.
    pub fn learn(&mut self, known: KnownPicture) {
        let stand = match known.state {
            State::Settled => Stand::Done,
            State::Dead | State::Rejected => Stand::Dead,
            State::Open if known.retrying => Stand::Trying,
            State::Open | State::Alternate => Stand::Untried,
        };
        let Some(at) = self.enter(&known.content, stand) else { return };
        match known.representative {
            Some(representative) if representative == known.content.id => self.entries[at as usize].ruled = at,
            Some(representative) => self.unresolved.push((at, representative)),
            None => {}
        }
    }

    /// Takes in a new picture; one that is known changes nothing. [`NearDuplicates::settle`] says what follows from it.
    pub fn add(&mut self, content: &Content) {
        self.enter(content, Stand::Untried);
    }

    /// Notes how a picture's detection ended. What is done stays done. One that is not known was taken in by another run.
    pub fn outcome(&mut self, content: &Content, outcome: Outcome) {
        self.enter(content, Stand::Trying);
        let at = self.place(content.id).expect("it was taken in just now");
        match (self.entries[at as usize].stand, outcome) {
            (Stand::Done, _) | (Stand::Dead, Outcome::Dead) => {}
            (_, Outcome::Done) => self.stand(at, Stand::Done),
            (_, Outcome::Dead) => self.stand(at, Stand::Dead),
        }
    }

    /// Whether a detected picture stands for this one, so that it will never be detected itself.
    pub fn is_represented(&self, id: ContentId) -> bool {
        let Some(at) = self.place(id) else { return false };
        let cluster = self.entries[at as usize].cluster;
        let best = if cluster == NONE { NONE } else { self.clusters[cluster as usize].best };
        best != NONE && best != at && self.entries[best as usize].stand == Stand::Done
    }

    /// What must happen now in the cluster of a picture: its best picture is to be detected, or, once that is done,
    /// every picture below it that has another representative so far is ruled to it. While the best is being tried, and
    /// for pictures that died above it, old rulings stand. Nothing is said twice.
    pub fn settle(&mut self, id: ContentId) -> Vec<Verdict> {
        self.resolve();
        let at = self.place(id).expect("only a picture that was taken in is settled");
        self.settle_at(at)
    }

    /// [`NearDuplicates::settle`] for every cluster.
    pub fn evaluate_all(&mut self) -> Vec<Verdict> {
        self.resolve();
        let first = |clusters: &Self, at: u32| match clusters.entries[at as usize].cluster {
            NONE => true,
            cluster => clusters.clusters[cluster as usize].members[0] == at,
        };
        let mut verdicts = Vec::new();
        for at in 0..self.entries.len() as u32 {
            if first(self, at) {
                verdicts.append(&mut self.settle_at(at));
            }
        }
        verdicts
    }

    /// Pictures taken in.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn place(&self, id: ContentId) -> Option<u32> {
        let first = *self.places.get(&id.route())?;
        if self.entries[first as usize].id == id { Some(first) } else { self.namesakes.get(&id).copied() }
    }

    /// A new entry, in its cluster; `None` if the picture is known.
    fn enter(&mut self, content: &Content, stand: Stand) -> Option<u32> {
        if self.place(content.id).is_some() {
            return None;
        }
        let at = u32::try_from(self.entries.len()).ok().filter(|at| *at < FOREIGN).expect("pictures fit 32 bits");
        if *self.places.entry(content.id.route()).or_insert(at) != at {
            self.namesakes.insert(content.id, at);
        }
        let pixels = u64::from(content.width) * u64::from(content.height);
        self.entries.push(Entry {
            id: content.id,
            hash: compared(content).unwrap_or_default(),
            pixels: u32::try_from(pixels).unwrap_or(u32::MAX),
            cluster: NONE,
            ruled: NONE,
            stand,
        });
        if let Some(hash) = compared(content) {
            self.find_relatives(at, hash);
        }
        Some(at)
    }

    fn find_relatives(&mut self, at: u32, hash: u64) {
        let twin = self.index.insert(at, hash);
        let mut relatives = Vec::from_iter(twin);
        if twin.is_none() {
            self.index.each_within(hash, |other, _| relatives.push(other));
        }
        relatives.into_iter().for_each(|other| self.unite(at, other));
    }

    /// Makes one cluster of two pictures' clusters.
    fn unite(&mut self, one: u32, other: u32) {
        match (self.entries[one as usize].cluster, self.entries[other as usize].cluster) {
            _ if one == other => {}
            (NONE, NONE) => {
                let cluster = self.clusters.len() as u32;
                self.clusters.push(Group { members: Vec::new(), best: NONE, representative: NONE, ruled: 0 });
                self.join(cluster, &[one, other]);
            }
            (NONE, cluster) => self.join(cluster, &[one]),
            (cluster, NONE) => self.join(cluster, &[other]),
            (one, other) if one == other => {}
            (one, other) => {
                let size = |cluster: u32| self.clusters[cluster as usize].members.len();
                let (large, small) = if size(one) < size(other) { (other, one) } else { (one, other) };
                let members = std::mem::take(&mut self.clusters[small as usize].members);
                self.join(large, &members);
            }
        }
    }

    fn join(&mut self, cluster: u32, members: &[u32]) {
        self.clusters[cluster as usize].members.extend(members);
        for &at in members {
            self.entries[at as usize].cluster = cluster;
            self.consider(at);
        }
    }

    /// Makes a picture its cluster's best if it is.
    fn consider(&mut self, at: u32) {
        let Entry { cluster, stand, .. } = self.entries[at as usize];
        if cluster == NONE || stand == Stand::Dead {
            return;
        }
        let best = self.clusters[cluster as usize].best;
        if best == NONE || self.before(at, best) {
            self.clusters[cluster as usize].best = at;
        }
    }

    /// Whether `one` comes before `other` in the order of a cluster.
    fn before(&self, one: u32, other: u32) -> bool {
        let rank = |at: u32| {
            let entry = &self.entries[at as usize];
            (std::cmp::Reverse(entry.pixels), entry.id)
        };
        rank(one) < rank(other)
    }

    fn stand(&mut self, at: u32, stand: Stand) {
        self.entries[at as usize].stand = stand;
        let cluster = self.entries[at as usize].cluster;
        if stand == Stand::Dead && cluster != NONE && self.clusters[cluster as usize].best == at {
            self.clusters[cluster as usize].best = NONE;
            for place in 0..self.clusters[cluster as usize].members.len() {
                self.consider(self.clusters[cluster as usize].members[place]);
            }
        }
        self.consider(at);
    }

    fn settle_at(&mut self, at: u32) -> Vec<Verdict> {
        let cluster = self.entries[at as usize].cluster;
        let best = if cluster == NONE { at } else { self.clusters[cluster as usize].best };
        if best == NONE {
            return vec![];
        }
        match self.entries[best as usize].stand {
            Stand::Untried => {
                self.entries[best as usize].stand = Stand::Trying;
                vec![Verdict::Detect(self.entries[best as usize].id)]
            }
            Stand::Done if cluster == NONE => self.ruling(at, at).into_iter().collect(),
            Stand::Done => self.rule(cluster, best),
            Stand::Trying | Stand::Dead => vec![],
        }
    }

    /// Rules every member to the representative that has not been yet.
    fn rule(&mut self, cluster: u32, representative: u32) -> Vec<Verdict> {
        let Group { members, representative: former, ruled, .. } = &mut self.clusters[cluster as usize];
        let from = if *former == representative { *ruled as usize } else { 0 };
        (*former, *ruled) = (representative, members.len() as u32);
        let members = std::mem::take(members);
        let verdicts = members[from..].iter().filter_map(|&at| self.ruling(at, representative)).collect();
        self.clusters[cluster as usize].members = members;
        verdicts
    }

    /// The ruling on one picture, if it is news.
    fn ruling(&mut self, at: u32, representative: u32) -> Option<Verdict> {
        let ruled = self.entries[at as usize].ruled;
        let itself = at == representative;
        if ruled == representative || (itself && ruled == NONE) || (!itself && self.before(at, representative)) {
            return None;
        }
        self.entries[at as usize].ruled = representative;
        let (picture, other) = (&self.entries[at as usize], &self.entries[representative as usize]);
        let distance = (picture.hash ^ other.hash).count_ones();
        Some(Verdict::Assigned(DuplicateAssignment { picture: picture.id, representative: other.id, distance }))
    }

    /// Connects rulings of earlier runs with their representatives, now that all are learned.
    fn resolve(&mut self) {
        for (at, representative) in std::mem::take(&mut self.unresolved) {
            self.entries[at as usize].ruled = self.place(representative).unwrap_or(FOREIGN);
        }
    }
}
