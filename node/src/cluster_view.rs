//! The cluster as Redis clients are told: nodes that are all masters, and the slots that each leads.
//!
//! Clients keep one role for each address, so a node that leads some partitions and follows in others
//! cannot be told as it is: followers are left out. Every slot has an owner, ranges are merged and in
//! order, and a member without slots is still a member.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use scatterhoard_resp::Encoder;
use scatterhoard_ring::{Epoch, NodeId, PartitionId, Slot, SlotRange, Table};

use crate::core::Core;

/// The cluster at one moment.
pub(crate) struct ClusterView<'a> {
    me: NodeId,
    nodes: BTreeMap<NodeId, NodeView>,
    /// In the order of slots, as few as possible.
    rows: Vec<(SlotRange, NodeId)>,
    /// Slots of partitions whose leader is known.
    slots_ok: u16,
    table: &'a Table,
}

struct NodeView {
    addr: SocketAddr,
    peer_port: u16,
    alive: bool,
    slots: Vec<SlotRange>,
}

/// The 40 hexadecimal digits that stand for a node: those of its id, as often as they fit.
pub(crate) fn hex_of(node: NodeId) -> String {
    let digits = format!("{:016x}", node.number());
    digits.chars().cycle().take(40).collect()
}

/// The node that these digits stand for.
pub(crate) fn node_of(hex: &[u8]) -> Option<NodeId> {
    let digits = str::from_utf8(hex.get(..16)?).ok()?;
    let node = NodeId::new(u64::from_str_radix(digits, 16).ok()?);
    hex_of(node).as_bytes().eq_ignore_ascii_case(hex).then_some(node)
}

impl<'a> ClusterView<'a> {
    pub(crate) fn of(core: &Core, table: &'a Table) -> Self {
        let owners = core.owners(table);
        let view = std::sync::Arc::clone(&core.views.borrow());
        let alive = |node: NodeId| {
            node == core.node || view.alive.contains_key(&node) || core.peers.connected(node)
        };
        let known = |id: PartitionId| {
            core.leader_of(table, scatterhoard_ring::GroupId::Partition(id)).is_some()
        };
        Self::from_parts(core.node, table, &owners, alive, known)
    }

    fn from_parts(
        me: NodeId,
        table: &'a Table,
        owners: &BTreeMap<PartitionId, NodeId>,
        alive: impl Fn(NodeId) -> bool,
        known: impl Fn(PartitionId) -> bool,
    ) -> Self {
        // Someone has to be told even where no member is left that could: we say what is wrong.
        let owner = |id| owners.get(&id).copied().unwrap_or(me);
        let slots = table.partitions.iter().map(|(&id, partition)| (partition.slots, owner(id)));
        let rows = merged(slots.collect());
        let nodes = table.members.iter().map(|(&node, member)| {
            let slots = rows.iter().filter(|&&(_, owner)| owner == node).map(|&(slots, _)| slots);
            let view = NodeView {
                addr: member.endpoints.listen,
                peer_port: member.endpoints.peer.port(),
                alive: alive(node),
                slots: slots.collect(),
            };
            (node, view)
        });
        let led = table.partitions.iter().filter(|&(&id, _)| known(id));
        let slots_ok = led.map(|(_, partition)| partition.slots.len()).sum();
        Self { me, nodes: nodes.collect(), rows, slots_ok, table }
    }

    /// `CLUSTER SLOTS`
    pub(crate) fn put_slots(&self, reply: &mut Encoder<'_>) {
        let rows = self
            .rows
            .iter()
            .filter_map(|&(slots, node)| Some((slots, node, self.nodes.get(&node)?)));
        let rows: Vec<_> = rows.collect();
        reply.array(rows.len());
        for (slots, node, view) in rows {
            reply.array(3);
            put_range(reply, slots);
            reply.array(4);
            reply.bulk(view.addr.ip().to_string().as_bytes());
            reply.integer(view.addr.port().into());
            reply.bulk(hex_of(node).as_bytes());
            reply.map(0);
        }
    }

    /// `CLUSTER SHARDS`: a shard for each node.
    pub(crate) fn put_shards(&self, reply: &mut Encoder<'_>) {
        reply.array(self.nodes.len());
        for (&node, view) in &self.nodes {
            reply.map(2);
            reply.bulk(b"slots");
            reply.array(2 * view.slots.len());
            for &slots in &view.slots {
                put_range(reply, slots);
            }
            reply.bulk(b"nodes");
            reply.array(1);
            let ip = view.addr.ip().to_string();
            reply.map(7);
            put_text(reply, "id", &hex_of(node));
            reply.bulk(b"port");
            reply.integer(view.addr.port().into());
            put_text(reply, "ip", &ip);
            put_text(reply, "endpoint", &ip);
            put_text(reply, "role", "master");
            reply.bulk(b"replication-offset");
            reply.integer(0);
            put_text(reply, "health", if view.alive { "online" } else { "fail" });
        }
    }

    /// `CLUSTER NODES`. Pings are not counted in Redis's terms: both times are 0.
    pub(crate) fn nodes_text(&self) -> String {
        let epoch = epoch_of(self.table.epoch);
        let mut text = String::new();
        for (&node, view) in &self.nodes {
            let myself = if node == self.me { "myself," } else { "" };
            let (suspected, link) =
                if view.alive { ("", "connected") } else { (",fail?", "disconnected") };
            let (id, addr, peer_port) = (hex_of(node), view.addr, view.peer_port);
            write!(text, "{id} {addr}@{peer_port} {myself}master{suspected} - 0 0 {epoch} {link}")
                .expect("a String takes what is written");
            for slots in &view.slots {
                let (first, last) = (slots.first(), slots.last());
                let written = match slots.len() {
                    1 => write!(text, " {first}"),
                    _ => write!(text, " {first}-{last}"),
                };
                written.expect("a String takes what is written");
            }
            text.push('\n');
        }
        text
    }

    /// `CLUSTER INFO`
    pub(crate) fn info_text(&self) -> String {
        let epoch = epoch_of(self.table.epoch);
        let (ok, failed) = (self.slots_ok, Slot::COUNT - self.slots_ok);
        // Partitions fail one by one here, and what is left serves on; so does the word.
        let state = if ok > 0 { "ok" } else { "fail" };
        let size = self.nodes.values().filter(|view| !view.slots.is_empty()).count();
        format!(
            "cluster_enabled:1\r\ncluster_state:{state}\r\ncluster_slots_assigned:{}\r\n\
             cluster_slots_ok:{ok}\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:{failed}\r\n\
             cluster_known_nodes:{}\r\ncluster_size:{size}\r\ncluster_current_epoch:{epoch}\r\n\
             cluster_my_epoch:{epoch}\r\ncluster_stats_messages_sent:0\r\n\
             cluster_stats_messages_received:0\r\n\
             total_cluster_links_buffer_limit_exceeded:0\r\n",
            Slot::COUNT,
            self.nodes.len(),
        )
    }
}

/// As few ranges as possible, in the order of slots.
fn merged(mut slots: Vec<(SlotRange, NodeId)>) -> Vec<(SlotRange, NodeId)> {
    slots.sort_unstable();
    let mut rows: Vec<(SlotRange, NodeId)> = Vec::new();
    for (range, node) in slots {
        let (first, end) = (range.first().number(), range.last().number() + 1);
        let joined = rows
            .last()
            .filter(|&&(last, owner)| owner == node && last.last().number() + 1 == first);
        match joined.and_then(|&(last, _)| SlotRange::new(last.first().number(), end)) {
            Some(longer) => {
                rows.pop();
                rows.push((longer, node));
            }
            None => rows.push((range, node)),
        }
    }
    rows
}

/// One number that grows with every version of the table.
fn epoch_of(epoch: Epoch) -> u64 {
    (u64::from(epoch.generation.number().saturating_sub(1)) << 32) + epoch.index
}

fn put_range(reply: &mut Encoder<'_>, slots: SlotRange) {
    reply.integer(slots.first().number().into());
    reply.integer(slots.last().number().into());
}

fn put_text(reply: &mut Encoder<'_>, name: &str, value: &str) {
    reply.bulk(name.as_bytes());
    reply.bulk(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use scatterhoard_resp::{Protocol, ReplyLimits, Value};
    use scatterhoard_ring::{ClusterId, Endpoints, Generation, Member, Settings, Standing};

    use super::*;

    fn member(node: u64) -> Member {
        let addr = |port: u16| SocketAddr::from(([10, 0, 0, node as u8], port));
        Member {
            node: NodeId::new(node),
            name: format!("n{node}"),
            zone: String::new(),
            endpoints: Endpoints {
                peer: addr(16_379),
                listen: addr(6379),
                any_key: addr(7379),
                http: addr(8379),
            },
            standing: Standing::Active,
            admitted: Epoch::default(),
            version: "1".into(),
        }
    }

    /// Four partitions and two members.
    fn table() -> Table {
        let epoch = Epoch { generation: Generation::new(1), index: 1 };
        let (cluster, settings) = (ClusterId::new(1), Settings::default());
        let mut table = Table::found(cluster, settings, member(1), 4, epoch).unwrap();
        table.members.insert(NodeId::new(2), member(2));
        table
    }

    fn view<'a>(table: &'a Table, owners: &[u64]) -> ClusterView<'a> {
        let owner = |(&id, &node): (&PartitionId, &u64)| (id, NodeId::new(node));
        let owners = table.partitions.keys().zip(owners).map(owner).collect();
        let alive = |node| node == NodeId::new(1);
        ClusterView::from_parts(NodeId::new(1), table, &owners, alive, |id| id.number() != 3)
    }

    fn shape(protocol: Protocol, put: impl FnOnce(&mut Encoder<'_>)) -> Value {
        let mut out = Vec::new();
        put(&mut Encoder::new(&mut out, protocol));
        let (value, bytes) = Value::decode(&out, ReplyLimits::DEFAULT).unwrap().unwrap();
        assert_eq!(bytes, out.len());
        value
    }

    #[test]
    fn an_id_is_forty_digits_and_leads_back() {
        let node = NodeId::new(0x1234_5678_9abc_def0);
        let hex = hex_of(node);
        assert_eq!(hex, "123456789abcdef0123456789abcdef012345678");
        assert_eq!(node_of(hex.as_bytes()), Some(node));
        for wrong in ["", "aaaa", &hex[..39], "123456789abcdef0123456789abcdef012345679"] {
            assert_eq!(node_of(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn slots_are_merged_in_order_and_without_holes() {
        let table = table();
        let view = view(&table, &[1, 1, 2, 1]);
        let row = |first: i64, last: i64, node: u64| {
            let view = Value::Array(vec![
                Value::Bulk(format!("10.0.0.{node}").into()),
                Value::Integer(6379),
                Value::Bulk(hex_of(NodeId::new(node)).into()),
                Value::Array(vec![]),
            ]);
            Value::Array(vec![Value::Integer(first), Value::Integer(last), view])
        };
        let rows = vec![row(0, 8191, 1), row(8192, 12_287, 2), row(12_288, 16_383, 1)];
        assert_eq!(shape(Protocol::Resp2, |out| view.put_slots(out)), Value::Array(rows));
    }

    #[test]
    fn a_member_without_slots_is_told_but_has_no_row() {
        let table = table();
        let view = view(&table, &[1, 1, 1]);
        assert_eq!(
            view.rows,
            [(SlotRange::ALL, NodeId::new(1))],
            "nobody's slots are ours to refuse"
        );
        let (one, two) = (hex_of(NodeId::new(1)), hex_of(NodeId::new(2)));
        let expected = format!(
            "{one} 10.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-16383\n\
             {two} 10.0.0.2:6379@16379 master,fail? - 0 0 1 disconnected\n"
        );
        assert_eq!(view.nodes_text(), expected);
        let Value::Array(shards) = shape(Protocol::Resp3, |out| view.put_shards(out)) else {
            panic!("an array of shards");
        };
        let slots: Vec<_> = shards
            .iter()
            .map(|shard| match shard {
                Value::Map(pairs) => pairs[0].1.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        let all = [0, 16_383].map(Value::Integer).to_vec();
        assert_eq!(slots, [Value::Array(all), Value::Array(vec![])]);
    }

    #[test]
    fn what_has_no_leader_counts_as_failed() {
        let table = table();
        let text = view(&table, &[1, 1, 2, 1]).info_text();
        for line in [
            "cluster_state:ok",
            "cluster_slots_assigned:16384",
            "cluster_slots_ok:12288",
            "cluster_slots_fail:4096",
            "cluster_known_nodes:2",
            "cluster_size:2",
        ] {
            assert!(text.split("\r\n").any(|it| it == line), "{line} in {text}");
        }
    }
}
