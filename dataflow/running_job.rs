//! A job whose services are open, on its thread: runs the graph to its end, writes the views and counts what was done.

use std::sync::Arc;
use std::time::Duration;

use faceflow_core::invariants::conserved;
use faceflow_core::kill_point::kill_point;
use faceflow_core::ledger::Ledger;
use faceflow_core::peer_liveness::Peers;
use faceflow_sinks::ledger::StateLedger;
use faceflow_sinks::views::Views;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::cluster::PeerConnections;
use crate::conservation::violations;
use crate::job_outcome::{JobError, Summary};
use crate::run::run;
use crate::run_options::{RunError, RunOptions, RunOutcome};
use crate::services::Services;

/// How long calls that have not returned at the end are waited for.
pub(crate) const LEAVE: Duration = Duration::from_secs(1);

/// Everything that a job runs on.
pub(crate) struct RunningJob {
    pub(crate) services: Services,
    pub(crate) options: RunOptions,
    pub(crate) connections: Option<(PeerConnections, Arc<Peers>)>,
    pub(crate) ledger: Arc<StateLedger>,
    pub(crate) views: Views,
    /// Where the output is, as the caller named it.
    pub(crate) out: String,
    /// Whether this process is the first of its cluster, or the only one.
    pub(crate) first: bool,
    /// Removes what killed processes left in the store.
    pub(crate) sweep: Option<JoinHandle<()>>,
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
        let refreshes = self.first && self.options.endless;
        let refresh = refreshes.then(|| runtime.spawn(self.views.clone().refresh()));
        let outcome = run(&self.services, self.options, self.connections.take());
        if let Some(sweep) = &self.sweep {
            // What it has not come to is there for the next run.
            sweep.abort();
        }
        if let Some(refresh) = refresh {
            refresh.abort();
            // It ended by itself only if it panicked; either way the views are written anew below.
            let _ = runtime.block_on(refresh);
        }
        let outcome = outcome?;
        kill_point("run.ended");
        let report = match self.first {
            true => runtime.block_on(self.views.write()).map_err(|error| JobError::Views(error.to_string()))?,
            false => None,
        };
        let report = report.map(|key| format!("{}/{key}", self.out.trim_end_matches('/')));
        self.summary(outcome, report)
    }

    /// Counts what was done, and fails if something discovered is unaccounted for.
    fn summary(&self, outcome: RunOutcome, report: Option<String>) -> Result<Summary, JobError> {
        let (pages, images) = self.ledger.tally()?;
        self.services.executor.metrics.set_tallies((pages, images));
        if let Err(why) = conserved(&pages).and(conserved(&images)) {
            let violations = violations(self.ledger.as_ref());
            return Err(RunError::Failed(format!("conservation is violated: {why}{violations}")).into());
        }
        if self.first && cfg!(debug_assertions) {
            // Counts that move in pairs always add up. Whether they are right is seen by counting the rows, which `faceflow doctor`
            // does for everybody, and every run that is built for tests.
            let violations = violations(self.ledger.as_ref());
            if !violations.is_empty() {
                return Err(RunError::Failed(format!("the ledger does not add up{violations}")).into());
            }
        }
        let faces = self.ledger.reader().face_count()?;
        Ok(Summary { outcome, pages, images, faces, report })
    }
}
