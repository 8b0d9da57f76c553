//! Whether a group has lost its quorum for good, and who should found it anew.
//!
//! Silence is no loss: a group is lost only if everyone who may hold a vote in it has either told what it
//! knows, or is proven to have ended. A process that has ended takes its memory with it, so no quorum can
//! form behind our back afterwards.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Epoch, Generation, GroupId, NodeId, ReplicaId, Table};

/// What one replica knows of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// The group.
    pub group: GroupId,
    /// Which founding of it.
    pub generation: Generation,
    /// The replica that tells.
    pub replica: ReplicaId,
    /// Whether it can still vote: its data may be there although it cannot.
    pub votes: bool,
    /// How far its log goes; `None`: it has nothing yet.
    pub position: Option<Position>,
    /// The memberships it has not seen replaced: the last committed one, and one that follows it.
    pub configurations: Vec<Configuration>,
}

/// A place in a log. Of two logs the one whose end is later holds everything that was committed in
/// either (Raft, section 5.4.1; several leaders of one term are told apart by their replica ids).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// The term of the entry.
    pub term: u64,
    /// Who led in that term when it was appended.
    pub leader: ReplicaId,
    /// Its index.
    pub index: u64,
}

/// A membership of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The epoch of the placement that it serves.
    pub epoch: Epoch,
    /// The voters, and where they are. Two halves during a change, each of which has to agree.
    pub halves: Vec<BTreeMap<ReplicaId, NodeId>>,
}

/// What is known of nodes at the time of a verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Who answered, and what its replicas of all groups told.
    pub answers: BTreeMap<NodeId, Vec<Testimony>>,
    /// Who is proven to have ended, beside those that the table knows of.
    pub ended: BTreeSet<NodeId>,
}

/// What is to be thought of a group that nobody leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A quorum is there, or a founder is at work: the group comes back by itself.
    Able,
    /// No quorum is there, but these may be part of one, or hold what was acknowledged.
    Unclear {
        /// Neither there nor known to have ended; or there with the most advanced data, but dismissed.
        missing: BTreeSet<NodeId>,
    },
    /// No quorum can form ever again.
    Lost {
        /// Who has the most advanced data; `None`: nobody has any.
        survivor: Option<NodeId>,
    },
}

/// Judges a group of the table. `None`: there is no such group.
///
/// The table must be the newest that any of those who answered knows.
#[must_use]
pub fn verdict(table: &Table, group: GroupId, evidence: &Evidence) -> Option<Verdict> {
    let (generation, placement) = (table.generation(group)?, table.placement(group)?);
    let hearing = Hearing::of(group, generation, evidence);
    if hearing.is_able() || is_being_founded(table, group, &hearing, evidence) {
        return Some(Verdict::Able);
    }
    let everyone = || table.members.keys().chain(table.absent.keys()).copied();
    let mut suspects: BTreeSet<_> = hearing.voters().chain(placement.nodes()).collect();
    let served = hearing.epoch();
    // Memberships between the one that is known and the placement may have had other voters. With the
    // epoch of the placement itself they cannot: a group moves nowhere but to its placement. But for the
    // council: the table that places it is its own word, and may be old.
    if served != Some(placement.epoch) || group == GroupId::Council {
        suspects.extend(everyone());
    }
    // A membership newer than the placement was decided by a table that was lost with its council, and
    // this one does not know who was a member by then.
    let is_history = served <= Some(placement.epoch);
    let has_ended = |node: &NodeId| {
        let known = table.members.contains_key(node) || table.absent.contains_key(node);
        evidence.ended.contains(node) || is_history && !known
    };
    let mut missing = suspects;
    missing.retain(|node| !evidence.answers.contains_key(node) && !has_ended(node));
    if !missing.is_empty() {
        return Some(Verdict::Unclear { missing });
    }
    let survivor = hearing.most_advanced();
    match survivor {
        Some(node) if !table.members.contains_key(&node) => {
            Some(Verdict::Unclear { missing: BTreeSet::from([node]) })
        }
        survivor => Some(Verdict::Lost { survivor }),
    }
}

/// Whether the replica that is to found this generation is there, and has only not done so yet.
fn is_being_founded(
    table: &Table,
    group: GroupId,
    hearing: &Hearing<'_>,
    evidence: &Evidence,
) -> bool {
    let GroupId::Partition(id) = group else { return false };
    let Some(partition) = table.partitions.get(&id) else { return false };
    let founder = partition.placement.node_of(partition.founder);
    hearing.epoch().is_none() && founder.is_some_and(|node| evidence.answers.contains_key(&node))
}

/// What was told of one group.
struct Hearing<'a> {
    generation: Generation,
    told: Vec<(NodeId, &'a Testimony)>,
}

impl<'a> Hearing<'a> {
    fn of(group: GroupId, generation: Generation, evidence: &'a Evidence) -> Self {
        let told = evidence.answers.iter().flat_map(|(&node, told)| {
            told.iter().filter(|it| it.group == group).map(move |it| (node, it))
        });
        Self { generation, told: told.collect() }
    }

    fn current(&self) -> impl Iterator<Item = &'a Testimony> {
        let told = self.told.iter().map(|&(_, testimony)| testimony);
        told.filter(|it| it.generation == self.generation)
    }

    /// Whether someone can be elected: in a membership it believes in, a majority of each half is there
    /// whose logs do not go further than its own. Or whether there is a generation that the table does
    /// not know, so that this table must not judge.
    fn is_able(&self) -> bool {
        let unknown = self.told.iter().any(|(_, it)| it.generation > self.generation);
        unknown
            || self.current().any(|candidate| {
                let grants = |half: &BTreeMap<ReplicaId, NodeId>| {
                    let voters = self.current().filter(|voter| {
                        let here = voter.votes && half.contains_key(&voter.replica);
                        here && voter.position <= candidate.position
                    });
                    2 * voters.count() > half.len()
                };
                // Elections go by the newest, committed or not.
                let newest = candidate.configurations.last();
                candidate.votes && newest.is_some_and(|it| it.halves.iter().all(grants))
            })
    }

    /// The newest placement that any known membership serves.
    fn epoch(&self) -> Option<Epoch> {
        self.current().flat_map(|it| &it.configurations).map(|it| it.epoch).max()
    }

    /// Everyone with a vote in any known membership.
    fn voters(&self) -> impl Iterator<Item = NodeId> {
        let configurations = self.current().flat_map(|it| &it.configurations);
        configurations.flat_map(|it| &it.halves).flat_map(|half| half.values().copied())
    }

    /// Who has the most, in the latest generation of which anybody has anything.
    fn most_advanced(&self) -> Option<NodeId> {
        let with_data = self.told.iter().filter(|(_, it)| it.position.is_some());
        let best = with_data.max_by_key(|(node, it)| {
            (it.generation, it.position, it.votes, std::cmp::Reverse(*node))
        });
        best.map(|&(node, _)| node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{node, partition, place, step, table};
    use crate::{Change, Member, PartitionId};

    fn p0() -> GroupId {
        partition(0)
    }

    /// Four members, and partition 0 on the first three of them.
    fn three_of_four() -> Table {
        let mut table = table(4, 1);
        step(&mut table, place(p0(), &[1, 2, 3], Some(1)));
        table
    }

    /// What a replica tells that is where the table says, with so many entries in its log.
    fn told(table: &Table, number: u64, index: u64) -> (NodeId, Vec<Testimony>) {
        let placement = table.placement(p0()).unwrap();
        let half = placement.replicas.iter().map(|it| (it.id, it.node)).collect();
        let leader = placement.replicas[0].id;
        let testimony = Testimony {
            group: p0(),
            generation: table.generation(p0()).unwrap(),
            replica: placement.replica_on(node(number)).unwrap(),
            votes: true,
            position: Some(Position { term: 1, leader, index }),
            configurations: vec![Configuration { epoch: placement.epoch, halves: vec![half] }],
        };
        (node(number), vec![testimony])
    }

    fn silent(number: u64) -> (NodeId, Vec<Testimony>) {
        (node(number), Vec::new())
    }

    fn evidence<const N: usize>(answers: [(NodeId, Vec<Testimony>); N]) -> Evidence {
        Evidence { answers: answers.into(), ended: BTreeSet::new() }
    }

    fn judged(table: &Table, evidence: &Evidence) -> Verdict {
        verdict(table, p0(), evidence).unwrap()
    }

    fn unclear<const N: usize>(missing: [u64; N]) -> Verdict {
        Verdict::Unclear { missing: missing.into_iter().map(node).collect() }
    }

    fn lost(survivor: Option<u64>) -> Verdict {
        Verdict::Lost { survivor: survivor.map(node) }
    }

    fn restart(table: &mut Table, old: u64, new: u64) {
        let life = Member { node: node(new), ..crate::fixture::member(old) };
        step(table, Change::Admit { member: life, replaces: Some(node(old)) });
    }

    #[test]
    fn a_majority_needs_no_help() {
        let table = three_of_four();
        let two = evidence([told(&table, 2, 7), told(&table, 3, 9)]);
        assert_eq!(judged(&table, &two), Verdict::Able);
        assert_eq!(verdict(&table, partition(9), &two), None);
    }

    #[test]
    fn silence_is_no_loss() {
        let table = three_of_four();
        let one = evidence([told(&table, 3, 9), silent(4)]);
        assert_eq!(judged(&table, &one), unclear([1, 2]));
        assert_eq!(judged(&table, &evidence([silent(4)])), unclear([1, 2, 3]));
    }

    #[test]
    fn those_who_started_anew_have_ended() {
        let before = three_of_four();
        let mut table = before.clone();
        restart(&mut table, 1, 11);
        let answers = evidence([silent(11), told(&before, 3, 9), silent(4)]);
        assert_eq!(judged(&table, &answers), unclear([2]));
        restart(&mut table, 2, 12);
        let answers = evidence([silent(11), silent(12), told(&before, 3, 9), silent(4)]);
        assert_eq!(judged(&table, &answers), lost(Some(3)));
    }

    #[test]
    fn what_the_table_does_not_know_of_yet_counts_as_well() {
        let table = three_of_four();
        let ended = [1, 2].map(node).into();
        let answers = Evidence { ended, ..evidence([told(&table, 3, 9), silent(4)]) };
        assert_eq!(judged(&table, &answers), lost(Some(3)));
    }

    #[test]
    fn the_most_advanced_survivor_founds() {
        let mut table = table(5, 1);
        step(&mut table, place(p0(), &[1, 2, 3, 4, 5], Some(1)));
        let ended = [1, 2, 3].map(node).into();
        let answers = Evidence { ended, ..evidence([told(&table, 4, 9), told(&table, 5, 8)]) };
        assert_eq!(judged(&table, &answers), lost(Some(4)));
    }

    #[test]
    fn who_was_dismissed_in_silence_may_still_come_back() {
        let before = three_of_four();
        let mut table = before.clone();
        step(&mut table, Change::Dismiss { node: node(1) });
        restart(&mut table, 2, 12);
        let answers = evidence([silent(12), told(&before, 3, 9), silent(4)]);
        assert_eq!(judged(&table, &answers), unclear([1]));
        step(&mut table, Change::Forget { node: node(1) });
        assert_eq!(judged(&table, &answers), lost(Some(3)));
    }

    #[test]
    fn a_membership_that_nobody_left_knows_of_may_be_anywhere() {
        let before = three_of_four();
        let mut table = before.clone();
        // The group may have moved to 4 by now, without the word of 3.
        step(&mut table, place(p0(), &[1, 2, 4], Some(1)));
        let ended = [1, 2].map(node).into();
        let answers = Evidence { ended, ..evidence([told(&before, 3, 9)]) };
        assert_eq!(judged(&table, &answers), unclear([4]));
        let (four, mut tells) = told(&table, 4, 12);
        let with_it = |tells| Evidence {
            answers: [told(&before, 3, 9), (four, tells)].into(),
            ..answers.clone()
        };
        assert_eq!(judged(&table, &with_it(tells.clone())), lost(Some(4)));
        tells[0].position = None;
        tells[0].configurations.clear();
        assert_eq!(judged(&table, &with_it(tells)), lost(Some(3)), "4 had not got anything yet");
    }

    #[test]
    fn a_membership_of_a_lost_table_names_nobody_who_has_ended() {
        let table = three_of_four();
        let (three, mut tells) = told(&table, 3, 9);
        let later = Epoch { index: table.epoch.index + 1, ..table.epoch };
        let half = [(tells[0].replica, three), (ReplicaId::new(99), node(77))].into();
        tells[0].configurations = vec![Configuration { epoch: later, halves: vec![half] }];
        let ended = [1, 2].map(node).into();
        let answers = Evidence { ended, ..evidence([(three, tells), silent(4)]) };
        assert_eq!(judged(&table, &answers), unclear([77]));
    }

    #[test]
    fn a_replica_left_behind_elects_nobody() {
        let before = three_of_four();
        let mut table = before.clone();
        step(&mut table, place(p0(), &[1, 2, 4], Some(1)));
        // 3 still believes in 1, 2 and 3; 1 is in a membership with 2 and 4, who have ended.
        let ended = [2, 4].map(node).into();
        let answers = Evidence { ended, ..evidence([told(&table, 1, 12), told(&before, 3, 9)]) };
        assert_eq!(judged(&table, &answers), lost(Some(1)));
    }

    #[test]
    fn a_core_that_died_has_data_and_no_vote() {
        let table = three_of_four();
        let (two, mut tells) = told(&table, 2, 9);
        tells[0].votes = false;
        let ended: BTreeSet<_> = [node(1)].into();
        let answers = evidence([(two, tells), told(&table, 3, 8), silent(4)]);
        assert_eq!(judged(&table, &Evidence { ended, ..answers }), lost(Some(2)));
    }

    #[test]
    fn who_all_have_ended_leave_nothing() {
        let mut table = three_of_four();
        for (old, new) in [(1, 11), (2, 12), (3, 13)] {
            restart(&mut table, old, new);
        }
        let answers = evidence([silent(11), silent(12), silent(13), silent(4)]);
        assert_eq!(judged(&table, &answers), lost(None));
    }

    #[test]
    fn a_founder_at_work_is_waited_for_and_one_that_ended_is_not() {
        let before = three_of_four();
        let mut table = before.clone();
        restart(&mut table, 1, 11);
        restart(&mut table, 2, 12);
        let generation = Generation::new(2);
        let refound =
            Change::Refound { partition: PartitionId::new(0), generation, survivor: node(4) };
        step(&mut table, refound);
        let old = || [silent(11), silent(12), told(&before, 3, 9)];
        let [a, b, c] = old();
        assert_eq!(judged(&table, &evidence([a, b, c, silent(4)])), Verdict::Able);
        restart(&mut table, 4, 14);
        let [a, b, c] = old();
        let answers = evidence([a, b, c, silent(14)]);
        assert_eq!(
            judged(&table, &answers),
            lost(Some(3)),
            "the generation before is not forgotten"
        );
    }

    #[test]
    fn a_survivor_that_was_dismissed_is_asked_for() {
        let before = three_of_four();
        let mut table = before.clone();
        restart(&mut table, 1, 11);
        restart(&mut table, 2, 12);
        step(&mut table, Change::Dismiss { node: node(3) });
        let answers = evidence([silent(11), silent(12), told(&before, 3, 9), silent(4)]);
        assert_eq!(judged(&table, &answers), unclear([3]));
    }

    #[test]
    fn a_newer_generation_than_the_table_s_is_none_of_its_business() {
        let table = three_of_four();
        let (three, mut tells) = told(&table, 3, 9);
        tells[0].generation = Generation::new(2);
        let ended = [1, 2].map(node).into();
        let answers = Evidence { ended, ..evidence([(three, tells), silent(4)]) };
        assert_eq!(judged(&table, &answers), Verdict::Able);
    }
}
