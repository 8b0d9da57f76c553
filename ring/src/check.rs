//! What holds of every table, at every epoch.

use std::collections::{BTreeMap, BTreeSet};

use crate::table::{PARTITIONS_MAX, REPLICAS_MAX};
use crate::{GroupId, Member, NodeId, PartitionId, Placement, ReplicaId, Settings, Slot, Table};

/// Bytes that a name, a zone or a version may have: they go into gossip datagrams and metric labels.
pub const LABEL_BYTES_MAX: usize = 64;

/// Members a cluster may have. Gossip remembers 900 lives, of which each member may have had two within
/// the ten minutes after which the older one is forgotten; and each opens two connections to the others,
/// of which a node takes 1,024.
pub const MEMBERS_MAX: usize = 450;

/// An invariant that a table, or what it was to be made from, breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// `1 <= replicas_min <= replicas <= 7`.
    #[error("replicas must be 1..=7 and replicas-min 1..=replicas")]
    Replicas,
    /// `0 < heartbeat < election_min < election_max <= replace_after`.
    #[error("timers must rise: heartbeat, election-min, election-max, replace-after")]
    Timers,
    /// `1..=450` members.
    #[error("{0} members; there must be 1 to {MEMBERS_MAX}")]
    MemberCount(usize),
    /// A member's node id is zero, or not the one it is filed under.
    #[error("a member is filed under a wrong node id")]
    MemberId,
    /// Someone absent is a member, too many are absent, or one has no name.
    #[error("someone is absent who cannot be")]
    Absent,
    /// A name is empty, or a name, a zone or a version is longer than 64 bytes.
    #[error("a member's name, zone or version has a length that is not allowed")]
    Label,
    /// A member was admitted later than the table says.
    #[error("a member is newer than the table")]
    MemberEpoch,
    /// Two members have one name.
    #[error("two members are called {0:?}")]
    NameTwice(String),
    /// `1..=1024` partitions.
    #[error("{0} partitions; there must be 1 to {PARTITIONS_MAX}")]
    PartitionCount(usize),
    /// A slot belongs to no partition, or to two.
    #[error("the ranges of the partitions do not meet at {0:?}")]
    Slots(PartitionId),
    /// The replica that founds a generation has an id that was never given.
    #[error("the founder of {0:?} was never given an id")]
    Founder(GroupId),
    /// A generation is zero.
    #[error("{0:?} has no generation")]
    Generation(GroupId),
    /// A group has no replica, or more than 7.
    #[error("{0:?} has too few or too many replicas")]
    ReplicaCount(GroupId),
    /// Replicas are not ascending, or two of them are on one node.
    #[error("the replicas of {0:?} are not ascending, or two are on one node")]
    ReplicaOrder(GroupId),
    /// A replica id was given twice, or has not been given yet.
    #[error("{0:?} was given twice or never")]
    ReplicaTwice(ReplicaId),
    /// So many replica ids have been given that they might run out.
    #[error("replica ids are about to run out")]
    ReplicasSpent,
    /// A replica is on a node that is not a member, and not the only record of where the group was.
    #[error("{0:?} is placed on a node that is not a member")]
    NodeUnknown(GroupId),
    /// The leader is none of the replicas; or the council is told who should lead.
    #[error("who should lead {0:?} is not allowed to")]
    Leader(GroupId),
    /// A placement is newer than the table.
    #[error("the placement of {0:?} is newer than the table")]
    Epoch(GroupId),
}

impl Table {
    /// Whether every invariant of a table holds. Linear in its size.
    ///
    /// # Errors
    /// The first invariant that does not.
    pub fn check(&self) -> Result<(), Broken> {
        self.settings.check()?;
        check_members(&self.members)?;
        let past = self.members.values().all(|member| member.admitted <= self.epoch);
        require(past, || Broken::MemberEpoch)?;
        self.check_absent()?;
        self.check_slots()?;
        for (&id, partition) in &self.partitions {
            let given = partition.founder < self.next_replica;
            require(given, || Broken::Founder(GroupId::Partition(id)))?;
        }
        require(self.next_replica.number() < u64::MAX / 2, || Broken::ReplicasSpent)?;
        let mut seen = BTreeSet::new();
        for (group, generation, placement) in self.groups() {
            require(generation.number() > 0, || Broken::Generation(group))?;
            require(placement.epoch <= self.epoch, || Broken::Epoch(group))?;
            check_placement(group, placement, &self.members)?;
            for id in placement.ids() {
                let given_once = id < self.next_replica && seen.insert(id);
                require(given_once, || Broken::ReplicaTwice(id))?;
            }
        }
        Ok(())
    }

    fn check_absent(&self) -> Result<(), Broken> {
        let sound = self.absent.iter().all(|(node, absent)| {
            let named = (1..=LABEL_BYTES_MAX).contains(&absent.name.len());
            named && *node != NodeId::default() && !self.members.contains_key(node)
        });
        require(sound && self.absent.len() <= MEMBERS_MAX, || Broken::Absent)
    }

    fn check_slots(&self) -> Result<(), Broken> {
        let count = self.partitions.len();
        require((1..=usize::from(PARTITIONS_MAX)).contains(&count), || {
            Broken::PartitionCount(count)
        })?;
        let mut ranges: Vec<_> = self.partitions.iter().map(|(&id, it)| (it.slots, id)).collect();
        ranges.sort_unstable();
        let mut next = 0;
        for &(slots, id) in &ranges {
            require(slots.first().number() == next, || Broken::Slots(id))?;
            next = slots.last().number() + 1;
        }
        let (_, last) = ranges[count - 1];
        require(next == Slot::COUNT, || Broken::Slots(last))
    }
}

impl Settings {
    fn check(&self) -> Result<(), Broken> {
        let replicas = 1..=REPLICAS_MAX;
        let minimum = 1..=self.replicas;
        let counts = replicas.contains(&self.replicas) && minimum.contains(&self.replicas_min);
        require(counts, || Broken::Replicas)?;
        let rising = 0 < self.heartbeat_ms
            && self.heartbeat_ms < self.election_ms_min
            && self.election_ms_min < self.election_ms_max
            && self.election_ms_max <= self.replace_after_ms;
        require(rising, || Broken::Timers)
    }
}

fn check_members(members: &BTreeMap<NodeId, Member>) -> Result<(), Broken> {
    require((1..=MEMBERS_MAX).contains(&members.len()), || Broken::MemberCount(members.len()))?;
    let mut names = BTreeSet::new();
    for (&node, member) in members {
        require(node == member.node && node != NodeId::default(), || Broken::MemberId)?;
        let labels = [&member.name, &member.zone, &member.version];
        let short = labels.iter().all(|label| label.len() <= LABEL_BYTES_MAX);
        require(short && !member.name.is_empty(), || Broken::Label)?;
        require(names.insert(&member.name), || Broken::NameTwice(member.name.clone()))?;
    }
    Ok(())
}

fn check_placement(
    group: GroupId,
    placement: &Placement,
    members: &BTreeMap<NodeId, Member>,
) -> Result<(), Broken> {
    let count = placement.replicas.len();
    require((1..=usize::from(REPLICAS_MAX)).contains(&count), || Broken::ReplicaCount(group))?;
    let ascending = placement.replicas.is_sorted_by(|a, b| a.id < b.id);
    let nodes: BTreeSet<_> = placement.nodes().collect();
    require(ascending && nodes.len() == count, || Broken::ReplicaOrder(group))?;
    let known = nodes.iter().all(|node| members.contains_key(node));
    require(known || count == 1, || Broken::NodeUnknown(group))?;
    let leader = match (group, placement.leader) {
        (_, None) => true,
        (GroupId::Council, Some(_)) => false,
        (GroupId::Partition(_), Some(id)) => placement.node_of(id).is_some(),
    };
    require(leader, || Broken::Leader(group))
}

fn require(holds: bool, broken: impl FnOnce() -> Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(broken()) }
}
