//! What every node does from time to time: budgets, expiry, the newest table, and whether it still
//! belongs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use scatterhoard_cluster::{Lane, Target};
use scatterhoard_ring::{GroupId, NodeId, Standing, Table};
use tokio::time::Instant;
use tracing::{error, info};

use crate::clock::WallClock as _;
use crate::core::Core;
use crate::kind::Kind;
use crate::partition::Partition;
use crate::{proposer, recovery};

/// How often.
const LOOK: Duration = Duration::from_millis(200);

/// How long a table may take to come.
const PULL_PATIENCE: Duration = Duration::from_secs(1);

/// Runs until shutdown.
pub(crate) async fn serve(core: Arc<Core>) {
    let mut said = false;
    loop {
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        pull_newer_table(&core).await;
        let Some(table) = core.tables.newest() else { continue };
        if !table.members.contains_key(&core.node) && is_expendable(&core, &mut said) {
            // It holds nothing and has no vote any more: nobody need wait for it.
            recovery::say_ended(&core, core.node).await;
            core.dismissed.cancel();
            return;
        }
        let standing = table.members.get(&core.node).map(|member| member.standing);
        if standing == Some(Standing::Leaving) && !core.leaving.load(Ordering::SeqCst) {
            info!("asked by the cluster to leave");
            core.leave_asked.cancel();
        }
        core.advertise();
        let (now, wall) = (Instant::now(), core.wall.now());
        for partition in core.hosting.now().iter() {
            partition.clock.keep_up(now, wall);
            set_limits(&core, &table, partition);
            partition.bureau.tidy(now);
            if partition.leads() && due(partition) {
                let partition = Arc::clone(partition);
                core.tasks.spawn(async move { proposer::propose_time(&partition).await });
            }
        }
        core.stats.sample();
    }
}

/// Whether a dismissed node may go. As long as a group still counts on a replica here, that replica
/// stays: its data may be needed, and dismissal is no proof that it is not.
fn is_expendable(core: &Core, said: &mut bool) -> bool {
    let held = core.replicas.all().len();
    if !*said && !core.leaving.load(Ordering::SeqCst) {
        *said = true;
        error!(held, "dismissed from the cluster; stopping once no group counts on this node");
    }
    held == 0
}

/// A partition may use what the poorest of its replicas' nodes grants it.
fn set_limits(core: &Core, table: &Table, partition: &Partition) {
    let view = Arc::clone(&core.views.borrow());
    let group = GroupId::Partition(partition.id);
    let nodes = table.placement(group).map(|placement| placement.nodes());
    let granted = nodes.into_iter().flatten().filter_map(|node| view.alive.get(&node));
    let least = granted.map(|seen| seen.advert.budget_bytes).min().unwrap_or(u64::MAX);
    partition.budget.bytes_max.store(least.min(core.replica_budget()), Ordering::Relaxed);
    *partition.budget.policy.lock() = core.settings.policy();
}

fn due(partition: &Partition) -> bool {
    let now = partition.time(Instant::now());
    partition.store.lock().due(now)
}

/// Gossip says who has a newer table than ours; it is asked for it.
async fn pull_newer_table(core: &Core) {
    let Some(ours) = core.tables.newest() else { return };
    let view = Arc::clone(&core.views.borrow());
    let newest = view.alive.values().max_by_key(|seen| seen.advert.epoch);
    let Some(seen) = newest.filter(|seen| seen.advert.epoch > ours.epoch) else { return };
    pull_table(core, seen.advert.endpoints.peer).await;
}

/// Adopts the table of whoever is bound to this address, if it is newer.
pub(crate) async fn pull_table(core: &Core, addr: SocketAddr) {
    let to = Target { node: NodeId::new(0), addr };
    let by = Instant::now() + PULL_PATIENCE;
    let call = core.peers.call(to, Lane::Control, Kind::Pull.number(), bytes::Bytes::new(), by);
    if let Ok(body) = call.await {
        take_table(core, &body);
    }
}

/// Adopts a table that came from a peer, if it is newer. Says whether it could be read.
pub(crate) fn take_table(core: &Core, body: &[u8]) -> bool {
    match Table::decode(body) {
        Ok(table) => {
            let epoch = table.epoch;
            if core.tables.adopt(Arc::new(table)) {
                info!(%epoch, "table adopted");
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, "a table that cannot be read");
            false
        }
    }
}
