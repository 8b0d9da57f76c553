//! Copies in [moka](https://docs.rs/moka), which keeps what is used often and recently.

use std::fmt;
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use moka::notification::RemovalCause;
use moka::sync::Cache;
use parking_lot::ReentrantMutex;

use super::{Held, Holds, Kept, NearLevel};

/// The near level by default: least is loaded anew with it when it is full.
///
/// ```
/// use scatterhoard_client::level::near::{Moka, suite};
///
/// suite::check(|bytes_max| Moka::with_bytes_max(bytes_max));
/// ```
pub struct Moka<K, V> {
    copies: Cache<K, Arc<Kept<V>>, RandomState>,
    evicted_count: Arc<AtomicU64>,
    changes: Box<[ReentrantMutex<()>]>,
    hasher: RandomState,
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
        let (hasher, evicted_count) = (RandomState::default(), Arc::new(AtomicU64::new(0)));
        let evicted = Arc::clone(&evicted_count);
        let copies = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_: &K, copy: &Arc<Kept<V>>| copy.weight)
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evicted.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_with_hasher(hasher.clone());
        let changes = (0..CHANGES_COUNT).map(|_| ReentrantMutex::new(())).collect();
        Self { copies, evicted_count, changes, hasher }
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
            evicted_count: self.evicted_count.load(Ordering::Relaxed),
        }
    }
}

impl<K, V> fmt::Debug for Moka<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moka").finish_non_exhaustive()
    }
}
