//! Equal seeds give equal runs, packet for packet. Without that no failure could be replayed.

use std::time::Duration;

use scatterhoard_tests::sim::{Cluster, Trace, chance};

/// Everything that turmoil delivers, and everything that nodes say.
const FILTER: &str = "turmoil=trace,scatterhoard_node=debug,scatterhoard_replication=debug,scatterhoard_cluster=debug,story=info";

#[test]
fn one_seed_gives_one_trace_byte_for_byte() {
    let (one, other) = (comparable(&run(21)), comparable(&run(21)));
    let differing = one.lines().zip(other.lines()).position(|(one, other)| one != other);
    if let Some(line) = differing {
        let around = |text: &str| {
            let lines = text.lines().skip(line.saturating_sub(3)).take(6);
            lines.map(|line| line.chars().take(400).collect::<String>() + "\n").collect::<String>()
        };
        panic!("line {line} differs:\n{}\nand\n{}", around(&one), around(&other));
    }
    assert_eq!(one.len(), other.len(), "one trace ends before the other");
    assert!(one.lines().count() > 10_000, "the trace shows what happened");
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(run(21), run(22));
}

/// Without what the admin interface says: hyper puts the real date into every answer.
fn comparable(trace: &str) -> String {
    let lines = trace.lines().filter(|line| !line.contains(":8379 "));
    lines.fold(String::with_capacity(trace.len()), |text, line| text + line + "\n")
}

fn run(seed: u64) -> String {
    chance::alone(seed, move || {
        let trace = Trace::start(FILTER);
        let mut cluster = Cluster::of(3).partitions(2).seed(seed);
        for count in 0..10 {
            let _told = cluster.set("k", &count.to_string());
        }
        let leader = cluster.leader_of("k");
        cluster.crash(leader);
        cluster.wait(Duration::from_secs(3));
        cluster.restart(leader);
        cluster.settle();
        drop(cluster);
        trace.text()
    })
}
