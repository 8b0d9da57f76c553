//! What must hold of any bytes in place of a table, a change or a report. For tests and fuzzers only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::{
    Change, ClusterId, Endpoints, Epoch, Evidence, Generation, Member, NodeId, PARTITIONS_MAX,
    Report, Settings, Standing, Table, Verdict, decode_testimonies, encode_testimonies,
    known_to_all, plan, verdict,
};

/// One encoded value: the first byte chooses which kind.
///
/// Nothing panics, and what can be read is read again as it was from its writing. Of a table, the plan and
/// the verdict over its groups come to an end.
pub fn tables(input: &[u8]) {
    let Some((&kind, bytes)) = input.split_first() else { return };
    match kind & 3 {
        0 => {
            if let Ok(table) = Table::decode(bytes) {
                assert_eq!(Table::decode(&table.encode()), Ok(table.clone()));
                assert!(table.partitions.len() <= usize::from(PARTITIONS_MAX));
                consider(&table);
            }
        }
        1 => {
            if let Ok(change) = Change::decode(bytes) {
                assert_eq!(Change::decode(&change.encode()), Ok(change));
            }
        }
        2 => {
            if let Ok(report) = Report::decode(bytes) {
                assert_eq!(Report::decode(&report.encode()), Ok(report));
            }
        }
        _ => {
            if let Ok(told) = decode_testimonies(bytes) {
                assert_eq!(decode_testimonies(&encode_testimonies(&told)), Ok(told.clone()));
                let table = founded();
                let answers = BTreeMap::from([(NodeId::new(1), told)]);
                judge(&table, &Evidence { answers, ended: BTreeSet::new() });
            }
        }
    }
}

/// Changes, each after its length in two bytes, little-endian; taken by one table after the other.
///
/// Nothing panics. What is refused leaves the table as it was; what is taken makes a table that holds its
/// invariants, is at the change's epoch, and is read as it was written. Where the plan leads from there, it
/// comes to an end.
pub fn changes(input: &[u8]) {
    let mut table = founded();
    let mut rest = input;
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (bytes, next) = after.split_at(length);
        rest = next;
        let Ok(change) = Change::decode(bytes) else { continue };
        let (before, index) = (table.clone(), table.epoch.index + 1);
        match table.step(index, &change) {
            Ok(()) => {
                assert_eq!(table.epoch, Epoch { index, ..before.epoch });
                assert!(table.next_replica >= before.next_replica, "no id is given twice");
                assert_eq!(Table::decode(&table.encode()), Ok(table.clone()));
            }
            Err(_) => assert_eq!(table, before, "what is refused changes nothing"),
        }
    }
    consider(&table);
}

/// Asks the plan until it wants no more, and the verdict about every group.
fn consider(table: &Table) {
    // A table of hundreds of members is planned in seconds; small ones find the same mistakes.
    if table.members.len() > 20 || table.partitions.len() > 20 {
        return;
    }
    let alive: BTreeSet<_> = table.members.keys().copied().collect();
    let mut next = table.clone();
    for _ in 0..200 {
        let known = known_to_all(&next, &BTreeMap::new());
        let Some(change) = plan(&next, &BTreeMap::new(), &alive, &known) else { break };
        let Some(index) = next.epoch.index.checked_add(1) else { break };
        next.step(index, &change).expect("what is planned is taken");
    }
    judge(table, &Evidence::default());
}

fn judge(table: &Table, evidence: &Evidence) {
    for (group, ..) in table.groups() {
        let verdict = verdict(table, group, evidence).expect("the table has the group");
        if let Verdict::Lost { survivor: Some(survivor) } = verdict {
            assert!(evidence.answers.contains_key(&survivor), "who survives is there");
        }
    }
}

/// A cluster of one member and four partitions.
fn founded() -> Table {
    let epoch = Epoch { generation: Generation::new(1), index: 1 };
    Table::found(ClusterId::new(7), Settings::default(), member(1), 4, epoch)
        .expect("a table can be like that")
}

fn member(number: u8) -> Member {
    let at = |port| SocketAddr::from(([10, 0, 0, number], port));
    Member {
        node: NodeId::new(number.into()),
        name: format!("n{number}"),
        zone: String::new(),
        endpoints: Endpoints { peer: at(1), listen: at(2), any_key: at(3), http: at(4) },
        standing: Standing::Active,
        admitted: Epoch::default(),
        version: "0.1.0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use scatterhoard_fuzz::{bounded, joined};

    use super::*;
    use crate::{
        Configuration, GroupId, PartitionId, Position, ReplicaId, Testimony, fixture::place,
    };

    fn seeds_of_changes() -> Vec<Vec<Change>> {
        let (council, partition) = (GroupId::Council, GroupId::Partition(PartitionId::new(2)));
        let admit = |number| Change::Admit { member: member(number), replaces: None };
        let replaced = Member { name: "n3".to_owned(), ..member(4) };
        vec![
            vec![admit(2), admit(3), place(partition, &[1, 2, 3], Some(2))],
            vec![
                admit(3),
                place(council, &[1, 3], None),
                Change::Admit { member: replaced, replaces: Some(NodeId::new(3)) },
            ],
            vec![
                admit(2),
                Change::Leave { node: NodeId::new(2) },
                Change::Dismiss { node: NodeId::new(2) },
                Change::Forget { node: NodeId::new(2) },
            ],
            vec![
                admit(2),
                place(partition, &[1, 2], Some(1)),
                Change::Reseat { group: partition, replica: ReplicaId::new(4) },
                Change::Refound {
                    partition: PartitionId::new(2),
                    generation: Generation::new(2),
                    survivor: NodeId::new(2),
                },
            ],
        ]
    }

    fn testimonies() -> Vec<Testimony> {
        let halves = vec![BTreeMap::from([(ReplicaId::new(2), NodeId::new(1))])];
        vec![Testimony {
            group: GroupId::Partition(PartitionId::new(0)),
            generation: Generation::new(1),
            replica: ReplicaId::new(2),
            votes: true,
            position: Some(Position { term: 3, leader: ReplicaId::new(2), index: 9 }),
            configurations: vec![Configuration { epoch: Epoch::default(), halves }],
        }]
    }

    #[test]
    fn any_tables_are_read_soundly() {
        let mut table = founded();
        let mut seeds = vec![[&[0][..], &table.encode()].concat()];
        for change in seeds_of_changes().concat() {
            seeds.push([&[1][..], &change.encode()].concat());
            let index = table.epoch.index + 1;
            if table.step(index, &change).is_ok() {
                seeds.push([&[0][..], &table.encode()].concat());
            }
        }
        let report = Report {
            generation: Generation::new(1),
            term: 3,
            leader: ReplicaId::new(2),
            epoch: table.epoch,
            voters: BTreeSet::from([ReplicaId::new(2), ReplicaId::new(9)]),
            learners: BTreeSet::from([ReplicaId::new(11)]),
            index: 77,
        };
        seeds.push([&[2][..], &report.encode()].concat());
        seeds.push([&[3][..], &encode_testimonies(&testimonies())].concat());
        bounded("tables", &seeds, tables);
    }

    #[test]
    fn any_changes_make_sound_tables() {
        let seeds: Vec<_> = seeds_of_changes()
            .iter()
            .map(|changes| {
                let encoded: Vec<_> = changes.iter().map(Change::encode).collect();
                joined(encoded.iter().map(Vec::as_slice))
            })
            .collect();
        bounded("changes", &seeds, changes);
    }
}
