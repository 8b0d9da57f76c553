//! Simulated time, and wall clocks that a test can set wrong.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use scatterhoard_node::WallClock;
use scatterhoard_store::UnixMillis;

/// The wall time at which every simulation begins: a day in 2026, in milliseconds since 1970.
const START_MS: u64 = 1_780_000_000_000;

thread_local! {
    static ELAPSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Simulated time since the beginning, on this thread.
pub(super) fn elapsed() -> Duration {
    ELAPSED.get()
}

/// Says how much simulated time has gone by.
pub(super) fn tell_time(elapsed: Duration) {
    ELAPSED.set(elapsed);
}

/// The wall clock of one simulated machine. Outlives its processes.
#[derive(Debug, Default)]
pub struct SimClock {
    offset_ms: AtomicI64,
    /// Of a million milliseconds, so many too many.
    drift_ppm: AtomicI64,
}

impl SimClock {
    /// Sets the clock forward, or back.
    pub fn jump(&self, by: Duration, back: bool) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 4);
        self.offset_ms.fetch_add(if back { -by } else { by }, Ordering::SeqCst);
    }

    /// From the beginning on the clock has run too fast by so much of a million, or too slowly.
    pub fn drift(&self, ppm: i32) {
        self.drift_ppm.store(ppm.into(), Ordering::SeqCst);
    }
}

impl WallClock for SimClock {
    fn now(&self) -> UnixMillis {
        let elapsed_ms = i64::try_from(elapsed().as_millis()).unwrap_or(i64::MAX / 4);
        let drift_ms = elapsed_ms * self.drift_ppm.load(Ordering::SeqCst) / 1_000_000;
        let shown = elapsed_ms + drift_ms + self.offset_ms.load(Ordering::SeqCst);
        UnixMillis::new(START_MS.saturating_add_signed(shown))
    }
}
