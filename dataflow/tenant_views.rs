//! The views of every tenant that a running graph serves: sidecars and report, each tenant's in its own part of the output.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faceflow_core::Reloadable;
use faceflow_core::sink::Store;
use faceflow_ledger::DatabaseLedger;
use faceflow_views::ViewUpdater;
use faceflow_views::report::ReportSettings;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;

/// The views of the tenants, the first of whom the graph was started for.
pub(crate) struct TenantViews {
    store: Arc<dyn Store>,
    /// Whether they are brought up to date again and again while the graph runs.
    refreshes: bool,
    runtime: Handle,
    tenants: Mutex<Vec<TenantView>>,
}

struct TenantView {
    views: ViewUpdater,
    refresh: Option<JoinHandle<()>>,
}

impl TenantViews {
    /// Of no tenant yet.
    pub(crate) fn new(store: Arc<dyn Store>, refreshes: bool, runtime: Handle) -> Self {
        Self { store, refreshes, runtime, tenants: Mutex::default() }
    }

    /// Adds those of a tenant.
    pub(crate) fn add(&self, ledger: Arc<DatabaseLedger>, settings: Reloadable<ReportSettings>) {
        let views = ViewUpdater::new(ledger, Arc::clone(&self.store), settings);
        let refresh = self.refreshes.then(|| self.runtime.spawn(views.clone().refresh()));
        self.tenants().push(TenantView { views, refresh });
    }

    /// Brings all of them up to date for the last time. Returns the key of the first tenant's report, if there is one. When those of
    /// a tenant fail, the others are written all the same.
    pub(crate) fn finish(&self, runtime: &Runtime) -> Result<Option<String>, String> {
        let tenants = self.stop(runtime);
        let mut written: Vec<_> = tenants.iter().map(|views| runtime.block_on(views.write())).collect();
        match written.iter().position(Result::is_err) {
            Some(failed) => written.swap_remove(failed).map_err(|error| error.to_string()),
            None => Ok(written.into_iter().next().and_then(Result::ok).flatten()),
        }
    }

    /// They are not brought up to date any more.
    pub(crate) fn stop(&self, runtime: &Runtime) -> Vec<ViewUpdater> {
        let tenants = std::mem::take(&mut *self.tenants());
        tenants.iter().filter_map(|tenant| tenant.refresh.as_ref()).for_each(JoinHandle::abort);
        let views = tenants.into_iter().map(|TenantView { views, refresh }| {
            // It ended by itself only if it panicked; either way the views are written anew afterwards.
            refresh.map(|refresh| runtime.block_on(refresh));
            views
        });
        views.collect()
    }

    fn tenants(&self) -> MutexGuard<'_, Vec<TenantView>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
