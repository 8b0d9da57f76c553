//! A near level that keeps so many copies, and tells whose it throws away.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use scatterhoard_client::cache::Key;
use scatterhoard_client::level::near::{Evicted, Holds};
use scatterhoard_client::level::{Held, Kept, NearLevel};

pub(crate) struct Map<K, V> {
    copies: Mutex<HashMap<K, Arc<Kept<V>>>>,
    count_max: usize,
    evicted: Mutex<Option<Evicted<K>>>,
    before_keeping: Mutex<Option<(K, Task)>>,
}

type Task = Box<dyn FnOnce() + Send>;

impl<K: Key, V: Send + Sync + 'static> Map<K, V> {
    pub(crate) fn new() -> Arc<Self> {
        Self::of(usize::MAX)
    }

    pub(crate) fn of(count_max: usize) -> Arc<Self> {
        Arc::new(Self {
            copies: Mutex::default(),
            count_max,
            evicted: Mutex::new(None),
            before_keeping: Mutex::new(None),
        })
    }

    /// Does this when it is about to keep the next copy of a key.
    pub(crate) fn before_keeping(&self, key: K, task: impl FnOnce() + Send + 'static) {
        *self.before_keeping.lock() = Some((key, Box::new(task)));
    }
}

impl<K: Key, V: Send + Sync + 'static> NearLevel<K, V> for Map<K, V> {
    fn look(&self, key: &K) -> Option<Held<V>> {
        self.copies.lock().get(key).cloned().map(Held::from)
    }

    fn keep(&self, key: K, copy: Arc<Kept<V>>) {
        let task = self.before_keeping.lock().take_if(|(its, _)| *its == key);
        if let Some((_, task)) = task {
            task();
        }
        let mut copies = self.copies.lock();
        copies.insert(key.clone(), copy);
        if copies.len() > self.count_max {
            let out = copies.keys().find(|other| **other != key).cloned();
            let out = out.expect("there is more than one");
            copies.remove(&out);
            if let Some(evicted) = &*self.evicted.lock() {
                evicted(&out);
            }
        }
    }

    fn remove(&self, key: &K) {
        self.copies.lock().remove(key);
    }

    fn remove_this(&self, key: &K, copy: &Arc<Kept<V>>) {
        let mut copies = self.copies.lock();
        if copies.get(key).is_some_and(|there| Arc::ptr_eq(there, copy)) {
            copies.remove(key);
        }
    }

    fn clear(&self) {
        self.copies.lock().clear();
    }

    fn holds(&self) -> Holds {
        Holds { count: self.copies.lock().len() as u64, ..Holds::default() }
    }

    fn tell_evictions(&self, tell: Evicted<K>) {
        *self.evicted.lock() = Some(tell);
    }
}
