//! The timers that safety rests on: the same in every node of a cluster, from its table.

use scatterhoard_ring::Table;

/// Raft's timers, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// How often a leader shows that it lives.
    pub heartbeat_ms: u32,
    /// The least a follower waits beyond the leader's lease before it stands for election.
    pub election_ms_min: u32,
    /// The most it waits; also how long followers keep to a leader they have heard from.
    pub election_ms_max: u32,
}

impl Timers {
    /// The timers of a cluster.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        Self {
            heartbeat_ms: table.settings.heartbeat_ms,
            election_ms_min: table.settings.election_ms_min,
            election_ms_max: table.settings.election_ms_max,
        }
    }
}
