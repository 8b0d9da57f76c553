//! Who should lead each partition: a node that is alive and stays, and evenly. Leaderships move without
//! data, so nothing here waits.

use std::collections::{BTreeMap, BTreeSet};

use super::board::Board;
use crate::{Change, GroupId, NodeId};

/// Gives a partition whose leader should not lead, or that has none, another.
pub(super) fn appoint(board: &Board<'_>) -> Option<Change> {
    board.partitions().find_map(|(group, placement)| {
        if placement.leader_node().is_some_and(|node| board.eligible.contains(&node)) {
            return None;
        }
        let nodes: Vec<_> = placement.nodes().collect();
        let leader = board.choose(group, &nodes)?;
        Some(Change::Place { group, nodes, leader: Some(leader) })
    })
}

/// Moves a leadership from a node to one that has at least two fewer: directly if there is a partition
/// with replicas on both, else along a chain of nodes, of which the last link is moved first. Each such
/// step makes the counts more even, or the chain shorter.
pub(super) fn level(board: &Board<'_>) -> Option<Change> {
    let counts: BTreeSet<_> = board.leads.values().copied().collect();
    if counts.last()? - counts.first()? <= 1 {
        return None;
    }
    let links = links(board);
    let link = counts.iter().rev().find_map(|&count| last_link(board, &links, count))?;
    let group = *links.get(&link)?.iter().min_by_key(|&&group| {
        let leads_already = board.leader_reported(group) == Some(link.target);
        (!leads_already, board.rank(group, link.target), group)
    })?;
    let nodes = board.table.placement(group)?.nodes().collect();
    Some(Change::Place { group, nodes, leader: Some(link.target) })
}

/// That `source` leads a partition of which `target` has a replica too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Link {
    source: NodeId,
    target: NodeId,
}

fn links(board: &Board<'_>) -> BTreeMap<Link, Vec<GroupId>> {
    let mut links: BTreeMap<Link, Vec<GroupId>> = BTreeMap::new();
    for (group, placement) in board.partitions() {
        let Some(source) = placement.leader_node() else { continue };
        if !board.eligible.contains(&source) {
            continue;
        }
        let others = placement.nodes().filter(|&it| it != source && board.eligible.contains(&it));
        for target in others {
            links.entry(Link { source, target }).or_default().push(group);
        }
    }
    links
}

/// The last link of a shortest chain from a node that leads `count` to one that leads at least two fewer.
/// Called with the highest counts first, so no node on the way leads more than `count`.
fn last_link(
    board: &Board<'_>,
    links: &BTreeMap<Link, Vec<GroupId>>,
    count: usize,
) -> Option<Link> {
    let leads = |node: NodeId| board.leads.get(&node).copied().unwrap_or(0);
    let mut reached: BTreeSet<NodeId> =
        board.eligible.iter().copied().filter(|&node| leads(node) == count).collect();
    let mut edge = reached.clone();
    while !edge.is_empty() {
        let fresh = links.keys().filter(|it| edge.contains(&it.source)).copied();
        let fresh: Vec<_> = fresh.filter(|it| !reached.contains(&it.target)).collect();
        let short = fresh.iter().copied().filter(|it| leads(it.target) + 2 <= count);
        if let Some(link) = short.min_by_key(|it| (leads(it.target), it.source, it.target)) {
            return Some(link);
        }
        edge = fresh.iter().map(|it| it.target).collect();
        reached.extend(&edge);
    }
    None
}
