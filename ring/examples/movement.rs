//! How much moves when a cluster grows node by node, and how even it is afterwards.
//!
//! Prints the table of `docs/placement.md`: `cargo run --release -p scatterhoard-ring --example movement`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use scatterhoard_ring::{
    Change, ClusterId, Endpoints, Epoch, Generation, GroupId, Member, NodeId, Report, Settings,
    Standing, Table, plan,
};

fn main() {
    println!(
        "| partitions | nodes | moved | fair share | plan's steps | replicas | leaders | leaders moved |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for partitions in [12, 24, 256] {
        let mut cluster = Cluster::found(partitions);
        for nodes in 2..=51 {
            let row = cluster.join(nodes);
            if nodes <= 20 || nodes == 51 {
                println!("| {partitions} | {} → {nodes} | {row}", nodes - 1);
            }
        }
    }
}

/// A cluster in which every group is at once where its placement says.
struct Cluster {
    table: Table,
}

impl Cluster {
    fn found(partitions: u16) -> Self {
        let epoch = Epoch { generation: Generation::new(1), index: 1 };
        let cluster = ClusterId::new(1);
        let table = Table::found(cluster, Settings::default(), member(1), partitions, epoch);
        Self { table: table.expect("the arguments are within their limits") }
    }

    fn join(&mut self, number: u64) -> String {
        let before = self.table.clone();
        self.step(&Change::Admit { member: member(number), replaces: None });
        let mut steps = 0;
        while let Some(change) = self.next() {
            self.step(&change);
            steps += 1;
        }
        describe(&before, &self.table, steps)
    }

    fn next(&self) -> Option<Change> {
        let alive: BTreeSet<_> = self.table.members.keys().copied().collect();
        let reports = self.table.groups().map(|(group, generation, placement)| {
            let voters: BTreeSet<_> = placement.ids().collect();
            let leader = placement.leader.unwrap_or(placement.replicas[0].id);
            let epoch = placement.epoch;
            let learners = BTreeSet::new();
            (group, Report { generation, term: 1, leader, epoch, voters, learners, index: 1 })
        });
        plan(&self.table, &reports.collect(), &alive, &alive)
    }

    fn step(&mut self, change: &Change) {
        let index = self.table.epoch.index + 1;
        self.table.step(index, change).expect("a plan is a change that the table takes");
    }
}

fn member(number: u64) -> Member {
    let port = 7000 + u16::try_from(number).expect("there are few nodes");
    let at = |offset: u16| SocketAddr::from(([127, 0, 0, 1], port + offset));
    Member {
        node: NodeId::new(number),
        name: format!("node-{number}"),
        zone: String::new(),
        endpoints: Endpoints { peer: at(10_000), listen: at(0), any_key: at(1000), http: at(2000) },
        standing: Standing::Active,
        admitted: Epoch::default(),
        version: "0.1.0".to_owned(),
    }
}

fn describe(before: &Table, after: &Table, steps: usize) -> String {
    let nodes = after.members.len();
    let (mut all, mut added, mut removed, mut leaders_moved) = (0, 0, 0, 0);
    let mut replicas: BTreeMap<NodeId, usize> = after.members.keys().map(|&it| (it, 0)).collect();
    let mut leaders = replicas.clone();
    for (&id, partition) in &after.partitions {
        let new = &partition.placement;
        let old = before.placement(GroupId::Partition(id)).expect("partitions stay");
        let (held, holds): (BTreeSet<_>, BTreeSet<_>) = (old.ids().collect(), new.ids().collect());
        all += holds.len();
        added += holds.difference(&held).count();
        removed += held.difference(&holds).count();
        leaders_moved += usize::from(old.leader_node() != new.leader_node());
        for node in new.nodes() {
            replicas.entry(node).and_modify(|count| *count += 1);
        }
        if let Some(node) = new.leader_node() {
            leaders.entry(node).and_modify(|count| *count += 1);
        }
    }
    let percent = |part: usize, of: usize| format!("{:.1} %", 100.0 * part as f64 / of as f64);
    let moved = match (added, removed) {
        (_, 0) if added > 0 => format!("0, {added} new"),
        _ => format!("{removed} ({})", percent(removed, all)),
    };
    let range = |counts: &BTreeMap<NodeId, usize>| {
        let (least, most) = (counts.values().min(), counts.values().max());
        format!("{}–{}", least.expect("a member"), most.expect("a member"))
    };
    let (replicas, leaders) = (range(&replicas), range(&leaders));
    let fair = percent(1, nodes);
    let leaders_moved = percent(leaders_moved, after.partitions.len());
    format!("{moved} | {fair} | {steps} | {replicas} | {leaders} | {leaders_moved} |")
}
