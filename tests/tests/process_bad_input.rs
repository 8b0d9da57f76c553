//! What comes in from outside is not to be trusted: each bad input gets a clear error, and neither the
//! process nor what it stores suffers.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scatterhoard_tests::process::client::Client;
use scatterhoard_tests::process::resp::{Connection, Value, encoded};
use scatterhoard_tests::process::tool::{Finished, run};
use scatterhoard_tests::process::{Block, Cluster, hoard, pause, wait_until};

/// How long a node may take to close a connection that it has given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// By how much bad input may let a node's memory grow while it is there. What it announces is far more.
const GROWTH_KIB_MAX: u64 = 100 * 1024;

#[test]
fn malformed_requests_are_told_what_is_wrong_and_closed() {
    let mut cluster = Cluster::of(1);
    let canary = Canary::plant(&cluster);
    let addr = cluster.listens()[0];
    let check = |bytes: &[u8], expected: &str| {
        for addr in [addr, cluster.any_keys()[0]] {
            let mut connection = Connection::open(addr, PATIENCE).unwrap();
            // It may be closed before all of this is sent.
            let _cut_off = connection.send_raw(bytes);
            let reply = String::from_utf8(connection.drain().unwrap()).unwrap();
            let shown = bytes[..bytes.len().min(40)].escape_ascii();
            assert!(reply.starts_with("-ERR Protocol error: "), "{shown}: {reply:?}");
            assert!(reply.contains(expected), "{shown}: {reply:?}");
        }
    };
    check(b"*abc\r\n", "invalid multibulk length");
    check(b"*2000000000\r\n", "invalid multibulk length");
    check(b"*1\r\n:5\r\n", "expected '$', got ':'");
    check(b"*1\r\n$abc\r\n", "invalid bulk length");
    check(b"*1\r\n$-2\r\n", "invalid bulk length");
    check(b"*1\r\n$99999999999\r\n", "invalid bulk length");
    check(b"SET \"unbalanced\r\n", "unbalanced quotes in request");
    check(&[b'x'; 80_000], "too big inline request");
    check(&[&b"*"[..], &[b'1'; 80_000]].concat(), "too big mbulk count string");
    check(&[&b"*1\r\n$"[..], &[b'1'; 80_000]].concat(), "too big bulk count string");
    canary.assert_sings(&mut cluster);
}

#[test]
fn wrong_commands_are_told_so_and_the_connection_goes_on() {
    let cluster = Cluster::of(1);
    let mut connection = Connection::open(cluster.listens()[0], PATIENCE).unwrap();
    let mut check = |words: &[&[u8]], expected: &str| {
        let Value::Error(text) = connection.call(words).unwrap() else {
            panic!("{expected:?} was expected")
        };
        assert!(text.contains(expected), "{text}");
        assert_eq!(connection.call(&[b"PING"]).unwrap(), Value::Simple("PONG".to_owned()));
    };
    check(&[b"NOSUCHCOMMAND", b"\xff\x00"], "unknown command");
    check(&[b"GET"], "wrong number of arguments");
    check(&[b"SET", b"key", b"value", b"EX", b"soon"], "not an integer");
    check(&[b"SET", b"key", b"value", b"EX", b"-1"], "invalid expire time");
    check(&[b"MGET", b"a", b"b", b"c"], "CROSSSLOT");
    check(&[b"CLUSTER", b"NOSUCHTHING"], "unknown subcommand");
    check(&[&[b'x'; 5000][..]], "unknown command");
}

#[test]
fn a_value_beyond_the_limit_is_refused_and_one_at_the_limit_kept() {
    let mut cluster = Cluster::with(1, &["--max-value", "1mb"]);
    let canary = Canary::plant(&cluster);
    let addr = cluster.listens()[0];
    let largest = vec![b'v'; 1 << 20];
    let mut connection = Connection::open(addr, PATIENCE).unwrap();
    assert_eq!(connection.call(&[b"SET", b"large", &largest]).unwrap(), Value::ok());
    let grown = connection.call(&[b"APPEND", b"large", b"1"]).unwrap();
    assert!(matches!(grown, Value::Error(_)), "{grown:?}");
    assert_eq!(connection.call(&[b"GET", b"large"]).unwrap(), Value::bulk(largest.clone()));

    let mut beyond = largest.clone();
    beyond.push(b'v');
    let _cut_off = connection.send_raw(&encoded(&[b"SET", b"large", &beyond]));
    let reply = connection.receive();
    assert!(
        matches!(&reply, Ok(Value::Error(text)) if text.contains("invalid bulk length"))
            || reply.is_err(),
        "{reply:?}"
    );
    let mut connection = Connection::open(addr, PATIENCE).unwrap();
    assert_eq!(connection.call(&[b"STRLEN", b"large"]).unwrap(), Value::Integer(1 << 20));
    canary.assert_sings(&mut cluster);
}

#[test]
fn a_command_of_which_a_part_is_missing_is_never_done() {
    let mut cluster = Cluster::of(1);
    let canary = Canary::plant(&cluster);
    let addr = cluster.listens()[0];
    let whole = encoded(&[b"SET", b"half", b"value"]);
    let mut open = Vec::new();
    for sent in 0..whole.len() {
        for closes in [true, false] {
            let mut connection = Connection::open(addr, PATIENCE).unwrap();
            connection.send_raw(&whole[..sent]).unwrap();
            if !closes {
                open.push(connection);
            }
        }
    }
    let mut connection = Connection::open(addr, PATIENCE).unwrap();
    assert_eq!(connection.call(&[b"GET", b"half"]).unwrap(), Value::Bulk(None));
    // The rest is welcome at any time.
    for (sent, mut connection) in open.into_iter().enumerate() {
        connection.send_raw(&whole[sent..]).unwrap();
        assert_eq!(connection.receive().unwrap(), Value::ok());
    }
    canary.assert_sings(&mut cluster);
}

#[test]
fn sizes_that_are_only_announced_take_no_memory() {
    let mut cluster = Cluster::of(1);
    let canary = Canary::plant(&cluster);
    let before = resident_kib(cluster.pid(0));
    let announced = [
        &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$60000000\r\n"[..],
        b"*1000000\r\n$3\r\nDEL\r\n",
        b"*3\r\n$3\r\nSET\r\n$60000000\r\n",
    ];
    let mut open = Vec::new();
    for number in 0..300 {
        let addr = if number % 2 == 0 { cluster.listens()[0] } else { cluster.any_keys()[0] };
        let mut connection = Connection::open(addr, PATIENCE).unwrap();
        connection.send_raw(announced[number % announced.len()]).unwrap();
        open.push(connection);
    }
    canary.assert_sings(&mut cluster);
    let grown = resident_kib(cluster.pid(0)).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB for what was only announced");
}

#[test]
fn thousands_of_idle_connections_keep_nobody_out() {
    let mut cluster = Cluster::of(1);
    let canary = Canary::plant(&cluster);
    let before = resident_kib(cluster.pid(0));
    let count = descriptors_max().saturating_sub(100).min(3000);
    let open: Vec<_> = (0..count)
        .map(|number| {
            let addr = if number % 2 == 0 { cluster.listens()[0] } else { cluster.any_keys()[0] };
            Connection::open(addr, PATIENCE).unwrap()
        })
        .collect();
    canary.assert_sings(&mut cluster);
    let mut last = open.into_iter().next_back().unwrap();
    assert_eq!(last.call(&[b"PING"]).unwrap(), Value::Simple("PONG".to_owned()));
    let grown = resident_kib(cluster.pid(0)).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB for {count} idle connections");
}

#[test]
fn clients_beyond_the_limit_are_told_so() {
    let mut cluster = Cluster::with(1, &["--max-clients", "10"]);
    let addr = cluster.listens()[0];
    let open_one = || {
        let mut connection = Connection::open(addr, PATIENCE).unwrap();
        let reply = connection.call(&[b"PING"]);
        reply.map(|reply| (connection, reply))
    };
    let mut open: Vec<_> = (0..10).map(|_| open_one().unwrap()).collect();
    for _ in 0..5 {
        let mut turned_away = Connection::open(addr, PATIENCE).unwrap();
        assert_eq!(turned_away.drain().unwrap(), b"-ERR max number of clients reached\r\n");
    }
    open.pop();
    wait_until(
        "one may come when another has gone",
        PATIENCE,
        || matches!(open_one(), Ok((_, Value::Simple(pong))) if pong == "PONG"),
    );
    drop(open);
    cluster.assert_alive();
}

#[test]
fn garbage_on_the_redis_ports_harms_nobody() {
    let mut cluster = Cluster::of(1);
    let canary = Canary::plant(&cluster);
    let mut rng = StdRng::seed_from_u64(11);
    for number in 0..300 {
        let addr = if number % 2 == 0 { cluster.listens()[0] } else { cluster.any_keys()[0] };
        send(addr, &garbage(&mut rng, b"*3\r\n$3\r\nSET\r\n"));
    }
    canary.assert_sings(&mut cluster);
}

#[test]
fn garbage_on_the_http_port_harms_nobody() {
    let mut cluster = Cluster::of(1);
    let canary = Canary::plant(&cluster);
    let addr = cluster.ports(0).http();
    let mut rng = StdRng::seed_from_u64(12);
    for _ in 0..100 {
        send(addr, &garbage(&mut rng, b"GET / HTTP/1.1\r\n"));
    }
    for bytes in [
        &b"GET /ready"[..],
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
        &[&b"GET /"[..], &[b'x'; 100_000], b" HTTP/1.1\r\n\r\n"].concat(),
        &[&b"GET / HTTP/1.1\r\n"[..], &b"A: b\r\n".repeat(50_000)].concat(),
    ] {
        send(addr, bytes);
    }
    cluster.wait_ready();
    canary.assert_sings(&mut cluster);
}

#[test]
fn garbage_on_the_peer_and_gossip_ports_harms_nobody() {
    let mut cluster = Cluster::of(3);
    let canary = Canary::plant(&cluster);
    let before = resident_kib(cluster.pid(0));
    let hello = hello_of_a_joiner(&mut cluster);
    let mut rng = StdRng::seed_from_u64(13);
    let addr = cluster.ports(0).peer();
    for _ in 0..200 {
        send(addr, &garbage(&mut rng, &hello));
    }
    // A hello that is almost right, wrong at each place in turn.
    for place in 0..hello.len() {
        let mut wrong = hello.clone();
        wrong[place] ^= 1 << rng.random_range(0..8);
        send(addr, &wrong);
        send(addr, &hello[..place]);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..1000 {
        let size = if rng.random_bool(0.1) { 60_000 } else { 1500 };
        let datagram: Vec<u8> = (0..rng.random_range(0..size)).map(|_| rng.random()).collect();
        socket.send_to(&datagram, addr).unwrap();
    }
    let grown = resident_kib(cluster.pid(0)).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB for garbage");
    cluster.wait_ready();
    assert_eq!(members_count(&cluster), 3);
    canary.assert_sings(&mut cluster);
}

#[test]
fn a_peer_of_another_version_is_told_so() {
    let mut cluster = Cluster::of(1);
    let mut hello = hello_of_a_joiner(&mut cluster);
    // Magic, then the version, in two bytes.
    hello[4] ^= 0x40;
    let mut stream = TcpStream::connect(cluster.ports(0).peer()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    let _closed = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("version"), "{answer:?}");
    cluster.wait_ready();
}

#[test]
fn a_node_of_another_cluster_at_a_known_address_is_kept_out() {
    let mut cluster = Cluster::with(3, &["--replace-after", "1h"]);
    let canary = Canary::plant(&cluster);
    cluster.kill(2);
    // Someone else founds a cluster where a member used to be.
    cluster.set_flags(2, &[]);
    cluster.start(2);
    let stranger = cluster.listens()[2];
    wait_until("the other cluster serves", PATIENCE, || {
        Connection::open(stranger, PATIENCE)
            .and_then(|mut it| it.call(&[b"SET", b"stranger", b"value"]))
            .is_ok_and(|reply| reply == Value::ok())
    });
    // Long enough for many rounds of gossip and heartbeats.
    pause(Duration::from_secs(3));
    let mut strange = Connection::open(stranger, PATIENCE).unwrap();
    assert_eq!(strange.call(&[b"DBSIZE"]).unwrap(), Value::Integer(1));
    assert_eq!(known_nodes(stranger), 1);
    let mut client = Client::new(cluster.listens()[..2].to_vec());
    assert_eq!(client.insist(&[b"GET", b"stranger"]), Value::Bulk(None));
    canary.assert_sings_to(&mut client);
    cluster.assert_alive();
}

#[test]
fn a_peer_with_a_wrong_secret_or_none_is_kept_out() {
    let block = Block::reserve();
    let dir =
        std::env::temp_dir().join(format!("scatterhoard-secrets-{}", block.ports(0).peer().port()));
    fs::create_dir_all(&dir).unwrap();
    let secret = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let right = secret("right", "correct horse battery staple, and then some");
    let wrong = secret("wrong", "incorrect horse battery staple, and then some");
    let mut cluster = Cluster::with(2, &["--secret-file", &right]);
    let canary = Canary::plant(&cluster);
    let join = cluster.ports(0).peer().to_string();
    for flags in [&["--join", &join][..], &["--join", &join, "--secret-file", &wrong]] {
        let stranger = cluster.add(flags);
        wait_until("it is told why it may not join", Duration::from_secs(20), || {
            cluster.log(stranger).contains("secret")
        });
        assert_eq!(members_count(&cluster), 2);
        if cluster.ended(stranger).is_none() {
            cluster.kill(stranger);
        }
    }
    let friend = cluster.add(&["--join", &join, "--secret-file", &right]);
    cluster.wait_ready();
    assert_eq!(known_nodes(cluster.listens()[friend]), 3);
    canary.assert_sings(&mut cluster);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_wrong_command_line_or_file_is_told_what_is_wrong() {
    let block = Block::reserve();
    let dir =
        std::env::temp_dir().join(format!("scatterhoard-files-{}", block.ports(0).peer().port()));
    fs::create_dir_all(&dir).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let check = |args: &[&str], expected: &[&str]| {
        let ports = block.ports(0).flags();
        let args: Vec<_> = ["node"]
            .into_iter()
            .chain(ports.iter().map(String::as_str))
            .chain(args.iter().copied())
            .collect();
        let Finished { status, err, out } = run(hoard(), args.iter().copied());
        assert!(status.is_some_and(|status| status != 0), "{args:?}: {status:?} {out}{err}");
        for word in expected {
            assert!(err.contains(word), "{args:?} should speak of {word:?}: {err}");
        }
    };
    check(&["--no-such-flag"], &["--no-such-flag"]);
    check(&["--replicas", "0"], &["--replicas"]);
    check(&["--partitions", "many"], &["--partitions", "many"]);
    check(&["--maxmemory", "1 elephant"], &["--maxmemory", "1 elephant"]);
    check(&["--replace-after", "soon"], &["--replace-after", "soon"]);
    check(&["--listen", "nowhere"], &["--listen", "nowhere"]);
    check(&["--join", "no port"], &["--join", "no port"]);
    check(&["--maxmemory-policy", "forget"], &["forget", "allkeys-lru"]);
    check(&["--data-dir", dir.to_str().unwrap()], &["--data-dir", "later release"]);
    check(&["--secret-file", "/no/such/file"], &["/no/such/file"]);
    check(&["--secret-file", &file("empty", "")], &["empty"]);
    check(&["--config", "/no/such/file"], &["/no/such/file"]);
    check(
        &["--config", &file("a.toml", "partitions = 8\nno-such-key = 1\n")],
        &["a.toml:2", "no-such-key"],
    );
    check(&["--config", &file("b.toml", "partitions = \"many\"\n")], &["b.toml:1", "many"]);
    check(&["--config", &file("c.toml", "not toml at all")], &["c.toml:1"]);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_port_in_use_is_named() {
    let block = Block::reserve();
    let ports = block.ports(0);
    for addr in [ports.listen(), ports.any_key(), ports.http(), ports.peer()] {
        let _taken = TcpListener::bind(addr).unwrap();
        let args = ["node".to_owned()].into_iter().chain(ports.flags());
        let Finished { status, err, out } = run(hoard(), args);
        assert!(status.is_some_and(|status| status != 0), "{status:?} {out}{err}");
        assert!(err.contains(&addr.to_string()), "{addr}: {out}{err}");
    }
    let _taken = UdpSocket::bind(ports.peer()).unwrap();
    let args = ["node".to_owned()].into_iter().chain(ports.flags());
    let Finished { status, err, out } = run(hoard(), args);
    assert!(status.is_some_and(|status| status != 0), "{status:?} {out}{err}");
    assert!(err.contains(&ports.peer().to_string()), "{out}{err}");
}

/// Keys that are there before anything bad happens, and must be there after.
struct Canary {
    pids: Vec<u32>,
}

impl Canary {
    const KEYS_COUNT: u32 = 60;

    fn plant(cluster: &Cluster) -> Self {
        let mut client = cluster.client();
        for number in 0..Self::KEYS_COUNT {
            let (key, value) = (format!("canary:{number}"), number.to_string());
            let reply = client.insist(&[b"SET", key.as_bytes(), value.as_bytes()]);
            assert_eq!(reply, Value::ok());
        }
        Self { pids: (0..cluster.len()).map(|node| cluster.pid(node)).collect() }
    }

    /// The same processes run, and all keys are there and can be written.
    #[track_caller]
    fn assert_sings(&self, cluster: &mut Cluster) {
        cluster.assert_alive();
        let pids: Vec<_> = (0..self.pids.len()).map(|node| cluster.pid(node)).collect();
        assert_eq!(pids, self.pids);
        self.assert_sings_to(&mut cluster.client());
    }

    #[track_caller]
    fn assert_sings_to(&self, client: &mut Client) {
        for number in 0..Self::KEYS_COUNT {
            let (key, value) = (format!("canary:{number}"), number.to_string());
            let read = client.insist(&[b"GET", key.as_bytes()]);
            assert_eq!(read, Value::bulk(value.clone()), "{key}");
            let written = client.insist(&[b"SET", key.as_bytes(), value.as_bytes()]);
            assert_eq!(written, Value::ok(), "{key}");
        }
    }
}

/// What a node says first when it calls another, caught by listening where it calls.
fn hello_of_a_joiner(cluster: &mut Cluster) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let join = listener.local_addr().expect("it listens").to_string();
    let joiner = cluster.add(&["--join", &join]);
    let (mut stream, _) = listener.accept().expect("it calls");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a valid timeout");
    let mut hello = Vec::new();
    // It waits for an answer, so that the end is a timeout.
    let _timeout = stream.read_to_end(&mut hello);
    cluster.kill(joiner);
    assert!(hello.len() > 8, "a hello was expected: {hello:?}");
    hello
}

/// Random bytes, half of the time with a good beginning.
fn garbage(rng: &mut StdRng, beginning: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if rng.random_bool(0.5) {
        bytes.extend_from_slice(&beginning[..rng.random_range(0..=beginning.len())]);
    }
    let length = rng.random_range(1..20_000);
    bytes.extend((0..length).map(|_| rng.random::<u8>()));
    bytes
}

/// Sends bytes and hangs up. They may be refused before all of them are sent.
fn send(addr: SocketAddr, bytes: &[u8]) {
    let mut connection = Connection::open(addr, PATIENCE).expect("the port is open");
    let _cut_off = connection.send_raw(bytes);
}

fn members_count(cluster: &Cluster) -> u32 {
    known_nodes(cluster.listens()[0])
}

/// `cluster_known_nodes` of `CLUSTER INFO`.
fn known_nodes(addr: SocketAddr) -> u32 {
    let connection = Connection::open(addr, PATIENCE);
    let info = connection.and_then(|mut it| it.call(&[b"CLUSTER", b"INFO"]));
    let Value::Bulk(Some(info)) = info.expect("it answers") else { panic!("not a text") };
    let info = String::from_utf8_lossy(&info).into_owned();
    let line = info.lines().find_map(|line| line.strip_prefix("cluster_known_nodes:"));
    line.and_then(|count| count.trim().parse().ok()).expect("the number of nodes is told")
}

/// Memory that a process holds.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    let kib = line.trim().strip_suffix(" kB").expect("in kB");
    kib.parse().expect("a number")
}

/// How many descriptors this process, and each node, may have open.
fn descriptors_max() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").expect("Linux tells");
    let line =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("it is there");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(usize::MAX)
}
