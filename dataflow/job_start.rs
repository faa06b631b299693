//! How a job starts: opens the detector, the web client, the connections of its cluster, the ledger and the store, then hands
//! them to a thread of its own.
//!
//! Promise: what a mistake in the settings or the command line makes impossible is found before anything is written.

use std::path::Path;
use std::sync::Arc;

use faceflow_config::reloadable::ReloadableSettings;
use faceflow_core::clock::RuntimeClock;
use faceflow_core::detector::Detector;
use faceflow_core::executor::Executor;
use faceflow_core::peer_liveness::Peers;
use faceflow_core::record::JobId;
use faceflow_core::sink::Store;
use faceflow_ledger::{DatabaseLedger, Durability, Reader, StateLocation, TenantLedgers};
use faceflow_operators::source_set::SourceSet;
use faceflow_operators::stored_contents::WorkerShare;
use faceflow_store::Objects;
use faceflow_store::partial_files::remove_partial_files;
use faceflow_web::files::Files;
use faceflow_web::{Client, Web};
use tokio::runtime::Runtime;

use crate::cluster::{Membership, PeerConnections};
use crate::job::{Engine, Job};
use crate::job_agreement::agreement;
use crate::job_handle::{JobControls, JobHandle};
use crate::job_outcome::{JobError, Summary};
use crate::originals_check::{Originals, look_for_originals};
use crate::running_job::{LEAVE, RunningJob};
use crate::served_jobs::{Entered, ServedJobs, remember_sites};
use crate::services::{Backends, Process, Services};
use crate::tenant_views::TenantViews;

/// Web, store and detector.
type OpenBackends = (Arc<dyn Web>, Arc<Objects>, Arc<dyn Detector>);

impl Job {
    /// Runs it to its end: everything settled, patience over, or drained or stopped through its `shutdown`. An endless one
    /// ends in the last way alone.
    pub fn run(self) -> Result<Summary, JobError> {
        self.start()?.wait()
    }

    /// Starts it on threads of its own. Its input stays open for further sources until the handle is waited for or closes it.
    ///
    /// Opening the ledger, the store and a cluster blocks the calling thread, which must not be one of an asynchronous runtime.
    pub fn start(self) -> Result<JobHandle, JobError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("faceflow-io").build()?;
        let (job, controls) = match self.open(&runtime) {
            Ok(opened) => opened,
            Err(error) => {
                runtime.shutdown_timeout(LEAVE);
                return Err(error);
            }
        };
        let thread = std::thread::Builder::new().name("faceflow-job".to_owned()).spawn(move || job.run(runtime))?;
        Ok(JobHandle::new(controls, thread))
    }

    fn open(mut self, runtime: &Runtime) -> Result<(RunningJob, JobControls), JobError> {
        let first = self.is_first();
        let live = ReloadableSettings::from(&self.settings);
        if let Some(reload) = self.reload.take() {
            let changes = self.cluster.is_none().then(|| live.clone());
            reload.follow(runtime.handle(), self.settings.clone(), changes);
        }
        let clock = Arc::new(RuntimeClock::wall(runtime.handle().clone()));
        let executor = Executor::new(runtime.handle().clone(), clock, (self.metrics.clone(), self.shutdown.clone()));
        let detector = self.open_detector()?;
        let web =
            Arc::new(Files::new(Client::new(live.fetch.clone(), Arc::clone(&executor.clock))?, self.folders.clone()));
        let mut connections = self.connect(runtime, detector.as_ref())?;
        let ledgers = TenantLedgers::new(StateLocation::new(&self.state), &self.settings.ledger)?;
        let ledger = self.open_ledger(&ledgers, runtime, connections.as_mut())?;
        let ledgers = Arc::new(ledgers);
        if let Some(endpoint) = self.metrics_endpoint.take() {
            endpoint.serve(&executor, Arc::clone(&ledgers) as _, Arc::clone(&web) as _);
        }
        let store = Arc::new(self.open_store(runtime)?);
        for source in &mut self.sources {
            remember_sites(source.as_mut(), &ledger)?;
        }
        let job = JobId::default_of(ledger.reader().tenant_number());
        let sources = SourceSet::open(job, std::mem::take(&mut self.sources));
        let folder = store.folder().filter(|_| first).map(Path::to_owned);
        let refreshes = first && self.options.endless;
        let views = Arc::new(TenantViews::new(Arc::clone(&store) as _, refreshes, runtime.handle().clone()));
        views.add(Arc::clone(&ledger), live.report.clone());
        if first {
            let (ledger, store) = (Arc::clone(&ledger), Arc::clone(&store));
            runtime.spawn(async move { warn_of_missing_originals(ledger.reader(), store.as_ref()).await });
        }
        let partial_files = folder.map(|root| {
            let removing = remove_partial_files(root, self.settings.store, Arc::clone(&executor.clock));
            runtime.spawn(async {
                if let Err(fault) = removing.await {
                    tracing::warn!("what killed processes left in the output is not removed any more: {fault}");
                }
            })
        });
        let (options, out, tenant) = (self.options, self.out.clone(), self.tenant.clone());
        let (metrics, shutdown, cluster) = (self.metrics.clone(), self.shutdown.clone(), self.cluster.take());
        let backends = (web as Arc<dyn Web>, store, detector);
        let mut services = self.services((backends, job), (executor, live, Arc::clone(&ledgers)), cluster.as_ref())?;
        services.sources = sources.clone();
        let served = ServedJobs {
            tenant,
            settings: Arc::clone(&services.settings),
            cluster: cluster.is_some(),
            jobs: services.jobs.clone(),
            known: Arc::clone(&services.known),
            sources: sources.clone(),
            ledgers: Arc::downgrade(&ledgers),
            views: Arc::downgrade(&views),
            entered: Entered::with(job, Arc::clone(&services.settings)),
        };
        let controls = JobControls {
            job,
            served,
            sources,
            ledger: Arc::downgrade(&ledger),
            metrics,
            shutdown,
            first,
            endless: options.endless,
        };
        if let Some(connections) = &mut connections {
            // A process that began before the others have read the ledger would write what they take for known.
            runtime.block_on(connections.barrier())?;
        }
        let peers = cluster.map(|Membership { process, addresses }| {
            let now = services.executor.clock.now();
            Arc::new(Peers::new(process, addresses, services.settings.cluster.clone(), now))
        });
        let connections = connections.zip(peers);
        Ok((RunningJob { services, options, connections, ledgers, ledger, views, out, first, partial_files }, controls))
    }

    fn open_detector(&self) -> Result<Arc<dyn Detector>, JobError> {
        match &self.engine {
            Engine::Own(detector) => Ok(Arc::clone(detector)),
            Engine::Named(name) => Ok(faceflow_engine::open(name, &self.settings.detect)?),
        }
    }

    /// Connects to the other processes of the cluster, if there is one.
    fn connect(&self, runtime: &Runtime, detector: &dyn Detector) -> Result<Option<PeerConnections>, JobError> {
        let Some(membership) = self.cluster.clone() else { return Ok(None) };
        let agreement = agreement(self, &detector.info());
        let connections = PeerConnections::connect(membership, agreement, &self.settings.cluster);
        Ok(Some(runtime.block_on(connections)?))
    }

    /// The ledger: of this process alone, or of the run that the first process of the cluster has begun.
    fn open_ledger(
        &self,
        ledgers: &TenantLedgers,
        runtime: &Runtime,
        connections: Option<&mut PeerConnections>,
    ) -> Result<Arc<DatabaseLedger>, JobError> {
        let Some(connections) = connections else { return Ok(ledgers.tenant(&self.tenant)?) };
        if self.is_first() {
            let ledger = ledgers.tenant(&self.tenant)?;
            runtime.block_on(connections.share(ledger.run()))?;
            return Ok(ledger);
        }
        match runtime.block_on(connections.share(None::<i64>))? {
            Some(run) => Ok(ledgers.join(&self.tenant, run)?),
            None => Err(JobError::FolderState),
        }
    }

    /// The output, which the first process of a cluster checks for all.
    fn open_store(&self, runtime: &Runtime) -> Result<Objects, JobError> {
        let store = match self.settings.ledger.durability {
            Durability::Process => Objects::open(&self.out)?,
            Durability::Power => Objects::open_durable(&self.out)?,
        };
        if self.is_first() {
            runtime.block_on(store.check()).map_err(|fault| JobError::Store(fault.detail))?;
        }
        Ok(store)
    }

    fn services(
        self,
        ((web, store, detector), job): (OpenBackends, JobId),
        (executor, live, ledger): (Executor, ReloadableSettings, Arc<TenantLedgers>),
        cluster: Option<&Membership>,
    ) -> Result<Services, JobError> {
        let share = cluster.map(|membership| WorkerShare {
            process: membership.process,
            processes: membership.addresses.len(),
            workers: self.options.workers.max(1),
        });
        let again = self.options.endless;
        let backends = Backends { web, store, ledger, detector, sources: vec![], sinks: self.sinks };
        let process = Process { executor, share: share.unwrap_or_default(), live };
        let services = Services::of_process((self.tenant, job), self.settings, backends, process)?;
        Ok(Services { again, ..services })
    }
}

/// Of the originals that are recorded, so many are looked for when a job starts.
const ORIGINALS_MAX: usize = 8;

/// Says so if the output is not the one that the state has written to: its results would name what is not there.
async fn warn_of_missing_originals(reader: &Reader, store: &dyn Store) {
    match look_for_originals(reader, store, ORIGINALS_MAX).await {
        Ok(Originals { looked_for, missing }) if !missing.is_empty() => tracing::warn!(
            "{} of {looked_for} originals that the state records are not in the output, such as {}: results name them all \
             the same. Name the --out of this state, or begin a new --state",
            missing.len(),
            missing[0]
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!("it is not known whether the output is that of the state: {error}"),
    }
}
