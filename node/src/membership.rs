//! Becoming a member: founding a cluster, finding one, joining it; and leaving.
//!
//! Founding is rare and must never happen twice by mistake: a node with a `--join` list founds only if
//! it is in that list, all others in it answer that they know of no cluster, and its address is the
//! lowest. An address that does not answer means wait.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use scatterhoard_cluster::{Gossip, GossipConfig, Lane, Target};
use scatterhoard_replication::Council;
use scatterhoard_ring::{
    Change, ClusterId, Epoch, Generation, GroupId, Member, NodeId, Refusal, Settings, Standing,
    Table,
};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::StartError;
use crate::caretaker;
use crate::clock::WallClock as _;
use crate::core::{Core, VERSION};
use crate::council;
use crate::kind::Kind;
use crate::timekeeping;

/// Pause between rounds of asking.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How long one question may take. Hosts that are cut off are noticed after this.
const ASK_PATIENCE: Duration = Duration::from_secs(1);

/// How often it is said what a node that cannot start is waiting for.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Version of the messages in this file.
const MESSAGES: u8 = 1;

/// What a node knows of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    Cluster(ClusterId, Epoch),
}

/// The answer to a request to join.
pub(crate) enum Admission {
    /// A member now. The table says so.
    Admitted(Arc<Table>),
    /// Not the council's leader; that one may be.
    Ask(Option<SocketAddr>),
    /// Not now; the reason may pass.
    Wait(String),
    /// Never like this.
    Refused(String),
}

/// Finds a cluster and joins it, or founds one, as the configuration says.
///
/// # Errors
/// The cluster refused for a reason that waiting does not mend.
pub(crate) async fn enter(core: &Arc<Core>) -> Result<(), StartError> {
    if core.config.join.is_empty() {
        return found(core, &BTreeSet::new()).await;
    }
    let mut said = Instant::now() - SAY_AGAIN;
    loop {
        let (addresses, unresolved) = core.join_addresses().await;
        let me = core.endpoints.peer;
        let others: BTreeSet<_> = addresses.iter().copied().filter(|&addr| addr != me).collect();
        let mut silent = Vec::new();
        let mut clusters = Vec::new();
        for &addr in &others {
            match probe(core, addr).await {
                Some(Known::Cluster(cluster, epoch)) => {
                    core.recovery.heard_of(epoch);
                    clusters.push((cluster, addr));
                }
                Some(Known::Nothing) => {}
                None => silent.push(addr),
            }
        }
        if let Some(&(cluster, addr)) = clusters.first() {
            match join(core, cluster, addr).await? {
                None => return Ok(()),
                Some(reason) => say(&mut said, &reason),
            }
        } else if core.found_asked.is_cancelled() {
            warn!(?silent, ?unresolved, "founding although these do not answer, as asked");
            return found(core, &others).await;
        } else if !unresolved.is_empty() {
            // Who is behind a name that does not resolve may have founded a cluster already.
            say(&mut said, &format!("cannot resolve {unresolved:?}"));
        } else if addresses.first() == Some(&me) && silent.is_empty() {
            return found(core, &others).await;
        } else if !silent.is_empty() {
            say(&mut said, &format!("no answer from {silent:?}"));
        } else {
            say(&mut said, "nobody in the --join list has founded a cluster yet");
        }
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return Err(StartError::Stopped),
            () = tokio::time::sleep(ASK_AGAIN) => {}
        }
    }
}

fn say(said: &mut Instant, reason: &str) {
    if said.elapsed() >= SAY_AGAIN {
        *said = Instant::now();
        info!(reason, "waiting to join");
    }
}

async fn probe(core: &Core, addr: SocketAddr) -> Option<Known> {
    let to = Target { node: NodeId::new(0), addr };
    let body = Bytes::from_static(&[MESSAGES]);
    let by = Instant::now() + ASK_PATIENCE;
    let call = core.peers.call(to, Lane::Control, Kind::Probe.number(), body, by);
    let mut answer = match call.await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(%addr, %error, "no answer to a probe");
            return None;
        }
    };
    let (version, cluster) = (answer.try_get_u8().ok()?, answer.try_get_u128().ok()?);
    let epoch = take_epoch(&mut answer)?;
    match (version, cluster) {
        (MESSAGES, 0) => Some(Known::Nothing),
        (MESSAGES, cluster) => Some(Known::Cluster(ClusterId::new(cluster), epoch)),
        _ => None,
    }
}

/// Answers what this node knows of a cluster.
pub(crate) fn answer_probe(core: &Core) -> Bytes {
    let known = core.tables.newest().map(|table| (table.cluster.number(), table.epoch));
    let (cluster, epoch) = known.unwrap_or_default();
    let mut out = BytesMut::new();
    out.put_u8(MESSAGES);
    out.put_u128(cluster);
    put_epoch(&mut out, epoch);
    out.freeze()
}

pub(crate) fn put_epoch(out: &mut BytesMut, epoch: Epoch) {
    out.put_u32(epoch.generation.number());
    out.put_u64(epoch.index);
}

pub(crate) fn take_epoch(body: &mut Bytes) -> Option<Epoch> {
    let generation = Generation::new(body.try_get_u32().ok()?);
    Some(Epoch { generation, index: body.try_get_u64().ok()? })
}

/// Founds a cluster with this node as its only member.
/// `others` are to join it.
async fn found(core: &Arc<Core>, others: &BTreeSet<SocketAddr>) -> Result<(), StartError> {
    let config = &core.config;
    let settings = Settings {
        replicas: config.replicas,
        replicas_min: config.replicas_min,
        replace_after_ms: u32::try_from(config.replace_after.as_millis()).unwrap_or(u32::MAX),
        hash_seed: core.chance.roll(),
        value_bytes_max: u32::try_from(config.value_bytes_max).unwrap_or(u32::MAX),
        ..Settings::default()
    };
    let cluster = core.chance.cluster_id();
    let generation = Generation::new(1);
    let epoch = Epoch { generation, index: 0 };
    let table = Table::found(cluster, settings, member(core), config.partitions, epoch)
        .map_err(|broken| StartError::Refused(broken.to_string()))?;
    let table = Arc::new(table);
    info!(%cluster, partitions = config.partitions, "cluster founded");
    timekeeping::found(core, others).await;
    settle(core, &table).await?;

    let mine = table.council.ids().next().expect("a founding table places the council");
    let machine = Council::founded(Arc::clone(&table), core.tables.clone());
    let group = caretaker::open_council(core, &table, generation, mine, machine).await;
    group.found(epoch).await;
    caretaker::open_missing(core, &table).await;
    let partitions = core.hosting.now();
    let founded = partitions.iter().map(|partition| partition.group.found(epoch));
    futures_util::future::join_all(founded).await;
    Ok(())
}

/// Asks to be admitted. Answers with a reason to wait, if there is one.
async fn join(
    core: &Arc<Core>,
    cluster: ClusterId,
    first: SocketAddr,
) -> Result<Option<String>, StartError> {
    let request = Change::Admit { member: member(core), replaces: None }.encode();
    let mut ask = Some(first);
    for _ in 0..4 {
        let Some(addr) = ask.take() else { break };
        let to = Target { node: NodeId::new(0), addr };
        let by = Instant::now() + 4 * ASK_PATIENCE;
        let body = Bytes::from(request.clone());
        let answer = core.peers.call(to, Lane::Control, Kind::Join.number(), body, by).await;
        match answer.ok().and_then(take_admission) {
            Some(Admission::Admitted(table)) => {
                if table.cluster != cluster {
                    return Ok(Some("the cluster has changed while we joined".to_owned()));
                }
                info!(%cluster, members = table.members.len(), "joined");
                settle(core, &table).await?;
                return Ok(None);
            }
            Some(Admission::Ask(next)) => ask = next,
            Some(Admission::Wait(reason)) => return Ok(Some(reason)),
            Some(Admission::Refused(reason)) => return Err(StartError::Refused(reason)),
            None => return Ok(Some(format!("no answer from {addr}"))),
        }
    }
    Ok(Some("the council has no leader at the moment".to_owned()))
}

/// What a founder and a joiner do alike: know the cluster, gossip, adopt the table.
async fn settle(core: &Arc<Core>, table: &Arc<Table>) -> Result<(), StartError> {
    let settings = &table.settings;
    if settings.value_bytes_max as usize > core.config.value_bytes_max {
        return Err(StartError::Refused(format!(
            "the cluster allows values of {} bytes, and this node would not take them from its peers: \
             give it --max-value {0}",
            settings.value_bytes_max
        )));
    }
    let timers = [settings.heartbeat_ms, settings.election_ms_min, settings.election_ms_max];
    core.peers.set_timers(&format!("{timers:?}"));
    core.peers.set_cluster(table.cluster);
    let others = table.members.values().filter(|member| member.node != core.node);
    let seeds = others.map(|member| member.endpoints.peer).chain(core.join_addresses().await.0);
    let config = GossipConfig {
        cluster: table.cluster,
        node: core.node,
        incarnation_ms: core.wall.now().millis(),
        advertise: core.endpoints.peer,
        listen: core.config.peer,
        seeds: seeds.collect(),
        interval: GossipConfig::INTERVAL,
        secret: core.config.secret.clone(),
    };
    core.tables.adopt(Arc::clone(table));
    let gossip = Gossip::start(Arc::clone(&core.net), config, core.advert())
        .await
        .map_err(|error| StartError::Bind { addr: core.config.peer, error })?;
    let mut views = gossip.views();
    if core.gossip.set(gossip).is_err() {
        return Ok(());
    }
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        loop {
            let view = views.borrow_and_update().clone();
            core.views.send_replace(view);
            core.routes_changed();
            tokio::select! {
                biased;
                () = core.shutdown.cancelled() => return,
                changed = views.changed() => if changed.is_err() { return },
            }
        }
    });
    Ok(())
}

fn member(core: &Core) -> Member {
    Member {
        node: core.node,
        name: core.name.clone(),
        zone: core.config.zone.clone(),
        endpoints: core.endpoints,
        standing: Standing::Active,
        admitted: Epoch::default(),
        version: VERSION.to_owned(),
    }
}

/// Decides about a node that asks to join, as the council's leader; others say whom to ask.
pub(crate) async fn admit(core: &Arc<Core>, request: &[u8]) -> Admission {
    let Ok(Change::Admit { member, replaces: _ }) = Change::decode(request) else {
        return Admission::Refused("the request to join cannot be understood".to_owned());
    };
    let Some(table) = core.tables.newest() else { return Admission::Ask(None) };
    if !council::leads(core) {
        return Admission::Ask(council::leader_address(core, &table));
    }
    if table.members.contains_key(&member.node) {
        return Admission::Admitted(table);
    }
    if let Err(reason) = is_there(core, &member).await {
        return Admission::Wait(reason);
    }
    let same_process =
        table.members.values().find(|other| other.endpoints.peer == member.endpoints.peer);
    let replaces = match (same_process, table.member_named(&member.name)) {
        // Its address is bound by the process that asks now, so the old life has ended.
        (Some(old), named) if named.is_none_or(|named| named.node == old.node) => Some(old.node),
        (_, None) => None,
        (_, Some(other)) => {
            let name = &member.name;
            if core.views.borrow().alive.contains_key(&other.node) {
                return Admission::Refused(format!(
                    "the name {name:?} belongs to the live node at {}; give this one another --name",
                    other.endpoints.peer
                ));
            }
            return Admission::Wait(format!(
                "the name {name:?} belongs to a node that is silent; it is free once that is dismissed"
            ));
        }
    };
    info!(name = %member.name, node = %member.node, ?replaces, "a node asks to join");
    match council::propose(core, &Change::Admit { member, replaces }).await {
        Ok(Ok(table)) => Admission::Admitted(table),
        Ok(Err(Refusal::Member(_))) => match core.tables.newest() {
            Some(table) => Admission::Admitted(table),
            None => Admission::Ask(None),
        },
        // The table has moved on while we decided; the next attempt sees it.
        Ok(Err(refusal)) => Admission::Wait(refusal.to_string()),
        Err(error) => Admission::Wait(error.to_string()),
    }
}

/// Proves that the node that asks is bound to the peer address it names: the handshake there says who
/// it is. Only then has whoever was bound there before ended.
async fn is_there(core: &Core, member: &Member) -> Result<(), String> {
    let addr = member.endpoints.peer;
    let to = Target { node: member.node, addr };
    let by = Instant::now() + ASK_PATIENCE;
    let body = Bytes::from_static(&[MESSAGES]);
    let called = core.peers.call(to, Lane::Control, Kind::Probe.number(), body, by).await;
    called.map(|_| ()).map_err(|error| {
        format!(
            "this node is not reached at its own peer address {addr} ({error}); see --advertise"
        )
    })
}

pub(crate) fn put_admission(admission: &Admission) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(MESSAGES);
    match admission {
        Admission::Admitted(table) => {
            out.put_u8(0);
            out.put_slice(&table.encode());
        }
        Admission::Ask(addr) => {
            out.put_u8(1);
            out.put_slice(addr.map(|addr| addr.to_string()).unwrap_or_default().as_bytes());
        }
        Admission::Wait(reason) => {
            out.put_u8(2);
            out.put_slice(reason.as_bytes());
        }
        Admission::Refused(reason) => {
            out.put_u8(3);
            out.put_slice(reason.as_bytes());
        }
    }
    out.freeze()
}

fn take_admission(mut body: Bytes) -> Option<Admission> {
    if body.try_get_u8().ok()? != MESSAGES {
        return None;
    }
    let kind = body.try_get_u8().ok()?;
    let text = || String::from_utf8_lossy(&body).into_owned();
    Some(match kind {
        0 => Admission::Admitted(Arc::new(Table::decode(&body).ok()?)),
        1 => Admission::Ask(text().parse().ok()),
        2 => Admission::Wait(text()),
        3 => Admission::Refused(text()),
        _ => return None,
    })
}

/// Leaves the cluster: what this node holds is moved away, as far as others can take it, then it is
/// dismissed. Answers with the groups that others could not take in time.
pub(crate) async fn leave(core: &Arc<Core>, by: Instant) -> Vec<GroupId> {
    core.leaving.store(true, Ordering::SeqCst);
    core.advertise();
    let alone = core.tables.newest().is_none_or(|table| table.members.len() < 2);
    if alone {
        return groups_held(core);
    }
    let mut tables = core.tables.subscribe();
    while Instant::now() < by {
        let standing = tables
            .borrow_and_update()
            .as_ref()
            .and_then(|table| table.members.get(&core.node).map(|member| member.standing));
        match standing {
            None => break,
            Some(Standing::Leaving) if !groups_held(core).is_empty() => {}
            Some(Standing::Active | Standing::Leaving) => {
                if let Err(reason) = council::ask_to_leave(core, core.node).await {
                    info!(reason, "the council has not taken note of our leaving yet");
                }
            }
        }
        let _changed = tokio::time::timeout(ASK_AGAIN, tables.changed()).await;
    }
    let left = groups_held(core);
    for held in core.replicas.all() {
        if held.group.leads() {
            held.group.transfer(None).await;
        }
    }
    left
}

fn groups_held(core: &Core) -> Vec<GroupId> {
    core.replicas.all().iter().map(|held| held.group.spec().group).collect()
}
