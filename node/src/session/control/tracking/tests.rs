//! Conversations with one node over loopback. What Redis 7.0.15 answers and pushes is what is expected, but
//! that a pipeline's pushes come behind its replies, and that keys are pushed together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use scatterhoard_cluster::{BoxStream, Network, SystemNet};
use scatterhoard_resp::{ReplyLimits, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::core::Core;
use crate::node::Node;
use crate::session::stage::tests::node;

/// What a connection is asked last, to see that all before it has arrived.
const MARK: &str = "end-of-it";

struct Talk {
    stream: BoxStream,
}

impl Talk {
    async fn with(addr: SocketAddr) -> Self {
        Self { stream: SystemNet.connect(addr).await.unwrap() }
    }

    /// In RESP3.
    async fn modern(addr: SocketAddr) -> Self {
        let mut talk = Self::with(addr).await;
        assert!(talk.say("HELLO 3").await.starts_with('%'));
        talk
    }

    /// Sends lines, and gives back all that comes for them, line ends as spaces.
    async fn say(&mut self, lines: &str) -> String {
        let lines: String = lines.split("; ").map(|line| format!("{line}\r\n")).collect();
        let mut told = self.until_mark(lines.trim_start()).await;
        // What is pushed for these very lines comes behind their replies.
        told += &self.until_mark("").await;
        told.trim_end().to_owned()
    }

    async fn until_mark(&mut self, sent: &str) -> String {
        self.stream.write_all(format!("{sent}PING {MARK}\r\n").as_bytes()).await.unwrap();
        let mut told = Vec::new();
        while !told.windows(MARK.len() + 2).any(|end| end == format!("{MARK}\r\n").as_bytes()) {
            assert!(self.stream.read_buf(&mut told).await.unwrap() > 0, "it stays connected");
        }
        let told = String::from_utf8(told).unwrap().replace("\r\n", " ");
        told.replacen("*2 $4 pong $9 end-of-it ", "", 1).replacen("$9 end-of-it ", "", 1)
    }

    /// The keys that it is told to forget, in order; `all`.
    async fn forgets(&mut self) -> String {
        let told = self.say("").await + " ";
        let pushes = told.split(">2 $10 invalidate ").skip(1);
        let words = pushes.flat_map(|push| push.trim_end().split(' '));
        let keys = words.filter(|word| !word.starts_with(['*', '$']));
        let keys: BTreeSet<_> = keys.map(|key| if key == "_" { "all" } else { key }).collect();
        keys.into_iter().collect::<Vec<_>>().join(" ")
    }

    /// What comes by itself.
    async fn hear(&mut self) -> String {
        let mut told = vec![0; 1024];
        let count = self.stream.read(&mut told).await.unwrap();
        String::from_utf8_lossy(&told[..count]).replace("\r\n", " ").trim_end().to_owned()
    }

    async fn check(&mut self, said: &[(&str, &str)]) {
        for &(line, answer) in said {
            assert_eq!(self.say(line).await, answer, "{line}");
        }
    }
}

fn push(keys: &str) -> String {
    let keys: Vec<_> = keys.split(' ').map(|key| format!(" ${} {key}", key.len())).collect();
    format!(">2 $10 invalidate *{}{}", keys.len(), keys.concat())
}

async fn two() -> (Node, Talk, Talk) {
    let node = node().await;
    let addr = node.addresses().endpoints().listen;
    let (reader, writer) = (Talk::modern(addr).await, Talk::with(addr).await);
    (node, reader, writer)
}

#[tokio::test]
async fn who_has_read_a_key_is_told_once_when_it_changes() {
    let (node, mut reader, mut writer) = two().await;
    reader
        .check(&[
            ("CLIENT TRACKING ON", "+OK"),
            ("CLIENT TRACKINGINFO", "%3 $5 flags ~1 $2 on $8 redirect :0 $8 prefixes *0"),
            ("CLIENT GETREDIR", ":0"),
            ("GET k", "_"),
            ("MGET {t}a {t}b", "*2 _ _"),
        ])
        .await;
    writer.check(&[("SET k 1 XX", "$-1"), ("SET k 1", "+OK"), ("MSET {t}a 1 {t}b 2", "+OK")]).await;
    assert_eq!(reader.forgets().await, "k {t}a {t}b");
    writer.check(&[("SET k 2", "+OK")]).await;
    assert_eq!(reader.say("").await, "");

    let own = format!("$1 2 +OK {}", push("k"));
    let behind = format!("$1 3 +OK $1 4 {}", push("k"));
    reader.check(&[("GET k; SET k 3", &own), ("GET k; SET k 4; GET k", &behind)]).await;
    reader
        .check(&[("CLIENT TRACKING ON NOLOOP", "+OK"), ("GET k", "$1 4"), ("SET k 5", "+OK")])
        .await;
    reader.check(&[("EXISTS k", ":1"), ("DBSIZE", ":3")]).await;
    writer
        .check(&[("DEL k nosuch", "-CROSSSLOT Keys in request don't hash to the same slot")])
        .await;
    writer.check(&[("DEL k", ":1")]).await;
    assert_eq!(reader.forgets().await, "k");
    writer.check(&[("FLUSHALL", "+OK")]).await;
    assert_eq!(reader.forgets().await, "all");
    reader
        .check(&[("GET k", "_"), ("CLIENT TRACKING OFF", "+OK"), ("CLIENT GETREDIR", ":-1")])
        .await;
    writer.check(&[("SET k 1", "+OK")]).await;
    reader
        .check(&[("CLIENT TRACKINGINFO", "%3 $5 flags ~1 $3 off $8 redirect :-1 $8 prefixes *0")])
        .await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_client_that_waits_is_woken() {
    let (node, mut reader, mut writer) = two().await;
    reader.check(&[("CLIENT TRACKING ON", "+OK"), ("GET k", "_")]).await;
    writer.check(&[("SET k 1 PX 500", "+OK")]).await;
    assert_eq!(reader.hear().await, push("k"));
    match reader.say("GET k").await.as_str() {
        "$1 1" => assert_eq!(reader.hear().await, push("k"), "it expires by itself"),
        // Some machines are slow.
        told => assert!(told == "_" || told == format!("$1 1 {}", push("k")), "{told}"),
    }
    node.shutdown().await;
}

#[tokio::test]
async fn prefixes_are_broadcast_and_do_not_overlap() {
    let (node, mut reader, mut writer) = two().await;
    let overlaps = |new: &str, what: &str| {
        format!(
            "-ERR Prefix '{new}' overlaps with {what}. Prefixes for a single client must not overlap."
        )
    };
    let switch = "-ERR You can't switch BCAST mode on/off before disabling tracking for this client, and \
        then re-enabling it with a different mode.";
    reader
        .check(&[
            (
                "CLIENT TRACKING ON BCAST PREFIX a PREFIX ab",
                &overlaps("a", "another provided prefix 'ab'"),
            ),
            ("CLIENT TRACKING ON PREFIX a", "-ERR PREFIX option requires BCAST mode to be enabled"),
            (
                "CLIENT TRACKING ON BCAST OPTIN",
                "-ERR OPTIN and OPTOUT are not compatible with BCAST",
            ),
            ("CLIENT TRACKING ON BCAST PREFIX x PREFIX y", "+OK"),
            ("CLIENT TRACKING ON BCAST PREFIX xy", &overlaps("xy", "an existing prefix 'x'")),
            ("CLIENT TRACKING ON BCAST PREFIX x", &overlaps("x", "an existing prefix 'x'")),
            ("CLIENT TRACKING ON", switch),
            (
                "CLIENT TRACKINGINFO",
                "%3 $5 flags ~2 $2 on $5 bcast $8 redirect :0 $8 prefixes *2 $1 x $1 y",
            ),
        ])
        .await;
    writer.check(&[("SET x1 1", "+OK"), ("SET y1 2", "+OK"), ("SET z1 2", "+OK")]).await;
    assert_eq!(reader.forgets().await, "x1 y1");
    assert!(reader.say("CLIENT INFO").await.contains(" flags=tB db=0 sub=0 "));
    assert!(writer.say("INFO stats").await.contains("tracking_total_prefixes:2"));
    reader.check(&[("RESET", "+RESET"), ("CLIENT GETREDIR", ":-1")]).await;
    assert!(writer.say("INFO clients").await.contains("tracking_clients:0"));
    node.shutdown().await;
}

#[tokio::test]
async fn which_reads_count_can_be_chosen() {
    let (node, mut reader, mut writer) = two().await;
    let only = "-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
        OPTOUT mode enabled";
    let no_out = "-ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.";
    let switch = "-ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and \
        then re-enabling it with a different mode.";
    reader
        .check(&[
            ("CLIENT CACHING YES", only),
            (
                "CLIENT TRACKING ON OPTIN OPTOUT",
                "-ERR You can't specify both OPTIN mode and OPTOUT mode",
            ),
            ("CLIENT TRACKING ON OPTIN", "+OK"),
            ("CLIENT TRACKING ON OPTOUT", switch),
            ("CLIENT CACHING NO", no_out),
            ("CLIENT CACHING YES; CLIENT ID; GET k; GET j", "+OK :1 _ _"),
            (
                "CLIENT CACHING YES; CLIENT TRACKINGINFO",
                "+OK %3 $5 flags ~3 $2 on $5 optin $11 caching-yes $8 redirect :0 $8 prefixes *0",
            ),
        ])
        .await;
    writer.check(&[("SET k 1", "+OK"), ("SET j 1", "+OK")]).await;
    assert_eq!(reader.forgets().await, "k");
    reader
        .check(&[
            ("CLIENT TRACKING OFF", "+OK"),
            ("CLIENT TRACKING ON OPTOUT", "+OK"),
            ("CLIENT CACHING NO; GET k; GET j", "+OK $1 1 $1 1"),
        ])
        .await;
    writer.check(&[("SET k 2", "+OK"), ("SET j 2", "+OK")]).await;
    assert_eq!(reader.forgets().await, "j");
    node.shutdown().await;
}

#[tokio::test]
async fn another_connection_hears_in_its_place() {
    let (node, mut reader, mut writer) = two().await;
    let mut target = Talk::with(node.addresses().endpoints().listen).await;
    let id = target.say("CLIENT ID").await.trim_start_matches(':').to_owned();
    let none = "-ERR The client ID you want redirect to does not exist";
    let on = format!("CLIENT TRACKING ON REDIRECT {id}");
    let info = format!("%3 $5 flags ~1 $2 on $8 redirect :{id} $8 prefixes *0");
    reader.check(&[("CLIENT TRACKING ON REDIRECT 9999", none), (&on, "+OK")]).await;
    reader.check(&[("CLIENT TRACKINGINFO", &info), ("GET k", "_")]).await;
    writer.check(&[("SET k 1", "+OK")]).await;
    let not_now = "-ERR Can't execute 'client|id': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
        RESET are allowed in this context";
    target
        .check(&[
            ("", ""),
            ("SUBSCRIBE __redis__:invalidate", "*3 $9 subscribe $20 __redis__:invalidate :1"),
            ("CLIENT ID", not_now),
            (
                "SUBSCRIBE news",
                "-ERR SUBSCRIBE is supported for the channel __redis__:invalidate alone: there is no \
                 publish and subscribe",
            ),
        ])
        .await;
    reader.check(&[("GET k", "$1 1")]).await;
    writer.check(&[("SET k 2", "+OK")]).await;
    target.check(&[("", "*3 $7 message $20 __redis__:invalidate *1 $1 k")]).await;
    assert!(writer.say("CLIENT LIST TYPE pubsub").await.contains(" flags=P db=0 sub=1 "));
    writer.check(&[("FLUSHALL", "+OK")]).await;
    // For each partition, unless they come together.
    let flushed = "*3 $7 message $20 __redis__:invalidate $-1";
    let told = target.say("").await;
    assert!(told.starts_with(flushed) && told.replace(flushed, "").trim().is_empty(), "{told}");
    target
        .check(&[
            ("UNSUBSCRIBE foo", "*3 $11 unsubscribe $3 foo :1"),
            ("UNSUBSCRIBE", "*3 $11 unsubscribe $20 __redis__:invalidate :0"),
            ("UNSUBSCRIBE", "*3 $11 unsubscribe $-1 :0"),
        ])
        .await;
    assert!(target.say("HELLO 3").await.starts_with('%'));
    reader.check(&[("GET k", "_")]).await;
    writer.check(&[("SET k 3", "+OK")]).await;
    target.check(&[("", &push("k")), ("CLIENT KILL ID 9999", ":0")]).await;

    reader.check(&[("GET k", "$1 3")]).await;
    writer.check(&[(&format!("CLIENT KILL ID {id}"), ":1")]).await;
    assert_eq!(target.hear().await, "", "it is closed");
    let broken = format!(">2 $21 tracking-redir-broken :{id}");
    writer.check(&[("SET k 4", "+OK")]).await;
    reader.check(&[("", &broken)]).await;
    assert!(reader.say("CLIENT INFO").await.contains(" flags=tR "));
    node.shutdown().await;
}

#[tokio::test]
async fn what_is_known_is_bounded_shown_and_freed() {
    let (node, mut reader, mut writer) = two().await;
    writer.check(&[("CONFIG SET tracking-table-max-keys 2", "+OK")]).await;
    reader.check(&[("CLIENT TRACKING ON", "+OK"), ("GET a", "_"), ("GET b", "_")]).await;
    assert!(
        writer.say("INFO stats").await.contains("tracking_total_keys:2 tracking_total_items:2 ")
    );
    let told = reader.say("GET c").await;
    assert!(told == format!("_ {}", push("a")) || told == format!("_ {}", push("b")), "{told}");
    assert!(!writer.say("INFO memory").await.contains("mem_tracking_table:0 "));
    reader.say("RESET").await;
    assert!(
        writer.say("INFO stats").await.contains("tracking_total_keys:0 tracking_total_items:0 ")
    );
    node.shutdown().await;
}

#[tokio::test]
async fn the_any_key_port_names_the_other() {
    let node = node().await;
    let endpoints = node.addresses().endpoints();
    let mut talk = Talk::modern(endpoints.any_key).await;
    let refusal = format!(
        "-ERR CLIENT TRACKING is not supported on the any-key port, as keys of other nodes cannot be \
         tracked from here; use the cluster port, {}",
        endpoints.listen.port()
    );
    talk.check(&[("CLIENT TRACKING ON", &refusal), ("CLIENT TRACKING OFF", "+OK")]).await;
    node.shutdown().await;
}

/// A client with a cache that is as simple as can be: what it reads it keeps, what it is told to forget it
/// forgets, in the order in which both arrive.
struct Cached {
    talk: Talk,
    received: Vec<u8>,
    /// Keys whose replies are on their way.
    asked: Vec<String>,
    cache: BTreeMap<String, Value>,
}

impl Cached {
    async fn ask(&mut self, keys: &[String]) {
        let sent: String = keys.iter().map(|key| format!("GET {key}\r\n")).collect();
        self.asked.extend_from_slice(keys);
        self.talk.stream.write_all(sent.as_bytes()).await.unwrap();
        while !self.asked.is_empty() {
            self.take().await;
        }
    }

    async fn take(&mut self) {
        self.talk.stream.read_buf(&mut self.received).await.unwrap();
        while let Ok(Some((value, length))) = Value::decode(&self.received, ReplyLimits::DEFAULT) {
            self.received.drain(..length);
            match value {
                Value::Push(parts) => match &parts[1] {
                    Value::Array(keys) => keys.iter().for_each(|key| {
                        let Value::Bulk(key) = key else { panic!("{key:?} is no key") };
                        self.cache.remove(&String::from_utf8_lossy(key).into_owned());
                    }),
                    _ => self.cache.clear(),
                },
                value => {
                    let key = self.asked.remove(0);
                    self.cache.insert(key, value);
                }
            }
        }
    }
}

fn any_key(core: &Core) -> String {
    format!("k{}", core.chance.roll() % 5)
}

#[tokio::test]
async fn nobody_ends_with_an_old_value() {
    let node = node().await;
    let addr = node.addresses().endpoints().listen;
    for _ in 0..20 {
        let readers = (0..4).map(|_| {
            let core = Arc::clone(&node.core);
            tokio::spawn(async move {
                let mut talk = Talk::modern(addr).await;
                talk.check(&[("CLIENT TRACKING ON", "+OK")]).await;
                let mut cached = cached(talk);
                for _ in 0..50 {
                    let count = 1 + core.chance.roll() % 3;
                    let keys: Vec<_> = (0..count).map(|_| any_key(&core)).collect();
                    cached.ask(&keys).await;
                }
                cached
            })
        });
        let readers: Vec<_> = readers.collect();
        let writers = (0..2).map(|_| {
            let core = Arc::clone(&node.core);
            tokio::spawn(async move {
                let mut talk = Talk::with(addr).await;
                for _ in 0..60 {
                    talk.say(&format!("INCR {}", any_key(&core))).await;
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let mut truth = cached(Talk::with(addr).await);
        truth.ask(&(0..5).map(|number| format!("k{number}")).collect::<Vec<_>>()).await;
        for reader in readers {
            let mut cached = reader.await.unwrap();
            // Whatever it was to be told has come before this.
            cached.ask(&["last".to_owned()]).await;
            cached.cache.remove("last");
            for (key, value) in &cached.cache {
                assert_eq!(Some(value), truth.cache.get(key), "{key}");
            }
        }
    }
    node.shutdown().await;
}

fn cached(talk: Talk) -> Cached {
    Cached { talk, received: Vec::new(), asked: Vec::new(), cache: BTreeMap::new() }
}
