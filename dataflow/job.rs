//! One batch or stream from settings to a finished store: opens the services, runs the graph, writes the views.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faceflow_config::Settings;
use faceflow_config::load::leaves_of;
use faceflow_config::reloadable::ReloadableSettings;
use faceflow_core::clock::RuntimeClock;
use faceflow_core::detector::{Detector, EngineInfo};
use faceflow_core::executor::Executor;
use faceflow_core::invariants::conserved;
use faceflow_core::kill_point::kill_point;
use faceflow_core::ledger::{Ledger, LedgerError};
use faceflow_core::metrics::Metrics;
use faceflow_core::peers::Peers;
use faceflow_core::record::ContentId;
use faceflow_core::shutdown::Shutdown;
use faceflow_core::sink::Sink;
use faceflow_core::source::Source;
use faceflow_core::tally::Tally;
use faceflow_engine::EngineError;
use faceflow_sinks::ledger::{Durability, OpenError, Place, StateLedger};
use faceflow_sinks::objects::sweep::sweep;
use faceflow_sinks::objects::{Objects, ObjectsError};
use faceflow_sinks::views::Views;
use faceflow_web::files::Files;
use faceflow_web::{Client, ClientError};

use crate::cluster::{Agreement, ClusterError, Membership, PeerConnections};
use crate::metrics_endpoint::MetricsEndpoint;
use crate::reload::Reload;
use crate::run::{RunError, RunOptions, RunOutcome, broken_laws, run};
use crate::services::{Backends, Services, WorkerShare};

/// Settings that are not said to other processes as they are.
const SECRET: [&str; 1] = ["submit.token"];
/// Nor are longer ones, in bytes.
const SHOWN_MAX: usize = 60;

/// How long actions that are still running at the end may take to return before they are left behind.
const LEAVE: Duration = Duration::from_secs(1);

/// Which detector a job uses.
pub enum Engine {
    /// `auto`, `seeta`, or `onnx:PATH`.
    Named(String),
    /// One of the user's own.
    Own(Arc<dyn Detector>),
}

/// A batch or stream to run.
pub struct Job {
    /// Every setting.
    pub settings: Settings,
    /// Where metrics are told while it runs.
    pub metrics_endpoint: Option<MetricsEndpoint>,
    /// How settings are read again while it runs; without it, they stay.
    pub reload: Option<Reload>,
    /// Folder of the ledger, or the `postgres://` URL of a database.
    pub state: String,
    /// Folder or object store URL.
    pub out: String,
    /// Whose work this is.
    pub tenant: String,
    /// What finds faces.
    pub engine: Engine,
    /// Where sites and pictures come from.
    pub sources: Vec<Box<dyn Source>>,
    /// Folders whose files may be taken in as pictures, as canonical paths.
    pub folders: Vec<PathBuf>,
    /// Where detections go besides the store.
    pub sinks: Vec<Box<dyn Sink>>,
    /// Workers and patience.
    pub options: RunOptions,
    /// Which process of a cluster this is, if it is one.
    pub cluster: Option<Membership>,
    /// Counters to read.
    pub metrics: Metrics,
    /// The way to ask for a drain or stop.
    pub shutdown: Shutdown,
}

/// What a batch came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How it ended.
    pub outcome: RunOutcome,
    /// Pages by state.
    pub pages: Tally,
    /// Images by state.
    pub images: Tally,
    /// Faces in images that are done.
    pub faces: u64,
    /// Where the report lies, if one was written.
    pub report: Option<String>,
}

/// Why a job did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The detector.
    #[error("--detector: {0}")]
    Engine(#[from] EngineError),
    /// The web client.
    #[error("the web client: {0}")]
    Client(#[from] ClientError),
    /// The output.
    #[error("--out: {0}")]
    Objects(#[from] ObjectsError),
    /// The state could not be opened.
    #[error("--state: {0}")]
    Open(#[from] OpenError),
    /// The output does not take a probe.
    #[error("--out: {0}")]
    Store(String),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The run itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The I/O threads.
    #[error("the I/O threads could not be started: {0}")]
    Runtime(#[from] std::io::Error),
    /// The processes of the cluster did not come together.
    #[error("the cluster: {0}")]
    Cluster(#[from] ClusterError),
    /// A folder cannot be the state of a cluster.
    #[error("--state: a cluster needs a state that every process can reach: name a postgres:// URL")]
    Lonely,
    /// Sidecars or report.
    #[error("writing the views of the ledger: {0}")]
    Views(String),
}

impl Job {
    /// A job with default settings, the default detector and nothing to do yet.
    pub fn new(state: &str, out: &str) -> Self {
        Self {
            settings: Settings::default(),
            metrics_endpoint: None,
            reload: None,
            state: state.to_owned(),
            out: out.to_owned(),
            tenant: "default".to_owned(),
            engine: Engine::Named("auto".to_owned()),
            sources: vec![],
            folders: vec![],
            sinks: vec![],
            options: RunOptions::default(),
            cluster: None,
            metrics: Metrics::default(),
            shutdown: Shutdown::default(),
        }
    }

    /// Whether this process is the first of its cluster, or the only one: it reads the sources and writes the views.
    pub fn is_first(&self) -> bool {
        self.cluster.as_ref().is_none_or(|membership| membership.process == 0)
    }

    /// Runs it: to the end, to the end of its patience, or until it is told to stop.
    pub fn run(self) -> Result<Summary, JobError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("faceflow-io").build()?;
        let summary = self.run_on(&runtime);
        // A call that hangs (an engine, standard input) must not keep the process; what it was about is open in the ledger.
        runtime.shutdown_timeout(LEAVE);
        summary
    }

    fn run_on(mut self, runtime: &tokio::runtime::Runtime) -> Result<Summary, JobError> {
        let live = ReloadableSettings::from(&self.settings);
        if let Some(reload) = self.reload.take() {
            let changes = self.cluster.is_none().then(|| live.clone());
            reload.follow(runtime.handle(), self.settings.clone(), changes);
        }
        let clock = Arc::new(RuntimeClock::wall(runtime.handle().clone()));
        let executor = Executor::new(runtime.handle().clone(), clock, (self.metrics.clone(), self.shutdown.clone()));
        // What a mistake in the command line breaks comes first, so that a mistake leaves nothing behind.
        let detector = match &self.engine {
            Engine::Own(detector) => Arc::clone(detector),
            Engine::Named(name) => faceflow_engine::open(name, &self.settings.detect)?,
        };
        let web = Client::new(live.fetch.clone(), Arc::clone(&executor.clock))?;
        let web = Arc::new(Files::new(web, self.folders.clone()));
        let mut connections = match self.cluster.clone() {
            Some(membership) => {
                let settings = &self.settings.cluster;
                Some(runtime.block_on(PeerConnections::connect(
                    membership,
                    self.agreement(&detector.info()),
                    settings,
                ))?)
            }
            None => None,
        };
        let first = self.is_first();
        let ledger = Arc::new(self.open_ledger(runtime, connections.as_mut())?);
        if let Some(endpoint) = self.metrics_endpoint.take() {
            endpoint.serve(&executor, Arc::clone(&ledger) as _);
        }
        let store = Arc::new(match self.settings.ledger.durability {
            Durability::Process => Objects::open(&self.out)?,
            Durability::Power => Objects::open_durable(&self.out)?,
        });
        if first {
            runtime.block_on(store.check()).map_err(|fault| JobError::Store(fault.detail))?;
        }
        for source in &mut self.sources {
            if let Some(list) = source.list() {
                let sites = ledger.reader().listed(list)?;
                source.remember(sites);
            }
        }
        let backends = Backends {
            web,
            store: Arc::clone(&store) as _,
            ledger: Arc::clone(&ledger) as _,
            detector,
            sources: self.sources,
            sinks: self.sinks,
        };
        let folder = store.folder().filter(|_| first).map(Path::to_owned);
        let views = Views::new(Arc::clone(&ledger), store as _, live.report.clone());
        let swept = folder.map(|root| runtime.spawn(sweep(root, self.settings.store, Arc::clone(&executor.clock))));
        let settings = self.settings.cluster.clone();
        let share = self.cluster.as_ref().map(|membership| WorkerShare {
            process: membership.process,
            processes: membership.addresses.len(),
            workers: self.options.workers.max(1),
        });
        let again = self.options.endless && self.settings.recrawl.enabled;
        let mut services =
            Services::of_process(&self.tenant, self.settings, backends, (executor, share.unwrap_or_default()))?;
        (services.again, services.live) = (again, live);
        if let Some(connections) = &mut connections {
            // Whoever began before the others have read the ledger would write what they take for known.
            runtime.block_on(connections.barrier())?;
        }
        let connections = connections.zip(self.cluster).map(|(connections, Membership { process, addresses })| {
            (connections, Arc::new(Peers::new(process, addresses, settings, services.executor.clock.now())))
        });
        let refresh = (first && self.options.endless).then(|| runtime.spawn(views.clone().refresh()));
        let outcome = run(&services, self.options, connections);
        if let Some(swept) = swept {
            // What it has not come to is there for the next run.
            swept.abort();
        }
        if let Some(refresh) = refresh {
            refresh.abort();
            // It ended by itself only if it panicked; either way the views are written anew below.
            let _ = runtime.block_on(refresh);
        }
        let outcome = outcome?;
        kill_point("run.ended");
        let report = match first {
            true => runtime.block_on(views.write()).map_err(|error| JobError::Views(error.to_string()))?,
            false => None,
        };
        let report = report.map(|key| format!("{}/{key}", self.out.trim_end_matches('/')));
        let (pages, images) = ledger.tally()?;
        if let Err(why) = conserved(&pages).and(conserved(&images)) {
            let broken = broken_laws(ledger.as_ref());
            return Err(RunError::Failed(format!("conservation is violated: {why}{broken}")).into());
        }
        if first && cfg!(debug_assertions) {
            // Counts that move in pairs always add up. Whether they are right is seen by counting the rows, which `faceflow doctor`
            // does for everybody, and every run that is built for tests.
            let broken = broken_laws(ledger.as_ref());
            if !broken.is_empty() {
                return Err(RunError::Failed(format!("the ledger does not add up{broken}")).into());
            }
        }
        let faces = ledger.reader().face_count()?;
        Ok(Summary { outcome, pages, images, faces, report })
    }
}

impl Job {
    /// What the processes of a cluster must agree on.
    fn agreement(&self, engine: &EngineInfo) -> Agreement {
        let digest = |text: String| ContentId::of(text.as_bytes()).to_string()[..16].to_owned();
        Agreement {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            addresses: self.cluster.as_ref().map(|membership| membership.addresses.clone()).unwrap_or_default(),
            workers: self.options.workers.max(1),
            endless: self.options.endless,
            places: format!("{} {} {}", Place::new(&self.state), self.out, self.tenant),
            model: digest(engine.model_sha256.clone()),
            settings: leaves_of(&self.settings)
                .into_iter()
                .map(|(key, value)| {
                    let text = value.to_string();
                    let shown = text.len() <= SHOWN_MAX && !SECRET.contains(&&key[..]);
                    (key, if shown { text } else { format!("sha256:{}", digest(text)) })
                })
                .collect(),
        }
    }

    /// The ledger: of this process alone, or of the run that the first process of the cluster has begun.
    fn open_ledger(
        &self,
        runtime: &tokio::runtime::Runtime,
        connections: Option<&mut PeerConnections>,
    ) -> Result<StateLedger, JobError> {
        let (place, settings) = (Place::new(&self.state), &self.settings.ledger);
        let Some(connections) = connections else { return Ok(StateLedger::open(place, &self.tenant, settings)?) };
        if self.is_first() {
            let ledger = StateLedger::open(place, &self.tenant, settings)?;
            runtime.block_on(connections.share(ledger.run()))?;
            return Ok(ledger);
        }
        match runtime.block_on(connections.share(None::<i64>))? {
            Some(run) => Ok(StateLedger::join(run, place, &self.tenant, settings)?),
            None => Err(JobError::Lonely),
        }
    }
}
