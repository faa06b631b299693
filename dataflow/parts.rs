//! Settings to parts: everything the graph runs on, made once per process and shared by its workers.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use faceflow_config::Settings;
use faceflow_config::live::LiveSettings;
use faceflow_core::bridge::{Bridge, Limits};
use faceflow_core::detector::Detector;
use faceflow_core::ledger::{KnownPicture, Ledger, LedgerError};
use faceflow_core::record::ContentId;
use faceflow_core::sink::{Sink, Store};
use faceflow_core::source::Source;
use faceflow_operators::darkroom::Darkroom;
use faceflow_operators::detect::{Looker, Slots};
use faceflow_operators::drain::SharedSink;
use faceflow_operators::frontier::Lender;
use faceflow_operators::intake::Intake;
use faceflow_operators::keep::Shelf;
use faceflow_operators::web::Web;

/// Pages or images of one worker that wait for their host or are being asked for. It leaves room for hosts that make us wait;
/// how many requests are really under way is the web client's to limit (`fetch.concurrency`).
const ASKING_MAX: usize = 4_096;

/// The parts of one process that come from outside it; tests and users bring their own.
pub struct Outside {
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
pub struct Parts {
    /// Every setting, as at the start.
    pub settings: Arc<Settings>,
    /// Those that may have changed since.
    pub live: LiveSettings,
    /// The way to tokio.
    pub bridge: Bridge,
    /// How to reach the web.
    pub web: Arc<dyn Web>,
    /// Where objects go.
    pub shelf: Shelf,
    /// Where facts go.
    pub ledger: Arc<dyn Ledger>,
    /// The detector and its limits.
    pub looker: Looker,
    /// Where decoded pictures hang.
    pub darkroom: Arc<Darkroom>,
    /// Where detections go besides the store.
    pub sinks: Vec<SharedSink>,
    /// What earlier runs left.
    pub earlier: Arc<Earlier>,
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

impl Parts {
    /// Joins what comes from outside with the settings, going on from what the ledger holds.
    pub fn new(tenant: &str, settings: Settings, outside: Outside, bridge: Bridge) -> Result<Self, LedgerError> {
        Self::of_process(tenant, settings, outside, (bridge, Share::default()))
    }

    /// The same for one process of a cluster, which remembers its share of what the ledger holds.
    pub fn of_process(
        tenant: &str,
        settings: Settings,
        outside: Outside,
        (bridge, share): (Bridge, Share),
    ) -> Result<Self, LedgerError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let per_host = settings.fetch.per_host.max(1);
        Ok(Self {
            shelf: Shelf { store: outside.store, tenant: tenant.into() },
            earlier: Arc::new(Earlier::load(outside.ledger.as_ref(), share)?),
            looker: Looker {
                detector: outside.detector,
                slots: Arc::new(Slots::new(settings.detect.concurrency())),
                timeout_ms: settings.detect.timeout_ms,
                linger_ms: settings.detect.linger_ms,
                pulse: bridge.pulse.clone(),
            },
            darkroom: Arc::new(Darkroom::new(settings.image.concurrent_max, settings.image.memory_max_bytes)),
            sinks: outside.sinks.into_iter().map(|sink| Arc::new(Mutex::new(sink))).collect(),
            limits: StageLimits {
                fetch: Limits::starting(ASKING_MAX, per_host),
                download: Limits::starting(ASKING_MAX, per_host),
                cpu: Limits::finishing(cores * 2),
            },
            again: false,
            processes: share.processes,
            live: LiveSettings::from(&settings),
            sources: Arc::new(Mutex::new(outside.sources.into())),
            settings: Arc::new(settings),
            bridge,
            web: outside.web,
            ledger: outside.ledger,
        })
    }

    /// What the worker `index` takes in: the first one everything.
    pub fn intake(&self, index: usize) -> Option<Intake> {
        (index == 0).then(|| Intake {
            sources: std::mem::take(&mut *self.sources.lock().unwrap_or_else(PoisonError::into_inner)),
            crawl: self.live.crawl.clone(),
        })
    }

    /// What the worker `index` gives out of the ledger: the first one everything.
    pub fn lender(&self, index: usize) -> Option<Lender> {
        (index == 0).then(|| Lender {
            ledger: Arc::clone(&self.ledger),
            crawl: self.live.crawl.clone(),
            again: self.again,
        })
    }
}

/// Which part of a cluster's workers is in this process.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Which process, from 0.
    pub process: usize,
    /// Processes in all.
    pub processes: usize,
    /// Workers in each.
    pub workers: usize,
}

impl Default for Share {
    /// All workers are here, however many.
    fn default() -> Self {
        Self { process: 0, processes: 1, workers: 1 }
    }
}

impl Share {
    /// Whether what has this route belongs to a worker of this process.
    fn has(self, route: u64) -> bool {
        let worker = route % (self.processes * self.workers) as u64;
        worker / self.workers as u64 == self.process as u64
    }
}

/// The pictures that the ledger knew when the process started. Each worker takes its share.
#[derive(Default)]
pub struct Earlier {
    contents: Mutex<Vec<ContentId>>,
    pictures: Mutex<Vec<KnownPicture>>,
}

impl Earlier {
    fn load(ledger: &dyn Ledger, mine: Share) -> Result<Self, LedgerError> {
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
