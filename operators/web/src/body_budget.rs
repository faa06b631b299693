//! Memory for bodies: how many bytes of answers the process holds, from their first byte until nobody needs them.
//!
//! Every body has a small share from its beginning; one that outgrows it waits once for the rest of what it may need. The
//! two come from different budgets and are always taken in this order, so bodies never wait for each other in a circle.
//! What a complete body did not need goes back at once; the rest goes back with the last handle to its bytes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are counted in pieces of this many bytes.
const PIECE_BYTES: usize = 16 << 10;
/// The share that every body has from its beginning.
pub const SHARE_BYTES: usize = 256 << 10;

/// The budget of one process for bodies.
#[derive(Debug)]
pub struct BodyBudget {
    shares: Arc<Semaphore>,
    rest: Arc<Semaphore>,
    rest_pieces: usize,
}

impl BodyBudget {
    /// `bytes_max` in all: a quarter for shares, the rest for bodies that outgrow theirs.
    pub fn new(bytes_max: usize) -> Self {
        let shares = pieces(bytes_max / 4).max(pieces(SHARE_BYTES)).min(Semaphore::MAX_PERMITS);
        let rest = pieces(bytes_max - bytes_max / 4).clamp(1, u32::MAX as usize >> 3);
        Self { shares: Arc::new(Semaphore::new(shares)), rest: Arc::new(Semaphore::new(rest)), rest_pieces: rest }
    }

    /// Waits for the share of one body.
    pub async fn share(self: &Arc<Self>) -> BodyPermit {
        let share = take(&self.shares, pieces(SHARE_BYTES)).await;
        BodyPermit { budget: Arc::clone(self), share, rest: None }
    }
}

/// The right to a body's budget; given back when dropped.
#[derive(Debug)]
pub struct BodyPermit {
    budget: Arc<BodyBudget>,
    share: OwnedSemaphorePermit,
    rest: Option<OwnedSemaphorePermit>,
}

impl BodyPermit {
    /// Waits until the body may grow to `bytes`. A body larger than the whole budget has it alone.
    pub async fn grow(&mut self, bytes: usize) {
        if bytes > SHARE_BYTES && self.rest.is_none() {
            let pieces = pieces(bytes - SHARE_BYTES).min(self.budget.rest_pieces);
            self.rest = Some(take(&self.budget.rest, pieces).await);
        }
    }

    /// A complete body that carries its right with it, to the last of its clones and slices.
    pub fn with(mut self, body: Bytes) -> Bytes {
        keep(&mut self.share, pieces(body.len().min(SHARE_BYTES)));
        match &mut self.rest {
            Some(rest) if body.len() > SHARE_BYTES => keep(rest, pieces(body.len() - SHARE_BYTES)),
            rest => *rest = None,
        }
        Bytes::from_owner(Body { body, _permit: self })
    }
}

struct Body {
    body: Bytes,
    _permit: BodyPermit,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

fn pieces(bytes: usize) -> usize {
    bytes.div_ceil(PIECE_BYTES)
}

async fn take(from: &Arc<Semaphore>, pieces: usize) -> OwnedSemaphorePermit {
    let permit = Arc::clone(from).acquire_many_owned(pieces as u32).await;
    permit.expect("the semaphores are never closed")
}

/// Gives back all but `pieces`.
fn keep(permit: &mut OwnedSemaphorePermit, pieces: usize) {
    drop(permit.split(permit.num_permits().saturating_sub(pieces)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_holds_what_it_needs_until_its_last_slice_is_gone() {
        let budget = Arc::new(BodyBudget::new(8 << 20));
        let (shares, rest) = (budget.shares.available_permits(), budget.rest.available_permits());
        let mut permit = budget.share().await;
        permit.grow(6 << 20).await;
        let body = permit.with(Bytes::from(vec![7; 1 << 20]));
        let slice = body.slice(1_000..1_002);
        drop(body);
        assert_eq!(rest - budget.rest.available_permits(), pieces((1 << 20) - SHARE_BYTES), "the surplus is back");
        let small = budget.share().await.with(Bytes::from_static(b"small"));
        assert_eq!(shares - budget.shares.available_permits(), pieces(SHARE_BYTES) + 1);
        assert_eq!((&slice[..], &small[..]), (&[7, 7][..], &b"small"[..]));
        drop((slice, small));
        assert_eq!((budget.shares.available_permits(), budget.rest.available_permits()), (shares, rest));
    }

    #[tokio::test]
    async fn large_bodies_wait_for_each_other_and_small_ones_for_none_of_them() {
        let budget = Arc::new(BodyBudget::new(4 << 20));
        let (mut first, mut second) = (budget.share().await, budget.share().await);
        first.grow(64 << 20).await;
        let waiting = second.grow(1 << 20);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending(), "a body larger than the budget has it alone");
        let small = budget.share().await.with(Bytes::from_static(b"small"));
        drop(first);
        waiting.await;
        assert_eq!(small.len(), 5);
    }
}
