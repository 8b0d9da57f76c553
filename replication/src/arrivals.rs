//! Snapshots on their way in: one for each replica at a time, as a state beside the one that it replaces.
//!
//! Invariant: pieces of one sending are absorbed in their order, each once, and what is held for a sender
//! that has gone is dropped after [`PIECE_PATIENCE`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_ring::ReplicaId;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::machine::Staging;
use crate::raft::{SnapshotMeta, Vote};

/// A snapshot whose next piece does not come within this time is given up: three times as long as its
/// sender waits for a piece to be answered.
const PIECE_PATIENCE: Duration = Duration::from_secs(30);

/// The snapshots on their way in.
#[derive(Default)]
pub(crate) struct Arrivals {
    held: Mutex<HashMap<ReplicaId, Arrival>>,
    /// The last one. Never the same twice, so that a late piece cannot join another sender's snapshot.
    session: AtomicU64,
}

/// A snapshot that is being received, or was.
pub(crate) struct Arrival {
    session: u64,
    /// Number of the piece that has to come next.
    next: u64,
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) staging: Box<dyn Staging>,
    heard: Instant,
    /// Ends its watcher: one opened after another would leave as many behind.
    ended: CancellationToken,
    _dropped: DropGuard,
}

impl Arrivals {
    /// Begins a snapshot for a replica, in place of any that was under way. Whoever opens one also runs
    /// [`Self::watch`].
    pub(crate) fn open(
        &self,
        replica: ReplicaId,
        vote: Vote,
        meta: SnapshotMeta,
        staging: Box<dyn Staging>,
    ) -> u64 {
        let session = self.session.fetch_add(1, Ordering::Relaxed) + 1;
        let ended = CancellationToken::new();
        let _dropped = ended.clone().drop_guard();
        let heard = Instant::now();
        let arrival = Arrival { session, next: 0, vote, meta, staging, heard, ended, _dropped };
        self.held.lock().insert(replica, arrival);
        session
    }

    /// Absorbs a piece; says whether it was the one that had to come and could be read.
    pub(crate) fn take_piece(
        &self,
        replica: ReplicaId,
        session: u64,
        number: u64,
        piece: &[u8],
    ) -> bool {
        let mut held = self.held.lock();
        let Some(arrival) = held.get_mut(&replica) else { return false };
        if (arrival.session, arrival.next) != (session, number) {
            return false;
        }
        arrival.next += 1;
        arrival.heard = Instant::now();
        let absorbed = arrival.staging.absorb(piece);
        if let Err(error) = absorbed {
            warn!(%replica, %error, "snapshot given up");
            held.remove(&replica);
        }
        absorbed.is_ok()
    }

    /// The snapshot, if all its pieces have come.
    pub(crate) fn close(&self, replica: ReplicaId, session: u64, count: u64) -> Option<Arrival> {
        let mut held = self.held.lock();
        let whole = |arrival: &Arrival| (arrival.session, arrival.next) == (session, count);
        if !held.get(&replica).is_some_and(whole) {
            return None;
        }
        held.remove(&replica)
    }

    /// Drops what is held for a replica.
    pub(crate) fn forget(&self, replica: ReplicaId) {
        self.held.lock().remove(&replica);
    }

    /// Waits until a snapshot is no longer held, and drops it if its next piece does not come in time.
    pub(crate) async fn watch(&self, replica: ReplicaId, session: u64) {
        while let Some((deadline, ended)) = self.next_look(replica, session) {
            tokio::select! {
                biased;
                () = ended.cancelled() => return,
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Until when the next piece has to come, and what tells that the snapshot is no longer held. None if
    /// it is not, or is dropped now.
    fn next_look(&self, replica: ReplicaId, session: u64) -> Option<(Instant, CancellationToken)> {
        let mut held = self.held.lock();
        let arrival = held.get(&replica).filter(|arrival| arrival.session == session)?;
        let deadline = arrival.heard + PIECE_PATIENCE;
        if Instant::now() < deadline {
            return Some((deadline, arrival.ended.clone()));
        }
        info!(%replica, pieces = arrival.next, "snapshot given up: its sender has gone");
        held.remove(&replica);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::sync::{Arc, Weak};

    use tokio::time::advance;

    use super::*;
    use crate::machine::Corrupt;

    const REPLICA: ReplicaId = ReplicaId::new(7);

    /// A state that is there as long as its token.
    struct Staged(#[expect(dead_code, reason = "held to be counted")] Arc<()>);

    impl Staging for Staged {
        fn absorb(&mut self, piece: &[u8]) -> Result<(), Corrupt> {
            if piece == b"corrupt" { Err(Corrupt("piece")) } else { Ok(()) }
        }

        fn finish(self: Box<Self>) -> Box<dyn Any> {
            self
        }
    }

    /// Opens a snapshot. What is given back lives as long as its state; who watches it holds `watching`.
    fn open(arrivals: &Arc<Arrivals>, watching: &Arc<()>) -> (u64, Weak<()>) {
        let token = Arc::new(());
        let held = Arc::downgrade(&token);
        let (vote, meta) = (Vote::new_committed(1, REPLICA), SnapshotMeta::default());
        let session = arrivals.open(REPLICA, vote, meta, Box::new(Staged(token)));
        let (watched, watching) = (Arc::clone(arrivals), Arc::clone(watching));
        tokio::spawn(async move {
            watched.watch(REPLICA, session).await;
            drop(watching);
        });
        (session, held)
    }

    fn is_held(state: &Weak<()>) -> bool {
        state.strong_count() > 0
    }

    async fn pass(time: Duration) {
        // Once so that the watcher sleeps, and once so that it acts.
        tokio::task::yield_now().await;
        advance(time).await;
        tokio::task::yield_now().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_sender_that_went_away_has_sent_is_dropped() {
        let (arrivals, watching) = (Arc::new(Arrivals::default()), Arc::default());
        let (session, state) = open(&arrivals, &watching);
        for number in 0..3 {
            pass(PIECE_PATIENCE - Duration::from_millis(1)).await;
            assert!(arrivals.take_piece(REPLICA, session, number, b"piece"), "it is not late");
        }
        pass(PIECE_PATIENCE - Duration::from_millis(1)).await;
        assert!(is_held(&state));
        pass(Duration::from_millis(2)).await;
        assert!(!is_held(&state), "nothing opened another one, and it is gone");
        assert!(!arrivals.take_piece(REPLICA, session, 3, b"piece"));
        assert!(arrivals.close(REPLICA, session, 3).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_snapshot_is_not_given_up_in_place_of_an_older_one() {
        let (arrivals, watching) = (Arc::new(Arrivals::default()), Arc::default());
        let (first, old) = open(&arrivals, &watching);
        pass(PIECE_PATIENCE / 2).await;
        let (second, new) = open(&arrivals, &watching);
        assert!(!is_held(&old) && is_held(&new));
        pass(PIECE_PATIENCE / 2 + Duration::from_millis(1)).await;
        assert!(is_held(&new), "it has been there for half the time");
        assert_eq!(Arc::strong_count(&watching), 2, "nobody watches the older one any more");
        assert!(!arrivals.take_piece(REPLICA, first, 0, b"piece"));
        assert!(arrivals.take_piece(REPLICA, second, 0, b"piece"));
        pass(PIECE_PATIENCE + Duration::from_millis(1)).await;
        assert!(!is_held(&new));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_whole_snapshot_is_handed_over() {
        let (arrivals, watching) = (Arc::new(Arrivals::default()), Arc::default());
        let (session, state) = open(&arrivals, &watching);
        assert!(!arrivals.take_piece(REPLICA, session, 1, b"piece"), "the first is missing");
        assert!(arrivals.take_piece(REPLICA, session, 0, b"piece"));
        assert!(!arrivals.take_piece(REPLICA, session, 0, b"piece"), "it has come already");
        assert!(arrivals.close(REPLICA, session, 2).is_none());
        let whole = arrivals.close(REPLICA, session, 1).expect("it is whole");
        pass(2 * PIECE_PATIENCE).await;
        assert!(is_held(&state), "whoever took it may take its time");
        drop(whole);

        let (session, state) = open(&arrivals, &watching);
        assert!(!arrivals.take_piece(REPLICA, session, 0, b"corrupt"));
        assert!(!is_held(&state));
    }
}
