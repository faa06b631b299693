//! Settings that change while a stream runs: read again on SIGHUP, and when their file has changed and rests.
//!
//! The same layers are read as at the start, so flags still override the environment, which overrides the file. Promise: the
//! settings in force are always ones that were accepted whole; a mistake leaves them as they are and is reported.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use faceflow_config::reloadable::ReloadableSettings;
use faceflow_config::{Settings, SettingsError};
use faceflow_core::Time;
use faceflow_sources::watch::Rested;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Reads all layers of settings.
type Read = dyn Fn() -> Result<Settings, SettingsError> + Send + Sync;

/// The way to read the settings again.
pub struct Reload {
    file: Option<PathBuf>,
    read: Arc<Read>,
}

impl Reload {
    /// Reads with `read`: when asked to, and when `file` has changed.
    pub fn new(
        file: Option<PathBuf>,
        read: impl Fn() -> Result<Settings, SettingsError> + Send + Sync + 'static,
    ) -> Self {
        Self { file, read: Arc::new(read) }
    }

    /// From here on SIGHUP and changes of the file bring `live`, which has `settings` now, up to date, as long as `runtime`
    /// lives. Without `live` nothing can change, and a warning says so when it is asked for.
    pub fn follow(self, runtime: &Handle, settings: Settings, live: Option<ReloadableSettings>) {
        let _inside = runtime.enter();
        let hangups = signal(SignalKind::hangup());
        let hangups =
            hangups.inspect_err(|error| tracing::warn!("SIGHUP cannot be caught, it ends the process: {error}"));
        let file = self.file.map(Rested::new);
        let reloader = Reloader { file, read: self.read, settings, live, missing: false, began: Instant::now() };
        runtime.spawn(reloader.follow(hangups.ok()));
    }
}

/// Reads the settings again whenever there is a reason to.
struct Reloader {
    file: Option<Rested>,
    read: Arc<Read>,
    /// What is in force.
    settings: Settings,
    live: Option<ReloadableSettings>,
    /// Whether the file was not there at the last look.
    missing: bool,
    began: Instant,
}

impl Reloader {
    async fn follow(mut self, mut hangups: Option<Signal>) {
        loop {
            let watched = self.file.is_some();
            let asked = tokio::select! {
                () = next_hangup(hangups.as_mut()) => true,
                () = tokio::time::sleep(LOOK_EVERY), if watched => false,
            };
            let looked = spawn_blocking(move || {
                self.look(asked);
                self
            });
            match looked.await {
                Ok(reloader) => self = reloader,
                Err(error) => return tracing::error!("settings are not reloaded any more: {error}"),
            }
        }
    }

    fn look(&mut self, asked: bool) {
        let now = self.began.elapsed().as_millis() as Time;
        let changed = match self.file.as_mut().map(|file| file.has_changed(now)) {
            None => false,
            Some(Ok(changed)) => {
                self.missing = false;
                changed
            }
            Some(Err(error)) => {
                if !std::mem::replace(&mut self.missing, true) && !asked {
                    tracing::error!(
                        "the settings stay as they are, and are read again when their file is back: {error}"
                    );
                }
                false
            }
        };
        if asked && let Some(file) = &mut self.file {
            file.take_as_read();
        }
        if asked || changed {
            self.reload(asked);
        }
    }

    fn reload(&mut self, asked: bool) {
        let new = match (self.read)() {
            Ok(new) => new,
            Err(error) => return tracing::error!("settings are not reloaded, the old ones stay: {error}"),
        };
        let Some(live) = &self.live else {
            if asked || self.settings != new {
                tracing::warn!(
                    "settings are not reloaded: all processes of a cluster must have the same ones; restart all of them"
                );
            }
            return;
        };
        let next = self.settings.taking(&new);
        live.set(&next);
        let (taken, left) = (self.settings.differing(&next), next.differing(&new));
        self.settings = next;
        if !taken.is_empty() || asked && left.is_empty() {
            let taken: Vec<String> = taken.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            let taken = if taken.is_empty() { "none has changed".to_owned() } else { taken.join(", ") };
            tracing::info!("settings reloaded: {taken}");
        }
        if !left.is_empty() {
            let left: Vec<String> = left.into_keys().collect();
            tracing::warn!("these settings need a restart and stay as they were: {}", left.join(", "));
        }
    }
}

/// Resolves with the next SIGHUP.
async fn next_hangup(hangups: Option<&mut Signal>) {
    if let Some(hangups) = hangups
        && hangups.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}
