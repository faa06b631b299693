//! The cache of decoded pictures: one for each process, from decoding until the crops are stored or the frame is evicted.
//!
//! Only handles travel through the graph. Promise: no more pictures than permits, and no more bytes than the memory budget
//! (one picture larger than the whole budget may be in it alone).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::detector::Picture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are counted in pieces of this many bytes.
const PIECE_BYTES: u64 = 64 * 1024;

/// Decoded pictures of one process, by handle.
pub struct PixelCache {
    cached: Mutex<HashMap<u64, CachedPicture>>,
    next: AtomicU64,
    permits: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    pieces_max: u32,
}

/// A permit for one picture between its download and its crops; given back when dropped.
#[derive(Debug)]
pub struct CacheSlot(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A permit for the memory of one picture; given back when dropped.
#[derive(Debug)]
pub struct MemoryPermit(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

struct CachedPicture {
    picture: Picture,
    _permits: (Arc<CacheSlot>, MemoryPermit),
}

impl PixelCache {
    /// Room for `pictures_max` pictures and `memory_max_bytes` of pixels.
    pub fn new(pictures_max: usize, memory_max_bytes: u64) -> Self {
        let pieces = (memory_max_bytes / PIECE_BYTES).clamp(1, u64::from(u32::MAX >> 3)) as u32;
        Self {
            cached: Mutex::default(),
            next: AtomicU64::new(0),
            permits: Arc::new(Semaphore::new(pictures_max.max(1))),
            memory: Arc::new(Semaphore::new(pieces as usize)),
            pieces_max: pieces,
        }
    }

    /// Waits for a slot. A download counts as under way until it has one, so a slow detector slows the downloads.
    pub async fn slot(&self) -> Arc<CacheSlot> {
        let slot = Arc::clone(&self.permits).acquire_owned().await;
        Arc::new(CacheSlot(slot.expect("the semaphore is never closed")))
    }

    /// Waits for the memory that decoding a picture takes at its peak.
    pub async fn reserve(&self, bytes: u64) -> MemoryPermit {
        let pieces = bytes.div_ceil(PIECE_BYTES).clamp(1, u64::from(self.pieces_max)) as u32;
        let memory = Arc::clone(&self.memory).acquire_many_owned(pieces).await;
        MemoryPermit(memory.expect("the semaphore is never closed"))
    }

    /// Inserts a picture; the handle finds it again.
    pub fn insert(&self, picture: Picture, permits: (Arc<CacheSlot>, MemoryPermit)) -> u64 {
        let handle = self.next.fetch_add(1, Relaxed);
        self.lock().insert(handle, CachedPicture { picture, _permits: permits });
        handle
    }

    /// The picture of a handle; its pixels are shared, not copied.
    pub fn get(&self, handle: u64) -> Option<Picture> {
        self.lock().get(&handle).map(|cached| cached.picture.clone())
    }

    /// Removes a picture and frees its slot.
    pub fn remove(&self, handle: Option<u64>) {
        let gone = handle.and_then(|handle| self.lock().remove(&handle));
        drop(gone);
    }

    /// Pictures in the cache at the moment.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, CachedPicture>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        Picture { width: 2, height: 1, rgb: vec![0; 6].into() }
    }

    #[tokio::test]
    async fn slots_and_memory_are_bounded_and_given_back() {
        let cache = Arc::new(PixelCache::new(2, 2 * PIECE_BYTES));
        let (first, memory) = (cache.slot().await, cache.reserve(3_000_000).await);
        let handle = cache.insert(picture(), (first, memory));
        let _second = cache.slot().await;
        let waiting = cache.reserve(3);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending(), "the large picture has the whole budget");
        assert_eq!(cache.get(handle).map(|picture| picture.width), Some(2));
        cache.remove(Some(handle));
        waiting.await;
        assert_eq!((cache.count(), cache.get(handle).is_none()), (0, true));
    }
}
