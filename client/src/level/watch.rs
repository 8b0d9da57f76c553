//! What is known of the freshness of copies, and how it is learned: the shell around the rules in
//! [`scatterhoard_near`].
//!
//! Slots that are followed together are a *region*: all slots, for each server of a Redis cluster; the slots of a
//! partition, in a cluster of ours. A region has one [`Feed`], for ever, and is followed over one connection at a
//! time, or over none. All feeds share their counters, and a slot that goes to another region is invalidated in
//! between, so a mark can be shown to whatever region has its slot now.
//!
//! **A mark is given** only for what was answered over the connection that its region was followed over when the
//! load began. Following another one, or none, is a reset of the region: under the lock that a load takes to begin,
//! so a load sees both or neither.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use scatterhoard_near::{Cells, Feed, Follower, KeyHash, Position, Probe, Stamp, Ticket};
use scatterhoard_ring::{Generation, Slot, SlotRange};
use tokio::sync::broadcast;

use super::pulse::Pulse;
use super::{Change, Mark, Moment};
use crate::listen::LineId;
use crate::topology::Address;

/// Regions that can be told apart. A cluster of ours has some dozens of partitions. Of servers whose addresses change,
/// as many may come and go in the life of a process; of those beyond no copies are kept.
const REGIONS_COUNT_MAX: usize = 4096;

/// The slot belongs to no region.
const NOWHERE: u16 = u16::MAX;

/// Counters of changed keys, as a power of two: 65,536, in 512 KiB. Of a million copies each change ends 16.
const CELL_BITS: u32 = 16;

/// Changes that a receiver may be behind until it has lost some.
const CHANGES_COUNT_MAX: usize = 4096;

/// Both carriers use the keys themselves; the seed has to be the same only within this process.
const SEED: u64 = 0;

/// What is known of all regions. Shared by the level, its prober and its connections.
pub(super) struct Watch {
    bound: Duration,
    cells: Arc<Cells>,
    /// Of all slots: invalidates whatever region they are in. Serves nothing.
    whole: Feed,
    region_of_slot: Box<[AtomicU16]>,
    feeds: Box<[OnceLock<Arc<Feed>>]>,
    followed: Mutex<Followed>,
    changes: broadcast::Sender<Change>,
    pub(super) pulse: Pulse,
}

/// Over which connections regions are followed.
#[derive(Default)]
struct Followed {
    open: BTreeMap<LineId, Address>,
    regions: Vec<Region>,
    /// In a cluster of Redis servers: the region of each.
    by_server: BTreeMap<Address, u16>,
}

struct Region {
    follower: Follower,
    slots: SlotRange,
    line: Option<LineId>,
}

/// A load that has begun.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    ticket: Ticket,
    region: u16,
    line: LineId,
}

/// One probe is about to be sent; what each region remembers of it.
pub(super) struct Asked(Vec<Probe>);

/// A node said that it leads this partition, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leads {
    pub(super) slots: SlotRange,
    pub(super) stamp: Stamp,
    pub(super) position: Position,
}

impl Watch {
    pub(super) fn new(bound: Duration) -> Self {
        let cells = Arc::new(Cells::new(CELL_BITS));
        Self {
            bound,
            whole: Feed::new(SlotRange::ALL, Arc::clone(&cells)),
            cells,
            region_of_slot: (0..Slot::COUNT).map(|_| AtomicU16::new(NOWHERE)).collect(),
            feeds: (0..REGIONS_COUNT_MAX).map(|_| OnceLock::new()).collect(),
            followed: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_COUNT_MAX),
            pulse: Pulse::default(),
        }
    }

    pub(super) fn bound(&self) -> Duration {
        self.bound
    }

    /// See [`super::ClusterLevel::may_serve`].
    pub(super) fn may_serve(&self, mark: &Mark, now: Moment) -> bool {
        self.pulse.beat();
        self.feed_of(mark.slot()).is_some_and(|feed| feed.may_serve(mark, now))
    }

    /// See [`super::ClusterLevel::is_dead`].
    pub(super) fn is_dead(&self, mark: &Mark, now: Moment) -> bool {
        self.feed_of(mark.slot()).is_none_or(|feed| feed.is_dead(mark, now))
    }

    pub(super) fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Begins a load, before it is sent; `None` if what it brings cannot be kept.
    pub(super) fn begin(&self, key: &[u8], now: Moment) -> Option<Begun> {
        let slot = Slot::of(key);
        let followed = self.followed.lock();
        let region = self.region_of_slot[index(slot)].load(Ordering::Relaxed);
        let begun = self.begin_in(&followed, region, slot, key, now);
        self.settled(begun)
    }

    /// The same, of a key that this server is about to be asked for. Its slot is followed there from now on.
    pub(super) fn begin_at(&self, server: &Address, key: &[u8], now: Moment) -> Option<Begun> {
        let slot = Slot::of(key);
        let followed = self.followed.lock();
        let Some(&region) = followed.by_server.get(server) else { return self.settled(None) };
        self.assign(slot, region);
        let begun = self.begin_in(&followed, region, slot, key, now);
        self.settled(begun)
    }

    fn begin_in(
        &self,
        followed: &Followed,
        region: u16,
        slot: Slot,
        key: &[u8],
        now: Moment,
    ) -> Option<Begun> {
        let line = followed.regions.get(usize::from(region))?.line?;
        let feed = self.feeds[usize::from(region)].get()?;
        let ticket = feed.begin(slot, KeyHash::of(key, SEED), now)?;
        Some(Begun { ticket, region, line })
    }

    /// Whether two loads are followed by the same connection: who hears of one hears of the other.
    pub(super) fn together(begun: &Begun, other: &Begun) -> bool {
        begun.line == other.line && begun.region == other.region
    }

    /// Ends a load that was answered over this connection.
    pub(super) fn keep(
        &self,
        begun: &Begun,
        line: LineId,
        lives_for: Option<Duration>,
    ) -> Option<Mark> {
        self.settled((begun.line == line).then_some(()))?;
        let feed = self.feeds[usize::from(begun.region)].get()?;
        feed.keep(begun.ticket, lives_for)
    }

    /// Where nothing can be kept, probes find out whom to follow. Where copies are kept, whoever uses them makes the
    /// probes go; a cache may keep none.
    fn settled<T>(&self, followed: Option<T>) -> Option<T> {
        if followed.is_none() {
            self.pulse.beat();
        }
        followed
    }

    /// A key changed: its copies and loads end.
    pub(super) fn key_changed(&self, key: Bytes) {
        self.whole.invalidated(KeyHash::of(&key, SEED));
        // Fails if nobody listens.
        let _heard = self.changes.send(Change::Key(key));
    }

    /// The same of a key of the level's own, which is nobody else's business.
    pub(super) fn own_key_changed(&self, key: &[u8]) {
        self.whole.invalidated(KeyHash::of(key, SEED));
    }

    /// Everything may have changed: all copies and loads end.
    pub(super) fn everything_changed(&self) {
        self.whole.reset();
        let _heard = self.changes.send(Change::Everything);
    }

    /// We are about to change a key. Its copies and loads end now, and again when what is returned is dropped: what
    /// is loaded in between may be old.
    pub(super) fn changing<'a>(&'a self, key: &'a [u8]) -> Changing<'a> {
        self.whole.invalidated(KeyHash::of(key, SEED));
        Changing { watch: self, key }
    }

    /// A connection to a node of ours was opened. It is to be asked what it leads.
    pub(super) fn opened(&self, node: &Address, line: LineId) {
        self.followed.lock().open.insert(line, node.clone());
    }

    /// A connection to a Redis server was opened: what it has is followed over it from now on.
    pub(super) fn opened_to_server(&self, server: &Address, line: LineId) {
        let mut followed = self.followed.lock();
        followed.open.insert(line, server.clone());
        let region = match followed.by_server.get(server) {
            Some(region) => *region,
            None => {
                let Some(region) = self.add(&mut followed, SlotRange::ALL) else { return };
                followed.by_server.insert(server.clone(), region);
                region
            }
        };
        let stamp = Stamp { generation: Generation::new(0), term: line.number() };
        followed.regions[usize::from(region)].follow(line, stamp);
        drop(followed);
        self.everything_changed();
    }

    /// A connection is lost, and with it what was followed over it.
    pub(super) fn lost(&self, line: LineId) {
        self.followed.lock().open.remove(&line);
        self.unfollow(line);
    }

    /// What is loaded over a connection is not kept any more, and what was ends.
    pub(super) fn unfollow(&self, line: LineId) {
        let mut followed = self.followed.lock();
        let mut any = false;
        for region in followed.regions.iter_mut().filter(|region| region.line == Some(line)) {
            region.leave();
            any = true;
        }
        drop(followed);
        if any {
            let _heard = self.changes.send(Change::Everything);
        }
    }

    /// The newest connection to a node, if there is any.
    pub(super) fn line_to(&self, node: &Address) -> Option<LineId> {
        let followed = self.followed.lock();
        followed.open.iter().rev().find(|(_, to)| *to == node).map(|(&line, _)| line)
    }

    /// All connections, and where they lead.
    pub(super) fn lines(&self) -> Vec<(LineId, Address)> {
        let followed = self.followed.lock();
        followed.open.iter().map(|(&line, node)| (line, node.clone())).collect()
    }

    /// A probe is about to be sent.
    pub(super) fn ask(&self, now: Moment) -> Asked {
        let followed = self.followed.lock();
        Asked(followed.regions.iter().map(|region| region.follower.probe_sent(now)).collect())
    }

    /// A Redis server answered a probe as a master, over this connection.
    pub(super) fn server_answered(&self, asked: &Asked, line: LineId) {
        let mut followed = self.followed.lock();
        let stamp = Stamp { generation: Generation::new(0), term: line.number() };
        for (region, &probe) in followed.regions.iter_mut().zip(&asked.0) {
            if region.line == Some(line) {
                region.follower.probe_answered(probe, stamp, Position::default());
            }
        }
    }

    /// A node of ours answered a probe over this connection: it leads these partitions, and of what it is followed
    /// for no others.
    pub(super) fn node_answered(&self, asked: &Asked, line: LineId, leads: &[Leads]) {
        let mut followed = self.followed.lock();
        if !followed.open.contains_key(&line) {
            return;
        }
        let mut left = false;
        for region in followed.regions.iter_mut().filter(|region| region.line == Some(line)) {
            if !leads.iter().any(|led| led.slots == region.slots) {
                region.leave();
                left = true;
            }
        }
        for led in leads {
            left |= self.led(&mut followed, asked, line, *led);
        }
        drop(followed);
        if left {
            let _heard = self.changes.send(Change::Everything);
        }
    }

    /// Answers with whether the partition's copies were given up.
    fn led(&self, followed: &mut Followed, asked: &Asked, line: LineId, led: Leads) -> bool {
        let known = followed.regions.iter().position(|region| region.slots == led.slots);
        let region = match known.and_then(|position| u16::try_from(position).ok()) {
            Some(region) => region,
            None => match self.add(followed, led.slots) {
                Some(region) => region,
                None => return false,
            },
        };
        for slot in led.slots.iter() {
            self.assign(slot, region);
        }
        let position = usize::from(region);
        let region = &mut followed.regions[position];
        if region.line == Some(line) {
            let before = region.follower.resets();
            if let Some(&probe) = asked.0.get(position) {
                region.follower.probe_answered(probe, led.stamp, led.position);
            }
            region.follower.reached(led.stamp, led.position);
            return region.follower.resets() != before;
        }
        // An answer that was long under way may be of who led before.
        let is_newer = region.follower.stamp().is_none_or(|stamp| stamp < led.stamp);
        if region.line.is_none() || is_newer {
            region.follow(line, led.stamp);
            return true;
        }
        false
    }

    /// Lets a slot belong to a region.
    fn assign(&self, slot: Slot, region: u16) {
        let of_slot = &self.region_of_slot[index(slot)];
        if of_slot.load(Ordering::Relaxed) != region {
            // Before: who finds the new region finds what it had in the old one dead.
            self.whole.slot_invalidated(slot);
            of_slot.store(region, Ordering::Release);
        }
    }

    fn add(&self, followed: &mut Followed, slots: SlotRange) -> Option<u16> {
        let position = followed.regions.len();
        let number = u16::try_from(position).ok()?;
        let feed = Arc::new(Feed::new(slots, Arc::clone(&self.cells)));
        self.feeds.get(position)?.set(Arc::clone(&feed)).expect("positions are given out once");
        let follower = Follower::new(feed, self.bound);
        followed.regions.push(Region { follower, slots, line: None });
        Some(number)
    }

    fn feed_of(&self, slot: Slot) -> Option<&Feed> {
        let region = self.region_of_slot[index(slot)].load(Ordering::Acquire);
        self.feeds.get(usize::from(region))?.get().map(|feed| &**feed)
    }
}

impl Region {
    /// What is loaded over this connection from now on is followed.
    fn follow(&mut self, line: LineId, stamp: Stamp) {
        self.follower.reset();
        self.line = Some(line);
        self.follower.reached(stamp, Position::default());
    }

    fn leave(&mut self) {
        self.follower.reset();
        self.line = None;
    }
}

/// We are changing a key.
pub(super) struct Changing<'a> {
    watch: &'a Watch,
    key: &'a [u8],
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.watch.key_changed(Bytes::copy_from_slice(self.key));
    }
}

fn index(slot: Slot) -> usize {
    usize::from(slot.number())
}

#[cfg(test)]
mod tests;
