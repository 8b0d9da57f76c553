//! The kinds of group messages. Their numbers are part of the wire format; other crates use others.

/// What a group message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Raft's AppendEntries, heartbeats included.
    Append,
    /// Raft's RequestVote.
    Vote,
    /// Ongaro's Pre-Vote (thesis, 9.6).
    PreVote,
    /// Asks the target to stand for election at once (thesis, 3.10).
    Transfer,
    /// A snapshot begins; answered with a session number.
    SnapshotOpen,
    /// The next piece of a snapshot.
    SnapshotPiece,
    /// The snapshot is whole: install it.
    SnapshotClose,
    /// Asks for the committed membership, as proof of who belongs to a group.
    Roll,
}

impl Kind {
    /// Kinds of this crate lie in `[FIRST, FIRST + 16)`.
    pub(crate) const FIRST: u8 = 0x10;

    pub(crate) const fn number(self) -> u8 {
        Self::FIRST + self as u8
    }

    pub(crate) fn of(number: u8) -> Option<Self> {
        const ALL: [Kind; 8] = [
            Kind::Append,
            Kind::Vote,
            Kind::PreVote,
            Kind::Transfer,
            Kind::SnapshotOpen,
            Kind::SnapshotPiece,
            Kind::SnapshotClose,
            Kind::Roll,
        ];
        ALL.get(usize::from(number.checked_sub(Self::FIRST)?)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_kinds_agree() {
        for number in 0..=u8::MAX {
            if let Some(kind) = Kind::of(number) {
                assert_eq!(kind.number(), number);
            }
        }
        assert_eq!(Kind::of(Kind::FIRST), Some(Kind::Append));
    }
}
