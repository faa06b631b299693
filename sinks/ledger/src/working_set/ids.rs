//! Numbers of new rows, assigned in memory.
//!
//! A file has one writer, which goes on after the highest number. On a server each writer takes whole blocks of numbers from a
//! sequence. Numbers of facts that were refused are given out again; numbers of a group that failed are never used.

use std::collections::VecDeque;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The numbers of one table.
#[derive(Default)]
pub(crate) struct Ids {
    free: VecDeque<Range<i64>>,
    /// Given back by refused facts; the next one first.
    spare: Vec<i64>,
    /// Given out for the current fact.
    fact: Vec<i64>,
    /// Given out for the facts of this group that stand, as runs.
    used: IdRanges,
}

/// Numbers as ranges: the first of each, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdRanges(pub Vec<(i64, i64)>);

impl IdRanges {
    fn push(&mut self, id: i64) {
        match self.0.last_mut() {
            Some((first, count)) if *first + *count == id => *count += 1,
            _ => self.0.push((id, 1)),
        }
    }
}

impl Ids {
    /// More numbers to give out.
    pub fn extend(&mut self, free: Range<i64>) {
        self.free.push_back(free);
    }

    /// Exactly the numbers that a group gave out.
    pub fn replay(runs: &IdRanges) -> Self {
        let free = runs.0.iter().map(|(first, count)| *first..*first + *count).collect();
        Self { free, ..Self::default() }
    }

    /// The next number; `None` where more are needed.
    pub fn next(&mut self) -> Option<i64> {
        let id = match self.spare.pop() {
            Some(id) => Some(id),
            None => {
                while self.free.front().is_some_and(Range::is_empty) {
                    self.free.pop_front();
                }
                self.free.front_mut()?.next()
            }
        };
        self.fact.extend(id);
        id
    }

    pub fn accept(&mut self) {
        for id in self.fact.drain(..) {
            self.used.push(id);
        }
    }

    pub fn undo(&mut self) {
        self.spare.extend(self.fact.drain(..).rev());
    }

    /// The group failed: what it was given is never used.
    pub fn abandon(&mut self) {
        self.fact.clear();
        self.used = IdRanges::default();
    }

    /// What was given out since this was asked last.
    pub fn take_used(&mut self) -> IdRanges {
        std::mem::take(&mut self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_facts_give_their_numbers_back_and_a_replay_gives_out_the_same() {
        let mut ids = Ids::default();
        ids.extend(5..7);
        assert_eq!((ids.next(), ids.next(), ids.next()), (Some(5), Some(6), None));
        ids.undo();
        ids.extend(20..100);
        let given: Vec<_> = (0..4).filter_map(|_| ids.next()).collect();
        assert_eq!(given, [5, 6, 20, 21]);
        ids.accept();
        assert_eq!(ids.next(), Some(22));
        ids.undo();
        let used = ids.take_used();
        assert_eq!(used, IdRanges(vec![(5, 2), (20, 2)]));
        let mut replayed = Ids::replay(&used);
        assert_eq!((0..4).filter_map(|_| replayed.next()).collect::<Vec<_>>(), given);
        assert_eq!((replayed.next(), ids.next()), (None, Some(22)));
    }
}
