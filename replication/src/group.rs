//! One replica of one group: proposing, reading, and knowing who leads.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::error::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::{EntryPayload, Instant as _, LinearizerOption, ReadPolicy, ServerState};
use scatterhoard_ring::{
    ClusterId, Configuration, Epoch, Generation, GroupId, NodeId, Position, ReplicaId, Report,
    Testimony,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::lease::{Lease, LeaseWord};
use crate::log::Log;
use crate::machine::{Applier, Corrupt, Machine};
use crate::network::{Link, Senders};
use crate::probe::{self, Event, Founded};
use crate::raft::{self, Answer, Payload, Raft, Seat, epoch_of};
use crate::wire::Header;
use crate::{Timers, keeper};

mod leading;

/// How long purging what was just founded may take, until it is tried again.
const PURGE_PATIENCE: Duration = Duration::from_secs(1);

/// Which replica of which group this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// The cluster.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// Which founding of it.
    pub generation: Generation,
    /// This replica.
    pub replica: ReplicaId,
    /// The node it is on: ours.
    pub node: NodeId,
    /// The cluster's timers.
    pub timers: Timers,
    /// A log above this is purged. Every replica of every group keeps as much, so it is memory that the
    /// keys do not get; and the larger it is, the longer may a follower be away without a snapshot.
    pub log_bytes_max: usize,
}

impl GroupSpec {
    /// Which founding of which group.
    #[must_use]
    pub const fn founded(&self) -> Founded {
        Founded { group: self.group, generation: self.generation }
    }
}

/// Who leads a group, as one replica of it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The highest term this replica has seen.
    pub term: u64,
    /// The leader of that term, if it is known.
    pub leader: Option<Leader>,
    /// Whether that leader is this replica, and it has applied the first entry of its own.
    pub ready: bool,
}

/// A leader: one replica on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The replica that leads.
    pub replica: ReplicaId,
    /// The node it is on.
    pub node: NodeId,
}

/// A committed membership of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Who votes; of both halves during a change.
    pub voters: BTreeSet<ReplicaId>,
    /// Who else is sent the log.
    pub learners: BTreeSet<ReplicaId>,
    /// Where each of them is.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
    /// The epoch of the placement it serves.
    pub epoch: Epoch,
}

/// Why a proposal was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was appended, here or elsewhere. No effect: it is safe to propose again, here or at
    /// the leader.
    #[error("not the leader")]
    NotLeader,
    /// The entry was appended, and what became of it is not known. It MAY be committed, now or later.
    #[error("the outcome is not known")]
    InDoubt,
}

/// Why a read could not be confirmed. Reads have no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another replica leads, or none.
    #[error("not the leader")]
    NotLeader,
    /// No quorum confirmed this leader before the deadline.
    #[error("no quorum answered in time")]
    Deadline,
}

/// One replica of a group. Lives until [`Group::close`].
pub struct Group {
    spec: GroupSpec,
    raft: Raft,
    machine: Arc<dyn Machine>,
    log: Log,
    lease: LeaseWord,
    /// No lease is granted in this term or an earlier one: leadership was, or is being, given away.
    lease_given_up: AtomicU64,
    /// Voters of the membership in force.
    voters_count: AtomicUsize,
    /// No lease without a deadline is granted in this term or an earlier one: the sole voter has asked
    /// for company, and the metrics may show that late.
    sole_lease_given_up: AtomicU64,
    leadership: watch::Sender<Leadership>,
    /// The founding is still in the log: nobody may be let in who would replay it.
    founding: AtomicBool,
    ended: CancellationToken,
    /// Why the core died, if it did.
    failure: OnceLock<String>,
}

impl Group {
    /// Starts a replica with an empty log. It waits to be founded, or to be invited by a leader.
    ///
    /// # Panics
    /// If the timers are not what a founding accepts.
    pub(crate) async fn open(
        spec: GroupSpec,
        machine: Arc<dyn Machine>,
        link: Link,
        ended: CancellationToken,
    ) -> Arc<Self> {
        let log = Log::default();
        let senders = Senders {
            link,
            header: Header {
                cluster: spec.cluster,
                group: spec.group,
                generation: spec.generation,
                source: spec.replica,
                target: ReplicaId::default(),
            },
            log: log.clone(),
        };
        let (of, replica) = (spec.founded(), spec.replica);
        probe::saw(|| Event::Opened { of, replica });
        let applier = Applier::new(of, replica, Arc::clone(&machine));
        let config = raft::config(spec.timers);
        let raft = Raft::new(spec.replica, config, senders, log.clone(), applier)
            .await
            .expect("a log in memory cannot fail to open");
        Arc::new(Self {
            spec,
            raft,
            machine,
            log,
            lease: LeaseWord::new(Instant::now()),
            lease_given_up: AtomicU64::new(0),
            voters_count: AtomicUsize::new(0),
            sole_lease_given_up: AtomicU64::new(0),
            leadership: watch::Sender::new(Leadership::default()),
            founding: AtomicBool::new(false),
            ended,
            failure: OnceLock::new(),
        })
    }

    /// Founds the group with this replica as the only voter, and what its machine holds as its state,
    /// and waits until it leads.
    ///
    /// The founding membership is purged from the log before anybody is invited: whoever joins later
    /// starts from a snapshot, has the state that is in no log, and can never replay the founding, elect
    /// itself and lead alone.
    pub async fn found(&self, epoch: Epoch) {
        self.founding.store(true, Ordering::SeqCst);
        probe::saw(|| Event::Founding { of: self.spec.founded() });
        let seat = Seat { node: self.spec.node, epoch };
        let founders = BTreeMap::from([(self.spec.replica, seat)]);
        if let Err(error) = self.raft.initialize(founders).await {
            // Only a replica that has been told of others refuses, and a fresh one has not.
            warn!(group = %self.spec.group, %error, "founding was refused");
            return;
        }
        let mut leadership = self.leadership.subscribe();
        // The guard is dropped at once: while it lives, whoever changes the leadership waits for it.
        tokio::select! {
            biased;
            () = self.ended.cancelled() => return,
            ready = leadership.wait_for(|now| now.ready) => drop(ready),
        }
        while !self.ended.is_cancelled() {
            keeper::purge_all(&self.raft).await;
            let purged = self.raft.wait(Some(PURGE_PATIENCE));
            if purged.metrics(|seen| seen.purged.is_some(), "founding purged").await.is_ok() {
                self.founding.store(false, Ordering::SeqCst);
                return;
            }
        }
    }

    /// Whether the founding is under way: the group stays as it is until it is through.
    pub(crate) fn is_founding(&self) -> bool {
        self.founding.load(Ordering::SeqCst)
    }

    /// What this is a replica of.
    #[must_use]
    pub fn spec(&self) -> &GroupSpec {
        &self.spec
    }

    /// Appends a payload to the log, in the order of calls, and answers with what will become of it.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`] at once or later if nothing was appended; everything else that
    /// goes wrong is [`ProposeError::InDoubt`].
    pub async fn propose(
        &self,
        payload: Bytes,
    ) -> Result<impl Future<Output = Result<Answer, ProposeError>> + Send + use<>, ProposeError>
    {
        let (responder, outcome) = ProgressResponder::complete_only();
        self.raft
            .client_write_ff(Payload(payload), Some(responder))
            .await
            .map_err(|_fatal| ProposeError::InDoubt)?;
        Ok(async move {
            match outcome.await {
                Ok(Ok(written)) => Ok(written.data),
                // Refused before it was appended: openraft, `ClientWriteError::ForwardToLeader`.
                Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::NotLeader),
                Ok(Err(
                    ClientWriteError::LogEntryDiscarded(_)
                    | ClientWriteError::ChangeMembershipError(_)
                    | ClientWriteError::PreconditionFailed(_),
                ))
                | Err(_) => Err(ProposeError::InDoubt),
            }
        })
    }

    /// The lease to take before a read; [`Self::lease_holds`] must confirm it after.
    #[must_use]
    pub fn lease(&self, now: Instant) -> Option<Lease> {
        self.lease.take(now)
    }

    /// Whether a read between taking the lease and `now` was one of the leader.
    #[must_use]
    pub fn lease_holds(&self, lease: Lease, now: Instant) -> bool {
        self.lease.holds(lease, now)
    }

    /// Confirms with a quorum that this replica leads, and waits until it has applied everything
    /// that was committed by then. A read of the machine after this is linearizable. ReadIndex:
    /// Ongaro, thesis, 6.4.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_index(&self, deadline: Instant) -> Result<(), ReadError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let option = LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(left);
        let confirmed = tokio::time::timeout_at(deadline, async {
            let linearizer = self.raft.get_read_linearizer(option).await.map_err(refused)?;
            match linearizer.try_await_ready(&self.raft, Some(left)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(ReadError::Deadline),
                Err(_fatal) => Err(ReadError::NotLeader),
            }
        });
        confirmed.await.unwrap_or(Err(ReadError::Deadline))
    }

    /// Who leads, and every change of it.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Whether this replica leads and is ready.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leadership.borrow().ready
    }

    /// Voters of the membership in force; during a change, of the half that has fewer.
    #[must_use]
    pub fn voters_count(&self) -> usize {
        self.voters_count.load(Ordering::Relaxed)
    }

    /// What a leader tells the council of its group; `None` if this replica does not lead, or has not
    /// heard from a quorum lately: then it cannot vouch for the group.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        let Members { voters, learners, epoch, .. } = self.members();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let recent = Duration::from_millis(2 * u64::from(self.spec.timers.election_ms_max));
        // By the newest membership, committed or not: it takes a quorum of that to commit anything.
        let newest = metrics.membership_config.membership();
        let alone = newest.voter_ids().eq([self.spec.replica]);
        let heard = alone || metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < recent);
        (metrics.state == ServerState::Leader && heard).then(|| Report {
            generation: self.spec.generation,
            term: metrics.current_term,
            leader: self.spec.replica,
            epoch,
            voters,
            learners,
            index: metrics.last_log_index.unwrap_or(0),
        })
    }

    /// The group's committed membership, as this replica knows it.
    #[must_use]
    pub fn members(&self) -> Members {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let committed = metrics.committed_membership_config.membership();
        Members {
            voters: committed.voter_ids().collect(),
            learners: committed.learner_ids().collect(),
            nodes: committed.nodes().map(|(&id, seat)| (id, seat.node)).collect(),
            epoch: epoch_of(committed),
        }
    }

    /// What this replica knows of its group, for a verdict on whether it is lost. Also after its end.
    #[must_use]
    pub fn testimony(&self) -> Testimony {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let committed = metrics.committed_membership_config.membership();
        let effective = metrics.membership_config.membership();
        let mut configurations = vec![configuration(committed)];
        if effective != committed {
            configurations.push(configuration(effective));
        }
        configurations.retain(|it| it.halves.iter().any(|half| !half.is_empty()));
        Testimony {
            group: self.spec.group,
            generation: self.spec.generation,
            replica: self.spec.replica,
            votes: !self.ended.is_cancelled(),
            position: self.log.last().map(|last| Position {
                term: last.leader_id.term,
                leader: last.leader_id.node_id,
                index: last.index,
            }),
            configurations,
        }
    }

    /// How far this replica has applied the log.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.raft.metrics().borrow_watched().last_applied.map_or(0, |log_id| log_id.index)
    }

    /// Whether the log is so long that writers should wait: a follower that keeps up badly, or a
    /// snapshot under way, still needs it.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.log.size().bytes > keeper::LOG_BYTES_CONGESTED
    }

    /// Bytes that the log takes in memory.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        self.log.size().bytes
    }

    /// Ends when the replica does, whether it was closed or its core died.
    pub async fn closed(&self) {
        self.ended.cancelled().await;
    }

    /// Why the replica's core died, if it did though nobody had closed it. Known when [`Self::closed`]
    /// is. Such a replica never votes or acknowledges again; what it holds can still be read.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Gives the leadership to another voter, the one that has the longest log if `target` is none.
    /// Reads by lease end at once, for the rest of the term.
    pub async fn transfer(&self, target: Option<ReplicaId>) {
        let Some((term, target)) = self.successor(target) else { return };
        self.give_up_lease(term);
        info!(group = %self.spec.group, %target, "leadership is being handed over");
        probe::saw(|| Event::HandsOver { of: self.spec.founded() });
        let _ended = self.raft.trigger().transfer_leader(target).await;
    }

    /// Stops the replica. Its log is gone with it.
    pub async fn close(&self) {
        self.lease.revoke();
        self.ended.cancel();
        if self.raft.shutdown().await.is_err() {
            warn!(group = %self.spec.group, "the Raft core had already failed");
        }
    }

    /// Applies what the log holds, whether committed or not, after the replica has stopped. A leader
    /// that is gone may have acknowledged any of it.
    pub(crate) fn apply_rest(&self) -> Result<(), Corrupt> {
        // From the start, not from where the core stopped: its worker may still be at it, and what was
        // seen already is skipped.
        for entry in self.log.entries() {
            if let EntryPayload::Normal(payload) = &entry.payload {
                self.machine.apply(entry.log_id.index, &payload.0, false)?;
            }
        }
        Ok(())
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Whether nobody else is sent the log.
    pub(crate) fn is_alone(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().count() < 2
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    fn successor(&self, wanted: Option<ReplicaId>) -> Option<(u64, ReplicaId)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return None;
        }
        let voters = metrics.membership_config.voter_ids().filter(|&id| id != self.spec.replica);
        let matched = |id: &ReplicaId| metrics.replication.as_ref()?.get(id).copied()?;
        let best = voters.max_by_key(|id| (Some(*id) == wanted, matched(id)))?;
        Some((metrics.current_term, best))
    }
}

fn configuration(membership: &raft::Membership) -> Configuration {
    let half = |voters: &BTreeSet<ReplicaId>| {
        let node_of = |id| membership.get_node(&id).map(|seat| (id, seat.node));
        voters.iter().copied().filter_map(node_of).collect()
    };
    let halves = membership.get_joint_config().iter().map(half).collect();
    Configuration { epoch: epoch_of(membership), halves }
}

fn refused(
    error: RaftError<raft::Types, openraft::error::LinearizableReadError<raft::Types>>,
) -> ReadError {
    match error.into_api_error() {
        Some(openraft::error::LinearizableReadError::QuorumNotEnough(_)) => ReadError::Deadline,
        Some(openraft::error::LinearizableReadError::ForwardToLeader(_)) | None => {
            ReadError::NotLeader
        }
    }
}
