//! When and how often a key was used, in 32 bits: what eviction goes by. It is no part of what
//! replicas agree on.

use crate::UnixMillis;

/// The second of the last use, modulo 2^24, above a logarithmic counter of uses. Both kinds of policy
/// are served at once, so that changing the policy loses nothing. As Redis (`evict.c`) does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(pub(crate) u32);

/// Counts of a new key, so that it is not the first to go. Redis, `LFU_INIT_VAL`.
const FREQUENCY_FRESH: u8 = 5;
/// Redis, `lfu-log-factor`: about a million uses saturate the counter.
const FREQUENCY_LOG_FACTOR: u64 = 10;
/// Redis, `lfu-decay-time`: the counter loses one a minute.
const FREQUENCY_DECAY_SECS: u64 = 60;
/// 194 days; a longer idle time wraps around, as in Redis.
const SECS_MASK: u64 = (1 << 24) - 1;

impl Access {
    /// A key that was made now.
    pub(crate) fn fresh(now: UnixMillis) -> Self {
        Self::of(now, FREQUENCY_FRESH)
    }

    /// The same key, used once more. `roll` is evenly spread over all numbers.
    pub(crate) fn touched(self, now: UnixMillis, roll: u64) -> Self {
        let frequency = self.frequency(now);
        let above_fresh = u64::from(frequency.saturating_sub(FREQUENCY_FRESH));
        let counts = roll.is_multiple_of(above_fresh * FREQUENCY_LOG_FACTOR + 1);
        Self::of(now, frequency.saturating_add(u8::from(counts)))
    }

    /// Whole seconds since the last use.
    pub(crate) fn idle_secs(self, now: UnixMillis) -> u64 {
        (now.millis() / 1000).wrapping_sub(u64::from(self.0 >> 8)) & SECS_MASK
    }

    /// The counter of uses as it is now, after what time took from it.
    pub(crate) fn frequency(self, now: UnixMillis) -> u8 {
        let now_secs = now.millis() / 1000;
        let used_secs = now_secs.saturating_sub(self.idle_secs(now));
        let lost = now_secs / FREQUENCY_DECAY_SECS - used_secs / FREQUENCY_DECAY_SECS;
        let counter = (self.0 & 0xff) as u8;
        counter.saturating_sub(u8::try_from(lost).unwrap_or(u8::MAX))
    }

    fn of(now: UnixMillis, frequency: u8) -> Self {
        let secs = ((now.millis() / 1000) & SECS_MASK) as u32;
        Self((secs << 8) | u32::from(frequency))
    }
}

/// An evenly spread number that follows from the key and the time: a store has no dice of its own.
pub(crate) fn roll(hash: u64, now: UnixMillis) -> u64 {
    let mixed = (hash ^ now.millis()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(secs: u64) -> UnixMillis {
        UnixMillis::new(secs * 1000)
    }

    #[test]
    fn idle_time_counts_from_the_last_use() {
        let access = Access::fresh(second(1_700_000_000));
        assert_eq!(access.idle_secs(second(1_700_000_090)), 90);
        let access = access.touched(second(1_700_000_080), 0);
        assert_eq!(access.idle_secs(second(1_700_000_090)), 10);
    }

    #[test]
    fn the_counter_grows_ever_slower_and_decays_by_the_minute() {
        let now = second(1_700_000_000);
        let uses = |count: u64| {
            (0..count).fold(Access::fresh(now), |access, use_| access.touched(now, roll(use_, now)))
        };
        assert_eq!(Access::fresh(now).frequency(now), 5);
        let (hundred, million) = (uses(100).frequency(now), uses(1_000_000).frequency(now));
        // Redis gives 10 and 255 for these in `redis.conf`.
        assert!((8..=13).contains(&hundred), "{hundred}");
        assert!(million > 230, "{million}");
        assert_eq!(uses(100).frequency(second(1_700_000_000 + 180)), hundred - 3);
        assert_eq!(uses(100).frequency(second(1_700_000_000 + 36_000)), 0);
    }
}
