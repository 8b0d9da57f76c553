//! What commands that are served one by one come to.

use super::*;
use crate::session::stage::tests::{node, request};

const OOM: &[u8] = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";

fn encoded(bytes: &'static [u8]) -> Served {
    Served::Encoded(Bytes::from_static(bytes))
}

fn refused(refusal: Refusal) -> Served {
    Served::Refused(refusal)
}

#[test]
fn a_split_write_is_not_done_only_if_no_part_is() {
    #[track_caller]
    fn check(parts: [Served; 2], expected: &Served) {
        assert_eq!(merged(parts.into(), Effect::Writes, Merge::AllOk), *expected);
    }
    let in_doubt = refused(Refusal::InDoubt);
    check([encoded(b"+OK\r\n"), Served::Reply(Reply::Ok)], &Served::Reply(Reply::Ok));
    check([encoded(OOM), encoded(OOM)], &encoded(OOM));
    check([encoded(OOM), refused(Refusal::ClusterDown)], &encoded(OOM));
    check([encoded(OOM), Served::Reply(Reply::Ok)], &in_doubt);
    check([encoded(b"+OK\r\n"), encoded(OOM)], &in_doubt);
    check([Served::Reply(Reply::Ok), refused(Refusal::ClusterDown)], &in_doubt);
    check([encoded(OOM), refused(Refusal::InDoubt)], &in_doubt);
    check([encoded(OOM), encoded(b"-INDOUBT lost\r\n")], &in_doubt);
    check([encoded(OOM), Served::Reply(Reply::Error(OpError::AnswerLost))], &in_doubt);
    check([encoded(OOM), encoded(b"$3\r\nab")], &in_doubt);
    check([encoded(OOM), Served::Reply(Reply::Error(OpError::TooLong))], &encoded(OOM));
}

#[test]
fn a_split_read_fails_as_a_part_of_it_did_and_is_never_in_doubt() {
    let of = |parts| merged(parts, Effect::Reads, Merge::Sum);
    let two = || Served::Reply(Reply::Int(2));
    assert_eq!(of(vec![two(), encoded(b":3\r\n")]), Served::Reply(Reply::Int(5)));
    assert_eq!(of(vec![two(), encoded(OOM)]), encoded(OOM));
    assert_eq!(of(vec![two(), refused(Refusal::ReplyTooBig)]), refused(Refusal::ReplyTooBig));
    assert_eq!(of(vec![two(), encoded(b"$3\r\nab")]), refused(Refusal::ClusterDown));
}

async fn ask(patience: &Patience, words: &[&[u8]]) -> (&'static str, Vec<u8>) {
    let mut out = Vec::new();
    let outcome = match patience.serve(&request(words), &mut out).await {
        Outcome::Done => "done",
        Outcome::NotDone => "not done",
        Outcome::InDoubt => "in doubt",
    };
    (outcome, out)
}

#[tokio::test]
async fn after_the_deadline_nothing_is_begun() {
    let node = node().await;
    let mut patience = Patience::new(&node.core, Door::AnyKey, Protocol::Resp2);
    assert_eq!(ask(&patience, &[b"SET", b"k", b"1"]).await, ("done", b"+OK\r\n".to_vec()));
    patience.end = Instant::now();
    let down = b"-CLUSTERDOWN Hash slot not served\r\n";
    assert_eq!(ask(&patience, &[b"SET", b"k", b"2"]).await, ("done", down.to_vec()));
    assert_eq!(ask(&patience, &[b"MGET", b"k", b"j"]).await, ("done", down.to_vec()));
    let patience = Patience::new(&node.core, Door::AnyKey, Protocol::Resp2);
    assert_eq!(ask(&patience, &[b"GET", b"k"]).await, ("done", b"$1\r\n1\r\n".to_vec()));
    node.shutdown().await;
}

#[tokio::test]
async fn to_a_peer_nothing_is_done_after_something_that_was_not() {
    let node = node().await;
    let patience = Patience::new(&node.core, Door::Peer, Protocol::Resp2);
    assert_eq!(ask(&patience, &[b"SET", b"k", b"1"]).await, ("done", b"+OK\r\n".to_vec()));
    assert_eq!(ask(&patience, &[b"GET", b"k"]).await, ("done", b"$1\r\n1\r\n".to_vec()));
    assert_eq!(ask(&patience, &[b"MGET", b"a", b"b"]).await, ("not done", Vec::new()));
    assert_eq!(ask(&patience, &[b"SET", b"k", b"2"]).await, ("not done", Vec::new()));
    let patience = Patience::new(&node.core, Door::Peer, Protocol::Resp2);
    patience.holds(ANSWERS_BYTES_MAX);
    assert_eq!(ask(&patience, &[b"GET", b"k"]).await, ("not done", Vec::new()));
    node.shutdown().await;
}

#[tokio::test]
async fn replies_count_together() {
    let node = node().await;
    let patience = Patience::new(&node.core, Door::AnyKey, Protocol::Resp2);
    let value = vec![b'v'; 1000];
    assert_eq!(ask(&patience, &[b"MSET", b"a", &value, b"b", &value]).await.0, "done");
    patience.holds(reply_bytes_max(&node.core, Door::AnyKey) - 3 * 1100);
    let both: &[&[u8]] = &[b"MGET", b"a", b"b"];
    assert_eq!(ask(&patience, both).await.1.len(), 4 + 2 * 1009);
    let refusal = b"-ERR the reply would be too big, ask for less at once\r\n";
    assert_eq!(ask(&patience, both).await.1, refusal, "of both parts one still fits");
    node.shutdown().await;
}
