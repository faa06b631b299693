//! Counts of entries by state, and invariants of the ledger that do not hold.

use serde::Serialize;

/// How many entries are in each state, as users see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Everything discovered.
    pub discovered: u64,
    /// Settled with an answer of its own.
    pub done: u64,
    /// Settled by its representative's answer.
    pub duplicate: u64,
    /// Settled by a rule or a refusal.
    pub rejected: u64,
    /// Out of attempts.
    pub dead: u64,
    /// Owed.
    pub open: u64,
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            discovered: self.discovered + other.discovered,
            done: self.done + other.done,
            duplicate: self.duplicate + other.duplicate,
            rejected: self.rejected + other.rejected,
            dead: self.dead + other.dead,
            open: self.open + other.open,
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { discovered, done, duplicate, rejected, dead, open } = self;
        write!(
            out,
            "{discovered} discovered: {done} done, {duplicate} duplicate, {rejected} rejected, {dead} dead, {open} open"
        )
    }
}

/// An invariant of the ledger that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What should be true.
    pub invariant: &'static str,
    /// URLs, pictures or counts of which it is not.
    pub keys: Vec<String>,
    /// Whether there are more of them.
    pub more: bool,
}

impl Violation {
    /// The invariant if there is something that breaks it, of which at most `keys_max` are named.
    pub fn of(invariant: &'static str, mut keys: Vec<String>, keys_max: usize) -> Option<Self> {
        let more = keys.len() > keys_max;
        keys.truncate(keys_max);
        (more || !keys.is_empty()).then_some(Self { invariant, keys, more })
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.more { " and more" } else { "" };
        write!(out, "not so that {}: {}{more}", self.invariant, self.keys.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_names_every_count() {
        let tally = Tally { discovered: 21, done: 1, duplicate: 2, rejected: 3, dead: 5, open: 10 };
        assert_eq!(tally.to_string(), "21 discovered: 1 done, 2 duplicate, 3 rejected, 5 dead, 10 open");
    }

    #[test]
    fn violations_are_named_up_to_a_number_and_none_is_none() {
        let violation = |keys: &[&str], keys_max| {
            let keys = keys.iter().map(|key| (*key).to_owned()).collect();
            Violation::of("all is well", keys, keys_max).map(|violation| violation.to_string())
        };
        assert_eq!(violation(&[], 2), None);
        assert_eq!(violation(&["a", "b"], 2).as_deref(), Some("not so that all is well: a, b"));
        assert_eq!(violation(&["a", "b", "c"], 2).as_deref(), Some("not so that all is well: a, b and more"));
        assert_eq!(violation(&["a"], 0).as_deref(), Some("not so that all is well:  and more"));
    }
}
