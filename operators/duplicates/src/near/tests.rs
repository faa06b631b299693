//! The promise of [`NearDuplicates`], on random pictures, arrival orders, deaths and cuts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use faceflow_core::record::PerceptualHash;

use super::*;

const RADIUS: u32 = 4;

fn content(name: u32, side: u32, hash: PerceptualHash) -> Content {
    let id = ContentId::of(&name.to_le_bytes());
    Content { id, bytes: 1, format: "png".to_owned(), width: side, height: 1, hashes: hash.into() }
}

fn sharp(bits: u64) -> PerceptualHash {
    PerceptualHash::dct64(bits, true)
}

fn hash_of(content: &Content) -> &PerceptualHash {
    content.hashes.current(HashKind::Dct64).expect("it has one")
}

fn bits_between(one: &Content, other: &Content) -> u32 {
    hash_of(one).distance(hash_of(other)).expect("they are of one kind")
}

fn groups() -> NearDuplicates {
    NearDuplicates::new(&DedupeSettings { radius_bits: RADIUS, ..DedupeSettings::default() })
}

/// A set of pictures, some of which die when they are tried.
#[derive(Clone, Debug)]
struct Set {
    pictures: Vec<Content>,
    mortal: BTreeSet<ContentId>,
}

/// Pictures in clumps: a hash is new, or near that of an earlier picture; a few sizes, so that many are equal.
fn sets() -> impl Strategy<Value = Set> {
    let flips = prop::collection::vec(0_u32..64, 0..6);
    let one = (any::<u64>(), any::<usize>(), flips, 1_u32..4, 0_u8..10);
    prop::collection::vec(one, 1..24).prop_map(|seeds| {
        let mut set = Set { pictures: vec![], mortal: BTreeSet::new() };
        for (name, (fresh, near, flips, side, disposition)) in (0..).zip(seeds) {
            let alone = set.pictures.is_empty() || fresh % 4 == 0;
            let earlier = |set: &Set| hash_of(&set.pictures[near % set.pictures.len()]).bits.as_u64();
            let base = if alone { fresh } else { earlier(&set).expect("it has 64 bits") };
            let bits = flips.iter().fold(base, |bits, flip| bits ^ 1 << flip);
            let picture = content(name, side, PerceptualHash::dct64(bits, disposition != 0));
            if disposition >= 7 {
                set.mortal.insert(picture.id);
            }
            set.pictures.push(picture);
        }
        set
    })
}

/// Who leads whom at the end, by brute force: for each picture that is not itself detected.
fn reference(set: &Set) -> BTreeMap<ContentId, ContentId> {
    let within_reach = |one: &Content, other: &Content| {
        hash_of(one).distinctive && hash_of(other).distinctive && bits_between(one, other) <= RADIUS
    };
    let mut ranked: Vec<&Content> = set.pictures.iter().collect();
    ranked.sort_by_key(|picture| (std::cmp::Reverse(picture.width), picture.id));
    let (mut leaders, mut assigned) = (Vec::<&Content>::new(), BTreeMap::new());
    for picture in ranked {
        match leaders.iter().find(|leader| within_reach(picture, leader)) {
            Some(leader) => {
                assigned.insert(picture.id, leader.id);
            }
            None if set.mortal.contains(&picture.id) => {}
            None => leaders.push(picture),
        }
    }
    assigned
}

/// Groups with the world around them: detections under way and what the ledger holds.
struct World<'a> {
    set: &'a Set,
    groups: NearDuplicates,
    arrived: Vec<&'a Content>,
    trying: Vec<ContentId>,
    ended: BTreeMap<ContentId, DetectionOutcome>,
    assigned: BTreeMap<ContentId, ContentId>,
    /// What the last assignment of a picture took the place of.
    former: BTreeMap<ContentId, Option<ContentId>>,
}

impl<'a> World<'a> {
    fn new(set: &'a Set) -> Self {
        let (ended, assigned, former) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { set, groups: groups(), arrived: vec![], trying: vec![], ended, assigned, former }
    }

    fn arrive(&mut self, picture: &'a Content) {
        self.groups.add(picture);
        self.arrived.push(picture);
    }

    fn carry_out(&mut self, decisions: Vec<DedupeDecision>) {
        for decision in decisions {
            match decision {
                DedupeDecision::Detect(id) => {
                    assert!(!self.ended.contains_key(&id) && !self.trying.contains(&id), "{id} is detected twice");
                    self.trying.push(id);
                }
                DedupeDecision::Assigned(DuplicateAssignment { picture, representative, distance }) => {
                    let end = self.ended.get(&representative);
                    let own = picture == representative && end.is_some();
                    assert!(own || end == Some(&DetectionOutcome::Done), "{picture} is assigned to what has no answer");
                    let before = self.assigned.insert(picture, representative);
                    self.former.insert(picture, before);
                    assert_ne!(before.unwrap_or(picture), representative, "{picture} is assigned twice");
                    let content = |id| self.arrived.iter().find(|other| other.id == id).expect("it arrived");
                    assert_eq!(distance, bits_between(content(picture), content(representative)));
                }
            }
        }
    }

    fn settle(&mut self, pick: usize) {
        if !self.arrived.is_empty() {
            let decisions = self.groups.decide(self.arrived[pick % self.arrived.len()].id);
            self.carry_out(decisions);
        }
    }

    /// One detection ends.
    fn detect(&mut self, pick: usize) {
        if !self.trying.is_empty() {
            let id = self.trying.swap_remove(pick % self.trying.len());
            let outcome = if self.set.mortal.contains(&id) { DetectionOutcome::Dead } else { DetectionOutcome::Done };
            self.ended.insert(id, outcome);
            let content = self.set.pictures.iter().find(|picture| picture.id == id).expect("it is of the set");
            self.groups.outcome(content, outcome);
            let decisions = self.groups.decide(id);
            self.carry_out(decisions);
        }
    }

    /// The process dies. Some rulings were not written yet, and only every other detection under way has a retry
    /// scheduled; the next process learns the rest in another order.
    fn cut(&mut self, pick: usize) {
        let unwritten = std::mem::take(&mut self.former).into_iter().skip(pick % 4).take(pick % 3);
        for (picture, former) in unwritten {
            match former {
                Some(leader) => self.assigned.insert(picture, leader),
                None => self.assigned.remove(&picture),
            };
        }
        let mut scheduled = pick.is_multiple_of(2);
        self.trying.retain(|_| {
            scheduled = !scheduled;
            scheduled
        });
        let at = pick % self.arrived.len().max(1);
        self.arrived.rotate_left(at);
        self.groups = groups();
        for &picture in &self.arrived {
            let state = match self.ended.get(&picture.id) {
                Some(DetectionOutcome::Done) => State::Settled,
                Some(DetectionOutcome::Dead) => State::Dead,
                None => State::Open,
            };
            let retrying = self.trying.contains(&picture.id);
            let representative = self.assigned.get(&picture.id).copied();
            self.groups.load_known(KnownPicture {
                content: picture.clone(),
                state,
                retrying,
                has_degraded: false,
                generation: 0,
                representative,
            });
        }
        let decisions = self.groups.decide_all();
        self.carry_out(decisions);
    }

    /// The groups are those of the definition, for the pictures that came and are not known to be dead.
    fn check_groups(&self) {
        let dead = self.ended.iter().filter(|(_, outcome)| **outcome == DetectionOutcome::Dead);
        let now = Set {
            pictures: self.arrived.iter().map(|picture| (*picture).clone()).collect(),
            mortal: dead.map(|(id, _)| *id).collect(),
        };
        let expected = reference(&now);
        for picture in &now.pictures {
            let at = self.groups.pictures.position_of(picture.id).expect("it arrived");
            let leader = self.groups.leader_of(at).map(|leader| self.groups.pictures[leader].id);
            let own = (!now.mortal.contains(&picture.id)).then_some(picture.id);
            match expected.get(&picture.id).copied().or(own) {
                Some(expected) => assert_eq!(leader, Some(expected), "the leader of {}", picture.id),
                // A leader that comes after the dead does not lead it.
                None => assert!(leader.is_none_or(|leader| !expected.contains_key(&leader)), "{}", picture.id),
            }
        }
    }

    /// Everything that is owed happens. What the results will say: who is assigned to somebody else.
    fn finish(mut self) -> BTreeMap<ContentId, ContentId> {
        let decisions = self.groups.decide_all();
        self.carry_out(decisions);
        while !self.trying.is_empty() {
            self.detect(0);
        }
        assert_eq!(self.groups.decide_all(), [], "nothing is owed");
        self.assigned.retain(|picture, representative| picture != representative);
        self.assigned
    }
}

/// The pictures in an order that `seed` decides.
fn shuffled(set: &Set, seed: u64) -> Vec<&Content> {
    let mut order: Vec<&Content> = set.pictures.iter().collect();
    order.sort_by_key(|picture| ContentId::of(&[&picture.id.0[..], &seed.to_le_bytes()].concat()));
    order
}

proptest! {
    #[test]
    fn the_end_depends_on_the_set_alone(
        set in sets(),
        seed in any::<u64>(),
        steps in prop::collection::vec((0_u8..32, any::<usize>()), 0..100),
    ) {
        let mut world = World::new(&set);
        let mut order = shuffled(&set, seed).into_iter();
        for (step, pick) in steps {
            match step {
                0..12 => order.next().into_iter().for_each(|picture| world.arrive(picture)),
                12..20 => world.settle(pick),
                20..31 => world.detect(pick),
                _ => world.cut(pick),
            }
            world.check_groups();
        }
        order.for_each(|picture| world.arrive(picture));
        prop_assert_eq!(world.finish(), reference(&set));
    }
}

/// A chain of three in order of rank: `big` and `small` are within reach of `middle`, and out of reach of each other.
fn three() -> [Content; 3] {
    [content(1, 30, sharp(0b000)), content(2, 20, sharp(0b111)), content(3, 10, sharp(0b11_1111))]
}

fn assigned(picture: &Content, leader: &Content) -> DedupeDecision {
    let distance = bits_between(picture, leader);
    DedupeDecision::Assigned(DuplicateAssignment { picture: picture.id, representative: leader.id, distance })
}

#[test]
fn the_end_of_a_chain_is_detected_itself() {
    let [big, middle, small] = three();
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in orders {
        let mut groups = groups();
        order.into_iter().for_each(|n| groups.add([&big, &middle, &small][n]));
        let detected = groups.decide_all();
        assert_eq!(detected.len(), 2, "{order:?}");
        for leader in [&big, &small] {
            assert!(detected.contains(&DedupeDecision::Detect(leader.id)), "{order:?}");
            groups.outcome(leader, DetectionOutcome::Done);
        }
        assert_eq!(groups.decide(big.id), [assigned(&middle, &big)], "and nobody is given the faces of {order:?}");
        assert_eq!(groups.decide_all(), []);
    }
}

#[test]
fn a_member_follows_the_first_leader_within_reach_not_the_nearest() {
    let (first, nearer) = (content(1, 30, sharp(0b0000_0111)), content(2, 20, sharp(0b1111_0000)));
    let also = content(6, 10, sharp(0b0011_0001));
    assert_eq!((bits_between(&also, &first), bits_between(&also, &nearer)), (4, 3), "nearer to the second");
    let mut groups = groups();
    [&also, &nearer, &first].into_iter().for_each(|picture| groups.add(picture));
    groups.decide_all();
    groups.outcome(&nearer, DetectionOutcome::Done);
    assert_eq!(groups.decide(nearer.id), []);
    groups.outcome(&first, DetectionOutcome::Done);
    assert_eq!(groups.decide(first.id), [assigned(&also, &first)]);
}

#[test]
fn who_loses_its_leader_to_a_better_one_out_of_reach_is_detected_itself() {
    let [big, middle, small] = three();
    let mut groups = groups();
    [&middle, &small].into_iter().for_each(|picture| groups.add(picture));
    assert_eq!(groups.decide(small.id), [DedupeDecision::Detect(middle.id)]);
    groups.outcome(&middle, DetectionOutcome::Done);
    assert_eq!(groups.decide(middle.id), [assigned(&small, &middle)]);
    groups.add(&big);
    let decisions = groups.decide(big.id);
    assert_eq!(decisions, [DedupeDecision::Detect(big.id), DedupeDecision::Detect(small.id)]);
    groups.outcome(&small, DetectionOutcome::Done);
    assert_eq!(groups.decide(small.id), [assigned(&small, &small)], "it has faces of its own");
    groups.outcome(&big, DetectionOutcome::Done);
    assert_eq!(groups.decide(big.id), [assigned(&middle, &big)], "though it has an answer: this one is larger");
    assert_eq!(groups.decide_all(), []);
}

#[test]
fn who_loses_its_leader_and_fails_has_nobodys_faces() {
    let [big, middle, small] = three();
    let mut groups = groups();
    [&middle, &small].into_iter().for_each(|picture| groups.add(picture));
    groups.decide(small.id);
    groups.outcome(&middle, DetectionOutcome::Done);
    groups.decide(middle.id);
    groups.add(&big);
    groups.decide(big.id);
    groups.outcome(&small, DetectionOutcome::Dead);
    assert_eq!(groups.decide(small.id), [assigned(&small, &small)]);
    assert_eq!(groups.decide_all(), []);
}

#[test]
fn a_better_leader_that_dies_gives_back_what_it_took() {
    let [big, middle, small] = three();
    let mut groups = groups();
    [&middle, &small].into_iter().for_each(|picture| groups.add(picture));
    groups.decide(small.id);
    groups.add(&big);
    assert_eq!(groups.decide(big.id), [DedupeDecision::Detect(big.id), DedupeDecision::Detect(small.id)]);
    groups.outcome(&middle, DetectionOutcome::Done);
    assert_eq!(groups.decide(middle.id), [], "whose faces it has depends on the larger one");
    groups.outcome(&small, DetectionOutcome::Done);
    assert_eq!(groups.decide(small.id), []);
    groups.outcome(&big, DetectionOutcome::Dead);
    assert_eq!(groups.decide(big.id), [assigned(&small, &middle)], "the dead get no assignment");
    groups.outcome(&big, DetectionOutcome::Done);
    let decisions = groups.decide(big.id);
    assert_eq!(decisions.len(), 2, "it was driven again: {decisions:?}");
    assert!(decisions.contains(&assigned(&middle, &big)) && decisions.contains(&assigned(&small, &small)));
}

#[test]
fn the_best_picture_has_the_most_pixels() {
    let (wide, square) = (content(1, 30, sharp(7)), Content { height: 10, ..content(2, 10, sharp(7)) });
    let mut groups = groups();
    [&wide, &square].into_iter().for_each(|picture| groups.add(picture));
    assert_eq!(groups.decide(wide.id), [DedupeDecision::Detect(square.id)], "100 are more than 30");
}

#[test]
fn pictures_that_say_nothing_stay_alone() {
    let mut groups = groups();
    for name in 0..3 {
        let flat = content(name, 10, PerceptualHash::dct64(0, false));
        groups.add(&flat);
        assert_eq!(groups.decide(flat.id), [DedupeDecision::Detect(flat.id)]);
    }
}

#[test]
fn hashes_of_another_version_match_nothing() {
    let mut groups = groups();
    for name in 0..3 {
        let old = content(name, 10, PerceptualHash { version: 0, ..sharp(7) });
        groups.add(&old);
        assert_eq!(groups.decide(old.id), [DedupeDecision::Detect(old.id)]);
    }
}

#[test]
fn a_narrower_radius_gives_a_former_duplicate_its_own_say() {
    let [big, _, small] = three();
    let known = |content: &Content, state, representative| KnownPicture {
        content: content.clone(),
        state,
        retrying: false,
        representative,
        has_degraded: false,
        generation: 0,
    };
    let mut groups = groups();
    groups.load_known(known(&small, State::Open, Some(big.id)));
    groups.load_known(known(&big, State::Settled, None));
    assert_eq!(groups.decide_all(), [DedupeDecision::Detect(small.id)]);
    groups.outcome(&small, DetectionOutcome::Done);
    assert_eq!(groups.decide(small.id), [assigned(&small, &small)]);
}

#[test]
fn a_picture_whose_leader_is_gone_stands_for_itself_again() {
    let [big, _, small] = three();
    let mut groups = groups();
    assert!(groups.is_empty());
    groups.load_known(KnownPicture {
        content: small.clone(),
        state: State::Settled,
        retrying: false,
        representative: Some(big.id),
        has_degraded: false,
        generation: 1,
    });
    assert_eq!((groups.is_empty(), groups.len()), (false, 1));
    assert_eq!(groups.decide_all(), [assigned(&small, &small)]);
    assert_eq!(groups.decide_all(), [], "and is not told twice");
}

#[test]
fn what_another_run_took_in_may_be_detected_here() {
    let (small, big) = (content(1, 10, sharp(7)), content(2, 20, sharp(7)));
    let mut groups = groups();
    groups.add(&small);
    assert_eq!(groups.decide(small.id), [DedupeDecision::Detect(small.id)]);
    groups.outcome(&big, DetectionOutcome::Dead);
    assert_eq!(groups.decide(big.id), [], "the small one is being looked at");
    groups.outcome(&small, DetectionOutcome::Done);
    assert_eq!(groups.decide(small.id), []);
    groups.outcome(&big, DetectionOutcome::Done);
    assert_eq!(groups.decide(big.id), [assigned(&small, &big)], "it is larger");
}

#[test]
fn a_hundred_thousand_copies_cost_what_strangers_cost() {
    let mut groups = groups();
    let mut said = 0;
    for name in 0..100_000 {
        let copy = content(name, 200_000 - name, sharp(42));
        groups.add(&copy);
        said += groups.decide(copy.id).len();
    }
    assert_eq!(said, 1, "the first is the largest");
    let best = content(0, 200_000, sharp(42));
    groups.outcome(&best, DetectionOutcome::Done);
    assert_eq!(groups.decide(best.id).len(), 99_999);
    assert_eq!(groups.decide(best.id), []);
    assert_eq!((groups.len(), groups.leaders.len()), (100_000, 1));
}

#[test]
fn a_hundred_thousand_copies_each_larger_than_the_last_cost_no_more() {
    let mut groups = groups();
    let detected = (0..100_000).map(|name| {
        let copy = content(name, 1 + name, sharp(42));
        groups.add(&copy);
        groups.decide(copy.id).len()
    });
    assert_eq!(detected.sum::<usize>(), 100_000, "each is the best when its turn comes");
    let best = content(99_999, 100_000, sharp(42));
    groups.outcome(&best, DetectionOutcome::Done);
    assert_eq!(groups.decide(best.id).len(), 99_999);
}

#[test]
fn ids_that_begin_alike_are_told_apart() {
    let mut groups = groups();
    for name in 0..4 {
        let alike = Content {
            id: ContentId(std::array::from_fn(|at| if at < 8 { 7 } else { name })),
            ..content(0, 1, sharp(0))
        };
        let alone = Content { hashes: PerceptualHash::dct64(0, false).into(), ..alike };
        groups.add(&alone);
        groups.add(&alone);
        assert_eq!(groups.decide(alone.id), [DedupeDecision::Detect(alone.id)]);
    }
    assert_eq!(groups.len(), 4);
}
