//! CPU-bound and blocking work on threads of its own; panics in it, and in asynchronous work, become faults.

use std::any::Any;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::Semaphore;

use crate::fault::{Class, Fault};

thread_local! {
    static IN_PLACE: Cell<bool> = const { Cell::new(false) };
}

/// From here on, [`blocking`] work that this thread comes to is done at once, on this thread. For runtimes of one thread whose
/// time is virtual: the order of events is then decided by the program alone.
pub fn work_in_place() {
    IN_PLACE.set(true);
}

/// Runs CPU-bound work on a blocking thread; a panic in it becomes a fault.
pub async fn blocking<T, W>(work: W) -> Result<T, Fault>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T, Fault> + Send + 'static,
{
    if IN_PLACE.get() {
        return catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(join) if join.is_panic() => Err(panicked(join.into_panic().as_ref())),
        Err(_) => Err(Fault::transient(Class::Panic, "cancelled", "the process is shutting down")),
    }
}

/// Permits for CPU-bound work, which all workers of a process share: more of it at once than there are cores is done no sooner and
/// takes more memory. Clones share them.
#[derive(Clone, Debug)]
pub struct CpuPermits(Arc<Semaphore>);

impl CpuPermits {
    /// So many pieces of work at once, one at least.
    pub fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads.clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// Runs CPU-bound work on a blocking thread, as [`blocking`] does, once there is a permit for it.
    pub async fn blocking<T, W>(&self, work: W) -> Result<T, Fault>
    where
        T: Send + 'static,
        W: FnOnce() -> Result<T, Fault> + Send + 'static,
    {
        let permit = Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed");
        // Work that was begun is done even when nobody waits for it any more.
        blocking(move || {
            let _permit = permit;
            work()
        })
        .await
    }
}

impl Default for CpuPermits {
    /// As many as there are cores.
    fn default() -> Self {
        Self::new(cores())
    }
}

/// How many threads of this machine the process may use at once.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Runs a job; a panic in it becomes a fault.
pub async fn caught<T>(job: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let mut job = Box::pin(job);
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| job.as_mut().poll(context))) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(panicked(panic.as_ref()))),
    })
    .await
}

/// The fault that a caught panic is.
pub fn panicked(panic: &(dyn Any + Send)) -> Fault {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Fault::transient(Class::Panic, "panic", format!("a job panicked: {}", said.unwrap_or("no message")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_fault() {
        let fault = caught::<()>(async { panic!("at the disco") }).await.expect_err("panics");
        assert_eq!((fault.class, fault.permanent), (Class::Panic, false));
        assert!(fault.detail.contains("at the disco"));
        let fault = blocking::<(), _>(|| panic!("{}", 7)).await.expect_err("panics");
        assert!(fault.detail.contains('7'));
    }

    #[tokio::test]
    async fn no_more_work_runs_at_once_than_there_are_permits() {
        use std::sync::Barrier;
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let (cpu, running, most) = (CpuPermits::new(2), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // Two run at the same time, since neither ends before the other has begun; a third does not.
        let together = Arc::new(Barrier::new(2));
        let work = |_| {
            let (running, most, together) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&together));
            cpu.blocking(move || {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                together.wait();
                running.fetch_sub(1, SeqCst);
                Ok(())
            })
        };
        let done = futures::future::join_all((0..8).map(work)).await;
        assert!(done.iter().all(Result::is_ok));
        assert_eq!(most.load(SeqCst), 2);
        let panicked: Result<(), _> = cpu.blocking(|| panic!("gives its permit back")).await;
        assert!(panicked.is_err());
        assert_eq!(cpu.0.available_permits(), 2);
    }
}
