//! The bytes of group messages. Written by hand: fixed-width numbers and payloads as they are, so that
//! the hot path neither derives nor copies, and no openraft structure decides our format.
//!
//! Every message starts with a [`Header`]: a version, then who is meant. A replica drops what is not
//! meant for exactly its own id, group and generation.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use scatterhoard_ring::{ClusterId, Epoch, Generation, GroupId, NodeId, PartitionId, ReplicaId};

use crate::raft::{
    LeaderId, LogEntry, LogId, Membership, Payload, Seat, SnapshotMeta, StoredMembership, Types,
    Vote,
};

/// Version of the group messages. A message of another version is dropped.
const VERSION: u8 = 1;

/// How the council is written where a partition's number would stand.
const COUNCIL: u32 = u32::MAX;

/// Voters and learners that a membership may name. The plan never asks for more than a few dozen.
const SEATS_COUNT_MAX: usize = 1024;

/// Bytes that are not a group message of our version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a group message: {0}")]
pub(crate) struct Malformed(&'static str);

impl From<bytes::TryGetError> for Malformed {
    fn from(_: bytes::TryGetError) -> Self {
        Self("it ends early")
    }
}

type Parsed<T> = Result<T, Malformed>;

/// Who speaks to whom, in every group message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) cluster: ClusterId,
    pub(crate) group: GroupId,
    pub(crate) generation: Generation,
    pub(crate) source: ReplicaId,
    pub(crate) target: ReplicaId,
}

impl Header {
    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        out.put_u128(self.cluster.number());
        out.put_u32(match self.group {
            GroupId::Council => COUNCIL,
            GroupId::Partition(partition) => partition.number().into(),
        });
        out.put_u32(self.generation.number());
        out.put_u64(self.source.number());
        out.put_u64(self.target.number());
    }

    pub(crate) fn take(input: &mut Bytes) -> Parsed<Self> {
        if input.try_get_u8()? != VERSION {
            return Err(Malformed("another version"));
        }
        let cluster = ClusterId::new(input.try_get_u128()?);
        let group = match input.try_get_u32()? {
            COUNCIL => GroupId::Council,
            number => GroupId::Partition(PartitionId::new(
                u16::try_from(number).map_err(|_| Malformed("no such partition"))?,
            )),
        };
        let generation = Generation::new(input.try_get_u32()?);
        let source = ReplicaId::new(input.try_get_u64()?);
        let target = ReplicaId::new(input.try_get_u64()?);
        Ok(Self { cluster, group, generation, source, target })
    }
}

/// How many bytes an append will take, about: chooses the lane.
pub(crate) fn append_size(request: &AppendEntriesRequest<Types>) -> usize {
    let payloads = request.entries.iter().map(|entry| match &entry.payload {
        EntryPayload::Normal(payload) => payload.0.len() + 32,
        EntryPayload::Blank | EntryPayload::Membership(_) => 256,
    });
    160 + payloads.sum::<usize>()
}

pub(crate) fn put_append(out: &mut BytesMut, request: &AppendEntriesRequest<Types>) {
    put_vote(out, &request.vote);
    put_log_id_option(out, request.prev_log_id);
    put_log_id_option(out, request.leader_commit);
    put_count(out, request.entries.len());
    for entry in &request.entries {
        put_entry(out, entry);
    }
}

pub(crate) fn take_append(input: &mut Bytes) -> Parsed<AppendEntriesRequest<Types>> {
    let vote = take_vote(input)?;
    let prev_log_id = take_log_id_option(input)?;
    let leader_commit = take_log_id_option(input)?;
    // The count is not trusted with an allocation: an entry takes at least 25 bytes.
    let count = take_count(input, input.len() / 25)?;
    let entries = (0..count).map(|_| take_entry(input)).collect::<Parsed<Vec<_>>>()?;
    check_append(&vote, prev_log_id, &entries)?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

/// What every leader's append holds to, and what the core relies on without looking: a peer that does
/// not must not be able to stop this process.
fn check_append(vote: &Vote, before: Option<LogId>, entries: &[LogEntry]) -> Parsed<()> {
    if !vote.committed {
        return Err(Malformed("an append of no leader"));
    }
    let mut last = before;
    for entry in entries {
        let follows = last.map_or(0, |last| last.index.saturating_add(1)) == entry.log_id.index;
        let rises = last.is_none_or(|last| last.leader_id <= entry.log_id.leader_id);
        if !follows || !rises {
            return Err(Malformed("entries that do not follow each other"));
        }
        last = Some(entry.log_id);
    }
    if last.is_some_and(|last| last.leader_id > vote.leader_id) {
        return Err(Malformed("entries newer than their leader"));
    }
    Ok(())
}

/// As [`check_append`], for a snapshot.
pub(crate) fn check_snapshot(vote: &Vote, meta: &SnapshotMeta) -> Parsed<()> {
    let newer = meta.last_log_id.is_some_and(|last| last.leader_id > vote.leader_id);
    if !vote.committed || newer || *meta.last_membership.log_id() > meta.last_log_id {
        return Err(Malformed("a snapshot of no leader"));
    }
    Ok(())
}

pub(crate) fn put_append_result(out: &mut BytesMut, result: &StreamAppendResult<Types>) {
    match result {
        Ok(matched) => {
            out.put_u8(0);
            put_log_id_option(out, *matched);
        }
        Err(StreamAppendError::Conflict(at)) => {
            out.put_u8(1);
            put_log_id(out, *at);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            put_vote(out, vote);
        }
    }
}

pub(crate) fn take_append_result(input: &mut Bytes) -> Parsed<StreamAppendResult<Types>> {
    Ok(match input.try_get_u8()? {
        0 => Ok(take_log_id_option(input)?),
        1 => Err(StreamAppendError::Conflict(take_log_id(input)?)),
        2 => Err(StreamAppendError::HigherVote(take_vote(input)?)),
        _ => return Err(Malformed("no such result")),
    })
}

pub(crate) fn put_vote_request(out: &mut BytesMut, request: &VoteRequest<Types>) {
    put_vote(out, &request.vote);
    put_log_id_option(out, request.last_log_id);
    out.put_u8(request.leadership_transfer.into());
}

pub(crate) fn take_vote_request(input: &mut Bytes) -> Parsed<VoteRequest<Types>> {
    let mut request = VoteRequest::new(take_vote(input)?, take_log_id_option(input)?);
    request.leadership_transfer = input.try_get_u8()? != 0;
    Ok(request)
}

pub(crate) fn put_vote_response(out: &mut BytesMut, response: &VoteResponse<Types>) {
    put_vote(out, &response.vote);
    put_log_id_option(out, response.last_log_id);
    out.put_u8(response.vote_granted.into());
}

pub(crate) fn take_vote_response(input: &mut Bytes) -> Parsed<VoteResponse<Types>> {
    let vote = take_vote(input)?;
    let last = take_log_id_option(input)?;
    Ok(VoteResponse::new(vote, last, input.try_get_u8()? != 0))
}

pub(crate) fn put_transfer(out: &mut BytesMut, request: &TransferLeaderRequest<Types>) {
    put_vote(out, request.from_leader());
    out.put_u64(request.to_node_id().number());
    put_log_id_option(out, request.last_log_id().copied());
}

pub(crate) fn take_transfer(input: &mut Bytes) -> Parsed<TransferLeaderRequest<Types>> {
    let vote = take_vote(input)?;
    let to = ReplicaId::new(input.try_get_u64()?);
    Ok(TransferLeaderRequest::new(vote, to, take_log_id_option(input)?))
}

pub(crate) fn put_snapshot_meta(out: &mut BytesMut, meta: &SnapshotMeta) {
    put_log_id_option(out, meta.last_log_id);
    put_log_id_option(out, *meta.last_membership.log_id());
    put_membership(out, meta.last_membership.membership());
}

pub(crate) fn take_snapshot_meta(input: &mut Bytes) -> Parsed<SnapshotMeta> {
    let last_log_id = take_log_id_option(input)?;
    let membership_log_id = take_log_id_option(input)?;
    let membership = take_membership(input)?;
    let last_membership = StoredMembership::new(membership_log_id, membership);
    Ok(SnapshotMeta { last_log_id, last_membership })
}

pub(crate) fn put_vote(out: &mut BytesMut, vote: &Vote) {
    put_leader_id(out, vote.leader_id);
    out.put_u8(vote.committed.into());
}

pub(crate) fn take_vote(input: &mut Bytes) -> Parsed<Vote> {
    let leader_id = take_leader_id(input)?;
    Ok(Vote { leader_id, committed: input.try_get_u8()? != 0 })
}

fn put_entry(out: &mut BytesMut, entry: &LogEntry) {
    put_log_id(out, entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(0),
        EntryPayload::Normal(payload) => {
            out.put_u8(1);
            put_count(out, payload.0.len());
            out.put_slice(&payload.0);
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(2);
            put_membership(out, membership);
        }
    }
}

fn take_entry(input: &mut Bytes) -> Parsed<LogEntry> {
    let log_id = take_log_id(input)?;
    let payload = match input.try_get_u8()? {
        0 => EntryPayload::Blank,
        1 => {
            let length = input.try_get_u32()? as usize;
            if length > input.len() {
                return Err(Malformed("it ends early"));
            }
            EntryPayload::Normal(Payload(input.split_to(length)))
        }
        2 => EntryPayload::Membership(take_membership(input)?),
        _ => return Err(Malformed("no such kind of entry")),
    };
    Ok(LogEntry { log_id, payload })
}

fn put_membership(out: &mut BytesMut, membership: &Membership) {
    put_count(out, membership.get_joint_config().len());
    for voters in membership.get_joint_config() {
        put_count(out, voters.len());
        for voter in voters {
            out.put_u64(voter.number());
        }
    }
    put_count(out, membership.nodes().count());
    for (replica, seat) in membership.nodes() {
        out.put_u64(replica.number());
        out.put_u64(seat.node.number());
        put_epoch(out, seat.epoch);
    }
}

fn take_membership(input: &mut Bytes) -> Parsed<Membership> {
    let configs = take_count(input, 16)?;
    let mut joint = Vec::with_capacity(configs);
    for _ in 0..configs {
        let voters = take_count(input, SEATS_COUNT_MAX)?;
        let voters = (0..voters).map(|_| Ok(ReplicaId::new(input.try_get_u64()?)));
        joint.push(voters.collect::<Parsed<BTreeSet<_>>>()?);
    }
    let seats_count = take_count(input, SEATS_COUNT_MAX)?;
    let mut seats = BTreeMap::new();
    for _ in 0..seats_count {
        let replica = ReplicaId::new(input.try_get_u64()?);
        let node = NodeId::new(input.try_get_u64()?);
        seats.insert(replica, Seat { node, epoch: take_epoch(input)? });
    }
    if joint.is_empty() && seats.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(joint, seats).map_err(|_| Malformed("a voter without a seat"))
}

pub(crate) fn put_epoch(out: &mut BytesMut, epoch: Epoch) {
    out.put_u32(epoch.generation.number());
    out.put_u64(epoch.index);
}

pub(crate) fn take_epoch(input: &mut Bytes) -> Parsed<Epoch> {
    let generation = Generation::new(input.try_get_u32()?);
    Ok(Epoch { generation, index: input.try_get_u64()? })
}

fn put_log_id_option(out: &mut BytesMut, log_id: Option<LogId>) {
    out.put_u8(log_id.is_some().into());
    if let Some(log_id) = log_id {
        put_log_id(out, log_id);
    }
}

fn take_log_id_option(input: &mut Bytes) -> Parsed<Option<LogId>> {
    Ok(if input.try_get_u8()? == 0 { None } else { Some(take_log_id(input)?) })
}

fn put_log_id(out: &mut BytesMut, log_id: LogId) {
    put_leader_id(out, log_id.leader_id);
    out.put_u64(log_id.index);
}

fn take_log_id(input: &mut Bytes) -> Parsed<LogId> {
    let leader_id = take_leader_id(input)?;
    Ok(LogId { leader_id, index: input.try_get_u64()? })
}

fn put_leader_id(out: &mut BytesMut, leader: LeaderId) {
    out.put_u64(leader.term);
    out.put_u64(leader.node_id.number());
}

fn take_leader_id(input: &mut Bytes) -> Parsed<LeaderId> {
    let term = input.try_get_u64()?;
    Ok(LeaderId { term, node_id: ReplicaId::new(input.try_get_u64()?) })
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).expect("messages are bounded far below 4 GiB"));
}

fn take_count(input: &mut Bytes, max: usize) -> Parsed<usize> {
    let count = input.try_get_u32()? as usize;
    if count > max { Err(Malformed("a count beyond its bound")) } else { Ok(count) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log_id(term: u64, node: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: ReplicaId::new(node) }, index }
    }

    fn membership() -> Membership {
        let seat = |node| Seat {
            node: NodeId::new(node),
            epoch: Epoch { generation: Generation::new(1), index: node },
        };
        let seats: BTreeMap<_, _> =
            (1..=4).map(|number| (ReplicaId::new(number), seat(number * 10))).collect();
        let set = |ids: &[u64]| ids.iter().copied().map(ReplicaId::new).collect();
        Membership::new(vec![set(&[1, 2, 3]), set(&[2, 3, 4])], seats).expect("all have seats")
    }

    fn append() -> AppendEntriesRequest<Types> {
        let entries = vec![
            LogEntry { log_id: log_id(3, 1, 7), payload: EntryPayload::Blank },
            LogEntry {
                log_id: log_id(3, 1, 8),
                payload: EntryPayload::Normal(Payload(Bytes::from_static(b"steps"))),
            },
            LogEntry { log_id: log_id(3, 1, 9), payload: EntryPayload::Membership(membership()) },
        ];
        AppendEntriesRequest {
            vote: Vote::new_committed(3, ReplicaId::new(1)),
            prev_log_id: Some(log_id(2, 2, 6)),
            entries,
            leader_commit: None,
        }
    }

    #[test]
    fn an_append_survives_the_wire() {
        let request = append();
        let mut out = BytesMut::new();
        put_append(&mut out, &request);
        let back = take_append(&mut out.freeze()).expect("well formed");
        assert_eq!(format!("{request:?}"), format!("{back:?}"));
    }

    #[test]
    fn an_append_that_was_cut_short_is_refused_wherever_it_was_cut() {
        let payload = EntryPayload::Normal(Payload(Bytes::from_static(&[7; 100])));
        let mut request = append();
        request.entries = vec![LogEntry { log_id: log_id(3, 1, 7), payload }];
        let mut out = BytesMut::new();
        put_append(&mut out, &request);
        let whole = out.freeze();
        for end in 0..whole.len() {
            assert!(take_append(&mut whole.slice(..end)).is_err(), "cut after {end} bytes");
        }
    }

    #[test]
    fn a_header_names_everyone_concerned() {
        let header = Header {
            cluster: ClusterId::new(77),
            group: GroupId::Partition(PartitionId::new(11)),
            generation: Generation::new(2),
            source: ReplicaId::new(5),
            target: ReplicaId::new(6),
        };
        let mut out = BytesMut::new();
        header.put(&mut out);
        assert_eq!(out.len(), 41, "the length is part of the format");
        assert_eq!(Header::take(&mut out.freeze()), Ok(header));
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused_not_feared(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from(bytes);
            let _ = Header::take(&mut bytes.clone());
            let _ = take_append(&mut bytes.clone());
            let _ = take_append_result(&mut bytes.clone());
            let _ = take_vote_request(&mut bytes.clone());
            let _ = take_vote_response(&mut bytes.clone());
            let _ = take_transfer(&mut bytes.clone());
            let _ = take_snapshot_meta(&mut bytes.clone());
        }
    }
}
