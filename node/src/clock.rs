//! Wall time, which only expiry needs, and the time of a partition, which never goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
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

/// Wall time as the members agree on it: the median of their clocks when last measured, and monotonic
/// time since. A clock that jumps, or is wrong, then neither expires keys early nor keeps them for ever,
/// wherever leadership goes.
pub(crate) struct MeasuredClock {
    own: Arc<dyn WallClock>,
    /// What the time was when it was last measured. Until then our own clock is all there is.
    measured: Mutex<Option<(Instant, UnixMillis)>>,
}

impl MeasuredClock {
    pub(crate) fn new(own: Arc<dyn WallClock>) -> Self {
        Self { own, measured: Mutex::new(None) }
    }

    /// Our own clock, right or wrong.
    pub(crate) fn own(&self) -> UnixMillis {
        self.own.now()
    }

    /// Takes what was measured: what each other member's clock shows at `now`. Answers with how far the
    /// agreed time is ahead of our clock, in milliseconds.
    ///
    /// Not how far they are ahead of ours: that means something else as soon as ours has jumped.
    ///
    /// Of an even number of clocks the middle two may be apart, and nobody knows which is right: then
    /// what was agreed before stands, as far as it lies between them. With nobody else to ask, it
    /// stands altogether.
    pub(crate) fn measured(&self, now: Instant, others: &[UnixMillis]) -> i64 {
        let own = self.own.now();
        let before = self.at(now).unwrap_or(own);
        let mut clocks = [others, &[own]].concat();
        clocks.sort_unstable();
        let (lower, upper) = (clocks[(clocks.len() - 1) / 2], clocks[clocks.len() / 2]);
        let agreed = if others.is_empty() { before } else { before.clamp(lower, upper) };
        *self.measured.lock() = Some((now, agreed));
        signed(agreed) - signed(own)
    }

    fn at(&self, now: Instant) -> Option<UnixMillis> {
        let (measured_at, time) = (*self.measured.lock())?;
        let since = now.saturating_duration_since(measured_at).as_millis();
        Some(time.plus(u64::try_from(since).unwrap_or(u64::MAX)))
    }
}

impl WallClock for MeasuredClock {
    fn now(&self) -> UnixMillis {
        self.at(Instant::now()).unwrap_or_else(|| self.own.now())
    }
}

fn signed(time: UnixMillis) -> i64 {
    i64::try_from(time.millis()).unwrap_or(i64::MAX)
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

    /// A clock that a test sets.
    #[derive(Default)]
    struct Set(AtomicU64);

    impl WallClock for Set {
        fn now(&self) -> UnixMillis {
            UnixMillis::new(self.0.load(Ordering::SeqCst))
        }
    }

    fn clocks(own_ms: u64) -> (Arc<Set>, MeasuredClock) {
        let own = Arc::new(Set(AtomicU64::new(own_ms)));
        (Arc::clone(&own), MeasuredClock::new(own))
    }

    fn shown(clocks_ms: &[u64]) -> Vec<UnixMillis> {
        clocks_ms.iter().copied().map(UnixMillis::new).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_wrong_clock_of_three_is_outvoted() {
        let (_, ours) = clocks(1_000_000);
        let another_wrong = shown(&[1_000_005, 4_600_000]);
        assert_eq!(ours.measured(Instant::now(), &another_wrong), 5);
        let (_, ours) = clocks(1_000_000);
        let ours_wrong = shown(&[400_000, 399_996]);
        assert_eq!(ours.measured(Instant::now(), &ours_wrong), -600_000);
        assert_eq!(ours.now().millis(), 400_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_between_two_measurements_changes_nothing() {
        let (own, ours) = clocks(1_000_000);
        ours.measured(Instant::now(), &shown(&[1_000_000; 2]));
        own.0.store(8_200_000, Ordering::SeqCst);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(ours.now().millis(), 1_001_000);
        assert_eq!(ours.measured(Instant::now(), &shown(&[1_001_000; 2])), -7_199_000);
        assert_eq!(ours.now().millis(), 1_001_000);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_clocks_that_differ_the_one_that_was_right_stands() {
        let (own, ours) = clocks(1_000_000);
        ours.measured(Instant::now(), &shown(&[1_000_000; 2]));
        own.0.store(8_200_000, Ordering::SeqCst);
        assert_eq!(ours.measured(Instant::now(), &shown(&[1_000_000])), -7_200_000);
        assert_eq!(ours.measured(Instant::now(), &[]), -7_200_000, "with nobody to ask, too");
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
