//! What is told of what happens.

use std::sync::Arc;

use futures_util::StreamExt as _;
use scatterhoard_client::cache::{Event, Kind, Load};
use scatterhoard_client::level::NearLevel;
use scatterhoard_client::level::near::{Fronted, Moka, Quick};
use tokio::time::sleep;

use crate::near::Map;
use crate::source::Version;
use crate::world::{MS, SECOND, World, load, load_by};

fn here<K>(event: Option<Event<K>>) -> Option<(Kind, K)> {
    match event? {
        Event::Here { kind, key, .. } => Some((kind, key)),
        Event::Elsewhere { .. } | Event::EverythingElsewhere | Event::Missed(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_this_process_does_is_told_with_its_kind() {
    let world = World::new();
    let cache = world.alone_with(|cache| cache.soft_ttl(SECOND).ttl(10 * SECOND).jitter(0.0));
    let cache = cache.cache();
    let mut events = cache.events();
    cache.set(&2, 20).await.unwrap();
    load_by(cache, MS, Ok(Some(7))).await.unwrap();
    sleep(2 * SECOND).await;
    load_by(cache, MS, Ok(Some(8))).await.unwrap();
    sleep(SECOND / 10).await;
    assert!(cache.set_many(vec![(3, 30)]).await[0].is_ok());
    cache.remove(&2).await.unwrap();
    sleep(20 * SECOND).await;
    assert_eq!(cache.get(&1).await.unwrap(), None);
    let expected = [
        (Kind::Set, 2),
        (Kind::SetByLoad, 1),
        (Kind::SetByRefresh, 1),
        (Kind::SetByMany, 3),
        (Kind::Delete, 2),
        (Kind::Expire, 1),
    ];
    for told in expected {
        assert_eq!(here(events.next().await), Some(told));
    }
}

#[tokio::test(start_paused = true)]
async fn ones_own_can_be_told_from_those_of_others() {
    let world = World::new();
    let (one, other) = (world.process(), world.process());
    assert_ne!(one.cache.cache().source_id(), other.cache.cache().source_id());
    let mut events = other.cache.cache().events();
    load(&one.cache, 1).await.unwrap();
    one.cache.cache().remove(&1).await.unwrap();
    for _ in 0..2 {
        assert_eq!(events.next().await, Some(Event::Elsewhere { name: "1".into() }));
    }
    other.link.cut();
    assert_eq!(events.next().await, Some(Event::EverythingElsewhere));
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_is_told_how_many_he_missed_and_who_is_left_is_told_the_end() {
    let world = World::new();
    let cache = world.alone_with(|cache| cache.events_max(4));
    let events = cache.cache().events();
    for key in 0..10 {
        cache.cache().set(&key, 0).await.unwrap();
    }
    drop(cache);
    let events: Vec<_> = Box::pin(events.into_stream()).collect().await;
    assert_eq!(events[0], Event::Missed(6));
    assert_eq!(events.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_not_kept_is_not_told() {
    let world = World::new();
    let cache = world.alone();
    let mut events = cache.cache().events();
    let slow = cache.cache().get_or_load(&1, Load::new(), || async {
        sleep(20 * MS).await;
        Ok::<_, String>(Some(1))
    });
    let remove = async {
        sleep(10 * MS).await;
        cache.cache().remove(&1).await.unwrap();
    };
    let (slow, ()) = tokio::join!(slow, remove);
    slow.unwrap();
    cache.cache().set(&2, 2).await.unwrap();
    assert_eq!(here(events.next().await), Some((Kind::Delete, 1)));
    assert_eq!(here(events.next().await), Some((Kind::Set, 2)));
}

#[tokio::test(start_paused = true)]
async fn the_near_levels_that_come_along_tell_what_they_throw_away() {
    let small = 10 * 1000;
    let levels: [Arc<dyn NearLevel<u64, Version>>; 3] = [
        Arc::new(Moka::with_bytes_max(small)),
        Arc::new(Quick::with_bytes_max(small)),
        Arc::new(Fronted::new(Moka::with_bytes_max(small), 1000)),
    ];
    for level in levels {
        let world = World::new();
        let cache = world.alone_with(|cache| cache.near(Arc::clone(&level)).weigh(|_, _| 100));
        let mut events = cache.cache().events();
        for key in 0..500 {
            cache.cache().set(&key, 1).await.unwrap();
        }
        let evicted_count = level.holds().evicted_count;
        assert!(evicted_count > 0);
        drop((cache, level));
        let mut told_count = 0;
        while let Some(event) = events.next().await {
            told_count += u64::from(here(Some(event)).is_some_and(|(kind, _)| kind == Kind::Evict));
        }
        assert!(told_count >= evicted_count);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_near_level_throws_away_is_told() {
    let world = World::new();
    let cache = world.alone_with(|cache| cache.near(Map::of(1)));
    let mut events = cache.cache().events();
    cache.cache().set(&1, 1).await.unwrap();
    cache.cache().set(&2, 2).await.unwrap();
    assert_eq!(here(events.next().await), Some((Kind::Set, 1)));
    assert_eq!(here(events.next().await), Some((Kind::Evict, 1)));
    assert_eq!(here(events.next().await), Some((Kind::Set, 2)));
}
