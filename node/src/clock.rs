//! Wall time, which only expiry needs, and the time of a partition, which never goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use scatterhoard_store::UnixMillis;
use tokio::time::Instant;

/// Where wall time comes from: the system, or a simulation.
pub trait WallClock: Send + Sync + 'static {
    /// The time now. It may be wrong, and it may jump.
    fn now(&self) -> UnixMillis;
}

/// The system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    fn now(&self) -> UnixMillis {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        UnixMillis::new(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0)))
    }
}

/// The system's wall clock, set right by what the members' clocks say: to their median.
///
/// One wrong clock then neither expires keys early nor keeps them for ever, wherever leadership goes.
pub(crate) struct MeasuredClock {
    own: Arc<dyn WallClock>,
    /// What the members' median is ahead of our own clock, in milliseconds.
    ahead_ms: AtomicI64,
}

impl MeasuredClock {
    pub(crate) fn new(own: Arc<dyn WallClock>) -> Self {
        Self { own, ahead_ms: AtomicI64::new(0) }
    }

    /// Our own clock, right or wrong.
    pub(crate) fn own(&self) -> UnixMillis {
        self.own.now()
    }

    /// Takes what was measured: how far each other member's clock is ahead of ours, in milliseconds.
    /// Answers with the median, ours counted as 0; of two in the middle the smaller correction.
    pub(crate) fn measured(&self, mut ahead_ms: Vec<i64>) -> i64 {
        ahead_ms.push(0);
        ahead_ms.sort_unstable();
        let upper = ahead_ms[ahead_ms.len() / 2];
        let lower = ahead_ms[(ahead_ms.len() - 1) / 2];
        let median = if lower.unsigned_abs() < upper.unsigned_abs() { lower } else { upper };
        self.ahead_ms.store(median, Ordering::SeqCst);
        median
    }
}

impl WallClock for MeasuredClock {
    fn now(&self) -> UnixMillis {
        let own = i64::try_from(self.own.now().millis()).unwrap_or(i64::MAX);
        let right = own.saturating_add(self.ahead_ms.load(Ordering::SeqCst));
        UnixMillis::new(u64::try_from(right).unwrap_or(0))
    }
}

/// The time of one partition on its leader: from a start on, it runs with the monotonic clock, so that
/// a jump of the wall clock expires nothing.
#[derive(Debug)]
pub(crate) struct PartitionClock {
    origin: Instant,
    /// Partition time at `origin`, in milliseconds. May be negative in theory.
    at_origin: AtomicI64,
    /// The latest time given out.
    latest: AtomicU64,
}

impl PartitionClock {
    pub(crate) fn new(now: Instant, start: UnixMillis) -> Self {
        let clock = Self { origin: now, at_origin: AtomicI64::new(0), latest: AtomicU64::new(0) };
        clock.start(now, start);
        clock
    }

    /// Starts anew: at `now` it is `start`, or what was given out already if that is later.
    pub(crate) fn start(&self, now: Instant, start: UnixMillis) {
        let start = start.millis().max(self.latest.load(Ordering::SeqCst));
        let start = i64::try_from(start).unwrap_or(i64::MAX);
        self.at_origin.store(start.saturating_sub(self.elapsed(now)), Ordering::SeqCst);
    }

    /// Sets the clock forward if it has fallen behind `right` at `now`: monotonic clocks drift, and stop
    /// while a machine is suspended.
    pub(crate) fn keep_up(&self, now: Instant, right: UnixMillis) {
        if self.at(now) < right {
            self.start(now, right);
        }
    }

    /// The time at `now`; never before a time given out earlier.
    pub(crate) fn at(&self, now: Instant) -> UnixMillis {
        let millis = self.at_origin.load(Ordering::Relaxed).saturating_add(self.elapsed(now));
        let millis = u64::try_from(millis).unwrap_or(0);
        UnixMillis::new(self.latest.fetch_max(millis, Ordering::SeqCst).max(millis))
    }

    fn elapsed(&self, now: Instant) -> i64 {
        let since = now.saturating_duration_since(self.origin).as_millis();
        i64::try_from(since).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Stopped(u64);

    impl WallClock for Stopped {
        fn now(&self) -> UnixMillis {
            UnixMillis::new(self.0)
        }
    }

    #[test]
    fn one_wrong_clock_is_outvoted() {
        let ours = MeasuredClock::new(Arc::new(Stopped(1_000_000)));
        assert_eq!(ours.measured(vec![5, 3_600_000]), 5, "another one is wrong");
        assert_eq!(ours.measured(vec![-600_000, -600_004]), -600_000, "ours is wrong");
        assert_eq!(ours.now().millis(), 400_000);
        assert_eq!(ours.measured(vec![3_600_000]), 0, "of two, nobody knows: ours stands");
        assert_eq!(ours.measured(vec![]), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_partitions_time_runs_on_and_never_back() {
        let t0 = Instant::now();
        let clock = PartitionClock::new(t0, UnixMillis::new(5_000));
        let after = |ms| clock.at(t0 + Duration::from_millis(ms)).millis();
        assert_eq!(after(0), 5_000);
        assert_eq!(after(70), 5_070);
        clock.start(t0 + Duration::from_millis(100), UnixMillis::new(1_000));
        assert_eq!(after(100), 5_070, "a clock that was set back waits");
        assert_eq!(after(130), 5_100);
        clock.start(t0 + Duration::from_millis(200), UnixMillis::new(9_000));
        assert_eq!(after(200), 9_000);
    }
}
