//! Records that wait in several queues, taken in turns within limits, so that a slow queue delays no other.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::metrics::StageMetrics;

/// How many records one operator has under way at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Over all queues of this worker.
    pub total: usize,
    /// Of one queue.
    pub per_queue: usize,
    /// Whether new records start while the process drains: false where new work enters, true where begun work goes on.
    pub while_draining: bool,
}

impl Limits {
    /// `total` records in a single queue that goes on while the process drains: for the later steps of work begun elsewhere.
    pub fn finishing(total: usize) -> Self {
        Self { total, per_queue: total, while_draining: true }
    }

    /// For operators that take on work anew: nothing starts while the process drains.
    pub fn starting(total: usize, per_queue: usize) -> Self {
        Self { total, per_queue, while_draining: false }
    }
}

/// Round-robin over queues. Promise: no more records under way than the limits say, in all and of one queue.
pub(crate) struct FairQueues<R> {
    limits: Limits,
    stage: Arc<StageMetrics>,
    queues: HashMap<u64, Queue<R>>,
    /// Queues that may start a record, in the order of their turns.
    ready: VecDeque<u64>,
    in_flight: usize,
}

struct Queue<R> {
    waiting: VecDeque<R>,
    in_flight: usize,
    ready: bool,
}

impl<R> FairQueues<R> {
    pub fn new(limits: Limits, stage: Arc<StageMetrics>) -> Self {
        Self { limits, stage, queues: HashMap::new(), ready: VecDeque::new(), in_flight: 0 }
    }

    /// Appends a record to a queue.
    pub fn push(&mut self, id: u64, record: R) {
        self.stage.waiting.fetch_add(1, Relaxed);
        let new = || Queue { waiting: VecDeque::new(), in_flight: 0, ready: false };
        self.queues.entry(id).or_insert_with(new).waiting.push_back(record);
        self.mark_ready(id);
    }

    /// The next record that may start; it is in in_flight from here on.
    pub fn start_next(&mut self) -> Option<(u64, R)> {
        if self.in_flight >= self.limits.total {
            return None;
        }
        let id = self.ready.pop_front()?;
        let queue = self.queues.get_mut(&id).expect("a ready queue exists");
        queue.ready = false;
        let record = queue.waiting.pop_front().expect("a ready queue has a record");
        queue.in_flight += 1;
        self.in_flight += 1;
        self.stage.waiting.fetch_sub(1, Relaxed);
        self.mark_ready(id);
        Some((id, record))
    }

    /// A record of this queue is no longer in in_flight.
    pub fn finish(&mut self, id: u64) {
        self.in_flight -= 1;
        let queue = self.queues.get_mut(&id).expect("a record in in_flight has a queue");
        queue.in_flight -= 1;
        if queue.in_flight == 0 && queue.waiting.is_empty() {
            self.queues.remove(&id);
        } else {
            self.mark_ready(id);
        }
    }

    fn mark_ready(&mut self, id: u64) {
        let queue = self.queues.get_mut(&id).expect("the queue exists");
        if !queue.ready && !queue.waiting.is_empty() && queue.in_flight < self.limits.per_queue {
            queue.ready = true;
            self.ready.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_take_turns_within_both_limits() {
        let mut queues = FairQueues::new(Limits::starting(3, 2), Arc::default());
        for record in ["a1", "a2", "a3"] {
            queues.push(1, record);
        }
        queues.push(2, "b1");
        let started: Vec<_> = std::iter::from_fn(|| queues.start_next()).collect();
        assert_eq!(started, [(1, "a1"), (2, "b1"), (1, "a2")], "a third of queue 1 would break its limit");
        queues.finish(2);
        assert_eq!(queues.start_next(), None, "queue 1 is full");
        queues.finish(1);
        assert_eq!(queues.start_next(), Some((1, "a3")));
    }
}
