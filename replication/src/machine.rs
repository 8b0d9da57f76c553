//! The state machine behind a log: its seam, and openraft's view of it.

use std::any::Any;
use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use scatterhoard_ring::ReplicaId;

use crate::probe::{self, Event, Founded};
use crate::raft::{Answer, LogId, Payload, Seat, Snapshot, SnapshotMeta, StoredMembership, Types};

/// What a log adds up to. Two machines exist: the council's table and a partition's store.
///
/// A machine is shared: the group applies to it while others read from it. A snapshot is taken piece
/// by piece while entries go on being applied, so each piece must know by itself which entries it
/// has seen, and `apply` must skip what a piece has seen already.
pub trait Machine: Send + Sync + 'static {
    /// Applies the entry at `index`. Answers if asked; on followers nobody asks.
    ///
    /// # Errors
    /// The entry cannot be understood. The replica then stops: going on would make it differ.
    fn apply(&self, index: u64, payload: &[u8], asked: bool) -> Result<Answer, Corrupt>;

    /// This replica is about to lead in a term: no read or write of that term has been served since it
    /// last led in it, if it did.
    fn begin_to_lead(&self, term: u64) {
        let _ = term;
    }

    /// This replica leads no more, and serves nothing until it [begins](Machine::begin_to_lead) anew.
    fn end_to_lead(&self) {}

    /// Appends the piece of the state at `position` to `out`: less than 256 KiB, more only if one
    /// value is large. Answers the next position, or `None` after the last piece. Starts at 0.
    fn piece(&self, position: u64, out: &mut Vec<u8>) -> Option<u64>;

    /// An empty state of the same kind, beside this one.
    fn stage(&self) -> Box<dyn Staging>;

    /// Replaces the whole state by a staged one, which came from [`Machine::stage`] of this machine.
    fn install(&self, staged: Box<dyn Any>);
}

/// A state being built from the pieces of a snapshot.
pub trait Staging: Send + Sync {
    /// Adds a piece.
    ///
    /// # Errors
    /// The piece cannot be understood; the snapshot is given up.
    fn absorb(&mut self, piece: &[u8]) -> Result<(), Corrupt>;

    /// What [`Machine::install`] takes.
    fn finish(self: Box<Self>) -> Box<dyn Any>;
}

/// Bytes that should have been ours and are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt {0}")]
pub struct Corrupt(pub &'static str);

/// A snapshot as it passes through openraft: ours to stream, or received and staged.
pub(crate) enum SnapshotHandle {
    /// The live state of this replica; its pieces are taken while it is sent.
    Live(Arc<dyn Machine>),
    /// Received whole.
    Staged(Box<dyn Staging>),
}

/// openraft's state machine: the log position, the membership, and the machine behind.
#[derive(Clone)]
pub(crate) struct Applier {
    of: Founded,
    replica: ReplicaId,
    machine: Arc<dyn Machine>,
    place: Arc<Mutex<Place>>,
}

#[derive(Clone, Default)]
struct Place {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

impl Applier {
    pub(crate) fn new(of: Founded, replica: ReplicaId, machine: Arc<dyn Machine>) -> Self {
        Self { of, replica, machine, place: Arc::default() }
    }

    fn meta(&self) -> SnapshotMeta {
        let place = self.place.lock();
        SnapshotMeta { last_log_id: place.applied, last_membership: place.membership.clone() }
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let place = self.place.lock();
        Ok((place.applied, place.membership.clone()))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> Result<(), io::Error>
    where
        Entries: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut answer = Answer::NONE;
            if let EntryPayload::Normal(payload) = &entry.payload {
                answer = self
                    .machine
                    .apply(entry.log_id.index, &payload.0, responder.is_some())
                    .map_err(io::Error::other)?;
            }
            probe::saw(|| Event::Applied {
                of: self.of,
                replica: self.replica,
                entry: standing(entry.log_id),
                payload: told(&entry.payload),
            });
            {
                // Both at once: a snapshot marked in between would name a membership it has not seen.
                let mut place = self.place.lock();
                place.applied = Some(entry.log_id);
                if let EntryPayload::Membership(changed) = entry.payload {
                    place.membership = StoredMembership::new(Some(entry.log_id), changed);
                }
            }
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotHandle,
    ) -> Result<(), io::Error> {
        let SnapshotHandle::Staged(staged) = snapshot else {
            return Err(io::Error::other("a live snapshot was handed to its own replica"));
        };
        self.machine.install(staged.finish());
        if let Some(last) = meta.last_log_id {
            let entry = standing(last);
            probe::saw(|| Event::Installed { of: self.of, replica: self.replica, entry });
        }
        let mut place = self.place.lock();
        place.applied = meta.last_log_id;
        place.membership = meta.last_membership.clone();
        place.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let meta = self.place.lock().snapshot.clone();
        Ok(meta.map(|meta| Snapshot {
            meta,
            snapshot: SnapshotHandle::Live(Arc::clone(&self.machine)),
        }))
    }
}

fn standing(at: LogId) -> probe::Entry {
    probe::Entry { term: at.leader_id.term, leader: at.leader_id.node_id, index: at.index }
}

fn told(payload: &EntryPayload<Payload, ReplicaId, Seat>) -> probe::Payload<'_> {
    match payload {
        EntryPayload::Blank => probe::Payload::Blank,
        EntryPayload::Normal(payload) => probe::Payload::Normal(&payload.0),
        EntryPayload::Membership(membership) => probe::Payload::Membership {
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
        },
    }
}

impl RaftSnapshotBuilder<Types> for Applier {
    type SnapshotData = SnapshotHandle;

    /// Costs nothing: a snapshot is a mark in the log. Its pieces are taken from the live state when
    /// it is sent, and each knows what it has seen, so what follows the mark can be replayed on top.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let meta = self.meta();
        self.place.lock().snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: SnapshotHandle::Live(Arc::clone(&self.machine)) })
    }
}
