//! Where replicas are: over zones first, then evenly over nodes. One replica of one group at a time, and
//! only groups that report what the table says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::board::Board;
use crate::{Change, GroupId, NodeId, Placement};

/// Moves a replica from a zone that has two more of its group than another to that other zone.
pub(super) fn spread(board: &Board<'_>) -> Option<Change> {
    let zones: BTreeSet<_> = board.eligible.iter().map(|&node| board.zone(node)).collect();
    if zones.len() <= 1 {
        return None;
    }
    best(board, board.groups(), |step| {
        let gain = step.crowd_source.checked_sub(step.crowd_target + 2)?;
        let load = board.load(step.group, step.target);
        Some((Reverse(gain), step.moves_leader, load))
    })
}

/// Moves a replica from a node to one that has at least two fewer, unless its group would be over fewer
/// zones. So no two nodes of a zone differ by more than one, and a node that joins takes its fair share
/// from the others while nothing moves between these.
pub(super) fn level(board: &Board<'_>) -> Option<Change> {
    if board.loads.values().max()? - board.loads.values().min()? <= 1 {
        return None;
    }
    let direct = best(board, board.partitions(), |step| {
        let gain = step.descent(board)?.checked_sub(2)?;
        Some((Reverse(gain), step.moves_leader))
    });
    direct.or_else(|| detour(board))
}

/// Zones can forbid each move from a node to one that has two fewer, while there are moves by way of a
/// third that has one fewer. The second of them goes first; then the other is one that levels. Only when
/// all groups stand still: until then, it may be that a direct move just has to wait.
fn detour(board: &Board<'_>) -> Option<Change> {
    if !board.groups().all(|(group, placement)| board.is_settled(group, placement)) {
        return None;
    }
    let mut arrivals: BTreeMap<NodeId, BTreeSet<GroupId>> = BTreeMap::new();
    for step in settled_steps(board, board.partitions()) {
        if step.descent(board) == Some(1) {
            arrivals.entry(step.target).or_default().insert(step.group);
        }
    }
    best(board, board.partitions(), |step| {
        let others = arrivals.get(&step.source)?.iter().any(|&group| group != step.group);
        (others && step.descent(board) == Some(1)).then_some(step.moves_leader)
    })
}

/// A replica of `group` from `source` to `target`.
#[derive(Clone, Copy)]
struct Step {
    group: GroupId,
    source: NodeId,
    target: NodeId,
    /// Replicas of the group in the source's zone, and in the target's.
    crowd_source: usize,
    crowd_target: usize,
    moves_leader: bool,
}

impl Step {
    /// How many replicas more the source has; `None` if it has fewer, or the group would be over fewer
    /// zones, or less evenly.
    fn descent(&self, board: &Board<'_>) -> Option<usize> {
        let same_zone = board.zone(self.source) == board.zone(self.target);
        let allowed = same_zone || self.crowd_source > self.crowd_target;
        let load = |node| board.load(self.group, node);
        load(self.source).checked_sub(load(self.target)).filter(|_| allowed)
    }
}

/// The step with the least cost; of several, the one that the ring prefers most.
fn best<'a, C: Ord>(
    board: &Board<'a>,
    groups: impl Iterator<Item = (GroupId, &'a Placement)>,
    cost: impl Fn(&Step) -> Option<C>,
) -> Option<Change> {
    if !board.may_move() {
        return None;
    }
    // Ranks are dear, so they are looked up only for the steps that nothing else tells apart.
    let mut cheapest: Option<C> = None;
    let mut steps: Vec<Step> = Vec::new();
    for step in settled_steps(board, groups) {
        let Some(cost) = cost(&step) else { continue };
        if cheapest.as_ref().is_none_or(|least| cost < *least) {
            cheapest = Some(cost);
            steps.clear();
            steps.push(step);
        } else if cheapest.as_ref() == Some(&cost) {
            steps.push(step);
        }
    }
    let step = steps.into_iter().min_by_key(|step| {
        let target = board.rank(step.group, step.target);
        let source = board.rank(step.group, step.source);
        (target, Reverse(source), step.group)
    })?;
    let placement = board.table.placement(step.group)?;
    let nodes = placement.nodes().map(|it| if it == step.source { step.target } else { it });
    Some(board.place(step.group, nodes.collect()))
}

fn settled_steps<'a>(
    board: &Board<'a>,
    groups: impl Iterator<Item = (GroupId, &'a Placement)>,
) -> impl Iterator<Item = Step> {
    groups
        .filter(|&(group, placement)| board.is_settled(group, placement))
        .flat_map(|(group, placement)| steps_of(board, group, placement))
}

fn steps_of<'a>(
    board: &Board<'a>,
    group: GroupId,
    placement: &'a Placement,
) -> impl Iterator<Item = Step> {
    let nodes: Vec<_> = placement.nodes().collect();
    let leader = placement.leader_node().or_else(|| board.leader_reported(group));
    let crowded = |node: NodeId| (node, board.in_zone(&nodes, board.zone(node)));
    let (holding, others): (Vec<_>, Vec<_>) =
        board.eligible.iter().map(|&node| crowded(node)).partition(|(it, _)| nodes.contains(it));
    holding.into_iter().flat_map(move |(source, crowd_source)| {
        let moves_leader = leader == Some(source);
        let step = move |(target, crowd_target)| Step {
            group,
            source,
            target,
            crowd_source,
            crowd_target,
            moves_leader,
        };
        others.clone().into_iter().filter(|(target, _)| board.open.contains(target)).map(step)
    })
}
