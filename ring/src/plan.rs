//! What the council should do next: one change, from the table, what groups report, and who is alive.
//!
//! Rules, in order: as many replicas as wanted, on distinct nodes; leaders on nodes that can lead;
//! distinct zones; even load; even leaderships; the ring's preference. What stands stays unless a rule is
//! broken, and each change brings the table closer to one that breaks none: followed until there is
//! nothing more to do, plans end.
//!
//! Who is dead enough to be dismissed, and what is founded anew, is not decided here.

mod balance;
mod board;
mod lead;
mod mend;

pub use mend::councillors_wanted;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use board::Board;

use crate::{Change, Epoch, Generation, GroupId, Member, NodeId, ReplicaId, Table};

/// The newest report of each group that has one.
pub type Reports = BTreeMap<GroupId, Report>;

/// What a group's leader says of it: what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which founding of the group.
    pub generation: Generation,
    /// The term in which the leader leads.
    pub term: u64,
    /// Who leads.
    pub leader: ReplicaId,
    /// The epoch of the placement that the committed membership serves.
    pub epoch: Epoch,
    /// Who votes, by the committed membership.
    pub voters: BTreeSet<ReplicaId>,
    /// Who else is sent the log.
    pub learners: BTreeSet<ReplicaId>,
    /// Index of the last committed entry.
    pub index: u64,
}

/// The members that every other member knows of, where `informed` says which epoch each one is known to
/// have.
///
/// Whoever comes back from behind a cut, and finds that the council's majority has ended, must know whom
/// to ask before it may believe that nobody else has anything: so a new member is given nothing as long
/// as anybody does not know of it. Who does not take note for long is dismissed for its silence.
#[must_use]
pub fn known_to_all(table: &Table, informed: &BTreeMap<NodeId, Epoch>) -> BTreeSet<NodeId> {
    // The first table that a member was given names all who were admitted before it.
    let knows = |of: &Member, by: &Member| {
        let epoch = informed.get(&by.node).copied().unwrap_or_default().max(by.admitted);
        epoch >= of.admitted
    };
    let known = |of: &&Member| table.members.values().all(|by| knows(of, by));
    table.members.values().filter(known).map(|member| member.node).collect()
}

/// What the council should do next: always a [`Change::Place`] that the table takes. `None`: nothing, or
/// nothing until groups have reported more.
///
/// Mending does not wait for anything. Moves for the sake of zones and balance touch only groups that
/// report what the table says, and a few at a time. A member that is not alive keeps what it holds, and
/// is given nothing; what it should lead, others lead at once. So `alive` must come from a view that has
/// had the time to see everyone: to who has just begun to look, all others seem dead.
///
/// Only who is [`known_to_all`] is given replicas.
#[must_use]
pub fn plan(
    table: &Table,
    reports: &Reports,
    alive: &BTreeSet<NodeId>,
    known: &BTreeSet<NodeId>,
) -> Option<Change> {
    let board = Board::new(table, reports, alive, known);
    None.or_else(|| mend::restore(&board))
        .or_else(|| mend::trim(&board))
        .or_else(|| lead::appoint(&board))
        .or_else(|| balance::spread(&board))
        .or_else(|| balance::level(&board))
        .or_else(|| lead::level(&board))
}
