//! What is on its way to the near level, and what this process changed in the meantime.
//!
//! Whatever reads a key in order to keep a copy takes a [`Ticket`] before. A change of the key by this process ends
//! all its tickets and drops its copy, both under one lock; a copy is kept under the same lock, and only if its
//! ticket has not ended. So no copy of what was read before a change is there after it. What other processes change
//! is not known here: that is what the cluster level's marks are for.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Key;

/// Locks; enough that threads hardly ever meet.
const SHARDS: usize = 64;

#[derive(Debug)]
pub(crate) struct Underway<K> {
    shards: Box<[Mutex<HashMap<K, Reads>>]>,
    hashes: RandomState,
}

/// The reads of a key that are under way. Without any there is no such entry.
#[derive(Debug, Default)]
struct Reads {
    count: usize,
    /// Changes since the first of them began.
    changes: u64,
}

/// The right to keep what a read that begins now brings.
#[derive(Debug)]
pub(crate) struct Ticket<K: Key> {
    underway: Arc<Underway<K>>,
    key: K,
    changes: u64,
}

impl<K: Key> Underway<K> {
    pub(crate) fn new() -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { shards, hashes: RandomState::new() })
    }

    pub(crate) fn begin(self: &Arc<Self>, key: &K) -> Ticket<K> {
        let mut shard = self.shard(key).lock();
        let reads = shard.entry(key.clone()).or_default();
        reads.count += 1;
        Ticket { underway: Arc::clone(self), key: key.clone(), changes: reads.changes }
    }

    /// A key changes: does so, if `then` says that it did, under the lock, and ends its tickets.
    pub(crate) fn change(&self, key: &K, then: impl FnOnce() -> bool) -> bool {
        let mut shard = self.shard(key).lock();
        let done = then();
        if let (true, Some(reads)) = (done, shard.get_mut(key)) {
            reads.changes += 1;
        }
        done
    }

    /// Any key may have changed.
    pub(crate) fn change_all(&self) {
        for shard in &self.shards {
            for reads in shard.lock().values_mut() {
                reads.changes += 1;
            }
        }
    }

    fn shard(&self, key: &K) -> &Mutex<HashMap<K, Reads>> {
        let hash = self.hashes.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).expect("less than SHARDS")]
    }
}

impl<K: Key> Ticket<K> {
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// Does something under the lock if the key has not changed since. Answers with whether it did.
    pub(crate) fn if_unchanged(&self, then: impl FnOnce()) -> bool {
        let shard = self.underway.shard(&self.key).lock();
        let unchanged = shard.get(&self.key).is_some_and(|reads| reads.changes == self.changes);
        if unchanged {
            then();
        }
        unchanged
    }
}

impl<K: Key> Drop for Ticket<K> {
    fn drop(&mut self) {
        let mut shard = self.underway.shard(&self.key).lock();
        if let Some(reads) = shard.get_mut(&self.key) {
            reads.count -= 1;
            if reads.count == 0 {
                shard.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let underway = Underway::new();
        let (before, other) = (underway.begin(&1), underway.begin(&2));
        underway.change(&1, || true);
        let after = underway.begin(&1);
        assert!(!before.if_unchanged(|| unreachable!("it changed")));
        assert!(after.if_unchanged(|| {}));
        assert!(other.if_unchanged(|| {}));
        underway.change_all();
        assert!(!after.if_unchanged(|| ()));
        assert!(!other.if_unchanged(|| ()));
    }

    #[test]
    fn a_change_that_did_not_happen_ends_nothing() {
        let underway = Underway::new();
        let ticket = underway.begin(&1);
        assert!(!underway.change(&1, || false));
        assert!(ticket.if_unchanged(|| {}));
    }

    #[test]
    fn nothing_is_left_when_nothing_is_under_way() {
        let underway = Underway::new();
        let tickets = [underway.begin(&1), underway.begin(&1), underway.begin(&2)];
        drop(tickets);
        assert!(underway.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
