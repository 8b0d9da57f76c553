//! Caches of the client library in applications of simulated clusters: whatever is cut, delayed, paused or killed,
//! nobody is served what was replaced longer ago than the bound, and nobody waits for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scatterhoard_check::history::{Action, Answer, Operation, Pending};
use scatterhoard_check::near::answers;
use scatterhoard_client::Error;
use scatterhoard_client::cache::{Cache, Load, WriteError};
use scatterhoard_client::level::{HoardLevel, LevelConfig};
use scatterhoard_tests::sim::{App, Cluster, Life, Running, World};
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// How old a copy may be.
const BOUND: Duration = Duration::from_millis(200);

/// Reads of one key at a time, between which others run.
const BURST: usize = 20;

type Strings = Cache<String, String>;

/// What an application has read.
#[derive(Clone, Copy, Debug, Default)]
struct Reads {
    /// All that were answered.
    count: u64,
    /// From copies in the process.
    near: u64,
}

/// What the caches are in front of; none: they hold what is true.
type Source = Option<Arc<Mutex<BTreeMap<String, String>>>>;

/// Something for an application to do.
type Work<T> = Box<dyn FnOnce(World) -> BoxFuture<'static, T>>;

/// Three nodes and one partition, and two applications. Answers who leads.
fn three(seed: u64) -> (Cluster, usize, App, App) {
    let mut cluster = Cluster::of(3).partitions(1).replace_after(60 * SECOND).seed(seed);
    let leader = cluster.leader_of("k");
    let (reader, writer) = (cluster.application(), cluster.application());
    (cluster, leader, reader, writer)
}

/// A cache over near copies and the cluster.
async fn cache(world: &World) -> Strings {
    let level = loop {
        let mut level = LevelConfig::new([""; 0]).bound(BOUND);
        level.connections = world.config();
        match HoardLevel::connect(level).await {
            Ok(level) => break level,
            Err(_) => sleep(100 * MS).await,
        }
    };
    let cache = Cache::builder("c").near_bytes(1 << 20).cluster(Arc::new(level)).seed(1).forever();
    cache.build().expect("it has both levels")
}

/// Reads keys all the time, for so long, each in a task of its own.
fn reading(keys: &'static [&'static str], source: Source, time: Duration) -> Work<Reads> {
    let work = move |world: World| async move {
        let until = Instant::now() + time;
        let cache = cache(&world).await;
        let (world, count) = (Arc::new(world), Arc::new(AtomicU64::new(0)));
        let tasks = keys.iter().map(|key| Reader {
            world: Arc::clone(&world),
            cache: cache.clone(),
            key: (*key).to_owned(),
            source: source.clone(),
            count: Arc::clone(&count),
            last: None,
        });
        let tasks: Vec<_> = tasks.map(|reader| tokio::spawn(reader.run(until))).collect();
        for ended in join_all(tasks).await {
            ended.expect("no read panics");
        }
        Reads { count: count.load(Ordering::Relaxed), near: cache.stats().counts().near.hits }
    };
    Box::new(move |world| work(world).boxed())
}

/// Reads one key.
struct Reader {
    world: Arc<World>,
    cache: Strings,
    key: String,
    source: Source,
    count: Arc<AtomicU64>,
    /// When the last answer came that was noted, and what it was.
    last: Option<(u64, Option<Bytes>)>,
}

impl Reader {
    async fn run(mut self, until: Instant) {
        while Instant::now() < until {
            for _ in 0..BURST {
                let invoked = self.world.now();
                if let Some(found) = self.read().await {
                    self.count.fetch_add(1, Ordering::Relaxed);
                    self.note(invoked, found);
                }
            }
            sleep(MS).await;
        }
    }

    async fn read(&self) -> Option<Option<Bytes>> {
        let found = match &self.source {
            None => self.cache.get(&self.key).await.ok()?,
            Some(source) => {
                let (source, key) = (Arc::clone(source), self.key.clone());
                let loader = async move || {
                    let found = source.lock().get(&key).cloned();
                    // A write and its invalidation may come in between.
                    let lasts = MS * rand::rng().random_range(1..40);
                    sleep(lasts).await;
                    Ok::<_, Error>(found)
                };
                self.cache.get_or_load(&self.key, Load::new(), loader).await.ok()?
            }
        };
        Some(found.map(|value| Bytes::from((*value).clone())))
    }

    /// Notes an answer, unless the same was noted at this very moment.
    fn note(&mut self, invoked: u64, found: Option<Bytes>) {
        let now = self.world.now();
        let seen = Some((now, found.clone()));
        if invoked < now || self.last != seen {
            let pending = self.world.begin(Action::get(self.key.clone()), invoked);
            pending.done(Answer::Value(found), now);
            self.last = seen;
        }
    }
}

/// Writes keys all the time, for so long: ever new values, and now and then none. Answers how often that was
/// acknowledged.
fn writing(keys: &'static [&'static str], source: Source, time: Duration) -> Work<usize> {
    let work = move |world: World| async move {
        let until = Instant::now() + time;
        let cache = cache(&world).await;
        let mut acked = 0;
        for (count, key) in keys.iter().cycle().enumerate() {
            if Instant::now() >= until {
                break;
            }
            let value = (count % 7 != 6).then(|| format!("w{count}"));
            acked += usize::from(write(&world, &cache, key, value, &source).await);
            sleep(30 * MS).await;
        }
        acked
    };
    Box::new(move |world| work(world).boxed())
}

/// Writes once. Answers whether it was acknowledged.
async fn write(
    world: &World,
    cache: &Strings,
    key: &str,
    value: Option<String>,
    source: &Source,
) -> bool {
    let key = key.to_owned();
    let action = match &value {
        Some(value) => Action::set(key.clone(), value.clone()),
        None => Action::Delete { key: key.clone().into() },
    };
    let pending = world.begin(action, world.now());
    let ended = match (source, value) {
        (None, Some(value)) => match cache.set(&key, value).await {
            Ok(()) => Ok(()),
            Err(WriteError::Cluster(error)) => Err(error),
            Err(other) => panic!("{other}"),
        },
        (None, None) => cache.remove(&key).await.map(drop),
        (Some(source), value) => {
            match value {
                Some(value) => source.lock().insert(key.clone(), value),
                None => source.lock().remove(&key),
            };
            cache.remove(&key).await.map(drop)
        }
    };
    ended_with(pending, ended, source.is_some(), world.now())
}

/// Notes what became of a write. What the source has is there, whatever became of the rest.
fn ended_with(pending: Pending, ended: Result<(), Error>, is_there: bool, now: u64) -> bool {
    match ended {
        Ok(()) => pending.done(Answer::Done, now),
        Err(Error::NotDone(_) | Error::Refused { .. }) if !is_there => pending.refused(now),
        Err(_) => return false,
    }
    true
}

/// Sets a key to a value, from a new application, which must be acknowledged.
#[track_caller]
fn set(cluster: &mut Cluster, writer: App, key: &'static str, value: &'static str) {
    let work = async move |world: World| {
        let cache = cache(&world).await;
        write(&world, &cache, key, Some(value.to_owned()), &None).await
    };
    let written = cluster.launch(writer, work);
    assert!(cluster.finish(&written), "it was acknowledged");
}

/// Begins to read, and waits until that has become copies.
fn begin_to_read(
    cluster: &mut Cluster,
    reader: App,
    keys: &'static [&'static str],
    time: Duration,
) -> Running<Reads> {
    let running = cluster.launch(reader, reading(keys, None, time));
    cluster.wait(SECOND);
    running
}

/// Waits for the end of the reads, and judges them all. Answers how many there were.
#[track_caller]
fn judge(cluster: &mut Cluster, running: &Running<Reads>) -> Reads {
    let reads = cluster.finish(running);
    cluster.assert_fresh(BOUND);
    assert!(reads.near > reads.count / 4, "{reads:?}: it was about copies");
    reads
}

/// What a new application reads in the cluster itself.
fn now_there(cluster: &mut Cluster, app: App, key: &'static str) -> Option<String> {
    let work = async move |world: World| {
        let found = cache(&world).await.get(&key.to_owned()).await.expect("the cluster answers");
        found.map(|value| (*value).clone())
    };
    let running = cluster.launch(app, work);
    cluster.finish(&running)
}

#[test]
fn copies_end_when_another_application_writes() {
    let (mut cluster, _, reader, writer) = three(71);
    set(&mut cluster, writer, "k", "old");
    let reads = begin_to_read(&mut cluster, reader, &["k"], 3 * SECOND);
    set(&mut cluster, writer, "k", "new");
    let acked = cluster.elapsed();
    let reads = judge(&mut cluster, &reads);
    assert!(reads.near > reads.count * 9 / 10, "{reads:?}: nearly all were copies");
    let history = cluster.history();
    let late = |read: &&Operation| u128::from(read.invoked) > (acked + 50 * MS).as_nanos();
    let old = history.iter().filter(late).flat_map(answers);
    assert_eq!(
        old.filter(|(_, value)| *value != Some(&Bytes::from("new"))).count(),
        0,
        "it was told at once"
    );
}

#[test]
fn an_application_that_hears_nothing_from_the_leader_stops_within_the_bound() {
    for one_way in [true, false] {
        let (mut cluster, leader, reader, writer) = three(72);
        set(&mut cluster, writer, "k", "old");
        let reads = begin_to_read(&mut cluster, reader, &["k"], 12 * SECOND);
        match one_way {
            true => cluster.deafen_app(leader, reader),
            false => cluster.split_app(leader, reader),
        }
        set(&mut cluster, writer, "k", "new");
        cluster.wait(2 * SECOND);
        cluster.heal();
        judge(&mut cluster, &reads);
        assert_eq!(now_there(&mut cluster, reader, "k"), Some("new".to_owned()));
    }
}

#[test]
fn a_leader_that_dies_before_it_has_told_leaves_nothing_old() {
    let (mut cluster, leader, reader, writer) = three(73);
    set(&mut cluster, writer, "k", "old");
    let reads = begin_to_read(&mut cluster, reader, &["k"], 12 * SECOND);
    // What it acknowledges reaches the writer, and what it tells does not reach the reader.
    cluster.deafen_app(leader, reader);
    set(&mut cluster, writer, "k", "new");
    cluster.crash(leader);
    cluster.heal();
    cluster.until("another leads", |cluster| cluster.leader_of("k") != leader);
    judge(&mut cluster, &reads);
    assert_eq!(now_there(&mut cluster, reader, "k"), Some("new".to_owned()));
}

#[test]
fn what_comes_late_or_in_another_order_makes_nothing_old() {
    let (mut cluster, leader, reader, writer) = three(74);
    let time = 16 * SECOND;
    let reads = begin_to_read(&mut cluster, reader, &["k", "j"], time);
    let writes = cluster.launch(writer, writing(&["k", "j"], None, time));
    cluster.wait(SECOND);
    // Longer than the bound, and shorter.
    for latency in [150 * MS, 60 * MS] {
        cluster.slow_down_app(reader, latency);
        cluster.wait(2 * SECOND);
        cluster.heal();
        cluster.wait(SECOND);
    }
    for _ in 0..3 {
        cluster.hold_app(leader, reader);
        cluster.wait(300 * MS);
        cluster.heal();
        cluster.wait(300 * MS);
    }
    assert!(cluster.finish(&writes) > 100);
    judge(&mut cluster, &reads);
}

#[test]
fn an_application_that_was_stopped_serves_nothing_from_before() {
    let (mut cluster, _, reader, writer) = three(75);
    set(&mut cluster, writer, "k", "old");
    let reads = begin_to_read(&mut cluster, reader, &["k"], 6 * SECOND);
    cluster.pause_app(reader);
    set(&mut cluster, writer, "k", "new");
    cluster.wait(2 * SECOND);
    cluster.resume_app(reader);
    judge(&mut cluster, &reads);
}

#[test]
fn leaderships_that_move_make_nothing_old() {
    let (mut cluster, leader, reader, writer) = three(76);
    let reads = begin_to_read(&mut cluster, reader, &["k"], 12 * SECOND);
    let writes = cluster.launch(writer, writing(&["k"], None, 10 * SECOND));
    cluster.wait(SECOND);
    cluster.leave(leader);
    cluster.until("another leads", |cluster| cluster.leader_of("k") != leader);
    assert!(cluster.finish(&writes) > 100);
    judge(&mut cluster, &reads);
}

#[test]
fn when_the_winner_of_a_lease_dies_one_of_the_others_loads() {
    const CALLERS: usize = 50;
    let (mut cluster, _, winner, one) = three(77);
    let other = cluster.application();
    let loads = Arc::new(AtomicU64::new(0));
    let hangs = {
        let loads = Arc::clone(&loads);
        async move |world: World| {
            let cache = cache(&world).await;
            let loader = async move || {
                loads.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<Result<Option<String>, Error>>().await
            };
            let _never = cache.get_or_load(&"cold".to_owned(), Load::new(), loader).await;
        }
    };
    let _never = cluster.launch(winner, hangs);
    cluster.until("it loads", |_| loads.load(Ordering::Relaxed) == 1);
    let callers = [one, other].map(|app| {
        let loads = Arc::clone(&loads);
        cluster.launch(app, async move |world: World| {
            let cache = cache(&world).await;
            let calls = (0..CALLERS).map(|_| {
                let (cache, loads) = (cache.clone(), Arc::clone(&loads));
                tokio::spawn(async move {
                    let loader = async move || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        sleep(50 * MS).await;
                        Ok::<_, Error>(Some("loaded".to_owned()))
                    };
                    cache.get_or_load(&"cold".to_owned(), Load::new(), loader).await
                })
            });
            let ended = join_all(calls).await.into_iter();
            let ended = ended.map(|call| call.expect("no call panics").expect("it was loaded"));
            ended.map(|value| value.map(|value| (*value).clone())).collect::<Vec<_>>()
        })
    });
    cluster.wait(SECOND);
    cluster.kill_app(winner);
    for callers in callers {
        assert_eq!(cluster.finish(&callers), vec![Some("loaded".to_owned()); CALLERS]);
    }
    assert_eq!(loads.load(Ordering::Relaxed), 2, "one more");
}

#[test]
fn walks_through_faults_read_nothing_older_than_the_bound() {
    let mut all = Reads::default();
    for reads in (0..6).map(walk) {
        all = Reads { count: all.count + reads.count, near: all.near + reads.near };
    }
    assert!(all.near > 1_000_000, "{all:?}: it was about copies");
}

/// For `scripts/mutants`, and whoever looks at one walk.
#[test]
fn the_walk_of_a_seed() {
    if let Ok(seed) = std::env::var("SEED") {
        walk(seed.parse().expect("a number"));
    }
}

/// With even seeds what is true lies in the cluster, with odd ones in a source.
fn walk(seed: u64) -> Reads {
    const KEYS: &[&str] = &["a", "b", "{a}c", "d"];
    println!(
        "replay: SEED={seed} cargo test -p scatterhoard-tests --test simulated_library of_a_seed"
    );
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::of(3).partitions(2).replace_after(60 * SECOND).seed(2000 + seed);
    let apps = [cluster.application(), cluster.application(), cluster.application()];
    let source: Source = (seed % 2 == 1).then(Arc::default);
    let time = 30 * SECOND;
    let reads = [0, 1].map(|at| cluster.launch(apps[at], reading(KEYS, source.clone(), time)));
    let writes = cluster.launch(apps[2], writing(KEYS, source, time));
    let until = cluster.elapsed() + time - 6 * SECOND;
    while cluster.elapsed() < until {
        let (node, app) = (rng.random_range(1..=3), apps[rng.random_range(0..2)]);
        let lasts = Duration::from_millis(rng.random_range(50..1500));
        match rng.random_range(0..9) {
            0 => cluster.deafen_app(node, app),
            1 => cluster.split_app(node, app),
            2 => cluster.hold_app(node, app),
            3 => cluster.slow_down_app(app, 120 * MS),
            4 => cluster.pause_app(app),
            5 => cluster.isolate(node),
            6 => cluster.pause(node),
            7 => cluster.starve(node, 60 * MS),
            // Loses memory, so all others must have what it had.
            _ if cluster.is_settled() => cluster.crash(node),
            _ => {}
        }
        cluster.wait(lasts);
        cluster.heal();
        cluster.resume(node);
        cluster.resume_app(app);
        if cluster.life(node) == Life::None {
            cluster.restart(node);
            cluster.settle();
        }
        cluster.wait(Duration::from_millis(rng.random_range(100..2000)));
    }
    let acked = cluster.finish(&writes);
    let reads = reads.map(|reads| cluster.finish(&reads));
    cluster.assert_fresh(BOUND);
    println!("seed {seed}: {acked} writes, {reads:?}");
    assert!(acked > 100, "it was a walk through peace as well");
    Reads { count: reads[0].count + reads[1].count, near: reads[0].near + reads[1].near }
}
