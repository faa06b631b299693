//! Batches of one input shape, as they form.
//!
//! A batch is handed out when it is full, or when it has waited for company for long enough. Promise: everything that is put
//! in comes out, in the order in which it was put in.

use std::collections::BTreeMap;

use faceflow_core::Time;
use faceflow_core::detector::Shape;

/// Forms batches of things that have a shape.
pub struct ViewBatcher<T> {
    batch_max: usize,
    linger_ms: u64,
    forming: BTreeMap<Shape, Forming<T>>,
    full: Vec<Vec<T>>,
}

struct Forming<T> {
    until: Time,
    batch: Vec<T>,
}

impl<T> ViewBatcher<T> {
    /// Batches of at most `batch_max`, each of which waits for at most `linger_ms`.
    pub fn new(batch_max: usize, linger_ms: u64) -> Self {
        Self { batch_max: batch_max.max(1), linger_ms, forming: BTreeMap::new(), full: Vec::new() }
    }

    /// Puts something into the batch of its shape.
    pub fn put(&mut self, shape: Shape, thing: T, now: Time) {
        let new = || Forming { until: now + self.linger_ms, batch: Vec::new() };
        let forming = self.forming.entry(shape).or_insert_with(new);
        forming.batch.push(thing);
        if forming.batch.len() >= self.batch_max {
            self.full.extend(self.forming.remove(&shape).map(|forming| forming.batch));
        }
    }

    /// Takes the batches that are full, and those that need wait no longer.
    pub fn take_due(&mut self, now: Time) -> Vec<Vec<T>> {
        let mut due = std::mem::take(&mut self.full);
        due.extend(self.forming.extract_if(.., |_, forming| forming.until <= now).map(|(_, forming)| forming.batch));
        due
    }

    /// When the next incomplete batch need wait no longer.
    pub fn next_due(&self) -> Option<Time> {
        self.forming.values().map(|forming| forming.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Shape = Shape { width: 32, height: 32 };
    const WIDE: Shape = Shape { width: 64, height: 32 };

    #[test]
    fn full_batches_leave_at_once_and_others_when_they_have_lingered() {
        let mut batcher = ViewBatcher::new(2, 20);
        batcher.put(SMALL, 1, 100);
        batcher.put(WIDE, 2, 105);
        batcher.put(SMALL, 3, 110);
        batcher.put(SMALL, 4, 110);
        assert_eq!(batcher.take_due(110), [vec![1, 3]]);
        assert_eq!(batcher.next_due(), Some(125));
        assert_eq!(batcher.take_due(124), [] as [Vec<i32>; 0]);
        assert_eq!(batcher.take_due(125), [vec![2]]);
        assert_eq!(batcher.take_due(200), [vec![4]]);
        assert_eq!(batcher.next_due(), None);
    }

    #[test]
    fn a_batch_of_none_is_one_of_one() {
        let mut batcher = ViewBatcher::new(0, 20);
        batcher.put(SMALL, 1, 0);
        assert_eq!(batcher.take_due(0), [vec![1]]);
    }
}
