//! Brings what the next steps of an entry will need into the processor's caches, for all of them at once.
//!
//! A key lies five reads deep, each at an address that the one before it gives, and in a store that is
//! larger than the caches each of them takes longer than all the computing of a step. Step by step the
//! processor waits for them in turn; read in rows, one depth after the other, those of a row overlap.
//! Changes nothing and answers nothing: without it all would be as it is, only slower.

use std::hint::black_box;

use crate::slot_table::Hash;
use crate::{Logged, Store, Write};

/// Steps that are looked at together. About as many reads as a processor keeps under way.
pub(crate) const STEPS_AHEAD: usize = 16;

impl Store {
    /// Reads what these steps will read first. Looks at no more than [`STEPS_AHEAD`].
    pub(crate) fn look_ahead(&self, steps: &[Logged<'_>]) {
        let mut keys = [None; STEPS_AHEAD];
        for (ahead, step) in keys.iter_mut().zip(steps) {
            *ahead = self.aim(step);
        }
        let tables = row(keys, |(at, hash)| Some((&self.slots[at], hash)));
        let bins = row(tables, |(table, hash)| Some((table.bin_for(hash)?, hash)));
        let places = row(bins, |(bin, hash)| Some((bin, bin.likely(hash)?)));
        let blocks = row(places, |(bin, at)| bin.blocks().get(at));
        row(blocks, |block| Some(block.value_len()));
    }

    /// The slot that a step goes to, and the hash of its key; of its first one if it has several.
    fn aim(&self, step: &Logged<'_>) -> Option<(usize, Hash)> {
        match step {
            Logged::Write(step) => {
                Some((self.at(step.slot)?, Hash::of(first_key(&step.write)?, self.seed)))
            }
            Logged::Flush { .. }
            | Logged::InvalidateTag { .. }
            | Logged::InvalidatePrefix { .. } => None,
        }
    }
}

/// One depth for all of them.
fn row<S: Copy, T: Copy>(
    found: [Option<S>; STEPS_AHEAD],
    read: impl Fn(S) -> Option<T>,
) -> [Option<T>; STEPS_AHEAD] {
    // A black box, or the reads would be put off until they are needed, one by one.
    black_box(found.map(|found| found.and_then(&read)))
}

fn first_key<'a>(write: &Write<'a>) -> Option<&'a [u8]> {
    match write {
        Write::Set { key, .. }
        | Write::GetExpire { key, .. }
        | Write::GetDelete { key }
        | Write::Add { key, .. }
        | Write::AddFloat { key, .. }
        | Write::Append { key, .. }
        | Write::SetRange { key, .. }
        | Write::Expire { key, .. }
        | Write::Persist { key }
        | Write::SetWith { key, .. }
        | Write::Lease { key, .. }
        | Write::Fill { key, .. }
        | Write::Release { key, .. }
        | Write::ReserveFilter { key, .. }
        | Write::AddToFilter { key, .. } => Some(key),
        Write::SetMany { pairs } | Write::SetManyIfAbsent { pairs } => {
            pairs.first().map(|&(key, _)| key)
        }
        Write::Delete { keys } | Write::Evict { keys } => keys.first().copied(),
        Write::Rename { from, .. } | Write::Copy { from, .. } => Some(from),
    }
}

#[cfg(test)]
mod tests {
    use scatterhoard_ring::{Slot, SlotRange};

    use super::*;
    use crate::{
        Expiry, SetAnswer, Step, UnixMillis, When, encode_flush, encode_header, encode_step,
    };

    const STEPS_COUNT: u16 = 3 * STEPS_AHEAD as u16 + 1;

    fn range() -> SlotRange {
        SlotRange::new(0, 10).unwrap()
    }

    fn put_step(out: &mut Vec<u8>, number: u16) {
        let (key, slot) = ((number % 30).to_string(), Slot::new(number % 10).unwrap());
        let value = number.to_string();
        let (key, value) = (key.as_bytes(), value.as_bytes());
        let (when, answer) = (When::Always, SetAnswer::Before);
        let write = match number % 4 {
            0 => Write::Delete { keys: vec![key] },
            1 => Write::SetMany { pairs: vec![(key, value), (b"other", value)] },
            _ => Write::Set { key, value, expiry: Expiry::Clear, when, answer },
        };
        encode_step(out, &Step { slot, write });
        if number == STEPS_COUNT / 2 {
            encode_flush(out, range());
        }
    }

    #[test]
    fn many_steps_in_one_entry_do_what_each_does_in_its_own() {
        let header = || {
            let mut out = Vec::new();
            encode_header(&mut out, UnixMillis::new(1));
            out
        };
        let (mut whole, mut single) = (Store::new(range(), 7, 100), Store::new(range(), 7, 100));
        let (mut replies, mut expected) = (Vec::new(), Vec::new());
        let mut entry = header();
        for number in 0..STEPS_COUNT {
            put_step(&mut entry, number);
            let mut alone = header();
            put_step(&mut alone, number);
            single.apply(u64::from(number) + 1, &alone, Some(&mut expected)).unwrap();
        }
        whole.apply(1, &entry, Some(&mut replies)).unwrap();
        assert_eq!(replies, expected);
        assert_eq!(whole.tally(), single.tally());
        assert_eq!(whole.recount(), single.recount());
    }
}
