//! Whose turn it is: tenants in turn, then the tenant's jobs by their weights, then the job's queues in turn.
//!
//! Jobs of a tenant are weighted by stride scheduling (Waldspurger and Weihl, 1995): each turn moves a job on by a stride that is
//! the shorter the greater its weight, and the job that is furthest behind is next. Promise: a tenant waits for at most one turn of
//! each other tenant, however many jobs and queues those have; and every job of a tenant has its turn.

use std::collections::{BTreeSet, HashMap, VecDeque};

use faceflow_core::record::{JobId, QueueId, TenantNumber};

/// The stride of a job of weight 1; divisible by every weight.
const STRIDE: u64 = 2_520;

/// Queues that wait for their turn.
#[derive(Default)]
pub(super) struct QueueScheduler {
    /// Tenants that have queues waiting, in the order of their turns.
    order: VecDeque<TenantNumber>,
    tenants: HashMap<TenantNumber, TenantTurns>,
    len: usize,
}

#[derive(Default)]
struct TenantTurns {
    /// Jobs that have queues waiting, by how far they have come.
    order: BTreeSet<(u64, JobId)>,
    jobs: HashMap<JobId, JobTurns>,
    /// How far the job had come whose turn was last.
    pass: u64,
}

#[derive(Default)]
struct JobTurns {
    pass: u64,
    queues: VecDeque<QueueId>,
}

impl QueueScheduler {
    /// How many queues wait.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A queue waits for its turn, behind the others of its job.
    pub fn push(&mut self, queue: QueueId) {
        let tenant = self.tenants.entry(queue.job.tenant).or_default();
        if tenant.order.is_empty() {
            self.order.push_back(queue.job.tenant);
        }
        let job = tenant.jobs.entry(queue.job).or_default();
        if job.queues.is_empty() {
            // A job that had nothing does not make up for it.
            job.pass = job.pass.max(tenant.pass);
            tenant.order.insert((job.pass, queue.job));
        }
        job.queues.push_back(queue);
        self.len += 1;
    }

    /// The queue whose turn it is, of the tenants that have room.
    pub fn pop(&mut self, has_room: impl Fn(TenantNumber) -> bool, weight: impl Fn(JobId) -> u64) -> Option<QueueId> {
        for _ in 0..self.order.len() {
            let number = self.order.pop_front()?;
            if !has_room(number) {
                self.order.push_back(number);
                continue;
            }
            let tenant = self.tenants.get_mut(&number).expect("a tenant that waits is known");
            let queue = tenant.pop(weight);
            if !tenant.order.is_empty() {
                self.order.push_back(number);
            }
            self.len -= 1;
            return Some(queue);
        }
        None
    }

    /// Nothing of a job waits any more.
    pub fn remove(&mut self, job: JobId) {
        let Some(tenant) = self.tenants.get_mut(&job.tenant) else { return };
        let Some(turns) = tenant.jobs.remove(&job) else { return };
        self.len -= turns.queues.len();
        tenant.order.remove(&(turns.pass, job));
        if tenant.order.is_empty() {
            self.order.retain(|number| *number != job.tenant);
        }
        if tenant.jobs.is_empty() {
            self.tenants.remove(&job.tenant);
        }
    }
}

impl TenantTurns {
    fn pop(&mut self, weight: impl Fn(JobId) -> u64) -> QueueId {
        let (pass, id) = self.order.pop_first().expect("a tenant that waits has a job");
        self.pass = pass;
        let job = self.jobs.get_mut(&id).expect("a job that waits is known");
        let queue = job.queues.pop_front().expect("a job that waits has a queue");
        job.pass = pass + STRIDE / weight(id).max(1);
        if !job.queues.is_empty() {
            self.order.insert((job.pass, id));
        }
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(tenant: u32, job: u32, host: u64) -> QueueId {
        QueueId { job: JobId { tenant: TenantNumber(tenant), number: job }, host }
    }

    fn popped(turns: &mut QueueScheduler, count: usize, weight: impl Fn(JobId) -> u64) -> Vec<(u32, u32, u64)> {
        let popped = (0..count).map_while(|_| turns.pop(|_| true, &weight));
        popped.map(|queue| (queue.job.tenant.0, queue.job.number, queue.host)).collect()
    }

    #[test]
    fn a_tenant_with_very_many_hosts_delays_no_other() {
        let mut turns = QueueScheduler::default();
        (0..1_000).for_each(|host| turns.push(queue(1, 0, host)));
        turns.push(queue(2, 0, 7));
        turns.push(queue(3, 0, 8));
        turns.push(queue(3, 0, 9));
        let expected = [(1, 0, 0), (2, 0, 7), (3, 0, 8), (1, 0, 1), (3, 0, 9), (1, 0, 2)];
        assert_eq!(popped(&mut turns, 6, |_| 1), expected);
        assert_eq!(turns.len(), 997);
    }

    #[test]
    fn jobs_of_a_tenant_have_turns_by_their_weights_and_none_is_left_out() {
        let mut turns = QueueScheduler::default();
        for host in 0..1_000 {
            (0..3).for_each(|job| turns.push(queue(1, job, host)));
        }
        let weight = |job: JobId| [1, 3, 10][job.number as usize];
        let popped = popped(&mut turns, 140, weight);
        let share = |job| popped.iter().filter(|(_, of, _)| *of == job).count();
        assert_eq!([0, 1, 2].map(share), [10, 30, 100]);
        // One that comes later does not make up for what it missed.
        turns.push(queue(1, 9, 0));
        turns.push(queue(1, 9, 1));
        let next: Vec<_> = (0..6).filter_map(|_| turns.pop(|_| true, |_| 5)).map(|queue| queue.job.number).collect();
        assert!(next.contains(&9) && next.iter().filter(|job| **job == 9).count() <= 2, "{next:?}");
    }

    #[test]
    fn who_has_no_room_is_passed_over_and_who_leaves_is_forgotten() {
        let mut turns = QueueScheduler::default();
        [queue(1, 0, 1), queue(1, 0, 2), queue(2, 0, 3), queue(1, 4, 5)].into_iter().for_each(|it| turns.push(it));
        assert_eq!(turns.pop(|tenant| tenant == TenantNumber(2), |_| 1), Some(queue(2, 0, 3)));
        assert_eq!(turns.pop(|tenant| tenant == TenantNumber(2), |_| 1), None);
        turns.remove(queue(1, 0, 0).job);
        turns.remove(queue(9, 9, 9).job);
        assert_eq!((turns.len(), turns.pop(|_| true, |_| 1)), (1, Some(queue(1, 4, 5))));
        assert!(turns.is_empty() && turns.order.is_empty());
    }
}
