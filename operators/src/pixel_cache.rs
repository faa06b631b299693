//! The cache of decoded pictures: one for each process, from decoding until the crops are made or the frame is evicted.
//!
//! Only handles travel through the graph. Room is counted in bytes, so that thousands of small pictures can wait where few large
//! ones can, and tenants that wait for it take turns. Promise: no more bytes than the memory budget (one picture larger than the whole budget may be in it alone), and no
//! more pictures than the limit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::detector::PixelBuffer;
use faceflow_core::record::TenantNumber;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room is counted in pieces of this many bytes.
const PIECE_BYTES: u64 = 16 * 1024;

/// Decoded pictures of one process, by handle.
pub struct PixelCache {
    cached: Mutex<HashMap<u64, CachedPicture>>,
    next: AtomicU64,
    pictures: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    pieces_max: u32,
    /// Held by the one picture of a tenant that waits for room; its others wait for that.
    turns: Mutex<HashMap<TenantNumber, Arc<tokio::sync::Mutex<()>>>>,
}

/// Room for one picture between its download and its crops; given back when dropped.
#[derive(Debug)]
pub struct Room {
    _picture: OwnedSemaphorePermit,
    memory: Mutex<OwnedSemaphorePermit>,
}

impl Room {
    /// Gives back what is more than `bytes` take.
    pub fn shrink_to(&self, bytes: u64) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let surplus = memory.num_permits().saturating_sub(pieces(bytes));
        drop(memory.split(surplus));
    }
}

/// How many pieces so many bytes take: one at least.
fn pieces(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(usize::MAX).max(1)
}

struct CachedPicture {
    picture: PixelBuffer,
    room: Arc<Room>,
}

impl PixelCache {
    /// Room for `pictures_max` pictures and `memory_max_bytes` of pixels.
    pub fn new(pictures_max: usize, memory_max_bytes: u64) -> Self {
        let pieces = (memory_max_bytes / PIECE_BYTES).clamp(1, u64::from(u32::MAX >> 3)) as u32;
        Self {
            cached: Mutex::default(),
            next: AtomicU64::new(0),
            pictures: Arc::new(Semaphore::new(pictures_max.max(1))),
            memory: Arc::new(Semaphore::new(pieces as usize)),
            pieces_max: pieces,
            turns: Mutex::default(),
        }
    }

    /// Waits for room to decode a picture that takes `bytes` at its peak. A download counts as under way until it has it, so a slow
    /// detector slows the downloads. Room is given in the order in which it was asked for, and each tenant asks for one picture at a
    /// time.
    pub async fn reserve(&self, tenant: TenantNumber, bytes: u64) -> Arc<Room> {
        let turn = Arc::clone(self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant).or_default());
        let _turn = turn.lock().await;
        let picture = Arc::clone(&self.pictures).acquire_owned().await.expect("the semaphore is never closed");
        let pieces = pieces(bytes).min(self.pieces_max as usize) as u32;
        let memory = Arc::clone(&self.memory).acquire_many_owned(pieces).await;
        Arc::new(Room { _picture: picture, memory: Mutex::new(memory.expect("the semaphore is never closed")) })
    }

    /// Inserts a picture; the handle finds it again. Of the room it was decoded in, it keeps what its pixels take.
    pub fn insert(&self, picture: PixelBuffer, room: Arc<Room>) -> u64 {
        room.shrink_to(picture.rgb.len() as u64);
        let handle = self.next.fetch_add(1, Relaxed);
        self.lock().insert(handle, CachedPicture { picture, room });
        handle
    }

    /// The picture of a handle; its pixels are shared, not copied.
    pub fn get(&self, handle: u64) -> Option<PixelBuffer> {
        self.lock().get(&handle).map(|cached| cached.picture.clone())
    }

    /// Removes a picture and gives its room back.
    pub fn remove(&self, handle: Option<u64>) {
        drop(self.take_room(handle));
    }

    /// Removes a picture; its room goes to the caller, for what was made of it.
    pub fn take_room(&self, handle: Option<u64>) -> Option<Arc<Room>> {
        let gone = handle.and_then(|handle| self.lock().remove(&handle));
        gone.map(|gone| gone.room)
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

    fn picture() -> PixelBuffer {
        PixelBuffer { width: 2, height: 1, rgb: vec![0; 6].into() }
    }

    #[tokio::test]
    async fn pictures_and_memory_are_bounded_and_given_back() {
        let cache = PixelCache::new(3, 2 * PIECE_BYTES);
        let room = cache.reserve(TenantNumber(1), 3_000_000).await;
        let waiting = cache.reserve(TenantNumber(1), 3);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending(), "the large picture has the whole budget");
        let handle = cache.insert(picture(), room);
        let other = cache.insert(picture(), waiting.await);
        let more = cache.reserve(TenantNumber(1), 1);
        tokio::pin!(more);
        assert!(futures::poll!(more.as_mut()).is_pending(), "what two pictures take is all there is");
        assert_eq!(cache.get(handle).map(|picture| picture.width), Some(2));
        let room = cache.take_room(Some(handle)).expect("it is in the cache");
        assert!(cache.get(handle).is_none() && cache.take_room(Some(handle)).is_none());
        assert!(futures::poll!(more.as_mut()).is_pending(), "its room is used for something else");
        drop(room);
        more.await;
        cache.remove(Some(other));
        assert_eq!((cache.count(), cache.get(handle).is_none()), (0, true));
    }

    #[tokio::test]
    async fn tenants_that_wait_for_room_take_turns() {
        let cache = PixelCache::new(1, 1 << 30);
        let first = cache.reserve(TenantNumber(1), 1).await;
        let mut many: Vec<_> = (0..50).map(|_| Box::pin(cache.reserve(TenantNumber(1), 1))).collect();
        for waiting in &mut many {
            assert!(futures::poll!(waiting.as_mut()).is_pending());
        }
        let other = cache.reserve(TenantNumber(2), 1);
        tokio::pin!(other);
        assert!(futures::poll!(other.as_mut()).is_pending());
        drop(first);
        let second = many.remove(0).await;
        for waiting in &mut many {
            assert!(futures::poll!(waiting.as_mut()).is_pending());
        }
        drop(second);
        assert!(futures::poll!(other.as_mut()).is_ready(), "before 49 that had waited longer");
    }

    #[tokio::test]
    async fn no_more_pictures_than_the_limit() {
        let cache = PixelCache::new(1, 1 << 30);
        let first = cache.reserve(TenantNumber(1), 1).await;
        let second = cache.reserve(TenantNumber(1), 1);
        tokio::pin!(second);
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop(first);
        second.await;
    }
}
