//! Nodes that are asked for more than there is: they say so, and serve what they can.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

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
