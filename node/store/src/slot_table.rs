//! The entries of one slot.
//!
//! A linear hash table of bins: one bin is split or merged at a time, so no step ever pays for the
//! rehash of a whole slot, and each bin holds one contiguous range of *places*. The place of a key is its
//! hash read backwards; it depends on nothing but the key and the seed, so scans and snapshots that go
//! on from a place survive growth, and a change of leader.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::UnixMillis;
use crate::bin::{Bin, NEVER};
use crate::block::Block;
use crate::extra::Tag;
use crate::lookup::Lookup;
use crate::side::{Lease, Side, StaleSweep, bits_of};

/// Entries that a bin has on average, in a slot that has more than one bin. Larger bins cost more to
/// search, smaller ones more to keep.
const BIN_ENTRIES: usize = 48;

/// The hash of a key, by the seed that all replicas share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash(pub(crate) u64);

impl Hash {
    pub(crate) fn of(key: &[u8], seed: u64) -> Self {
        Self(xxh3_64_with_seed(key, seed))
    }

    /// Bits that never choose the bin: a slot cannot have 2^56 of them.
    pub(crate) fn tag(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// Where the key stands in the order of its slot.
    pub(crate) fn place(self) -> u64 {
        self.0.reverse_bits()
    }
}

/// How much there is: of one slot, or of a whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Keys, among them expired ones, and ones that a tag made stale, that no sweep has met yet.
    pub keys_count: usize,
    /// Those of them that have a deadline.
    pub expires_count: usize,
    /// Entries which say that there is nothing under a key; they are not among the keys.
    pub negatives_count: usize,
    /// What the entries, leases and invalidated tags take with their tables, by the size classes of the
    /// allocator.
    pub bytes: usize,
}

impl Tally {
    /// Entries of every kind.
    pub(crate) fn entries_count(self) -> usize {
        self.keys_count + self.negatives_count
    }

    fn add(&mut self, block: &Block) {
        self.bytes += block.bytes();
        if block.is_negative() {
            self.negatives_count += 1;
        } else {
            self.keys_count += 1;
            self.expires_count += usize::from(block.deadline().is_some());
        }
    }

    fn subtract(&mut self, block: &Block) {
        self.bytes -= block.bytes();
        if block.is_negative() {
            self.negatives_count -= 1;
        } else {
            self.keys_count -= 1;
            self.expires_count -= usize::from(block.deadline().is_some());
        }
    }
}

/// Where an entry lies until an entry is added or removed.
#[derive(Clone, Copy)]
pub(crate) struct At {
    bin: usize,
    index: usize,
}

/// A range of places, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Span {
    pub(crate) fn contains(self, place: u64) -> bool {
        self.first <= place && place <= self.last
    }
}

pub(crate) struct SlotTable {
    bins: Vec<Bin>,
    tally: Tally,
    seed: u64,
    /// No entry has an earlier deadline, in milliseconds; [`NEVER`] if none has any.
    deadline_min: u64,
    /// The index of the last entry of the log that wrote here.
    pub(crate) applied: u64,
    /// Counts changes of entries, for [`Bin::changed`].
    version: u64,
    /// The version at which the last entry went, and every bin with its mark of change.
    emptied: u64,
    /// What few slots have.
    side: Option<Box<Side>>,
}

impl SlotTable {
    pub(crate) const fn new(seed: u64) -> Self {
        let tally = Tally { keys_count: 0, expires_count: 0, negatives_count: 0, bytes: 0 };
        Self {
            bins: Vec::new(),
            tally,
            seed,
            deadline_min: NEVER,
            applied: 0,
            version: 0,
            emptied: 0,
            side: None,
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The version at which the slot was last without entries after having had some.
    pub(crate) fn emptied(&self) -> u64 {
        self.emptied
    }

    pub(crate) fn place_of(&self, block: &Block) -> u64 {
        Hash::of(block.key(), self.seed).place()
    }

    /// The earliest time at which there is something to forget, in milliseconds; 0 if there is already.
    pub(crate) fn deadline_min(&self) -> u64 {
        self.side.as_ref().map_or(self.deadline_min, |side| side.due().min(self.deadline_min))
    }

    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.bins.is_empty() && self.side.is_none()
    }

    /// Whether an entry of this slot is neither expired nor stale by its tags.
    pub(crate) fn is_live(&self, block: &Block, now: UnixMillis) -> bool {
        block.is_lasting() || (!block.is_expired(now) && !self.is_stale(block))
    }

    /// Whether an entry of this slot is one that plain commands see.
    pub(crate) fn is_shown(&self, block: &Block, now: UnixMillis) -> bool {
        self.is_live(block, now) && !block.is_negative()
    }

    fn is_stale(&self, block: &Block) -> bool {
        self.side.as_ref().is_some_and(|side| side.is_stale(block.extra()))
    }

    /// What is under a key, and whether someone loads it.
    pub(crate) fn lookup(&self, at: Option<At>, key: &[u8], now: UnixMillis) -> Lookup<'_> {
        let block = at.map(|at| self.block(at)).filter(|block| self.is_live(block, now));
        Lookup::of(block, self.lease(key, now).map(|lease| lease.until), now)
    }

    pub(crate) fn side(&self) -> Option<&Side> {
        self.side.as_deref()
    }

    /// The lease on a key that is live at this time.
    pub(crate) fn lease(&self, key: &[u8], now: UnixMillis) -> Option<&Lease> {
        self.side.as_ref()?.lease(key, now)
    }

    /// Takes the right to fill a key from whoever has it.
    pub(crate) fn void(&mut self, key: &[u8]) {
        if self.side.is_some() {
            self.change_side(|side| side.void(key));
        }
    }

    /// Remembers that a tag was invalidated by the entry of the log at `index`.
    pub(crate) fn invalidate(&mut self, tag: Tag, index: u64, stamp: UnixMillis) {
        if self.side.is_none() {
            return;
        }
        let is_crowded = self.change_side(|side| {
            side.invalidate(tag, index, stamp);
            side.is_crowded()
        });
        if is_crowded {
            self.forget_stale();
        }
    }

    /// Changes what is beside the entries, and keeps the books.
    pub(crate) fn change_side<T>(&mut self, change: impl FnOnce(&mut Side) -> T) -> T {
        let mut side = match self.side.take() {
            Some(side) => {
                self.tally.bytes -= side.bytes();
                side
            }
            None => Box::new(Side::new()),
        };
        let result = change(&mut side);
        if !side.is_idle() {
            self.tally.bytes += side.bytes();
            self.side = Some(side);
        }
        result
    }

    pub(crate) fn locate(&self, hash: Hash, key: &[u8]) -> Option<At> {
        if self.bins.is_empty() {
            return None;
        }
        let bin = bin_of(hash, self.bins.len());
        let index = self.bins[bin].find(hash, key)?;
        Some(At { bin, index })
    }

    /// The bin in which a key with this hash is, if it is there.
    pub(crate) fn bin_for(&self, hash: Hash) -> Option<&Bin> {
        (!self.bins.is_empty()).then(|| &self.bins[bin_of(hash, self.bins.len())])
    }

    pub(crate) fn find(&self, hash: Hash, key: &[u8]) -> Option<&Block> {
        self.locate(hash, key).map(|at| self.block(at))
    }

    pub(crate) fn block(&self, at: At) -> &Block {
        &self.bins[at.bin].blocks()[at.index]
    }

    /// Changes an entry but not its key, and keeps the books.
    pub(crate) fn modify(&mut self, at: At, change: impl FnOnce(&mut Block)) {
        self.version += 1;
        let bin = &mut self.bins[at.bin];
        bin.changed = self.version;
        let block = bin.block_mut(at.index);
        let had_tags = block.extra().has_tags();
        self.tally.subtract(block);
        change(block);
        self.tally.add(block);
        let bits = block.extra().has_tags().then(|| bits_of(block.extra()));
        if let Some(deadline) = block.deadline() {
            bin.deadline_min = bin.deadline_min.min(deadline.millis());
            self.deadline_min = self.deadline_min.min(deadline.millis());
        }
        if had_tags {
            self.change_side(Side::subtract_tagged);
        }
        if let Some(bits) = bits {
            self.change_side(|side| side.add_tagged(bits));
        }
    }

    /// Adds an entry whose key is not there yet.
    pub(crate) fn insert(&mut self, hash: Hash, block: Block) {
        if self.tally.entries_count() >= self.bins.len() * BIN_ENTRIES {
            self.split_one();
        }
        self.version += 1;
        self.tally.add(&block);
        if block.extra().has_tags() {
            let bits = bits_of(block.extra());
            self.change_side(|side| side.add_tagged(bits));
        }
        if let Some(deadline) = block.deadline() {
            self.deadline_min = self.deadline_min.min(deadline.millis());
        }
        let bin_at = bin_of(hash, self.bins.len());
        let bin = &mut self.bins[bin_at];
        self.tally.bytes -= bin.vector_bytes();
        bin.changed = self.version;
        bin.push(hash.tag(), block);
        self.tally.bytes += bin.vector_bytes();
    }

    pub(crate) fn remove(&mut self, at: At) -> Block {
        self.version += 1;
        let bin = &mut self.bins[at.bin];
        self.tally.bytes -= bin.vector_bytes();
        bin.changed = self.version;
        let block = bin.take(at.index);
        self.tally.bytes += bin.vector_bytes();
        self.discount(&block);
        self.merge_spare();
        block
    }

    /// Forgets everything, leases too.
    pub(crate) fn clear(&mut self) {
        let (applied, version) = (self.applied, self.version + 1);
        *self = Self { applied, version, emptied: version, ..Self::new(self.seed) };
    }

    /// Removes the entries whose place lies in the span.
    pub(crate) fn clear_span(&mut self, span: Span) {
        let (seed, count) = (self.seed, self.bins.len());
        self.version += 1;
        let mut next = (count > 0).then_some(span.first);
        while let Some(place) = next.filter(|&place| place <= span.last) {
            let at = bin_of(Hash(place.reverse_bits()), count);
            self.bins[at].changed = self.version;
            self.take_unless(at, |block| !span.contains(Hash::of(block.key(), seed).place()));
            next = span_of(at, count).last.checked_add(1);
        }
        self.merge_spare();
    }

    /// Forgets what is expired at this time or stale, until `budget` entries were looked at. Answers whether
    /// all of the slot was seen; what was seen is not looked at again before it is due.
    pub(crate) fn sweep(&mut self, stamp: UnixMillis, budget: &mut usize) -> bool {
        for at in 0..self.bins.len() {
            if self.bins[at].deadline_min > stamp.millis() {
                continue;
            }
            if *budget == 0 {
                return false;
            }
            *budget = budget.saturating_sub(self.bins[at].blocks().len());
            self.take_unless(at, |block| !block.is_expired(stamp));
            // Also where none was expired: the bound was of a key that is gone.
            self.bins[at].deadline_min = self.bins[at].earliest_deadline();
        }
        self.deadline_min = self.bins.iter().map(|bin| bin.deadline_min).min().unwrap_or(NEVER);
        self.merge_spare();
        if self.side.is_none() {
            return true;
        }
        self.change_side(|side| side.forget_ended(stamp));
        self.sweep_stale(budget)
    }

    /// Forgets all that invalidated tags made stale, and the tags.
    fn forget_stale(&mut self) {
        if let Some(side) = &mut self.side {
            side.sweep = StaleSweep::default();
        }
        let mut budget = usize::MAX;
        self.sweep_stale(&mut budget);
    }

    /// Forgets what invalidated tags made stale, from where the last call left off, and the tags when all
    /// bins were seen.
    fn sweep_stale(&mut self, budget: &mut usize) -> bool {
        if !self.side.as_mut().is_some_and(|side| side.begin_pass()) {
            return true;
        }
        // Taken out, so that the entries can be looked at by it; what goes is counted when it is back.
        while let Some(side) = self.side.take() {
            let at = side.sweep.bin;
            if at >= self.bins.len() || *budget == 0 {
                self.side = Some(side);
                break;
            }
            *budget = budget.saturating_sub(self.bins[at].blocks().len());
            let mut bits = 0;
            let taken = self.bin_without(at, |block| {
                let extra = block.extra();
                let stays = !extra.has_tags() || !side.is_stale(extra);
                bits |= if stays { bits_of(extra) } else { 0 };
                stays
            });
            self.side = Some(side);
            if !taken.is_empty() {
                // Who was sent these with the tags is not sent the tags again.
                self.version += 1;
                self.bins[at].changed = self.version;
            }
            taken.iter().for_each(|(_, block)| self.discount(block));
            let Some(side) = &mut self.side else { break };
            side.sweep.bin = at + 1;
            side.sweep.bits |= bits;
        }
        let bins_count = self.bins.len();
        let is_done = self.side.as_ref().is_none_or(|side| side.sweep.bin >= bins_count);
        if is_done && self.side.is_some() {
            self.change_side(Side::end_pass);
        }
        self.merge_spare();
        is_done && self.side.as_ref().is_none_or(|side| side.due() > 0)
    }

    /// Removes entries and voids leases whose keys begin so; answers how many keys there were.
    pub(crate) fn remove_prefix(&mut self, prefix: &[u8], stamp: UnixMillis) -> usize {
        self.version += 1;
        let mut found = 0;
        for at in 0..self.bins.len() {
            let goes = |block: &Block| block.key().starts_with(prefix);
            let shown = |block: &&Block| goes(block) && self.is_shown(block, stamp);
            let shown_count = self.bins[at].blocks().iter().filter(shown).count();
            if self.bins[at].blocks().iter().any(goes) {
                self.bins[at].changed = self.version;
                self.take_unless(at, |block| !goes(block));
            }
            found += shown_count;
        }
        if self.side.is_some() {
            self.change_side(|side| side.void_unless(|key, _| !key.starts_with(prefix)));
        }
        self.merge_spare();
        found
    }

    /// Goes over to a log whose indexes begin anew: nothing is left that was compared by the old ones.
    pub(crate) fn begin_log(&mut self) {
        self.applied = 0;
        if self.side.is_none() {
            return;
        }
        self.change_side(|side| side.void_unless(|_, _| false));
        self.forget_stale();
        for bin in &mut self.bins {
            (0..bin.blocks().len()).for_each(|at| bin.block_mut(at).forget_written());
        }
    }

    /// The bins in the order of places, from the one in which this place lies.
    pub(crate) fn bins_from(&self, place: u64) -> impl Iterator<Item = (Span, &[Block])> {
        let mut next = (!self.bins.is_empty()).then_some(place);
        std::iter::from_fn(move || {
            let at = bin_of(Hash(next?.reverse_bits()), self.bins.len());
            let span = span_of(at, self.bins.len());
            next = span.last.checked_add(1);
            Some((span, self.bins[at].blocks()))
        })
    }

    /// The bins that begin before this place and were changed after this version.
    pub(crate) fn bins_changed(
        &self,
        before: u64,
        since: u64,
    ) -> impl Iterator<Item = (Span, &[Block])> {
        let spans = (0..self.bins.len()).map(|at| (span_of(at, self.bins.len()), &self.bins[at]));
        spans
            .filter(move |(span, bin)| bin.changed > since && span.first < before)
            .map(|(span, bin)| (span, bin.blocks()))
    }

    /// The bins in no order, and whether each may hold a deadline.
    pub(crate) fn bins_unordered(&self) -> impl ExactSizeIterator<Item = (&[Block], bool)> {
        self.bins.iter().map(|bin| (bin.blocks(), bin.deadline_min != NEVER))
    }

    pub(crate) fn bins_count(&self) -> usize {
        self.bins.len()
    }

    pub(crate) fn bin(&self, at: usize) -> (&[Block], bool) {
        (self.bins[at].blocks(), self.bins[at].deadline_min != NEVER)
    }

    /// What [`SlotTable::tally`] says, counted anew.
    pub(crate) fn recount(&self) -> Tally {
        let mut tally = Tally::default();
        self.bins.iter().flat_map(Bin::blocks).for_each(|block| tally.add(block));
        tally.bytes += self.bins.capacity() * size_of::<Bin>();
        tally.bytes += self.bins.iter().map(Bin::vector_bytes).sum::<usize>();
        tally.bytes += self.side.as_ref().map_or(0, |side| side.recount_bytes());
        let blocks = self.bins.iter().flat_map(Bin::blocks);
        let tagged_count = blocks.filter(|block| block.extra().has_tags()).count();
        let counted = self.side.as_ref().map_or(0, |side| side.tagged_count());
        assert_eq!(counted, tagged_count, "the entries with tags");
        tally
    }

    fn take_unless(&mut self, at: usize, stays: impl FnMut(&Block) -> bool) {
        for (_, block) in self.bin_without(at, stays) {
            self.discount(&block);
        }
    }

    /// Takes out of a bin what does not pass. The caller discounts it.
    fn bin_without(&mut self, at: usize, stays: impl FnMut(&Block) -> bool) -> Vec<(u8, Block)> {
        let bin = &mut self.bins[at];
        self.tally.bytes -= bin.vector_bytes();
        let taken = bin.take_unless(stays);
        self.tally.bytes += bin.vector_bytes();
        taken
    }

    fn discount(&mut self, block: &Block) {
        self.tally.subtract(block);
        if block.extra().has_tags() {
            self.change_side(Side::subtract_tagged);
        }
    }

    /// Adds a bin, and gives it half of the bin whose turn it is.
    fn split_one(&mut self) {
        let new = self.bins.len();
        self.resize_bins(|bins| {
            if bins.len() == bins.capacity() {
                bins.reserve_exact((bins.len() / 8).max(1));
            }
            bins.push(Bin::new(0));
        });
        if new == 0 {
            return;
        }
        let source = new - previous_power(new);
        let (seed, count) = (self.seed, new + 1);
        let stays = |block: &Block| bin_of(Hash::of(block.key(), seed), count) == source;
        self.tally.bytes -= self.bins[source].vector_bytes() + self.bins[new].vector_bytes();
        self.bins[new].changed = self.bins[source].changed;
        for (tag, block) in self.bins[source].take_unless(stays) {
            self.bins[new].push(tag, block);
        }
        self.tally.bytes += self.bins[source].vector_bytes() + self.bins[new].vector_bytes();
    }

    /// Undoes splits while there are far more bins than the entries need.
    fn merge_spare(&mut self) {
        let entries_count = self.tally.entries_count();
        if entries_count == 0 && !self.bins.is_empty() {
            let side = self.side.take();
            self.clear();
            self.tally.bytes = side.as_ref().map_or(0, |side| side.bytes());
            self.side = side;
        }
        while self.bins.len() > 1 && entries_count < (self.bins.len() - 1) * BIN_ENTRIES / 2 {
            self.merge_one();
        }
    }

    fn merge_one(&mut self) {
        let Some(mut last) = self.bins.pop() else {
            return;
        };
        if let Some(side) = &mut self.side {
            // What comes from the last bin may not have been seen, and goes where all was.
            side.sweep.bin = 0;
        }
        let target = self.bins.len() - previous_power(self.bins.len());
        let target = &mut self.bins[target];
        self.tally.bytes -= last.vector_bytes() + target.vector_bytes();
        target.changed = target.changed.max(last.changed);
        for (tag, block) in last.take_unless(|_| false) {
            target.push(tag, block);
        }
        self.tally.bytes += target.vector_bytes();
        if self.bins.capacity() > self.bins.len() * 2 + 8 {
            let spare = self.bins.len() / 8;
            self.resize_bins(|bins| bins.shrink_to(bins.len() + spare));
        }
    }

    fn resize_bins(&mut self, resize: impl FnOnce(&mut Vec<Bin>)) {
        self.tally.bytes -= self.bins.capacity() * size_of::<Bin>();
        resize(&mut self.bins);
        self.tally.bytes += self.bins.capacity() * size_of::<Bin>();
    }
}

/// Which of `count` bins holds a hash. Bins are split in turn: those before `count - half` and those
/// from `half` go by one bit more than the rest.
fn bin_of(hash: Hash, count: usize) -> usize {
    let half = previous_power(count);
    let at = hash.0 as usize & (half * 2 - 1);
    if at < count { at } else { at & (half - 1) }
}

/// The places that one of `count` bins holds.
fn span_of(bin: usize, count: usize) -> Span {
    let half = previous_power(count);
    let is_split = bin < count - half || bin >= half;
    let bits = half.ilog2() + u32::from(is_split);
    let first = (bin as u64).reverse_bits();
    Span { first, last: first | u64::MAX.checked_shr(bits).unwrap_or(0) }
}

/// The largest power of two that is not above `count`, which is not zero.
fn previous_power(count: usize) -> usize {
    1 << count.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::block::{Parts, Shape};
    use crate::extra::Extra;

    const SEED: u64 = 7;

    fn key(number: u32) -> Vec<u8> {
        format!("key:{number}").into_bytes()
    }

    fn block(key: &[u8], deadline: Option<u64>) -> Block {
        let deadline = deadline.map(UnixMillis::new);
        let (shape, access, extra) = (Shape::Whole, Access(0), Extra::NONE);
        Block::new(Parts { key, value: b"v", deadline, shape, access, extra })
    }

    fn filled(count: u32) -> SlotTable {
        let mut table = SlotTable::new(SEED);
        for number in 0..count {
            let deadline = number.is_multiple_of(3).then_some(u64::from(number));
            table.insert(Hash::of(&key(number), SEED), block(&key(number), deadline));
        }
        table
    }

    #[test]
    fn spans_of_bins_follow_each_other_without_gaps() {
        for count in 1..200 {
            let mut spans: Vec<_> = (0..count).map(|bin| span_of(bin, count)).collect();
            spans.sort_by_key(|span| span.first);
            assert_eq!(spans[0].first, 0);
            assert_eq!(spans[count - 1].last, u64::MAX);
            for pair in spans.windows(2) {
                assert_eq!(pair[0].last.checked_add(1), Some(pair[1].first), "{count} bins");
            }
            for number in 0..50_u64 {
                let hash = Hash(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                assert!(span_of(bin_of(hash, count), count).contains(hash.place()));
            }
        }
    }

    #[test]
    fn a_slot_grows_and_shrinks_bin_by_bin_and_the_books_are_right() {
        let mut table = filled(5000);
        assert!(table.bins.len() > 80);
        for number in 0..5000 {
            let hash = Hash::of(&key(number), SEED);
            assert_eq!(table.find(hash, &key(number)).map(Block::key), Some(&key(number)[..]));
            if number % 100 == 0 {
                assert_eq!(table.tally(), table.recount());
            }
        }
        for number in 0..5000 {
            let hash = Hash::of(&key(number), SEED);
            let at = table.locate(hash, &key(number)).expect("not removed yet");
            table.remove(at);
            assert!(table.find(hash, &key(number)).is_none());
            if number % 50 == 0 || number > 4900 {
                assert_eq!(table.tally(), table.recount());
            }
        }
        assert_eq!(table.tally(), Tally::default());
        assert!(table.bins.is_empty());
    }

    #[test]
    fn a_span_is_cleared_and_nothing_else() {
        let mut table = filled(2000);
        let span = Span { first: 1 << 62, last: (1 << 63) + 12_345 };
        table.clear_span(span);
        for number in 0..2000 {
            let hash = Hash::of(&key(number), SEED);
            let is_there = table.find(hash, &key(number)).is_some();
            assert_eq!(is_there, !span.contains(hash.place()));
        }
        assert_eq!(table.tally(), table.recount());
    }

    #[test]
    fn a_sweep_keeps_to_its_budget_and_finishes_in_the_end() {
        let mut table = filled(3000);
        assert_eq!(table.deadline_min(), 0);
        let mut rounds = 1;
        while !table.sweep(UnixMillis::new(1500), &mut 100) {
            rounds += 1;
            assert_eq!(table.tally(), table.recount());
        }
        assert!(rounds > 20, "{rounds}");
        assert_eq!(table.tally().expires_count, 499);
        assert_eq!(table.deadline_min(), 1503);
    }
}
