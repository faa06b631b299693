//! What the report counts, block by block: sums over the rows whose numbers are close together.
//!
//! When something happened to a row, its block is counted anew and the totals follow, so that bringing them up to date costs what
//! changed and not what there is. A block is a few bytes, and one in which nothing failed and no face was found is none at all.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use faceflow_ledger::EntryKind;
use faceflow_ledger::Status;

/// Rows of a block.
pub const BLOCK: i64 = 1_024;
/// Kinds of failure told apart; reasons are words of ours, so there are far fewer.
const FAILURES_MAX: usize = 200;

/// The table that a block is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Entries,
    Pictures,
}

/// Blocks of tables.
pub type Blocks = Vec<(Table, i64)>;

/// One kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Failure {
    pub status: Status,
    pub kind: EntryKind,
    pub reason: String,
}

/// How often what failed.
#[derive(Default)]
pub struct Failures {
    /// Each kind with its total, by the number it has in blocks.
    kinds: Vec<(Failure, i64)>,
    numbers: HashMap<Failure, u16>,
    blocks: BTreeMap<(Table, i64), Vec<(u16, i64)>>,
}

impl Failures {
    /// These were counted in these blocks, and nothing else.
    pub fn replace(&mut self, table: Table, blocks: Range<i64>, counted: Vec<(i64, Failure, i64)>) {
        let old: Vec<_> = self.blocks.range((table, blocks.start)..(table, blocks.end)).map(|(at, _)| *at).collect();
        for (number, count) in old.into_iter().filter_map(|at| self.blocks.remove(&at)).flatten() {
            self.kinds[usize::from(number)].1 -= count;
        }
        for (block, failure, count) in counted {
            let number = self.number(failure);
            self.kinds[usize::from(number)].1 += count;
            let of_block = self.blocks.entry((table, block)).or_default();
            match of_block.iter_mut().find(|(known, _)| *known == number) {
                Some((_, known)) => *known += count,
                None => of_block.push((number, count)),
            }
        }
    }

    fn number(&mut self, mut failure: Failure) -> u16 {
        if self.kinds.len() >= FAILURES_MAX && !self.numbers.contains_key(&failure) {
            failure.reason = "other".to_owned();
        }
        let (kinds, next) = (&mut self.kinds, self.numbers.len() as u16);
        *self.numbers.entry(failure).or_insert_with_key(|failure| {
            kinds.push((failure.clone(), 0));
            next
        })
    }

    /// Each kind that there is any of, in order, with how often and the first blocks that have `examples` of it, if so many.
    pub fn kinds(&self, examples: i64) -> Vec<(&Failure, i64, Blocks)> {
        let mut places: Vec<(Blocks, i64)> = vec![(vec![], 0); self.kinds.len()];
        for (at, counts) in &self.blocks {
            for (number, count) in counts {
                let (blocks, found) = &mut places[usize::from(*number)];
                if *found < examples {
                    blocks.push(*at);
                    *found += count;
                }
            }
        }
        let kinds = self.kinds.iter().zip(places).filter(|((_, count), _)| *count > 0);
        let mut kinds: Vec<_> = kinds.map(|((failure, count), (blocks, _))| (failure, *count, blocks)).collect();
        kinds.sort_unstable_by_key(|(failure, ..)| *failure);
        kinds
    }
}

/// Faces, and pictures that have any.
#[derive(Default)]
pub struct Faces {
    blocks: BTreeMap<i64, (i64, i64)>,
    pub faces: i64,
    pub pictures: i64,
}

impl Faces {
    /// So many faces in so many pictures were counted in these blocks, and no others.
    pub fn replace(&mut self, blocks: Range<i64>, counted: Vec<(i64, (i64, i64))>) {
        let old: Vec<i64> = self.blocks.range(blocks).map(|(block, _)| *block).collect();
        for (faces, pictures) in old.into_iter().filter_map(|block| self.blocks.remove(&block)) {
            self.faces -= faces;
            self.pictures -= pictures;
        }
        for (block, (faces, pictures)) in counted.into_iter().filter(|(_, (faces, _))| *faces > 0) {
            self.faces += faces;
            self.pictures += pictures;
            self.blocks.insert(block, (faces, pictures));
        }
    }
}

/// A picture that may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub faces: i64,
    /// Its main URL, and that entry's number.
    pub url: String,
    pub main: i64,
    pub picture: i64,
}

/// The pictures with the most faces, then by URL, and as many again for when some of them are no longer so.
pub struct Best {
    shown_max: usize,
    /// In order.
    candidates: Vec<Candidate>,
    /// The best that was ever left out: others may be behind it.
    beyond: Option<Candidate>,
}

fn before(one: &Candidate, other: &Candidate) -> std::cmp::Ordering {
    other.faces.cmp(&one.faces).then_with(|| one.url.cmp(&other.url))
}

impl Best {
    pub fn new(shown_max: usize) -> Self {
        Self { shown_max, candidates: vec![], beyond: None }
    }

    /// How many are kept, and how many of a range have to be known.
    pub fn kept_max(&self) -> usize {
        2 * self.shown_max
    }

    /// These are the best of these blocks, [`Best::kept_max`] of them if there are so many.
    pub fn replace(&mut self, blocks: Range<i64>, best: Vec<Candidate>) {
        let (first, last) = (blocks.start * BLOCK, blocks.end * BLOCK);
        self.candidates.retain(|known| !(first..last).contains(&known.picture));
        if best.len() >= self.kept_max() {
            self.leave_out(best.last().cloned());
        }
        self.candidates.extend(best);
        self.candidates.sort_unstable_by(before);
        if self.candidates.len() > self.kept_max() {
            let left = self.candidates.drain(self.kept_max()..).next();
            self.leave_out(left);
        }
    }

    fn leave_out(&mut self, left: Option<Candidate>) {
        self.beyond = [self.beyond.take(), left].into_iter().flatten().min_by(before);
    }

    /// Those to show, or nothing if some that were left out may belong among them: then all blocks have to be read again.
    pub fn shown(&self) -> Option<&[Candidate]> {
        let certain = match &self.beyond {
            Some(beyond) => self.candidates.partition_point(|known| before(known, beyond).is_le()),
            None => self.candidates.len(),
        };
        let shown = self.shown_max.min(self.candidates.len());
        (self.beyond.is_none() || certain >= self.shown_max).then(|| &self.candidates[..shown])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(picture: i64, faces: i64) -> Candidate {
        Candidate { faces, url: format!("http://a.example/{picture:04}"), main: picture, picture }
    }

    /// Random changes; the best must be those that sorting everything would give, or say that they are not known.
    #[test]
    fn the_best_are_those_of_all_pictures_or_not_known() {
        let mut seed = 7_u64;
        let mut dice = |sides: i64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 33) as i64).rem_euclid(sides)
        };
        let mut all: BTreeMap<i64, i64> = (0..40_000).step_by(97).map(|picture| (picture, dice(9))).collect();
        let (mut best, mut read_again) = (Best::new(5), 0);
        let of_blocks = |all: &BTreeMap<i64, i64>, blocks: Range<i64>, max: usize| {
            let range = all.range(blocks.start * BLOCK..blocks.end * BLOCK);
            let mut found: Vec<_> = range.map(|(picture, faces)| candidate(*picture, *faces)).collect();
            found.sort_by(before);
            found.truncate(max);
            found
        };
        best.replace(0..40, of_blocks(&all, 0..40, 10));
        for _ in 0..3_000 {
            let picture = dice(40_000);
            match dice(3) {
                0 => drop(all.insert(picture, dice(9))),
                _ => {
                    // What is shown goes most often.
                    let gone = best.shown().and_then(|shown| shown.first()).map_or(picture, |first| first.picture);
                    all.remove(&gone);
                    best.replace(gone / BLOCK..gone / BLOCK + 1, of_blocks(&all, gone / BLOCK..gone / BLOCK + 1, 10));
                }
            }
            best.replace(
                picture / BLOCK..picture / BLOCK + 1,
                of_blocks(&all, picture / BLOCK..picture / BLOCK + 1, 10),
            );
            if best.shown().is_none() {
                read_again += 1;
                best = Best::new(5);
                best.replace(0..40, of_blocks(&all, 0..40, 10));
            }
            assert_eq!(best.shown().expect("was just read"), of_blocks(&all, 0..40, 5));
            assert!(best.candidates.len() <= 10);
        }
        assert!((1..1_000).contains(&read_again), "{read_again}");
    }

    #[test]
    fn totals_follow_their_blocks() {
        let failure =
            |reason: &str| Failure { status: Status::Dead, kind: EntryKind::Image, reason: reason.to_owned() };
        let mut failures = Failures::default();
        failures.replace(Table::Entries, 0..3, vec![(0, failure("a"), 2), (2, failure("a"), 1), (2, failure("b"), 5)]);
        failures.replace(Table::Pictures, 0..1, vec![(0, failure("a"), 4)]);
        failures.replace(Table::Entries, 2..3, vec![(2, failure("a"), 3)]);
        let (entries, pictures) = (|n| (Table::Entries, n), (Table::Pictures, 0));
        let counted = |failures: &Failures, examples| {
            let kinds = failures.kinds(examples).into_iter();
            kinds.map(|(failure, count, blocks)| (failure.reason.clone(), count, blocks)).collect::<Vec<_>>()
        };
        assert_eq!(counted(&failures, 3), [("a".to_owned(), 9, vec![entries(0), entries(2)])]);
        assert_eq!(counted(&failures, 9), [("a".to_owned(), 9, vec![entries(0), entries(2), pictures])]);
        failures.replace(Table::Entries, 0..3, vec![]);
        assert_eq!(counted(&failures, 9), [("a".to_owned(), 4, vec![pictures])]);
        // More kinds than are told apart.
        let many = (0..500).map(|n| (7, failure(&n.to_string()), 1)).collect();
        failures.replace(Table::Entries, 7..8, many);
        let kinds = counted(&failures, 0);
        assert_eq!(kinds.iter().map(|(_, count, _)| count).sum::<i64>(), 504);
        assert!(kinds.len() <= FAILURES_MAX + 1, "{}", kinds.len());

        let mut faces = Faces::default();
        faces.replace(0..9, vec![(0, (3, 1)), (4, (0, 0)), (8, (5, 2))]);
        faces.replace(8..9, vec![(8, (4, 2))]);
        assert_eq!((faces.faces, faces.pictures, faces.blocks.len()), (7, 3, 2));
    }
}
