//! A store as a sequence of pieces, taken one by one while entries go on being applied.
//!
//! ```text
//! piece      version u8 = 2, record*
//! record     0, stamp u64
//!          | 1, slot u16, applied u64, begins u8, (1, first place u64, last place u64, count, entry*)*, 0, side
//! entry      flags u8, access u32, [deadline u64], [extra], key, value
//! side       count, (key, token u64, until u64, given u64)*, 2 × (count, (tag u64, index u64)*)
//! ```
//! What makes it right though the store changes between two pieces:
//! - Each slot carries the index of the last entry that it has seen, so the receiver, which replays the
//!   log from the start of the snapshot, skips what the slot has seen.
//! - The stamp comes first, so it is not later than that of any entry which the receiver does not skip:
//!   it cannot forget what such an entry might still keep alive.
//! - A slot that is too long for one piece is cut by places. Each later piece begins with the bins of
//!   the part already sent that were changed since the piece before. So after each piece the part sent
//!   is what it was at *one* index, and after the last the whole slot is: steps with two keys need no
//!   more than that. Rejected: a log index for each part of a slot; a `RENAME` from a part that has seen
//!   it into one that has not could not be replayed.
//! - What a slot has besides entries, its leases and invalidated tags, is bounded and sent whole with each
//!   piece of it, as it is at that index; the last one counts.
//! - How far the receiver is, is remembered in [`Walks`]; if that was forgotten, or the slot was emptied
//!   meanwhile, the slot is sent from its beginning, which clears it at the receiver.

use std::collections::VecDeque;

use scatterhoard_ring::Slot;

use crate::access::Access;
use crate::block::{Block, Parts, Shape};
use crate::entry::CorruptEntry;
use crate::extra::{Extra, Invalidated, Tag};
use crate::fields::{Fields, put_bytes, put_count};
use crate::filter::Filter;
use crate::side::{Lease, Side};
use crate::slot_table::{Hash, SlotTable, Span};
use crate::{Store, Token, UnixMillis};

/// How long a piece is meant to be: with the entry that closes it, if that is no longer than 64 KiB, it is
/// one frame of a peer connection (256 KiB), and frames can be sent ahead without being overtaken.
const PIECE_BYTES: usize = 192 << 10;
/// Slots being sent in parts, each to one receiver. One that is forgotten is begun anew.
const WALKS_MAX: usize = 64;

const VERSION: u8 = 2;
const RECORD_PARTITION: u8 = 0;
const RECORD_SLOT: u8 = 1;
const FLAG_DEADLINE: u8 = 1;
const FLAG_GROWN: u8 = 2;
const FLAG_NEGATIVE: u8 = 4;
const FLAG_FILTER: u8 = 8;
const FLAG_EXTRA: u8 = 16;
const SHAPE_FLAGS: u8 = FLAG_GROWN | FLAG_NEGATIVE | FLAG_FILTER;
/// The lower bits of a position name a walk, or are 0 at the beginning of a slot.
const WALK_BITS: u32 = 48;

/// These bytes are not a piece of a snapshot of such a store. What was installed of it is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt snapshot: {0}")]
pub struct CorruptSnapshot(pub &'static str);

impl From<CorruptEntry> for CorruptSnapshot {
    fn from(corrupt: CorruptEntry) -> Self {
        Self(corrupt.0)
    }
}

/// Slots that were sent in part, and up to where.
#[derive(Default)]
pub(crate) struct Walks {
    opened: u64,
    recent: VecDeque<Walk>,
}

#[derive(Clone, Copy)]
struct Walk {
    id: u64,
    /// What is before this place was sent.
    place: u64,
    /// The version of the slot at which it was sent.
    version: u64,
}

impl Walks {
    fn open(&mut self, place: u64, version: u64) -> u64 {
        self.opened += 1;
        if self.recent.len() == WALKS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Walk { id: self.opened, place, version });
        self.opened
    }

    fn find(&self, id: u64) -> Option<Walk> {
        self.recent.iter().find(|walk| walk.id == id).copied()
    }
}

impl Store {
    /// Appends the piece at `position` to `out`, and answers the next position, or `None` after the last
    /// piece. Starts at 0. Installed in their order in an empty store of the same slots and seed, the
    /// pieces make, with the log from the first piece on, the same state as here.
    ///
    /// A piece is about 192 KiB long, or as long as its one value if that is longer; and longer by what
    /// was changed since the last piece in the part already sent of a slot that did not fit into one.
    pub fn piece(&mut self, position: u64, out: &mut Vec<u8>) -> Option<u64> {
        let start = out.len();
        out.push(VERSION);
        if position == 0 {
            out.push(RECORD_PARTITION);
            out.extend_from_slice(&self.stamp.millis().to_le_bytes());
        }
        let first = usize::try_from(position >> WALK_BITS).ok()?.saturating_sub(1);
        let mut walk = self.walks.find(position & ((1 << WALK_BITS) - 1));
        for at in first..self.slots.len() {
            let (table, walk) = (&self.slots[at], walk.take());
            if table.applied == 0 && table.is_empty() {
                continue;
            }
            // A slot that fits into one piece is not cut.
            let bytes = table.tally().bytes;
            let is_full = out.len() - start + bytes > PIECE_BYTES;
            if is_full && at > first && bytes <= PIECE_BYTES {
                return Some(position_of(at, 0));
            }
            let rest = put_slot(out, self.slot_at(at), table, walk, start + PIECE_BYTES);
            if let Some(place) = rest {
                let version = table.version();
                return Some(position_of(at, self.walks.open(place, version)));
            }
        }
        None
    }

    /// Adds a piece of another store's snapshot to this one.
    ///
    /// # Errors
    /// It is not a piece of a store with these slots. This store is then of no use any more.
    pub fn install_piece(&mut self, piece: &[u8]) -> Result<(), CorruptSnapshot> {
        let mut fields = Fields(piece);
        if fields.byte()? != VERSION {
            return Err(CorruptSnapshot("unknown version"));
        }
        while !fields.0.is_empty() {
            match fields.byte()? {
                RECORD_PARTITION => {
                    let stamp = UnixMillis::new(fields.fixed().map(u64::from_le_bytes)?);
                    self.stamp = self.stamp.max(stamp);
                }
                RECORD_SLOT => self.install_slot(&mut fields)?,
                _ => return Err(CorruptSnapshot("unknown kind of record")),
            }
        }
        Ok(())
    }

    fn install_slot(&mut self, fields: &mut Fields<'_>) -> Result<(), CorruptSnapshot> {
        let slot = Slot::new(fields.fixed().map(u16::from_le_bytes)?);
        let at = slot.and_then(|slot| self.at(slot));
        let at = at.ok_or(CorruptSnapshot("a slot of another partition"))?;
        let applied = fields.fixed().map(u64::from_le_bytes)?;
        let begins = fields.flag()?;
        let seed = self.seed;
        self.change(at, |table| {
            if begins {
                table.clear();
            }
            table.applied = applied;
            while fields.flag()? {
                install_span(table, fields, seed)?;
            }
            install_side(table, fields)
        })
    }
}

fn position_of(at: usize, walk: u64) -> u64 {
    (at as u64 + 1) << WALK_BITS | walk
}

/// Appends what is to be sent of a slot, up to a length of `out`; answers where to go on, if not all was.
fn put_slot(
    out: &mut Vec<u8>,
    slot: Slot,
    table: &SlotTable,
    walk: Option<Walk>,
    length_max: usize,
) -> Option<u64> {
    let walk = walk.filter(|walk| table.emptied() <= walk.version);
    out.push(RECORD_SLOT);
    out.extend_from_slice(&slot.number().to_le_bytes());
    out.extend_from_slice(&table.applied.to_le_bytes());
    out.push(u8::from(walk.is_none()));
    let place = walk.map_or(0, |walk| walk.place);
    if let Some(walk) = walk {
        for (span, blocks) in table.bins_changed(place, walk.version) {
            let span = Span { last: span.last.min(place - 1), ..span };
            put_span(out, span, &placed(table, blocks, span));
        }
    }
    let rest = put_rest(out, table, place, length_max);
    out.push(0);
    put_side(out, table.side());
    rest
}

fn put_side(out: &mut Vec<u8>, side: Option<&Side>) {
    let Some(side) = side else {
        out.extend_from_slice(&[0; 3]);
        return;
    };
    put_count(out, side.leases().len());
    for (key, lease) in side.leases() {
        put_bytes(out, key);
        for number in [lease.token.0, lease.until.millis(), lease.given] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    for tags in side.tags() {
        put_count(out, tags.len());
        for (tag, index) in tags {
            out.extend_from_slice(&tag.0.to_le_bytes());
            out.extend_from_slice(&index.to_le_bytes());
        }
    }
}

/// Appends the slot from a place on. At least one entry, so that each piece brings the end nearer.
fn put_rest(out: &mut Vec<u8>, table: &SlotTable, place: u64, length_max: usize) -> Option<u64> {
    for (bin, blocks) in table.bins_from(place) {
        let mut span = Span { first: bin.first.max(place), ..bin };
        let blocks = placed(table, blocks, span);
        let mut length = out.len();
        let cut = blocks.windows(2).position(|pair| {
            length += pair[0].1.bytes();
            length >= length_max && pair[0].0 != pair[1].0
        });
        let sent = cut.map_or(blocks.len(), |cut| cut + 1);
        if let Some(cut) = cut {
            span.last = blocks[cut].0;
        }
        put_span(out, span, &blocks[..sent]);
        if cut.is_some() || out.len() >= length_max {
            return span.last.checked_add(1);
        }
    }
    None
}

/// The entries of a bin that lie in the span, in the order of their places.
fn placed<'b>(table: &SlotTable, blocks: &'b [Block], span: Span) -> Vec<(u64, &'b Block)> {
    let places = blocks.iter().map(|block| (table.place_of(block), block));
    let mut placed: Vec<_> = places.filter(|(place, _)| span.contains(*place)).collect();
    placed.sort_unstable_by_key(|(place, _)| *place);
    placed
}

fn put_span(out: &mut Vec<u8>, span: Span, blocks: &[(u64, &Block)]) {
    out.push(1);
    out.extend_from_slice(&span.first.to_le_bytes());
    out.extend_from_slice(&span.last.to_le_bytes());
    put_count(out, blocks.len());
    for (_, block) in blocks {
        put_entry(out, block.parts());
    }
}

fn put_entry(out: &mut Vec<u8>, parts: Parts<'_>) {
    let shape = match parts.shape {
        Shape::Whole => 0,
        Shape::Grown => FLAG_GROWN,
        Shape::Negative => FLAG_NEGATIVE,
        Shape::Filter => FLAG_FILTER,
    };
    let deadline = if parts.deadline.is_some() { FLAG_DEADLINE } else { 0 };
    out.push(shape | deadline | if parts.extra.is_none() { 0 } else { FLAG_EXTRA });
    out.extend_from_slice(&parts.access.0.to_le_bytes());
    if let Some(deadline) = parts.deadline {
        out.extend_from_slice(&deadline.millis().to_le_bytes());
    }
    if !parts.extra.is_none() {
        put_bytes(out, parts.extra.as_bytes());
    }
    put_bytes(out, parts.key);
    put_bytes(out, parts.value);
}

fn install_span(
    table: &mut SlotTable,
    fields: &mut Fields<'_>,
    seed: u64,
) -> Result<(), CorruptSnapshot> {
    let first = fields.fixed().map(u64::from_le_bytes)?;
    let last = fields.fixed().map(u64::from_le_bytes)?;
    let span = Span { first, last };
    if first > last {
        return Err(CorruptSnapshot("a span that ends before it begins"));
    }
    table.clear_span(span);
    for _ in 0..fields.count()? {
        let parts = take_entry(fields)?;
        let hash = Hash::of(parts.key, seed);
        if !span.contains(hash.place()) || table.locate(hash, parts.key).is_some() {
            return Err(CorruptSnapshot("a key out of its place"));
        }
        table.insert(hash, Block::new(parts));
    }
    Ok(())
}

fn install_side(table: &mut SlotTable, fields: &mut Fields<'_>) -> Result<(), CorruptSnapshot> {
    let mut leases = Vec::new();
    for _ in 0..fields.count()? {
        let key = fields.bytes()?;
        let mut number = || fields.fixed().map(u64::from_le_bytes);
        let (token, until, given) = (Token(number()?), UnixMillis::new(number()?), number()?);
        leases.push((key, Lease { token, until, given }));
    }
    let tags = [take_tags(fields)?, take_tags(fields)?];
    if table.side().is_some() || !leases.is_empty() {
        table.change_side(|side| {
            side.void_unless(|_, _| false);
            leases.into_iter().for_each(|(key, lease)| side.put_lease(key, lease));
            side.set_tags(tags);
        });
    }
    Ok(())
}

fn take_tags(fields: &mut Fields<'_>) -> Result<Invalidated, CorruptSnapshot> {
    let mut tags = Invalidated::new();
    for _ in 0..fields.count()? {
        let tag = Tag(fields.fixed().map(u64::from_le_bytes)?);
        tags.insert(tag, fields.fixed().map(u64::from_le_bytes)?);
    }
    Ok(tags)
}

fn take_entry<'a>(fields: &mut Fields<'a>) -> Result<Parts<'a>, CorruptSnapshot> {
    let flags = fields.byte()?;
    if flags & !(FLAG_DEADLINE | FLAG_EXTRA | SHAPE_FLAGS) != 0 {
        return Err(CorruptSnapshot("unknown kind of value"));
    }
    let shape = match flags & SHAPE_FLAGS {
        0 => Shape::Whole,
        FLAG_GROWN => Shape::Grown,
        FLAG_NEGATIVE => Shape::Negative,
        FLAG_FILTER => Shape::Filter,
        _ => return Err(CorruptSnapshot("a value of two kinds")),
    };
    let access = Access(fields.fixed().map(u32::from_le_bytes)?);
    let deadline = if flags & FLAG_DEADLINE == 0 {
        None
    } else {
        Some(UnixMillis::new(fields.fixed().map(u64::from_le_bytes)?))
    };
    let extra = if flags & FLAG_EXTRA == 0 {
        Extra::NONE
    } else {
        Extra::parse(fields.bytes()?).ok_or(CorruptSnapshot("neither soft deadline nor tags"))?
    };
    let (key, value) = (fields.bytes()?, fields.bytes()?);
    if shape == Shape::Filter && Filter::parse(value).is_none() {
        return Err(CorruptSnapshot("a filter that is none"));
    }
    Ok(Parts { key, value, deadline, shape, access, extra })
}
