//! What it costs to send commands through [`Cluster`] instead of through the crate that it is built on.
//!
//! `HOARD_BIN=… cargo bench -p scatterhoard-client --bench routing` starts three nodes (see `nodes/mod.rs`) and lets
//! the contestants read from them in turn. Printed are medians of the turns: processor time of this process for each
//! GET, GETs per second of the clock, and both as ratios to the contestant that is compared with, turn by turn.
//!
//! Compared with are [`MultiplexedConnection`]s, one to each node, where it is known beforehand which of them leads a
//! key: nobody can do with less. And redis-rs has a client of clusters of its own.

mod nodes;

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use nodes::Nodes;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use scatterhoard_client::Cluster;
use tokio::task::JoinSet;
use tokio::time::Instant;

const KEYS_COUNT: usize = 10_000;
const VALUE_BYTES: usize = 100;
/// Tasks that share the connections, each with one request under way: what is under way is sent together.
const TASKS_COUNT: usize = 64;
/// Keys of one call, where several are asked for at once.
const BATCH_COUNT: usize = 64;
const TURNS_COUNT: usize = 31;
const GETS_OF_A_TURN: usize = 100_000;

fn main() -> ExitCode {
    if std::env::args().any(|it| it == "--test") {
        return ExitCode::SUCCESS;
    }
    let Some(nodes) = Nodes::start() else {
        eprintln!("{}", nodes::MISSING);
        return ExitCode::from(2);
    };
    // All that is done here is done by this thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let contest = Arc::new(Contest::open(&nodes).await);
        println!("{TASKS_COUNT} tasks at once, each asks for one key at a time");
        contest.compare(&[Way::Bare, Way::Theirs, Way::Ours]).await;
        println!("one task, which asks for {BATCH_COUNT} keys at a time");
        contest.compare(&[Way::BareTogether, Way::OursTogether]).await;
    });
    ExitCode::SUCCESS
}

/// How values are got.
#[derive(Clone, Copy)]
enum Way {
    Bare,
    Theirs,
    Ours,
    BareTogether,
    OursTogether,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare connections",
            Self::Theirs => "redis-rs' client of clusters",
            Self::Ours => "Cluster::get",
            Self::BareTogether => "pipelines on bare connections",
            Self::OursTogether => "Cluster::get_many",
        }
    }
}

struct Contest {
    keys: Vec<String>,
    bare: Vec<MultiplexedConnection>,
    /// The position in `bare` of who leads each key.
    leaders: Vec<usize>,
    theirs: ClusterConnection,
    ours: Cluster,
}

/// What one turn took.
struct Turn {
    processor: Duration,
    clock: Duration,
}

impl Contest {
    async fn open(nodes: &Nodes) -> Self {
        let keys: Vec<_> = (0..KEYS_COUNT).map(|number| format!("article:{number}")).collect();
        let ours = Cluster::connect(nodes.addresses()).await.expect("the nodes are ready");
        let pairs: Vec<_> = keys.iter().map(|key| (key, [7; VALUE_BYTES])).collect();
        for outcome in ours.set_many(&pairs).await {
            outcome.expect("it is set");
        }
        let urls: Vec<_> = nodes.addresses().iter().map(|it| format!("redis://{it}")).collect();
        let theirs = ClusterClient::new(urls.clone()).expect("addresses");
        let theirs = theirs.get_async_connection().await.expect("a connection");
        let mut bare = Vec::new();
        for url in urls {
            let client = redis::Client::open(url).expect("an address");
            bare.push(client.get_multiplexed_async_connection().await.expect("a connection"));
        }
        let mut leaders = Vec::new();
        for key in &keys {
            leaders.push(leader(&mut bare, key).await);
        }
        Self { keys, bare, leaders, theirs, ours }
    }

    /// The first is what the others are compared with.
    async fn compare(self: &Arc<Self>, ways: &[Way]) {
        let mut turns: Vec<Vec<Turn>> = ways.iter().map(|_| Vec::new()).collect();
        for _ in 0..TURNS_COUNT {
            for (turns, way) in turns.iter_mut().zip(ways) {
                let (processor, clock) = (processor_time(), Instant::now());
                self.run(*way).await;
                let clock = clock.elapsed();
                turns.push(Turn { processor: processor_time() - processor, clock });
            }
        }
        for (mine, way) in turns.iter().zip(ways) {
            let per_get = |time: Duration| time.as_secs_f64() / GETS_OF_A_TURN as f64;
            let micros = median(mine.iter().map(|turn| per_get(turn.processor) * 1e6));
            let rate = median(mine.iter().map(|turn| 1.0 / per_get(turn.clock)));
            let pairs = || mine.iter().zip(&turns[0]);
            let processor = median(
                pairs().map(|(turn, first)| turn.processor.div_duration_f64(first.processor)),
            );
            let clock =
                median(pairs().map(|(turn, first)| turn.clock.div_duration_f64(first.clock)));
            println!(
                "  {micros:5.2} µs of the processor ({processor:.2}), {rate:6.0} each second (time {clock:.2}): {}",
                way.name()
            );
        }
    }

    /// Gets [`GETS_OF_A_TURN`] values.
    async fn run(self: &Arc<Self>, way: Way) {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        match way {
            Way::Bare | Way::Theirs | Way::Ours => {
                for _ in 0..TASKS_COUNT {
                    tasks.spawn(Arc::clone(self).one_by_one(way, Arc::clone(&next)));
                }
                while let Some(ended) = tasks.join_next().await {
                    ended.expect("all have values");
                }
            }
            Way::BareTogether => self.bare_together().await,
            Way::OursTogether => self.ours_together().await,
        }
    }
}

impl Contest {
    /// Takes the next key until so many were got.
    async fn one_by_one(self: Arc<Self>, way: Way, next: Arc<AtomicUsize>) {
        let (mut bare, mut theirs) = (self.bare.clone(), self.theirs.clone());
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= GETS_OF_A_TURN {
                return;
            }
            let key = &self.keys[turn % KEYS_COUNT];
            let bytes_count = match way {
                Way::Bare => {
                    let connection = &mut bare[self.leaders[turn % KEYS_COUNT]];
                    let value: Vec<u8> =
                        command(key).query_async(connection).await.expect("a value");
                    value.len()
                }
                Way::Theirs => {
                    let value: Vec<u8> =
                        command(key).query_async(&mut theirs).await.expect("a value");
                    value.len()
                }
                Way::Ours => {
                    let value = self.ours.get(key).await.expect("an answer");
                    value.expect("a value").len()
                }
                Way::BareTogether | Way::OursTogether => unreachable!("they have one task"),
            };
            assert_eq!(bytes_count, VALUE_BYTES);
        }
    }

    async fn ours_together(&self) {
        for keys in self.batches() {
            let values = self.ours.get_many(keys).await.expect("answers");
            assert!(values.iter().flatten().all(|value| value.len() == VALUE_BYTES));
            assert_eq!(values.len(), BATCH_COUNT);
        }
    }

    async fn bare_together(&self) {
        for (number, keys) in self.batches().enumerate() {
            let begin = number * BATCH_COUNT % (KEYS_COUNT / BATCH_COUNT * BATCH_COUNT);
            let leaders = &self.leaders[begin..begin + BATCH_COUNT];
            let asked = self.bare.iter().enumerate().map(|(node, connection)| {
                let mut pipeline = redis::pipe();
                for (key, _) in keys.iter().zip(leaders).filter(|(_, leader)| **leader == node) {
                    pipeline.add_command(command(key));
                }
                let mut connection = connection.clone();
                async move {
                    let values: Vec<Vec<u8>> = match pipeline.len() {
                        0 => Vec::new(),
                        _ => pipeline.query_async(&mut connection).await.expect("values"),
                    };
                    assert!(values.iter().all(|value| value.len() == VALUE_BYTES));
                    values.len()
                }
            });
            assert_eq!(join_all(asked).await.into_iter().sum::<usize>(), BATCH_COUNT);
        }
    }

    /// As many keys as there are values to get.
    fn batches(&self) -> impl Iterator<Item = &[String]> {
        self.keys.chunks_exact(BATCH_COUNT).cycle().take(GETS_OF_A_TURN / BATCH_COUNT)
    }
}

fn command(key: &str) -> redis::Cmd {
    let mut command = redis::cmd("GET");
    command.arg(key);
    command
}

/// The position of the connection over which a key is answered.
async fn leader(connections: &mut [MultiplexedConnection], key: &str) -> usize {
    for (position, connection) in connections.iter_mut().enumerate() {
        if command(key).query_async::<Vec<u8>>(connection).await.is_ok() {
            return position;
        }
    }
    panic!("some node leads every key");
}

/// How long this thread has run.
fn processor_time() -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let nanos = told.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds come first"))
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
