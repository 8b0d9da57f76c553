//! A circuit breaker: who has failed several times in a row is left alone for a while.
//!
//! Knows no clock: the time is an argument. Closed, it lets all through; open, none; when its pause is over, one at
//! a time to see how things are, and the first success closes it.

use std::time::Duration;

use parking_lot::Mutex;

use crate::level::Moment;

/// When a circuit breaker opens, and for how long: see [`super::Builder::breaker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it. At least 1.
    pub failures: u32,
    /// How long nothing is tried then; also how long one trial may take before there is another.
    pub pause: Duration,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    settings: BreakerSettings,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        failures: u32,
    },
    /// Nothing is let through before this moment, and then one.
    Open {
        until: Moment,
    },
}

impl Breaker {
    pub(crate) fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Whether to try. Who may has to tell how it went; who does not, since it was cancelled, has taken the trial of
    /// one pause.
    pub(crate) fn lets_through(&self, now: Moment) -> bool {
        let mut state = self.state.lock();
        match *state {
            State::Closed { .. } => true,
            State::Open { until } if now < until => false,
            State::Open { .. } => {
                *state = State::Open { until: now.after(self.settings.pause) };
                true
            }
        }
    }

    pub(crate) fn succeeded(&self) {
        *self.state.lock() = State::Closed { failures: 0 };
    }

    pub(crate) fn failed(&self, now: Moment) {
        let mut state = self.state.lock();
        let failures = match *state {
            State::Closed { failures } => failures + 1,
            State::Open { .. } => self.settings.failures,
        };
        *state = if failures >= self.settings.failures {
            State::Open { until: now.after(self.settings.pause) }
        } else {
            State::Closed { failures }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Moment {
        Moment::from_nanos(second * 1_000_000_000)
    }

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings { failures: 3, pause: Duration::from_secs(10) })
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let breaker = breaker();
        for _ in 0..5 {
            breaker.failed(at(0));
            breaker.failed(at(0));
            breaker.succeeded();
        }
        assert!(breaker.lets_through(at(0)));
        breaker.failed(at(0));
        breaker.failed(at(0));
        assert!(breaker.lets_through(at(0)));
        breaker.failed(at(0));
        assert!(!breaker.lets_through(at(0)));
        assert!(!breaker.lets_through(at(9)));
    }

    #[test]
    fn one_at_a_time_tries_until_one_succeeds() {
        let breaker = breaker();
        (0..3).for_each(|_| breaker.failed(at(0)));
        assert!(breaker.lets_through(at(10)));
        assert!(!breaker.lets_through(at(10)), "one is trying");
        breaker.failed(at(11));
        assert!(!breaker.lets_through(at(20)));
        assert!(breaker.lets_through(at(21)));
        breaker.succeeded();
        assert!(breaker.lets_through(at(21)));
        assert!(breaker.lets_through(at(21)));
    }

    #[test]
    fn a_trial_that_was_cancelled_is_followed_by_another() {
        let breaker = breaker();
        (0..3).for_each(|_| breaker.failed(at(0)));
        assert!(breaker.lets_through(at(10)));
        assert!(!breaker.lets_through(at(19)));
        assert!(breaker.lets_through(at(20)));
    }
}
