//! A cluster on paper, for tests: a table, who is alive, and what groups report.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::{
    Change, ClusterId, Endpoints, Epoch, Generation, GroupId, Member, NodeId, PartitionId,
    Placement, Refusal, ReplicaId, Report, Reports, Settings, Standing, Table, plan,
};

pub(crate) fn node(number: u64) -> NodeId {
    NodeId::new(number)
}

pub(crate) fn partition(number: u16) -> GroupId {
    GroupId::Partition(PartitionId::new(number))
}

pub(crate) fn member(number: u64) -> Member {
    let low = u8::try_from(number % 251).expect("less than 256");
    let at = |port| SocketAddr::from(([10, 0, 0, low], port));
    Member {
        node: node(number),
        name: format!("n{number}"),
        zone: String::new(),
        endpoints: Endpoints {
            peer: at(16379),
            listen: at(6379),
            any_key: at(7379),
            http: at(8379),
        },
        standing: Standing::Active,
        admitted: Epoch::default(),
        version: "0.1.0".to_owned(),
    }
}

pub(crate) fn founded(partitions: u16) -> Table {
    let epoch = Epoch { generation: Generation::new(1), index: 1 };
    Table::found(ClusterId::new(7), Settings::default(), member(1), partitions, epoch).unwrap()
}

/// A table with members `1..=nodes` and nothing planned yet.
pub(crate) fn table(nodes: u64, partitions: u16) -> Table {
    let mut table = founded(partitions);
    for number in 2..=nodes {
        step(&mut table, Change::Admit { member: member(number), replaces: None });
    }
    table
}

pub(crate) fn try_step(table: &mut Table, change: Change) -> Result<(), Refusal> {
    table.step(table.epoch.index + 1, &change)
}

pub(crate) fn step(table: &mut Table, change: Change) {
    try_step(table, change.clone()).unwrap_or_else(|refusal| panic!("{change:?}: {refusal}"));
}

pub(crate) fn place(group: GroupId, nodes: &[u64], leader: Option<u64>) -> Change {
    let nodes = nodes.iter().map(|&it| node(it)).collect();
    Change::Place { group, nodes, leader: leader.map(node) }
}

/// The numbers of the nodes that should hold the group, ascending.
pub(crate) fn numbers(placement: &Placement) -> Vec<u64> {
    let mut numbers: Vec<_> = placement.nodes().map(NodeId::number).collect();
    numbers.sort_unstable();
    numbers
}

/// One of few groups, whether there is such a one or not.
pub(crate) fn any_group() -> impl Strategy<Value = GroupId> {
    prop_oneof![Just(GroupId::Council), (0..4_u16).prop_map(partition)]
}

/// Any change about few nodes and groups, sensible or not.
pub(crate) fn any_change() -> impl Strategy<Value = Change> {
    let number = || 0..8_u64;
    let some_node = move || number().prop_map(node);
    let maybe = move || prop::option::of(some_node());
    let admit = (number(), number(), maybe()).prop_map(|(id, name, replaces)| {
        let member = Member { name: format!("n{name}"), ..member(id) };
        Change::Admit { member, replaces }
    });
    let place = (any_group(), prop::collection::vec(some_node(), 0..9), maybe())
        .prop_map(|(group, nodes, leader)| Change::Place { group, nodes, leader });
    let refound = (0..4_u16, 0..4_u32, some_node()).prop_map(|(id, generation, survivor)| {
        let (partition, generation) = (PartitionId::new(id), Generation::new(generation));
        Change::Refound { partition, generation, survivor }
    });
    let dismiss = some_node().prop_map(|node| Change::Dismiss { node });
    let forget = some_node().prop_map(|node| Change::Forget { node });
    let leave = some_node().prop_map(|node| Change::Leave { node });
    let reseat = (any_group(), 0..40_u64)
        .prop_map(|(group, id)| Change::Reseat { group, replica: ReplicaId::new(id) });
    prop_oneof![
        3 => admit, 1 => leave, 2 => dismiss, 1 => forget, 6 => place, 1 => refound, 2 => reseat,
    ]
}

/// How many cases a random test runs, always the same ones. `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask
/// for more and others.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { count };
    let rng_seed = match asked.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
    };
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..asked }
}

/// What a group reports that is where its placement says.
pub(crate) fn report(generation: Generation, placement: &Placement) -> Report {
    Report {
        generation,
        term: 1,
        leader: placement.leader.unwrap_or(placement.replicas[0].id),
        epoch: placement.epoch,
        voters: placement.ids().collect(),
        learners: BTreeSet::new(),
        index: 1,
    }
}

/// Steps that no settling takes: each group could be placed anew many times over.
pub(crate) const STEPS_MAX: usize = 20_000;

pub(crate) struct Cluster {
    pub(crate) table: Table,
    pub(crate) alive: BTreeSet<NodeId>,
    pub(crate) reports: Reports,
    given: BTreeSet<ReplicaId>,
}

/// What settling did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Moves {
    pub(crate) steps: usize,
    pub(crate) replicas_added: usize,
    pub(crate) replicas_removed: usize,
}

impl Cluster {
    pub(crate) fn of(nodes: u64, partitions: u16) -> Self {
        Self::with(table(nodes, partitions))
    }

    pub(crate) fn with(table: Table) -> Self {
        let alive = table.members.keys().copied().collect();
        let given = ids(&table);
        let mut cluster = Self { table, alive, reports: Reports::new(), given };
        cluster.report();
        cluster
    }

    pub(crate) fn join(&mut self, number: u64, zone: &str) {
        let member = Member { zone: zone.to_owned(), ..member(number) };
        self.step(Change::Admit { member, replaces: None });
        self.alive.insert(node(number));
    }

    /// Takes the change, and checks that no replica id is given a second time.
    pub(crate) fn step(&mut self, change: Change) {
        let before = ids(&self.table);
        step(&mut self.table, change);
        for id in ids(&self.table).difference(&before) {
            assert!(self.given.insert(*id), "{id} was given before");
        }
    }

    /// What the council would do next.
    pub(crate) fn plan(&self) -> Option<Change> {
        let known = self.table.members.keys().copied().collect();
        plan(&self.table, &self.reports, &self.alive, &known)
    }

    /// Every group is at once where its placement says, and says so.
    pub(crate) fn report(&mut self) {
        let groups = self.table.groups();
        self.reports = groups.map(|(id, generation, it)| (id, report(generation, it))).collect();
    }

    /// Follows the plans to their end.
    pub(crate) fn settle(&mut self) -> Moves {
        let before = self.replicas();
        self.report();
        for steps in 0..STEPS_MAX {
            let Some(change) = self.plan() else {
                let after = self.replicas();
                let replicas_added = after.difference(&before).count();
                let replicas_removed = before.difference(&after).count();
                return Moves { steps, replicas_added, replicas_removed };
            };
            self.step(change);
            self.report();
        }
        panic!("the plans do not end");
    }

    /// Groups that report something else than the table says.
    pub(crate) fn moving(&self) -> Vec<GroupId> {
        let groups = self.table.groups().filter(|(group, _, placement)| {
            !self.reports[group].voters.iter().copied().eq(placement.ids())
        });
        groups.map(|(group, ..)| group).collect()
    }

    /// Replicas of partitions on each member.
    pub(crate) fn loads(&self) -> BTreeMap<NodeId, usize> {
        self.count(|placement, node| placement.replica_on(node).is_some())
    }

    /// Partitions that each member should lead.
    pub(crate) fn leads(&self) -> BTreeMap<NodeId, usize> {
        self.count(|placement, node| placement.leader_node() == Some(node))
    }

    pub(crate) fn placements(&self) -> impl Iterator<Item = &Placement> {
        self.table.partitions.values().map(|it| &it.placement)
    }

    fn count(&self, of: impl Fn(&Placement, NodeId) -> bool) -> BTreeMap<NodeId, usize> {
        let nodes = self.table.members.keys();
        nodes.map(|&it| (it, self.placements().filter(|&p| of(p, it)).count())).collect()
    }

    fn replicas(&self) -> BTreeSet<ReplicaId> {
        self.placements().flat_map(Placement::ids).collect()
    }
}

/// Every replica id in the table.
pub(crate) fn ids(table: &Table) -> BTreeSet<ReplicaId> {
    table.groups().flat_map(|(_, _, placement)| placement.ids()).collect()
}

/// The least and the most of the counts.
pub(crate) fn range(counts: &BTreeMap<NodeId, usize>) -> (usize, usize) {
    (*counts.values().min().unwrap(), *counts.values().max().unwrap())
}
