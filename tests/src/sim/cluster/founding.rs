//! How a simulated cluster begins.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;
use scatterhoard_node::{AnyKeyReads, Config};
use scatterhoard_store::Policy;
use turmoil::Sim;

use super::{Cluster, LATENCY_MAX, LATENCY_MIN, TELLER, TICK};
use crate::sim::audit::Audit;
use crate::sim::chance;
use crate::sim::client::Port;
use crate::sim::links::Links;
use crate::sim::node::PEER;
use crate::sim::trace::Trace;
use scatterhoard_check::history::Recorder;

/// Segments on their way on one connection, and connections that wait to be accepted. turmoil panics
/// where too many connections wait.
const TCP_CAPACITY: usize = 4096;
const UDP_CAPACITY: usize = 1024;

/// What a cluster is like when it is founded.
pub struct Founding {
    count: usize,
    clients: usize,
    config: Config,
}

impl Founding {
    pub(super) fn of(count: usize) -> Self {
        let config = Config {
            partitions: 3,
            replace_after: Duration::from_secs(5),
            leave_timeout: Duration::from_secs(10),
            ..Config::default()
        };
        Self { count, clients: 0, config }
    }

    /// Voters that each partition should have. By default 3.
    #[must_use]
    pub fn replicas(mut self, replicas: u8) -> Self {
        self.config.replicas = replicas;
        self
    }

    /// Voters below which a partition refuses writes. By default 1.
    #[must_use]
    pub fn replicas_min(mut self, replicas: u8) -> Self {
        self.config.replicas_min = replicas;
        self
    }

    /// Partitions. By default 3: each costs time in every tick.
    #[must_use]
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.config.partitions = partitions;
        self
    }

    /// How long a member must be gone before it is dismissed. By default 5 s.
    #[must_use]
    pub fn replace_after(mut self, patience: Duration) -> Self {
        self.config.replace_after = patience;
        self
    }

    /// Bytes of a log beyond which it is purged. By default as much as a node's.
    #[must_use]
    pub fn log_bytes_max(mut self, bytes: usize) -> Self {
        self.config.log_bytes_max = bytes;
        self
    }

    /// Bytes for keys and values on each node, and what to evict beyond that. By default no limit.
    #[must_use]
    pub fn maxmemory(mut self, bytes: u64, policy: Policy) -> Self {
        self.config.maxmemory = bytes;
        self.config.maxmemory_policy = policy;
        self
    }

    /// Reads at the any-key ports may be answered from copies. By default leaders are asked.
    #[must_use]
    pub fn near_reads(mut self) -> Self {
        self.config.any_key_reads = AnyKeyReads::Near;
        self
    }

    /// Machines for clients beside the story's own.
    #[must_use]
    pub fn clients(mut self, count: usize) -> Self {
        self.clients = count;
        self
    }

    /// Founds the cluster, and waits until it is writable and fully replicated.
    ///
    /// # Panics
    /// If it does not get there.
    #[must_use]
    pub fn seed(self, seed: u64) -> Cluster {
        let mut cluster = self.start(seed);
        cluster.settle();
        cluster
    }

    /// Starts all nodes at once, and does not wait.
    #[must_use]
    pub fn start(self, seed: u64) -> Cluster {
        chance::seed(seed);
        let trace = std::env::var("SIM_LOG").ok().map(|filter| Trace::start(&filter));
        let mut cluster = Cluster {
            sim: simulation(seed),
            seed,
            config: self.config,
            machines: Vec::new(),
            clients: Vec::new(),
            desks: Vec::new(),
            links: Links::default(),
            slow: BTreeSet::new(),
            slow_apps: BTreeSet::new(),
            recorder: Recorder::new(),
            teller: None,
            trace,
            events: Vec::new(),
            audit: Audit::begin(),
            lurking: None,
            rng: StdRng::seed_from_u64(seed),
            killed_count: 0,
        };
        // All node's addresses come first, so that the first node's is the lowest.
        let ips: Vec<_> = (1..=self.count).map(|node| cluster.address_of(node)).collect();
        for client in 0..self.clients + 2 {
            cluster.add_client(client);
        }
        let join: Vec<_> = ips.iter().map(|ip| format!("{ip}:{PEER}")).collect();
        for node in 1..=self.count {
            cluster.add_machine(node, join.clone());
        }
        cluster.teller = Some(cluster.client(TELLER, Port::Cluster));
        cluster
    }
}

fn simulation(seed: u64) -> Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH)
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(365 * 24 * 3600))
        .min_message_latency(LATENCY_MIN)
        .max_message_latency(LATENCY_MAX)
        .tcp_capacity(TCP_CAPACITY)
        .udp_capacity(UDP_CAPACITY)
        .enable_random_order()
        .build()
}
