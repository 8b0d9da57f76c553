use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::fixture::{
    Cluster, STEPS_MAX, cases, node, numbers, partition, place, range, report, step, table,
};
use crate::{Change, Epoch, GroupId, Member, NodeId, Settings, Standing, known_to_all, plan};

#[test]
fn a_founder_alone_has_nothing_to_plan() {
    let mut cluster = Cluster::of(1, 12);
    assert_eq!(cluster.settle().steps, 0);
}

#[test]
fn a_cluster_grows_to_twenty_nodes_and_shrinks_again() {
    for partitions in [1, 12, 40] {
        let mut cluster = Cluster::of(1, partitions);
        for nodes in 2..=20 {
            cluster.join(nodes, "");
            cluster.settle();
            assert_even(&cluster);
        }
        for number in 1..20 {
            cluster.step(Change::Leave { node: node(number) });
            cluster.settle();
            assert_eq!(cluster.loads()[&node(number)], 0, "who leaves has given everything away");
            assert_eq!(cluster.table.replicas_on(node(number)).count(), 0);
            cluster.step(Change::Dismiss { node: node(number) });
            cluster.alive.remove(&node(number));
            assert_eq!(cluster.settle().replicas_added, 0, "nothing is left to be mended");
            assert_even(&cluster);
        }
        assert!(cluster.placements().all(|it| numbers(it) == [20]));
    }
}

#[test]
fn a_join_moves_its_fair_share_and_nothing_else() {
    let mut cluster = Cluster::of(3, 24);
    cluster.settle();
    for joined in 4..=12_u64 {
        cluster.join(joined, "");
        let before: Vec<_> = cluster.placements().cloned().collect();
        let moves = cluster.settle();
        let replicas = 24 * 3;
        assert_eq!(moves.replicas_added, replicas / usize::try_from(joined).unwrap());
        assert_eq!(moves.replicas_added, moves.replicas_removed);
        for (old, new) in before.iter().zip(cluster.placements()) {
            let old: BTreeSet<_> = old.nodes().collect();
            let added: Vec<_> = new.nodes().filter(|it| !old.contains(it)).collect();
            assert!(added.is_empty() || added == [node(joined)], "{added:?}");
        }
    }
}

#[test]
fn the_dead_keep_their_replicas_until_they_are_dismissed() {
    let mut cluster = Cluster::of(4, 12);
    cluster.settle();
    let held = cluster.loads();

    cluster.alive.remove(&node(2));
    let moves = cluster.settle();
    assert_eq!((moves.replicas_added, moves.replicas_removed), (0, 0));
    assert_eq!(cluster.loads(), held);
    assert_eq!(cluster.leads()[&node(2)], 0, "but they are not asked to lead");
    assert_eq!(cluster.leads()[&node(1)], 4);

    cluster.step(Change::Dismiss { node: node(2) });
    assert_eq!(cluster.settle().replicas_added, held[&node(2)]);
    assert!(cluster.placements().all(|it| numbers(it) == [1, 3, 4]));
    assert_even(&cluster);
}

#[test]
fn who_comes_back_leads_again_and_nothing_was_copied() {
    let mut cluster = Cluster::of(3, 12);
    cluster.settle();
    cluster.alive.remove(&node(3));
    cluster.settle();
    cluster.alive.insert(node(3));
    let moves = cluster.settle();
    assert_eq!((moves.replicas_added, moves.replicas_removed), (0, 0));
    assert_even(&cluster);
}

#[test]
fn a_leadership_goes_to_who_was_elected() {
    let mut cluster = Cluster::of(3, 3);
    cluster.settle();
    let (&id, _) = cluster.table.partitions.iter().next().unwrap();
    let group = GroupId::Partition(id);
    let placement = cluster.table.placement(group).unwrap().clone();
    let dead = placement.leader_node().unwrap();
    for elected in placement.nodes().filter(|&it| it != dead) {
        cluster.alive.remove(&dead);
        cluster.reports.get_mut(&group).unwrap().leader = placement.replica_on(elected).unwrap();
        let Some(Change::Place { leader, .. }) = cluster.plan() else { panic!("no new leader") };
        assert_eq!(leader, Some(elected));
    }
}

#[test]
fn who_has_the_data_leads_before_who_has_yet_to_get_it() {
    let mut cluster = Cluster::of(3, 1);
    cluster.settle();
    let placement = cluster.table.placement(partition(0)).unwrap().clone();
    let dead = placement.leader_node().unwrap();
    for late in placement.nodes().filter(|&it| it != dead) {
        let report = cluster.reports.get_mut(&partition(0)).unwrap();
        report.voters = placement.ids().filter(|&id| placement.node_of(id) != Some(late)).collect();
        cluster.alive.remove(&dead);
        let Some(Change::Place { leader, .. }) = cluster.plan() else { panic!("no new leader") };
        assert!(leader != Some(late) && leader != Some(dead), "{leader:?}");
    }
}

#[test]
fn who_sees_nobody_plans_nothing() {
    let mut cluster = Cluster::of(5, 12);
    cluster.settle();
    cluster.alive.clear();
    assert_eq!(cluster.plan(), None);
}

#[test]
fn mending_waits_for_nothing() {
    let mut cluster = Cluster::of(2, 12);
    cluster.reports.clear();
    let mut mended = BTreeSet::new();
    while let Some(Change::Place { group, nodes, leader }) = cluster.plan() {
        if nodes.len() == 2 && cluster.table.placement(group).unwrap().replicas.len() == 1 {
            mended.insert(group);
        }
        cluster.step(Change::Place { group, nodes, leader });
    }
    assert_eq!(mended.len(), 12, "without a single report");
}

#[test]
fn few_groups_move_at_once_and_only_those_that_stand_still() {
    let mut cluster = Cluster::of(3, 24);
    cluster.settle();
    cluster.join(4, "");
    let mut moved = BTreeSet::new();
    while let Some(Change::Place { group, nodes, leader }) = cluster.plan() {
        if nodes.contains(&node(4)) {
            moved.insert(group);
        }
        cluster.step(Change::Place { group, nodes, leader });
    }
    assert_eq!(moved.len(), 4);

    // One of them arrives, and one more sets out; a group that does not report stays where it is.
    let silent: BTreeSet<_> = cluster.table.groups().map(|(group, ..)| group).collect();
    let silent: Vec<_> = silent.difference(&moved).copied().take(10).collect();
    for group in &silent {
        cluster.reports.remove(group);
    }
    for &group in &moved {
        let placement = cluster.table.placement(group).unwrap();
        let arrived = report(cluster.table.generation(group).unwrap(), placement);
        cluster.reports.insert(group, arrived);
        let Some(Change::Place { group, nodes, leader }) = cluster.plan() else {
            panic!("nothing set out")
        };
        assert!(!silent.contains(&group));
        cluster.step(Change::Place { group, nodes, leader });
    }
}

#[test]
fn an_old_generation_s_report_counts_for_nothing() {
    let mut cluster = Cluster::of(3, 1);
    cluster.settle();
    let refound = Change::Refound {
        partition: crate::PartitionId::new(0),
        generation: crate::Generation::new(2),
        survivor: node(2),
    };
    cluster.step(refound);
    let Some(change) = cluster.plan() else { panic!("it is not mended") };
    assert_eq!(change, place(partition(0), &[2, 1, 3], Some(2)).sorted_like(&change));
}

#[test]
fn a_group_that_lost_all_its_nodes_is_left_for_its_operator() {
    let mut cluster = Cluster::of(1, 2);
    cluster.join(2, "");
    step(&mut cluster.table, place(partition(0), &[2], Some(2)));
    step(&mut cluster.table, Change::Dismiss { node: node(2) });
    cluster.join(3, "");
    cluster.settle();
    assert_eq!(numbers(cluster.table.placement(partition(0)).unwrap()), [2]);
    assert_eq!(numbers(cluster.table.placement(partition(1)).unwrap()), [1, 3]);
}

#[test]
fn a_group_shrinks_only_to_a_majority_that_is_awake() {
    let mut cluster = Cluster::of(3, 3);
    cluster.settle();
    cluster.step(Change::Leave { node: node(1) });
    cluster.alive.remove(&node(2));
    cluster.settle();
    assert!(cluster.placements().all(|it| numbers(it) == [1, 2, 3]), "2 of 3 could not decide");

    cluster.alive.insert(node(2));
    cluster.settle();
    assert!(cluster.placements().all(|it| numbers(it) == [2, 3]));
}

#[test]
fn the_last_nodes_have_nowhere_to_leave_to() {
    let mut cluster = Cluster::of(2, 4);
    cluster.settle();
    for number in [1, 2] {
        cluster.step(Change::Leave { node: node(number) });
        cluster.settle();
    }
    assert!(cluster.placements().all(|it| numbers(it) == [2]));
}

#[test]
fn too_many_replicas_become_as_many_as_wanted() {
    let mut cluster = Cluster::of(5, 1);
    cluster.settle();
    cluster.step(place(partition(0), &[1, 2, 3, 4, 5], Some(3)));
    cluster.alive.remove(&node(5));
    cluster.settle();
    assert_eq!(cluster.placements().next().unwrap().replicas.len(), 5, "who knows who is needed");
    cluster.alive.insert(node(5));
    cluster.settle();
    let placement = cluster.placements().next().unwrap();
    assert_eq!((placement.replicas.len(), placement.leader_node()), (3, Some(node(3))));
}

#[test]
fn the_council_has_one_three_or_five_voters() {
    let mut cluster = Cluster::of(1, 1);
    let voters = |cluster: &Cluster| cluster.table.council.replicas.len();
    for (nodes, wanted) in [(2, 1), (3, 3), (4, 3), (5, 5), (6, 5)] {
        cluster.join(nodes, "");
        cluster.settle();
        assert_eq!(voters(&cluster), wanted, "{nodes} nodes");
        assert_eq!(cluster.table.council.leader, None);
    }
    // The first change that follows is about the council, and takes one who stays.
    for (leaves, wanted) in [(6, 5), (5, 3), (4, 3), (3, 1), (2, 1)] {
        cluster.step(Change::Leave { node: node(leaves) });
        cluster.settle();
        assert_eq!(voters(&cluster), wanted, "{leaves} leaves");
        cluster.step(Change::Dismiss { node: node(leaves) });
        cluster.alive.remove(&node(leaves));
    }
    assert_eq!(numbers(&cluster.table.council), [1]);
}

#[test]
fn a_dead_councillor_is_replaced_once_dismissed_and_not_before() {
    let mut cluster = Cluster::of(4, 1);
    cluster.settle();
    let before = cluster.table.council.clone();
    let dead = before.replicas[1].node;
    cluster.alive.remove(&dead);
    cluster.settle();
    assert_eq!(cluster.table.council, before);
    cluster.step(Change::Dismiss { node: dead });
    cluster.settle();
    assert_eq!(cluster.table.council.replicas.len(), 3);
}

#[test]
fn the_council_s_leader_is_not_the_one_to_go() {
    for leader in 1..=3 {
        let mut cluster = Cluster::of(3, 1);
        cluster.settle();
        cluster.step(Change::Leave { node: node(leader % 3 + 1) });
        let id = cluster.table.council.replica_on(node(leader)).unwrap();
        while let Some(change) = cluster.plan() {
            cluster.step(change);
            cluster.report();
            cluster.reports.get_mut(&GroupId::Council).unwrap().leader = id;
        }
        assert_eq!(numbers(&cluster.table.council), [leader]);
    }
}

#[test]
fn replicas_and_council_are_over_zones() {
    let mut cluster = Cluster::of(2, 12);
    cluster.join(3, "");
    cluster.settle();
    cluster.join(4, "b");
    cluster.settle();
    assert!(cluster.placements().all(|it| numbers(it).contains(&4)), "one of three is over there");
    assert!(numbers(&cluster.table.council).contains(&4));
    cluster.join(5, "c");
    cluster.settle();
    assert!(cluster.placements().all(|it| numbers(it)[1..] == [4, 5]));
    assert_bound(&cluster);
}

#[test]
fn a_zone_that_is_smaller_carries_more_but_carries_it_evenly() {
    let mut cluster = Cluster::of(1, 24);
    for number in 2..=9 {
        cluster.join(
            number,
            ["b", "b", "c", "c", "c", "c", "c", "c"][usize::try_from(number).unwrap() - 2],
        );
        cluster.settle();
    }
    let loads: Vec<_> = cluster.loads().into_values().collect();
    assert_eq!(loads, [24, 12, 12, 4, 4, 4, 4, 4, 4]);
    assert_bound(&cluster);
}

/// `Place` with the same nodes in the other's order: the order means nothing.
trait SortedLike {
    fn sorted_like(self, other: &Change) -> Change;
}

impl SortedLike for Change {
    fn sorted_like(self, other: &Change) -> Change {
        let (Change::Place { group, nodes, leader }, Change::Place { nodes: order, .. }) =
            (self, other)
        else {
            panic!("not placed")
        };
        assert_eq!(nodes.iter().collect::<BTreeSet<_>>(), order.iter().collect());
        Change::Place { group, nodes: order.clone(), leader }
    }
}

/// What holds of a settled cluster of equal nodes.
fn assert_even(cluster: &Cluster) {
    let wanted = cluster.table.members.len().min(3);
    for placement in cluster.placements() {
        let nodes: BTreeSet<_> = placement.nodes().collect();
        assert_eq!(nodes.len(), wanted, "{placement:?}");
    }
    let (least, most) = range(&cluster.leads());
    assert!(most - least <= 1, "leaders {least} to {most}");
    assert_bound(cluster);
}

/// No node has more than 1.1 times the mean of its zone, of replicas.
fn assert_bound(cluster: &Cluster) {
    let loads = cluster.loads();
    let mut zones: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for member in cluster.table.members.values() {
        zones.entry(&member.zone).or_default().push(loads[&member.node]);
    }
    for (zone, loads) in zones {
        let (sum, count) = (loads.iter().sum::<usize>(), loads.len());
        let bound = (11 * sum).div_ceil(10 * count);
        assert!(loads.iter().all(|&load| load <= bound), "zone {zone:?}: {loads:?} over {bound}");
    }
}

/// One thing that happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    Join { zone: u8 },
    Leave(prop::sample::Index),
    Dismiss(prop::sample::Index),
    Restart(prop::sample::Index),
    Sleep(prop::sample::Index),
    Wake(prop::sample::Index),
    Plan { steps: u8 },
    Report(prop::sample::Index),
}

fn event() -> impl Strategy<Value = Event> {
    let any = || any::<prop::sample::Index>();
    prop_oneof![
        4 => (0..4_u8).prop_map(|zone| Event::Join { zone }),
        1 => any().prop_map(Event::Leave),
        1 => any().prop_map(Event::Dismiss),
        1 => any().prop_map(Event::Restart),
        1 => any().prop_map(Event::Sleep),
        1 => any().prop_map(Event::Wake),
        4 => (1..20_u8).prop_map(|steps| Event::Plan { steps }),
        4 => any().prop_map(Event::Report),
    ]
}

/// A cluster to which things happen.
struct Story {
    cluster: Cluster,
    zones: u8,
    next: u64,
}

impl Story {
    fn of(partitions: u16, replicas: u8, zones: u8) -> Self {
        let mut table = table(1, partitions);
        table.settings = Settings { replicas, ..table.settings };
        table.members.get_mut(&node(1)).unwrap().zone = "z0".to_owned();
        Self { cluster: Cluster::with(table), zones, next: 2 }
    }

    fn pick(&self, index: prop::sample::Index) -> NodeId {
        *index.get(&self.cluster.table.members.keys().copied().collect::<Vec<_>>())
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Join { zone } => {
                let number = self.fresh();
                self.cluster.join(number, &format!("z{}", zone % self.zones));
            }
            Event::Leave(index) => {
                let node = self.pick(index);
                if self.cluster.table.members[&node].standing == Standing::Active {
                    self.cluster.step(Change::Leave { node });
                }
            }
            Event::Dismiss(index) => {
                let node = self.pick(index);
                if self.cluster.table.members.len() > 1 {
                    self.cluster.step(Change::Dismiss { node });
                    self.cluster.alive.remove(&node);
                }
            }
            Event::Restart(index) => {
                let (old, number) = (self.pick(index), self.fresh());
                let old_life = self.cluster.table.members[&old].clone();
                let standing = Standing::Active;
                let new_life = Member { node: node(number), standing, ..old_life };
                self.cluster.step(Change::Admit { member: new_life, replaces: Some(old) });
                self.cluster.alive.remove(&old);
                self.cluster.alive.insert(node(number));
            }
            Event::Sleep(index) => {
                let node = self.pick(index);
                self.cluster.alive.remove(&node);
            }
            Event::Wake(index) => {
                let node = self.pick(index);
                self.cluster.alive.insert(node);
            }
            Event::Plan { steps } => {
                for _ in 0..steps {
                    let Some(change) = self.cluster.plan() else { break };
                    self.cluster.step(change);
                }
            }
            Event::Report(index) => {
                let groups: Vec<_> = self.cluster.table.groups().collect();
                let &(group, generation, placement) = index.get(&groups);
                let report = report(generation, placement);
                self.cluster.reports.insert(group, report);
            }
        }
    }

    /// Everyone who is left wakes up, who leaves is gone, and the plans are followed to their end.
    fn end(&mut self) {
        self.cluster.settle();
        self.cluster.alive = self.cluster.table.members.keys().copied().collect();
        self.cluster.settle();
        let members = self.cluster.table.members.values();
        let leaving: Vec<_> =
            members.filter(|it| it.standing == Standing::Leaving).map(|it| it.node).collect();
        for node in leaving {
            if self.cluster.table.members.len() > 1 {
                self.cluster.step(Change::Dismiss { node });
                self.cluster.alive.remove(&node);
            }
        }
        self.cluster.settle();
    }
}

/// What holds of every settled cluster whose members are all alive and stay.
fn assert_settled(cluster: &Cluster) {
    let table = &cluster.table;
    let replicas = table.members.len().min(table.settings.replicas.into());
    let zones: BTreeSet<_> = table.members.values().map(|it| &it.zone).collect();
    for placement in cluster.placements().filter(|it| !it.is_orphaned(&table.members)) {
        let nodes: BTreeSet<_> = placement.nodes().collect();
        assert_eq!(nodes.len(), replicas, "{placement:?}");
        let spanned: BTreeSet<_> = nodes.iter().map(|it| &table.members[it].zone).collect();
        assert_eq!(spanned.len(), replicas.min(zones.len()), "{placement:?}");
        assert!(placement.leader.is_some(), "{placement:?}");
    }
    assert_bound(cluster);
    if zones.len() == 1 {
        let ((least, most), (first, last)) = (range(&cluster.loads()), range(&cluster.leads()));
        assert!(most - least <= 1, "replicas {least} to {most}");
        assert!(last - first <= 1, "leaders {first} to {last}");
    }
    assert_eq!(cluster.plan(), None);
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn whatever_happens_the_plans_end_in_a_settled_cluster(
        partitions in 1..20_u16,
        replicas in 1..=5_u8,
        zones in 1..=4_u8,
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut story = Story::of(partitions, replicas, zones);
        for event in events {
            story.happen(event);
        }
        story.end();
        let members = story.cluster.table.members.values();
        if members.clone().all(|it| it.standing == Standing::Active) {
            assert_settled(&story.cluster);
        }
    }

    #[test]
    fn plans_end_however_slowly_groups_follow(
        nodes in 2..9_u64,
        partitions in 1..20_u16,
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..50),
    ) {
        let mut cluster = Cluster::of(3, partitions);
        cluster.settle();
        for number in 4..4 + nodes {
            cluster.join(number, "");
        }
        cluster.step(Change::Leave { node: node(1) });
        for index in order.iter().cycle().take(STEPS_MAX) {
            while let Some(change) = cluster.plan() {
                cluster.step(change);
            }
            let moving = cluster.moving();
            if moving.is_empty() {
                break;
            }
            let group = *index.get(&moving);
            let placement = cluster.table.placement(group).unwrap();
            let arrived = report(cluster.table.generation(group).unwrap(), placement);
            cluster.reports.insert(group, arrived);
        }
        prop_assert_eq!(cluster.moving(), vec![]);
        cluster.step(Change::Dismiss { node: node(1) });
        prop_assert_eq!(cluster.plan(), None);
        assert_settled(&cluster);
    }

    #[test]
    fn equal_zones_are_even_too(
        partitions in 1..30_u16,
        zones in 1..=5_u64,
        per_zone in 1..=4_u64,
    ) {
        let mut story = Story::of(partitions, 3, 1);
        for number in 2..=zones * per_zone {
            story.cluster.join(number, &format!("z{}", (number - 1) % zones));
            story.cluster.settle();
        }
        assert_settled(&story.cluster);
        let (least, most) = range(&story.cluster.leads());
        prop_assert!(most - least <= 1, "leaders {least} to {most}");
        let (least, most) = range(&story.cluster.loads());
        prop_assert!(most - least <= 1, "replicas {least} to {most}");
    }

    #[test]
    fn the_order_in_which_members_came_does_not_matter(
        order in Just((2..=9_u64).collect::<Vec<_>>()).prop_shuffle(),
        partitions in 1..16_u16,
    ) {
        let mut shuffled = Cluster::of(1, partitions);
        for number in order {
            shuffled.join(number, "");
        }
        let mut sorted = Cluster::of(9, partitions);
        while let Some(change) = sorted.plan() {
            prop_assert_eq!(shuffled.plan(), Some(change.clone()));
            for cluster in [&mut sorted, &mut shuffled] {
                cluster.step(change.clone());
                cluster.report();
            }
        }
        prop_assert_eq!(shuffled.plan(), None);
    }

    #[test]
    fn a_join_moves_no_more_than_its_share(nodes in 3..16_u64, partitions in 1..30_u16) {
        let mut cluster = Cluster::of(nodes, partitions);
        cluster.settle();
        cluster.join(nodes + 1, "");
        let moves = cluster.settle();
        let share = usize::from(partitions) * 3 / usize::try_from(nodes + 1).unwrap();
        prop_assert_eq!(moves.replicas_removed, share);
        prop_assert_eq!(cluster.loads()[&node(nodes + 1)], share);
    }
}

#[test]
fn who_is_not_known_to_all_is_given_nothing() {
    let mut cluster = Cluster::of(3, 4);
    cluster.settle();
    cluster.join(4, "");
    let table = &cluster.table;
    let mut informed: BTreeMap<_, _> =
        table.members.keys().map(|&node| (node, table.epoch)).collect();
    let everyone: BTreeSet<_> = table.members.keys().copied().collect();
    assert_eq!(known_to_all(table, &informed), everyone);

    let before = Epoch { index: table.epoch.index - 1, ..table.epoch };
    informed.insert(node(3), before);
    informed.remove(&node(4));
    let known = known_to_all(table, &informed);
    assert_eq!(known, [1, 2, 3].map(node).into(), "3 may not know of 4; 4 joined after them all");
    let planned = plan(table, &cluster.reports, &cluster.alive, &known);
    let gives =
        |change: &Change| matches!(change, Change::Place { nodes, .. } if nodes.contains(&node(4)));
    assert!(!planned.as_ref().is_some_and(gives), "{planned:?}");
    assert!(plan(table, &cluster.reports, &cluster.alive, &everyone).as_ref().is_some_and(gives));
}
