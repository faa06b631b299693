//! Everything the graph runs on, made from the settings once per process and shared by its workers.

use std::sync::{Arc, Mutex};

use faceflow_config::Settings;
use faceflow_config::reloadable::ReloadableSettings;
use faceflow_core::detector::Detector;
use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::ledger::{Ledger, LedgerError};
use faceflow_core::record::{DEFAULT_JOB, JobId, Priority, TenantId, TenantNumber};
use faceflow_core::sink::{Sink, Store};
use faceflow_core::source::Source;
use faceflow_operators::dedupe_near::TenantPictures;
use faceflow_operators::detector_pool::{DetectorPermits, DetectorPool};
use faceflow_operators::dispatch::Dispatcher;
use faceflow_operators::found_pages::FoundPages;
use faceflow_operators::jobs::{JobScope, Jobs, TenantScope};
use faceflow_operators::picture_decoder::PictureDecoder;
use faceflow_operators::pixel_cache::PixelCache;
use faceflow_operators::read_sources::SourceReader;
use faceflow_operators::source_set::SourceSet;
use faceflow_operators::stored_contents::{StoredContents, WorkerShare};
use faceflow_operators::tenant_store::TenantStore;
use faceflow_operators::write_sinks::SharedSink;
use faceflow_web::Web;

use crate::known_contents::KnownContents;

/// Pages or images of one worker that wait for their host or are being requested. It leaves room for hosts that make us wait;
/// how many requests are under way at once is limited by the web client (`fetch.concurrency`).
const REQUESTS_MAX: usize = 4_096;

/// What the graph reaches outside of this process; tests and users bring their own.
pub struct Backends {
    /// How to reach the web.
    pub web: Arc<dyn Web>,
    /// Where objects go.
    pub store: Arc<dyn Store>,
    /// Where facts go.
    pub ledger: Arc<dyn Ledger>,
    /// What finds faces.
    pub detector: Arc<dyn Detector>,
    /// Where sites come from.
    pub sources: Vec<Box<dyn Source>>,
    /// Where detections go besides the store.
    pub sinks: Vec<Box<dyn Sink>>,
}

/// The process in which a graph runs.
pub struct Process {
    /// The way to tokio.
    pub executor: Executor,
    /// Which part of a cluster's workers it has.
    pub share: WorkerShare,
    /// The settings that may change while it runs.
    pub live: ReloadableSettings,
}

/// What the graph runs on. Clones share everything.
#[derive(Clone)]
pub struct Services {
    /// The tenants and jobs that are served.
    pub jobs: Jobs,
    /// The job that the graph was started for.
    pub job: JobId,
    /// Every setting of that job, as at the start.
    pub settings: Arc<Settings>,
    /// Those that may have changed since.
    pub live: ReloadableSettings,
    /// The way to tokio.
    pub executor: Executor,
    /// How to reach the web.
    pub web: Arc<dyn Web>,
    /// Where objects go.
    pub tenant_store: TenantStore,
    /// Where facts go.
    pub ledger: Arc<dyn Ledger>,
    /// The detector and its limits.
    pub detector_pool: DetectorPool,
    /// Where decoded pictures are cached.
    pub pixel_cache: Arc<PixelCache>,
    /// Where detections of the tenant of that job go besides the store.
    pub sinks: Vec<SharedSink>,
    /// Pages that were found where pictures were expected.
    pub found_pages: Arc<FoundPages>,
    /// What earlier runs left.
    pub known: Arc<KnownContents>,
    /// How much each stage takes on at once on one worker.
    pub limits: StageLimits,
    /// Whether pages that were read are fetched again when they may have changed, of jobs that want it: in a run without end.
    pub again: bool,
    /// Processes that do this work together.
    pub processes: usize,
    /// Where sites come from.
    pub sources: SourceSet,
}

/// How much the stages of one worker take on at once.
#[derive(Clone, Copy, Debug)]
pub struct StageLimits {
    /// Pages.
    pub fetch: Limits,
    /// Images.
    pub download: Limits,
    /// Parsing and decoding: twice what the process does at once, so that no permit waits for a worker.
    pub cpu: Limits,
}

impl Services {
    /// The services of a single process, which goes on from what the ledger holds of the job `default` of its first tenant. The
    /// input ends when the sources do.
    pub fn new(
        tenant: TenantId,
        settings: Settings,
        backends: Backends,
        executor: Executor,
    ) -> Result<Self, LedgerError> {
        let live = ReloadableSettings::from(&settings);
        let process = Process { executor, share: WorkerShare::default(), live };
        Self::of_process((tenant, JobId::FIRST), settings, backends, process)
    }

    /// The same for one process of a cluster, which remembers its share of what the ledger holds.
    pub fn of_process(
        (tenant, job): (TenantId, JobId),
        settings: Settings,
        backends: Backends,
        Process { executor, share, live }: Process,
    ) -> Result<Self, LedgerError> {
        let jobs = Jobs::default();
        let work = settings.work(&live);
        jobs.add_tenant(TenantScope::new(job.tenant, tenant, work.clone()));
        jobs.add(JobScope { id: job, name: DEFAULT_JOB.to_owned(), priority: Priority::default(), settings: work });
        let known = Arc::new(KnownContents::new(share));
        known.load(backends.ledger.as_ref(), job.tenant)?;
        let executor = executor.with_cpu_threads(settings.image.concurrency());
        let per_host = settings.fetch.per_host.max(1);
        let pixels = settings.with_memory_parts().image.memory_bytes();
        Ok(Self {
            tenant_store: TenantStore { store: backends.store, jobs: jobs.clone() },
            known,
            detector_pool: DetectorPool {
                detector: backends.detector,
                permits: Arc::new(DetectorPermits::new(settings.detect.concurrency())),
                timeout_ms: settings.detect.timeout_ms,
                linger_ms: settings.detect.linger_ms,
                shutdown: executor.shutdown.clone(),
            },
            pixel_cache: Arc::new(PixelCache::new(settings.image.concurrent_max, pixels)),
            found_pages: Arc::default(),
            sinks: backends.sinks.into_iter().map(|sink| Arc::new(Mutex::new(sink))).collect(),
            limits: StageLimits {
                fetch: Limits::starting(REQUESTS_MAX, per_host),
                download: Limits::starting(REQUESTS_MAX, per_host),
                cpu: Limits::finishing(settings.image.concurrency() * 2),
            },
            again: false,
            processes: share.processes,
            live,
            sources: SourceSet::fixed(job, backends.sources),
            jobs,
            job,
            settings: Arc::new(settings),
            executor,
            web: backends.web,
            ledger: backends.ledger,
        })
    }

    /// What the worker `index` reads: the first one everything.
    pub fn source_reader(&self, index: usize) -> Option<SourceReader> {
        (index == 0).then(|| SourceReader {
            sources: self.sources.clone(),
            crawl: self.live.crawl.clone(),
            jobs: self.jobs.clone(),
        })
    }

    /// What the worker `index` dispatches from the ledger: the first one everything.
    pub fn dispatcher(&self, index: usize) -> Option<Dispatcher> {
        (index == 0).then(|| Dispatcher {
            ledger: Arc::clone(&self.ledger),
            crawl: self.live.crawl.clone(),
            again: self.again,
            jobs: self.jobs.clone(),
            sources: self.sources.clone(),
        })
    }

    /// What decodes pictures.
    pub fn picture_decoder(&self) -> PictureDecoder {
        PictureDecoder {
            settings: Arc::new(self.settings.image.clone()),
            pixel_cache: Arc::clone(&self.pixel_cache),
            cpu: self.executor.cpu.clone(),
        }
    }

    /// The contents that the ledger is known to have.
    pub fn stored_contents(&self) -> Arc<StoredContents> {
        Arc::clone(&self.known.stored)
    }

    /// What the worker `index` knows of a tenant's pictures, and how they are grouped.
    pub fn known_pictures(&self, index: usize) -> impl Fn(TenantNumber) -> TenantPictures + 'static {
        let (known, jobs) = (Arc::clone(&self.known), self.jobs.clone());
        move |tenant| TenantPictures {
            settings: jobs.tenant(tenant).settings.dedupe.as_ref().clone(),
            known: known.pictures_of(tenant, index),
        }
    }
}
