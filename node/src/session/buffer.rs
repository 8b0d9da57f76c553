//! What clients' requests and replies may take of a node's memory, all together.
//!
//! Each connection has a little without asking, as most clients do no more than small commands. Beyond
//! that they share one budget. When it is used up, those go whose replies have waited longest to be read;
//! if nobody's do, whoever wants more is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tracing::warn;

use super::IDLE_BYTES_MAX;
use crate::clients::Client;

/// What each connection may hold without asking, in bytes: three buffers that are kept while it is idle.
pub(super) const FREE_BYTES: usize = 256 * 1024;

/// Bytes that all connections together may hold beyond that: more than a dozen of the largest values on
/// their way at a time, and little beside what a node has for keys.
pub(super) const SHARED_BYTES_MAX: usize = 1 << 30;

const _: () = assert!(3 * IDLE_BYTES_MAX <= FREE_BYTES, "who is idle takes nothing from others");

/// The budget is used up. Nothing was taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("clients' requests and replies take too much memory on this node, try again later")]
pub(crate) struct TooMuch;

/// Bytes beyond [`FREE_BYTES`] that connections hold.
#[derive(Debug, Default)]
pub(crate) struct BufferBudget {
    held_bytes: AtomicUsize,
    stalled: Mutex<Stalled>,
    evicted_count: AtomicU64,
}

/// Clients that do not read what they are sent.
#[derive(Debug, Default)]
struct Stalled {
    /// Those who began to wait first are first.
    waiting: BTreeMap<u64, Waiting>,
    next_turn: u64,
}

#[derive(Debug)]
struct Waiting {
    client: Arc<Client>,
    bytes: usize,
    replies: Replies,
}

/// Replies that wait to be read. Gone: they had to make room for others.
type Replies = Arc<Mutex<Option<Vec<u8>>>>;

/// What one connection has of the budget; given back when it ends.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<BufferBudget>,
    bytes: usize,
}

impl Share {
    /// Nothing yet.
    pub(crate) fn new(budget: &Arc<BufferBudget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Makes the share what buffers of so many bytes need, more or less than before.
    ///
    /// # Errors
    /// There is not as much left. The share stays as it was.
    pub(crate) fn cover(&mut self, held: usize) -> Result<(), TooMuch> {
        let bytes = held.saturating_sub(FREE_BYTES);
        if bytes > self.bytes {
            self.budget.take(bytes - self.bytes)?;
        } else if bytes < self.bytes {
            self.budget.held_bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// The client does not read these replies. Until what is given back is dropped they are not the
    /// session's any more: they may have to make room for others. `held` is what the client has in
    /// memory, the replies included.
    ///
    /// # Errors
    /// There is not as much left, and the replies are dropped.
    pub(super) fn stall(
        &mut self,
        client: &Arc<Client>,
        held: usize,
        replies: Vec<u8>,
    ) -> Result<Stall, TooMuch> {
        let bytes = held.saturating_sub(FREE_BYTES).min(replies.capacity());
        self.cover(held - bytes)?;
        self.budget.take(bytes)?;
        let replies = Arc::new(Mutex::new(Some(replies)));
        let mut stalled = self.budget.stalled.lock();
        let turn = stalled.next_turn;
        stalled.next_turn += 1;
        let client = Arc::clone(client);
        stalled.waiting.insert(turn, Waiting { client, bytes, replies: Arc::clone(&replies) });
        Ok(Stall { budget: Arc::clone(&self.budget), turn, replies })
    }
}

/// A client that does not read its replies.
#[derive(Debug)]
pub(super) struct Stall {
    budget: Arc<BufferBudget>,
    turn: u64,
    replies: Replies,
}

impl Stall {
    /// Does something with the replies, if they are still there.
    pub(super) fn with_replies<T>(&self, act: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.replies.lock().as_deref().map(act)
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        if let Some(waiting) = self.budget.stalled.lock().waiting.remove(&self.turn) {
            self.budget.held_bytes.fetch_sub(waiting.bytes, Ordering::Relaxed);
        }
    }
}

impl BufferBudget {
    /// How many clients were closed to make room for others.
    pub(crate) fn evicted_count(&self) -> u64 {
        self.evicted_count.load(Ordering::Relaxed)
    }

    fn take(&self, more: usize) -> Result<(), TooMuch> {
        let held = self.held_bytes.fetch_add(more, Ordering::Relaxed) + more;
        if held <= SHARED_BYTES_MAX {
            return Ok(());
        }
        // The session of a client that goes may be polled only after others have taken as much again, so
        // its replies are dropped here.
        let mut stalled = self.stalled.lock();
        while self.held_bytes.load(Ordering::Relaxed) > SHARED_BYTES_MAX {
            let Some((_, Waiting { client, bytes, replies })) = stalled.waiting.pop_first() else {
                self.held_bytes.fetch_sub(more, Ordering::Relaxed);
                return Err(TooMuch);
            };
            warn!(client = %client.addr, bytes, "client closed: others need the memory of its replies");
            drop(replies.lock().take());
            self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.evicted_count.fetch_add(1, Ordering::Relaxed);
            client.killed.cancel();
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The capacity that a buffer should have to take `more` bytes after `length`: at least doubled where
/// it has to grow, so that a request in many pieces is not copied for each.
pub(super) fn grown(capacity: usize, length: usize, more: usize) -> usize {
    if length + more <= capacity { capacity } else { (length + more).max(2 * capacity) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clients::Clients;
    use crate::session::Door;

    const MIB: usize = 1 << 20;

    #[test]
    fn small_buffers_cost_nothing_and_large_ones_what_is_beyond() {
        let budget = Arc::new(BufferBudget::default());
        let mut share = Share::new(&budget);
        share.cover(FREE_BYTES).unwrap();
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
        share.cover(FREE_BYTES + 64 * MIB).unwrap();
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 64 * MIB);
        share.cover(FREE_BYTES + 2 * MIB).unwrap();
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 2 * MIB);
        drop(share);
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_comes_too_late_is_refused_until_others_have_left() {
        const LARGE: usize = FREE_BYTES + SHARED_BYTES_MAX / 16;
        let budget = Arc::new(BufferBudget::default());
        let mut shares: Vec<_> = (0..16).map(|_| Share::new(&budget)).collect();
        assert!(shares.iter_mut().all(|share| share.cover(LARGE).is_ok()));
        let mut late = Share::new(&budget);
        assert_eq!(late.cover(FREE_BYTES + 1), Err(TooMuch));
        assert_eq!(late.cover(FREE_BYTES), Ok(()), "small commands are still served");
        assert_eq!(shares[0].cover(LARGE), Ok(()), "who has it keeps it");
        shares.pop();
        assert_eq!(late.cover(LARGE), Ok(()));
    }

    #[test]
    fn who_does_not_read_makes_room_the_longest_first() {
        const HALF: usize = SHARED_BYTES_MAX / 2;
        let clients = Clients::new(10, CancellationToken::new());
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let [first, second] = [0; 2].map(|_| clients.admit(addr, addr, Door::Cluster).unwrap());
        let budget = &clients.buffers;
        let mut shares = [0; 4].map(|_| Share::new(budget));
        let [one, two, reader, late] = &mut shares;
        let stall = |share: &mut Share, client| {
            share.stall(client, FREE_BYTES + HALF, Vec::with_capacity(HALF)).unwrap()
        };
        let (old, read) = (stall(one, &first), stall(two, &second));
        drop(read);
        let new = stall(two, &second);
        assert_eq!(reader.cover(FREE_BYTES + HALF), Ok(()));
        assert_eq!((old.with_replies(<[u8]>::len), new.with_replies(<[u8]>::len)), (None, Some(0)));
        assert!(first.killed.is_cancelled() && !second.killed.is_cancelled());
        assert_eq!(late.cover(FREE_BYTES + 1), Ok(()));
        assert!(second.killed.is_cancelled());
        assert_eq!(late.cover(FREE_BYTES + HALF + 1), Err(TooMuch), "nobody else has to go");
        assert_eq!(late.cover(FREE_BYTES + HALF), Ok(()));
        assert_eq!(budget.evicted_count(), 2);

        drop((old, new));
        drop(shares);
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_buffer_grows_by_doubling_and_only_if_it_must() {
        assert_eq!(grown(0, 0, 100), 100);
        assert_eq!(grown(100, 40, 60), 100);
        assert_eq!(grown(100, 90, 20), 200);
        assert_eq!(grown(100, 90, 500), 590);
    }
}
