//! Reads from copies at real nodes, while others are killed and paused: none is older than the bound.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scatterhoard_check::history::{Action, Answer, Recorder};
use scatterhoard_check::near::{answers, too_old};
use scatterhoard_tests::process::client::Attempt;
use scatterhoard_tests::process::resp::{Connection, Value};
use scatterhoard_tests::process::{Cluster, pause, wait_until};

/// How old a copy may be: what nodes do by default.
const BOUND: Duration = Duration::from_millis(200);

/// Everything that a cluster on a busy machine needs to come back by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// A few in each partition.
const KEYS_COUNT: usize = 12;

#[test]
fn copies_that_are_read_while_nodes_die_and_stop_are_fresh() {
    let mut cluster = Cluster::of(3);
    let (recorder, begun, over) = (Recorder::new(), Instant::now(), AtomicBool::new(false));
    let now = || u64::try_from(begun.elapsed().as_nanos()).expect("it is not that late");
    let hits = AtomicU64::new(0);
    thread::scope(|scope| {
        for (number, any_key) in (1..).zip(cluster.any_keys()) {
            let (recorder, over, now, hits) = (&recorder, &over, &now, &hits);
            scope.spawn(move || {
                let mut connection = None;
                for key in (0..KEYS_COUNT).cycle() {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let Some(open) = connection.as_mut() else {
                        connection = near_connection(any_key);
                        pause(Duration::from_millis(10));
                        continue;
                    };
                    let key = name(key);
                    let pending = recorder.begin(number, Action::get(key.clone()), now());
                    match open.call(&[b"GET", key.as_bytes()]) {
                        Ok(Value::Bulk(value)) => pending.done(Answer::Value(value), now()),
                        Ok(Value::Error(_)) => pending.refused(now()),
                        Ok(odd) => panic!("GET was answered with {odd:?}"),
                        Err(_) => connection = None,
                    }
                    if key == name(0)
                        && let Some(open) = connection.as_mut()
                    {
                        hits.fetch_max(hits_of(open), Ordering::Relaxed);
                    }
                }
            });
        }
        let (recorder, over, now) = (&recorder, &over, &now);
        let mut writer = cluster.client();
        scope.spawn(move || {
            for count in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let (key, value) = (name(count % KEYS_COUNT), count.to_string());
                let pending = recorder.begin(0, Action::set(key.clone(), value.clone()), now());
                match writer.ask(&[b"SET", key.as_bytes(), value.as_bytes()]) {
                    Attempt::Answered(Value::Simple(_)) => pending.done(Answer::Done, now()),
                    Attempt::Refused(_) => pending.refused(now()),
                    Attempt::Answered(_) | Attempt::Unknown(_) => pending.unknown(),
                }
                pause(Duration::from_millis(5));
            }
        });
        for node in 0..3 {
            pause(Duration::from_secs(1));
            cluster.pause(node);
            pause(Duration::from_secs(2));
            cluster.resume(node);
            cluster.wait_ready();
            pause(Duration::from_secs(1));
            cluster.kill(node);
            pause(Duration::from_secs(2));
            cluster.start(node);
            cluster.wait_ready();
        }
        over.store(true, Ordering::Relaxed);
    });
    let history = recorder.history();
    let bound = u64::try_from(BOUND.as_nanos()).expect("it is short");
    assert_eq!(too_old(&history, bound), []);
    let (reads, hits) = (history.iter().flat_map(answers).count(), hits.load(Ordering::Relaxed));
    println!("{reads} reads; one node answered {hits} from copies");
    assert!(hits > 1000, "{hits} of {reads} reads: it was about copies");
}

#[test]
fn whoever_wants_copies_says_so_and_nobody_else_gets_any() {
    let mut cluster = Cluster::with(3, &["--near-max-staleness", "500ms"]);
    let writer = &mut cluster.client();
    for key in 0..KEYS_COUNT {
        assert_eq!(writer.insist(&[b"SET", name(key).as_bytes(), b"v"]), Value::ok());
    }
    let any_key = cluster.any_keys()[0];
    let mut leader = Connection::open(any_key, PATIENCE).expect("it listens");
    let mut near = near_connection(any_key).expect("it listens");
    let read_all = |connection: &mut Connection| {
        for key in 0..KEYS_COUNT {
            let found = connection.call(&[b"GET", name(key).as_bytes()]).expect("it answers");
            assert_eq!(found, Value::bulk("v"));
        }
    };
    (0..10).for_each(|_| read_all(&mut leader));
    assert_eq!(hits_of(&mut near), 0, "it was not asked for copies");
    wait_until("copies are served", PATIENCE, || {
        read_all(&mut near);
        hits_of(&mut near) > 0
    });
    assert_eq!(near.call(&[b"CLIENT", b"NEAR", b"OFF"]).expect("it answers"), Value::ok());
    let before = hits_of(&mut near);
    (0..10).for_each(|_| read_all(&mut near));
    assert_eq!(hits_of(&mut near), before);

    let mut listen = Connection::open(cluster.listens()[0], PATIENCE).expect("it listens");
    for wrong in [&[&b"CLIENT"[..], b"NEAR"][..], &[b"CLIENT", b"NEAR", b"PERHAPS"]] {
        assert!(matches!(near.call(wrong).expect("it answers"), Value::Error(_)), "{wrong:?}");
    }
    let told = listen.call(&[b"CLIENT", b"NEAR", b"ON"]).expect("it answers");
    assert!(matches!(told, Value::Error(_)), "{told:?}");
    assert_eq!(listen.call(&[b"PING"]).expect("it goes on"), Value::Simple("PONG".to_owned()));
    cluster.assert_alive();
}

fn name(key: usize) -> String {
    format!("key-{key}")
}

/// A connection for any key that copies will do for.
fn near_connection(any_key: std::net::SocketAddr) -> Option<Connection> {
    let mut connection = Connection::open(any_key, Duration::from_secs(2)).ok()?;
    let told = connection.call(&[b"CLIENT", b"NEAR", b"ON"]).ok()?;
    assert_eq!(told, Value::ok());
    Some(connection)
}

/// How often the node has answered from copies.
fn hits_of(connection: &mut Connection) -> u64 {
    let Ok(Value::Bulk(Some(info))) = connection.call(&[b"INFO", b"stats"]) else { return 0 };
    let info: Bytes = info;
    let text = String::from_utf8_lossy(&info).into_owned();
    let hits = text.lines().find_map(|line| line.strip_prefix("near_hits:"));
    hits.and_then(|hits| hits.trim().parse().ok()).expect("it counts them")
}
