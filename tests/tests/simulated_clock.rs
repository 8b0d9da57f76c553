//! A wrong wall clock in simulated time.

use std::time::Duration;

use scatterhoard_tests::history::Action;
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
    let leader = cluster.leader_of("k");
    if leader != wrong {
        cluster.leave(leader);
        cluster.until("it has left", |cluster| cluster.life(leader) == Life::Left);
    }
    assert_eq!(cluster.leader_of("k"), wrong);
    assert_eq!(cluster.get("k"), Some("v1".to_owned()), "its deadline is minutes away");
}
