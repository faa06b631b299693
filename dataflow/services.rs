//! Settings to services: everything the graph runs on, made once per process and shared by its workers.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use faceflow_config::Settings;
use faceflow_config::reloadable::ReloadableSettings;
use faceflow_core::detector::Detector;
use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::ledger::{KnownPicture, Ledger, LedgerError};
use faceflow_core::record::ContentId;
use faceflow_core::sink::{Sink, Store};
use faceflow_core::source::Source;
use faceflow_operators::detector_pool::{DetectorPermits, DetectorPool};
use faceflow_operators::dispatch::Dispatcher;
use faceflow_operators::pixel_cache::PixelCache;
use faceflow_operators::read_sources::SourceReader;
use faceflow_operators::tenant_store::TenantStore;
use faceflow_operators::write_sinks::SharedSink;
use faceflow_web::Web;

/// Pages or images of one worker that wait for their host or are being asked for. It leaves room for hosts that make us wait;
/// how many requests are really under way is the web client's to limit (`fetch.concurrency`).
const ASKING_MAX: usize = 4_096;

/// The services of one process that come from backends it; tests and users bring their own.
pub struct Backends {
    /// How to reach the web.
    pub web: Arc<dyn Web>,
    /// Where objects go.
    pub store: Arc<dyn Store>,
    /// Where facts go.
    pub ledger: Arc<dyn Ledger>,
    /// What finds faces.
    pub detector: Arc<dyn Detector>,
    /// Where sites come from, one after the other.
    pub sources: Vec<Box<dyn Source>>,
    /// Where detections go besides the store.
    pub sinks: Vec<Box<dyn Sink>>,
}

/// What the graph runs on. Clones share everything.
#[derive(Clone)]
pub struct Services {
    /// Every setting, as at the start.
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
    /// Where decoded pictures hang.
    pub pixel_cache: Arc<PixelCache>,
    /// Where detections go besides the store.
    pub sinks: Vec<SharedSink>,
    /// What earlier runs left.
    pub known: Arc<KnownContents>,
    /// How much each stage takes on at once on one worker.
    pub limits: StageLimits,
    /// Whether pages are looked at again that were read: in a run without end.
    pub again: bool,
    /// Processes that do this work together.
    pub processes: usize,
    sources: Arc<Mutex<VecDeque<Box<dyn Source>>>>,
}

/// How much the stages of one worker take on at once.
#[derive(Clone, Copy, Debug)]
pub struct StageLimits {
    /// Pages.
    pub fetch: Limits,
    /// Images.
    pub download: Limits,
    /// Parsing and decoding.
    pub cpu: Limits,
}

impl Services {
    /// Joins what comes from backends with the settings, going on from what the ledger holds.
    pub fn new(tenant: &str, settings: Settings, backends: Backends, executor: Executor) -> Result<Self, LedgerError> {
        Self::of_process(tenant, settings, backends, (executor, WorkerShare::default()))
    }

    /// The same for one process of a cluster, which remembers its share of what the ledger holds.
    pub fn of_process(
        tenant: &str,
        settings: Settings,
        backends: Backends,
        (executor, share): (Executor, WorkerShare),
    ) -> Result<Self, LedgerError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let per_host = settings.fetch.per_host.max(1);
        Ok(Self {
            tenant_store: TenantStore { store: backends.store, tenant: tenant.into() },
            known: Arc::new(KnownContents::load(backends.ledger.as_ref(), share)?),
            detector_pool: DetectorPool {
                detector: backends.detector,
                permits: Arc::new(DetectorPermits::new(settings.detect.concurrency())),
                timeout_ms: settings.detect.timeout_ms,
                linger_ms: settings.detect.linger_ms,
                shutdown: executor.shutdown.clone(),
            },
            pixel_cache: Arc::new(PixelCache::new(settings.image.concurrent_max, settings.image.memory_max_bytes)),
            sinks: backends.sinks.into_iter().map(|sink| Arc::new(Mutex::new(sink))).collect(),
            limits: StageLimits {
                fetch: Limits::starting(ASKING_MAX, per_host),
                download: Limits::starting(ASKING_MAX, per_host),
                cpu: Limits::finishing(cores * 2),
            },
            again: false,
            processes: share.processes,
            live: ReloadableSettings::from(&settings),
            sources: Arc::new(Mutex::new(backends.sources.into())),
            settings: Arc::new(settings),
            executor,
            web: backends.web,
            ledger: backends.ledger,
        })
    }

    /// What the worker `index` takes in: the first one everything.
    pub fn source_reader(&self, index: usize) -> Option<SourceReader> {
        (index == 0).then(|| SourceReader {
            sources: std::mem::take(&mut *self.sources.lock().unwrap_or_else(PoisonError::into_inner)),
            crawl: self.live.crawl.clone(),
        })
    }

    /// What the worker `index` gives out of the ledger: the first one everything.
    pub fn dispatcher(&self, index: usize) -> Option<Dispatcher> {
        (index == 0).then(|| Dispatcher {
            ledger: Arc::clone(&self.ledger),
            crawl: self.live.crawl.clone(),
            again: self.again,
        })
    }
}

/// Which part of a cluster's workers is in this process.
#[derive(Clone, Copy, Debug)]
pub struct WorkerShare {
    /// Which process, from 0.
    pub process: usize,
    /// Processes in all.
    pub processes: usize,
    /// Workers in each.
    pub workers: usize,
}

impl Default for WorkerShare {
    /// All workers are here, however many.
    fn default() -> Self {
        Self { process: 0, processes: 1, workers: 1 }
    }
}

impl WorkerShare {
    /// Whether what has this route belongs to a worker of this process.
    fn has(self, route: u64) -> bool {
        let worker = route % (self.processes * self.workers) as u64;
        worker / self.workers as u64 == self.process as u64
    }
}

/// The pictures that the ledger knew when the process started. Each worker takes its share.
#[derive(Default)]
pub struct KnownContents {
    contents: Mutex<Vec<ContentId>>,
    pictures: Mutex<Vec<KnownPicture>>,
}

impl KnownContents {
    fn load(ledger: &dyn Ledger, mine: WorkerShare) -> Result<Self, LedgerError> {
        let (mut contents, mut pictures) = (Vec::new(), Vec::new());
        ledger.known_pictures(&mut |picture| {
            contents.extend(Some(picture.content.id).filter(|id| mine.has(id.route())));
            // The worker that clusters them is the first.
            pictures.extend(Some(picture).filter(|_| mine.process == 0));
        })?;
        Ok(Self { contents: Mutex::new(contents), pictures: Mutex::new(pictures) })
    }

    /// The known contents that route to worker `index` of `peers`.
    pub fn contents_of(&self, index: usize, peers: usize) -> HashSet<ContentId> {
        share(&self.contents, |id| id.route() % peers as u64 == index as u64)
    }

    /// The known pictures, on the worker that clusters them.
    pub fn pictures_of(&self, index: usize) -> Vec<KnownPicture> {
        share(&self.pictures, |_| index == 0)
    }
}

/// Takes what is a worker's out of what nobody has taken yet.
fn share<T, C: FromIterator<T>>(left: &Mutex<Vec<T>>, mut mine: impl FnMut(&T) -> bool) -> C {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    let share = left.extract_if(.., |one| mine(one)).collect();
    left.shrink_to_fit();
    share
}
