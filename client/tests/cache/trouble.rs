//! The cluster level cannot be asked, or does not say what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use scatterhoard_client::Error;
use scatterhoard_client::cache::{
    AfterStore, BreakerSettings, Load, LoadError, SourceError, WriteError,
};
use tokio::time::{Instant, sleep};

use crate::double::BOUND;
use crate::source::Row;
use crate::world::{MS, SECOND, World, load, load_by};

#[tokio::test(start_paused = true)]
async fn without_the_cluster_the_source_is_asked_and_nothing_is_kept() {
    let world = World::new();
    let process = world.process_near();
    process.link.set_down(true);
    let version = world.source.write(1, Row::Stored);
    for loads in 1..=10 {
        assert_eq!(load(&process.cache, 1).await.unwrap(), Some(version));
        assert_eq!(world.loads_count(), loads);
    }
    assert!(process.cache.cache().get(&1).await.is_err());

    process.link.set_down(false);
    sleep(2 * SECOND).await;
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(version));
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(version));
    assert_eq!(world.loads_count(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_holds_nobody_up_for_long() {
    let world = World::new();
    let process = world.process();
    process.link.faults.hangs.store(true, Ordering::Relaxed);
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
        assert!(began.elapsed() < 1100 * MS);
    }
    // By now it is left alone, but for one try in a while.
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    }
    assert!(began.elapsed() < 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn callers_at_the_same_time_share_a_load_without_the_cluster_too() {
    let world = World::new();
    let process = world.process();
    process.link.set_down(true);
    let found = join_all((0..1000).map(|_| load(&process.cache, 1))).await;
    assert!(found.into_iter().all(|found| found.unwrap() == Some(1)));
    assert_eq!(world.loads_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_asks_during_a_load_without_the_cluster_gets_nothing_that_is_older_than_he() {
    let world = World::new();
    let process = world.process();
    process.link.set_down(true);
    let early = load_by(process.cache.cache(), 100 * MS, Ok(Some(1)));
    let late = async {
        sleep(50 * MS).await;
        // Written by a process that reaches the cluster.
        let version = world.source.write(1, Row::Stored);
        (version, load(&process.cache, 1).await.unwrap())
    };
    let (early, (version, late)) = tokio::join!(early, late);
    assert_eq!(early.unwrap(), Some(1));
    assert_eq!(late, Some(version));
}

#[tokio::test(start_paused = true)]
async fn the_source_is_spared_too_many_loads_at_once() {
    let world = World::new();
    let process = world.process_with(|cache| cache.degraded_loads_max(3));
    process.link.set_down(true);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let cache = process.cache.cache();
    let loads = (0..30).map(|key| {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        let loader = move || async move {
            most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            sleep(10 * MS).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, String>(Some(key))
        };
        async move { cache.get_or_load(&key, Load::new(), loader).await }
    });
    assert!(join_all(loads).await.into_iter().all(|found| found.is_ok()));
    assert_eq!(most.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_too_is_left_alone_for_a_while() {
    let world = World::new();
    let breaker = BreakerSettings { failures: 3, pause: SECOND };
    let process = world.process_with(|cache| cache.breaker(breaker));
    process.link.set_down(true);
    world.source.fails_percent.store(100, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(matches!(load(&process.cache, 1).await, Err(LoadError::Source(_))));
    }
    for _ in 0..20 {
        assert!(matches!(load(&process.cache, 1).await, Err(LoadError::Spared(_))));
    }
    assert_eq!(world.loads_count(), 3);
    world.source.fails_percent.store(0, Ordering::Relaxed);
    sleep(SECOND).await;
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn near_copies_are_served_no_longer_than_their_bound_when_the_cluster_is_gone() {
    let world = World::new();
    let process = world.process_near();
    let cache = process.cache.cache();
    cache.set(&1, 10).await.unwrap();
    sleep(50 * MS).await;
    assert_eq!(cache.get(&1).await.unwrap().as_deref(), Some(&10));
    process.link.set_down(true);
    assert_eq!(cache.get(&1).await.unwrap().as_deref(), Some(&10));
    sleep(BOUND + 50 * MS).await;
    assert!(cache.get(&1).await.is_err());
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_fill_whose_reply_was_lost_is_no_error_and_is_found_later() {
    let world = World::new();
    let process = world.process();
    process.link.faults.fill_replies_lost.store(1, Ordering::Relaxed);
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    assert_eq!(world.loads_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_in_doubt_says_so() {
    let world = World::new();
    let process = world.process();
    let cache = process.cache.cache();
    process.link.faults.lost_percent.store(100, Ordering::Relaxed);
    let set = cache.set(&1, 10).await;
    assert!(matches!(set, Err(WriteError::Cluster(Error::InDoubt(_)))));
    assert!(matches!(cache.remove(&1).await, Err(Error::InDoubt(_))));
    let stored = process.cache.store(&1, 0, AfterStore::Remove).await;
    assert!(matches!(stored, Err(SourceError::StillCached(Error::InDoubt(_)))));
    assert_eq!(world.source.newest(1), 2, "it was written");
    process.link.set_down(true);
    assert!(matches!(cache.set(&1, 10).await, Err(WriteError::Cluster(Error::NotDone(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_broke_brings_no_old_value_back() {
    let world = World::new();
    let (near, other) = (world.process_near(), world.process());
    let cache = near.cache.cache();
    cache.set(&1, 10).await.unwrap();
    sleep(50 * MS).await;
    for value in 11..50 {
        let _keeps_a_copy = cache.get(&1).await.unwrap();
        near.link.cut();
        other.cache.cache().set(&1, value).await.unwrap();
        sleep(BOUND).await;
        for _ in 0..10 {
            assert_eq!(cache.get(&1).await.unwrap().as_deref(), Some(&value));
            sleep(10 * MS).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_gets_no_answer_is_in_doubt_after_a_while() {
    let world = World::new();
    let process = world.process();
    process.link.faults.hangs.store(true, Ordering::Relaxed);
    let cache = process.cache.cache();
    assert!(matches!(cache.set(&1, 1).await, Err(WriteError::Cluster(Error::InDoubt(_)))));
    assert!(matches!(cache.remove(&1).await, Err(Error::InDoubt(_))));
    assert!(matches!(cache.invalidate_tag("tag").await, Err(Error::InDoubt(_))));
    let set = cache.set_many(vec![(1, 1)]).await;
    assert!(matches!(set[0], Err(WriteError::Cluster(Error::InDoubt(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_given_up_leaves_no_lease_behind() {
    let world = World::new();
    let process = world.process();
    *process.link.faults.looks_late.lock() = (1, 1500 * MS);
    let began = Instant::now();
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    assert!(began.elapsed() < 1100 * MS, "the source was asked when the look took too long");
    // Its lease is in the way until the look has ended, and no longer.
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    assert!(began.elapsed() < 1600 * MS, "{:?}", began.elapsed());
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    assert_eq!(world.loads_count(), 2, "the second was stored");
}

#[tokio::test(start_paused = true)]
async fn looks_at_several_keys_that_are_given_up_leave_no_leases_behind() {
    let world = World::new();
    let process = world.process();
    let cache = process.cache.cache();
    let load_all = || async {
        let loader = |ids: Vec<u64>| async move {
            Ok::<_, String>(ids.into_iter().map(|id| (id, Ok(id))).collect())
        };
        let found = cache.get_or_load_many(&[1, 2, 3], Load::new(), loader).await;
        assert!(found.into_iter().all(|found| found.is_ok_and(|found| found.is_some())));
    };
    *process.link.faults.looks_late.lock() = (3, 1500 * MS);
    let began = Instant::now();
    load_all().await;
    load_all().await;
    assert!(began.elapsed() < 1600 * MS, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_look_at_a_stale_value_that_is_given_up_leaves_the_right_to_load_it_anew() {
    let world = World::new();
    let process = world.process_with(|cache| cache.soft_ttl(SECOND));
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    sleep(2 * SECOND).await;
    *process.link.faults.looks_late.lock() = (1, 1500 * MS);
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    sleep(SECOND).await;
    let before = world.loads_count();
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    sleep(100 * MS).await;
    assert_eq!(world.loads_count(), before + 1, "it is loaded anew");
}
