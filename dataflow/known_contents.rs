//! The pictures that the ledger knew when a tenant came to this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faceflow_core::ledger::{KnownPicture, Ledger, LedgerError};
use faceflow_core::record::TenantNumber;
use faceflow_operators::stored_contents::{StoredContents, WorkerShare};

/// The pictures that the ledger knew when their tenant came.
pub struct KnownContents {
    share: WorkerShare,
    /// Their digests, and those of what is recorded since.
    pub stored: Arc<StoredContents>,
    /// What the worker that groups near-duplicates has not taken yet.
    pictures: Mutex<HashMap<TenantNumber, Vec<KnownPicture>>>,
}

impl KnownContents {
    /// Nothing yet, for the workers of this process.
    pub fn new(share: WorkerShare) -> Self {
        Self { share, stored: Arc::new(StoredContents::new(share)), pictures: Mutex::default() }
    }

    /// Reads what the workers of this process need to know of what `ledger` holds of a tenant, which must not have records in the
    /// graph yet. A tenant that came before is known already.
    pub fn load(&self, ledger: &dyn Ledger, tenant: TenantNumber) -> Result<(), LedgerError> {
        if self.lock().contains_key(&tenant) {
            return Ok(());
        }
        let mut pictures = Vec::new();
        ledger.known_pictures(tenant, &mut |picture| {
            self.stored.load(tenant, picture.content.id);
            // Near-duplicates are grouped on the first worker.
            pictures.extend(Some(picture).filter(|_| self.share.process == 0));
        })?;
        self.lock().entry(tenant).or_insert(pictures);
        Ok(())
    }

    /// The known pictures of a tenant, once, on the worker that groups near-duplicates.
    pub fn pictures_of(&self, tenant: TenantNumber, index: usize) -> Vec<KnownPicture> {
        let mut pictures = self.lock();
        pictures.get_mut(&tenant).filter(|_| index == 0).map(std::mem::take).unwrap_or_default()
    }

    /// Nothing under the lock panics.
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantNumber, Vec<KnownPicture>>> {
        self.pictures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
