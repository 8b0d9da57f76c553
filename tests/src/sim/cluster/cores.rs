//! Raft cores that die while their node lives.

use std::net::IpAddr;

use scatterhoard_ring::{GroupId, Slot, Table};

use super::{Cluster, WATCHER};
use crate::sim::rogue::Rogue;

/// Which group of a cluster.
#[derive(Clone, Copy, Debug)]
enum Which {
    Council,
    Of(Slot),
}

impl Cluster {
    /// The core of a node's replica of a key's partition dies, of an entry that it cannot apply.
    ///
    /// # Panics
    /// If the node has no such replica, or its core does not die.
    #[track_caller]
    pub fn kill_core(&mut self, node: usize, key: &str) {
        self.kill_core_of(node, Which::Of(Slot::of(key.as_bytes())));
    }

    /// The core of a node's replica of the council dies.
    ///
    /// # Panics
    /// If the node has none, or its core does not die.
    #[track_caller]
    pub fn kill_council_core(&mut self, node: usize) {
        self.kill_core_of(node, Which::Council);
    }

    /// The groups of which a node keeps a replica whose core died, each with the reason why it is not
    /// replaced, if there is one.
    pub fn dead_on(&mut self, node: usize) -> Vec<(String, Option<String>)> {
        let statuses = self.statuses();
        let status = statuses.into_iter().find(|(it, _)| *it == node);
        status.map(|(_, status)| status.dead()).unwrap_or_default()
    }

    /// How many cores were killed so far.
    #[must_use]
    pub fn killed_count(&self) -> u64 {
        self.killed_count
    }

    /// How many cores have died on the nodes that run, in their present lives.
    pub fn deaths_count(&mut self) -> u64 {
        self.statuses().iter().map(|(_, status)| status.deaths_count()).sum()
    }

    #[track_caller]
    fn kill_core_of(&mut self, node: usize, which: Which) {
        self.note(format!("a core of n{node} dies: {which:?}"));
        self.killed_count += 1;
        let (ip, before) = (self.machine(node).ip, self.dead_on(node).len());
        self.until("a core has died", |cluster| {
            // An entry that came in between makes the rogue's one too late; then it tries again.
            cluster.run(WATCHER, poison(ip, which));
            cluster.dead_on(node).len() > before
        });
    }
}

async fn poison(victim: IpAddr, which: Which) {
    let rogue = Rogue::of(victim);
    if let Some(table) = rogue.table().await {
        let group = group(&table, which);
        let me = table.members.values().find(|member| member.endpoints.peer.ip() == victim);
        let placement = table.placement(group);
        let replica = me.and_then(|me| placement?.replica_on(me.node));
        if let Some(replica) = replica {
            rogue.poison(&table, group, replica).await;
        }
    }
    rogue.leave().await;
}

fn group(table: &Table, which: Which) -> GroupId {
    match which {
        Which::Council => GroupId::Council,
        Which::Of(slot) => GroupId::Partition(table.partition_of(slot)),
    }
}
