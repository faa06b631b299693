//! A job: a batch or stream as its caller describes it. `job_start` opens what it needs, `job_handle` follows it.

use std::path::PathBuf;
use std::sync::Arc;

use faceflow_config::Settings;
use faceflow_core::detector::Detector;
use faceflow_core::metrics::Metrics;
use faceflow_core::record::TenantId;
use faceflow_core::shutdown::Shutdown;
use faceflow_core::sink::Sink;
use faceflow_core::source::Source;

use crate::cluster::Membership;
use crate::metrics_endpoint::MetricsEndpoint;
use crate::reload::Reload;
use crate::run_options::RunOptions;

pub use crate::job_outcome::{FAILURES_NAMED, JobError, Summary};

/// Which detector a job uses.
pub enum Engine {
    /// `auto`, `seeta`, or `onnx:PATH`.
    Named(String),
    /// One of the user's own.
    Own(Arc<dyn Detector>),
}

/// A batch or stream to run. It ends by itself, or once its `shutdown` drains or stops it.
pub struct Job {
    /// Every setting.
    pub settings: Settings,
    /// Where metrics are served while it runs.
    pub metrics_endpoint: Option<MetricsEndpoint>,
    /// How settings are read again while it runs; without it, they stay.
    pub reload: Option<Reload>,
    /// Folder of the ledger, or the `postgres://` URL of a database.
    pub state: String,
    /// Folder or object store URL.
    pub out: String,
    /// Whose work this is.
    pub tenant: TenantId,
    /// What finds faces.
    pub engine: Engine,
    /// Where sites and pictures come from.
    pub sources: Vec<Box<dyn Source>>,
    /// Folders whose files may be taken in as pictures, as canonical paths.
    pub folders: Vec<PathBuf>,
    /// Where detections go besides the store.
    pub sinks: Vec<Box<dyn Sink>>,
    /// Workers, and when it ends.
    pub options: RunOptions,
    /// Which process of a cluster this is, if it is one.
    pub cluster: Option<Membership>,
    /// Its counters.
    pub metrics: Metrics,
    /// Its stop signal.
    pub shutdown: Shutdown,
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
            tenant: TenantId::default(),
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
}
