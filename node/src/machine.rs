//! A partition's store as the machine behind its log.

use std::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;
use scatterhoard_replication::{Answer, Corrupt, Machine, Staging};
use scatterhoard_ring::{PartitionId, ReplicaId};
use scatterhoard_store::{Reply, Store};
use tokio::time::Instant;

use crate::clock::{PartitionClock, WallClock};
use crate::near::{Bureau, Near};
use crate::stats::Stats;
use crate::tracking::Tracking;

/// Keys looked at for expiry after each entry. Every replica does it alone: they may disagree about
/// absence until all have swept, and never about a value.
const SWEEP_KEYS_MAX: usize = 32;

/// The store of one partition, shared between its log and the sessions that read it.
pub(crate) struct StoreMachine {
    /// Whose store it is.
    pub(crate) replica: ReplicaId,
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) clock: Arc<PartitionClock>,
    pub(crate) wall: Arc<dyn WallClock>,
    /// How far members' clocks may be apart, in milliseconds.
    pub(crate) skew_ms_max: u64,
    pub(crate) stats: Arc<Stats>,
    pub(crate) tracking: Arc<Tracking>,
    pub(crate) bureau: Arc<Bureau>,
    pub(crate) partition: PartitionId,
    pub(crate) near: Arc<Near>,
    pub(crate) empty: Box<dyn Fn() -> Store + Send + Sync>,
}

impl Machine for StoreMachine {
    fn apply(&self, index: u64, payload: &[u8], asked: bool) -> Result<Answer, Corrupt> {
        let mut store = self.store.lock();
        let (tracked, read_elsewhere) = (self.tracking.is_on(), self.bureau.is_on());
        let wanted = asked || tracked || read_elsewhere;
        let mut replies: Vec<Reply<'static>> = Vec::new();
        store
            .apply(index, payload, wanted.then_some(&mut replies))
            .map_err(|_| Corrupt("entry of a partition's log"))?;
        let swept = store.sweep(SWEEP_KEYS_MAX);
        if swept.keys_count > 0 {
            self.stats.expired(swept.keys_count as u64);
        }
        drop(store);
        if tracked {
            self.tracking.applied(self.replica, payload, &replies);
        }
        if read_elsewhere {
            self.bureau.applied(index, payload, &replies);
        }
        Ok(if asked { Answer::new(replies) } else { Answer::NONE })
    }

    fn begin_to_lead(&self, term: u64) {
        // Ahead by as much as the last leader's clock may have been: what it saw expired, and answered
        // without logging anything, must not come back.
        let start = self.wall.now().plus(self.skew_ms_max).max(self.store.lock().stamp());
        self.clock.start(Instant::now(), start);
        self.tracking.begin_to_lead(self.replica);
        self.bureau.begin_to_lead(term);
        // What is written here from now on ends no copies here; leadership may go back before they have run out.
        self.near.end_partition(self.partition);
    }

    fn end_to_lead(&self) {
        self.bureau.end_to_lead();
    }

    fn piece(&self, position: u64, out: &mut Vec<u8>) -> Option<u64> {
        self.store.lock().piece(position, out)
    }

    fn stage(&self) -> Box<dyn Staging> {
        Box::new(Staged((self.empty)()))
    }

    fn install(&self, staged: Box<dyn Any>) {
        *self.store.lock() = *staged.downcast().expect("a store stages a store");
        self.bureau.everything_changed();
        self.stats.installed_snapshot();
    }
}

/// A store that is being received.
struct Staged(Store);

impl Staging for Staged {
    fn absorb(&mut self, piece: &[u8]) -> Result<(), Corrupt> {
        self.0.install_piece(piece).map_err(|_| Corrupt("piece of a partition's snapshot"))
    }

    fn finish(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.0)
    }
}
