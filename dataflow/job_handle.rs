//! A running job as its caller holds it: adds and removes sources, reads its progress, drains or cancels it, and waits for it. While
//! it runs its graph serves further jobs, of the same tenant or of others, which are added and removed here too.
//!
//! Promises: the input of the job stays open as long as the handle does; whatever way a job ends, what is not settled is open
//! in the ledger, and the same job goes on from there. A handle that is dropped cancels its job and waits until it has ended.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use faceflow_core::Time;
use faceflow_core::blocking::panicked;
use faceflow_core::ledger::{Ledger, LedgerError};
use faceflow_core::metrics::{Metrics, StageMetrics};
use faceflow_core::record::JobId;
use faceflow_core::shutdown::{Mode, Shutdown};
use faceflow_core::source::{Source, SourceId};
use faceflow_core::tally::Tally;
use faceflow_ledger::DatabaseLedger;
use faceflow_operators::source_set::SourceSet;

use crate::job_outcome::{JobError, Summary};
use crate::job_spec::{AddJobError, JobSpec};
use crate::run_options::RunError;
use crate::served_jobs::{ServedJobs, remember_sites};

/// What a handle reaches of its job.
pub(crate) struct JobControls {
    /// The job that the handle is of.
    pub(crate) job: JobId,
    /// The jobs that are served.
    pub(crate) served: ServedJobs,
    pub(crate) sources: SourceSet,
    /// Not kept open by the handle: once the job has ended, another may open the same state.
    pub(crate) ledger: Weak<DatabaseLedger>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
    /// Whether this process is the first of its cluster, or the only one.
    pub(crate) first: bool,
    pub(crate) endless: bool,
}

/// A job that runs on threads of its own.
pub struct JobHandle {
    controls: JobControls,
    thread: Option<JoinHandle<Result<Summary, JobError>>>,
}

/// How far a job has come.
#[derive(Clone, Debug)]
pub struct JobProgress {
    /// Pages by state, by the ledger's counts.
    pub pages: Tally,
    /// Images by state, by the ledger's counts.
    pub images: Tally,
    /// What waits and what is under way at each stage of this process, by name.
    pub stages: Vec<(&'static str, Arc<StageMetrics>)>,
    /// Everything due before this is settled, or was re-timed to it or later. `None` before the beginning and after the end.
    pub frontier: Option<Time>,
    /// The sources that have neither ended nor been removed.
    pub sources: Vec<SourceId>,
    /// Whether it runs, drains or was stopped.
    pub mode: Mode,
}

/// What became of what a job discovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobCounts {
    /// Pages by state.
    pub pages: Tally,
    /// Images by state.
    pub images: Tally,
}

impl JobCounts {
    /// Whether nothing is owed. An image that is done may still become a duplicate: of near-duplicates the best is detected, and which
    /// that is may be known later.
    pub fn is_settled(&self) -> bool {
        self.pages.open + self.images.open == 0
    }
}

/// Why a source was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddSourceError {
    /// The job drains, was cancelled or has ended, or its input was closed.
    #[error("the input of the job is closed")]
    Closed,
    /// Another process reads the sources.
    #[error("the sources of a cluster are read by its process 0")]
    OtherProcess,
    /// The ledger does not say which sites the source named before.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl JobHandle {
    pub(crate) fn new(controls: JobControls, thread: JoinHandle<Result<Summary, JobError>>) -> Self {
        Self { controls, thread: Some(thread) }
    }

    /// Adds a source, which the running graph reads from here on. Blocks for a moment where the source is a watched list: the
    /// ledger is asked which sites it named. A source that is added while the job begins to end may be dropped unread.
    ///
    /// It belongs to the job that the handle is of; a job that is added brings its own.
    ///
    /// Pictures of a folder are taken in only if the job was started with that folder among its `folders`.
    pub fn add_source(&self, mut source: Box<dyn Source>) -> Result<SourceId, AddSourceError> {
        if !self.controls.first {
            return Err(AddSourceError::OtherProcess);
        }
        if self.controls.shutdown.mode() != Mode::Running {
            return Err(AddSourceError::Closed);
        }
        // What the sources of a removed job find would be taken up and never be dispatched.
        if !self.jobs().contains(&self.controls.job) {
            return Err(AddSourceError::Closed);
        }
        let ledger = self.controls.ledger.upgrade().ok_or(AddSourceError::Closed)?;
        remember_sites(source.as_mut(), &ledger)?;
        self.controls.sources.add(self.controls.job, source).ok_or(AddSourceError::Closed)
    }

    /// Stops reading a source; whether it was read until now. What it has yielded stays.
    pub fn remove_source(&self, source: SourceId) -> bool {
        self.controls.sources.remove(source)
    }

    /// Closes the input: no source can be added any more, and a job that is not endless ends once all is settled.
    pub fn close_input(&self) {
        self.controls.sources.close();
    }

    /// The job that it was started for: `default` of its tenant.
    pub fn id(&self) -> JobId {
        self.controls.job
    }

    /// Adds a job, of any tenant, whose work is done from here on beside that of the others. What was open of it goes on. Blocks while
    /// the ledger of its tenant is opened and read, which takes the longer the more pictures the tenant has.
    ///
    /// It ends with the graph, or when it is removed; that all its work is done is seen by its [progress](Self::job_progress).
    pub fn add_job(&self, spec: JobSpec) -> Result<JobId, AddJobError> {
        if !self.controls.first {
            return Err(AddJobError::OtherProcess);
        }
        if self.controls.shutdown.mode() != Mode::Running {
            return Err(AddJobError::Closed);
        }
        self.controls.served.add(spec)
    }

    /// Removes a job with its sources; whether it was there. What is in flight of it is finished and recorded; nothing else of it is
    /// begun, and stays open in the ledger until a job of this tenant and name is added again, here, or in another run once this graph
    /// has ended: until then, on a server, what was open of it is held by this run.
    pub fn remove_job(&self, job: JobId) -> bool {
        self.controls.served.remove(job)
    }

    /// The jobs that are served.
    pub fn jobs(&self) -> Vec<JobId> {
        self.controls.served.all()
    }

    /// Pages and images by state that a job discovered before any other of its tenant. Counted anew, which takes the longer the more
    /// there are. `None` once the graph has ended, or for a tenant that it does not serve.
    pub fn job_progress(&self, job: JobId) -> Result<Option<JobCounts>, LedgerError> {
        let Some(ledger) = self.controls.served.ledger_of(job) else { return Ok(None) };
        let (pages, images) = ledger.reader().job_tally(job.number)?;
        Ok(Some(JobCounts { pages, images }))
    }

    /// How far it has come. After its end the counts are those of the end.
    pub fn progress(&self) -> Result<JobProgress, LedgerError> {
        let JobControls { sources, ledger, metrics, shutdown, .. } = &self.controls;
        let (pages, images) = match ledger.upgrade() {
            Some(ledger) => ledger.tally()?,
            None => metrics.tallies(),
        };
        Ok(JobProgress {
            pages,
            images,
            stages: metrics.stages(),
            frontier: metrics.frontier(),
            sources: sources.active(),
            mode: shutdown.mode(),
        })
    }

    /// Begins nothing new. What is under way is finished and recorded, within the grace of the job's options, and then the job
    /// ends; the rest stays open in the ledger. In a cluster all processes drain.
    pub fn drain(&self) {
        self.controls.shutdown.drain();
    }

    /// Ends the job now. What is under way is abandoned and stays open in the ledger, like the rest. In a cluster the other
    /// processes then end too, with an error that names this one.
    pub fn cancel(&self) {
        self.controls.shutdown.stop();
    }

    /// Whether the job has ended, so that waiting for it takes no time.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end of the job. Its input is closed, unless it is endless: that one ends only when it is drained or stopped.
    pub fn wait(mut self) -> Result<Summary, JobError> {
        if !self.controls.endless {
            self.close_input();
        }
        let thread = self.thread.take().expect("a handle is waited for once");
        end_of(thread)
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.cancel();
        if let Err(error) = end_of(thread) {
            tracing::error!("a job that was cancelled: {error}");
        }
    }
}

fn end_of(thread: JoinHandle<Result<Summary, JobError>>) -> Result<Summary, JobError> {
    thread.join().unwrap_or_else(|panic| Err(RunError::Failed(panicked(panic.as_ref()).detail).into()))
}
