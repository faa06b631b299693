//! CPU-bound and blocking work on threads of its own; panics in it, and in asynchronous work, become faults.

use std::any::Any;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

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
}
