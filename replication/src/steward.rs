//! Moves a group towards its placement, one recorded membership step at a time.
//!
//! The table is what should be, the group's committed membership is what is. Only the group's leader
//! takes steps, each guarded by the log id of the membership it was decided on, each carrying the
//! epoch it serves; a leader ignores a placement older than its membership.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, Precondition};
use scatterhoard_ring::{Epoch, NodeId, Placement, ReplicaId, Table};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::group::Group;
use crate::raft::{LogId, Seat, Types, epoch_of};

/// How often a leader that has a step before it looks whether the step can be taken.
const LOOK: Duration = Duration::from_millis(50);

/// How often a leader looks that has nothing before it.
const LOOK_SETTLED: Duration = Duration::from_millis(500);

/// Entries a learner may be behind and count as caught up: it gets them with the next message, and
/// under load nobody is ever quite level.
const LAG_ENTRIES_MAX: u64 = 64;

/// How long a leader keeps to itself after a transfer that was not taken up.
const TRANSFER_PAUSE: Duration = Duration::from_secs(2);

/// A group as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    me: ReplicaId,
    /// The newest membership, whether committed or not.
    voters: BTreeSet<ReplicaId>,
    learners: BTreeSet<ReplicaId>,
    /// During a change: the voters it leads to.
    joint: Option<BTreeSet<ReplicaId>>,
    committed: bool,
    /// The epoch that the membership serves.
    epoch: Epoch,
    /// The last index that each replica is known to hold.
    matched: BTreeMap<ReplicaId, u64>,
    last: u64,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The group is where it should be.
    Settled,
    /// Something is under way, or someone must catch up first.
    Wait,
    /// Invite these as learners.
    Invite(BTreeSet<ReplicaId>),
    /// Finish a change that was left half done: make these the voters.
    Finish(BTreeSet<ReplicaId>),
    /// Make exactly these the voters, and take leave of these learners.
    Seat { voters: BTreeSet<ReplicaId>, leaving: BTreeSet<ReplicaId> },
    /// Hand the leadership over.
    Transfer(ReplicaId),
}

impl Seen {
    fn caught_up(&self, replica: ReplicaId) -> bool {
        replica == self.me
            || self.matched.get(&replica).is_some_and(|&at| at + LAG_ENTRIES_MAX >= self.last)
    }

    fn majority_caught_up(&self, voters: &BTreeSet<ReplicaId>) -> bool {
        voters.iter().filter(|&&replica| self.caught_up(replica)).count() > voters.len() / 2
    }
}

/// Decides the next step towards the placement.
///
/// A voter leaves only in the change that seats its successors, who have caught up by then; a leader
/// that is not wanted any more hands over first and lets its successor remove it.
fn next_step(seen: &Seen, placement: &Placement) -> Step {
    let target: BTreeSet<_> = placement.replicas.iter().map(|replica| replica.id).collect();
    if placement.epoch < seen.epoch || target.is_empty() {
        return Step::Settled;
    }
    if !seen.committed {
        return Step::Wait;
    }
    if let Some(voters) = &seen.joint {
        // A change whose leader was lost half-way: it goes where it was decided to go, since only
        // those have caught up, before anything else begins.
        return Step::Finish(voters.clone());
    }
    let strangers: BTreeSet<_> =
        target.difference(&seen.voters).filter(|id| !seen.learners.contains(id)).copied().collect();
    if !strangers.is_empty() {
        return Step::Invite(strangers);
    }
    let newcomers = target.difference(&seen.voters).copied().collect::<Vec<_>>();
    if !newcomers.iter().all(|&replica| seen.caught_up(replica)) {
        return Step::Wait;
    }
    let mut wanted = target.clone();
    wanted.insert(seen.me);
    let recorded = seen.epoch == placement.epoch && seen.learners.is_empty();
    if seen.voters != wanted || (!recorded && target.contains(&seen.me)) {
        let leaving = seen.learners.difference(&wanted).copied().collect();
        let safe = seen.majority_caught_up(&wanted);
        return if safe { Step::Seat { voters: wanted, leaving } } else { Step::Wait };
    }
    let heir = if target.contains(&seen.me) {
        placement.leader.filter(|&leader| leader != seen.me)
    } else {
        let best = |id: &ReplicaId| (Some(*id) == placement.leader, seen.matched.get(id).copied());
        target.iter().copied().max_by_key(best)
    };
    match heir {
        Some(heir) if seen.caught_up(heir) && target.contains(&heir) => Step::Transfer(heir),
        Some(_) => Step::Wait,
        None => Step::Settled,
    }
}

/// Takes steps while this replica leads, until it ends.
pub(crate) async fn serve(group: Arc<Group>, mut tables: watch::Receiver<Option<Arc<Table>>>) {
    let mut leadership = group.leadership();
    let mut rest_until = Instant::now();
    loop {
        let mut pause = LOOK_SETTLED;
        let placement = tables.borrow_and_update().as_ref().and_then(|table| {
            let current = table.generation(group.spec().group)? == group.spec().generation;
            table.placement(group.spec().group).filter(|_| current).cloned()
        });
        if let Some(placement) = placement
            && leadership.borrow_and_update().ready
            && !group.is_founding()
            && let Some((seen, guard)) = seen(&group)
        {
            let step = next_step(&seen, &placement);
            if step != Step::Settled {
                pause = LOOK;
            }
            if Instant::now() >= rest_until || !matches!(step, Step::Transfer(_)) {
                if matches!(step, Step::Transfer(_)) {
                    rest_until = Instant::now() + TRANSFER_PAUSE;
                }
                if !take(&group, &placement, step, guard).await {
                    pause = LOOK_SETTLED;
                }
            }
        }
        tokio::select! {
            biased;
            () = group.ended().cancelled() => return,
            changed = tables.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn seen(group: &Group) -> Option<(Seen, Option<LogId>)> {
    let metrics = group.raft().metrics();
    let metrics = metrics.borrow_watched();
    let effective = &metrics.membership_config;
    let membership = effective.membership();
    let matched = metrics.replication.as_ref()?.iter();
    let seen = Seen {
        me: group.spec().replica,
        voters: membership.voter_ids().collect(),
        learners: membership.learner_ids().collect(),
        joint: membership.get_joint_config().get(1..).and_then(|later| later.last().cloned()),
        committed: effective.log_id() == metrics.committed_membership_config.log_id(),
        epoch: epoch_of(membership),
        matched: matched.filter_map(|(&id, at)| Some((id, at.as_ref()?.index))).collect(),
        last: metrics.last_log_index.unwrap_or(0),
    };
    Some((seen, *effective.log_id()))
}

/// Takes a step. Answers whether it went as it should.
async fn take(group: &Group, placement: &Placement, step: Step, guard: Option<LogId>) -> bool {
    let seats = |ids: &BTreeSet<ReplicaId>| -> BTreeMap<ReplicaId, Seat> {
        let node_of = |id: ReplicaId| {
            if id == group.spec().replica {
                return Some(group.spec().node);
            }
            placement.replicas.iter().find(|it| it.id == id).map(|it| it.node)
        };
        let seat = |node: NodeId| Seat { node, epoch: placement.epoch };
        ids.iter().filter_map(|&id| Some((id, seat(node_of(id)?)))).collect()
    };
    match step {
        Step::Settled | Step::Wait => {}
        Step::Finish(voters) => {
            return change(group, ChangeMembers::ReplaceAllVoters(voters), guard).await;
        }
        Step::Invite(newcomers) => {
            return change(group, ChangeMembers::AddNodes(seats(&newcomers)), guard).await;
        }
        Step::Seat { voters, leaving } => {
            // Voters that leave keep their seat until the change is through; openraft then drops it.
            let changes = vec![
                ChangeMembers::SetNodes(seats(&voters)),
                ChangeMembers::ReplaceAllVoters(voters),
                ChangeMembers::RemoveNodes(leaving),
            ];
            return change(group, ChangeMembers::Batch(changes), guard).await;
        }
        Step::Transfer(heir) => group.transfer(Some(heir)).await,
    }
    true
}

async fn change(
    group: &Group,
    changes: ChangeMembers<ReplicaId, Seat>,
    guard: Option<LogId>,
) -> bool {
    let spec = group.spec();
    let company = group.expect_company();
    let guard = Precondition::<Types>::LastMembershipLogId { last_membership_log_id: guard };
    let changed = group.raft().change_membership_if(changes, false, [guard]).await;
    match changed {
        Ok(done) => {
            company.came(done.log_id).await;
            let voters = done.membership.map(|it| it.voter_ids().collect::<Vec<_>>());
            info!(group = %spec.group, ?voters, "membership changed");
            true
        }
        // Nothing is assumed: the next look shows what became of it.
        Err(error) => {
            warn!(group = %spec.group, %error, "membership change did not finish");
            false
        }
    }
}

/// Whether this group's committed membership proves that a replica does not belong to it any more.
///
/// The proof must serve the placement that leaves the replica out, or a later one: an older
/// membership may simply not have invited it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll {
    /// The epoch that the committed membership serves.
    pub epoch: Epoch,
    /// How many of them vote.
    pub voters_count: usize,
    /// Its voters and learners.
    pub replicas: BTreeSet<ReplicaId>,
}

impl Roll {
    /// Whether a replica that the placement of `epoch` does not name may be dropped.
    #[must_use]
    pub fn proves_gone(&self, replica: ReplicaId, epoch: Epoch) -> bool {
        self.epoch >= epoch && !self.replicas.contains(&replica)
    }
}

/// The committed membership of this replica's group, as this replica knows it.
pub(crate) fn roll(group: &Group) -> Roll {
    let members = group.members();
    let voters_count = members.voters.len();
    Roll { epoch: members.epoch, voters_count, replicas: members.nodes.into_keys().collect() }
}

#[cfg(test)]
mod tests {
    use scatterhoard_ring::{Generation, Replica};

    use super::*;

    fn ids(numbers: &[u64]) -> BTreeSet<ReplicaId> {
        numbers.iter().copied().map(ReplicaId::new).collect()
    }

    fn epoch(index: u64) -> Epoch {
        Epoch { generation: Generation::new(1), index }
    }

    /// Replica `n` sits on node `10 n`.
    fn placement(replicas: &[u64], leader: Option<u64>) -> Placement {
        let replica = |&id: &u64| Replica { id: ReplicaId::new(id), node: NodeId::new(10 * id) };
        let replicas = replicas.iter().map(replica).collect();
        Placement { replicas, leader: leader.map(ReplicaId::new), epoch: epoch(5) }
    }

    /// A group at epoch 5 led by replica 1, in which everyone named is level.
    fn seen(voters: &[u64], learners: &[u64]) -> Seen {
        let everyone = voters.iter().chain(learners);
        Seen {
            me: ReplicaId::new(1),
            voters: ids(voters),
            learners: ids(learners),
            joint: None,
            committed: true,
            epoch: epoch(5),
            matched: everyone.map(|&id| (ReplicaId::new(id), 1000)).collect(),
            last: 1000,
        }
    }

    fn behind(mut seen: Seen, replica: u64) -> Seen {
        seen.matched.insert(ReplicaId::new(replica), 1000 - LAG_ENTRIES_MAX - 1);
        seen
    }

    fn seat(voters: &[u64], leaving: &[u64]) -> Step {
        Step::Seat { voters: ids(voters), leaving: ids(leaving) }
    }

    #[track_caller]
    fn check(seen: &Seen, placement: &Placement, step: &Step) {
        assert_eq!(&next_step(seen, placement), step);
    }

    #[test]
    fn a_group_grows_by_learners_that_have_caught_up() {
        let target = placement(&[1, 2, 3], Some(1));
        check(&seen(&[1], &[]), &target, &Step::Invite(ids(&[2, 3])));
        check(&behind(seen(&[1], &[2, 3]), 3), &target, &Step::Wait);
        check(&seen(&[1], &[2, 3]), &target, &seat(&[1, 2, 3], &[]));
        check(&seen(&[1, 2, 3], &[]), &target, &Step::Settled);
    }

    #[test]
    fn a_dead_voter_stays_until_its_successor_has_caught_up() {
        let target = placement(&[1, 2, 4], Some(1));
        check(&behind(seen(&[1, 2, 3], &[4]), 4), &target, &Step::Wait);
        check(&behind(seen(&[1, 2, 3], &[4]), 3), &target, &seat(&[1, 2, 4], &[]));
    }

    #[test]
    fn an_older_placement_is_ignored() {
        let mut newer = seen(&[1, 2, 3], &[]);
        newer.epoch = epoch(6);
        check(&newer, &placement(&[1], Some(1)), &Step::Settled);
    }

    #[test]
    fn a_newer_placement_is_recorded_even_if_nothing_moves() {
        let mut older = seen(&[1, 2, 3], &[]);
        older.epoch = epoch(4);
        check(&older, &placement(&[1, 2, 3], Some(1)), &seat(&[1, 2, 3], &[]));
    }

    #[test]
    fn a_change_left_half_done_is_finished_as_it_was_meant() {
        let mut half = seen(&[1, 2, 3, 4], &[]);
        half.joint = Some(ids(&[1, 2, 4]));
        check(&half, &placement(&[1, 5, 6], Some(1)), &Step::Finish(ids(&[1, 2, 4])));
    }

    #[test]
    fn nothing_is_begun_while_a_change_is_not_committed() {
        let mut open = seen(&[1, 2, 3], &[]);
        open.committed = false;
        check(&open, &placement(&[1, 2], Some(1)), &Step::Wait);
    }

    #[test]
    fn a_leader_that_must_go_hands_over_before_it_is_removed() {
        let target = placement(&[2, 3, 4], None);
        check(&seen(&[1, 2, 3], &[4]), &target, &seat(&[1, 2, 3, 4], &[]));
        let Step::Transfer(heir) = next_step(&seen(&[1, 2, 3, 4], &[]), &target) else {
            panic!("it hands over");
        };
        assert!(ids(&[2, 3, 4]).contains(&heir));
    }

    #[test]
    fn leadership_goes_where_it_should_be_once_all_is_in_place() {
        let target = placement(&[1, 2, 3], Some(3));
        check(&seen(&[1, 2, 3], &[]), &target, &Step::Transfer(ReplicaId::new(3)));
        check(&behind(seen(&[1, 2, 3], &[]), 3), &target, &Step::Wait);
    }

    #[test]
    fn a_group_never_shrinks_to_voters_that_are_behind() {
        let far = behind(behind(seen(&[1, 2, 3, 4, 5], &[]), 2), 3);
        check(&far, &placement(&[1, 2, 3], Some(1)), &Step::Wait);
    }

    #[test]
    fn learners_that_are_not_wanted_any_more_take_leave() {
        let target = placement(&[1, 2, 3], Some(1));
        check(&seen(&[1, 2, 3], &[9]), &target, &seat(&[1, 2, 3], &[9]));
    }

    #[test]
    fn a_roll_proves_a_replica_gone_only_from_its_placement_on() {
        let roll = Roll { epoch: epoch(5), voters_count: 3, replicas: ids(&[1, 2, 3]) };
        assert!(roll.proves_gone(ReplicaId::new(4), epoch(5)));
        assert!(!roll.proves_gone(ReplicaId::new(4), epoch(6)), "it may not have been invited yet");
        assert!(!roll.proves_gone(ReplicaId::new(2), epoch(5)));
    }
}
