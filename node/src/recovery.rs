//! The way back from a lost quorum: founding a group anew from what is left of it.
//!
//! The council's leader does it for partitions, through the table; who survives the council does it for
//! the council. Nothing is founded on silence (see [`scatterhoard_ring::verdict`]): everyone who may have
//! a vote has answered, or is proven to have ended, because another life is bound to its address, it said
//! so itself, or an operator vouches for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use parking_lot::Mutex;
use scatterhoard_cluster::{Lane, Target};
use scatterhoard_ring::{
    Change, Epoch, Generation, GroupId, NodeId, PartitionId, Standing, Table, Verdict, verdict,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::core::Core;
use crate::council;
use crate::kind::Kind;
use survey::{Survey, Unready};

pub(crate) mod ballot;
pub(crate) mod survey;

/// How often a node looks whether something is lost.
const LOOK: Duration = Duration::from_millis(500);

/// How long a group may be without a leader before anybody is asked about it. Elections take less.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two times of asking everyone, for each member.
const REST_FOR_EACH: Duration = Duration::from_millis(20);

/// A look that comes later than this shows that this process stood still, and knows nothing of the time.
const GAP_MAX: Duration = Duration::from_millis(1500);

/// A connection that was cut counts as alive for 3 s, so a sighting may be dated so much too late. With room.
const SIGHT_LAG: Duration = Duration::from_secs(5);

/// How long a message that a node has ended may take.
const TELL_PATIENCE: Duration = Duration::from_secs(1);

/// Nodes that are remembered as ended on somebody's word. Each was a member once.
const VOUCHED_COUNT_MAX: usize = 1024;

/// Version of the messages of this module.
pub(crate) const MESSAGES: u8 = 1;

/// What is known of lost groups, beside what the table says.
#[derive(Default)]
pub(crate) struct Recovery {
    /// The newest epoch that somebody named while this node had no table itself.
    heard: Mutex<Epoch>,
    /// Who has ended, by its own word or an operator's.
    vouched: Mutex<BTreeSet<NodeId>>,
    /// What is waited for, by group.
    losses: Mutex<BTreeMap<GroupId, String>>,
    /// When each member was last connected.
    connected: Mutex<BTreeMap<NodeId, Instant>>,
    pub(crate) promised: ballot::Promised,
    /// Somebody has found that it is us who should found the council anew.
    pub(crate) stand_asked: Notify,
    refounded_count: AtomicU64,
}

impl Recovery {
    /// Takes note of how new a table somebody has.
    pub(crate) fn heard_of(&self, epoch: Epoch) {
        let mut heard = self.heard.lock();
        *heard = epoch.max(*heard);
    }

    /// What lost groups wait for, as far as this node knows.
    pub(crate) fn losses(&self) -> BTreeMap<GroupId, String> {
        self.losses.lock().clone()
    }

    /// Groups that this node has founded anew.
    pub(crate) fn refounded_count(&self) -> u64 {
        self.refounded_count.load(Ordering::Relaxed)
    }

    pub(crate) fn refounded(&self) {
        self.refounded_count.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this node would know of another that it was here, if it ended now.
    pub(crate) fn has_seen(&self, node: NodeId) -> bool {
        self.connected.lock().contains_key(&node)
    }

    fn vouched(&self) -> BTreeSet<NodeId> {
        self.vouched.lock().clone()
    }

    fn waits(&self, group: GroupId, why: String) {
        let mut losses = self.losses.lock();
        if losses.get(&group) != Some(&why) {
            error!(%group, why, "a quorum is lost");
            losses.insert(group, why);
        }
    }
}

/// Looks after lost groups until shutdown.
pub(crate) async fn serve(core: Arc<Core>) {
    let mut unled = Unled::default();
    let mut asked = None;
    loop {
        let stands = tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = core.departed.cancelled() => return,
            () = core.recovery.stand_asked.notified() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        let Some(table) = core.tables.newest() else { continue };
        see_connections(&core, &table);
        if !table.members.contains_key(&core.node) {
            continue;
        }
        let now = Instant::now();
        let rest = if stands { Duration::ZERO } else { rest_between(&table) };
        if asked.is_some_and(|asked: Instant| asked.elapsed() < rest) {
            continue;
        }
        if council::leads(&core) {
            mourn(&core, &table).await;
            let lost = unled.for_long(&unreported(&core, &table), now);
            core.recovery.losses.lock().retain(|group, _| lost.contains(group));
            if !lost.is_empty() {
                recover_partitions(&core, &lost).await;
                asked = Some(Instant::now());
            }
        } else {
            let lost = !council_is_led(&core, &table);
            let lost = unled.for_long(&lost.then_some(GroupId::Council).into_iter().collect(), now);
            core.recovery.losses.lock().retain(|group, _| lost.contains(group));
            if stands || !lost.is_empty() {
                recover_council(&core).await;
                asked = Some(Instant::now());
            }
        }
    }
}

/// Pause between two times of asking everyone: all who survive a council do, so it grows with them.
fn rest_between(table: &Table) -> Duration {
    REST_FOR_EACH * u32::try_from(table.members.len()).unwrap_or(u32::MAX)
}

/// Since when groups have had no leader, by a node that was awake all the time.
#[derive(Default)]
struct Unled {
    looked: Option<Instant>,
    since: BTreeMap<GroupId, Instant>,
}

impl Unled {
    /// Those of the groups that have been without a leader for long enough.
    fn for_long(&mut self, unled: &BTreeSet<GroupId>, now: Instant) -> BTreeSet<GroupId> {
        if self.looked.is_some_and(|looked| now - looked > GAP_MAX) {
            self.since.clear();
        }
        self.looked = Some(now);
        self.since.retain(|group, _| unled.contains(group));
        for &group in unled {
            self.since.entry(group).or_insert(now);
        }
        let for_long = self.since.iter().filter(|&(_, &since)| now - since >= PATIENCE);
        for_long.map(|(&group, _)| group).collect()
    }
}

fn see_connections(core: &Core, table: &Table) {
    let now = Instant::now();
    let mut connected = core.recovery.connected.lock();
    connected.retain(|node, _| table.members.contains_key(node));
    for &node in table.members.keys().filter(|&&node| core.peers.connected(node)) {
        connected.insert(node, now);
    }
}

fn council_is_led(core: &Core, table: &Table) -> bool {
    match council::leader(core, table) {
        // A leader that does not hear from a quorum any more is none.
        Some(node) if node == core.node => council::leads(core),
        Some(_) => true,
        None => false,
    }
}

/// Partitions of which no leader with a quorum has been heard lately.
fn unreported(core: &Core, table: &Table) -> BTreeSet<GroupId> {
    let reports = core.desk.reports();
    let groups = table.partitions.iter().map(|(&id, it)| (GroupId::Partition(id), it.generation));
    let unreported = groups.filter(|(group, generation)| {
        reports.get(group).is_none_or(|report| report.generation != *generation)
    });
    unreported.map(|(group, _)| group).collect()
}

/// Members that have ended cease to be members, and the absent are forgotten once they do not matter.
async fn mourn(core: &Arc<Core>, table: &Table) {
    let vouched = core.recovery.vouched();
    let change = if let Some(&node) = table.members.keys().find(|node| vouched.contains(node)) {
        Change::Dismiss { node }
    } else if let Some(&node) = table.absent.keys().find(|node| vouched.contains(node)) {
        Change::Forget { node }
    } else if let Some((&node, _)) = table.absent.first_key_value()
        && is_settled(core, table)
    {
        Change::Forget { node }
    } else {
        return;
    };
    propose(core, &change).await;
}

/// Whether every group is where the table says: nobody else has a vote in one then.
fn is_settled(core: &Core, table: &Table) -> bool {
    let reports = core.desk.reports();
    table.groups().all(|(group, generation, placement)| {
        reports.get(&group).is_some_and(|report| {
            let voters = report.voters.iter().copied().eq(placement.ids());
            let now = (report.generation, report.epoch) == (generation, placement.epoch);
            now && voters && report.learners.is_empty()
        })
    })
}

async fn propose(core: &Arc<Core>, change: &Change) {
    info!(?change, "the council decides");
    match council::propose(core, change).await {
        Ok(Ok(_)) => {}
        Ok(Err(refusal)) => warn!(%refusal, "the table refused"),
        Err(error) => warn!(%error, "the council could not decide"),
    }
}

/// Founds partitions anew that are lost for good, as the council's leader.
async fn recover_partitions(core: &Arc<Core>, lost: &BTreeSet<GroupId>) {
    let Ok(survey) = Survey::take(core).await else { return };
    let known = core.desk.known(&survey.table);
    for &group in lost {
        let GroupId::Partition(partition) = group else { continue };
        let table = &survey.table;
        match verdict(table, group, &survey.evidence) {
            None | Some(Verdict::Able) => {
                core.recovery.losses.lock().remove(&group);
            }
            Some(Verdict::Unclear { missing }) => {
                core.recovery.waits(group, waits_for(table, &missing));
            }
            Some(Verdict::Lost { survivor }) => {
                let Some(generation) = next(table.generation(group)) else { continue };
                let Some(founder) = survivor.or_else(|| anyone(&survey, partition, &known)) else {
                    continue;
                };
                error!(
                    %partition, %founder, with_data = survivor.is_some(),
                    "a quorum is lost for good: the partition is founded anew; \
                     what only others had is gone"
                );
                propose(core, &Change::Refound { partition, generation, survivor: founder }).await;
            }
        }
    }
}

fn next(generation: Option<Generation>) -> Option<Generation> {
    generation?.number().checked_add(1).map(Generation::new)
}

/// Who should found a partition that nobody has anything of: who should hold it anyway, or else who
/// holds least, of those that everybody knows of.
fn anyone(survey: &Survey, partition: PartitionId, known: &BTreeSet<NodeId>) -> Option<NodeId> {
    let table = &survey.table;
    let placement = table.placement(GroupId::Partition(partition))?;
    let active = |node: &&NodeId| {
        table.members.get(node).is_some_and(|member| member.standing == Standing::Active)
    };
    let able = survey.evidence.answers.keys().filter(active).copied();
    let able = able.filter(|node| known.contains(node));
    able.min_by_key(|&node| {
        (placement.replica_on(node).is_none(), table.replicas_on(node).count(), node)
    })
}

/// Founds the council anew if it is lost for good and that is up to this node.
async fn recover_council(core: &Arc<Core>) {
    let group = GroupId::Council;
    let survey = match Survey::take(core).await {
        Ok(survey) => survey,
        Err(Unready::Fetched) => return,
        Err(Unready::Unknown { member, epoch }) => {
            return core.recovery.waits(group, unknown(core, member, epoch));
        }
    };
    let table = &survey.table;
    let survivor = match verdict(table, group, &survey.evidence) {
        None | Some(Verdict::Able) => return,
        Some(Verdict::Unclear { missing }) => {
            return core.recovery.waits(group, waits_for(table, &missing));
        }
        Some(Verdict::Lost { survivor }) => survivor,
    };
    let vouched = core.recovery.vouched();
    let dismissal = Duration::from_millis(table.settings.replace_after_ms.into());
    let promised =
        next(Some(table.epoch.generation)).and_then(|it| core.recovery.promised.given(it));
    let silence_max = dismissal.saturating_sub(SIGHT_LAG);
    if let Some(node) = survey.missed(silence_max, &vouched, promised) {
        let why = format!(
            "waits for an operator: {} was out of sight before it ended, and what the council decided \
             meanwhile is not known",
            name(table, node)
        );
        return core.recovery.waits(group, why);
    }
    let active = |node: &&NodeId| table.members.contains_key(node);
    let lowest = || survey.evidence.answers.keys().find(active).copied();
    match survivor.or_else(lowest) {
        Some(node) if node == core.node => ballot::stand(core, &survey).await,
        Some(node) => {
            if let Some(member) = table.members.get(&node) {
                let to = Target { node, addr: member.endpoints.peer };
                core.peers.send(to, Lane::Control, Kind::Stand.number(), Bytes::new());
            }
        }
        None => {}
    }
}

fn unknown(core: &Core, member: NodeId, epoch: Epoch) -> String {
    let who = core.tables.newest().map_or_else(String::new, |table| name(&table, member));
    format!("waits for who has table {epoch}, of which {who} has heard since it started anew")
}

fn waits_for(table: &Table, missing: &BTreeSet<NodeId>) -> String {
    let names: Vec<_> = missing.iter().map(|&node| name(table, node)).collect();
    format!("waits for {}", names.join(", "))
}

/// A node as people know it.
fn name(table: &Table, node: NodeId) -> String {
    let member = table.members.get(&node).map(|it| (&it.name, it.endpoints.peer));
    let known = member.or_else(|| table.absent.get(&node).map(|it| (&it.name, it.peer)));
    known.map_or_else(|| node.to_string(), |(name, peer)| format!("{name} ({peer})"))
}

/// Every group that does not come back by itself and why, asked of all nodes now.
///
/// # Errors
/// What stands in the way of asking.
pub(crate) async fn losses_now(core: &Arc<Core>) -> Result<BTreeMap<GroupId, String>, String> {
    if core.tables.newest().is_none() {
        return Err("not a member of a cluster yet".to_owned());
    }
    let survey = match Survey::take(core).await {
        Ok(survey) => survey,
        Err(Unready::Fetched) => return Err("the table has just changed; ask again".to_owned()),
        Err(Unready::Unknown { member, epoch }) => {
            return Ok(BTreeMap::from([(GroupId::Council, unknown(core, member, epoch))]));
        }
    };
    let table = &survey.table;
    let judged = table.groups().filter_map(|(group, ..)| {
        let why = match verdict(table, group, &survey.evidence)? {
            Verdict::Able => return None,
            Verdict::Unclear { missing } => waits_for(table, &missing),
            Verdict::Lost { .. } => {
                let known = core.recovery.losses().remove(&group);
                let known = known.filter(|_| group == GroupId::Council);
                known.unwrap_or_else(|| "is about to be founded anew".to_owned())
            }
        };
        Some((group, why))
    });
    Ok(judged.collect())
}

/// Takes an operator's word that a node has ended, and tells everyone.
///
/// # Errors
/// Nobody of that name is known, or it is alive.
pub(crate) async fn vouch(core: &Arc<Core>, who: &str) -> Result<NodeId, String> {
    let table = core.tables.newest().ok_or("not a member of a cluster yet")?;
    let members = table.members.iter().map(|(&node, it)| (node, &it.name));
    let absent = table.absent.iter().map(|(&node, it)| (node, &it.name));
    let found = members.chain(absent).find(|(node, name)| *name == who || node.to_string() == who);
    let (node, _) = found.ok_or_else(|| format!("nobody is called {who}"))?;
    let view = core.views.borrow().clone();
    if node == core.node || view.alive.contains_key(&node) || core.peers.connected(node) {
        return Err(format!("{who} is alive: it is seen now"));
    }
    warn!(%node, who, "an operator vouches that this node has ended");
    remember_ended(core, node);
    say_ended(core, node).await;
    Ok(node)
}

/// Tells all members that a node has ended: that its process will never vote again.
pub(crate) async fn say_ended(core: &Arc<Core>, node: NodeId) {
    let Some(table) = core.tables.newest() else { return };
    let mut body = BytesMut::new();
    body.put_u8(MESSAGES);
    body.put_u64(node.number());
    let body = body.freeze();
    let others = table.members.values().filter(|it| it.node != core.node && it.node != node);
    let by = Instant::now() + TELL_PATIENCE;
    let tell = |addr| {
        let to = Target { node: NodeId::new(0), addr };
        core.peers.call(to, Lane::Control, Kind::Ended.number(), body.clone(), by)
    };
    join_all(others.map(|member| tell(member.endpoints.peer))).await;
}

/// Takes the word of a peer that a node has ended.
pub(crate) fn take_ended(core: &Core, mut body: Bytes) -> bool {
    let (Ok(MESSAGES), Ok(node)) = (body.try_get_u8(), body.try_get_u64()) else { return false };
    remember_ended(core, NodeId::new(node));
    true
}

fn remember_ended(core: &Core, node: NodeId) {
    if node == core.node {
        return error!("this node is said to have ended; start it anew if the cluster drops it");
    }
    let mut vouched = core.recovery.vouched.lock();
    if let Some(table) = core.tables.newest() {
        let known = |it: &NodeId| table.members.contains_key(it) || table.absent.contains_key(it);
        vouched.retain(known);
    }
    if vouched.len() < VOUCHED_COUNT_MAX && vouched.insert(node) {
        info!(%node, "this node has ended, by its own word or an operator's");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_without_a_leader_for_long_only_if_nobody_slept() {
        let (council, start) = (BTreeSet::from([GroupId::Council]), Instant::now());
        let mut unled = Unled::default();
        assert!(unled.for_long(&council, start).is_empty());
        assert!(unled.for_long(&council, start + LOOK).is_empty());
        assert_eq!(unled.for_long(&council, start + 2 * LOOK), council);

        let woken = start + Duration::from_secs(60);
        assert!(unled.for_long(&council, woken).is_empty(), "it slept");
        assert!(unled.for_long(&BTreeSet::new(), woken + LOOK).is_empty());
        assert!(unled.for_long(&council, woken + 2 * LOOK).is_empty(), "it was led in between");
    }
}
