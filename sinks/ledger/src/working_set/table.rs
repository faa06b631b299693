//! Rows of one table in memory: what was read, what was changed, and how to take back what a refused fact changed.

use std::collections::HashMap;
use std::hash::Hash;

/// Rows by key. A key that was looked up and is not in the database is known to be absent.
pub(super) struct Table<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// Keys whose rows are to be written, in the order in which they were changed first.
    dirty: Vec<K>,
    /// How each slot was before the current fact, in the order in which the fact changed them.
    undo: Vec<(K, Before<V>)>,
    /// The number of the current fact, so that a slot is saved once for each.
    fact: u64,
}

struct Slot<V> {
    value: Option<V>,
    /// Whether the database has a row of this key.
    stored: bool,
    dirty: bool,
    fact: u64,
}

struct Before<V> {
    value: Option<V>,
    dirty: bool,
    /// Whether the key had a slot at all.
    known: bool,
}

/// What is to become of a row in the database.
pub(super) enum Write<'t, K, V> {
    Insert(&'t K, &'t V),
    Update(&'t K, &'t V),
    Delete(&'t K),
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { slots: HashMap::new(), dirty: vec![], undo: vec![], fact: 1 }
    }
}

impl<K: Copy + Eq + Hash, V: Clone> Table<K, V> {
    /// Whether it is known what the row of `key` is, or that there is none.
    pub fn knows(&self, key: K) -> bool {
        self.slots.contains_key(&key)
    }

    /// The row, if it is known and there is one.
    pub fn get(&self, key: K) -> Option<&V> {
        self.slots.get(&key)?.value.as_ref()
    }

    /// Whether the database has a row of this key, as far as that is known.
    pub fn is_stored(&self, key: K) -> bool {
        self.slots.get(&key).is_some_and(|slot| slot.stored)
    }

    /// Takes in what the database has. What is known already is newer.
    pub fn loaded(&mut self, key: K, value: Option<V>) {
        let stored = value.is_some();
        self.slots.entry(key).or_insert(Slot { value, stored, dirty: false, fact: 0 });
    }

    /// The row, to be changed; `None` where there is none.
    pub fn change(&mut self, key: K) -> Option<&mut V> {
        if self.get(key).is_some() { self.slot(key).value.as_mut() } else { None }
    }

    /// Sets the row.
    pub fn put(&mut self, key: K, value: V) {
        self.slot(key).value = Some(value);
    }

    /// Removes the row.
    pub fn remove(&mut self, key: K) -> Option<V> {
        self.slot(key).value.take()
    }

    fn slot(&mut self, key: K) -> &mut Slot<V> {
        let (fact, known) = (self.fact, self.slots.contains_key(&key));
        let slot = self.slots.entry(key).or_insert(Slot { value: None, stored: false, dirty: false, fact: 0 });
        if slot.fact != fact {
            slot.fact = fact;
            self.undo.push((key, Before { value: slot.value.clone(), dirty: slot.dirty, known }));
        }
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(key);
        }
        slot
    }

    /// Whether the current fact has changed anything.
    pub fn is_changed(&self) -> bool {
        !self.undo.is_empty()
    }

    /// The current fact stands; another one begins.
    pub fn accept(&mut self) {
        self.undo.clear();
        self.fact += 1;
    }

    /// The current fact is refused: every row is as before it.
    pub fn undo(&mut self) {
        for (key, before) in self.undo.drain(..).rev() {
            if !before.known {
                self.slots.remove(&key);
            } else if let Some(slot) = self.slots.get_mut(&key) {
                (slot.value, slot.dirty) = (before.value, before.dirty);
            }
        }
        let slots = &self.slots;
        self.dirty.retain(|key| slots.get(key).is_some_and(|slot| slot.dirty));
        self.fact += 1;
    }

    /// What is to be written, in the order in which it was changed first. What came and went since the last time is nothing.
    pub fn writes(&self) -> impl Iterator<Item = Write<'_, K, V>> {
        self.dirty.iter().filter_map(|key| {
            let slot = self.slots.get(key)?;
            match (&slot.value, slot.stored) {
                (Some(value), false) => Some(Write::Insert(key, value)),
                (Some(value), true) => Some(Write::Update(key, value)),
                (None, true) => Some(Write::Delete(key)),
                (None, false) => None,
            }
        })
    }

    /// Everything is written; `clean` is called with each row that was.
    pub fn written(&mut self, mut clean: impl FnMut(&mut V)) {
        for key in self.dirty.drain(..) {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.dirty = false;
                slot.stored = slot.value.is_some();
                if let Some(value) = &mut slot.value {
                    clean(value);
                }
            }
        }
    }

    /// Forgets every row; nothing may wait to be written.
    pub fn forget(&mut self) {
        self.slots.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(table: &Table<i64, &'static str>) -> Vec<String> {
        let text = |write| match write {
            Write::Insert(key, value) => format!("+{key}{value}"),
            Write::Update(key, value) => format!("={key}{value}"),
            Write::Delete(key) => format!("-{key}"),
        };
        table.writes().map(text).collect()
    }

    #[test]
    fn what_a_refused_fact_changed_is_as_before_it() {
        let mut table = Table::default();
        table.loaded(1, Some("a"));
        table.loaded(2, None);
        table.put(3, "c");
        table.accept();
        assert!(!table.is_changed());
        table.put(1, "b");
        *table.change(1).expect("is there") = "c";
        table.put(2, "x");
        table.remove(3);
        table.put(4, "y");
        assert!(table.is_changed());
        table.undo();
        assert_eq!((table.get(1), table.get(2), table.get(3), table.get(4)), (Some(&"a"), None, Some(&"c"), None));
        assert!(table.knows(2) && !table.knows(4), "what was looked up stays known");
        assert_eq!(writes(&table), ["+3c"]);
    }

    #[test]
    fn rows_are_written_once_in_the_order_of_their_first_change() {
        let mut table = Table::default();
        table.loaded(1, Some("a"));
        table.loaded(2, Some("b"));
        table.put(9, "new");
        table.put(2, "c");
        table.remove(1);
        table.put(2, "d");
        table.put(5, "gone");
        table.remove(5);
        assert_eq!(writes(&table), ["+9new", "=2d", "-1"]);
        table.accept();
        table.written(|_| ());
        assert!(writes(&table).is_empty());
        table.put(9, "changed");
        table.put(1, "back");
        assert_eq!(writes(&table), ["=9changed", "+1back"]);
    }
}
