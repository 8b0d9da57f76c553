//! Real processes that lose the majority of a group's replicas, and the commands that help them.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use scatterhoard_tests::process::client::Client;
use scatterhoard_tests::process::resp::Value;
use scatterhoard_tests::process::{Cluster, hoard, http_get, wait_until};

/// Keys that stand for all: a few in each partition.
const KEYS_COUNT: u32 = 200;

/// Everything that a cluster on a busy machine needs to come back by itself.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn two_of_three_that_were_killed_need_only_be_started_again() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.client();
    fill(&mut client);
    for (one, other) in [(0, 1), (1, 2)] {
        cluster.kill(one);
        cluster.kill(other);
        cluster.start(one);
        cluster.start(other);
        cluster.wait_ready();
        assert_all_there(&mut cluster.client());
    }
}

#[test]
fn with_several_threads_nothing_is_opened_or_founded_twice() {
    let mut cluster = Cluster::with(3, &["--threads", "4"]);
    fill(&mut cluster.client());
    for (one, other) in [(0, 1), (1, 2), (2, 0)] {
        cluster.kill(one);
        cluster.kill(other);
        cluster.start(one);
        cluster.start(other);
        cluster.wait_ready();
        assert_all_there(&mut cluster.client());
    }
    for node in 0..3 {
        let log = cluster.log(node);
        let opened = log.lines().filter_map(|line| line.split_once("council replica opened "));
        let opened: Vec<_> = opened.map(|(_, replica)| replica.to_owned()).collect();
        let distinct: BTreeSet<_> = opened.iter().collect();
        assert_eq!(distinct.len(), opened.len(), "node {node}: {opened:?}");
    }
    // Whatever was opened ends when it is told to.
    assert!(cluster.stop(1).success());
}

#[test]
fn an_operator_s_word_counts_where_silence_does_not() {
    let mut cluster = Cluster::of(3);
    fill(&mut cluster.client());
    cluster.kill(0);
    cluster.kill(1);
    let names = [0, 1].map(|node| cluster.ports(node).peer().to_string());
    let site = cluster.ports(2).http().to_string();

    wait_until("the loss is seen", PATIENCE, || {
        let (code, said) = run(&["recover", "--http", &site]);
        code == Some(1) && names.iter().all(|name| said.contains(&format!("{name} ({name})")))
    });
    let own = cluster.ports(2).peer().to_string();
    let (code, said) = run(&["recover", "--http", &site, "--ended", &own]);
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("{own} is alive")), "{said}");
    let (code, said) = run(&["recover", "--http", &site, "--ended", "nobody"]);
    assert!(code == Some(1) && said.contains("nobody is called nobody"), "{code:?} {said}");

    let ended = ["--ended", &names[0], "--ended", &names[1]];
    // Gossip goes on seeing them for a while.
    wait_until("its word is taken", PATIENCE, || {
        let (_, said) = run(&[&["recover", "--http", &site][..], &ended].concat());
        names.iter().all(|name| said.contains(&format!("{name} counts as ended")))
    });
    wait_until("one node is enough", PATIENCE, || run(&["recover", "--http", &site]).0 == Some(0));
    // Reads alone: the cluster demands two replicas for a write.
    let mut client = Client::new(vec![cluster.listens()[2]]);
    assert_all_there(&mut client);

    cluster.start(0);
    cluster.start(1);
    cluster.wait_ready();
    fill(&mut cluster.client());
    assert_all_there(&mut cluster.client());
}

#[test]
fn a_node_that_waits_for_others_can_be_told_to_found_without_them() {
    let mut cluster = Cluster::of(1);
    // Nobody listens there.
    let node = cluster.add(&["--join", "127.0.0.1:1"]);
    let http = cluster.ports(node).http();
    let site = http.to_string();
    let not_ready = |said: &str| {
        http_get(http, "/ready")
            .is_ok_and(|answer| answer.status == 503 && answer.body.contains(said))
    };
    wait_until("it listens", PATIENCE, || not_ready("not a member of a cluster yet"));
    let (code, said) = run(&["recover", "--http", &site]);
    assert!(code == Some(1) && said.contains("not a member of a cluster yet"), "{code:?} {said}");

    let (code, said) = run(&["found", "--http", &site]);
    assert!(code == Some(0) && said.contains("founding"), "{code:?} {said}");
    cluster.wait_ready();
    let (code, said) = run(&["found", "--http", &site]);
    assert!(code == Some(1) && said.contains("a member of a cluster already"), "{code:?} {said}");
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(hoard()).args(args).output().expect("the binary can be started");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn fill(client: &mut Client) {
    for number in 0..KEYS_COUNT {
        let (key, value) = (format!("key-{number}"), number.to_string());
        let reply = client.insist(&[b"SET", key.as_bytes(), value.as_bytes()]);
        assert_eq!(reply, Value::ok());
    }
}

fn assert_all_there(client: &mut Client) {
    for number in 0..KEYS_COUNT {
        let reply = client.insist(&[b"GET", format!("key-{number}").as_bytes()]);
        assert_eq!(reply, Value::bulk(number.to_string()), "key-{number}");
    }
}
