//! The sending side of a group: openraft's network calls as messages to peers.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
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
use scatterhoard_cluster::{CallError, IN_ORDER_BYTES_MAX, Lane, Peers, Target};
use scatterhoard_ring::{NodeId, ReplicaId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::kind::Kind;
use crate::machine::{Machine, SnapshotHandle};
use crate::raft::{Seat, Snapshot, Types, Vote};
use crate::wire::{self, Header};

/// Appends that may be under way to one follower. More would only deepen the queue in front of it.
const APPENDS_COUNT_MAX: usize = 8;

/// Pieces of one snapshot that may be under way: the receiver builds one while the next ones are made
/// and travel. At about 192 KiB each they are 1.5 MiB, which 1 Gbit/s takes 12 ms to carry: more would
/// only make large appends, which share the lane, wait longer.
const PIECES_COUNT_MAX: usize = 8;

/// What a message has beside the piece in it, at most.
const PIECE_OVERHEAD_BYTES: usize = 128;

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
        self.post(lane, kind, body).await
    }

    /// Queues a message at once; the answer comes later.
    fn post(
        &self,
        lane: Lane,
        kind: Kind,
        body: BytesMut,
    ) -> impl Future<Output = Rpc<Bytes>> + Send + use<> {
        let answer = self.link.call(self.node, lane, kind, body.freeze());
        async move { answer.await.map_err(|error| failed(&error)) }
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
    /// Open, pieces, close. The receiver refuses a piece that is not the next one, and gives all up
    /// with the one that it cannot take: whatever fails here, the next attempt begins anew.
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
        let post = |number: u64, piece: &[u8]| {
            let mut body = BytesMut::with_capacity(PIECE_OVERHEAD_BYTES + piece.len());
            self.header.put(&mut body);
            body.extend_from_slice(&session);
            body.extend_from_slice(&number.to_be_bytes());
            body.extend_from_slice(piece);
            self.post(Lane::Bulk, Kind::SnapshotPiece, body)
        };
        let number = send_pieces(&*machine, post).await.map_err(streaming)?;
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

/// Posts the pieces of a state in their order, several of them under way; answers with how many there
/// were once all are answered. The first that fails ends it: what has not left by then never will.
///
/// The lane keeps the order of messages that go as one frame. A longer one could be overtaken, so it
/// travels alone.
async fn send_pieces<Answer>(
    machine: &dyn Machine,
    mut post: impl FnMut(u64, &[u8]) -> Answer,
) -> Rpc<u64>
where
    Answer: Future<Output = Rpc<Bytes>>,
{
    let mut under_way = VecDeque::with_capacity(PIECES_COUNT_MAX);
    let (mut position, mut number) = (Some(0), 0);
    while let Some(at) = position {
        answered(&mut under_way, PIECES_COUNT_MAX - 1).await?;
        let mut piece = Vec::new();
        position = machine.piece(at, &mut piece);
        let alone = piece.len() > IN_ORDER_BYTES_MAX - PIECE_OVERHEAD_BYTES;
        if alone {
            answered(&mut under_way, 0).await?;
        }
        under_way.push_back(Box::pin(post(number, &piece)));
        if alone {
            answered(&mut under_way, 0).await?;
        }
        number += 1;
    }
    answered(&mut under_way, 0).await?;
    Ok(number)
}

/// Waits until no more than so many are under way, oldest first.
async fn answered<Answer>(under_way: &mut VecDeque<Pin<Box<Answer>>>, count_max: usize) -> Rpc<()>
where
    Answer: Future<Output = Rpc<Bytes>>,
{
    while under_way.len() > count_max {
        let Some(oldest) = under_way.pop_front() else { break };
        oldest.await?;
    }
    Ok(())
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
    use std::any::Any;

    use futures_util::poll;
    use parking_lot::Mutex;
    use scatterhoard_ring::{ClusterId, Generation, GroupId};
    use tokio::sync::oneshot;

    use super::*;
    use crate::machine::{Corrupt, Staging};
    use crate::raft::Answer;

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

    /// A state of pieces of these lengths.
    struct Lengths(Vec<usize>);

    impl Machine for Lengths {
        fn apply(&self, _: u64, _: &[u8], _: bool) -> Result<Answer, Corrupt> {
            Err(Corrupt("nothing is applied here"))
        }

        fn piece(&self, position: u64, out: &mut Vec<u8>) -> Option<u64> {
            let at = usize::try_from(position).ok()?;
            out.resize(self.0[at], 0);
            (at + 1 < self.0.len()).then_some(position + 1)
        }

        fn stage(&self) -> Box<dyn Staging> {
            unreachable!("nothing is received here")
        }

        fn install(&self, _: Box<dyn Any>) {}
    }

    /// What was posted: each piece's number and length, and the way to answer it.
    type Posted = Arc<Mutex<Vec<(u64, usize, Option<oneshot::Sender<Rpc<Bytes>>>)>>>;

    fn sending(lengths: &[usize]) -> (Posted, BoxFuture<'static, Rpc<u64>>) {
        let (posted, machine) = (Posted::default(), Lengths(lengths.to_vec()));
        let seen = Arc::clone(&posted);
        let post = move |number, piece: &[u8]| {
            let (answer, answered) = oneshot::channel();
            seen.lock().push((number, piece.len(), Some(answer)));
            async move { answered.await.expect("the test answers") }
        };
        (posted, async move { send_pieces(&machine, post).await }.boxed())
    }

    fn answer(posted: &Posted, number: usize, answer: Rpc<Bytes>) {
        let answers = posted.lock()[number].2.take();
        assert!(answers.expect("not answered yet").send(answer).is_ok(), "somebody waits for it");
    }

    #[tokio::test]
    async fn pieces_leave_in_order_and_only_so_many_are_under_way() {
        let lengths: Vec<_> = (1..=20).collect();
        let (posted, mut sending) = sending(&lengths);
        for number in 0..lengths.len() {
            assert!(poll!(&mut sending).is_pending());
            assert_eq!(posted.lock().len(), lengths.len().min(number + PIECES_COUNT_MAX));
            answer(&posted, number, Ok(Bytes::new()));
        }
        assert_eq!(sending.await.unwrap(), 20);
        let order: Vec<_> = posted.lock().iter().map(|it| (it.0, it.1)).collect();
        assert_eq!(order, (0..20).zip(1..=20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_piece_that_others_could_overtake_travels_alone() {
        let (posted, mut sending) = sending(&[1, 1, IN_ORDER_BYTES_MAX, 1, 1]);
        for (answered, under_way) in [(0, 2), (1, 2), (2, 3), (3, 5), (4, 5)] {
            assert!(poll!(&mut sending).is_pending());
            assert_eq!(posted.lock().len(), under_way, "{answered} are answered");
            answer(&posted, answered, Ok(Bytes::new()));
        }
        assert_eq!(sending.await.unwrap(), 5);
    }

    #[tokio::test]
    async fn the_first_piece_that_fails_ends_it() {
        let (posted, mut sending) = sending(&[1; 20]);
        assert!(poll!(&mut sending).is_pending());
        answer(&posted, 1, Ok(Bytes::new()));
        answer(&posted, 0, Err(failed(&CallError::Lost)));
        assert!(matches!(sending.await, Err(RPCError::Network(_))));
        assert_eq!(posted.lock().len(), PIECES_COUNT_MAX);
        assert!(posted.lock()[2].2.as_ref().is_some_and(oneshot::Sender::is_closed), "forgotten");
    }

    #[test]
    fn a_message_is_longer_than_its_piece_by_no_more_than_was_allowed_for() {
        let header = Header {
            cluster: ClusterId::new(1),
            group: GroupId::Council,
            generation: Generation::new(1),
            source: ReplicaId::new(1),
            target: ReplicaId::new(2),
        };
        let mut body = BytesMut::new();
        header.put(&mut body);
        assert!(body.len() + 2 * size_of::<u64>() <= PIECE_OVERHEAD_BYTES);
    }
}
