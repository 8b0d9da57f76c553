//! Nodes are killed, paused and stopped while clients go on: nothing that was acknowledged is lost,
//! nothing stale is read, and clients recover by themselves.

use std::env;
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redis::cluster::ClusterClient;
use redis::{AsyncCommands, Commands};
use scatterhoard_check::history::{lost_writes, summarize};
use scatterhoard_check::linear;
use scatterhoard_tests::process::client::{Attempt, Client};
use scatterhoard_tests::process::resp::{Connection, Value};
use scatterhoard_tests::process::workload::Workload;
use scatterhoard_tests::process::{Cluster, pause, wait_until};

/// Keys that stand for all: a few in each partition.
const KEYS_COUNT: u32 = 200;

/// Everything that a cluster on a busy machine needs to come back by itself.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_history_under_kills_and_pauses_is_linearizable() {
    let seed = env::var("SEED").map_or_else(|_| fresh_seed(), |seed| seed.parse().unwrap());
    println!(
        "replay: SEED={seed} cargo test -p scatterhoard-tests --test process_failover history"
    );
    let mut cluster = Cluster::of(3);
    let workload = Workload::new(seed);
    let (listens, any_keys) = (cluster.listens(), cluster.any_keys());
    thread::scope(|scope| {
        for number in 0..8 {
            // Two go through the any-key port, where nodes forward what is not theirs.
            let seeds = if number < 6 { &listens } else { &any_keys };
            let (workload, seeds) = (&workload, seeds.clone());
            scope.spawn(move || workload.be(number, seeds, number == 1));
        }
        let _finish = workload.finish_on_drop();
        torment(&mut cluster, &mut StdRng::seed_from_u64(seed));
    });
    assert_eq!(workload.read_all(&listens), [""; 0], "unread keys");
    assert_eq!(workload.oddities(), [""; 0]);

    let history = workload.recorder().history();
    let summary = summarize(&history);
    println!("{summary:?}");
    assert!(summary.done > 2000, "too little was done to judge: {summary:?}");
    let lost = lost_writes(&history);
    assert!(lost.lost.is_empty(), "acknowledged writes are gone: {:?}", lost.lost);
    assert!(lost.checked > 200, "too few writes were read back: {}", lost.checked);
    let verdict = linear::check(&history);
    assert!(verdict.is_linearizable(), "seed {seed}: {verdict}");
}

#[test]
fn every_acknowledged_write_outlives_the_death_of_each_node_in_turn() {
    let mut cluster = Cluster::of(3);
    let mut written = 0;
    for node in 0..3 {
        let mut client = cluster.client();
        for number in written..written + KEYS_COUNT {
            let (key, value) = (key(number), number.to_string());
            let reply = client.insist(&[b"SET", key.as_bytes(), value.as_bytes()]);
            assert_eq!(reply, Value::ok());
        }
        written += KEYS_COUNT;
        cluster.kill(node);
        assert_all_there(&mut client, written);
        // Whoever comes back gets its share back. If it did not, the third death would be fatal: by then
        // all replicas have been made anew.
        cluster.start(node);
        cluster.wait_ready();
    }
    for node in 0..3 {
        let mut client = Client::new(vec![cluster.listens()[node]]);
        assert_all_there(&mut client, written);
    }
}

#[test]
fn the_minority_of_a_split_answers_nothing() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.client();
    let keys: Vec<_> = (0..24).map(key).collect();
    for key in &keys {
        assert_eq!(client.insist(&[b"SET", key.as_bytes(), b"before"]), Value::ok());
    }
    cluster.pause(0);
    cluster.pause(1);
    // Longer than any lease: from here on nobody can know that the others are not alive and writing.
    pause(Duration::from_secs(3));
    let mut alone = Client::new(vec![cluster.listens()[2]]);
    for key in keys.iter().take(6) {
        let read = alone.ask(&[b"GET", key.as_bytes()]);
        assert!(!matches!(read, Attempt::Answered(_)), "a minority answered: {read:?}");
        let write = alone.ask(&[b"SET", key.as_bytes(), b"minority"]);
        assert!(!matches!(write, Attempt::Answered(_)), "a minority acknowledged: {write:?}");
    }
    cluster.resume(0);
    cluster.resume(1);
    cluster.wait_ready();
    for key in &keys {
        let Value::Bulk(Some(value)) = client.insist(&[b"GET", key.as_bytes()]) else {
            panic!("{key} is gone");
        };
        assert!(value == "before" || value == "minority", "{key} is {value:?}");
    }
    for key in &keys {
        assert_eq!(client.insist(&[b"SET", key.as_bytes(), b"after"]), Value::ok());
    }
}

#[test]
fn a_leader_that_was_paused_gives_no_stale_read() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.client();
    let key = "{paused}";
    assert_eq!(client.insist(&[b"SET", key.as_bytes(), b"old"]), Value::ok());
    let leader = leader_of(&cluster, key);
    cluster.pause(leader);
    let mut others = cluster.listens();
    let paused = others.remove(leader);
    let mut other = Client::new(others).patient_for(Duration::from_secs(1));
    wait_until("the others go on without it", RECOVERY_PATIENCE, || {
        other.ask(&[b"SET", key.as_bytes(), b"new"]) == Attempt::Answered(Value::ok())
    });
    // Asked while it is still paused: its first act on waking is to answer.
    let mut first = Client::new(vec![paused]);
    thread::scope(|scope| {
        let read = scope.spawn(move || first.ask(&[b"GET", key.as_bytes()]));
        pause(Duration::from_millis(200));
        cluster.resume(leader);
        let read = read.join().unwrap();
        assert_ne!(read, Attempt::Answered(Value::bulk("old")), "it had been overwritten");
    });
    assert_eq!(client.insist(&[b"GET", key.as_bytes()]), Value::bulk("new"));
}

#[test]
fn the_redis_crate_s_asynchronous_client_recovers_while_the_node_is_down() {
    let mut cluster = Cluster::of(3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = cluster_client(&cluster);
    let mut connection = runtime.block_on(client.get_async_connection()).unwrap();
    for node in 0..3 {
        cluster.kill(node);
        let value = format!("after {node}");
        wait_until("the client writes again", RECOVERY_PATIENCE, || {
            let written: redis::RedisResult<()> = runtime.block_on(async {
                for number in 0..KEYS_COUNT {
                    let () = connection.set(key(number), &value).await?;
                }
                Ok(())
            });
            written.is_ok()
        });
        cluster.start(node);
        cluster.wait_ready();
        // One by one: a great many redirections at once are too much for this client (redis 1.8.1).
        for number in 0..KEYS_COUNT {
            let read: String = runtime.block_on(connection.get(key(number))).unwrap();
            assert_eq!(read, value);
        }
    }
}

/// This one does not look for the new leader of a node that refuses connections, of whatever cluster: it
/// asks the same address again (redis 1.8.1). It recovers once somebody listens there.
#[test]
fn the_redis_crate_s_blocking_client_recovers_once_the_node_is_back() {
    let mut cluster = Cluster::of(3);
    let mut connection = cluster_client(&cluster).get_connection().unwrap();
    for node in 0..3 {
        cluster.kill(node);
        cluster.start(node);
        let value = format!("after {node}");
        wait_until("the client writes again", RECOVERY_PATIENCE, || {
            let written: redis::RedisResult<()> =
                (0..KEYS_COUNT).try_for_each(|number| connection.set(key(number), &value));
            written.is_ok()
        });
        cluster.wait_ready();
        // One by one: leaderships have moved, and this client (1.8.1) panics if one part of an MGET that
        // it has split is redirected.
        for number in 0..KEYS_COUNT {
            let read: String = connection.get(key(number)).unwrap();
            assert_eq!(read, value);
        }
    }
}

#[test]
fn a_node_that_is_asked_to_leave_takes_nothing_with_it() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.client();
    for number in 0..KEYS_COUNT {
        let (key, value) = (key(number), number.to_string());
        client.insist(&[b"SET", key.as_bytes(), value.as_bytes()]);
    }
    let status = cluster.stop(1);
    assert!(status.success(), "{status}");
    cluster.wait_ready();
    assert_all_there(&mut client, KEYS_COUNT);
    // Two are left, and hold everything twice: either may die now without loss of data, though not of
    // service. The one that left comes back as a new member.
    cluster.start(1);
    cluster.wait_ready();
    cluster.kill(0);
    assert_all_there(&mut client, KEYS_COUNT);
}

/// Half a minute of faults. A node is killed only while everything is fully replicated, since more than
/// one loss at a time is more than three copies in memory promise to survive. A pause loses nothing, so it
/// may come on top.
fn torment(cluster: &mut Cluster, rng: &mut StdRng) {
    let mut spent = Duration::ZERO;
    let mut wait = |rng: &mut StdRng, ms: std::ops::Range<u64>| {
        let time = Duration::from_millis(rng.random_range(ms));
        spent += time;
        pause(time);
        if spent < TORMENT { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    loop {
        let node = rng.random_range(0..cluster.len());
        let other = (node + rng.random_range(1..cluster.len())) % cluster.len();
        let (kills, pauses_other) = (rng.random_bool(0.5), rng.random_bool(0.25));
        if pauses_other {
            cluster.pause(other);
        }
        if kills {
            cluster.kill(node);
        } else {
            cluster.pause(node);
        }
        // From a hiccup to longer than any lease or election.
        let _more = wait(rng, 50..3500);
        if pauses_other {
            cluster.resume(other);
        }
        if kills {
            cluster.start(node);
            cluster.wait_ready();
        } else {
            cluster.resume(node);
        }
        if wait(rng, 200..1500).is_break() {
            return cluster.wait_ready();
        }
    }
}

/// How long nodes are down, paused or left alone, in sum.
const TORMENT: Duration = Duration::from_secs(25);

#[track_caller]
fn assert_all_there(client: &mut Client, count: u32) {
    for number in 0..count {
        let key = key(number);
        let read = client.insist(&[b"GET", key.as_bytes()]);
        assert_eq!(read, Value::bulk(number.to_string()), "{key}");
    }
}

/// Which node leads a key, by asking each: only the leader does not send the client elsewhere.
fn leader_of(cluster: &Cluster, key: &str) -> usize {
    let leads = |addr| {
        let connection = Connection::open(addr, Duration::from_secs(5));
        let reply = connection.and_then(|mut it| it.call(&[b"GET", key.as_bytes()]));
        matches!(reply.expect("a running node answers"), Value::Bulk(_))
    };
    cluster.listens().into_iter().position(leads).expect("somebody leads it")
}

fn cluster_client(cluster: &Cluster) -> ClusterClient {
    let urls: Vec<_> = cluster.listens().iter().map(|addr| format!("redis://{addr}/")).collect();
    let builder = ClusterClient::builder(urls)
        .connection_timeout(Duration::from_secs(1))
        .response_timeout(Duration::from_secs(3));
    builder.build().expect("valid addresses")
}

fn key(number: u32) -> String {
    format!("key:{number}")
}

fn fresh_seed() -> u64 {
    u64::from(std::process::id())
}
