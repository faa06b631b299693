//! A job whose services are open, on its thread: runs the graph to its end, writes the views and counts what was done.

use std::sync::Arc;
use std::time::Duration;

use faceflow_core::invariants::conserved;
use faceflow_core::kill_point::kill_point;
use faceflow_core::ledger::Ledger;
use faceflow_core::peer_liveness::Peers;
use faceflow_ledger::{DatabaseLedger, TenantLedgers};
use faceflow_views::failure_summary::{FailureSummary, failure_summary};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::cluster::PeerConnections;
use crate::conservation::violations;
use crate::job_outcome::{FAILURES_NAMED, JobError, Summary};
use crate::run::run;
use crate::run_options::{RunError, RunOptions, RunOutcome};
use crate::services::Services;
use crate::tenant_views::TenantViews;

/// Hosts that were given up, named in the summary, at most.
const HOSTS_NAMED: usize = 10;
/// Facts of the quarantine that a summary names, at most.
const QUARANTINED_MAX: usize = 5;

/// How long calls that have not returned at the end are waited for.
pub(crate) const LEAVE: Duration = Duration::from_secs(1);

/// Everything that a job runs on.
pub(crate) struct RunningJob {
    pub(crate) services: Services,
    pub(crate) options: RunOptions,
    pub(crate) connections: Option<(PeerConnections, Arc<Peers>)>,
    /// Those of all tenants that are served.
    pub(crate) ledgers: Arc<TenantLedgers>,
    /// That of the tenant for whom it was started.
    pub(crate) ledger: Arc<DatabaseLedger>,
    pub(crate) views: Arc<TenantViews>,
    /// Where the output is, as the caller named it.
    pub(crate) out: String,
    /// Whether this process is the first of its cluster, or the only one.
    pub(crate) first: bool,
    /// Removes what killed processes left in the store.
    pub(crate) partial_files: Option<JoinHandle<()>>,
}

impl RunningJob {
    /// Runs it to its end.
    pub(crate) fn run(self, runtime: Runtime) -> Result<Summary, JobError> {
        let summary = self.run_on(&runtime);
        // A call that hangs (an engine, standard input) must not keep the process; what it was about is open in the ledger.
        runtime.shutdown_timeout(LEAVE);
        summary
    }

    fn run_on(mut self, runtime: &Runtime) -> Result<Summary, JobError> {
        let outcome = run(&self.services, self.options, self.connections.take());
        if let Some(removing) = &self.partial_files {
            // What it has not come to is there for the next run.
            removing.abort();
        }
        if outcome.is_err() || !self.first {
            self.views.stop(runtime);
        }
        let outcome = outcome?;
        kill_point("run.ended");
        let report = match self.first {
            true => self.views.finish(runtime).map_err(JobError::Views)?,
            false => None,
        };
        let report = report.map(|key| format!("{}/{key}", self.out.trim_end_matches('/')));
        self.summary(outcome, report)
    }

    /// Counts what was done for the tenant for whom it was started, and fails if something that anybody discovered is unaccounted for.
    fn summary(&self, outcome: RunOutcome, report: Option<String>) -> Result<Summary, JobError> {
        let (pages, images) = self.ledger.tally()?;
        self.services.executor.metrics.set_tallies((pages, images));
        let (all_pages, all_images) = self.ledgers.tally()?;
        if let Err(why) = conserved(&all_pages).and(conserved(&all_images)) {
            let violations = violations(self.ledgers.as_ref());
            return Err(RunError::Failed(format!("conservation is violated: {why}{violations}")).into());
        }
        if self.first && cfg!(debug_assertions) {
            // Counts that move in pairs always add up. Whether they are right is seen by counting the rows, which `faceflow doctor`
            // does for everybody, and every run that is built for tests.
            let violations = violations(self.ledgers.as_ref());
            if !violations.is_empty() {
                return Err(RunError::Failed(format!("the ledger does not add up{violations}")).into());
            }
        }
        let faces = self.ledger.reader().face_count()?;
        let failures = match self.first {
            // Everything is settled and written by now: what this would say is no reason to end otherwise.
            true => failure_summary(self.ledger.reader(), FAILURES_NAMED).unwrap_or_else(|error| {
                tracing::warn!("why there is less than was asked for cannot be said: {error}");
                FailureSummary::default()
            }),
            false => FailureSummary::default(),
        };
        let given_up = self.ledger.reader().given_up_hosts(HOSTS_NAMED)?;
        let (quarantined, quarantined_facts) =
            (self.ledger.reader().quarantined_count()?, self.ledger.reader().quarantined(QUARANTINED_MAX)?);
        Ok(Summary { outcome, pages, images, faces, failures, given_up, quarantined, quarantined_facts, report })
    }
}
