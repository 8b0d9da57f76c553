//! What a hit in the near cache costs, with the proof that it is fresh, beside a bare `get` of the caches behind it;
//! and which of them has to load least.
//!
//! `cargo bench -p scatterhoard-client --bench near` prints ratios of times, times, and hit ratios. Those of two threads are per
//! operation in all: half of what one thread takes, if they do not slow each other down. With `HOARD_BIN` set (see
//! `nodes/mod.rs`), a hit on what real nodes have is among them.

#[path = "../tests/near/judge.rs"]
mod judge;
mod nodes;

use std::hint::{self, black_box};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use criterion::Criterion;
use futures_util::FutureExt as _;
use judge::Judge;
use nodes::Nodes;
use scatterhoard_client::Clock;
use scatterhoard_client::cache::Cache;
use scatterhoard_client::level::near::{Fronted, Kept, Moka, Near, NearLevel, Quick, Sight, Valid};
use scatterhoard_client::level::{ClusterLevel, HoardLevel, LevelConfig, Moment};
use tokio::runtime::{Builder, Handle};
use tokio::time::Instant;

const KEY: &str = "article:12345";
const BYTES_MAX: u64 = 64 << 20;

type Value = Vec<u8>;
type Articles = Cache<String, Value>;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    // For reads that are no hits after all.
    let _entered = runtime.enter();
    let contest = runtime.block_on(Contest::new());
    let contestants = contest.contestants();
    let is_test = std::env::args().any(|it| it == "--test");
    if !is_test {
        print_ratios(&contestants);
    }
    for (name, once) in contestants {
        measure(&mut criterion, name, &*once);
    }
    criterion.final_summary();
    if !is_test {
        hit_ratios();
    }
    let unproven = contest.unproven.load(Ordering::Relaxed);
    if unproven > 0 {
        println!("{unproven} reads of what the nodes have were no hits: no proof came in time");
    }
}

type Contestant<'a> = (&'static str, Box<dyn Fn() + Sync + 'a>);

struct Contest {
    key: String,
    moka: moka::sync::Cache<String, Arc<Value>>,
    quick: quick_cache::sync::Cache<String, Arc<Value>>,
    near: [Near<String, Value>; 4],
    alone: Articles,
    over_cluster: Articles,
    over_nodes: Option<OverNodes>,
    /// Reads over real nodes that found a copy which was not proven fresh at that moment.
    unproven: AtomicU64,
}

struct OverNodes {
    cache: Articles,
    _nodes: Nodes,
}

impl Contest {
    async fn new() -> Self {
        let weigher = |_: &String, _: &Arc<Value>| 300;
        let moka = moka::sync::Cache::builder().max_capacity(BYTES_MAX).weigher(weigher).build();
        moka.insert(KEY.to_owned(), Arc::new(value()));
        let quick = quick_cache::sync::Cache::new(200_000);
        quick.insert(KEY.to_owned(), Arc::new(value()));
        let near = [
            near(Moka::with_bytes_max(BYTES_MAX)),
            near(Quick::with_bytes_max(BYTES_MAX)),
            near(Fronted::new(Moka::with_bytes_max(BYTES_MAX), BYTES_MAX / 64)),
            near(Fronted::new(Quick::with_bytes_max(BYTES_MAX), BYTES_MAX / 64)),
        ];
        let judge = Judge::bound(Duration::from_secs(3600));
        judge.prove();
        let near_only = || Cache::builder("article").near_bytes(BYTES_MAX).forever();
        let alone = filled(near_only().build().expect("a level")).await;
        let over_cluster = filled(near_only().cluster(judge).build().expect("levels")).await;
        let over_nodes = match Nodes::start() {
            Some(nodes) => Some(OverNodes::new(nodes).await),
            None => {
                println!("without real nodes: {}", nodes::MISSING);
                None
            }
        };
        let unproven = AtomicU64::new(0);
        Self { key: KEY.to_owned(), moka, quick, near, alone, over_cluster, over_nodes, unproven }
    }

    /// The first is what the others are compared with.
    fn contestants(&self) -> Vec<Contestant<'_>> {
        let Self { key, moka, quick, near: [over_moka, over_quick, fronts, quick_fronts], .. } =
            self;
        let mut contestants: Vec<Contestant<'_>> = vec![
            ("a bare get of moka", Box::new(|| drop(black_box(moka.get(black_box(key)))))),
            ("a bare get of quick_cache", Box::new(|| drop(black_box(quick.get(black_box(key)))))),
            (
                "a look at the clock",
                Box::new(|| {
                    black_box(Clock::new().now());
                }),
            ),
            ("a hit over moka", Box::new(|| hit(over_moka, key))),
            ("a hit over quick_cache", Box::new(|| hit(over_quick, key))),
            ("a hit over moka with fronts", Box::new(|| hit(fronts, key))),
            ("a hit over quick_cache with fronts", Box::new(|| hit(quick_fronts, key))),
            ("Cache::get, near only", Box::new(|| assert!(get(&self.alone, key)))),
            ("Cache::get, near over a cluster", Box::new(|| assert!(get(&self.over_cluster, key)))),
        ];
        if let Some(over_nodes) = &self.over_nodes {
            let once = || {
                if !get(&over_nodes.cache, key) {
                    self.unproven.fetch_add(1, Ordering::Relaxed);
                }
            };
            contestants.push(("Cache::get, near over three nodes", Box::new(once)));
        }
        contestants
    }
}

impl OverNodes {
    async fn new(nodes: Nodes) -> Self {
        let level = HoardLevel::connect(LevelConfig::new(nodes.addresses())).await;
        let level: Arc<dyn ClusterLevel> = Arc::new(level.expect("the nodes are ready"));
        let cache = Cache::builder("article").near_bytes(BYTES_MAX).cluster(level);
        Self { cache: filled(cache.build().expect("levels")).await, _nodes: nodes }
    }
}

fn value() -> Value {
    vec![7; 100]
}

/// What was written is read until there is a copy, with its proof.
async fn filled(cache: Articles) -> Articles {
    let key = KEY.to_owned();
    cache.set(&key, value()).await.expect("it is set");
    while cache.stats().counts().near.hits == 0 {
        assert_eq!(cache.get(&key).await.expect("a value").as_deref(), Some(&value()));
    }
    cache
}

/// Whether it was a hit, which is ready at once.
fn get(cache: &Articles, key: &String) -> bool {
    match cache.get(black_box(key)).now_or_never() {
        Some(found) => black_box(found).is_ok_and(|found| found.is_some()),
        None => false,
    }
}

/// Operations of one short run, of each thread.
const RUN_COUNT: u32 = 500;

/// All of them in turn, in runs so short that most are not interrupted: on a busy machine too, the medians of these can
/// be compared with each other.
fn print_ratios(contestants: &[Contestant<'_>]) {
    let alone = medians(contestants, 3000, run_alone);
    let together = medians(contestants, 1000, run_together);
    println!(
        "medians of short runs on one thread, and on two at once for each operation of the two together;"
    );
    println!("in brackets their ratios to the first");
    for (((name, _), alone_ns), together_ns) in contestants.iter().zip(&alone).zip(&together) {
        println!(
            "  {alone_ns:6.1} ns ({:.2}), {together_ns:6.1} ns ({:.2}): {name}",
            alone_ns / alone[0],
            together_ns / together[0]
        );
    }
}

/// In nanoseconds for each operation.
fn medians(
    contestants: &[Contestant<'_>],
    runs_count: usize,
    run: fn(&(dyn Fn() + Sync)) -> Duration,
) -> Vec<f64> {
    let mut runs = vec![Vec::with_capacity(runs_count); contestants.len()];
    for _ in 0..runs_count {
        for (runs, (_, once)) in runs.iter_mut().zip(contestants) {
            runs.push(run(&**once));
        }
    }
    let median = |runs: &mut Vec<Duration>| {
        runs.sort();
        runs[runs.len() / 2].as_nanos() as f64
    };
    runs.iter_mut().map(|runs| median(runs) / f64::from(RUN_COUNT)).collect()
}

fn run_alone(once: &(dyn Fn() + Sync)) -> Duration {
    let began = Instant::now();
    (0..RUN_COUNT).for_each(|_| once());
    began.elapsed()
}

/// Half of what the slower of the two took: each of them did as much as one alone.
fn run_together(once: &(dyn Fn() + Sync)) -> Duration {
    let ready_count = AtomicU64::new(0);
    let runtime = Handle::current();
    let each = || {
        let _entered = runtime.enter();
        (0..RUN_COUNT).for_each(|_| once());
        // Not a barrier: to be woken takes as long as the run does.
        ready_count.fetch_add(1, Ordering::AcqRel);
        while ready_count.load(Ordering::Acquire) < 2 {
            hint::spin_loop();
        }
        run_alone(once)
    };
    let slower = thread::scope(|scope| {
        let other = scope.spawn(each);
        each().max(other.join().expect("nothing here panics"))
    });
    slower / 2
}

fn near(level: impl NearLevel<String, Value>) -> Near<String, Value> {
    let judge = Judge::bound(Duration::from_secs(3600));
    judge.prove();
    let valid = Valid::Marked(judge.mark(KEY, None));
    let near = Near::of(Arc::new(level), judge);
    let copy = Kept { value: Some(value()), weight: 300, soft: Moment::NEVER, valid };
    near.keep(KEY.to_owned(), copy);
    near
}

fn hit(near: &Near<String, Value>, key: &String) {
    match near.look(black_box(key)) {
        Sight::Fresh(value) => drop(black_box(value)),
        Sight::Stale(_) | Sight::Negative | Sight::Nothing => panic!("it is fresh for an hour"),
    }
}

/// On one thread, and on two that do it at once.
fn measure(criterion: &mut Criterion, name: &str, once: &(dyn Fn() + Sync)) {
    criterion.bench_function(&format!("{name}, 1 thread"), |bencher| bencher.iter(once));
    criterion.bench_function(&format!("{name}, 2 threads"), |bencher| {
        bencher.iter_custom(|count| {
            let ready = Barrier::new(2);
            let runtime = Handle::current();
            let each = || {
                let _entered = runtime.enter();
                ready.wait();
                let began = Instant::now();
                (0..count.div_ceil(2)).for_each(|_| once());
                began.elapsed()
            };
            thread::scope(|scope| {
                let other = scope.spawn(each);
                each().max(other.join().expect("nothing here panics"))
            })
        });
    });
}

/// Reads keys as often as Zipf's law says, and keeps what was not there; prints the part that was.
fn hit_ratios() {
    const KEYS_COUNT: usize = 200_000;
    println!(
        "hit ratios, of {KEYS_COUNT} keys of 100 to 1500 bytes, 500,000 reads, after as many to warm up"
    );
    for exponent in [0.7, 0.9, 1.1] {
        let keys = Zipf::new(KEYS_COUNT, exponent);
        for bytes_max in [1 << 20, 8 << 20] {
            let ratio = |level: &dyn NearLevel<u64, ()>| hit_ratio(level, &keys);
            println!(
                "  Zipf {exponent}, {:2} MiB: moka {:.4}, quick_cache {:.4}, moka with fronts {:.4}, \
                 quick_cache with fronts {:.4}",
                bytes_max >> 20,
                ratio(&Moka::with_bytes_max(bytes_max)),
                ratio(&Quick::with_bytes_max(bytes_max)),
                ratio(&Fronted::new(Moka::with_bytes_max(bytes_max), bytes_max / 64)),
                ratio(&Fronted::new(Quick::with_bytes_max(bytes_max), bytes_max / 64)),
            );
        }
    }
}

fn hit_ratio(level: &dyn NearLevel<u64, ()>, keys: &Zipf) -> f64 {
    const READS_COUNT: u64 = 500_000;
    let (mut chance, mut hits_count) = (Chance(7), 0);
    for read in 0..2 * READS_COUNT {
        let key = keys.pick(&mut chance);
        match level.look(&key) {
            Some(_) => hits_count += u64::from(read >= READS_COUNT),
            None => {
                let weight = 100 + u32::try_from(key.wrapping_mul(0x9e37) % 1400).unwrap_or(0);
                let valid = Valid::Until(Moment::NEVER);
                let copy = Kept { value: Some(()), weight, soft: Moment::NEVER, valid };
                level.keep(key, Arc::new(copy));
            }
        }
    }
    hits_count as f64 / READS_COUNT as f64
}

/// Picks the n-th key with a probability in proportion to 1/n to the power of an exponent.
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let add = |rank: usize| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        Self { sums: (1..=count).map(add).collect() }
    }

    fn pick(&self, chance: &mut Chance) -> u64 {
        let end = self.sums.last().copied().unwrap_or(0.0);
        let at = chance.next() as f64 / u64::MAX as f64 * end;
        self.sums.partition_point(|&sum| sum < at) as u64
    }
}

/// Numbers that look like chance, and are the same each time: SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
