//! What the parts of a node share: one handle through which sessions, partitions and peers meet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use scatterhoard_cluster::{Advert, Gossip, Leadership, Network, Peers, View};
use scatterhoard_replication::{Groups, Tables};
use scatterhoard_ring::{Endpoints, GroupId, NodeId, PartitionId, Slot, Standing, Table};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::caretaker::{Held, Replicas};
use crate::chance::Chance;
use crate::clients::Clients;
use crate::clock::MeasuredClock;
use crate::config::Config;
use crate::hosting::Hosting;
use crate::near::Near;
use crate::pilot::Desk;
use crate::recovery::Recovery;
use crate::reseat::Deaths;
use crate::route::{Hint, Route, route};
use crate::settings::Settings;
use crate::stats::Stats;
use crate::tracking::Tracking;

/// Version of the program, as told to peers and clients.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the parts of a node share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) node: NodeId,
    pub(crate) name: String,
    /// Where others reach us.
    pub(crate) endpoints: Endpoints,
    pub(crate) started: Instant,
    pub(crate) net: Arc<dyn Network>,
    pub(crate) wall: Arc<MeasuredClock>,
    pub(crate) chance: Arc<Chance>,
    pub(crate) tables: Tables,
    pub(crate) peers: Peers,
    pub(crate) groups: Groups,
    pub(crate) hosting: Hosting,
    pub(crate) replicas: Replicas,
    pub(crate) gossip: OnceLock<Gossip>,
    /// What gossip says. Empty until a cluster is known.
    pub(crate) views: watch::Sender<Arc<View>>,
    /// Counts changes of who leads what, for those who wait for one.
    pub(crate) routes: watch::Sender<u64>,
    /// What may be changed while running.
    pub(crate) settings: Settings,
    pub(crate) clients: Clients,
    pub(crate) stats: Arc<Stats>,
    pub(crate) tracking: Arc<Tracking>,
    pub(crate) near: Arc<Near>,
    /// What leaders have reported, for the council.
    pub(crate) desk: Desk,
    /// What became of replicas here whose Raft core died.
    pub(crate) deaths: Deaths,
    /// We are leaving: nothing new is begun.
    pub(crate) leaving: AtomicBool,
    /// Somebody asked this node to leave.
    pub(crate) leave_asked: CancellationToken,
    /// Somebody asked this node to found a cluster although others do not answer.
    pub(crate) found_asked: CancellationToken,
    /// What is known of groups that have lost their quorum.
    pub(crate) recovery: Recovery,
    /// Its groups are closed for good: nothing is opened or founded here any more.
    pub(crate) departed: CancellationToken,
    /// The cluster has dismissed this node.
    pub(crate) dismissed: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Core {
    /// Who serves a slot, as far as is known.
    pub(crate) fn route(&self, slot: Slot) -> Route {
        let hosted = self.hosting.now();
        if let Some(partition) = hosted.at(slot)
            && partition.leads()
        {
            return Route::Serve(Arc::clone(partition));
        }
        let Some(table) = self.tables.newest() else { return Route::Unknown };
        match self.leader_of(&table, GroupId::Partition(table.partition_of(slot))) {
            Some(node) => self.elsewhere(&table, node),
            None => Route::Unknown,
        }
    }

    /// The node that leads a group, as far as is known; never this one unless it does.
    pub(crate) fn leader_of(&self, table: &Table, group: GroupId) -> Option<NodeId> {
        let ours = self.replicas.of(group);
        let own = ours.as_ref().map(|ours| {
            let leadership = *ours.leadership().borrow();
            Hint {
                generation: ours.spec().generation,
                term: leadership.term,
                node: leadership.leader.map(|leader| leader.node),
            }
        });
        let view = Arc::clone(&self.views.borrow());
        let told = view.alive.iter().flat_map(|(&node, seen)| {
            let of_it = seen.advert.leaderships.iter().filter(|lead| lead.group == group);
            of_it.map(move |lead| Hint {
                generation: lead.generation,
                term: lead.term,
                node: Some(node),
            })
        });
        let leads = ours.is_some_and(|ours| ours.leads());
        // A follower goes on naming a leader that has died until there is another; gossip sees it go.
        let seems_alive = |node| node == self.node && leads || view.alive.contains_key(&node);
        // Who led a generation that was given up is no leader, whatever it says.
        let current = table.generation(group);
        let own = own.filter(|hint| Some(hint.generation) >= current);
        let told = told.filter(|hint| Some(hint.generation) >= current);
        route(own, told)
            .filter(|&node| table.members.contains_key(&node) && seems_alive(node))
            .filter(|&node| node != self.node || leads)
    }

    /// Who leads each partition: its leader, or who should be if none is known, so that no slot is
    /// ever without an owner in what clients are told.
    pub(crate) fn owners(&self, table: &Table) -> BTreeMap<PartitionId, NodeId> {
        let owner = |(&id, partition): (&PartitionId, &scatterhoard_ring::Partition)| {
            let wanted = partition.placement.leader_node();
            let any = partition.placement.nodes().next();
            let node = self.leader_of(table, GroupId::Partition(id)).or(wanted).or(any)?;
            table.members.contains_key(&node).then_some((id, node))
        };
        table.partitions.iter().filter_map(owner).collect()
    }

    /// Tells everyone, by gossip, what has changed about this node.
    pub(crate) fn advertise(&self) {
        if let Some(gossip) = self.gossip.get() {
            gossip.publish(&self.advert());
        }
    }

    /// What gossip says about this node.
    pub(crate) fn advert(&self) -> Advert {
        let led = self.replicas.all().into_iter().filter(|held| held.group.leads());
        let leadership = |held: Held| Leadership {
            group: held.group.spec().group,
            generation: held.group.spec().generation,
            term: held.group.leadership().borrow().term,
        };
        Advert {
            name: self.name.clone(),
            zone: self.config.zone.clone(),
            version: VERSION.to_owned(),
            endpoints: self.endpoints,
            epoch: self.tables.newest().map(|table| table.epoch).unwrap_or_default(),
            leaderships: led.map(leadership).collect(),
            budget_bytes: self.replica_budget(),
            standing: if self.leaving.load(Ordering::SeqCst) {
                Standing::Leaving
            } else {
                Standing::Active
            },
        }
    }

    /// Bytes that this node grants each replica it hosts: an even share of its memory.
    pub(crate) fn replica_budget(&self) -> u64 {
        match (self.settings.maxmemory(), self.hosting.now().iter().count()) {
            (0, _) | (_, 0) => u64::MAX,
            (bytes, count) => bytes / count as u64,
        }
    }

    /// The addresses that the configuration names for joining: those that can be resolved, and the
    /// names that cannot.
    pub(crate) async fn join_addresses(&self) -> (BTreeSet<SocketAddr>, Vec<String>) {
        let (mut addresses, mut unresolved) = (BTreeSet::new(), Vec::new());
        for name in &self.config.join {
            match self.net.resolve(name).await {
                Ok(found) if !found.is_empty() => addresses.extend(found),
                Ok(_) | Err(_) => unresolved.push(name.clone()),
            }
        }
        (addresses, unresolved)
    }

    /// Bytes that a value may have, by the cluster's settings.
    pub(crate) fn value_bytes_max(&self) -> usize {
        let table = self.tables.newest();
        table.map_or(self.config.value_bytes_max, |table| table.settings.value_bytes_max as usize)
    }

    /// Tells those who wait that routing may have changed.
    pub(crate) fn routes_changed(&self) {
        self.routes.send_modify(|version| *version += 1);
    }

    fn elsewhere(&self, table: &Table, node: NodeId) -> Route {
        match table.members.get(&node) {
            Some(member) if node != self.node => {
                Route::Elsewhere { node, endpoints: member.endpoints }
            }
            _ => Route::Unknown,
        }
    }
}
