//! A pipeline's worth of commands, served together.
//!
//! Reads are answered at once under a lease, writes are gathered by partition, what other nodes lead is
//! gathered by node. [`Stage::finish`] sends all of it on its way, waits, checks the leases once more,
//! and puts the replies in the order of the requests. What could not be served so, because a lease ran
//! out or leadership moved, is served one by one in [`super::slow`].

mod elsewhere;
mod finish;
mod near;

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use scatterhoard_command::{
    Command, CommandError, CrossSlot, Load, encode_error, encode_reply, slot_of_read, slot_of_write,
};
use scatterhoard_replication::Lease;
use scatterhoard_resp::{Args, Encoder, Protocol};
use scatterhoard_ring::{NodeId, PartitionId, Slot};
use scatterhoard_store::{Read, Reply, SetAnswer, Step, Token, UnixMillis, Write, encode_step};
use tokio::time::{Instant, Sleep};

pub(super) use self::near::value_of;
use self::near::{SOUGHT_COUNT_MAX, Sought};
use super::refusal::{Refusal, put_refusal};
use super::size::{reply_bytes, reply_bytes_max};
use crate::clock::WallClock as _;
use crate::core::Core;
use crate::hosting::Hosted;
use crate::near::Ending;
use crate::partition::Partition;
use crate::tracking::{Asker, TrackerId};

/// Bytes of replies after which a stage is finished early, so that a pipeline of large reads cannot
/// hold them all in memory.
const READY_BYTES_MAX: usize = 1 << 20;

/// Bytes of writes after which a stage is finished early.
const WRITES_BYTES_MAX: usize = 1 << 20;

/// Commands in one stage. Bounds what is kept for each; more only make the next stage.
const PARTS_COUNT_MAX: usize = 4096;

/// Commands that an empty stage keeps room for.
const PARTS_KEPT_COUNT_MAX: usize = 256;

/// Which door a command came in by: what happens to keys that another node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The cluster port: clients are redirected.
    Cluster,
    /// The any-key port: we ask the other node.
    AnyKey,
    /// A peer has asked us: of what we do not lead it is told, and asks elsewhere.
    Peer,
}

/// What a command could be turned into.
pub(crate) enum Planned {
    /// It is part of the stage.
    Done,
    /// It must wait until what is in the stage is done.
    AfterThis,
}

/// What became of a command, in the terms that promise 3 of the design gives.
pub(crate) enum Outcome {
    /// Served, or refused by rule: this is the reply, encoded.
    Done,
    /// Nothing happened. It may be tried again.
    NotDone,
    /// It may have happened.
    InDoubt,
}

struct Part {
    /// Where this command lies in the session's buffer, to serve it again.
    request: Range<usize>,
    /// Where its reply ends in `ready`, if it is there.
    ready_end: usize,
    kind: Kind,
}

enum Kind {
    /// The reply is in `ready`.
    Ready,
    /// The reply is in `ready`, and counts if this lease still holds.
    Read { lease: usize },
    /// The reply is this one of a local unit's.
    Write { unit: usize, at: usize },
    /// The reply is this one of another node's.
    Remote { unit: usize, at: usize, effect: Effect },
    /// The reply is what was sought here.
    Near { sought: usize },
    /// Not served here: one by one, later.
    Slow,
}

impl Kind {
    fn is_slow(&self) -> bool {
        matches!(self, Self::Slow)
    }
}

/// What a command may have done where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

struct Unit {
    partition: Arc<Partition>,
    steps: Vec<u8>,
    steps_count: usize,
    writer: Option<TrackerId>,
}

struct Remote {
    node: NodeId,
    requests: Vec<u8>,
    count: usize,
    /// How many there are up to the last write.
    count_to_write: usize,
}

/// A pipeline's worth of commands.
pub(crate) struct Stage {
    core: Arc<Core>,
    hosted: Arc<Hosted>,
    door: Door,
    protocol: Protocol,
    now: Instant,
    wall: UnixMillis,
    /// For whom the next command is.
    asker: Asker,
    /// Who tracks something that is read in this stage.
    reader: Option<TrackerId>,
    ready: Vec<u8>,
    parts: Vec<Part>,
    leases: Vec<(Arc<Partition>, Lease)>,
    units: Vec<Unit>,
    remotes: Vec<Remote>,
    /// Partitions with a command that is left for later: what follows for them must follow it.
    stuck: Vec<PartitionId>,
    /// Partitions with a command that goes to another node: what follows for them must go there too.
    away: Vec<(PartitionId, NodeId)>,
    /// Partitions with a write that goes to another node: what is read behind it is no copy.
    written: Vec<PartitionId>,
    /// What is to be loaded, for as long as it is not forwarded instead.
    sought: Vec<Option<Sought>>,
    /// Keys in it.
    sought_count: usize,
    /// Copies here that end again when what was written elsewhere is answered.
    endings: Vec<Ending>,
    writes_bytes: usize,
    /// Rings when writes have waited too long; there from the first write on.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stage {
    pub(crate) fn new(core: &Arc<Core>, door: Door) -> Self {
        Self {
            core: Arc::clone(core),
            hosted: core.hosting.now(),
            door,
            protocol: Protocol::Resp2,
            now: Instant::now(),
            wall: core.wall.now(),
            asker: Asker::default(),
            reader: None,
            ready: Vec::new(),
            parts: Vec::new(),
            leases: Vec::new(),
            units: Vec::new(),
            remotes: Vec::new(),
            stuck: Vec::new(),
            away: Vec::new(),
            written: Vec::new(),
            sought: Vec::new(),
            sought_count: 0,
            endings: Vec::new(),
            writes_bytes: 0,
            timer: None,
        }
    }

    /// Begins a new stage: a fresh look at the clock and at what this node hosts.
    pub(crate) fn begin(&mut self, protocol: Protocol) {
        debug_assert!(self.parts.is_empty(), "a stage is finished before the next begins");
        self.hosted = self.core.hosting.now();
        self.protocol = protocol;
        self.now = Instant::now();
        self.wall = self.core.wall.now();
    }

    /// For whom the commands are that are added from now on. Nobody who tracks, at first.
    pub(crate) fn ask_for(&mut self, asker: Asker) {
        self.asker = asker;
    }

    /// For whom the next command is.
    pub(crate) fn asker(&self) -> Asker {
        self.asker
    }

    /// The wall time to parse absolute deadlines against. Only bounds checks depend on it.
    pub(crate) fn wall(&self) -> UnixMillis {
        self.wall
    }

    /// What replies and writes in it take in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        self.ready.capacity() + self.writes_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether the stage should be finished before more is added.
    pub(crate) fn is_full(&self) -> bool {
        self.ready.len() >= READY_BYTES_MAX
            || self.writes_bytes >= WRITES_BYTES_MAX
            || self.parts.len() >= PARTS_COUNT_MAX
            || self.sought_count >= SOUGHT_COUNT_MAX
    }

    /// Adds a command with keys.
    pub(crate) fn add(
        &mut self,
        args: Args<'_>,
        command: &Command<'_>,
        request: Range<usize>,
    ) -> Planned {
        let slot = match command {
            Command::Read(read) => slot_of_read(read),
            Command::Write(write) => slot_of_write(write),
            Command::Load(load @ Load::Get { .. }) => Ok(Slot::of(load.key())),
            Command::Load(Load::Wait { .. })
            | Command::Span(_)
            | Command::Session(_)
            | Command::Server(_) => {
                return Planned::AfterThis;
            }
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(CrossSlot) if self.door == Door::AnyKey => return Planned::AfterThis,
            Err(CrossSlot) => {
                self.put_ready(request, |out| put_refusal(out, &Refusal::CrossSlot));
                return Planned::Done;
            }
        };
        self.reader = self.reader.or(self.asker.reader);
        let hosted = Arc::clone(&self.hosted);
        match hosted.at(slot).filter(|partition| partition.leads()) {
            Some(partition) => self.add_local(partition, slot, command, request),
            None => self.add_elsewhere(args, slot, command, request),
        }
    }

    /// Adds a reply that is known already.
    pub(crate) fn put_ready(&mut self, request: Range<usize>, put: impl FnOnce(&mut Encoder<'_>)) {
        put(&mut Encoder::new(&mut self.ready, self.protocol));
        self.push(request, Kind::Ready);
    }

    /// Adds the refusal of a command that could not be parsed.
    pub(crate) fn put_error(&mut self, request: Range<usize>, error: &CommandError) {
        self.put_ready(request, |out| encode_error(out, error));
    }

    fn push(&mut self, request: Range<usize>, kind: Kind) {
        let ready_end = self.ready.len();
        self.parts.push(Part { request, ready_end, kind });
    }

    fn add_local(
        &mut self,
        partition: &Arc<Partition>,
        slot: Slot,
        command: &Command<'_>,
        request: Range<usize>,
    ) -> Planned {
        if self.stuck.contains(&partition.id) {
            self.push(request, Kind::Slow);
            return Planned::Done;
        }
        if self.away.iter().any(|&(away, _)| away == partition.id) {
            // Leadership has just come to us, and an earlier command is on its way to where it was.
            return Planned::AfterThis;
        }
        match command {
            Command::Read(read) => self.add_read(partition, slot, read, request),
            Command::Write(write) => {
                if let Some(refusal) = refused_early(&self.core, partition, write) {
                    self.put_ready(request, |out| put_refusal(out, &refusal));
                } else {
                    self.add_write(partition, slot, write, request);
                }
                Planned::Done
            }
            Command::Load(load) => self.add_load(partition, slot, *load, request),
            Command::Span(_) | Command::Session(_) | Command::Server(_) => Planned::AfterThis,
        }
    }

    /// A read if it finds something to answer with, and else a write. Behind other writes a write at once,
    /// which looks again when it is applied: so that misses of one pipeline go together.
    fn add_load(
        &mut self,
        partition: &Arc<Partition>,
        slot: Slot,
        load: Load<'_>,
        request: Range<usize>,
    ) -> Planned {
        let time = partition.time(self.now);
        let is_behind = self.units.iter().any(|unit| unit.partition.id == partition.id);
        // Interest is noted before what is in front of it is done, and what a client writes itself ends it; who wants
        // to hear nothing of that (NOLOOP) would never hear of the key again.
        if is_behind && self.asker.writer.is_some() {
            return Planned::AfterThis;
        }
        let is_answered = !is_behind
            && partition.store.lock().lookup(slot, load.key(), time).answer(load.wants()).is_some();
        let write = load.propose(Token(self.core.chance.roll())).filter(|_| !is_answered);
        if let (Some(reader), Some(_)) = (self.asker.reader, &write) {
            register_lease(&self.core, partition, reader, (slot, &load.read()));
        }
        match write {
            Some(write) => self.add_local(partition, slot, &Command::Write(write), request),
            None => self.add_read(partition, slot, &load.read(), request),
        }
    }

    fn add_read(
        &mut self,
        partition: &Arc<Partition>,
        slot: Slot,
        read: &Read<'_>,
        request: Range<usize>,
    ) -> Planned {
        if self.units.iter().any(|unit| unit.partition.id == partition.id) {
            return Planned::AfterThis;
        }
        let Some(lease) = self.lease(partition) else {
            self.leave(partition.id, request);
            return Planned::Done;
        };
        let time = partition.time(self.now);
        let store = partition.store.lock();
        if let Some(reader) = self.asker.reader {
            let by = (partition.replica(), reader);
            self.core.tracking.register(by, &store, (slot, read), time);
        }
        let reply = store.read(slot, read, time);
        self.core.stats.saw(&reply);
        let mut encoder = Encoder::new(&mut self.ready, self.protocol);
        if reply_bytes(&reply) > reply_bytes_max(&self.core, self.door) {
            put_refusal(&mut encoder, &Refusal::ReplyTooBig);
        } else {
            encode_reply(&mut encoder, &reply);
        }
        drop(reply);
        drop(store);
        self.push(request, Kind::Read { lease });
        Planned::Done
    }

    fn add_write(
        &mut self,
        partition: &Arc<Partition>,
        slot: Slot,
        write: &Write<'_>,
        request: Range<usize>,
    ) {
        let unit = match self.units.iter().position(|unit| unit.partition.id == partition.id) {
            Some(unit) => unit,
            None => {
                let partition = Arc::clone(partition);
                let (steps, writer) = (Vec::with_capacity(256), self.asker.writer);
                self.units.push(Unit { partition, steps, steps_count: 0, writer });
                self.units.len() - 1
            }
        };
        let into = &mut self.units[unit];
        let before = into.steps.len();
        encode_step(&mut into.steps, &Step { slot, write: write.clone() });
        let at = into.steps_count;
        into.steps_count += 1;
        self.writes_bytes += into.steps.len() - before;
        if let Some(key) = answers_with_value_of(write) {
            let length = Read::Length { key };
            let reply =
                partition.store.lock().read(slot, &length, partition.time(self.now)).into_owned();
            if let Reply::Int(length) = reply {
                self.writes_bytes += usize::try_from(length).unwrap_or(0);
            }
        }
        self.push(request, Kind::Write { unit, at });
    }

    /// Leaves a command for later, and with it whatever follows for its partition.
    fn leave(&mut self, partition: PartitionId, request: Range<usize>) {
        self.stuck.push(partition);
        self.push(request, Kind::Slow);
    }

    fn lease(&mut self, partition: &Arc<Partition>) -> Option<usize> {
        let known = self.leases.iter().position(|(held, _)| Arc::ptr_eq(held, partition));
        known.or_else(|| {
            self.leases.push((Arc::clone(partition), partition.lease(self.now)?));
            Some(self.leases.len() - 1)
        })
    }
}

/// Why a write is refused before it is proposed, if it is. After this it is done or in doubt.
pub(crate) fn refused_early(
    core: &Core,
    partition: &Partition,
    write: &Write<'_>,
) -> Option<Refusal> {
    if partition.has_too_few_replicas() {
        return Some(Refusal::TooFewReplicas);
    }
    if grows(write) && partition.is_full() && core.settings.refuses_when_full() {
        return Some(Refusal::OutOfMemory);
    }
    None
}

/// Whether a write may need more memory: what Redis marks as `denyoom`.
fn grows(write: &Write<'_>) -> bool {
    match write {
        Write::Set { .. }
        | Write::SetMany { .. }
        | Write::SetManyIfAbsent { .. }
        | Write::Add { .. }
        | Write::AddFloat { .. }
        | Write::Append { .. }
        | Write::SetRange { .. }
        | Write::Copy { .. }
        | Write::SetWith { .. }
        | Write::Lease { .. }
        | Write::Fill { .. }
        | Write::ReserveFilter { .. }
        | Write::AddToFilter { .. } => true,
        Write::GetExpire { .. }
        | Write::GetDelete { .. }
        | Write::Delete { .. }
        | Write::Expire { .. }
        | Write::Persist { .. }
        | Write::Rename { .. }
        | Write::Release { .. }
        | Write::Evict { .. } => false,
    }
}

/// Registers interest in what the step that gives a lease may find; or, if it gives none because somebody else
/// loads, in the end of that.
pub(crate) fn register_lease(
    core: &Core,
    partition: &Partition,
    reader: TrackerId,
    read: (Slot, &Read<'_>),
) {
    let store = partition.store.lock();
    let time = partition.time(Instant::now());
    core.tracking.register((partition.replica(), reader), &store, read, time);
}

/// The key whose value a write answers with. A few bytes may ask for much, as with reads.
fn answers_with_value_of<'a>(write: &Write<'a>) -> Option<&'a [u8]> {
    match write {
        Write::Set { key, answer: SetAnswer::Before, .. }
        | Write::SetWith { key, answer: SetAnswer::Before, .. }
        | Write::GetExpire { key, .. }
        | Write::GetDelete { key }
        | Write::Lease { key, .. } => Some(key),
        Write::Set { answer: SetAnswer::Done | SetAnswer::Count | SetAnswer::Version, .. }
        | Write::SetWith {
            answer: SetAnswer::Done | SetAnswer::Count | SetAnswer::Version, ..
        }
        | Write::SetMany { .. }
        | Write::SetManyIfAbsent { .. }
        | Write::Add { .. }
        | Write::AddFloat { .. }
        | Write::Append { .. }
        | Write::SetRange { .. }
        | Write::Delete { .. }
        | Write::Expire { .. }
        | Write::Persist { .. }
        | Write::Rename { .. }
        | Write::Copy { .. }
        | Write::Fill { .. }
        | Write::Release { .. }
        | Write::ReserveFilter { .. }
        | Write::AddToFilter { .. }
        | Write::Evict { .. } => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
