//! A node from its start to its end.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_cluster::{
    BoxStream, Identity, Limits, Listener, Network, Peers, SystemNet, View,
};
use scatterhoard_replication::{AddressOf, Groups, Tables};
use scatterhoard_ring::{Endpoints, GroupId, NodeId};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::chance::Chance;
use crate::clients::Clients;
use crate::clock::{MeasuredClock, SystemClock, WallClock};
use crate::config::Config;
use crate::core::{Core, VERSION};
use crate::hosting::Hosting;
use crate::near::Near;
use crate::recovery::Recovery;
use crate::session::Door;
use crate::settings::Settings;
use crate::{
    caretaker, doors, http, membership, pilot, recovery, reseat, service, session, timekeeping,
    tracking, upkeep,
};

/// Bytes under way in a connection inside the process, each way.
const INSIDE_BYTES: usize = 256 << 10;

/// What a node gets from outside: the system, or a simulation.
pub struct Environment {
    /// The network.
    pub net: Arc<dyn Network>,
    /// Wall time. Monotonic time is tokio's.
    pub wall: Arc<dyn WallClock>,
    /// Where all chance comes from. Two lives of a process must not have the same.
    pub seed: u64,
}

impl Environment {
    /// The system's network and clock, and chance that no other process has.
    #[must_use]
    pub fn system() -> Self {
        // std seeds its hash maps from the system's randomness.
        let seed = std::hash::RandomState::new().build_hasher().finish();
        Self { net: Arc::new(SystemNet), wall: Arc::new(SystemClock), seed }
    }
}

/// Why a node did not start, or did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be listened on.
    #[error("cannot listen on {addr}: {error}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The cluster, or the configuration, does not allow it.
    #[error("{0}")]
    Refused(String),
    /// It was told to stop while it waited to join.
    #[error("stopped before it had joined")]
    Stopped,
}

/// Where a node is reached, as others are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses(Endpoints);

impl Addresses {
    /// The four addresses.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        self.0
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoints { peer, listen, any_key, http } = self.0;
        write!(f, "redis {listen} (cluster), {any_key} (any key), http {http}, peers {peer}")
    }
}

/// A running node. Dropped without [`Node::shutdown`], its tasks go on until the runtime ends.
pub struct Node {
    pub(crate) core: Arc<Core>,
}

impl Node {
    /// Listens, finds or founds a cluster, and serves. Returns once the node is a member.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left behind.
    pub async fn start(config: Config, environment: Environment) -> Result<Self, StartError> {
        let node = Self::listen(config, environment).await?;
        if let Err(error) = node.enter().await {
            node.shutdown().await;
            return Err(error);
        }
        Ok(node)
    }

    /// Listens on all ports without being a member yet: peers are answered, clients wait.
    ///
    /// # Errors
    /// A port is taken.
    pub async fn listen(config: Config, environment: Environment) -> Result<Self, StartError> {
        let Environment { net, wall, seed } = environment;
        let ports = Ports::bind(&config, &*net).await?;
        let endpoints = advertised(&config, &ports.bound);
        let chance = Arc::new(Chance::new(seed));
        let node = chance.node_id();
        let shutdown = CancellationToken::new();
        let identity = Identity {
            cluster: scatterhoard_ring::ClusterId::new(0),
            node,
            secret: config.secret.clone(),
            build: VERSION.to_owned(),
        };
        let limits =
            Limits { message_bytes_max: config.value_bytes_max + (16 << 20), ..Limits::default() };
        let peers = Peers::new(Arc::clone(&net), identity, limits, shutdown.clone());
        let tables = Tables::default();
        let address_of = address_of(tables.clone());
        let groups = Groups::new(peers.clone(), address_of, shutdown.clone());
        let core = Arc::new(Core {
            node,
            name: config.name.clone().unwrap_or_else(|| endpoints.peer.to_string()),
            endpoints,
            started: Instant::now(),
            settings: Settings::new(&config),
            clients: Clients::new(config.clients_max, shutdown.clone()),
            stats: Arc::default(),
            tracking: Arc::default(),
            near: Arc::new(Near::new(&config)),
            config,
            net,
            wall: Arc::new(MeasuredClock::new(wall)),
            chance,
            tables,
            peers,
            groups,
            hosting: Hosting::default(),
            replicas: caretaker::Replicas::default(),
            gossip: OnceLock::new(),
            views: watch::Sender::new(Arc::new(View::default())),
            routes: watch::Sender::new(0),
            desk: pilot::Desk::default(),
            deaths: reseat::Deaths::default(),
            leaving: AtomicBool::new(false),
            leave_asked: CancellationToken::new(),
            found_asked: CancellationToken::new(),
            recovery: Recovery::default(),
            departed: CancellationToken::new(),
            dismissed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            shutdown,
        });
        ports.open(&core);
        Ok(Self { core })
    }

    /// Becomes a member, and serves from then on.
    ///
    /// # Errors
    /// The cluster refused.
    pub async fn enter(&self) -> Result<(), StartError> {
        membership::enter(&self.core).await?;
        let core = &self.core;
        core.tasks.spawn(caretaker::serve(Arc::clone(core)));
        core.tasks.spawn(pilot::serve(Arc::clone(core)));
        core.tasks.spawn(pilot::report(Arc::clone(core)));
        core.tasks.spawn(recovery::serve(Arc::clone(core)));
        core.tasks.spawn(upkeep::serve(Arc::clone(core)));
        core.tasks.spawn(timekeeping::serve(Arc::clone(core)));
        core.tasks.spawn(tracking::serve(Arc::clone(core)));
        Ok(())
    }

    /// This life of this process.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.core.node
    }

    /// Where others reach it.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses(self.core.endpoints)
    }

    /// A connection to the port for cluster clients without a socket, for whoever lives in the same process. It
    /// counts as a client like any other; `None` if there are too many.
    #[must_use]
    pub fn connect(&self) -> Option<BoxStream> {
        let core = &self.core;
        let here = core.endpoints.listen;
        let client = core.clients.admit(here, here, Door::Cluster).ok()?;
        let (ours, theirs) = tokio::io::duplex(INSIDE_BYTES);
        let served = session::serve(Arc::clone(core), client, Box::new(theirs), Door::Cluster);
        core.tasks.spawn(served);
        Some(Box::new(ours))
    }

    /// Ends when the cluster has dismissed this node: it serves nothing any more.
    pub async fn stopped(&self) {
        tokio::select! {
            () = self.core.dismissed.cancelled() => {}
            () = self.core.shutdown.cancelled() => {}
        }
    }

    /// Ends when somebody has asked this node to leave, over the admin interface.
    pub async fn asked_to_leave(&self) {
        self.core.leave_asked.cancelled().await;
    }

    /// Gives away what it holds, within `patience`, and stops. Others are told that it has ended, so
    /// that nobody waits for what it could not give away.
    pub async fn leave(&self, patience: Duration) {
        let left = membership::leave(&self.core, Instant::now() + patience).await;
        self.core.departed.cancel();
        self.core.groups.close_all().await;
        recovery::say_ended(&self.core, self.core.node).await;
        let partitions = left.iter().filter(|group| **group != GroupId::Council).count();
        if partitions > 0 {
            warn!(partitions, "left with replicas that no other node could take");
        } else {
            info!("left; everything was handed over");
        }
    }

    /// Stops at once. What others do not hold is gone.
    pub async fn shutdown(&self) {
        self.core.shutdown.cancel();
        self.core.tasks.close();
        self.core.groups.close_all().await;
        self.core.tasks.wait().await;
        self.core.peers.ended().await;
    }
}

/// The listeners, bound before anything else is done.
struct Ports {
    bound: Endpoints,
    listen: Box<dyn Listener>,
    any_key: Box<dyn Listener>,
    http: Box<dyn Listener>,
    peer: Box<dyn Listener>,
}

impl Ports {
    async fn bind(config: &Config, net: &dyn Network) -> Result<Self, StartError> {
        let bind = async |addr| {
            let listener = net.bind_tcp(addr).await;
            let listener = listener.map_err(|error| StartError::Bind { addr, error })?;
            let local = listener.local_addr().map_err(|error| StartError::Bind { addr, error })?;
            Ok((listener, local))
        };
        let (peer, peer_addr) = bind(config.peer).await?;
        let (listen, listen_addr) = bind(config.listen).await?;
        let (any_key, any_key_addr) = bind(config.any_key).await?;
        let (http, http_addr) = bind(config.http).await?;
        let bound = Endpoints {
            peer: peer_addr,
            listen: listen_addr,
            any_key: any_key_addr,
            http: http_addr,
        };
        Ok(Self { bound, listen, any_key, http, peer })
    }

    fn open(self, core: &Arc<Core>) {
        let desk = Arc::new(service::Desk(Arc::clone(core)));
        let peers = core.peers.clone();
        core.tasks.spawn(async move { peers.serve(self.peer, desk).await });
        core.tasks.spawn(doors::serve(Arc::clone(core), self.listen, Door::Cluster));
        core.tasks.spawn(doors::serve(Arc::clone(core), self.any_key, Door::AnyKey));
        core.tasks.spawn(http::serve(Arc::clone(core), self.http));
    }
}

/// What others are told: the address given for that, or what is listened on.
fn advertised(config: &Config, bound: &Endpoints) -> Endpoints {
    let told = |addr: SocketAddr| {
        let ip = config.advertise.unwrap_or_else(|| addr.ip());
        SocketAddr::new(ip, addr.port())
    };
    Endpoints {
        peer: told(bound.peer),
        listen: told(bound.listen),
        any_key: told(bound.any_key),
        http: told(bound.http),
    }
}

/// Where a node is, by the table: gossip may be wrong, and is not asked. A member that was dismissed
/// may still vote in a group until its replica is replaced, so where it was is remembered.
fn address_of(tables: Tables) -> AddressOf {
    let known = Mutex::new(BTreeMap::new());
    Arc::new(move |node| {
        let table = tables.newest()?;
        let mut known = known.lock();
        match table.members.get(&node) {
            Some(member) => {
                known.insert(node, member.endpoints.peer);
                Some(member.endpoints.peer)
            }
            None => known.get(&node).copied(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lives_share_their_chance() {
        assert_ne!(Environment::system().seed, Environment::system().seed);
    }
}
