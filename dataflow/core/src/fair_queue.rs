//! Records that wait in several queues, taken in turns within limits, so that a slow queue delays no other: tenants take turns, and
//! in the turn of a tenant its queues do.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::metrics::StageMetrics;
use crate::record::{QueueId, TenantNumber};

/// A tenant may have this part of all records under way in any case.
const GUARANTEED: usize = 64;
/// By this part their limit may be exceeded for that.
const BEYOND: usize = 8;

/// How many records one operator has under way at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Over all queues of this worker. Where it is large, tenants that have hardly anything under way may exceed it by an eighth, so
    /// that one whose records hang holds up no other.
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

/// Round-robin over tenants, then over the queues of a tenant. Promise: no more records under way than the limits say, in all and of
/// one queue.
pub(crate) struct FairQueues<R> {
    limits: Limits,
    stage: Arc<StageMetrics>,
    queues: HashMap<QueueId, Queue<R>>,
    tenants: HashMap<TenantNumber, Tenant>,
    /// Tenants that may start a record, in the order of their turns.
    ready: VecDeque<TenantNumber>,
    in_flight: usize,
}

#[derive(Default)]
struct Tenant {
    /// Queues that may start a record, in the order of their turns.
    ready: VecDeque<QueueId>,
    /// Queues that have something.
    queues: usize,
    in_flight: usize,
}

struct Queue<R> {
    waiting: VecDeque<R>,
    in_flight: usize,
    ready: bool,
}

impl<R> FairQueues<R> {
    pub fn new(limits: Limits, stage: Arc<StageMetrics>) -> Self {
        let (queues, tenants, ready) = (HashMap::new(), HashMap::new(), VecDeque::new());
        Self { limits, stage, queues, tenants, ready, in_flight: 0 }
    }

    /// Appends a record to a queue.
    pub fn push(&mut self, id: QueueId, record: R) {
        self.stage.waiting.fetch_add(1, Relaxed);
        let tenants = &mut self.tenants;
        let queue = self.queues.entry(id).or_insert_with(|| {
            tenants.entry(id.job.tenant).or_default().queues += 1;
            Queue { waiting: VecDeque::new(), in_flight: 0, ready: false }
        });
        queue.waiting.push_back(record);
        self.mark_ready(id);
    }

    /// The next record that may start; it is under way from here on.
    pub fn start_next(&mut self) -> Option<(QueueId, R)> {
        let next = self.ready.iter().position(|tenant| self.has_room(*tenant))?;
        let number = self.ready.remove(next)?;
        let tenant = self.tenants.get_mut(&number).expect("a tenant that is ready has queues");
        let id = tenant.ready.pop_front().expect("a tenant that is ready has a ready queue");
        tenant.in_flight += 1;
        if !tenant.ready.is_empty() {
            self.ready.push_back(number);
        }
        let queue = self.queues.get_mut(&id).expect("a ready queue exists");
        queue.ready = false;
        let record = queue.waiting.pop_front().expect("a ready queue has a record");
        queue.in_flight += 1;
        self.in_flight += 1;
        self.stage.waiting.fetch_sub(1, Relaxed);
        self.mark_ready(id);
        Some((id, record))
    }

    /// Whether a tenant may have one more record under way.
    fn has_room(&self, tenant: TenantNumber) -> bool {
        let Limits { total, .. } = self.limits;
        let of_tenant = || self.tenants.get(&tenant).map_or(0, |tenant| tenant.in_flight);
        self.in_flight < total || self.in_flight < total + total / BEYOND && of_tenant() < total / GUARANTEED
    }

    /// A record of this queue is not under way any more.
    pub fn finish(&mut self, id: QueueId) {
        self.in_flight -= 1;
        let tenant = self.tenants.get_mut(&id.job.tenant).expect("a record under way has a tenant");
        tenant.in_flight -= 1;
        let queue = self.queues.get_mut(&id).expect("a record under way has a queue");
        queue.in_flight -= 1;
        if queue.in_flight > 0 || !queue.waiting.is_empty() {
            return self.mark_ready(id);
        }
        self.queues.remove(&id);
        tenant.queues -= 1;
        if tenant.queues == 0 {
            self.tenants.remove(&id.job.tenant);
        }
    }

    fn mark_ready(&mut self, id: QueueId) {
        let queue = self.queues.get_mut(&id).expect("the queue exists");
        if !queue.ready && !queue.waiting.is_empty() && queue.in_flight < self.limits.per_queue {
            queue.ready = true;
            let tenant = self.tenants.get_mut(&id.job.tenant).expect("a queue has a tenant");
            if tenant.ready.is_empty() {
                self.ready.push_back(id.job.tenant);
            }
            tenant.ready.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::JobId;

    fn queue(tenant: u32, host: u64) -> QueueId {
        QueueId { job: JobId::default_of(TenantNumber(tenant)), host }
    }

    fn started<R>(queues: &mut FairQueues<R>) -> Vec<(QueueId, R)> {
        std::iter::from_fn(|| queues.start_next()).collect()
    }

    #[test]
    fn queues_take_turns_within_both_limits() {
        let mut queues = FairQueues::new(Limits::starting(3, 2), Arc::default());
        let [one, two] = [1, 2].map(|host| queue(1, host));
        for record in ["a1", "a2", "a3"] {
            queues.push(one, record);
        }
        queues.push(two, "b1");
        let first = started(&mut queues);
        assert_eq!(first, [(one, "a1"), (two, "b1"), (one, "a2")], "a third of queue 1 would break its limit");
        queues.finish(two);
        assert_eq!(queues.start_next(), None, "queue 1 is full");
        queues.finish(one);
        assert_eq!(queues.start_next(), Some((one, "a3")));
    }

    #[test]
    fn tenants_take_turns_however_many_queues_they_have() {
        let mut queues = FairQueues::new(Limits::starting(4, 1), Arc::default());
        (0..100).for_each(|host| queues.push(queue(1, host), host));
        queues.push(queue(2, 7), 1_000);
        queues.push(queue(2, 8), 1_001);
        let first: Vec<_> = started(&mut queues).into_iter().map(|(_, record)| record).collect();
        assert_eq!(first, [0, 1_000, 1, 1_001]);
        [queue(2, 7), queue(2, 8), queue(1, 0)].into_iter().for_each(|id| queues.finish(id));
        assert_eq!(started(&mut queues).len(), 3);
        assert!(!queues.tenants.contains_key(&TenantNumber(2)), "it has nothing any more");
    }

    #[test]
    fn a_tenant_whose_records_hang_holds_up_no_other_and_the_limit_is_hardly_exceeded() {
        let mut queues = FairQueues::new(Limits::starting(128, 128), Arc::default());
        (0..1_000).for_each(|record| queues.push(queue(1, 1), record));
        assert_eq!(started(&mut queues).len(), 128);
        (2..100).for_each(|tenant| (0..10).for_each(|record| queues.push(queue(tenant, 1), record)));
        let beyond = started(&mut queues);
        assert!(beyond.len() == 16 && beyond.iter().all(|(id, _)| id.job.tenant != TenantNumber(1)), "{beyond:?}");
        queues.finish(queue(1, 1));
        assert_eq!(queues.start_next().map(|(id, _)| id.job.tenant), Some(TenantNumber(18)));
        let mut few = FairQueues::new(Limits::finishing(4), Arc::default());
        (1..9).for_each(|tenant| few.push(queue(tenant, 1), ()));
        assert_eq!(started(&mut few).len(), 4, "a small limit is kept");
    }
}
