//! What a node tells people about itself and the cluster.

use std::collections::{BTreeMap, BTreeSet};

use scatterhoard_replication::Members;
use scatterhoard_ring::{
    GroupId, NodeId, PartitionId, Placement, Report, Standing, Table, councillors_wanted,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::caretaker::Held;
use crate::core::Core;

/// Why the cluster is not ready, as this node sees it; empty if it is.
///
/// Ready: this node is a member, there are as many as writes need, every partition has a leader, as many voters as it should have and no
/// old ones, and no member leads more than one partition more than another.
pub(crate) fn not_ready(core: &Core) -> Vec<String> {
    let Some(table) = core.tables.newest() else {
        return vec!["not a member of a cluster yet".to_owned()];
    };
    if !table.members.contains_key(&core.node) {
        return vec!["the table does not name this node".to_owned()];
    }
    let mut reasons = lost(core, &table);
    if !core.wall.is_known() {
        reasons.push("this node does not know the time yet, so it opens no partition".to_owned());
    }
    let active = table.members.values().filter(|member| member.standing == Standing::Active);
    let active_count = active.clone().count();
    let wanted = usize::from(table.settings.replicas).min(active_count);
    let needed = usize::from(table.settings.replicas_min);
    if active_count < needed {
        reasons.push(format!(
            "writes are refused: {active_count} of the {needed} nodes that --min-replicas asks for"
        ));
    }
    reasons.extend(council(core, &table, active_count));
    let mut leads: BTreeMap<NodeId, usize> = active.map(|member| (member.node, 0)).collect();
    for (&id, partition) in &table.partitions {
        reasons.extend(misplaced(core, &table, id, partition, wanted));
        if let Some(node) = core.leader_of(&table, GroupId::Partition(id)) {
            *leads.entry(node).or_default() += 1;
        }
    }
    // What this node believes of others is as old as its word from them. Connections end with a process,
    // long before gossip misses it. And whoever ends unseen may have decided what nobody else knows.
    for member in table.members.values() {
        let is_there = || core.peers.connected(member.node) && core.recovery.has_seen(member.node);
        if member.node != core.node && !is_there() {
            reasons.push(format!("{} is not connected", member.name));
        }
    }
    for (group, why) in core.recovery.losses() {
        reasons.push(format!("{group} has lost its quorum and {why}"));
    }
    let (least, most) = (leads.values().min(), leads.values().max());
    if let (Some(least), Some(most)) = (least, most)
        && most - least > 1
    {
        reasons.push(format!("leaders are not balanced: between {least} and {most} for each node"));
    }
    reasons
}

/// What is not as it should be with the council: the loss of one more councillor may be one too many.
fn council(core: &Core, table: &Table, active_count: usize) -> Option<String> {
    let (placed, wanted) = (table.council.replicas.len(), councillors_wanted(active_count));
    if placed < wanted {
        return Some(format!("the council is placed on {placed} nodes of {wanted}"));
    }
    table.council.replica_on(core.node)?;
    let Some(group) = core.replicas.council() else {
        return Some("the council is not open here yet".to_owned());
    };
    short_of(&group.members(), &table.council).map(|lack| format!("the council has {lack}"))
}

/// What a group's membership, as a replica here knows it, lacks of its placement.
fn short_of(seen: &Members, placement: &Placement) -> Option<String> {
    let wanted: BTreeSet<_> = placement.ids().collect();
    let settled = seen.voters == wanted && seen.learners.is_empty();
    (!settled).then(|| {
        let voters = seen.voters.intersection(&wanted).count();
        format!("{voters} voters of {}", wanted.len())
    })
}

/// What is not as it should be with one partition.
fn misplaced(
    core: &Core,
    table: &Table,
    id: PartitionId,
    partition: &scatterhoard_ring::Partition,
    wanted: usize,
) -> Vec<String> {
    let mut reasons = Vec::new();
    match core.leader_of(table, GroupId::Partition(id)) {
        Some(node) if node == core.node && !has_quorum(core, id) => {
            reasons.push(format!("partition {id} is led here without a quorum"));
        }
        Some(node) => {
            let heir = partition.placement.leader_node().filter(|&wanted| wanted != node);
            if let Some(heir) = heir {
                let heir = table.members.get(&heir).map_or("nobody", |it| &it.name);
                reasons.push(format!("partition {id} is being handed to {heir}"));
            }
        }
        None => reasons.push(format!("partition {id} has no leader that is known here")),
    }
    let placed = partition.placement.replicas.len();
    if placed < wanted {
        reasons.push(format!("partition {id} is placed on {placed} nodes of {wanted}"));
    }
    reasons.extend(unsettled(core, table, id));
    reasons
}

/// Replicas here whose core died, and which the table still counts on.
fn lost(core: &Core, table: &Table) -> Vec<String> {
    let dead = core.replicas.dead().into_iter();
    let named = dead.filter(|held| {
        let spec = held.group.spec();
        table.replicas_on(core.node).any(|(_, _, replica)| replica == spec.replica)
    });
    named.map(|held| format!("the replica of {} here died", held.group.spec().group)).collect()
}

/// Whether the replica that leads here has lately heard from a quorum.
fn has_quorum(core: &Core, id: PartitionId) -> bool {
    let hosted = core.hosting.now();
    hosted.of_partition(id).is_some_and(|partition| partition.group.report().is_some())
}

/// What a replica here knows of its group's membership, held against the table.
fn unsettled(core: &Core, table: &Table, id: PartitionId) -> Option<String> {
    let placement = &table.partitions.get(&id)?.placement;
    let hosted = core.hosting.now();
    let seen = match hosted.of_partition(id) {
        Some(partition) => partition.group.members(),
        None => {
            let missing = placement.replica_on(core.node).is_some();
            return missing.then(|| format!("partition {id} is not open here yet"));
        }
    };
    short_of(&seen, placement).map(|lack| format!("partition {id} has {lack}"))
}

/// The whole state as JSON, for `hoard status` and other programs.
pub(crate) fn json(core: &Core) -> Value {
    let Some(table) = core.tables.newest() else {
        return json!({ "cluster": null, "node": core.node.to_string(), "name": core.name });
    };
    let name_of = |node: NodeId| table.members.get(&node).map(|member| member.name.clone());
    let leaders: BTreeMap<_, _> = table
        .partitions
        .keys()
        .filter_map(|&id| Some((id, core.leader_of(&table, GroupId::Partition(id))?)))
        .collect();
    let council_leader = core.leader_of(&table, GroupId::Council).and_then(name_of);
    json!({
        "cluster": table.cluster.to_string(),
        "epoch": table.epoch.to_string(),
        "node": core.node.to_string(),
        "name": core.name,
        "version": crate::core::VERSION,
        "wall_clock_ms": core.wall.shown(Instant::now()).own.millis(),
        "ready": not_ready(core).is_empty(),
        "losses": core.recovery.losses().iter().map(|(group, why)| json!({
            "group": group.to_string(),
            "why": why,
        })).collect::<Vec<_>>(),
        "council": {
            "leader": council_leader,
            "voters": table.council.nodes().filter_map(name_of).collect::<Vec<_>>(),
        },
        "members": members(core, &table, &leaders),
        "partitions": table
            .partitions
            .keys()
            .map(|&id| partition(core, &table, id, leaders.get(&id).copied()))
            .collect::<Vec<_>>(),
        "died": core.deaths.count(),
        "dead": core.replicas.dead().iter().map(|held| dead(core, held)).collect::<Vec<_>>(),
    })
}

fn dead(core: &Core, held: &Held) -> Value {
    let spec = held.group.spec();
    json!({
        "group": spec.group.to_string(),
        "replica": spec.replica.to_string(),
        "cause": held.group.failure(),
        "not_replaced_because": core.deaths.hindrance(spec.group),
    })
}

fn members(core: &Core, table: &Table, leaders: &BTreeMap<PartitionId, NodeId>) -> Vec<Value> {
    let view = core.views.borrow().clone();
    let member = |member: &scatterhoard_ring::Member| {
        let of_partitions =
            |(group, _, _): &(GroupId, _, _)| matches!(group, GroupId::Partition(_));
        json!({
            "node": member.node.to_string(),
            "name": member.name,
            "zone": member.zone,
            "version": member.version,
            "standing": match member.standing {
                Standing::Active => "active",
                Standing::Leaving => "leaving",
            },
            "alive": member.node == core.node || view.alive.contains_key(&member.node),
            "listen": member.endpoints.listen.to_string(),
            "any_key": member.endpoints.any_key.to_string(),
            "http": member.endpoints.http.to_string(),
            "peer": member.endpoints.peer.to_string(),
            "leads": leaders.values().filter(|&&node| node == member.node).count(),
            "replicas": table.replicas_on(member.node).filter(of_partitions).count(),
        })
    };
    table.members.values().map(member).collect()
}

fn partition(core: &Core, table: &Table, id: PartitionId, leader: Option<NodeId>) -> Value {
    let Some(partition) = table.partitions.get(&id) else { return Value::Null };
    let hosted = core.hosting.now();
    let ours = hosted.of_partition(id);
    let reported = core.desk.report(GroupId::Partition(id));
    let members = ours.map(|ours| ours.group.members());
    let node_of = |replica| {
        let seated = members.as_ref().and_then(|members| members.nodes.get(&replica).copied());
        seated.or_else(|| partition.placement.node_of(replica))
    };
    let name_of = |replica| {
        let member = node_of(replica).and_then(|node| table.members.get(&node));
        member.map_or_else(|| replica.to_string(), |member| member.name.clone())
    };
    let (voters, learners) = match (&members, &reported) {
        (Some(members), _) => (members.voters.clone(), members.learners.clone()),
        (None, Some(Report { voters, learners, .. })) => (voters.clone(), learners.clone()),
        (None, None) => Default::default(),
    };
    let active = table.members.values().filter(|member| member.standing == Standing::Active);
    let wanted = usize::from(table.settings.replicas).min(active.count());
    let wanted = wanted.max(table.settings.replicas_min.into());
    json!({
        "id": id.number(),
        "slots": [partition.slots.first().number(), partition.slots.last().number()],
        "generation": partition.generation.number(),
        "leader": leader.and_then(|node| table.members.get(&node)).map(|member| &member.name),
        "term": ours.map(|ours| ours.group.leadership().borrow().term),
        "voters": voters.iter().map(|&replica| name_of(replica)).collect::<Vec<_>>(),
        "learners": learners.iter().map(|&replica| name_of(replica)).collect::<Vec<_>>(),
        "wanted": partition.placement.ids().map(name_of).collect::<Vec<_>>(),
        "keys": ours.map(|ours| ours.store.lock().keys_count()),
        "below_replicas": !voters.is_empty() && voters.len() < wanted,
    })
}
