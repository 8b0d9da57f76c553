//! Copies in [moka](https://docs.rs/moka), which keeps what is used often and recently.

use std::fmt;
use std::hash::{BuildHasher as _, Hash};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use moka::notification::RemovalCause;
use moka::sync::Cache;
use parking_lot::ReentrantMutex;

use super::{Evicted, Held, Holds, Kept, NearLevel};

/// The near level by default, behind a front for each thread.
///
/// ```
/// use scatterhoard_client::level::near::{Moka, suite};
///
/// suite::check(|bytes_max| Moka::with_bytes_max(bytes_max));
/// ```
pub struct Moka<K, V> {
    copies: Cache<K, Arc<Kept<V>>, RandomState>,
    evicted: Arc<EvictedSoFar<K>>,
    changes: Box<[ReentrantMutex<()>]>,
    hasher: RandomState,
}

struct EvictedSoFar<K> {
    count: AtomicU64,
    tell: OnceLock<Evicted<K>>,
}

/// How many changes of different keys are made at once, about.
const CHANGES_COUNT: usize = 64;

impl<K, V> Moka<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Keeps copies of so many bytes in all, by the weight that they say of themselves. It may hold a little more
    /// for a moment.
    #[must_use]
    pub fn with_bytes_max(bytes_max: u64) -> Self {
        let hasher = RandomState::default();
        let so_far = EvictedSoFar { count: AtomicU64::new(0), tell: OnceLock::new() };
        let evicted: Arc<EvictedSoFar<K>> = Arc::new(so_far);
        let listener = Arc::clone(&evicted);
        let copies = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_: &K, copy: &Arc<Kept<V>>| copy.weight)
            .eviction_listener(move |key: Arc<K>, _, cause| {
                if cause == RemovalCause::Size {
                    listener.count.fetch_add(1, Ordering::Relaxed);
                    if let Some(tell) = listener.tell.get() {
                        tell(&*key);
                    }
                }
            })
            .build_with_hasher(hasher.clone());
        let changes = (0..CHANGES_COUNT).map(|_| ReentrantMutex::new(())).collect();
        Self { copies, evicted, changes, hasher }
    }

    /// What whoever changes the copy of a key holds meanwhile. Reentrant: what falls out is dropped under it, and to
    /// drop it may be to change another.
    fn change(&self, key: &K) -> &ReentrantMutex<()> {
        let hash = self.hasher.hash_one(key);
        &self.changes[usize::try_from(hash % CHANGES_COUNT as u64).unwrap_or(0)]
    }
}

impl<K, V> NearLevel<K, V> for Moka<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn look(&self, key: &K) -> Option<Held<V>> {
        self.copies.get(key).map(Held::from)
    }

    fn keep(&self, key: K, copy: Arc<Kept<V>>) {
        let _changing = self.change(&key).lock();
        self.copies.insert(key, copy);
    }

    fn remove(&self, key: &K) {
        let _changing = self.change(key).lock();
        self.copies.invalidate(key);
    }

    fn remove_this(&self, key: &K, copy: &Arc<Kept<V>>) {
        // Moka's own way to do this does not exclude an insert in between.
        let _changing = self.change(key).lock();
        if self.copies.get(key).is_some_and(|found| Arc::ptr_eq(&found, copy)) {
            self.copies.invalidate(key);
        }
    }

    fn clear(&self) {
        self.copies.invalidate_all();
    }

    fn holds(&self) -> Holds {
        self.copies.run_pending_tasks();
        Holds {
            count: self.copies.entry_count(),
            bytes: self.copies.weighted_size(),
            evicted_count: self.evicted.count.load(Ordering::Relaxed),
        }
    }

    fn tell_evictions(&self, tell: Evicted<K>) {
        // Asked for once.
        let _ = self.evicted.tell.set(tell);
    }
}

impl<K, V> fmt::Debug for Moka<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moka").finish_non_exhaustive()
    }
}
