//! Raft cores that die while their node lives, in simulated time.

use std::time::Duration;

use scatterhoard_check::history::Action;
use scatterhoard_check::linear;
use scatterhoard_tests::sim::{Cluster, Life, Port};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_follower_whose_core_died_is_replaced_and_holds_everything() {
    let mut cluster = Cluster::of(3).partitions(1).seed(40);
    for count in 0..50 {
        cluster.set(&format!("key-{count}"), "before").acked();
    }
    let leader = cluster.leader_of("k");
    let victim = 1 + leader % 3;
    cluster.kill_core(victim, "k");
    cluster.set("k", "while it was dead").acked();
    until_replaced(&mut cluster, victim);
    cluster.settle();

    // Without the leader, the new replica is one half of the quorum.
    cluster.crash(leader);
    cluster.until("another leads", |cluster| cluster.leader_of("k") != leader);
    assert_eq!(cluster.get("k"), Some("while it was dead".to_owned()));
    for count in 0..50 {
        assert_eq!(cluster.get(&format!("key-{count}")), Some("before".to_owned()));
    }
    cluster.settle();
}

#[test]
fn a_leader_whose_core_died_is_replaced_while_writes_go_on() {
    let mut cluster = Cluster::of(3).clients(1).seed(41);
    let mut client = cluster.client(2, Port::Cluster);
    let writes = cluster.spawn(2, async move {
        let mut acked = 0;
        for count in 0..400 {
            let key = format!("key-{}", count % 20);
            acked += usize::from(client.ask(Action::set(key, count.to_string())).await.is_acked());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        acked
    });
    cluster.wait(SECOND);
    let leader = cluster.leader_of("key-0");
    cluster.kill_core(leader, "key-0");
    cluster.until("another leads", |cluster| cluster.leader_of("key-0") != leader);
    until_replaced(&mut cluster, leader);
    let acked = cluster.finish(&writes);
    cluster.settle();
    assert!(acked > 380, "{acked} of 400");
    assert!((0..20).all(|count| cluster.get(&format!("key-{count}")).is_some()));
    assert_linearizable(&cluster);
}

#[test]
fn councillors_whose_core_died_are_replaced_like_others() {
    let mut cluster = Cluster::of(3).partitions(1).seed(42);
    let leader = cluster.council_leader();
    for victim in [1 + leader % 3, leader] {
        cluster.kill_council_core(victim);
        until_replaced(&mut cluster, victim);
        cluster.settle();
    }
    // All three count: without any one of them, the council still admits.
    cluster.crash(1 + (leader + 1) % 3);
    let joined = cluster.join();
    cluster.until("a node was admitted", |cluster| cluster.life(joined) == Life::Member);
    cluster.settle();
}

#[test]
fn a_group_that_has_no_quorum_without_the_dead_is_founded_anew_from_the_best_copy() {
    let mut cluster = Cluster::of(3).replicas(2).partitions(1).seed(43);
    let leader = cluster.leader_of("k");
    let placed: Vec<_> = cluster.voters_of("k").into_iter().map(|(node, _)| node).collect();
    let follower = placed.into_iter().find(|&node| node != leader).unwrap();
    check_founded_anew(cluster, follower);

    // The dead replica is the only one: what it holds can still be read.
    let mut cluster = Cluster::of(2).replicas(1).partitions(1).seed(45);
    let sole = cluster.leader_of("k");
    check_founded_anew(cluster, sole);
}

#[track_caller]
fn check_founded_anew(mut cluster: Cluster, victim: usize) {
    cluster.set("k", "v1").acked();
    cluster.kill_core(victim, "k");
    cluster.until("a new generation", |cluster| cluster.generation_of("k") == 2);
    until_replaced(&mut cluster, victim);
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
    cluster.set("k", "v2").acked();
    assert_linearizable(&cluster);
}

#[test]
fn a_replica_that_dies_again_is_replaced_after_a_minute() {
    let mut cluster = Cluster::of(3).partitions(1).seed(44);
    cluster.set("k", "v1").acked();
    let victim = 1 + cluster.leader_of("k") % 3;
    cluster.kill_core(victim, "k");
    until_replaced(&mut cluster, victim);
    cluster.settle();
    let first = cluster.elapsed();
    cluster.kill_core(victim, "k");
    until_replaced(&mut cluster, victim);
    let pause = cluster.elapsed() - first;
    assert!((50 * SECOND..70 * SECOND).contains(&pause), "{pause:?}");
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
}

/// Waits until a node keeps no dead replica: a committed membership has left it out.
#[track_caller]
fn until_replaced(cluster: &mut Cluster, node: usize) {
    cluster.until("a dead replica was replaced", |cluster| cluster.dead_on(node).is_empty());
}

fn assert_linearizable(cluster: &Cluster) {
    let verdict = linear::check(&cluster.history());
    assert!(verdict.is_linearizable(), "{verdict}");
}
