//! The keys that the level needs beside those of its user.

use std::sync::LazyLock;

use bytes::Bytes;
use scatterhoard_ring::Slot;

/// What a lease's key begins with.
const LEASE: &[u8] = b"scatterhoard:lease:";

/// What a tag's key begins with.
const TAG: &[u8] = b"scatterhoard:tag:";

/// The key of the clock by which tags and entries are compared.
pub(super) const CLOCK: &[u8] = b"scatterhoard:clock";

/// For each slot a number whose digits have that slot: what stands between braces decides where a key lies.
static NUMBER_IN_SLOT: LazyLock<Box<[u32]>> = LazyLock::new(|| {
    let mut numbers = vec![None; usize::from(Slot::COUNT)];
    let mut missing_count = numbers.len();
    let mut number = 0_u32;
    while missing_count > 0 {
        let in_slot = &mut numbers[usize::from(Slot::of(number.to_string().as_bytes()).number())];
        if in_slot.is_none() {
            *in_slot = Some(number);
            missing_count -= 1;
        }
        number += 1;
    }
    numbers.into_iter().map(|number| number.expect("none is missing")).collect()
});

/// What a key of the level's own stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The lease of a key.
    Lease,
    /// This tag.
    Tag(Bytes),
    Clock,
}

/// The key of a key's lease, in the slot of that key, whatever braces it has.
pub(super) fn lease(key: &[u8]) -> Bytes {
    let number = NUMBER_IN_SLOT[usize::from(Slot::of(key).number())];
    [LEASE, format!("{{{number}}}:").as_bytes(), key].concat().into()
}

/// The key of a tag.
pub(super) fn tag(tag: &[u8]) -> Bytes {
    [TAG, tag].concat().into()
}

/// What a key is, if it is one of the level's own.
pub(super) fn name(key: &Bytes) -> Option<Name> {
    if key.starts_with(LEASE) {
        Some(Name::Lease)
    } else if key.starts_with(TAG) {
        Some(Name::Tag(key.slice(TAG.len()..)))
    } else {
        (&**key == CLOCK).then_some(Name::Clock)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_slot_has_a_number() {
        for (slot, number) in NUMBER_IN_SLOT.iter().enumerate() {
            let key = format!("x{{{number}}}y");
            assert_eq!(usize::from(Slot::of(key.as_bytes()).number()), slot);
        }
    }

    proptest! {
        #[test]
        fn a_lease_lies_where_its_key_lies(key in "[a{}]{0,6}") {
            let lease = lease(key.as_bytes());
            prop_assert_eq!(Slot::of(&lease), Slot::of(key.as_bytes()));
            prop_assert_eq!(name(&lease), Some(Name::Lease));
        }
    }

    #[test]
    fn names_are_told_apart() {
        let named = |key: &'static str| name(&Bytes::from_static(key.as_bytes()));
        assert_eq!(named("scatterhoard:tag:{a}"), Some(Name::Tag("{a}".into())));
        assert_eq!(named("scatterhoard:clock"), Some(Name::Clock));
        assert_eq!(named("scatterhoard:clocks"), None);
    }
}
