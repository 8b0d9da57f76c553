//! Which keys carry tags, where there is no cluster level to know.
//!
//! One map for all: an invalidation looks at every key that has tags. Those that the near level has thrown away in
//! the meantime are forgotten whenever the map has doubled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Key;

/// Keys before those that are no longer there are first looked for.
const SWEEP_COUNT: usize = 1024;

#[derive(Debug)]
pub(crate) struct Tagged<K> {
    keys: Mutex<Keys<K>>,
    /// Grows under the lock of the keys.
    invalidations: AtomicU64,
}

#[derive(Debug)]
struct Keys<K> {
    tags: HashMap<K, Box<[Bytes]>>,
    sweep_at_count: usize,
}

impl<K: Key> Tagged<K> {
    pub(crate) fn new() -> Self {
        let keys = Keys { tags: HashMap::new(), sweep_at_count: SWEEP_COUNT };
        Self { keys: Mutex::new(keys), invalidations: AtomicU64::new(0) }
    }

    /// How many invalidations there were. Asked before a load begins.
    pub(crate) fn invalidations(&self) -> u64 {
        self.invalidations.load(Ordering::Acquire)
    }

    /// A key gets these tags instead of those it had. Not done, and `false`, if there are any and there was an
    /// invalidation since this count of them: it may have been one of these.
    pub(crate) fn put(
        &self,
        key: &K,
        tags: &[Bytes],
        since: Option<u64>,
        alive: impl Fn(&K) -> bool,
    ) -> bool {
        let mut keys = self.keys.lock();
        if tags.is_empty() {
            keys.tags.remove(key);
            return true;
        }
        if since.is_some_and(|since| since != self.invalidations()) {
            return false;
        }
        keys.tags.insert(key.clone(), tags.into());
        if keys.tags.len() >= keys.sweep_at_count {
            // The key itself is about to be kept.
            keys.tags.retain(|other, _| other == key || alive(other));
            keys.sweep_at_count = SWEEP_COUNT.max(keys.tags.len() * 2);
        }
        true
    }

    /// The keys that carry one of these tags, and no longer do.
    pub(crate) fn invalidate(&self, tags: &[Bytes]) -> Vec<K> {
        let mut keys = self.keys.lock();
        self.invalidations.fetch_add(1, Ordering::Release);
        let carries = |its: &[Bytes]| its.iter().any(|tag| tags.contains(tag));
        keys.tags.extract_if(|_, its| carries(its)).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalidation_finds_exactly_the_keys_with_its_tag() {
        let (tagged, tag) = (Tagged::<u8>::new(), |tag: &'static str| [Bytes::from(tag)]);
        let put = |key, tags: &[Bytes]| tagged.put(&key, tags, None, |_| true);
        put(1, &tag("red"));
        put(2, &["red".into(), "round".into()]);
        put(3, &tag("round"));
        put(1, &[]);
        assert_eq!(tagged.invalidate(&tag("red")), [2]);
        assert!(tagged.invalidate(&tag("red")).is_empty());
        assert_eq!(tagged.invalidate(&tag("round")), [3]);
    }

    #[test]
    fn a_load_that_began_before_an_invalidation_keeps_nothing_with_tags() {
        let (tagged, red) = (Tagged::<u8>::new(), [Bytes::from("red")]);
        let since = Some(tagged.invalidations());
        tagged.invalidate(&red);
        assert!(!tagged.put(&1, &red, since, |_| true));
        assert!(tagged.put(&1, &[], since, |_| true));
    }

    #[test]
    fn keys_that_are_no_longer_there_are_forgotten() {
        let (tagged, red) = (Tagged::<u32>::new(), [Bytes::from("red")]);
        for key in 0..100_000_u32 {
            tagged.put(&key, &red, None, |other| key - other < 10);
        }
        assert!(tagged.keys.lock().tags.len() <= SWEEP_COUNT);
    }
}
