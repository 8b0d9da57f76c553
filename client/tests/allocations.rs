//! A hit allocates nothing, but for what moka does. In a process of its own: the allocator that counts is for all of it.

#[path = "near/judge.rs"]
mod judge;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use judge::Judge;
use scatterhoard_client::cache::{Builder, Cache};
use scatterhoard_client::level::Moment;
use scatterhoard_client::level::near::{Fronted, Kept, Moka, Near, NearLevel, Quick, Sight, Valid};
use scatterhoard_client::stats::Stats;

/// Of ten thousand hits.
fn check(level: impl NearLevel<String, Vec<u8>>, allocations_max: u64) {
    let judge = Judge::bound(Duration::from_secs(3600));
    judge.prove();
    let (near, stats) = (Near::of(Arc::new(level), judge.clone()), Stats::of("article"));
    let key = "article:12345".to_owned();
    let valid = Valid::Marked(judge.mark(&key, None));
    let copy = Kept { value: Some(vec![7; 100]), weight: 200, soft: Moment::NEVER, valid };
    near.keep(key.clone(), copy);
    let hit = || {
        let Sight::Fresh(value) = near.look(&key) else { panic!("it is fresh for an hour") };
        stats.hit_near();
        assert_eq!(value[0], 7);
    };
    // Until it is found to be hot, and until this thread has what it counts in.
    for _ in 0..100 {
        hit();
    }
    let allocations = allocation_counter::measure(|| (0..10_000).for_each(|_| hit()));
    assert!(allocations.count_total <= allocations_max, "{allocations:?}");
}

/// The same, through the cache that an application has.
async fn check_cache(cache: Builder<String, Vec<u8>>, allocations_max: u64) {
    let cache = cache.forever().build().expect("a level");
    let key = "article:12345".to_owned();
    cache.set(&key, vec![7; 100]).await.expect("it is set");
    // The first one may have to ask the cluster level.
    let _value = cache.get(&key).await.expect("a value");
    let hit = || {
        let found = cache.get(&key).now_or_never().expect("a hit is ready at once");
        assert_eq!(found.expect("a hit").expect("a value")[0], 7);
    };
    for _ in 0..100 {
        hit();
    }
    let hits = cache.stats().counts().near.hits;
    let allocations = allocation_counter::measure(|| (0..10_000).for_each(|_| hit()));
    assert_eq!(cache.stats().counts().near.hits, hits + 10_000);
    assert!(allocations.count_total <= allocations_max, "{allocations:?}");
}

#[tokio::test]
async fn a_get_that_is_a_hit_allocates_no_more_than_its_near_level() {
    let judge = Judge::bound(Duration::from_secs(3600));
    judge.prove();
    let cache = || Cache::builder("article");
    let quick = || Arc::new(Quick::with_bytes_max(1 << 20));
    check_cache(cache().near(quick()), 0).await;
    check_cache(cache().near(quick()).cluster(judge.clone()), 0).await;
    check_cache(cache().near_bytes(1 << 20), 100 / 32 + 1).await;
    check_cache(cache().near_bytes(1 << 20).cluster(judge), 100 / 32 + 1).await;
}

#[test]
fn a_hit_allocates_nothing() {
    check(Quick::with_bytes_max(1 << 20), 0);
    check(Fronted::new(Quick::with_bytes_max(1 << 20), 1 << 14), 0);
}

/// It notes what was read in memory that it allocates for some hundred reads at a time.
#[test]
fn a_hit_in_moka_allocates_no_more_than_moka_does() {
    check(Moka::with_bytes_max(1 << 20), 100);
    check(Fronted::new(Moka::with_bytes_max(1 << 20), 1 << 14), 100 / 32 + 1);
}
