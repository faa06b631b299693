//! Settings that may be replaced while they are in use.

use std::sync::Arc;

use tokio::sync::watch;

/// The present value of something that may be replaced at any time. Clones share it; whoever reads it waits for nobody.
#[derive(Clone, Debug)]
pub struct Reloadable<T>(Arc<watch::Sender<Arc<T>>>);

impl<T> From<T> for Reloadable<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(value))))
    }
}

impl<T: PartialEq> Reloadable<T> {
    /// The present value.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }

    /// Replaces the value; the same value again is no change.
    pub fn set(&self, value: T) {
        self.0.send_if_modified(|present| {
            let changes = **present != value;
            if changes {
                *present = Arc::new(value);
            }
            changes
        });
    }

    /// Resolves once the value is not `seen` any more.
    pub async fn changed(&self, seen: &Arc<T>) {
        let mut watching = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = watching.wait_for(|present| !Arc::ptr_eq(present, seen)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_sees_the_new_value_and_the_same_value_wakes_nobody() {
        let live = Reloadable::from(1);
        let (other, first) = (live.clone(), live.get());
        live.set(1);
        assert!(Arc::ptr_eq(&first, &other.get()));
        let change = other.changed(&first);
        live.set(2);
        // It happened before anybody asked, and is not missed.
        change.await;
        assert_eq!((*first, *other.get()), (1, 2));
    }
}
