//! The table: who is a member and what each should hold. It is what should be; what is, each group's
//! own committed membership says. Knows nothing of who is alive. Invariants: see [`Table::check`].

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::{
    Broken, ClusterId, Epoch, Generation, GroupId, NodeId, PartitionId, ReplicaId, Slot, SlotRange,
};

/// Partitions a cluster may have. Idle groups cost heartbeats and every round has its price, so more
/// would only slow it down.
pub const PARTITIONS_MAX: u16 = 1024;

/// Replicas a group may have. Beyond it each write waits for more peers and survives hardly more.
pub const REPLICAS_MAX: u8 = 7;

/// The council's decision at one epoch: members, partitions, and which nodes should hold what.
///
/// Made by [`Table::found`], moved only by [`Table::step`] and [`Table::refound`]. Two councillors that
/// stepped the same table through the same changes have the same table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which cluster this is.
    pub cluster: ClusterId,
    /// Which version of the table this is.
    pub epoch: Epoch,
    /// What all members must agree on.
    pub settings: Settings,
    /// Everyone the council admitted and did not dismiss.
    pub members: BTreeMap<NodeId, Member>,
    /// Who was dismissed and may still live, with data or a vote that a group counts on. Whoever was a
    /// member by this table's history and is neither here nor a member any more has ended, or is one that
    /// no group counts on.
    pub absent: BTreeMap<NodeId, Absent>,
    /// All partitions. Together their ranges hold each slot once; ids need not follow the slots' order.
    pub partitions: BTreeMap<PartitionId, Partition>,
    /// Where the council itself should be. Its leader is whoever it elects.
    pub council: Placement,
    pub(crate) next_replica: ReplicaId,
    /// First slot and id of each partition, in the order of slots.
    starts: Vec<(Slot, PartitionId)>,
}

/// What all members must agree on. Fixed at founding: safety rests on the timers, and a peer that has
/// others is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Replicas that each partition should have, while there are as many members: `1..=7`.
    pub replicas: u8,
    /// Voters below which a partition refuses writes: `1..=replicas`.
    pub replicas_min: u8,
    /// How often a leader tells its followers that it leads. Less than `election_ms_min`.
    pub heartbeat_ms: u32,
    /// Silence of a leader after which a follower may stand for election, at the earliest.
    pub election_ms_min: u32,
    /// The same, at the latest. More than `election_ms_min`. Leases last no longer than this allows.
    pub election_ms_max: u32,
    /// How long a member must be gone before it is dismissed. At least `election_ms_max`.
    pub replace_after_ms: u32,
    /// How far members' wall clocks may be apart. A clock further from the members' median is reported,
    /// and the median used in its place; new leaders start their time ahead by as much.
    pub clock_skew_ms_max: u32,
    /// Seed of every placement and of the order in which `SCAN` walks.
    pub hash_seed: u64,
    /// Bytes that a value may have. Replicas judge by it when they apply, so it must be one for all.
    pub value_bytes_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            replicas: 3,
            replicas_min: 1,
            heartbeat_ms: 100,
            election_ms_min: 300,
            election_ms_max: 450,
            replace_after_ms: 30_000,
            clock_skew_ms_max: 250,
            hash_seed: 0,
            value_bytes_max: 64 << 20,
        }
    }
}

/// A node that the council admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// This life of the node. Never zero.
    pub node: NodeId,
    /// What people call it; outlives the life. Unique among members, `1..=64` bytes.
    pub name: String,
    /// What fails together with it. At most 64 bytes; empty is a zone like any other.
    pub zone: String,
    /// Where it is reached.
    pub endpoints: Endpoints,
    /// Whether it stays.
    pub standing: Standing,
    /// The epoch of the table that first named it. Whatever a joining node says, the table sets it.
    pub admitted: Epoch,
    /// Version of the program that it runs. At most 64 bytes.
    pub version: String,
}

/// Whether a member stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be given replicas and leaderships.
    Active,
    /// It is given nothing, and what it holds is moved away.
    Leaving,
}

/// A member that was dismissed, and is not known to have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// What people called it, `1..=64` bytes. Others may have the name by now.
    pub name: String,
    /// Where its peers reached it. Who is bound there later proves that it has ended.
    pub peer: SocketAddr,
}

/// Where a member is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Peers (TCP) and gossip (UDP).
    pub peer: SocketAddr,
    /// Redis protocol, cluster mode.
    pub listen: SocketAddr,
    /// Redis protocol, any key.
    pub any_key: SocketAddr,
    /// Metrics, health and the admin interface.
    pub http: SocketAddr,
}

/// A contiguous range of slots: one Raft group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Which slots.
    pub slots: SlotRange,
    /// Which founding of the group.
    pub generation: Generation,
    /// The replica that founds this generation, or did: alone, from what its node has of the one before.
    pub founder: ReplicaId,
    /// Where it should be.
    pub placement: Placement,
}

/// Where a group should be.
///
/// Every replica is on a member, with one exception: when the last node of a group is dismissed, its
/// replica stays as the only record of who had the data (see [`Placement::is_orphaned`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// On distinct nodes, ascending by id, `1..=7` of them.
    pub replicas: Vec<Replica>,
    /// Who should lead; `None`: whoever is elected.
    pub leader: Option<ReplicaId>,
    /// The epoch at which this placement was last changed.
    pub epoch: Epoch,
}

/// One copy of a group on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// What Raft calls it.
    pub id: ReplicaId,
    /// Which node holds it.
    pub node: NodeId,
}

impl Placement {
    /// The nodes that should hold a replica, in the order of replica ids.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + Clone {
        self.replicas.iter().map(|replica| replica.node)
    }

    /// The ids of the replicas, ascending.
    pub fn ids(&self) -> impl Iterator<Item = ReplicaId> + Clone {
        self.replicas.iter().map(|replica| replica.id)
    }

    /// The replica that the node should hold.
    #[must_use]
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.replicas.iter().find(|replica| replica.node == node).map(|replica| replica.id)
    }

    /// The node that should hold the replica.
    #[must_use]
    pub fn node_of(&self, id: ReplicaId) -> Option<NodeId> {
        self.replicas.iter().find(|replica| replica.id == id).map(|replica| replica.node)
    }

    /// The node that should lead.
    #[must_use]
    pub fn leader_node(&self) -> Option<NodeId> {
        self.leader.and_then(|id| self.node_of(id))
    }

    /// Whether every node that should hold the group has been dismissed. Only a new founding helps.
    #[must_use]
    pub fn is_orphaned(&self, members: &BTreeMap<NodeId, Member>) -> bool {
        self.nodes().all(|node| !members.contains_key(&node))
    }

    fn sole(replica: Replica, epoch: Epoch) -> Self {
        Self { replicas: vec![replica], leader: Some(replica.id), epoch }
    }
}

impl Table {
    /// The first table of a cluster: the founder holds the council and every partition alone.
    ///
    /// The slots are cut as evenly as they go into `partitions`: `1..=1024`.
    ///
    /// # Errors
    /// The invariant that the arguments would break. There is no table then.
    pub fn found(
        cluster: ClusterId,
        settings: Settings,
        founder: Member,
        partitions: u16,
        epoch: Epoch,
    ) -> Result<Self, Broken> {
        let node = founder.node;
        let sole = |id| {
            let replica = Replica { id: ReplicaId::new(id), node };
            Placement::sole(replica, epoch)
        };
        let council = Placement { leader: None, ..sole(1) };
        let partition = |id: u16| {
            let bound = |at: u32| {
                let slot = at * u32::from(Slot::COUNT) / u32::from(partitions);
                u16::try_from(slot).expect("a slot's number fits")
            };
            let slots = SlotRange::new(bound(u32::from(id)), bound(u32::from(id) + 1));
            let slots = slots.ok_or(Broken::PartitionCount(partitions.into()))?;
            let placement = sole(u64::from(id) + 2);
            let founder = placement.replicas[0].id;
            let partition = Partition { slots, generation: Generation::new(1), founder, placement };
            Ok((PartitionId::new(id), partition))
        };
        let table = Self {
            cluster,
            epoch,
            settings,
            members: BTreeMap::from([(node, Member { admitted: epoch, ..founder })]),
            absent: BTreeMap::new(),
            partitions: (0..partitions).map(partition).collect::<Result<_, _>>()?,
            council,
            next_replica: ReplicaId::new(u64::from(partitions) + 2),
            starts: Vec::new(),
        };
        table.checked()
    }

    /// The first table of the council's next generation: as it was, but the council is the survivor
    /// alone, with a replica id that no table of an earlier generation can have allotted, seen or not.
    ///
    /// Whoever calls this has proof that the old council cannot decide any more.
    ///
    /// # Errors
    /// The invariant that would be broken, such as a survivor that is not a member.
    pub fn refound(&self, survivor: NodeId, index: u64) -> Result<Self, Broken> {
        if !self.members.contains_key(&survivor) {
            return Err(Broken::NodeUnknown(GroupId::Council));
        }
        let generation = self.epoch.generation.number().checked_add(1);
        let generation = generation.ok_or(Broken::Generation(GroupId::Council))?;
        let epoch = Epoch { generation: Generation::new(generation), index };
        // What the lost tail of the old log allotted is unknown here, so each generation counts from a
        // start of its own.
        let start = u64::from(generation - 1) << 32;
        let id = self.next_replica.max(ReplicaId::new(start));
        let council =
            Placement { leader: None, ..Placement::sole(Replica { id, node: survivor }, epoch) };
        let next_replica = ReplicaId::new(id.number() + 1);
        Self { epoch, council, next_replica, ..self.clone() }.checked()
    }

    /// Puts a table together from its parts.
    pub(crate) fn assemble(parts: Parts) -> Result<Self, Broken> {
        let Parts { cluster, epoch, settings, members, absent, partitions, council, next_replica } =
            parts;
        Self {
            cluster,
            epoch,
            settings,
            members,
            absent,
            partitions,
            council,
            next_replica,
            starts: Vec::new(),
        }
        .checked()
    }

    /// Which partition the slot belongs to. A binary search, cheap enough for every command.
    #[must_use]
    pub fn partition_of(&self, slot: Slot) -> PartitionId {
        let after = self.starts.partition_point(|&(first, _)| first <= slot);
        self.starts[after - 1].1
    }

    /// Where the group should be, if there is such a group.
    #[must_use]
    pub fn placement(&self, group: GroupId) -> Option<&Placement> {
        match group {
            GroupId::Council => Some(&self.council),
            GroupId::Partition(id) => self.partitions.get(&id).map(|it| &it.placement),
        }
    }

    /// Which founding of the group this table speaks of, if there is such a group.
    #[must_use]
    pub fn generation(&self, group: GroupId) -> Option<Generation> {
        match group {
            GroupId::Council => Some(self.epoch.generation),
            GroupId::Partition(id) => self.partitions.get(&id).map(|it| it.generation),
        }
    }

    /// Every group with its generation and placement: the council, then the partitions by id.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, Generation, &Placement)> {
        let council = (GroupId::Council, self.epoch.generation, &self.council);
        let partitions = self.partitions.iter();
        std::iter::once(council).chain(
            partitions.map(|(&id, it)| (GroupId::Partition(id), it.generation, &it.placement)),
        )
    }

    /// What the node should hold.
    pub fn replicas_on(
        &self,
        node: NodeId,
    ) -> impl Iterator<Item = (GroupId, Generation, ReplicaId)> {
        self.groups().filter_map(move |(group, generation, placement)| {
            placement.replica_on(node).map(|id| (group, generation, id))
        })
    }

    /// The member that goes by this name.
    #[must_use]
    pub fn member_named(&self, name: &str) -> Option<&Member> {
        self.members.values().find(|member| member.name == name)
    }

    pub(crate) fn placement_mut(&mut self, group: GroupId) -> Option<&mut Placement> {
        match group {
            GroupId::Council => Some(&mut self.council),
            GroupId::Partition(id) => self.partitions.get_mut(&id).map(|it| &mut it.placement),
        }
    }

    pub(crate) fn placements_mut(&mut self) -> impl Iterator<Item = &mut Placement> {
        let partitions = self.partitions.values_mut().map(|it| &mut it.placement);
        std::iter::once(&mut self.council).chain(partitions)
    }

    fn checked(mut self) -> Result<Self, Broken> {
        self.starts = self.partitions.iter().map(|(&id, it)| (it.slots.first(), id)).collect();
        self.starts.sort_unstable();
        self.check()?;
        Ok(self)
    }
}

/// What a table is made of, without what follows from it.
pub(crate) struct Parts {
    pub(crate) cluster: ClusterId,
    pub(crate) epoch: Epoch,
    pub(crate) settings: Settings,
    pub(crate) members: BTreeMap<NodeId, Member>,
    pub(crate) absent: BTreeMap<NodeId, Absent>,
    pub(crate) partitions: BTreeMap<PartitionId, Partition>,
    pub(crate) council: Placement,
    pub(crate) next_replica: ReplicaId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{founded, member, node, numbers, partition, place, step, table};

    fn try_found(settings: Settings, founder: Member, partitions: u16) -> Option<Broken> {
        let epoch = Epoch { generation: Generation::new(1), index: 0 };
        Table::found(ClusterId::new(1), settings, founder, partitions, epoch).err()
    }

    #[test]
    fn a_founder_holds_everything() {
        let table = founded(12);
        assert_eq!(table.check(), Ok(()));
        assert_eq!(table.partitions.len(), 12);
        assert_eq!(table.replicas_on(node(1)).count(), 13);
        assert!(table.partitions.values().all(|it| it.placement.leader_node() == Some(node(1))));
        assert_eq!(table.council.leader, None);
        let ids: Vec<_> = table.replicas_on(node(1)).map(|(.., id)| id.number()).collect();
        assert_eq!(ids, (1..=13).collect::<Vec<_>>());
    }

    #[test]
    fn every_slot_is_in_the_partition_that_says_so() {
        for partitions in [1, 3, 12, 24, 1000, 1024] {
            let table = founded(partitions);
            let (mut least, mut most) = (Slot::COUNT, 0);
            for (&id, partition) in &table.partitions {
                assert!(partition.slots.iter().all(|slot| table.partition_of(slot) == id));
                (least, most) = (least.min(partition.slots.len()), most.max(partition.slots.len()));
            }
            assert!(most - least <= 1, "{partitions} partitions of {least} to {most} slots");
        }
    }

    #[test]
    fn partitions_need_not_be_equal_nor_in_order() {
        let Table {
            cluster,
            epoch,
            settings,
            members,
            absent,
            partitions,
            council,
            next_replica,
            ..
        } = founded(3);
        let ranges = [(100, 16_384), (0, 1), (1, 100)].map(|(lo, hi)| SlotRange::new(lo, hi));
        let cut = partitions.into_iter().zip(ranges);
        let cut = cut.map(|((id, it), range)| (id, Partition { slots: range.unwrap(), ..it }));
        let partitions = cut.collect();
        let parts =
            Parts { cluster, epoch, settings, members, absent, partitions, council, next_replica };
        let table = Table::assemble(parts).unwrap();
        let of = |slot| table.partition_of(Slot::new(slot).unwrap()).number();
        assert_eq!([0, 1, 99, 100, 16_383].map(of), [1, 2, 2, 0, 0]);
    }

    #[test]
    fn nothing_is_founded_on_what_is_not_allowed() {
        let (settings, founder) = (Settings::default(), member(1));
        let found = |settings, partitions| try_found(settings, founder.clone(), partitions);
        assert_eq!(found(settings, 12), None);
        assert_eq!(found(settings, 0), Some(Broken::PartitionCount(0)));
        assert_eq!(found(settings, 1025), Some(Broken::PartitionCount(1025)));
        for replicas in [0, 8] {
            assert_eq!(found(Settings { replicas, ..settings }, 1), Some(Broken::Replicas));
        }
        for replicas_min in [0, 4] {
            assert_eq!(found(Settings { replicas_min, ..settings }, 1), Some(Broken::Replicas));
        }
        for election_ms_min in [100, 450] {
            assert_eq!(found(Settings { election_ms_min, ..settings }, 1), Some(Broken::Timers));
        }
        let nobody = Member { node: NodeId::default(), ..founder.clone() };
        assert_eq!(try_found(settings, nobody, 1), Some(Broken::MemberId));
        for name in [String::new(), "n".repeat(65)] {
            let nameless = Member { name, ..founder.clone() };
            assert_eq!(try_found(settings, nameless, 1), Some(Broken::Label));
        }
    }

    #[test]
    fn a_council_founded_anew_gives_no_id_that_the_lost_one_may_have_given() {
        let mut lost = table(3, 1);
        let survivor = lost.clone();
        step(&mut lost, place(GroupId::Council, &[1, 2, 3], None));
        step(&mut lost, place(partition(0), &[1, 2, 3], None));

        let mut table = survivor.refound(node(2), 1).unwrap();
        assert!(table.epoch > lost.epoch);
        assert_eq!(numbers(&table.council), [2]);
        step(&mut table, place(partition(0), &[1, 2, 3], None));
        let first = 1_u64 << 32;
        assert!(table.council.ids().all(|id| id.number() >= first));
        let given: Vec<_> = table.placement(partition(0)).unwrap().ids().skip(1).collect();
        assert!(given.iter().all(|id| id.number() > first), "{given:?}");
        assert_eq!(survivor.refound(node(7), 1), Err(Broken::NodeUnknown(GroupId::Council)));
    }
}
