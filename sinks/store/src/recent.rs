//! A set of keys that forgets the oldest.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys remembered, at most, twice over.
const REMEMBERED_MAX: usize = 8_192;

/// Nothing under the lock panics.
pub fn lock(recent: &Mutex<Recent>) -> MutexGuard<'_, Recent> {
    recent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keys added last: when the newer set is full, the older one is forgotten.
#[derive(Default)]
pub struct Recent {
    newer: HashSet<String>,
    older: HashSet<String>,
}

impl Recent {
    pub fn holds(&self, key: &str) -> bool {
        self.newer.contains(key) || self.older.contains(key)
    }

    pub fn forget(&mut self, key: &str) {
        self.newer.remove(key);
        self.older.remove(key);
    }

    pub fn add(&mut self, key: String) {
        if self.newer.len() >= REMEMBERED_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_remembered_are_bounded() {
        let mut recent = Recent::default();
        for n in 0..3 * REMEMBERED_MAX {
            recent.add(n.to_string());
        }
        assert!(recent.newer.len() + recent.older.len() <= 2 * REMEMBERED_MAX);
        assert!(recent.holds(&(3 * REMEMBERED_MAX - 1).to_string()) && !recent.holds("0"));
        recent.forget(&(3 * REMEMBERED_MAX - 1).to_string());
        assert!(!recent.holds(&(3 * REMEMBERED_MAX - 1).to_string()));
    }
}
