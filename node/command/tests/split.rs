//! Commands over several slots: their keys, their parts, and one answer again.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use scatterhoard_command::{
    CrossSlot, Merge, Split, keys_of_read, keys_of_write, slot_of_read, slot_of_write, split_read,
    split_write,
};
use scatterhoard_ring::Slot;
use scatterhoard_store::{OpError, Read, Reply, Write};

#[test]
fn keys_that_share_a_slot_stay_together() {
    let keys: Vec<&[u8]> = vec![b"{u}1", b"{u}2", b"{u}1"];
    let slot = Slot::of(b"u");
    let read = Read::GetMany { keys: keys.clone() };
    assert_eq!(split_read(read.clone()), Split::Whole { slot, op: read });
    let write = Write::Delete { keys };
    assert_eq!(split_write(write.clone()), Ok(Split::Whole { slot, op: write }));
}

#[test]
fn mget_over_two_slots() {
    // a: 15495, b: 3300, as CLUSTER KEYSLOT says.
    let Split::Parts { parts, merge } =
        split_read(Read::GetMany { keys: vec![b"a", b"b", b"{a}2"] })
    else {
        panic!("two slots are two parts")
    };
    let slot = |number| Slot::new(number).expect("a slot");
    assert_eq!(
        parts,
        [
            (slot(3_300), Read::GetMany { keys: vec![b"b"] }),
            (slot(15_495), Read::GetMany { keys: vec![b"a", b"{a}2"] }),
        ]
    );
    let replies =
        vec![Reply::Array(vec![Reply::Int(1)]), Reply::Array(vec![Reply::Int(0), Reply::Int(2)])];
    let whole = Reply::Array(vec![Reply::Int(0), Reply::Int(1), Reply::Int(2)]);
    assert_eq!(merge.merge(replies), whole);
}

#[test]
fn what_cannot_be_split_says_so() {
    let crossing = [
        Write::SetManyIfAbsent { pairs: vec![(b"a", b"1"), (b"b", b"2")] },
        Write::Rename { from: b"a", to: b"b", only_if_absent: false },
        Write::Copy { from: b"a", to: b"b", replace: false },
    ];
    for write in crossing {
        assert_eq!(slot_of_write(&write), Err(CrossSlot));
        assert_eq!(split_write(write), Err(CrossSlot));
    }
    let whole = Write::Rename { from: b"{a}1", to: b"a", only_if_absent: true };
    assert_eq!(split_write(whole.clone()), Ok(Split::Whole { slot: Slot::of(b"a"), op: whole }));
    assert_eq!(CrossSlot.to_string(), "CROSSSLOT Keys in request don't hash to the same slot");
}

#[test]
fn errors_win() {
    let error = || Reply::Error(OpError::WrongType);
    assert_eq!(Merge::Sum.merge(vec![Reply::Int(1), error(), Reply::Int(2)]), error());
    assert_eq!(Merge::AllOk.merge(vec![Reply::Ok, error()]), error());
    let doubt = || Reply::Error(OpError::AnswerLost);
    assert_eq!(Merge::Sum.merge(vec![error(), doubt()]), doubt());
    let array = Reply::Array(vec![Reply::Nil]);
    assert_eq!(Merge::InOrder(vec![0, 1]).merge(vec![array, error()]), error());
}

#[test]
fn the_keys_of_each() {
    let read = Read::Exists { keys: vec![b"a", b"a"] };
    assert_eq!(keys_of_read(&read).collect::<Vec<_>>(), [b"a", b"a"]);
    assert_eq!(slot_of_read(&read), Ok(Slot::of(b"a")));
    let write = Write::Copy { from: b"a", to: b"b", replace: true };
    assert_eq!(keys_of_write(&write).collect::<Vec<_>>(), [b"a", b"b"]);
    let write = Write::SetMany { pairs: vec![(b"a", b"1"), (b"b", b"2")] };
    assert_eq!(keys_of_write(&write).collect::<Vec<_>>(), [b"a", b"b"]);
}

/// What a store is, for this purpose.
type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn read(model: &Model, read: &Read<'_>) -> Reply<'static> {
    match read {
        Read::GetMany { keys } => Reply::Array(
            keys.iter()
                .map(|&key| {
                    model.get(key).map_or(Reply::Nil, |value| Reply::Bulk(value.clone().into()))
                })
                .collect(),
        ),
        Read::Exists { keys } | Read::Touch { keys } => {
            Reply::Int(keys.iter().filter(|&&key| model.contains_key(key)).count() as i64)
        }
        other => panic!("{other:?} is not split"),
    }
}

fn write(model: &mut Model, write: &Write<'_>) -> Reply<'static> {
    match write {
        Write::SetMany { pairs } => {
            model.extend(pairs.iter().map(|&(key, value)| (key.to_vec(), value.to_vec())));
            Reply::Ok
        }
        Write::Delete { keys } => {
            Reply::Int(keys.iter().filter(|&&key| model.remove(key).is_some()).count() as i64)
        }
        other => panic!("{other:?} is not split"),
    }
}

/// Splits, answers the parts, and merges; checks that every part stays in its slot.
fn read_in_parts(model: &Model, op: Read<'_>) -> Reply<'static> {
    match split_read(op) {
        Split::Whole { op, .. } => read(model, &op),
        Split::Parts { parts, merge } => {
            assert_distinct(parts.iter().map(|part| part.0));
            let answer = |(slot, op): &(Slot, Read<'_>)| {
                assert_eq!(slot_of_read(op), Ok(*slot));
                read(model, op)
            };
            merge.merge(parts.iter().map(answer).collect())
        }
    }
}

fn write_in_parts(model: &mut Model, op: Write<'_>) -> Reply<'static> {
    match split_write(op).expect("it can be split") {
        Split::Whole { op, .. } => write(model, &op),
        Split::Parts { parts, merge } => {
            assert_distinct(parts.iter().map(|part| part.0));
            let mut answer = |(slot, op): &(Slot, Write<'_>)| {
                assert_eq!(slot_of_write(op), Ok(*slot));
                write(model, op)
            };
            merge.merge(parts.iter().map(&mut answer).collect())
        }
    }
}

fn assert_distinct(slots: impl Iterator<Item = Slot>) {
    let slots: Vec<_> = slots.collect();
    assert!(slots.len() > 1, "one slot is no split");
    assert_eq!(slots.iter().collect::<BTreeSet<_>>().len(), slots.len(), "one part a slot");
}

/// Few keys, so that they meet, some of them in one slot.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof!["[a-e]", "\\{[a-c]\\}[0-2]"].prop_map(String::into_bytes)
}

proptest! {
    #[test]
    fn parts_and_merge_mean_the_same_as_the_whole(
        there in prop::collection::btree_map(key(), prop::collection::vec(any::<u8>(), 0..3), 0..8),
        pairs in prop::collection::vec((key(), prop::collection::vec(any::<u8>(), 0..3)), 1..12),
    ) {
        let keys = || pairs.iter().map(|(key, _)| key.as_slice()).collect::<Vec<_>>();
        for op in [
            Read::GetMany { keys: keys() },
            Read::Exists { keys: keys() },
            Read::Touch { keys: keys() },
        ] {
            prop_assert_eq!(read_in_parts(&there, op.clone()), read(&there, &op));
        }
        let pairs = pairs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
        for op in [Write::SetMany { pairs }, Write::Delete { keys: keys() }] {
            let (mut whole, mut parts) = (there.clone(), there.clone());
            prop_assert_eq!(write_in_parts(&mut parts, op.clone()), write(&mut whole, &op));
            prop_assert_eq!(parts, whole);
        }
    }
}
