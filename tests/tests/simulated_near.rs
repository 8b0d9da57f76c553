//! Reads from copies at nodes that do not lead, in simulated time: whatever is lost, cut, stopped or killed,
//! nobody is given what was replaced longer ago than the bound.

use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scatterhoard_check::history::{Action, Answer};
use scatterhoard_tests::sim::{Cluster, Life, Port, Told};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// How old a copy may be: what nodes are told by default.
const BOUND: Duration = Duration::from_millis(200);

const HITS: &str = "hoard_near_hits_total";
const CALLS: &str = "hoard_near_calls_total";

/// Three nodes and one partition. Answers who leads, and who does not.
fn three(seed: u64) -> (Cluster, usize, usize) {
    let mut cluster =
        Cluster::of(3).near_reads().partitions(1).clients(4).replace_after(60 * SECOND).seed(seed);
    let leader = cluster.leader_of("k");
    (cluster, leader, 1 + leader % 3)
}

/// What a node that does not lead answers.
#[track_caller]
fn near(cluster: &mut Cluster, reader: usize, key: &'static str) -> Option<String> {
    match cluster.ask_node(reader, Port::AnyKey, Action::get(key)).acked() {
        Answer::Value(value) => value.map(|it| String::from_utf8_lossy(&it).into_owned()),
        other => panic!("GET was answered with {other:?}"),
    }
}

/// Reads until a copy is what is served.
#[track_caller]
fn warm(cluster: &mut Cluster, reader: usize, key: &'static str) {
    let before = cluster.metric(reader, HITS);
    cluster.until("a copy is served", |cluster| {
        let _loaded_or_found = near(cluster, reader, key);
        cluster.metric(reader, HITS) > before
    });
}

/// Asks a node for keys all the time, from a machine of its own, for so long. Answers with how to wait for the
/// end of that.
fn keep_reading(
    cluster: &mut Cluster,
    (on, node): (usize, usize),
    keys: &'static [&'static str],
    time: Duration,
) -> impl FnOnce(&mut Cluster) + use<> {
    let mut client = cluster.client_of(on, node, Port::AnyKey);
    let running = cluster.spawn(on, async move {
        let until = tokio::time::Instant::now() + time;
        for key in keys.iter().cycle() {
            if tokio::time::Instant::now() >= until {
                break;
            }
            client.glance(Action::get(*key), SECOND).await;
            tokio::time::sleep(3 * MS).await;
        }
    });
    move |cluster| cluster.finish(&running)
}

/// Sets keys to ever new values, from a machine of its own, for so long. Answers with how to wait for the end
/// of that, and for how many were acknowledged.
fn keep_writing(
    cluster: &mut Cluster,
    on: usize,
    keys: &'static [&'static str],
    time: Duration,
) -> impl FnOnce(&mut Cluster) -> usize + use<> {
    let mut client = cluster.client(on, Port::Cluster);
    let running = cluster.spawn(on, async move {
        let until = tokio::time::Instant::now() + time;
        let mut acked = 0;
        for (count, key) in keys.iter().cycle().enumerate() {
            if tokio::time::Instant::now() >= until {
                break;
            }
            let told = client.ask(Action::set(*key, format!("w{count}"))).await;
            acked += usize::from(told.is_acked());
            tokio::time::sleep(40 * MS).await;
        }
        acked
    });
    move |cluster| cluster.finish(&running)
}

#[test]
fn a_copy_is_served_until_its_key_is_written() {
    let (mut cluster, leader, reader) = three(51);
    cluster.set("k", "v1").acked();
    warm(&mut cluster, reader, "k");
    let calls = cluster.metric(reader, CALLS);
    for _ in 0..20 {
        assert_eq!(near(&mut cluster, reader, "k"), Some("v1".to_owned()));
        cluster.wait(50 * MS);
    }
    assert_eq!(cluster.metric(reader, CALLS), calls, "the leader was not asked for it again");
    cluster.ask_node(leader, Port::Cluster, Action::set("k", "v2")).acked();
    cluster.wait(40 * MS);
    assert_eq!(near(&mut cluster, reader, "k"), Some("v2".to_owned()), "it was told at once");
    assert_eq!(near(&mut cluster, reader, "other"), None);
    assert_eq!(near(&mut cluster, reader, "other"), None);
    cluster.ask_node(leader, Port::Cluster, Action::set("other", "o")).acked();
    cluster.wait(40 * MS);
    assert_eq!(near(&mut cluster, reader, "other"), Some("o".to_owned()), "absence is a copy too");
    cluster.assert_fresh(BOUND);
}

#[test]
fn a_deadline_counts_for_who_has_a_slow_clock() {
    let (mut cluster, leader, reader) = three(60);
    cluster.set_pace(reader, 0.91);
    let lives = Action::set_for("k", "v", 30 * 1_000_000_000);
    cluster.ask(lives).acked();
    warm(&mut cluster, reader, "k");
    cluster.until("it is gone", |cluster| {
        let _loaded_or_found = near(cluster, reader, "k");
        cluster.ask_node(leader, Port::Cluster, Action::get("k")).acked() == Answer::Value(None)
    });
    cluster.wait(BOUND);
    assert_eq!(near(&mut cluster, reader, "k"), None);
}

#[test]
fn who_writes_through_the_node_reads_what_was_written() {
    let (mut cluster, _, reader) = three(52);
    cluster.set("k", "v").acked();
    warm(&mut cluster, reader, "k");
    let mut client = cluster.client_of(2, reader, Port::AnyKey);
    let talked = cluster.run(2, async move {
        let mut all = Vec::new();
        for count in 0..20 {
            let set = Action::set("k", format!("{count}"));
            all.push(client.ask(set.clone()).await);
            all.push(client.ask(Action::get("k")).await);
            let again = Action::set("k", format!("{count} again"));
            let pipeline = vec![Action::get("k"), again, Action::get("k"), Action::get("cold")];
            all.extend(client.pipeline(pipeline).await);
        }
        all
    });
    let value = |value: String| Told::Done(Answer::Value(Some(value.into())));
    for (count, told) in talked.chunks(6).enumerate() {
        let [_, read, before, _, after, cold] = told else { panic!("six each") };
        assert_eq!(*read, value(format!("{count}")));
        assert_eq!(*before, value(format!("{count}")), "not the write behind it");
        assert_eq!(*after, value(format!("{count} again")), "the write before it");
        assert_eq!(*cold, Told::Done(Answer::Value(None)));
    }
}

#[test]
fn keys_of_several_slots_come_from_copies_and_from_leaders() {
    let mut cluster = Cluster::of(3).near_reads().partitions(3).clients(1).seed(53);
    let keys: Vec<_> = (0..30).map(|key| format!("key-{key}")).collect();
    for key in &keys {
        cluster.set(key, key).acked();
    }
    let many = Action::get_many(keys.clone());
    let before = cluster.metric(1, HITS);
    let expected: Vec<_> = keys.iter().map(|key| Some(key.clone().into())).collect();
    cluster.until("some are copies", |cluster| {
        let told = cluster.ask_node(1, Port::AnyKey, many.clone()).acked();
        assert_eq!(told, Answer::Values(expected.clone()));
        cluster.metric(1, HITS) > before
    });
    assert!(cluster.metric(1, CALLS) < 30, "what is missing is loaded together");
}

#[test]
fn a_thousand_connections_ask_the_leader_once() {
    let (mut cluster, _, reader) = three(54);
    cluster.set("cold", "v").acked();
    warm(&mut cluster, reader, "k");
    let clients: Vec<_> = (0..1000).map(|_| cluster.client_of(2, reader, Port::AnyKey)).collect();
    let connected = cluster.spawn(2, async move {
        let connect = clients.into_iter().map(async |mut client| {
            client.ask(Action::get("k")).await.acked();
            client
        });
        join_all(connect).await
    });
    let clients = cluster.finish(&connected);
    warm(&mut cluster, reader, "k");
    let calls = cluster.metric(reader, CALLS);
    let asked = cluster.spawn(2, async move {
        let ask = clients.into_iter().map(async |mut client| client.ask(Action::get("cold")).await);
        join_all(ask).await
    });
    for told in cluster.finish(&asked) {
        assert_eq!(told, Told::Done(Answer::Value(Some("v".into()))));
    }
    assert_eq!(cluster.metric(reader, CALLS), calls + 1);
}

#[test]
fn a_reader_cut_off_from_the_leader_stops_within_the_bound() {
    for one_way in [false, true] {
        let (mut cluster, leader, reader) = three(55);
        cluster.set("k", "old").acked();
        warm(&mut cluster, reader, "k");
        let reads = keep_reading(&mut cluster, (3, reader), &["k"], 6 * SECOND);
        cluster.wait(SECOND / 2);
        match one_way {
            true => cluster.cut(leader, reader),
            false => cluster.split(&[leader], &[reader]),
        }
        cluster.ask_node(leader, Port::Cluster, Action::set("k", "new")).acked();
        cluster.wait(2 * SECOND);
        cluster.heal();
        reads(&mut cluster);
        cluster.assert_fresh(BOUND);
        cluster.settle();
        assert_eq!(near(&mut cluster, reader, "k"), Some("new".to_owned()));
    }
}

#[test]
fn news_that_come_late_or_never_make_nothing_old() {
    let (mut cluster, _, reader) = three(56);
    warm(&mut cluster, reader, "k");
    let time = 12 * SECOND;
    let reads = keep_reading(&mut cluster, (3, reader), &["k", "j"], time);
    let writes = keep_writing(&mut cluster, 4, &["k", "j"], time);
    cluster.wait(SECOND);
    // Longer than the bound, and shorter.
    for latency in [150 * MS, 60 * MS] {
        cluster.slow_down(reader, latency);
        cluster.wait(2 * SECOND);
        cluster.heal();
        cluster.wait(SECOND);
    }
    for _ in 0..3 {
        cluster.hold(reader);
        cluster.wait(300 * MS);
        cluster.heal();
        cluster.wait(300 * MS);
    }
    reads(&mut cluster);
    assert!(writes(&mut cluster) > 50);
    assert!(cluster.metric(reader, HITS) > 100, "some were copies");
    assert!(cluster.assert_fresh(BOUND) > 200);
}

#[test]
fn a_leader_that_dies_before_it_has_told_leaves_nothing_old() {
    let (mut cluster, leader, reader) = three(57);
    cluster.set("k", "old").acked();
    warm(&mut cluster, reader, "k");
    let reads = keep_reading(&mut cluster, (3, reader), &["k"], 8 * SECOND);
    cluster.wait(SECOND / 2);
    // What it acknowledges reaches its client, and what it tells does not reach the reader.
    cluster.cut(leader, reader);
    cluster.ask_node(leader, Port::Cluster, Action::set("k", "new")).acked();
    cluster.crash(leader);
    cluster.heal();
    cluster.until("another leads", |cluster| cluster.leader_of("k") != leader);
    reads(&mut cluster);
    cluster.assert_fresh(BOUND);
    assert_eq!(cluster.get("k"), Some("new".to_owned()));
}

#[test]
fn leaderships_that_move_make_nothing_old() {
    let (mut cluster, leader, reader) = three(58);
    warm(&mut cluster, reader, "k");
    let time = 10 * SECOND;
    let reads = keep_reading(&mut cluster, (3, reader), &["k"], time);
    let writes = keep_writing(&mut cluster, 4, &["k"], time);
    cluster.wait(SECOND);
    cluster.leave(leader);
    cluster.until("another leads", |cluster| cluster.leader_of("k") != leader);
    reads(&mut cluster);
    assert!(writes(&mut cluster) > 50);
    cluster.assert_fresh(BOUND);
}

#[test]
fn a_reader_that_was_stopped_serves_nothing_from_before() {
    let (mut cluster, leader, reader) = three(59);
    cluster.set("k", "old").acked();
    warm(&mut cluster, reader, "k");
    let reads = keep_reading(&mut cluster, (3, reader), &["k"], 5 * SECOND);
    cluster.wait(SECOND);
    cluster.pause(reader);
    cluster.ask_node(leader, Port::Cluster, Action::set("k", "new")).acked();
    cluster.wait(SECOND);
    cluster.resume(reader);
    reads(&mut cluster);
    cluster.assert_fresh(BOUND);
    assert_eq!(near(&mut cluster, reader, "k"), Some("new".to_owned()));
}

#[test]
fn walks_through_faults_read_nothing_older_than_the_bound() {
    (0..6).for_each(walk);
}

/// For `scripts/mutants`, and whoever looks at one walk.
#[test]
fn the_walk_of_a_seed() {
    if let Ok(seed) = std::env::var("SEED") {
        walk(seed.parse().expect("a number"));
    }
}

fn walk(seed: u64) {
    const KEYS: &[&str] = &["a", "b", "{a}c", "d"];
    println!(
        "replay: SEED={seed} cargo test -p scatterhoard-tests --test simulated_near of_a_seed"
    );
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::of(3)
        .near_reads()
        .partitions(2)
        .clients(4)
        .replace_after(60 * SECOND)
        .seed(1000 + seed);
    let time = 25 * SECOND;
    let mut running = Vec::new();
    for node in 1..=3 {
        running.push(keep_reading(&mut cluster, (1 + node, node), KEYS, time));
    }
    let writes = keep_writing(&mut cluster, 5, KEYS, time);
    let until = cluster.elapsed() + time - 4 * SECOND;
    while cluster.elapsed() < until {
        let node = rng.random_range(1..=3);
        let other = 1 + node % 3;
        let lasts = Duration::from_millis(rng.random_range(50..1500));
        match rng.random_range(0..8) {
            0 => cluster.split(&[node], &[other]),
            1 => cluster.cut(node, other),
            2 => cluster.isolate(node),
            3 => cluster.hold(node),
            4 => cluster.slow_down(node, 80 * MS),
            5 => cluster.starve(node, 60 * MS),
            6 => cluster.pause(node),
            // Loses memory, so all others must have what it had.
            _ if cluster.is_settled() => cluster.crash(node),
            _ => {}
        }
        cluster.wait(lasts);
        cluster.heal();
        cluster.resume(node);
        if cluster.life(node) == Life::None {
            cluster.restart(node);
            cluster.settle();
        }
        cluster.wait(Duration::from_millis(rng.random_range(100..2000)));
    }
    running.into_iter().for_each(|reads| reads(&mut cluster));
    let acked = writes(&mut cluster);
    let reads = cluster.assert_fresh(BOUND);
    let hits: u64 = (1..=3).map(|node| cluster.metric(node, HITS)).sum();
    println!("seed {seed}: {acked} writes, {reads} reads, {hits} from copies of the last lives");
    assert!(acked > 50 && reads > 1000 && hits > 100, "it was a walk through peace as well");
}
