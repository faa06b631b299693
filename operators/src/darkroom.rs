//! The darkroom: where decoded pictures hang, in the process that decoded them, until they are delivered or set aside.
//!
//! Only tickets travel through the graph. It promises a bound: no more pictures than places, and no more bytes than the
//! memory budget (one picture larger than the whole budget may hang alone).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::detector::Picture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are counted in pieces of this many bytes.
const PIECE_BYTES: u64 = 64 * 1024;

/// Decoded pictures of one process, by ticket.
pub struct Darkroom {
    hanging: Mutex<HashMap<u64, Hanging>>,
    next: AtomicU64,
    places: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    pieces_max: u32,
}

/// The right to have one picture in flight; given back when dropped.
#[derive(Debug)]
pub struct Place(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// The right to a picture's worth of memory; given back when dropped.
#[derive(Debug)]
pub struct Memory(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

struct Hanging {
    picture: Picture,
    _rights: (Arc<Place>, Memory),
}

impl Darkroom {
    /// Room for `pictures_max` pictures and `memory_max_bytes` of pixels.
    pub fn new(pictures_max: usize, memory_max_bytes: u64) -> Self {
        let pieces = (memory_max_bytes / PIECE_BYTES).clamp(1, u64::from(u32::MAX >> 3)) as u32;
        Self {
            hanging: Mutex::default(),
            next: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(pictures_max.max(1))),
            memory: Arc::new(Semaphore::new(pieces as usize)),
            pieces_max: pieces,
        }
    }

    /// Waits for a place. A download keeps its slot until it has one, so a slow detector slows the download.
    pub async fn place(&self) -> Arc<Place> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        Arc::new(Place(place.expect("the semaphore is never closed")))
    }

    /// Waits for the memory that decoding a picture takes at its peak.
    pub async fn reserve(&self, bytes: u64) -> Memory {
        let pieces = bytes.div_ceil(PIECE_BYTES).clamp(1, u64::from(self.pieces_max)) as u32;
        let memory = Arc::clone(&self.memory).acquire_many_owned(pieces).await;
        Memory(memory.expect("the semaphore is never closed"))
    }

    /// Hangs a picture up; the ticket finds it again.
    pub fn hang(&self, picture: Picture, rights: (Arc<Place>, Memory)) -> u64 {
        let ticket = self.next.fetch_add(1, Relaxed);
        self.lock().insert(ticket, Hanging { picture, _rights: rights });
        ticket
    }

    /// The picture of a ticket; its pixels are shared, not copied.
    pub fn look(&self, ticket: u64) -> Option<Picture> {
        self.lock().get(&ticket).map(|hanging| hanging.picture.clone())
    }

    /// Takes a picture down for good and frees its place.
    pub fn clear(&self, ticket: Option<u64>) {
        let gone = ticket.and_then(|ticket| self.lock().remove(&ticket));
        drop(gone);
    }

    /// Pictures hanging at the moment.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Hanging>> {
        self.hanging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        Picture { width: 2, height: 1, rgb: vec![0; 6].into() }
    }

    #[tokio::test]
    async fn places_and_memory_are_bounded_and_given_back() {
        let room = Arc::new(Darkroom::new(2, 2 * PIECE_BYTES));
        let (first, memory) = (room.place().await, room.reserve(3_000_000).await);
        let ticket = room.hang(picture(), (first, memory));
        let _second = room.place().await;
        let waiting = room.reserve(3);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending(), "the large picture has the whole budget");
        assert_eq!(room.look(ticket).map(|picture| picture.width), Some(2));
        room.clear(Some(ticket));
        waiting.await;
        assert_eq!((room.count(), room.look(ticket).is_none()), (0, true));
    }
}
