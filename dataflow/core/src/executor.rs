//! The way from an operator to tokio: the runtime that asynchronous work runs on, the clock, the counters and the stop signal.
//!
//! Worker threads of timely never wait. Work runs on the runtime; when it is done, the operator that started it is woken.

use std::sync::Arc;

use timely::scheduling::activate::SyncActivator;
use tokio::sync::Notify;

use crate::blocking::CpuPermits;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// What an operator needs to reach the world outside its worker thread. Clones share everything.
#[derive(Clone)]
pub struct Executor {
    /// The runtime that asynchronous work runs on.
    pub runtime: tokio::runtime::Handle,
    /// The pipeline's clock.
    pub clock: Arc<dyn Clock>,
    /// Counters of this process.
    pub metrics: Metrics,
    /// Whether this process runs, drains or stops.
    pub shutdown: Shutdown,
    /// Permits for CPU-bound work in this process.
    pub cpu: CpuPermits,
    woken: Arc<Notify>,
}

impl Executor {
    /// An executor on `runtime`.
    pub fn new(
        runtime: tokio::runtime::Handle,
        clock: Arc<dyn Clock>,
        (metrics, shutdown): (Metrics, Shutdown),
    ) -> Self {
        Self { runtime, clock, metrics, shutdown, cpu: CpuPermits::default(), woken: Arc::default() }
    }

    /// The same executor with so many pieces of CPU-bound work at once.
    pub fn with_cpu_threads(self, threads: usize) -> Self {
        Self { cpu: CpuPermits::new(threads), ..self }
    }

    /// Resolves once an operator or the loop that steps the worker has been woken since the last call.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Wakes the loop that steps the worker, so that it looks at the stop signal.
    pub fn wake_driver(&self) {
        self.woken.notify_one();
    }

    /// Wakes an operator.
    pub(crate) fn wake(&self, operator: &SyncActivator) {
        // Fails only when the worker has left.
        let _ = operator.activate();
        self.woken.notify_one();
    }
}
