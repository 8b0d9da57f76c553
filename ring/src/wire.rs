//! How tables, changes and reports are written: a version, then bincode. The only place that says so.
//!
//! Whatever the bytes, decoding ends with a value that holds its invariants or with an error, and takes
//! memory in proportion to the input. Not for the path of a request.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::table::Parts;
use crate::{
    Absent, Broken, Change, ClusterId, Endpoints, Epoch, Generation, GroupId, Member, NodeId,
    Partition, PartitionId, Placement, Replica, ReplicaId, Report, Settings, SlotRange, Standing,
    Table, Testimony,
};

/// The first byte of everything written here.
const VERSION: u8 = 1;

/// Bytes that an encoded value may have. The largest table, 450 members and 1024 partitions of 7
/// replicas, takes less than 1 MiB.
pub const ENCODED_BYTES_MAX: usize = 16 << 20;

/// Why bytes are not a value. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than anything we write.
    #[error("{0} bytes are more than {ENCODED_BYTES_MAX}")]
    TooLong(usize),
    /// Written by a program that speaks another version; `None`: there is no byte at all.
    #[error("written in version {0:?}, and we read {VERSION}")]
    Version(Option<u8>),
    /// Not what the version prescribes.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Well formed, but no table can be like that.
    #[error("the table is broken: {0}")]
    Broken(#[from] Broken),
}

impl Table {
    /// The table as bytes. Equal tables have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(&WireTable::from(self))
    }

    /// The table that the bytes stand for, checked like every other.
    ///
    /// # Errors
    /// The bytes are of another version, malformed, or break an invariant of tables.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode::<WireTable>(bytes)?.try_into()
    }
}

impl Change {
    /// The change as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(&WireChange::from(self))
    }

    /// The change that the bytes stand for. Whether a table takes it, [`Table::step`] says.
    ///
    /// # Errors
    /// The bytes are of another version, or malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode::<WireChange>(bytes).map(Self::from)
    }
}

impl Report {
    /// The report as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(&WireReport::from(self))
    }

    /// The report that the bytes stand for.
    ///
    /// # Errors
    /// The bytes are of another version, or malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode::<WireReport>(bytes).map(Self::from)
    }
}

/// What a node's replicas tell, as bytes.
#[must_use]
pub fn encode_testimonies(testimonies: &[Testimony]) -> Vec<u8> {
    encode(&testimonies)
}

/// The testimonies that the bytes stand for.
///
/// # Errors
/// The bytes are of another version, or malformed.
pub fn decode_testimonies(bytes: &[u8]) -> Result<Vec<Testimony>, DecodeError> {
    decode(bytes)
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<ENCODED_BYTES_MAX>()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, config())
        .expect("writing numbers, strings and lists of these to memory cannot fail");
    bytes
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > ENCODED_BYTES_MAX {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    let Some((&VERSION, body)) = bytes.split_first() else {
        return Err(DecodeError::Version(bytes.first().copied()));
    };
    let (value, read) = bincode::serde::decode_from_slice(body, config())
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if read < body.len() { Err(malformed("bytes are left over")) } else { Ok(value) }
}

fn malformed(what: &str) -> DecodeError {
    DecodeError::Malformed(what.to_owned())
}

#[derive(Serialize, Deserialize)]
struct WireTable {
    cluster: ClusterId,
    epoch: Epoch,
    settings: WireSettings,
    members: Vec<WireMember>,
    absent: Vec<WireAbsent>,
    partitions: Vec<WirePartition>,
    council: WirePlacement,
    next_replica: ReplicaId,
}

#[derive(Serialize, Deserialize)]
struct WireSettings {
    replicas: u8,
    replicas_min: u8,
    heartbeat_ms: u32,
    election_ms_min: u32,
    election_ms_max: u32,
    replace_after_ms: u32,
    clock_skew_ms_max: u32,
    hash_seed: u64,
    value_bytes_max: u32,
}

#[derive(Serialize, Deserialize)]
struct WireMember {
    node: NodeId,
    name: String,
    zone: String,
    peer: WireAddr,
    listen: WireAddr,
    any_key: WireAddr,
    http: WireAddr,
    standing: WireStanding,
    version: String,
    admitted: Epoch,
}

#[derive(Serialize, Deserialize)]
struct WireAbsent {
    node: NodeId,
    name: String,
    peer: WireAddr,
}

/// `SocketAddr`'s own encoding forgets the scope of an IPv6 address.
#[derive(Serialize, Deserialize)]
enum WireAddr {
    V4 { ip: u32, port: u16 },
    V6 { ip: u128, port: u16, flow: u32, scope: u32 },
}

#[derive(Serialize, Deserialize)]
enum WireStanding {
    Active,
    Leaving,
}

#[derive(Serialize, Deserialize)]
struct WirePartition {
    id: PartitionId,
    slot_first: u16,
    slots_end: u16,
    generation: Generation,
    founder: ReplicaId,
    placement: WirePlacement,
}

#[derive(Serialize, Deserialize)]
struct WirePlacement {
    replicas: Vec<(ReplicaId, NodeId)>,
    leader: Option<ReplicaId>,
    epoch: Epoch,
}

#[derive(Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "changes are rare, and never kept in numbers")]
enum WireChange {
    Admit { member: WireMember, replaces: Option<NodeId> },
    Leave { node: NodeId },
    Dismiss { node: NodeId },
    Place { group: GroupId, nodes: Vec<NodeId>, leader: Option<NodeId> },
    Refound { partition: PartitionId, generation: Generation, survivor: NodeId },
    Forget { node: NodeId },
    Reseat { group: GroupId, replica: ReplicaId },
}

#[derive(Serialize, Deserialize)]
struct WireReport {
    generation: Generation,
    term: u64,
    leader: ReplicaId,
    epoch: Epoch,
    voters: BTreeSet<ReplicaId>,
    learners: BTreeSet<ReplicaId>,
    index: u64,
}

impl From<&Table> for WireTable {
    fn from(table: &Table) -> Self {
        Self {
            cluster: table.cluster,
            epoch: table.epoch,
            settings: WireSettings::from(table.settings),
            members: table.members.values().map(WireMember::from).collect(),
            absent: table.absent.iter().map(WireAbsent::from).collect(),
            partitions: table.partitions.iter().map(WirePartition::from).collect(),
            council: WirePlacement::from(&table.council),
            next_replica: table.next_replica,
        }
    }
}

impl TryFrom<WireTable> for Table {
    type Error = DecodeError;

    fn try_from(wire: WireTable) -> Result<Self, DecodeError> {
        let members = wire.members.into_iter().map(|it| (it.node, Member::from(it)));
        let absent = wire.absent.into_iter().map(|it| (it.node, it.into()));
        let partitions = wire.partitions.into_iter().map(WirePartition::open);
        let parts = Parts {
            cluster: wire.cluster,
            epoch: wire.epoch,
            settings: wire.settings.into(),
            members: ascending(members.map(Ok))?,
            absent: ascending(absent.map(Ok))?,
            partitions: ascending(partitions)?,
            council: wire.council.into(),
            next_replica: wire.next_replica,
        };
        Ok(Self::assemble(parts)?)
    }
}

/// A map, from entries that must come as we write them, so that equal tables have equal bytes.
fn ascending<K: Ord + Copy, V>(
    entries: impl Iterator<Item = Result<(K, V), DecodeError>>,
) -> Result<BTreeMap<K, V>, DecodeError> {
    let mut map = BTreeMap::new();
    for entry in entries {
        let (key, value) = entry?;
        if map.last_key_value().is_some_and(|(&last, _)| last >= key) {
            return Err(malformed("entries are not ascending"));
        }
        map.insert(key, value);
    }
    Ok(map)
}

impl From<Settings> for WireSettings {
    fn from(settings: Settings) -> Self {
        Self {
            replicas: settings.replicas,
            replicas_min: settings.replicas_min,
            heartbeat_ms: settings.heartbeat_ms,
            election_ms_min: settings.election_ms_min,
            election_ms_max: settings.election_ms_max,
            replace_after_ms: settings.replace_after_ms,
            clock_skew_ms_max: settings.clock_skew_ms_max,
            hash_seed: settings.hash_seed,
            value_bytes_max: settings.value_bytes_max,
        }
    }
}

impl From<WireSettings> for Settings {
    fn from(wire: WireSettings) -> Self {
        Self {
            replicas: wire.replicas,
            replicas_min: wire.replicas_min,
            heartbeat_ms: wire.heartbeat_ms,
            election_ms_min: wire.election_ms_min,
            election_ms_max: wire.election_ms_max,
            replace_after_ms: wire.replace_after_ms,
            clock_skew_ms_max: wire.clock_skew_ms_max,
            hash_seed: wire.hash_seed,
            value_bytes_max: wire.value_bytes_max,
        }
    }
}

impl From<&Member> for WireMember {
    fn from(member: &Member) -> Self {
        Self {
            node: member.node,
            name: member.name.clone(),
            zone: member.zone.clone(),
            peer: member.endpoints.peer.into(),
            listen: member.endpoints.listen.into(),
            any_key: member.endpoints.any_key.into(),
            http: member.endpoints.http.into(),
            standing: match member.standing {
                Standing::Active => WireStanding::Active,
                Standing::Leaving => WireStanding::Leaving,
            },
            version: member.version.clone(),
            admitted: member.admitted,
        }
    }
}

impl From<WireMember> for Member {
    fn from(wire: WireMember) -> Self {
        Self {
            node: wire.node,
            name: wire.name,
            zone: wire.zone,
            endpoints: Endpoints {
                peer: wire.peer.into(),
                listen: wire.listen.into(),
                any_key: wire.any_key.into(),
                http: wire.http.into(),
            },
            standing: match wire.standing {
                WireStanding::Active => Standing::Active,
                WireStanding::Leaving => Standing::Leaving,
            },
            version: wire.version,
            admitted: wire.admitted,
        }
    }
}

impl From<(&NodeId, &Absent)> for WireAbsent {
    fn from((&node, absent): (&NodeId, &Absent)) -> Self {
        Self { node, name: absent.name.clone(), peer: absent.peer.into() }
    }
}

impl From<WireAbsent> for Absent {
    fn from(wire: WireAbsent) -> Self {
        Self { name: wire.name, peer: wire.peer.into() }
    }
}

impl From<SocketAddr> for WireAddr {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(v4) => Self::V4 { ip: v4.ip().to_bits(), port: v4.port() },
            SocketAddr::V6(v6) => Self::V6 {
                ip: v6.ip().to_bits(),
                port: v6.port(),
                flow: v6.flowinfo(),
                scope: v6.scope_id(),
            },
        }
    }
}

impl From<WireAddr> for SocketAddr {
    fn from(wire: WireAddr) -> Self {
        match wire {
            WireAddr::V4 { ip, port } => SocketAddrV4::new(Ipv4Addr::from_bits(ip), port).into(),
            WireAddr::V6 { ip, port, flow, scope } => {
                SocketAddrV6::new(Ipv6Addr::from_bits(ip), port, flow, scope).into()
            }
        }
    }
}

impl From<(&PartitionId, &Partition)> for WirePartition {
    fn from((&id, partition): (&PartitionId, &Partition)) -> Self {
        Self {
            id,
            slot_first: partition.slots.first().number(),
            slots_end: partition.slots.last().number() + 1,
            generation: partition.generation,
            founder: partition.founder,
            placement: WirePlacement::from(&partition.placement),
        }
    }
}

impl WirePartition {
    fn open(self) -> Result<(PartitionId, Partition), DecodeError> {
        let slots = SlotRange::new(self.slot_first, self.slots_end);
        let slots = slots.ok_or_else(|| malformed("there is no such range of slots"))?;
        let placement = self.placement.into();
        let (generation, founder) = (self.generation, self.founder);
        Ok((self.id, Partition { slots, generation, founder, placement }))
    }
}

impl From<&Placement> for WirePlacement {
    fn from(placement: &Placement) -> Self {
        let replicas = placement.replicas.iter().map(|it| (it.id, it.node)).collect();
        Self { replicas, leader: placement.leader, epoch: placement.epoch }
    }
}

impl From<WirePlacement> for Placement {
    fn from(wire: WirePlacement) -> Self {
        let replicas = wire.replicas.into_iter().map(|(id, node)| Replica { id, node }).collect();
        Self { replicas, leader: wire.leader, epoch: wire.epoch }
    }
}

impl From<&Change> for WireChange {
    fn from(change: &Change) -> Self {
        match change {
            Change::Admit { member, replaces } => {
                Self::Admit { member: member.into(), replaces: *replaces }
            }
            Change::Leave { node } => Self::Leave { node: *node },
            Change::Dismiss { node } => Self::Dismiss { node: *node },
            Change::Forget { node } => Self::Forget { node: *node },
            Change::Place { group, nodes, leader } => {
                Self::Place { group: *group, nodes: nodes.clone(), leader: *leader }
            }
            Change::Refound { partition, generation, survivor } => Self::Refound {
                partition: *partition,
                generation: *generation,
                survivor: *survivor,
            },
            Change::Reseat { group, replica } => Self::Reseat { group: *group, replica: *replica },
        }
    }
}

impl From<WireChange> for Change {
    fn from(wire: WireChange) -> Self {
        match wire {
            WireChange::Admit { member, replaces } => {
                Self::Admit { member: member.into(), replaces }
            }
            WireChange::Leave { node } => Self::Leave { node },
            WireChange::Dismiss { node } => Self::Dismiss { node },
            WireChange::Forget { node } => Self::Forget { node },
            WireChange::Place { group, nodes, leader } => Self::Place { group, nodes, leader },
            WireChange::Refound { partition, generation, survivor } => {
                Self::Refound { partition, generation, survivor }
            }
            WireChange::Reseat { group, replica } => Self::Reseat { group, replica },
        }
    }
}

impl From<&Report> for WireReport {
    fn from(report: &Report) -> Self {
        Self {
            generation: report.generation,
            term: report.term,
            leader: report.leader,
            epoch: report.epoch,
            voters: report.voters.clone(),
            learners: report.learners.clone(),
            index: report.index,
        }
    }
}

impl From<WireReport> for Report {
    fn from(wire: WireReport) -> Self {
        Self {
            generation: wire.generation,
            term: wire.term,
            leader: wire.leader,
            epoch: wire.epoch,
            voters: wire.voters,
            learners: wire.learners,
            index: wire.index,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{
        any_change, cases, founded, member, node, partition, place, step, table, try_step,
    };
    use crate::{Configuration, Position};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn example() -> Table {
        let mut table = founded(2);
        let mut second = Member { zone: "z".to_owned(), ..member(0x1234_5678_9abc) };
        second.endpoints.peer = "[fe80::1%7]:9".parse().unwrap();
        let replaces = None;
        step(&mut table, Change::Admit { member: second, replaces });
        step(&mut table, place(partition(1), &[1, 0x1234_5678_9abc], Some(1)));
        step(&mut table, Change::Leave { node: node(1) });
        step(&mut table, Change::Admit { member: member(3), replaces: None });
        step(&mut table, Change::Dismiss { node: node(3) });
        table
    }

    #[test]
    fn golden_table() {
        assert_eq!(
            hex(&example().encode()),
            "01070106030164fb2c01fbc201fb3075fa00fc000000040201026e310000fc0100000afbfb3f00fc0100000afbeb1800fc0100000afbd31c00fc0100000afbbb200105302e312e300101fdbc9a7856341200000f6e3230303135393938333433383638017a01fe010000000000000000000000000080fe09000700fc2e00000afbeb1800fc2e00000afbd31c00fc2e00000afbbb200005302e312e3001020103026e3300fc0300000afbfb3f020000fb002001020102010102010101fb0020fb0040010302030104fdbc9a7856341200000103010301010100010105"
        );
    }

    #[test]
    fn golden_changes() {
        let check = |change: Change, bytes: &str| {
            assert_eq!(hex(&change.encode()), bytes, "{change:?}");
            assert_eq!(Change::decode(&change.encode()), Ok(change));
        };
        check(
            Change::Admit { member: member(2), replaces: Some(node(1)) },
            "010002026e320000fc0200000afbfb3f00fc0200000afbeb1800fc0200000afbd31c00fc0200000afbbb200005302e312e3000000101",
        );
        check(Change::Leave { node: node(1) }, "010101");
        check(Change::Dismiss { node: node(300) }, "0102fb2c01");
        check(place(GroupId::Council, &[1, 2, 3], None), "0103000301020300");
        check(place(partition(9), &[1, 2], Some(2)), "010301090201020102");
        let (partition, generation) = (PartitionId::new(7), Generation::new(2));
        check(Change::Refound { partition, generation, survivor: node(3) }, "0104070203");
        check(Change::Forget { node: node(300) }, "0105fb2c01");
        let (group, replica) = (GroupId::Partition(partition), ReplicaId::new(300));
        check(Change::Reseat { group, replica }, "01060107fb2c01");
    }

    #[test]
    fn golden_report() {
        let report = Report {
            generation: Generation::new(1),
            term: 5,
            leader: ReplicaId::new(2),
            epoch: Epoch { generation: Generation::new(1), index: 70_000 },
            voters: [2, 3].map(ReplicaId::new).into(),
            learners: [9].map(ReplicaId::new).into(),
            index: 1000,
        };
        assert_eq!(hex(&report.encode()), "0101050201fc701101000202030109fbe803");
        assert_eq!(Report::decode(&report.encode()), Ok(report));
    }

    #[test]
    fn golden_testimonies() {
        let testimony = Testimony {
            group: partition(3),
            generation: Generation::new(2),
            replica: ReplicaId::new(9),
            votes: true,
            position: Some(Position { term: 4, leader: ReplicaId::new(8), index: 300 }),
            configurations: vec![Configuration {
                epoch: Epoch { generation: Generation::new(1), index: 7 },
                halves: vec![BTreeMap::from([(ReplicaId::new(9), node(2))])],
            }],
        };
        let bytes = encode_testimonies(std::slice::from_ref(&testimony));
        assert_eq!(hex(&bytes), "01010103020901010408fb2c010101070101".to_owned() + "0902");
        assert_eq!(decode_testimonies(&bytes), Ok(vec![testimony]));
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let bytes = example().encode();
        assert_eq!(Table::decode(&[]), Err(DecodeError::Version(None)));
        assert_eq!(Table::decode(&[2, 0, 0]), Err(DecodeError::Version(Some(2))));
        let long = vec![VERSION; ENCODED_BYTES_MAX + 1];
        assert_eq!(Table::decode(&long), Err(DecodeError::TooLong(long.len())));
        let trailing = [&*bytes, &[0]].concat();
        assert_eq!(Table::decode(&trailing), Err(malformed("bytes are left over")));
        for end in 1..bytes.len() {
            let cut = Table::decode(&bytes[..end]);
            assert!(matches!(cut, Err(DecodeError::Malformed(_))), "{end}: {cut:?}");
        }
    }

    #[test]
    fn a_table_that_cannot_be_is_refused() {
        let mut table = example();
        table.members.get_mut(&node(1)).unwrap().name.clear();
        assert_eq!(Table::decode(&table.encode()), Err(DecodeError::Broken(Broken::Label)));

        let mut table = example();
        table.partitions.pop_first();
        assert!(matches!(Table::decode(&table.encode()), Err(DecodeError::Broken(_))));

        let mut wire = WireTable::from(&example());
        wire.partitions.swap(0, 1);
        assert_eq!(Table::try_from(wire), Err(malformed("entries are not ascending")));
    }

    #[test]
    fn the_largest_table_is_well_below_the_limit() {
        let mut table = table(7, 1024);
        let mut next = table.next_replica.number();
        for partition in table.partitions.values_mut() {
            for number in 2..=7 {
                let replica = Replica { id: ReplicaId::new(next), node: node(number) };
                partition.placement.replicas.push(replica);
                next += 1;
            }
        }
        table.next_replica = ReplicaId::new(next);
        assert!(table.encode().len() < ENCODED_BYTES_MAX / 16);
        assert_eq!(Table::decode(&table.encode()), Ok(table));
    }

    /// A list that claims to be long must not be believed before its elements are there.
    #[test]
    fn a_length_alone_takes_no_memory() {
        let members_at = 1 + 1 + 2 + 8;
        let mut bytes = founded(1).encode();
        bytes.truncate(members_at);
        bytes.extend([0xfd; 24]);
        assert!(matches!(Table::decode(&bytes), Err(DecodeError::Malformed(_))));
    }

    proptest! {
        #![proptest_config(cases(128))]

        #[test]
        fn what_was_written_is_read(changes in prop::collection::vec(any_change(), 0..40)) {
            let mut table = founded(3);
            for change in changes {
                prop_assert_eq!(Change::decode(&change.encode()), Ok(change.clone()));
                let _ = try_step(&mut table, change);
            }
            prop_assert_eq!(Table::decode(&table.encode()), Ok(table));
        }

        #[test]
        fn garbage_is_an_error_or_a_sound_table(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(table) = Table::decode(&bytes) {
                prop_assert_eq!(table.check(), Ok(()));
            }
            let _ = (Change::decode(&bytes), Report::decode(&bytes), decode_testimonies(&bytes));
        }

        #[test]
        fn a_damaged_table_is_an_error_or_a_sound_table(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = example().encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(mut table) = Table::decode(&bytes) {
                prop_assert_eq!(table.check(), Ok(()));
                let _ = try_step(&mut table, place(partition(0), &[1, 0x1234_5678_9abc], None));
            }
        }
    }
}
