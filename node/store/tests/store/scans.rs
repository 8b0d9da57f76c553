//! A scan meets every key that stays.

use std::collections::BTreeSet;

use scatterhoard_ring::{Slot, SlotRange};
use scatterhoard_store::{Cursor, Store};

use crate::partition::{Partition, SEED, VALUE_BYTES_MAX};

fn scan_all(store: &Store, count: usize, p: &Partition) -> Vec<Vec<u8>> {
    let (mut cursor, mut found) = (Cursor::START, Vec::new());
    loop {
        let page = store.scan(cursor, count, &|_| true, p.now);
        found.extend(page.keys.into_iter().map(<[u8]>::to_vec));
        cursor = page.next;
        if cursor == Cursor::START {
            return found;
        }
    }
}

fn tagged(number: usize) -> Vec<u8> {
    format!("{{tag}}{number}").into_bytes()
}

#[test]
fn a_quiet_store_is_scanned_once_and_whole() {
    let mut p = Partition::new();
    for number in 0..2000 {
        p.set(format!("k{number}").as_bytes(), b"v");
        p.set(&tagged(number), b"v");
    }
    p.set_until(b"gone", b"v", 10);
    p.wait(10);
    for count in [0, 1, 10, 1000, usize::MAX] {
        let found = scan_all(&p.store, count, &p);
        assert_eq!(found.len(), 4000, "count {count}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>().len(), 4000);
    }
    assert_eq!(p.store.keys(&|key| key.starts_with(b"k1"), p.now, 7).len(), 7);
    assert_eq!(p.store.keys(&|_| true, p.now, usize::MAX).len(), 4000);
}

#[test]
fn what_stays_is_met_though_the_slot_grows_shrinks_and_changes_its_leader() {
    let mut p = Partition::new();
    let steady: BTreeSet<_> = (0..500).map(tagged).collect();
    for key in &steady {
        p.set(key, b"v");
    }
    let mut replica = Store::new(SlotRange::ALL, SEED, VALUE_BYTES_MAX);
    let (mut cursor, mut found, mut step) = (Cursor::START, BTreeSet::new(), 0);
    loop {
        // Grow to six times the size, then shrink again.
        for number in 0..400 {
            let key = tagged(1000 + step % 8 * 400 + number);
            if step < 8 {
                p.set(&key, b"v");
            } else {
                p.write(scatterhoard_store::Write::Delete { keys: vec![&key] });
            }
        }
        step += 1;
        for (index, entry) in p.log.iter().enumerate() {
            replica.apply(index as u64 + 1, entry, None).unwrap();
        }
        let leader = if step % 2 == 0 { &replica } else { &p.store };
        let page = leader.scan(cursor, 50, &|_| true, p.now);
        assert!(page.keys.len() < 50 + 100, "{}", page.keys.len());
        found.extend(page.keys.into_iter().map(<[u8]>::to_vec));
        cursor = page.next;
        if cursor == Cursor::START {
            break;
        }
    }
    assert!(step > 9, "{step}");
    assert!(found.is_superset(&steady));
}

#[test]
fn any_number_is_a_cursor() {
    let mut p = Partition::new();
    p.set(b"k", b"v");
    let slots = SlotRange::new(1, 16_384).expect("a range");
    let store = Store::new(slots, SEED, VALUE_BYTES_MAX);
    for number in [0, 1, 0xffff, 1 << 48, u64::MAX, u64::MAX >> 2, (1 << 62) - 1] {
        for store in [&p.store, &store] {
            let page = store.scan(Cursor::new(number), 10, &|_| true, p.now);
            assert!(page.keys.len() <= 1);
        }
    }
    let cursor = Cursor::at_slot(Slot::of(b"k"));
    assert_eq!(p.store.scan(cursor, 1, &|_| true, p.now).keys, [b"k"]);
    assert_eq!(cursor.slot(), Some(Slot::of(b"k")));
    assert_eq!(Cursor::new(u64::MAX).slot(), None);
}

#[test]
fn random_keys_come_from_everywhere_and_are_never_expired() {
    let mut p = Partition::new();
    assert_eq!(p.store.random_key(7, p.now), None);
    for number in 0..20 {
        p.set(&tagged(number), b"v");
        p.set_until(format!("gone{number}").as_bytes(), b"v", 1);
    }
    p.set(b"k", b"v");
    p.wait(1);
    let drawn: BTreeSet<_> =
        (0..1000).map(|roll| p.store.random_key(roll, p.now).expect("there are some")).collect();
    assert_eq!(drawn.len(), 21);
}

#[test]
fn a_slot_tells_its_keys() {
    let mut p = Partition::new();
    for number in 0..10 {
        p.set(&tagged(number), b"v");
    }
    let slot = Slot::of(b"tag");
    assert_eq!(p.store.count_in_slot(slot), 10);
    assert_eq!(p.store.keys_in_slot(slot, 3, p.now).len(), 3);
    assert_eq!(p.store.keys_in_slot(slot, 99, p.now).len(), 10);
    assert_eq!(p.store.keys_in_slot(Slot::of(b"other"), 99, p.now).len(), 0);
}
