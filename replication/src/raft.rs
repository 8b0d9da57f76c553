//! What we make of openraft's type parameters. Nothing outside this crate names one of its types.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::impls::{Entry, InlineBatch, ProgressResponder, leader_id_adv};
use openraft::{AnyError, EntryPayload, RaftTypeConfig};
use scatterhoard_ring::{Epoch, NodeId, ReplicaId};

use crate::machine::{Applier, SnapshotHandle};

/// The parameters of every group, the council included: one instance of openraft's generic code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = Payload;
    type R = Answer;
    type NodeId = ReplicaId;
    type Node = Seat;
    type Term = u64;
    // Several candidates may lead in one term, told apart by their replica id: split votes then
    // decide themselves. Nothing here may assume one leader per term number.
    type LeaderId = leader_id_adv::LeaderId<u64, ReplicaId>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Payload, ReplicaId, Seat>;
    type Entry = Entry<Self::LeaderId, Self::Payload>;
    type AsyncRuntime = openraft::TokioRuntime;
    type Responder<T>
        = ProgressResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = AnyError;
}

pub(crate) type Raft = openraft::Raft<Types, Applier>;
pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, ReplicaId>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type LogEntry = Entry<LeaderId, EntryPayload<Payload, ReplicaId, Seat>>;
pub(crate) type Membership = openraft::Membership<ReplicaId, Seat>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, ReplicaId, Seat>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, ReplicaId, Seat>;
pub(crate) type Snapshot = openraft::Snapshot<LeaderId, ReplicaId, Seat, SnapshotHandle>;

/// Where a replica sits, and the epoch of the placement that its membership serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
}

/// What an entry carries: opaque here, shared between the log, the wire and the machine.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Payload(pub(crate) Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a machine answered to one entry; whoever proposed it knows the type inside.
#[derive(Default)]
pub struct Answer(Option<Box<dyn Any + Send + Sync>>);

impl Answer {
    /// No answer: the entry had no effect on the machine, or nobody asked.
    pub const NONE: Self = Self(None);

    /// Wraps what the machine answered.
    #[must_use]
    pub fn new<T: Any + Send + Sync>(answer: T) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// What was wrapped, if it was of this type.
    #[must_use]
    pub fn take<T: Any>(self) -> Option<T> {
        self.0?.downcast().ok().map(|answer| *answer)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "answer" } else { "no answer" })
    }
}

/// The newest epoch that a membership serves.
pub(crate) fn epoch_of(membership: &Membership) -> Epoch {
    membership.nodes().map(|(_, seat)| seat.epoch).max().unwrap_or_default()
}

/// How a group is tuned. All of it follows from the cluster-wide settings in the table.
pub(crate) fn config(timers: crate::Timers) -> Arc<openraft::Config> {
    let config = openraft::Config {
        cluster_name: "scatterhoard".to_owned(),
        heartbeat_interval: timers.heartbeat_ms.into(),
        election_timeout_min: timers.election_ms_min.into(),
        election_timeout_max: timers.election_ms_max.into(),
        // An entry is a batch of up to 512 commands, so few entries are a large message.
        max_payload_entries: 32,
        replication_lag_threshold: u64::MAX,
        // Snapshots and purging are ours: their bounds are bytes, which openraft does not count.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        install_snapshot_timeout: 60_000,
        enable_pre_vote: Some(true),
        // A leader that lost its quorum but still reaches some followers would renew their lease
        // for ever (openraft #2080).
        quorum_loss_probe_interval: Some(2 * u64::from(timers.election_ms_max)),
        enable_leader_restore: Some(false),
        removed_leader_step_down: openraft::StepDownPolicy::After(0),
        api_channel_size: Some(1024),
        notification_channel_size: Some(4096),
        ..openraft::Config::default()
    };
    Arc::new(config.validate().expect("the table's timers were checked when it was founded"))
}
