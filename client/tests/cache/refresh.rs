//! Keys that are loaded anew before anybody has to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use scatterhoard_client::cache::{Load, Refresh, Sourced};
use tokio::time::sleep;

use crate::source::{Row, Table, Version};
use crate::world::{MS, SECOND, World};

async fn read(cache: &Sourced<u64, Version, Table>, refresh: Refresh) -> Option<Version> {
    let source = cache.source().0.clone();
    let found = cache.cache().get_or_load_refreshed(&1, refresh, Load::new(), move || {
        let source = source.clone();
        async move { source.read(1).await }
    });
    found.await.expect("the source answers").as_deref().copied()
}

#[tokio::test(start_paused = true)]
async fn three_processes_that_read_all_the_time_cost_one_load_in_a_period() {
    for period in [500 * MS, 5 * SECOND] {
        let world = World::new();
        let processes = [world.process_near(), world.process_near(), world.process()];
        let refresh = Refresh::every(period);
        for _ in 0..20 * 10 {
            for process in &processes {
                assert!(read(&process.cache, refresh).await.is_some());
            }
            sleep(period / 10).await;
        }
        let loads = world.loads_count();
        assert!((16..=24).contains(&loads), "{loads} loads in 20 periods of {period:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refreshed_is_never_older_than_a_period_and_its_load() {
    let world = World::new();
    for cache in [world.process().cache, world.process_near().cache, world.alone()] {
        let refresh = Refresh::every(SECOND).idle(60 * SECOND);
        read(&cache, refresh).await;
        for _ in 0..10 {
            // Nobody tells.
            let version = world.source.write(1, Row::Stored);
            sleep(SECOND + 200 * MS).await;
            assert_eq!(cache.cache().get(&1).await.unwrap().as_deref(), Some(&version));
        }
        cache.cache().stop_refreshing(&1);
        cache.cache().remove(&1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_reads_is_refreshed_no_more() {
    let world = World::new();
    let process = world.process_near();
    read(&process.cache, Refresh::every(10 * SECOND)).await;
    sleep(200 * SECOND).await;
    assert_eq!(world.loads_count(), 2, "at 0 and 10 seconds, and at 20 it was idle for too long");
    // Read again, it is refreshed again.
    read(&process.cache, Refresh::every(10 * SECOND)).await;
    sleep(15 * SECOND).await;
    assert_eq!(world.loads_count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_registered_again_is_loaded_by_what_it_was_registered_with_last() {
    let world = World::new();
    let process = world.process_near();
    let cache = process.cache.cache();
    let refresh = Refresh::every(SECOND).idle(60 * SECOND);
    let loads = Arc::new([const { AtomicUsize::new(0) }; 5]);
    for registration in 0..5 {
        cache.stop_refreshing(&1);
        let loads = Arc::clone(&loads);
        let load = move || {
            loads[registration].fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, String>(Some(registration as u64)) }
        };
        cache.get_or_load_refreshed(&1, refresh, Load::new(), load).await.unwrap();
        sleep(SECOND / 10).await;
    }
    sleep(10 * SECOND).await;
    assert_eq!(cache.get(&1).await.unwrap().as_deref(), Some(&4));
    let loads = loads.each_ref().map(|loads| loads.load(Ordering::Relaxed));
    assert_eq!(loads[..4], [1, 0, 0, 0], "the first was a load that somebody waited for");
    assert!((9..=11).contains(&loads[4]), "{} loads in 10 periods", loads[4]);
}

#[tokio::test(start_paused = true)]
async fn the_death_of_a_process_stops_no_refresh() {
    let world = World::new();
    let (one, other) = (world.process(), world.process());
    let refresh = Refresh::every(SECOND).idle(1000 * SECOND);
    read(&one.cache, refresh).await;
    read(&other.cache, refresh).await;
    sleep(5 * SECOND).await;
    drop(one);
    let before = world.loads_count();
    sleep(10 * SECOND).await;
    let loads = world.loads_count() - before;
    assert!((8..=12).contains(&loads), "{loads} loads in 10 periods");
}

#[tokio::test(start_paused = true)]
async fn no_more_are_loaded_at_once_than_may_be() {
    let world = World::new();
    *world.source.takes_max.lock() = Duration::ZERO;
    let process = world.process();
    let running = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let most = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let refresh = Refresh::every(SECOND).idle(60 * SECOND);
    let cache = process.cache.cache();
    let registered = (0..20).map(|key| {
        let (running, most) = (running.clone(), most.clone());
        let load = move || {
            let (running, most) = (running.clone(), most.clone());
            async move {
                use std::sync::atomic::Ordering::Relaxed;
                most.fetch_max(running.fetch_add(1, Relaxed) + 1, Relaxed);
                sleep(20 * MS).await;
                running.fetch_sub(1, Relaxed);
                Ok::<_, String>(Some(key))
            }
        };
        async move { cache.get_or_load_refreshed(&key, refresh, Load::new(), load).await }
    });
    assert!(join_all(registered).await.into_iter().all(|found| found.is_ok()));
    // Twenty callers have loaded at once; from now on it is the refreshes.
    most.store(0, std::sync::atomic::Ordering::Relaxed);
    sleep(10 * SECOND).await;
    assert_eq!(most.load(std::sync::atomic::Ordering::Relaxed), 4);
}
