//! A peer that sends a replica what no leader would: an entry which cannot be applied. Its core dies of it.
//!
//! Written against the wire format and not with the product's own code, which never writes such a thing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use scatterhoard_cluster::{Identity, Lane, Limits, Peers, Target};
use scatterhoard_ring::{ClusterId, GroupId, NodeId, ReplicaId, Table};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::net::TurmoilNet;
use super::node::PEER;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

// Kinds of messages, `replication/src/kind.rs` and `node/src/kind.rs`.
const APPEND: u8 = 0x10;
const PRE_VOTE: u8 = 0x12;
const PULL: u8 = 0x24;

/// How the council is written where a partition's number would stand.
const COUNCIL: u32 = u32::MAX;

/// Talks to one node as if it were another.
pub(super) struct Rogue {
    peers: Peers,
    to: Target,
    shutdown: CancellationToken,
}

/// Where a log ends: the term and the leader of its last entry, and its index.
#[derive(Clone, Copy)]
struct End {
    term: u64,
    leader: u64,
    index: u64,
}

impl Rogue {
    pub(super) fn of(victim: IpAddr) -> Self {
        let identity = Identity {
            cluster: ClusterId::new(0),
            node: NodeId::new(0xbad),
            secret: None,
            build: String::new(),
        };
        let shutdown = CancellationToken::new();
        let peers = Peers::new(Arc::new(TurmoilNet), identity, Limits::default(), shutdown.clone());
        let to = Target { node: NodeId::new(0), addr: SocketAddr::new(victim, PEER) };
        Self { peers, to, shutdown }
    }

    /// The newest table of the victim.
    pub(super) async fn table(&self) -> Option<Table> {
        Table::decode(&self.call(PULL, Bytes::new()).await?).ok()
    }

    /// Appends an entry that no machine understands to the log of a replica, as committed. The message
    /// claims to be from a leader of the next term, so that it is believed by whoever leads, too.
    pub(super) async fn poison(&self, table: &Table, group: GroupId, victim: ReplicaId) -> bool {
        let mut ids = table.placement(group).into_iter().flat_map(|it| it.ids());
        let source = ids.find(|&id| id != victim).unwrap_or(ReplicaId::new(u64::MAX));
        let Some((term, end)) = self.end_of(table, group, [source, victim]).await else {
            return false;
        };
        let leader = End { term: term + 1, leader: source.number(), index: end.index + 1 };
        let mut body = header(table, group, [source, victim]);
        body.put_u64(leader.term);
        body.put_u64(leader.leader);
        body.put_u8(1);
        put_end(&mut body, Some(end));
        put_end(&mut body, Some(leader));
        body.put_u32(1);
        body.put_u64(leader.term);
        body.put_u64(leader.leader);
        body.put_u64(leader.index);
        body.put_u8(1);
        let poison = b"\xff poison";
        body.put_u32(u32::try_from(poison.len()).expect("a few bytes"));
        body.put_slice(poison);
        let _whether_it_was_answered = self.call(APPEND, body.freeze()).await;
        true
    }

    /// Ends the connections.
    pub(super) async fn leave(self) {
        self.shutdown.cancel();
        self.peers.ended().await;
    }

    /// The term that a replica is in, and where its log ends: what it says to a candidate that it
    /// will not vote for.
    async fn end_of(
        &self,
        table: &Table,
        group: GroupId,
        ids: [ReplicaId; 2],
    ) -> Option<(u64, End)> {
        let mut body = header(table, group, ids);
        body.put_slice(&[0; 8 + 8 + 1 + 1 + 1]);
        let mut answer = self.call(PRE_VOTE, body.freeze()).await?;
        let term = answer.try_get_u64().ok()?;
        let (_leader, _committed) = (answer.try_get_u64().ok()?, answer.try_get_u8().ok()?);
        (answer.try_get_u8().ok()? == 1).then_some(())?;
        let (entry_term, leader) = (answer.try_get_u64().ok()?, answer.try_get_u64().ok()?);
        let index = answer.try_get_u64().ok()?;
        Some((term, End { term: entry_term, leader, index }))
    }

    async fn call(&self, kind: u8, body: Bytes) -> Option<Bytes> {
        self.peers.call(self.to, Lane::Control, kind, body, Instant::now() + PATIENCE).await.ok()
    }
}

fn header(table: &Table, group: GroupId, [source, target]: [ReplicaId; 2]) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u8(1);
    body.put_u128(table.cluster.number());
    body.put_u32(match group {
        GroupId::Council => COUNCIL,
        GroupId::Partition(partition) => partition.number().into(),
    });
    body.put_u32(table.generation(group).map_or(0, |generation| generation.number()));
    body.put_u64(source.number());
    body.put_u64(target.number());
    body
}

fn put_end(body: &mut BytesMut, end: Option<End>) {
    body.put_u8(end.is_some().into());
    if let Some(End { term, leader, index }) = end {
        body.put_u64(term);
        body.put_u64(leader);
        body.put_u64(index);
    }
}
