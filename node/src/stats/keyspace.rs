//! Hits and misses. Counted for every read, so threads must not share a cache line over it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// More than the threads that most machines give us; threads beyond share.
const SHARDS_COUNT: usize = 16;

#[derive(Default)]
pub(super) struct Keyspace {
    shards: [Shard; SHARDS_COUNT],
}

/// On cache lines of its own: two, since processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Shard {
    hits: AtomicU64,
    misses: AtomicU64,
}

static THREADS_COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: Cell<usize> =
        Cell::new(THREADS_COUNT.fetch_add(1, Ordering::Relaxed) % SHARDS_COUNT);
}

impl Keyspace {
    pub(super) fn count(&self, hits: u64, misses: u64) {
        let shard = &self.shards[SHARD.get()];
        if hits > 0 {
            shard.hits.fetch_add(hits, Ordering::Relaxed);
        }
        if misses > 0 {
            shard.misses.fetch_add(misses, Ordering::Relaxed);
        }
    }

    pub(super) fn hits(&self) -> u64 {
        self.shards.iter().map(|shard| shard.hits.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn misses(&self) -> u64 {
        self.shards.iter().map(|shard| shard.misses.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn reset(&self) {
        for shard in &self.shards {
            shard.hits.store(0, Ordering::Relaxed);
            shard.misses.store(0, Ordering::Relaxed);
        }
    }
}
