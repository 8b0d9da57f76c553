//! Which keys carry tags, where there is no cluster level to know.
//!
//! One map for all: an invalidation looks at every key that has tags. Those that the near level has thrown away in
//! the meantime are forgotten whenever the map has doubled.
//!
//! A copy is kept while its tags are known, never before or after, or an invalidation in between would miss it. The
//! lock is not held for that: the near level may be anybody's. What is being kept lies in a map of its own instead,
//! which is not searched for keys that are no longer there, since this one is not there yet; and what it replaces
//! has its old tags until then.

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
    /// Of what is being kept just now.
    arriving: HashMap<K, Box<[Bytes]>>,
    sweep_at_count: usize,
}

/// A key whose copy is being kept. Whatever comes of it, a panic too, it is not for ever.
struct Arrival<'a, K: Key> {
    tagged: &'a Tagged<K>,
    key: &'a K,
}

impl<K: Key> Tagged<K> {
    pub(crate) fn new() -> Self {
        let (tags, arriving) = (HashMap::new(), HashMap::new());
        let keys = Keys { tags, arriving, sweep_at_count: SWEEP_COUNT };
        Self { keys: Mutex::new(keys), invalidations: AtomicU64::new(0) }
    }

    /// How many invalidations there were. Asked before a load begins.
    pub(crate) fn invalidations(&self) -> u64 {
        self.invalidations.load(Ordering::Acquire)
    }

    /// Keeps the copy of a key, which gets these tags instead of those it had. Not done, and `false`, if there are
    /// any and there was an invalidation since this count of them: it may have been one of these.
    ///
    /// One at a time for each key: who calls holds the key's lock of [`super::underway`], and so does who drops its
    /// copy after an invalidation. So what is invalidated while it is being kept is dropped afterwards.
    pub(crate) fn put(
        &self,
        key: &K,
        tags: &[Bytes],
        since: Option<u64>,
        alive: impl Fn(&K) -> bool,
        keep: impl FnOnce(),
    ) -> bool {
        let mut keys = self.keys.lock();
        if tags.is_empty() && !keys.tags.contains_key(key) {
            drop(keys);
            keep();
            return true;
        }
        if !tags.is_empty() && since.is_some_and(|since| since != self.invalidations()) {
            return false;
        }
        keys.sweep(alive);
        let before = keys.arriving.insert(key.clone(), tags.into());
        drop(keys);
        debug_assert!(before.is_none(), "copies of one key are kept one after another");
        let _arrival = Arrival { tagged: self, key };
        keep();
        true
    }

    /// The keys that carry one of these tags, and no longer do.
    pub(crate) fn invalidate(&self, invalid: &[Bytes]) -> Vec<K> {
        let mut keys = self.keys.lock();
        self.invalidations.fetch_add(1, Ordering::Release);
        let carries = |its: &[Bytes]| its.iter().any(|tag| invalid.contains(tag));
        let Keys { tags, arriving, .. } = &mut *keys;
        let mut found: Vec<_> =
            arriving.extract_if(|_, its| carries(its)).map(|(key, _)| key).collect();
        for key in &found {
            tags.remove(key);
        }
        found.extend(tags.extract_if(|_, its| carries(its)).map(|(key, _)| key));
        found
    }
}

impl<K: Key> Keys<K> {
    fn sweep(&mut self, alive: impl Fn(&K) -> bool) {
        if self.tags.len() >= self.sweep_at_count {
            self.tags.retain(|key, _| alive(key));
            self.sweep_at_count = SWEEP_COUNT.max(self.tags.len() * 2);
        }
    }
}

impl<K: Key> Drop for Arrival<'_, K> {
    fn drop(&mut self) {
        let mut keys = self.tagged.keys.lock();
        match keys.arriving.remove(self.key).filter(|tags| !tags.is_empty()) {
            Some(tags) => keys.tags.insert(self.key.clone(), tags),
            // It has none, or was invalidated.
            None => keys.tags.remove(self.key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(tagged: &Tagged<u32>, key: u32, tags: &[Bytes]) {
        assert!(tagged.put(&key, tags, None, |_| true, || ()));
    }

    #[test]
    fn an_invalidation_finds_exactly_the_keys_with_its_tag() {
        let (tagged, tag) = (Tagged::new(), |tag: &'static str| [Bytes::from(tag)]);
        put(&tagged, 1, &tag("red"));
        put(&tagged, 2, &["red".into(), "round".into()]);
        put(&tagged, 3, &tag("round"));
        put(&tagged, 1, &[]);
        assert_eq!(tagged.invalidate(&tag("red")), [2]);
        assert!(tagged.invalidate(&tag("red")).is_empty());
        assert_eq!(tagged.invalidate(&tag("round")), [3]);
    }

    #[test]
    fn a_load_that_began_before_an_invalidation_keeps_nothing_with_tags() {
        let (tagged, red) = (Tagged::<u8>::new(), [Bytes::from("red")]);
        let since = Some(tagged.invalidations());
        tagged.invalidate(&red);
        assert!(!tagged.put(&1, &red, since, |_| true, || unreachable!("it may be invalid")));
        let mut kept = false;
        assert!(tagged.put(&1, &[], since, |_| true, || kept = true));
        assert!(kept);
    }

    #[test]
    fn keys_that_are_no_longer_there_are_forgotten() {
        let (tagged, red) = (Tagged::<u32>::new(), [Bytes::from("red")]);
        for key in 0..100_000_u32 {
            tagged.put(&key, &red, None, |other| key - other < 10, || ());
        }
        assert!(tagged.keys.lock().tags.len() <= SWEEP_COUNT);
    }

    #[test]
    fn what_is_being_kept_is_found_however_many_are_put_meanwhile() {
        let (tagged, red) = (Tagged::new(), [Bytes::from("red")]);
        tagged.put(
            &0,
            &red,
            None,
            |_| true,
            || {
                for key in 1..10_000 {
                    tagged.put(&key, &[Bytes::from("blue")], None, |_| false, || ());
                }
            },
        );
        assert_eq!(tagged.invalidate(&red), [0]);
    }

    #[test]
    fn what_is_being_replaced_has_its_old_tags_until_it_is() {
        for new in [&[][..], &["red".into()], &["blue".into()]] {
            let (tagged, red) = (Tagged::new(), [Bytes::from("red")]);
            put(&tagged, 1, &red);
            tagged.put(&1, new, None, |_| true, || assert_eq!(tagged.invalidate(&red), [1]));
            assert!(tagged.invalidate(&red).is_empty());
        }
    }

    #[test]
    fn nothing_is_left_of_what_could_not_be_kept() {
        let (tagged, red) = (Tagged::new(), [Bytes::from("red")]);
        let fails = || tagged.put(&1, &red, None, |_| true, || panic!("a near level of your own"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(fails)).is_err());
        assert!(tagged.keys.lock().arriving.is_empty());
        put(&tagged, 1, &red);
    }
}
