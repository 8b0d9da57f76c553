//! Nodes leave while clients go on: what they hold moves away first, and nobody misses them.

use std::thread;
use std::time::Duration;

use scatterhoard_check::history::{lost_writes, summarize};
use scatterhoard_check::linear;
use scatterhoard_tests::process::tool::run;
use scatterhoard_tests::process::workload::Workload;
use scatterhoard_tests::process::{Cluster, hoard, pause, wait_until};

/// A name that a query cannot carry as it is.
const NAME: &str = "rack 4/a & b";

/// How long a node may take to hand over what it holds and to go. Longer than its own `--leave-timeout`.
const PATIENCE: Duration = Duration::from_secs(40);

/// Long enough that clients have written to every partition.
const A_WHILE: Duration = Duration::from_secs(1);

#[test]
fn nodes_that_are_drained_or_leave_take_nothing_with_them() {
    let mut cluster = Cluster::of(3);
    let seed = cluster.ports(0).peer().to_string();
    let drained = cluster.add(&["--join", &seed, "--name", NAME]);
    wait_until("the fourth is a member", PATIENCE, || status(&cluster, 0).contains(NAME));
    cluster.wait_ready();

    let workload = Workload::new(10);
    let (listens, any_keys) = (cluster.listens(), cluster.any_keys());
    thread::scope(|scope| {
        for number in 0..6 {
            let seeds = if number < 4 { &listens } else { &any_keys };
            let (workload, seeds) = (&workload, seeds.clone());
            scope.spawn(move || workload.be(number, seeds, number == 1));
        }
        let _finish = workload.finish_on_drop();
        pause(A_WHILE);
        ask(&["drain", NAME], &cluster, 0);
        gone(&mut cluster, drained);
        assert!(!status(&cluster, 0).contains(NAME), "{}", status(&cluster, 0));
        cluster.wait_ready();

        pause(A_WHILE);
        let name = cluster.ports(2).peer().to_string();
        ask(&["leave"], &cluster, 2);
        gone(&mut cluster, 2);
        assert!(!status(&cluster, 0).contains(&name), "{}", status(&cluster, 0));
        cluster.wait_ready();
        pause(A_WHILE);
    });
    assert_eq!(workload.read_all(&listens), [""; 0], "unread keys");
    assert_eq!(workload.oddities(), [""; 0]);

    let history = workload.recorder().history();
    let summary = summarize(&history);
    println!("{summary:?}");
    let lost = lost_writes(&history);
    assert!(lost.lost.is_empty(), "acknowledged writes are gone: {:?}", lost.lost);
    assert!(lost.checked > 100, "too few writes were read back: {}", lost.checked);
    let verdict = linear::check(&history);
    assert!(verdict.is_linearizable(), "{verdict}");
}

/// Waits until a node has ended by itself, having handed everything over.
#[track_caller]
fn gone(cluster: &mut Cluster, node: usize) {
    let mut ended = None;
    wait_until("the node goes", PATIENCE, || {
        ended = cluster.ended(node);
        ended.is_some()
    });
    assert_eq!(ended.expect("it has ended").code(), Some(0));
    let log = cluster.log(node);
    assert!(log.contains("left; everything was handed over"), "{log}");
}

/// What `hoard status` shows, asked of a node.
fn status(cluster: &Cluster, node: usize) -> String {
    ask(&["status"], cluster, node)
}

/// Asks a node with a command of the binary.
#[track_caller]
fn ask(words: &[&str], cluster: &Cluster, node: usize) -> String {
    let http = cluster.ports(node).http().to_string();
    run(hoard(), words.iter().copied().chain(["--http", &http])).well()
}
