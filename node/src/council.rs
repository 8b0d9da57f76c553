//! Talking to the council: as its leader, or to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use scatterhoard_cluster::{Lane, Target};
use scatterhoard_replication::probe::{self, Point};
use scatterhoard_replication::{Decision, Group, ProposeError};
use scatterhoard_ring::{Change, GroupId, NodeId, Standing, Table};
use tokio::time::Instant;

use crate::core::Core;
use crate::kind::Kind;

/// How long a decision may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Version of the messages in this file.
pub(crate) const MESSAGES: u8 = 1;

/// Whether this node leads the council, and has lately heard from a quorum of it.
pub(crate) fn leads(core: &Core) -> bool {
    core.replicas.council().is_some_and(|group| group.leads() && group.report().is_some())
}

/// Who leads the council, as far as is known.
pub(crate) fn leader(core: &Core, table: &Table) -> Option<NodeId> {
    core.leader_of(table, GroupId::Council)
}

/// Where the council's leader is, or else somebody in the council who may know.
pub(crate) fn leader_address(core: &Core, table: &Table) -> Option<SocketAddr> {
    let others = || table.council.nodes().filter(|&node| node != core.node);
    let alive = Arc::clone(&core.views.borrow());
    let node = leader(core, table)
        .or_else(|| others().find(|node| alive.alive.contains_key(node)))
        .or_else(|| others().next())?;
    table.members.get(&node).map(|member| member.endpoints.peer)
}

/// Proposes a change, as the council's leader, and brings the new table to everyone.
///
/// # Errors
/// As [`Group::propose`]. Every change is safe to propose again: the table refuses what it has seen.
pub(crate) async fn propose(core: &Arc<Core>, change: &Change) -> Result<Decision, ProposeError> {
    let group = core.replicas.council().ok_or(ProposeError::NotLeader)?;
    probe::at(Point::BeforeDecree).await;
    let outcome = decide(&group, change).await?;
    if let Ok(table) = &outcome {
        spread(core, table);
    }
    Ok(outcome)
}

async fn decide(group: &Group, change: &Change) -> Result<Decision, ProposeError> {
    let outcome = group.propose(Bytes::from(change.encode())).await?;
    let answer = tokio::time::timeout(PATIENCE, outcome).await;
    let answer = answer.unwrap_or(Err(ProposeError::InDoubt))?;
    answer.take::<Decision>().ok_or(ProposeError::InDoubt)
}

/// Sends a table to all its members, and takes note of who has got it. Who misses it pulls it when gossip
/// tells of a newer epoch.
pub(crate) fn spread(core: &Arc<Core>, table: &Arc<Table>) {
    let body = Bytes::from(table.encode());
    for member in table.members.values().filter(|member| member.node != core.node) {
        let to = Target { node: member.node, addr: member.endpoints.peer };
        let (kind, by) = (Kind::Table.number(), Instant::now() + PATIENCE);
        let told = core.peers.call(to, Lane::Control, kind, body.clone(), by);
        let (core, node, epoch) = (Arc::clone(core), member.node, table.epoch);
        core.tasks.clone().spawn(async move {
            if told.await.is_ok() {
                core.desk.has(node, epoch);
            }
        });
    }
    core.advertise();
}

/// Tells the council that a node leaves, or that it has nothing left to give away. Safe to repeat.
///
/// # Errors
/// Why it was not taken note of, in words.
pub(crate) async fn ask_to_leave(core: &Arc<Core>, node: NodeId) -> Result<(), String> {
    let Some(table) = core.tables.newest() else { return Err("no table yet".to_owned()) };
    if leads(core) {
        return leaves(core, node).await;
    }
    let addr = leader_address(core, &table).ok_or("the council has no leader that is known")?;
    let mut body = BytesMut::new();
    body.put_u8(MESSAGES);
    body.put_u64(node.number());
    let to = Target { node: NodeId::new(0), addr };
    let by = Instant::now() + PATIENCE;
    let kind = Kind::Leave.number();
    let called = core.peers.call(to, Lane::Control, kind, body.freeze(), by).await;
    called.map(|_| ()).map_err(|error| error.to_string())
}

/// Takes note, as the council's leader, that a member leaves; dismisses it once it holds nothing.
pub(crate) async fn leaves(core: &Arc<Core>, node: NodeId) -> Result<(), String> {
    let Some(table) = core.tables.newest() else { return Err("no table yet".to_owned()) };
    let Some(member) = table.members.get(&node) else { return Ok(()) };
    let change = match member.standing {
        Standing::Active => Change::Leave { node },
        Standing::Leaving if table.replicas_on(node).next().is_none() => Change::Dismiss { node },
        Standing::Leaving => return Ok(()),
    };
    match propose(core, &change).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refusal)) => Err(refusal.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
