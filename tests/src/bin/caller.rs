//! One of several processes with a cache over one cluster, that does what it is told by lines:
//!
//! `caller NODE…`, and then
//! - `call KEY COUNT`: so many callers ask for a key at once. It says `asking KEY` when all do; `load KEY` when its
//!   loader is called, which then waits to be told `go`; `COUNT answered VALUE` for each value that callers have got,
//!   and `COUNT failed ERROR`; at last `done KEY`.
//! - `refresh KEY MILLIS`: a key is loaded anew each so often, and read in between, to the end.
//! - `count`: it says `counted LOADS TICKS`: how often the loader of that key was called here, and how many such
//!   periods have passed, one after the other, as this process sees time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::env;
use std::io::stdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use scatterhoard_client::Cache;
use scatterhoard_client::cache::{Load, Refresh};
use scatterhoard_client::level::{HoardLevel, LevelConfig};
use scatterhoard_tests::process::runtime;
use tokio::sync::watch;
use tokio::time::sleep;

/// How long a loader may take, and so how long its lease lasts: a test has to be faster, on a busy machine too.
const LOAD_MAX: Duration = Duration::from_secs(10);

/// A cluster that is slow is none that is away.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads in a period of what is refreshed.
const READS_IN_PERIOD: u32 = 4;

#[derive(Clone)]
struct Caller {
    cache: Cache<String, String>,
    go: watch::Sender<bool>,
    refreshed: Arc<Refreshed>,
}

#[derive(Default)]
struct Refreshed {
    loads_count: AtomicU64,
    ticks_count: AtomicU64,
}

fn main() {
    let nodes: Vec<_> = env::args().skip(1).collect();
    let runtime = runtime();
    let caller = runtime.block_on(Caller::connect(nodes));
    println!("ready");
    // Its end is that of who tells.
    for line in stdin().lines().map_while(Result::ok) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["call", key, count] => {
                let count = count.parse().expect("a number");
                runtime.spawn(caller.clone().call(key.to_owned(), count));
            }
            ["go"] => drop(caller.go.send_replace(true)),
            ["refresh", key, millis] => {
                let every = Duration::from_millis(millis.parse().expect("a number"));
                runtime.spawn(caller.clone().refresh(key.to_owned(), every));
                runtime.spawn(caller.clone().tick(every));
            }
            ["count"] => {
                let Refreshed { loads_count, ticks_count } = &*caller.refreshed;
                let [loads, ticks] = [loads_count, ticks_count].map(|it| it.load(Ordering::SeqCst));
                println!("counted {loads} {ticks}");
            }
            _ => panic!("{line} means nothing"),
        }
    }
}

impl Caller {
    async fn connect(nodes: Vec<String>) -> Self {
        let level = HoardLevel::connect(LevelConfig::new(nodes)).await.expect("the cluster is up");
        let cache = Cache::builder("cold")
            .near_bytes(1 << 20)
            .cluster(Arc::new(level))
            .timeout_hard(LOAD_MAX)
            .lease(LOAD_MAX)
            .look_timeout(PATIENCE)
            .build()
            .expect("it is put together well");
        Self { cache, go: watch::Sender::new(false), refreshed: Arc::default() }
    }

    async fn call(self, key: String, count: usize) {
        self.go.send_replace(false);
        let asking_count = Arc::new(AtomicUsize::new(0));
        let callers = (0..count).map(|_| {
            let (caller, key, asking_count) =
                (self.clone(), key.clone(), Arc::clone(&asking_count));
            tokio::spawn(async move {
                let load = caller.clone().load(key.clone());
                asking_count.fetch_add(1, Ordering::SeqCst);
                caller.cache.get_or_load(&key, Load::new(), move || load).await
            })
        });
        let callers: Vec<_> = callers.collect();
        while asking_count.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
        println!("asking {key}");
        let mut outcomes = BTreeMap::<String, usize>::new();
        for answer in join_all(callers).await {
            let outcome = match answer.expect("no task panics") {
                Ok(value) => format!("answered {}", value.as_deref().map_or("", String::as_str)),
                Err(error) => format!("failed {error}"),
            };
            *outcomes.entry(outcome).or_default() += 1;
        }
        for (outcome, count) in outcomes {
            println!("{count} {outcome}");
        }
        println!("done {key}");
    }

    async fn load(self, key: String) -> Result<Option<String>, Infallible> {
        let mut go = self.go.subscribe();
        println!("load {key}");
        go.wait_for(|&go| go).await.expect("the sender is here");
        Ok(Some(std::process::id().to_string()))
    }

    async fn refresh(self, key: String, every: Duration) {
        loop {
            let counted = Arc::clone(&self.refreshed);
            let loader = move || {
                let load = counted.loads_count.fetch_add(1, Ordering::SeqCst);
                async move { Ok::<_, Infallible>(Some(load.to_string())) }
            };
            let often = Refresh::every(every);
            let read = self.cache.get_or_load_refreshed(&key, often, Load::new(), loader).await;
            assert!(read.is_ok_and(|value| value.is_some()), "there is a value at all times");
            sleep(every / READS_IN_PERIOD).await;
        }
    }

    async fn tick(self, every: Duration) {
        loop {
            sleep(every).await;
            self.refreshed.ticks_count.fetch_add(1, Ordering::SeqCst);
        }
    }
}
