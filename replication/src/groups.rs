//! All replicas of this process, and the receiving side of their messages.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use openraft::raft::AppendEntriesRequest;
use parking_lot::{Mutex, RwLock};
use scatterhoard_cluster::{Caller, Lane, Peers, ReplyTo};
use scatterhoard_ring::{NodeId, ReplicaId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::arrivals::{Arrival, Arrivals};
use crate::group::{Group, GroupSpec};
use crate::keeper;
use crate::kind::Kind;
use crate::machine::{Corrupt, Machine, SnapshotHandle};
use crate::network::{AddressOf, Link};
use crate::raft::{Snapshot, SnapshotMeta, Types, Vote};
use crate::steward::{self, Roll};
use crate::tables::Tables;
use crate::wire::{self, Header, Malformed};

/// Appends of one leader that may wait for one replica here. The sender keeps 8 under way.
const INBOX_COUNT_MAX: usize = 64;

/// The replicas of this process. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

struct Inner {
    link: Link,
    replicas: RwLock<HashMap<ReplicaId, Replica>>,
    inboxes: Mutex<HashMap<(u64, ReplicaId), mpsc::Sender<Append>>>,
    arrivals: Arrivals,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

#[derive(Clone)]
struct Replica {
    group: Arc<Group>,
    machine: Arc<dyn Machine>,
}

struct Append {
    request: AppendEntriesRequest<Types>,
    reply: ReplyTo,
}

impl Groups {
    /// No replica yet. Messages leave through `peers`, to where `address_of` says.
    #[must_use]
    pub fn new(peers: Peers, address_of: AddressOf, shutdown: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            link: Link { peers, address_of },
            replicas: RwLock::default(),
            inboxes: Mutex::default(),
            arrivals: Arrivals::default(),
            tasks: TaskTracker::new(),
            shutdown,
        }))
    }

    /// Starts a replica. While it leads, it moves its group towards what `tables` says.
    pub async fn open(
        &self,
        spec: GroupSpec,
        machine: Arc<dyn Machine>,
        tables: &Tables,
    ) -> Arc<Group> {
        let ended = self.0.shutdown.child_token();
        let link = self.0.link.clone();
        let group = Group::open(spec, Arc::clone(&machine), link, ended).await;
        self.0.tasks.spawn(Arc::clone(&group).watch());
        self.0.tasks.spawn(keeper::keep(Arc::clone(&group)));
        self.0.tasks.spawn(steward::serve(Arc::clone(&group), tables.subscribe()));
        let replica = Replica { group: Arc::clone(&group), machine };
        self.0.replicas.write().insert(spec.replica, replica);
        group
    }

    /// Stops a replica and forgets it.
    pub async fn close(&self, replica: ReplicaId) {
        let removed = self.0.replicas.write().remove(&replica);
        self.0.arrivals.forget(replica);
        self.0.inboxes.lock().retain(|(_, to), _| *to != replica);
        if let Some(removed) = removed {
            removed.group.close().await;
        }
    }

    /// Stops a replica of a lost group and forgets it; its machine is then as its log would have it.
    ///
    /// # Errors
    /// The log holds what the machine does not understand. It has what came before that.
    pub async fn wind_up(&self, group: &Group) -> Result<(), Corrupt> {
        self.close(group.spec().replica).await;
        group.apply_rest()
    }

    /// Stops all replicas.
    pub async fn close_all(&self) {
        let replicas: Vec<_> = self.0.replicas.read().keys().copied().collect();
        for replica in replicas {
            self.close(replica).await;
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Whether a message of this kind is for [`Self::handle`].
    #[must_use]
    pub fn takes(kind: u8) -> bool {
        Kind::of(kind).is_some()
    }

    /// Takes a group message from a peer. Called in the order of arrival; never blocks.
    ///
    /// What is not meant for exactly one replica here (its cluster, group, generation and id) is
    /// dropped: its sender gets an error, and nothing else happens.
    pub fn handle(&self, caller: Caller, kind: u8, mut body: Bytes, reply: ReplyTo) {
        let Some(kind) = Kind::of(kind) else { return };
        let replica = match Header::take(&mut body) {
            Ok(header) => self.meant(kind, &header),
            Err(error) => return debug!(%error, from = %caller.node, "group message dropped"),
        };
        let Some(replica) = replica else { return };
        if let Err(error) = self.dispatch(caller, kind, replica, body, reply) {
            warn!(%error, from = %caller.node, ?kind, "group message dropped");
        }
    }

    /// Forgets what belonged to a connection that has closed.
    pub fn closed(&self, connection: u64) {
        self.0.inboxes.lock().retain(|(from, _), _| *from != connection);
    }

    /// Asks a replica on another node for the committed membership of its group.
    pub async fn roll_of(&self, node: NodeId, spec: &GroupSpec, asked: ReplicaId) -> Option<Roll> {
        let header = Header {
            cluster: spec.cluster,
            group: spec.group,
            generation: spec.generation,
            source: spec.replica,
            target: asked,
        };
        let mut body = BytesMut::new();
        header.put(&mut body);
        let answer = self.0.link.call(node, Lane::Control, Kind::Roll, body.freeze());
        let mut answer = answer.await.ok()?;
        let epoch = wire::take_epoch(&mut answer).ok()?;
        let voters_count = usize::from(answer.try_get_u8().ok()?);
        let mut replicas = std::collections::BTreeSet::new();
        while answer.has_remaining() {
            replicas.insert(ReplicaId::new(answer.try_get_u64().ok()?));
        }
        Some(Roll { epoch, voters_count, replicas })
    }

    fn meant(&self, kind: Kind, header: &Header) -> Option<Replica> {
        let replica = self.0.replicas.read().get(&header.target).cloned()?;
        let spec = replica.group.spec();
        let meant = (header.cluster, header.group, header.generation)
            == (spec.cluster, spec.group, spec.generation);
        if !meant {
            debug!(?kind, ?header, "group message for another life dropped");
        }
        // A dead core can take nothing, and a snapshot would be taken in and sent again for ever. What
        // it knew to be committed still is.
        let heard = kind == Kind::Roll || !replica.group.ended().is_cancelled();
        (meant && heard).then_some(replica)
    }

    fn dispatch(
        &self,
        caller: Caller,
        kind: Kind,
        to: Replica,
        mut body: Bytes,
        reply: ReplyTo,
    ) -> Result<(), Malformed> {
        let group = Arc::clone(&to.group);
        match kind {
            Kind::Append => {
                let request = wire::take_append(&mut body)?;
                self.enqueue(caller.connection, &to.group, Append { request, reply });
            }
            Kind::Vote | Kind::PreVote => {
                let request = wire::take_vote_request(&mut body)?;
                self.0.tasks.spawn(async move {
                    let raft = group.raft();
                    let answer = match kind {
                        Kind::Vote => raft.vote(request).await,
                        _ => raft.pre_vote(request).await,
                    };
                    let Ok(answer) = answer else { return };
                    let mut out = BytesMut::new();
                    wire::put_vote_response(&mut out, &answer);
                    reply.send(out.freeze());
                });
            }
            Kind::Transfer => {
                let request = wire::take_transfer(&mut body)?;
                self.0.tasks.spawn(async move {
                    if let Ok(Ok(())) = group.raft().handle_transfer_leader(request).await {
                        reply.send(Bytes::new());
                    }
                });
            }
            Kind::SnapshotOpen => {
                let vote = wire::take_vote(&mut body)?;
                let meta = wire::take_snapshot_meta(&mut body)?;
                wire::check_snapshot(&vote, &meta)?;
                let session = self.open_arrival(to, vote, meta);
                reply.send(Bytes::copy_from_slice(&session.to_be_bytes()));
            }
            Kind::SnapshotPiece => {
                let (session, number) = (body.try_get_u64()?, body.try_get_u64()?);
                if self.0.arrivals.take_piece(group.spec().replica, session, number, &body) {
                    reply.send(Bytes::new());
                }
            }
            Kind::SnapshotClose => {
                let (session, count) = (body.try_get_u64()?, body.try_get_u64()?);
                if let Some(arrival) = self.0.arrivals.close(group.spec().replica, session, count) {
                    self.0.tasks.spawn(install(group, arrival, reply));
                }
            }
            Kind::Roll => {
                let roll = steward::roll(&group);
                let mut out = BytesMut::new();
                wire::put_epoch(&mut out, roll.epoch);
                out.put_u8(u8::try_from(roll.voters_count).unwrap_or(u8::MAX));
                for replica in roll.replicas {
                    out.extend_from_slice(&replica.number().to_be_bytes());
                }
                reply.send(out.freeze());
            }
        }
        Ok(())
    }

    fn open_arrival(&self, to: Replica, vote: Vote, meta: SnapshotMeta) -> u64 {
        let Replica { group, machine } = to;
        let replica = group.spec().replica;
        let session = self.0.arrivals.open(replica, vote, meta, machine.stage());
        let groups = self.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = group.ended().cancelled() => {}
                () = groups.0.arrivals.watch(replica, session) => {}
            }
        });
        session
    }

    /// Appends of one connection reach a replica in their order, several at a time.
    fn enqueue(&self, connection: u64, group: &Arc<Group>, append: Append) {
        let at = (connection, group.spec().replica);
        let mut inboxes = self.0.inboxes.lock();
        let inbox = inboxes.entry(at).or_insert_with(|| {
            let (inbox, appends) = mpsc::channel(INBOX_COUNT_MAX);
            self.0.tasks.spawn(take_appends(Arc::clone(group), appends));
            inbox
        });
        if inbox.try_send(append).is_err() {
            // Full or ended: the sender gets an error for this append and begins anew.
            inboxes.remove(&at);
        }
    }
}

async fn install(group: Arc<Group>, arrival: Arrival, reply: ReplyTo) {
    let Arrival { vote, meta, staging, .. } = arrival;
    let index = meta.last_log_id.map(|last| last.index);
    let snapshot = Snapshot { meta, snapshot: SnapshotHandle::Staged(staging) };
    if let Ok(installed) = group.raft().install_full_snapshot(vote, snapshot).await {
        info!(group = %group.spec().group, index, "snapshot installed");
        let mut out = BytesMut::new();
        wire::put_vote(&mut out, &installed.vote);
        reply.send(out.freeze());
    }
}

/// Hands appends to the core in their order and answers them in their order.
async fn take_appends(group: Arc<Group>, mut appends: mpsc::Receiver<Append>) {
    let mut under_way = FuturesOrdered::<BoxFuture<'static, ()>>::new();
    let ended = group.ended().clone();
    let mut ended = std::pin::pin!(ended.cancelled());
    loop {
        tokio::select! {
            biased;
            () = &mut ended => return,
            Some(()) = under_way.next() => {}
            append = appends.recv() => {
                let Some(append) = append else { break };
                let mut answered = answer_append(Arc::clone(&group), append).boxed();
                // The first poll puts it into the core's queue; later ones may come in any order.
                if futures_util::poll!(&mut answered).is_pending() {
                    under_way.push_back(answered);
                }
            }
        }
    }
    while under_way.next().await.is_some() {}
}

async fn answer_append(group: Arc<Group>, Append { request, reply }: Append) {
    let (before, last) = (request.prev_log_id, request.entries.last().map(|entry| entry.log_id));
    let Ok(response) = group.raft().append_entries(request).await else { return };
    if response.is_conflict() && before.is_none() {
        // An append from the start of the log fits every log; nothing else is known to say.
        return;
    }
    let result = response.into_stream_result(before, last.or(before));
    let mut out = BytesMut::with_capacity(32);
    wire::put_append_result(&mut out, &result);
    reply.send(out.freeze());
}

#[cfg(test)]
mod tests {
    use std::any::Any;

    use openraft::raft::VoteRequest;
    use scatterhoard_cluster::{CallError, Identity, Limits, SystemNet};
    use scatterhoard_ring::{ClusterId, Epoch, Generation, GroupId, PartitionId};

    use super::*;
    use crate::group::ProposeError;
    use crate::machine::Staging;
    use crate::raft::{Answer, LeaderId};
    use crate::timers::Timers;
    use tokio::time::Instant;

    /// Counts what it applies, and cannot go on after a certain word.
    struct Counter;

    impl Machine for Counter {
        fn apply(&self, _: u64, payload: &[u8], _: bool) -> Result<Answer, Corrupt> {
            if payload == b"poison" { Err(Corrupt("word")) } else { Ok(Answer::new(())) }
        }

        fn piece(&self, _: u64, _: &mut Vec<u8>) -> Option<u64> {
            None
        }

        fn stage(&self) -> Box<dyn Staging> {
            unreachable!("nothing is received here")
        }

        fn install(&self, _: Box<dyn Any>) {}
    }

    async fn sole_voter() -> (Groups, Arc<Group>) {
        let (node, cluster) = (NodeId::new(1), ClusterId::new(1));
        let identity = Identity { cluster, node, secret: None, build: String::new() };
        let shutdown = CancellationToken::new();
        let peers = Peers::new(Arc::new(SystemNet), identity, Limits::default(), shutdown.clone());
        let groups = Groups::new(peers, Arc::new(|_| None), shutdown);
        let (generation, replica) = (Generation::new(1), ReplicaId::new(7));
        let group = GroupId::Partition(PartitionId::new(0));
        let timers = Timers { heartbeat_ms: 100, election_ms_min: 300, election_ms_max: 450 };
        let spec =
            GroupSpec { cluster, group, generation, replica, node, timers, log_bytes_max: 2 << 20 };
        let group = groups.open(spec, Arc::new(Counter), &Tables::default()).await;
        group.found(Epoch { generation, index: 0 }).await;
        (groups, group)
    }

    async fn propose(group: &Group, word: &'static [u8]) -> Result<Answer, ProposeError> {
        group.propose(Bytes::from_static(word)).await?.await
    }

    /// Whether a message to the replica is answered.
    async fn answers(groups: &Groups, spec: &GroupSpec, kind: Kind) -> bool {
        let mut body = BytesMut::new();
        let GroupSpec { cluster, group, generation, replica: target, node, .. } = *spec;
        let source = ReplicaId::new(8);
        Header { cluster, group, generation, source, target }.put(&mut body);
        if kind == Kind::PreVote {
            let leader_id = LeaderId { term: 0, node_id: source };
            let request = VoteRequest::new(Vote { leader_id, committed: false }, None);
            wire::put_vote_request(&mut body, &request);
        }
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let caller = Caller { node, addr, lane: Lane::Control, connection: 1 };
        let (reply, answered) = ReplyTo::local();
        groups.handle(caller, kind.number(), body.freeze(), reply);
        match answered.await.expect("a reply is never forgotten") {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error, CallError::Lost);
                false
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_cannot_go_on_says_why_and_only_what_was_committed() {
        let (groups, group) = sole_voter().await;
        assert!(propose(&group, b"bread").await.is_ok());
        assert!(answers(&groups, group.spec(), Kind::PreVote).await);
        assert_eq!(group.failure(), None);

        assert_eq!(propose(&group, b"poison").await.err(), Some(ProposeError::InDoubt));
        group.closed().await;
        let cause = group.failure().expect("it died").to_owned();
        assert!(cause.contains("corrupt word"), "{cause}");
        assert!(!group.leads());
        assert!(group.lease(Instant::now()).is_none());
        assert!(group.report().is_none());
        assert!(!answers(&groups, group.spec(), Kind::PreVote).await);
        assert!(answers(&groups, group.spec(), Kind::Roll).await);
        assert!(group.members().voters.contains(&group.spec().replica));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_closed_has_not_failed() {
        let (groups, group) = sole_voter().await;
        groups.close(group.spec().replica).await;
        group.closed().await;
        assert_eq!(group.failure(), None);
        let (groups, group) = sole_voter().await;
        groups.close_all().await;
        assert_eq!(group.failure(), None);
    }
}
