//! Soft and hard deadlines, and copies in the near level.

use scatterhoard_client::cache::Load;
use scatterhoard_client::level::{ClusterLevel as _, Content, Entry, When};
use tokio::time::{Instant, sleep};

use crate::double::BOUND;
use crate::source::Row;
use crate::world::{MS, SECOND, World, load, load_by};

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_served_at_once_while_it_is_loaded_anew() {
    let world = World::new();
    let soft = |cache: scatterhoard_client::cache::Builder<u64, u64>| cache.soft_ttl(SECOND);
    for cache in [world.process_with(soft).cache, world.alone_with(soft)] {
        let before = world.loads_count();
        let old = world.source.newest(1);
        assert_eq!(load(&cache, 1).await.unwrap(), Some(old));
        sleep(2 * SECOND).await;
        // Nobody was told of this one.
        let new = world.source.write(1, Row::Stored);
        let began = Instant::now();
        assert_eq!(load(&cache, 1).await.unwrap(), Some(old));
        assert!(began.elapsed() < 10 * MS, "it waited for the load");
        sleep(100 * MS).await;
        assert_eq!(load(&cache, 1).await.unwrap(), Some(new));
        assert_eq!(world.loads_count(), before + 2);
        cache.cache().remove(&1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_soft_timeout_a_fast_load_is_waited_for_and_a_slow_one_is_not() {
    let world = World::new();
    let soft = |cache: scatterhoard_client::cache::Builder<u64, u64>| {
        cache.soft_ttl(SECOND).timeout_soft(50 * MS)
    };
    for cache in [world.process_with(soft).cache, world.alone_with(soft)] {
        let cache = cache.cache();
        assert_eq!(load_by(cache, MS, Ok(Some(1))).await.unwrap(), Some(1));
        sleep(2 * SECOND).await;
        assert_eq!(load_by(cache, 10 * MS, Ok(Some(2))).await.unwrap(), Some(2));
        sleep(2 * SECOND).await;
        let began = Instant::now();
        assert_eq!(load_by(cache, 100 * MS, Ok(Some(3))).await.unwrap(), Some(2));
        assert!(began.elapsed() < 60 * MS);
        sleep(200 * MS).await;
        assert_eq!(cache.get(&1).await.unwrap().as_deref(), Some(&3));
        cache.remove(&1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_served_while_the_source_fails_and_never_beyond_its_end() {
    let world = World::new();
    let soft = |cache: scatterhoard_client::cache::Builder<u64, u64>| {
        cache.soft_ttl(SECOND).ttl(10 * SECOND).jitter(0.0).timeout_soft(50 * MS)
    };
    for cache in [world.process_with(soft).cache, world.alone_with(soft)] {
        let cache = cache.cache();
        assert_eq!(load_by(cache, MS, Ok(Some(1))).await.unwrap(), Some(1));
        sleep(2 * SECOND).await;
        let began = Instant::now();
        while began.elapsed() < 7 * SECOND {
            assert_eq!(load_by(cache, MS, Err("away")).await.unwrap(), Some(1));
            sleep(100 * MS).await;
        }
        sleep(SECOND).await;
        assert!(load_by(cache, MS, Err("away")).await.is_err());
        assert_eq!(cache.get(&1).await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_not_asked_at_each_read_of_a_stale_value() {
    let world = World::new();
    let soft = |cache: scatterhoard_client::cache::Builder<u64, u64>| cache.soft_ttl(SECOND);
    for cache in [world.process_with(soft).cache, world.alone_with(soft)] {
        assert!(load(&cache, 1).await.unwrap().is_some());
        let before = world.loads_count();
        world.source.fails_percent.store(100, std::sync::atomic::Ordering::Relaxed);
        sleep(2 * SECOND).await;
        let began = Instant::now();
        while began.elapsed() < 3 * SECOND {
            assert!(load(&cache, 1).await.unwrap().is_some());
            sleep(10 * MS).await;
        }
        let tries = world.loads_count() - before;
        assert!((2..=4).contains(&tries), "{tries} in 3 seconds");
        world.source.fails_percent.store(0, std::sync::atomic::Ordering::Relaxed);
        cache.cache().remove(&1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hit_in_the_near_level_asks_nobody_and_a_write_elsewhere_ends_it_within_the_bound() {
    let world = World::new();
    let (near, other) = (world.process_near(), world.process());
    other.cache.cache().set(&1, 10).await.unwrap();
    sleep(50 * MS).await;
    assert_eq!(near.cache.cache().get(&1).await.unwrap().as_deref(), Some(&10));
    let before = world.requests_count();
    for _ in 0..100 {
        assert_eq!(near.cache.cache().get(&1).await.unwrap().as_deref(), Some(&10));
    }
    assert_eq!(world.requests_count(), before);

    // The news are lost, and even that is not noticed.
    near.link.faults.deaf.store(true, std::sync::atomic::Ordering::Relaxed);
    other.cache.cache().set(&1, 11).await.unwrap();
    sleep(BOUND).await;
    assert_eq!(near.cache.cache().get(&1).await.unwrap().as_deref(), Some(&11));
}

#[tokio::test(start_paused = true)]
async fn who_writes_sees_his_write_at_once() {
    let world = World::new();
    let near = world.process_near();
    near.link.faults.deaf.store(true, std::sync::atomic::Ordering::Relaxed);
    let cache = near.cache.cache();
    for value in 0..100 {
        cache.set(&1, value).await.unwrap();
        // A look from before the next write is under way while it is made.
        let (_, found) = tokio::join!(cache.get(&1), cache.get(&1));
        assert_eq!(found.unwrap().as_deref(), Some(&value));
    }
    cache.remove(&1).await.unwrap();
    assert_eq!(cache.get(&1).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn near_copies_can_be_dropped_and_passed_by() {
    let world = World::new();
    let (near, other) = (world.process_near(), world.process());
    let cache = near.cache.cache();
    cache.set(&1, 10).await.unwrap();
    sleep(50 * MS).await;
    assert_eq!(cache.get(&1).await.unwrap().as_deref(), Some(&10));
    near.link.faults.deaf.store(true, std::sync::atomic::Ordering::Relaxed);
    other.cache.cache().set(&1, 11).await.unwrap();
    assert_eq!(cache.get_skipping_near(&1).await.unwrap().as_deref(), Some(&11));
    cache.remove_from_near(&1);
    assert_eq!(cache.get(&1).await.unwrap().as_deref(), Some(&11));
}

#[tokio::test(start_paused = true)]
async fn lives_of_less_than_a_second_are_as_long_as_they_were_given() {
    let world = World::new();
    let brief = Load::new().ttl(150 * MS);
    let no_jitter = |cache: scatterhoard_client::cache::Builder<u64, u64>| cache.jitter(0.0);
    for cache in [world.process_with(no_jitter).cache, world.alone_with(no_jitter)] {
        cache.load_with(&1, brief.clone()).await.unwrap();
        sleep(145 * MS).await;
        assert!(cache.cache().exists(&1).await.unwrap());
        sleep(20 * MS).await;
        assert!(!cache.cache().exists(&1).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_value_of_the_cache_is_loaded_anew() {
    let world = World::new();
    let process = world.process();
    let foreign = Entry {
        content: Content::Value("from elsewhere".into()),
        soft: None,
        hard: None,
        tags: Vec::new(),
    };
    process.link.set(b"version:1", &foreign, &When::Always).await.unwrap();
    assert_eq!(process.cache.cache().get(&1).await.unwrap(), None);
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    assert_eq!(process.cache.cache().get(&1).await.unwrap().as_deref(), Some(&1));
}
