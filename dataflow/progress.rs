//! Progress bars on a terminal: pages and images settled of those that are known, pictures looked at, all per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use faceflow::core::pulse::{Pulse, Stage};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(100);

/// Bars that follow a pulse until they are dropped.
pub struct Progress {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts drawing to stderr, if that is a terminal.
    pub fn start(pulse: Pulse, bars: &MultiProgress) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (bars, stop) = (bars.clone(), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let lines = Lines::new(&pulse, &bars);
            while !stop.load(Relaxed) {
                lines.draw();
                std::thread::park_timeout(TICK);
            }
            let _ = bars.clear();
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Progress {
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
    pulse: Pulse,
    pages: (Arc<Stage>, ProgressBar),
    images: (Arc<Stage>, ProgressBar),
    pictures: (Arc<Stage>, ProgressBar),
}

impl Lines {
    fn new(pulse: &Pulse, bars: &MultiProgress) -> Self {
        let bar = |name: &'static str, template: &str| {
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bars.add(ProgressBar::new(0).with_style(style).with_prefix(name))
        };
        const SETTLED: &str = "{prefix:>9} [{bar:30}] {pos}/{len} {per_sec} ETA {eta} {msg}";
        Self {
            pages: (pulse.stage("fetch"), bar("pages", SETTLED)),
            images: (pulse.stage("download"), bar("images", SETTLED)),
            pictures: (pulse.stage("detect"), bar("pictures", "{prefix:>9} {pos} {per_sec} {msg}")),
            pulse: pulse.clone(),
        }
    }

    fn draw(&self) {
        let (pages, images) = self.pulse.tallies();
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

fn under_way(stage: &Stage) -> String {
    format!("({} under way, {} failed tries)", stage.flying.load(Relaxed), stage.lost.load(Relaxed))
}
