//! A few copies for each thread, in front of what all threads share.

use std::cell::RefCell;
use std::fmt;
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use thread_local::ThreadLocal;

use super::{Evicted, Handle, Held, Holds, Kept, NearLevel};

/// Another near level, with the hottest of its copies in front of it: each thread finds them without writing to
/// memory that other threads use. So hits on a hot key take a fraction of the time, and threads do not slow each
/// other down.
///
/// Whatever changes a copy is counted, and what a thread has is served only as long as nothing was counted since it
/// got it: what is removed or replaced is gone for all threads at once. What the other level throws away since it is
/// full may be served here for some reads more.
///
/// ```
/// use scatterhoard_client::level::near::{Fronted, Moka, suite};
///
/// suite::check(|bytes_max| Fronted::new(Moka::with_bytes_max(bytes_max), bytes_max / 64));
/// ```
pub struct Fronted<K: Send, V: Send + Sync, L> {
    level: L,
    changes: Box<[AtomicU64]>,
    fronts: ThreadLocal<RefCell<Front<K, V>>>,
    thread_bytes_max: u64,
    hasher: RandomState,
}

/// Changes of this many groups of keys are counted for themselves: 32 KiB. A change takes the copies of the whole
/// group from the fronts.
const CHANGES_COUNT: usize = 1 << 12;
/// The copies in front for each thread, of which each key could be in one place: 16 KiB, and what the copies weigh.
const PLACES_COUNT: usize = 1 << 8;
/// How many hits in a row, among those on keys of one place, bring a key to the front.
const ADMITTED_AFTER: u32 = 4;
/// Each so many hits in front, the other level is asked, so that it knows what is used.
const ASKED_EACH: u32 = 32;

/// What one thread has. Two threads' never share a line of a processor's cache.
#[repr(align(128))]
struct Front<K, V> {
    places: Box<[Place<K, V>]>,
    bytes: u64,
    /// Where to look next for what is not used.
    hand: usize,
}

struct Place<K, V> {
    resident: Option<Resident<K, V>>,
    /// The hash of the key that was hit last without being the resident, and how often in a row.
    challenger: u64,
    hits: u32,
}

struct Resident<K, V> {
    hash: u64,
    key: K,
    /// What was counted for its group before it was found.
    changes: u64,
    handle: Arc<Handle<V>>,
    weight: u32,
    uses: u32,
    used: bool,
}

/// What the front says of a key.
enum Answer<V> {
    Here(Arc<Handle<V>>),
    Ask,
}

/// What was thrown away, to be dropped once nothing is borrowed: it is for its owner to say what happens then.
type Dropped<K, V> = Vec<Resident<K, V>>;

impl<K, V, L> Fronted<K, V, L>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    L: NearLevel<K, V>,
{
    /// In front of this level, copies of up to `thread_bytes_max` bytes for each thread that reads, on top of what
    /// the level holds. A 64th of its bytes is a good start: that is for the hottest.
    #[must_use]
    pub fn new(level: L, thread_bytes_max: u64) -> Self {
        let changes = (0..CHANGES_COUNT).map(|_| AtomicU64::new(0)).collect();
        let hasher = RandomState::default();
        Self { level, changes, fronts: ThreadLocal::new(), thread_bytes_max, hasher }
    }

    fn changes(&self, hash: u64) -> &AtomicU64 {
        // The high bits: the low ones tell the place.
        &self.changes[(hash >> (u64::BITS - CHANGES_COUNT.ilog2())) as usize]
    }

    /// Counted after the other level was changed: who sees the number sees the change.
    fn changed(&self, key: &K) {
        self.changes(self.hasher.hash_one(key)).fetch_add(1, Ordering::Release);
    }

    /// Asks the other level, and takes a copy to the front that is hit again and again.
    fn ask(&self, key: &K, hash: u64, changes: u64) -> Option<Held<V>> {
        let found = self.level.look(key);
        let mut dropped = Dropped::new();
        let front = self.fronts.get_or(|| RefCell::new(Front::new()));
        // Whoever drops a value, or compares keys, may be a reader too.
        if let Ok(mut front) = front.try_borrow_mut() {
            match &found {
                None => front.leave(hash, &mut dropped),
                Some(copy) if front.is_admitted(hash, changes) => {
                    let handle = Arc::new(Handle::of(Arc::clone(copy.copy())));
                    let (key, weight) = (key.clone(), copy.weight.max(1));
                    let resident =
                        Resident { hash, key, changes, handle, weight, uses: 0, used: true };
                    front.enter(resident, self.thread_bytes_max, &mut dropped);
                }
                Some(_) => {}
            }
        }
        found
    }
}

impl<K, V, L> NearLevel<K, V> for Fronted<K, V, L>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    L: NearLevel<K, V>,
{
    fn look(&self, key: &K) -> Option<Held<V>> {
        let hash = self.hasher.hash_one(key);
        // Before the other level is asked: what is changed after that counts.
        let changes = self.changes(hash).load(Ordering::Acquire);
        if let Some(front) = self.fronts.get()
            && let Ok(mut front) = front.try_borrow_mut()
            && let Answer::Here(handle) = front.look(hash, key, changes)
        {
            return Some(Held::from(handle));
        }
        self.ask(key, hash, changes)
    }

    fn keep(&self, key: K, copy: Arc<Kept<V>>) {
        let hash = self.hasher.hash_one(&key);
        self.level.keep(key, copy);
        self.changes(hash).fetch_add(1, Ordering::Release);
    }

    fn remove(&self, key: &K) {
        self.level.remove(key);
        self.changed(key);
    }

    fn remove_this(&self, key: &K, copy: &Arc<Kept<V>>) {
        self.level.remove_this(key, copy);
        self.changed(key);
    }

    fn clear(&self) {
        self.level.clear();
        for changes in &self.changes {
            changes.fetch_add(1, Ordering::Release);
        }
    }

    /// What the other level holds.
    fn holds(&self) -> Holds {
        self.level.holds()
    }

    fn tell_evictions(&self, tell: Evicted<K>) {
        self.level.tell_evictions(tell);
    }
}

impl<K: Eq, V> Front<K, V> {
    fn new() -> Self {
        let place = || Place { resident: None, challenger: 0, hits: 0 };
        Self { places: (0..PLACES_COUNT).map(|_| place()).collect(), bytes: 0, hand: 0 }
    }

    fn at(hash: u64) -> usize {
        hash as usize % PLACES_COUNT
    }

    fn look(&mut self, hash: u64, key: &K, changes: u64) -> Answer<V> {
        let place = &mut self.places[Self::at(hash)];
        match &mut place.resident {
            Some(resident)
                if resident.hash == hash && resident.changes == changes && resident.key == *key =>
            {
                place.hits = 0;
                resident.used = true;
                resident.uses = resident.uses.wrapping_add(1);
                match resident.uses % ASKED_EACH {
                    0 => Answer::Ask,
                    _ => Answer::Here(Arc::clone(&resident.handle)),
                }
            }
            Some(_) | None => Answer::Ask,
        }
    }

    /// Counts a hit on a key that was not found here. Answers with whether it should be.
    fn is_admitted(&mut self, hash: u64, changes: u64) -> bool {
        let place = &mut self.places[Self::at(hash)];
        match &place.resident {
            // One whose group changed needs not prove itself again.
            Some(resident) if resident.hash == hash => resident.changes != changes,
            Some(_) | None => {
                place.hits = if place.challenger == hash { place.hits + 1 } else { 1 };
                place.challenger = hash;
                place.hits >= ADMITTED_AFTER
            }
        }
    }

    fn enter(&mut self, resident: Resident<K, V>, bytes_max: u64, dropped: &mut Dropped<K, V>) {
        let weight = u64::from(resident.weight);
        if weight > bytes_max {
            return;
        }
        let at = Self::at(resident.hash);
        self.vacate(at, dropped);
        while self.bytes + weight > bytes_max {
            let passed = self.hand;
            self.hand = (self.hand + 1) % PLACES_COUNT;
            match &mut self.places[passed].resident {
                Some(resident) if resident.used => resident.used = false,
                Some(_) | None => self.vacate(passed, dropped),
            }
        }
        self.bytes += weight;
        self.places[at].resident = Some(resident);
        self.places[at].hits = 0;
    }

    fn leave(&mut self, hash: u64, dropped: &mut Dropped<K, V>) {
        let at = Self::at(hash);
        if self.places[at].resident.as_ref().is_some_and(|it| it.hash == hash) {
            self.vacate(at, dropped);
        }
    }

    fn vacate(&mut self, at: usize, dropped: &mut Dropped<K, V>) {
        if let Some(resident) = self.places[at].resident.take() {
            self.bytes -= u64::from(resident.weight);
            dropped.push(resident);
        }
    }
}

impl<K: Send, V: Send + Sync, L: fmt::Debug> fmt::Debug for Fronted<K, V, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fronted").field("level", &self.level).finish_non_exhaustive()
    }
}
