//! Sessions that wait for a key to change.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// All that wait on this node.
#[derive(Default)]
pub(super) struct Waits {
    /// Nothing else is looked at while it is 0.
    count: AtomicUsize,
    keys: Mutex<BTreeMap<Arc<[u8]>, Waited>>,
}

struct Waited {
    changed: Arc<Notify>,
    count: usize,
}

/// One that waits. Hears of whatever happens from when it was made.
pub(crate) struct Waiter<'a> {
    waits: &'a Waits,
    key: Arc<[u8]>,
    changed: Pin<Box<OwnedNotified>>,
}

impl Waits {
    pub(super) fn is_on(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub(super) fn begin(&self, key: &[u8]) -> Waiter<'_> {
        let mut keys = self.keys.lock();
        let key: Arc<[u8]> = key.into();
        let fresh = || Waited { changed: Arc::new(Notify::new()), count: 0 };
        let waited = keys.entry(Arc::clone(&key)).or_insert_with(fresh);
        waited.count += 1;
        let changed = Box::pin(Arc::clone(&waited.changed).notified_owned());
        self.count.fetch_add(1, Ordering::Relaxed);
        Waiter { waits: self, key, changed }
    }

    pub(super) fn changed(&self, key: &[u8]) {
        if let Some(waited) = self.keys.lock().get(key) {
            waited.changed.notify_waiters();
        }
    }

    pub(super) fn all_changed(&self) {
        self.keys.lock().values().for_each(|waited| waited.changed.notify_waiters());
    }
}

impl Waiter<'_> {
    /// Until the key has changed, or may have.
    pub(crate) async fn wait(mut self) {
        self.changed.as_mut().await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut keys = self.waits.keys.lock();
        self.waits.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(waited) = keys.get_mut(&self.key) {
            waited.count -= 1;
            if waited.count == 0 {
                keys.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_hears_of_what_happened_since() {
        let waits = Waits::default();
        let [one, two, other] = [b"a", b"a", b"b"].map(|key| waits.begin(key));
        waits.changed(b"a");
        one.wait().await;
        two.wait().await;
        assert!(waits.is_on(), "one still waits for another key");
        drop(other);
        assert!(!waits.is_on() && waits.keys.lock().is_empty());
    }
}
