//! A node inside the application: it stores a share of the cluster's keys, and reaches them without a socket.

use std::io::{Error as IoError, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use scatterhoard_node::{Environment, Node, StartError};

pub use scatterhoard_node::Config as NodeConfig;

use crate::{Cluster, Config, Connector, Error, Stream, Tcp};

/// An application that is a member of the cluster.
///
/// Its process holds a share of the keys and of their copies, as any `hoard node` does, and takes part in elections: it
/// should run as long as one, on a runtime whose threads it does not block.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use scatterhoard_client::peer::{NodeConfig, Peer};
///
/// let config = NodeConfig { join: vec!["10.0.0.5:16379".to_owned()], ..NodeConfig::default() };
/// let peer = Peer::start(config).await?;
/// peer.cluster().set("greeting", "hello").await?;
/// peer.leave(Duration::from_secs(20)).await;
/// # Ok(())
/// # }
/// ```
pub struct Peer {
    node: Arc<Node>,
    connections: Config,
    cluster: Cluster,
}

/// Why an application did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The node did not start. Nothing is left behind.
    #[error(transparent)]
    NotStarted(#[from] StartError),
    /// The node was started, and its cluster does not answer. The node was stopped.
    #[error(transparent)]
    NotReached(#[from] Error),
}

impl Peer {
    /// Starts a node, which joins or founds a cluster, and connects to it. Returns once the node is a member.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn start(config: NodeConfig) -> Result<Self, PeerError> {
        let password = config.requirepass.clone();
        let node = Arc::new(Node::start(config, Environment::system()).await?);
        let here = node.addresses().endpoints().listen.to_string();
        let mut config = Config::new([here.clone()]);
        config.password = password;
        config.connector = Arc::new(Inside { node: Arc::clone(&node), here, outside: Tcp });
        match Cluster::connect_with(config.clone()).await {
            Ok(cluster) => Ok(Self { node, connections: config, cluster }),
            Err(error) => {
                node.shutdown().await;
                Err(error.into())
            }
        }
    }

    /// The cluster, seen from here. What the own node leads is asked for without a socket.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// How the cluster is reached from here: for a [`HoardLevel`](crate::level::HoardLevel) under caches, which asks
    /// the own node without a socket then.
    ///
    /// ```no_run
    /// # use scatterhoard_client::peer::Peer;
    /// # async fn example(peer: Peer) -> Result<(), scatterhoard_client::Error> {
    /// use scatterhoard_client::level::{HoardLevel, LevelConfig};
    ///
    /// let level = HoardLevel::connect(LevelConfig::over(peer.connections().clone())).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn connections(&self) -> &Config {
        &self.connections
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Hands over what the node holds, for so long at most, and stops it.
    pub async fn leave(self, patience: Duration) {
        self.node.leave(patience).await;
        self.node.shutdown().await;
    }
}

/// Connects inside the process where it can.
struct Inside {
    node: Arc<Node>,
    here: String,
    outside: Tcp,
}

impl Connector for Inside {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, std::io::Result<Box<dyn Stream>>> {
        if address != self.here {
            return self.outside.connect(address);
        }
        let connected = self.node.connect().map(|stream| Box::new(stream) as Box<dyn Stream>);
        let too_many =
            || IoError::new(ErrorKind::ConnectionRefused, "the node has too many clients");
        std::future::ready(connected.ok_or_else(too_many)).boxed()
    }
}
