//! Stories of Bloom filters.

use std::collections::BTreeSet;

use proptest::prelude::*;
use scatterhoard_ring::Slot;
use scatterhoard_store::{
    Expiry, FilterField, FilterForm, FilterLayout, OpError, Read, Reply, SetAnswer, Store, When,
    Write,
};

use crate::partition::{Partition, SEED, VALUE_BYTES_MAX, set, slots_around};

const KEY: &[u8] = b"f";

fn partition() -> Partition {
    Partition::of(slots_around(KEY))
}

fn reserve(p: &mut Partition, capacity: u32, error_bits: u8, expansion: u16) -> Reply<'static> {
    let layout = FilterLayout { capacity, error_bits, expansion };
    p.write(Write::ReserveFilter { key: KEY, layout })
}

fn add(p: &mut Partition, item: &[u8]) -> Reply<'static> {
    p.write(Write::AddToFilter { key: KEY, items: vec![item], form: FilterForm::One })
}

fn has(store: &Store, p: &Partition, item: &[u8]) -> bool {
    let read = Read::InFilter { key: KEY, items: vec![item], form: FilterForm::One };
    match store.read(Slot::of(KEY), &read, p.now) {
        Reply::Bool(truth) => truth,
        other => panic!("{other:?} is neither yes nor no"),
    }
}

fn field(p: &Partition, field: FilterField) -> Reply<'static> {
    match p.read(KEY, Read::FilterInfo { key: KEY, field: Some(field) }).into_owned() {
        Reply::Tuple(mut fields) => fields.remove(0),
        other => other,
    }
}

#[test]
fn what_was_added_is_there_and_what_was_not_mostly_is_not() {
    let mut p = partition();
    assert_eq!(add(&mut p, b"a"), Reply::Bool(true));
    assert_eq!(add(&mut p, b"a"), Reply::Bool(false));
    let (items, form) = (vec![&b"a"[..], b"b", b"b"], FilterForm::Many);
    let reply = p.write(Write::AddToFilter { key: KEY, items: items.clone(), form });
    assert_eq!(reply, Reply::Tuple([false, true, false].map(Reply::Bool).into()));
    let items = vec![&b"a"[..], b"b", b"c"];
    let reply = p.read(KEY, Read::InFilter { key: KEY, items, form });
    assert_eq!(reply, Reply::Tuple([true, true, false].map(Reply::Bool).into()));
    let info = p.read(KEY, Read::FilterInfo { key: KEY, field: None });
    let Reply::Map(fields) = info else { panic!("{info:?} is no map") };
    let numbers: Vec<_> = fields.iter().map(|(name, value)| (*name, value.clone())).collect();
    assert_eq!(numbers[0], ("Capacity", Reply::Int(100)));
    assert_eq!(numbers[2], ("Number of filters", Reply::Int(1)));
    assert_eq!(numbers[3], ("Number of items inserted", Reply::Int(2)));
    assert_eq!(numbers[4], ("Expansion rate", Reply::Int(2)));
    assert_eq!(numbers[1].0, "Size");
}

#[test]
fn a_filter_is_no_string_and_a_string_is_no_filter() {
    let mut p = partition();
    add(&mut p, b"a");
    let wrong = || Reply::Error(OpError::WrongType);
    for read in [Read::Get { key: KEY }, Read::Length { key: KEY }] {
        assert_eq!(p.read(KEY, read), wrong());
    }
    assert_eq!(p.read(KEY, Read::GetMany { keys: vec![KEY] }), Reply::Array(vec![Reply::Nil]));
    assert_eq!(p.read(KEY, Read::Type { key: KEY }), Reply::Status("MBbloom--"));
    assert_eq!(p.read(KEY, Read::Exists { keys: vec![KEY] }), Reply::Int(1));
    let (expiry, when) = (Expiry::Clear, When::Always);
    for write in [
        Write::GetDelete { key: KEY },
        Write::GetExpire { key: KEY, expiry },
        Write::Add { key: KEY, delta: 1 },
        Write::AddFloat { key: KEY, delta: 1.0 },
        Write::Append { key: KEY, value: b"v" },
        Write::SetRange { key: KEY, offset: 0, value: b"v" },
        Write::Set { key: KEY, value: b"v", expiry, when, answer: SetAnswer::Before },
    ] {
        assert_eq!(p.write(write.clone()), wrong(), "{write:?}");
    }
    assert!(has(&p.store, &p, b"a"));
    p.write(Write::Rename { from: KEY, to: b"{f}", only_if_absent: false });
    p.write(Write::Copy { from: b"{f}", to: KEY, replace: true });
    assert!(has(&p.store, &p, b"a"));
    assert_eq!(reserve(&mut p, 10, 3, 2), Reply::Error(OpError::FilterExists));
    p.write(set(KEY, b"v"));
    assert_eq!(add(&mut p, b"a"), wrong());
    assert_eq!(reserve(&mut p, 10, 3, 2), wrong());
    // To ask a string is no error, as in RedisBloom.
    assert!(!has(&p.store, &p, b"a"));
    let (items, form) = (vec![&b"a"[..], b"v"], FilterForm::Many);
    let reply = p.read(KEY, Read::InFilter { key: KEY, items, form });
    assert_eq!(reply, Reply::Tuple([false, false].map(Reply::Bool).into()));
    assert_eq!(p.read(KEY, Read::FilterInfo { key: KEY, field: None }), wrong());
    p.write(Write::Delete { keys: vec![KEY] });
    let info = p.read(KEY, Read::FilterInfo { key: KEY, field: None });
    assert_eq!(info, Reply::Error(OpError::NoFilter));
}

#[test]
fn a_filter_grows_by_layers_or_says_that_it_is_full() {
    let mut p = partition();
    assert_eq!(reserve(&mut p, 4, 10, 3), Reply::Ok);
    let mut added = 0;
    while field(&p, FilterField::Filters) != Reply::Int(3) {
        added += i64::from(add(&mut p, format!("item{added}").as_bytes()) == Reply::Bool(true));
    }
    assert_eq!(field(&p, FilterField::Items), Reply::Int(17), "4, 12 and one more");
    assert_eq!(field(&p, FilterField::Capacity), Reply::Int(4 + 12 + 36));
    assert_eq!(p.store.tally(), p.store.recount());
    p.write(Write::Delete { keys: vec![KEY] });
    assert_eq!(reserve(&mut p, 4, 20, 0), Reply::Ok);
    assert_eq!(field(&p, FilterField::Expansion), Reply::Nil);
    for number in 0..4_u8 {
        assert_eq!(add(&mut p, &[number]), Reply::Bool(true));
    }
    assert_eq!(add(&mut p, b"more"), Reply::Error(OpError::FilterFull));
    assert_eq!(add(&mut p, &[0]), Reply::Bool(false), "what is there needs no room");
    let items: Vec<&[u8]> = vec![&[0], b"more", &[1]];
    let reply = p.write(Write::AddToFilter { key: KEY, items, form: FilterForm::Many });
    let full = Reply::Error(OpError::FilterFull);
    assert_eq!(reply, Reply::Tuple(vec![Reply::Bool(false), full]));
}

#[test]
fn no_filter_is_longer_than_a_value_may_be() {
    let mut p = partition();
    let too_large = Reply::Error(OpError::FilterTooLarge);
    assert_eq!(reserve(&mut p, FilterLayout::CAPACITY_MAX, 40, 2), too_large);
    assert_eq!(p.store.keys_count(), 0);
    assert_eq!(reserve(&mut p, 300_000, 10, u16::MAX), Reply::Ok);
    assert!(p.store.bytes() < VALUE_BYTES_MAX as u64);
    p.write(Write::Delete { keys: vec![KEY] });
    assert_eq!(reserve(&mut p, 1, 1, u16::MAX), Reply::Ok);
    let refused = (0..100_000_u32).map(|number| add(&mut p, &number.to_le_bytes()));
    assert_eq!(refused.filter(|it| matches!(it, Reply::Error(_))).last(), Some(too_large.clone()));
    p.write(Write::Delete { keys: vec![KEY] });
    assert_eq!(reserve(&mut p, 1, 1, 1), Reply::Ok);
    let answers = (0..1000_u32).map(|number| add(&mut p, &number.to_le_bytes()));
    assert_eq!(answers.filter(|it| matches!(it, Reply::Error(_))).last(), Some(too_large));
    assert_eq!(field(&p, FilterField::Filters), Reply::Int(32));
}

#[test]
fn it_errs_no_more_often_than_it_was_asked_to() {
    // Whole, and grown by layers far beyond what it was made for.
    for (capacity, error_bits, expansion) in
        [(20_000, 7, 0), (20_000, 10, 0), (500, 7, 2), (1000, 4, 1), (100, 10, 4)]
    {
        let mut p = partition();
        reserve(&mut p, capacity, error_bits, expansion);
        let count = 20_000_u32;
        for chunk in (0..count).map(u32::to_le_bytes).collect::<Vec<_>>().chunks(1000) {
            let items = chunk.iter().map(|item| &item[..]).collect();
            p.write(Write::AddToFilter { key: KEY, items, form: FilterForm::Many });
        }
        let others = count..count + 200_000;
        let wrong = others.filter(|it| has(&p.store, &p, &it.to_le_bytes())).count();
        let (rate, asked) = (wrong as f64 / 200_000.0, 0.5_f64.powi(error_bits.into()));
        assert!(rate < 1.5 * asked, "{capacity} {error_bits} {expansion}: {rate} for {asked}");
        assert!((0..count).all(|it| has(&p.store, &p, &it.to_le_bytes())));
    }
}

#[test]
fn the_bits_are_a_contract() {
    let mut p = partition();
    reserve(&mut p, 2, 4, 2);
    for item in [&b"one"[..], b"two", b"three"] {
        add(&mut p, item);
    }
    let mut piece = Vec::new();
    p.store.piece(0, &mut piece);
    let hex: String = piece.iter().skip(60).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

/// The end of a piece with the key, the filter and no leases.
const GOLDEN: &str = "\
    02000000000000000200000000000000512e04000000000000000100000000000000050000000000\
    0000408000214100000000";

#[derive(Clone, Debug)]
enum Event {
    Add(u16),
    AddMany(u16, u8),
    Snapshot,
    Replay,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_was_added_is_found_by_whoever_leads(
        (capacity, error_bits, expansion) in (1..60_u32, 1..12_u8, 1..5_u16),
        events in proptest::collection::vec(prop_oneof![
            20 => any::<u16>().prop_map(Event::Add),
            5 => (any::<u16>(), any::<u8>()).prop_map(|(first, count)| Event::AddMany(first, count)),
            1 => Just(Event::Snapshot),
            1 => Just(Event::Replay),
        ], 1..60),
    ) {
        let (mut p, mut added) = (partition(), BTreeSet::new());
        reserve(&mut p, capacity, error_bits, expansion);
        for event in events {
            let numbers = match event {
                Event::Add(number) => number..=number,
                Event::AddMany(first, count) => first..=first.saturating_add(count.into()),
                Event::Snapshot => {
                    let mut copy = Store::new(p.store.slots(), SEED, VALUE_BYTES_MAX);
                    let (mut position, mut piece) = (Some(0), Vec::new());
                    while let Some(at) = position {
                        piece.clear();
                        position = p.store.piece(at, &mut piece);
                        copy.install_piece(&piece).expect("we wrote it");
                    }
                    p.store = copy;
                    continue;
                }
                Event::Replay => {
                    let mut copy = Store::new(p.store.slots(), SEED, VALUE_BYTES_MAX);
                    for (index, entry) in (1..).zip(&p.log) {
                        copy.apply(index, entry, None).expect("we wrote it");
                    }
                    p.store = copy;
                    continue;
                }
            };
            let items: Vec<_> = numbers.clone().map(u16::to_le_bytes).collect();
            let items: Vec<_> = items.iter().map(|item| &item[..]).collect();
            let (asked, form) = (items.len(), FilterForm::Many);
            let reply = p.write(Write::AddToFilter { key: KEY, items, form });
            let Reply::Tuple(answers) = reply else { panic!("{reply:?}") };
            let taken = answers.iter().filter(|it| matches!(it, Reply::Bool(_))).count();
            // With an expansion of 1 a small filter comes to its last layer.
            prop_assert!(taken == asked || field(&p, FilterField::Filters) == Reply::Int(32));
            added.extend(numbers.take(taken));
            prop_assert!(added.iter().all(|it| has(&p.store, &p, &it.to_le_bytes())));
            prop_assert_eq!(p.store.tally(), p.store.recount());
        }
    }
}
