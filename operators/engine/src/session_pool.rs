//! A pool of things that one caller uses at a time: sessions with their buffers. The promise: never more than `size` exist at
//! once, they are made on demand, and one whose work failed or panicked is not used again.

use std::sync::{Condvar, Mutex, MutexGuard};

use faceflow_core::Fault;

/// At most `size` things, each in use by one caller at a time; further callers wait.
pub(crate) struct SessionPool<T> {
    size: usize,
    state: Mutex<State<T>>,
    freed: Condvar,
}

struct State<T> {
    idle: Vec<T>,
    in_use: usize,
}

/// The right to hold one thing; given up on drop, so also when the work panics.
struct Permit<'a, T> {
    pool: &'a SessionPool<T>,
    back: Option<T>,
}

impl<T> SessionPool<T> {
    /// An empty pool of at most `size` things.
    pub fn new(size: usize) -> Self {
        Self { size, state: Mutex::new(State { idle: Vec::new(), in_use: 0 }), freed: Condvar::new() }
    }

    /// Runs `work` with a thing of the pool, or with a new one from `make` if none is idle.
    pub fn with<R>(
        &self,
        make: impl FnOnce() -> Result<T, Fault>,
        work: impl FnOnce(&mut T) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let mut permit = self.enter();
        let mut thing = permit.back.take().map_or_else(make, Ok)?;
        let answer = work(&mut thing)?;
        permit.back = Some(thing);
        Ok(answer)
    }

    fn enter(&self) -> Permit<'_, T> {
        let state = self.freed.wait_while(self.lock(), |state| state.in_use >= self.size);
        let mut state = state.expect("nothing panics under the pool's lock");
        state.in_use += 1;
        Permit { pool: self, back: state.idle.pop() }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("nothing panics under the pool's lock")
    }
}

impl<T> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.in_use -= 1;
        state.idle.extend(self.back.take());
        self.pool.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use faceflow_core::Class;

    use super::*;

    #[test]
    fn no_more_than_size_exist_and_all_callers_are_served() {
        let (pool, made, inside, most) =
            (SessionPool::new(2), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let together = Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let make = || Ok(made.fetch_add(1, SeqCst));
                    let work = |_: &mut usize| {
                        most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                        together.wait();
                        inside.fetch_sub(1, SeqCst);
                        Ok(())
                    };
                    pool.with(make, work).expect("works");
                });
            }
        });
        assert_eq!((made.into_inner(), most.into_inner()), (2, 2));
    }

    #[test]
    fn what_failed_or_panicked_is_made_anew() {
        let (pool, made) = (SessionPool::new(1), AtomicUsize::new(0));
        let make = || Ok(made.fetch_add(1, SeqCst));
        assert_eq!(pool.with(make, |thing| Ok(*thing)), Ok(0));
        let fault = Fault::transient(Class::Engine, "engine_error", "");
        assert_eq!(pool.with(make, |_| Err::<(), _>(fault.clone())), Err(fault));
        let panic =
            std::panic::AssertUnwindSafe(|| pool.with(make, |_| -> Result<(), Fault> { panic!("in the work") }));
        assert!(std::panic::catch_unwind(panic).is_err());
        assert_eq!(pool.with(make, |thing| Ok(*thing)), Ok(2));
    }
}
