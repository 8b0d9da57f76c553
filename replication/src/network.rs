//! The sending side of a group: openraft's network calls as messages to peers.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use scatterhoard_cluster::{CallError, Lane, Peers, Target};
use scatterhoard_ring::{NodeId, ReplicaId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::kind::Kind;
use crate::machine::SnapshotHandle;
use crate::raft::{Seat, Snapshot, Types, Vote};
use crate::wire::{self, Header};

/// Appends that may be under way to one follower. More would only deepen the queue in front of it.
const APPENDS_COUNT_MAX: usize = 8;

/// A message above this goes on the bulk lane, so that it cannot hold up a heartbeat.
const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// How long a piece of a snapshot, or a large append, may take.
const BULK_DEADLINE: Duration = Duration::from_secs(10);

/// How long any other message may take. Longer than an election, so that a slow follower is not
/// mistaken for a dead one twice.
const CONTROL_DEADLINE: Duration = Duration::from_secs(2);

/// Pause before a follower that cannot be reached is tried again.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(50);

/// Finds the peer address of a node, if it is known.
pub type AddressOf = Arc<dyn Fn(NodeId) -> Option<SocketAddr> + Send + Sync>;

type Rpc<T> = Result<T, RPCError<Types>>;

/// How messages of all groups leave this process.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) peers: Peers,
    pub(crate) address_of: AddressOf,
}

/// Makes a [`Sender`] for each follower.
#[derive(Clone)]
pub(crate) struct Senders {
    pub(crate) link: Link,
    /// The target is filled in for each sender.
    pub(crate) header: Header,
}

/// The way from this replica to one other.
pub(crate) struct Sender {
    link: Link,
    header: Header,
    node: NodeId,
    order: Arc<Order>,
}

impl RaftNetworkFactory<Types> for Senders {
    type Network = Sender;

    async fn new_client(&mut self, target: ReplicaId, seat: &Seat) -> Sender {
        Sender {
            link: self.link.clone(),
            header: Header { target, ..self.header },
            node: seat.node,
            order: Arc::default(),
        }
    }
}

impl Link {
    /// Queues a message at once; the answer comes later.
    pub(crate) fn call(
        &self,
        node: NodeId,
        lane: Lane,
        kind: Kind,
        body: Bytes,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + use<> {
        let within = match lane {
            Lane::Control => CONTROL_DEADLINE,
            Lane::Bulk => BULK_DEADLINE,
        };
        let call = (self.address_of)(node).map(|addr| {
            self.peers.call(
                Target { node, addr },
                lane,
                kind.number(),
                body,
                Instant::now() + within,
            )
        });
        async move {
            match call {
                Some(call) => call.await,
                None => Err(CallError::Unsent("no address is known".to_owned())),
            }
        }
    }
}

impl Sender {
    async fn call(&self, lane: Lane, kind: Kind, put: impl FnOnce(&mut BytesMut)) -> Rpc<Bytes> {
        let mut body = BytesMut::with_capacity(256);
        self.header.put(&mut body);
        put(&mut body);
        self.link.call(self.node, lane, kind, body.freeze()).await.map_err(|error| failed(&error))
    }

    /// Queues one append and answers with its result.
    fn append(
        &self,
        request: &AppendEntriesRequest<Types>,
    ) -> impl Future<Output = Rpc<StreamAppendResult<Types>>> + Send + use<> {
        let size = wire::append_size(request);
        let lane = if size > CONTROL_BYTES_MAX { Lane::Bulk } else { Lane::Control };
        let mut body = BytesMut::with_capacity(size);
        self.header.put(&mut body);
        wire::put_append(&mut body, request);
        let body = body.freeze();

        let turn = self.order.enter(lane);
        let (link, node) = (self.link.clone(), self.node);
        // In its turn at once: queued now, so that the order of calls is the order on the wire.
        let mut sent =
            turn.is_now().then(|| link.call(node, lane, Kind::Append, body.clone()).boxed());
        async move {
            let call = match sent.take() {
                Some(call) => call,
                None => {
                    turn.wait().await;
                    link.call(node, lane, Kind::Append, body).boxed()
                }
            };
            let mut reply = call.await.map_err(|error| failed(&error))?;
            drop(turn);
            wire::take_append_result(&mut reply).map_err(|error| malformed(&error))
        }
    }
}

impl RaftNetworkV2<Types> for Sender {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<Types>> {
        Ok(match self.append(&request).await? {
            Ok(matched) => AppendEntriesResponse::PartialSuccess(matched),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<Types>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let results =
            input.map(|request| self.append(&request)).buffered(APPENDS_COUNT_MAX).boxed();
        async move { Ok(results) }.boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Rpc<VoteResponse<Types>> {
        let put = |body: &mut BytesMut| wire::put_vote_request(body, &request);
        let mut reply = self.call(Lane::Control, Kind::Vote, put).await?;
        wire::take_vote_response(&mut reply).map_err(|error| malformed(&error))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Rpc<VoteResponse<Types>> {
        let put = |body: &mut BytesMut| wire::put_vote_request(body, &request);
        let mut reply = self.call(Lane::Control, Kind::PreVote, put).await?;
        wire::take_vote_response(&mut reply).map_err(|error| malformed(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<Types>> {
        let put = |body: &mut BytesMut| wire::put_transfer(body, &request);
        self.call(Lane::Control, Kind::Transfer, put).await?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE)))
    }
}

impl Sender {
    /// Open, pieces in order, close. The receiver refuses a piece that is not the next one, so one
    /// piece at a time is under way; what it waits for is the receiver's building, not the network.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotHandle::Live(machine) = snapshot.snapshot else {
            let error = AnyError::error("a staged snapshot is not sent on");
            return Err(StreamingError::Unreachable(Unreachable::new(&error)));
        };
        let streaming = |error: RPCError<Types>| {
            StreamingError::Network(NetworkError::new(&AnyError::error(error)))
        };
        let meta = snapshot.meta;
        let session = self
            .call(Lane::Bulk, Kind::SnapshotOpen, |body| {
                wire::put_vote(body, &vote);
                wire::put_snapshot_meta(body, &meta);
            })
            .await
            .map_err(streaming)?;
        let mut position = Some(0);
        let mut number = 0_u64;
        while let Some(at) = position {
            let mut piece = Vec::new();
            position = machine.piece(at, &mut piece);
            self.call(Lane::Bulk, Kind::SnapshotPiece, |body| {
                body.extend_from_slice(&session);
                body.extend_from_slice(&number.to_be_bytes());
                body.extend_from_slice(&piece);
            })
            .await
            .map_err(streaming)?;
            number += 1;
        }
        let mut reply = self
            .call(Lane::Bulk, Kind::SnapshotClose, |body| {
                body.extend_from_slice(&session);
                body.extend_from_slice(&number.to_be_bytes());
            })
            .await
            .map_err(streaming)?;
        let vote = wire::take_vote(&mut reply)
            .map_err(|error| StreamingError::Network(NetworkError::new(&AnyError::error(error))))?;
        Ok(SnapshotResponse::new(vote))
    }
}

/// Keeps appends to one follower in order although they use two connections: whoever changes lanes,
/// and whoever comes after such a one, waits until all before are answered.
#[derive(Default)]
struct Order {
    entered: AtomicU64,
    left: AtomicU64,
    /// The last turn that went on the bulk lane, plus one.
    bulk: AtomicU64,
    changed: Notify,
}

/// One append's place in the order. Leaves it when dropped, whatever became of the append.
struct Turn {
    order: Arc<Order>,
    number: u64,
    waits: bool,
}

impl Order {
    fn enter(self: &Arc<Self>, lane: Lane) -> Turn {
        let number = self.entered.fetch_add(1, Ordering::Relaxed);
        let left = self.left.load(Ordering::Acquire);
        let waits = match lane {
            Lane::Bulk => left < number,
            Lane::Control => left < self.bulk.load(Ordering::Relaxed),
        };
        if lane == Lane::Bulk || waits {
            self.bulk.store(number + 1, Ordering::Relaxed);
        }
        Turn { order: Arc::clone(self), number, waits }
    }
}

impl Turn {
    fn is_now(&self) -> bool {
        !self.waits
    }

    async fn wait(&self) {
        loop {
            let changed = self.order.changed.notified();
            if self.order.left.load(Ordering::Acquire) >= self.number {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.order.left.fetch_max(self.number + 1, Ordering::AcqRel);
        self.order.changed.notify_waiters();
    }
}

fn failed(error: &CallError) -> RPCError<Types> {
    let source = AnyError::error(error);
    match error {
        CallError::Unsent(_) | CallError::Refused(_) => {
            RPCError::Unreachable(Unreachable::new(&source))
        }
        CallError::Lost | CallError::Deadline { .. } => {
            RPCError::Network(NetworkError::new(&source))
        }
    }
}

fn malformed(error: &wire::Malformed) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Arc<Order> {
        Arc::default()
    }

    #[test]
    fn small_appends_do_not_wait_for_each_other() {
        let order = order();
        let turns: Vec<_> = (0..3).map(|_| order.enter(Lane::Control)).collect();
        assert!(turns.iter().all(Turn::is_now));
    }

    #[test]
    fn a_large_append_waits_for_all_before_it_and_all_after_it_wait_for_it() {
        let order = order();
        let first = order.enter(Lane::Control);
        let large = order.enter(Lane::Bulk);
        let after = order.enter(Lane::Control);
        assert!(!large.is_now());
        assert!(!after.is_now());
        drop((first, large, after));
        assert!(order.enter(Lane::Control).is_now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_waits_gets_it_when_those_before_are_answered() {
        let order = order();
        let first = order.enter(Lane::Control);
        let large = order.enter(Lane::Bulk);
        let early = tokio::time::timeout(Duration::from_secs(1), large.wait()).await;
        assert!(early.is_err(), "the first has not been answered");
        drop(first);
        large.wait().await;
    }
}
