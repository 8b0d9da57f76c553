//! Whole clusters in simulated time, as stories.

use std::time::Duration;

use scatterhoard_check::history::{Action, Answer};
use scatterhoard_check::linear;
use scatterhoard_tests::sim::{Cluster, Life, Port, Told};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_acked_write_outlives_its_leader() {
    let mut cluster = Cluster::of(3).seed(7);
    cluster.set("k", "v1").acked();
    let leader = cluster.leader_of("k");
    cluster.crash(leader);
    cluster.until("somebody else leads", |cluster| cluster.leader_of("k") != leader);
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
}

#[test]
fn a_minority_refuses_writes_and_default_reads() {
    let mut cluster = Cluster::of(3).replace_after(60 * SECOND).seed(8);
    cluster.set("k", "before").acked();
    let alone = cluster.leader_of("k");
    cluster.isolate(alone);
    cluster.until("the majority has a leader", |cluster| cluster.leader_of("k") != alone);

    for port in [Port::Cluster, Port::AnyKey] {
        let told = cluster.ask_node(alone, port, Action::set("k", "by the minority"));
        assert!(!told.is_acked(), "a minority must not acknowledge: {told:?}");
        let told = cluster.ask_node(alone, port, Action::get("k"));
        assert!(!told.is_acked(), "a minority must not answer reads: {told:?}");
    }
    let majority = cluster.leader_of("k");
    cluster.ask_node(majority, Port::Cluster, Action::set("k", "by the majority")).acked();

    cluster.heal();
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("by the majority".to_owned()));
    assert_linearizable(&cluster);
}

#[test]
fn the_old_leader_stops_answering_before_a_new_one_writes() {
    let mut cluster = Cluster::of(3).clients(2).replace_after(60 * SECOND).seed(9);
    cluster.set("k", "old").acked();
    let old = cluster.leader_of("k");
    cluster.isolate(old);
    // Both sides are asked all the time; the history tells whether their answers overlapped wrongly.
    let mut reader = cluster.client_of(2, old, Port::Cluster);
    let reads = cluster.spawn(2, async move {
        for _ in 0..300 {
            let _told = reader.ask(Action::get("k")).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut writer = cluster.client_of(3, 1 + old % 3, Port::AnyKey);
    let writes = cluster.spawn(3, async move {
        let mut acked = 0;
        for count in 0..40 {
            let told = writer.ask(Action::set("k", format!("new-{count}"))).await;
            acked += usize::from(told.is_acked());
        }
        acked
    });
    assert!(cluster.finish(&writes) > 30);
    cluster.heal();
    cluster.finish(&reads);
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("new-39".to_owned()));
    assert_linearizable(&cluster);
}

#[test]
fn a_restarted_memory_only_node_does_not_vote_under_its_old_id() {
    // Two of three hold a write. One of these starts again, empty, while the other is out of reach: with
    // the third it would be a majority that knows nothing of the write, if it still had its vote.
    let mut cluster = Cluster::of(3).replace_after(60 * SECOND).seed(10);
    cluster.set("k", "v0").acked();
    let leader = cluster.leader_of("k");
    let (holder, lagging) = (1 + leader % 3, 1 + (leader + 1) % 3);
    cluster.split(&[lagging], &[leader, holder]);
    cluster.ask_node(leader, Port::Cluster, Action::set("k", "v1")).acked();
    cluster.crash(holder);
    cluster.isolate(leader);
    cluster.heal();
    cluster.isolate(leader);
    cluster.restart(holder);
    cluster.wait(20 * SECOND);
    for node in [holder, lagging] {
        let told = cluster.ask_node(node, Port::AnyKey, Action::get("k"));
        assert!(!told.is_acked(), "an empty node and a lagging one are no majority: {told:?}");
    }
    cluster.heal();
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
    assert_linearizable(&cluster);
}

#[test]
fn a_join_moves_replicas_while_writes_go_on_and_nothing_is_lost() {
    let mut cluster = Cluster::of(3).partitions(6).clients(1).seed(11);
    let mut client = cluster.client(2, Port::Cluster);
    let writes = cluster.spawn(2, async move {
        let mut acked = 0;
        for count in 0..600 {
            let key = format!("key-{}", count % 60);
            acked += usize::from(client.ask(Action::set(key, count.to_string())).await.is_acked());
        }
        acked
    });
    cluster.wait(SECOND);
    let before: usize = (0..60).map(|key| cluster.voters_of(&format!("key-{key}")).len()).sum();
    assert_eq!(before, 3 * 60);
    let joined = cluster.join();
    cluster.settle();
    let acked = cluster.finish(&writes);
    assert!(acked > 590, "only {acked} of 600 writes were acknowledged");
    let moved = (0..60).filter(|key| {
        let voters = cluster.voters_of(&format!("key-{key}"));
        voters.iter().any(|(node, _)| *node == joined)
    });
    assert!(moved.count() > 0, "the new node holds nothing");
    for key in 0..60 {
        assert!(cluster.get(&format!("key-{key}")).is_some());
    }
    assert_linearizable(&cluster);
}

#[test]
fn a_node_that_leaves_loses_nothing() {
    let mut cluster = Cluster::of(4).seed(12);
    cluster.set("k", "v1").acked();
    let leader = cluster.leader_of("k");
    cluster.leave(leader);
    cluster.until("it has left", |cluster| cluster.life(leader) == Life::Left);
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
}

#[test]
fn a_replica_that_comes_back_to_a_partition_it_once_held_alone_does_not_lead_it() {
    // The founder held every partition alone. Its next life must not take that founding for the truth.
    let mut cluster = Cluster::of(3).seed(13);
    for count in 0..20 {
        cluster.set(&format!("key-{count}"), "v1").acked();
    }
    cluster.crash(1);
    cluster.settle();
    cluster.restart(1);
    // While it is on its way back the rest has no quorum: only a replica that thinks it is alone would
    // answer.
    cluster.settle();
    cluster.split(&[1], &[2, 3]);
    cluster.wait(3 * SECOND);
    for count in 0..20 {
        let key = format!("key-{count}");
        let told = cluster.ask_node(1, Port::AnyKey, Action::set(key, "alone"));
        assert!(!told.is_acked(), "{told:?}");
    }
    cluster.heal();
    cluster.settle();
    for count in 0..20 {
        assert_eq!(cluster.get(&format!("key-{count}")), Some("v1".to_owned()));
    }
    assert_linearizable(&cluster);
}

#[test]
fn a_founder_that_is_killed_and_started_again_joins_what_it_founded() {
    let mut cluster = Cluster::of(3).seed(14);
    cluster.set("k", "v1").acked();
    let founded = cluster.clusters();
    cluster.kill(1);
    cluster.restart(1);
    cluster.settle();
    assert_eq!(cluster.clusters(), founded, "there is one cluster, the one it founded");
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
}

#[test]
fn a_founder_that_comes_back_to_silence_waits() {
    let mut cluster = Cluster::of(3).replace_after(60 * SECOND).seed(15);
    cluster.set("k", "v1").acked();
    let founded = cluster.clusters();
    cluster.crash(1);
    cluster.isolate(1);
    cluster.restart(1);
    cluster.wait(20 * SECOND);
    assert_eq!(cluster.life(1), Life::Entering, "silence is no reason to found anything");
    cluster.heal();
    cluster.settle();
    assert_eq!(cluster.clusters(), founded);
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
}

#[test]
fn two_processes_with_one_name_cannot_both_be_members() {
    let mut cluster = Cluster::of(3).seed(16);
    let second = cluster.join_as(Some("n2"));
    cluster.until("it is refused", |cluster| matches!(cluster.life(second), Life::Refused(_)));
    let Life::Refused(reason) = cluster.life(second) else { unreachable!("it was refused") };
    assert!(reason.contains("n2"), "{reason}");
    assert_eq!(cluster.life(2), Life::Member);
    cluster.settle();
}

#[test]
fn a_stalled_leader_that_is_heard_again_overwrites_nothing() {
    let mut cluster = Cluster::of(3).replace_after(60 * SECOND).seed(17);
    cluster.set("k", "v0").acked();
    let old = cluster.leader_of("k");
    cluster.hold(old);
    // It takes the write in, and cannot tell the others yet.
    let told = cluster.ask_node(old, Port::Cluster, Action::set("k", "stalled"));
    assert!(matches!(told, Told::InDoubt(_)), "{told:?}");
    cluster.until("somebody else leads", |cluster| cluster.leader_of("k") != old);
    let leader = cluster.leader_of("k");
    cluster.ask_node(leader, Port::Cluster, Action::set("k", "v1")).acked();
    cluster.heal();
    for _ in 0..50 {
        let read = cluster.ask_node(old, Port::Cluster, Action::get("k"));
        assert!(!matches!(read, Told::Done(_)) || cluster.leader_of("k") == old, "{read:?}");
    }
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
    assert_linearizable(&cluster);
}

#[test]
fn a_leader_hint_that_points_back_is_not_followed_for_ever() {
    // The old leader hears nothing of the election that deposed it; the others redirect past it.
    let mut cluster = Cluster::of(3).replace_after(60 * SECOND).seed(18);
    cluster.set("k", "v0").acked();
    let old = cluster.leader_of("k");
    for other in (1..=3).filter(|&node| node != old) {
        cluster.cut(other, old);
    }
    for count in 0..100 {
        let _told = cluster.set("k", &count.to_string());
        cluster.wait(Duration::from_millis(50));
    }
    cluster.until("somebody else leads", |cluster| cluster.leader_of("k") != old);
    cluster.heal();
    cluster.settle();
    for count in 0..20 {
        cluster.set("k", &format!("after-{count}")).acked();
    }
    assert!(cluster.hops_most() <= 3, "{} redirections for one request", cluster.hops_most());
    assert_linearizable(&cluster);
}

#[test]
fn silence_founds_nothing_when_a_quorum_is_lost() {
    let mut cluster = Cluster::of(3).replace_after(3 * SECOND).seed(20);
    cluster.set("k", "v1").acked();
    let founded = cluster.clusters();
    cluster.crash(1);
    cluster.crash(2);
    cluster.wait(60 * SECOND);
    assert_eq!(cluster.life(3), Life::Member, "the last replica is not thrown away");
    for action in [Action::set("k", "alone"), Action::get("k")] {
        let told = cluster.ask_node(3, Port::AnyKey, action);
        assert!(!told.is_acked(), "one of three is no majority: {told:?}");
    }
    cluster.restart(1);
    cluster.restart(2);
    cluster.wait(60 * SECOND);
    assert_eq!(cluster.clusters(), founded, "an empty majority is no cluster");
    let told = cluster.ask_node(3, Port::AnyKey, Action::get("k"));
    assert!(!told.is_acked() || told == Told::Done(Answer::value("v1")), "{told:?}");
}

#[test]
fn a_council_leader_that_is_lost_during_a_join_holds_nothing_up() {
    for delay in [20, 60, 150, 400] {
        let mut cluster = Cluster::of(3).seed(100 + delay);
        cluster.set("k", "v1").acked();
        let leader = cluster.council_leader();
        cluster.join();
        cluster.wait(Duration::from_millis(delay));
        cluster.crash(leader);
        cluster.settle();
        assert_eq!(cluster.get("k"), Some("v1".to_owned()));
    }
}

#[track_caller]
fn assert_linearizable(cluster: &Cluster) {
    let verdict = linear::check(&cluster.history());
    assert!(verdict.is_linearizable(), "{verdict}");
}
