//! Which node gets which key.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail, ensure};
use scatterhoard_ring::Slot;

use crate::control::{Answer, Control};
use crate::workload::KEY_BYTES;

/// More nodes than this are not benchmarked from one process.
pub const NODES_MAX: usize = 256;

/// Which of the nodes: an index that stays with its address for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIndex(usize);

impl NodeIndex {
    /// The index with this number: `[0, NODES_MAX)`.
    #[must_use]
    pub const fn new(number: usize) -> Self {
        Self(number)
    }

    /// `[0, NODES_MAX)`.
    #[must_use]
    pub const fn number(self) -> usize {
        self.0
    }
}

/// The nodes, and who serves which slot.
#[derive(Debug)]
pub struct Topology {
    seeds: Vec<SocketAddr>,
    nodes: Vec<SocketAddr>,
    /// Empty if one node serves everything, so that no slot needs computing.
    owners: Vec<u16>,
}

impl Topology {
    /// One server for all keys.
    #[must_use]
    pub fn single(address: SocketAddr) -> Self {
        Self { seeds: Vec::new(), nodes: vec![address], owners: Vec::new() }
    }

    /// What `CLUSTER SLOTS` says at the first seed that answers.
    ///
    /// # Errors
    /// If none answers, or a slot has no owner.
    pub fn discover(seeds: &[SocketAddr]) -> anyhow::Result<Self> {
        let seeds = seeds.to_vec();
        let mut topology = Self { seeds, nodes: Vec::new(), owners: Vec::new() };
        topology.refresh()?;
        Ok(topology)
    }

    /// Asks again; nodes that are known keep their index.
    ///
    /// # Errors
    /// If no seed and no known node gives a whole map. Then the old one stays.
    pub fn refresh(&mut self) -> anyhow::Result<()> {
        let mut last = None;
        for address in self.nodes.clone().iter().chain(&self.seeds.clone()) {
            match ask_slots(*address).and_then(|rows| self.adopt(&rows)) {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error.context(format!("no slots from {address}"))),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no seeds")))
    }

    /// Believes a `MOVED slot host:port` and returns its node.
    ///
    /// # Errors
    /// If it is not such a line.
    pub fn believe(&mut self, moved: &str) -> anyhow::Result<NodeIndex> {
        let mut words = moved.split(' ').skip(1);
        let slot: usize = words.next().context("MOVED without a slot")?.parse()?;
        let address = resolve(words.next().context("MOVED without an address")?)?;
        let node = self.index(address)?;
        if let Some(owner) = self.owners.get_mut(slot) {
            *owner = u16::try_from(node.0).expect("NODES_MAX fits");
        }
        Ok(node)
    }

    /// The node that serves a key.
    #[must_use]
    pub fn node_of(&self, key: &[u8; KEY_BYTES]) -> NodeIndex {
        if self.owners.is_empty() {
            return NodeIndex(0);
        }
        NodeIndex(usize::from(self.owners[usize::from(Slot::of(key).number())]))
    }

    /// Whether nodes send requests on to each other, so that a MOVED is part of the game.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        !self.owners.is_empty()
    }

    /// All nodes that were ever known, by index.
    #[must_use]
    pub fn nodes(&self) -> &[SocketAddr] {
        &self.nodes
    }

    fn adopt(&mut self, rows: &[Row]) -> anyhow::Result<()> {
        let mut owners = vec![u16::MAX; usize::from(Slot::COUNT)];
        for row in rows {
            let node = self.index(row.address)?;
            let range = owners.get_mut(row.first..=row.last).context("slots out of range")?;
            range.fill(u16::try_from(node.0).expect("NODES_MAX fits"));
        }
        ensure!(!owners.contains(&u16::MAX), "a slot has no owner");
        self.owners = owners;
        Ok(())
    }

    fn index(&mut self, address: SocketAddr) -> anyhow::Result<NodeIndex> {
        if let Some(index) = self.nodes.iter().position(|node| *node == address) {
            return Ok(NodeIndex(index));
        }
        ensure!(self.nodes.len() < NODES_MAX, "more than {NODES_MAX} nodes");
        self.nodes.push(address);
        Ok(NodeIndex(self.nodes.len() - 1))
    }
}

/// One row of `CLUSTER SLOTS`: `[first, last]`, both within.
struct Row {
    first: usize,
    last: usize,
    address: SocketAddr,
}

fn ask_slots(address: SocketAddr) -> anyhow::Result<Vec<Row>> {
    match Control::connect(address)?.ask(&["CLUSTER", "SLOTS"])? {
        Answer::Array(rows) => rows.iter().map(|row| read_row(row, address)).collect(),
        other => bail!("CLUSTER SLOTS gave {other:?}"),
    }
}

fn read_row(row: &Answer, answering: SocketAddr) -> anyhow::Result<Row> {
    let Answer::Array(row) = row else { bail!("a row that is no array") };
    let [Answer::Int(first), Answer::Int(last), Answer::Array(node), ..] = row.as_slice() else {
        bail!("a row without slots and node")
    };
    let [Answer::Bulk(host), Answer::Int(port), ..] = node.as_slice() else {
        bail!("a node without host and port")
    };
    let host = std::str::from_utf8(host)?;
    // An empty host means "the one you asked". Redis documentation, CLUSTER SLOTS.
    let host = if host.is_empty() { answering.ip().to_string() } else { host.to_owned() };
    let address = (host.as_str(), u16::try_from(*port)?).to_socket_addrs()?.next();
    Ok(Row {
        first: usize::try_from(*first)?,
        last: usize::try_from(*last)?,
        address: address.context("a host without address")?,
    })
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    address.to_socket_addrs()?.next().with_context(|| format!("{address} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn of_two() -> Topology {
        let mut topology = Topology { seeds: Vec::new(), nodes: Vec::new(), owners: Vec::new() };
        let rows = [
            Row { first: 0, last: 8191, address: node(7001) },
            Row { first: 8192, last: 16383, address: node(7002) },
        ];
        topology.adopt(&rows).unwrap();
        topology
    }

    #[test]
    fn a_key_goes_where_its_slot_is() {
        let topology = of_two();
        let key = b"key:000000000001";
        let upper = usize::from(Slot::of(key).number() >= 8192);
        assert_eq!(topology.node_of(key).number(), upper);
    }

    #[test]
    fn a_map_with_a_hole_is_not_adopted() {
        let mut topology = of_two();
        assert!(topology.adopt(&[Row { first: 0, last: 100, address: node(7003) }]).is_err());
        assert_eq!(topology.owners.len(), 16384);
    }

    #[test]
    fn a_moved_slot_has_its_new_owner_at_once() {
        let mut topology = of_two();
        let slot = Slot::of(b"key:000000000001").number();
        let moved = format!("MOVED {slot} 127.0.0.1:7003");
        assert_eq!(topology.believe(&moved).unwrap().number(), 2);
        assert_eq!(topology.node_of(b"key:000000000001").number(), 2);
        assert!(topology.believe("MOVED nonsense").is_err());
    }
}
