//! Equal seeds give equal runs, packet for packet. Without that no failure could be replayed.
//!
//! Each run has a process of its own: tokio numbers its tasks through the life of a process, and ends
//! them in an order that follows from their numbers.

use std::process::Command;
use std::time::Duration;

use scatterhoard_tests::sim::{Cluster, Trace, chance, walk};

/// Everything that turmoil delivers, and everything that nodes say.
const FILTER: &str = "turmoil=trace,scatterhoard_node=debug,scatterhoard_replication=debug,\
                      scatterhoard_cluster=debug,story=info";

/// Tells the process of one run its seed.
const SEED: &str = "TRACE_SEED";

/// Where the trace begins and ends in what such a process prints.
const MARK: &str = "=== trace ===";

#[test]
fn one_seed_gives_one_story_byte_for_byte() {
    assert_same("the_trace_of_a_seed");
}

#[test]
fn one_seed_gives_one_walk_byte_for_byte() {
    assert_same("the_trace_of_a_walk");
}

fn assert_same(run: &str) {
    let (one, other) = (trace_of(run, 21), trace_of(run, 21));
    let differing = one.lines().zip(other.lines()).position(|(one, other)| one != other);
    if let Some(line) = differing {
        let around = |text: &str| {
            let lines = text.lines().skip(line.saturating_sub(3)).take(6);
            lines.map(|line| line.chars().take(400).collect::<String>() + "\n").collect::<String>()
        };
        panic!("line {line} differs:\n{}\nand\n{}", around(&one), around(&other));
    }
    assert_eq!(one.len(), other.len(), "one trace ends before the other");
    assert!(one.lines().count() > 5000, "the trace shows what happened");
    assert_ne!(one, trace_of(run, 22), "another seed is another run");
}

/// What the first test above runs in a process of its own.
#[test]
fn the_trace_of_a_seed() {
    let seed = std::env::var(SEED).map_or(1, |seed| seed.parse().expect("a seed"));
    let trace = chance::alone(seed, move || {
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
    });
    println!("{MARK}\n{trace}{MARK}");
}

/// What the second test above runs in a process of its own: every kind of fault that its seed draws, and
/// what was made of it.
#[test]
fn the_trace_of_a_walk() {
    let seed = std::env::var(SEED).map_or(1, |seed| seed.parse().expect("a seed"));
    let trace = chance::alone(seed, move || {
        let trace = Trace::start(FILTER);
        let walked = walk::walk(seed);
        format!(
            "{}{}\n{}\n{:?}\n",
            trace.text(),
            walked.events.join("\n"),
            walked.counts,
            walked.history
        )
    });
    println!("{MARK}\n{trace}{MARK}");
}

/// Without what the admin interface says: hyper puts the real date into every answer.
fn trace_of(run: &str, seed: u64) -> String {
    let this = std::env::current_exe().expect("a test knows its binary");
    let mut child = Command::new(this);
    child.args(["--exact", run, "--nocapture"]).env(SEED, seed.to_string());
    let printed = child.output().expect("a test binary can be started").stdout;
    let printed = String::from_utf8(printed).expect("a trace is text");
    let trace = printed.split(MARK).nth(1).expect("the run has printed its trace");
    let lines = trace.lines().filter(|line| !line.contains(":8379 "));
    lines.fold(String::with_capacity(trace.len()), |text, line| text + line + "\n")
}
