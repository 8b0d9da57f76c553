//! Stages on a node alone, with leases that run out when the story needs it.

use std::net::SocketAddr;
use std::sync::Arc;

use scatterhoard_cluster::{ReplyTo, SystemNet};
use scatterhoard_resp::{Decoded, Decoder, Limits};

use super::elsewhere::goes_to;
use super::finish::if_lost;
use super::*;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::forward;
use crate::node::{Environment, Node};

pub(in crate::session) async fn node() -> Node {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config { listen: any, any_key: any, http: any, peer: any, ..Config::default() };
    let seed = u64::from(std::process::id());
    let environment = Environment { net: Arc::new(SystemNet), wall: Arc::new(SystemClock), seed };
    Node::start(config, environment).await.expect("a node alone founds a cluster")
}

/// A request as it is sent.
pub(in crate::session) fn request(words: &[&[u8]]) -> Vec<u8> {
    let words: Vec<_> = words.iter().map(|word| word as &[u8]).collect();
    let mut out = Vec::new();
    Encoder::new(&mut out, Protocol::Resp2).request(Args::from(&words));
    out
}

/// Puts all requests of a buffer into a new stage.
fn staged(core: &Arc<Core>, door: Door, buffer: &[u8]) -> Stage {
    let mut stage = Stage::new(core, door);
    stage.begin(Protocol::Resp2);
    let (mut decoder, mut at) = (Decoder::new(Limits::DEFAULT), 0);
    while let Ok(Decoded::Request(request)) = decoder.decode(&buffer[at..]) {
        let range = at..at + request.bytes_consumed();
        at = range.end;
        let command = scatterhoard_command::parse(request.args(), stage.wall()).unwrap();
        assert!(matches!(stage.add(request.args(), &command, range), Planned::Done));
    }
    stage
}

async fn done(core: &Arc<Core>, buffer: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    staged(core, Door::Cluster, buffer).finish(buffer, &mut out, |_, _| {}).await;
    out
}

#[tokio::test]
async fn a_read_whose_lease_ran_out_does_not_see_the_write_behind_it() {
    let node = node().await;
    for door in [Door::Cluster, Door::AnyKey, Door::Peer] {
        assert_eq!(done(&node.core, &request(&[b"SET", b"k", b"1"])).await, b"+OK\r\n");
        let buffer = [
            request(&[b"GET", b"k"]),
            request(&[b"SET", b"k", b"2"]),
            request(&[b"SET", b"k", b"3"]),
        ]
        .concat();
        let mut stage = staged(&node.core, door, &buffer);
        let (mut out, mut lengths) = (Vec::new(), Vec::new());
        let mut each = |outcome, length| {
            assert!(matches!(outcome, Outcome::Done));
            lengths.push(length);
        };
        stage.finish_slowly(&buffer, &[false], &mut out, &mut each).await;
        assert_eq!(out, b"$1\r\n1\r\n+OK\r\n+OK\r\n", "{door:?}");
        assert_eq!(lengths, [7, 5, 5]);
        assert_eq!(done(&node.core, &request(&[b"GET", b"k"])).await, b"$1\r\n3\r\n");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn one_value_asked_for_too_often_is_refused_before_it_is_copied() {
    let node = node().await;
    let value = vec![b'v'; 8 << 20];
    assert_eq!(done(&node.core, &request(&[b"SET", b"k", &value])).await, b"+OK\r\n");
    let mut words = vec![&b"k"[..]; 1001];
    words[0] = b"MGET";
    let refusal = b"-ERR the reply would be too big, ask for less at once\r\n";
    let buffer = request(&words);
    let mut stage = staged(&node.core, Door::Cluster, &buffer);
    assert_eq!(stage.ready, refusal);
    let mut out = Vec::new();
    stage.finish_slowly(&buffer, &[false], &mut out, &mut |_, _| {}).await;
    assert_eq!(out, refusal, "nor is it where it is served alone");
    assert_eq!(done(&node.core, &request(&words[..3])).await.len(), 4 + 2 * (value.len() + 12));
    node.shutdown().await;
}

#[tokio::test]
async fn writes_that_answer_with_large_values_fill_a_stage() {
    let node = node().await;
    let value = vec![b'v'; WRITES_BYTES_MAX];
    assert_eq!(done(&node.core, &request(&[b"SET", b"k", &value])).await, b"+OK\r\n");
    let persist = request(&[b"GETEX", b"k", b"PERSIST"]);
    let mut stage = staged(&node.core, Door::Cluster, &persist);
    assert!(stage.is_full());
    stage.finish(&persist, &mut Vec::new(), |_, _| {}).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_peer_gets_what_fits_and_asks_again_for_the_rest() {
    let node = node().await;
    let value = vec![b'v'; 3 << 20];
    assert_eq!(done(&node.core, &request(&[b"SET", b"k", &value])).await, b"+OK\r\n");
    let mut body = vec![1, 2];
    body.extend(request(&[b"GET", b"k"]).repeat(4));
    let (reply, answer) = ReplyTo::local();
    forward::serve(Arc::clone(&node.core), body.into(), reply).await;
    let answer = answer.await.unwrap().unwrap();
    let each = 1 + 4 + 10 + value.len() + 2;
    assert_eq!(answer.len(), 2 * each);
    node.shutdown().await;
}

#[test]
fn all_of_a_partition_goes_one_way() {
    let mut away = Vec::new();
    let mut goes =
        |partition, node| goes_to(&mut away, PartitionId::new(partition), NodeId::new(node));
    assert!(goes(1, 7));
    assert!(goes(2, 8));
    assert!(goes(1, 7));
    assert!(!goes(1, 8));
    assert!(goes(2, 8));
}

#[test]
fn a_lost_read_is_asked_again_unless_a_write_went_after_it() {
    #[track_caller]
    fn check(effect: Effect, at: usize, count_to_write: usize, expected: (&str, &[u8])) {
        let mut out = Vec::new();
        let outcome = match if_lost(effect, at, count_to_write, Protocol::Resp2, &mut out) {
            Outcome::Done => "refused",
            Outcome::NotDone => "again",
            Outcome::InDoubt => "in doubt",
        };
        assert_eq!((outcome, &out[..]), expected);
    }
    check(Effect::Reads, 0, 0, ("again", b""));
    check(Effect::Reads, 3, 3, ("again", b""));
    check(Effect::Reads, 1, 3, ("refused", b"-CLUSTERDOWN Hash slot not served\r\n"));
    check(Effect::Writes, 2, 3, ("in doubt", b""));
}
