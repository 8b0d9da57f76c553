//! What a leader tells one reader about one partition.

use scatterhoard_ring::{Generation, Slot};

/// Under whom something was said: which founding of the partition, and which term of its leader. No two
/// leaders share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Which founding of the partition's group.
    pub generation: Generation,
    /// Raft's term in that group.
    pub term: u64,
}

/// How far a leader had applied its log: the index of an entry. Positions under one stamp can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// The entry with this index.
    #[must_use]
    pub const fn new(index: u64) -> Self {
        Self(index)
    }

    /// Its index in the log.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.0
    }
}

/// One unbroken sequence of bulletins from one leader to one reader. Never given out twice by one
/// [`crate::Interests`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

impl StreamId {
    /// The stream with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The bare number, for the wire.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// One answer about one partition: everything that the reader has to know up to a position.
///
/// `K` is what stands for a key: [`crate::KeyHash`] between nodes, the key itself for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bulletin<K> {
    /// Of which stream it is a part.
    pub stream: StreamId,
    /// Its number in that stream, without a gap. The first is 1.
    pub number: u64,
    /// Under whom it was written.
    pub stamp: Stamp,
    /// Up to where it is complete: each change up to here is in this bulletin or in one before it.
    pub position: Position,
    /// What changed since the bulletin before.
    pub news: News<K>,
}

/// What changed, of what the reader was interested in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News<K> {
    /// These, each once, in no order that means anything.
    Changed {
        /// Keys.
        keys: Vec<K>,
        /// Slots: any key in them may have changed.
        slots: Vec<Slot>,
    },
    /// Possibly everything.
    Everything,
}
