//! Time is due time: milliseconds on the pipeline's clock.
//!
//! Every record's timely timestamp is the [`Time`] at which its work was due. Operators never read the machine's
//! clock; they ask a [`Clock`], which is the wall clock in production and a virtual one in simulation.

/// Milliseconds since the Unix epoch, on the pipeline's clock.
pub type Time = u64;

/// The pipeline's only source of the current time. It never goes backwards.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Time;
}

/// The clock of a tokio runtime, anchored at an epoch.
///
/// On an ordinary runtime this is the wall clock, read once at the start and advanced by the monotonic clock, so that
/// a stepped system clock never moves it backwards. On a runtime started paused it is virtual and only moves when
/// every task waits.
pub struct RuntimeClock {
    handle: tokio::runtime::Handle,
    epoch: Time,
    started: tokio::time::Instant,
}

impl RuntimeClock {
    /// A clock that reads the wall clock now and follows `handle`'s time from here on.
    pub fn wall(handle: tokio::runtime::Handle) -> Self {
        // The one place that reads the machine's clock.
        #[allow(clippy::disallowed_methods)]
        let now = std::time::SystemTime::now();
        let epoch = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as Time);
        Self::starting_at(handle, epoch)
    }

    /// A clock that reads `epoch` now and follows `handle`'s time from here on.
    pub fn starting_at(handle: tokio::runtime::Handle, epoch: Time) -> Self {
        let started = {
            let _inside = handle.enter();
            tokio::time::Instant::now()
        };
        Self { handle, epoch, started }
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Time {
        let _inside = self.handle.enter();
        self.epoch + self.started.elapsed().as_millis() as Time
    }
}
