//! Each group's order of preference over nodes, from a consistent-hash ring with virtual nodes. The only
//! file that knows of hashring.
//!
//! Invariant: same names, zones and seed, same order, on every machine and in whatever order nodes came.
//! It says nothing of load; the plan lets it break ties only.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use hashring::HashRing;
use xxhash_rust::xxh3::Xxh3Builder;

use crate::{GroupId, NodeId, Table};

/// Points that each node has on the ring. With 64, shares of the ring differ by about 1/8 from the mean,
/// and fifty nodes still make a ring of 3200 points only.
const POINTS_PER_NODE: u16 = 64;

/// Position in an order of preference; 0 comes first.
pub(crate) type Rank = usize;

/// The order in which each group prefers the members of one table.
pub(crate) struct Preference<'a> {
    table: &'a Table,
    ring: HashRing<Point<'a>, Xxh3Builder>,
    /// The points in the order of the ring: hashring itself tells neighbours only with copies of it all.
    points: Vec<NodeId>,
    /// Where in `points` each point is.
    positions: BTreeMap<(NodeId, u16), usize>,
    ranks: RefCell<BTreeMap<GroupId, BTreeMap<NodeId, Rank>>>,
}

impl<'a> Preference<'a> {
    /// The ring of all members.
    pub(crate) fn of(table: &'a Table) -> Self {
        let hasher = Xxh3Builder::new().with_seed(table.settings.hash_seed);
        let mut ring = HashRing::with_hasher(hasher);
        // By name, in the order of names: a node that starts again under its name is preferred for what
        // it had, and should two points ever hash alike, their order is still the same everywhere.
        let mut members: Vec<_> = table.members.values().map(|it| (&*it.name, it.node)).collect();
        members.sort_unstable();
        let points = members.iter().flat_map(|&(name, node)| {
            (0..POINTS_PER_NODE).map(move |copy| Point { name, node, copy })
        });
        ring.batch_add(points.collect());
        // Asked for more than there are, it tells each point once, in order from where the key is.
        let points = ring.get_with_replicas(&"", ring.len() + 1).unwrap_or_default();
        let positions = points.iter().zip(0..).map(|(it, at)| ((it.node, it.copy), at)).collect();
        let points = points.iter().map(|it| it.node).collect();
        Self { table, ring, points, positions, ranks: RefCell::default() }
    }

    /// How much the group prefers others to this node. Nodes that are not members come last.
    pub(crate) fn rank(&self, group: GroupId, node: NodeId) -> Rank {
        let mut ranks = self.ranks.borrow_mut();
        let ranks =
            ranks.entry(group).or_insert_with(|| self.order(group).into_iter().zip(0..).collect());
        ranks.get(&node).copied().unwrap_or(Rank::MAX)
    }

    /// All members, best first: the ring from the group's own point on, each node where it is first met;
    /// then the first of each zone before the second of any.
    fn order(&self, group: GroupId) -> Vec<NodeId> {
        let Some(first) = self.ring.get(&GroupPoint(group)) else { return Vec::new() };
        let start = self.positions[&(first.node, first.copy)];
        let (before, after) = self.points.split_at(start);
        let mut met = BTreeSet::new();
        let mut met_in_zone: BTreeMap<&str, usize> = BTreeMap::new();
        let mut order = Vec::with_capacity(self.table.members.len());
        for &node in after.iter().chain(before) {
            if met.insert(node) {
                let in_zone = met_in_zone.entry(&self.table.members[&node].zone).or_default();
                order.push((*in_zone, node));
                *in_zone += 1;
            }
            if met.len() == self.table.members.len() {
                break;
            }
        }
        order.sort_by_key(|&(in_zone, _)| in_zone);
        order.into_iter().map(|(_, node)| node).collect()
    }
}

/// One of a node's points on the ring.
#[derive(Clone, Debug)]
struct Point<'a> {
    name: &'a str,
    node: NodeId,
    copy: u16,
}

// By hand: the standard library hashes numbers in the machine's own order of bytes.
impl Hash for Point<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(b"node");
        state.write(&self.copy.to_le_bytes());
        state.write(self.name.as_bytes());
    }
}

/// Where a group stands on the ring.
struct GroupPoint(GroupId);

impl Hash for GroupPoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            GroupId::Council => state.write(b"council"),
            GroupId::Partition(id) => {
                state.write(b"partition");
                state.write(&id.number().to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Member;
    use crate::fixture::{partition, table};

    fn order(table: &Table, number: u16) -> Vec<u64> {
        let order = Preference::of(table).order(partition(number));
        order.into_iter().map(NodeId::number).collect()
    }

    #[test]
    fn the_order_is_the_same_on_every_machine_and_for_ever() {
        let table = table(6, 4);
        assert_eq!(order(&table, 0), [2, 4, 3, 5, 1, 6]);
    }

    #[test]
    fn everyone_has_one_place_in_each_order() {
        let table = table(20, 64);
        for number in 0..64 {
            let mut order = order(&table, number);
            order.sort_unstable();
            assert_eq!(order, (1..=20).collect::<Vec<_>>());
        }
    }

    #[test]
    fn first_places_are_shared_about_evenly() {
        let table = table(10, 1000);
        let preference = Preference::of(&table);
        let mut firsts: BTreeMap<NodeId, usize> = BTreeMap::new();
        for number in 0..1000 {
            *firsts.entry(preference.order(partition(number))[0]).or_default() += 1;
        }
        let (least, most) = crate::fixture::range(&firsts);
        assert!(least >= 50 && most <= 160, "{firsts:?}");
    }

    #[test]
    fn who_joins_changes_nothing_between_the_others() {
        let (before, after) = (table(9, 32), table(10, 32));
        for number in 0..32 {
            let mut order_after = order(&after, number);
            order_after.retain(|&node| node != 10);
            assert_eq!(order_after, order(&before, number));
        }
    }

    #[test]
    fn a_new_life_under_the_old_name_is_preferred_as_the_old_one_was() {
        let table = table(5, 8);
        let mut restarted = table.clone();
        let old = restarted.members.remove(&NodeId::new(3)).unwrap();
        let new = Member { node: NodeId::new(99), ..old };
        restarted.members.insert(new.node, new);
        for number in 0..8 {
            let expected: Vec<_> =
                order(&table, number).iter().map(|&it| if it == 3 { 99 } else { it }).collect();
            assert_eq!(order(&restarted, number), expected);
        }
    }

    #[test]
    fn each_zone_comes_once_before_any_comes_twice() {
        let mut table = table(9, 16);
        for member in table.members.values_mut() {
            member.zone = format!("z{}", member.node.number() % 3);
        }
        for number in 0..16 {
            for trio in order(&table, number).chunks(3) {
                let zones: BTreeSet<_> = trio.iter().map(|node| node % 3).collect();
                assert_eq!(zones.len(), 3, "{trio:?}");
            }
        }
    }

    #[test]
    fn another_seed_is_another_order() {
        let mut table = table(12, 1);
        let before = order(&table, 0);
        table.settings.hash_seed = 1;
        assert_ne!(order(&table, 0), before);
    }
}
