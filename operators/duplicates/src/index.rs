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

/// Hashes with the ids that stand for them.
///
/// Equal hashes are one entry, so a hash that half of the web shares costs as much as any other.
pub struct HammingIndex {
    radius: u32,
    /// How many bits a word may be off, per word, for a hash to be compared; `None`: this word need not be looked at.
    reach: [Option<u32>; WORDS as usize],
    entries: Vec<u64>,
    ids: Vec<u32>,
    /// Entries by word number and word, each below the two words of its hash that follow; empty until the first insertion.
    buckets: Vec<Vec<u64>>,
}

impl HammingIndex {
    /// An empty index for distances up to `radius` bits, at most [`RADIUS_MAX`].
    pub fn new(radius: u32) -> Self {
        assert!(radius <= RADIUS_MAX, "the radius is checked with the settings");
        // With radius = 4 q + a, hashes within it differ by at most q bits in one of the first a + 1 words, or else by at
        // most q - 1 in one of the others (ibid., section 3.1).
        let (q, a) = (radius / WORDS, radius % WORDS);
        let reach = std::array::from_fn(|word| if word as u32 <= a { Some(q) } else { q.checked_sub(1) });
        Self { radius, reach, entries: Vec::new(), ids: Vec::new(), buckets: Vec::new() }
    }

    /// Different hashes in the index.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing has been inserted.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Enters a hash under `id`, unless an equal one is there already: then the id that stands for it is returned.
    pub fn insert(&mut self, id: u32, hash: u64) -> Option<u32> {
        if self.buckets.is_empty() {
            self.buckets = vec![Vec::new(); (WORDS << WORD_BITS) as usize];
        }
        let homes =
            std::array::from_fn::<_, { WORDS as usize }, _>(|word| bucket(word as u32, word_of(hash, word as u32)));
        let shortest = homes.into_iter().min_by_key(|&home| self.buckets[home].len()).expect("there are four words");
        let beside = following(hash, (shortest >> WORD_BITS) as u32);
        let equal = |found: &&u64| (**found >> 32) as u32 == beside && self.entries[entry_of(**found)] == hash;
        if let Some(&found) = self.buckets[shortest].iter().find(equal) {
            return Some(self.ids[entry_of(found)]);
        }
        let entry = u32::try_from(self.entries.len()).expect("there are fewer hashes than ids");
        self.entries.push(hash);
        self.ids.push(id);
        for (word, home) in (0..).zip(homes) {
            self.buckets[home].push(u64::from(following(hash, word)) << 32 | u64::from(entry));
        }
        None
    }

    /// Calls `found` with the id and the distance of every hash within the radius, some more than once.
    pub fn each_within(&self, hash: u64, mut found: impl FnMut(u32, u32)) {
        if self.is_empty() {
            return;
        }
        for word in 0..WORDS {
            let Some(reach) = self.reach[word as usize] else { continue };
            let (centre, beside) = (word_of(hash, word), following(hash, word));
            each_near(centre, reach, WORD_BITS, &mut |near| {
                for &candidate in &self.buckets[bucket(word, near)] {
                    if ((candidate >> 32) as u32 ^ beside).count_ones() > self.radius {
                        continue;
                    }
                    let distance = (self.entries[entry_of(candidate)] ^ hash).count_ones();
                    if distance <= self.radius {
                        found(self.ids[entry_of(candidate)], distance);
                    }
                }
            });
        }
    }

    /// The id and the distance of every hash within the radius, once each, by id.
    pub fn within(&self, hash: u64) -> Vec<(u32, u32)> {
        let mut all = Vec::new();
        self.each_within(hash, |id, distance| all.push((id, distance)));
        all.sort_unstable();
        all.dedup();
        all
    }
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
        fn answers_equal_brute_force(hashes in clumps(), radius in 0..=RADIUS_MAX) {
            let mut index = HammingIndex::new(radius);
            let mut entered: Vec<(u32, u64)> = Vec::new();
            for (id, &hash) in (0..).zip(&hashes) {
                let twin = entered.iter().find(|(_, entry)| *entry == hash).map(|(id, _)| *id);
                prop_assert_eq!(index.insert(id, hash), twin);
                if twin.is_none() {
                    entered.push((id, hash));
                }
                let distance = |entry: u64| (entry ^ hash).count_ones();
                let within = entered.iter().filter(|(_, entry)| distance(*entry) <= radius);
                let expected: Vec<_> = within.map(|&(id, entry)| (id, distance(entry))).collect();
                prop_assert_eq!(index.within(hash), expected);
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
        index.insert(1, hash);
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
