//! Progress bars on a terminal: pages, images, faces, retries waiting, images per second.

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
    pages: (Arc<Stage>, ProgressBar),
    images: (Arc<Stage>, ProgressBar),
    pictures: (Arc<Stage>, ProgressBar),
    retries: (Arc<Stage>, ProgressBar),
}

impl Lines {
    fn new(pulse: &Pulse, bars: &MultiProgress) -> Self {
        let bar = |name: &'static str, template: &str| {
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bars.add(ProgressBar::new(0).with_style(style).with_prefix(name))
        };
        const COUNTED: &str = "{prefix:>9} [{bar:30}] {pos}/{len} {per_sec} {msg}";
        Self {
            pages: (pulse.stage("fetch"), bar("pages", COUNTED)),
            images: (
                pulse.stage("download"),
                bar("images", "{prefix:>9} [{bar:30}] {pos}/{len} {per_sec} ETA {eta} {msg}"),
            ),
            pictures: (pulse.stage("detect"), bar("pictures", COUNTED)),
            retries: (pulse.stage("retry"), bar("retries", "{prefix:>9} {msg}")),
        }
    }

    fn draw(&self) {
        for (stage, bar) in [&self.pages, &self.images, &self.pictures] {
            let ended = stage.ended.load(Relaxed);
            let flying = stage.flying.load(Relaxed);
            bar.set_length((ended + flying + stage.waiting.load(Relaxed)) as u64);
            bar.set_position(ended as u64);
            bar.set_message(format!("({flying} under way, {} failed tries)", stage.lost.load(Relaxed)));
        }
        let (stage, bar) = &self.retries;
        bar.set_message(format!("{} waiting until they are due", stage.sleeping.load(Relaxed)));
    }
}
