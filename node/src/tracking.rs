//! `CLIENT TRACKING`: who is to hear of which keys when they change, so that copies at clients do not stay
//! when the value does not.
//!
//! Interest is registered while the store is locked, before the value is read; what changed is told when an
//! entry has been applied, after the store was unlocked and before the writer is answered. So whoever read
//! the value before a change is told of it, and is told before the writer knows that it is done. What a
//! client holds is as good as this node's leadership: when that ends, or is in doubt, everybody who holds
//! something under it is told to forget all ([`serve`]).
//!
//! While nobody tracks, all of this is one relaxed load for each entry and none for a read.

mod changes;
mod outbox;
mod table;
mod waits;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_command::keys_of_read;
use scatterhoard_ring::{ReplicaId, Slot};
use scatterhoard_store::{Entry, Logged, Read, Reply, Store, Tag, UnixMillis};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::Core;
pub(crate) use changes::changed_keys;
use outbox::Note;
pub(crate) use outbox::{CHANNEL, Outbox};
use table::{Seen, Table};
pub(crate) use table::{TrackerId, UnderWay};
use waits::{Waiter, Waits};

/// How often it is looked whether leaderships still stand and which keys have expired. A client that
/// reads from its cache may be wrong for so much longer than a lease lasts; one that needs a bound asks.
const LOOK: Duration = Duration::from_millis(50);

/// Keys that are known to be held by somebody. Redis, `tracking-table-max-keys`.
pub(crate) const KEYS_COUNT_MAX: u64 = 1_000_000;

/// Who tracks what on this node.
pub(crate) struct Tracking {
    /// Nothing else is looked at while it is 0.
    trackers_count: AtomicUsize,
    /// Keys that may be known to be held by somebody; 0: any number.
    keys_count_max: AtomicU64,
    table: Mutex<Table>,
    waits: Waits,
    began: Notify,
}

/// One client's tracking: what it asked for.
#[derive(Debug)]
pub(crate) struct Tracker {
    pub(crate) id: TrackerId,
    pub(crate) mode: Mode,
    /// It does not hear of what it changes itself.
    pub(crate) no_loop: bool,
    pub(crate) redirect: Option<Redirect>,
    /// The redirection led nowhere when something was to be told.
    pub(crate) broken: AtomicBool,
    /// The client's own.
    pub(crate) own: Arc<Outbox>,
}

/// Another client that hears what this one tracks.
#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) client: u64,
    pub(crate) outbox: Arc<Outbox>,
}

/// Which keys a client hears of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Those that it has read.
    Reads(Choice),
    /// Those that begin with one of these; none of them begins with another.
    Broadcast(Vec<Arc<[u8]>>),
}

/// Which reads count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    All,
    /// Those after `CLIENT CACHING YES`.
    OptIn,
    /// All but those after `CLIENT CACHING NO`.
    OptOut,
}

/// On whose behalf something is read or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asker {
    /// Who tracks the keys that are read.
    pub(crate) reader: Option<TrackerId>,
    /// Who tracks, and writes.
    pub(crate) writer: Option<TrackerId>,
    /// Copies of what other nodes lead will do.
    pub(crate) near: bool,
}

/// How much is tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) trackers_count: usize,
    /// Keys that somebody may hold.
    pub(crate) keys_count: usize,
    /// Pairs of a key and a client.
    pub(crate) items_count: usize,
    pub(crate) prefixes_count: usize,
    /// What all this takes, estimated.
    pub(crate) bytes: usize,
}

impl Tracker {
    /// Tells the client, or whoever hears in its place.
    fn tell(&self, note: &Note) {
        match &self.redirect {
            None => self.own.put_own(note),
            Some(Redirect { outbox, .. }) if !outbox.is_closed() => outbox.put_redirected(note),
            Some(Redirect { client, .. }) => {
                self.broken.store(true, Ordering::Relaxed);
                self.own.put_own(&Note::Broken { client: *client });
            }
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// As Redis tells it: 0 if the client hears by itself.
    pub(crate) fn redirected_to(&self) -> i64 {
        let id = self.redirect.as_ref().map_or(0, |redirect| redirect.client);
        i64::try_from(id).unwrap_or(i64::MAX)
    }

    pub(crate) fn prefixes(&self) -> &[Arc<[u8]>] {
        match &self.mode {
            Mode::Reads(_) => &[],
            Mode::Broadcast(prefixes) => prefixes,
        }
    }
}

impl Default for Tracking {
    fn default() -> Self {
        Self {
            trackers_count: AtomicUsize::new(0),
            keys_count_max: AtomicU64::new(KEYS_COUNT_MAX),
            table: Mutex::default(),
            waits: Waits::default(),
            began: Notify::new(),
        }
    }
}

impl Tracking {
    /// Whether anybody tracks, or waits. To be asked with the store locked: who has registered interest under that
    /// lock has been counted before.
    pub(crate) fn is_on(&self) -> bool {
        self.is_followed() || self.waits.is_on()
    }

    fn is_followed(&self) -> bool {
        self.trackers_count.load(Ordering::Relaxed) > 0
    }

    /// Waits for a change of a key: from now on, and so to be called before a look at it.
    pub(crate) fn wait_for(&self, key: &[u8]) -> Waiter<'_> {
        self.waits.begin(key)
    }

    /// An id for somebody who begins to track.
    pub(crate) fn next_id(&self) -> TrackerId {
        self.table.lock().next_id()
    }

    /// Tracks from now on, or otherwise than before; what was registered stays.
    pub(crate) fn follow(&self, tracker: Arc<Tracker>) {
        let mut table = self.table.lock();
        table.put(tracker);
        self.trackers_count.store(table.trackers_count(), Ordering::Relaxed);
        drop(table);
        self.began.notify_one();
    }

    /// Tracks no more. What was registered is freed by and by.
    pub(crate) fn leave(&self, tracker: &Tracker) {
        let mut table = self.table.lock();
        table.remove(tracker.id);
        self.trackers_count.store(table.trackers_count(), Ordering::Relaxed);
        drop(table);
        self.began.notify_one();
    }

    /// A replica here is about to lead. What anybody holds from when it led before is not to be trusted:
    /// others may have led meanwhile.
    pub(crate) fn begin_to_lead(&self, replica: ReplicaId) {
        self.table.lock().begin_to_lead(replica);
    }

    /// Registers interest in all keys of a read of a replica that leads. To be called before the read, with
    /// the store locked for both: so no change comes between. With the keys their deadlines are noted,
    /// which nobody writes down when they pass, and their tags, which are invalidated without naming keys.
    pub(crate) fn register(
        &self,
        (replica, reader): (ReplicaId, TrackerId),
        store: &Store,
        (slot, read): (Slot, &Read<'_>),
        time: UnixMillis,
    ) {
        let keys_count_max = self.keys_count_max();
        let mut table = self.table.lock();
        for key in keys_of_read(read) {
            let (deadline, tags) = store.ends(slot, key, time);
            table.make_room(keys_count_max);
            table.register((replica, reader), key, deadline.map(UnixMillis::millis), &tags);
        }
    }

    /// An entry is about to be proposed in which somebody writes who does not want to hear of it.
    pub(crate) fn announce(&self, replica: ReplicaId, under_way: UnderWay) {
        self.table.lock().announce(replica, under_way);
    }

    /// An entry was applied by a replica: tells everybody who is to hear of what it changed.
    pub(crate) fn applied(&self, replica: ReplicaId, entry: &[u8], replies: &[Reply<'_>]) {
        let Ok(parsed) = Entry::parse(entry) else { return };
        self.wake(&parsed, replies);
        let mut table = self.table.lock();
        if !table.leads(replica) {
            return;
        }
        let under_way = table.take_announced(replica, entry);
        let steps = parsed.steps().map_while(Result::ok).zip(replies);
        for (at, (step, reply)) in steps.enumerate() {
            match step {
                Logged::Flush { .. } => table.flush(replica),
                Logged::InvalidateTag { tag, .. } => table.change_tagged(replica, Tag::of(tag)),
                Logged::InvalidatePrefix { prefix, .. } => table.change_prefixed(replica, prefix),
                Logged::Write(step) => {
                    let writer = under_way.as_ref().and_then(|it| it.writer_of(at));
                    for key in changed_keys(&step.write, reply) {
                        table.change(replica, key, writer);
                    }
                }
            }
        }
    }

    fn wake(&self, entry: &Entry<'_>, replies: &[Reply<'_>]) {
        if !self.waits.is_on() {
            return;
        }
        for (step, reply) in entry.steps().map_while(Result::ok).zip(replies) {
            match step {
                Logged::Write(step) => {
                    changed_keys(&step.write, reply).for_each(|key| self.waits.changed(key));
                }
                Logged::Flush { .. }
                | Logged::InvalidateTag { .. }
                | Logged::InvalidatePrefix { .. } => self.waits.all_changed(),
            }
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.table.lock().tally()
    }

    /// As it was set; 0: any number.
    pub(crate) fn keys_count_limit(&self) -> u64 {
        self.keys_count_max.load(Ordering::Relaxed)
    }

    pub(crate) fn set_keys_count_limit(&self, count: u64) {
        self.keys_count_max.store(count, Ordering::Relaxed);
        self.began.notify_one();
    }

    fn keys_count_max(&self) -> usize {
        match self.keys_count_limit() {
            0 => usize::MAX,
            count => usize::try_from(count).unwrap_or(usize::MAX),
        }
    }

    /// Frees a part of what nobody needs any more. Answers whether there is more.
    fn tidy(&self) -> bool {
        let (freed, more) = {
            let mut table = self.table.lock();
            let more = table.tidy(self.keys_count_max());
            (table.take_rubbish(), more)
        };
        more || freed.is_some()
    }
}

/// Looks after leaderships and deadlines until shutdown, while somebody tracks.
///
/// Who holds something under a leadership that is over is told to forget all, and so is who holds something
/// while the lease is gone: another may lead already, and its writes are not told here. A lease that lapsed
/// between two looks and was regained in the same term needs nothing: it is renewed only by a quorum that
/// has acknowledged this term after it lapsed, so no quorum had voted for another leader until then, and
/// everything that was committed meanwhile came through this leader, which told of it. If the term is
/// another, [`Tracking::begin_to_lead`] was called in between.
pub(crate) async fn serve(core: Arc<Core>) {
    loop {
        let pause = async {
            while !core.tracking.is_followed() && !core.tracking.tidy() {
                core.tracking.began.notified().await;
            }
            tokio::time::sleep(LOOK).await;
        };
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = pause => {}
        }
        look(&core);
        while core.tracking.tidy() {
            tokio::task::yield_now().await;
        }
    }
}

fn look(core: &Core) {
    // Before the partitions are looked at: who begins to lead meanwhile is left alone.
    let eras = core.tracking.table.lock().eras();
    let now = Instant::now();
    let hosted = core.hosting.now();
    let led = core.replicas.all().into_iter().filter_map(|held| held.partition);
    // Not with the table locked: who begins to lead waits for it, and holds what is asked here.
    let seen: BTreeMap<_, _> = led
        .filter(|partition| partition.leads())
        .map(|partition| {
            let serves =
                hosted.of_partition(partition.id).is_some_and(|it| Arc::ptr_eq(it, &partition));
            let has_lease = serves && partition.lease(now).is_some();
            (partition.replica(), Seen { has_lease, time: partition.time(now).millis() })
        })
        .collect();
    core.tracking.table.lock().look(&eras, &seen);
}
