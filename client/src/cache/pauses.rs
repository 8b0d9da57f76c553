//! Keys whose stale values are served for the moment without trying to load them anew: someone does, or it failed
//! just now.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::Key;
use crate::level::Moment;

/// Entries before those that are over are first looked for.
const SWEEP_COUNT: usize = 256;

/// Why there is a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// This process loads it.
    Loading,
    /// Another process does, as far as is known.
    LoadingElsewhere,
    Failed,
}

#[derive(Debug)]
pub(crate) struct Pauses<K>(Mutex<Paused<K>>);

#[derive(Debug)]
struct Paused<K> {
    until: HashMap<K, (Moment, Why)>,
    sweep_at_count: usize,
}

impl<K: Key> Pauses<K> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Paused { until: HashMap::new(), sweep_at_count: SWEEP_COUNT }))
    }

    pub(crate) fn holds(&self, key: &K, now: Moment) -> bool {
        self.0.lock().until.get(key).is_some_and(|&(until, _)| now < until)
    }

    /// Begins one for a load by this process, which has the right to it. Not if there is one already for another
    /// load of its own, or since it failed.
    pub(crate) fn begin(&self, key: &K, now: Moment, until: Moment) -> bool {
        let mut paused = self.0.lock();
        let there = paused.until.get(key).filter(|(until, _)| now < *until);
        if there.is_some_and(|&(_, why)| why != Why::LoadingElsewhere) {
            return false;
        }
        paused.set(key, now, (until, Why::Loading));
        true
    }

    /// Begins one, or changes it.
    pub(crate) fn set(&self, key: &K, now: Moment, until: Moment, why: Why) {
        self.0.lock().set(key, now, (until, why));
    }

    pub(crate) fn end(&self, key: &K) {
        self.0.lock().until.remove(key);
    }
}

impl<K: Key> Paused<K> {
    fn set(&mut self, key: &K, now: Moment, pause: (Moment, Why)) {
        self.until.insert(key.clone(), pause);
        if self.until.len() >= self.sweep_at_count {
            self.until.retain(|_, (until, _)| now < *until);
            self.sweep_at_count = SWEEP_COUNT.max(self.until.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_holds_until_its_end_and_no_other_begins() {
        let (pauses, at) = (Pauses::new(), Moment::from_nanos);
        assert!(pauses.begin(&1, at(0), at(10)));
        assert!(!pauses.begin(&1, at(9), at(20)));
        assert!(pauses.holds(&1, at(9)) && !pauses.holds(&1, at(10)));
        assert!(pauses.begin(&1, at(10), at(20)));
        pauses.end(&1);
        assert!(!pauses.holds(&1, at(10)));
        pauses.set(&1, at(10), at(20), Why::LoadingElsewhere);
        assert!(pauses.holds(&1, at(10)));
        assert!(pauses.begin(&1, at(10), at(20)), "it has the right to by now");
        pauses.set(&1, at(10), at(20), Why::Failed);
        assert!(!pauses.begin(&1, at(10), at(20)));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let (pauses, at) = (Pauses::new(), Moment::from_nanos);
        for key in 0..10_000_u64 {
            pauses.set(&key, at(key), at(key + 1), Why::Failed);
        }
        assert!(pauses.0.lock().until.len() <= SWEEP_COUNT);
    }
}
