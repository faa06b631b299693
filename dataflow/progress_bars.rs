//! Progress bars on a terminal: pages and images settled of those that are known, pictures detected, all per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use faceflow::core::metrics::{Metrics, StageMetrics};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(100);

/// Bars that follow the metrics until they are dropped.
pub struct ProgressBars {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressBars {
    /// Starts drawing to stderr, if that is a terminal.
    pub fn start(metrics: Metrics, bars: &MultiProgress) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (bars, stop) = (bars.clone(), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let lines = Lines::new(&metrics, &bars);
            while !stop.load(Relaxed) {
                lines.draw();
                std::thread::park_timeout(TICK);
            }
            let _ = bars.clear();
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for ProgressBars {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic while drawing has been printed; the run does not depend on it.
            let _ = thread.join();
        }
    }
}

struct Lines {
    metrics: Metrics,
    pages: (Arc<StageMetrics>, ProgressBar),
    images: (Arc<StageMetrics>, ProgressBar),
    pictures: (Arc<StageMetrics>, ProgressBar),
}

impl Lines {
    fn new(metrics: &Metrics, bars: &MultiProgress) -> Self {
        let bar = |name: &'static str, template: &str| {
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bars.add(ProgressBar::new(0).with_style(style).with_prefix(name))
        };
        const SETTLED: &str = "{prefix:>9} [{bar:30}] {pos}/{len} {per_sec} ETA {eta} {msg}";
        Self {
            pages: (metrics.stage("fetch"), bar("pages", SETTLED)),
            images: (metrics.stage("download"), bar("images", SETTLED)),
            pictures: (metrics.stage("detect"), bar("pictures", "{prefix:>9} {pos} {per_sec} {msg}")),
            metrics: metrics.clone(),
        }
    }

    fn draw(&self) {
        let (pages, images) = self.metrics.tallies();
        for ((stage, bar), tally) in [(&self.pages, pages), (&self.images, images)] {
            bar.set_length(tally.discovered);
            bar.set_position(tally.discovered - tally.open.min(tally.discovered));
            bar.set_message(under_way(stage));
        }
        let (stage, bar) = &self.pictures;
        bar.set_position(stage.ended.load(Relaxed) as u64);
        bar.set_message(under_way(stage));
    }
}

fn under_way(stage: &StageMetrics) -> String {
    format!("({} under way, {} failed tries)", stage.in_flight.load(Relaxed), stage.failed.load(Relaxed))
}
