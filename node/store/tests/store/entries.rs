//! The bytes of entries are a contract with every log that was ever written.

use proptest::prelude::*;
use scatterhoard_ring::{Slot, SlotRange};
use scatterhoard_store::{
    ENTRY_HEADER_BYTES, Entry, Expiry, Logged, SetAnswer, Step, UnixMillis, When, WhenExpire,
    Write, encode_flush, encode_header, encode_step,
};

fn every_write() -> Vec<Write<'static>> {
    let key: &[u8] = b"k";
    let at = Expiry::At(UnixMillis::new(7));
    vec![
        Write::Set {
            key,
            value: b"vw",
            expiry: Expiry::After(258),
            when: When::Present,
            answer: SetAnswer::Before,
        },
        Write::SetMany { pairs: vec![(key, b"v"), (b"", b"")] },
        Write::SetManyIfAbsent { pairs: vec![(key, b"v")] },
        Write::GetExpire { key, expiry: Expiry::Clear },
        Write::GetDelete { key },
        Write::Add { key, delta: -2 },
        Write::AddFloat { key, delta: 0.5 },
        Write::Append { key, value: b"v" },
        Write::SetRange { key, offset: 3, value: b"v" },
        Write::Delete { keys: vec![key, b"l"] },
        Write::Expire { key, expiry: at, when: WhenExpire::Earlier },
        Write::Expire { key, expiry: at, when: WhenExpire::PresentEarlier },
        Write::Persist { key },
        Write::Rename { from: key, to: b"l", only_if_absent: true },
        Write::Copy { from: key, to: b"l", replace: false },
        Write::Evict { keys: vec![key] },
    ]
}

fn entry_of(writes: &[Write<'static>]) -> Vec<u8> {
    let mut entry = Vec::new();
    encode_header(&mut entry, UnixMillis::new(0x0102_0304_0506));
    for write in writes {
        encode_step(&mut entry, &Step { slot: Slot::of(b"k"), write: write.clone() });
    }
    entry
}

#[test]
fn the_golden_bytes() {
    let mut entry = entry_of(&every_write());
    encode_flush(&mut entry, SlotRange::new(1, 16_384).expect("a range"));
    let hex: String = entry.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str = "\
    0106050403020100001200000001cd1d12030201000000000000016b0276770a00000002cd1d0201\
    6b017600000800000003cd1d01016b01760600000004cd1d00016b0500000005cd1d016b0d000000\
    06cd1dfeffffffffffffff016b0d00000007cd1d000000000000e03f016b0700000008cd1d016b01\
    760b00000009cd1d03000000016b0176080000000acd1d02016b016c0f0000000bcd1d0402070000\
    0000000000016b0f0000000bcd1d05020700000000000000016b050000000ccd1d016b080000000d\
    cd1d01016b016c080000000ecd1d00016b016c060000000fcd1d01016b05000000100100ff3f";

#[test]
fn what_is_written_is_read() {
    let mut entry = entry_of(&every_write());
    let slots = SlotRange::new(5, 9).expect("a range");
    encode_flush(&mut entry, slots);
    let parsed = Entry::parse(&entry).expect("an entry");
    assert_eq!(parsed.stamp(), UnixMillis::new(0x0102_0304_0506));
    let slot = Slot::of(b"k");
    let mut expected: Vec<_> =
        every_write().into_iter().map(|write| Ok(Logged::Write(Step { slot, write }))).collect();
    expected.push(Ok(Logged::Flush { slots }));
    assert_eq!(parsed.steps().collect::<Vec<_>>(), expected);
}

#[test]
fn an_entry_may_have_no_steps_but_not_half_a_step() {
    let entry = entry_of(&every_write()[..1]);
    for length in 0..entry.len() {
        let parsed = Entry::parse(&entry[..length]);
        let is_bare = length == ENTRY_HEADER_BYTES;
        let steps_are_good = parsed.is_ok_and(|entry| entry.steps().all(|step| step.is_ok()));
        assert_eq!(steps_are_good, is_bare, "{length}");
    }
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_no_panic(
        kind in 0..20_u8,
        slot in 0..20_000_u16,
        body in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut entry = entry_of(&[]);
        entry.extend_from_slice(&(body.len() as u32 + 3).to_le_bytes());
        entry.push(kind);
        entry.extend_from_slice(&slot.to_le_bytes());
        entry.extend_from_slice(&body);
        let parsed = Entry::parse(&entry).expect("the header is good");
        prop_assert_eq!(parsed.steps().count(), 1);
    }

    #[test]
    fn a_flipped_bit_never_panics(at in 0..400_usize, bit in 0..8_u8) {
        let mut entry = entry_of(&every_write());
        let at = at % entry.len();
        entry[at] ^= 1 << bit;
        if let Ok(parsed) = Entry::parse(&entry) {
            prop_assert!(parsed.steps().count() <= entry.len());
        }
    }
}
