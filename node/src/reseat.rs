//! Gives up replicas whose Raft core died, and has the council seat new ones on the same node.
//!
//! What a dead core had promised is not known any more, so its replica id is never used again. Only the
//! node that hosts the replica can say that it died: silence is no reason. The council's leader agrees if
//! the group has had a quorum without it since. Until a committed membership leaves it out, the dead
//! replica stays with what it holds: if the others are lost, that may be the best there is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use scatterhoard_cluster::{Lane, ReplyTo, Target};
use scatterhoard_replication::{Group, GroupSpec};
use scatterhoard_ring::{Change, GroupId, NodeId, Refusal, ReplicaId, Report, Reports, Table};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::core::Core;
use crate::council;
use crate::kind::Kind;

/// How long a node waits before it gives a dead replica up. A report of its group that the council still
/// counts then (3 s) is of a quorum that was heard (0.9 s before it) without the dead.
const SETTLE: Duration = Duration::from_secs(5);

/// The least between two new replicas of one group on one node: an entry that kills whoever applies it
/// would kill them one after the other, each after a whole snapshot.
const PAUSE_MIN: Duration = Duration::from_secs(60);

/// The most. A replica that lasted longer died of something else.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// How often the council is asked that could not be reached, or did not agree.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How long one question may take: as long as a decision of the council, and the way.
const PATIENCE: Duration = Duration::from_secs(4);

/// What became of the replicas of this node whose core died.
#[derive(Default)]
pub(crate) struct Deaths {
    count: AtomicU64,
    groups: Mutex<BTreeMap<GroupId, Record>>,
}

#[derive(Default)]
struct Record {
    pace: Pace,
    /// Why there is no new replica yet, as the council last said.
    hindrance: Option<String>,
}

impl Deaths {
    /// How many cores have died since the node started.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Why a dead replica of the group is not replaced yet, if there is more to it than time.
    pub(crate) fn hindrance(&self, group: GroupId) -> Option<String> {
        self.groups.lock().get(&group)?.hindrance.clone()
    }

    /// Takes note of a death; answers with when a new replica may be asked for.
    fn died(&self, group: GroupId, now: Instant) -> Instant {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.groups.lock().entry(group).or_default().pace.died(now)
    }

    /// Answers whether this is not what was said before.
    fn hindered(&self, group: GroupId, reason: &str) -> bool {
        let mut groups = self.groups.lock();
        let hindrance = &mut groups.entry(group).or_default().hindrance;
        let is_new = hindrance.as_deref() != Some(reason);
        *hindrance = Some(reason.to_owned());
        is_new
    }

    fn reseated(&self, group: GroupId, now: Instant) {
        let mut groups = self.groups.lock();
        let record = groups.entry(group).or_default();
        record.pace.reseated(now);
        record.hindrance = None;
    }
}

/// How often one group is reseated on this node.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    /// What must pass after the last time.
    pause: Duration,
}

impl Pace {
    /// When a replica that has just died may be replaced.
    fn died(&mut self, now: Instant) -> Instant {
        let Some(last) = self.last else { return now + SETTLE };
        if now - last > PAUSE_MAX {
            self.pause = Duration::ZERO;
        }
        (now + SETTLE).max(last + self.pause)
    }

    fn reseated(&mut self, now: Instant) {
        self.last = Some(now);
        self.pause = (2 * self.pause).clamp(PAUSE_MIN, PAUSE_MAX);
    }
}

/// Asks for a new replica in the place of one whose core died, until the table does not name it any more.
pub(crate) async fn give_up(core: &Arc<Core>, group: &Group) {
    let Some(cause) = group.failure() else { return };
    let spec = group.spec();
    let mut ask_at = core.deaths.died(spec.group, Instant::now());
    let seconds = ask_at.saturating_duration_since(Instant::now()).as_secs();
    error!(
        group = %spec.group, replica = %spec.replica, cause, seconds,
        "the Raft core of a replica died; a new replica is asked for in so many seconds"
    );
    let mut tables = core.tables.subscribe();
    loop {
        let table = tables.borrow_and_update().clone();
        if table.is_some_and(|table| !names(&table, spec)) {
            core.deaths.reseated(spec.group, Instant::now());
            return info!(group = %spec.group, replica = %spec.replica, "a dead replica was given up");
        }
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            changed = tables.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(ask_at) => {
                if let Err(reason) = ask(core, spec).await
                    && core.deaths.hindered(spec.group, &reason)
                {
                    warn!(group = %spec.group, reason, "a dead replica cannot be replaced yet");
                }
                ask_at = Instant::now() + ASK_AGAIN;
            }
        }
    }
}

/// Whether the table still wants this very replica.
fn names(table: &Table, spec: &GroupSpec) -> bool {
    let current = table.generation(spec.group) == Some(spec.generation);
    let placement = table.placement(spec.group).filter(|_| current);
    placement.is_some_and(|placement| placement.node_of(spec.replica) == Some(spec.node))
}

async fn ask(core: &Arc<Core>, spec: &GroupSpec) -> Result<(), String> {
    let GroupSpec { group, replica, .. } = *spec;
    if council::leads(core) {
        return grant(core, core.node, group, replica).await;
    }
    let table = core.tables.newest().ok_or("no table yet")?;
    let addr = council::leader_address(core, &table).ok_or("the council has no leader")?;
    let to = Target { node: NodeId::new(0), addr };
    let (kind, by) = (Kind::Reseat.number(), Instant::now() + PATIENCE);
    let body = Bytes::from(Change::Reseat { group, replica }.encode());
    let called = core.peers.call(to, Lane::Control, kind, body, by).await;
    called.map(|_| ()).map_err(|error| error.to_string())
}

/// Answers a node that gives a replica up.
pub(crate) async fn serve(core: Arc<Core>, from: NodeId, body: Bytes, reply: ReplyTo) {
    let Ok(Change::Reseat { group, replica }) = Change::decode(&body) else {
        return reply.refuse("which replica died?");
    };
    if !council::leads(&core) {
        return reply.refuse("not the council's leader");
    }
    match grant(&core, from, group, replica).await {
        Ok(()) => reply.send(Bytes::new()),
        Err(reason) => reply.refuse(&reason),
    }
}

/// Has the council give a node a new replica, as its leader.
async fn grant(
    core: &Arc<Core>,
    from: NodeId,
    group: GroupId,
    replica: ReplicaId,
) -> Result<(), String> {
    let table = core.tables.newest().ok_or("no table yet")?;
    match judge(&table, &core.desk.reports(), from, (group, replica)) {
        Judgement::Granted => {}
        Judgement::Done => return Ok(()),
        Judgement::Refused(reason) => return Err(reason.to_owned()),
    }
    let change = Change::Reseat { group, replica };
    warn!(?change, node = %from, "the council gives up a replica whose core died");
    match council::propose(core, &change).await {
        Ok(Ok(_) | Err(Refusal::NoReplica { .. })) => Ok(()),
        Ok(Err(refusal)) => Err(refusal.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Granted,
    /// The table does not name it any more.
    Done,
    Refused(&'static str),
}

/// Decides about a replica that a node says is dead, by what its group's leader has reported lately.
fn judge(
    table: &Table,
    reports: &Reports,
    from: NodeId,
    (group, replica): (GroupId, ReplicaId),
) -> Judgement {
    let Some(placement) = table.placement(group) else {
        return Judgement::Refused("there is no such group");
    };
    match placement.node_of(replica) {
        None => return Judgement::Done,
        Some(node) if node != from => {
            return Judgement::Refused("a replica is given up by its own node alone");
        }
        Some(_) => {}
    }
    let current = |it: &&Report| Some(it.generation) == table.generation(group);
    match reports.get(&group).filter(current) {
        Some(report) if report.leader != replica => Judgement::Granted,
        Some(_) | None => Judgement::Refused("its group has no quorum without it"),
    }
}

#[cfg(test)]
mod tests {
    use scatterhoard_ring::{
        ClusterId, Endpoints, Epoch, Generation, Member, PartitionId, Settings, Standing,
    };

    use super::*;

    const GROUP: GroupId = GroupId::Partition(PartitionId::new(0));

    fn node(number: u64) -> NodeId {
        NodeId::new(number)
    }

    fn member(number: u64) -> Member {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        Member {
            node: node(number),
            name: format!("n{number}"),
            zone: String::new(),
            endpoints: Endpoints { peer: addr, listen: addr, any_key: addr, http: addr },
            standing: Standing::Active,
            admitted: Epoch::default(),
            version: String::new(),
        }
    }

    /// Nodes 1 to 3 hold the group; answers with their replicas too.
    fn table() -> (Table, Vec<ReplicaId>) {
        let (cluster, epoch) =
            (ClusterId::new(1), Epoch { generation: Generation::new(1), index: 0 });
        let mut table = Table::found(cluster, Settings::default(), member(1), 1, epoch).unwrap();
        for number in [2, 3] {
            let change = Change::Admit { member: member(number), replaces: None };
            table.step(number, &change).unwrap();
        }
        let nodes = [1, 2, 3].map(node).into();
        table.step(9, &Change::Place { group: GROUP, nodes, leader: Some(node(1)) }).unwrap();
        let replicas = table.placement(GROUP).unwrap().ids().collect();
        (table, replicas)
    }

    fn reported(table: &Table, generation: u32, leader: ReplicaId) -> Reports {
        let placement = table.placement(GROUP).unwrap();
        let report = Report {
            generation: Generation::new(generation),
            term: 1,
            leader,
            epoch: placement.epoch,
            voters: placement.ids().collect(),
            learners: std::collections::BTreeSet::new(),
            index: 1,
        };
        Reports::from([(GROUP, report)])
    }

    #[test]
    fn a_replica_is_given_up_by_its_own_node_alone() {
        let (table, replicas) = table();
        let reports = reported(&table, 1, replicas[0]);
        let judged = |from, replica| judge(&table, &reports, node(from), (GROUP, replica));
        assert_eq!(judged(2, replicas[1]), Judgement::Granted);
        assert!(matches!(judged(3, replicas[1]), Judgement::Refused(_)));
        assert_eq!(judged(2, ReplicaId::new(99)), Judgement::Done);
    }

    #[test]
    fn a_replica_is_given_up_only_if_its_group_has_decided_without_it() {
        let (table, replicas) = table();
        let judged = |reports| judge(&table, &reports, node(2), (GROUP, replicas[1]));
        assert_eq!(judged(reported(&table, 1, replicas[2])), Judgement::Granted);
        for reports in
            [Reports::new(), reported(&table, 1, replicas[1]), reported(&table, 2, replicas[0])]
        {
            assert!(matches!(judged(reports.clone()), Judgement::Refused(_)), "{reports:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_dies_again_and_again_waits_longer_and_longer() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..9 {
            // It dies as soon as it is there.
            let at = pace.died(now);
            waits.push((at - now).as_secs());
            now = at;
            pace.reseated(now);
        }
        assert_eq!(waits, [5, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_lasted_has_nothing_to_make_up_for() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..5 {
            now = pace.died(now);
            pace.reseated(now);
        }
        now += Duration::from_secs(500);
        assert_eq!(
            pace.died(now) - now,
            Duration::from_secs(460),
            "the pause is counted from then"
        );
        now += PAUSE_MAX;
        assert_eq!(pace.died(now) - now, SETTLE);
        pace.reseated(now);
        assert_eq!(pace.died(now) - now, PAUSE_MIN);
    }
}
