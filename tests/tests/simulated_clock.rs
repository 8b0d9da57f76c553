//! A wrong wall clock in simulated time.

use std::time::Duration;

use scatterhoard_check::history::Action;
use scatterhoard_tests::sim::{Cluster, Life};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_wrong_clock_stays_corrected_when_only_two_members_are_left() {
    let mut cluster = Cluster::of(3).seed(30);
    let leader = cluster.leader_of("k");
    let (wrong, other) = (1 + leader % 3, 1 + (leader + 1) % 3);
    cluster.clock(wrong).jump(7200 * SECOND, false);
    cluster.wait(10 * SECOND);
    let ten_minutes = 600_000_000_000;
    cluster.ask(Action::set_for("k", "v1", ten_minutes)).acked();

    // With three the median shows whose clock is wrong; with two it could be either's.
    cluster.crash(other);
    cluster.settle();
    cluster.wait(10 * SECOND);
    leave_it_to(&mut cluster, wrong);
    assert_eq!(cluster.get("k"), Some("v1".to_owned()), "its deadline is minutes away");
}

#[test]
fn a_wall_clock_that_jumps_expires_nothing_early() {
    let mut cluster = Cluster::of(3).seed(19);
    let minute = 60_000_000_000;
    let leader = cluster.leader_of("k");
    cluster.clock(leader).jump(7200 * SECOND, false);
    cluster.ask(Action::set_for("k", "v1", minute)).acked();
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));

    cluster.clock(leader).jump(7200 * SECOND, true);
    let heir = 1 + leader % 3;
    cluster.clock(heir).jump(7200 * SECOND, false);
    cluster.wait(10 * SECOND);
    cluster.crash(leader);
    cluster.until("somebody else leads", |cluster| cluster.leader_of("k") != leader);
    assert_eq!(cluster.get("k"), Some("v1".to_owned()), "its deadline is a minute after the write");
    cluster.wait(20 * SECOND);
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
    cluster.wait(60 * SECOND);
    assert_eq!(cluster.get("k"), None, "its deadline has passed");
}

#[test]
fn a_wall_clock_that_jumps_while_it_is_compared_is_not_believed() {
    let mut cluster = Cluster::of(3).seed(152);
    cluster.ask(Action::set_for("k", "v1", 600_000_000_000)).acked();
    let leader = cluster.leader_of("k");
    // The others are asked every two seconds; their answers take a while, and fall between two jumps.
    cluster.slow_down(leader, Duration::from_millis(20));
    for jump in 0..150 {
        cluster.clock(leader).jump(7200 * SECOND, jump % 2 == 1);
        cluster.wait(Duration::from_millis(33));
    }
    assert_eq!(cluster.get("k"), Some("v1".to_owned()), "its deadline is minutes away");
}

#[test]
fn a_founder_with_a_wrong_clock_is_outvoted_before_it_founds() {
    let mut cluster = Cluster::of(3).start(2026);
    cluster.clock(1).jump(7200 * SECOND, true);
    let hour = 3_600_000_000_000;
    cluster.until("the first write is taken", |cluster| {
        cluster.ask(Action::set_for("k", "v1", hour)).is_acked()
    });
    cluster.settle();
    cluster.wait(10 * SECOND);
    assert_eq!(cluster.get("k"), Some("v1".to_owned()), "its deadline is an hour after the write");
}

#[test]
fn who_begins_with_a_wrong_clock_takes_the_time_from_the_one_who_knows() {
    let replace_after = 5 * SECOND;
    let mut cluster = Cluster::of(3).replace_after(replace_after).seed(1174);
    cluster.ask(Action::set_for("k", "v1", 600_000_000_000)).acked();
    let leader = cluster.leader_of("k");
    let (wrong, other) = (1 + leader % 3, 1 + (leader + 1) % 3);
    cluster.clock(wrong).jump(7200 * SECOND, false);
    cluster.crash(other);
    cluster.wait(2 * replace_after);
    cluster.settle();
    cluster.crash(wrong);
    cluster.restart(wrong);
    cluster.settle();

    // There was only one to be asked, and of two clocks nobody can tell which one is wrong.
    leave_it_to(&mut cluster, wrong);
    assert_eq!(cluster.get("k"), Some("v1".to_owned()), "its deadline is minutes away");
}

#[test]
fn a_key_with_a_deadline_outlives_its_leader() {
    let mut cluster = Cluster::of(3).seed(31);
    cluster.ask(Action::set_for("k", "v1", 60_000_000_000)).acked();
    cluster.wait(5 * SECOND);
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
    let leader = cluster.leader_of("k");
    cluster.crash(leader);
    cluster.until("somebody else leads", |cluster| cluster.leader_of("k") != leader);
    assert_eq!(cluster.get("k"), Some("v1".to_owned()));
}

/// Whoever else leads leaves; there are only two.
fn leave_it_to(cluster: &mut Cluster, heir: usize) {
    let leader = cluster.leader_of("k");
    if leader != heir {
        cluster.leave(leader);
        cluster.until("it has left", |cluster| cluster.life(leader) == Life::Left);
    }
    assert_eq!(cluster.leader_of("k"), heir);
}
