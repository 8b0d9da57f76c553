//! The level on real Redis servers: the suite of all levels, and what can happen to a server.

mod network;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use network::Network;
use scatterhoard_client::level::suite::{
    self, Pair, ends_within_the_bound, lease, look, mark, plain, served_mark, set, tagged, value,
};
use scatterhoard_client::level::{Ask, ClusterLevel, Entry, Found, LevelConfig, RedisLevel, When};
use scatterhoard_client::{Clock, Connector};
use server::Server;
use tokio::time::{Instant, sleep, timeout};

const BOUND: Duration = Duration::from_millis(200);

async fn level(server: &Server) -> Arc<dyn ClusterLevel> {
    let config = LevelConfig::new([server.address()]).bound(BOUND);
    Arc::new(RedisLevel::connect(config).await.expect("the server answers"))
}

async fn pair(server: &Server) -> Pair {
    Pair { ours: level(server).await, theirs: level(server).await, bound: BOUND }
}

async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < suite::PATIENCE, "it never came to pass that {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_as_every_level_has_to() {
    let server = Server::start().await;
    suite::all(&pair(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_servers_does_as_every_level_has_to() {
    let servers = server::cluster().await;
    suite::all(&pair(&servers[0]).await).await;
}

#[tokio::test]
async fn other_programs_read_and_write_plain_values() {
    let server = Server::start().await;
    let (level, foreigner) = (level(&server).await, server.foreigner().await);
    foreigner.set("plain", "theirs").await.unwrap();
    assert_eq!(value(&*level, "plain").await.as_deref(), Some(&b"theirs"[..]));
    let mark = served_mark(&*level, "plain").await;
    foreigner.append("plain", "!").await.unwrap();
    let pair = Pair { ours: Arc::clone(&level), theirs: Arc::clone(&level), bound: BOUND };
    ends_within_the_bound(&pair, &mark).await;
    let equal = When::Equal(Bytes::from_static(b"theirs!"));
    let hard = Some(Duration::from_secs(60));
    assert!(level.set(b"plain", &Entry { hard, ..plain("ours") }, &equal).await.unwrap());
    assert_eq!(foreigner.get("plain").await.unwrap().as_deref(), Some(&b"ours"[..]));
}

#[tokio::test]
async fn a_fill_sees_that_another_program_has_written() {
    let server = Server::start().await;
    let (level, foreigner) = (level(&server).await, server.foreigner().await);
    let token = lease(&*level, "k").await.token;
    foreigner.set("k", "theirs").await.unwrap();
    assert!(!level.fill(b"k", token, &plain("old")).await.unwrap());
    assert_eq!(value(&*level, "k").await.as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn what_is_no_string_is_refused() {
    let server = Server::start().await;
    let level = level(&server).await;
    server.run(&["LPUSH", "list", "1"]).await;
    let ask = Ask::Lease { lasts: BOUND, stale: false };
    assert!(level.look(b"list", ask).await.is_err());
    assert!(level.set(b"list", &plain("v"), &When::Absent).await.is_err());
    assert!(level.set(b"list", &plain("v"), &When::Always).await.unwrap());
}

#[tokio::test]
async fn copies_end_with_their_connection_and_new_ones_are_kept() {
    let server = Server::start().await;
    let level = level(&server).await;
    set(&*level, "k", &plain("v")).await;
    for _ in 0..3 {
        let mark = served_mark(&*level, "k").await;
        let mut changes = level.changes();
        server.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        eventually("the copy has ended", || async { level.is_dead(&mark, Clock::new().now()) })
            .await;
        let told = timeout(suite::PATIENCE, changes.recv()).await.expect("it is told");
        assert!(told.is_ok());
        assert_eq!(value(&*level, "k").await.as_deref(), Some(&b"v"[..]));
    }
    served_mark(&*level, "k").await;
}

#[tokio::test]
async fn a_write_that_a_dead_connection_could_not_tell_of_is_seen() {
    let mut server = Server::start().await;
    let level = level(&server).await;
    set(&*level, "k", &plain("old")).await;
    let mark = served_mark(&*level, "k").await;
    server.restart().await;
    server.run(&["SET", "k", "new"]).await;
    let pair = Pair { ours: Arc::clone(&level), theirs: Arc::clone(&level), bound: BOUND };
    ends_within_the_bound(&pair, &mark).await;
    eventually("the new value is found", || async {
        let found = level.look(b"k", Ask::Peek).await.map(|look| look.found);
        matches!(found, Ok(Found::Value(stored)) if &*stored.bytes == b"new")
    })
    .await;
    served_mark(&*level, "k").await;
}

#[tokio::test]
async fn while_a_server_hangs_no_copy_is_served_and_no_call_does() {
    let server = Server::start().await;
    let level = level(&server).await;
    set(&*level, "k", &tagged("v", &["t"])).await;
    let token = lease(&*level, "other").await.token;
    let mark = served_mark(&*level, "k").await;
    server.pause();
    let pair = Pair { ours: Arc::clone(&level), theirs: Arc::clone(&level), bound: BOUND };
    ends_within_the_bound(&pair, &mark).await;
    let ask = Ask::Lease { lasts: BOUND, stale: true };
    let (keys, tags) = ([Bytes::from_static(b"k")], [Bytes::from_static(b"t")]);
    let (entry, entries) = (tagged("w", &["t"]), [(keys[0].clone(), plain("w"))]);
    let all = async {
        tokio::join!(
            level.look(b"k", ask),
            level.look_many(&keys, Ask::Peek),
            level.wait(b"other", BOUND),
            level.fill(b"other", token, &entry),
            level.release(b"other", token),
            level.set(b"k", &entry, &When::Always),
            level.set_many(&entries),
            level.remove(b"k"),
            level.invalidate_tags(&tags),
        )
    };
    let (looked, many, waited, ..) =
        timeout(Duration::from_secs(60), all).await.expect("nothing hangs");
    assert!(looked.is_err());
    assert!(many[0].is_err());
    waited.expect("its time is over");
    server.resume();
    eventually("it answers again", || async { level.look(b"k", Ask::Peek).await.is_ok() }).await;
    set(&*level, "k", &plain("v")).await;
    served_mark(&*level, "k").await;
}

#[tokio::test]
async fn a_network_that_loses_everything_is_noticed_and_left() {
    let server = Server::start().await;
    let network = Arc::new(Network::default());
    let mut config = LevelConfig::new([server.address()]).bound(BOUND);
    config.connections.connector = Arc::clone(&network) as Arc<dyn Connector>;
    let ours: Arc<dyn ClusterLevel> = Arc::new(RedisLevel::connect(config).await.unwrap());
    let pair = Pair { ours: Arc::clone(&ours), theirs: level(&server).await, bound: BOUND };
    set(&*ours, "k", &plain("old")).await;
    let kept = served_mark(&*ours, "k").await;
    network.lose_what_is_open();
    set(&*pair.theirs, "k", &plain("new")).await;
    ends_within_the_bound(&pair, &kept).await;
    eventually("another connection is opened", || async {
        let found = ours.look(b"k", Ask::Peek).await.map(|look| look.found);
        matches!(found, Ok(Found::Value(stored)) if &*stored.bytes == b"new")
    })
    .await;
    served_mark(&*ours, "k").await;
    assert!(!ours.may_serve(&kept, Clock::new().now()));
}

#[tokio::test]
async fn probes_are_sent_only_while_copies_are_used() {
    let server = Server::start().await;
    let level = level(&server).await;
    set(&*level, "k", &plain("v")).await;
    let before = server.calls("role").await;
    served_mark(&*level, "k").await;
    assert!(server.calls("role").await > before);
    let begun = Instant::now();
    loop {
        let before = server.calls("role").await;
        sleep(Duration::from_secs(2)).await;
        if server.calls("role").await == before {
            break;
        }
        assert!(begun.elapsed() < suite::PATIENCE, "probes go on although no copy is used");
    }
    served_mark(&*level, "k").await;
}

#[tokio::test]
async fn a_server_that_is_made_a_replica_is_not_followed() {
    let server = Server::start().await;
    let level = level(&server).await;
    set(&*level, "k", &plain("v")).await;
    let kept = served_mark(&*level, "k").await;
    server.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let pair = Pair { ours: Arc::clone(&level), theirs: Arc::clone(&level), bound: BOUND };
    ends_within_the_bound(&pair, &kept).await;
    server.run(&["REPLICAOF", "NO", "ONE"]).await;
    let after = served_mark(&*level, "k").await;
    assert!(!level.may_serve(&kept, Clock::new().now()), "nobody told what happened in between");
    assert!(level.may_serve(&after, Clock::new().now()));
}

#[tokio::test]
async fn a_server_that_does_not_say_its_role_is_asked_otherwise() {
    let server = Server::start().await;
    server.run(&["ACL", "SETUSER", "default", "-role"]).await;
    let level = level(&server).await;
    set(&*level, "k", &plain("v")).await;
    served_mark(&*level, "k").await;
}

#[tokio::test]
async fn a_server_that_does_not_track_serves_all_the_same() {
    let server = Server::start().await;
    server.run(&["ACL", "SETUSER", "default", "-client|tracking"]).await;
    let level = level(&server).await;
    set(&*level, "k", &plain("v")).await;
    let look = look(&*level, "k").await;
    assert!(matches!(look.found, Found::Value(_)));
    assert!(look.mark.is_none(), "nobody would tell when the copy ends");
}

#[tokio::test]
async fn all_that_was_flushed_or_evicted_is_loaded_anew() {
    let server = Server::start().await;
    let level = level(&server).await;
    set(&*level, "k", &tagged("v", &["t"])).await;
    let kept = served_mark(&*level, "k").await;
    server.run(&["DEL", "scatterhoard:tag:t"]).await;
    let pair = Pair { ours: Arc::clone(&level), theirs: Arc::clone(&level), bound: BOUND };
    ends_within_the_bound(&pair, &kept).await;
    assert_eq!(value(&*level, "k").await, None, "nobody knows whether its tag was invalidated");
    let token = lease(&*level, "k").await.token;
    server.run(&["SCRIPT", "FLUSH"]).await;
    assert!(level.fill(b"k", token, &plain("v")).await.unwrap());
    let kept = served_mark(&*level, "k").await;
    let token = lease(&*level, "other").await.token;
    server.run(&["FLUSHALL"]).await;
    ends_within_the_bound(&pair, &kept).await;
    assert_eq!(value(&*level, "k").await, None);
    assert!(!level.fill(b"other", token, &plain("v")).await.unwrap());
    mark_of_new_value(&*level).await;
}

async fn mark_of_new_value(level: &dyn ClusterLevel) {
    set(level, "k", &tagged("v", &["t"])).await;
    mark(level, "k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_in_three_processes_load_once() {
    let server = Server::start().await;
    let loads = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let level = level(&server).await;
        for _ in 0..1000 {
            let (level, loads) = (Arc::clone(&level), Arc::clone(&loads));
            tasks.push(tokio::spawn(async move {
                loop {
                    match look(&*level, "cold").await.found {
                        Found::Load(lease) => {
                            loads.fetch_add(1, Ordering::Relaxed);
                            sleep(Duration::from_millis(50)).await;
                            assert!(level.fill(b"cold", lease.token, &plain("v")).await.unwrap());
                        }
                        Found::Wait { at_most } => level.wait(b"cold", at_most).await.unwrap(),
                        Found::Value(stored) => return assert_eq!(&*stored.bytes, b"v"),
                        other => panic!("{other:?}"),
                    }
                }
            }));
        }
    }
    for task in tasks {
        timeout(Duration::from_secs(60), task).await.expect("nobody waits for ever").unwrap();
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1);
}

/// Changes of the source in [`no_load_brings_an_old_value_back`].
const ROUNDS: u64 = 1500;

/// What callers in several processes load from, and what its changes are announced by.
#[derive(Default)]
struct Source {
    version: AtomicU64,
    announced: AtomicU64,
}

impl Source {
    /// Loads as a cache does, until there is nothing new any more. Says how many fills were accepted.
    async fn load_from(&self, level: &dyn ClusterLevel, number: u64) -> u64 {
        let mut filled_count = 0;
        for turn in 0.. {
            let before = self.announced.load(Ordering::SeqCst);
            let found = look(level, "k").await.found;
            if before >= ROUNDS {
                break;
            }
            match found {
                Found::Value(stored) => {
                    let digits = std::str::from_utf8(&stored.bytes).expect("it is digits");
                    let version: u64 = digits.parse().expect("it is a number");
                    assert!(version >= before, "{version} after {before} was announced");
                }
                Found::Load(lease) => {
                    let loaded = self.version.load(Ordering::SeqCst);
                    for _ in 0..(turn * 7 + number) % 5 {
                        tokio::task::yield_now().await;
                    }
                    let entry = tagged(&loaded.to_string(), &["t"]);
                    filled_count +=
                        u64::from(level.fill(b"k", lease.token, &entry).await.expect("it answers"));
                }
                Found::Wait { .. } => {
                    level.wait(b"k", Duration::from_millis(5)).await.expect("it answers")
                }
                other => panic!("{other:?}"),
            }
        }
        filled_count
    }
}

/// Whoever looks after a change of the source was announced finds it, however late loaders are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_load_brings_an_old_value_back() {
    let server = Server::start().await;
    let source = Arc::new(Source::default());
    let mut loaders = Vec::new();
    for number in 0..6 {
        let (level, source) = (level(&server).await, Arc::clone(&source));
        loaders.push(tokio::spawn(async move { source.load_from(&*level, number).await }));
    }
    let writer = level(&server).await;
    for version in 1..=ROUNDS {
        source.version.store(version, Ordering::SeqCst);
        match version % 3 {
            0 => drop(writer.remove(b"k").await.unwrap()),
            1 => writer.invalidate_tags(&[Bytes::from_static(b"t")]).await.unwrap(),
            _ => set(&*writer, "k", &tagged(&version.to_string(), &["t"])).await,
        }
        source.announced.store(version, Ordering::SeqCst);
        for _ in 0..version % 4 {
            tokio::task::yield_now().await;
        }
    }
    let mut filled_count = 0;
    for loader in loaders {
        let ended = timeout(Duration::from_secs(60), loader).await.expect("nobody hangs");
        filled_count += ended.expect("no loader sees an old value");
    }
    assert!(filled_count > 100, "only {filled_count} loads were kept: too little to judge");
}
