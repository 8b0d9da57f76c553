//! What a near level must do, to be called from the tests of yours: [`check`] runs all of it.
//!
//! Each function panics if the level does not do what it says. None takes more than about a second.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::{Kept, NearLevel, Valid};
use crate::level::Moment;

/// What the suite keeps: which version of its key it is.
pub type Version = u64;

/// Enough for all that the tests keep, where nothing should be thrown away.
const AMPLE_BYTES: u64 = 64 << 20;
/// What a copy weighs, in bytes.
const WEIGHT: u32 = 100;

/// All of it. `make` makes a level that keeps copies of so many bytes.
///
/// # Panics
/// If the level does not do what it must.
pub fn check<L: NearLevel<u64, Version>>(make: impl Fn(u64) -> L) {
    keeps_what_it_is_given(&make);
    agrees_with_a_map(&make);
    stays_within_its_bytes(&make);
    keeps_what_is_used(&make);
    never_goes_back(&make);
    removes_only_this(&make);
}

/// A copy is found, again and again, until it is replaced or removed.
///
/// # Panics
/// If not.
pub fn keeps_what_it_is_given<L: NearLevel<u64, Version>>(make: impl Fn(u64) -> L) {
    let level = make(AMPLE_BYTES);
    assert!(level.look(&1).is_none(), "it begins with nothing");
    let (first, second) = (copy(1), copy(2));
    level.keep(1, Arc::clone(&first));
    for _ in 0..100 {
        assert_eq!(found(&level, 1), Some(1), "a copy is found as often as it is asked for");
    }
    let held = level.look(&1).expect("it is still there");
    assert!(Arc::ptr_eq(held.copy(), &first), "it hands out what it was given");

    level.keep(1, Arc::clone(&second));
    assert_eq!(found(&level, 1), Some(2), "a copy takes the place of the one before");
    assert_eq!(held.value, Some(1), "what was handed out stays what it is");
    level.remove_this(&1, &first);
    assert_eq!(found(&level, 1), Some(2), "another copy than the one to be removed stays");
    level.remove_this(&1, &second);
    assert_eq!(found(&level, 1), None, "the one to be removed goes");

    level.keep(1, copy(3));
    level.keep(2, copy(4));
    assert_eq!(level.holds().count, 2, "it knows how many there are");
    assert_eq!(level.holds().bytes, u64::from(2 * WEIGHT), "it knows what they weigh");
    level.remove(&1);
    assert_eq!((found(&level, 1), found(&level, 2)), (None, Some(4)), "one key goes alone");
    level.clear();
    assert_eq!(found(&level, 2), None, "all go together");
    level.keep(2, copy(5));
    assert_eq!(found(&level, 2), Some(5), "after all went it keeps again");
    assert_eq!(level.holds().evicted_count, 0, "it was never full");

    level.keep(2, Arc::new(Kept { weight: u32::MAX, ..(*copy(6)).clone() }));
    assert_ne!(found(&level, 2), Some(5), "what is too heavy ends the copy before it all the same");
}

/// After any calls, it has what a map would have; one that is full may have less, but nothing else.
///
/// # Panics
/// If not.
pub fn agrees_with_a_map<L: NearLevel<u64, Version>>(make: impl Fn(u64) -> L) {
    for seed in 0..16 {
        walk(&make(AMPLE_BYTES), Chance(seed), Room::Ample);
        walk(&make(u64::from(WEIGHT) * 20), Chance(seed), Room::Scarce);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Room {
    Ample,
    Scarce,
}

fn walk<L: NearLevel<u64, Version>>(level: &L, mut chance: Chance, room: Room) {
    let seed = chance.0;
    let mut map = HashMap::<u64, Arc<Kept<Version>>>::new();
    for version in 0..2000 {
        let key = chance.below(40);
        match chance.below(100) {
            0 => {
                level.clear();
                map.clear();
            }
            1..10 => {
                level.remove(&key);
                map.remove(&key);
            }
            10..20 => {
                let this = map.get(&chance.below(40)).cloned().unwrap_or_else(|| copy(version));
                level.remove_this(&key, &this);
                if map.get(&key).is_some_and(|copy| Arc::ptr_eq(copy, &this)) {
                    map.remove(&key);
                }
            }
            20..40 => {
                let copy = copy(version);
                level.keep(key, Arc::clone(&copy));
                map.insert(key, copy);
            }
            _ => {
                let (is, should) = (found(level, key), map.get(&key).and_then(|it| it.value));
                let nothing = is.is_none() && room == Room::Scarce;
                assert!(nothing || is == should, "seed {seed}, key {key}: {is:?}, not {should:?}");
            }
        }
    }
}

/// Copies of many times its bytes leave it with no more than its bytes, and it says how many it threw away. The copies
/// that are alive never weigh more than twice as much.
///
/// # Panics
/// If not.
pub fn stays_within_its_bytes<L: NearLevel<u64, Version>>(make: impl Fn(u64) -> L) {
    let (bytes_max, count) = (1 << 20, 50_000);
    let level = make(bytes_max);
    let mut given = Vec::new();
    for key in 0..count {
        let copy = copy(key);
        given.push(Arc::downgrade(&copy));
        level.keep(key, copy);
        // Some are asked for, as often as they need to be taken for important.
        for _ in 0..key % 8 {
            let _any = level.look(&(key / 2));
        }
        if key % 10_000 == 0 {
            let alive = given.iter().filter(|copy| copy.strong_count() > 0).count() as u64;
            let bytes = alive * u64::from(WEIGHT);
            assert!(bytes <= 2 * bytes_max, "copies of {bytes} bytes are alive");
        }
    }
    let holds = level.holds();
    assert!(holds.bytes <= bytes_max, "it holds {} bytes", holds.bytes);
    assert!(holds.bytes >= bytes_max / 2, "it holds {} bytes, and could hold more", holds.bytes);
    assert_eq!(holds.count * u64::from(WEIGHT), holds.bytes, "each weighs the same");
    assert_eq!(holds.count + holds.evicted_count, count, "what is not there was thrown away");
}

/// What is asked for all the time stays while others come that are asked for once.
///
/// # Panics
/// If not.
pub fn keeps_what_is_used<L: NearLevel<u64, Version>>(make: impl Fn(u64) -> L) {
    let (bytes_max, used_count) = (1 << 20, 1000);
    let level = make(bytes_max);
    let mut loads_count = 0;
    for round in 0..30 {
        for key in 0..used_count {
            if level.look(&key).is_none() {
                loads_count += 1;
                level.keep(key, copy(key));
            }
        }
        for once in 0..1000 {
            let key = used_count + round * 1000 + once;
            if level.look(&key).is_none() {
                level.keep(key, copy(key));
            }
        }
    }
    let asked_count = 30 * used_count;
    assert!(loads_count < asked_count / 4, "{loads_count} of {asked_count} had to be loaded again");
}

/// Who knows that a copy was replaced or removed never sees it again, whichever thread did it.
///
/// # Panics
/// If not.
pub fn never_goes_back<L: NearLevel<u64, Version>>(make: impl Fn(u64) -> L) {
    const KEYS_COUNT: u64 = 8;
    const VERSIONS_COUNT: u64 = 5000;
    let level = make(AMPLE_BYTES);
    // The oldest version of each key that may still be seen.
    let oldest: Vec<_> = (0..KEYS_COUNT).map(|_| AtomicU64::new(0)).collect();
    let ended = AtomicBool::new(false);
    let write = |keys: Range<u64>| {
        let _ends = PanicEnds(&ended);
        for version in 1..=VERSIONS_COUNT {
            for key in keys.clone() {
                let oldest = &oldest[key as usize];
                let copy = copy(version);
                level.keep(key, Arc::clone(&copy));
                oldest.store(version, Ordering::Release);
                let seen = found(&level, key);
                assert!(seen.is_none_or(|seen| seen == version), "its own write is not seen");
                match version % 4 {
                    0 => level.remove(&key),
                    1 => level.remove_this(&key, &copy),
                    2 => continue,
                    _ => level.keep(key, self::copy(version + 1)),
                }
                oldest.store(version + 1, Ordering::Release);
            }
        }
    };
    let read = |seed| {
        let mut chance = Chance(seed);
        let unfinished = || oldest.iter().any(|it| it.load(Ordering::Relaxed) < VERSIONS_COUNT);
        while unfinished() && !ended.load(Ordering::Relaxed) {
            let key = chance.below(KEYS_COUNT);
            let oldest = oldest[key as usize].load(Ordering::Acquire);
            for _ in 0..chance.below(20) {
                let seen = found(&level, key);
                assert!(seen.is_none_or(|seen| seen >= oldest), "{seen:?} came after {oldest}");
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| write(0..KEYS_COUNT / 2));
        scope.spawn(|| write(KEYS_COUNT / 2..KEYS_COUNT));
        scope.spawn(|| read(1));
        scope.spawn(|| read(2));
    });
}

/// A copy is not removed in place of another that it replaces at that moment.
///
/// # Panics
/// If not.
pub fn removes_only_this<L: NearLevel<u64, Version>>(make: impl Fn(u64) -> L) {
    const ROUNDS_COUNT: u64 = 1000;
    let level = make(AMPLE_BYTES);
    // The version that is to be removed, and how far that is.
    let (removable, begun, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let ended = AtomicBool::new(false);
    let wait = |reached: &AtomicU64, version| {
        while reached.load(Ordering::Acquire) < version && !ended.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ends = PanicEnds(&ended);
            for version in 1..=ROUNDS_COUNT {
                let old = copy(version);
                level.keep(1, Arc::clone(&old));
                removable.store(version, Ordering::Release);
                wait(&begun, version);
                level.keep(1, copy(ROUNDS_COUNT + version));
                wait(&done, version);
                let seen = found(&level, 1);
                assert_eq!(seen, Some(ROUNDS_COUNT + version), "another was removed in its place");
            }
        });
        scope.spawn(|| {
            let _ends = PanicEnds(&ended);
            for version in 1..=ROUNDS_COUNT {
                wait(&removable, version);
                let copy = level.look(&1);
                begun.store(version, Ordering::Release);
                if let Some(copy) = copy {
                    level.remove_this(&1, copy.copy());
                }
                done.store(version, Ordering::Release);
            }
        });
    });
}

/// Lets nobody wait for a thread that panicked.
struct PanicEnds<'a>(&'a AtomicBool);

impl Drop for PanicEnds<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn copy(version: Version) -> Arc<Kept<Version>> {
    let valid = Valid::Until(Moment::NEVER);
    Arc::new(Kept { value: Some(version), weight: WEIGHT, soft: Moment::NEVER, valid })
}

fn found<L: NearLevel<u64, Version>>(level: &L, key: u64) -> Option<Version> {
    level.look(&key).and_then(|copy| copy.value)
}

/// Numbers that look like chance, and are the same each time: SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}
