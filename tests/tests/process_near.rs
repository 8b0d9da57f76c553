//! Reads from copies at real nodes, while others are killed and paused: none is older than the bound.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use scatterhoard_check::history::{Action, Answer, Recorder};
use scatterhoard_check::near::assert_fresh;
use scatterhoard_tests::process::client::{Attempt, Client};
use scatterhoard_tests::process::resp::{Connection, Value};
use scatterhoard_tests::process::{Cluster, Finish, pause, wait_until};
use tokio::time::Instant;

/// How old a copy may be: what nodes do by default.
const BOUND: Duration = Duration::from_millis(200);

/// Everything that a cluster on a busy machine needs to come back by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// A few in each partition.
const KEYS_COUNT: usize = 12;

/// What all clients share.
struct Site {
    recorder: Recorder,
    begun: Instant,
    over: AtomicBool,
    /// The most that one node has answered from copies.
    hits: AtomicU64,
}

impl Site {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("it is not that late")
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Reads keys of one node, all of them in turn, from copies.
    fn read_all(&self, number: u32, any_key: SocketAddr) {
        let mut connection = None;
        for key in (0..KEYS_COUNT).cycle().take_while(|_| !self.is_over()) {
            let Some(open) = connection.as_mut() else {
                connection = near_connection(any_key);
                pause(Duration::from_millis(10));
                continue;
            };
            // What is not answered in time ends the connection, or it would be taken for the next reply.
            let is_open = self.read(number, open, name(key));
            let counted = if is_open && key == 0 { hits_of(open) } else { Some(0) };
            self.hits.fetch_max(counted.unwrap_or(0), Ordering::Relaxed);
            connection = connection.filter(|_| is_open && counted.is_some());
        }
    }

    /// Answers whether the connection is still good.
    fn read(&self, number: u32, connection: &mut Connection, key: String) -> bool {
        let pending = self.recorder.begin(number, Action::get(key.clone()), self.now());
        match connection.call(&[b"GET", key.as_bytes()]) {
            Ok(Value::Bulk(value)) => pending.done(Answer::Value(value), self.now()),
            Ok(Value::Error(_)) => pending.refused(self.now()),
            Ok(odd) => panic!("GET was answered with {odd:?}"),
            Err(_) => return false,
        }
        true
    }

    /// Writes all keys in turn, to ever new values.
    fn write_all(&self, mut client: Client) {
        for count in (0..).take_while(|_| !self.is_over()) {
            let (key, value) = (name(count % KEYS_COUNT), count.to_string());
            let set = Action::set(key.clone(), value.clone());
            let pending = self.recorder.begin(0, set, self.now());
            match client.ask(&[b"SET", key.as_bytes(), value.as_bytes()]) {
                Attempt::Answered(Value::Simple(_)) => pending.done(Answer::Done, self.now()),
                Attempt::Refused(_) => pending.refused(self.now()),
                Attempt::Answered(_) | Attempt::Unknown(_) => pending.unknown(),
            }
            pause(Duration::from_millis(5));
        }
    }
}

#[test]
fn copies_that_are_read_while_nodes_die_and_stop_are_fresh() {
    let mut cluster = Cluster::of(3);
    let site = Site {
        recorder: Recorder::new(),
        begun: Instant::now(),
        over: AtomicBool::new(false),
        hits: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        let site = &site;
        for (number, any_key) in (1..).zip(cluster.any_keys()) {
            scope.spawn(move || site.read_all(number, any_key));
        }
        let writer = cluster.client();
        scope.spawn(move || site.write_all(writer));
        let _finish = Finish::of(&site.over);
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
    });
    let reads = assert_fresh(&site.recorder.history(), BOUND);
    let hits = site.hits.load(Ordering::Relaxed);
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
    assert_eq!(hits_of(&mut near), Some(0), "it was not asked for copies");
    wait_until("copies are served", PATIENCE, || {
        read_all(&mut near);
        hits_of(&mut near) > Some(0)
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
fn near_connection(any_key: SocketAddr) -> Option<Connection> {
    let mut connection = Connection::open(any_key, Duration::from_secs(2)).ok()?;
    let told = connection.call(&[b"CLIENT", b"NEAR", b"ON"]).ok()?;
    assert_eq!(told, Value::ok());
    Some(connection)
}

/// How often the node has answered from copies; `None` if it does not say so.
fn hits_of(connection: &mut Connection) -> Option<u64> {
    let Ok(Value::Bulk(Some(info))) = connection.call(&[b"INFO", b"stats"]) else { return None };
    let text = String::from_utf8_lossy(&info).into_owned();
    let hits = text.lines().find_map(|line| line.strip_prefix("near_hits:"));
    Some(hits.and_then(|hits| hits.trim().parse().ok()).expect("it counts them"))
}
