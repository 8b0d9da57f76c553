//! Commands over all keys: `DBSIZE`, `KEYS`, `SCAN`, `RANDOMKEY`, `FLUSHALL`.
//!
//! At the cluster door they are about the partitions that this node leads, as in Redis, and clients ask
//! every node. At the any-key door they are about the whole cluster: what others lead, they are asked
//! for, partition by partition. No store is held longer than for one page of keys, so `KEYS` and `SCAN`
//! see changes that are made meanwhile.

mod message;
mod piece;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use scatterhoard_cluster::{CallError, Lane, ReplyTo, Target};
use scatterhoard_command::{Glob, Invalidate, Scan, ScanKind, Span};
use scatterhoard_resp::{Encoder, Protocol};
use scatterhoard_ring::{Endpoints, NodeId, Slot, SlotRange};
use scatterhoard_store::Cursor;
use tokio::time::Instant;

use crate::core::Core;
use crate::kind::Kind;
use crate::route::Route;
use crate::session::{Door, Refusal, put_refusal};
use crate::stats::ErrorCode;

/// How long a partition is waited for. Clients give up after about as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pause before a partition whose leader is not known is looked for again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Partitions asked at a time.
const ASKED_COUNT_MAX: usize = 16;

/// Partitions that one `SCAN` may go through: most of a large cluster may be empty.
const SCANNED_PARTITIONS_MAX: usize = 64;

/// Keys that one `SCAN` looks at, whatever the client asks for.
const SCANNED_KEYS_MAX: u64 = 100_000;

/// Bytes of keys after which a `SCAN` answers.
const SCANNED_BYTES_MAX: usize = 8 << 20;

/// What is asked of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    /// How many keys there are.
    Count,
    /// Some keys.
    Page { cursor: Cursor, count: u32, pattern: Bytes },
    /// A key, by a roll.
    Random { roll: u64 },
    /// To forget everything.
    Flush,
    /// To forget what is no longer true.
    Invalidate(Outdated),
}

/// What is no longer true, in the slots of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outdated {
    /// Values that carry one of these tags.
    Tags(Vec<Bytes>),
    /// Keys that begin so.
    Prefix(Bytes),
}

impl Outdated {
    fn of(what: &Invalidate<'_>) -> Self {
        match what {
            Invalidate::Tags { tags } => {
                Self::Tags(tags.iter().map(|tag| Bytes::copy_from_slice(tag)).collect())
            }
            Invalidate::Prefix { prefix } => Self::Prefix(Bytes::copy_from_slice(prefix)),
        }
    }
}

impl Question {
    /// Whether it changes something, so that an answer that is lost leaves it in doubt.
    fn is_change(&self) -> bool {
        match self {
            Self::Count | Self::Page { .. } | Self::Random { .. } => false,
            Self::Flush | Self::Invalidate(_) => true,
        }
    }
}

/// What a partition answers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Count(u64),
    /// `next` is [`Cursor::START`] when the partition has no more.
    Page {
        next: Cursor,
        keys: Vec<Vec<u8>>,
    },
    Random(Option<Vec<u8>>),
    Flushed,
    /// How many keys were removed.
    Invalidated(u64),
}

/// Why a partition has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// Nothing happened: it is led elsewhere, or by nobody, or no quorum confirms it.
    NotDone,
    /// Nothing happened: it has too few replicas for writes.
    TooFewReplicas,
    /// It may have happened.
    InDoubt,
    /// It is led elsewhere, where the client can ask for itself.
    Elsewhere,
}

/// Serves a client's command and appends the reply.
pub(crate) async fn serve_client(
    core: &Arc<Core>,
    door: Door,
    span: &Span<'_>,
    protocol: Protocol,
    out: &mut Vec<u8>,
) {
    let asking = Asking { core: Arc::clone(core), door };
    let start = out.len();
    let served = match span {
        Span::Count => asking.count_all().await.map(|count| {
            Encoder::new(out, protocol).integer(i64::try_from(count).unwrap_or(i64::MAX));
        }),
        Span::Keys { pattern } => asking.keys(pattern, protocol, out).await,
        Span::Scan(scan) => asking.scan(scan).await.map(|(next, keys)| {
            let mut reply = Encoder::new(out, protocol);
            reply.array(2);
            reply.bulk(next.number().to_string().as_bytes());
            reply.array(keys.len());
            keys.iter().for_each(|key| reply.bulk(key));
        }),
        Span::RandomKey => asking.random_key().await.map(|key| {
            let mut reply = Encoder::new(out, protocol);
            match key {
                Some(key) => reply.bulk(&key),
                None => reply.null(),
            }
        }),
        Span::Flush(_) => asking.flush().await.map(|()| Encoder::new(out, protocol).ok()),
        Span::Invalidate(what) => {
            // Of all partitions, also where a client could ask their leaders itself: it names no key that
            // would tell it whom to ask.
            let asking = Asking { core: Arc::clone(core), door: Door::AnyKey };
            asking.change_all(Question::Invalidate(Outdated::of(what))).await.map(|removed| {
                let mut reply = Encoder::new(out, protocol);
                match what {
                    Invalidate::Tags { .. } => reply.ok(),
                    Invalidate::Prefix { .. } => {
                        reply.integer(i64::try_from(removed).unwrap_or(i64::MAX));
                    }
                }
            })
        }
    };
    if let Err(missing) = served {
        out.truncate(start);
        put_missing(core, missing, &mut Encoder::new(out, protocol));
    }
}

/// Serves what another node asks of a partition that we lead.
pub(crate) async fn serve(core: Arc<Core>, body: Bytes, reply: ReplyTo) {
    let Some((id, question)) = message::decode_question(body) else {
        return reply.refuse("a question in another version");
    };
    let hosted = core.hosting.now();
    let answer = match hosted.of_partition(id).filter(|partition| partition.leads()) {
        Some(partition) => {
            piece::answer(&core, partition, &question, Instant::now() + PATIENCE).await
        }
        None => Err(Missing::NotDone),
    };
    reply.send(message::encode_answer(&answer));
}

/// `CLUSTER COUNTKEYSINSLOT`: as in Redis 0 for a slot that this node does not lead.
pub(crate) async fn put_slot_count(core: &Core, slot: Slot, reply: &mut Encoder<'_>) {
    let hosted = core.hosting.now();
    let counted = match hosted.at(slot).filter(|partition| partition.leads()) {
        None => Ok(0),
        Some(partition) => {
            let by = Instant::now() + PATIENCE;
            piece::read(core, partition, by, |store, _| store.count_in_slot(slot)).await
        }
    };
    match counted {
        Ok(count) => reply.integer(count as i64),
        Err(missing) => put_missing(core, missing, reply),
    }
}

/// `CLUSTER GETKEYSINSLOT`: as in Redis none for a slot that this node does not lead.
pub(crate) async fn put_slot_keys(core: &Core, slot: Slot, count: usize, reply: &mut Encoder<'_>) {
    let hosted = core.hosting.now();
    let found = match hosted.at(slot).filter(|partition| partition.leads()) {
        None => Ok(Vec::new()),
        Some(partition) => {
            let by = Instant::now() + PATIENCE;
            let keys = piece::read(core, partition, by, |store, time| {
                store.keys_in_slot(slot, count, time).into_iter().map(<[u8]>::to_vec).collect()
            });
            keys.await
        }
    };
    match found {
        Ok(keys) => {
            let keys: Vec<Vec<u8>> = keys;
            reply.array(keys.len());
            keys.iter().for_each(|key| reply.bulk(key));
        }
        Err(missing) => put_missing(core, missing, reply),
    }
}

fn put_missing(core: &Core, missing: Missing, reply: &mut Encoder<'_>) {
    let (refusal, code) = match missing {
        Missing::NotDone | Missing::Elsewhere => (Refusal::ClusterDown, ErrorCode::ClusterDown),
        Missing::TooFewReplicas => (Refusal::TooFewReplicas, ErrorCode::NoReplicas),
        Missing::InDoubt => (Refusal::InDoubt, ErrorCode::InDoubt),
    };
    core.stats.erred(code);
    put_refusal(reply, &refusal);
}

/// Asks partitions on behalf of a client.
#[derive(Clone)]
struct Asking {
    core: Arc<Core>,
    door: Door,
}

impl Asking {
    /// The slots of the partitions that a command at this door is about, in order.
    fn ranges(&self) -> Result<Vec<SlotRange>, Missing> {
        let mut ranges: Vec<_> = match self.door {
            Door::Cluster | Door::Peer => {
                self.core.hosting.now().led().iter().map(|partition| partition.slots).collect()
            }
            Door::AnyKey => {
                let table = self.core.tables.newest().ok_or(Missing::NotDone)?;
                table.partitions.values().map(|partition| partition.slots).collect()
            }
        };
        ranges.sort_unstable();
        Ok(ranges)
    }

    /// Asks all partitions the same, some at a time; answers in their order.
    async fn ask_all(
        &self,
        question: Question,
    ) -> Result<Vec<(SlotRange, Result<Answer, Missing>)>, Missing> {
        let asked = self.ranges()?.into_iter().map(|range| {
            let (asking, question) = (self.clone(), question.clone());
            async move { (range, asking.ask(range, &question).await) }
        });
        Ok(stream::iter(asked).buffered(ASKED_COUNT_MAX).collect().await)
    }

    /// Asks a partition until it answers or patience ends.
    async fn ask(&self, range: SlotRange, question: &Question) -> Result<Answer, Missing> {
        let by = Instant::now() + PATIENCE;
        let mut routes = self.core.routes.subscribe();
        loop {
            routes.mark_unchanged();
            let tried = match (self.core.route(range.first()), self.door) {
                (Route::Serve(partition), _) => {
                    piece::answer(&self.core, &partition, question, by).await
                }
                (Route::Elsewhere { node, endpoints }, Door::AnyKey) => {
                    self.ask_there(node, &endpoints, range, question, by).await
                }
                (Route::Elsewhere { .. }, Door::Cluster | Door::Peer) => Err(Missing::Elsewhere),
                (Route::Unknown, _) => Err(Missing::NotDone),
            };
            if tried != Err(Missing::NotDone) || Instant::now() >= by {
                return tried;
            }
            let again = (Instant::now() + ASK_AGAIN).min(by);
            let _changed_or_late = tokio::time::timeout_at(again, routes.changed()).await;
        }
    }

    async fn ask_there(
        &self,
        node: NodeId,
        endpoints: &Endpoints,
        range: SlotRange,
        question: &Question,
        by: Instant,
    ) -> Result<Answer, Missing> {
        let table = self.core.tables.newest().ok_or(Missing::NotDone)?;
        let id = table.partition_of(range.first());
        let body = message::encode_question(id, question);
        let to = Target { node, addr: endpoints.peer };
        // A flush waits for its quorum there.
        let by = by.max(Instant::now() + self.core.config.write_timeout);
        let call = self.core.peers.call(to, Lane::Bulk, Kind::Span.number(), body, by);
        let lost = if question.is_change() { Missing::InDoubt } else { Missing::NotDone };
        match call.await {
            Ok(answer) => message::decode_answer(answer, question).unwrap_or(Err(lost)),
            Err(
                CallError::Unsent(_) | CallError::Refused(_) | CallError::Deadline { sent: false },
            ) => Err(Missing::NotDone),
            Err(CallError::Lost | CallError::Deadline { sent: true }) => Err(lost),
        }
    }

    /// How many keys each partition has. One that has gone elsewhere has none here.
    async fn counts(&self) -> Result<Vec<(SlotRange, u64)>, Missing> {
        let answers = self.ask_all(Question::Count).await?;
        let counts = answers.into_iter().filter_map(|(range, answer)| match answer {
            Ok(Answer::Count(count)) => Some(Ok((range, count))),
            Ok(
                Answer::Page { .. } | Answer::Random(_) | Answer::Flushed | Answer::Invalidated(_),
            ) => None,
            Err(Missing::Elsewhere) => None,
            Err(missing) => Some(Err(missing)),
        });
        counts.collect()
    }

    async fn count_all(&self) -> Result<u64, Missing> {
        Ok(self.counts().await?.iter().map(|(_, count)| count).sum())
    }

    /// `None`: the partition has gone elsewhere.
    async fn page(
        &self,
        range: SlotRange,
        cursor: Cursor,
        count: u32,
        pattern: &Bytes,
    ) -> Result<Option<(Cursor, Vec<Vec<u8>>)>, Missing> {
        let question = Question::Page { cursor, count, pattern: pattern.clone() };
        match self.ask(range, &question).await {
            Ok(Answer::Page { next, keys }) => Ok(Some((next, keys))),
            Ok(Answer::Count(_) | Answer::Random(_) | Answer::Flushed | Answer::Invalidated(_)) => {
                Err(Missing::NotDone)
            }
            Err(Missing::Elsewhere) => Ok(None),
            Err(missing) => Err(missing),
        }
    }

    /// Appends an array of all keys that match.
    async fn keys(
        &self,
        pattern: &Glob<'_>,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> Result<(), Missing> {
        let pattern = Bytes::copy_from_slice(pattern.as_bytes());
        let (mut found, mut found_count) = (Vec::new(), 0);
        for range in self.ranges()? {
            let before = (found.len(), found_count);
            let mut cursor = Cursor::at_slot(range.first());
            loop {
                let page = self.page(range, cursor, piece::PAGE_KEYS_MAX, &pattern).await?;
                let Some((next, keys)) = page else {
                    // Whoever leads it now tells its keys.
                    found.truncate(before.0);
                    found_count = before.1;
                    break;
                };
                found_count += keys.len();
                let mut into = Encoder::new(&mut found, protocol);
                keys.iter().for_each(|key| into.bulk(key));
                if next == Cursor::START {
                    break;
                }
                cursor = next;
                tokio::task::yield_now().await;
            }
        }
        Encoder::new(out, protocol).array(found_count);
        out.extend_from_slice(&found);
        Ok(())
    }

    /// The next cursor, and keys. A cursor names a slot of the cluster and a place in it that is the same
    /// in every replica, so that a scan goes on wherever leadership went.
    async fn scan(&self, scan: &Scan<'_>) -> Result<(Cursor, Vec<Vec<u8>>), Missing> {
        let mut walk = Walk::from(scan);
        let (Some(from), false) = (walk.cursor.slot(), scan.kind == ScanKind::Absent) else {
            return Ok((Cursor::START, Vec::new()));
        };
        let pattern = scan.pattern.map_or(&b"*"[..], |pattern| pattern.as_bytes());
        let pattern = Bytes::copy_from_slice(pattern);
        let ranges = self.ranges()?;
        let ahead = ranges.into_iter().filter(|range| range.last() >= from);
        for (passed, range) in ahead.enumerate() {
            if passed == SCANNED_PARTITIONS_MAX || walk.is_done() {
                return Ok((Cursor::at_slot(range.first()).max(walk.cursor), walk.keys));
            }
            walk.cursor = walk.cursor.max(Cursor::at_slot(range.first()));
            loop {
                let step = walk.step();
                let page = self.page(range, walk.cursor, step, &pattern).await?;
                let Some((next, keys)) = page else { break };
                if next == Cursor::START {
                    // Fewer were looked at, but not fewer than these; and many partitions may be empty.
                    let looked_at = keys.len() as u64;
                    walk.take(keys, looked_at);
                    break;
                }
                walk.take(keys, step.into());
                walk.cursor = next;
                if walk.is_done() {
                    return Ok((next, walk.keys));
                }
                tokio::task::yield_now().await;
            }
        }
        Ok((Cursor::START, walk.keys))
    }

    /// A key, each about as likely as any other.
    async fn random_key(&self) -> Result<Option<Vec<u8>>, Missing> {
        let mut counts = self.counts().await?;
        loop {
            counts.retain(|&(_, count)| count > 0);
            let sum: u64 = counts.iter().map(|&(_, count)| count).sum();
            if sum == 0 {
                return Ok(None);
            }
            let mut rank = self.core.chance.roll() % sum;
            let chosen = counts.iter().position(|&(_, count)| {
                let is_here = rank < count;
                rank = rank.saturating_sub(count);
                is_here
            });
            let chosen = chosen.expect("a rank below the sum is in one of its parts");
            let question = Question::Random { roll: self.core.chance.roll() };
            match self.ask(counts[chosen].0, &question).await {
                Ok(Answer::Random(Some(key))) => return Ok(Some(key)),
                // What was counted has expired, or is gone.
                Ok(
                    Answer::Random(None)
                    | Answer::Count(_)
                    | Answer::Page { .. }
                    | Answer::Flushed
                    | Answer::Invalidated(_),
                )
                | Err(Missing::Elsewhere) => counts[chosen].1 = 0,
                Err(missing) => return Err(missing),
            }
        }
    }

    /// Done if all partitions are, not done if none is, and else in doubt.
    async fn flush(&self) -> Result<(), Missing> {
        self.change_all(Question::Flush).await.map(|_| ())
    }

    /// As [`Asking::flush`]. Answers how many keys were removed, where that is told.
    async fn change_all(&self, question: Question) -> Result<u64, Missing> {
        self.core.near.end_all();
        let answers = self.ask_all(question).await;
        self.core.near.end_all();
        let answers = answers?;
        let missing: Vec<_> = answers.iter().filter_map(|(_, it)| it.as_ref().err()).collect();
        match missing.first() {
            None => Ok(answers.iter().map(|(_, answer)| removed_by(answer)).sum()),
            Some(_) if missing.len() < answers.len() => Err(Missing::InDoubt),
            Some(_) if missing.contains(&&Missing::InDoubt) => Err(Missing::InDoubt),
            Some(&&missing) => Err(missing),
        }
    }
}

fn removed_by(answer: &Result<Answer, Missing>) -> u64 {
    match answer {
        Ok(Answer::Invalidated(count)) => *count,
        Ok(Answer::Count(_) | Answer::Page { .. } | Answer::Random(_) | Answer::Flushed)
        | Err(_) => 0,
    }
}

/// One `SCAN` under way.
struct Walk {
    cursor: Cursor,
    keys: Vec<Vec<u8>>,
    bytes: usize,
    /// Keys that are still to be looked at.
    left: u64,
    count: u64,
}

impl From<&Scan<'_>> for Walk {
    fn from(scan: &Scan<'_>) -> Self {
        let count = scan.count.clamp(1, SCANNED_KEYS_MAX);
        let cursor = Cursor::new(scan.cursor);
        Self { cursor, keys: Vec::new(), bytes: 0, left: count, count }
    }
}

impl Walk {
    /// Keys to look at next.
    fn step(&self) -> u32 {
        u32::try_from(self.left).unwrap_or(u32::MAX).clamp(1, piece::PAGE_KEYS_MAX)
    }

    fn take(&mut self, keys: Vec<Vec<u8>>, looked_at: u64) {
        self.bytes += keys.iter().map(Vec::len).sum::<usize>();
        self.left = self.left.saturating_sub(looked_at);
        self.keys.extend(keys);
    }

    fn is_done(&self) -> bool {
        self.left == 0 || self.keys.len() as u64 >= self.count || self.bytes >= SCANNED_BYTES_MAX
    }
}
