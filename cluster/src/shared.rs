//! What all connections of a node share: who it is, which connections there are, and their tasks.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use scatterhoard_ring::{ClusterId, NodeId};
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::connection::{Ended, PULSES_TO_PING, Pulse};
use crate::handshake::Greeting;
use crate::link::Link;
use crate::muffle::Muffle;
use crate::{CallError, Identity, Lane, Limits, Network, Secret, Target, secret};

/// Ways that may be kept. Each may hold queues; more peers than that is a mistake.
const LINKS_COUNT_MAX: usize = 4096;

/// Pulses between two looks for ways that are of no more use.
const PULSES_TO_TIDY: u64 = 256;

/// A way to a peer: to whom, where, on which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) node: NodeId,
    pub(crate) addr: SocketAddr,
    pub(crate) lane: Lane,
}

/// What all connections of a node share.
pub(crate) struct Shared {
    pub(crate) net: Arc<dyn Network>,
    pub(crate) limits: Limits,
    pub(crate) secret: Option<Secret>,
    pub(crate) muffle: Muffle,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
    node: NodeId,
    build: String,
    /// Cluster and timers: what a node learns after it has started.
    learned: RwLock<(ClusterId, String)>,
    links: RwLock<BTreeMap<Way, Arc<Link>>>,
    connections: Mutex<BTreeMap<u64, Connected>>,
    /// Since when nobody listens at an address, as far as was tried.
    refused: Mutex<BTreeMap<SocketAddr, Instant>>,
    connections_count: AtomicU64,
    nonces_count: AtomicU64,
    one_ways_count: AtomicU64,
    runtime: Handle,
}

struct Connected {
    node: NodeId,
    cluster: ClusterId,
    pulse: Arc<Pulse>,
}

impl Shared {
    pub(crate) fn new(
        net: Arc<dyn Network>,
        identity: Identity,
        limits: Limits,
        shutdown: CancellationToken,
    ) -> Self {
        assert!(identity.node.number() != 0, "a node has an id");
        assert!(limits.ping_after < limits.silence_max, "a peer is asked before it is given up");
        assert!(limits.message_bytes_max <= 1 << 30, "lengths on the wire have 32 bits");
        Self {
            net,
            limits,
            secret: identity.secret,
            muffle: Muffle::default(),
            shutdown,
            tasks: TaskTracker::new(),
            node: identity.node,
            build: identity.build,
            learned: RwLock::new((identity.cluster, String::new())),
            links: RwLock::default(),
            connections: Mutex::default(),
            refused: Mutex::default(),
            connections_count: AtomicU64::new(0),
            nonces_count: AtomicU64::new(0),
            one_ways_count: AtomicU64::new(0),
            runtime: Handle::current(),
        }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// What this node says about itself in one handshake.
    pub(crate) fn greeting(&self) -> Greeting {
        let (cluster, timers) = self.learned.read().clone();
        let count = self.nonces_count.fetch_add(1, Ordering::Relaxed);
        Greeting {
            cluster,
            node: self.node,
            has_secret: self.secret.is_some(),
            message_bytes_max: self.limits.message_bytes_max as u64,
            nonce: secret::nonce(self.secret.as_ref(), self.node, count),
            build: self.build.clone(),
            timers,
        }
    }

    /// Notes whether somebody listens at an address, as an attempt to connect has shown.
    pub(crate) fn tried<T>(&self, addr: SocketAddr, outcome: &io::Result<T>) {
        let mut refused = self.refused.lock();
        match outcome {
            Ok(_) => {
                refused.remove(&addr);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if refused.len() < LINKS_COUNT_MAX {
                    refused.entry(addr).or_insert_with(Instant::now);
                }
            }
            Err(_) => {}
        }
    }

    pub(crate) fn refused_since(&self, addr: SocketAddr) -> Option<Instant> {
        self.refused.lock().get(&addr).copied()
    }

    pub(crate) fn set_cluster(&self, cluster: ClusterId) {
        self.learned.write().0 = cluster;
        for connected in self.connections.lock().values() {
            if connected.cluster.number() != 0 && connected.cluster != cluster {
                connected.pulse.closed.cancel();
            }
        }
    }

    pub(crate) fn set_timers(&self, timers: &str) {
        let end = timers.floor_char_boundary(crate::handshake::TEXT_BYTES_MAX);
        timers[..end].clone_into(&mut self.learned.write().1);
    }

    pub(crate) fn link(&self, to: Target, lane: Lane) -> Result<Arc<Link>, CallError> {
        let way = Way { node: to.node, addr: to.addr, lane };
        if let Some(link) = self.links.read().get(&way) {
            return Ok(Arc::clone(link));
        }
        let mut links = self.links.write();
        if links.len() >= LINKS_COUNT_MAX {
            return Err(CallError::Unsent("too many peers".to_owned()));
        }
        let link = links.entry(way).or_insert_with(|| Arc::new(Link::new(way, self)));
        Ok(Arc::clone(link))
    }

    pub(crate) fn next_one_way(&self) -> u64 {
        self.one_ways_count.fetch_add(1, Ordering::Relaxed)
    }

    /// Enters a live, authenticated connection; answers with its number.
    pub(crate) fn connected(&self, node: NodeId, cluster: ClusterId, pulse: Arc<Pulse>) -> u64 {
        let number = self.connections_count.fetch_add(1, Ordering::Relaxed) + 1;
        self.connections.lock().insert(number, Connected { node, cluster, pulse });
        number
    }

    pub(crate) fn disconnected(&self, number: u64) {
        self.connections.lock().remove(&number);
    }

    /// Takes note that a connection has ended. What only a broken or hostile peer does is worth a warning.
    pub(crate) fn ended(&self, node: NodeId, addr: SocketAddr, lane: Lane, ended: &Ended) {
        match ended {
            Ended::Here | Ended::There | Ended::Io(_) => {
                debug!(%node, %addr, ?lane, %ended, "peer connection ended");
            }
            Ended::Frame(_) | Ended::OutOfPlace => {
                if let Some(held_back) = self.muffle.admits() {
                    warn!(%node, %addr, ?lane, %ended, held_back, "peer connection closed");
                }
            }
        }
    }

    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        let connections = self.connections.lock();
        connections.values().any(|one| one.node == node && !one.pulse.closed.is_cancelled())
    }

    pub(crate) fn forget(&self, node: NodeId) {
        self.links.write().retain(|way, link| {
            if way.node == node {
                link.close();
            }
            way.node != node
        });
        for connected in self.connections.lock().values().filter(|one| one.node == node) {
            connected.pulse.closed.cancel();
        }
    }

    /// Beats every connection's pulse until shutdown.
    pub(crate) async fn beat(self: Arc<Self>) {
        let every = self.limits.ping_after / PULSES_TO_PING;
        let silent = self.limits.silence_max.as_nanos().div_ceil(every.as_nanos().max(1));
        let silent_pulses_max = u32::try_from(silent).unwrap_or(u32::MAX);
        let mut pulses = interval(every);
        pulses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for count in 1_u64.. {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                _ = pulses.tick() => {}
            }
            self.connections.lock().values().for_each(|one| one.pulse.beat(silent_pulses_max));
            if count.is_multiple_of(PULSES_TO_TIDY) {
                let now = Instant::now();
                self.links.write().retain(|_, link| !link.is_idle(now));
            }
        }
    }
}
