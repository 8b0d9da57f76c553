//! What a node is told when it starts.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use scatterhoard_cluster::Secret;
use scatterhoard_ring::Settings;
use scatterhoard_store::Policy;

/// What a node is told when it starts. Made by the command line; a test makes its own.
#[derive(Clone, Debug)]
pub struct Config {
    /// What people call the node; outlives its life. By default its peer address. `1..=64` bytes.
    pub name: Option<String>,
    /// What fails together with it. At most 64 bytes.
    pub zone: String,
    /// Redis protocol, cluster mode.
    pub listen: SocketAddr,
    /// Redis protocol, any key.
    pub any_key: SocketAddr,
    /// Metrics, health, administration.
    pub http: SocketAddr,
    /// Peers (TCP) and gossip (UDP).
    pub peer: SocketAddr,
    /// The address that others are told, if it is not the one listened on.
    pub advertise: Option<IpAddr>,
    /// Peer addresses of a cluster to join, `host:port` each. Empty: found one.
    pub join: Vec<String>,
    /// At founding: replicas of each partition, `1..=7`.
    pub replicas: u8,
    /// At founding: voters below which a partition refuses writes.
    pub replicas_min: u8,
    /// At founding: partitions, `1..=1024`.
    pub partitions: u16,
    /// At founding: how long a member must be gone before it is dismissed, within
    /// [`Config::replace_after_bounds`].
    pub replace_after: Duration,
    /// Bytes for keys and values, replicas included. 0: no limit.
    pub maxmemory: u64,
    /// What to evict when that is used up.
    pub maxmemory_policy: Policy,
    /// Bytes of a value, and of one argument of a command.
    pub value_bytes_max: usize,
    /// Clients at a time, of both Redis ports together.
    pub clients_max: usize,
    /// The most that `CONFIG SET maxclients` may make of that: what the process has descriptors for.
    pub clients_limit: usize,
    /// Password of the default user, if it needs one.
    pub requirepass: Option<String>,
    /// Authenticates peers and gossip.
    pub secret: Option<Secret>,
    /// Bytes of a replica's log beyond which it is purged. The more, the longer may a follower be away
    /// without a snapshot; but it is memory that the keys do not get.
    pub log_bytes_max: usize,
    /// Bytes of copies of what other nodes lead. 0: none are kept.
    pub near_cache_bytes: u64,
    /// How old the answer from such a copy may be, within [`Config::near_staleness_bounds`].
    pub near_staleness_max: Duration,
    /// How the any-key port answers reads of keys that other nodes lead, unless a client says otherwise.
    pub any_key_reads: AnyKeyReads,
    /// How long a write may take before it is in doubt.
    pub write_timeout: Duration,
    /// How long leaving may take.
    pub leave_timeout: Duration,
}

impl Config {
    /// Bytes that a name or a zone may have.
    pub const LABEL_BYTES_MAX: usize = scatterhoard_ring::LABEL_BYTES_MAX;

    /// What `near_staleness_max` may be: long enough that news can come in time, and no longer than anybody
    /// would believe in a copy.
    #[must_use]
    pub const fn near_staleness_bounds() -> RangeInclusive<Duration> {
        Duration::from_millis(20)..=Duration::from_secs(60)
    }

    /// What `replace_after` may be: no shorter than followers may wait before they elect another leader,
    /// so that no member is given up whose groups have not noticed yet, and in the table's 32 bits of
    /// milliseconds.
    #[must_use]
    pub fn replace_after_bounds() -> RangeInclusive<Duration> {
        let least = Settings::default().election_ms_max;
        Duration::from_millis(least.into())..=Duration::from_millis(u32::MAX.into())
    }
}

/// How the any-key port answers reads of keys that other nodes lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyKeyReads {
    /// The leader is asked: they are linearizable.
    Leader,
    /// From copies where there are some, no older than [`Config::near_staleness_max`].
    Near,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            name: None,
            zone: String::new(),
            listen: local(6379),
            any_key: local(7379),
            http: local(8379),
            peer: local(16_379),
            advertise: None,
            join: Vec::new(),
            replicas: 3,
            replicas_min: 1,
            partitions: 8,
            replace_after: Duration::from_secs(30),
            maxmemory: 0,
            maxmemory_policy: Policy::NoEviction,
            value_bytes_max: 64 << 20,
            clients_max: 10_000,
            clients_limit: usize::MAX,
            requirepass: None,
            secret: None,
            log_bytes_max: 2 << 20,
            near_cache_bytes: 64 << 20,
            near_staleness_max: Duration::from_millis(200),
            any_key_reads: AnyKeyReads::Leader,
            write_timeout: Duration::from_secs(2),
            leave_timeout: Duration::from_secs(20),
        }
    }
}
