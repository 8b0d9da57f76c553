//! The chance by which times are jittered, all from one seed.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// SplitMix64: each number is a scrambled count, so that threads share it without a lock.
#[derive(Debug)]
pub(crate) struct Chance(AtomicU64);

impl Chance {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    pub(crate) fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// With a seed from the system.
    pub(crate) fn new() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    pub(crate) fn number(&self) -> u64 {
        let mut number = self.0.fetch_add(Self::STEP, Ordering::Relaxed);
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    }

    /// The time, or less by up to `less_max`.
    pub(crate) fn shorten(&self, time: Duration, less_max: Duration) -> Duration {
        // 32 bits are enough to spread what was stored together, and exact in a double.
        let part = f64::from((self.number() >> 32) as u32) / f64::from(u32::MAX);
        time.saturating_sub(less_max.min(time).mul_f64(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spread_over_all_that_is_allowed_and_no_more() {
        let (chance, second) = (Chance::seeded(1), Duration::from_secs(1));
        let times: Vec<_> = (0..1000).map(|_| chance.shorten(second, second / 10)).collect();
        assert!(times.iter().all(|time| (second * 9 / 10..=second).contains(time)));
        assert!(times.iter().any(|time| *time < second * 91 / 100));
        assert!(times.iter().any(|time| *time > second * 99 / 100));
    }
}
