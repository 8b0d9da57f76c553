//! Copies in [quick_cache](https://docs.rs/quick_cache), which takes less time for each of them.

use std::fmt;
use std::hash::{BuildHasher as _, Hash};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::{Evicted, Held, Holds, Kept, NearLevel};

/// A near level for those who read many keys often: it finds a copy in a fraction of the time that
/// [`Moka`](super::Moka) takes.
///
/// ```
/// use scatterhoard_client::level::near::{Quick, suite};
///
/// suite::check(|bytes_max| Quick::with_bytes_max(bytes_max));
/// ```
pub struct Quick<K, V> {
    copies: Cache<K, Arc<Kept<V>>, Bytes, RandomState, Dropping>,
    evicted_count: AtomicU64,
    tell: OnceLock<Evicted<K>>,
    hasher: RandomState,
}

#[derive(Clone)]
struct Bytes;

impl<K, V> Weighter<K, Arc<Kept<V>>> for Bytes {
    fn weight(&self, _key: &K, copy: &Arc<Kept<V>>) -> u64 {
        // What weighs nothing is never thrown away.
        u64::from(copy.weight.max(1))
    }
}

/// Gathers what falls out, to be looked at and dropped once no lock is held.
#[derive(Clone)]
struct Dropping;

impl<K, V> Lifecycle<K, Arc<Kept<V>>> for Dropping {
    type RequestState = Vec<(K, Arc<Kept<V>>)>;

    fn on_evict(&self, dropped: &mut Self::RequestState, key: K, copy: Arc<Kept<V>>) {
        dropped.push((key, copy));
    }
}

/// What a copy is taken to weigh when it is decided how many parts there are, and how much is remembered of what was
/// thrown away. Ten times more or less does little harm.
const WEIGHT_EXPECTED: u64 = 512;
/// Parts have a lock each. A copy of more than a part's share of the bytes is not kept.
const PARTS_COUNT: usize = 16;

impl<K, V> Quick<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Keeps copies of so many bytes in all, by the weight that they say of themselves; none of more than a 16th.
    #[must_use]
    pub fn with_bytes_max(bytes_max: u64) -> Self {
        let count = usize::try_from(bytes_max / WEIGHT_EXPECTED).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .shards(PARTS_COUNT)
            .estimated_items_capacity(count.clamp(1, 1 << 24))
            .weight_capacity(bytes_max)
            .build()
            .expect("both capacities are given");
        let hasher = RandomState::default();
        let copies = Cache::with_options(options, Bytes, hasher.clone(), Dropping);
        Self { copies, evicted_count: AtomicU64::new(0), tell: OnceLock::new(), hasher }
    }
}

impl<K, V> NearLevel<K, V> for Quick<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn look(&self, key: &K) -> Option<Held<V>> {
        self.copies.get(key).map(Held::from)
    }

    fn keep(&self, key: K, copy: Arc<Kept<V>>) {
        let hash = self.hasher.hash_one(&key);
        let mut dropped = Vec::new();
        self.copies.insert_with_lifecycle(key, Arc::clone(&copy), &mut dropped);
        // What was replaced falls out too, as does the copy itself if it is too heavy.
        let is_replaced = |(key, it): &(K, Arc<Kept<V>>)| {
            self.hasher.hash_one(key) == hash && !Arc::ptr_eq(it, &copy)
        };
        for (key, _) in dropped.iter().filter(|it| !is_replaced(it)) {
            self.evicted_count.fetch_add(1, Ordering::Relaxed);
            if let Some(tell) = self.tell.get() {
                tell(key);
            }
        }
    }

    fn remove(&self, key: &K) {
        drop(self.copies.remove(key));
    }

    fn remove_this(&self, key: &K, copy: &Arc<Kept<V>>) {
        drop(self.copies.remove_if(key, |found| Arc::ptr_eq(found, copy)));
    }

    fn clear(&self) {
        // Unlike its `clear`, this drops the copies while no lock is held.
        self.copies.drain().for_each(drop);
    }

    fn holds(&self) -> Holds {
        Holds {
            count: self.copies.len() as u64,
            bytes: self.copies.weight(),
            evicted_count: self.evicted_count.load(Ordering::Relaxed),
        }
    }

    fn tell_evictions(&self, tell: Evicted<K>) {
        // Asked for once.
        let _ = self.tell.set(tell);
    }
}

impl<K, V> fmt::Debug for Quick<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quick").finish_non_exhaustive()
    }
}
