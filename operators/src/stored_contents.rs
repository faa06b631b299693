//! The contents whose pictures the ledger has, as far as this process knows.
//!
//! It exists so that an exact copy is recognised by its digest, before it is decoded. Promise: what is known here has a recorded
//! fact, so its original is in the store. The reverse does not hold: two copies that are under way at the same moment, or in two
//! processes of a cluster, are both decoded, and [`dedupe_exact`](crate::dedupe_exact) tells the first from the other.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use faceflow_core::record::{ContentId, TenantNumber};

/// Which part of a cluster's workers is in this process.
#[derive(Clone, Copy, Debug)]
pub struct WorkerShare {
    /// Which process, from 0.
    pub process: usize,
    /// Processes in all.
    pub processes: usize,
    /// Workers in each.
    pub workers: usize,
}

impl Default for WorkerShare {
    /// All workers are here, however many.
    fn default() -> Self {
        Self { process: 0, processes: 1, workers: 1 }
    }
}

impl WorkerShare {
    /// Whether what has this route belongs to a worker of this process.
    pub fn has(self, route: u64) -> bool {
        let worker = route % (self.processes * self.workers) as u64;
        worker / self.workers as u64 == self.process as u64
    }
}

/// The recorded contents of each tenant.
#[derive(Default)]
pub struct StoredContents {
    share: WorkerShare,
    tenants: Mutex<HashMap<TenantNumber, Contents>>,
}

#[derive(Default)]
struct Contents {
    /// Those whose first sighting is told in this process.
    ours: HashSet<ContentId>,
    /// Those that this process has stored, and whose first sighting is told in another one.
    others: HashSet<ContentId>,
    /// Those whose original the store turned out not to have: the next download of their bytes puts it there again.
    missing: HashSet<ContentId>,
}

impl StoredContents {
    /// Nothing yet, for the workers of this process.
    pub fn new(share: WorkerShare) -> Self {
        Self { share, tenants: Mutex::default() }
    }

    /// Takes in what an earlier run recorded, if its sightings are told in this process.
    pub fn load(&self, tenant: TenantNumber, content: ContentId) {
        if self.share.has(content.partition_hash()) {
            self.lock().entry(tenant).or_default().ours.insert(content);
        }
    }

    /// Whether the ledger of a tenant is known to have this content, and its original is not known to be missing.
    pub fn holds(&self, tenant: TenantNumber, content: ContentId) -> bool {
        let tenants = self.lock();
        tenants.get(&tenant).is_some_and(|known| {
            (known.ours.contains(&content) || known.others.contains(&content)) && !known.missing.contains(&content)
        })
    }

    /// Notes that the store does not have the original of a recorded content, or has other bytes under its key.
    pub fn note_missing(&self, tenant: TenantNumber, content: ContentId) {
        self.lock().entry(tenant).or_default().missing.insert(content);
    }

    /// Notes a content whose original this process has stored and recorded.
    pub fn note_stored(&self, tenant: TenantNumber, content: ContentId) {
        let mut tenants = self.lock();
        let known = tenants.entry(tenant).or_default();
        known.missing.remove(&content);
        if !self.share.has(content.partition_hash()) {
            known.others.insert(content);
        }
    }

    /// Notes a recorded content whose sightings are told here. Whether this is the first.
    pub fn is_first(&self, tenant: TenantNumber, content: ContentId) -> bool {
        self.lock().entry(tenant).or_default().ours.insert(content)
    }

    /// Nothing under the lock panics.
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantNumber, Contents>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: TenantNumber = TenantNumber(1);

    #[test]
    fn what_is_recorded_is_known_to_its_tenant_alone() {
        let (stored, content) = (StoredContents::default(), ContentId([7; 32]));
        assert!(!stored.holds(ONE, content));
        assert!(stored.is_first(ONE, content));
        assert!(!stored.is_first(ONE, content));
        assert!(stored.holds(ONE, content) && !stored.holds(TenantNumber(2), content));
        assert!(stored.is_first(TenantNumber(2), content));
    }

    #[test]
    fn bytes_whose_original_is_missing_are_no_copy_until_they_are_stored_again() {
        let (stored, content) = (StoredContents::default(), ContentId([7; 32]));
        assert!(stored.is_first(ONE, content));
        stored.note_missing(ONE, content);
        assert!(!stored.holds(ONE, content));
        stored.note_stored(ONE, content);
        assert!(stored.holds(ONE, content) && !stored.is_first(ONE, content));
    }

    #[test]
    fn what_a_process_stores_for_another_is_known_and_still_a_first_sighting_there() {
        let shares = [0, 1].map(|process| WorkerShare { process, processes: 2, workers: 3 });
        let processes = shares.map(StoredContents::new);
        for content in (0..20).map(|n| ContentId([n; 32])) {
            let owner = shares.iter().position(|share| share.has(content.partition_hash())).expect("one of them");
            processes.iter().for_each(|process| process.note_stored(ONE, content));
            assert!(!processes[owner].holds(ONE, content), "its sightings are told here, and none came yet");
            assert!(processes[1 - owner].holds(ONE, content));
            assert!(processes[owner].is_first(ONE, content));
            processes.iter().for_each(|process| process.load(TenantNumber(2), content));
            assert!(processes[owner].holds(TenantNumber(2), content));
            assert!(!processes[1 - owner].holds(TenantNumber(2), content));
        }
    }
}
