//! Commands that read a key, and may have to write or to wait: the halves that they are made of.

use scatterhoard_store::{Read, Token, Wants, Write};

/// A question to the slot of one key that may become a change to it, or a wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load<'a> {
    /// `HOARD.GET key LEASE ms [STALE]`. First a read, which writes nothing: `Lookup::answer` of what is
    /// there. Only if that has no answer, [`Load::propose`].
    Get {
        /// The key.
        key: &'a [u8],
        /// How long the lease is to last: `[1, LEASE_MS_MAX]`.
        lease_ms: u64,
        /// Whether a value past its soft deadline will do.
        wants: Wants,
    },
    /// `HOARD.WAIT key timeout-ms`: the answer to its read, once nobody loads or when the time is over. With a
    /// time of 0 it is that read.
    Wait {
        /// The key.
        key: &'a [u8],
        /// `[1, 2^63)`. The caller bounds it.
        timeout_ms: u64,
    },
}

impl<'a> Load<'a> {
    /// The longest lease: ten minutes. Until it ends, others wait for a loader that may have died.
    pub const LEASE_MS_MAX: u64 = 600_000;

    /// The key.
    #[must_use]
    pub const fn key(self) -> &'a [u8] {
        match self {
            Self::Get { key, .. } | Self::Wait { key, .. } => key,
        }
    }

    /// What the answer to the first half goes by.
    #[must_use]
    pub const fn wants(self) -> Wants {
        match self {
            Self::Get { wants, .. } => wants,
            Self::Wait { .. } => Wants::Wait,
        }
    }

    /// The first half as a read. It answers `["miss"]` where the second half is needed.
    #[must_use]
    pub const fn read(self) -> Read<'a> {
        Read::Lookup { key: self.key(), wants: self.wants() }
    }

    /// The second half, with a token that was drawn at random for it alone. `None`: there is none.
    #[must_use]
    pub const fn propose(self, token: Token) -> Option<Write<'a>> {
        match self {
            Self::Get { key, lease_ms: millis, wants } => {
                Some(Write::Lease { key, token, millis, wants })
            }
            Self::Wait { .. } => None,
        }
    }
}
