//! `HOARD.WAIT`: until nobody loads a key any more.

use std::sync::Arc;
use std::time::Duration;

use scatterhoard_ring::Slot;
use tokio::time::Instant;

use super::slow::Patience;
use crate::core::Core;

/// The longest wait: as long as the longest lease.
const TIMEOUT_MAX: Duration = Duration::from_mins(10);

/// When it is looked again although nothing was heard: leadership may have gone elsewhere.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The same where another node leads, from which nothing is heard. Only the any-key port waits for such.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Who waits for what.
pub(super) struct Wait<'a> {
    pub(super) key: &'a [u8],
    pub(super) timeout: Duration,
}

impl Wait<'_> {
    /// Waits, and appends the reply. Each look is a linearizable read of its own, with patience of its own.
    pub(super) async fn serve(
        self,
        core: &Arc<Core>,
        patience: impl Fn() -> Patience,
        out: &mut Vec<u8>,
    ) {
        let by = Instant::now() + self.timeout.min(TIMEOUT_MAX);
        let slot = Slot::of(self.key);
        loop {
            // Before the look: what happens after it is heard.
            let changed = core.tracking.wait_for(self.key);
            let start = out.len();
            let left = patience().serve_wait(slot, self.key, out).await;
            let now = Instant::now();
            let Some(left) = left.filter(|_| now < by) else { return };
            out.truncate(start);
            let led_here = core.hosting.now().at(slot).is_some_and(|it| it.leads());
            let again = if led_here { LOOK_AGAIN } else { ASK_AGAIN };
            let until = by.min(now + left.min(again));
            let _changed_or_late = tokio::time::timeout_at(until, changed.wait()).await;
        }
    }
}
