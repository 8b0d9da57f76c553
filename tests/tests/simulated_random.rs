//! Random walks through faults in simulated time: invariants at every event, the linearizability checker at
//! the end, and whether all that was planned has happened.
//!
//! `SEEDS=5000` walks more of them, `FROM=1000` begins there, `SEED=9021` walks only that one. Each walk has
//! a process of its own: only so is it the same whenever it is asked for.

use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use scatterhoard_check::history::Outcome;
use scatterhoard_check::linear;
use scatterhoard_tests::sim::{Counts, chance, walk};

/// Walks unless something else is asked for.
const SEEDS_COUNT: u64 = 200;

/// Tells the process of a walk its seed.
const WALKS_SEED: &str = "THE_SEED_OF_THIS_WALK";

/// Walks at a time.
const WORKERS_COUNT: usize = 2;

/// From so many walks on everything that is planned must have happened in one of them.
const SEEDS_COUNT_TELLING: u64 = 200;

/// What walks plan, and what must come of it, as [`Counts`] name it. What never happens was not tested.
const PLANNED: [&str; 53] = [
    "Crash",
    "CrashLoop",
    "Kill",
    "LongAway",
    "Majority",
    "RollingRestart",
    "Leave",
    "Drain",
    "LeaveUnheard",
    "Join",
    "JoinWhileSplit",
    "Isolate",
    "Split",
    "Bridge",
    "OneWay",
    "Hold",
    "SlowDown",
    "Starve",
    "Lose",
    "Shuffle",
    "Pause",
    "PauseAt",
    "PauseAfterAck",
    "CutAfterAck",
    "PauseTwo",
    "ClockJump",
    "CoreDies",
    "clocks that drift",
    "datagrams late or twice",
    "processes stopped",
    "memory lost while groups change",
    "held at AfterRead",
    "held at AfterReadIndex",
    "held at BeforePropose",
    "held at BeforeAnswer",
    "held at BeforeFounding",
    "held at BeforeDrop",
    "held at BeforeDecree",
    "leaders of the council",
    "leaders of partitions",
    "generations of the council founded",
    "generations of partitions founded",
    "snapshots installed",
    "logs purged",
    "leases lost during a read",
    "reads by lease",
    "reads by read index",
    "writes in doubt",
    "entries acknowledged",
    "replicas dropped",
    "leaderships handed over",
    "keys evicted",
    "walks in which clients were told of changes",
];

#[test]
fn walks_stay_right() {
    let (from, count) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS_COUNT)),
    };
    let next = AtomicU64::new(from);
    let (failed, counts) = (Mutex::new(Vec::new()), Mutex::new(Counts::default()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS_COUNT {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    match told(seed, &walk_of(seed)) {
                        Some(counted) => counts.lock().expect("nobody panicked").merge(&counted),
                        None => failed.lock().expect("nobody panicked").push(seed),
                    }
                }
            });
        }
    });
    let counts = counts.into_inner().expect("nobody panicked");
    println!("what happened:");
    for (what, count) in counts.iter() {
        println!("{count:>9} {what}");
    }
    let failed = failed.into_inner().expect("nobody panicked");
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
    let untested: Vec<_> = PLANNED.iter().filter(|what| counts.of(what) == 0).collect();
    assert!(count < SEEDS_COUNT_TELLING || untested.is_empty(), "not tested: {untested:?}");
}

/// What the test above runs in processes of their own.
#[test]
fn the_walk_of_a_seed() {
    let seed = number(WALKS_SEED).or_else(|| number("SEED")).unwrap_or(1_000_000);
    chance::alone(seed, move || {
        let walked = walk::walk(seed);
        let done = |outcome: &Outcome| matches!(outcome, Outcome::Done { .. });
        let done_count = walked.history.iter().filter(|it| done(&it.outcome)).count();
        let count = walked.history.len();
        println!("seed {seed}: {done_count} of {count} done in {:?}", walked.elapsed);
        let events = walked.events.join("\n");
        println!("{events}");
        println!("counts: {}", walked.counts);
        let verdict = linear::check_by(&walked.rules, &walked.history);
        assert!(verdict.is_linearizable(), "seed {seed}: {verdict}");
        assert!(walked.was_served(), "less than a third was done");
    });
}

fn walk_of(seed: u64) -> Output {
    let this = std::env::current_exe().expect("a test knows its binary");
    let mut child = Command::new(this);
    child.args(["--exact", "the_walk_of_a_seed", "--nocapture"]).env(WALKS_SEED, seed.to_string());
    child.output().expect("a test binary can be started")
}

/// Says what became of a walk; answers with what happened in it if it went well.
fn told(seed: u64, walked: &Output) -> Option<Counts> {
    let (out, errors) =
        (String::from_utf8_lossy(&walked.stdout), String::from_utf8_lossy(&walked.stderr));
    if !walked.status.success() {
        println!("{errors}\n{out}");
        println!("replay: SEED={seed} cargo test -p scatterhoard-tests --test simulated_random");
        return None;
    }
    println!("{}", out.lines().find(|line| line.starts_with("seed")).unwrap_or_default());
    let counts = out.lines().find_map(|line| line.strip_prefix("counts: "));
    Some(counts.and_then(Counts::parse).expect("a walk says what happened"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
