//! Walking over the keys of a store: `SCAN`, `KEYS`, `RANDOMKEY`, and the keys of a slot.

use scatterhoard_ring::Slot;

use crate::block::Block;
use crate::slot_table::{Hash, SlotTable};
use crate::{Store, UnixMillis};

/// How many draws look for a key that has not expired. Redis, `dbRandomKey`.
const RANDOM_KEY_TRIES: u64 = 100;

/// Where a scan goes on: the slot, and the place within it. It means the same in every replica, and for
/// as long as the hash seed stays, however the store grows or shrinks.
///
/// As a number it is below 2^62. The start and the end are 0, and no other cursor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(u64);

/// What one step of a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// Where to go on; [`Cursor::START`] when everything was seen.
    pub next: Cursor,
    /// The keys found.
    pub keys: Vec<&'a [u8]>,
}

impl Cursor {
    /// The start of a scan, and what stands for its end.
    pub const START: Self = Self(0);

    /// The upper 16 bits of a cursor are its slot, the others the upper 48 bits of a place.
    const PLACE_BITS: u32 = 48;

    /// The cursor that a client gave back. Any number is one; it may lie behind the end.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Where this slot begins. Slot 0 begins at [`Self::START`].
    #[must_use]
    pub const fn at_slot(slot: Slot) -> Self {
        Self((slot.number() as u64) << Self::PLACE_BITS)
    }

    /// The number for the client.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The slot it lies in, by which a scan over several partitions finds the one to ask. `None` if it
    /// is no cursor of ours.
    #[must_use]
    pub fn slot(self) -> Option<Slot> {
        u16::try_from(self.0 >> Self::PLACE_BITS).ok().and_then(Slot::new)
    }

    fn place(self) -> u64 {
        self.0 << (u64::BITS - Self::PLACE_BITS)
    }

    fn at_place(slot: Slot, place: u64) -> Self {
        let bits = u64::BITS - Self::PLACE_BITS;
        debug_assert!(place.trailing_zeros() >= bits, "a slot has fewer than 2^48 bins");
        Self(Self::at_slot(slot).0 | place >> bits)
    }
}

impl Store {
    /// Looks at about `count` keys from the cursor on, and answers those that match and have not
    /// expired.
    ///
    /// A key that is there from the start of a scan to its end is answered at least once, whatever is
    /// added or removed meanwhile, and on whichever replica each step is made. One step looks at `count`
    /// keys and as many more as lie close to the last of them, some dozens.
    #[must_use]
    pub fn scan(
        &self,
        cursor: Cursor,
        count: usize,
        matches: &dyn Fn(&[u8]) -> bool,
        now: UnixMillis,
    ) -> Page<'_> {
        let first = self.range.first();
        let cursor = cursor.max(Cursor::at_slot(first));
        let mut page = Page { next: Cursor::START, keys: Vec::new() };
        let Some(start) = cursor.slot().and_then(|slot| self.at(slot)) else {
            return page;
        };
        let mut looked_at = 0;
        let mut place = cursor.place();
        for at in start..self.slots.len() {
            for (span, blocks) in self.slots[at].bins_from(place) {
                let live = blocks.iter().filter(|block| self.slots[at].is_shown(block, now));
                // A cursor may lie within a bin, if bins were merged since.
                let ahead = live.filter(|block| {
                    span.first >= place || Hash::of(block.key(), self.seed).place() >= place
                });
                page.keys.extend(ahead.map(Block::key).filter(|key| matches(key)));
                looked_at += blocks.len();
                if looked_at >= count.max(1) {
                    page.next = self.cursor_after(at, span.last);
                    return page;
                }
            }
            place = 0;
        }
        page
    }

    /// All keys that match and have not expired, at most `limit`.
    #[must_use]
    pub fn keys(
        &self,
        matches: &dyn Fn(&[u8]) -> bool,
        now: UnixMillis,
        limit: usize,
    ) -> Vec<&[u8]> {
        let tables = 0..self.slots.len();
        let live = tables.flat_map(|at| self.live_keys(at, now));
        live.filter(|key| matches(key)).take(limit).collect()
    }

    /// A key that has not expired, by a roll that is evenly spread over all numbers. `None` if there is
    /// none, or hardly any among many that have expired.
    #[must_use]
    pub fn random_key(&self, roll: u64, now: UnixMillis) -> Option<&[u8]> {
        (0..RANDOM_KEY_TRIES).find_map(|attempt| {
            let roll = Hash::of(&attempt.to_le_bytes(), roll).0;
            let (table, block) = self.random_block(roll)?;
            table.is_shown(block, now).then_some(block.key())
        })
    }

    /// Keys of one slot that have not expired, at most `count`.
    #[must_use]
    pub fn keys_in_slot(&self, slot: Slot, count: usize, now: UnixMillis) -> Vec<&[u8]> {
        self.at(slot).map_or_else(Vec::new, |at| self.live_keys(at, now).take(count).collect())
    }

    /// How many keys a slot has, among them expired and stale ones that no sweep has met yet.
    #[must_use]
    pub fn count_in_slot(&self, slot: Slot) -> usize {
        self.at(slot).map_or(0, |at| self.slots[at].tally().keys_count)
    }

    fn live_keys(&self, at: usize, now: UnixMillis) -> impl Iterator<Item = &[u8]> {
        let table = &self.slots[at];
        let blocks = table.bins_from(0).flat_map(|(_, blocks)| blocks);
        blocks.filter(move |block| table.is_shown(block, now)).map(Block::key)
    }

    fn random_block(&self, roll: u64) -> Option<(&SlotTable, &Block)> {
        let entries_count = self.tally().entries_count();
        let mut rank = usize::try_from(roll % entries_count.max(1) as u64).ok()?;
        let table = self.slots.iter().find(|table| {
            let count = table.tally().entries_count();
            let is_here = rank < count;
            rank -= if is_here { 0 } else { count };
            is_here
        })?;
        let mut bins = table.bins_unordered();
        let block = bins.find_map(|(blocks, _)| {
            let found = blocks.get(rank);
            rank = rank.saturating_sub(blocks.len());
            found
        });
        block.map(|block| (table, block))
    }

    /// Behind the place of a slot.
    fn cursor_after(&self, at: usize, place: u64) -> Cursor {
        match place.checked_add(1) {
            Some(place) => Cursor::at_place(self.slot_at(at), place),
            None if at + 1 < self.slots.len() => Cursor::at_slot(self.slot_at(at + 1)),
            None => Cursor::START,
        }
    }
}
