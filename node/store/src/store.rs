//! The state of one partition: its slots, and the time it has reached.

use scatterhoard_ring::{Slot, SlotRange};

use crate::ahead::STEPS_AHEAD;
use crate::bin::NEVER;
use crate::entry::{CorruptEntry, Entry, Logged};
use crate::extra::Tag;
use crate::slot_table::{SlotTable, Tally};
use crate::snapshot::Walks;
use crate::write::Writer;
use crate::{OpError, Reply, Step, UnixMillis};

/// What the log of one partition adds up to.
///
/// Reads take `&self`; readers may share a store behind a lock for many readers. Only recency changes
/// under them, and that is atomic.
pub struct Store {
    pub(crate) range: SlotRange,
    pub(crate) slots: Vec<SlotTable>,
    pub(crate) seed: u64,
    pub(crate) stamp: UnixMillis,
    pub(crate) walks: Walks,
    /// No key has an earlier deadline, in milliseconds.
    pub(crate) deadline_min: u64,
    /// Where the next sweep begins.
    pub(crate) sweep_from: usize,
    tally: Tally,
    value_bytes_max: usize,
    /// Which log this is. Logs of one partition follow each other.
    generation: u32,
    /// Slots that the entry at hand wrote to. Kept for its room.
    touched: Vec<u16>,
}

/// What stands for a write to who fences with it (Kleppmann, "How to do distributed locking", 2016): a number above
/// that of every write of the same partition that was answered before this one was sent. It is made of the log that
/// the write is in and its index there: 19 and 44 bits, so that it is a positive `i64`.
#[must_use]
pub fn version(generation: u32, index: u64) -> i64 {
    let bits =
        (u64::from(generation) << VERSION_INDEX_BITS) | (index & ((1 << VERSION_INDEX_BITS) - 1));
    i64::try_from(bits & i64::MAX.unsigned_abs()).expect("it was cut to 63 bits")
}

/// Enough for a hundred thousand entries a second for five years.
const VERSION_INDEX_BITS: u32 = 44;

impl Store {
    /// An empty store of these slots.
    ///
    /// All replicas of a partition *must* have the same `hash_seed`, by which keys have their places,
    /// and the same `value_bytes_max`, above which `APPEND` and `SETRANGE` are refused when they are
    /// applied: it cannot be known before. At most 4 GiB.
    #[must_use]
    pub fn new(slots: SlotRange, hash_seed: u64, value_bytes_max: usize) -> Self {
        assert!(u32::try_from(value_bytes_max).is_ok(), "a value's length is kept in 32 bits");
        Self {
            range: slots,
            slots: slots.iter().map(|_| SlotTable::new(hash_seed)).collect(),
            seed: hash_seed,
            stamp: UnixMillis::default(),
            walks: Walks::default(),
            deadline_min: NEVER,
            sweep_from: 0,
            tally: Tally::default(),
            value_bytes_max,
            generation: 0,
            touched: Vec::new(),
        }
    }

    /// The same, under the log that was founded as this one of its partition. It decides versions only, and
    /// *must* be the same on all replicas.
    #[must_use]
    pub fn of_generation(self, generation: u32) -> Self {
        Self { generation, ..self }
    }

    /// Applies the log entry at `index`. Appends the answers of its steps, in their order, to
    /// `replies`, if someone asked.
    ///
    /// A step whose slot has seen `index`, because it came with a snapshot, is skipped; if someone asked,
    /// the answer is [`OpError::AnswerLost`].
    ///
    /// # Errors
    /// The bytes are not an entry for this store, and a part of it may have been applied. The replica
    /// has to stop: it would differ from the others.
    pub fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        mut replies: Option<&mut Vec<Reply<'static>>>,
    ) -> Result<(), CorruptEntry> {
        let entry = Entry::parse(entry)?;
        // Not the entry's stamp alone: were one ever to go back, a replica that has swept and one that
        // has not would disagree on what is there.
        self.stamp = self.stamp.max(entry.stamp());
        let mut steps = entry.steps();
        let mut next = Vec::with_capacity(STEPS_AHEAD);
        while let Some(step) = steps.next() {
            next.push(step?);
            for step in steps.by_ref().take(STEPS_AHEAD - 1) {
                next.push(step?);
            }
            if next.len() > 1 {
                self.look_ahead(&next);
            }
            for step in next.drain(..) {
                let reply = match step {
                    Logged::Write(step) => self.apply_step(index, &step)?,
                    Logged::Flush { slots } => self.flush(index, slots)?,
                    Logged::InvalidateTag { slots, tag } => {
                        self.invalidate_tag(index, slots, tag)?
                    }
                    Logged::InvalidatePrefix { slots, prefix } => {
                        self.invalidate_prefix(index, slots, prefix)?
                    }
                };
                if let Some(replies) = &mut replies {
                    replies.push(reply);
                }
            }
        }
        // Only now, so that a second step to the same slot is not taken for one that was seen before.
        for at in self.touched.drain(..) {
            self.slots[usize::from(at)].applied = index;
        }
        Ok(())
    }

    /// Goes over to a new log, whose indexes begin anew. Values, recency and the stamp stay. What tags made
    /// stale is forgotten, and fill leases are void: both are told by indexes of the old log. Costs a look at
    /// every entry of the slots that have such.
    pub fn begin_log(&mut self) {
        for at in 0..self.slots.len() {
            self.change(at, SlotTable::begin_log);
        }
    }

    /// The latest stamp that was applied or installed. Never goes back.
    #[must_use]
    pub fn stamp(&self) -> UnixMillis {
        self.stamp
    }

    /// The slots of this store.
    #[must_use]
    pub fn slots(&self) -> SlotRange {
        self.range
    }

    /// How much is in the store.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How many keys there are, among them expired and stale ones that no sweep has met yet. Entries that
    /// say that there is nothing are not counted.
    #[must_use]
    pub fn keys_count(&self) -> usize {
        self.tally.keys_count
    }

    /// How many keys have a deadline.
    #[must_use]
    pub fn expires_count(&self) -> usize {
        self.tally.expires_count
    }

    /// What all of it takes with its tables, in bytes, by the size classes of the allocator. An
    /// empty store counts 0; its slots take about 96 bytes each all the same.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tally.bytes as u64
    }

    /// How much is in one slot of this store.
    #[must_use]
    pub fn slot_tally(&self, slot: Slot) -> Tally {
        self.table(slot).tally()
    }

    /// What [`Store::tally`] says, counted anew over every entry: for tests of the books.
    #[must_use]
    pub fn recount(&self) -> Tally {
        self.slots.iter().map(SlotTable::recount).fold(Tally::default(), Tally::plus)
    }

    pub(crate) fn table(&self, slot: Slot) -> &SlotTable {
        let at = self.at(slot).expect("the router asks the store that has the slot");
        &self.slots[at]
    }

    pub(crate) fn at(&self, slot: Slot) -> Option<usize> {
        let at =
            usize::from(slot.number()).checked_sub(usize::from(self.range.first().number()))?;
        (at < self.slots.len()).then_some(at)
    }

    pub(crate) fn slot_at(&self, at: usize) -> Slot {
        let number = self.range.first().number() + at as u16;
        Slot::new(number).expect("a range holds only slots")
    }

    /// Changes a slot, and keeps the books of the store.
    pub(crate) fn change<T>(&mut self, at: usize, change: impl FnOnce(&mut SlotTable) -> T) -> T {
        let table = &mut self.slots[at];
        let before = table.tally();
        let result = change(table);
        self.tally = self.tally.plus(table.tally()).less(before);
        self.deadline_min = self.deadline_min.min(table.deadline_min());
        result
    }

    fn apply_step(&mut self, index: u64, step: &Step<'_>) -> Result<Reply<'static>, CorruptEntry> {
        let at = self.at(step.slot).ok_or(CorruptEntry("a slot of another partition"))?;
        if self.slots[at].applied >= index {
            return Ok(Reply::Error(OpError::AnswerLost));
        }
        self.touched.push(at as u16);
        let (seed, stamp, value_bytes_max) = (self.seed, self.stamp, self.value_bytes_max);
        let version = version(self.generation, index);
        Ok(self.change(at, |table| {
            Writer { table, seed, index, version, stamp, value_bytes_max }.write(&step.write)
        }))
    }

    /// Costs a look at each slot, and more only at those that have entries with tags or leases.
    fn invalidate_tag(
        &mut self,
        index: u64,
        slots: SlotRange,
        tag: &[u8],
    ) -> Result<Reply<'static>, CorruptEntry> {
        let (tag, stamp) = (Tag::of(tag), self.stamp);
        for slot in slots.iter() {
            let at = self.at(slot).ok_or(CorruptEntry("a slot of another partition"))?;
            if self.slots[at].side().is_some() && self.slots[at].applied < index {
                self.touched.push(at as u16);
                self.change(at, |table| table.invalidate(tag, index, stamp));
            }
        }
        Ok(Reply::Ok)
    }

    /// Costs a look at each entry. What was removed from slots that had seen this is not known any more.
    fn invalidate_prefix(
        &mut self,
        index: u64,
        slots: SlotRange,
        prefix: &[u8],
    ) -> Result<Reply<'static>, CorruptEntry> {
        let (stamp, mut removed, mut is_lost) = (self.stamp, 0, false);
        for slot in slots.iter() {
            let at = self.at(slot).ok_or(CorruptEntry("a slot of another partition"))?;
            if self.slots[at].applied >= index {
                is_lost = true;
                continue;
            }
            self.touched.push(at as u16);
            if !self.slots[at].is_empty() {
                removed += self.change(at, |table| table.remove_prefix(prefix, stamp));
            }
        }
        let removed = Reply::Int(i64::try_from(removed).unwrap_or(i64::MAX));
        Ok(if is_lost { Reply::Error(OpError::AnswerLost) } else { removed })
    }

    fn flush(&mut self, index: u64, slots: SlotRange) -> Result<Reply<'static>, CorruptEntry> {
        for slot in slots.iter() {
            let at = self.at(slot).ok_or(CorruptEntry("a slot of another partition"))?;
            if self.slots[at].applied < index {
                self.touched.push(at as u16);
                self.change(at, SlotTable::clear);
            }
        }
        Ok(Reply::Ok)
    }
}

impl Tally {
    fn plus(self, other: Self) -> Self {
        Self {
            keys_count: self.keys_count + other.keys_count,
            expires_count: self.expires_count + other.expires_count,
            negatives_count: self.negatives_count + other.negatives_count,
            bytes: self.bytes + other.bytes,
        }
    }

    fn less(self, other: Self) -> Self {
        Self {
            keys_count: self.keys_count - other.keys_count,
            expires_count: self.expires_count - other.expires_count,
            negatives_count: self.negatives_count - other.negatives_count,
            bytes: self.bytes - other.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_may_be_shared_by_readers_on_several_threads() {
        fn check<T: Send + Sync>() {}
        check::<Store>();
    }
}
