//! Slots: the contract with Redis clients. Which slot a key has follows from its bytes alone.

use std::fmt;

/// One of 16,384 hash slots. Redis Cluster specification, "Key distribution model".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// How many slots there are.
    pub const COUNT: u16 = 16_384;

    /// The slot with this number, if there is one: `[0, 16384)`.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The slot of a key: CRC16 of the key, or of its hash tag if it has one.
    ///
    /// The tag is what stands between the first `{` and the first `}` after it, unless that is empty.
    /// Redis Cluster specification, "Hash tags".
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key).unwrap_or(key)) % Self::COUNT)
    }

    /// `[0, 16384)`.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// A contiguous range of slots `[lo, hi)`, never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotRange {
    lo: u16,
    hi: u16,
}

impl SlotRange {
    /// All slots.
    pub const ALL: Self = Self { lo: 0, hi: Slot::COUNT };

    /// `[lo, hi)`, if that is a range of slots and not empty.
    #[must_use]
    pub const fn new(lo: u16, hi: u16) -> Option<Self> {
        if lo < hi && hi <= Slot::COUNT { Some(Self { lo, hi }) } else { None }
    }

    /// The first slot.
    #[must_use]
    pub const fn first(self) -> Slot {
        Slot(self.lo)
    }

    /// The last slot, which is in the range.
    #[must_use]
    pub const fn last(self) -> Slot {
        Slot(self.hi - 1)
    }

    /// How many slots: `[1, 16384]`.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u16 {
        self.hi - self.lo
    }

    /// Whether the slot lies in the range.
    #[must_use]
    pub const fn contains(self, slot: Slot) -> bool {
        self.lo <= slot.0 && slot.0 < self.hi
    }

    /// Every slot of the range, in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Slot> + ExactSizeIterator {
        (self.lo..self.hi).map(Slot)
    }
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lo, self.hi - 1)
    }
}

impl fmt::Debug for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.lo, self.hi)
    }
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|&byte| byte == b'}')?;
    (close > 0).then(|| &rest[..close])
}

/// CRC-16/XMODEM: polynomial 0x1021, initial value 0. Redis Cluster specification, appendix A.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| {
        let index = usize::from((crc >> 8) ^ u16::from(byte)) & 0xff;
        (crc << 8) ^ CRC16_TABLE[index]
    })
}

const CRC16_TABLE: [u16; 256] = crc16_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
        // What redis-server 7.0.15 answers to CLUSTER KEYSLOT.
        for (key, slot) in [("foo", 12182), ("somekey", 11058), ("foo{hash_tag}", 2515), ("", 0)] {
            assert_eq!(Slot::of(key.as_bytes()).number(), slot, "{key}");
        }
    }

    #[test]
    fn a_tag_is_the_first_non_empty_one_only() {
        let same = |a: &str, b: &str| assert_eq!(Slot::of(a.as_bytes()), Slot::of(b.as_bytes()));
        same("{user1000}.following", "{user1000}.followers");
        same("foo{{bar}}zap", "{bar");
        same("foo{bar}{zap}", "bar");
        assert_eq!(hash_tag(b"foo{}{bar}"), None);
        assert_eq!(hash_tag(b"foo{bar"), None);
        assert_eq!(hash_tag(b"foo}bar{"), None);
    }
}
