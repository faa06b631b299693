//! Wakes an operator at a time.

use std::sync::Arc;
use std::time::Duration;

use timely::scheduling::activate::SyncActivator;

use crate::clock::Time;
use crate::executor::Executor;

/// Wakes one operator at the times it asks for.
pub struct Timer {
    executor: Executor,
    operator: Arc<SyncActivator>,
    set: Option<Time>,
}

impl Timer {
    /// A timer for `operator`, not set yet.
    pub fn new(executor: &Executor, operator: Arc<SyncActivator>) -> Self {
        Self { executor: executor.clone(), operator, set: None }
    }

    /// Wakes the operator when the clock reads `due`, or earlier. Asking again for what is set already costs nothing.
    pub fn wake_at(&mut self, due: Time) {
        let now = self.executor.clock.now();
        if self.set.is_some_and(|set| now < set && set <= due) {
            return;
        }
        self.set = Some(due);
        let (executor, operator) = (self.executor.clone(), Arc::clone(&self.operator));
        self.executor.runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(due.saturating_sub(now))).await;
            executor.wake(&operator);
        });
    }
}
