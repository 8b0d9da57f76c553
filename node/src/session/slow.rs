//! Serving one command at a time, with patience: it waits for leaders to be found and leases to be
//! renewed, up to a deadline. Pipelines take the fast way of [`super::stage`]; here comes what could not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use scatterhoard_command::{Command, Merge, Split, encode_reply, split_read, split_write};
use scatterhoard_resp::{Args, Decoded, Decoder, Encoder, Limits, Protocol};
use scatterhoard_ring::{NodeId, Slot};
use scatterhoard_store::{Read, Reply, Step, Write, encode_step};
use tokio::time::Instant;

use super::refusal::{Refusal, put_refusal};
use super::stage::{Door, Outcome, refused_early};
use crate::clock::WallClock as _;
use crate::core::Core;
use crate::forward::{self, Forwarded};
use crate::partition::{Partition, WriteError};
use crate::route::Route;

/// How long a command waits for somebody to lead its slot. Clients give up after about as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pause before a node that does not know its leadership yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Serves commands one by one until a deadline that they share.
pub(crate) struct Patience {
    core: Arc<Core>,
    door: Door,
    protocol: Protocol,
    until: Instant,
}

/// A read or a write with its slot.
enum Op<'a> {
    Read(Read<'a>),
    Write(Write<'a>),
}

/// What became of one operation.
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
        Self { core: Arc::clone(core), door, protocol, until: Instant::now() + PATIENCE }
    }

    /// Serves a request that parsed before, and appends its reply.
    pub(crate) async fn serve(&self, request: &[u8], out: &mut Vec<u8>) -> Outcome {
        if self.door == Door::Peer {
            // Who asked knows better where to ask next.
            return Outcome::NotDone;
        }
        let mut decoder = Decoder::new(Limits {
            bulk_bytes_max: usize::MAX,
            request_bytes_max: usize::MAX,
            ..Limits::DEFAULT
        });
        let Ok(Decoded::Request(request)) = decoder.decode(request) else {
            return Outcome::NotDone;
        };
        let args = request.args();
        match scatterhoard_command::parse(args, self.core.wall.now()) {
            Ok(Command::Read(read)) => self.serve_read(args, read, out).await,
            Ok(Command::Write(write)) => self.serve_write(args, write, out).await,
            Ok(Command::Span(_) | Command::Session(_) | Command::Server(_)) | Err(_) => {
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
        match split_read(read) {
            Split::Whole { slot, op } => {
                let served = self.serve_one(slot, &Op::Read(op), Some(args)).await;
                self.put(served, out)
            }
            Split::Parts { parts, merge } => {
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

    fn put(&self, served: Served, out: &mut Vec<u8>) -> Outcome {
        let mut encoder = Encoder::new(out, self.protocol);
        match served {
            Served::Reply(reply) => encode_reply(&mut encoder, &reply),
            Served::Encoded(bytes) => out.extend_from_slice(&bytes),
            Served::Refused(refusal) => put_refusal(&mut encoder, &refusal),
        }
        Outcome::Done
    }

    /// A command over several slots is done if all its parts are, not done if none is, and otherwise in
    /// doubt.
    async fn serve_parts(
        &self,
        parts: Vec<(Slot, Op<'_>)>,
        merge: Merge,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let writes = parts.iter().any(|(_, op)| matches!(op, Op::Write(_)));
        let served = join_all(parts.iter().map(|(slot, op)| self.serve_one(*slot, op, None))).await;
        let mut replies = Vec::with_capacity(served.len());
        let mut refused = Vec::new();
        for served in served {
            match served {
                Served::Reply(reply) => replies.push(reply),
                Served::Encoded(bytes) => match forward::reply_of(&bytes) {
                    Some(reply) => replies.push(reply),
                    None => return self.put(Served::Encoded(bytes), out),
                },
                Served::Refused(refusal) => refused.push(refusal),
            }
        }
        let served = match refused.first() {
            None => Served::Reply(merge.merge(replies)),
            Some(_) if writes && !replies.is_empty() => Served::Refused(Refusal::InDoubt),
            Some(_) if refused.contains(&Refusal::InDoubt) => Served::Refused(Refusal::InDoubt),
            Some(&refusal) => Served::Refused(refusal),
        };
        self.put(served, out)
    }

    /// Serves an operation on one slot. `args` is the whole request, if the operation is all of it.
    async fn serve_one(&self, slot: Slot, op: &Op<'_>, args: Option<Args<'_>>) -> Served {
        let mut routes = self.core.routes.subscribe();
        loop {
            routes.mark_unchanged();
            let tried = match self.core.route(slot) {
                Route::Serve(partition) => self.serve_here(&partition, slot, op).await,
                Route::Elsewhere { node, endpoints } => match self.door {
                    Door::Cluster => {
                        Some(Served::Refused(Refusal::Moved { slot, to: endpoints.listen }))
                    }
                    Door::AnyKey | Door::Peer => self.serve_there(node, op, args).await,
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
                let now = Instant::now();
                if let Some(lease) = partition.lease(now) {
                    let reply = self.read_now(partition, slot, read);
                    if partition.group.lease_holds(lease, Instant::now()) {
                        return Some(Served::Reply(reply));
                    }
                }
                partition.read_index(self.until).await.ok()?;
                Some(Served::Reply(self.read_now(partition, slot, read)))
            }
            Op::Write(write) => {
                if let Some(refusal) = refused_early(&self.core, partition, write) {
                    return Some(Served::Refused(refusal));
                }
                let mut steps = Vec::with_capacity(256);
                encode_step(&mut steps, &Step { slot, write: write.clone() });
                let write_by = Instant::now() + self.core.config.write_timeout;
                let written = tokio::time::timeout_at(write_by, partition.submit(steps, 1)).await;
                match written.unwrap_or(Err(WriteError::InDoubt)) {
                    Ok(replies) => replies.into_iter().next().map(Served::Reply),
                    Err(WriteError::NotDone) => None,
                    Err(WriteError::InDoubt) => Some(Served::Refused(Refusal::InDoubt)),
                }
            }
        }
    }

    fn read_now(&self, partition: &Partition, slot: Slot, read: &Read<'_>) -> Reply<'static> {
        let time = partition.time(Instant::now());
        let store = partition.store.lock();
        let reply = store.read(slot, read, time);
        self.core.stats.saw(&reply);
        reply.into_owned()
    }

    async fn serve_there(
        &self,
        node: NodeId,
        op: &Op<'_>,
        args: Option<Args<'_>>,
    ) -> Option<Served> {
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
        let sent = forward::send(&self.core, node, self.protocol, 1, Bytes::from(request), by);
        match sent.await {
            Forwarded::Answered(mut answers) => match answers.pop() {
                Some((Outcome::Done, reply)) => Some(Served::Encoded(reply)),
                Some((Outcome::NotDone, _)) => None,
                Some((Outcome::InDoubt, _)) | None => self.lost(op),
            },
            Forwarded::NotSent => None,
            Forwarded::InDoubt => self.lost(op),
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

/// The command for a part of a split one.
fn words_of<'a>(op: &Op<'a>) -> Vec<&'a [u8]> {
    let listed = |name: &'a [u8], keys: &[&'a [u8]]| {
        std::iter::once(name).chain(keys.iter().copied()).collect::<Vec<_>>()
    };
    match op {
        Op::Read(Read::GetMany { keys }) => listed(b"MGET", keys),
        Op::Read(Read::Exists { keys }) => listed(b"EXISTS", keys),
        Op::Read(Read::Touch { keys }) => listed(b"TOUCH", keys),
        Op::Write(Write::Delete { keys }) => listed(b"DEL", keys),
        Op::Write(Write::SetMany { pairs }) => {
            let words = pairs.iter().flat_map(|&(key, value)| [key, value]);
            std::iter::once(&b"MSET"[..]).chain(words).collect()
        }
        Op::Read(_) | Op::Write(_) => unreachable!("only these commands are split by slot"),
    }
}
