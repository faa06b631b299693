//! Groups by leader (J. Hartigan, *Clustering Algorithms*, 1975, chapter 3): in the order of ranks, a picture that is within reach
//! of a leader is a member of the first such leader; any other leads. So a member is within reach of its leader, never of a
//! chain, and leaders are out of reach of each other.
//!
//! Who leads whom depends on pictures of better rank alone. When one comes or dies, what it changes is decided anew in the order
//! of ranks, each fingerprint once, and nothing else is looked at. Promise: at any time the groups are those that the definition
//! gives for the pictures that are known and not dead.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use faceflow_core::record::ContentId;

use crate::index::{HammingIndex, Part};
use crate::pictures::{NONE, Pictures};

/// What reach goes by: pictures that are equal in it have one leader, the first of them or another's, so that a million copies cost
/// what one does.
struct Fingerprint {
    /// The first of its pictures that is not dead, or `NONE`.
    best: u32,
    /// The fingerprint that leads it: itself, another, or `NONE` if its pictures are dead and no leader is within reach.
    leader: u32,
}

/// The order in which fingerprints are decided: by the rank of their best, and those without one last.
type Turn = (bool, Reverse<u32>, ContentId, u32);

/// Fingerprints and who leads whom.
pub struct Leaders {
    index: HammingIndex,
    fingerprints: Vec<Fingerprint>,
    /// What is to be decided anew.
    queue: BTreeSet<Turn>,
    /// What has another leader than before.
    changed: Vec<u32>,
}

impl Leaders {
    /// None yet; pictures whose hashes differ by at most `radius` bits are within reach.
    pub fn new(radius: u32) -> Self {
        let index = HammingIndex::new(radius);
        Self { index, fingerprints: Vec::new(), queue: BTreeSet::new(), changed: Vec::new() }
    }

    /// How many fingerprints there are.
    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }

    /// The fingerprint of pictures with this hash.
    pub fn fingerprint(&mut self, hash: u64) -> u32 {
        let number = self.index.insert(hash);
        if number as usize == self.fingerprints.len() {
            self.fingerprints.push(Fingerprint { best: NONE, leader: NONE });
        }
        number
    }

    /// The first picture of a fingerprint that is not dead, or `NONE`.
    pub fn best(&self, number: u32) -> u32 {
        self.fingerprints[number as usize].best
    }

    /// The fingerprint that leads this one, or `NONE`.
    pub fn leader_of(&self, number: u32) -> u32 {
        self.fingerprints[number as usize].leader
    }

    /// Whether a fingerprint leads.
    pub fn leads(&self, number: u32) -> bool {
        self.leader_of(number) == number
    }

    /// The bits between two fingerprints.
    pub fn distance(&self, one: u32, other: u32) -> u32 {
        self.index.distance(one, other)
    }

    /// Calls `each` with every member of a leader, some more than once.
    pub fn each_member(&self, leader: u32, mut each: impl FnMut(u32)) {
        self.each_within(Part::Members, leader, |member| {
            if self.leader_of(member) == leader {
                each(member);
            }
        });
    }

    /// What has another leader than when this was last asked, some more than once.
    pub fn take_changed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.changed)
    }

    /// A fingerprint is new, or another of its pictures is the first that is not dead: decides anew what that changes.
    pub fn set_best(&mut self, pictures: &Pictures, number: u32, best: u32) {
        let former = std::mem::replace(&mut self.fingerprints[number as usize].best, best);
        if self.leads(number) && !pictures.before(best, former) {
            // Whoever it led may come before it now.
            self.step_down(pictures, number);
        }
        self.enqueue(pictures, number);
        while let Some((.., next)) = self.queue.pop_first() {
            self.decide(pictures, next);
        }
    }

    fn enqueue(&mut self, pictures: &Pictures, number: u32) {
        let best = self.best(number);
        let rank = if best == NONE { (Reverse(0), ContentId([0; 32])) } else { pictures.rank(best) };
        self.queue.insert((best == NONE, rank.0, rank.1, number));
    }

    /// Whether a member is within verified reach of a leader, so that it may be given the leader's faces. The index proposes by
    /// hash alone; whatever else has to agree is asked here, and is then part of what makes two fingerprints equal.
    fn verified(&self, member: u32, leader: u32) -> bool {
        self.index.distance(member, leader) <= self.index.radius()
    }

    /// Calls `each` with every other fingerprint of a part that is within verified reach of one that leads, some more than once.
    fn each_within(&self, part: Part, leader: u32, mut each: impl FnMut(u32)) {
        self.index.each_within(part, leader, |member| {
            if member != leader && self.verified(member, leader) {
                each(member);
            }
        });
    }

    /// The first leader within reach that is ranked before a fingerprint, or `NONE`.
    fn first_leader(&self, pictures: &Pictures, number: u32) -> u32 {
        let mut first = NONE;
        self.index.each_within(Part::Leaders, number, |leader| {
            let best = self.best(leader);
            let better =
                pictures.before(best, self.best(number)) && (first == NONE || pictures.before(best, self.best(first)));
            if leader != number && better && self.verified(number, leader) {
                first = leader;
            }
        });
        first
    }

    /// Decides who leads a fingerprint; whoever is ranked before it is decided already.
    fn decide(&mut self, pictures: &Pictures, number: u32) {
        let leader = self.first_leader(pictures, number);
        if leader == NONE && self.best(number) != NONE {
            self.lead(pictures, number);
        } else {
            if self.leads(number) {
                self.step_down(pictures, number);
            }
            self.follow(number, leader);
        }
    }

    fn follow(&mut self, number: u32, leader: u32) {
        if std::mem::replace(&mut self.fingerprints[number as usize].leader, leader) != leader {
            self.changed.push(number);
        }
    }

    /// Makes a fingerprint a leader: members of leaders that come after it are its own now, and those leaders are no longer.
    fn lead(&mut self, pictures: &Pictures, number: u32) {
        if !self.leads(number) {
            self.index.shift(number, Part::Leaders);
            self.follow(number, number);
        }
        let best = self.best(number);
        let (mut members, mut leaders) = (Vec::new(), Vec::new());
        self.each_within(Part::Members, number, |member| {
            let former = self.leader_of(member);
            if former == NONE || pictures.before(best, self.best(former)) {
                members.push(member);
            }
        });
        self.each_within(Part::Leaders, number, |leader| leaders.push(leader));
        members.into_iter().for_each(|member| self.follow(member, number));
        leaders.into_iter().for_each(|leader| self.enqueue(pictures, leader));
    }

    /// Ends a leader's lead: it and its members have none for now.
    fn step_down(&mut self, pictures: &Pictures, number: u32) {
        let mut members = Vec::new();
        self.each_member(number, |member| members.push(member));
        members.into_iter().for_each(|member| self.enqueue(pictures, member));
        self.index.shift(number, Part::Members);
        self.fingerprints[number as usize].leader = NONE;
    }
}
