//! One load at a time, whoever asks, and what becomes of its callers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use parking_lot::Mutex;
use scatterhoard_client::cache::{Load, LoadError};
use scatterhoard_client::level::{Ask, ClusterLevel as _, Found};
use tokio::time::{Instant, sleep, timeout};

use crate::source::Row;
use crate::world::{MS, SECOND, World, load, load_by};

#[tokio::test(start_paused = true)]
async fn three_thousand_callers_in_three_processes_cost_one_load() {
    let world = World::new();
    let processes = [world.process(), world.process_near(), world.process_near()];
    let callers = processes.iter().flat_map(|process| (0..1000).map(|_| load(&process.cache, 1)));
    let found = join_all(callers).await;
    assert!(found.iter().all(|found| *found.as_ref().unwrap() == Some(1)));
    assert_eq!(world.loads_count(), 1);
    // Nor does everyone ask the store.
    assert!(world.requests_count() < 100, "{}", world.requests_count());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_without_a_cluster_cost_one_load() {
    let world = World::new();
    let cache = world.alone();
    let found = join_all((0..1000).map(|_| load(&cache, 1))).await;
    assert!(found.iter().all(|found| *found.as_ref().unwrap() == Some(1)));
    assert_eq!(world.loads_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_panics_is_an_error_for_all_who_wait_and_the_next_call_loads_again() {
    let world = World::new();
    for cache in [world.process().cache, world.alone()] {
        let cache = cache.cache();
        let panics = || {
            cache.get_or_load(&1, Load::new(), || async {
                sleep(10 * MS).await;
                if true {
                    panic!("no such table");
                }
                Ok::<_, String>(Some(0))
            })
        };
        for end in join_all((0..10).map(|_| panics())).await {
            assert!(matches!(end, Err(LoadError::Panicked(said)) if &*said == "no such table"));
        }
        assert_eq!(load_by(cache, MS, Ok(Some(7))).await.unwrap(), Some(7));
    }
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_fails_leaves_nothing_and_gives_its_lease_back() {
    let world = World::new();
    let (one, other) = (world.process(), world.process());
    let failed = load_by(one.cache.cache(), MS, Err("no connection")).await.unwrap_err();
    assert!(failed.to_string().contains("no connection"));
    let began = Instant::now();
    assert_eq!(load_by(other.cache.cache(), MS, Ok(Some(7))).await.unwrap(), Some(7));
    assert!(began.elapsed() < SECOND, "it waited for a lease that nobody uses");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_dropped_cancels_nobody_else() {
    let world = World::new();
    for cache in [world.process().cache, world.alone()] {
        let first = timeout(5 * MS, load_by(cache.cache(), 100 * MS, Ok(Some(7))));
        let second = async {
            sleep(MS).await;
            load_by(cache.cache(), 100 * MS, Ok(Some(8))).await
        };
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_err());
        assert_eq!(second.unwrap(), Some(7), "it is the value of the load that went on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_has_begun_goes_on_without_its_caller_and_is_kept() {
    let world = World::new();
    let process = world.process();
    let dropped = timeout(20 * MS, load_by(process.cache.cache(), 100 * MS, Ok(Some(7)))).await;
    assert!(dropped.is_err());
    sleep(200 * MS).await;
    assert_eq!(process.cache.cache().get(&1).await.unwrap().as_deref(), Some(&7));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_nobody_waits_for_any_more_does_not_begin() {
    let world = World::new();
    let (process, other) = (world.process(), world.process());
    process.link.set_delay(100 * MS);
    assert!(timeout(Duration::from_micros(10), load(&process.cache, 1)).await.is_err());
    sleep(SECOND).await;
    assert_eq!(world.loads_count(), 0);
    let look = other.link.look(b"version:1", Ask::Peek).await.unwrap();
    assert_eq!(look.found, Found::Absent);
    // Its lease was given back.
    let began = Instant::now();
    assert_eq!(load(&other.cache, 1).await.unwrap(), Some(1));
    assert!(began.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_takes_too_long_is_aborted_and_the_next_begins_at_once() {
    let world = World::new();
    let process = world.process_with(|cache| cache.timeout_hard(100 * MS));
    let slow = load_by(process.cache.cache(), SECOND, Ok(Some(7))).await;
    assert!(matches!(slow, Err(LoadError::TimedOut(after)) if after == 100 * MS));
    let began = Instant::now();
    assert_eq!(load_by(process.cache.cache(), MS, Ok(Some(8))).await.unwrap(), Some(8));
    assert!(began.elapsed() < 50 * MS);
}

#[tokio::test(start_paused = true)]
async fn that_there_is_nothing_is_remembered_for_a_minute_and_no_longer() {
    let world = World::new();
    for cache in [world.process().cache, world.process_near().cache, world.alone()] {
        let before = world.loads_count();
        for _ in 0..10 {
            assert_eq!(load(&cache, 2).await.unwrap(), None);
            assert!(!cache.cache().exists(&2).await.unwrap());
            sleep(5 * SECOND).await;
        }
        assert_eq!(world.loads_count(), before + 1);
        sleep(15 * SECOND).await;
        assert_eq!(load(&cache, 2).await.unwrap(), None);
        assert_eq!(world.loads_count(), before + 2);
        cache.cache().remove(&2).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_loader_brings_no_old_value_back() {
    let world = World::new();
    let (one, other) = (world.process(), world.process());
    // The loader has read the first version and takes its time.
    let early = load_by(one.cache.cache(), 100 * MS, Ok(Some(1)));
    let write_and_read = async {
        sleep(50 * MS).await;
        world.source.write(1, Row::Stored);
        other.cache.cache().remove(&1).await.unwrap();
        // Joins the load that is under way, and may not have what it brings.
        load(&one.cache, 1).await
    };
    let (early, late) = tokio::join!(early, write_and_read);
    assert_eq!(early.unwrap(), Some(1), "it had asked before the write");
    assert_eq!(late.unwrap(), Some(2));
    assert_eq!(load(&other.cache, 1).await.unwrap(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn without_a_cluster_a_change_during_a_load_is_not_undone_by_it() {
    let world = World::new();
    let cache = world.alone();
    let slow = load_by(cache.cache(), 100 * MS, Ok(Some(1)));
    let set = async {
        sleep(50 * MS).await;
        cache.cache().set(&1, 2).await.unwrap();
    };
    let (slow, ()) = tokio::join!(slow, set);
    assert_eq!(slow.unwrap(), Some(1));
    assert_eq!(cache.cache().get(&1).await.unwrap().as_deref(), Some(&2));

    let slow = async {
        cache.cache().remove(&1).await.unwrap();
        load_by(cache.cache(), 100 * MS, Ok(Some(1))).await
    };
    let remove = async {
        sleep(50 * MS).await;
        cache.cache().remove(&1).await.unwrap();
        load_by(cache.cache(), MS, Ok(Some(3))).await
    };
    let (slow, after) = tokio::join!(slow, remove);
    assert_eq!((slow.unwrap(), after.unwrap()), (Some(1), Some(3)));
    assert_eq!(cache.cache().get(&1).await.unwrap().as_deref(), Some(&3));
}

#[tokio::test(start_paused = true)]
async fn the_death_of_who_loads_holds_the_others_up_no_longer_than_its_lease() {
    let world = World::new();
    let dead = world.process();
    let ask = Ask::Lease { lasts: 500 * MS, stale: true };
    let look = dead.link.look(b"version:1", ask).await.unwrap();
    assert!(matches!(look.found, Found::Load(_)));
    let others = [world.process(), world.process()];
    let began = Instant::now();
    let found = join_all(others.iter().map(|process| load(&process.cache, 1))).await;
    assert!(found.into_iter().all(|found| found.unwrap() == Some(1)));
    assert!(began.elapsed() < 600 * MS);
    assert_eq!(world.loads_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_came_before_one_that_dies_does_not_load_beside_the_heir() {
    let world = World::new();
    let lease = 200 * MS;
    let process = || world.process_with(|cache| cache.timeout_hard(lease).lease(lease));
    let (others, dead) = ([process(), process(), process()], world.process());
    dead.link.set_delay(Duration::ZERO);
    let dies = async {
        // The others are under way, and he is nearer.
        sleep(MS / 10).await;
        dead.link.look(b"version:1", Ask::Lease { lasts: lease, stale: true }).await
    };
    let began = Instant::now();
    let loads = join_all(others.iter().map(|process| load(&process.cache, 1)));
    let (found, dead) = tokio::join!(loads, dies);
    assert!(matches!(dead.unwrap().found, Found::Load(_)));
    assert!(found.into_iter().all(|found| found.unwrap() == Some(1)));
    assert_eq!(world.loads_count(), 1, "others loaded without a right to");
    assert!(began.elapsed() < lease * 2);
}

#[tokio::test(start_paused = true)]
async fn a_loader_of_many_sees_exactly_the_missing_ids_once() {
    let world = World::new();
    for cache in [world.process().cache, world.process_near().cache, world.alone()] {
        let cache = cache.cache();
        for id in 0..100 {
            cache.remove(&id).await.unwrap();
        }
        cache.set(&3, 30).await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let load = || {
            let seen = Arc::clone(&seen);
            cache.get_or_load_many(&[1, 2, 3, 4, 4, 5], Load::new(), move |ids| {
                seen.lock().extend(ids.iter().copied());
                async move {
                    sleep(10 * MS).await;
                    let loaded = ids.into_iter().filter(|id| *id != 2);
                    let loaded =
                        loaded.map(|id| (id, if id == 4 { Err("no 4") } else { Ok(id * 10) }));
                    Ok::<HashMap<_, _>, &str>(loaded.collect())
                }
            })
        };
        let (one, two) = tokio::join!(load(), load());
        for found in [one, two] {
            let value = |at: usize| found[at].as_ref().unwrap().as_deref().copied();
            assert_eq!(
                (value(0), value(1), value(2), value(5)),
                (Some(10), None, Some(30), Some(50))
            );
            assert!(found[3].as_ref().unwrap_err().to_string().contains("no 4"));
            assert!(found[4].is_err(), "an id that is asked for twice is answered twice");
        }
        seen.lock().sort_unstable();
        assert_eq!(*seen.lock(), [1, 2, 4, 5]);
        assert_eq!(cache.get(&5).await.unwrap().as_deref(), Some(&50));
        assert_eq!(cache.get(&4).await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_loader_of_many_does_not_load_what_others_load() {
    let world = World::new();
    let process = world.process();
    let cache = process.cache.cache();
    let one = load_by(cache, 50 * MS, Ok(Some(7)));
    let many = async {
        sleep(10 * MS).await;
        let load = cache.get_or_load_many(&[1, 2], Load::new(), |ids| async move {
            assert_eq!(ids, [2]);
            Ok::<_, String>(HashMap::from([(2, Ok(20))]))
        });
        load.await
    };
    let (one, many) = tokio::join!(one, many);
    assert_eq!(one.unwrap(), Some(7));
    let many: Vec<_> = many.into_iter().map(|found| *found.unwrap().unwrap()).collect();
    assert_eq!(many, [7, 20]);
}

#[tokio::test(start_paused = true)]
async fn a_loader_of_many_that_panics_is_an_error_for_each_and_loads_again() {
    let world = World::new();
    let process = world.process();
    let cache = process.cache.cache();
    let panics = cache.get_or_load_many(&[1, 2], Load::new(), |ids| {
        assert!(ids.is_empty(), "too many");
        async { Ok::<_, String>(HashMap::new()) }
    });
    let found = panics.await;
    assert!(found.iter().all(|end| matches!(end, Err(LoadError::Panicked(_)))));
    assert_eq!(load_by(cache, MS, Ok(Some(7))).await.unwrap(), Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_never_ends_and_never_yields_its_place_hangs_nobody() {
    let world = World::new();
    let process = world.process();
    let never = process.cache.cache().get_or_load(&1, Load::new(), || {
        std::future::pending::<Result<Option<u64>, String>>().boxed()
    });
    assert!(matches!(never.await, Err(LoadError::TimedOut(_))));
}

#[tokio::test(start_paused = true)]
async fn many_are_looked_for_at_once() {
    let world = World::new();
    let process = world.process();
    let cache = process.cache.cache();
    process.link.set_delay(Duration::ZERO);
    let pairs = (0..50).map(|id| (id, id * 10)).collect();
    assert!(cache.set_many(pairs).await.iter().all(Result::is_ok));
    let found = cache.get_many(&[7, 50, 8]).await;
    let found: Vec<_> = found.into_iter().map(|found| found.unwrap().map(|found| *found)).collect();
    assert_eq!(found, [Some(70), None, Some(80)]);
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_reads_is_counted_once() {
    let world = World::new();
    let process = world.process_near();
    let cache = process.cache.cache();
    join_all((0..10).map(|_| load(&process.cache, 1))).await;
    let counts = cache.stats().counts();
    assert_eq!((counts.near.hits, counts.near.misses, counts.cluster.misses), (0, 10, 10));
    assert_eq!((counts.misses, counts.loads, counts.load_failures), (10, 1, 0));
    cache.get(&1).await.unwrap();
    cache.get(&1).await.unwrap();
    cache.get(&2).await.unwrap();
    let counts = cache.stats().counts();
    assert_eq!((counts.near.hits, counts.cluster.hits, counts.misses), (1, 1, 11));
    assert_eq!(counts.total().count(), 13);

    let alone = world.alone();
    load(&alone, 1).await.unwrap();
    load(&alone, 1).await.unwrap();
    alone.cache().get(&2).await.unwrap();
    let counts = alone.cache().stats().counts();
    assert_eq!((counts.near.hits, counts.misses, counts.total().count()), (1, 2, 3));
}
