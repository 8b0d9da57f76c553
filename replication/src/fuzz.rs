//! What must hold of any bytes in place of a group's messages or of the council's state. For tests and
//! fuzzers only.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::machine::Machine;
use crate::wire::{self, Header, Malformed};
use crate::{Council, Tables};

/// One message without its frame: the first byte chooses its kind.
///
/// Nothing panics; and what can be read is read again as it was from its writing.
pub fn messages(input: &[u8]) {
    let Some((&kind, message)) = input.split_first() else { return };
    match kind % 9 {
        0 => again(message, Header::take, |out, header| header.put(out)),
        1 => again(message, wire::take_append, wire::put_append),
        2 => again(message, wire::take_append_result, wire::put_append_result),
        3 => again(message, wire::take_vote_request, wire::put_vote_request),
        4 => again(message, wire::take_vote_response, wire::put_vote_response),
        5 => again(message, wire::take_transfer, wire::put_transfer),
        6 => {
            again(message, wire::take_snapshot_meta, wire::put_snapshot_meta);
            opening(message);
        }
        7 => council_entry(message),
        _ => council_snapshot(message),
    }
}

fn again<T: Debug>(
    message: &[u8],
    take: impl Fn(&mut Bytes) -> Result<T, Malformed>,
    put: impl Fn(&mut BytesMut, &T),
) {
    let mut input = Bytes::copy_from_slice(message);
    let Ok(taken) = take(&mut input) else { return };
    let mut out = BytesMut::new();
    put(&mut out, &taken);
    let mut written = out.freeze();
    // Rewritten it may be shorter, if the peer wrote a set unsorted or twice; longer only by a lie.
    assert!(written.len() <= message.len() - input.len(), "no more than was there");
    let back = take(&mut written).expect("we wrote it");
    assert!(written.is_empty(), "nothing is left over");
    assert_eq!(format!("{back:?}"), format!("{taken:?}"));
}

/// The head of a snapshot, checked as its receiver does.
fn opening(message: &[u8]) {
    let mut input = Bytes::copy_from_slice(message);
    let Ok(vote) = wire::take_vote(&mut input) else { return };
    let Ok(meta) = wire::take_snapshot_meta(&mut input) else { return };
    if wire::check_snapshot(&vote, &meta).is_ok() {
        assert!(meta.last_log_id.is_none_or(|last| last.leader_id <= vote.leader_id));
    }
}

fn council() -> Arc<Council> {
    Council::empty(Tables::default())
}

/// An entry of the council's log, to a council that has not started.
fn council_entry(entry: &[u8]) {
    let council = council();
    let _refused_or_not = council.apply(1, entry, true);
    same_after_a_snapshot(&council);
}

/// A council that takes a snapshot over gives the same snapshot.
fn council_snapshot(piece: &[u8]) {
    let council = council();
    let mut staged = council.stage();
    if staged.absorb(piece).is_ok() {
        council.install(staged.finish());
        assert!(piece_of(&council).len() > 8, "there is a table");
        same_after_a_snapshot(&council);
    }
}

fn same_after_a_snapshot(council: &Council) {
    let piece = piece_of(council);
    let copy = self::council();
    let mut staged = copy.stage();
    if staged.absorb(&piece).is_ok() {
        copy.install(staged.finish());
        assert_eq!(piece_of(&copy), piece);
    }
}

fn piece_of(council: &Council) -> Vec<u8> {
    let mut piece = Vec::new();
    assert_eq!(council.piece(0, &mut piece), None, "a table is one piece");
    piece
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::EntryPayload;
    use openraft::raft::{
        AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse,
    };
    use scatterhoard_fuzz::bounded;
    use scatterhoard_ring::{
        Change, ClusterId, Endpoints, Epoch, Generation, GroupId, Member, NodeId, PartitionId,
        ReplicaId, Settings, Standing, Table,
    };

    use super::*;
    use crate::raft::{
        LeaderId, LogEntry, LogId, Membership, Payload, Seat, SnapshotMeta, StoredMembership, Vote,
    };

    fn log_id(term: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: ReplicaId::new(1) }, index }
    }

    fn vote() -> Vote {
        Vote::new_committed(3, ReplicaId::new(1))
    }

    fn membership() -> Membership {
        let epoch = Epoch { generation: Generation::new(1), index: 9 };
        let seat = |number| (ReplicaId::new(number), Seat { node: NodeId::new(number), epoch });
        let voters = |ids: &[u64]| ids.iter().copied().map(ReplicaId::new).collect::<BTreeSet<_>>();
        let seats: BTreeMap<_, _> = (1..=4).map(seat).collect();
        Membership::new(vec![voters(&[1, 2]), voters(&[2, 3])], seats).expect("all have seats")
    }

    fn append() -> AppendEntriesRequest<crate::raft::Types> {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Payload(Bytes::from_static(b"steps"))),
            EntryPayload::Membership(membership()),
        ];
        let entry = |(index, payload)| LogEntry { log_id: log_id(3, index), payload };
        AppendEntriesRequest {
            vote: vote(),
            prev_log_id: Some(log_id(2, 6)),
            entries: (7..).zip(payloads).map(entry).collect(),
            leader_commit: Some(log_id(2, 5)),
        }
    }

    fn table() -> Table {
        let at = std::net::SocketAddr::from(([10, 0, 0, 1], 1));
        let founder = Member {
            node: NodeId::new(1),
            name: "n1".to_owned(),
            zone: String::new(),
            endpoints: Endpoints { peer: at, listen: at, any_key: at, http: at },
            standing: Standing::Active,
            admitted: Epoch::default(),
            version: "0.1.0".to_owned(),
        };
        let epoch = Epoch { generation: Generation::new(1), index: 1 };
        Table::found(ClusterId::new(7), Settings::default(), founder, 4, epoch).expect("it can be")
    }

    /// A seed: a kind, and what a message of that kind is written as.
    fn seed(kind: u8, put: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::from(&[kind][..]);
        put(&mut out);
        out.to_vec()
    }

    #[test]
    fn any_messages_are_read_soundly() {
        let header = Header {
            cluster: ClusterId::new(77),
            group: GroupId::Partition(PartitionId::new(11)),
            generation: Generation::new(2),
            source: ReplicaId::new(5),
            target: ReplicaId::new(6),
        };
        let last_membership = StoredMembership::new(Some(log_id(2, 4)), membership());
        let meta = SnapshotMeta { last_log_id: Some(log_id(3, 9)), last_membership };
        let request = VoteRequest::new(vote(), Some(log_id(2, 5)));
        let response = VoteResponse::new(vote(), None, true);
        let transfer = TransferLeaderRequest::new(vote(), ReplicaId::new(2), Some(log_id(3, 7)));
        let leave = Change::Leave { node: NodeId::new(1) };
        let seeds = [
            seed(0, |out| header.put(out)),
            seed(1, |out| wire::put_append(out, &append())),
            seed(2, |out| wire::put_append_result(out, &Ok(Some(log_id(3, 9))))),
            seed(2, |out| {
                wire::put_append_result(out, &Err(StreamAppendError::Conflict(log_id(3, 9))));
            }),
            seed(2, |out| {
                wire::put_append_result(out, &Err(StreamAppendError::HigherVote(vote())));
            }),
            seed(3, |out| wire::put_vote_request(out, &request)),
            seed(4, |out| wire::put_vote_response(out, &response)),
            seed(5, |out| wire::put_transfer(out, &transfer)),
            seed(6, |out| wire::put_snapshot_meta(out, &meta)),
            seed(6, |out| {
                wire::put_vote(out, &vote());
                wire::put_snapshot_meta(out, &meta);
            }),
            seed(7, |out| out.extend_from_slice(&leave.encode())),
            seed(8, |out| {
                out.extend_from_slice(&9_u64.to_be_bytes());
                out.extend_from_slice(&table().encode());
            }),
        ];
        bounded("messages", &seeds, messages);
    }
}
