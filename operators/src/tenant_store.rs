//! The object store, and whose part of it a record's objects are in.

use std::sync::Arc;

use faceflow_core::record::{JobId, TenantId};
use faceflow_core::sink::Store;

use crate::jobs::Jobs;

/// The object store, with the first folders of its keys: the names of the tenants. Clones share it.
#[derive(Clone)]
pub struct TenantStore {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The tenants.
    pub jobs: Jobs,
}

impl TenantStore {
    /// The first folder of every key of what belongs to a job.
    pub fn folder(&self, job: JobId) -> TenantId {
        self.jobs.tenant(job.tenant).id.clone()
    }
}
