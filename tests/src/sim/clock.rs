//! A wall clock in simulated time, which a test can set wrong.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use scatterhoard_node::WallClock;
use scatterhoard_store::UnixMillis;

/// The wall time at which every simulation begins: a day in 2026, in milliseconds since 1970.
const START_MS: u64 = 1_780_000_000_000;

/// The wall clock of one simulated machine. Outlives its processes.
#[derive(Debug, Default)]
pub struct SimClock {
    offset_ms: AtomicI64,
    /// The simulated time that was seen last, for when nothing is being simulated.
    latest_ms: AtomicU64,
}

impl SimClock {
    /// Sets the clock forward, or back.
    pub fn jump(&self, by: Duration, back: bool) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 4);
        self.offset_ms.fetch_add(if back { -by } else { by }, Ordering::SeqCst);
    }
}

impl WallClock for SimClock {
    fn now(&self) -> UnixMillis {
        if let Some(elapsed) = turmoil::sim_elapsed() {
            let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX / 4);
            self.latest_ms.fetch_max(elapsed, Ordering::SeqCst);
        }
        let right = START_MS + self.latest_ms.load(Ordering::SeqCst);
        UnixMillis::new(right.saturating_add_signed(self.offset_ms.load(Ordering::SeqCst)))
    }
}
