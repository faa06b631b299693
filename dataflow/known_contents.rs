//! The pictures that the ledger knew when a tenant came to this process, divided among its workers.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use faceflow_core::ledger::{KnownPicture, Ledger, LedgerError};
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
    fn has(self, route: u64) -> bool {
        let worker = route % (self.processes * self.workers) as u64;
        worker / self.workers as u64 == self.process as u64
    }
}

/// The pictures that the ledger knew when their tenant came. Each worker takes its share, once.
#[derive(Default)]
pub struct KnownContents {
    share: WorkerShare,
    tenants: Mutex<HashMap<TenantNumber, TenantContents>>,
}

#[derive(Default)]
struct TenantContents {
    contents: Vec<ContentId>,
    pictures: Vec<KnownPicture>,
}

impl KnownContents {
    /// Nothing yet, for the workers of this process.
    pub fn new(share: WorkerShare) -> Self {
        Self { share, tenants: Mutex::default() }
    }

    /// Reads what the workers of this process need to know of what `ledger` holds of a tenant, which must not have records in the
    /// graph yet. A tenant that came before is known already.
    pub fn load(&self, ledger: &dyn Ledger, tenant: TenantNumber) -> Result<(), LedgerError> {
        if self.tenants.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&tenant) {
            return Ok(());
        }
        let (share, mut known) = (self.share, TenantContents::default());
        ledger.known_pictures(tenant, &mut |picture| {
            known.contents.extend(Some(picture.content.id).filter(|id| share.has(id.partition_hash())));
            // Near-duplicates are grouped on the first worker.
            known.pictures.extend(Some(picture).filter(|_| share.process == 0));
        })?;
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant).or_insert(known);
        Ok(())
    }

    /// The known contents of a tenant that route to worker `index` of `peers`.
    pub fn contents_of(&self, tenant: TenantNumber, (index, peers): (usize, usize)) -> HashSet<ContentId> {
        self.take(tenant, |known| take(&mut known.contents, |id| id.partition_hash() % peers as u64 == index as u64))
    }

    /// The known pictures of a tenant, on the worker that groups near-duplicates.
    pub fn pictures_of(&self, tenant: TenantNumber, index: usize) -> Vec<KnownPicture> {
        self.take(tenant, |known| take(&mut known.pictures, |_| index == 0))
    }

    fn take<T: Default>(&self, tenant: TenantNumber, take: impl FnOnce(&mut TenantContents) -> T) -> T {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.get_mut(&tenant).map(take).unwrap_or_default()
    }
}

/// Takes what is a worker's out of what no other has taken.
fn take<T, C: FromIterator<T>>(left: &mut Vec<T>, mut mine: impl FnMut(&T) -> bool) -> C {
    let share = left.extract_if(.., |one| mine(one)).collect();
    left.shrink_to_fit();
    share
}
