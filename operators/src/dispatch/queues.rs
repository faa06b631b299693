//! The queues that have work, and what of it is in flight.
//!
//! Promises: no more of a queue is in flight than it may have; work is in flight once until it comes to an end; and of a job that
//! is not served nothing is asked for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use faceflow_core::Time;
use faceflow_core::ledger::{DispatchReply, DispatchRequest, QueueUpdate};
use faceflow_core::metrics::StageMetrics;
use faceflow_core::record::{JobId, Key, Priority, QueueId, TenantNumber, Work};

use super::queue_scheduler::QueueScheduler;
use super::tenant_shares::Window;
use super::{Dispatcher, LedgerUpdate};
use crate::jobs::{JobEvent, Jobs};
use crate::select_links::CrawlSettings;

/// Queues asked for work at once.
const ASKED_MAX: usize = 64;
/// A queue may use this part of the free room: the dynamic threshold of shared-memory switches (Choudhury and Hahne,
/// 1998), which leaves room for the next queue.
const SHARE: usize = 16;

/// The queues that have work, and what of it is in flight.
pub(super) struct CrawlQueues {
    per_queue: usize,
    again: bool,
    jobs: Jobs,
    /// Jobs that are served, with their weights.
    served: HashMap<JobId, u64>,
    queues: HashMap<QueueId, QueueState>,
    dispatched: HashMap<(TenantNumber, Key), QueueId>,
    window: Window,
    /// Queues that wait to be asked.
    turns: QueueScheduler,
    /// Queues whose next work is not due yet.
    later: BTreeSet<(Time, QueueId)>,
    /// Queues that have something due and have used their share.
    full: usize,
    stage: Arc<StageMetrics>,
}

struct QueueState {
    held: Vec<Key>,
    /// When the first of what the ledger holds for it is due; `None` if there is nothing.
    next: Option<Time>,
    /// While its host fails: when it may be asked again, as the ledger said last. Then one request finds out how it is.
    hold: Option<Time>,
    status: QueueStatus,
}

impl QueueState {
    /// When it is to be asked next, if it has anything.
    fn due(&self) -> Option<Time> {
        self.next.map(|next| next.max(self.hold.unwrap_or(0)))
    }

    /// How much of it may be in flight, of `queue_max`.
    fn limit(&self, queue_max: usize) -> usize {
        if self.hold.is_some() { 1 } else { queue_max }
    }

    /// The ledger may know more of its host by now. It is asked, one at a time as before, and says so.
    fn lift_hold(&mut self) {
        self.hold = self.hold.map(|_| 0);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueStatus {
    /// It has nothing to give.
    Idle,
    /// In `turns`.
    Turn,
    /// Being asked.
    Asked,
    /// In `later`.
    Later(Time),
    /// It has work, and no room.
    Full,
}

impl CrawlQueues {
    pub fn new(dispatcher: &Dispatcher, stage: Arc<StageMetrics>) -> Self {
        Self {
            per_queue: 0,
            again: dispatcher.again,
            jobs: dispatcher.jobs.clone(),
            served: HashMap::new(),
            queues: HashMap::new(),
            dispatched: HashMap::new(),
            window: Window::default(),
            turns: QueueScheduler::default(),
            later: BTreeSet::new(),
            full: 0,
            stage,
        }
    }

    /// Sets how much may be in flight.
    pub fn limit(&mut self, crawl: &CrawlSettings) {
        (self.window.max, self.per_queue) = (crawl.in_flight_max, crawl.in_flight_per_host);
    }

    /// A job comes or goes. Whether the ledger is to be asked which of its queues have work.
    pub fn change_jobs(&mut self, event: JobEvent, now: Time) -> Option<JobId> {
        match event {
            JobEvent::Added(job) => {
                let weight = self.jobs.job(job).map_or(Priority::default(), |job| job.priority).weight();
                if self.served.insert(job, weight).is_none() {
                    self.window.serve(job.tenant, true);
                }
                Some(job)
            }
            JobEvent::Removed(job) => {
                self.remove(job, now);
                None
            }
        }
    }

    /// A job goes; whether it was served.
    pub fn remove(&mut self, job: JobId, now: Time) -> bool {
        let was_served = self.served.remove(&job).is_some();
        if was_served {
            self.window.serve(job.tenant, false);
            self.retire(job, now);
        }
        was_served
    }

    /// Forgets what waits in the queues of a job that is not served any more, and of its tenant's pictures if none of its jobs is.
    fn retire(&mut self, job: JobId, now: Time) {
        self.turns.remove(job);
        let pictures = QueueId::detection(job.tenant);
        if !self.is_served(pictures) {
            self.turns.remove(pictures.job);
        }
        let queues: Vec<QueueId> =
            self.queues.keys().copied().filter(|queue| queue.job == job || *queue == pictures).collect();
        for queue in queues {
            let served = self.is_served(queue);
            let Some(state) = self.queues.get_mut(&queue) else { continue };
            let before = state.status;
            if before == QueueStatus::Turn && (queue.job == job || !served) {
                // It was taken out of the turns with all of its job.
                state.status = QueueStatus::Idle;
            }
            state.next = state.next.filter(|_| served);
            let after = state.status;
            self.count_waiting(queue, (before, after));
            self.put(queue, now);
        }
    }

    /// Whether work of this queue is dispatched. Pictures are a tenant's: they are looked at as long as it has any job.
    fn is_served(&self, queue: QueueId) -> bool {
        if queue.is_detection() { self.window.serves(queue.job.tenant) } else { self.served.contains_key(&queue.job) }
    }

    pub fn hear(&mut self, updates: LedgerUpdate, now: Time) {
        for opened in updates.opened {
            self.open(opened, now);
        }
        let Some(ended) = updates.ended else { return };
        let Some(queue) = self.dispatched.remove(&ended) else { return };
        self.window.leave(ended.0);
        self.count();
        if let Some(state) = self.queues.get_mut(&queue) {
            state.held.retain(|key| *key != ended.1);
            state.lift_hold();
            self.put(queue, now);
        }
    }

    pub fn open(&mut self, QueueUpdate { queue, due, again }: QueueUpdate, now: Time) {
        if again && !self.looks_again(queue) || !self.is_served(queue) {
            return;
        }
        let state = self.queues.entry(queue).or_insert(QueueState {
            held: vec![],
            next: None,
            hold: None,
            status: QueueStatus::Idle,
        });
        state.next = Some(state.next.map_or(due, |next| next.min(due)));
        self.put(queue, now);
    }

    /// Notes the ledger's reply for a queue. Returns the work.
    pub fn dispatch(&mut self, claimed: DispatchReply, now: Time) -> Vec<Work> {
        let DispatchReply { queue, work, next, hold } = claimed;
        let served = self.is_served(queue);
        let Some(state) = self.queues.get_mut(&queue).filter(|state| state.status == QueueStatus::Asked) else {
            // It was not asked, and has something all the same: another run may have changed what is known of its host.
            if let Some(state) = self.queues.get_mut(&queue) {
                state.lift_hold();
            }
            if let Some(due) = next {
                self.open(QueueUpdate { queue, due, again: self.looks_again(queue) }, now);
            }
            return work;
        };
        (state.status, state.hold) = (QueueStatus::Idle, hold);
        // What belongs to a job that was removed meanwhile stays in the ledger.
        let work = if served { work } else { vec![] };
        if served {
            state.held.extend(work.iter().map(Work::key));
            // What was opened since it was asked may be more than what it says is left.
            state.next = [state.next, next].into_iter().flatten().min();
        }
        self.window.enter(queue.job.tenant, work.len());
        self.dispatched.extend(work.iter().map(|work| ((queue.job.tenant, work.key()), queue)));
        self.put(queue, now);
        work
    }

    /// Moves a queue to the set that fits its state.
    fn put(&mut self, queue: QueueId, now: Time) {
        let (queue_max, served) = (self.queue_max(queue), self.is_served(queue));
        let Some(state) = self.queues.get_mut(&queue) else { return };
        let before = state.status;
        match before {
            // Its turn comes, or its answer.
            QueueStatus::Turn | QueueStatus::Asked => return,
            QueueStatus::Later(due) => drop(self.later.remove(&(due, queue))),
            QueueStatus::Full => self.full -= 1,
            QueueStatus::Idle => {}
        }
        let queue_max = state.limit(queue_max);
        state.status = match state.due().filter(|_| served) {
            None => QueueStatus::Idle,
            Some(due) if due > now => QueueStatus::Later(due),
            Some(_) if state.held.len() >= queue_max => QueueStatus::Full,
            Some(_) => QueueStatus::Turn,
        };
        let after = state.status;
        match after {
            QueueStatus::Turn => self.turns.push(queue),
            QueueStatus::Later(due) => drop(self.later.insert((due, queue))),
            QueueStatus::Full => self.full += 1,
            QueueStatus::Idle if state.held.is_empty() => drop(self.queues.remove(&queue)),
            QueueStatus::Idle | QueueStatus::Asked => {}
        }
        self.count_waiting(queue, (before, after));
        self.count();
    }

    /// Queues whose work has become due line up for their turn.
    pub fn wake(&mut self, now: Time) {
        while let Some((due, queue)) = self.later.first().copied().filter(|(due, _)| *due <= now) {
            self.later.remove(&(due, queue));
            if let Some(state) = self.queues.get_mut(&queue) {
                state.status = QueueStatus::Idle;
                self.put(queue, now);
            }
        }
    }

    /// How much of a queue may be in flight. Repeated detections burden no host.
    fn queue_max(&self, queue: QueueId) -> usize {
        if queue.is_detection() { self.window.max } else { self.per_queue }
    }

    /// The next requests: from each queue in turn, as much as its share of the free room of its tenant allows.
    pub fn asks(&mut self) -> Vec<DispatchRequest> {
        let (mut asks, mut passed_over, mut looks) = (Vec::new(), Vec::new(), self.turns.len());
        let (mut all, mut of_tenants) = (0, HashMap::<TenantNumber, usize>::new());
        while asks.len() < ASKED_MAX && looks > 0 {
            let (window, served) = (&self.window, &self.served);
            let room = |tenant| window.room(tenant, (all, of_tenants.get(&tenant).copied().unwrap_or(0)));
            let weight = |job: JobId| served.get(&job).copied().unwrap_or(Priority::default().weight());
            let Some(queue) = self.turns.pop(|tenant| room(tenant) > 0, weight) else { break };
            looks -= 1;
            let room = room(queue.job.tenant);
            let queue_max = self.queue_max(queue);
            let Some(state) = self.queues.get_mut(&queue) else { continue };
            let share = (room / SHARE).clamp(1, state.limit(queue_max));
            let max = share.saturating_sub(state.held.len()).min(room);
            if max == 0 {
                passed_over.push(queue);
                continue;
            }
            all += max;
            *of_tenants.entry(queue.job.tenant).or_default() += max;
            state.status = QueueStatus::Asked;
            // What is opened from here on comes as an update.
            state.next = None;
            asks.push(DispatchRequest { queue, max, held: state.held.clone(), again: self.looks_again(queue) });
            self.count_waiting(queue, (QueueStatus::Turn, QueueStatus::Asked));
        }
        passed_over.into_iter().for_each(|queue| self.turns.push(queue));
        self.count();
        asks
    }

    /// Whether settled pages of a queue are visited again, and what ended badly is tried nevertheless.
    fn looks_again(&self, queue: QueueId) -> bool {
        let enabled = || {
            self.jobs.find_tenant(queue.job.tenant).is_none_or(|_| self.jobs.settings(queue.job).recrawl.get().enabled)
        };
        self.again && enabled()
    }

    /// Whether something is due that was not dispatched.
    pub fn is_behind(&self) -> bool {
        !self.turns.is_empty() || self.full > 0
    }

    /// When the next work of the queues that have nothing due is due.
    pub fn next_due(&self) -> Option<Time> {
        self.later.first().map(|(due, _)| *due)
    }

    /// Counts a queue that has something due which was not dispatched, for whoever reads the sources of its tenant.
    fn count_waiting(&self, queue: QueueId, (before, after): (QueueStatus, QueueStatus)) {
        let waits = |status| matches!(status, QueueStatus::Turn | QueueStatus::Full);
        let Some(tenant) = self.jobs.find_tenant(queue.job.tenant).filter(|_| waits(before) != waits(after)) else {
            return;
        };
        if waits(after) {
            tenant.waiting.fetch_add(1, Relaxed);
        } else {
            tenant.waiting.fetch_sub(1, Relaxed);
        }
    }

    fn count(&self) {
        self.stage.dispatched.store(self.window.in_flight(), Relaxed);
        self.stage.waiting.store(self.turns.len() + self.full, Relaxed);
    }
}

#[cfg(test)]
mod tests;
