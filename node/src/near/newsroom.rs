//! What this node tells others of the partitions that it leads: values to keep copies of, and what changed
//! of those.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scatterhoard_cluster::ReplyTo;
use scatterhoard_near::ReaderId;
use scatterhoard_replication::probe::{self, Event, Point};
use scatterhoard_ring::{NodeId, PartitionId, Slot};
use scatterhoard_store::{Read, Reply};
use tokio::time::Instant;

use super::message::{self, About, Inquiry, Load, Loaded, Told};
use crate::core::Core;
use crate::partition::Partition;
use crate::session::ANSWERS_BYTES_MAX;

/// How long an answer without news is held at most, whatever is asked for.
const HOLD_MAX: Duration = Duration::from_secs(1);

/// How long what follows the first change is waited for, so that it goes in the same answer.
const GATHER: Duration = Duration::from_millis(1);

/// Monotonic clocks of two machines run within one part of so many of each other.
const CLOCKS_APART: u64 = 10;

/// How long a quorum may take to confirm a read. Who asked does not wait longer.
const CONFIRM_PATIENCE: Duration = Duration::from_millis(500);

/// Serves a load: registers the reader's interest, and reads as for any other linearizable read.
pub(crate) async fn serve_load(core: Arc<Core>, reader: NodeId, body: Bytes, reply: ReplyTo) {
    let Some(load) = message::decode_load(body) else {
        return reply.refuse("a load in another version");
    };
    if !is_member(&core, reader) {
        return reply.refuse("not a member");
    }
    let hosted = core.hosting.now();
    let mut wanted = BTreeMap::<PartitionId, (Arc<Partition>, Vec<usize>)>::new();
    for (at, key) in load.keys.iter().enumerate() {
        if let Some(partition) = hosted.at(Slot::of(key)).filter(|partition| partition.leads()) {
            let of_it = wanted.entry(partition.id);
            of_it.or_insert_with(|| (Arc::clone(partition), Vec::new())).1.push(at);
        }
    }
    let mut loaded = vec![Loaded::NotHere; load.keys.len()];
    let mut reading = Reading { core: &core, reader: reader_of(reader), load: &load, bytes: 0 };
    let by = Instant::now() + CONFIRM_PATIENCE;
    for (partition, places) in wanted.into_values() {
        let Some(read) = reading.read(&partition, &places, by).await else { continue };
        for (at, of_it) in places.into_iter().zip(read) {
            loaded[at] = of_it;
        }
    }
    reply.send(message::encode_loaded(&loaded));
}

/// Serves a question for news: answers when there is something to tell, or after a while.
pub(crate) async fn serve_news(core: Arc<Core>, reader: NodeId, body: Bytes, reply: ReplyTo) {
    let Some(inquiry) = message::decode_inquiry(body) else {
        return reply.refuse("a question in another version");
    };
    if !is_member(&core, reader) {
        return reply.refuse("not a member");
    }
    let reader = reader_of(reader);
    tokio::select! {
        biased;
        () = core.shutdown.cancelled() => return,
        () = wait_for_news(&core, reader, &inquiry) => {}
    }
    // The leases are looked at here, after the question has come: so they prove that nobody else had
    // acknowledged anything by when it was sent.
    let now = Instant::now();
    let hosted = core.hosting.now();
    let told: Vec<Told> = inquiry
        .partitions
        .iter()
        .map(|&About { partition: id, stream, taken }| {
            let partition = hosted.of_partition(id).filter(|partition| partition.leads());
            let bulletin = partition.and_then(|partition| {
                let term = partition.term(now)?;
                partition.bureau.answer(reader, (stream, taken), (term, now)).ok()
            });
            (id, bulletin)
        })
        .collect();
    reply.send(message::encode_told(&told));
}

/// Why an answer is not held.
enum Due {
    /// A stream is to be begun, or a partition is led elsewhere.
    AtOnce,
    /// Something has changed.
    News,
}

async fn wait_for_news(core: &Core, reader: ReaderId, inquiry: &Inquiry) {
    let hold = Duration::from_millis(inquiry.hold_ms.into()).min(HOLD_MAX);
    let until = Instant::now() + hold;
    let bell = core.near.bells().of(reader);
    loop {
        // Before the look: what comes after it rings.
        let mut rung = pin!(bell.notified());
        rung.as_mut().enable();
        match due(core, reader, inquiry) {
            Some(Due::AtOnce) => return,
            Some(Due::News) => return tokio::time::sleep(GATHER).await,
            None => {}
        }
        tokio::select! {
            biased;
            () = rung => {}
            () = tokio::time::sleep_until(until) => return,
        }
    }
}

fn due(core: &Core, reader: ReaderId, inquiry: &Inquiry) -> Option<Due> {
    let hosted = core.hosting.now();
    let mut has_news = false;
    for &About { partition, stream, .. } in &inquiry.partitions {
        let led = hosted.of_partition(partition).filter(|partition| partition.leads());
        match (stream, led) {
            (None, _) | (_, None) => return Some(Due::AtOnce),
            (Some(_), Some(partition)) => has_news |= partition.bureau.has_news(reader),
        }
    }
    has_news.then_some(Due::News)
}

/// Only members read here: so there are no more readers than nodes.
fn is_member(core: &Core, node: NodeId) -> bool {
    core.tables.newest().is_some_and(|table| table.members.contains_key(&node))
}

fn reader_of(node: NodeId) -> ReaderId {
    ReaderId::new(node.number())
}

/// One load.
struct Reading<'a> {
    core: &'a Core,
    reader: ReaderId,
    load: &'a Load,
    /// Of the values so far.
    bytes: usize,
}

impl Reading<'_> {
    /// Reads some of the keys, which are all of this partition. `None`: it is led elsewhere, or no quorum
    /// confirmed that it is not.
    async fn read(
        &mut self,
        partition: &Partition,
        places: &[usize],
        by: Instant,
    ) -> Option<Vec<Loaded>> {
        let of = partition.group.spec().founded();
        if let Some(lease) = partition.lease(Instant::now()) {
            let (loaded, bytes) = self.read_now(partition, places);
            probe::at(Point::AfterRead).await;
            if partition.group.lease_holds(lease, Instant::now()) {
                probe::saw(|| Event::Answered { of, by_lease: true });
                self.bytes += bytes;
                return Some(loaded);
            }
            probe::saw(|| Event::LeaseLost { of });
            self.core.stats.lost_lease();
        }
        partition.read_index(by).await.ok()?;
        self.core.stats.confirmed_read();
        probe::at(Point::AfterReadIndex).await;
        probe::saw(|| Event::Answered { of, by_lease: false });
        let (loaded, bytes) = self.read_now(partition, places);
        self.bytes += bytes;
        Some(loaded)
    }

    fn read_now(&self, partition: &Partition, places: &[usize]) -> (Vec<Loaded>, usize) {
        let time = partition.time(Instant::now());
        let store = partition.store.lock();
        let (mut loaded, mut bytes) = (Vec::with_capacity(places.len()), 0);
        for &at in places {
            if self.bytes + bytes >= ANSWERS_BYTES_MAX {
                loaded.push(Loaded::NotHere);
                continue;
            }
            let key = &self.load.keys[at];
            let slot = Slot::of(key);
            partition.bureau.register(self.reader, slot, key);
            let reply = store.read(slot, &Read::Get { key }, time);
            self.core.stats.saw(&reply);
            loaded.push(match reply {
                Reply::Bulk(value) if value.len() <= self.load.value_bytes_max as usize => {
                    bytes += value.len();
                    let (deadline, _tags) = store.ends(slot, key, time);
                    let rest = deadline.map(|at| at.millis().saturating_sub(time.millis()));
                    // Nobody is told of its end, and the reader's clock may be that much slower.
                    let rest = rest.map(|rest| rest - rest / CLOCKS_APART);
                    let value = Bytes::from(value.into_owned());
                    Loaded::Value { lives_for: rest.map(Duration::from_millis), value }
                }
                Reply::Nil => Loaded::Absent,
                Reply::Bulk(_)
                | Reply::Ok
                | Reply::Int(_)
                | Reply::Status(_)
                | Reply::Array(_)
                | Reply::Tuple(_)
                | Reply::Map(_)
                | Reply::Bool(_)
                | Reply::Error(_) => Loaded::Unfit,
            });
        }
        (loaded, bytes)
    }
}
