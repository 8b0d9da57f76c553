//! The changes that make one table from another. Each is an entry of the council's log, so what it does
//! follows from the table and itself alone.

use std::collections::BTreeSet;

use crate::{
    Absent, Broken, Generation, GroupId, Member, NodeId, PartitionId, Placement, Replica,
    ReplicaId, Standing, Table,
};

/// One entry of the council's log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "changes are rare, and never kept in numbers")]
pub enum Change {
    /// A node becomes a member, as it says it is. With `replaces`, the old life ceases to be one, and
    /// wherever it had a replica the new one has a new replica instead.
    Admit {
        /// The new member.
        member: Member,
        /// The dead life of the same process; it need not have had the same name.
        replaces: Option<NodeId>,
    },
    /// A member is to be given nothing, and what it holds is to be moved away.
    Leave {
        /// Who leaves.
        node: NodeId,
    },
    /// A member ceases to be one, and its replicas leave the placements; but the last replica of a
    /// group stays, as the only record of who had the data. It is absent from then on.
    Dismiss {
        /// Who is dismissed.
        node: NodeId,
    },
    /// Someone absent is proven to have ended, or no group counts on it any more.
    Forget {
        /// Who is forgotten.
        node: NodeId,
    },
    /// A group should be on these nodes. Nodes that stay keep their replica; others get a new one.
    Place {
        /// The group.
        group: GroupId,
        /// Distinct members, `1..=7`; the new ones not leaving.
        nodes: Vec<NodeId>,
        /// Who of them should lead; `None`: whoever is elected. Always `None` for the council.
        leader: Option<NodeId>,
    },
    /// A partition that lost its quorum for good (see [`crate::verdict`]) starts again from what the
    /// survivor has, as the only replica, under a new replica id.
    Refound {
        /// The partition.
        partition: PartitionId,
        /// The new generation: the one in the table, plus 1.
        generation: Generation,
        /// A member.
        survivor: NodeId,
    },
    /// A replica whose Raft core died, by the word of its own node, is given up: the same node gets a new
    /// one in its place, under a new replica id.
    Reseat {
        /// The group.
        group: GroupId,
        /// The replica that died. Not the only one of its group, and not on a node that leaves.
        replica: ReplicaId,
    },
}

/// Why a change was refused. The table is as it was, its epoch included; every councillor refuses alike.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The table has seen this entry of the log, or a later one.
    #[error("the table is already past index {0}")]
    Past(u64),
    /// The node that the change is about is not a member.
    #[error("{0} is not a member")]
    NotMember(NodeId),
    /// The node is a member already. For who asked twice, this is success.
    #[error("{0} is a member already")]
    Member(NodeId),
    /// Another member has this name.
    #[error("{name:?} is the name of {by}")]
    NameTaken {
        /// The name.
        name: String,
        /// The member who has it.
        by: NodeId,
    },
    /// Only who is absent can be forgotten. For who asked twice, this is success.
    #[error("{0} is not absent")]
    NotAbsent(NodeId),
    /// A leaving node is given nothing.
    #[error("{0} is leaving")]
    Leaving(NodeId),
    /// There is no such group.
    #[error("there is no group {0}")]
    NoGroup(GroupId),
    /// Nodes must be distinct, and the leader one of them.
    #[error("the nodes for {0} are not distinct, or do not have its leader among them")]
    Nodes(GroupId),
    /// All who had the group's data have been dismissed: placing it elsewhere would forget who had it.
    #[error("{0} has lost all its replicas; it can only be founded anew")]
    Orphaned(GroupId),
    /// The placement does not name the replica. For who asked twice, this is success.
    #[error("{replica} is no replica of {group}")]
    NoReplica {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// The last replica of a group is not given up: it is the only record of who had the data.
    #[error("{0} has no other replica; it can only be founded anew")]
    Sole(GroupId),
    /// A new founding must be the next one.
    #[error("{partition} is at {current}, and the next must follow it")]
    Generation {
        /// The partition.
        partition: PartitionId,
        /// Its generation in the table.
        current: Generation,
    },
    /// Nothing would change. For who asked twice, this is success.
    #[error("nothing would change")]
    Unchanged,
    /// The table would break an invariant.
    #[error(transparent)]
    Breaks(#[from] Broken),
}

impl Table {
    /// Takes the change that is at this index of the council's log. Its epoch becomes (generation of the
    /// council, index); so does that of every placement which the change alters.
    ///
    /// # Errors
    /// The change is refused, and the table is exactly as it was.
    pub fn step(&mut self, index: u64, change: &Change) -> Result<(), Refusal> {
        if index <= self.epoch.index {
            return Err(Refusal::Past(index));
        }
        // A copy, so that a refusal half way leaves no trace. Changes are rare, and tables small.
        let mut next = self.clone();
        next.epoch.index = index;
        match change {
            Change::Admit { member, replaces } => next.admit(member, *replaces)?,
            Change::Leave { node } => next.leave(*node)?,
            Change::Dismiss { node } => next.dismiss(*node)?,
            Change::Forget { node } => {
                next.absent.remove(node).ok_or(Refusal::NotAbsent(*node))?;
            }
            Change::Place { group, nodes, leader } => next.place(*group, nodes, *leader)?,
            Change::Refound { partition, generation, survivor } => {
                next.refound_partition(*partition, *generation, *survivor)?;
            }
            Change::Reseat { group, replica } => next.reseat(*group, *replica)?,
        }
        next.check()?;
        *self = next;
        Ok(())
    }

    fn admit(&mut self, member: &Member, replaces: Option<NodeId>) -> Result<(), Refusal> {
        if self.members.contains_key(&member.node) {
            return Err(Refusal::Member(member.node));
        }
        if let Some(old) = replaces {
            self.members.remove(&old).ok_or(Refusal::NotMember(old))?;
            self.supplant(old, member.node);
        }
        if let Some(other) = self.member_named(&member.name) {
            return Err(Refusal::NameTaken { name: member.name.clone(), by: other.node });
        }
        let admitted = self.epoch;
        self.members.insert(member.node, Member { admitted, ..member.clone() });
        // Who is let in has shown that it is bound to its address: whoever was there before has ended.
        self.absent.retain(|_, absent| absent.peer != member.endpoints.peer);
        Ok(())
    }

    /// Wherever the old life has a replica, the new one has a new one instead.
    fn supplant(&mut self, old: NodeId, new: NodeId) {
        let (epoch, mut next_replica) = (self.epoch, self.next_replica);
        for placement in self.placements_mut() {
            let Some(gone) = placement.replica_on(old) else { continue };
            let replica = Replica { id: allot(&mut next_replica), node: new };
            placement.supplant(gone, replica);
            placement.epoch = epoch;
        }
        self.next_replica = next_replica;
    }

    fn reseat(&mut self, group: GroupId, replica: ReplicaId) -> Result<(), Refusal> {
        let placement = self.placement(group).ok_or(Refusal::NoGroup(group))?;
        let node = placement.node_of(replica).ok_or(Refusal::NoReplica { group, replica })?;
        if placement.replicas.len() == 1 {
            return Err(Refusal::Sole(group));
        }
        match self.members.get(&node).ok_or(Refusal::NotMember(node))?.standing {
            Standing::Active => {}
            // Its replicas are being moved away, this one with them.
            Standing::Leaving => return Err(Refusal::Leaving(node)),
        }
        let (epoch, new) = (self.epoch, Replica { id: allot(&mut self.next_replica), node });
        let placement = self.placement_mut(group).ok_or(Refusal::NoGroup(group))?;
        placement.supplant(replica, new);
        placement.epoch = epoch;
        Ok(())
    }

    fn leave(&mut self, node: NodeId) -> Result<(), Refusal> {
        let member = self.members.get_mut(&node).ok_or(Refusal::NotMember(node))?;
        match member.standing {
            Standing::Active => member.standing = Standing::Leaving,
            Standing::Leaving => return Err(Refusal::Unchanged),
        }
        Ok(())
    }

    fn dismiss(&mut self, node: NodeId) -> Result<(), Refusal> {
        let member = self.members.remove(&node).ok_or(Refusal::NotMember(node))?;
        let absent = Absent { name: member.name, peer: member.endpoints.peer };
        self.absent.insert(node, absent);
        let epoch = self.epoch;
        for placement in self.placements_mut() {
            let Some(gone) = placement.replica_on(node) else { continue };
            if placement.replicas.len() > 1 {
                placement.replicas.retain(|replica| replica.id != gone);
            }
            placement.leader = placement.leader.filter(|&id| id != gone);
            placement.epoch = epoch;
        }
        Ok(())
    }

    fn place(
        &mut self,
        group: GroupId,
        nodes: &[NodeId],
        leader: Option<NodeId>,
    ) -> Result<(), Refusal> {
        let current = self.placement(group).ok_or(Refusal::NoGroup(group))?;
        let distinct: BTreeSet<_> = nodes.iter().copied().collect();
        if distinct.len() != nodes.len() || leader.is_some_and(|node| !distinct.contains(&node)) {
            return Err(Refusal::Nodes(group));
        }
        if current.is_orphaned(&self.members) {
            return Err(Refusal::Orphaned(group));
        }
        let mut next_replica = self.next_replica;
        let mut replicas = Vec::with_capacity(nodes.len());
        for &node in nodes {
            let member = self.members.get(&node).ok_or(Refusal::NotMember(node))?;
            let id = match (current.replica_on(node), member.standing) {
                (Some(id), _) => id,
                (None, Standing::Active) => allot(&mut next_replica),
                (None, Standing::Leaving) => return Err(Refusal::Leaving(node)),
            };
            replicas.push(Replica { id, node });
        }
        replicas.sort_unstable();
        let mut placement = Placement { replicas, leader: None, epoch: current.epoch };
        placement.leader = leader.and_then(|node| placement.replica_on(node));
        if placement == *current {
            return Err(Refusal::Unchanged);
        }
        placement.epoch = self.epoch;
        self.next_replica = next_replica;
        *self.placement_mut(group).ok_or(Refusal::NoGroup(group))? = placement;
        Ok(())
    }

    fn refound_partition(
        &mut self,
        id: PartitionId,
        generation: Generation,
        survivor: NodeId,
    ) -> Result<(), Refusal> {
        if !self.members.contains_key(&survivor) {
            return Err(Refusal::NotMember(survivor));
        }
        let epoch = self.epoch;
        let partition = self.partitions.get_mut(&id);
        let partition = partition.ok_or(Refusal::NoGroup(GroupId::Partition(id)))?;
        let current = partition.generation;
        if current.number().checked_add(1) != Some(generation.number()) {
            return Err(Refusal::Generation { partition: id, current });
        }
        let replica = Replica { id: allot(&mut self.next_replica), node: survivor };
        partition.generation = generation;
        partition.founder = replica.id;
        partition.placement =
            Placement { replicas: vec![replica], leader: Some(replica.id), epoch };
        Ok(())
    }
}

impl Placement {
    /// The new replica takes the place of one that is gone, and its leadership. Its id is the highest.
    fn supplant(&mut self, gone: ReplicaId, new: Replica) {
        self.replicas.retain(|it| it.id != gone);
        self.replicas.push(new);
        self.leader = self.leader.map(|id| if id == gone { new.id } else { id });
    }
}

fn allot(next: &mut ReplicaId) -> ReplicaId {
    let id = *next;
    *next = ReplicaId::new(id.number() + 1);
    id
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{
        any_change, any_group, cases, founded, ids, member, node, numbers, partition, place, step,
        table, try_step,
    };

    fn refused(table: &Table, change: Change, refusal: &Refusal) {
        let mut copy = table.clone();
        assert_eq!(try_step(&mut copy, change).as_ref(), Err(refusal));
        assert_eq!(copy, *table, "a refusal leaves no trace");
    }

    fn admit(number: u64) -> Change {
        Change::Admit { member: member(number), replaces: None }
    }

    fn restart(old: u64, new: u64) -> Change {
        let member = Member { node: node(new), ..member(old) };
        Change::Admit { member, replaces: Some(node(old)) }
    }

    fn dismiss(number: u64) -> Change {
        Change::Dismiss { node: node(number) }
    }

    fn leave(number: u64) -> Change {
        Change::Leave { node: node(number) }
    }

    fn refound(generation: u32, survivor: u64) -> Change {
        Change::Refound {
            partition: PartitionId::new(0),
            generation: Generation::new(generation),
            survivor: node(survivor),
        }
    }

    fn placement(table: &Table, number: u16) -> Placement {
        table.placement(partition(number)).unwrap().clone()
    }

    #[test]
    fn each_change_makes_an_epoch_and_marks_what_it_alters() {
        let mut table = table(3, 2);
        let before = table.clone();
        table.step(90, &place(partition(1), &[1, 2], Some(2))).unwrap();
        assert_eq!(table.epoch.index, 90);
        assert_eq!(placement(&table, 1).epoch, table.epoch);
        assert_eq!(placement(&table, 0), placement(&before, 0));
        assert_eq!(table.council, before.council);
        assert_eq!(table.step(90, &leave(1)), Err(Refusal::Past(90)));
        assert_eq!(table.step(89, &leave(1)), Err(Refusal::Past(89)));
    }

    #[test]
    fn nodes_that_stay_keep_their_replica() {
        let mut table = table(4, 1);
        step(&mut table, place(partition(0), &[2, 1, 3], Some(3)));
        let before = placement(&table, 0);
        step(&mut table, place(partition(0), &[4, 3, 1], Some(1)));
        let after = placement(&table, 0);
        assert_eq!(numbers(&after), [1, 3, 4]);
        for number in [1, 3] {
            assert_eq!(after.replica_on(node(number)), before.replica_on(node(number)));
        }
        assert_eq!(after.leader_node(), Some(node(1)));

        step(&mut table, place(partition(0), &[1, 2, 3], Some(1)));
        let again = placement(&table, 0).replica_on(node(2));
        assert!(again > before.replica_on(node(2)), "who comes again gets a new one");
    }

    #[test]
    fn a_new_life_takes_the_old_one_s_places_under_new_ids() {
        let mut table = table(3, 2);
        step(&mut table, place(GroupId::Council, &[1, 2, 3], None));
        step(&mut table, place(partition(0), &[1, 2, 3], Some(2)));
        let before = table.clone();
        step(&mut table, restart(2, 9));
        assert_eq!(table.member_named("n2").unwrap().node, node(9));
        assert!(!table.members.contains_key(&node(2)));
        assert_eq!(numbers(&table.council), [1, 3, 9]);
        assert_eq!(numbers(&placement(&table, 0)), [1, 3, 9]);
        assert_eq!(placement(&table, 0).leader_node(), Some(node(9)));
        assert!(ids(&before).iter().all(|&id| {
            let node_of = |table: &Table| table.groups().find_map(|(_, _, it)| it.node_of(id));
            node_of(&table).is_none_or(|node| Some(node) == node_of(&before))
        }));
        assert_eq!(placement(&table, 1), placement(&before, 1), "where it was not, nothing is new");
    }

    #[test]
    fn a_name_belongs_to_one_member() {
        let table = table(2, 1);
        let twin = Member { node: node(9), ..member(2) };
        let taken = Refusal::NameTaken { name: "n2".to_owned(), by: node(2) };
        refused(&table, Change::Admit { member: twin.clone(), replaces: None }, &taken);
        refused(&table, Change::Admit { member: twin, replaces: Some(node(1)) }, &taken);
        refused(&table, admit(2), &Refusal::Member(node(2)));
        refused(&table, restart(7, 9), &Refusal::NotMember(node(7)));
    }

    #[test]
    fn the_dismissed_leave_every_placement_but_the_last_record_of_it() {
        let mut table = table(2, 2);
        step(&mut table, place(partition(0), &[1, 2], Some(2)));
        step(&mut table, place(partition(1), &[2], Some(2)));
        step(&mut table, dismiss(2));
        assert_eq!(numbers(&placement(&table, 0)), [1]);
        assert_eq!(placement(&table, 0).leader, None);

        assert_eq!(numbers(&placement(&table, 1)), [2]);
        assert!(placement(&table, 1).is_orphaned(&table.members));
        refused(&table, place(partition(1), &[1], None), &Refusal::Orphaned(partition(1)));
        refused(&table, dismiss(2), &Refusal::NotMember(node(2)));
        refused(&table, dismiss(1), &Refusal::Breaks(Broken::MemberCount(0)));
    }

    #[test]
    fn the_dismissed_are_absent_until_they_are_known_to_have_ended() {
        let mut table = table(4, 1);
        step(&mut table, dismiss(2));
        step(&mut table, dismiss(3));
        step(&mut table, dismiss(4));
        let absent = |table: &Table| table.absent.keys().map(|it| it.number()).collect::<Vec<_>>();
        assert_eq!(absent(&table), [2, 3, 4]);

        let again = Member { node: node(9), name: "other".to_owned(), ..member(3) };
        step(&mut table, Change::Admit { member: again, replaces: None });
        assert_eq!(absent(&table), [2, 4], "its address is bound by another");
        step(&mut table, Change::Forget { node: node(2) });
        assert_eq!(absent(&table), [4]);
        refused(&table, Change::Forget { node: node(2) }, &Refusal::NotAbsent(node(2)));
        refused(&table, Change::Forget { node: node(9) }, &Refusal::NotAbsent(node(9)));
    }

    #[test]
    fn who_leaves_keeps_what_it_has_and_gets_nothing() {
        let mut table = table(3, 2);
        step(&mut table, place(partition(0), &[1, 2], Some(2)));
        step(&mut table, leave(2));
        assert_eq!(table.members[&node(2)].standing, Standing::Leaving);
        step(&mut table, place(partition(0), &[1, 2, 3], Some(1)));
        refused(&table, place(partition(1), &[2], None), &Refusal::Leaving(node(2)));
        refused(&table, leave(2), &Refusal::Unchanged);
        refused(&table, leave(8), &Refusal::NotMember(node(8)));
    }

    #[test]
    fn a_placement_is_on_some_distinct_members() {
        let table = table(8, 1);
        let nodes = Refusal::Nodes(partition(0));
        refused(&table, place(partition(0), &[2, 2], None), &nodes);
        refused(&table, place(partition(0), &[1, 2], Some(3)), &nodes);
        refused(&table, place(partition(0), &[1, 9], None), &Refusal::NotMember(node(9)));
        refused(&table, place(partition(7), &[1], None), &Refusal::NoGroup(partition(7)));
        refused(&table, place(partition(0), &[1], Some(1)), &Refusal::Unchanged);
        let count = Refusal::Breaks(Broken::ReplicaCount(partition(0)));
        refused(&table, place(partition(0), &[], None), &count);
        refused(&table, place(partition(0), &[1, 2, 3, 4, 5, 6, 7, 8], None), &count);
        let leader = Refusal::Breaks(Broken::Leader(GroupId::Council));
        refused(&table, place(GroupId::Council, &[1, 2, 3], Some(1)), &leader);
    }

    #[test]
    fn a_lost_partition_is_founded_anew_once() {
        let mut table = table(2, 1);
        let old = placement(&table, 0);
        step(&mut table, dismiss(1));
        step(&mut table, refound(2, 2));
        assert_eq!(table.generation(partition(0)), Some(Generation::new(2)));
        let new = placement(&table, 0);
        assert_eq!((numbers(&new), new.leader_node()), (vec![2], Some(node(2))));
        assert_eq!(table.partitions[&PartitionId::new(0)].founder, new.replicas[0].id);
        assert!(new.replicas[0].id > old.replicas[0].id);

        let id = PartitionId::new(0);
        let not_next = Refusal::Generation { partition: id, current: Generation::new(2) };
        refused(&table, refound(2, 2), &not_next);
        refused(&table, refound(4, 2), &not_next);
        refused(&table, refound(3, 1), &Refusal::NotMember(node(1)));
    }

    #[test]
    fn a_dead_replica_s_node_has_a_new_one_in_its_place() {
        let mut table = table(3, 2);
        step(&mut table, place(GroupId::Council, &[1, 2, 3], None));
        step(&mut table, place(partition(0), &[1, 2, 3], Some(2)));
        for group in [GroupId::Council, partition(0)] {
            let before = table.clone();
            let dead = before.placement(group).unwrap().replica_on(node(2)).unwrap();
            step(&mut table, Change::Reseat { group, replica: dead });
            let (old, new) = (before.placement(group).unwrap(), table.placement(group).unwrap());
            let heir = new.replica_on(node(2)).unwrap();
            assert_eq!((numbers(new), new.leader_node()), (numbers(old), old.leader_node()));
            assert!(old.ids().filter(|&id| id != dead).chain([heir]).eq(new.ids()));
            assert!(ids(&before).iter().all(|&id| id < heir), "a new id");
            assert_eq!(new.epoch, table.epoch);

            let gone = Refusal::NoReplica { group, replica: dead };
            refused(&table, Change::Reseat { group, replica: dead }, &gone);
        }
    }

    #[test]
    fn who_is_the_only_one_or_leaves_is_not_reseated() {
        let mut table = table(2, 2);
        step(&mut table, place(partition(0), &[1, 2], Some(2)));
        step(&mut table, leave(2));
        let reseat = |table: &Table, group, number| {
            let replica = table.placement(group).unwrap().replica_on(node(number)).unwrap();
            Change::Reseat { group, replica }
        };
        let sole = reseat(&table, partition(1), 1);
        refused(&table, sole, &Refusal::Sole(partition(1)));
        let leaving = reseat(&table, partition(0), 2);
        refused(&table, leaving, &Refusal::Leaving(node(2)));
        let (group, replica) = (partition(7), ReplicaId::new(1));
        refused(&table, Change::Reseat { group, replica }, &Refusal::NoGroup(group));
    }

    proptest! {
        #![proptest_config(cases(128))]

        #[test]
        fn a_reseat_touches_nothing_but_its_replica(
            changes in prop::collection::vec(any_change(), 1..40),
            (group, number) in (any_group(), 0..40_u64),
        ) {
            let mut table = founded(3);
            for change in changes {
                let _either_way = try_step(&mut table, change);
            }
            let (before, dead) = (table.clone(), ReplicaId::new(number));
            if try_step(&mut table, Change::Reseat { group, replica: dead }).is_ok() {
                let new = table.placement(group).unwrap().replicas.last().copied().unwrap();
                prop_assert_eq!(new.id, before.next_replica);
                let mut expected = before.clone();
                let placement = expected.placement_mut(group).unwrap();
                prop_assert_eq!(placement.node_of(dead), Some(new.node));
                placement.supplant(dead, new);
                placement.epoch = table.epoch;
                expected.epoch = table.epoch;
                expected.next_replica = ReplicaId::new(new.id.number() + 1);
                prop_assert_eq!(table, expected);
            } else {
                prop_assert_eq!(table, before);
            }
        }

        #[test]
        fn whatever_is_asked_the_invariants_hold_and_ids_are_new(
            changes in prop::collection::vec(any_change(), 1..80),
        ) {
            let mut table = founded(3);
            let mut given = ids(&table);
            for change in changes {
                let before = table.clone();
                match try_step(&mut table, change) {
                    Ok(()) => prop_assert!(table.epoch > before.epoch),
                    Err(_) => prop_assert_eq!(&table, &before),
                }
                prop_assert_eq!(table.check(), Ok(()));
                for &id in ids(&table).difference(&ids(&before)) {
                    prop_assert!(given.insert(id), "{} was given before", id);
                }
            }
        }
    }
}
