//! What clients' unfinished requests may take of a node's memory, all together.
//!
//! Each connection has a megabyte without asking, as many clients do no more than small commands. Beyond
//! that they share one budget, and a connection that would exceed it is told so and closed: nothing of an
//! unfinished request has happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What each connection may hold without asking, in bytes.
const FREE_BYTES: usize = 1 << 20;

/// Bytes that all connections together may hold beyond that: more than a dozen of the largest values on
/// their way in at a time, and little beside what a node has for keys.
const SHARED_BYTES_MAX: usize = 1 << 30;

/// The budget is used up. Nothing was taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes of unfinished requests on this node, try again later")]
pub(crate) struct TooMuch;

/// Bytes beyond [`FREE_BYTES`] that connections hold.
#[derive(Debug, Default)]
pub(crate) struct InputBudget {
    held_bytes: AtomicUsize,
}

/// What one connection has of the budget; given back when it ends.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<InputBudget>,
    bytes: usize,
}

impl Share {
    /// Nothing yet.
    pub(crate) fn new(budget: &Arc<InputBudget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Makes the share what a buffer of this capacity needs, more or less than before.
    ///
    /// # Errors
    /// There is not as much left. The share stays as it was.
    pub(crate) fn cover(&mut self, capacity: usize) -> Result<(), TooMuch> {
        let bytes = capacity.saturating_sub(FREE_BYTES);
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let held = self.budget.held_bytes.fetch_add(more, Ordering::Relaxed);
            if held + more > SHARED_BYTES_MAX {
                self.budget.held_bytes.fetch_sub(more, Ordering::Relaxed);
                return Err(TooMuch);
            }
        } else if bytes < self.bytes {
            self.budget.held_bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
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
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn small_buffers_cost_nothing_and_large_ones_what_is_beyond() {
        let budget = Arc::new(InputBudget::default());
        let mut share = Share::new(&budget);
        share.cover(MIB).unwrap();
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
        share.cover(65 * MIB).unwrap();
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 64 * MIB);
        share.cover(3 * MIB).unwrap();
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 2 * MIB);
        drop(share);
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_comes_too_late_is_refused_until_others_have_left() {
        let budget = Arc::new(InputBudget::default());
        let mut shares: Vec<_> = (0..16).map(|_| Share::new(&budget)).collect();
        assert!(shares.iter_mut().all(|share| share.cover(65 * MIB).is_ok()));
        let mut late = Share::new(&budget);
        assert_eq!(late.cover(MIB + 1), Err(TooMuch));
        assert_eq!(late.cover(MIB), Ok(()), "small commands are still served");
        assert_eq!(shares[0].cover(65 * MIB), Ok(()), "who has it keeps it");
        shares.pop();
        assert_eq!(late.cover(65 * MIB), Ok(()));
    }

    #[test]
    fn a_buffer_grows_by_doubling_and_only_if_it_must() {
        assert_eq!(grown(0, 0, 100), 100);
        assert_eq!(grown(100, 40, 60), 100);
        assert_eq!(grown(100, 90, 20), 200);
        assert_eq!(grown(100, 90, 500), 590);
    }
}
