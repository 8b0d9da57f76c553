//! Asks every node what its replicas know of their groups, and whom it has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use scatterhoard_cluster::{Lane, Target};
use scatterhoard_ring::{
    Epoch, Evidence, GroupId, NodeId, Table, Testimony, decode_testimonies, encode_testimonies,
};
use tokio::time::Instant;

use super::MESSAGES;
use crate::core::Core;
use crate::kind::Kind;
use crate::membership::{put_epoch, take_epoch};
use crate::upkeep;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What everyone told.
pub(crate) struct Survey {
    /// The newest table that anybody who answered has.
    pub(crate) table: Arc<Table>,
    /// What a verdict is made from.
    pub(crate) evidence: Evidence,
    /// How long the process has run that is bound where a member was that has ended.
    uptime: BTreeMap<NodeId, Duration>,
    /// Of each member, by everyone who answered: how long ago it was seen last.
    sightings: BTreeMap<NodeId, Vec<Sighting>>,
}

/// Why there is nothing to judge yet.
pub(crate) enum Unready {
    /// A newer table had to be fetched first, or there is none yet.
    Fetched,
    /// Somebody who has no table has heard of one that is newer than any here: who has it may hold
    /// anything.
    Unknown {
        /// Whose former life it replaces.
        member: NodeId,
        /// The epoch that it has heard of.
        epoch: Epoch,
    },
}

/// When a member was last seen by somebody.
#[derive(Clone, Copy)]
struct Sighting {
    /// How long ago it was last connected.
    connected: Duration,
    /// Since when its address refuses connections, if it does.
    refused: Option<Duration>,
}

struct Answer {
    node: NodeId,
    /// The newest table that the node has, or has been told of.
    epoch: Epoch,
    uptime: Duration,
    sightings: Vec<(NodeId, Sighting)>,
    testimonies: Vec<Testimony>,
}

impl Survey {
    /// Asks all members and the absent.
    ///
    /// # Errors
    /// Somebody knows a newer table than this node.
    pub(crate) async fn take(core: &Arc<Core>) -> Result<Self, Unready> {
        let table = core.tables.newest().ok_or(Unready::Fetched)?;
        let vouched = core.recovery.vouched();
        let members = table.members.values().map(|it| (it.node, it.endpoints.peer));
        let absent = table.absent.iter().map(|(&node, it)| (node, it.peer));
        let others = members.chain(absent).filter(|&(node, _)| node != core.node);
        let answers = join_all(others.map(|(node, addr)| async move {
            ask(core, addr).await.map(|answer| (node, addr, answer))
        }));
        let answers: Vec<_> = answers.await.into_iter().flatten().collect();
        // What was known where an operator vouches for the end counts as lost.
        let counts =
            |asked: &NodeId, answer: &Answer| *asked == answer.node || !vouched.contains(asked);
        let newest = answers.iter().filter(|(asked, _, answer)| counts(asked, answer));
        if let Some((asked, addr, answer)) = newest.max_by_key(|(.., answer)| answer.epoch)
            && answer.epoch > table.epoch
        {
            upkeep::pull_table(core, *addr).await;
            let fetched = core.tables.newest().is_some_and(|now| now.epoch > table.epoch);
            let unknown = Unready::Unknown { member: *asked, epoch: answer.epoch };
            return Err(if fetched { Unready::Fetched } else { unknown });
        }
        let mut survey = Self {
            table,
            evidence: Evidence::default(),
            uptime: BTreeMap::new(),
            sightings: BTreeMap::new(),
        };
        survey.evidence.ended = vouched;
        survey.hear(own(core));
        for (asked, _, answer) in answers {
            if asked != answer.node {
                // Its address is bound by another life, so it has ended.
                survey.evidence.ended.insert(asked);
                survey.uptime.insert(asked, answer.uptime);
            }
            survey.hear(answer);
        }
        Ok(survey)
    }

    fn hear(&mut self, answer: Answer) {
        let Self { table, evidence, sightings, .. } = self;
        if !table.members.contains_key(&answer.node) && !table.absent.contains_key(&answer.node) {
            return;
        }
        for (node, sighting) in answer.sightings {
            sightings.entry(node).or_default().push(sighting);
        }
        evidence.answers.insert(answer.node, answer.testimonies);
    }

    /// A councillor that may have decided without our knowledge before it ended: nobody here saw it for
    /// some time before that. Then it may have dismissed all who are here, and gone on with others.
    ///
    /// The same is asked of whom this node has promised the next generation to: it may have founded it.
    ///
    /// It takes `silence_max` of silence to be dismissed, so who was seen later than that missed nothing
    /// of the kind. Those whom somebody vouches for are not looked at.
    pub(super) fn missed(
        &self,
        silence_max: Duration,
        vouched: &BTreeSet<NodeId>,
        promised: Option<NodeId>,
    ) -> Option<NodeId> {
        let told = self.evidence.answers.values().flatten();
        let of_council = told.filter(|it| it.group == GroupId::Council);
        let halves = of_council.flat_map(|it| &it.configurations).flat_map(|it| &it.halves);
        let voters = halves.flat_map(|half| half.values().copied());
        let councillors: BTreeSet<_> =
            voters.chain(self.table.council.nodes()).chain(promised).collect();
        councillors.into_iter().find(|node| {
            let ended = self.evidence.ended.contains(node) && !vouched.contains(node);
            ended && !self.was_seen(*node, silence_max)
        })
    }

    fn was_seen(&self, node: NodeId, silence_max: Duration) -> bool {
        let uptime = self.uptime.get(&node).copied().unwrap_or_default();
        self.sightings.get(&node).into_iter().flatten().any(|sighting| {
            // It had ended so long ago at the least.
            let ended = sighting.refused.unwrap_or_default().max(uptime);
            sighting.connected.saturating_sub(ended) < silence_max
        })
    }
}

async fn ask(core: &Arc<Core>, addr: SocketAddr) -> Option<Answer> {
    // Whoever is bound there is to answer.
    let to = Target { node: NodeId::new(0), addr };
    let by = Instant::now() + PATIENCE;
    let call = core.peers.call(to, Lane::Control, Kind::Survey.number(), Bytes::new(), by);
    take(call.await.ok()?)
}

fn own(core: &Core) -> Answer {
    let (now, table) = (Instant::now(), core.tables.newest());
    let heard = *core.recovery.heard.lock();
    let connected = core.recovery.connected.lock().clone();
    let sightings = connected.into_iter().filter_map(|(node, at)| {
        let addr = table.as_ref()?.members.get(&node)?.endpoints.peer;
        let refused = core.peers.refused_since(addr).map(|since| now - since);
        Some((node, Sighting { connected: now - at, refused }))
    });
    Answer {
        node: core.node,
        epoch: table.as_ref().map(|table| table.epoch).unwrap_or_default().max(heard),
        uptime: core.started.elapsed(),
        sightings: sightings.collect(),
        testimonies: core.replicas.all().iter().map(|held| held.group.testimony()).collect(),
    }
}

/// Tells what this node knows.
pub(crate) fn answer(core: &Core) -> Bytes {
    let answer = own(core);
    let millis = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX - 1);
    let mut out = BytesMut::new();
    out.put_u8(MESSAGES);
    out.put_u64(answer.node.number());
    put_epoch(&mut out, answer.epoch);
    out.put_u64(millis(answer.uptime));
    out.put_u16(u16::try_from(answer.sightings.len()).expect("no more than members"));
    for (node, sighting) in answer.sightings {
        out.put_u64(node.number());
        out.put_u64(millis(sighting.connected));
        out.put_u64(sighting.refused.map_or(u64::MAX, millis));
    }
    out.put_slice(&encode_testimonies(&answer.testimonies));
    out.freeze()
}

fn take(mut body: Bytes) -> Option<Answer> {
    if body.try_get_u8().ok()? != MESSAGES {
        return None;
    }
    let node = NodeId::new(body.try_get_u64().ok()?);
    let epoch = take_epoch(&mut body)?;
    let uptime = Duration::from_millis(body.try_get_u64().ok()?);
    let mut sightings = Vec::new();
    for _ in 0..body.try_get_u16().ok()? {
        let seen = NodeId::new(body.try_get_u64().ok()?);
        let connected = Duration::from_millis(body.try_get_u64().ok()?);
        let refused = body.try_get_u64().ok()?;
        let refused = (refused != u64::MAX).then(|| Duration::from_millis(refused));
        sightings.push((seen, Sighting { connected, refused }));
    }
    let testimonies = decode_testimonies(&body).ok()?;
    Some(Answer { node, epoch, uptime, sightings, testimonies })
}
