//! The numbers that name things. Each has a type, so that one cannot be passed for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name($inner);

        impl $name {
            /// Names the thing with this number.
            #[must_use]
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The bare number, for the wire and for people.
            #[must_use]
            pub const fn number(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

number!(
    /// One founding of one cluster: minted at random, carried in every frame and gossip message.
    ClusterId(u128), "{:032x}"
);
number!(
    /// One life of one process: random, never used twice. Zero stands for "not known".
    NodeId(u64), "{:016x}"
);
number!(
    /// A partition: a contiguous range of slots, one Raft group.
    PartitionId(u16), "p{}"
);
number!(
    /// What Raft calls a node inside one group. Allotted by the council, never used twice in a cluster.
    ReplicaId(u64), "r{}"
);
number!(
    /// Which founding of a partition, or of the council, this is. The first is 1.
    Generation(u32), "g{}"
);

/// A version of the table: the council's generation, then the index of the entry in its log that made
/// this version. Epochs of one cluster are totally ordered and never go back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch {
    /// Which founding of the council decided.
    pub generation: Generation,
    /// Index in that council's log.
    pub index: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation.number(), self.index)
    }
}

/// A Raft group: the council, or one partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GroupId {
    /// The group that decides who is a member and what they should hold.
    Council,
    /// The group that keeps the keys of one partition.
    Partition(PartitionId),
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Council => f.write_str("council"),
            Self::Partition(partition) => fmt::Display::fmt(partition, f),
        }
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
