//! One replica of a partition on this node: its group, its store, and the way into its log.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use scatterhoard_replication::{Group, Lease, ReadError};
use scatterhoard_ring::{PartitionId, ReplicaId, SlotRange};
use scatterhoard_store::{Policy, Reply, Store, UnixMillis};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::clock::PartitionClock;
use crate::near::Bureau;
use crate::tracking::TrackerId;

/// Units that may wait for one partition. A session has one under way per partition, so this bounds
/// sessions rather than commands; beyond it they wait in line.
const QUEUE_COUNT_MAX: usize = 16_384;

/// Writes of one session to one partition, as they go into an entry.
pub(crate) struct Unit {
    /// The bytes of the steps.
    pub(crate) steps: Vec<u8>,
    /// How many.
    pub(crate) steps_count: usize,
    /// Whose they are, if it is somebody's who tracks keys.
    pub(crate) writer: Option<TrackerId>,
    /// Where the answer goes.
    pub(crate) answer: oneshot::Sender<Result<Vec<Reply<'static>>, WriteError>>,
}

/// Why a unit of writes was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// Nothing was logged, and nothing will be. It may be sent again, here or elsewhere.
    #[error("not done")]
    NotDone,
    /// It may have been done, or may still be, or not.
    #[error("in doubt")]
    InDoubt,
}

/// What bounds a replica's memory, as its node and the other replicas' nodes allow.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes for keys and values; `u64::MAX`: no limit.
    pub(crate) bytes_max: AtomicU64,
    /// What to evict beyond that.
    pub(crate) policy: Mutex<Policy>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes_max: AtomicU64::new(u64::MAX), policy: Mutex::new(Policy::NoEviction) }
    }
}

/// One replica of a partition.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) slots: SlotRange,
    pub(crate) group: Arc<Group>,
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) clock: Arc<PartitionClock>,
    pub(crate) bureau: Arc<Bureau>,
    pub(crate) budget: Budget,
    /// Voters below which writes are refused as not done.
    replicas_min: usize,
    units: mpsc::Sender<Unit>,
}

impl Partition {
    /// A partition and the receiving end of its queue, for [`crate::proposer::serve`].
    pub(crate) fn new(
        slots: SlotRange,
        id: PartitionId,
        group: Arc<Group>,
        store: Arc<Mutex<Store>>,
        clock: Arc<PartitionClock>,
        bureau: Arc<Bureau>,
        replicas_min: usize,
    ) -> (Arc<Self>, mpsc::Receiver<Unit>) {
        let (units, queue) = mpsc::channel(QUEUE_COUNT_MAX);
        let budget = Budget::default();
        let partition =
            Self { id, slots, group, store, clock, bureau, budget, replicas_min, units };
        (Arc::new(partition), queue)
    }

    /// Which replica this is.
    pub(crate) fn replica(&self) -> ReplicaId {
        self.group.spec().replica
    }

    /// Whether this replica leads and may be asked.
    pub(crate) fn leads(&self) -> bool {
        self.group.leads()
    }

    /// Whether the partition has fewer voters than the cluster demands for writes.
    pub(crate) fn has_too_few_replicas(&self) -> bool {
        self.group.voters_count() < self.replicas_min
    }

    /// The term that this replica leads under a lease that holds at this moment; `None` without one.
    pub(crate) fn term(&self, now: Instant) -> Option<u64> {
        let lease = self.lease(now)?;
        let term = self.group.leadership().borrow().term;
        lease.is_of(term).then_some(term)
    }

    /// Puts a unit into the queue, in the order of calls if there is room.
    pub(crate) fn submit(
        &self,
        steps: Vec<u8>,
        steps_count: usize,
        writer: Option<TrackerId>,
    ) -> impl Future<Output = Result<Vec<Reply<'static>>, WriteError>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let unit = Unit { steps, steps_count, writer, answer };
        let overflow = match self.units.try_send(unit) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(unit)) => Some((self.units.clone(), unit)),
            Err(mpsc::error::TrySendError::Closed(unit)) => {
                let _nobody = unit.answer.send(Err(WriteError::NotDone));
                None
            }
        };
        async move {
            if let Some((units, unit)) = overflow
                && units.send(unit).await.is_err()
            {
                return Err(WriteError::NotDone);
            }
            // A unit whose answer is dropped was taken out of the queue and lost sight of.
            answered.await.unwrap_or(Err(WriteError::InDoubt))
        }
    }

    pub(crate) fn lease(&self, now: Instant) -> Option<Lease> {
        self.group.lease(now)
    }

    /// Waits until a read of the store is linearizable.
    pub(crate) async fn read_index(&self, deadline: Instant) -> Result<(), ReadError> {
        self.group.read_index(deadline).await
    }

    /// The time of this partition, while this replica leads it.
    pub(crate) fn time(&self, now: Instant) -> UnixMillis {
        self.clock.at(now)
    }

    /// Whether keys and values take more than the smallest budget among the replicas.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes_over() > 0
    }

    /// Bytes beyond the budget.
    pub(crate) fn bytes_over(&self) -> u64 {
        let max = self.budget.bytes_max.load(Ordering::Relaxed);
        if max == u64::MAX { 0 } else { self.store.lock().bytes().saturating_sub(max) }
    }
}
