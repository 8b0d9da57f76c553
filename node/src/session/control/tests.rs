//! Conversations with one node over loopback. What Redis 7.0.15 answers is what is expected, but for
//! what the tests are named after.

use std::net::SocketAddr;
use std::sync::Arc;

use scatterhoard_cluster::{Network, SystemNet};
use scatterhoard_ring::{Endpoints, Slot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::clock::SystemClock;
use crate::config::Config;
use crate::node::{Environment, Node};

fn config() -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config { listen: any, any_key: any, http: any, peer: any, clients_max: 3, ..Config::default() }
}

async fn node(requirepass: Option<&str>) -> Node {
    started(Config { requirepass: requirepass.map(str::to_owned), ..config() }).await
}

async fn started(config: Config) -> Node {
    let seed = u64::from(std::process::id());
    let environment = Environment { net: Arc::new(SystemNet), wall: Arc::new(SystemClock), seed };
    Node::start(config, environment).await.expect("a node alone founds a cluster")
}

/// Sends all lines at once, and gives back everything that is answered until the connection ends.
async fn talk(addr: SocketAddr, lines: &[&str]) -> String {
    let mut stream = SystemNet.connect(addr).await.unwrap();
    let sent: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answered = Vec::new();
    stream.read_to_end(&mut answered).await.unwrap();
    String::from_utf8(answered).unwrap()
}

/// Each line is answered so; nothing at all is answered to those with an empty answer.
async fn check(addr: SocketAddr, said: &[(&str, &str)]) {
    let mut lines: Vec<_> = said.iter().map(|&(line, _)| line).collect();
    lines.push("QUIT");
    let answered = talk(addr, &lines).await;
    let answers = said.iter().map(|&(_, answer)| answer).filter(|answer| !answer.is_empty());
    let expected: Vec<_> = answers.chain(["+OK"]).collect();
    assert_eq!(answered, expected.join("\r\n") + "\r\n", "{lines:?}");
}

const NO_HELLO: &str = "-NOAUTH HELLO must be called with the client already authenticated, otherwise \
    the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP \
    protocol version at the same time";

const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.";

#[tokio::test]
async fn who_has_to_authenticate_is_asked_to() {
    let node = node(Some("foo")).await;
    let addr = node.addresses().endpoints().listen;
    check(
        addr,
        &[
            ("GET a", "-NOAUTH Authentication required."),
            ("PING", "-NOAUTH Authentication required."),
            ("HELLO 3", NO_HELLO),
            ("HELLO 3 AUTH default x", WRONG),
            ("AUTH bob foo", WRONG),
            ("AUTH foo", "+OK"),
            ("PING", "+PONG"),
            ("RESET", "+RESET"),
            ("PING", "-NOAUTH Authentication required."),
            ("AUTH default foo", "+OK"),
            ("CONFIG GET requirepass", "*2\r\n$11\r\nrequirepass\r\n$8\r\n********"),
            ("CONFIG SET requirepass \"\"", "+OK"),
            ("RESET", "+RESET"),
            ("PING", "+PONG"),
            (
                "AUTH foo",
                "-ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            ),
            ("AUTH default whatever", "+OK"),
        ],
    )
    .await;
    node.shutdown().await;
}

#[tokio::test]
async fn replies_can_be_muted_within_a_pipeline() {
    let node = node(None).await;
    let addr = node.addresses().endpoints().listen;
    check(
        addr,
        &[
            ("SET k 1", "+OK"),
            ("CLIENT REPLY SKIP", ""),
            ("SET k 2", ""),
            ("GET k", "$1\r\n2"),
            ("CLIENT REPLY SKIP", ""),
            ("PING", ""),
            ("PING", "+PONG"),
            ("CLIENT REPLY SKIP", ""),
            ("CLIENT REPLY ON", "+OK"),
            ("CLIENT REPLY SKIP", ""),
            ("NOSUCH", ""),
            ("CLIENT REPLY OFF", ""),
            ("SET k 3", ""),
            ("PING", ""),
            ("DBSIZE", ""),
            ("CLIENT REPLY SKIP", ""),
            ("GET k", ""),
            ("CLIENT REPLY ON", "+OK"),
            ("GET k", "$1\r\n3"),
            ("CLIENT REPLY OFF", ""),
            ("RESET", "+RESET"),
            ("CLIENT REPLY SKIP", ""),
            ("RESET", ""),
            ("PING", "+PONG"),
        ],
    )
    .await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_connection_is_what_it_says() {
    let node = node(None).await;
    let addresses = node.addresses().endpoints();
    let hello = |proto: u8, id: u8, mode: &str| {
        let head = if proto == 3 { "%7" } else { "*14" };
        format!(
            "{head}\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n$5\r\nproto\r\n:{proto}\r\n\
             $2\r\nid\r\n:{id}\r\n$4\r\nmode\r\n${}\r\n{mode}\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0",
            mode.len()
        )
    };
    check(
        addresses.listen,
        &[
            ("PING hello", "$5\r\nhello"),
            ("CLIENT ID", ":1"),
            ("HELLO 2 SETNAME worker", &hello(2, 1, "cluster")),
            ("CLIENT GETNAME", "$6\r\nworker"),
            ("HELLO 3", &hello(3, 1, "cluster")),
            ("GET nothing", "_"),
            ("CLIENT SETINFO LIB-NAME test", "+OK"),
            ("SELECT 0", "+OK"),
            ("SELECT 1", "-ERR SELECT is not allowed in cluster mode"),
            ("READONLY", "+OK"),
            ("ASKING", "+OK"),
            ("WAIT 0 0", ":0"),
            ("RESET", "+RESET"),
            ("CLIENT GETNAME", "$-1"),
            ("CLIENT KILL 1.1.1.1:1", "-ERR No such client"),
            ("CLIENT KILL USER bob", "-ERR No such user 'bob'"),
            ("CLIENT KILL ID 77", ":0"),
            ("CLIENT NO-EVICT ON", "+OK"),
        ],
    )
    .await;
    check(
        addresses.any_key,
        &[
            ("HELLO 3", &hello(3, 2, "standalone")),
            ("SELECT 1", "-ERR DB index is out of range"),
            ("CLUSTER SLOTS", "-ERR This instance has cluster support disabled"),
            ("READWRITE", "+OK"),
        ],
    )
    .await;
    let ended = talk(addresses.listen, &["CLIENT KILL TYPE normal SKIPME no"]).await;
    assert_eq!(ended, ":1\r\n", "its own end comes after the reply");
    let line = talk(addresses.listen, &["CLIENT INFO", "QUIT"]).await;
    for field in ["id=4 ", " name= ", " cmd=", " user=default ", " resp=2 ", " lib-name= "] {
        assert!(line.contains(field), "{field} in {line}");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn settings_change_all_or_none() {
    let node = node(None).await;
    let addr = node.addresses().endpoints().any_key;
    check(
        addr,
        &[
            ("CONFIG GET save appendonly", "*4\r\n$10\r\nappendonly\r\n$2\r\nno\r\n$4\r\nsave\r\n$0\r\n"),
            ("CONFIG GET nosuch*", "*0"),
            ("CONFIG SET maxmemory 2mb maxmemory-policy allkeys-lru", "+OK"),
            (
                "CONFIG SET maxmemory 3mb port 1",
                "-ERR CONFIG SET failed (possibly related to argument 'port') - can't set immutable config",
            ),
            ("CONFIG GET maxmemory", "*2\r\n$9\r\nmaxmemory\r\n$7\r\n2097152"),
            (
                "CONFIG SET Foo 1",
                "-ERR Unknown option or number of arguments for CONFIG SET - 'Foo'",
            ),
            (
                "CONFIG SET maxmemory abc",
                "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be \
                 a memory value",
            ),
            ("CONFIG SET appendonly no", "+OK"),
            ("CONFIG REWRITE", "-ERR The server is running without a config file"),
        ],
    )
    .await;
    node.shutdown().await;
}

#[tokio::test]
async fn commands_over_all_keys_see_all_of_them() {
    let node = node(None).await;
    let addresses = node.addresses().endpoints();
    let mut lines: Vec<String> = (0..500).map(|key| format!("SET key:{key} v")).collect();
    lines.push("QUIT".into());
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let answered = talk(addresses.any_key, &lines).await;
    assert_eq!(answered, "+OK\r\n".repeat(501));
    for addr in [addresses.listen, addresses.any_key] {
        check(addr, &[("DBSIZE", ":500"), ("KEYS key:123", "*1\r\n$7\r\nkey:123")]).await;
        let (mut cursor, mut found) = ("0".to_owned(), std::collections::BTreeSet::new());
        loop {
            let scan = format!("SCAN {cursor} COUNT 50");
            let answer = talk(addr, &[&scan, "QUIT"]).await;
            let words: Vec<_> = answer.split("\r\n").collect();
            found.extend(words.iter().filter(|it| it.starts_with("key:")).map(|it| it.to_string()));
            cursor = words[2].to_owned();
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(found.len(), 500);
        let random = talk(addr, &["RANDOMKEY", "QUIT"]).await;
        assert!(random.contains("key:"), "{random}");
    }
    let slot = Slot::of(b"key:7");
    let counted =
        talk(addresses.listen, &[&format!("CLUSTER GETKEYSINSLOT {slot} 10"), "QUIT"]).await;
    assert!(counted.contains("key:7\r\n"), "{counted}");
    check(
        addresses.any_key,
        &[
            ("FLUSHALL", "+OK"),
            ("DBSIZE", ":0"),
            ("RANDOMKEY", "$-1"),
            ("SCAN 0", "*2\r\n$1\r\n0\r\n*0"),
        ],
    )
    .await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_node_tells_who_serves_what() {
    let node = node(None).await;
    let addr = node.addresses().endpoints().listen;
    let id = crate::cluster_view::hex_of(node.id());
    let slots = format!(
        "*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:{}\r\n$40\r\n{id}\r\n*0",
        addr.port()
    );
    check(
        addr,
        &[
            ("CLUSTER SLOTS", &slots),
            ("CLUSTER MYID", &format!("$40\r\n{id}")),
            ("CLUSTER KEYSLOT foo", ":12182"),
            (&format!("CLUSTER REPLICAS {id}"), "*0"),
            ("CLUSTER REPLICAS aaaa", "-ERR Unknown node aaaa"),
            ("CLUSTER COUNTKEYSINSLOT 3", ":0"),
            ("CLUSTER LINKS", "*0"),
        ],
    )
    .await;
    let told = talk(addr, &["GET a", "NOSUCH", "INFO everything", "QUIT"]).await;
    for line in [
        "redis_mode:cluster",
        "cluster_enabled:1",
        "keyspace_misses:1",
        "role:master",
        "loading:0",
        "connected_clients:1",
        "errorstat_ERR:count=2",
    ] {
        assert!(told.split("\r\n").any(|it| it == line), "{line} in {told}");
    }
    assert!(told.contains("\r\ncmdstat_cluster|slots:calls=1,usec="), "{told}");
    node.shutdown().await;
}

#[tokio::test]
async fn every_error_that_a_client_is_sent_is_counted() {
    const FEW: &str = "-NOREPLICAS Not enough good replicas to write.";
    const CROSS: &str = "-CROSSSLOT Keys in request don't hash to the same slot";
    let alone = started(Config { replicas_min: 2, ..config() }).await;
    let addresses = alone.addresses().endpoints();
    // Known before anything is proposed, alone and in the middle of a pipeline.
    check(addresses.listen, &[("SET k 1", FEW)]).await;
    check(addresses.listen, &[("GET k", "$-1"), ("SET k 2", FEW), ("MGET a b", CROSS)]).await;
    check(addresses.any_key, &[("MSET a 1 b 2", FEW), ("MSETNX a 1 b 2", CROSS)]).await;
    assert_eq!(errors(addresses.listen).await, ["CROSSSLOT:count=2", "NOREPLICAS:count=3"]);
    alone.shutdown().await;

    let node = node(None).await;
    let addr = node.addresses().endpoints().listen;
    let number = "-ERR value is not an integer or out of range";
    check(addr, &[("SET k text", "+OK"), ("INCR k", number)]).await;
    let broken = talk(addr, &["PING", "*1\r\n:1"]).await;
    assert_eq!(broken, "+PONG\r\n-ERR Protocol error: expected '$', got ':'\r\n");
    assert_eq!(errors(addr).await, ["ERR:count=2"]);
    node.shutdown().await;
}

/// What `INFO errorstats` says.
async fn errors(addr: SocketAddr) -> Vec<String> {
    let told = talk(addr, &["INFO errorstats", "QUIT"]).await;
    told.split("\r\n").filter_map(|line| line.strip_prefix("errorstat_")).map(Into::into).collect()
}

#[tokio::test]
async fn what_was_slow_is_kept_without_its_keys() {
    let node = node(None).await;
    let addr = node.addresses().endpoints().listen;
    // Far from what a machine under load may take for the others.
    let lines = [
        "CONFIG SET slowlog-log-slower-than 300000",
        "SET secret v",
        "DEBUG SLEEP 0.4",
        "GET secret",
        "SLOWLOG LEN",
        "QUIT",
    ];
    let answered = talk(addr, &lines).await;
    assert_eq!(answered, "+OK\r\n+OK\r\n+OK\r\n$1\r\nv\r\n:1\r\n+OK\r\n");
    let entry = talk(addr, &["SLOWLOG GET", "QUIT"]).await;
    assert!(entry.starts_with("*1\r\n*6\r\n:0\r\n:"), "{entry}");
    assert!(entry.contains("*1\r\n$11\r\ndebug|sleep\r\n"), "{entry}");
    assert!(!entry.contains("secret"), "{entry}");
    check(addr, &[("SLOWLOG RESET", "+OK"), ("SLOWLOG LEN", ":0"), ("LATENCY LATEST", "*0")]).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_pause_holds_writes_and_lets_reads_pass() {
    let node = node(None).await;
    let addr = node.addresses().endpoints().listen;
    check(addr, &[("CLIENT PAUSE 60000 WRITE", "+OK"), ("GET a", "$-1")]).await;
    let mut writer = SystemNet.connect(addr).await.unwrap();
    writer.write_all(b"PING\r\nSET a 1\r\n").await.unwrap();
    let mut pong = [0; 7];
    writer.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"+PONG\r\n", "what came before the write is answered");
    tokio::select! {
        biased;
        _ = writer.read_u8() => panic!("the write was not held up"),
        () = check(addr, &[("GET a", "$-1")]) => {}
    }
    check(addr, &[("CLIENT UNPAUSE", "+OK")]).await;
    let mut done = [0; 5];
    writer.read_exact(&mut done).await.unwrap();
    assert_eq!(&done, b"+OK\r\n");
    node.shutdown().await;
}

#[tokio::test]
async fn one_client_too_many_is_told_so() {
    let node = node(None).await;
    let addresses = node.addresses().endpoints();
    let mut held = Vec::new();
    for addr in [addresses.listen, addresses.any_key, addresses.listen] {
        let mut stream = SystemNet.connect(addr).await.unwrap();
        stream.write_all(b"PING\r\n").await.unwrap();
        let mut pong = [0; 7];
        stream.read_exact(&mut pong).await.unwrap();
        held.push(stream);
    }
    let refused = talk(addresses.any_key, &[]).await;
    assert_eq!(refused, "-ERR max number of clients reached\r\n");
    node.shutdown().await;
}

#[tokio::test]
async fn copies_are_for_the_any_key_port() {
    let node = started(config()).await;
    let Endpoints { listen, any_key, .. } = node.addresses().endpoints();
    let elsewhere = "-ERR CLIENT NEAR is for the any-key port: on this one every read is served by the \
        leader of its key";
    check(listen, &[("CLIENT NEAR ON", elsewhere), ("CLIENT NEAR OFF", elsewhere)]).await;
    let said =
        [("CLIENT NEAR ON", "+OK"), ("SET k v", "+OK"), ("GET k", "$1\r\nv"), ("RESET", "+RESET")];
    check(any_key, &said).await;
    check(any_key, &[("CLIENT NEAR OFF", "+OK"), ("CLIENT NEAR maybe", "-ERR syntax error")]).await;
    node.shutdown().await;
    let node = started(Config { near_cache_bytes: 0, ..config() }).await;
    let none = "-ERR CLIENT NEAR ON is not possible: this node keeps no copies of other nodes' keys \
        (--near-cache-bytes 0)";
    let any_key = node.addresses().endpoints().any_key;
    check(any_key, &[("CLIENT NEAR ON", none), ("CLIENT NEAR OFF", "+OK")]).await;
    node.shutdown().await;
}
