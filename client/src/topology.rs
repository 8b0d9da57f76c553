//! Which node leads which slot, as far as this client was told. Knows nothing of connections.

use std::fmt;
use std::sync::Arc;

use scatterhoard_ring::Slot;

use crate::{Error, Value};

/// Where a node takes clients: `host:port`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address(Arc<str>);

impl Address {
    pub(crate) fn new(address: &str) -> Self {
        Self(address.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// An address that somebody at this one has named: without a host it is its own.
    fn named(&self, host: &str, port: &str) -> Self {
        let own = self.0.rsplit_once(':').map_or(&*self.0, |(host, _)| host);
        let host = if host.is_empty() { own } else { host };
        // An IPv6 address comes without brackets.
        if host.contains(':') && !host.starts_with('[') {
            Self(format!("[{host}]:{port}").into())
        } else {
            Self(format!("{host}:{port}").into())
        }
    }

    /// Where a `MOVED` or `ASK` that came from here points: the slot, and the address.
    pub(crate) fn redirected(&self, text: &str) -> Option<(Slot, Self)> {
        let (slot, address) = text.split_once(' ')?;
        let (host, port) = address.trim_end().rsplit_once(':')?;
        Some((Slot::new(slot.parse().ok()?)?, self.named(host, port)))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// No node is known for a slot.
const NOBODY: u16 = u16::MAX;

/// A node of one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeAt(u16);

/// The map of slots.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    nodes: Vec<Address>,
    /// For each slot the position of its leader in `nodes`.
    leaders: Box<[u16]>,
}

impl Topology {
    /// Nobody leads anything.
    pub(crate) fn empty() -> Self {
        Self { nodes: Vec::new(), leaders: vec![NOBODY; usize::from(Slot::COUNT)].into() }
    }

    /// One server that has all slots: it is no cluster.
    pub(crate) fn of_one(node: Address) -> Self {
        Self { nodes: vec![node], leaders: vec![0; usize::from(Slot::COUNT)].into() }
    }

    /// What a node answered to `CLUSTER SLOTS`.
    ///
    /// # Errors
    /// It makes no sense.
    pub(crate) fn of_slots(asked: &Address, reply: &Value) -> Result<Self, Error> {
        let bad = || reply.unexpected("ranges of slots");
        let Value::Array(ranges) = reply else { return Err(bad()) };
        let mut topology = Self::empty();
        for range in ranges {
            let Value::Array(range) = range else { return Err(bad()) };
            let [Value::Integer(first), Value::Integer(last), Value::Array(leader), ..] =
                &range[..]
            else {
                return Err(bad());
            };
            let [host, Value::Integer(port), ..] = &leader[..] else { return Err(bad()) };
            let host = match host {
                Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Value::Text(text) => text.clone(),
                // Of old servers: the address that was asked.
                Value::Nil => String::new(),
                _ => return Err(bad()),
            };
            let slot = |number: i64| u16::try_from(number).ok().and_then(Slot::new);
            let (first, last) = slot(*first).zip(slot(*last)).ok_or_else(bad)?;
            let node = topology.position(asked.named(&host, &port.to_string()));
            for leader in topology.leaders.get_mut(index(first)..=index(last)).ok_or_else(bad)? {
                *leader = node;
            }
        }
        Ok(topology)
    }

    pub(crate) fn leader(&self, slot: Slot) -> Option<&Address> {
        self.leader_at(slot).map(|leader| self.node(leader))
    }

    /// Who leads a slot, as a number that means something to this map only.
    pub(crate) fn leader_at(&self, slot: Slot) -> Option<NodeAt> {
        let leader = self.leaders[index(slot)];
        (usize::from(leader) < self.nodes.len()).then_some(NodeAt(leader))
    }

    /// A node of this map.
    pub(crate) fn node(&self, at: NodeAt) -> &Address {
        &self.nodes[usize::from(at.0)]
    }

    pub(crate) fn nodes(&self) -> &[Address] {
        &self.nodes
    }

    /// Somebody said that this slot is led there.
    pub(crate) fn moved(&mut self, slot: Slot, to: Address) {
        self.leaders[index(slot)] = self.position(to);
    }

    fn position(&mut self, node: Address) -> u16 {
        let position = self.nodes.iter().position(|known| *known == node).unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        u16::try_from(position).unwrap_or(NOBODY)
    }
}

fn index(slot: Slot) -> usize {
    usize::from(slot.number())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> Address {
        Address::new("10.0.0.1:7001")
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let host = Value::Bytes(host.to_owned().into());
        let leader = Value::Array(vec![host, Value::Integer(port)]);
        Value::Array(vec![Value::Integer(first), Value::Integer(last), leader])
    }

    fn slot(number: u16) -> Slot {
        Slot::new(number).expect("a slot")
    }

    #[test]
    fn ranges_say_who_leads() {
        let reply =
            Value::Array(vec![range(0, 99, "10.0.0.2", 7001), range(200, 16_383, "", 7003)]);
        let mut topology = Topology::of_slots(&address(), &reply).expect("it makes sense");
        let leader = |topology: &Topology, number| {
            topology.leader(slot(number)).map(|node| node.as_str().to_owned())
        };
        assert_eq!(leader(&topology, 99).as_deref(), Some("10.0.0.2:7001"));
        assert_eq!(leader(&topology, 100), None);
        assert_eq!(leader(&topology, 16_383).as_deref(), Some("10.0.0.1:7003"));
        topology.moved(slot(100), Address::new("10.0.0.2:7001"));
        assert_eq!(leader(&topology, 100).as_deref(), Some("10.0.0.2:7001"));
        assert_eq!(topology.nodes().len(), 2);
    }

    #[test]
    fn redirections_name_a_slot_and_an_address() {
        let to = |text: &str| {
            address().redirected(text).map(|(slot, to)| (slot.number(), to.as_str().to_owned()))
        };
        assert_eq!(to("17 10.0.0.3:7002"), Some((17, "10.0.0.3:7002".to_owned())));
        assert_eq!(to("17 :7002"), Some((17, "10.0.0.1:7002".to_owned())));
        assert_eq!(to("17 ::1:7002"), Some((17, "[::1]:7002".to_owned())));
        for text in ["", "17", "x 10.0.0.3:7002", "16384 10.0.0.3:7002", "1 nowhere"] {
            assert_eq!(to(text), None, "{text:?}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<i64>().prop_map(Value::Integer),
            (0..20_000_i64).prop_map(Value::Integer),
            "[a-z]{0,3}".prop_map(|text| Value::Bytes(text.into())),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop::collection::vec(inner, 0..5).prop_map(Value::Array)
        })
    }

    proptest! {
        #[test]
        fn no_reply_panics(reply in value()) {
            let _whatever = Topology::of_slots(&address(), &reply);
        }

        #[test]
        fn every_slot_of_a_range_has_its_leader(first in 0..16_384_i64, length in 0..16_384_i64) {
            let last = (first + length).min(16_383);
            let reply = Value::Array(vec![range(first, last, "h", 1)]);
            let topology = Topology::of_slots(&address(), &reply).expect("it makes sense");
            for number in 0..Slot::COUNT {
                let leads = topology.leader(slot(number)).is_some();
                prop_assert_eq!(leads, (first..=last).contains(&i64::from(number)));
            }
        }
    }
}
