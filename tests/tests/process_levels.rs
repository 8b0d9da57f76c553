//! The cluster level of the client library on clusters of real nodes: what every level has to do, and what happens to
//! copies while nodes are killed and paused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scatterhoard_client::bloom::{Guard, suite as filters};
use scatterhoard_client::level::suite::{self, Pair, plain, served_mark, set};
use scatterhoard_client::level::{Ask, ClusterLevel, Found, HoardLevel, LevelConfig, Mark, When};
use scatterhoard_client::{Clock, Cluster as Client};
use scatterhoard_tests::process::{Cluster, pause, runtime};
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
        all_end_with_a_write(&pair, &kept).await;
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
        all_end_with_a_write(&pair, &kept).await;
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

#[test]
fn filters_in_a_cluster_do_as_every_filter_has_to() {
    let cluster = Cluster::of(3);
    let runtime = runtime();
    runtime.block_on(async {
        let pair = guards(&cluster, "filter").await;
        filters::all(&pair).await;
        filters::known_absent(&pair.ours, "nobody").await;
        let client = Client::connect(cluster.addresses()).await;
        assert_eq!(client.expect("the cluster is up").delete("filter").await, Ok(true));
        sleep_until(Instant::now() + BOUND).await;
        assert_eq!(pair.ours.may_exist("nobody").await, Ok(true), "the filter is gone");
    });
}

#[test]
fn nothing_that_was_added_is_denied_while_nodes_are_killed_and_paused() {
    let mut cluster = Cluster::of(3);
    let runtime = runtime();
    let pair = Arc::new(runtime.block_on(guards(&cluster, "filter")));
    let over = Arc::new(AtomicBool::new(false));
    let (added, mut asked) = tokio::sync::mpsc::unbounded_channel::<(String, Instant)>();
    let adding = {
        let (pair, over) = (Arc::clone(&pair), Arc::clone(&over));
        runtime.spawn(async move {
            for number in 0.. {
                let item = number.to_string();
                // Known to be absent, unless nothing is known at the moment.
                let _answer = pair.ours.may_exist(&item).await;
                if pair.theirs.add(&item).await.is_ok() {
                    added.send((item, Instant::now())).expect("somebody asks");
                }
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        })
    };
    let asking = {
        let pair = Arc::clone(&pair);
        runtime.spawn(async move {
            let mut count = 0;
            while let Some((item, added)) = asked.recv().await {
                sleep_until(added + BOUND).await;
                let answer = pair.ours.may_exist(&item).await;
                assert!(answer != Ok(false), "{item} was added and is denied");
                count += 1;
            }
            count
        })
    };
    for node in 0..3 {
        cluster.kill(node);
        cluster.start(node);
        cluster.wait_ready();
        cluster.pause(node);
        pause(Duration::from_secs(1));
        cluster.resume(node);
        cluster.wait_ready();
    }
    over.store(true, Ordering::Relaxed);
    runtime.block_on(adding).expect("it adds to the end");
    let count = runtime.block_on(asking).expect("nothing is denied");
    assert!(count > 200, "{count} items are too few to judge");
    runtime.block_on(filters::known_absent(&pair.ours, "nobody"));
}

/// Two guards by one filter, as two processes would have them.
async fn guards(cluster: &Cluster, filter: &str) -> filters::Pair<HoardLevel, HoardLevel> {
    let config = config(cluster);
    let guard = async || Guard::new(level(&config).await, filter);
    let (ours, theirs) = (guard().await, guard().await);
    theirs.reserve(100_000, 1e-6).await.expect("there is none yet");
    theirs.seal().await.expect("it can be sealed");
    filters::Pair { ours, theirs, bound: BOUND }
}

async fn pair(cluster: &Cluster) -> Pair {
    let config = config(cluster);
    let (ours, theirs) = (Arc::new(level(&config).await), Arc::new(level(&config).await));
    Pair { ours, theirs, bound: BOUND }
}

fn config(cluster: &Cluster) -> LevelConfig {
    LevelConfig::new(cluster.addresses()).bound(BOUND)
}

async fn level(config: &LevelConfig) -> HoardLevel {
    HoardLevel::connect(config.clone()).await.expect("the cluster is up")
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

/// Writes what these are copies of, through others: none is older than the bound after it.
async fn all_end_with_a_write(pair: &Pair, kept: &[(String, Mark)]) {
    write_all(&*pair.theirs, "new").await;
    sleep_until(Instant::now() + BOUND).await;
    for (key, mark) in kept {
        let served = pair.ours.may_serve(mark, Clock::new().now());
        assert!(!served, "{key} is older than the bound");
    }
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
