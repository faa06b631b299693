//! Sequence numbers of a site in ascending order, of which there may be very many: those at the front are in memory.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::TransactionError;

/// Numbers read at a time.
pub(super) const WINDOW: usize = 256;

/// The numbers of every site that was asked about.
#[derive(Default)]
pub(super) struct Sequences {
    sites: HashMap<i64, SiteWindow>,
    undo: Vec<(i64, i64, Step)>,
}

#[derive(Clone, Copy)]
enum Step {
    Added,
    Removed,
}

struct SiteWindow {
    /// Those that are there, as far as the database was read, and new ones.
    here: BTreeSet<i64>,
    /// Those that the database still has and that are gone.
    gone: HashSet<i64>,
    /// How far the database was read.
    read: i64,
    /// Whether it has more after that.
    more: bool,
}

impl Sequences {
    /// A site that the database has nothing of.
    pub fn begin(&mut self, site: i64) {
        self.numbers(site).more = false;
    }

    /// Whether something is known of a site.
    pub fn knows(&self, site: i64) -> bool {
        self.sites.contains_key(&site)
    }

    fn numbers(&mut self, site: i64) -> &mut SiteWindow {
        let unread = || SiteWindow { here: BTreeSet::new(), gone: HashSet::new(), read: i64::MIN, more: true };
        self.sites.entry(site).or_insert_with(unread)
    }

    /// A number is there from now on. Those of a site grow.
    pub fn add(&mut self, site: i64, number: i64) {
        self.numbers(site).here.insert(number);
        self.undo.push((site, number, Step::Added));
    }

    /// A number is there no more.
    pub fn remove(&mut self, site: i64, number: i64) {
        let numbers = self.numbers(site);
        numbers.here.remove(&number);
        numbers.gone.insert(number);
        self.undo.push((site, number, Step::Removed));
    }

    /// Takes in what the database has after `after`: as many as asked for, or all.
    pub fn loaded(&mut self, site: i64, found: &[i64]) {
        let numbers = self.numbers(site);
        numbers.more = found.len() >= WINDOW;
        numbers.read = found.last().copied().unwrap_or(numbers.read).max(numbers.read);
        let SiteWindow { here, gone, .. } = numbers;
        here.extend(found.iter().filter(|number| !gone.contains(number)));
    }

    /// The first number; `read` reads what the database has of a site after a number, ascending, at most [`WINDOW`].
    pub fn first(
        &mut self,
        site: i64,
        mut read: impl FnMut(i64) -> Result<Vec<i64>, TransactionError>,
    ) -> Result<Option<i64>, TransactionError> {
        loop {
            let numbers = self.numbers(site);
            let first = numbers.here.first().copied();
            if !numbers.more || first.is_some_and(|first| first <= numbers.read) {
                return Ok(first);
            }
            let found = read(numbers.read)?;
            self.loaded(site, &found);
        }
    }

    /// The current fact stands.
    pub fn accept(&mut self) {
        self.undo.clear();
    }

    /// The current fact is refused.
    pub fn undo(&mut self) {
        for (site, number, step) in std::mem::take(&mut self.undo).into_iter().rev() {
            let numbers = self.numbers(site);
            match step {
                Step::Added => {
                    numbers.here.remove(&number);
                }
                Step::Removed => {
                    numbers.gone.remove(&number);
                    numbers.here.insert(number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(sequences: &mut Sequences, stored: &[i64]) -> Option<i64> {
        let read = |after| Ok(stored.iter().copied().filter(|number| *number > after).take(WINDOW).collect());
        sequences.first(7, read).expect("reads")
    }

    #[test]
    fn the_first_number_is_that_of_a_plain_set() {
        let stored: Vec<i64> = (0..1_000).collect();
        let mut sequences = Sequences::default();
        for number in 0..1_000 {
            assert_eq!(first(&mut sequences, &stored), Some(number));
            if number == 300 {
                sequences.add(7, 5_000);
                sequences.accept();
            }
            sequences.remove(7, number);
            sequences.undo();
            assert_eq!(first(&mut sequences, &stored), Some(number), "it was refused");
            sequences.remove(7, number);
            sequences.accept();
        }
        assert_eq!(first(&mut sequences, &stored), Some(5_000));
        sequences.remove(7, 5_000);
        assert_eq!(first(&mut sequences, &stored), None);
    }

    #[test]
    fn what_is_removed_before_it_is_read_is_gone() {
        let mut sequences = Sequences::default();
        sequences.remove(7, 1);
        sequences.add(7, 9);
        assert_eq!(first(&mut sequences, &[1, 2]), Some(2));
        sequences.remove(7, 2);
        assert_eq!(first(&mut sequences, &[1, 2]), Some(9));
        let mut none = Sequences::default();
        none.begin(7);
        assert_eq!(first(&mut none, &[1]), None, "nothing of a new site is read");
    }
}
