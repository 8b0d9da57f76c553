//! How long after a write was acknowledged to who wrote it another process still has its old copy, while the cluster
//! has other writes to do.
//!
//! `HOARD_BIN=… cargo bench -p scatterhoard-client --bench invalidation` starts three nodes (see `nodes/mod.rs`). One
//! cache reads a key until it has a copy that it may serve; another, with connections of its own, writes the key. From
//! its answer to the end of the copy is what is measured: less than nothing if the copy ended first. A third client
//! writes other keys meanwhile, as many a second as it is told, whatever the answers take; how many were answered is
//! printed beside. Reader, writer and load have a thread each, in one process, so that there is one clock.

#![expect(clippy::disallowed_methods, reason = "each of the three clients has a thread of its own")]

mod nodes;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::FutureExt as _;
use nodes::Nodes;
use scatterhoard_client::Cluster;
use scatterhoard_client::cache::Cache;
use scatterhoard_client::level::{Change, ClusterLevel, HoardLevel, LevelConfig};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

type Articles = Cache<u64, Vec<u8>>;

const VALUE_BYTES: usize = 100;
/// In all partitions.
const KEYS_COUNT: u64 = 1000;
const SAMPLES_COUNT: u64 = 2000;
/// Between two samples.
const PAUSE: Duration = Duration::from_millis(2);
/// Longer than anything that is not lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

const LOADS_PER_SECOND: [u64; 4] = [0, 10_000, 25_000, 50_000];
const LOAD_TICK: Duration = Duration::from_millis(4);
const LOAD_KEYS_COUNT: u64 = 100_000;
/// Writes of the load without an answer, at which it waits for some.
const LOAD_OPEN_MAX: u64 = 20_000;

fn main() -> ExitCode {
    if std::env::args().any(|it| it == "--test") {
        return ExitCode::SUCCESS;
    }
    let Some(nodes) = Nodes::start() else {
        eprintln!("{}", nodes::MISSING);
        return ExitCode::from(2);
    };
    runtime().block_on(fill(&nodes));
    for per_second in LOADS_PER_SECOND {
        let load = Load::start(nodes.addresses(), per_second);
        let samples = sample(&nodes);
        let answered_per_second = load.end();
        println!(
            "{per_second:5} writes a second besides, {answered_per_second:.0} of them answered; {SAMPLES_COUNT} samples"
        );
        print("until the writer's answer", samples.iter().map(|it| it.write_ms));
        print("from then to the copy's end", samples.iter().map(|it| it.copy_ms));
    }
    ExitCode::SUCCESS
}

/// What became of one write.
struct Sample {
    /// From when it was sent to its answer.
    write_ms: f64,
    /// From its answer to the end of the reader's copy.
    copy_ms: f64,
}

/// What the reader tells.
enum Told {
    /// It has a copy that it may serve.
    Ready,
    /// It had.
    Ended(Instant),
}

async fn fill(nodes: &Nodes) {
    let writer = articles(level(nodes.addresses()).await);
    for key in 0..KEYS_COUNT {
        write(&writer, key).await;
    }
}

fn sample(nodes: &Nodes) -> Vec<Sample> {
    let (ask, asked) = unbounded_channel();
    let (tell, mut told) = unbounded_channel();
    let addresses = nodes.addresses();
    let reader = thread::spawn(move || runtime().block_on(read(addresses, asked, tell)));
    let samples = runtime().block_on(async {
        let writer = articles(level(nodes.addresses()).await);
        let mut samples = Vec::new();
        for number in 0..SAMPLES_COUNT {
            let key = number % KEYS_COUNT;
            ask.send(key).expect("the reader goes on");
            let ready = timeout(LOST_AFTER, told.recv()).await;
            let Ok(Some(Told::Ready)) = ready else { panic!("no copy could be kept") };
            let sent = Instant::now();
            write(&writer, key).await;
            let written = sent.elapsed();
            let ended = timeout(LOST_AFTER, told.recv()).await;
            let Ok(Some(Told::Ended(ended))) = ended else { panic!("the copy was never ended") };
            let (write_ms, ended_ms) = (millis(written), millis(ended - sent));
            samples.push(Sample { write_ms, copy_ms: ended_ms - write_ms });
            sleep(PAUSE).await;
        }
        samples
    });
    drop(ask);
    reader.join().expect("the reader ended");
    samples
}

/// Has copies of what it is asked for, and tells when they end.
async fn read(
    addresses: Vec<String>,
    mut asked: UnboundedReceiver<u64>,
    tell: UnboundedSender<Told>,
) {
    let level = level(addresses).await;
    let mut changes = level.changes();
    let cache = articles(level);
    while let Some(key) = asked.recv().await {
        // What is heard of a copy's end before there is a hit is of an earlier one.
        while !is_hit(&cache, key) {
            let _found = cache.get(&key).await.expect("an answer");
            while changes.try_recv().is_ok() {}
        }
        tell.send(Told::Ready).expect("the writer waits");
        changed(&mut changes, format!("article:{key}").as_bytes()).await;
        tell.send(Told::Ended(Instant::now())).expect("the writer waits");
        assert!(!is_hit(&cache, key), "the copy is not served any more");
    }
}

/// Heard after the copies of what it tells of were ended.
async fn changed(changes: &mut Receiver<Change>, name: &[u8]) {
    loop {
        match changes.recv().await {
            Ok(Change::Key(key)) if *key != *name => {}
            Ok(Change::Key(_) | Change::Everything) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => panic!("the level is there"),
        }
    }
}

fn is_hit(cache: &Articles, key: u64) -> bool {
    let hits = cache.stats().counts().near.hits;
    let _found = cache.get(&key).now_or_never();
    cache.stats().counts().near.hits > hits
}

async fn write(writer: &Articles, key: u64) {
    writer.set(&key, vec![7; VALUE_BYTES]).await.expect("it is set");
}

async fn level(addresses: Vec<String>) -> Arc<dyn ClusterLevel> {
    let level = HoardLevel::connect(LevelConfig::new(addresses)).await;
    Arc::new(level.expect("the nodes are ready"))
}

fn articles(level: Arc<dyn ClusterLevel>) -> Articles {
    let cache = Cache::builder("article").near_bytes(8 << 20).cluster(level);
    cache.build().expect("levels")
}

/// Writes that are none of the reader's business, so many a second whatever the answers take.
struct Load {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<f64>,
}

impl Load {
    fn start(addresses: Vec<String>, per_second: u64) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = thread::spawn(move || runtime().block_on(load(addresses, per_second, &until)));
        Self { ended, thread }
    }

    /// How many were answered in a second.
    fn end(self) -> f64 {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("all of them were done")
    }
}

async fn load(addresses: Vec<String>, per_second: u64, ended: &AtomicBool) -> f64 {
    let cluster = Cluster::connect(addresses).await.expect("the nodes are ready");
    let batch_count = per_second * LOAD_TICK.as_millis() as u64 / 1000;
    let (mut open, mut next, mut answered_count) = (JoinSet::new(), 0, 0);
    let began = Instant::now();
    // Ticks that are missed are made up for.
    let mut ticks = interval(LOAD_TICK);
    while !ended.load(Ordering::Relaxed) {
        ticks.tick().await;
        while open.len() as u64 * batch_count > LOAD_OPEN_MAX {
            answered_count += open.join_next().await.expect("some are open").expect("all are done");
        }
        while let Some(answered) = open.try_join_next() {
            answered_count += answered.expect("all are done");
        }
        let keys = next..next + batch_count;
        next += batch_count;
        let cluster = cluster.clone();
        open.spawn(async move {
            let key = |number| format!("load:{}", number % LOAD_KEYS_COUNT);
            let pairs: Vec<_> = keys.map(|number| (key(number), [7; VALUE_BYTES])).collect();
            for outcome in cluster.set_many(&pairs).await {
                outcome.expect("it is set");
            }
            batch_count
        });
    }
    answered_count as f64 / began.elapsed().as_secs_f64()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn print(what: &str, millis: impl Iterator<Item = f64>) {
    let mut millis: Vec<_> = millis.collect();
    millis.sort_by(f64::total_cmp);
    let at = |part: f64| millis[((millis.len() - 1) as f64 * part) as usize];
    println!(
        "  median {:6.2} ms, p90 {:6.2}, p99 {:6.2}, worst {:6.2}: {what}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}
