//! Guards by the rules of near copies, in random histories: nothing that was added is denied beyond the bound.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use scatterhoard_near::{Cells, Feed, Follower, KeyHash, Position, Stamp};
use scatterhoard_ring::{Slot, SlotRange};
use tokio::time::{Instant, sleep};

use super::*;

const FILTER: &[u8] = b"filter";
const BOUND: Duration = Duration::from_millis(200);

/// A filter that is never wrong, behind a network that takes its time, and the rules of near copies.
struct Level {
    added: Mutex<BTreeSet<Bytes>>,
    feed: Arc<Feed>,
    follower: Mutex<Follower>,
    asked_count: Mutex<u64>,
    way: Duration,
}

impl Level {
    fn new(way: Duration) -> Arc<Self> {
        let slots = SlotRange::ALL;
        let feed = Arc::new(Feed::new(slots, Arc::new(Cells::new(8))));
        let follower = Mutex::new(Follower::new(Arc::clone(&feed), BOUND));
        let (added, asked_count) = (Mutex::default(), Mutex::default());
        Arc::new(Self { added, feed, follower, asked_count, way })
    }

    /// The leader says how far it is, behind all that it told.
    fn prove(&self) {
        let stamp = Stamp::default();
        let mut follower = self.follower.lock();
        let probe = follower.probe_sent(Clock::new().now());
        follower.probe_answered(probe, stamp, Position::default());
        follower.reached(stamp, Position::default());
    }

    /// Another process adds something. Its invalidation may be lost, which the stream notices: a reset comes before
    /// the next proof.
    fn added_elsewhere(&self, item: Bytes, is_lost: bool) {
        self.added.lock().insert(item);
        if is_lost {
            self.follower.lock().reset();
        } else {
            self.feed.invalidated(KeyHash::of(FILTER, 0));
        }
    }

    fn lose_everything(&self) {
        self.added.lock().clear();
        self.feed.invalidated(KeyHash::of(FILTER, 0));
    }
}

impl FilterLevel for Level {
    fn ask<'a>(
        &'a self,
        filter: &'a [u8],
        items: &'a [Bytes],
    ) -> BoxFuture<'a, Result<Answers, Error>> {
        async move {
            *self.asked_count.lock() += 1;
            let now = Clock::new().now();
            let ticket = self.feed.begin(Slot::of(filter), KeyHash::of(filter, 0), now);
            sleep(self.way).await;
            let may_exist = {
                let added = self.added.lock();
                items.iter().map(|item| added.contains(item)).collect()
            };
            sleep(self.way).await;
            let mark = ticket.and_then(|ticket| self.feed.keep(ticket, None));
            Ok(Answers { may_exist, mark })
        }
        .boxed()
    }

    fn add<'a>(
        &'a self,
        _: &'a [u8],
        items: &'a [Bytes],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        async move {
            sleep(self.way).await;
            let new = {
                let mut added = self.added.lock();
                items.iter().map(|item| added.insert(item.clone())).collect::<Vec<_>>()
            };
            sleep(self.way).await;
            Ok(new)
        }
        .boxed()
    }

    fn reserve<'a>(&'a self, _: &'a [u8], _: u32, _: f64) -> BoxFuture<'a, Result<(), Error>> {
        async { Ok(()) }.boxed()
    }

    fn may_serve(&self, mark: &Mark, now: Moment) -> bool {
        self.feed.may_serve(mark, now)
    }
}

/// The same, where an addition is told before it is answered.
struct Told(Arc<Level>);

impl FilterLevel for Told {
    fn ask<'a>(
        &'a self,
        filter: &'a [u8],
        items: &'a [Bytes],
    ) -> BoxFuture<'a, Result<Answers, Error>> {
        self.0.ask(filter, items)
    }

    fn add<'a>(
        &'a self,
        filter: &'a [u8],
        items: &'a [Bytes],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        async move {
            let added = self.0.add(filter, items).await;
            self.0.feed.invalidated(KeyHash::of(filter, 0));
            added
        }
        .boxed()
    }

    fn reserve<'a>(
        &'a self,
        filter: &'a [u8],
        capacity: u32,
        error_rate: f64,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.0.reserve(filter, capacity, error_rate)
    }

    fn may_serve(&self, mark: &Mark, now: Moment) -> bool {
        self.0.may_serve(mark, now)
    }
}

const WAY: Duration = Duration::from_millis(3);

async fn sealed(way: Duration, kept_count: usize) -> (Arc<Level>, Guard<Level>) {
    let level = Level::new(way);
    let guard = Guard::keeping(Arc::clone(&level), FILTER, kept_count);
    guard.seal().await.expect("it answers");
    level.prove();
    (level, guard)
}

#[tokio::test(start_paused = true)]
async fn what_is_absent_is_asked_for_once_until_something_is_added() {
    let (level, guard) = sealed(WAY, 100).await;
    for _ in 0..3 {
        assert_eq!(guard.may_exist("ann").await, Ok(false));
        assert_eq!(guard.may_exist_many(&["ann", "ann"]).await, Ok(vec![false, false]));
    }
    assert_eq!(*level.asked_count.lock(), 1);
    level.added_elsewhere("bob".into(), false);
    assert_eq!(guard.may_exist_many(&["ann", "bob"]).await, Ok(vec![false, true]));
    assert_eq!(*level.asked_count.lock(), 2);
    // Without a proof nothing is repeated.
    sleep(BOUND).await;
    assert_eq!(guard.may_exist("ann").await, Ok(false));
    assert_eq!(*level.asked_count.lock(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_this_process_added_is_never_denied_by_it() {
    let (level, guard) = sealed(WAY, 100).await;
    assert_eq!(guard.may_exist("ann").await, Ok(false));
    // A question is under way while it is added.
    let (asked, added) = tokio::join!(guard.may_exist("bob"), guard.add_many(["ann", "bob"]));
    assert!(asked.is_ok() && added == Ok(vec![true, true]));
    // No invalidation has come yet, and the proof still holds.
    level.prove();
    assert_eq!(guard.may_exist_many(&["ann", "bob"]).await, Ok(vec![true, true]));
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_was_not_sealed_or_is_gone_denies_nothing() {
    let level = Level::new(WAY);
    let guard = Guard::keeping(Arc::clone(&level), FILTER, 100);
    level.prove();
    guard.add("ann").await.expect("it answers");
    assert_eq!(guard.may_exist("eve").await, Ok(true));
    guard.seal().await.expect("it answers");
    assert_eq!(guard.may_exist("eve").await, Ok(false));
    level.lose_everything();
    level.prove();
    assert_eq!(guard.may_exist_many(&["ann", "eve"]).await, Ok(vec![true, true]));
    // Somebody adds to it, which makes it anew.
    guard.add("bob").await.expect("it answers");
    assert_eq!(guard.may_exist("ann").await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_and_long_items_are_not_kept() {
    let (level, guard) = sealed(WAY, 100).await;
    for number in 0..1000 {
        assert_eq!(guard.may_exist(number.to_string()).await, Ok(false));
        level.prove();
    }
    let kept =
        (0..1000).filter(|number| guard.absent.look(number.to_string().as_bytes()).is_some());
    assert!((50..=100).contains(&kept.count()));
    let long = vec![b'x'; 257];
    assert_eq!(guard.may_exist(&long).await, Ok(false));
    assert!(guard.absent.look(&long).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_level_by_the_rules_does_as_every_level_has_to() {
    let (level, _) = sealed(WAY, 100).await;
    let proving = Arc::clone(&level);
    tokio::spawn(async move {
        loop {
            proving.prove();
            sleep(BOUND / 4).await;
        }
    });
    let guard = || Guard::new(Told(Arc::clone(&level)), FILTER);
    suite::all(&suite::Pair { ours: guard(), theirs: guard(), bound: BOUND }).await;
}

#[derive(Clone, Debug)]
enum Event {
    Asks(u8),
    Adds(u8),
    AddedElsewhere(u8, bool),
    Proves,
    Waits(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_u8..6).prop_map(Event::Asks),
        1 => (0_u8..6).prop_map(Event::Adds),
        1 => (0_u8..6, any::<bool>()).prop_map(|(item, lost)| Event::AddedElsewhere(item, lost)),
        3 => Just(Event::Proves),
        3 => (0_u16..60).prop_map(Event::Waits),
    ]
}

/// Questions, additions and what the stream tells overlap in any way.
async fn history(events: Vec<Event>, way_ms: u64) {
    let (level, guard) = sealed(Duration::from_millis(way_ms), 4).await;
    let acknowledged = Arc::new(Mutex::new(BTreeMap::<Bytes, Instant>::new()));
    let own = Arc::new(Mutex::new(BTreeSet::<Bytes>::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for event in events {
        match event {
            Event::Asks(item) => {
                let (guard, item) = (guard.clone(), Bytes::from(vec![item]));
                let (acknowledged, own) = (Arc::clone(&acknowledged), Arc::clone(&own));
                tasks.spawn(async move {
                    let asked = Instant::now();
                    let added = acknowledged.lock().get(&item).copied();
                    let long_ago = added.is_some_and(|added| added + BOUND <= asked);
                    let is_there = long_ago || own.lock().contains(&item);
                    let may_exist = guard.may_exist(&item).await.expect("it answers");
                    assert!(may_exist || !is_there, "{item:?} was added and is denied");
                });
            }
            Event::Adds(item) => {
                let (guard, own, item) = (guard.clone(), Arc::clone(&own), Bytes::from(vec![item]));
                let level = Arc::clone(&level);
                tasks.spawn(async move {
                    guard.add(&item).await.expect("it answers");
                    level.feed.invalidated(KeyHash::of(FILTER, 0));
                    own.lock().insert(item);
                });
            }
            Event::AddedElsewhere(item, is_lost) => {
                let item = Bytes::from(vec![item]);
                level.added_elsewhere(item.clone(), is_lost);
                acknowledged.lock().entry(item).or_insert_with(Instant::now);
            }
            Event::Proves => level.prove(),
            Event::Waits(time_ms) => sleep(Duration::from_millis(time_ms.into())).await,
        }
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.expect("no assertion failed");
    }
}

proptest! {
    #[test]
    fn nothing_that_was_added_is_denied_beyond_the_bound(
        events in prop::collection::vec(event(), 1..120),
        way_ms in 0_u64..40,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(history(events, way_ms));
    }
}
