//! Nodes that are asked for more than there is: they say so, and serve what they can.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use scatterhoard_tests::process::resp::{Connection, Value};
use scatterhoard_tests::process::{Cluster, wait_until};

/// How long a node may take to answer, or to go. Only one that never does fails.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_node_serves_as_many_clients_as_it_may_open_files_for() {
    let mut cluster = Cluster::of(1);
    assert!(cluster.stop(0).success());
    cluster.set_files_max(0, 256 + 20);
    cluster.start(0);
    cluster.wait_ready();
    let log = cluster.log(0);
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("--max-clients")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    for figure in ["asked=10000", "clients_max=20", "open_files_max=276"] {
        assert!(warnings[0].contains(figure), "{}", warnings[0]);
    }

    let addr = cluster.listens()[0];
    assert_eq!(told(addr, "CONFIG GET maxclients"), "*2\r\n$10\r\nmaxclients\r\n$2\r\n20\r\n");
    let refused = told(addr, "CONFIG SET maxclients 21");
    assert!(refused.starts_with("-ERR CONFIG SET failed"), "{refused}");
    assert!(refused.contains("try with 20"), "{refused}");
    assert_eq!(told(addr, "CONFIG SET maxclients 20"), "+OK\r\n");

    // Those who asked just now may not have been forgotten yet.
    wait_until("as many clients are served", PATIENCE, || {
        let mut clients: Vec<_> = (0..21).map(|_| client(addr)).collect();
        let answers: Vec<_> = clients.iter_mut().map(|client| ask(client, "PING")).collect();
        let served = answers.iter().filter(|answer| *answer == "+PONG\r\n").count();
        assert!(served <= 20, "{answers:?}");
        served == 20
    });
}

#[test]
fn a_node_that_may_open_too_few_files_says_so_and_ends() {
    let mut cluster = Cluster::of(1);
    assert!(cluster.stop(0).success());
    cluster.set_files_max(0, 256);
    cluster.start(0);
    let mut ended = None;
    wait_until("the node ends", PATIENCE, || {
        ended = cluster.ended(0);
        ended.is_some()
    });
    assert_eq!(ended.expect("it has").code(), Some(1));
    let log = cluster.log(0);
    assert!(log.contains("hoard: this process may open only 256 files"), "{log}");
}

#[test]
fn clients_that_do_not_read_cannot_use_up_memory() {
    // Four times what they may take together.
    const VALUE_BYTES: usize = 8 << 20;
    const CLIENTS_COUNT: usize = 512;
    const RESIDENT_KIB_MAX: u64 = 2 << 20;
    let mut cluster = Cluster::of(1);
    let addr = cluster.listens()[0];
    let value = vec![b'v'; VALUE_BYTES];
    let mut honest = Connection::open(addr, PATIENCE).expect("the port is open");
    assert_eq!(honest.call(&[b"SET", b"k", &value]).expect("it is done"), Value::ok());

    let mut idle: Vec<_> = (0..CLIENTS_COUNT).map(|_| client(addr)).collect();
    for client in &mut idle {
        client.write_all(b"GET k\r\n").expect("it is read");
    }
    wait_until("somebody had to go", PATIENCE, || {
        let told = honest.call(&[b"INFO", b"stats"]).expect("small commands are served");
        let Value::Bulk(Some(told)) = told else { panic!("{told:?} is no text") };
        let told = String::from_utf8_lossy(&told);
        let count = told.lines().find_map(|line| line.strip_prefix("evicted_clients:"));
        // As many as were too many, but for what the kernel has taken.
        count.and_then(|count| count.trim().parse::<usize>().ok()).expect("a number") > 200
    });
    let kept = honest.call(&[b"GET", b"k"]).expect("who reads is served");
    assert_eq!(kept, Value::bulk(value));
    let peak = peak_kib(cluster.pid(0));
    assert!(peak < RESIDENT_KIB_MAX, "{peak} KiB for clients that do not read");
    cluster.assert_alive();
}

/// The most memory that a process ever held.
fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is there");
    let kib = line.trim().strip_suffix(" kB").expect("in kB");
    kib.parse().expect("a number")
}

fn client(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a patience");
    stream
}

/// What comes next. A client that was turned away may have been so before it asked.
fn ask(client: &mut TcpStream, line: &str) -> String {
    let _turned_away = write!(client, "{line}\r\n");
    let mut answer = [0; 256];
    let length = client.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// What a client of its own is answered.
fn told(addr: SocketAddr, line: &str) -> String {
    ask(&mut client(addr), line)
}
