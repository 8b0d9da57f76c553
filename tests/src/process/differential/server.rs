//! A `redis-server` of our own, without persistence, that ends with the test.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::process::resp::Connection;
use crate::process::{Block, wait_until};

/// How long it may take to start. It takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `redis-server`.
#[derive(Debug)]
pub struct RedisServer {
    addr: SocketAddr,
    process: Child,
    _block: Block,
}

impl RedisServer {
    /// Starts one, and waits until it answers. No value may be longer than 1 MiB.
    ///
    /// # Panics
    /// If there is no `redis-server` on this machine, which `scripts/test setup` installs, or it does not
    /// start.
    #[must_use]
    pub fn start() -> Self {
        let block = Block::reserve();
        let addr = block.ports(0).listen();
        let port = addr.port().to_string();
        let process = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--proto-max-bulk-len", "1mb", "--loglevel", "warning"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts; `scripts/test setup` installs it");
        let server = Self { addr, process, _block: block };
        wait_until("redis-server answers", PATIENCE, || {
            let connection = Connection::open(addr, PATIENCE);
            connection.is_ok_and(|mut connection| connection.call(&[b"PING"]).is_ok())
        });
        server
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.process.kill();
        let _ended = self.process.wait();
    }
}
