//! Groups that lose the majority of their replicas, in simulated time: what is proven to have ended is
//! done without, and silence founds nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use scatterhoard_check::history::{Action, Answer};
use scatterhoard_check::linear;
use scatterhoard_tests::sim::{Cluster, Port};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn two_of_three_that_start_again_find_what_the_third_has() {
    let mut cluster = Cluster::of(3).replace_after(30 * SECOND).seed(40);
    for key in ["a", "b", "c", "d", "e", "f"] {
        cluster.set(key, "kept").acked();
    }
    cluster.wait(SECOND);
    for (one, other) in [(1, 2), (2, 3)] {
        cluster.kill(one);
        cluster.kill(other);
        cluster.wait(3 * SECOND);
        cluster.restart(one);
        cluster.restart(other);
        cluster.settle();
        for key in ["a", "b", "c", "d", "e", "f"] {
            assert_eq!(cluster.get(key), Some("kept".to_owned()));
        }
    }
    assert_eq!(cluster.generation_of("a"), 3);
    assert_linearizable(&cluster);
}

#[test]
fn machines_that_lost_their_power_are_no_different() {
    let mut cluster = Cluster::of(3).replace_after(60 * SECOND).seed(41);
    cluster.set("k", "v").acked();
    cluster.wait(SECOND);
    cluster.crash(1);
    cluster.crash(2);
    cluster.wait(5 * SECOND);
    cluster.restart(1);
    cluster.restart(2);
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("v".to_owned()));
}

#[test]
fn either_node_of_two_may_start_again() {
    let mut cluster = Cluster::of(2).replace_after(30 * SECOND).seed(42);
    cluster.set("k", "v").acked();
    cluster.wait(SECOND);
    // The council is on one of them alone.
    for node in [1, 2, 1, 2] {
        cluster.kill(node);
        cluster.wait(SECOND);
        cluster.restart(node);
        cluster.settle();
        assert_eq!(cluster.get("k"), Some("v".to_owned()));
    }
}

#[test]
fn what_the_survivor_only_has_in_its_log_counts() {
    let mut cluster = Cluster::of(3).replace_after(60 * SECOND).seed(43);
    cluster.set("k", "v0").acked();
    let leader = cluster.leader_of("k");
    let (survivor, lagging) = (1 + leader % 3, 1 + (leader + 1) % 3);
    cluster.split(&[lagging], &[leader, survivor]);
    // Acknowledged by the leader and the survivor, who has not been told yet that it is committed.
    cluster.ask_node(leader, Port::Cluster, Action::set("k", "v1")).acked();
    cluster.crash(leader);
    cluster.crash(lagging);
    cluster.heal();
    cluster.wait(2 * SECOND);
    cluster.restart(leader);
    cluster.restart(lagging);
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
    assert_linearizable(&cluster);
}

#[test]
fn silence_founds_nothing() {
    let mut cluster = Cluster::of(3).seed(44);
    cluster.set("k", "v").acked();
    cluster.crash(1);
    cluster.crash(2);
    // Twenty times as long as it takes to be dismissed where there is a quorum to decide it.
    cluster.wait(100 * SECOND);
    let told = cluster.ask_node(3, Port::AnyKey, Action::set("k", "alone"));
    assert!(!told.is_acked(), "one of three is no majority: {told:?}");
    assert_eq!(cluster.generation_of("k"), 1);

    // Those who are only cut off come back as they were.
    let mut cluster = Cluster::of(3).seed(45);
    cluster.set("k", "v").acked();
    cluster.isolate(1);
    cluster.isolate(2);
    cluster.wait(100 * SECOND);
    for node in 1..=3 {
        let told = cluster.ask_node(node, Port::AnyKey, Action::set("k", "alone"));
        assert!(!told.is_acked(), "one of three is no majority: {told:?}");
    }
    cluster.heal();
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("v".to_owned()));
    assert_eq!(cluster.generation_of("k"), 1);
    assert_linearizable(&cluster);
}

#[test]
fn one_that_started_again_does_not_stand_for_one_that_is_silent() {
    let mut cluster = Cluster::of(3).replace_after(30 * SECOND).seed(46);
    cluster.set("k", "v0").acked();
    cluster.wait(SECOND);
    let leader = cluster.leader_of("k");
    let (gone, left) = (1 + leader % 3, 1 + (leader + 1) % 3);
    cluster.split(&[left], &[leader, gone]);
    cluster.ask_node(leader, Port::Cluster, Action::set("k", "v1")).acked();
    cluster.kill(gone);
    cluster.restart(gone);
    cluster.isolate(leader);
    cluster.wait(SECOND);
    cluster.heal();
    cluster.isolate(leader);
    // `left` sees that `gone` has ended, and nothing of the leader, which has the write.
    cluster.wait(60 * SECOND);
    assert_eq!(cluster.generation_of("k"), 1);
    cluster.heal();
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
    assert_linearizable(&cluster);
}

#[test]
fn who_was_dismissed_unawares_founds_nothing() {
    let mut cluster = Cluster::of(3).replace_after(10 * SECOND).seed(47);
    cluster.set("k", "old").acked();
    // While 3 is cut off, it is dismissed, and everything goes on with 4 and 5.
    cluster.isolate(3);
    cluster.wait(SECOND);
    cluster.join();
    cluster.join();
    cluster.split(&[3], &[4, 5]);
    cluster.until("it is all on others", |cluster| {
        let voters = cluster.voters_of("k");
        voters
            .iter()
            .filter(|(node, _)| *node != 3)
            .all(|(_, voters)| voters.len() == 3 && !voters.contains(&"n3".to_owned()))
    });
    cluster.ask_node(4, Port::AnyKey, Action::set("k", "new")).acked();
    // The cut goes elsewhere: 3 sees that 1 and 2 have ended, and knows nobody else.
    cluster.kill(1);
    cluster.kill(2);
    cluster.heal();
    cluster.split(&[1, 2, 3], &[4, 5]);
    cluster.restart(1);
    cluster.restart(2);
    cluster.wait(30 * SECOND);
    for node in [1, 2, 3] {
        let told = cluster.ask_node(node, Port::AnyKey, Action::set("k", "by the ignorant"));
        assert!(!told.is_acked(), "n{node} does not know what became of the cluster: {told:?}");
    }
    assert_eq!(cluster.generation_of("k"), 1);
    cluster.heal();
    // 3 learns that it was dismissed, says that it ends, and is not waited for any more.
    cluster.until("those who know found what is lost", |cluster| {
        cluster.ask_node(4, Port::AnyKey, Action::get("k")).is_acked()
    });
    let told = cluster.ask_node(4, Port::AnyKey, Action::get("k")).acked();
    assert_eq!(told, Answer::Value(Some("new".into())));
    assert_linearizable(&cluster);
}

#[test]
fn a_member_that_one_does_not_know_of_is_given_nothing() {
    // As above, but faster than anybody could be dismissed.
    let mut cluster = Cluster::of(3).replace_after(30 * SECOND).clients(1).seed(49);
    cluster.set("k", "old").acked();
    cluster.isolate(3);
    cluster.join();
    cluster.join();
    cluster.split(&[3], &[4, 5]);
    let mut writer = cluster.client_of(2, 4, Port::AnyKey);
    let writes = cluster.spawn(2, async move {
        for count in 0..200 {
            let _told = writer.ask(Action::set("k", format!("new-{count}"))).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    cluster.wait(5 * SECOND);
    assert!(cluster.voters_of("k").iter().all(|(node, _)| *node < 4));
    cluster.kill(1);
    cluster.kill(2);
    cluster.heal();
    cluster.split(&[1, 2, 3], &[4, 5]);
    cluster.restart(1);
    cluster.restart(2);
    // Nobody else can have anything: 3 may found, and it alone does.
    cluster.until("3 founds", |cluster| cluster.generation_of("k") > 1);
    cluster.wait(5 * SECOND);
    for node in [1, 2, 3] {
        cluster.ask_node(node, Port::AnyKey, Action::append("k", "+"));
    }
    cluster.heal();
    cluster.finish(&writes);
    cluster.settle();
}

#[test]
fn a_newcomer_that_dies_while_it_is_seated_takes_nothing_with_it() {
    for offset_ms in (440..520).step_by(20) {
        let mut cluster = Cluster::of(1).replace_after(30 * SECOND).seed(900);
        cluster.set("k", "v").acked();
        cluster.join();
        cluster.wait(Duration::from_millis(offset_ms));
        // At two of these moments the change that makes it a voter is under way.
        cluster.crash(2);
        cluster.wait(3 * SECOND);
        cluster.restart(2);
        cluster.settle();
        assert_eq!(cluster.get("k"), Some("v".to_owned()), "{offset_ms}");
    }
}

/// Eight nodes with one partition, whose only replica is on none of the council's, if that comes to be with this seed;
/// who is in the council, and who has the replica.
fn led_from_outside_the_council(seed: u64) -> Option<(Cluster, BTreeSet<usize>, usize)> {
    let mut cluster =
        Cluster::of(8).replace_after(10 * SECOND).replicas(1).partitions(1).seed(seed);
    // The partition goes from the founder to somebody.
    cluster.leave(1);
    cluster.settle();
    cluster.until("five councillors", |cluster| cluster.councillors().len() == 5);
    cluster.wait(2 * SECOND);
    let (council, leader) = (cluster.councillors(), cluster.leader_of("k"));
    (!council.contains(&leader)).then_some((cluster, council, leader))
}

#[test]
fn a_generation_that_was_promised_away_is_not_founded_again() {
    let (mut cluster, council, founder) = (1013..1033)
        .find_map(led_from_outside_the_council)
        .expect("two of seven are not in the council");
    let witness = (2..=8).find(|it| *it != founder && !council.contains(it)).unwrap();
    cluster.set("k", "old").acked();
    cluster.wait(2 * SECOND);
    cluster.slow_down(witness, Duration::from_millis(150));
    cluster.wait(2 * SECOND);
    for &node in &council {
        cluster.kill(node);
    }
    cluster.wait(Duration::from_millis(300));
    for &node in &council {
        cluster.restart(node);
    }
    // The witness has promised, and has not heard of what was founded with its promise.
    while cluster.with_council_generation(2).is_empty() {
        cluster.wait(Duration::from_millis(4));
    }
    assert_eq!(cluster.with_council_generation(2), [founder]);
    let mut ignorant: Vec<_> = council.iter().copied().chain([witness]).collect();
    cluster.split(&[founder], &ignorant);
    let heir = cluster.join();
    cluster.split(&[heir], &ignorant);
    cluster.until("only two are left", |cluster| cluster.members_known_to(founder) == 2);
    cluster.wait(3 * SECOND);
    cluster.leave(founder);
    cluster.wait(15 * SECOND);
    cluster.ask_node(heir, Port::AnyKey, Action::set("k", "new")).acked();
    // Who founded starts again on the other side of the cut: the witness sees that all have ended.
    cluster.heal();
    ignorant.push(founder);
    cluster.split(&[heir], &ignorant);
    cluster.restart(founder);
    for _ in 0..30 {
        cluster.wait(SECOND);
        let told = cluster.ask_node(witness, Port::AnyKey, Action::set("k", "by the ignorant"));
        assert!(!told.is_acked(), "{told:?}");
    }
    let told = cluster.ask_node(heir, Port::AnyKey, Action::get("k")).acked();
    assert_eq!(told, Answer::Value(Some("new".into())));
}

#[test]
fn who_has_only_heard_of_a_newer_table_is_named() {
    let mut cluster = Cluster::of(3).replace_after(30 * SECOND).seed(901);
    cluster.set("k", "v").acked();
    cluster.wait(SECOND);
    // While 1 is cut off the others decide something, and nobody who knows it outlives that; but 2,
    // started again, has been told of it.
    cluster.split(&[1], &[2, 3]);
    cluster.wait(2 * SECOND);
    let four = cluster.join();
    cluster.split(&[1], &[four]);
    cluster.wait(2 * SECOND);
    cluster.crash(four);
    cluster.kill(2);
    cluster.restart(2);
    cluster.wait(2 * SECOND);
    cluster.kill(3);
    cluster.heal();
    cluster.wait(SECOND);
    cluster.restart(3);
    cluster.until("it is said whom 1 waits for", |cluster| {
        cluster.describe().contains("waits for who has table 1.")
    });
    assert_eq!(cluster.generation_of("k"), 1);
}

#[test]
fn a_partition_without_copies_begins_empty() {
    let mut cluster = Cluster::of(3).replicas(1).seed(48);
    let keys = ["a", "b", "c", "d", "e", "f"];
    for key in keys {
        cluster.set(key, "v").acked();
    }
    let node = cluster.leader_of("a");
    let lost: Vec<_> = keys.into_iter().filter(|key| cluster.leader_of(key) == node).collect();
    cluster.kill(node);
    cluster.wait(SECOND);
    cluster.restart(node);
    cluster.settle();
    for key in keys {
        let kept = (!lost.contains(&key)).then(|| "v".to_owned());
        assert_eq!(cluster.get(key), kept, "{key}");
    }
    cluster.set("a", "again").acked();
}

#[track_caller]
fn assert_linearizable(cluster: &Cluster) {
    let verdict = linear::check(&cluster.history());
    assert!(verdict.is_linearizable(), "{verdict}");
}
