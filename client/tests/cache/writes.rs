//! Writes to the levels, and to a source with its caches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use scatterhoard_client::Cache;
use scatterhoard_client::cache::{AfterStore, Put, SourceError};
use tokio::time::{sleep, timeout};

use crate::near::Map;
use crate::world::{MS, World, load, load_by};

#[tokio::test(start_paused = true)]
async fn conditions_hold_or_nothing_is_done() {
    let world = World::new();
    for cache in [world.process().cache, world.process_near().cache, world.alone()] {
        let cache = cache.cache();
        cache.remove(&1).await.unwrap();
        assert!(!cache.set_with(&1, 1, Put::new().if_present()).await.unwrap());
        assert!(cache.set_with(&1, 2, Put::new().if_absent()).await.unwrap());
        assert!(!cache.set_with(&1, 3, Put::new().if_absent()).await.unwrap());
        assert!(cache.set_with(&1, 4, Put::new().if_present()).await.unwrap());
        assert!(!cache.compare_and_set(&1, &2, 5).await.unwrap());
        assert!(cache.compare_and_set(&1, &4, 6).await.unwrap());
        assert_eq!(cache.get(&1).await.unwrap().as_deref(), Some(&6));
        assert!(cache.remove(&1).await.unwrap());
        assert!(!cache.remove(&1).await.unwrap());
        assert!(!cache.compare_and_set(&1, &6, 7).await.unwrap());
        // What the source does not have counts as none.
        assert_eq!(load_by(cache, MS, Ok(None)).await.unwrap(), None);
        assert!(!cache.set_with(&1, 8, Put::new().if_present()).await.unwrap());
        assert!(cache.set_with(&1, 9, Put::new().if_absent()).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn no_update_is_lost() {
    let world = World::new();
    let processes = [world.process(), world.process_near()];
    let updates = (0..20).map(|number| {
        let cache = processes[number % 2].cache.cache();
        async move {
            for _ in 0..5 {
                // Who meets too many others tries again.
                while cache
                    .update(&1, |count| Some(count.map_or(1, |count| count + 1)))
                    .await
                    .is_err()
                {
                    sleep(MS).await;
                }
            }
        }
    });
    join_all(updates).await;
    assert_eq!(processes[0].cache.cache().get(&1).await.unwrap().as_deref(), Some(&100));

    let alone = world.alone();
    for _ in 0..100 {
        alone.cache().update(&1, |count| Some(count.map_or(1, |count| count + 1))).await.unwrap();
    }
    assert_eq!(alone.cache().get(&1).await.unwrap().as_deref(), Some(&100));
    assert_eq!(alone.cache().update(&1, |_| None).await.unwrap(), None);
    assert_eq!(alone.cache().get(&1).await.unwrap().as_deref(), Some(&100));
}

#[tokio::test(start_paused = true)]
async fn a_tag_ends_what_carries_it_and_what_is_being_loaded_for_it() {
    let world = World::new();
    for cache in [world.process().cache, world.process_near().cache, world.alone()] {
        let cache = cache.cache();
        for key in 2..6 {
            let tags = if key % 2 == 0 { ["even"] } else { ["odd"] };
            assert!(cache.set_with(&key, key, Put::new().tags(tags)).await.unwrap());
        }
        assert!(cache.exists(&2).await.unwrap() && cache.exists(&3).await.unwrap());
        let tagged = scatterhoard_client::cache::Load::new().tags(["even"]);
        let slow = cache.get_or_load(&8, tagged, || async {
            sleep(50 * MS).await;
            Ok::<_, String>(Some(8))
        });
        let invalidate = async {
            sleep(20 * MS).await;
            cache.invalidate_tag("even").await.unwrap();
        };
        let (slow, ()) = tokio::join!(slow, invalidate);
        assert_eq!(slow.unwrap().as_deref(), Some(&8));
        let there =
            join_all((2..9).map(|key| async move { cache.exists(&key).await.unwrap() })).await;
        assert_eq!(there, [false, true, false, true, false, false, false]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_leaves_the_old_value_everywhere() {
    let world = World::new();
    let (process, near) = (world.process(), world.process_near());
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    assert_eq!(load(&near.cache, 1).await.unwrap(), Some(1));
    world.source.fails_percent.store(100, Ordering::Relaxed);
    for after in [AfterStore::Remove, AfterStore::Load] {
        let failed = process.cache.store(&1, 0, after).await;
        assert!(matches!(failed, Err(SourceError::Source(_))));
    }
    assert!(matches!(near.cache.remove(&1).await, Err(SourceError::Source(_))));
    assert_eq!(process.cache.cache().get(&1).await.unwrap().as_deref(), Some(&1));
    assert_eq!(near.cache.cache().get(&1).await.unwrap().as_deref(), Some(&1));
    assert_eq!(world.source.newest(1), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_read_everywhere_after_it_was_acknowledged() {
    let world = World::new();
    let (one, other) = (world.process(), world.process());
    for (after, cached) in [(AfterStore::Remove, false), (AfterStore::Load, true)] {
        one.cache.store(&1, 0, after).await.unwrap();
        let newest = world.source.newest(1);
        assert_eq!(other.cache.cache().exists(&1).await.unwrap(), cached);
        assert_eq!(load(&other.cache, 1).await.unwrap(), Some(newest));
    }
    one.cache.remove(&1).await.unwrap();
    assert_eq!(load(&other.cache, 1).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_writer_who_gives_up_leaves_no_old_value_behind() {
    let world = World::new();
    let process = world.process();
    assert_eq!(load(&process.cache, 1).await.unwrap(), Some(1));
    *world.source.takes_max.lock() = 100 * MS;
    for patience in 0..40 {
        let write = process.cache.store(&1, 0, AfterStore::Remove);
        let _gave_up = timeout(patience * 5 * MS, write).await;
        sleep(500 * MS).await;
        let newest = world.source.newest(1);
        assert_eq!(load(&process.cache, 1).await.unwrap(), Some(newest));
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "what waits for a lock must not hold up the others")]
async fn a_tag_ends_what_was_being_kept_while_others_were_looked_through() {
    let near = Map::<u64, u64>::new();
    let cache =
        Cache::<u64, u64>::builder("n").near(Arc::<Map<_, _>>::clone(&near)).build().unwrap();
    let red = Put::new().tags(["red"]);
    // The one that follows makes it 1,023. At 1,024, those are looked for that are no longer kept.
    for key in 2..1024 {
        cache.set_with(&key, key, red.clone()).await.unwrap();
    }
    let (others, its_tag) = (cache.clone(), red.clone());
    near.before_keeping(1, move || {
        let (done, one_is_done) = mpsc::channel();
        // Several, since those wait that share a lock with the key.
        for key in 2000..2016 {
            let (cache, red, done) = (others.clone(), its_tag.clone(), done.clone());
            std::thread::spawn(move || {
                let set = cache.set_with(&key, key, red).now_or_never();
                assert!(set.expect("it waits for nobody").unwrap());
                let _ = done.send(());
            });
        }
        one_is_done.recv().expect("one of them shares no lock with it");
    });
    cache.set_with(&1, 1, red).await.unwrap();
    assert!(cache.exists(&1).await.unwrap());
    cache.invalidate_tag("red").await.unwrap();
    assert!(!cache.exists(&1).await.unwrap());
}
