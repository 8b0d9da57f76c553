//! The kinds of messages between nodes, beside those of groups. Their numbers are part of the wire
//! format.

/// What a message between nodes asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Asks what is known of a cluster: the first thing a node without state says to others.
    Probe,
    /// Asks to become a member.
    Join,
    /// Says that a member is leaving.
    Leave,
    /// Brings a table.
    Table,
    /// Asks for the table.
    Pull,
    /// Brings what a leader knows of its groups.
    Report,
    /// Commands for keys that the target leads.
    Forward,
    /// Asks for the wall time.
    Clock,
    /// A command over all keys, for the partitions that the target leads.
    Span,
    /// Asks what a node's replicas know of their groups, and whom it has seen.
    Survey,
    /// Asks for a promise, before the council is founded anew.
    Promise,
    /// Says that the target should found the council anew, if it comes to the same verdict.
    Stand,
    /// Says that a node has ended.
    Ended,
    /// Gives up a replica whose Raft core died.
    Reseat,
    /// Asks for values, to keep copies of them.
    Load,
    /// Asks for what has changed of what was loaded.
    News,
}

impl Kind {
    /// Kinds of this crate lie in `[FIRST, FIRST + 16)`.
    const FIRST: u8 = 0x20;

    const ALL: [Self; 16] = [
        Self::Probe,
        Self::Join,
        Self::Leave,
        Self::Table,
        Self::Pull,
        Self::Report,
        Self::Forward,
        Self::Clock,
        Self::Span,
        Self::Survey,
        Self::Promise,
        Self::Stand,
        Self::Ended,
        Self::Reseat,
        Self::Load,
        Self::News,
    ];

    pub(crate) const fn number(self) -> u8 {
        Self::FIRST + self as u8
    }

    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number.checked_sub(Self::FIRST)?)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_kinds_agree() {
        let known = (0..=u8::MAX).filter_map(Kind::of).collect::<Vec<_>>();
        assert_eq!(known, Kind::ALL);
        assert!(Kind::ALL.into_iter().all(|kind| Kind::of(kind.number()) == Some(kind)));
    }
}
