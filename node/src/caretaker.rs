//! Opens the replicas that the table gives this node, and closes those that are proven to be gone.
//!
//! A replica is opened only for a replica id that the table names, and closed only on proof: a committed
//! membership without it that serves the table's placement, or a newer generation that stands on its own.
//! Never because of a table alone, a timeout or silence.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_replication::probe::{self, Event, Point};
use scatterhoard_replication::{Council, Group, GroupSpec, Timers};
use scatterhoard_ring::{Generation, GroupId, PartitionId, ReplicaId, Standing, Table};
use scatterhoard_store::{Store, UnixMillis};
use tokio::time::Instant;
use tracing::{error, info};

use crate::clock::PartitionClock;
use crate::core::Core;
use crate::machine::StoreMachine;
use crate::near::Bureau;
use crate::partition::Partition;
use crate::{proposer, reseat};

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

    /// Our replica of a group: of the latest generation, the one that leads if there are several, or the
    /// latest.
    pub(crate) fn of(&self, group: GroupId) -> Option<Arc<Group>> {
        let held = self.0.lock();
        let of_it = held.values().filter(|held| held.group.spec().group == group);
        of_it
            .max_by_key(|held| {
                let spec = held.group.spec();
                (spec.generation, held.group.leads(), spec.replica)
            })
            .map(|held| Arc::clone(&held.group))
    }

    /// Our replica of the council, if we have one.
    pub(crate) fn council(&self) -> Option<Arc<Group>> {
        self.of(GroupId::Council)
    }

    /// What is left here of a partition's earlier generations: the most advanced of it.
    fn remains(&self, partition: PartitionId, generation: Generation) -> Option<Held> {
        let group = GroupId::Partition(partition);
        let held = self.0.lock();
        let earlier = held.values().filter(|held| {
            held.group.spec().group == group && held.group.spec().generation < generation
        });
        let told = earlier.map(|held| (held.group.testimony(), held));
        let with_data = told.filter(|(told, _)| told.position.is_some());
        let best = with_data.max_by_key(|(told, _)| (told.generation, told.position));
        best.map(|(_, held)| held.clone())
    }

    fn get(&self, replica: ReplicaId) -> Option<Held> {
        self.0.lock().get(&replica).cloned()
    }

    /// Those whose Raft core died.
    pub(crate) fn dead(&self) -> Vec<Held> {
        self.all().into_iter().filter(|held| held.group.failure().is_some()).collect()
    }

    fn has(&self, replica: ReplicaId) -> bool {
        self.0.lock().contains_key(&replica)
    }
}

/// Opens and closes replicas until shutdown.
pub(crate) async fn serve(core: Arc<Core>) {
    let mut tables = core.tables.subscribe();
    loop {
        let knew_time = core.wall.is_known();
        let table = tables.borrow_and_update().clone();
        if let Some(table) = table {
            host(&core);
            open_missing(&core, &table).await;
            close_gone(&core, &table).await;
        }
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = core.departed.cancelled() => return,
            () = core.wall.known(), if !knew_time => {}
            changed = tables.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(ASK_AGAIN) => {}
        }
    }
}

/// Opens what the table gives us and is not open yet; partitions once the time is known: whoever came to lead one
/// without would stamp its log with whatever its own clock shows. Fresh replicas wait for their leader.
pub(crate) async fn open_missing(core: &Arc<Core>, table: &Arc<Table>) {
    let wanted: Vec<_> = table.replicas_on(core.node).collect();
    for (group, generation, replica) in wanted {
        if core.replicas.has(replica) || core.departed.is_cancelled() {
            continue;
        }
        match group {
            GroupId::Council => {
                let council = Council::empty(core.tables.clone());
                open_council(core, table, generation, replica, council).await;
            }
            GroupId::Partition(_) if !core.wall.is_known() => {}
            GroupId::Partition(partition) => {
                if table.partitions.get(&partition).is_some_and(|it| it.founder == replica)
                    && generation > Generation::new(1)
                {
                    found_anew(core, table, partition, generation, replica).await;
                    continue;
                }
                open_partition(core, table, partition, generation, replica, None).await;
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

/// Founds a partition's next generation from what this node has of an earlier one, if it has anything.
async fn found_anew(
    core: &Arc<Core>,
    table: &Table,
    id: PartitionId,
    generation: Generation,
    replica: ReplicaId,
) {
    let remains = match core.replicas.remains(id, generation) {
        Some(held) => take_store(core, &held).await,
        None => None,
    };
    let keys = remains.as_ref().map_or(0, Store::keys_count);
    error!(partition = %id, %generation, %replica, keys, "the partition is founded anew here");
    let opened = open_partition(core, table, id, generation, replica, remains).await;
    let (Some(partition), Some(placement)) = (opened, table.placement(GroupId::Partition(id)))
    else {
        return;
    };
    core.recovery.refounded();
    let epoch = placement.epoch;
    // A leader of the generation before may still have a lease. It was granted before the quorum was
    // lost, and lasts no longer than this.
    let lease = Duration::from_millis(table.settings.election_ms_max.into());
    core.tasks.spawn(async move {
        tokio::time::sleep(lease).await;
        probe::at(Point::BeforeFounding).await;
        partition.group.found(epoch).await;
    });
}

/// Ends a replica whose group is lost, and answers with the store that its whole log adds up to.
async fn take_store(core: &Core, held: &Held) -> Option<Store> {
    let partition = held.partition.as_ref()?;
    let (slots, table) = (partition.slots, core.tables.newest()?);
    wind_up(core, &held.group).await;
    // Taken out, not shared: whatever still holds the old replica must not touch it any more.
    let value_bytes_max = table.settings.value_bytes_max as usize;
    let empty = Store::new(slots, table.settings.hash_seed, value_bytes_max);
    let mut store = std::mem::replace(&mut *partition.store.lock(), empty);
    store.begin_log();
    Some(store)
}

/// Ends a replica whose group is lost, having applied all that its log holds.
pub(crate) async fn wind_up(core: &Core, group: &Group) {
    let spec = group.spec();
    core.replicas.0.lock().remove(&spec.replica);
    host(core);
    if let Err(corrupt) = core.groups.wind_up(group).await {
        error!(group = %spec.group, %corrupt, "the log of a lost group was applied only in part");
    }
}

/// Chooses the replica of each partition that sessions find here: of the generation in the table, the one
/// that leads if there are several, or the latest. Replicas of a generation that was given up serve
/// nobody, and stay for their data.
fn host(core: &Core) {
    let Some(table) = core.tables.newest() else { return };
    core.hosting.refresh(|| {
        let mut chosen: BTreeMap<PartitionId, ((bool, ReplicaId), Arc<Partition>)> =
            BTreeMap::new();
        for Held { group, partition } in core.replicas.all() {
            let spec = group.spec();
            let Some(partition) = partition else { continue };
            if table.generation(spec.group) != Some(spec.generation) {
                continue;
            }
            let rank = (group.leads(), spec.replica);
            if chosen.get(&partition.id).is_none_or(|(best, _)| *best < rank) {
                chosen.insert(partition.id, (rank, partition));
            }
        }
        chosen.into_iter().map(|(id, (_, partition))| (id, partition)).collect()
    });
}

/// Opens a replica of a partition: empty, or with what it is founded from.
pub(crate) async fn open_partition(
    core: &Arc<Core>,
    table: &Table,
    id: PartitionId,
    generation: Generation,
    replica: ReplicaId,
    remains: Option<Store>,
) -> Option<Arc<Partition>> {
    let slots = table.partitions.get(&id)?.slots;
    let seed = table.settings.hash_seed;
    let value_bytes_max = table.settings.value_bytes_max as usize;
    let log = generation.number();
    let empty = move || Store::new(slots, seed, value_bytes_max).of_generation(log);
    let remains = remains.map(|store| store.of_generation(log));
    let store = Arc::new(Mutex::new(remains.unwrap_or_else(empty)));
    let clock = Arc::new(PartitionClock::new(Instant::now(), UnixMillis::new(0)));
    let bureau = Arc::new(Bureau::new(core, replica, generation, seed));
    let machine = Arc::new(StoreMachine {
        replica,
        store: Arc::clone(&store),
        clock: Arc::clone(&clock),
        skew_ms_max: table.settings.clock_skew_ms_max.into(),
        wall: core.wall.clone(),
        stats: Arc::clone(&core.stats),
        tracking: Arc::clone(&core.tracking),
        bureau: Arc::clone(&bureau),
        partition: id,
        near: Arc::clone(&core.near),
        empty: Box::new(empty),
    });
    let spec = spec_of(core, table, GroupId::Partition(id), generation, replica);
    let state: Arc<dyn Any + Send + Sync> = Arc::<Mutex<Store>>::clone(&store);
    probe::saw(|| Event::Holds { of: spec.founded(), replica, state: &state });
    let group = core.groups.open(spec, machine, &core.tables).await;
    let (partition, queue) = Partition::new(
        slots,
        id,
        Arc::clone(&group),
        store,
        clock,
        bureau,
        usize::from(table.settings.replicas_min),
    );
    core.tasks.spawn(proposer::serve(Arc::clone(core), Arc::clone(&partition), queue));
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
        log_bytes_max: core.config.log_bytes_max,
    }
}

fn hold(core: &Arc<Core>, held: Held) {
    let group = Arc::clone(&held.group);
    core.replicas.0.lock().insert(group.spec().replica, held);
    host(core);
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        let mut leadership = group.leadership();
        loop {
            tokio::select! {
                biased;
                () = group.closed() => break,
                changed = leadership.changed() => if changed.is_err() { break },
            }
            host(&core);
            core.routes_changed();
            core.advertise();
        }
        host(&core);
        core.routes_changed();
        reseat::give_up(&core, &group).await;
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
    let newer = table.generation(spec.group).filter(|&now| now > spec.generation);
    if let Some(generation) = newer {
        return match spec.group {
            // There is a table of a newer generation only if that was founded.
            GroupId::Council => true,
            GroupId::Partition(_) => {
                is_founded(core, table, &GroupSpec { generation, ..*spec }).await
            }
        };
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

/// Whether the group's generation stands on as many voters as it should have: until then, what is left
/// of the one before may be needed once more.
async fn is_founded(core: &Core, table: &Table, spec: &GroupSpec) -> bool {
    let active = table.members.values().filter(|it| it.standing == Standing::Active).count();
    let wanted = usize::from(table.settings.replicas).min(active).max(1);
    let Some(placement) = table.placement(spec.group) else { return false };
    for replica in &placement.replicas {
        let voters_count = match core.replicas.get(replica.id) {
            Some(held) => Some(held.group.members().voters.len()),
            None => {
                let roll = core.groups.roll_of(replica.node, spec, replica.id).await;
                roll.map(|roll| roll.voters_count)
            }
        };
        if voters_count.is_some_and(|count| count >= wanted) {
            return true;
        }
    }
    false
}

async fn close(core: &Core, held: &Held) {
    let spec = held.group.spec();
    probe::at(Point::BeforeDrop).await;
    probe::saw(|| Event::Dropped { of: spec.founded(), replica: spec.replica });
    core.replicas.0.lock().remove(&spec.replica);
    host(core);
    core.groups.close(spec.replica).await;
    info!(group = %spec.group, replica = %spec.replica, "replica closed: it is not a member any more");
    core.routes_changed();
}
