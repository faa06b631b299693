//! The views of the ledger that lie in the output: sidecars and the report, kept up to date while a run goes on.

use std::sync::Arc;
use std::time::Duration;

use faceflow_core::Reloadable;
use faceflow_core::kill_point::kill_point;
use faceflow_core::sink::Store;
use faceflow_ledger::DatabaseLedger;
use tokio::sync::Mutex;

use crate::SinkError;
use crate::report::{Report, ReportSettings};
use crate::sidecar::write_sidecars;

/// One tenant's views. Clones share them.
#[derive(Clone)]
pub struct ViewUpdater {
    ledger: Arc<DatabaseLedger>,
    store: Arc<dyn Store>,
    settings: Reloadable<ReportSettings>,
    report: Arc<Mutex<Report>>,
}

impl ViewUpdater {
    /// The views of `ledger` in `store`. Nothing is read or written yet.
    pub fn new(ledger: Arc<DatabaseLedger>, store: Arc<dyn Store>, settings: Reloadable<ReportSettings>) -> Self {
        Self { ledger, store, settings, report: Arc::default() }
    }

    /// Brings them up to date. Returns the key of the report, if there is one.
    pub async fn write(&self) -> Result<Option<String>, SinkError> {
        let mut report = self.report.lock().await;
        write_sidecars(&self.ledger, self.store.as_ref()).await?;
        kill_point("sidecars.written");
        report.write(self.ledger.reader(), self.store.as_ref(), &self.settings.get()).await
    }

    /// Brings them up to date again and again.
    pub async fn refresh(self) {
        loop {
            let settings = self.settings.get();
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(settings.refresh_ms)) => {}
                () = self.settings.changed(&settings) => {}
            }
            if let Err(error) = self.write().await {
                tracing::warn!("the views of the ledger could not be brought up to date, it is tried again: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
