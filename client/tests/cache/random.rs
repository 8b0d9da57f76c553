//! Random interleavings of loads, writes and removals by several processes, in which nothing may be too old.
//!
//! Each seed is one course of events, on a clock of its own: some processes with a near level and some without, over
//! one store, with delays, lost replies, failures, cut streams and callers that give up. After each read it is asked
//! what had been acknowledged before the read began.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use scatterhoard_client::Cache;
use scatterhoard_client::cache::{AfterStore, BreakerSettings, Load, Sourced};
use tokio::runtime::{Builder, RngSeed};
use tokio::time::{Instant, sleep, timeout};

use crate::double::{BOUND, Dice, Link, Store};
use crate::near::Map;
use crate::source::{Source, Table, Version};

const MS: Duration = Duration::from_millis(1);
const KEYS: u64 = 2;
const PROCESSES: usize = 3;
const TASKS: usize = 6;
const DEEDS: usize = 8;

/// Which writes were acknowledged, when, and to whom.
#[derive(Default)]
struct Acknowledged(Mutex<HashMap<u64, Vec<Write>>>);

/// When it was acknowledged, to which process, and what it was.
type Write = (Instant, usize, Version);

impl Acknowledged {
    fn add(&self, key: u64, process: usize, version: Version) {
        self.0.lock().entry(key).or_default().push((Instant::now(), process, version));
    }

    /// The newest write that a read of a process which begins now has to see. What another process wrote may be as
    /// much newer as a near level may be behind.
    fn floor(&self, key: u64, process: usize, behind: Duration) -> Version {
        let (all, now) = (self.0.lock(), Instant::now());
        let of_key = all.get(&key).map_or(&[][..], Vec::as_slice);
        let seen = of_key.iter().filter(|(at, by, _)| *by == process || *at + behind <= now);
        seen.map(|(_, _, version)| *version).max().unwrap_or(0)
    }
}

struct Process {
    number: usize,
    link: Option<Arc<Link>>,
    cache: Sourced<u64, Version, Table>,
    /// How much later it may see what others write.
    behind: Duration,
}

struct World {
    dice: Arc<Dice>,
    source: Arc<Source>,
    acknowledged: Acknowledged,
    processes: Vec<Process>,
    reads_count: Mutex<u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let dice = Dice::new(seed);
        let (store, source) = (Store::new(&dice), Source::new(&dice));
        *source.takes_max.lock() = dice.time(30 * MS);
        if dice.percent(20) {
            source.fails_percent.store(10, Ordering::Relaxed);
        }
        let alone = dice.percent(10);
        let count = if alone { 1 } else { PROCESSES };
        let processes = (0..count).map(|number| {
            let link = (!alone).then(|| store.link());
            let near = alone || dice.percent(60);
            let mut cache = Cache::<u64, Version>::builder("version")
                .seed(seed)
                .ttl(300 * MS)
                .not_found_ttl(100 * MS)
                .timeout_hard(200 * MS)
                .lease(250 * MS)
                .look_timeout(50 * MS)
                .breaker(BreakerSettings { failures: 3, pause: 30 * MS });
            if dice.percent(50) {
                cache = cache.soft_ttl(30 * MS).timeout_soft(dice.time(10 * MS));
            }
            if near {
                cache = cache.near(Map::new());
            }
            if let Some(link) = &link {
                link.set_delay(dice.time(6 * MS));
                link.faults.lost_percent.store(dice.below(2) * dice.below(10), Ordering::Relaxed);
                cache = cache.cluster(Arc::clone(link) as _);
            }
            let cache = cache.build().expect("settings that hold").over(Table(Arc::clone(&source)));
            let behind = if near && !alone { BOUND } else { Duration::ZERO };
            Process { number, link, cache, behind }
        });
        let processes = processes.collect();
        let acknowledged = Acknowledged::default();
        Self { source, acknowledged, processes, reads_count: Mutex::new(0), dice }
    }

    async fn task(&self, seed: u64) {
        for _ in 0..DEEDS {
            sleep(self.dice.time(20 * MS)).await;
            let process = &self.processes[self.dice.below(self.processes.len() as u64) as usize];
            let key = self.dice.below(KEYS);
            match self.dice.below(100) {
                0..50 => self.load(process, key, seed).await,
                50..58 => self.look(process, key, seed).await,
                58..64 => self.load_many(process, seed).await,
                64..78 => self.store(process, key).await,
                78..88 => self.remove(process, key).await,
                88..96 => self.trouble(process).await,
                _ => process.cache.cache().remove_from_near(&key),
            }
        }
    }

    async fn load(&self, process: &Process, key: u64, seed: u64) {
        let floor = self.acknowledged.floor(key, process.number, process.behind);
        let patience = if self.dice.percent(15) { self.dice.time(20 * MS) } else { 10_000 * MS };
        let Ok(loaded) = timeout(patience, process.cache.load(&key)).await else {
            assert!(patience < 10_000 * MS, "seed {seed}: a load hangs");
            return;
        };
        if let Ok(found) = loaded {
            self.judge(key, floor, found.as_deref().copied(), process, seed);
        }
    }

    async fn look(&self, process: &Process, key: u64, seed: u64) {
        let floor = self.acknowledged.floor(key, process.number, process.behind);
        let got = process.cache.cache().get(&key).await;
        if let Ok(Some(found)) = got {
            self.judge(key, floor, Some(*found), process, seed);
        }
    }

    async fn load_many(&self, process: &Process, seed: u64) {
        let floors: Vec<_> = (0..KEYS)
            .map(|key| self.acknowledged.floor(key, process.number, process.behind))
            .collect();
        let (ids, source): (Vec<_>, _) = ((0..KEYS).collect(), Arc::clone(&self.source));
        let load = process.cache.cache().get_or_load_many(&ids, Load::new(), move |ids| {
            let source = Arc::clone(&source);
            async move {
                let mut rows = HashMap::new();
                for id in ids {
                    if let Some(row) = source.read(id).await.transpose() {
                        rows.insert(id, row);
                    }
                }
                Ok(rows)
            }
        });
        let found = timeout(10_000 * MS, load)
            .await
            .unwrap_or_else(|_| panic!("seed {seed}: a load hangs"));
        for (key, found) in (0..KEYS).zip(found) {
            if let Ok(found) = found {
                self.judge(key, floors[key as usize], found.as_deref().copied(), process, seed);
            }
        }
    }

    fn judge(
        &self,
        key: u64,
        floor: Version,
        found: Option<Version>,
        process: &Process,
        seed: u64,
    ) {
        *self.reads_count.lock() += 1;
        let fresh = match found {
            Some(version) => version >= floor,
            None => self.source.had_nothing_since(key, floor),
        };
        let (number, newest) = (process.number, self.source.newest(key));
        assert!(
            fresh,
            "seed {seed}: process {number} read {found:?} of key {key}; {floor} was acknowledged before, {newest} is newest",
        );
    }

    async fn store(&self, process: &Process, key: u64) {
        let after = if self.dice.percent(30) { AfterStore::Load } else { AfterStore::Remove };
        let before = self.source.newest(key);
        if process.cache.store(&key, 0, after).await.is_ok() {
            // At least its own write; later ones are acknowledged by their own writers.
            self.acknowledged.add(key, process.number, before + 1);
        }
    }

    async fn remove(&self, process: &Process, key: u64) {
        let before = self.source.newest(key);
        if process.cache.remove(&key).await.is_ok() {
            self.acknowledged.add(key, process.number, before + 1);
        }
    }

    async fn trouble(&self, process: &Process) {
        let Some(link) = &process.link else { return };
        match self.dice.below(5) {
            0 => link.cut(),
            1 => {
                link.faults.deaf.store(true, Ordering::Relaxed);
                sleep(self.dice.time(300 * MS)).await;
                link.faults.deaf.store(false, Ordering::Relaxed);
            }
            2 => {
                link.set_down(true);
                sleep(self.dice.time(100 * MS)).await;
                link.set_down(false);
            }
            3 => {
                link.faults.hangs.store(true, Ordering::Relaxed);
                sleep(self.dice.time(100 * MS)).await;
                link.faults.hangs.store(false, Ordering::Relaxed);
            }
            _ => drop(link.faults.fill_replies_lost.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// One course of events. Answers with how many reads were judged.
fn run(seed: u64) -> u64 {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let world = World::new(seed);
        join_all((0..TASKS).map(|_| world.task(seed))).await;
        *world.reads_count.lock()
    })
}

/// Courses of each test, unless `COURSES` says otherwise: some seconds. `COURSES=5000` makes ten thousand of them.
const COURSES: u64 = 150;

/// `SEED=7 cargo test` runs one of them again.
fn check(first: u64) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let courses = number("COURSES").unwrap_or(COURSES);
    let seeds = match number("SEED") {
        Some(seed) if seed % 2 == first => seed..seed + 1,
        Some(_) => return,
        None => 0..courses,
    };
    let count = seeds.end - seeds.start;
    let alone = number("SEED").is_some();
    let reads = seeds.map(|at| run(if alone { at } else { 2 * at + first }));
    let reads_count = reads.sum::<u64>();
    assert!(alone || reads_count > 15 * count, "only {reads_count} reads were judged");
}

// Two tests, which can run side by side.

#[test]
fn nothing_is_too_old_in_any_even_course_of_events() {
    check(0);
}

#[test]
fn nothing_is_too_old_in_any_odd_course_of_events() {
    check(1);
}
