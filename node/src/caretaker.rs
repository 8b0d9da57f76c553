//! Opens the replicas that the table gives this node, and closes those that are proven to be gone.
//!
//! A replica is opened only for a replica id that the table names, and closed only on proof: a committed
//! membership without it that serves the table's placement, or a newer generation. Never because of a
//! table alone, a timeout or silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_replication::{Council, Group, GroupSpec, Timers};
use scatterhoard_ring::{Generation, GroupId, PartitionId, ReplicaId, Table};
use scatterhoard_store::{Store, UnixMillis};
use tokio::time::Instant;
use tracing::info;

use crate::clock::PartitionClock;
use crate::core::Core;
use crate::machine::StoreMachine;
use crate::partition::Partition;
use crate::proposer;

/// How often replicas that the table does not name any more are asked after.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The replicas open on this node, the council's included.
#[derive(Default)]
pub(crate) struct Replicas(Mutex<BTreeMap<ReplicaId, Held>>);

#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) group: Arc<Group>,
    /// None for the council.
    pub(crate) partition: Option<Arc<Partition>>,
}

impl Replicas {
    /// Everything that is open.
    pub(crate) fn all(&self) -> Vec<Held> {
        self.0.lock().values().cloned().collect()
    }

    /// Our replica of a group: the one that leads if there are several, or the latest.
    pub(crate) fn of(&self, group: GroupId) -> Option<Arc<Group>> {
        let held = self.0.lock();
        let of_it = held.values().filter(|held| held.group.spec().group == group);
        of_it
            .max_by_key(|held| {
                let spec = held.group.spec();
                (held.group.leads(), spec.generation, spec.replica)
            })
            .map(|held| Arc::clone(&held.group))
    }

    /// Our replica of the council, if we have one.
    pub(crate) fn council(&self) -> Option<Arc<Group>> {
        self.of(GroupId::Council)
    }

    fn has(&self, replica: ReplicaId) -> bool {
        self.0.lock().contains_key(&replica)
    }
}

/// Opens and closes replicas until shutdown.
pub(crate) async fn serve(core: Arc<Core>) {
    let mut tables = core.tables.subscribe();
    loop {
        let table = tables.borrow_and_update().clone();
        if let Some(table) = table {
            open_missing(&core, &table).await;
            close_gone(&core, &table).await;
        }
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            changed = tables.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(ASK_AGAIN) => {}
        }
    }
}

/// Opens what the table gives us and is not open yet. Fresh replicas wait for their leader.
pub(crate) async fn open_missing(core: &Arc<Core>, table: &Arc<Table>) {
    let wanted: Vec<_> = table.replicas_on(core.node).collect();
    for (group, generation, replica) in wanted {
        if core.replicas.has(replica) {
            continue;
        }
        match group {
            GroupId::Council => {
                let council = Council::empty(core.tables.clone());
                open_council(core, table, generation, replica, council).await;
            }
            GroupId::Partition(partition) => {
                open_partition(core, table, partition, generation, replica).await;
            }
        }
    }
}

/// Opens a replica of the council with the given machine.
pub(crate) async fn open_council(
    core: &Arc<Core>,
    table: &Table,
    generation: Generation,
    replica: ReplicaId,
    machine: Arc<Council>,
) -> Arc<Group> {
    let spec = spec_of(core, table, GroupId::Council, generation, replica);
    let group = core.groups.open(spec, machine, &core.tables).await;
    info!(%replica, "council replica opened");
    hold(core, Held { group: Arc::clone(&group), partition: None });
    group
}

/// Opens a replica of a partition, empty.
pub(crate) async fn open_partition(
    core: &Arc<Core>,
    table: &Table,
    id: PartitionId,
    generation: Generation,
    replica: ReplicaId,
) -> Option<Arc<Partition>> {
    let slots = table.partitions.get(&id)?.slots;
    let seed = table.settings.hash_seed;
    let value_bytes_max = table.settings.value_bytes_max as usize;
    let empty = move || Store::new(slots, seed, value_bytes_max);
    let store = Arc::new(Mutex::new(empty()));
    let clock = Arc::new(PartitionClock::new(Instant::now(), UnixMillis::new(0)));
    let machine = Arc::new(StoreMachine {
        store: Arc::clone(&store),
        clock: Arc::clone(&clock),
        skew_ms_max: table.settings.clock_skew_ms_max.into(),
        wall: core.wall.clone(),
        stats: Arc::clone(&core.stats),
        empty: Box::new(empty),
    });
    let spec = spec_of(core, table, GroupId::Partition(id), generation, replica);
    let group = core.groups.open(spec, machine, &core.tables).await;
    let (partition, queue) = Partition::new(
        slots,
        id,
        Arc::clone(&group),
        store,
        clock,
        usize::from(table.settings.replicas_min),
    );
    core.tasks.spawn(proposer::serve(Arc::clone(core), Arc::clone(&partition), queue));
    core.hosting.add(Arc::clone(&partition));
    info!(partition = %id, %replica, "replica opened");
    hold(core, Held { group, partition: Some(Arc::clone(&partition)) });
    Some(partition)
}

fn spec_of(
    core: &Core,
    table: &Table,
    group: GroupId,
    generation: Generation,
    replica: ReplicaId,
) -> GroupSpec {
    GroupSpec {
        cluster: table.cluster,
        group,
        generation,
        replica,
        node: core.node,
        timers: Timers::of(table),
    }
}

fn hold(core: &Arc<Core>, held: Held) {
    let group = Arc::clone(&held.group);
    core.replicas.0.lock().insert(group.spec().replica, held);
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        let mut leadership = group.leadership();
        loop {
            tokio::select! {
                biased;
                () = group.closed() => break,
                changed = leadership.changed() => if changed.is_err() { break },
            }
            core.routes_changed();
            core.advertise();
        }
        core.routes_changed();
    });
}

/// Asks after replicas that the table does not name, and closes those that are proven to be gone.
async fn close_gone(core: &Arc<Core>, table: &Arc<Table>) {
    let named: BTreeSet<_> = table.replicas_on(core.node).map(|(_, _, replica)| replica).collect();
    for held in core.replicas.all() {
        let spec = *held.group.spec();
        if named.contains(&spec.replica) {
            continue;
        }
        if is_gone(core, table, &spec).await {
            close(core, &held).await;
        }
    }
}

async fn is_gone(core: &Core, table: &Table, spec: &GroupSpec) -> bool {
    let newer = table.generation(spec.group).is_some_and(|now| now > spec.generation);
    if newer {
        return true;
    }
    let Some(placement) = table.placement(spec.group) else { return false };
    for replica in &placement.replicas {
        if let Some(roll) = core.groups.roll_of(replica.node, spec, replica.id).await
            && roll.proves_gone(spec.replica, placement.epoch)
        {
            return true;
        }
    }
    false
}

async fn close(core: &Core, held: &Held) {
    let spec = held.group.spec();
    core.replicas.0.lock().remove(&spec.replica);
    if let Some(partition) = &held.partition {
        let of_it = |it: Held| it.partition.filter(|other| other.id == partition.id);
        let other = core.replicas.all().into_iter().filter_map(of_it).last();
        core.hosting.remove(partition, other);
    }
    core.groups.close(spec.replica).await;
    info!(group = %spec.group, replica = %spec.replica, "replica closed: it is not a member any more");
    core.routes_changed();
}
