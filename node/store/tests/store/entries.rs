//! The bytes of entries are a contract with every log that was ever written.

use proptest::prelude::*;
use scatterhoard_ring::{Slot, SlotRange};
use scatterhoard_store::{
    Content, ENTRY_HEADER_BYTES, Entry, Expiry, FilterForm, FilterLayout, Logged, SetAnswer, Step,
    Terms, Token, UnixMillis, Wants, When, WhenExpire, Write, encode_flush, encode_header,
    encode_invalidate_prefix, encode_invalidate_tag, encode_step,
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

/// Those that came later: the bytes before stay as they are.
fn every_later_write() -> Vec<Write<'static>> {
    let key: &[u8] = b"k";
    let terms = |tags| Terms { expiry: Expiry::After(258), soft_millis: Some(5), tags };
    let none = Terms { expiry: Expiry::Clear, soft_millis: None, tags: Vec::new() };
    let (token, content) = (Token(0x0807_0605_0403_0201), Content::Value(b"vw"));
    let layout = FilterLayout { capacity: 258, error_bits: 7, expansion: 2 };
    vec![
        Write::SetWith {
            key,
            content,
            terms: terms(vec![b"t", b"u"]),
            when: When::Absent,
            answer: SetAnswer::Done,
        },
        Write::SetWith {
            key,
            content: Content::Negative,
            terms: none,
            when: When::Always,
            answer: SetAnswer::Done,
        },
        Write::Lease { key, token, millis: 258, wants: Wants::LeaseOrStale },
        Write::Fill { key, token, content, terms: terms(vec![b"t"]) },
        Write::Release { key, token },
        Write::ReserveFilter { key, layout },
        Write::AddToFilter { key, items: vec![b"i"], form: FilterForm::One },
        Write::AddToFilter { key, items: vec![b"i", b"j"], form: FilterForm::Many },
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
    let hex = |entry: &[u8]| entry.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&entry), GOLDEN);
    let mut entry = entry_of(&every_later_write());
    let slots = SlotRange::new(1, 16_384).expect("a range");
    encode_invalidate_tag(&mut entry, slots, b"t");
    encode_invalidate_prefix(&mut entry, slots, b"k:");
    assert_eq!(hex(&entry), GOLDEN_LATER);
}

const GOLDEN_LATER: &str = "\
    0106050403020100002100000013cd1d01016b010276770302010000000000000105000000000000\
    0002017401750a00000013cd1d00016b000000001600000014cd1d02010203040506070802010000\
    00000000016b2600000015cd1d0102030405060708016b0102767703020100000000000001050000\
    00000000000101740d00000016cd1d0102030405060708016b0c00000017cd1d0201000007020001\
    6b0900000018cd1d00016b0101690b00000018cd1d01016b020169016a07000000110100ff3f0174\
    08000000120100ff3f026b3a";

const GOLDEN: &str = "\
    0106050403020100001200000001cd1d12030201000000000000016b0276770a00000002cd1d0201\
    6b017600000800000003cd1d01016b01760600000004cd1d00016b0500000005cd1d016b0d000000\
    06cd1dfeffffffffffffff016b0d00000007cd1d000000000000e03f016b0700000008cd1d016b01\
    760b00000009cd1d03000000016b0176080000000acd1d02016b016c0f0000000bcd1d0402070000\
    0000000000016b0f0000000bcd1d05020700000000000000016b050000000ccd1d016b080000000d\
    cd1d01016b016c080000000ecd1d00016b016c060000000fcd1d01016b05000000100100ff3f";

#[test]
fn what_is_written_is_read() {
    let writes = [every_write(), every_later_write()].concat();
    let mut entry = entry_of(&writes);
    let slots = SlotRange::new(5, 9).expect("a range");
    encode_flush(&mut entry, slots);
    encode_invalidate_tag(&mut entry, slots, b"t");
    encode_invalidate_prefix(&mut entry, slots, b"k:");
    let parsed = Entry::parse(&entry).expect("an entry");
    assert_eq!(parsed.stamp(), UnixMillis::new(0x0102_0304_0506));
    let slot = Slot::of(b"k");
    let mut expected: Vec<_> =
        writes.into_iter().map(|write| Ok(Logged::Write(Step { slot, write }))).collect();
    expected.push(Ok(Logged::Flush { slots }));
    expected.push(Ok(Logged::InvalidateTag { slots, tag: b"t" }));
    expected.push(Ok(Logged::InvalidatePrefix { slots, prefix: b"k:" }));
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
