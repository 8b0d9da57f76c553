//! What the bits of an id say.

use std::time::Duration;

/// Sequence numbers of one millisecond, less one: 12 bits.
pub(super) const SEQUENCE_MAX: u64 = (1 << 12) - 1;
pub(super) const NUMBER_SHIFT: u32 = 12;
pub(super) const TIME_SHIFT: u32 = 22;
/// 41 bits: 69 years.
pub(super) const TIME_COUNT: u64 = 1 << 41;

/// An id: 41 bits of milliseconds since an [`Epoch`], 10 bits of node number, 12 bits of sequence. The highest bit is
/// clear, so that it is positive as a signed number too, as databases have them.
///
/// Ids of one generator grow; those of several are in order of time, as far as their clocks agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

impl Id {
    pub(super) fn new(bits: u64) -> Self {
        debug_assert!(bits >> 63 == 0, "the highest bit is clear");
        Self(bits)
    }

    /// What has to be the last id before a range, so that the range begins with the first id of `from`.
    pub(super) fn last_before(from: Millis, number: Number) -> Self {
        let time = from.0.saturating_sub(1);
        Self((time << TIME_SHIFT) | (u64::from(number.0) << NUMBER_SHIFT) | SEQUENCE_MAX)
    }

    pub(super) fn time(self) -> Millis {
        Millis(self.0 >> TIME_SHIFT)
    }

    /// The id with these bits; `None` if the highest is set.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits >> 63 == 0 { Some(Self(bits)) } else { None }
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// As databases have it: never negative.
    #[must_use]
    pub const fn signed(self) -> i64 {
        self.0.cast_signed()
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since an [`Epoch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Millis(pub(super) u64);

/// The number of a generator among all that run at a time: `[0, 1024)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(u16);

impl Number {
    /// How many there are.
    pub const COUNT: u16 = 1 << 10;
    pub(super) const MASK: u64 = Self::COUNT as u64 - 1;

    /// This number; `None` from 1024 on.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// All of them, this one first.
    pub(super) fn all_from(self) -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(move |step| Self((self.0 + step) % Self::COUNT))
    }
}

/// When the time of ids begins. All that generate ids of a kind, and all that read them, must have the same.
///
/// ```
/// use scatterhoard_client::ids::{Epoch, Id};
///
/// let epoch = Epoch::DEFAULT; // 2024-01-01
/// let id = Id::from_bits(7_000 << 22 | 5 << 12 | 9).expect("the highest bit is clear");
/// let parts = epoch.parse(id);
/// assert_eq!(parts.unix_millis, 1_704_067_200_000 + 7_000);
/// assert_eq!((parts.number.get(), parts.sequence), (5, 9));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

impl Epoch {
    /// 2024-01-01T00:00:00Z: ids last until September 2093.
    pub const DEFAULT: Self = Self(1_704_067_200_000);

    /// So many milliseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// What an id says.
    #[must_use]
    pub fn parse(self, id: Id) -> Parts {
        let number = Number(u16::try_from((id.0 >> NUMBER_SHIFT) & Number::MASK).unwrap_or(0));
        let sequence = u16::try_from(id.0 & SEQUENCE_MAX).unwrap_or(0);
        Parts { unix_millis: self.0 + id.time().0, number, sequence }
    }

    /// This time; the epoch itself if it is before.
    pub(super) fn since(self, unix_millis: u64) -> Millis {
        Millis(unix_millis.saturating_sub(self.0))
    }

    /// The time as it is for everybody, whatever their epoch.
    pub(super) fn unix(self, time: Millis) -> u64 {
        self.0 + time.0
    }
}

/// What an id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// When it was made, in milliseconds since 1970-01-01T00:00:00Z.
    pub unix_millis: u64,
    /// By which generator.
    pub number: Number,
    /// As which one of that millisecond: `[0, 4096)`.
    pub sequence: u16,
}

impl Millis {
    pub(super) fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long from an earlier time; zero from a later one.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
