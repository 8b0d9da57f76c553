//! Random walks through faults in simulated time, judged by the linearizability checker.
//!
//! `SEEDS=200` walks more of them, `SEED=9021` only that one.

use std::ops::Range;

use scatterhoard_tests::history::Outcome;
use scatterhoard_tests::linear;
use scatterhoard_tests::sim::{chance, walk};

/// Walks unless something else is asked for, shared out to the tests of this file.
const SEEDS_COUNT: u64 = 12;

#[test]
fn the_first_walks_stay_linearizable() {
    walk_all(0..1);
}

#[test]
fn the_second_walks_stay_linearizable() {
    walk_all(1..2);
}

#[test]
fn the_third_walks_stay_linearizable() {
    walk_all(2..3);
}

#[test]
fn the_last_walks_stay_linearizable() {
    walk_all(3..4);
}

/// A quarter of the seeds: tests run side by side.
fn walk_all(quarter: Range<u64>) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = number("SEED") {
        if quarter.start == 0 {
            walk_one(seed);
        }
        return;
    }
    let count = number("SEEDS").unwrap_or(SEEDS_COUNT);
    let mut failed = Vec::new();
    for seed in quarter.start * count / 4..quarter.end * count / 4 {
        if std::panic::catch_unwind(|| walk_one(seed)).is_err() {
            println!(
                "replay: SEED={seed} cargo test -p scatterhoard-tests --test simulated_random"
            );
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
}

fn walk_one(seed: u64) {
    chance::alone(seed, move || {
        let walked = walk::walk(seed);
        let done = |outcome: &Outcome| matches!(outcome, Outcome::Done { .. });
        let done_count = walked.history.iter().filter(|it| done(&it.outcome)).count();
        println!(
            "seed {seed}: {done_count} of {} done in {:?}",
            walked.history.len(),
            walked.elapsed
        );
        assert!(2 * done_count > walked.history.len(), "less than half was done");
        let verdict = linear::check(&walked.history);
        let events = walked.events.join("\n");
        assert!(verdict.is_linearizable(), "seed {seed}: {verdict}\nwhat was done:\n{events}");
    });
}
