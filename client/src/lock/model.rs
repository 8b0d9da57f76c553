//! Locks in random histories: the code that ships, on processes with clocks of their own, that stop and die, over a
//! network that delays and loses.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::register::sim::{Faults, Process, Store};

const KEY: &str = "the lock";
const LEASE: Duration = Duration::from_secs(2);

/// What the lock guards: it remembers the greatest fence.
#[derive(Default)]
struct Resource {
    greatest: AtomicU64,
}

impl Resource {
    fn accepts(&self, fence: Version) -> bool {
        self.greatest.fetch_max(fence.0, Ordering::Relaxed) <= fence.0
    }
}

/// All that happens in one history.
struct World {
    store: Arc<Store>,
    resource: Resource,
    /// Those who were told that they have it and have not given it back, by whoever looks from outside.
    holders: Mutex<Vec<(usize, Arc<Held>)>>,
    fences: Mutex<Vec<Version>>,
    served: Mutex<Vec<usize>>,
    done: AtomicUsize,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            store: Arc::default(),
            resource: Resource::default(),
            holders: Mutex::default(),
            fences: Mutex::default(),
            served: Mutex::default(),
            done: AtomicUsize::new(0),
        })
    }

    fn process(&self, faults: Faults, rate: u32, seed: u64) -> (Arc<Process>, Locks) {
        let process = Process::new(&self.store, faults, rate, seed);
        let locks = Locks::over(Arc::clone(&process) as _);
        (process, locks)
    }

    /// Somebody has a lock that is good at this moment.
    fn granted(&self, who: usize, guard: &Guard) {
        self.check();
        if guard.is_held() {
            let last = self.fences.lock().last().copied();
            assert!(last < Some(guard.fence()), "fences grow: {last:?}, {:?}", guard.fence());
            self.fences.lock().push(guard.fence());
        }
        self.holders.lock().push((who, Arc::clone(&guard.held)));
        self.served.lock().push(who);
        self.check();
    }

    /// At most one has it, each by its own clock.
    fn check(&self) {
        let mut holders = self.holders.lock();
        holders.retain(|(_, held)| !held.lost.is_cancelled());
        let held: Vec<_> = holders.iter().filter(|(_, held)| held.is_held()).collect();
        let who: Vec<_> = held.iter().map(|(who, _)| who).collect();
        assert!(held.len() <= 1, "{who:?} have it at {:?}", Instant::now());
    }
}

fn in_simulated_time<F: Future>(story: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(story)
}

const CALM: Faults = Faults { refused: 0, request_lost: 0, reply_lost: 0, late: 0, way_ms_max: 3 };

#[tokio::test(start_paused = true)]
async fn a_lock_goes_to_one_and_then_to_the_next() {
    let world = World::new();
    let (_, one) = world.process(CALM, 1000, 1);
    let (_, other) = world.process(CALM, 1000, 2);
    let guard = one.lock(KEY, LEASE).await.expect("it is free");
    assert_eq!(other.try_lock(KEY, LEASE).await.expect("an answer").map(|it| it.fence()), None);
    let next = tokio::spawn(async move { other.lock(KEY, LEASE).await });
    sleep(LEASE * 10).await;
    assert!(guard.is_held() && !next.is_finished());
    let fence = guard.fence();
    assert_eq!(guard.unlock().await, Unlocked::Released);
    let began = Instant::now();
    let next = next.await.expect("no panic").expect("it is free");
    assert!(next.fence() > fence);
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    drop(next);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(world.store.read(KEY.as_bytes()), None, "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn the_lock_of_a_holder_that_died_is_free_after_its_lease() {
    let world = World::new();
    let (dead, one) = world.process(CALM, 1000, 1);
    let (_, other) = world.process(CALM, 1000, 2);
    let guard = one.lock(KEY, LEASE).await.expect("it is free");
    dead.pause();
    let began = Instant::now();
    let next = other.lock(KEY, LEASE).await.expect("in the end");
    assert!((LEASE..LEASE * 3 / 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(next.fence() > guard.fence() && !guard.is_held());
    // Without anybody in line it is free when the key expires.
    drop(next);
    let (dead, one) = world.process(CALM, 1000, 3);
    let _guard = one.lock(KEY, LEASE).await.expect("it is free");
    dead.pause();
    sleep(LEASE * 2).await;
    assert!(other.try_lock(KEY, LEASE).await.is_ok_and(|guard| guard.is_some()));
}

#[tokio::test(start_paused = true)]
async fn what_is_guarded_is_dropped_half_way_when_the_lock_is_lost() {
    let world = World::new();
    let (process, locks) = world.process(CALM, 1000, 1);
    let guard = locks.lock(KEY, LEASE).await.expect("it is free");
    let lost = guard.lost();
    assert_eq!(guard.run(async { 7 }).await, Ok(7));
    process.set_faults(Faults { request_lost: 1000, ..CALM });
    let began = Instant::now();
    assert_eq!(guard.run(std::future::pending::<()>()).await, Err(Lost));
    assert!(began.elapsed() < LEASE && lost.is_cancelled() && !guard.is_held());
    assert_eq!(guard.unlock().await, Unlocked::WasLost);
}

#[tokio::test(start_paused = true)]
async fn a_lock_whose_key_was_lost_is_noticed_at_the_next_renewal() {
    let world = World::new();
    let (_, locks) = world.process(CALM, 1000, 1);
    let guard = locks.lock(KEY, LEASE).await.expect("it is free");
    world.store.lose_everything();
    let began = Instant::now();
    guard.lost().cancelled().await;
    assert!(began.elapsed() <= LEASE / 2);
    assert_eq!(guard.unlock().await, Unlocked::WasLost);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_came_late_counts_from_when_it_was_sent() {
    let world = World::new();
    let (process, one) = world.process(CALM, 1000, 1);
    let (_, other) = world.process(CALM, 1000, 2);
    let guard = one.lock(KEY, LEASE).await.expect("it is free");
    world.granted(1, &guard);
    let holder = || {
        let state = State::decode(&world.store.read(KEY.as_bytes()).expect("it is there"));
        state.expect("a lock").holder
    };
    let before = holder();
    while holder() == before {
        sleep(Duration::from_micros(100)).await;
    }
    process.pause();
    let next = tokio::spawn(async move { other.lock(KEY, LEASE).await });
    sleep(LEASE / 2).await;
    // It is told now, and of nothing after that.
    process.set_faults(Faults { request_lost: 1000, ..CALM });
    process.resume();
    while !next.is_finished() {
        sleep(Duration::from_millis(1)).await;
    }
    world.granted(2, &next.await.expect("no panic").expect("in the end"));
}

#[tokio::test(start_paused = true)]
async fn who_died_in_line_is_passed_over_and_who_gave_up_is_gone() {
    let world = World::new();
    let (_, one) = world.process(CALM, 1000, 1);
    let (dead, waits) = world.process(CALM, 1000, 2);
    let (_, other) = world.process(CALM, 1000, 3);
    let guard = one.lock(KEY, LEASE).await.expect("it is free");
    let _never = tokio::spawn(async move { waits.lock(KEY, LEASE).await });
    sleep(Duration::from_millis(100)).await;
    dead.pause();
    let gave_up = timeout(LEASE, other.lock(KEY, LEASE)).await;
    assert!(gave_up.is_err());
    let next = tokio::spawn(async move { other.lock(KEY, LEASE).await });
    sleep(Duration::from_millis(100)).await;
    let state = State::decode(&world.store.read(KEY.as_bytes()).expect("it is there"));
    assert_eq!(state.expect("a lock").queue.len(), 2);
    guard.unlock().await;
    let began = Instant::now();
    assert!(next.await.expect("no panic").is_ok());
    assert!(began.elapsed() < WAITER_LEASE + Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn without_the_cluster_waiting_ends_with_an_error() {
    let world = World::new();
    let (_, locks) = world.process(Faults { refused: 1000, ..CALM }, 1000, 1);
    let began = Instant::now();
    assert!(matches!(locks.lock(KEY, LEASE).await, Err(Error::NotDone(_))));
    assert!(began.elapsed() < WAITER_LEASE * 2);
}

#[tokio::test(start_paused = true)]
async fn more_than_can_stand_in_line_are_served_all_the_same() {
    let world = World::new();
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let (world, (_, locks)) = (Arc::clone(&world), world.process(CALM, 1000, number));
            tokio::spawn(async move {
                let guard = locks.lock(KEY, LEASE).await.expect("in the end");
                world.granted(0, &guard);
                guard.unlock().await
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), Unlocked::Released);
    }
}

/// Wants the lock again and again, and does something under it.
async fn client(who: usize, world: Arc<World>, process: Arc<Process>, locks: Locks, works_ms: u64) {
    loop {
        process.awake().await;
        let Ok(guard) = locks.lock(KEY, LEASE).await else { continue };
        world.granted(who, &guard);
        let fence = guard.fence();
        let work = async {
            for _ in 0..works_ms / 10 {
                // It runs only while the lock is held, so nobody else can have shown a greater fence.
                assert!(guard.is_held() && world.resource.accepts(fence));
                process.sleep_until(process.now() + Duration::from_millis(10)).await;
            }
        };
        let outcome = guard.run(work).await;
        // What was sent while it was held, and comes when the lock may be somebody else's.
        let late = Arc::clone(&world);
        tokio::spawn(async move {
            sleep(LEASE).await;
            late.resource.accepts(fence);
        });
        let was_held = guard.is_held();
        let unlocked = guard.unlock().await;
        if outcome.is_err() {
            assert!(!was_held && unlocked != Unlocked::Released);
        }
        world.done.fetch_add(1, Ordering::Relaxed);
        process.sleep_until(process.now() + Duration::from_millis(5)).await;
    }
}

#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    faults: [u32; 4],
    way_ms_max: u64,
    works_ms: u64,
    /// Whom something happens to, whether it is resumed, and how long until the next.
    events: Vec<(usize, bool, u16)>,
}

const PROCESSES: usize = 5;

fn plan() -> impl Strategy<Value = Plan> {
    let events = prop::collection::vec((0..PROCESSES, any::<bool>(), 0_u16..2500), 0..40);
    let faults = prop::array::uniform4(0_u32..60);
    (0_u64..1 << 32, faults, 1_u64..300, 10_u64..3000, events).prop_map(
        |(seed, faults, way_ms_max, works_ms, events)| Plan {
            seed,
            faults,
            way_ms_max,
            works_ms,
            events,
        },
    )
}

async fn history(plan: Plan) {
    let world = World::new();
    let [refused, request_lost, reply_lost, late] = plan.faults;
    let faults = Faults { refused, request_lost, reply_lost, late, way_ms_max: plan.way_ms_max };
    let mut processes = Vec::new();
    let mut clients = tokio::task::JoinSet::new();
    for who in 0..PROCESSES {
        // 955 to 1045: no two clocks are more than 10 % apart.
        let rate = [955, 1045, 1000, 955, 1045][who];
        let (process, locks) = world.process(faults, rate, plan.seed + who as u64);
        processes.push(Arc::clone(&process));
        clients.spawn(client(who, Arc::clone(&world), process, locks, plan.works_ms));
    }
    let watched = Arc::clone(&world);
    clients.spawn(async move {
        loop {
            sleep(Duration::from_millis(1)).await;
            watched.check();
        }
    });
    let story = async {
        for (who, resumed, wait_ms) in &plan.events {
            if *resumed {
                processes[*who].resume()
            } else {
                processes[*who].pause()
            }
            sleep(Duration::from_millis((*wait_ms).into())).await;
        }
        // Peace, but for those who stay dead: all others are served, again and again.
        let dead = plan.events.first().map(|event| event.0);
        for (who, process) in processes.iter().enumerate() {
            process.set_faults(CALM);
            if Some(who) == dead { process.pause() } else { process.resume() }
        }
        sleep(Duration::from_secs(30)).await;
        world.served.lock().clear();
        sleep(Duration::from_millis(plan.works_ms) * 20 + Duration::from_secs(60)).await;
        let served = world.served.lock().clone();
        for who in (0..PROCESSES).filter(|who| Some(*who) != dead) {
            let times = served.iter().filter(|&&it| it == who).count();
            assert!(times >= 3, "{who} was served {times} times in {served:?}");
        }
    };
    tokio::select! {
        biased;
        ended = clients.join_next() => panic!("a client ended: {ended:?}"),
        () = story => {}
    }
}

/// Without faults, whoever stands in line before another is served before it.
async fn fair_history(seed: u64, comes_ms: Vec<u16>) {
    let world = World::new();
    let (_, first) = world.process(CALM, 1000, seed);
    let guard = first.lock(KEY, LEASE).await.expect("it is free");
    let mut tasks = Vec::new();
    for (who, &after_ms) in comes_ms.iter().enumerate() {
        let (_, locks) = world.process(CALM, 1000, seed + 1 + who as u64);
        let world = Arc::clone(&world);
        tasks.push(tokio::spawn(async move {
            sleep(Duration::from_millis(after_ms.into())).await;
            let guard = locks.lock(KEY, LEASE).await.expect("in the end");
            world.granted(who, &guard);
            sleep(Duration::from_millis(20)).await;
            guard.unlock().await
        }));
    }
    sleep(Duration::from_secs(5)).await;
    let state = State::decode(&world.store.read(KEY.as_bytes()).expect("it is there"));
    let line = state.expect("a lock").queue;
    assert_eq!(line.len(), comes_ms.len());
    guard.unlock().await;
    let mut served = Vec::new();
    while served.len() < line.len() {
        sleep(Duration::from_millis(1)).await;
        let value = world.store.read(KEY.as_bytes());
        let holder = value.and_then(|value| State::decode(&value).ok()?.holder);
        served.extend(holder.map(|it| it.id).filter(|id| !served.contains(id)));
    }
    assert_eq!(served, line.iter().map(|member| member.id).collect::<Vec<_>>());
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), Unlocked::Released);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn one_at_a_time_with_growing_fences_and_nobody_waits_for_ever(plan in plan()) {
        in_simulated_time(history(plan));
    }

    #[test]
    fn first_come_first_served(
        seed in 0_u64..1 << 32,
        comes_ms in prop::collection::vec(0_u16..2000, 1..20),
    ) {
        in_simulated_time(fair_history(seed, comes_ms));
    }
}
