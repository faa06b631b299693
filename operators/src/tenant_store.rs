//! One tenant's part of the object store.

use std::sync::Arc;

use faceflow_core::record::TenantId;
use faceflow_core::sink::Store;

/// The object store, with the first folder of every key. Clones share it.
#[derive(Clone)]
pub struct TenantStore {
    /// The store.
    pub store: Arc<dyn Store>,
    /// First folder of every key.
    pub tenant: TenantId,
}
