//! The pictures that are known: their ranks, where their detection stands, and what was last said of them.

use std::cmp::Reverse;
use std::collections::HashMap;

use faceflow_core::record::{Content, ContentId};

/// No picture, no fingerprint.
pub const NONE: u32 = u32::MAX;
/// A leader that is not (or no longer) known.
pub const UNKNOWN_LEADER: u32 = u32::MAX - 1;

/// The order in which pictures may lead: largest first, then smallest id. No two have the same.
pub type Rank = (Reverse<u32>, ContentId);

/// Where a picture's detection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectionStatus {
    /// Nobody looked at it.
    Untried,
    /// It is being tried, or a retry is due.
    Trying,
    /// It has an answer.
    Done,
    /// It failed for good.
    Dead,
}

/// A known picture.
pub struct Picture {
    /// Its content id.
    pub id: ContentId,
    pixels: u32,
    /// Its fingerprint; `NONE` for one that resembles no other.
    pub fingerprint: u32,
    /// The picture of its fingerprint that came before it, or `NONE`.
    before: u32,
    /// Its leader by the last assignment; `NONE` without one.
    pub assigned: u32,
    /// Where its detection stands.
    pub status: DetectionStatus,
}

/// Every known picture, by number and by id.
#[derive(Default)]
pub struct Pictures {
    pictures: Vec<Picture>,
    /// Pictures by the first 64 bits of their ids; those whose bits were taken already, by the whole id.
    by_prefix: HashMap<u64, u32>,
    prefix_collisions: HashMap<ContentId, u32>,
    /// The newest picture of each fingerprint.
    newest: Vec<u32>,
}

impl Pictures {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// The number of a picture.
    pub fn position_of(&self, id: ContentId) -> Option<u32> {
        let first = *self.by_prefix.get(&id.partition_hash())?;
        if self[first].id == id { Some(first) } else { self.prefix_collisions.get(&id).copied() }
    }

    /// Takes in a picture that is not known, of a fingerprint that is known or the next one.
    pub fn push(&mut self, content: &Content, fingerprint: u32, status: DetectionStatus) -> u32 {
        let at = u32::try_from(self.len()).ok().filter(|at| *at < UNKNOWN_LEADER).expect("pictures fit 32 bits");
        if *self.by_prefix.entry(content.id.partition_hash()).or_insert(at) != at {
            self.prefix_collisions.insert(content.id, at);
        }
        let mut before = NONE;
        if fingerprint != NONE {
            self.newest.resize(self.newest.len().max(fingerprint as usize + 1), NONE);
            before = std::mem::replace(&mut self.newest[fingerprint as usize], at);
        }
        let pixels = u64::from(content.width) * u64::from(content.height);
        let pixels = u32::try_from(pixels).unwrap_or(u32::MAX);
        self.pictures.push(Picture { id: content.id, pixels, fingerprint, before, assigned: NONE, status });
        at
    }

    /// The pictures of a fingerprint.
    pub fn of(&self, fingerprint: u32) -> impl Iterator<Item = u32> {
        let first = Some(self.newest[fingerprint as usize]).filter(|at| *at != NONE);
        std::iter::successors(first, |at| Some(self[*at].before).filter(|at| *at != NONE))
    }

    /// The first of a fingerprint that is not dead, or `NONE`.
    pub fn first_living(&self, fingerprint: u32) -> u32 {
        let living = self.of(fingerprint).filter(|at| self[*at].status != DetectionStatus::Dead);
        living.min_by_key(|at| self.rank(*at)).unwrap_or(NONE)
    }

    /// The rank of a picture.
    pub fn rank(&self, at: u32) -> Rank {
        (Reverse(self[at].pixels), self[at].id)
    }

    /// Whether `one` is ranked before `other`; what is no picture comes last.
    pub fn before(&self, one: u32, other: u32) -> bool {
        one != NONE && (other == NONE || self.rank(one) < self.rank(other))
    }
}

impl std::ops::Index<u32> for Pictures {
    type Output = Picture;

    fn index(&self, at: u32) -> &Picture {
        &self.pictures[at as usize]
    }
}

impl std::ops::IndexMut<u32> for Pictures {
    fn index_mut(&mut self, at: u32) -> &mut Picture {
        &mut self.pictures[at as usize]
    }
}
