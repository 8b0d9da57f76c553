//! Measures how long writes wait after `kill -9` of the node that led them: a cluster of three on this
//! machine, ten kills while it is quiet and ten under load, each node in turn.
//!
//! `cargo run --release -p scatterhoard-tests --bin failover [KILLS]`
#![expect(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use scatterhoard_tests::process::Cluster;
use scatterhoard_tests::process::outage::{Load, kill_and_measure};

const NODES_COUNT: usize = 3;
const LOAD_CLIENTS_COUNT: u32 = 4;

/// How long a cluster that is ready is left alone before the next kill.
const SETTLE: Duration = Duration::from_secs(1);

fn main() {
    let kills_count = env::args().nth(1).map_or(10, |word| match word.parse() {
        Ok(count @ 1..) => count,
        _ => panic!("usage: failover [KILLS]"),
    });
    let mut cluster = Cluster::of(NODES_COUNT);
    report("quiet", &measure(&mut cluster, kills_count));

    let load = Load::default();
    let seeds = cluster.listens();
    thread::scope(|scope| {
        for number in 0..LOAD_CLIENTS_COUNT {
            let (load, seeds) = (&load, seeds.clone());
            scope.spawn(move || load.be(number, seeds));
        }
        let _finish = load.finish_on_drop();
        thread::sleep(SETTLE);
        let (begun, before) = (Instant::now(), load.done());
        thread::sleep(SETTLE);
        let rate = (load.done() - before) as f64 / begun.elapsed().as_secs_f64();
        println!("load: {LOAD_CLIENTS_COUNT} clients, half reads, {rate:.0} commands/s");
        report("under load", &measure(&mut cluster, kills_count));
    });
}

/// The outages of each kill.
fn measure(cluster: &mut Cluster, kills_count: usize) -> Vec<Vec<Duration>> {
    let kill = |kill: usize| {
        let node = kill % NODES_COUNT;
        thread::sleep(SETTLE);
        let outages = kill_and_measure(cluster, node);
        cluster.start(node);
        cluster.wait_ready();
        outages.into_iter().map(|outage| outage.lasted).collect()
    };
    (0..kills_count).map(kill).collect()
}

fn report(title: &str, kills: &[Vec<Duration>]) {
    let last = sorted(last_of_each(kills));
    let all = sorted(kills.iter().flatten().copied());
    let each: Vec<_> =
        kills.iter().map(|outages| format!("{:.2?}", outages.iter().max())).collect();
    println!("{title}: {} kills, until all that the node had led accepts writes:", kills.len());
    println!(
        "  median {:.0?}, worst {:.0?}",
        median(&last),
        last.last().unwrap_or(&Duration::ZERO)
    );
    println!("  a single slot: median {:.0?}; each kill: {}", median(&all), each.join(" "));
}

/// How long it took after each kill until the last of the slots came back.
fn last_of_each(kills: &[Vec<Duration>]) -> impl Iterator<Item = Duration> {
    kills.iter().filter_map(|outages| outages.iter().max().copied())
}

fn sorted(durations: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut durations: Vec<_> = durations.collect();
    durations.sort_unstable();
    durations
}

/// The middle one; of two, the longer one.
fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
