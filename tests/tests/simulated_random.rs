//! Random walks through faults in simulated time, judged by the linearizability checker.
//!
//! `SEEDS=200` walks more of them, `SEED=9021` only that one. Each walk has a process of its own: only so
//! is it the same whenever it is asked for.

use std::ops::Range;
use std::process::Command;

use scatterhoard_check::history::Outcome;
use scatterhoard_check::linear;
use scatterhoard_tests::sim::{chance, walk};

/// Walks unless something else is asked for, shared out to the tests of this file.
const SEEDS_COUNT: u64 = 12;

#[test]
fn the_first_walks_stay_linearizable() {
    walk_all(0..1);
}

#[test]
fn the_later_walks_stay_linearizable() {
    walk_all(1..2);
}

/// What the tests above run in processes of their own.
#[test]
fn the_walk_of_a_seed() {
    let seed = number("SEED").unwrap_or(1_000_000);
    chance::alone(seed, move || {
        let walked = walk::walk(seed);
        let done = |outcome: &Outcome| matches!(outcome, Outcome::Done { .. });
        let done_count = walked.history.iter().filter(|it| done(&it.outcome)).count();
        let count = walked.history.len();
        println!("seed {seed}: {done_count} of {count} done in {:?}", walked.elapsed);
        assert!(2 * done_count > count, "less than half was done");
        let verdict = linear::check(&walked.history);
        let events = walked.events.join("\n");
        println!("{events}");
        assert!(verdict.is_linearizable(), "seed {seed}: {verdict}");
    });
}

/// Half of the seeds: tests run side by side.
fn walk_all(half: Range<u64>) {
    if number("SEED").is_some() {
        return;
    }
    let count = number("SEEDS").unwrap_or(SEEDS_COUNT);
    let mut failed = Vec::new();
    for seed in half.start * count / 2..half.end * count / 2 {
        let this = std::env::current_exe().expect("a test knows its binary");
        let mut child = Command::new(this);
        child.args(["--exact", "the_walk_of_a_seed", "--nocapture"]).env("SEED", seed.to_string());
        let output = child.output().expect("a test binary can be started");
        if output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            println!("{}", text.lines().find(|line| line.starts_with("seed")).unwrap_or_default());
        } else {
            let (told, events) = (&output.stderr, &output.stdout);
            println!("{}\n{}", String::from_utf8_lossy(told), String::from_utf8_lossy(events));
            println!(
                "replay: SEED={seed} cargo test -p scatterhoard-tests --test simulated_random"
            );
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
