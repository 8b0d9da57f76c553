//! Wall time, which only expiry needs, and the time of a partition, which never goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use scatterhoard_store::UnixMillis;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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
///
/// A process that has just begun has only its own clock, which may be wrong. It must serve no partition until the
/// time is *known*: from a median that outvotes one wrong clock, or from a member that knows it; or because it founds a
/// cluster without at least two others to ask, or all members are there and none knows. A clock taken so is right by
/// definition, until a third tells otherwise: then the time jumps, and keys with deadlines with it.
pub(crate) struct MeasuredClock {
    own: Arc<dyn WallClock>,
    /// What the time was when it was last measured, and when that was.
    measured: Mutex<Option<(Instant, UnixMillis)>>,
    known: CancellationToken,
}

/// What a member's clock shows, and what it takes for the time, if it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) own: UnixMillis,
    pub(crate) agreed: Option<UnixMillis>,
}

impl MeasuredClock {
    pub(crate) fn new(own: Arc<dyn WallClock>) -> Self {
        Self { own, measured: Mutex::new(None), known: CancellationToken::new() }
    }

    /// What this node's clock shows, right or wrong, and what it takes for the time.
    pub(crate) fn shown(&self, now: Instant) -> Shown {
        Shown { own: self.own.now(), agreed: self.at(now) }
    }

    /// Whether the time is known.
    pub(crate) fn is_known(&self) -> bool {
        self.known.is_cancelled()
    }

    /// Waits until the time is known.
    pub(crate) async fn known(&self) {
        self.known.cancelled().await;
    }

    /// From now on our own clock is what the cluster goes by, since nobody has another.
    pub(crate) fn found(&self, now: Instant) {
        self.agree(now, self.own.now());
    }

    /// Takes what was measured: what the clocks of other members show at `now`, of so many members in all. Answers
    /// with how far the agreed time is ahead of our clock, in milliseconds, if the time is known.
    ///
    /// Not how far they are ahead of ours: that means something else as soon as ours has jumped.
    ///
    /// Of an even number of clocks the middle two may be apart, and nobody knows which is right: then
    /// what was agreed before stands, as far as it lies between them; here, or with whoever knows. With nobody
    /// else to ask, it stands altogether. If nobody at all knows, and all are there, the earlier one counts.
    pub(crate) fn measured(
        &self,
        now: Instant,
        others: &[Shown],
        members_count: usize,
    ) -> Option<i64> {
        let own = self.own.now();
        let mut clocks: Vec<_> = others.iter().map(|other| other.own).chain([own]).collect();
        clocks.sort_unstable();
        let (lower, upper) = (clocks[(clocks.len() - 1) / 2], clocks[clocks.len() / 2]);
        let mut told: Vec<_> = others.iter().filter_map(|other| other.agreed).collect();
        told.sort_unstable();
        let before = self.at(now).or_else(|| told.get(told.len().saturating_sub(1) / 2).copied());
        let agreed = match before {
            Some(before) if others.is_empty() => before,
            Some(before) => before.clamp(lower, upper),
            None if clocks.len() >= MEDIAN_COUNT_MIN || clocks.len() >= members_count => lower,
            None => return None,
        };
        self.agree(now, agreed);
        Some(signed(agreed) - signed(own))
    }

    fn agree(&self, now: Instant, time: UnixMillis) {
        *self.measured.lock() = Some((now, time));
        self.known.cancel();
    }

    fn at(&self, now: Instant) -> Option<UnixMillis> {
        let (measured_at, time) = (*self.measured.lock())?;
        let since = now.saturating_duration_since(measured_at).as_millis();
        Some(time.plus(u64::try_from(since).unwrap_or(u64::MAX)))
    }
}

/// Clocks of which one may be wrong.
const MEDIAN_COUNT_MIN: usize = 3;

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

    /// What nodes show that do not know the time.
    fn shown(clocks_ms: &[u64]) -> Vec<Shown> {
        let unsure = |&ms: &u64| Shown { own: UnixMillis::new(ms), agreed: None };
        clocks_ms.iter().map(unsure).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_wrong_clock_of_three_is_outvoted() {
        let (_, ours) = clocks(1_000_000);
        let another_wrong = shown(&[1_000_005, 4_600_000]);
        assert_eq!(ours.measured(Instant::now(), &another_wrong, 3), Some(5));
        let (_, ours) = clocks(1_000_000);
        let ours_wrong = shown(&[400_000, 399_996]);
        assert_eq!(ours.measured(Instant::now(), &ours_wrong, 3), Some(-600_000));
        assert_eq!(ours.now().millis(), 400_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_between_two_measurements_changes_nothing() {
        let (own, ours) = clocks(1_000_000);
        ours.measured(Instant::now(), &shown(&[1_000_000; 2]), 3);
        own.0.store(8_200_000, Ordering::SeqCst);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(ours.now().millis(), 1_001_000);
        let others = shown(&[1_001_000; 2]);
        assert_eq!(ours.measured(Instant::now(), &others, 3), Some(-7_199_000));
        assert_eq!(ours.now().millis(), 1_001_000);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_clocks_that_differ_the_one_that_was_right_stands() {
        let (own, ours) = clocks(1_000_000);
        ours.measured(Instant::now(), &shown(&[1_000_000; 2]), 3);
        own.0.store(8_200_000, Ordering::SeqCst);
        assert_eq!(ours.measured(Instant::now(), &shown(&[1_000_000]), 3), Some(-7_200_000));
        let alone = ours.measured(Instant::now(), &[], 3);
        assert_eq!(alone, Some(-7_200_000), "with nobody to ask, too");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_begun_asks_until_somebody_knows() {
        let (_, ours) = clocks(8_200_000);
        let now = Instant::now();
        assert_eq!(ours.measured(now, &[], 3), None);
        assert_eq!(ours.measured(now, &shown(&[1_000_000]), 3), None, "it could be either");
        assert!(!ours.is_known());
        // A clock that is wrong, too, but its node knows.
        let knows =
            Shown { own: UnixMillis::new(9_000_000), agreed: Some(UnixMillis::new(1_000_000)) };
        ours.measured(now, &[knows, shown(&[1_000_000])[0]], 3);
        assert_eq!(ours.now().millis(), 8_200_000, "the median of three is what they show");

        let (_, ours) = clocks(1_000_001);
        ours.measured(now, &[knows], 3);
        assert_eq!(ours.now().millis(), 1_000_001, "as far as it lies between both");
        assert!(ours.is_known());
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_known_to_who_founds_and_to_all_if_all_are_there() {
        let (_, founder) = clocks(1_000_000);
        founder.found(Instant::now());
        assert!(founder.is_known());
        let (_, alone) = clocks(1_000_000);
        assert_eq!(alone.measured(Instant::now(), &[], 1), Some(0));
        let (_, one) = clocks(1_000_000);
        let (_, other) = clocks(1_000_900);
        assert_eq!(one.measured(Instant::now(), &shown(&[1_000_900]), 2), Some(0));
        assert_eq!(other.measured(Instant::now(), &shown(&[1_000_000]), 2), Some(-900));
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
