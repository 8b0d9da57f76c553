//! What some slots have besides entries: leases of who loads a key, and tags that were invalidated.
//!
//! A lease lives by the time of the partition and is voided by whatever writes its key; it needs no entry. An
//! invalidated tag is remembered until no entry is left that was written before it and carries it: a sweep
//! removes those and forgets the tag.

use std::collections::BTreeMap;

use crate::bin::NEVER;
use crate::block::class_of;
use crate::extra::{Extra, Invalidated, Tag};
use crate::{Token, UnixMillis};

/// What the leases of one slot may take, in bytes: some thousand. They are sent whole with each piece of
/// their slot, so this bounds how much longer than it is meant to be a piece can get.
pub(crate) const LEASES_BYTES_MAX: usize = 512 << 10;
/// Tags that may be invalidated in a slot while leases live in it; one more voids them.
const RECENT_MAX: usize = 1024;
/// Tags remembered by a slot, unless it has more entries with tags than that. Beyond it is swept at once.
const INVALIDATED_MIN: usize = 64;
/// As [`INVALIDATED_MIN`], however many entries there are: what a piece of a snapshot carries with a slot.
const INVALIDATED_MAX: usize = 4096;
/// An item of a B-tree takes its own size and its share of nodes that are about two thirds full.
const fn tree_bytes(item_bytes: usize) -> usize {
    item_bytes * 3 / 2
}
const TAG_BYTES: usize = tree_bytes(size_of::<(Tag, u64)>());

/// The right of one client to fill one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) token: Token,
    pub(crate) until: UnixMillis,
    /// The index of the entry of the log that gave it.
    pub(crate) given: u64,
}

/// Invariant: what [`Side::bytes`] says follows from what is in it.
#[derive(Default)]
pub(crate) struct Side {
    leases: BTreeMap<Box<[u8]>, Lease>,
    leases_bytes: usize,
    /// No lease ends earlier; [`NEVER`] if there is none.
    lease_due: u64,
    /// What was invalidated while leases lived: a value that was loaded under an older lease is too old to
    /// carry one of these.
    recent: Invalidated,
    /// What was invalidated of which entries may be left.
    invalidated: Invalidated,
    /// How many entries carry tags.
    tagged_count: usize,
    /// One bit for each tag of an entry; entries that are gone leave theirs until a sweep.
    tagged_bits: u64,
    pub(crate) sweep: StaleSweep,
}

/// How far the removal of entries with invalidated tags has come.
#[derive(Clone, Copy, Default)]
pub(crate) struct StaleSweep {
    /// The next bin.
    pub(crate) bin: usize,
    /// The last index that the pass knew of when it began.
    pub(crate) until: u64,
    /// The bits of the tags met in it.
    pub(crate) bits: u64,
}

impl Side {
    pub(crate) fn new() -> Self {
        Self { lease_due: NEVER, ..Self::default() }
    }

    /// Whether it says nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.leases.is_empty() && self.tagged_count == 0
    }

    /// What it takes, counted as it is kept.
    pub(crate) fn bytes(&self) -> usize {
        class_of(size_of::<Self>()) + self.leases_bytes + self.tags_bytes()
    }

    /// What it takes, counted anew.
    pub(crate) fn recount_bytes(&self) -> usize {
        let leases = self.leases.keys().map(|key| lease_bytes(key)).sum::<usize>();
        class_of(size_of::<Self>()) + leases + self.tags_bytes()
    }

    pub(crate) fn tagged_count(&self) -> usize {
        self.tagged_count
    }

    /// The earliest time at which there is something to forget, in milliseconds.
    pub(crate) fn due(&self) -> u64 {
        if self.invalidated.is_empty() { self.lease_due } else { 0 }
    }

    pub(crate) fn leases(&self) -> impl ExactSizeIterator<Item = (&[u8], &Lease)> {
        self.leases.iter().map(|(key, lease)| (&**key, lease))
    }

    /// The lease on a key that is live at this time.
    pub(crate) fn lease(&self, key: &[u8], now: UnixMillis) -> Option<&Lease> {
        self.leases.get(key).filter(|lease| lease.until > now)
    }

    pub(crate) fn has_room_for(&self, key: &[u8]) -> bool {
        self.leases_bytes + lease_bytes(key) <= LEASES_BYTES_MAX
    }

    /// Gives a lease, or takes over one that came with a snapshot.
    pub(crate) fn put_lease(&mut self, key: &[u8], lease: Lease) {
        self.void(key);
        self.leases_bytes += lease_bytes(key);
        self.lease_due = self.lease_due.min(lease.until.millis());
        self.leases.insert(key.into(), lease);
    }

    pub(crate) fn void(&mut self, key: &[u8]) {
        if self.leases.remove(key).is_some() {
            self.leases_bytes -= lease_bytes(key);
            self.forget_recent();
        }
    }

    /// Voids the leases that do not pass.
    pub(crate) fn void_unless(&mut self, mut stays: impl FnMut(&[u8], &Lease) -> bool) {
        self.leases.retain(|key, lease| stays(key, lease));
        self.leases_bytes = self.leases.keys().map(|key| lease_bytes(key)).sum();
        let dues = self.leases.values().map(|lease| lease.until.millis());
        self.lease_due = dues.min().unwrap_or(NEVER);
        self.forget_recent();
    }

    /// Forgets leases that have ended.
    pub(crate) fn forget_ended(&mut self, stamp: UnixMillis) {
        if self.lease_due <= stamp.millis() {
            self.void_unless(|_, lease| lease.until > stamp);
        }
    }

    /// Whether a value with these tags is too old if it was loaded under this lease.
    pub(crate) fn outdates(&self, lease: &Lease, tags: &[&[u8]]) -> bool {
        let since = |tag: &&[u8]| self.recent.get(&Tag::of(tag)).copied();
        tags.iter().filter_map(since).any(|index| index > lease.given)
    }

    /// Remembers that a tag was invalidated: for the leases that live, and for entries that may carry it.
    pub(crate) fn invalidate(&mut self, tag: Tag, index: u64, stamp: UnixMillis) {
        self.forget_ended(stamp);
        if !self.leases.is_empty() {
            self.recent.insert(tag, index);
            if self.recent.len() > RECENT_MAX {
                // What all leases have seen goes first, so that who is voided follows from the log.
                let oldest = self.leases.values().map(|lease| lease.given).min().unwrap_or(0);
                self.recent.retain(|_, &mut index| index > oldest);
            }
            if self.recent.len() > RECENT_MAX {
                self.void_unless(|_, _| false);
            }
        }
        if self.tagged_count > 0 && self.tagged_bits & bit_of(tag) != 0 {
            self.invalidated.insert(tag, index);
        }
    }

    /// The tags that leases and entries are too old for, and since when.
    pub(crate) fn tags(&self) -> [&Invalidated; 2] {
        [&self.recent, &self.invalidated]
    }

    /// Takes over the tags that came with a snapshot, after the leases and the entries.
    pub(crate) fn set_tags(&mut self, [recent, invalidated]: [Invalidated; 2]) {
        self.sweep = StaleSweep::default();
        self.recent = if self.leases.is_empty() { Invalidated::new() } else { recent };
        self.invalidated = if self.tagged_count > 0 { invalidated } else { Invalidated::new() };
    }

    pub(crate) fn is_stale(&self, extra: Extra<'_>) -> bool {
        !self.invalidated.is_empty() && extra.is_stale(&self.invalidated)
    }

    /// Whether so many tags are remembered that the slot has to be swept.
    pub(crate) fn is_crowded(&self) -> bool {
        let most = self.tagged_count.clamp(INVALIDATED_MIN, INVALIDATED_MAX);
        self.invalidated.len() > most
    }

    /// An entry with tags came; `bits` are theirs.
    pub(crate) fn add_tagged(&mut self, bits: u64) {
        self.tagged_count += 1;
        self.tagged_bits |= bits;
        self.sweep.bits |= bits;
    }

    /// An entry with tags went.
    pub(crate) fn subtract_tagged(&mut self) {
        self.tagged_count -= 1;
        if self.tagged_count == 0 {
            self.tagged_bits = 0;
            self.invalidated.clear();
            self.sweep = StaleSweep::default();
        }
    }

    /// Whether some entries may be stale. Begins a pass over all bins, if none is under way.
    pub(crate) fn begin_pass(&mut self) -> bool {
        if self.sweep.until == 0 {
            let until = self.invalidated.values().copied().max().unwrap_or(0);
            self.sweep = StaleSweep { bin: 0, until, bits: 0 };
        }
        !self.invalidated.is_empty()
    }

    /// What leases still need of the tags, if they need any.
    fn forget_recent(&mut self) {
        if self.leases.is_empty() {
            self.lease_due = NEVER;
            self.recent.clear();
        }
    }

    fn tags_bytes(&self) -> usize {
        (self.recent.len() + self.invalidated.len()) * TAG_BYTES
    }

    /// A pass over all bins is done: no entry is left of before it that one of its tags made stale.
    pub(crate) fn end_pass(&mut self) {
        let StaleSweep { until, bits, .. } = std::mem::take(&mut self.sweep);
        self.invalidated.retain(|_, &mut index| index > until);
        self.tagged_bits = bits;
    }
}

/// The bits of an entry's tags, in a set of 64.
pub(crate) fn bits_of(extra: Extra<'_>) -> u64 {
    extra.tags().fold(0, |bits, tag| bits | bit_of(tag))
}

fn bit_of(tag: Tag) -> u64 {
    1 << (tag.0 >> 58)
}

fn lease_bytes(key: &[u8]) -> usize {
    tree_bytes(size_of::<(Box<[u8]>, Lease)>()) + class_of(key.len())
}
