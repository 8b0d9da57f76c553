//! The number of replicas: as many as wanted, on nodes that stay.

use std::collections::BTreeSet;

use super::board::Board;
use crate::{Change, GroupId, NodeId, Placement, REPLICAS_MAX};

/// Adds replicas where some are missing, and takes them from leaving nodes.
pub(super) fn restore(board: &Board<'_>) -> Option<Change> {
    board.groups().find_map(|(group, placement)| {
        let nodes = restored(board, group, placement);
        let same = placement.nodes().collect::<BTreeSet<_>>() == nodes.iter().copied().collect();
        (!same).then(|| board.place(group, nodes))
    })
}

/// Removes replicas where there are too many. Not while one of them is on a node that is not alive: it
/// might be the others that are needed.
pub(super) fn trim(board: &Board<'_>) -> Option<Change> {
    board.groups().find_map(|(group, placement)| {
        let mut nodes: Vec<_> = placement.nodes().collect();
        let all_alive = nodes.iter().all(|node| board.eligible.contains(node));
        if !all_alive || nodes.len() <= wanted(board, group, &nodes) {
            return None;
        }
        let leader = placement.leader_node().or_else(|| board.leader_reported(group));
        let superfluous = nodes.iter().copied().max_by_key(|&node| {
            let crowd = board.in_zone(&nodes, board.zone(node));
            let load = board.load(group, node);
            (leader != Some(node), crowd, load, board.rank(group, node))
        })?;
        nodes.retain(|&node| node != superfluous);
        Some(board.place(group, nodes))
    })
}

/// Where the group should be so that nothing is missing: everyone who stays, then who is best.
fn restored(board: &Board<'_>, group: GroupId, placement: &Placement) -> Vec<NodeId> {
    let (mut nodes, leaving): (Vec<_>, Vec<_>) =
        placement.nodes().partition(|&node| board.stays(node));
    let wanted = wanted(board, group, &nodes);
    while nodes.len() < wanted {
        let others = board.open.iter().copied().filter(|node| !nodes.contains(node));
        let best = others.min_by_key(|&node| {
            let crowd = board.in_zone(&nodes, board.zone(node));
            (crowd, board.load(group, node), board.rank(group, node))
        });
        match best {
            Some(node) => nodes.push(node),
            None => break,
        }
    }
    // Without those who leave, the rest must be able to decide: a group whose majority is silent could
    // neither finish this step nor go back.
    let alive = nodes.iter().filter(|node| board.eligible.contains(node)).count();
    if 2 * alive <= nodes.len() {
        nodes.extend(leaving);
        nodes.truncate(REPLICAS_MAX.into());
    }
    nodes
}

/// How many voters the council of so many members should have: 1, 3 or 5.
#[must_use]
pub const fn councillors_wanted(members_count: usize) -> usize {
    match members_count {
        0..3 => 1,
        3..5 => 3,
        5.. => 5,
    }
}

/// How many replicas the group should have at most, where `kept` already hold one and stay.
fn wanted(board: &Board<'_>, group: GroupId, kept: &[NodeId]) -> usize {
    match group {
        GroupId::Partition(_) => board.table.settings.replicas.into(),
        GroupId::Council => {
            let silent = kept.iter().filter(|node| !board.eligible.contains(node)).count();
            councillors_wanted(board.eligible.len() + silent)
        }
    }
}
