//! Stories and random histories of id generators.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use super::layout::Millis;
use super::sequence::{Next, Range, Sequence};
use super::*;
use crate::register::sim::{Faults, Process, Store};

const NUMBER: Number = Number::new(7).expect("below 1024");

fn sequence(from: u64, until: u64) -> Sequence {
    let sequence = Sequence::stopped();
    sequence.begin(Range { number: NUMBER, from: Millis(from), until: Millis(until) });
    sequence
}

fn issued(next: Next) -> Id {
    match next {
        Next::Id(id) => id,
        other => panic!("{other:?} instead of an id"),
    }
}

#[test]
fn a_millisecond_has_4096_ids_and_then_the_next_is_waited_for() {
    let sequence = sequence(100, 200);
    let ids: BTreeSet<_> = (0..4096).map(|_| issued(sequence.next(Millis(100)))).collect();
    assert_eq!(ids.len(), 4096);
    assert!(ids.iter().all(|id| id.time() == Millis(100)));
    assert_eq!(sequence.next(Millis(100)), Next::Later(Millis(101)));
    let parts = Epoch::DEFAULT.parse(issued(sequence.next(Millis(101))));
    assert_eq!((parts.number, parts.sequence), (NUMBER, 0));
    assert_eq!(parts.unix_millis, 1_704_067_200_000 + 101);
}

#[test]
fn a_step_back_of_10_ms_is_waited_out_and_more_is_an_error() {
    let sequence = sequence(100, 200);
    let before = issued(sequence.next(Millis(150)));
    assert_eq!(sequence.next(Millis(140)), Next::Later(Millis(150)));
    assert_eq!(sequence.next(Millis(139)), Next::Back(Millis(11)));
    assert!(issued(sequence.next(Millis(150))) > before);
}

#[test]
fn nothing_is_issued_outside_of_the_range() {
    let sequence = sequence(100, 200);
    assert_eq!(sequence.next(Millis(99)), Next::Later(Millis(100)));
    for beyond in [200, 201, 1 << 41, 1 << 42, u64::MAX] {
        assert_eq!(sequence.next(Millis(beyond)), Next::Over, "{beyond}");
    }
    let last = issued(sequence.next(Millis(199)));
    assert_eq!(sequence.stop(), Some(last));
    assert_eq!(sequence.next(Millis(199)), Next::Over);
    sequence.resume(last);
    sequence.extend(Millis(300));
    assert_eq!(issued(sequence.next(Millis(299))).time(), Millis(299));
}

proptest! {
    #[test]
    fn whatever_the_clock_does_ids_grow_and_stay_in_the_range(
        steps in prop::collection::vec((-30_i64..30, 1_usize..2000), 1..100),
    ) {
        let sequence = sequence(1000, 1500);
        let (mut now, mut last) = (1000_i64, None);
        for (step, count) in steps {
            now = (now + step).max(0);
            for _ in 0..count {
                match sequence.next(Millis(now as u64)) {
                    Next::Id(id) => {
                        prop_assert!(Some(id) > last);
                        prop_assert!((1000..1500).contains(&id.time().0));
                        prop_assert_eq!(id.time().0, now as u64);
                        last = Some(id);
                    }
                    Next::Later(time) => prop_assert!(time.0 > now as u64 && time.0 <= now as u64 + 10),
                    Next::Back(by) => prop_assert!(by.0 > 10),
                    Next::Over => prop_assert!(now >= 1500),
                }
            }
        }
    }

    #[test]
    fn an_id_says_what_it_was_made_of(time in 1_u64..1 << 41, number in 0_u16..1024) {
        let number = Number::new(number).expect("below 1024");
        let sequence = Sequence::stopped();
        let (from, until) = (Millis(time), Millis(time + 1));
        sequence.begin(Range { number, from, until });
        for sequence_number in 0..3 {
            let id = issued(sequence.next(from));
            let unix_millis = Epoch::DEFAULT.unix(from);
            let parts = Parts { unix_millis, number, sequence: sequence_number };
            prop_assert_eq!(Epoch::DEFAULT.parse(id), parts);
            prop_assert_eq!(Id::from_bits(id.bits()), Some(id));
            prop_assert!(id.signed() > 0);
        }
    }
}

/// Threads race for ids while another one withdraws the range, gives it back, or gives a new one.
#[test]
fn threads_get_unique_and_growing_ids_while_ranges_come_and_go() {
    const THREADS: usize = 4;
    const UNTIL: u64 = 1_000;
    let (clock, sequence) = (AtomicU64::new(1), Sequence::stopped());
    let start = Barrier::new(THREADS + 1);
    let issued = std::thread::scope(|scope| {
        let issue = || {
            let mut ids = Vec::new();
            start.wait();
            while clock.load(Ordering::Relaxed) < UNTIL {
                match sequence.next(Millis(clock.load(Ordering::Relaxed))) {
                    Next::Id(id) => ids.push(id),
                    Next::Later(_) => std::thread::yield_now(),
                    Next::Back(_) | Next::Over => {}
                }
            }
            ids
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(issue)).collect();
        start.wait();
        let mut until = 0;
        for time in 1..=UNTIL {
            clock.store(time, Ordering::Relaxed);
            let number = Number::new((time / 40 % 2) as u16).expect("below 1024");
            if time % 40 == 1 {
                let from = sequence.stop().map_or(1, |last| last.time().0 + 1).max(time);
                until = time + 30;
                let (from, until) = (Millis(from), Millis(until.max(from)));
                sequence.begin(Range { number, from, until });
            } else if time % 7 == 0 {
                let last = sequence.stop().expect("it was begun");
                sequence.resume(last);
            } else if time % 5 == 0 {
                until = until.max(time + 20);
                sequence.extend(Millis(until));
            }
            std::thread::yield_now();
        }
        threads.into_iter().map(|it| it.join().expect("no panic")).collect::<Vec<_>>()
    });
    let mut all = BTreeSet::new();
    for ids in &issued {
        assert!(ids.is_sorted_by(|one, next| one < next), "a thread saw ids grow");
        assert!(ids.iter().all(|&id| all.insert(id)), "an id was issued twice");
    }
    assert!(!all.is_empty());
}

/// A wall clock that a story can set.
#[derive(Clone)]
struct Clock {
    process: Arc<Process>,
    offset_ms: Arc<AtomicI64>,
}

/// 2025-01-01.
const BEGAN: i64 = 1_735_689_600_000;

impl Clock {
    fn of(process: &Arc<Process>) -> Self {
        let offset_ms = Arc::new(AtomicI64::new(0));
        Self { process: Arc::clone(process), offset_ms }
    }

    fn step(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Wall for Clock {
    fn unix_millis(&self) -> u64 {
        let since = self.process.age().as_millis() as i64;
        (BEGAN + since + self.offset_ms.load(Ordering::Relaxed)) as u64
    }
}

struct Machine {
    process: Arc<Process>,
    clock: Clock,
}

impl Machine {
    fn of(store: &Arc<Store>, seed: u64) -> Self {
        Self::with(store, Faults { way_ms_max: 2, ..Faults::default() }, 1000, seed)
    }

    fn with(store: &Arc<Store>, faults: Faults, rate: u32, seed: u64) -> Self {
        let process = Process::new(store, faults, rate, seed);
        Self { clock: Clock::of(&process), process }
    }

    async fn lease(&self, config: &IdsConfig) -> Result<Ids<Clock>, IdError> {
        let register: Arc<dyn Register> = Arc::clone(&self.process) as _;
        Ids::lease_from(register, self.clock.clone(), config.clone()).await
    }
}

fn config() -> IdsConfig {
    IdsConfig { preferred: Number::new(3), ..IdsConfig::new("test") }
}

fn parts(id: Id) -> Parts {
    Epoch::DEFAULT.parse(id)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test(start_paused = true)]
async fn a_number_that_was_given_back_is_taken_at_once_and_goes_on_behind_the_last_id() {
    let store = Arc::default();
    let machine = Machine::of(&store, 1);
    let began = Instant::now();
    let ids = machine.lease(&config()).await.expect("a number");
    assert!(began.elapsed() >= seconds(11), "nothing was known of the number");
    let last = ids.next().await.expect("an id");
    assert_eq!(parts(last).number.get(), 3);
    ids.close().await;
    let other = Machine::of(&store, 2);
    let began = Instant::now();
    let ids = other.lease(&IdsConfig { preferred: None, ..config() }).await.expect("a number");
    assert!(began.elapsed() < seconds(2));
    assert!(ids.next().await.is_ok_and(|id| id > last && parts(id).number.get() == 3));
}

#[tokio::test(start_paused = true)]
async fn the_number_of_a_generator_that_died_is_free_when_its_range_is_over() {
    let store = Arc::default();
    let (dead, heir) = (Machine::of(&store, 1), Machine::of(&store, 2));
    let config = IdsConfig { first_use: FirstUse::AtOnce, ..config() };
    let ids = dead.lease(&config).await.expect("a number");
    let last = ids.next().await.expect("an id");
    dead.process.pause();
    let early = heir.lease(&config).await.expect("a number");
    assert_ne!(parts(early.next().await.expect("an id")).number.get(), 3);
    sleep(seconds(15)).await;
    let late = heir.lease(&config).await.expect("a number");
    let id = late.next().await.expect("an id");
    assert!(id > last && parts(id).number.get() == 3);
    // Who was only paused finds out, and goes on with another number.
    dead.process.resume();
    assert_eq!(ids.try_next(), Err(IdError::NoNumber));
    sleep(seconds(1)).await;
    let id = ids.next().await.expect("an id");
    assert!(id > last && parts(id).number.get() != 3);
}

#[tokio::test(start_paused = true)]
async fn without_the_cluster_ids_stop_before_the_lease_ends_and_come_back_with_it() {
    let store = Arc::default();
    let machine = Machine::of(&store, 1);
    let config = IdsConfig { first_use: FirstUse::AtOnce, ..config() };
    let ids = machine.lease(&config).await.expect("a number");
    sleep(seconds(60)).await;
    let mut last = ids.next().await.expect("it was renewed");
    // Requests hang, while the process goes on.
    let stuck = Faults { request_lost: 1000, ..Faults::default() };
    machine.process.set_faults(stuck);
    let began = Instant::now();
    while let Ok(id) = ids.next().await {
        assert!(id > last);
        last = id;
        sleep(Duration::from_millis(10)).await;
    }
    assert!((seconds(5)..seconds(9)).contains(&began.elapsed()), "{:?}", began.elapsed());
    machine.process.set_faults(Faults::default());
    sleep(seconds(3)).await;
    assert!(ids.next().await.is_ok_and(|id| id > last));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_goes_back_a_little_is_waited_for_and_one_that_goes_back_far_is_not() {
    let store = Arc::default();
    let machine = Machine::of(&store, 1);
    let config = IdsConfig { first_use: FirstUse::AtOnce, ..config() };
    let ids = machine.lease(&config).await.expect("a number");
    let first = ids.next().await.expect("an id");
    machine.clock.step(-10);
    assert!(matches!(ids.try_next(), Err(IdError::Wait(_))));
    let second = ids.next().await.expect("an id");
    assert!(second > first);
    machine.clock.step(-500);
    assert!(matches!(ids.next().await, Err(IdError::ClockBack { .. })));
    sleep(seconds(1)).await;
    assert!(ids.next().await.is_ok_and(|id| id > second));
}

#[tokio::test(start_paused = true)]
async fn after_all_keys_were_lost_no_number_is_used_twice() {
    let store: Arc<Store> = Arc::default();
    let (one, other) = (Machine::of(&store, 1), Machine::of(&store, 2));
    let config = config();
    let ids = one.lease(&config).await.expect("a number");
    store.lose_everything();
    let heir = tokio::spawn({
        let config = config.clone();
        async move { other.lease(&config).await.expect("a number").next().await }
    });
    let mut last = None;
    while let Ok(id) = ids.next().await {
        last = Some(id);
        sleep(Duration::from_millis(10)).await;
    }
    let id = heir.await.expect("no panic").expect("an id");
    assert!(parts(id).number.get() == 3 && Some(id) > last);
}

#[tokio::test(start_paused = true)]
async fn a_full_millisecond_is_waited_for_without_spinning() {
    let store = Arc::default();
    let machine = Machine::of(&store, 1);
    let config = IdsConfig { first_use: FirstUse::AtOnce, ..config() };
    let ids = machine.lease(&config).await.expect("a number");
    // The clock stands still unless somebody waits: whoever spins here never ends.
    let mut all = BTreeSet::new();
    for _ in 0..3 * 4096 + 1 {
        assert!(all.insert(ids.next().await.expect("an id")));
    }
    let times: BTreeSet<_> = all.iter().map(|id| id.time()).collect();
    assert!(times.len() >= 4);
}

/// Generators on machines with bad clocks and a bad network, some of which stop for a while or for ever.
async fn history(seed: u64, plan: Vec<(u8, u16)>) {
    let store: Arc<Store> = Arc::default();
    let faults = Faults { refused: 20, request_lost: 50, reply_lost: 50, late: 50, way_ms_max: 40 };
    let config = IdsConfig { first_use: FirstUse::AtOnce, ..config() };
    let mut machines = Vec::new();
    for number in 0..4 {
        let rate = 955 + 30 * number;
        let machine = Machine::with(&store, faults, rate, seed + u64::from(number));
        // Up to two seconds apart, in both directions.
        machine.clock.step((i64::from(number) - 2) * 1000);
        machines.push((machine, None::<Ids<Clock>>));
    }
    let mut seen = BTreeMap::new();
    for (turn, (what, wait_ms)) in plan.into_iter().enumerate() {
        let count = machines.len();
        let (machine, ids) = &mut machines[turn % count];
        match what {
            0 => machine.process.pause(),
            1 => machine.process.resume(),
            2 => machine.clock.step(i64::from(wait_ms) - 1000),
            3 => drop(ids.take()),
            _ => {}
        }
        if ids.is_none() && what > 3 {
            let leased = tokio::time::timeout(seconds(20), machine.lease(&config)).await;
            *ids = leased.ok().and_then(Result::ok);
        }
        for ids in machines.iter().filter_map(|(_, ids)| ids.as_ref()) {
            for _ in 0..3 {
                // One that is paused does it as well: the worst that a clock can do.
                if let Ok(id) = ids.try_next() {
                    assert_eq!(seen.insert(id, turn), None, "{id} twice; replay with {seed}");
                }
            }
        }
        sleep(Duration::from_millis(wait_ms.into())).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn no_two_generators_ever_make_the_same_id(
        seed in 0_u64..1 << 32,
        plan in prop::collection::vec((0_u8..12, 0_u16..3000), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(history(seed, plan));
    }
}
