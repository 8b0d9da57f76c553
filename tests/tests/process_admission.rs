//! Who gets into a cluster, and where those who do keep their copies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use scatterhoard_tests::process::client::Attempt;
use scatterhoard_tests::process::resp::Value;
use scatterhoard_tests::process::{Cluster, http_get, wait_until};
use serde_json::Value as Json;

/// Far more than a node needs to get in or to be refused, or a cluster to move its replicas.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn only_who_has_the_secret_gets_in_and_both_sides_say_so() {
    let (secret, other) = (secret_file("right"), secret_file("wrong"));
    let mut cluster = Cluster::with(3, &["--secret-file", &secret]);
    let seed = cluster.ports(0).peer().to_string();
    let join = ["--join", &seed];
    let wrong = [&join[..], &["--secret-file", &other]].concat();
    let strangers = [
        (&wrong[..], "the secrets of the two nodes differ"),
        (&join, "the called node has a secret, the caller none"),
    ];
    for (flags, reason) in strangers {
        let stranger = cluster.add(flags);
        for node in [stranger, 0] {
            wait_until(&format!("node {node} says why"), PATIENCE, || {
                cluster
                    .log(node)
                    .lines()
                    .any(|line| line.contains("refused") && line.contains(reason))
            });
        }
        let status = http_get(cluster.ports(stranger).http(), "/ready").expect("it waits");
        assert_eq!(status.status, 503, "{}", status.body);
        cluster.kill(stranger);
    }
    cluster.wait_ready();
    assert_eq!(cluster.client().insist(&[b"SET", b"k", b"v"]), Value::ok());
    assert_eq!(zones(&cluster).len(), 3, "nobody else got in");

    let friend = cluster.add(&["--join", &seed, "--secret-file", &secret]);
    wait_until("a friend gets in", PATIENCE, || zones(&cluster).len() == 4);
    cluster.wait_ready();
    assert!(cluster.ended(friend).is_none());
}

#[test]
fn the_copies_of_a_key_are_in_different_zones() {
    let mut cluster = Cluster::with(1, &["--zone", "a"]);
    let seed = cluster.ports(0).peer().to_string();
    for zone in ["a", "b", "b", "c", "c"] {
        cluster.add(&["--join", &seed, "--zone", zone]);
    }
    wait_until("all are members", PATIENCE, || zones(&cluster).len() == 6);
    cluster.wait_ready();
    let zones = zones(&cluster);
    wait_until("every partition is in every zone", PATIENCE, || {
        let voters = voters(&cluster);
        voters.len() == 8
            && voters.values().all(|voters| {
                let apart: BTreeSet<_> = voters.iter().map(|name| &zones[name]).collect();
                voters.len() == 3 && apart.len() == 3
            })
    });
    cluster.wait_ready();
}

#[test]
fn a_cluster_with_fewer_nodes_than_writes_need_is_not_ready() {
    let mut cluster = Cluster::of(1);
    assert!(cluster.stop(0).success());
    cluster.set_flags(0, &["--min-replicas", "2"]);
    cluster.start(0);
    let http = cluster.ports(0).http();
    let reason = "writes are refused: 1 of the 2 nodes that --min-replicas asks for";
    wait_until("it says why it is not ready", PATIENCE, || {
        http_get(http, "/ready").is_ok_and(|it| it.status == 503 && it.body.contains(reason))
    });
    let Attempt::Refused(_) = cluster.client().ask(&[b"SET", b"k", b"v"]) else {
        panic!("a write was taken")
    };
    assert_eq!(told(&cluster, 0)["partitions"][0]["below_replicas"], true);

    let seed = cluster.ports(0).peer().to_string();
    cluster.add(&["--join", &seed]);
    wait_until("there are enough", PATIENCE, || zones(&cluster).len() == 2);
    cluster.wait_ready();
    assert_eq!(cluster.client().ask(&[b"SET", b"k", b"v"]), Attempt::Answered(Value::ok()));
}

/// A file with a secret, for as long as the target directory.
fn secret_file(content: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{content}.secret"));
    fs::write(&path, content).expect("the directory for tests' files is writable");
    path.into_os_string().into_string().expect("the path is text")
}

/// What a node tells of the cluster.
fn told(cluster: &Cluster, node: usize) -> Json {
    let answer =
        http_get(cluster.ports(node).http(), "/api/status").expect("a running node answers");
    serde_json::from_str(&answer.body).expect("it answers in JSON")
}

/// The zone of each member, as the first node knows them.
fn zones(cluster: &Cluster) -> BTreeMap<String, String> {
    let told = told(cluster, 0);
    let members = told["members"].as_array().expect("members are a list");
    members.iter().map(|member| (text(&member["name"]), text(&member["zone"]))).collect()
}

/// The voters of each partition, as those who keep it know them.
fn voters(cluster: &Cluster) -> BTreeMap<u64, BTreeSet<String>> {
    let mut voters = BTreeMap::new();
    for node in 0..cluster.len() {
        let told = told(cluster, node);
        let partitions = told["partitions"].as_array().expect("partitions are a list");
        for partition in partitions.iter().filter(|partition| !partition["keys"].is_null()) {
            let names = partition["voters"].as_array().expect("voters are a list");
            let id = partition["id"].as_u64().expect("an id is a number");
            voters.insert(id, names.iter().map(text).collect());
        }
    }
    voters
}

fn text(value: &Json) -> String {
    value.as_str().expect("a name is text").to_owned()
}
