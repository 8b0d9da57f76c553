//! What the council's leader does: it plans from what leaders report and gossip shows, and dismisses
//! members that have been gone for long enough. Runs on every node; acts only on the one that leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use scatterhoard_cluster::{Lane, Target};
use scatterhoard_ring::{Change, Epoch, NodeId, Report, Reports, Table, known_to_all, plan};
use scatterhoard_ring::{GroupId, PartitionId};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::core::Core;
use crate::council;
use crate::kind::Kind;

/// How often the plan is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A look that comes later than this shows that this process did not run, and so could not see others.
const GAP_MAX: Duration = Duration::from_millis(1500);

/// How often leaders report, and how old a report may be that still counts.
const REPORT_EVERY: Duration = Duration::from_millis(200);
const REPORT_AGE_MAX: Duration = Duration::from_secs(3);

/// Changes made in one look. More can wait for the next.
const CHANGES_COUNT_MAX: usize = 16;

/// How the council is written in a report.
const COUNCIL: u32 = u32::MAX;

/// What leaders have reported to this node, and which tables members are known to have.
#[derive(Default)]
pub(crate) struct Desk {
    reports: Mutex<BTreeMap<GroupId, (Report, Instant)>>,
    informed: Mutex<BTreeMap<NodeId, Epoch>>,
    /// A member has got to know a newer table.
    news: Notify,
}

impl Desk {
    fn put(&self, group: GroupId, report: Report) {
        let mut reports = self.reports.lock();
        let age = |report: &Report| (report.generation, report.term);
        let newer = reports.get(&group).is_none_or(|(held, _)| age(held) <= age(&report));
        if newer {
            reports.insert(group, (report, Instant::now()));
        }
    }

    /// The reports that are not too old to count.
    pub(crate) fn reports(&self) -> Reports {
        let mut reports = self.reports.lock();
        reports.retain(|_, (_, at)| at.elapsed() < REPORT_AGE_MAX);
        reports.iter().map(|(&group, (report, _))| (group, report.clone())).collect()
    }

    /// Takes note that a member has a table of this epoch.
    pub(crate) fn has(&self, node: NodeId, epoch: Epoch) {
        let mut informed = self.informed.lock();
        let known = informed.entry(node).or_default();
        if *known < epoch {
            *known = epoch;
            self.news.notify_one();
        }
    }

    /// Who of the members all others know of.
    pub(crate) fn known(&self, table: &Table) -> BTreeSet<NodeId> {
        let mut informed = self.informed.lock();
        informed.retain(|node, _| table.members.contains_key(node));
        known_to_all(table, &informed)
    }

    /// What is known of a group, for people.
    pub(crate) fn report(&self, group: GroupId) -> Option<Report> {
        self.reports.lock().get(&group).map(|(report, _)| report.clone())
    }
}

/// Plans while this node leads the council.
pub(crate) async fn serve(core: Arc<Core>) {
    let mut watch = Watch::default();
    let mut tables = core.tables.subscribe();
    loop {
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            changed = tables.changed() => if changed.is_err() { return },
            () = core.desk.news.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        if !council::leads(&core) {
            watch = Watch::default();
            continue;
        }
        look(&core, &mut watch).await;
    }
}

async fn look(core: &Arc<Core>, watch: &mut Watch) {
    let view = Arc::clone(&core.views.borrow());
    let mut alive: BTreeSet<_> = view.alive.keys().copied().collect();
    alive.insert(core.node);
    for _ in 0..CHANGES_COUNT_MAX {
        let Some(table) = core.tables.newest() else { return };
        let seen = |node: NodeId| alive.contains(&node) || core.peers.connected(node);
        let reports = core.desk.reports();
        let gone = watch.gone(&table, Instant::now(), seen);
        let gone = gone.filter(|&node| is_dispensable(&table, &reports, node));
        // With less than a majority in view, the view is not ripe yet: moving what seems to be lost
        // would move everything here.
        let ripe = 2 * table.members.keys().filter(|node| alive.contains(node)).count()
            > table.members.len();
        core.desk.has(core.node, table.epoch);
        for (&node, seen) in view.alive.iter().filter(|(node, _)| table.members.contains_key(node))
        {
            core.desk.has(node, seen.advert.epoch);
        }
        let known = core.desk.known(&table);
        let planned = || plan(&table, &reports, &alive, &known).filter(|_| ripe);
        let change = gone.map(|node| Change::Dismiss { node }).or_else(planned);
        let Some(change) = change else { return };
        info!(?change, "the council decides");
        match council::propose(core, &change).await {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => return warn!(%refusal, "the table refused the plan"),
            Err(error) => return warn!(%error, "the council could not decide"),
        }
    }
}

/// Whether every group that a silent member belongs to lives without it: its leader has lately heard
/// from a quorum. Otherwise the member may hold what nobody else has, and silence is no reason to give
/// that up.
fn is_dispensable(table: &Table, reports: &Reports, node: NodeId) -> bool {
    let with_it = table.groups().filter(|(_, _, placement)| placement.replica_on(node).is_some());
    with_it.into_iter().all(|(group, generation, placement)| {
        let others = placement.nodes().any(|other| other != node);
        others && reports.get(&group).is_some_and(|report| report.generation == generation)
    })
}

/// Since when each member has not been seen, by a node that was awake all the time.
#[derive(Default)]
struct Watch {
    looked: Option<Instant>,
    unseen: BTreeMap<NodeId, Instant>,
}

impl Watch {
    /// A member that nobody has seen for as long as the cluster has agreed to wait.
    fn gone(
        &mut self,
        table: &Table,
        now: Instant,
        seen: impl Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        if self.looked.is_some_and(|looked| now - looked > GAP_MAX) {
            self.unseen.clear();
        }
        self.looked = Some(now);
        self.unseen.retain(|node, _| table.members.contains_key(node) && !seen(*node));
        for &node in table.members.keys().filter(|&&node| !seen(node)) {
            self.unseen.entry(node).or_insert(now);
        }
        let patience = Duration::from_millis(table.settings.replace_after_ms.into());
        self.unseen.iter().find(|&(_, &since)| now - since >= patience).map(|(&node, _)| node)
    }
}

/// Tells the council's leader what this node leads, as long as the node runs.
pub(crate) async fn report(core: Arc<Core>) {
    loop {
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(REPORT_EVERY) => {}
        }
        let Some(table) = core.tables.newest() else { continue };
        let mut body = BytesMut::new();
        for held in core.replicas.all() {
            let Some(report) = held.group.report() else { continue };
            put_report(&mut body, held.group.spec().group, &report);
            core.desk.put(held.group.spec().group, report);
        }
        if body.is_empty() || council::leads(&core) {
            continue;
        }
        let leader = council::leader(&core, &table);
        if let Some(member) = leader.and_then(|node| table.members.get(&node)) {
            let to = Target { node: member.node, addr: member.endpoints.peer };
            core.peers.send(to, Lane::Control, Kind::Report.number(), body.freeze());
        }
    }
}

fn put_report(out: &mut BytesMut, group: GroupId, report: &Report) {
    let bytes = report.encode();
    out.put_u32(match group {
        GroupId::Council => COUNCIL,
        GroupId::Partition(partition) => partition.number().into(),
    });
    out.put_u32(u32::try_from(bytes.len()).expect("a report is a few hundred bytes"));
    out.put_slice(&bytes);
}

/// Takes what another node reports.
pub(crate) fn take_reports(core: &Core, mut body: Bytes) {
    while let (Ok(group), Ok(length)) = (body.try_get_u32(), body.try_get_u32()) {
        let length = length as usize;
        if length > body.len() {
            return;
        }
        let bytes = body.split_to(length);
        let group = match (group, u16::try_from(group)) {
            (COUNCIL, _) => GroupId::Council,
            (_, Ok(number)) => GroupId::Partition(PartitionId::new(number)),
            (_, Err(_)) => return,
        };
        if let Ok(report) = Report::decode(&bytes) {
            core.desk.put(group, report);
        }
    }
}

#[cfg(test)]
mod tests {
    use scatterhoard_ring::{
        ClusterId, Endpoints, Epoch, Generation, Member, Settings, Standing, Table,
    };

    use super::*;

    fn table() -> Table {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let founder = Member {
            node: NodeId::new(1),
            name: "a".to_owned(),
            zone: String::new(),
            endpoints: Endpoints { peer: addr, listen: addr, any_key: addr, http: addr },
            standing: Standing::Active,
            admitted: Epoch::default(),
            version: String::new(),
        };
        let epoch = Epoch { generation: Generation::new(1), index: 0 };
        Table::found(ClusterId::new(1), Settings::default(), founder, 1, epoch)
            .expect("a valid founding")
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_is_gone_after_the_agreed_silence() {
        let (table, mut watch, start) = (table(), Watch::default(), Instant::now());
        let mut last = None;
        for tick in 0..301 {
            last = watch.gone(&table, start + tick * LOOK, |_| false);
            assert_eq!(last.is_some(), tick >= 300, "tick {tick}");
        }
        assert_eq!(last, Some(NodeId::new(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_slept_blames_nobody() {
        let (table, mut watch, start) = (table(), Watch::default(), Instant::now());
        assert_eq!(watch.gone(&table, start, |_| false), None);
        let later = start + Duration::from_secs(3600);
        assert_eq!(watch.gone(&table, later, |_| false), None);
        assert_eq!(watch.gone(&table, later + LOOK, |_| false), None);
    }

    #[tokio::test(start_paused = true)]
    async fn being_seen_once_starts_the_count_anew() {
        let (table, mut watch, start) = (table(), Watch::default(), Instant::now());
        for tick in 0..600 {
            let gone = watch.gone(&table, start + tick * LOOK, |_| tick == 299);
            assert_eq!(gone, None, "tick {tick}");
        }
    }
}
