//! Processes that stand still for longer than what they know holds, at the worst of moments.

use std::time::Duration;

use scatterhoard_check::history::{Action, Answer};
use scatterhoard_check::linear;
use scatterhoard_replication::probe::Point;
use scatterhoard_tests::sim::{Cluster, Port, Told};

const SECOND: Duration = Duration::from_secs(1);

/// A write that those who are not paused take.
fn overwrite(cluster: &mut Cluster, paused: usize, value: &str) {
    let others: Vec<_> = (1..=cluster.nodes_count()).filter(|&node| node != paused).collect();
    cluster.until("another leads and takes a write", |cluster| {
        let action = Action::set("k", value.to_owned());
        let mut asked = others.iter();
        asked.any(|&node| cluster.ask_node(node, Port::AnyKey, action.clone()).is_acked())
    });
}

#[test]
fn a_read_that_was_held_up_until_its_lease_ran_out_is_not_answered() {
    let mut cluster = Cluster::of(3).partitions(1).clients(1).seed(31);
    cluster.set("k", "old").acked();
    let leader = cluster.leader_of("k");
    cluster.pause_at(leader, Point::AfterRead);
    let mut client = cluster.client_of(2, leader, Port::Cluster);
    let reading = cluster.spawn(2, async move { client.ask(Action::get("k")).await });
    cluster.until("it stands between the read and the look", |it| it.is_paused(leader));
    overwrite(&mut cluster, leader, "new");
    cluster.resume(leader);
    let old = Told::Done(Answer::Value(Some("old".into())));
    assert_ne!(cluster.finish(&reading), old, "by then another value was acknowledged");
    cluster.settle();
    cluster.converge();
}

#[test]
fn a_leader_that_was_stopped_does_not_answer_from_what_it_knew() {
    let mut cluster = Cluster::of(3).partitions(1).clients(1).seed(32);
    cluster.set("k", "old").acked();
    let leader = cluster.leader_of("k");
    let mut client = cluster.client_of(2, leader, Port::Cluster);
    let connected = cluster.spawn(2, async move {
        client.ask(Action::get("k")).await.acked();
        client
    });
    let mut client = cluster.finish(&connected);
    cluster.pause(leader);
    // Waits in the socket of a process that does nothing, on a connection that it knows.
    let reading = cluster.spawn(2, async move { client.ask(Action::get("k")).await });
    overwrite(&mut cluster, leader, "new");
    cluster.resume(leader);
    let old = Told::Done(Answer::Value(Some("old".into())));
    assert_ne!(cluster.finish(&reading), old, "by then another value was acknowledged");
    cluster.settle();
    cluster.converge();
}

#[test]
fn a_write_that_was_held_up_is_done_once_or_never() {
    for point in [Point::BeforePropose, Point::BeforeAnswer] {
        let mut cluster = Cluster::of(3).partitions(1).clients(1).seed(33);
        cluster.ask(Action::incr("k", 1)).acked();
        let leader = cluster.leader_of("k");
        cluster.pause_at(leader, point);
        let mut client = cluster.client(2, Port::Cluster);
        let writing = cluster.spawn(2, async move { client.ask(Action::incr("k", 1)).await });
        cluster.until("it stands there", |it| it.is_paused(leader));
        overwrite(&mut cluster, leader, "10");
        cluster.wait(SECOND);
        cluster.resume(leader);
        let _whatever_it_was_told = cluster.finish(&writing);
        cluster.settle();
        cluster.ask(Action::get("k")).acked();
        let verdict = linear::check(&cluster.history());
        assert!(verdict.is_linearizable(), "{point:?}: {verdict}");
        cluster.converge();
    }
}

#[test]
fn clocks_that_run_ten_percent_apart_leave_leases_right() {
    let mut cluster = Cluster::of(3).partitions(1).seed(34);
    cluster.set_pace(1, 0.955);
    cluster.set_pace(2, 1.045);
    for round in 0..3 {
        let value = format!("v{round}");
        cluster.set("k", &value).acked();
        let leader = cluster.leader_of("k");
        cluster.isolate(leader);
        // Until its lease has run out it answers alone; nobody else may have taken a write by then.
        for _ in 0..40 {
            let read = Action::get("k");
            let _served_or_not = cluster.ask_node(leader, Port::Cluster, read);
            let others = (1..=3).find(|&node| node != leader).expect("there are three");
            let write = Action::set("k", format!("{value} again"));
            if cluster.ask_node(others, Port::AnyKey, write).is_acked() {
                break;
            }
        }
        cluster.heal();
        cluster.settle();
    }
    let verdict = linear::check(&cluster.history());
    assert!(verdict.is_linearizable(), "{verdict}");
}
