use std::net::TcpListener;
use std::thread;

use super::*;
use crate::workload::{Order, Workload};

/// A server for one client, that answers what it reads with what it was told to say, line by line.
struct Scripted {
    listener: TcpListener,
}

impl Scripted {
    fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Answers each read with the next line of the script, then waits for the client to go.
    fn says(self, script: Vec<String>) -> thread::JoinHandle<()> {
        thread::spawn(move || {
            let (mut stream, _) = self.listener.accept().unwrap();
            let mut bytes = [0; 4096];
            for line in script {
                assert!(stream.read(&mut bytes).unwrap() > 0);
                stream.write_all(line.as_bytes()).unwrap();
            }
            while stream.read(&mut bytes).unwrap() > 0 {}
        })
    }
}

fn load(command: Command, pipeline: usize, requests: u64) -> Load {
    let workload = Workload { command, keys: 1, order: Order::Sequential, value_bytes: 3, seed: 1 };
    Load { workload, connections: 1, pipeline, until: Until::Requests(requests) }
}

fn outcome_of(load: &Load, script: &[&str]) -> anyhow::Result<Outcome> {
    let server = Scripted::new();
    let topology = Topology::single(server.address());
    let server = server.says(script.iter().map(ToString::to_string).collect());
    let outcome = run(load, topology);
    server.join().unwrap();
    outcome
}

#[test]
fn a_batch_is_sent_when_the_last_one_is_answered() {
    let outcome = outcome_of(&load(Command::Set, 2, 3), &["+OK\r\n+OK\r\n", "+OK\r\n"]).unwrap();
    assert_eq!((outcome.requests, outcome.errors.len()), (3, 0));
}

#[test]
fn misses_and_wrong_values_are_told_apart() {
    let outcome =
        outcome_of(&load(Command::Get, 3, 3), &["$-1\r\n$3\r\nabc\r\n$2\r\nab\r\n"]).unwrap();
    assert_eq!((outcome.requests, outcome.misses, outcome.errors["WRONG-LENGTH"]), (3, 1, 1));
}

#[test]
fn a_write_that_waits_counts_once_and_only_if_a_replica_has_it() {
    let script = ["+OK\r\n:2\r\n", "+OK\r\n:0\r\n", "-OOM full\r\n:1\r\n"];
    let outcome = outcome_of(&load(Command::SetWait1, 1, 3), &script).unwrap();
    assert_eq!(outcome.requests, 3);
    assert_eq!((outcome.errors["NOT-REPLICATED"], outcome.errors["OOM"]), (1, 1));
}

#[test]
fn outside_a_cluster_a_moved_is_an_error() {
    let outcome = outcome_of(&load(Command::Set, 1, 1), &["-MOVED 1 127.0.0.1:1\r\n"]).unwrap();
    assert_eq!((outcome.moved, outcome.errors["MOVED"]), (0, 1));
}

#[test]
fn replies_to_nothing_end_the_run() {
    assert!(outcome_of(&load(Command::Set, 1, 1), &["+OK\r\n+OK\r\n"]).is_err());
}

#[test]
fn in_a_cluster_a_moved_is_followed() {
    let (old, new) = (Scripted::new(), Scripted::new());
    let slots = |node: SocketAddr| {
        format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{}\r\n", node.port())
    };
    let slot = scatterhoard_ring::Slot::of(b"key:000000000000").number();
    let moved = format!("-MOVED {slot} {}\r\n", new.address());
    let (old_address, at_first, later) =
        (old.address(), slots(old.address()), slots(new.address()));
    let new = new.says(vec!["+OK\r\n".into(), "+OK\r\n".into()]);
    let old = thread::spawn(move || {
        // First asked for the map, then for the key, then, since it moved, for the map again.
        let (mut asker, _) = old.listener.accept().unwrap();
        let mut bytes = [0; 4096];
        assert!(asker.read(&mut bytes).unwrap() > 0);
        asker.write_all(at_first.as_bytes()).unwrap();
        let (mut writer, _) = old.listener.accept().unwrap();
        assert!(writer.read(&mut bytes).unwrap() > 0);
        writer.write_all(moved.as_bytes()).unwrap();
        let (mut asker, _) = old.listener.accept().unwrap();
        assert!(asker.read(&mut bytes).unwrap() > 0);
        asker.write_all(later.as_bytes()).unwrap();
        while writer.read(&mut bytes).unwrap() > 0 {}
    });
    let topology = Topology::discover(&[old_address]).unwrap();
    let outcome = run(&load(Command::Set, 1, 2), topology).unwrap();
    assert_eq!((outcome.requests, outcome.moved, outcome.errors.len()), (2, 1, 0));
    old.join().unwrap();
    new.join().unwrap();
}
