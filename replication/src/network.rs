//! The sending side of a group: openraft's network calls as messages to peers.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
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
use tokio::time::{Instant, Sleep};

use crate::kind::Kind;
use crate::log::Log;
use crate::machine::{Machine, SnapshotHandle};
use crate::raft::{Seat, Snapshot, Types, Vote};
use crate::wire::{self, Header};

/// How long the news that an entry is committed waits for the next entry, to travel with it: by itself
/// it costs as much as an entry does. Only followers wait for it, and nobody asks them anything.
const COMMIT_PATIENCE: Duration = Duration::from_millis(10);

/// Requests of a session before the first that waits for entries to send. A probe is one request, and
/// its session must end at once; the second tells of what was committed before the session.
const PROMPT_REQUESTS_COUNT: u64 = 2;

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
    /// What is sent from.
    pub(crate) log: Log,
}

/// The way from this replica to one other.
pub(crate) struct Sender {
    link: Link,
    header: Header,
    log: Log,
    node: NodeId,
}

impl RaftNetworkFactory<Types> for Senders {
    type Network = Sender;

    async fn new_client(&mut self, target: ReplicaId, seat: &Seat) -> Sender {
        Sender {
            link: self.link.clone(),
            header: Header { target, ..self.header },
            log: self.log.clone(),
            node: seat.node,
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

    async fn append(
        &self,
        request: &AppendEntriesRequest<Types>,
    ) -> Rpc<StreamAppendResult<Types>> {
        let size = wire::append_size(request);
        let lane = if size > CONTROL_BYTES_MAX { Lane::Bulk } else { Lane::Control };
        let mut body = BytesMut::with_capacity(size);
        self.header.put(&mut body);
        wire::put_append(&mut body, request);
        let call = self.link.call(self.node, lane, Kind::Append, body.freeze());
        let mut reply = call.await.map_err(|error| failed(&error))?;
        wire::take_append_result(&mut reply).map_err(|error| malformed(&error))
    }
}

/// Appends to one follower, one after the other: the next is asked for when the one before it has been
/// answered.
///
/// Not more at a time, for three reasons. What gathers meanwhile travels together. Appends keep their
/// order although large ones take another connection. And openraft takes an answer for one to every
/// request up to the same index and dates the leader's lease by the latest of them; were one that only
/// tells of a commit made while the entries' answer is on its way, the lease would count from a message
/// that the follower has not heard.
struct Session<'s, S> {
    sender: &'s Sender,
    input: S,
    requests_count: u64,
    /// Index up to which the follower has been sent the log.
    sent: u64,
    patience: Pin<Box<Sleep>>,
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Session<'_, S> {
    async fn next(mut self) -> Option<(Rpc<StreamAppendResult<Types>>, Self)> {
        if self.requests_count >= PROMPT_REQUESTS_COUNT {
            self.wait_for_entries().await;
        }
        let request = self.input.next().await?;
        self.requests_count += 1;
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        self.sent = last.map_or(0, |log_id| log_id.index);
        let result = self.sender.append(&request).await;
        Some((result, self))
    }

    /// Waits until there is an entry to send, or until what else there may be has waited long enough.
    async fn wait_for_entries(&mut self) {
        self.patience.as_mut().reset(Instant::now() + COMMIT_PATIENCE);
        tokio::select! {
            biased;
            () = self.sender.log.grown_beyond(self.sent) => {}
            () = self.patience.as_mut() => {}
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
        let session = Session {
            sender: self,
            input,
            requests_count: 0,
            sent: 0,
            patience: Box::pin(tokio::time::sleep(COMMIT_PATIENCE)),
        };
        let results = futures_util::stream::unfold(session, Session::next).boxed();
        std::future::ready(Ok(results)).boxed()
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

    use futures_util::{poll, stream};
    use openraft::entry::EntryPayload;
    use openraft::storage::{IOFlushed, RaftLogStorage};
    use parking_lot::Mutex;
    use scatterhoard_cluster::{Identity, Limits, SystemNet};
    use scatterhoard_ring::{ClusterId, Generation, GroupId};
    use tokio::sync::oneshot;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::machine::{Corrupt, Staging};
    use crate::raft::{Answer, LeaderId, LogEntry, LogId};

    /// A way to nowhere: each append fails at once.
    fn sender() -> Sender {
        let identity = Identity {
            cluster: ClusterId::new(1),
            node: NodeId::new(1),
            secret: None,
            build: String::new(),
        };
        let peers =
            Peers::new(Arc::new(SystemNet), identity, Limits::default(), CancellationToken::new());
        let header = Header {
            cluster: ClusterId::new(1),
            group: GroupId::Council,
            generation: Generation::new(1),
            source: ReplicaId::new(1),
            target: ReplicaId::new(2),
        };
        let link = Link { peers, address_of: Arc::new(|_| None) };
        Sender { link, header, log: Log::default(), node: NodeId::new(2) }
    }

    fn log_id(index: u64) -> LogId {
        LogId { leader_id: LeaderId { term: 1, node_id: ReplicaId::new(1) }, index }
    }

    /// A request that only says what is committed.
    fn news(index: u64) -> AppendEntriesRequest<Types> {
        AppendEntriesRequest {
            vote: Vote::new_committed(1, ReplicaId::new(1)),
            prev_log_id: Some(log_id(index)),
            entries: Vec::new(),
            leader_commit: Some(log_id(index)),
        }
    }

    async fn append(mut log: Log, index: u64) {
        let entry = LogEntry { log_id: log_id(index), payload: EntryPayload::Blank };
        log.append([entry], IOFlushed::noop()).await.expect("memory does not fail");
    }

    /// When each of so many requests for the same index was taken, in milliseconds.
    async fn taken_at(sender: &mut Sender, index: u64, count: usize) -> Vec<u128> {
        let start = Instant::now();
        let requests = stream::repeat_with(move || news(index)).take(count);
        let option = RPCOption::new(Duration::from_secs(1));
        let results = sender.stream_append(requests, option).await.expect("begins at once");
        results.map(|_| start.elapsed().as_millis()).collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn news_of_a_commit_alone_waits_its_time_but_for_the_first() {
        let mut sender = sender();
        append(sender.log.clone(), 1).await;
        assert_eq!(taken_at(&mut sender, 1, 4).await, [0, 0, 10, 20]);
    }

    #[tokio::test(start_paused = true)]
    async fn entries_do_not_wait_and_take_the_news_along() {
        let mut sender = sender();
        let log = sender.log.clone();
        let growing = async {
            append(log.clone(), 1).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
            append(log.clone(), 2).await;
        };
        let (taken, ()) = tokio::join!(taken_at(&mut sender, 1, 3), growing);
        assert_eq!(taken, [0, 0, 3]);
        // What is there already is not waited for.
        assert_eq!(taken_at(&mut sender, 1, 4).await, [0, 0, 0, 0]);
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
