//! Ports for clusters that run at the same time, in any number of processes, and for nodes that have an
//! address of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that systems give to outgoing connections (Linux: from 32,768), which would otherwise
/// take the port of a node while it is down.
const PORT_MIN: u16 = 11_000;
const PORT_MAX: u16 = 32_000;

/// Ports of a block: its guard and those of ten nodes.
const BLOCK_PORTS: u16 = 41;
const NODE_PORTS: u16 = 4;

const BLOCKS_COUNT: u16 = (PORT_MAX - PORT_MIN) / BLOCK_PORTS;

/// Ports that are one cluster's as long as this lives: whoever holds the first port has all of them.
#[derive(Debug)]
pub struct Block {
    first: u16,
    _guard: TcpListener,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    ip: IpAddr,
    first: u16,
}

/// The first port of a node that has an address for itself.
const OWN_FIRST: u16 = 7001;

impl Block {
    /// A block that nobody has, and on whose ports nobody listens.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let salt = std::process::id();
        for _ in 0..BLOCKS_COUNT {
            // Processes that run at the same time have ids that lie together: spread them.
            let turn = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let block = (salt.wrapping_mul(97).wrapping_add(turn)) % u32::from(BLOCKS_COUNT);
            let block = u16::try_from(block).expect("less than the number of blocks");
            let first = PORT_MIN + block * BLOCK_PORTS;
            let Ok(guard) = TcpListener::bind((Ipv4Addr::LOCALHOST, first)) else { continue };
            if (first + 1..first + BLOCK_PORTS).all(is_free) {
                return Self { first, _guard: guard };
            }
        }
        panic!("no free ports from {PORT_MIN} to {PORT_MAX}");
    }

    /// The ports of the node with this number, `0..10`.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn ports(&self, node: usize) -> Ports {
        let node = u16::try_from(node).expect("a small number");
        let first = self.first + 1 + node * NODE_PORTS;
        assert!(first + NODE_PORTS <= self.first + BLOCK_PORTS, "a block is for ten nodes");
        Ports { ip: Ipv4Addr::LOCALHOST.into(), first }
    }
}

impl Ports {
    /// The ports of a node that has this address for itself.
    #[must_use]
    pub const fn on(ip: IpAddr) -> Self {
        Self { ip, first: OWN_FIRST }
    }

    /// Redis protocol, cluster mode.
    #[must_use]
    pub fn listen(self) -> SocketAddr {
        self.at(0)
    }

    /// Redis protocol, any key.
    #[must_use]
    pub fn any_key(self) -> SocketAddr {
        self.at(1)
    }

    /// HTTP.
    #[must_use]
    pub fn http(self) -> SocketAddr {
        self.at(2)
    }

    /// Peers and gossip.
    #[must_use]
    pub fn peer(self) -> SocketAddr {
        self.at(3)
    }

    /// The flags that tell a node to use these ports.
    #[must_use]
    pub fn flags(self) -> Vec<String> {
        [
            ("--listen", self.listen()),
            ("--any-key", self.any_key()),
            ("--http", self.http()),
            ("--peer", self.peer()),
        ]
        .into_iter()
        .flat_map(|(flag, addr)| [flag.to_owned(), addr.to_string()])
        .collect()
    }

    fn at(self, offset: u16) -> SocketAddr {
        SocketAddr::from((self.ip, self.first + offset))
    }
}

fn is_free(port: u16) -> bool {
    let addr = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_live_together_share_no_port() {
        let blocks: Vec<_> = (0..5).map(|_| Block::reserve()).collect();
        let mut ports: Vec<_> = blocks
            .iter()
            .flat_map(|block| (0..10).map(|node| block.ports(node)))
            .flat_map(|ports| [ports.listen(), ports.any_key(), ports.http(), ports.peer()])
            .collect();
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!((count, ports.len()), (200, 200));
    }
}
