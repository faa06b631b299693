//! The jobs of a running graph, and the sources that it reads for them. Whoever holds the set adds and removes jobs and sources while
//! `read_sources` reads them.
//!
//! Promises: a source is read until it ends or is removed, or its job is; after that it is not polled again, and what it had handed
//! out by then is taken in. While the set is open the input of the graph stays open, even when no source is left.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faceflow_core::executor::Executor;
use faceflow_core::record::JobId;
use faceflow_core::source::{Source, SourceId};
use timely::scheduling::activate::SyncActivator;

use crate::jobs::JobEvent;

/// A source, what it is called in its set, and the job that it is read for.
pub(crate) struct NumberedSource {
    pub id: SourceId,
    pub job: JobId,
    pub source: Box<dyn Source>,
}

/// What has changed since the operator looked last.
#[derive(Default)]
pub(crate) struct Changes {
    pub jobs: Vec<JobEvent>,
    /// Sources that are not read any more.
    pub removed: Vec<NumberedSource>,
}

/// Sources that may be added and removed while they are read. Clones share them.
#[derive(Clone)]
pub struct SourceSet(Arc<Mutex<State>>);

struct State {
    /// The number of the next source.
    next: u64,
    /// Added, and not taken over by the operator yet.
    added: Vec<NumberedSource>,
    /// Added, and neither ended nor removed.
    active: BTreeMap<SourceId, JobId>,
    /// Jobs that came or went, and of which the operator does not know yet.
    jobs: Vec<JobEvent>,
    /// Whether sources may still be added.
    open: bool,
    /// Whether the operator has not seen the last change yet.
    changed: bool,
    /// The operator that reads them, once there is one.
    reader: Option<Operator>,
    /// The operator that dispatches the work of the jobs, once there is one.
    dispatcher: Option<Operator>,
    /// Whether the operator that reads has left, so that it tells nobody any more which jobs go.
    has_ended: bool,
}

/// An operator that is woken by changes.
type Operator = (Arc<SyncActivator>, Executor);

impl SourceSet {
    /// This job with these sources, and nothing else: once they have ended, the input has.
    pub fn fixed(job: JobId, sources: Vec<Box<dyn Source>>) -> Self {
        let set = Self::open(job, sources);
        set.close();
        set
    }

    /// This job with these sources, and others later: the input ends once the set is closed and all sources have ended.
    pub fn open(job: JobId, sources: Vec<Box<dyn Source>>) -> Self {
        let state = State {
            next: 0,
            added: vec![],
            active: BTreeMap::new(),
            jobs: vec![JobEvent::Added(job)],
            open: true,
            changed: true,
            reader: None,
            dispatcher: None,
            has_ended: false,
        };
        let set = Self(Arc::new(Mutex::new(state)));
        for source in sources {
            set.add(job, source);
        }
        set
    }

    /// Adds a source of a job, which is read from here on. `None` if the set is closed or the graph reads nothing any more.
    pub fn add(&self, job: JobId, source: Box<dyn Source>) -> Option<SourceId> {
        self.lock().add(job, source)
    }

    /// Adds a job with its sources, whose work is dispatched from here on. `None` if the set is closed or the graph reads nothing
    /// any more.
    pub fn add_job(&self, job: JobId, sources: Vec<Box<dyn Source>>) -> Option<Vec<SourceId>> {
        let mut state = self.lock();
        if !state.open {
            return None;
        }
        state.jobs.push(JobEvent::Added(job));
        state.wake();
        sources.into_iter().map(|source| state.add(job, source)).collect()
    }

    /// Removes a job with its sources: nothing of it is dispatched from here on.
    pub fn remove_job(&self, job: JobId) {
        let mut state = self.lock();
        state.active.retain(|_, of| *of != job);
        state.jobs.push(JobEvent::Removed(job));
        state.wake();
    }

    /// Stops reading a source; whether it was read until now. Its sites stay.
    pub fn remove(&self, id: SourceId) -> bool {
        let mut state = self.lock();
        let was_read = state.active.remove(&id).is_some();
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
        self.lock().active.keys().copied().collect()
    }

    /// From here on `operator` is woken by every change.
    pub(crate) fn attach(&self, operator: Arc<SyncActivator>, executor: Executor) {
        self.lock().reader = Some((operator, executor));
    }

    /// From here on `operator` is woken by every change, too.
    pub(crate) fn attach_dispatcher(&self, operator: Arc<SyncActivator>, executor: Executor) {
        self.lock().dispatcher = Some((operator, executor));
    }

    /// Jobs that went after the input had ended, or as it ended: nobody but whoever asks here is told. Each once.
    pub(crate) fn removed_at_end(&self) -> Vec<JobId> {
        let mut state = self.lock();
        if !state.has_ended {
            return vec![];
        }
        let gone = |event: JobEvent| if let JobEvent::Removed(job) = event { Some(job) } else { None };
        state.jobs.drain(..).filter_map(gone).collect()
    }

    /// Adds what is new to `reading`, and takes out of it what was removed. `None` if nothing has changed.
    pub(crate) fn update(&self, reading: &mut VecDeque<NumberedSource>) -> Option<Changes> {
        let mut state = self.lock();
        if !std::mem::take(&mut state.changed) {
            return None;
        }
        reading.extend(state.added.drain(..));
        let all = reading.drain(..);
        let (active, removed): (Vec<_>, Vec<_>) = all.partition(|source| state.active.contains_key(&source.id));
        *reading = active.into();
        Some(Changes { jobs: std::mem::take(&mut state.jobs), removed })
    }

    /// Whether a source has neither ended nor been removed.
    pub(crate) fn is_active(&self, id: SourceId) -> bool {
        self.lock().active.contains_key(&id)
    }

    /// Notes that a source has ended.
    pub(crate) fn ended(&self, id: SourceId) {
        self.lock().active.remove(&id);
    }

    /// Whether nothing can come any more but from sources that are read already.
    pub(crate) fn is_complete(&self) -> bool {
        let state = self.lock();
        !state.open && state.added.is_empty() && state.jobs.is_empty()
    }

    /// The operator reads nothing any more: all sources are let go, and no other is accepted.
    pub(crate) fn detach(&self) {
        let mut state = self.lock();
        state.open = false;
        state.has_ended = true;
        state.active.clear();
        // What was added is known by the ledger, and is not dispatched; what was removed still has to be heard of.
        state.jobs.retain(|event| matches!(event, JobEvent::Removed(_)));
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
    fn add(&mut self, job: JobId, source: Box<dyn Source>) -> Option<SourceId> {
        if !self.open {
            return None;
        }
        let id = SourceId(self.next);
        self.next += 1;
        self.active.insert(id, job);
        self.added.push(NumberedSource { id, job, source });
        self.wake();
        Some(id)
    }

    /// Makes the operator look at the set.
    fn wake(&mut self) {
        self.changed = true;
        for (operator, executor) in self.reader.iter().chain(&self.dispatcher) {
            // Fails only when the worker has left.
            let _ = operator.activate();
            executor.wake_driver();
        }
    }
}

#[cfg(test)]
mod tests {
    use faceflow_core::Time;
    use faceflow_core::source::SourceItem;

    use super::*;

    struct Silent;

    impl Source for Silent {
        fn poll(&mut self, _now: Time) -> SourceItem {
            SourceItem::Later
        }
    }

    fn ids(reading: &VecDeque<NumberedSource>) -> Vec<SourceId> {
        reading.iter().map(|source| source.id).collect()
    }

    #[test]
    fn sources_are_taken_over_once_and_removed_ones_are_handed_back() {
        let set = SourceSet::open(JobId::FIRST, vec![Box::new(Silent), Box::new(Silent)]);
        let first = set.active();
        let mut reading = VecDeque::new();
        assert!(
            set.update(&mut reading)
                .is_some_and(|changes| changes.removed.is_empty() && changes.jobs == [JobEvent::Added(JobId::FIRST)])
        );
        assert_eq!((ids(&reading), set.update(&mut reading).is_none()), (first.clone(), true));
        let third = set.add(JobId::FIRST, Box::new(Silent)).expect("it is open");
        let fourth = set.add(JobId::FIRST, Box::new(Silent)).expect("it is open");
        assert!(set.remove(first[0]) && set.remove(fourth), "one that is read, and one that is not yet");
        assert!(!set.remove(first[0]), "it was removed already");
        let Changes { jobs, removed } = set.update(&mut reading).expect("there are changes");
        assert_eq!(jobs, []);
        assert_eq!(removed.iter().map(|source| source.id).collect::<Vec<_>>(), [first[0], fourth]);
        assert_eq!((ids(&reading), set.active()), (vec![first[1], third], vec![first[1], third]));
    }

    #[test]
    fn a_set_is_complete_once_it_is_closed_and_taken_over() {
        let set = SourceSet::open(JobId::FIRST, vec![]);
        assert!(!set.is_complete(), "others may come");
        set.add(JobId::FIRST, Box::new(Silent)).expect("it is open");
        set.close();
        assert!(!set.is_complete() && set.add(JobId::FIRST, Box::new(Silent)).is_none());
        set.update(&mut VecDeque::new());
        assert!(set.is_complete());
        assert!(!SourceSet::fixed(JobId::FIRST, vec![Box::new(Silent)]).is_complete());
        let nothing = SourceSet::fixed(JobId::FIRST, vec![]);
        assert!(!nothing.is_complete(), "its job is to be known");
        nothing.update(&mut VecDeque::new());
        assert!(nothing.is_complete());
    }

    #[test]
    fn once_nothing_is_read_any_more_nothing_is_accepted() {
        let set = SourceSet::open(JobId::FIRST, vec![Box::new(Silent)]);
        set.detach();
        assert!(set.add(JobId::FIRST, Box::new(Silent)).is_none() && set.active().is_empty() && set.is_complete());
    }

    #[test]
    fn what_goes_as_the_input_ends_or_later_is_heard_of_once() {
        let set = SourceSet::open(JobId::FIRST, vec![]);
        let other = JobId { number: 1, ..JobId::FIRST };
        set.add_job(other, vec![]).expect("it is open");
        set.remove_job(JobId::FIRST);
        assert_eq!(set.removed_at_end(), [], "the input tells of it");
        set.detach();
        set.remove_job(other);
        assert_eq!((set.removed_at_end(), set.removed_at_end()), (vec![JobId::FIRST, other], vec![]));
    }

    #[test]
    fn a_job_comes_with_its_sources_and_goes_with_them() {
        let set = SourceSet::open(JobId::FIRST, vec![Box::new(Silent)]);
        let mut reading = VecDeque::new();
        set.update(&mut reading);
        let job = JobId { number: 3, ..JobId::FIRST };
        let theirs = set.add_job(job, vec![Box::new(Silent), Box::new(Silent)]).expect("it is open");
        let changes = set.update(&mut reading).expect("there are changes");
        assert_eq!((changes.jobs, reading.len()), (vec![JobEvent::Added(job)], 3));
        set.remove_job(job);
        let Changes { jobs, removed } = set.update(&mut reading).expect("there are changes");
        assert_eq!(removed.iter().map(|source| source.id).collect::<Vec<_>>(), theirs);
        assert_eq!((jobs, reading.len(), set.active().len()), (vec![JobEvent::Removed(job)], 1, 1));
        set.close();
        assert!(set.add_job(job, vec![]).is_none());
    }
}
