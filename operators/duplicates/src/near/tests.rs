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
        for (name, (fresh, near, flips, side, fate)) in (0..).zip(seeds) {
            let alone = set.pictures.is_empty() || fresh % 4 == 0;
            let earlier = |set: &Set| hash_of(&set.pictures[near % set.pictures.len()]).bits.as_u64();
            let base = if alone { fresh } else { earlier(&set).expect("it has 64 bits") };
            let bits = flips.iter().fold(base, |bits, flip| bits ^ 1 << flip);
            let picture = content(name, side, PerceptualHash::dct64(bits, fate != 0));
            if fate >= 7 {
                set.mortal.insert(picture.id);
            }
            set.pictures.push(picture);
        }
        set
    })
}

/// Who stands for whom at the end, by brute force: for each picture that is not itself detected.
fn reference(set: &Set) -> BTreeMap<ContentId, ContentId> {
    let related = |one: &Content, other: &Content| {
        hash_of(one).distinctive && hash_of(other).distinctive && bits_between(one, other) <= RADIUS
    };
    let mut label: Vec<usize> = (0..set.pictures.len()).collect();
    for _ in 0..set.pictures.len() {
        for one in 0..set.pictures.len() {
            for other in 0..set.pictures.len() {
                if related(&set.pictures[one], &set.pictures[other]) {
                    label[one] = label[one].min(label[other]);
                }
            }
        }
    }
    let mut assigned = BTreeMap::new();
    for group in 0..set.pictures.len() {
        let mut members: Vec<_> = set.pictures.iter().zip(&label).filter(|(_, at)| **at == group).collect();
        members.sort_by_key(|(picture, _)| (std::cmp::Reverse(picture.width), picture.id));
        let alive = members.iter().position(|(picture, _)| !set.mortal.contains(&picture.id));
        for (picture, _) in alive.map_or(&[][..], |alive| &members[alive + 1..]) {
            assigned.insert(picture.id, members[alive.expect("there are members below it")].0.id);
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
}

impl<'a> World<'a> {
    fn new(set: &'a Set) -> Self {
        let (ended, assigned) = (BTreeMap::new(), BTreeMap::new());
        Self { set, groups: groups(), arrived: vec![], trying: vec![], ended, assigned }
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
                    assert_eq!(
                        self.ended.get(&representative),
                        Some(&DetectionOutcome::Done),
                        "assigned before it succeeded"
                    );
                    let before = self.assigned.insert(picture, representative);
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
        let unwritten: BTreeSet<_> = self.assigned.keys().copied().skip(pick % 4).take(pick % 3).collect();
        self.assigned.retain(|picture, _| !unwritten.contains(picture));
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
        }
        order.for_each(|picture| world.arrive(picture));
        prop_assert_eq!(world.finish(), reference(&set));
    }
}

/// A group of three in its order: `big`, `middle` and `small`.
fn three() -> [Content; 3] {
    [content(1, 30, sharp(0b000)), content(2, 20, sharp(0b111)), content(3, 10, sharp(0b11_1111))]
}

fn assigned(picture: &Content, representative: &Content) -> DedupeDecision {
    let distance = bits_between(picture, representative);
    DedupeDecision::Assigned(DuplicateAssignment { picture: picture.id, representative: representative.id, distance })
}

#[test]
fn a_better_copy_takes_over_once_it_is_done_and_a_bridge_joins_two_groups() {
    let [big, middle, small] = three();
    let mut groups = groups();
    groups.add(&small);
    assert_eq!(groups.decide(small.id), [DedupeDecision::Detect(small.id)]);
    assert_eq!(groups.decide(small.id), [], "it is being tried");
    groups.outcome(&small, DetectionOutcome::Done);
    assert_eq!(groups.decide(small.id), [], "it stands for itself without a word");
    groups.add(&big);
    assert_eq!(groups.decide(big.id), [DedupeDecision::Detect(big.id)], "6 bits apart: a group of its own");
    groups.add(&middle);
    assert_eq!(groups.decide(middle.id), [], "old rulings status while the best is tried");
    groups.outcome(&big, DetectionOutcome::Done);
    let decisions = groups.decide(big.id);
    assert_eq!(decisions.len(), 2);
    assert!(decisions.contains(&assigned(&middle, &big)) && decisions.contains(&assigned(&small, &big)));
    assert_eq!(groups.decide(small.id), []);
}

#[test]
fn a_twin_takes_the_place_of_the_dead() {
    let [big, middle, small] = three();
    let mut groups = groups();
    [&small, &middle, &big].into_iter().for_each(|picture| groups.add(picture));
    assert_eq!(groups.decide(small.id), [DedupeDecision::Detect(big.id)]);
    groups.outcome(&big, DetectionOutcome::Dead);
    assert_eq!(groups.decide(big.id), [DedupeDecision::Detect(middle.id)]);
    groups.outcome(&middle, DetectionOutcome::Done);
    assert_eq!(groups.decide(middle.id), [assigned(&small, &middle)], "the dead get no assignment");
    let represented = [&big, &middle, &small].map(|picture| groups.is_represented(picture.id));
    assert_eq!(represented, [true, false, true], "whoever is left behind will not be looked at");
}

#[test]
fn the_best_picture_has_the_most_pixels() {
    let (wide, square) = (content(1, 30, sharp(7)), Content { height: 10, ..content(2, 10, sharp(7)) });
    let mut groups = groups();
    [&wide, &square].into_iter().for_each(|picture| groups.add(picture));
    assert_eq!(groups.decide(wide.id), [DedupeDecision::Detect(square.id)], "100 are more than 30");
}

#[test]
fn a_group_has_two_members_or_more() {
    let [big, middle, _] = three();
    let mut pictures = groups();
    pictures.add(&big);
    assert!(pictures.groups.is_empty(), "a picture is no relative of itself");
    pictures.add(&middle);
    assert_eq!(pictures.groups.iter().map(|group| group.members.len()).collect::<Vec<_>>(), [2]);
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
fn a_picture_whose_representative_is_gone_stands_for_itself_again() {
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
    assert_eq!((groups.len(), groups.index.len()), (100_000, 1));
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
