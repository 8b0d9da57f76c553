//! What a reader knows of one partition, shared by all threads that load and serve.
//!
//! Everything here only grows: the counters of changes, and the moment until which copies may be served. A
//! copy carries the counters as they were before its load began ([`Mark`]); as long as they are the same,
//! nobody has said that it changed. So storing and removing copies needs no care: one that is stored after
//! its invalidation came is dead where it lies, and removing dead copies only saves memory.
//!
//! **Memory orderings.** Two things have to be seen in order.
//! - *Who sees a proof sees the changes that it covers.* The thread that follows the partition counts changes
//!   (relaxed) before it raises `serve_until` (release); `may_serve` loads `serve_until` first (acquire) and the
//!   counters after it. `serve_until` is raised by read-modify-write only, so that a later proof by another
//!   thread continues the release sequence of the earlier.
//! - *No ticket has counted an invalidation of what it is going to load.* A ticket loads the counters
//!   (relaxed) before the load is sent; what invalidates it is sent by a leader that had received the load, so
//!   the counting happens after, by way of the channels and sockets in between, and a load cannot see a write
//!   that happens after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use scatterhoard_ring::{Slot, SlotRange};

use crate::Moment;

/// Stands for a key in counters and between nodes. Two keys may share one; that costs a load at times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(u64);

impl KeyHash {
    /// The hash of a key: XXH3, 64 bits. Leader and reader have to use the same seed.
    #[must_use]
    pub fn of(key: &[u8], seed: u64) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64_with_seed(key, seed))
    }

    /// The hash with these bits, from the wire.
    #[must_use]
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Counters of changes, by key hash and by slot, for any number of partitions. Keys that share a counter
/// invalidate each other, so there should be a few times as many counters as copies.
///
/// All feeds that share them agree on what changed: where a slot goes from one feed to another, a mark that was
/// given by the one is judged rightly by the other, provided that the slot was
/// [invalidated](Feed::slot_invalidated) in between.
#[derive(Debug)]
pub struct Cells {
    changes: Box<[AtomicU64]>,
    shift: u32,
    slot_changes: Box<[AtomicU64]>,
}

impl Cells {
    /// The largest number of counters, as a power of two: 512 MiB.
    pub const BITS_MAX: u32 = 26;

    /// 2 to the power of `bits` counters of 8 bytes, and one for each slot, 128 KiB in all. `bits` is brought
    /// into `[1, 26]`.
    #[must_use]
    pub fn new(bits: u32) -> Self {
        let bits = bits.clamp(1, Self::BITS_MAX);
        let slot_changes = counters(usize::from(Slot::COUNT));
        Self { changes: counters(1 << bits), shift: u64::BITS - bits, slot_changes }
    }

    /// The high bits: hash tables inside the stores of copies tend to use the low ones.
    fn cell(&self, key: KeyHash) -> u32 {
        u32::try_from(key.0 >> self.shift).expect("there are at most 2^26 cells")
    }
}

/// What one reader knows of one partition: what changed, and until when copies may be served.
///
/// There is one for each partition as long as there are copies of its keys, and one [`crate::Follower`] at a
/// time that learns for it.
#[derive(Debug)]
pub struct Feed {
    slots: SlotRange,
    cells: Arc<Cells>,
    serve_until: AtomicU64,
}

/// The right to keep what a load brings. Made before the load is sent.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    sent: Moment,
    slot: Slot,
    cell: u32,
    slot_changes: u64,
    cell_changes: u64,
}

/// What lies beside a copy and tells whether it may be served.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    expires: Moment,
    slot: Slot,
    cell: u32,
    slot_changes: u64,
    cell_changes: u64,
}

impl Feed {
    /// Knows nothing yet, and lets nothing be served, of the partition with these slots.
    #[must_use]
    pub fn new(slots: SlotRange, cells: Arc<Cells>) -> Self {
        Self { slots, cells, serve_until: AtomicU64::new(0) }
    }

    /// Begins a load of a key, at the moment when it is about to be sent; `None` if the slot is not one of
    /// this partition.
    ///
    /// The request that loads has to register the interest in the key as well.
    #[must_use]
    pub fn begin(&self, slot: Slot, key: KeyHash, now: Moment) -> Option<Ticket> {
        let cell = self.cells.cell(key);
        let (slot_changes, cell_changes) = self.changes(slot, cell)?;
        Some(Ticket { sent: now, slot, cell, slot_changes, cell_changes })
    }

    /// Ends a load: the mark to store beside what it brought, or `None` if it may be old already.
    ///
    /// `lives_for` is the remaining time of the entry as the leader told it, `None` if it does not expire. It
    /// is counted from when the request was sent, which is before the leader looked.
    #[must_use]
    pub fn keep(&self, ticket: Ticket, lives_for: Option<Duration>) -> Option<Mark> {
        let Ticket { slot, cell, slot_changes, cell_changes, .. } = ticket;
        let expires = lives_for.map_or(Moment::NEVER, |rest| ticket.deadline(rest));
        let unchanged = self.changes(slot, cell) == Some((slot_changes, cell_changes));
        unchanged.then_some(Mark { expires, slot, cell, slot_changes, cell_changes })
    }

    /// Whether a copy may be served; asked *after* the copy was found, with a `now` from after the caller was
    /// asked for it. Three loads, no lock, no allocation, from any thread.
    ///
    /// A copy that may not be served now may be served after the next proof, unless [`Self::is_dead`].
    #[must_use]
    pub fn may_serve(&self, mark: &Mark, now: Moment) -> bool {
        let serve_until = self.serve_until.load(Ordering::Acquire);
        now.nanos() < serve_until && !self.is_dead(mark, now)
    }

    /// Whether a copy can be thrown away: it expired, or changed, or the feed was reset since its load began.
    #[must_use]
    pub fn is_dead(&self, mark: &Mark, now: Moment) -> bool {
        now >= mark.expires
            || self.changes(mark.slot, mark.cell) != Some((mark.slot_changes, mark.cell_changes))
    }

    /// Until when copies may be served, as it is proven by now.
    #[must_use]
    pub fn serve_until(&self) -> Moment {
        Moment::from_nanos(self.serve_until.load(Ordering::Acquire))
    }

    /// A key changed: ends its copies and loads, and those of keys that share its counter.
    pub fn invalidated(&self, key: KeyHash) {
        let cell = self.cells.cell(key) as usize;
        self.cells.changes[cell].fetch_add(1, Ordering::Relaxed);
    }

    /// Any key of a slot may have changed: ends all its copies and loads. Slots of other partitions are
    /// passed over.
    pub fn slot_invalidated(&self, slot: Slot) {
        if let Some(changes) = self.slot_counter(slot) {
            changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything may have changed: ends all copies and loads of the partition.
    ///
    /// What was proven stays: it is about questions that were sent before, and so is no more than the bound
    /// from any load that begins after.
    pub fn reset(&self) {
        for slot in self.slots.iter() {
            self.slot_invalidated(slot);
        }
    }

    /// All changes acknowledged before `until` less the bound have been counted here.
    pub(crate) fn prove(&self, until: Moment) {
        self.serve_until.fetch_max(until.nanos(), Ordering::Release);
    }

    fn changes(&self, slot: Slot, cell: u32) -> Option<(u64, u64)> {
        let of_slot = self.slot_counter(slot)?;
        let of_cell = self.cells.changes.get(cell as usize)?;
        Some((of_slot.load(Ordering::Relaxed), of_cell.load(Ordering::Relaxed)))
    }

    /// The counter of a slot; `None` if it is not one of this partition.
    fn slot_counter(&self, slot: Slot) -> Option<&AtomicU64> {
        let mine = self.slots.contains(slot);
        mine.then(|| self.cells.slot_changes.get(usize::from(slot.number()))).flatten()
    }
}

impl Ticket {
    /// When something ends that had so much time left when the leader looked: counted from when the request
    /// was sent, so never late.
    #[must_use]
    pub fn deadline(&self, rest: Duration) -> Moment {
        self.sent.after(rest)
    }
}

impl Mark {
    /// The slot of the copy's key, which tells the feed that it is to be shown to.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// When the copy expires; [`Moment::NEVER`] if it does not.
    #[must_use]
    pub fn expires(&self) -> Moment {
        self.expires
    }
}

fn counters(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}
