use super::*;

/// An answer as a node gives it, with more in it than is shown.
const ANSWER: &str = r#"{
  "cluster": "0000000000000000000000000000abcd", "epoch": "1.23",
  "node": "00000000000000a1", "name": "a",
  "council": {"leader": "a", "voters": ["a", "b", "c"]},
  "members": [
    {"node": "00000000000000a1", "name": "a", "zone": "east", "standing": "active", "alive": true,
     "listen": "127.0.0.1:7001", "any_key": "127.0.0.1:8001", "http": "127.0.0.1:9001",
     "peer": "127.0.0.1:17001", "leads": 1, "replicas": 2},
    {"node": "00000000000000b2", "name": "b", "zone": "", "standing": "leaving", "alive": true,
     "listen": "127.0.0.1:7002", "any_key": "127.0.0.1:8002", "http": "127.0.0.1:9002",
     "peer": "127.0.0.1:17002", "leads": 0, "replicas": 1},
    {"node": "00000000000000c3", "name": "c", "zone": "", "standing": "active", "alive": false,
     "listen": "127.0.0.1:7003", "any_key": "127.0.0.1:8003", "http": "127.0.0.1:9003",
     "peer": "127.0.0.1:17003", "leads": 0, "replicas": 2}
  ],
  "partitions": [
    {"id": 0, "slots": [0, 8191], "generation": 1, "leader": "a", "term": 3,
     "voters": ["b", "a", "c"], "learners": [], "wanted": ["c", "b", "a"], "keys": 12,
     "below_replicas": false},
    {"id": 1, "slots": [8192, 16383], "generation": 2, "leader": null, "term": null,
     "voters": ["a", "c"], "learners": ["b"], "wanted": ["a", "b", "c"], "keys": null,
     "below_replicas": true}
  ],
  "losses": [{"group": "p1", "why": "waits for c (127.0.0.1:17003)"}]
}"#;

#[test]
fn a_cluster_is_shown_with_what_is_not_well() {
    assert_eq!(
        parse(ANSWER).unwrap().page(),
        "\
cluster 0000000000000000000000000000abcd, epoch 1.23, seen by a
council led by a, voters a b c

MEMBER  STATE     ZONE  LISTENS ON      LEADS  REPLICAS  NODE
a       active    east  127.0.0.1:7001  1      2         00000000000000a1
b       leaving   -     127.0.0.1:7002  0      1         00000000000000b2
c       not seen  -     127.0.0.1:7003  0      2         00000000000000c3

PARTITION  SLOTS       LEADER  VOTERS  JOINING  KEYS  TERM  NOTE
p0         0-8191      a       a b c   -        12    3
p1         8192-16383  none    a c     b        -     -     below replicas, moves to a b c, generation 2

without a leader: p1
below the wanted replicas: p1
members not seen: c
p1 has lost its quorum: waits for c (127.0.0.1:17003)
"
    );
}

#[test]
fn a_cluster_in_which_all_is_well_says_so() {
    let mut status = parse(ANSWER).unwrap();
    status.partitions.truncate(1);
    status.members.truncate(2);
    status.losses.clear();
    assert!(status.page().ends_with("\n\nall is well\n"), "{}", status.page());
}

#[test]
fn an_answer_of_something_else_is_refused() {
    let check = |answer: &str, said: &str| {
        assert_eq!(format!("{:#}", parse(answer).err().unwrap()).split(": ").next(), Some(said));
    };
    check("<html>", "this is no answer of a node");
    check(r#"{"cluster": null, "name": "a"}"#, "this node is not a member of a cluster yet");
    check(r#"{"cluster": "1"}"#, "this node's version answers otherwise");
}

#[test]
fn what_a_node_does_not_keep_is_asked_of_its_leader() {
    let known = || parse(ANSWER).unwrap();
    let mut status = known();
    status.partitions[0].voters.clear();
    status.partitions[0].keys = None;
    status.partitions[0].below_replicas = true;
    status.complete(|http| {
        assert_eq!(http, "127.0.0.1:9001", "the node that leads it is asked");
        Some(known())
    });
    assert_eq!(status.page(), known().page());

    status.partitions[0].voters.clear();
    status.partitions[0].keys = None;
    status.complete(|_| None);
    let page = status.page();
    assert!(page.contains("p0         0-8191      a       ?"), "{page}");
    assert!(page.contains("\nkept by nodes that were not reached: p0\n"), "{page}");
    assert!(page.contains("\nbelow the wanted replicas: p1\n"), "{page}");
}

#[test]
fn a_replica_that_died_is_shown_with_its_cause() {
    let mut status = parse(ANSWER).unwrap();
    status.partitions.truncate(1);
    status.members.truncate(2);
    status.losses.clear();
    let dead = |group: &str, reason: Option<&str>| Dead {
        group: group.to_owned(),
        cause: Some("corrupt entry".to_owned()),
        not_replaced_because: reason.map(str::to_owned),
    };
    status.dead = vec![dead("p0", None), dead("council", Some("no quorum"))];
    let verdict = "\n\n\
replica of p0 on a died: corrupt entry
replica of council on a died: corrupt entry; not replaced: no quorum
";
    assert!(status.page().ends_with(verdict), "{}", status.page());
}
