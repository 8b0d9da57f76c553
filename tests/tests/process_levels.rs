//! The cluster level of the client library on clusters of real nodes: what every level has to do, and what happens to
//! copies while nodes are killed and paused.

use std::sync::Arc;
use std::time::Duration;

use scatterhoard_client::Clock;
use scatterhoard_client::level::suite::{self, Pair, plain, served_mark, set};
use scatterhoard_client::level::{Ask, ClusterLevel, Found, HoardLevel, LevelConfig, Mark, When};
use scatterhoard_tests::process::Cluster;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, sleep_until};

const BOUND: Duration = Duration::from_millis(200);

/// Keys whose copies are looked at: enough to meet every partition's leader.
const KEYS_COUNT: usize = 30;

#[test]
fn a_cluster_of_nodes_does_as_every_level_has_to() {
    let cluster = Cluster::of(3);
    let runtime = runtime();
    runtime.block_on(async { suite::all(&pair(&cluster).await).await });
}

#[test]
fn copies_of_what_a_killed_node_led_end_and_new_ones_are_kept() {
    let mut cluster = Cluster::of(3);
    let runtime = runtime();
    let pair = runtime.block_on(pair(&cluster));
    let kept = runtime.block_on(keep(&*pair.ours));
    cluster.kill(1);
    runtime.block_on(async {
        write_all(&*pair.theirs, "new").await;
        sleep_until(Instant::now() + BOUND).await;
        for (key, mark) in &kept {
            assert!(
                !pair.ours.may_serve(mark, Clock::new().now()),
                "{key} is older than the bound"
            );
        }
        for number in 0..KEYS_COUNT {
            let key = key(number);
            served_mark(&*pair.ours, &key).await;
            assert_eq!(suite::value(&*pair.ours, &key).await.as_deref(), Some(&b"new"[..]));
        }
    });
}

#[test]
fn copies_of_what_a_paused_node_led_are_not_served() {
    let mut cluster = Cluster::of(3);
    let runtime = runtime();
    let pair = runtime.block_on(pair(&cluster));
    let kept = runtime.block_on(keep(&*pair.ours));
    cluster.pause(0);
    runtime.block_on(async {
        // The others take over what it led, and write there.
        write_all(&*pair.theirs, "new").await;
        sleep_until(Instant::now() + BOUND).await;
        for (key, mark) in &kept {
            assert!(
                !pair.ours.may_serve(mark, Clock::new().now()),
                "{key} is older than the bound"
            );
        }
    });
    cluster.resume(0);
    cluster.wait_ready();
    runtime.block_on(async {
        for (key, mark) in &kept {
            assert!(!pair.ours.may_serve(mark, Clock::new().now()), "{key} has come back");
            let kept = served_mark(&*pair.ours, key).await;
            set(&*pair.theirs, key, &plain("newer")).await;
            suite::ends_within_the_bound(&pair, &kept).await;
        }
    });
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

async fn pair(cluster: &Cluster) -> Pair {
    let addresses = cluster.listens().into_iter().map(|address| address.to_string());
    let config = LevelConfig::new(addresses).bound(BOUND);
    Pair { ours: level(&config).await, theirs: level(&config).await, bound: BOUND }
}

async fn level(config: &LevelConfig) -> Arc<dyn ClusterLevel> {
    Arc::new(HoardLevel::connect(config.clone()).await.expect("the cluster is up"))
}

fn key(number: usize) -> String {
    format!("key-{number}")
}

/// Copies that are served now, of all keys.
async fn keep(level: &dyn ClusterLevel) -> Vec<(String, Mark)> {
    let mut kept = Vec::new();
    for number in 0..KEYS_COUNT {
        let key = key(number);
        set(level, &key, &plain("old")).await;
        kept.push((key.clone(), served_mark(level, &key).await));
    }
    kept
}

/// Writes all keys until each was acknowledged.
async fn write_all(level: &dyn ClusterLevel, value: &str) {
    for number in 0..KEYS_COUNT {
        let begun = Instant::now();
        let key = key(number);
        while level.set(key.as_bytes(), &plain(value), &When::Always).await.is_err() {
            assert!(begun.elapsed() < suite::PATIENCE * 3, "{key} cannot be written");
            sleep(Duration::from_millis(50)).await;
        }
        let found = level.look(key.as_bytes(), Ask::Peek).await.map(|look| look.found);
        assert!(matches!(found, Ok(Found::Value(_)) | Err(_)), "{key}: {found:?}");
    }
}
