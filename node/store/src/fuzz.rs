//! What must hold of any bytes in place of a log's entries or a snapshot's pieces. For tests and fuzzers
//! only.

use scatterhoard_ring::SlotRange;

use crate::block::Parts;
use crate::{
    Entry, Logged, Store, UnixMillis, encode_flush, encode_header, encode_invalidate_prefix,
    encode_invalidate_tag, encode_step,
};

const SEED: u64 = 42;
/// No value grows beyond this; one that is set whole is as long as it came.
const VALUE_BYTES_MAX: usize = 10_000;

/// Entries, each after its length in two bytes, little-endian; applied in order.
///
/// Nothing panics. What can be read is read again as it was from its writing. Whatever was applied, the
/// memory accounts say what a recount says, no value is longer than it may be, and a snapshot makes a store
/// with the same contents.
pub fn entries(input: &[u8]) {
    let mut store = store();
    for (index, entry) in (1..).zip(records(input)) {
        write_again(entry);
        if store.apply(index, entry, Some(&mut Vec::new())).is_err() {
            break;
        }
        check(&mut store, VALUE_BYTES_MAX.max(entry.len()));
    }
    copy(&mut store);
}

/// Pieces of a snapshot, each after its length in two bytes, little-endian; installed in order.
///
/// Nothing panics. Whatever was installed, the memory accounts say what a recount says, and a snapshot of
/// that makes a store with the same contents.
pub fn snapshots(input: &[u8]) {
    let mut store = store();
    for piece in records(input) {
        if store.install_piece(piece).is_err() {
            return;
        }
        check(&mut store, input.len());
    }
    copy(&mut store);
}

fn store() -> Store {
    Store::new(SlotRange::new(0, 4).expect("there are so many slots"), SEED, VALUE_BYTES_MAX)
}

/// The records of an input; the last may be shorter than it says.
fn records(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = input.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (record, rest) = rest.split_at(length);
        input = rest;
        Some(record)
    })
}

/// An entry that can be read is the same when it is written and read again: compared as bytes, since not
/// every number equals itself.
fn write_again(bytes: &[u8]) {
    let Some(once) = written(bytes) else { return };
    assert_eq!(written(&once), Some(once.clone()));
}

fn written(bytes: &[u8]) -> Option<Vec<u8>> {
    let entry = Entry::parse(bytes).ok()?;
    let mut out = Vec::new();
    encode_header(&mut out, entry.stamp());
    for step in entry.steps() {
        match step.ok()? {
            Logged::Write(step) => encode_step(&mut out, &step),
            Logged::Flush { slots } => encode_flush(&mut out, slots),
            Logged::InvalidateTag { slots, tag } => encode_invalidate_tag(&mut out, slots, tag),
            Logged::InvalidatePrefix { slots, prefix } => {
                encode_invalidate_prefix(&mut out, slots, prefix);
            }
        }
    }
    Some(out)
}

fn check(store: &mut Store, value_bytes_max: usize) {
    assert_eq!(store.tally(), store.recount(), "the books");
    let lengths = contents(store).into_iter().map(|(_, parts)| parts.value.len());
    assert!(lengths.max().unwrap_or(0) <= value_bytes_max, "a value is too long");
    store.sweep(1);
    assert_eq!(store.tally(), store.recount(), "the books after a sweep");
    let is_empty = store.slots.iter().all(|slot| slot.is_empty());
    assert!(!is_empty || !store.due(store.stamp()), "nobody is due in an empty store");
}

/// A snapshot makes a store with the same contents, that applied the same.
fn copy(store: &mut Store) {
    let mut copy = self::store();
    let mut position = Some(0);
    while let Some(at) = position {
        let mut piece = Vec::new();
        position = store.piece(at, &mut piece);
        copy.install_piece(&piece).expect("we wrote it");
    }
    let told = |store: &Store| {
        let mut told: Vec<_> = contents(store)
            .into_iter()
            .map(|(slot, it)| {
                let deadline = it.deadline.map(UnixMillis::millis);
                let kind = format!("{:?}", it.shape);
                (slot, it.key, it.value, deadline, kind, it.extra.as_bytes())
            })
            .collect();
        told.sort_unstable();
        let sides = store.slots.iter().filter_map(|slot| slot.side());
        let leases: Vec<_> = sides.flat_map(|side| side.leases()).collect();
        format!("{told:?} {leases:?}")
    };
    assert_eq!(told(&copy), told(store));
    assert_eq!(copy.stamp(), store.stamp());
    assert_eq!(copy.tally(), copy.recount(), "the copy's books");
    let applied = |store: &Store| store.slots.iter().map(|slot| slot.applied).collect::<Vec<_>>();
    assert_eq!(applied(&copy), applied(store));
}

/// Every entry with its slot, also of keys that belong elsewhere, which reads would not find.
fn contents(store: &Store) -> Vec<(usize, Parts<'_>)> {
    let slots = store.slots.iter().enumerate();
    let bins = slots.flat_map(|(at, table)| table.bins_from(0).map(move |(_, bin)| (at, bin)));
    bins.flat_map(|(at, bin)| bin.iter().map(move |block| (at, block.parts()))).collect()
}

#[cfg(test)]
mod tests {
    use scatterhoard_fuzz::{bounded, joined};
    use scatterhoard_ring::Slot;

    use super::*;
    use crate::{
        Content, Expiry, FilterForm, FilterLayout, SetAnswer, Step, Terms, Token, Wants, When,
        WhenExpire, Write,
    };

    fn writes() -> Vec<Write<'static>> {
        let (a, b): (&[u8], &[u8]) = (b"a", b"b");
        let set = |key, value, expiry| {
            let (when, answer) = (When::Always, SetAnswer::Before);
            Write::Set { key, value, expiry, when, answer }
        };
        vec![
            set(a, b"12", Expiry::After(5)),
            set(b, &[7; 200], Expiry::At(UnixMillis::new(99))),
            Write::SetMany { pairs: vec![(a, b"1"), (b, b"2")] },
            Write::SetManyIfAbsent { pairs: vec![(b"c", b"3"), (b"d", b"")] },
            Write::GetExpire { key: a, expiry: Expiry::After(1000) },
            Write::GetDelete { key: b },
            Write::Add { key: a, delta: -5 },
            Write::AddFloat { key: a, delta: 1.5 },
            Write::Append { key: a, value: b"xyz" },
            Write::SetRange { key: a, offset: 9000, value: b"end" },
            Write::Expire { key: a, expiry: Expiry::After(70), when: WhenExpire::Later },
            Write::Persist { key: a },
            Write::Rename { from: a, to: b, only_if_absent: false },
            Write::Copy { from: b, to: a, replace: true },
            Write::Delete { keys: vec![a, b] },
            Write::Evict { keys: vec![b"c"] },
            load_write(b"a", Content::Value(b"loaded"), vec![b"t", b"u"]),
            load_write(b"b", Content::Negative, vec![b"t"]),
            Write::Lease { key: a, token: Token(5), millis: 9, wants: Wants::LeaseOrStale },
            Write::Lease { key: b"e", token: Token(6), millis: 900, wants: Wants::Lease },
            Write::Fill {
                key: b"e",
                token: Token(6),
                content: Content::Value(b"filled"),
                terms: Terms { expiry: Expiry::Clear, soft_millis: None, tags: vec![b"u"] },
            },
            Write::Release { key: a, token: Token(5) },
            Write::ReserveFilter {
                key: b"f",
                layout: FilterLayout { capacity: 2, error_bits: 3, expansion: 1 },
            },
            Write::AddToFilter {
                key: b"f",
                items: vec![b"1", b"2", b"3", b"4", b"5"],
                form: FilterForm::Many,
            },
            Write::AddToFilter { key: b"g", items: vec![b"1"], form: FilterForm::One },
        ]
    }

    fn load_write<'a>(key: &'a [u8], content: Content<'a>, tags: Vec<&'a [u8]>) -> Write<'a> {
        let terms = Terms { expiry: Expiry::After(500), soft_millis: Some(3), tags };
        Write::SetWith { key, content, terms, when: When::Always, answer: SetAnswer::Done }
    }

    /// One entry for each write, and one for all of them.
    fn log() -> Vec<Vec<u8>> {
        let step = |(at, write): (u16, _)| Step { slot: Slot::new(at % 2).expect("a slot"), write };
        let steps: Vec<Step<'_>> = (0..).zip(writes()).map(step).collect();
        let entry = |stamp, steps: &[Step<'_>]| {
            let mut entry = Vec::new();
            encode_header(&mut entry, UnixMillis::new(stamp));
            steps.iter().for_each(|step| encode_step(&mut entry, step));
            entry
        };
        let mut log: Vec<_> = (50..).zip(steps.chunks(1)).map(|(at, it)| entry(at, it)).collect();
        log.push(entry(100, &steps));
        let mut invalidate = entry(150, &steps[16..18]);
        encode_invalidate_tag(&mut invalidate, SlotRange::new(0, 4).expect("a range"), b"t");
        encode_invalidate_prefix(&mut invalidate, SlotRange::new(0, 2).expect("a range"), b"f");
        log.push(invalidate);
        let mut flush = entry(200, &[]);
        encode_flush(&mut flush, SlotRange::new(1, 3).expect("a range"));
        log.push(flush);
        log
    }

    fn seed(records: &[Vec<u8>]) -> Vec<u8> {
        joined(records.iter().map(Vec::as_slice))
    }

    #[test]
    fn any_entries_leave_a_sound_store() {
        let log = log();
        let mut seeds: Vec<_> = log.chunks(4).map(seed).collect();
        seeds.push(seed(&log[16..]));
        let load: Vec<_> = log[16..].iter().take(5).chain([&log[26]]).cloned().collect();
        seeds.push(seed(&load));
        bounded("entries", &seeds, entries);
    }

    #[test]
    fn any_pieces_leave_a_sound_store() {
        let mut seeds = Vec::new();
        for count in [1, 3, 12, 20, 25] {
            let mut store = store();
            for (index, entry) in (1..).zip(&log()[..count]) {
                store.apply(index, entry, None).expect("we wrote it");
            }
            let mut piece = Vec::new();
            store.piece(0, &mut piece);
            seeds.push(seed(&[piece]));
        }
        bounded("snapshots", &seeds, snapshots);
    }
}
