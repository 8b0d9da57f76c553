//! What every rule looks at, counted once a plan.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::placement::{Preference, Rank};
use crate::{Change, GroupId, NodeId, Placement, Report, Reports, Standing, Table};

/// Groups that may be on their way to another node at once for the sake of zones or balance. Each sends
/// a whole partition, at the cost of those who use the cluster; mending is not held back by it.
const MOTION_MAX: usize = 4;

/// A zone, by its place in the order of names: rules compare zones often.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Zone(usize);

pub(super) struct Board<'a> {
    pub(super) table: &'a Table,
    reports: &'a Reports,
    /// Active and alive: who may lead, and keep what it has.
    pub(super) eligible: BTreeSet<NodeId>,
    /// Eligible, and known to all: who may be given replicas.
    pub(super) open: BTreeSet<NodeId>,
    /// Replicas of partitions on each eligible node.
    pub(super) loads: BTreeMap<NodeId, usize>,
    /// Partitions that each eligible node should lead.
    pub(super) leads: BTreeMap<NodeId, usize>,
    zones: BTreeMap<NodeId, Zone>,
    preference: OnceCell<Preference<'a>>,
}

impl<'a> Board<'a> {
    pub(super) fn new(
        table: &'a Table,
        reports: &'a Reports,
        alive: &BTreeSet<NodeId>,
        known: &BTreeSet<NodeId>,
    ) -> Self {
        let active = table.members.values().filter(|it| it.standing == Standing::Active);
        let eligible: BTreeSet<_> =
            active.map(|it| it.node).filter(|node| alive.contains(node)).collect();
        let none: BTreeMap<_, _> = eligible.iter().map(|&node| (node, 0)).collect();
        let (mut loads, mut leads) = (none.clone(), none);
        for partition in table.partitions.values() {
            for node in partition.placement.nodes() {
                loads.entry(node).and_modify(|count| *count += 1);
            }
            if let Some(node) = partition.placement.leader_node() {
                leads.entry(node).and_modify(|count| *count += 1);
            }
        }
        let (zones, preference) = (zones(table), OnceCell::new());
        let open = eligible.intersection(known).copied().collect();
        Self { table, reports, eligible, open, loads, leads, zones, preference }
    }

    /// The partitions as groups, by id, but those that lost all their nodes: only a new founding helps
    /// them.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (GroupId, &'a Placement)> {
        self.groups().filter(|&(group, _)| group != GroupId::Council)
    }

    /// The council, then the partitions, but those that lost all their nodes.
    pub(super) fn groups(&self) -> impl Iterator<Item = (GroupId, &'a Placement)> {
        let members = &self.table.members;
        let groups = self.table.groups().map(|(group, _, placement)| (group, placement));
        groups.filter(|(_, placement)| !placement.is_orphaned(members))
    }

    /// Whether the node is a member that stays, alive or not.
    pub(super) fn stays(&self, node: NodeId) -> bool {
        self.table.members.get(&node).is_some_and(|it| it.standing == Standing::Active)
    }

    /// Replicas of the node that count when someone is chosen for the group. The council's replicas are
    /// few and small, so load does not matter to it.
    pub(super) fn load(&self, group: GroupId, node: NodeId) -> usize {
        match group {
            GroupId::Council => 0,
            GroupId::Partition(_) => self.loads.get(&node).copied().unwrap_or(0),
        }
    }

    /// The zone of a member; `None` for who is not.
    pub(super) fn zone(&self, node: NodeId) -> Option<Zone> {
        self.zones.get(&node).copied()
    }

    /// How many of the nodes are in the zone.
    pub(super) fn in_zone(&self, nodes: &[NodeId], zone: Option<Zone>) -> usize {
        nodes.iter().filter(|&&node| self.zone(node) == zone).count()
    }

    pub(super) fn rank(&self, group: GroupId, node: NodeId) -> Rank {
        self.preference.get_or_init(|| Preference::of(self.table)).rank(group, node)
    }

    /// The node that leads the group now, if it should hold a replica.
    pub(super) fn leader_reported(&self, group: GroupId) -> Option<NodeId> {
        let report = self.report(group)?;
        self.table.placement(group)?.node_of(report.leader)
    }

    /// Whether the group reports exactly what the table says.
    pub(super) fn is_settled(&self, group: GroupId, placement: &Placement) -> bool {
        self.report(group).is_some_and(|report| agrees(report, placement))
    }

    /// Whether one more group may be set in motion. A group that does not report may be one that waits
    /// for its operator; it must not hold the others for ever.
    pub(super) fn may_move(&self) -> bool {
        let in_motion = self.groups().filter(|&(group, placement)| {
            self.report(group).is_some_and(|report| !agrees(report, placement))
        });
        in_motion.count() < MOTION_MAX
    }

    /// Places the group on the nodes. Its leader stays if it can.
    pub(super) fn place(&self, group: GroupId, nodes: Vec<NodeId>) -> Change {
        let leader = match group {
            GroupId::Council => None,
            GroupId::Partition(_) => {
                let current = self.table.placement(group).and_then(Placement::leader_node);
                let current = current.filter(|node| nodes.contains(node));
                let able = current.filter(|node| self.eligible.contains(node));
                able.or_else(|| self.choose(group, &nodes)).or(current)
            }
        };
        Change::Place { group, nodes, leader }
    }

    /// Who of the nodes should lead: who leads already, if that is not more than its share; else one that
    /// has the data and leads least.
    pub(super) fn choose(&self, group: GroupId, nodes: &[NodeId]) -> Option<NodeId> {
        let placement = self.table.placement(group)?;
        let leads = |node: NodeId| self.leads.get(&node).copied().unwrap_or(0);
        let share = self.table.partitions.len().div_ceil(self.eligible.len().max(1));
        let able = || nodes.iter().copied().filter(|node| self.eligible.contains(node));
        let report = self.report(group);
        let votes = |id| report.is_none_or(|it| it.voters.contains(&id));
        let has_data = |node| placement.replica_on(node).is_some_and(votes);
        let reported = self.leader_reported(group);
        able().find(|&node| reported == Some(node) && leads(node) < share).or_else(|| {
            able().min_by_key(|&node| (!has_data(node), leads(node), self.rank(group, node)))
        })
    }

    fn report(&self, group: GroupId) -> Option<&'a Report> {
        let report = self.reports.get(&group)?;
        (Some(report.generation) == self.table.generation(group)).then_some(report)
    }
}

fn zones(table: &Table) -> BTreeMap<NodeId, Zone> {
    let names: BTreeSet<_> = table.members.values().map(|it| &*it.zone).collect();
    let zones: BTreeMap<_, _> = names.into_iter().zip((0..).map(Zone)).collect();
    table.members.values().map(|it| (it.node, zones[&*it.zone])).collect()
}

fn agrees(report: &Report, placement: &Placement) -> bool {
    report.learners.is_empty() && report.voters.iter().copied().eq(placement.ids())
}
