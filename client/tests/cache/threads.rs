//! The same on several threads at once, where a wound clock cannot lead: readers against writers of a source.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use scatterhoard_client::Cache;
use scatterhoard_client::cache::Load;
use tokio::task::yield_now;

use crate::world::World;

const KEYS: u64 = 4;
const WRITES: u64 = 2000;
const READERS: u64 = 8;

#[derive(Default)]
struct Row {
    newest: AtomicU64,
    acknowledged: AtomicU64,
}

async fn write(cache: Cache<u64, u64>, rows: Arc<Vec<Row>>, key: u64) {
    let row = &rows[key as usize];
    for version in 1..=WRITES {
        row.newest.store(version, Ordering::SeqCst);
        cache.remove(&key).await.expect("nothing fails");
        row.acknowledged.store(version, Ordering::SeqCst);
        yield_now().await;
    }
}

async fn read(cache: Cache<u64, u64>, rows: Arc<Vec<Row>>, reader: u64) {
    let done = |row: &Row| row.acknowledged.load(Ordering::SeqCst) == WRITES;
    for round in 0.. {
        if rows.iter().all(done) {
            return;
        }
        let key = (reader + round) % KEYS;
        let floor = rows[key as usize].acknowledged.load(Ordering::SeqCst);
        let its_rows = Arc::clone(&rows);
        let loader = move || async move {
            yield_now().await;
            let newest = its_rows[key as usize].newest.load(Ordering::SeqCst);
            yield_now().await;
            Ok::<_, String>(Some(newest))
        };
        let found = cache.get_or_load(&key, Load::new(), loader).await;
        let found = *found.expect("nothing fails").expect("there is always something");
        assert!(found >= floor, "{found} of key {key}, where {floor} was acknowledged before");
        yield_now().await;
    }
}

async fn check(cache: Cache<u64, u64>) {
    let rows: Arc<Vec<Row>> = Arc::new((0..KEYS).map(|_| Row::default()).collect());
    let writers = (0..KEYS).map(|key| tokio::spawn(write(cache.clone(), Arc::clone(&rows), key)));
    let readers =
        (0..READERS).map(|reader| tokio::spawn(read(cache.clone(), Arc::clone(&rows), reader)));
    for end in join_all(writers.chain(readers)).await {
        end.expect("nothing was too old");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_threads_without_a_cluster_nothing_is_too_old() {
    check(Cache::builder("row").near_bytes(1 << 20).build().expect("settings that hold")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_threads_over_a_cluster_nothing_is_too_old() {
    let link = World::new().store.link();
    let cache = Cache::builder("row").cluster(link).build();
    check(cache.expect("settings that hold")).await;
}
