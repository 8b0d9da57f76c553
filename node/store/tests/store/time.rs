//! Expiry: gone for everyone at the same stamp, whoever has swept.

use scatterhoard_ring::SlotRange;
use scatterhoard_store::{OpError, Reply, Store, UnixMillis, Write};

use crate::partition::{Partition, SEED, VALUE_BYTES_MAX, contents, set};

#[test]
fn a_key_is_gone_for_reads_by_now_and_for_writes_by_the_stamp() {
    let mut p = Partition::new();
    p.set_until(b"k", b"5", 1000);
    p.wait(999);
    assert_eq!(p.get(b"k"), Some(b"5".to_vec()));
    p.wait(1);
    assert_eq!(p.get(b"k"), None);
    assert_eq!(p.store.keys_count(), 1);
    assert_eq!(p.write(Write::Add { key: b"k", delta: 1 }), Reply::Int(1));
    assert_eq!(p.store.expires_count(), 0);
}

#[test]
fn only_a_stamp_lets_a_replica_forget() {
    let mut p = Partition::new();
    for number in 0..1000 {
        p.set_until(format!("k{number}").as_bytes(), b"v", 1000 + number % 2 * 5000);
    }
    assert!(!p.store.due(p.now.plus(999)));
    p.wait(1000);
    assert!(p.store.due(p.now));
    assert_eq!(p.store.sweep(usize::MAX).keys_count, 0);
    p.stamp();
    assert!(!p.store.due(p.now));
    let mut swept = 0;
    let mut rounds = 0;
    loop {
        let round = p.store.sweep(100);
        rounds += 1;
        swept += round.keys_count;
        if round.is_done {
            break;
        }
    }
    assert!(rounds > 3, "{rounds}");
    assert_eq!((swept, p.store.keys_count()), (500, 500));
    assert_eq!(p.store.tally(), p.store.recount());
    assert!(!p.store.due(p.now.plus(4999)));
    assert!(p.store.due(p.now.plus(5000)));
}

#[test]
fn a_deadline_that_was_taken_back_is_due_no_more_than_once() {
    let mut p = Partition::new();
    p.set_until(b"k", b"v", 1000);
    p.write(Write::Persist { key: b"k" });
    p.wait(1000);
    assert!(p.store.due(p.now));
    p.stamp();
    assert_eq!(p.store.sweep(10).keys_count, 0);
    p.wait(1000);
    assert!(!p.store.due(p.now));
    assert_eq!(p.get(b"k"), Some(b"v".to_vec()));
}

#[test]
fn a_stamp_never_goes_back() {
    let mut p = Partition::new();
    p.set_until(b"k", b"v", 1000);
    p.wait(1000);
    p.stamp();
    let reached = p.now;
    p.now = UnixMillis::new(1);
    // By its own stamp the entry would still find the key.
    assert_eq!(p.write(Write::Append { key: b"k", value: b"w" }), Reply::Int(1));
    assert_eq!(p.store.stamp(), reached);
}

#[test]
fn an_entry_that_a_slot_has_seen_is_skipped() {
    let mut p = Partition::new();
    let add = |key| Write::Add { key, delta: 1 };
    // Two steps to one slot in one entry are two steps.
    assert_eq!(p.write_all(vec![add(b"k"), add(b"k")]), [Reply::Int(1), Reply::Int(2)]);
    let entry = p.log[0].clone();
    let mut replies = Vec::new();
    p.store.apply(1, &entry, Some(&mut replies)).expect("we wrote it");
    let lost = || Reply::Error(OpError::AnswerLost);
    assert_eq!(replies, [lost(), lost()]);
    assert_eq!(p.get(b"k"), Some(b"2".to_vec()));
}

#[test]
fn a_flush_empties_the_slots_of_its_range_only() {
    let mut p = Partition::new();
    for number in 0..500 {
        p.set(format!("k{number}").as_bytes(), b"v");
    }
    let lower = SlotRange::new(0, 8192).expect("a range");
    let in_lower: usize = lower.iter().map(|slot| p.store.slot_tally(slot).keys_count).sum();
    assert_eq!(p.flush(lower), [Reply::Ok]);
    assert_eq!(p.store.keys_count(), 500 - in_lower);
    assert_eq!(p.flush(SlotRange::ALL), [Reply::Ok]);
    assert_eq!(p.store.bytes(), 0);
    assert!(contents(&p.store, p.now).is_empty());
}

#[test]
fn a_store_refuses_slots_of_others() {
    let mut p = Partition::new();
    p.write(set(b"foo", b"v"));
    let slots = SlotRange::new(0, 100).expect("a range");
    let mut store = Store::new(slots, SEED, VALUE_BYTES_MAX);
    assert!(store.apply(1, &p.log[0], None).is_err());
}
