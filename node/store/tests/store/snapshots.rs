//! A snapshot is right though the store changes while it is taken.

use proptest::prelude::*;
use scatterhoard_ring::SlotRange;
use scatterhoard_store::{Content, Expiry, SetAnswer, Store, Terms, Token, Wants, When, Write};

use crate::partition::{Partition, SEED, VALUE_BYTES_MAX, contents, slots_around};
use crate::properties::{Change, changes};

fn empty() -> Store {
    Store::new(SlotRange::ALL, SEED, VALUE_BYTES_MAX)
}

/// Someone who receives a snapshot, and knows where the log goes on.
struct Receiver {
    store: Store,
    position: Option<u64>,
    /// The index of the last entry before the snapshot.
    start: usize,
    pieces: usize,
}

impl Receiver {
    fn of(partition: &Partition) -> Self {
        let start = partition.log.len();
        let store = Store::new(partition.store.slots(), SEED, VALUE_BYTES_MAX);
        Self { store, position: Some(0), start, pieces: 0 }
    }

    fn receive(&mut self, partition: &mut Partition) -> usize {
        let mut piece = Vec::new();
        if let Some(position) = self.position {
            self.position = partition.store.piece(position, &mut piece);
            self.store.install_piece(&piece).expect("we wrote it");
            self.pieces += 1;
        }
        piece.len()
    }

    fn finish(mut self, partition: &mut Partition) {
        while self.position.is_some() {
            self.receive(partition);
        }
        self.store.sweep(usize::MAX);
        for (index, entry) in partition.log.iter().enumerate().skip(self.start) {
            self.store.apply(index as u64 + 1, entry, None).expect("we wrote it");
        }
        assert_eq!(self.store.stamp(), partition.store.stamp());
        assert_eq!(contents(&self.store, partition.now), contents(&partition.store, partition.now));
        assert_eq!(self.store.tally(), self.store.recount());
    }
}

fn tagged(number: usize) -> Vec<u8> {
    format!("{{tag}}{number}").into_bytes()
}

#[test]
fn a_store_of_many_small_slots_comes_over_in_full_pieces() {
    let mut p = Partition::new();
    for number in 0..6000 {
        p.set_until(format!("k{number}").as_bytes(), &[7; 100], 1000 + number);
    }
    let mut receiver = Receiver::of(&p);
    let mut lengths = Vec::new();
    while receiver.position.is_some() {
        lengths.push(receiver.receive(&mut p));
    }
    assert!(lengths.iter().all(|&length| length <= 256 << 10), "{lengths:?}");
    assert!(lengths[..lengths.len() - 1].iter().all(|&length| length > 100 << 10), "{lengths:?}");
    p.set(b"after", b"v");
    receiver.finish(&mut p);
}

#[test]
fn a_long_slot_is_cut_and_a_long_value_is_not() {
    let mut p = Partition::new();
    for number in 0..40 {
        p.set(&tagged(number), &vec![7; if number == 3 { 700 << 10 } else { 60 << 10 }]);
    }
    let mut receiver = Receiver::of(&p);
    while receiver.position.is_some() {
        let length = receiver.receive(&mut p);
        assert!(length < (256 << 10) + (700 << 10), "{length}");
    }
    assert!(receiver.pieces > 8, "{}", receiver.pieces);
    receiver.finish(&mut p);
}

#[test]
fn a_rename_from_the_part_sent_to_the_part_that_is_not_loses_nothing() {
    let mut p = Partition::new();
    for number in 0..200 {
        p.set(&tagged(number), &[number as u8; 5000]);
    }
    let mut receiver = Receiver::of(&p);
    loop {
        receiver.receive(&mut p);
        // Nothing after the last piece: replaying it would hide what the pieces missed.
        if receiver.position.is_none() {
            break;
        }
        for number in (0..200).step_by(7) {
            let other = tagged((number + 100) % 200);
            p.write(Write::Append { key: &tagged(number), value: b"!" });
            p.write(Write::Rename { from: &tagged(number), to: &other, only_if_absent: false });
            p.write(Write::Copy { from: &other, to: &tagged(number), replace: true });
        }
    }
    receiver.finish(&mut p);
}

#[test]
fn a_slot_that_was_emptied_in_between_begins_anew() {
    let mut p = Partition::new();
    for number in 0..200 {
        p.set(&tagged(number), &[1; 5000]);
    }
    let (mut receiver, mut other) = (Receiver::of(&p), Receiver::of(&p));
    receiver.receive(&mut p);
    other.receive(&mut p);
    p.flush(SlotRange::ALL);
    receiver.finish(&mut p);
    for number in 150..152 {
        p.set(&tagged(number), &[2; 50]);
    }
    other.finish(&mut p);
}

#[test]
fn what_was_changed_is_sent_again_though_a_sweep_merged_its_bin() {
    let mut p = Partition::of(slots_around(b"tag"));
    for number in 0..3000 {
        match number % 8 {
            0 => p.set(&tagged(number), &[1; 300]),
            _ => p.set_until(&tagged(number), &[1; 300], 1000),
        };
    }
    let mut receiver = Receiver::of(&p);
    receiver.receive(&mut p);
    for number in (0..3000).step_by(8 * 12) {
        p.set(&tagged(number), b"changed");
    }
    p.wait(1000);
    p.stamp();
    assert_eq!(p.store.sweep(usize::MAX).keys_count, 3000 / 8 * 7);
    receiver.finish(&mut p);
}

#[test]
fn a_walk_that_was_forgotten_begins_anew_and_a_piece_may_be_asked_for_twice() {
    let mut p = Partition::new();
    for number in 0..300 {
        p.set(&tagged(number), &[1; 5000]);
    }
    let mut receiver = Receiver::of(&p);
    receiver.receive(&mut p);
    for number in 0..300 {
        p.set(&tagged(number * 2), &[2; 100]);
    }
    for _ in 0..100 {
        let _ = p.store.piece(1 << 48, &mut Vec::new());
    }
    let again = receiver.position;
    receiver.receive(&mut p);
    p.write(Write::Delete { keys: vec![&tagged(4), &tagged(5)] });
    receiver.position = again;
    receiver.finish(&mut p);
}

#[test]
fn garbage_is_an_error() {
    let mut p = Partition::new();
    p.set_until(b"k", b"v", 1000);
    let mut piece = Vec::new();
    assert_eq!(p.store.piece(0, &mut piece), None);
    for length in 0..piece.len() {
        // The partition's own record ends at ten bytes, and the snapshot could do so too.
        let is_good = length == 1 || length == 10;
        assert_eq!(empty().install_piece(&piece[..length]).is_ok(), is_good, "{length}");
    }
    for at in 0..piece.len() {
        piece[at] ^= 0x55;
        let _ = empty().install_piece(&piece);
        piece[at] ^= 0x55;
    }
    let slots = SlotRange::new(0, 1).expect("a range");
    assert!(Store::new(slots, SEED, 100).install_piece(&piece).is_err());
    assert_eq!(p.store.piece(u64::MAX, &mut piece), None);
}

#[test]
fn the_golden_bytes() {
    let mut p = Partition::new();
    p.set_until(b"k", b"v", 1000);
    let mut piece = Vec::new();
    p.store.piece(0, &mut piece);
    let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str = "\
    02000068e5cf8b01000001cd1d010000000000000001010000000000000000ffffffffffffffff01\
    010500f153e86be5cf8b010000016b017600000000";

#[test]
fn the_golden_bytes_of_what_few_slots_have() {
    let mut p = Partition::new();
    let terms = |tags| Terms { expiry: Expiry::After(500), soft_millis: Some(300), tags };
    let (key, when) = (&b"k"[..], When::Always);
    let content = Content::Value(b"v");
    let answer = SetAnswer::Done;
    p.write(Write::SetWith { key, content, terms: terms(vec![b"t", b"u"]), when, answer });
    let content = Content::Negative;
    p.write(Write::SetWith { key: b"{k}n", content, terms: terms(vec![]), when, answer });
    let (token, wants) = (Token(77), Wants::Lease);
    p.write(Write::Lease { key: b"{k}l", token, millis: 1000, wants });
    p.invalidate_tag(b"u");
    let mut piece = Vec::new();
    p.store.piece(0, &mut piece);
    let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN_OF_FEW);
}

const GOLDEN_OF_FEW: &str = "\
    02000068e5cf8b01000001cd1d040000000000000001010000000000000000ffffffffffffffff02\
    110500f153f469e5cf8b01000021822c69e5cf8b01000001000000000000002df9acf0853e037622\
    69e7f1cef3e00d016b0176150500f153f469e5cf8b01000009802c69e5cf8b010000047b6b7d6e00\
    0001047b6b7d6c4d00000000000000e86be5cf8b0100000300000000000000012269e7f1cef3e00d\
    0400000000000000012269e7f1cef3e00d0400000000000000";

#[derive(Clone, Debug)]
enum Event {
    Write(Change),
    Wait(u64),
    Flush,
    Sweep(usize),
    /// The receiver with this number takes a piece, or begins.
    Receive(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        30 => changes(120, 20_000).prop_map(Event::Write),
        4 => (0..400_u64).prop_map(Event::Wait),
        1 => (0..10_u32).prop_map(|dice| if dice == 0 { Event::Flush } else { Event::Wait(1) }),
        2 => (0..30_usize).prop_map(Event::Sweep),
        5 => (0..2_usize).prop_map(Event::Receive),
    ];
    proptest::collection::vec(event, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn pieces_and_the_log_from_their_start_make_the_same_store(events in events()) {
        let mut p = Partition::of(slots_around(b"tag"));
        let keys: Vec<_> = (0..120).map(tagged).collect();
        for (number, key) in keys.iter().enumerate() {
            p.set(key, &vec![number as u8; 9000]);
        }
        let mut receivers: [Option<Receiver>; 2] = [None, None];
        for event in events {
            match event {
                Event::Write(change) => { p.write(change.with(&keys)); }
                Event::Wait(millis) => p.wait(millis),
                Event::Flush => { p.flush(slots_around(b"tag")); }
                Event::Sweep(budget) => { p.store.sweep(budget); }
                Event::Receive(number) => match &mut receivers[number] {
                    Some(receiver) => { receiver.receive(&mut p); }
                    none => *none = Some(Receiver::of(&p)),
                },
            }
        }
        for receiver in receivers.into_iter().flatten() {
            receiver.finish(&mut p);
        }
    }
}
