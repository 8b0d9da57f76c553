//! What a cache is told once, and what follows from it for each entry.

use std::time::Duration;

use super::breaker::BreakerSettings;
use super::chance::Chance;
use super::options::{Life, Ttl};

/// Jitter of what the source does not have: a tenth, and no more than this.
const NOT_FOUND_JITTER_MAX: Duration = Duration::from_secs(10);

/// How much longer than the longest load a lease lasts unless it is set: its answer has to be stored, too.
const LEASE_SPARE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ttl: Option<Duration>,
    /// The part of each time to live that chance may take off, in `[0, 1]`.
    pub(crate) jitter: f64,
    pub(crate) soft_ttl: Option<Duration>,
    pub(crate) not_found_ttl: Duration,
    pub(crate) lease: Option<Duration>,
    pub(crate) timeout_soft: Duration,
    pub(crate) timeout_hard: Duration,
    pub(crate) look_timeout: Duration,
    pub(crate) breaker: BreakerSettings,
    pub(crate) degraded_loads_max: usize,
    pub(crate) refreshes_max: usize,
    pub(crate) events_max: usize,
}

/// How long one entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// From when on it should be loaded anew.
    pub(crate) soft: Option<Duration>,
    /// When it is gone.
    pub(crate) hard: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Some(Duration::from_mins(10)),
            jitter: 0.1,
            soft_ttl: None,
            not_found_ttl: Duration::from_mins(1),
            lease: None,
            timeout_soft: Duration::ZERO,
            timeout_hard: Duration::from_secs(10),
            look_timeout: Duration::from_secs(1),
            breaker: BreakerSettings { failures: 5, pause: Duration::from_secs(1) },
            degraded_loads_max: 16,
            refreshes_max: 4,
            events_max: 1024,
        }
    }
}

impl Settings {
    /// What is wrong with them, if anything is.
    pub(crate) fn flaw(&self) -> Option<&'static str> {
        if !(0.0..=1.0).contains(&self.jitter) {
            return Some("the jitter is a part of the time to live, from 0 to 1");
        }
        if self.timeout_hard.is_zero() || self.look_timeout.is_zero() {
            return Some("a timeout of nothing leaves no time to do anything");
        }
        if self.lease().as_millis() < self.timeout_hard.as_millis().max(1) {
            return Some("a lease has to last as long as a load may take");
        }
        if self.degraded_loads_max == 0 || self.refreshes_max == 0 || self.events_max == 0 {
            return Some("a limit of nothing lets nothing through");
        }
        (self.breaker.failures == 0).then_some("a breaker opens after a failure, not before")
    }

    pub(crate) fn lease(&self) -> Duration {
        self.lease.unwrap_or(self.timeout_hard + LEASE_SPARE)
    }

    /// How long a value lives. Soft and hard deadline are jittered together.
    pub(crate) fn times(&self, life: &Life, chance: &Chance) -> Times {
        let hard = match life.ttl {
            Some(Ttl::Lasts(ttl)) => Some(ttl),
            Some(Ttl::Forever) => None,
            None => self.ttl,
        };
        let soft = life.soft_ttl.or(self.soft_ttl);
        // One number for both, so that what lies between them stays in proportion.
        let part = self.jitter * f64::from((chance.number() >> 32) as u32) / f64::from(u32::MAX);
        let jittered = |time: Duration| time - time.mul_f64(part).min(time);
        let hard = hard.map(jittered);
        let soft = life.beat.or(soft.map(jittered));
        Times { soft: soft.filter(|&soft| hard.is_none_or(|hard| soft < hard)), hard }
    }

    /// How long it counts that the source has nothing.
    pub(crate) fn not_found(&self, life: &Life, chance: &Chance) -> Times {
        let ttl = self.not_found_ttl;
        let hard = chance.shorten(ttl, (ttl / 10).min(NOT_FOUND_JITTER_MAX));
        // There is nothing to be served while it is loaded anew, so it ends with the beat.
        Times { soft: None, hard: Some(life.beat.map_or(hard, |beat| beat.min(hard))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn spread(mut of: impl FnMut() -> Duration) -> (Duration, Duration) {
        let mut times: Vec<_> = (0..10_000).map(|_| of()).collect();
        times.sort();
        (times[0], times[times.len() - 1])
    }

    #[test]
    fn a_life_is_never_longer_than_asked_for() {
        let (settings, chance) = (Settings::default(), Chance::seeded(1));
        let life = Life { ttl: Some(Ttl::Lasts(SECOND / 4)), ..Life::default() };
        let (shortest, longest) =
            spread(|| settings.times(&life, &chance).hard.expect("it does not live for ever"));
        assert!((SECOND * 225 / 1000..SECOND * 23 / 100).contains(&shortest), "{shortest:?}");
        assert!((SECOND * 245 / 1000..=SECOND / 4).contains(&longest), "{longest:?}");
    }

    #[test]
    fn not_found_is_a_minute_less_a_tenth_and_never_less_ten_seconds() {
        let chance = Chance::seeded(1);
        let minute = Settings::default();
        let (shortest, longest) = spread(|| hard_of(&minute, &chance));
        assert!(
            shortest >= SECOND * 54 && longest <= SECOND * 60 && longest - shortest > SECOND * 5
        );
        let hour = Settings { not_found_ttl: SECOND * 3600, ..minute };
        let (shortest, longest) = spread(|| hard_of(&hour, &chance));
        assert!(shortest >= SECOND * 3590 && longest <= SECOND * 3600);
    }

    fn hard_of(settings: &Settings, chance: &Chance) -> Duration {
        settings.not_found(&Life::default(), chance).hard.expect("it ends")
    }

    #[test]
    fn soft_and_hard_shrink_together_and_a_beat_not_at_all() {
        let settings =
            Settings { soft_ttl: Some(SECOND), ttl: Some(SECOND * 2), ..Settings::default() };
        let chance = Chance::seeded(1);
        let times = settings.times(&Life::default(), &chance);
        assert_eq!(
            times.soft.map(|soft| soft.as_millis() / 10),
            times.hard.map(|hard| hard.as_millis() / 20)
        );
        let life = Life { beat: Some(SECOND / 3), ..Life::default() };
        assert_eq!(settings.times(&life, &chance).soft, Some(SECOND / 3));
    }

    #[test]
    fn a_lease_covers_the_longest_load() {
        assert_eq!(Settings::default().flaw(), None);
        assert!(Settings { lease: Some(SECOND), ..Settings::default() }.flaw().is_some());
    }
}
