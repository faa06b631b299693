//! Memory for bodies: how many bytes of answers the process holds, from their first byte until nobody needs them.
//!
//! Every body has a small share from its beginning, and grows out of it as it arrives. Bodies that have grown hold what others wait
//! for, so a part of the memory is kept in reserve for one of them at a time: whoever has the reserve never waits again, ends, and
//! gives everything back. So bodies never wait for each other in a circle. What decoders remember ([`BodyPermit::hold_windows`])
//! counts like the body. What a complete body does not need goes back at once; the rest goes back with the last handle to its bytes.

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
    /// One permit, for all of the reserve.
    reserve: Arc<Semaphore>,
}

impl BodyBudget {
    /// `bytes_max` in all: a quarter for shares, a quarter in reserve, half for bodies that outgrow their share. A body larger than
    /// the reserve takes more than that, one at a time.
    pub fn new(bytes_max: usize) -> Self {
        let shares = pieces(bytes_max / 4).max(pieces(SHARE_BYTES)).min(Semaphore::MAX_PERMITS);
        let rest_pieces = pieces(bytes_max / 2).clamp(1, u32::MAX as usize >> 3);
        let [shares, rest, reserve] = [shares, rest_pieces, 1].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { shares, rest, rest_pieces, reserve }
    }

    /// Waits for the share of one body.
    pub async fn share(self: &Arc<Self>) -> BodyPermit {
        let share = take(&self.shares, pieces(SHARE_BYTES)).await;
        BodyPermit { budget: Arc::clone(self), share, rest: None, reserve: None, windows: (0, 0) }
    }
}

/// The right to a body's budget; given back when dropped.
#[derive(Debug)]
pub struct BodyPermit {
    budget: Arc<BodyBudget>,
    share: OwnedSemaphorePermit,
    rest: Option<OwnedSemaphorePermit>,
    reserve: Option<OwnedSemaphorePermit>,
    /// What its decoders remember at most, in bytes, and how many they are.
    windows: (usize, usize),
}

impl BodyPermit {
    /// Waits until the body may grow to `bytes`.
    pub async fn grow(&mut self, bytes: usize) {
        let windows = match self.windows {
            // One decoder remembers no more than it has given, however much it may.
            (windows, ..=1) => windows.min(bytes),
            (windows, _) => windows,
        };
        self.hold((bytes + windows).saturating_sub(SHARE_BYTES)).await;
    }

    /// Waits until one more decoder may remember up to `bytes` while the body is read.
    pub async fn hold_windows(&mut self, bytes: usize) {
        if bytes > 0 {
            self.windows = (self.windows.0 + bytes, self.windows.1 + 1);
            self.grow(0).await;
        }
    }

    /// Waits for so much besides the share: for that, or for the reserve.
    async fn hold(&mut self, bytes: usize) {
        let missing = pieces(bytes).saturating_sub(self.rest.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing == 0 || self.reserve.is_some() {
            return;
        }
        let budget = Arc::clone(&self.budget);
        let more = async {
            match missing <= budget.rest_pieces {
                true => take(&budget.rest, missing).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            more = more => match &mut self.rest {
                Some(rest) => rest.merge(more),
                rest => *rest = Some(more),
            },
            reserve = take(&budget.reserve, 1) => self.reserve = Some(reserve),
        }
    }

    /// A complete body that carries its right with it, to the last of its clones and slices.
    pub fn with(mut self, body: Bytes) -> Bytes {
        keep(&mut self.share, pieces(body.len().min(SHARE_BYTES)));
        let grown = pieces(body.len().saturating_sub(SHARE_BYTES));
        match &mut self.rest {
            Some(rest) if grown > 0 => keep(rest, grown),
            rest => *rest = None,
        }
        // Whoever waits for the reserve gets it as soon as this body has room without it.
        let missing = grown - self.rest.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if self.reserve.is_some()
            && let Ok(more) = Arc::clone(&self.budget.rest).try_acquire_many_owned(missing as u32)
        {
            self.reserve = None;
            match &mut self.rest {
                Some(rest) => rest.merge(more),
                rest => *rest = Some(more),
            }
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
        let waiting = second.grow(63 << 20);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending(), "a body larger than the budget has the reserve alone");
        let small = budget.share().await.with(Bytes::from_static(b"small"));
        drop(first);
        waiting.await;
        assert_eq!(small.len(), 5);
    }

    /// Each holds what the other waits for: without a reserve nobody would ever get on.
    #[tokio::test]
    async fn bodies_that_grow_together_all_end() {
        let budget = Arc::new(BodyBudget::new(8 << 20));
        let mut left = vec![];
        for _ in 0..4 {
            let mut permit = budget.share().await;
            permit.grow(SHARE_BYTES + (1 << 20)).await;
            left.push(permit);
        }
        assert_eq!(budget.rest.available_permits(), 0);
        let read = |mut permit: BodyPermit| async move {
            for mib in 2..8 {
                permit.grow(mib << 20).await;
                tokio::task::yield_now().await;
            }
            permit.with(vec![0; 7 << 20].into()).len()
        };
        let all = futures::future::join_all(left.into_iter().map(read));
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), all).await.expect("they end");
        assert_eq!(read, [7 << 20; 4]);
        assert_eq!((budget.rest.available_permits(), budget.reserve.available_permits()), (budget.rest_pieces, 1));
    }

    #[tokio::test]
    async fn windows_count_while_the_body_is_read_and_the_reserve_goes_back_early() {
        let budget = Arc::new(BodyBudget::new(8 << 20));
        let mut permit = budget.share().await;
        permit.hold_windows(4 << 20).await;
        assert_eq!(budget.rest.available_permits(), budget.rest_pieces, "nothing was decoded");
        permit.grow(1 << 20).await;
        let held = pieces((2 << 20) - SHARE_BYTES);
        assert_eq!(budget.rest.available_permits(), budget.rest_pieces - held, "as much as was decoded");
        permit.hold_windows(2 << 20).await;
        permit.grow(0).await;
        assert_eq!(budget.reserve.available_permits(), 0, "what lies below another is not seen, and counts as a whole");
        let permit = {
            drop(permit);
            let mut permit = budget.share().await;
            permit.hold_windows(4 << 20).await;
            permit.grow(2 << 20).await;
            permit
        };
        let mut other = budget.share().await;
        other.hold_windows(2 << 20).await;
        other.grow(1 << 20).await;
        assert_eq!(budget.reserve.available_permits(), 0, "there is no room for both");
        let body = permit.with(vec![0; SHARE_BYTES + 1].into());
        assert_eq!(budget.rest.available_permits(), budget.rest_pieces - 1);
        let other = other.with(vec![0; 1 << 20].into());
        assert_eq!(budget.reserve.available_permits(), 1, "there is now");
        drop((body, other));
        assert_eq!(budget.rest.available_permits(), budget.rest_pieces);
    }
}
