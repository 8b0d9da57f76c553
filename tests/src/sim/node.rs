//! A simulated machine and the lives of the node on it.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use scatterhoard_node::{Config, Environment, Node};
use tokio::sync::Notify;
use tracing::info;

use super::client::Port;
use super::clock::SimClock;
use super::net::TurmoilNet;

/// Where a node serves HTTP.
pub(super) const HTTP: u16 = 8379;

/// Where a node meets its peers.
pub(super) const PEER: u16 = 16_379;

/// How the process on a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// No process.
    None,
    /// Started, not a member yet.
    Entering,
    /// A member.
    Member,
    /// Ended: the cluster refused it, for this reason.
    Refused(String),
    /// Ended: the cluster dismissed it.
    Dismissed,
    /// Ended: it has left.
    Left,
}

/// A machine: what outlives its processes.
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    pub(super) clock: Arc<SimClock>,
    seed: u64,
    config: RefCell<Config>,
    /// Whether a process is started when the machine is.
    starts: Cell<bool>,
    lives: Cell<u64>,
    life: RefCell<Life>,
    leave: Notify,
}

impl Machine {
    pub(super) fn new(name: String, ip: IpAddr, seed: u64, config: Config) -> Rc<Self> {
        let at = |port| SocketAddr::new(ip, port);
        let config = Config {
            name: config.name.clone().or_else(|| Some(name.clone())),
            listen: at(Port::Cluster.number()),
            any_key: at(Port::AnyKey.number()),
            http: at(HTTP),
            peer: at(PEER),
            ..config
        };
        Rc::new(Self {
            name,
            ip,
            clock: Arc::default(),
            seed,
            config: RefCell::new(config),
            starts: Cell::new(true),
            lives: Cell::new(0),
            life: RefCell::new(Life::Entering),
            leave: Notify::new(),
        })
    }

    pub(super) fn life(&self) -> Life {
        self.life.borrow().clone()
    }

    pub(super) fn set_starts(&self, starts: bool) {
        self.starts.set(starts);
        self.life.replace(if starts { Life::Entering } else { Life::None });
    }

    pub(super) fn set_join(&self, join: Vec<String>) {
        self.config.borrow_mut().join = join;
    }

    /// Asks the process to leave.
    pub(super) fn ask_to_leave(&self) {
        self.leave.notify_one();
    }

    /// What runs on the machine. It never ends, so that the machine goes on to refuse connections when
    /// its process has.
    pub(super) async fn run(self: Rc<Self>) -> turmoil::Result {
        if self.starts.get() {
            let ended = self.live().await;
            info!(name = self.name, ?ended, "the process has ended");
            self.life.replace(ended);
        }
        std::future::pending().await
    }

    async fn live(&self) -> Life {
        self.lives.set(self.lives.get() + 1);
        // No two lives have the same chance.
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(self.lives.get());
        let wall = Arc::clone(&self.clock);
        let environment = Environment { net: Arc::new(TurmoilNet), wall, seed };
        let config = self.config.borrow().clone();
        let patience: Duration = config.leave_timeout;
        let node = match Node::start(config, environment).await {
            Ok(node) => node,
            Err(error) => return Life::Refused(error.to_string()),
        };
        info!(name = self.name, node = %node.id(), "a member");
        self.life.replace(Life::Member);
        let ended = tokio::select! {
            biased;
            () = node.stopped() => Life::Dismissed,
            () = self.leave.notified() => {
                node.leave(patience).await;
                Life::Left
            }
        };
        node.shutdown().await;
        ended
    }
}
