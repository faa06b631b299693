//! The sources that a running graph reads. Whoever holds the set adds and removes sources while `read_sources` reads them.
//!
//! Promises: a source is read until it ends or is removed; after it was removed it is not polled again, and what it had handed
//! out by then is taken in. While the set is open the input of the graph stays open, even when no source is left.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faceflow_core::executor::Executor;
use faceflow_core::source::{Source, SourceId};
use timely::scheduling::activate::SyncActivator;

/// A source, and what it is called in its set.
pub(crate) type NumberedSource = (SourceId, Box<dyn Source>);

/// Sources that may be added and removed while they are read. Clones share them.
#[derive(Clone)]
pub struct SourceSet(Arc<Mutex<State>>);

struct State {
    /// The number of the next source.
    next: u64,
    /// Added, and not taken over by the operator yet.
    added: Vec<NumberedSource>,
    /// Added, and neither ended nor removed.
    active: BTreeSet<SourceId>,
    /// Whether sources may still be added.
    open: bool,
    /// Whether the operator has not seen the last change yet.
    changed: bool,
    /// The operator that reads them, once there is one.
    reader: Option<(Arc<SyncActivator>, Executor)>,
}

impl SourceSet {
    /// These sources and no others: once they have ended, the input has.
    pub fn fixed(sources: Vec<Box<dyn Source>>) -> Self {
        let set = Self::open(sources);
        set.close();
        set
    }

    /// These sources, and others later: the input ends once the set is closed and all of them have ended.
    pub fn open(sources: Vec<Box<dyn Source>>) -> Self {
        let state = State { next: 0, added: vec![], active: BTreeSet::new(), open: true, changed: false, reader: None };
        let set = Self(Arc::new(Mutex::new(state)));
        for source in sources {
            set.add(source);
        }
        set
    }

    /// Adds a source, which is read from here on. `None` if the set is closed or the graph reads nothing any more.
    pub fn add(&self, source: Box<dyn Source>) -> Option<SourceId> {
        let mut state = self.lock();
        if !state.open {
            return None;
        }
        let id = SourceId(state.next);
        state.next += 1;
        state.active.insert(id);
        state.added.push((id, source));
        state.wake();
        Some(id)
    }

    /// Stops reading a source; whether it was read until now. Its sites stay.
    pub fn remove(&self, id: SourceId) -> bool {
        let mut state = self.lock();
        let was_read = state.active.remove(&id);
        if was_read {
            state.wake();
        }
        was_read
    }

    /// No source is added any more.
    pub fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        state.wake();
    }

    /// The sources that have neither ended nor been removed, in the order in which they were added.
    pub fn active(&self) -> Vec<SourceId> {
        self.lock().active.iter().copied().collect()
    }

    /// From here on `operator` is woken by every change.
    pub(crate) fn attach(&self, operator: Arc<SyncActivator>, executor: Executor) {
        self.lock().reader = Some((operator, executor));
    }

    /// Adds what is new to `reading`, and takes out of it what was removed. `None` if nothing has changed.
    pub(crate) fn update(&self, reading: &mut VecDeque<NumberedSource>) -> Option<Vec<NumberedSource>> {
        let mut state = self.lock();
        if !std::mem::take(&mut state.changed) {
            return None;
        }
        reading.extend(state.added.drain(..));
        let (active, removed) = reading.drain(..).partition(|(id, _)| state.active.contains(id));
        *reading = active;
        Some(removed.into())
    }

    /// Whether a source has neither ended nor been removed.
    pub(crate) fn is_active(&self, id: SourceId) -> bool {
        self.lock().active.contains(&id)
    }

    /// Notes that a source has ended.
    pub(crate) fn ended(&self, id: SourceId) {
        self.lock().active.remove(&id);
    }

    /// Whether nothing can come any more but from sources that are read already.
    pub(crate) fn is_complete(&self) -> bool {
        let state = self.lock();
        !state.open && state.added.is_empty()
    }

    /// The operator reads nothing any more: all sources are let go, and no other is accepted.
    pub(crate) fn detach(&self) {
        let mut state = self.lock();
        state.open = false;
        state.active.clear();
        let (unread, reader) = (std::mem::take(&mut state.added), state.reader.take());
        // Dropping them may run code of others.
        drop(state);
        drop((unread, reader));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes the operator look at the set.
    fn wake(&mut self) {
        self.changed = true;
        if let Some((operator, executor)) = &self.reader {
            // Fails only when the worker has left.
            let _ = operator.activate();
            executor.wake_driver();
        }
    }
}

#[cfg(test)]
mod tests {
    use faceflow_core::Time;
    use faceflow_core::source::Poll;

    use super::*;

    struct Silent;

    impl Source for Silent {
        fn poll(&mut self, _now: Time) -> Poll {
            Poll::Later
        }
    }

    fn ids(reading: &VecDeque<NumberedSource>) -> Vec<SourceId> {
        reading.iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn sources_are_taken_over_once_and_removed_ones_are_handed_back() {
        let set = SourceSet::open(vec![Box::new(Silent), Box::new(Silent)]);
        let first = set.active();
        let mut reading = VecDeque::new();
        assert!(set.update(&mut reading).is_some_and(|removed| removed.is_empty()));
        assert_eq!((ids(&reading), set.update(&mut reading).is_none()), (first.clone(), true));
        let third = set.add(Box::new(Silent)).expect("it is open");
        let fourth = set.add(Box::new(Silent)).expect("it is open");
        assert!(set.remove(first[0]) && set.remove(fourth), "one that is read, and one that is not yet");
        assert!(!set.remove(first[0]), "it was removed already");
        let removed = set.update(&mut reading).expect("there are changes");
        assert_eq!(removed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [first[0], fourth]);
        assert_eq!((ids(&reading), set.active()), (vec![first[1], third], vec![first[1], third]));
    }

    #[test]
    fn a_set_is_complete_once_it_is_closed_and_taken_over() {
        let set = SourceSet::open(vec![]);
        assert!(!set.is_complete(), "others may come");
        set.add(Box::new(Silent)).expect("it is open");
        set.close();
        assert!(!set.is_complete() && set.add(Box::new(Silent)).is_none());
        set.update(&mut VecDeque::new());
        assert!(set.is_complete());
        assert!(!SourceSet::fixed(vec![Box::new(Silent)]).is_complete() && SourceSet::fixed(vec![]).is_complete());
    }

    #[test]
    fn once_nothing_is_read_any_more_nothing_is_accepted() {
        let set = SourceSet::open(vec![Box::new(Silent)]);
        set.detach();
        assert!(set.add(Box::new(Silent)).is_none() && set.active().is_empty() && set.is_complete());
    }
}
