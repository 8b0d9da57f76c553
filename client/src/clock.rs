//! The time by which copies are judged.
//!
//! Each hit reads the clock, so it is a good part of what a hit costs: about 25 ns on the machine of the benchmarks,
//! where all the rest of a hit takes as long again. What is cheaper is not safe:
//! - a clock that a thread or the kernel's tick winds on stands still while that thread, or the virtual processor
//!   that has the tick, is not run; copies would be served beyond the bound in the meantime;
//! - the processor's counter of cycles, read without the kernel (as the crate `quanta` does), saves 9 of the 25 ns.
//!   But only the kernel notices when the counters of several processors disagree, or when a virtual machine has
//!   moved to a host where they count at another pace.
//!
//! Time that the whole machine is suspended does not count, as it does not for anything else in the process. So a
//! copy that might be served when a machine was suspended might be served when it wakes, for less than the bound.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::level::Moment;

/// Tells [`Moment`]s: by tokio's clock, so that tests can pause and wind it, which without the feature `test-util`
/// of tokio is the monotonic clock of the system.
///
/// There is one origin in a process: moments can be compared whoever asked for them.
///
/// ```
/// use std::time::Duration;
/// use scatterhoard_client::Clock;
///
/// let clock = Clock::new();
/// let bound = clock.now().after(Duration::from_millis(200));
/// assert!(clock.now() < bound);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock(());

/// Where moments begin to be counted, as the first who asks sees it.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The moment of the origin. Not 0: a test whose clock was not wound may come after one whose clock was, in the same
/// process, and so see moments before the origin. 36 years, in nanoseconds.
const AT_ORIGIN_NANOS: u64 = 1 << 60;

/// The longest time that tokio is asked to sleep.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl Clock {
    /// The clock.
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }

    /// The moment that it is.
    #[must_use]
    pub fn now(self) -> Moment {
        self.moment(Instant::now())
    }

    /// The moment of an instant of tokio's.
    #[must_use]
    pub fn moment(self, instant: Instant) -> Moment {
        let origin = *ORIGIN;
        let nanos = match instant.checked_duration_since(origin) {
            Some(after) => AT_ORIGIN_NANOS.saturating_add(nanos(after)),
            None => AT_ORIGIN_NANOS.saturating_sub(nanos(origin.duration_since(instant))),
        };
        Moment::from_nanos(nanos)
    }

    /// When tokio has to wake whoever waits for a moment. Years ahead for [`Moment::NEVER`].
    #[must_use]
    pub fn instant(self, moment: Moment) -> Instant {
        let origin = *ORIGIN;
        match moment.nanos().checked_sub(AT_ORIGIN_NANOS) {
            Some(after) => origin + Duration::from_nanos(after).min(FAR),
            None => {
                let before = Duration::from_nanos(AT_ORIGIN_NANOS - moment.nanos());
                origin.checked_sub(before).unwrap_or(origin)
            }
        }
    }
}

/// Without the detour over 128 bits: this is on the path of every hit.
fn nanos(time: Duration) -> u64 {
    let whole = time.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(u64::from(time.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_wound_tells_other_moments() {
        let before = Clock::new().now();
        assert_eq!(Clock::new().now(), before);
        time::advance(Duration::from_millis(200)).await;
        assert_eq!(Clock::new().now(), before.after(Duration::from_millis(200)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_moment_is_woken_at_it() {
        let moment = Clock::new().now().after(Duration::from_secs(5));
        time::sleep_until(Clock::new().instant(moment)).await;
        assert!(Clock::new().now() >= moment);
        assert!(Clock::new().now() < moment.after(Duration::from_millis(2)));
    }

    #[test]
    fn real_moments_do_not_go_back() {
        let moments: Vec<_> = (0..1000).map(|_| Clock::new().now()).collect();
        assert!(moments.is_sorted());
    }

    proptest! {
        #[test]
        fn a_moment_and_its_instant_are_the_same(millis in -1000i64..1_000_000_000_000) {
            let apart = Duration::from_millis(millis.unsigned_abs());
            let instant = if millis < 0 { *ORIGIN - apart } else { *ORIGIN + apart };
            let (instant, limit) = (instant.min(*ORIGIN + FAR), *ORIGIN + FAR);
            prop_assert_eq!(Clock::new().instant(Clock::new().moment(instant)), instant);
            prop_assert!(Clock::new().instant(Moment::NEVER) <= limit);
        }
    }
}
