//! `CLUSTER …`: commands about who serves what.

use scatterhoard_ring::Slot;

/// About who serves what.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterCommand<'a> {
    /// `CLUSTER SLOTS`
    Slots,
    /// `CLUSTER SHARDS`
    Shards,
    /// `CLUSTER NODES`
    Nodes,
    /// `CLUSTER INFO`
    Info,
    /// `CLUSTER MYID`
    MyId,
    /// `CLUSTER MYSHARDID`
    MyShardId,
    /// `CLUSTER KEYSLOT key`: the slot's number, whether or not the key exists.
    KeySlot {
        /// Any key.
        key: &'a [u8],
    },
    /// `CLUSTER COUNTKEYSINSLOT slot`
    CountKeysInSlot {
        /// Whose keys.
        slot: Slot,
    },
    /// `CLUSTER GETKEYSINSLOT slot count`
    GetKeysInSlot {
        /// Whose keys.
        slot: Slot,
        /// At most so many: `[0, 2^63)`.
        count: u64,
    },
    /// `CLUSTER LINKS`
    Links,
    /// `CLUSTER REPLICAS node`, also called `SLAVES`.
    Replicas {
        /// 40 hexadecimal digits, or what the client takes for that. Unknown ones are answered with
        /// [`CommandError::unknown_node`](crate::CommandError::unknown_node).
        node: &'a [u8],
    },
    /// `CLUSTER MEET host port [peer-port]`
    Meet {
        /// An IP address or a name.
        host: &'a [u8],
        /// Where that node serves clients: `[0, 65535]`.
        port: u16,
        /// Where that node listens to peers, if said.
        peer_port: Option<u16>,
    },
    /// `CLUSTER FORGET node`
    Forget {
        /// As in `Replicas`.
        node: &'a [u8],
    },
    /// `CLUSTER FAILOVER [FORCE|TAKEOVER]`
    Failover(FailoverMode),
}

/// How much a failover asks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailoverMode {
    /// Hand over in agreement.
    Agreed,
    /// `FORCE`: without the leader.
    Force,
    /// `TAKEOVER`: without a majority.
    Takeover,
}
