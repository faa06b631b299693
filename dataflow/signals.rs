//! Signals: the first one drains, the second one ends the process.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, Result};
use faceflow::core::shutdown::Shutdown;

use crate::exit_status::INTERRUPTED;

/// The first signal drains, the second ends the process at once; both leave a state that resumes. What is returned turns true
/// if the first was an interrupt.
pub fn watch_signals(shutdown: Shutdown) -> Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    let interrupted = Arc::clone(&asked);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("watching for signals")?;
    std::thread::Builder::new().name("faceflow-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut signals = match Signals::listen() {
                Ok(signals) => signals,
                Err(error) => {
                    return tracing::warn!(%error, "signals cannot be caught; an interrupt ends the process at once");
                }
            };
            let interrupt = signals.next().await;
            interrupted.store(interrupt, Relaxed);
            // A closed terminal is no reason to fail.
            let _ = writeln!(io::stderr(), "faceflow: finishing what is under way; once more stops at once");
            shutdown.drain();
            signals.next().await;
            std::process::exit(i32::from(INTERRUPTED));
        });
    })?;
    Ok(asked)
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for a signal; whether it was an interrupt.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
        }
    }
}
