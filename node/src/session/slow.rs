//! Serving one command at a time, with patience: it waits for leaders to be found and leases to be
//! renewed, up to a deadline. Pipelines take the fast way of [`super::stage`]; here comes what could not.

mod near;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use scatterhoard_command::{
    Command, CrossSlot, Merge, Split, encode_reply, keys_of_write, slot_of_read, slot_of_write,
    split_read, split_write,
};
use scatterhoard_replication::probe::{self, Event, Point};
use scatterhoard_resp::{Args, Decoded, Decoder, Encoder, Limits, Protocol};
use scatterhoard_ring::{NodeId, Slot};
use scatterhoard_store::{OpError, Read, Reply, Step, Token, Wants, Write, encode_step};
use tokio::time::Instant;

use super::buffer::Share;
use super::refusal::{Refusal, put_refusal};
use super::size::{ANSWERS_BYTES_MAX, reply_bytes, reply_bytes_max};
use super::stage::{Door, Effect, Outcome, refused_early, register_lease};
use crate::clock::WallClock as _;
use crate::core::Core;
use crate::forward::{self, Forwarded};
use crate::near::Ending;
use crate::partition::{Partition, WriteError};
use crate::route::Route;
use crate::tracking::Asker;

/// What the reply to `HOARD.WAIT` begins with while somebody loads. Milliseconds follow.
const WAIT_REPLY: &[u8] = b"*2\r\n$4\r\nwait\r\n:";

/// How long a command waits for somebody to lead its slot. Clients give up after about as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pause before a node that does not know its leadership yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Serves commands one by one until a deadline that they share.
pub(crate) struct Patience {
    core: Arc<Core>,
    door: Door,
    protocol: Protocol,
    asker: Asker,
    /// Until then leaders are waited for.
    until: Instant,
    /// From then on nothing is begun: a stage may have thousands of commands that each take long.
    end: Instant,
    /// Bytes of the replies so far, which all wait in memory.
    held_bytes: AtomicUsize,
    /// What they take of the memory for all clients.
    share: Mutex<Share>,
    /// To a peer something was not done, so nothing after it may be: it would overtake.
    refuses: AtomicBool,
}

/// A read or a write with its slot.
enum Op<'a> {
    Read(Read<'a>),
    Write(Write<'a>),
}

/// What became of one operation.
#[derive(Debug, PartialEq)]
enum Served {
    /// The store's answer.
    Reply(Reply<'static>),
    /// Another node's answer, encoded.
    Encoded(Bytes),
    /// Refused; no effect unless the refusal says so.
    Refused(Refusal),
}

impl Patience {
    pub(crate) fn new(core: &Arc<Core>, door: Door, protocol: Protocol) -> Self {
        let now = Instant::now();
        Self {
            core: Arc::clone(core),
            door,
            protocol,
            asker: Asker::default(),
            until: now + PATIENCE,
            end: now + core.config.write_timeout.max(PATIENCE),
            held_bytes: AtomicUsize::new(0),
            share: Mutex::new(Share::new(&core.clients.buffers)),
            refuses: AtomicBool::new(false),
        }
    }

    /// The same, for somebody who tracks.
    pub(crate) fn of(self, asker: Asker) -> Self {
        Self { asker, ..self }
    }

    /// So many bytes of replies more are in memory.
    pub(crate) fn holds(&self, bytes: usize) {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether so many bytes of replies more may be: for this client, and for all together.
    fn has_room(&self, more: usize) -> bool {
        let held = self.held_bytes.load(Ordering::Relaxed).saturating_add(more);
        held <= reply_bytes_max(&self.core, self.door) && self.share.lock().cover(held).is_ok()
    }

    /// Serves a request that parsed before, and appends its reply.
    pub(crate) async fn serve(&self, request: &[u8], out: &mut Vec<u8>) -> Outcome {
        let mut decoder = Decoder::new(Limits {
            bulk_bytes_max: usize::MAX,
            request_bytes_max: usize::MAX,
            ..Limits::DEFAULT
        });
        let Ok(Decoded::Request(request)) = decoder.decode(request) else {
            return Outcome::NotDone;
        };
        let args = request.args();
        match (scatterhoard_command::parse(args, self.core.wall.now()), self.door) {
            (Ok(Command::Read(read)), Door::Peer) => {
                self.serve_peer(slot_of_read(&read), &Op::Read(read), out).await
            }
            (Ok(Command::Write(write)), Door::Peer) => {
                self.serve_peer(slot_of_write(&write), &Op::Write(write), out).await
            }
            (Ok(Command::Read(read)), Door::Cluster | Door::AnyKey) => {
                self.serve_read(args, read, out).await
            }
            (Ok(Command::Write(write)), Door::Cluster | Door::AnyKey) => {
                self.serve_write(args, write, out).await
            }
            (Ok(Command::Load(load)), door) => match (load.propose(self.token()), door) {
                (Some(write), Door::Peer) => {
                    self.serve_peer(slot_of_write(&write), &Op::Write(write), out).await
                }
                (Some(write), Door::Cluster | Door::AnyKey) => {
                    self.serve_write(args, write, out).await
                }
                (None, _) => Outcome::NotDone,
            },
            (Ok(Command::Span(_) | Command::Session(_) | Command::Server(_)) | Err(_), _) => {
                Outcome::NotDone
            }
        }
    }

    fn token(&self) -> Token {
        Token(self.core.chance.roll())
    }

    /// Serves a peer what we lead, once. Who asked knows better where to ask next, and asks again.
    async fn serve_peer(
        &self,
        slot: Result<Slot, CrossSlot>,
        op: &Op<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let late = self.refuses.load(Ordering::Relaxed) || Instant::now() >= self.end;
        let full = self.held_bytes.load(Ordering::Relaxed) >= ANSWERS_BYTES_MAX;
        let route = slot.map(|slot| (slot, self.core.route(slot)));
        let served = match route {
            Ok((slot, Route::Serve(partition))) if !late && !full => {
                self.serve_here(&partition, slot, op).await
            }
            Ok((_, Route::Serve(_) | Route::Elsewhere { .. } | Route::Unknown))
            | Err(CrossSlot) => None,
        };
        match served {
            Some(Served::Refused(Refusal::InDoubt)) => Outcome::InDoubt,
            Some(served) => self.put(served, out),
            None => {
                self.refuses.store(true, Ordering::Relaxed);
                Outcome::NotDone
            }
        }
    }

    /// Serves a read, split over slots if the door allows.
    pub(crate) async fn serve_read(
        &self,
        args: Args<'_>,
        read: Read<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let many = match &read {
            Read::GetMany { keys } if self.asker.near => Some(keys.clone()),
            _ => None,
        };
        match split_read(read) {
            Split::Whole { slot, op } => {
                let served = self.serve_one(slot, &Op::Read(op), Some(args)).await;
                self.put(served, out)
            }
            Split::Parts { parts, merge } => {
                if let Some(keys) = many {
                    let served = self.serve_near(&keys).await;
                    return self.put(served, out);
                }
                let parts = parts.into_iter().map(|(slot, read)| (slot, Op::Read(read)));
                self.serve_parts(parts.collect(), merge, out).await
            }
        }
    }

    /// Serves a write, split over slots if the door allows.
    pub(crate) async fn serve_write(
        &self,
        args: Args<'_>,
        write: Write<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match split_write(write) {
            Ok(Split::Whole { slot, op }) => {
                let served = self.serve_one(slot, &Op::Write(op), Some(args)).await;
                self.put(served, out)
            }
            Ok(Split::Parts { parts, merge }) => {
                let parts = parts.into_iter().map(|(slot, write)| (slot, Op::Write(write)));
                self.serve_parts(parts.collect(), merge, out).await
            }
            Err(_) => self.put(Served::Refused(Refusal::CrossSlot), out),
        }
    }

    /// Serves a look at a key that may be being loaded. Answers for how long at most, if it is.
    pub(crate) async fn serve_wait(
        &self,
        slot: Slot,
        key: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Duration> {
        let look = Op::Read(Read::Lookup { key, wants: Wants::Wait });
        let start = out.len();
        let served = self.serve_one(slot, &look, None).await;
        let _done = self.put(served, out);
        let left = out[start..].strip_prefix(WAIT_REPLY)?.strip_suffix(b"\r\n")?;
        str::from_utf8(left).ok()?.parse().ok().map(Duration::from_millis)
    }

    fn put(&self, served: Served, out: &mut Vec<u8>) -> Outcome {
        let mut encoder = Encoder::new(out, self.protocol);
        match served {
            Served::Reply(reply) => encode_reply(&mut encoder, &reply),
            Served::Encoded(bytes) => out.extend_from_slice(&bytes),
            Served::Refused(refusal) => put_refusal(&mut encoder, &refusal),
        }
        Outcome::Done
    }

    async fn serve_parts(
        &self,
        parts: Vec<(Slot, Op<'_>)>,
        merge: Merge,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let effect = match parts.first() {
            Some((_, Op::Write(_))) => Effect::Writes,
            Some((_, Op::Read(_))) | None => Effect::Reads,
        };
        let served = join_all(parts.iter().map(|(slot, op)| self.serve_one(*slot, op, None))).await;
        self.put(merged(served, effect, merge), out)
    }

    /// Serves an operation on one slot. `args` is the whole request, if the operation is all of it.
    async fn serve_one(&self, slot: Slot, op: &Op<'_>, args: Option<Args<'_>>) -> Served {
        let mut routes = self.core.routes.subscribe();
        loop {
            if Instant::now() >= self.end {
                return Served::Refused(Refusal::ClusterDown);
            }
            routes.mark_unchanged();
            let tried = match self.core.route(slot) {
                Route::Serve(partition) => self.serve_here(&partition, slot, op).await,
                Route::Elsewhere { node, endpoints } => match self.door {
                    Door::Cluster => {
                        Some(Served::Refused(Refusal::Moved { slot, to: endpoints.listen }))
                    }
                    Door::AnyKey | Door::Peer => self.serve_there((node, slot), op, args).await,
                },
                Route::Unknown => None,
            };
            if let Some(served) = tried {
                return served;
            }
            if Instant::now() >= self.until {
                return Served::Refused(Refusal::ClusterDown);
            }
            let again = (Instant::now() + ASK_AGAIN).min(self.until);
            let _changed_or_late = tokio::time::timeout_at(again, routes.changed()).await;
        }
    }

    async fn serve_here(
        &self,
        partition: &Arc<Partition>,
        slot: Slot,
        op: &Op<'_>,
    ) -> Option<Served> {
        match op {
            Op::Read(read) => {
                let (now, of) = (Instant::now(), partition.group.spec().founded());
                if let Some(lease) = partition.lease(now) {
                    let served = self.read_now(partition, slot, read);
                    probe::at(Point::AfterRead).await;
                    if partition.group.lease_holds(lease, Instant::now()) {
                        probe::saw(|| Event::Answered { of, by_lease: true });
                        return Some(self.held(served));
                    }
                    probe::saw(|| Event::LeaseLost { of });
                    self.core.stats.lost_lease();
                }
                let by = (now + PATIENCE).min(self.end);
                partition.read_index(by).await.ok()?;
                self.core.stats.confirmed_read();
                probe::at(Point::AfterReadIndex).await;
                probe::saw(|| Event::Answered { of, by_lease: false });
                Some(self.held(self.read_now(partition, slot, read)))
            }
            Op::Write(write) => {
                if let (Some(reader), Write::Lease { key, wants, .. }) = (self.asker.reader, write)
                {
                    let read = Read::Lookup { key, wants: *wants };
                    register_lease(&self.core, partition, reader, (slot, &read));
                }
                if let Some(refusal) = refused_early(&self.core, partition, write) {
                    return Some(Served::Refused(refusal));
                }
                if !self.has_room(0) {
                    return Some(Served::Refused(Refusal::ReplyTooBig));
                }
                let mut steps = Vec::with_capacity(256);
                encode_step(&mut steps, &Step { slot, write: write.clone() });
                let write_by = Instant::now() + self.core.config.write_timeout;
                let written = tokio::time::timeout_at(
                    write_by,
                    partition.submit(steps, 1, self.asker.writer),
                )
                .await;
                match written.unwrap_or(Err(WriteError::InDoubt)) {
                    // Done without a word of what it came to: it must not be done again.
                    Ok(replies) => Some(match replies.into_iter().next() {
                        Some(reply) => self.held(Served::Reply(reply)),
                        None => Served::Refused(Refusal::InDoubt),
                    }),
                    Err(WriteError::NotDone) => None,
                    Err(WriteError::InDoubt) => Some(Served::Refused(Refusal::InDoubt)),
                }
            }
        }
    }

    fn read_now(&self, partition: &Partition, slot: Slot, read: &Read<'_>) -> Served {
        let time = partition.time(Instant::now());
        let store = partition.store.lock();
        if let Some(reader) = self.asker.reader {
            let by = (partition.replica(), reader);
            self.core.tracking.register(by, &store, (slot, read), time);
        }
        let reply = store.read(slot, read, time);
        self.core.stats.saw(&reply);
        // Measured while it is still lent: this is what keeps one request from taking all memory.
        if !self.has_room(reply_bytes(&reply)) {
            return Served::Refused(Refusal::ReplyTooBig);
        }
        Served::Reply(reply.into_owned())
    }

    fn held(&self, served: Served) -> Served {
        if let Served::Reply(reply) = &served {
            self.holds(reply_bytes(reply));
        }
        served
    }

    async fn serve_there(
        &self,
        (node, slot): (NodeId, Slot),
        op: &Op<'_>,
        args: Option<Args<'_>>,
    ) -> Option<Served> {
        if !self.has_room(0) {
            return Some(Served::Refused(Refusal::ReplyTooBig));
        }
        let mut request = Vec::new();
        let mut encoder = Encoder::new(&mut request, Protocol::Resp2);
        match args {
            Some(args) => encoder.request(args),
            None => {
                let words = words_of(op);
                encoder.request(Args::from(&words));
            }
        }
        let by = Instant::now() + self.core.config.write_timeout;
        let ending = self.end_copies(slot, op);
        let sent =
            forward::send(&self.core, node, self.protocol, 1, Bytes::from(request), by).await;
        if let Some(ending) = ending {
            self.core.near.ended(&ending);
        }
        match sent {
            Forwarded::Answered(mut answers) => match answers.pop() {
                Some((Outcome::Done, reply)) => {
                    let too_big = !self.has_room(reply.len());
                    self.holds(reply.len());
                    Some(match op {
                        Op::Read(_) if too_big => Served::Refused(Refusal::ReplyTooBig),
                        Op::Read(_) | Op::Write(_) => Served::Encoded(reply),
                    })
                }
                Some((Outcome::NotDone, _)) => None,
                Some((Outcome::InDoubt, _)) | None => self.lost(op),
            },
            Forwarded::NotSent => None,
            Forwarded::InDoubt => self.lost(op),
        }
    }

    /// Ends the copies of what is about to be written elsewhere.
    fn end_copies(&self, slot: Slot, op: &Op<'_>) -> Option<Ending> {
        match op {
            Op::Write(write) if self.core.near.is_allowed() => {
                let partition = self.core.tables.newest()?.partition_of(slot);
                Some(self.core.near.end(partition, keys_of_write(write)))
            }
            Op::Write(_) | Op::Read(_) => None,
        }
    }

    /// A read that got lost is asked again; a write that got lost is in doubt.
    #[expect(clippy::unused_self, reason = "reads as one of the outcomes")]
    fn lost(&self, op: &Op<'_>) -> Option<Served> {
        match op {
            Op::Read(_) => None,
            Op::Write(_) => Some(Served::Refused(Refusal::InDoubt)),
        }
    }
}

/// What the parts of a command over several slots come to. It is done if all its parts are, not done if
/// none is, and otherwise in doubt; only a read may fail as a part of it did.
fn merged(parts: Vec<Served>, effect: Effect, merge: Merge) -> Served {
    let mut done = Vec::with_capacity(parts.len());
    let mut in_doubt = false;
    let mut refused = None;
    for part in parts {
        match part {
            Served::Refused(Refusal::InDoubt)
            | Served::Reply(Reply::Error(OpError::AnswerLost)) => {
                in_doubt = true;
            }
            Served::Reply(Reply::Error(_)) | Served::Refused(_) => {
                refused.get_or_insert(part);
            }
            Served::Reply(reply) => done.push(reply),
            Served::Encoded(bytes) => match forward::reply_of(&bytes) {
                Some(reply) => done.push(reply),
                // What is neither an answer nor an error says nothing about what was done.
                None if !bytes.starts_with(b"-") || bytes.starts_with(b"-INDOUBT") => {
                    in_doubt = true;
                }
                None => {
                    refused.get_or_insert(Served::Encoded(bytes));
                }
            },
        }
    }
    match (effect, refused) {
        (Effect::Writes, _) if in_doubt => Served::Refused(Refusal::InDoubt),
        (Effect::Reads, None) if in_doubt => Served::Refused(Refusal::ClusterDown),
        (_, None) => Served::Reply(merge.merge(done)),
        (Effect::Writes, Some(_)) if !done.is_empty() => Served::Refused(Refusal::InDoubt),
        (Effect::Reads | Effect::Writes, Some(refused)) => refused,
    }
}

/// The command for a part of a split one, or for a look while one waits.
fn words_of<'a>(op: &Op<'a>) -> Vec<&'a [u8]> {
    let listed = |name: &'a [u8], keys: &[&'a [u8]]| {
        std::iter::once(name).chain(keys.iter().copied()).collect::<Vec<_>>()
    };
    match op {
        Op::Read(Read::Lookup { key, wants: Wants::Wait }) => vec![b"HOARD.WAIT", key, b"0"],
        Op::Read(Read::GetMany { keys }) => listed(b"MGET", keys),
        Op::Read(Read::Exists { keys }) => listed(b"EXISTS", keys),
        Op::Read(Read::Touch { keys }) => listed(b"TOUCH", keys),
        Op::Write(Write::Delete { keys }) => listed(b"DEL", keys),
        Op::Write(Write::SetMany { pairs }) => {
            let words = pairs.iter().flat_map(|&(key, value)| [key, value]);
            std::iter::once(&b"MSET"[..]).chain(words).collect()
        }
        Op::Read(_) | Op::Write(_) => unreachable!("only these commands are made here"),
    }
}

#[cfg(test)]
mod tests;
