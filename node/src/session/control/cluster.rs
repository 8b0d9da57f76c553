//! `CLUSTER …`: who serves what, on the cluster port. The any-key port is one server to its clients.

use scatterhoard_command::{ClusterCommand, CommandError};
use scatterhoard_resp::Encoder;
use scatterhoard_ring::Slot;

use super::super::stage::Door;
use super::Control;
use crate::cluster_view::{ClusterView, hex_of, node_of};
use crate::span;

/// Keys of one slot that are told at once. Redis has no bound; whoever moves slots asks for some hundred.
const SLOT_KEYS_COUNT_MAX: u64 = 100_000;

impl Control {
    pub(super) async fn about_cluster(&mut self, command: ClusterCommand<'_>, out: &mut Vec<u8>) {
        let mut reply = Encoder::new(out, self.protocol);
        if self.door != Door::Cluster {
            let text = "This instance has cluster support disabled";
            return self.refuse(&mut reply, &CommandError::NotHere(text));
        }
        match command {
            ClusterCommand::Slots => {
                self.with_view(&mut reply, |view, reply| view.put_slots(reply))
            }
            ClusterCommand::Shards => {
                self.with_view(&mut reply, |view, reply| view.put_shards(reply))
            }
            ClusterCommand::Nodes => {
                self.with_view(&mut reply, |view, reply| reply.verbatim(&view.nodes_text()));
            }
            ClusterCommand::Info => {
                self.with_view(&mut reply, |view, reply| reply.verbatim(&view.info_text()));
            }
            // A shard is a node with what it leads.
            ClusterCommand::MyId | ClusterCommand::MyShardId => {
                reply.bulk(hex_of(self.core.node).as_bytes());
            }
            ClusterCommand::KeySlot { key } => {
                reply.integer(i64::from(Slot::of(key).number()));
            }
            ClusterCommand::CountKeysInSlot { slot } => {
                span::put_slot_count(&self.core, slot, &mut reply).await;
            }
            ClusterCommand::GetKeysInSlot { slot, count } => {
                let count = usize::try_from(count.min(SLOT_KEYS_COUNT_MAX)).unwrap_or(usize::MAX);
                span::put_slot_keys(&self.core, slot, count, &mut reply).await;
            }
            // Links between nodes are not counted in Redis's terms.
            ClusterCommand::Links => reply.array(0),
            ClusterCommand::Replicas { node } => self.put_replicas(node, &mut reply),
            ClusterCommand::Meet { .. } => {
                let text = format!(
                    "nodes join by themselves: start the other one with `hoard node --join {}`",
                    self.core.endpoints.peer
                );
                self.refuse_text(&mut reply, &text);
            }
            ClusterCommand::Forget { node } => self.put_forget(node, &mut reply),
            ClusterCommand::Failover(_) => {
                let text = "leaders are elected for each partition, and spread by themselves: stop a \
                            node with `hoard drain`, and others lead what it led";
                self.refuse(&mut reply, &CommandError::NotHere(text));
            }
        }
    }

    pub(super) fn refuse_text(&self, reply: &mut Encoder<'_>, text: &str) {
        self.core.stats.erred(crate::stats::ErrorCode::Err);
        reply.error("ERR", text);
    }

    fn with_view(
        &self,
        reply: &mut Encoder<'_>,
        put: impl FnOnce(&ClusterView<'_>, &mut Encoder<'_>),
    ) {
        match self.core.tables.newest() {
            Some(table) => put(&ClusterView::of(&self.core, &table), reply),
            None => {
                self.core.stats.erred(crate::stats::ErrorCode::ClusterDown);
                reply.error("CLUSTERDOWN", "The node is not yet a member of a cluster");
            }
        }
    }

    /// Followers serve nothing to clients, so no node has replicas to be told.
    fn put_replicas(&self, node: &[u8], reply: &mut Encoder<'_>) {
        match self.member(node) {
            Some(_) => reply.array(0),
            None => self.refuse(reply, &CommandError::unknown_node(node)),
        }
    }

    fn put_forget(&self, node: &[u8], reply: &mut Encoder<'_>) {
        match self.member(node) {
            Some(name) => {
                let text = format!(
                    "a member leaves with `hoard drain {name}`; one that is gone is dismissed by \
                     itself after a while"
                );
                self.refuse_text(reply, &text);
            }
            None => self.refuse(reply, &CommandError::unknown_node(node)),
        }
    }

    /// The name of the member with this id.
    fn member(&self, id: &[u8]) -> Option<String> {
        let (node, table) = (node_of(id)?, self.core.tables.newest()?);
        table.members.get(&node).map(|member| member.name.clone())
    }
}
