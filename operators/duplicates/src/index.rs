//! A dictionary of 64-bit hashes that finds everything within a Hamming radius.
//!
//! Multi-index hashing (M. Norouzi, A. Punjani, D. Fleet, *Fast Exact Search in Hamming Space with Multi-Index Hashing*,
//! TPAMI 2014): hashes are cut into four words of 16 bits; two hashes within the radius agree closely in at least one of
//! them, so only hashes that do are compared, and first by what is known of them where they are found: memory is read in order,
//! and few of them are looked up. Promise: the answer is exactly that of comparing with all of them.

/// Words that a hash is cut into.
const WORDS: u32 = 4;
/// Bits of a word.
const WORD_BITS: u32 = 16;
/// The largest radius an index can be built for.
pub const RADIUS_MAX: u32 = 16;

/// Which part of the hashes is meant: those of leaders, or the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Hashes that lead others, or could.
    Leaders,
    /// Hashes that do not.
    Members,
}

/// Different hashes, numbered as they come, each in one of two parts that are searched apart.
///
/// Equal hashes are one entry, so a hash that half of the web shares costs as much as any other.
pub struct HammingIndex {
    radius: u32,
    /// How many bits a word may be off, per word, for a hash to be compared; `None`: this word need not be looked at.
    reach: [Option<u32>; WORDS as usize],
    hashes: Vec<u64>,
    /// Entries by word number and word; empty until the first insertion.
    buckets: Vec<Bucket>,
}

/// Entries that share a word, each below the two words of its hash that follow: leaders first, so that they are found without
/// looking at members.
#[derive(Clone, Default)]
struct Bucket {
    entries: Vec<u64>,
    leaders: u32,
}

impl Bucket {
    fn part(&self, part: Part) -> &[u64] {
        let (leaders, members) = self.entries.split_at(self.leaders as usize);
        match part {
            Part::Leaders => leaders,
            Part::Members => members,
        }
    }

    /// Moves an entry from the other part to this one.
    fn shift(&mut self, entry: u64, to: Part) {
        let from = if to == Part::Leaders { self.leaders as usize } else { 0 };
        let at = self.entries[from..].iter().position(|other| *other == entry).expect("it is in the other part") + from;
        if to == Part::Leaders {
            self.leaders += 1;
        }
        // The border between the parts is now on one side of the entry or the other.
        self.entries.swap(at, self.leaders as usize - 1);
        if to == Part::Members {
            self.leaders -= 1;
        }
    }
}

impl HammingIndex {
    /// An empty index for distances up to `radius` bits, at most [`RADIUS_MAX`].
    pub fn new(radius: u32) -> Self {
        assert!(radius <= RADIUS_MAX, "the radius is checked with the settings");
        // With radius = 4 q + a, hashes within it differ by at most q bits in one of the first a + 1 words, or else by at
        // most q - 1 in one of the others (ibid., section 3.1).
        let (q, a) = (radius / WORDS, radius % WORDS);
        let reach = std::array::from_fn(|word| if word as u32 <= a { Some(q) } else { q.checked_sub(1) });
        Self { radius, reach, hashes: Vec::new(), buckets: Vec::new() }
    }

    /// The largest distance that counts as near.
    pub fn radius(&self) -> u32 {
        self.radius
    }

    /// Different hashes in the index.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether nothing has been inserted.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The bits between two hashes, by their numbers.
    pub fn distance(&self, one: u32, other: u32) -> u32 {
        (self.hashes[one as usize] ^ self.hashes[other as usize]).count_ones()
    }

    /// The number of a hash; one that is new is entered, as a member.
    pub fn insert(&mut self, hash: u64) -> u32 {
        if self.buckets.is_empty() {
            self.buckets = vec![Bucket::default(); (WORDS << WORD_BITS) as usize];
        }
        let homes = homes_of(hash);
        let shortest = homes.into_iter().min_by_key(|&home| self.buckets[home].entries.len()).expect("there are four");
        let beside = following(hash, (shortest >> WORD_BITS) as u32);
        let equal = |found: &&u64| (**found >> 32) as u32 == beside && self.hashes[entry_of(**found)] == hash;
        if let Some(&found) = self.buckets[shortest].entries.iter().find(equal) {
            return found as u32;
        }
        let entry = u32::try_from(self.hashes.len()).expect("there are fewer hashes than ids");
        self.hashes.push(hash);
        for (word, home) in (0..).zip(homes) {
            self.buckets[home].entries.push(stored(hash, word, entry));
        }
        entry
    }

    /// Moves a hash to this part from the other one, in which it must be.
    pub fn shift(&mut self, entry: u32, to: Part) {
        let hash = self.hashes[entry as usize];
        for (word, home) in (0..).zip(homes_of(hash)) {
            self.buckets[home].shift(stored(hash, word, entry), to);
        }
    }

    /// Calls `found` with the number of every hash of a part within the radius of another, itself included, some more than once.
    pub fn each_within(&self, part: Part, entry: u32, mut found: impl FnMut(u32)) {
        let hash = self.hashes[entry as usize];
        for word in 0..WORDS {
            let Some(reach) = self.reach[word as usize] else { continue };
            let (centre, beside) = (word_of(hash, word), following(hash, word));
            each_near(centre, reach, WORD_BITS, &mut |near| {
                for &candidate in self.buckets[bucket(word, near)].part(part) {
                    if ((candidate >> 32) as u32 ^ beside).count_ones() > self.radius {
                        continue;
                    }
                    if (self.hashes[entry_of(candidate)] ^ hash).count_ones() <= self.radius {
                        found(candidate as u32);
                    }
                }
            });
        }
    }
}

/// The buckets of a hash.
fn homes_of(hash: u64) -> [usize; WORDS as usize] {
    std::array::from_fn(|word| bucket(word as u32, word_of(hash, word as u32)))
}

/// What the bucket of a word holds of a hash.
fn stored(hash: u64, word: u32, entry: u32) -> u64 {
    u64::from(following(hash, word)) << 32 | u64::from(entry)
}

fn word_of(hash: u64, word: u32) -> u32 {
    (hash >> (WORD_BITS * word)) as u32 & ((1 << WORD_BITS) - 1)
}

/// The two words that follow a word, the first one after the last.
fn following(hash: u64, word: u32) -> u32 {
    hash.rotate_right(WORD_BITS * (word + 1)) as u32
}

/// The entry of what a bucket holds.
fn entry_of(found: u64) -> usize {
    found as u32 as usize
}

fn bucket(word: u32, value: u32) -> usize {
    (word << WORD_BITS | value) as usize
}

/// Calls `each` with every word that differs from `word` in at most `reach` of its lowest `bits` bits.
fn each_near(word: u32, reach: u32, bits: u32, each: &mut impl FnMut(u32)) {
    each(word);
    if reach > 0 {
        (0..bits).for_each(|bit| each_near(word ^ 1 << bit, reach - 1, bit, each));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Hashes in clumps: each differs from an earlier one by a few bits, or is new.
    fn clumps() -> impl Strategy<Value = Vec<u64>> {
        let flips = prop::collection::vec(0_u32..64, 0..20);
        prop::collection::vec((any::<u64>(), any::<prop::sample::Index>(), flips), 1..60).prop_map(|seeds| {
            let mut hashes: Vec<u64> = Vec::new();
            for (fresh, index, flips) in seeds {
                let base = if hashes.is_empty() || fresh % 4 == 0 { fresh } else { hashes[index.index(hashes.len())] };
                hashes.push(flips.iter().fold(base, |hash, bit| hash ^ 1 << bit));
            }
            hashes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn answers_equal_brute_force(
            hashes in clumps(),
            shifts in prop::collection::vec(any::<prop::sample::Index>(), 60),
            radius in 0..=RADIUS_MAX,
        ) {
            let mut index = HammingIndex::new(radius);
            let (mut entered, mut leads): (Vec<u64>, Vec<bool>) = (vec![], vec![]);
            for (&hash, shift) in hashes.iter().zip(shifts) {
                let known = entered.iter().position(|entry| *entry == hash);
                let number = index.insert(hash);
                prop_assert_eq!(number as usize, known.unwrap_or(entered.len()));
                if known.is_none() {
                    entered.push(hash);
                    leads.push(false);
                }
                let shifted = shift.index(entered.len());
                leads[shifted] = !leads[shifted];
                index.shift(shifted as u32, if leads[shifted] { Part::Leaders } else { Part::Members });
                for part in [Part::Leaders, Part::Members] {
                    let near = |n: &u32| (entered[*n as usize] ^ hash).count_ones() <= radius;
                    let of_part = |n: &u32| leads[*n as usize] == (part == Part::Leaders);
                    let expected: Vec<u32> = (0..entered.len() as u32).filter(near).filter(of_part).collect();
                    let mut within = vec![];
                    index.each_within(part, number, |n| within.push(n));
                    within.sort_unstable();
                    within.dedup();
                    prop_assert_eq!(within, expected);
                }
                prop_assert_eq!(index.distance(number, shifted as u32), (hash ^ entered[shifted]).count_ones());
            }
            prop_assert_eq!(index.len(), entered.len());
        }
    }

    /// Whatever these gave, answers would be right, but hashes would not be spread.
    #[test]
    fn a_hash_has_four_words_each_in_a_bucket_of_its_own() {
        let hash = 0x4444_3333_2222_8111;
        assert_eq!([0, 1, 2, 3].map(|word| word_of(hash, word)), [0x8111, 0x2222, 0x3333, 0x4444]);
        let beside = [0x3333_2222, 0x4444_3333, 0x8111_4444, 0x2222_8111];
        assert_eq!([0, 1, 2, 3].map(|word| following(hash, word)), beside);
        assert_eq!((bucket(0, 0x8111), bucket(3, 0x4444)), (0x0_8111, 0x3_4444));
        let mut index = HammingIndex::new(4);
        assert!(index.is_empty());
        assert_eq!(index.insert(hash), 0);
        assert!(!index.is_empty());
    }

    #[test]
    fn words_within_reach_are_each_visited_once() {
        for (reach, count) in [(0, 1), (1, 17), (2, 137), (4, 2517)] {
            let mut seen = Vec::new();
            each_near(0xbeef, reach, WORD_BITS, &mut |word| seen.push(word));
            assert!(seen.iter().all(|word| (word ^ 0xbeef).count_ones() <= reach));
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), count, "binomial sums");
        }
    }
}
