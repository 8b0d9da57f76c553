//! A simulated machine and the lives of the node on it.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_node::{Config, Environment};
use tokio::sync::{Notify, mpsc};
use tracing::info;

use super::audit::Audit;
use super::client::Port;
use super::clock::SimClock;
use super::kernel::{self, Call, MachineNet, Mischief};
use super::process::{Lines, Process};

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
    number: usize,
    pub(super) name: String,
    pub(super) ip: IpAddr,
    pub(super) clock: Arc<SimClock>,
    pub(super) mischief: Rc<Mischief>,
    seed: u64,
    config: RefCell<Config>,
    /// Whether a process is to be started.
    starts: Cell<bool>,
    lives: Cell<u64>,
    pace: Cell<f64>,
    /// The way to the operating system, while the machine has power.
    calls: RefCell<Option<mpsc::UnboundedSender<Call>>>,
    process: RefCell<Option<Process<Life>>>,
    life: Arc<Mutex<Life>>,
    leave: RefCell<Arc<Notify>>,
}

impl Machine {
    pub(super) fn new(number: usize, ip: IpAddr, seed: u64, config: Config) -> Rc<Self> {
        let at = |port| SocketAddr::new(ip, port);
        let name = format!("n{number}");
        let config = Config {
            name: config.name.clone().or_else(|| Some(name.clone())),
            listen: at(Port::Cluster.number()),
            any_key: at(Port::AnyKey.number()),
            http: at(HTTP),
            peer: at(PEER),
            ..config
        };
        Rc::new(Self {
            number,
            name,
            ip,
            clock: Arc::default(),
            mischief: Rc::default(),
            seed,
            config: RefCell::new(config),
            starts: Cell::new(true),
            lives: Cell::new(0),
            pace: Cell::new(1.0),
            calls: RefCell::default(),
            process: RefCell::default(),
            life: Arc::new(Mutex::new(Life::Entering)),
            leave: RefCell::default(),
        })
    }

    pub(super) fn life(&self) -> Life {
        self.life.lock().clone()
    }

    pub(super) fn set_join(&self, join: Vec<String>) {
        self.config.borrow_mut().join = join;
    }

    /// Asks the process to leave.
    pub(super) fn ask_to_leave(&self) {
        self.leave.borrow().notify_one();
    }

    /// Ends the process at once. What it sent before still leaves the machine, if that has power.
    pub(super) fn kill(&self) {
        self.starts.set(false);
        self.process.take();
        *self.life.lock() = Life::None;
    }

    /// A process is started as soon as the machine can.
    pub(super) fn start(&self) {
        self.process.take();
        self.starts.set(true);
        *self.life.lock() = Life::Entering;
    }

    /// What the operating system does, from when the machine gets power until it has none.
    pub(super) async fn run(self: Rc<Self>) -> turmoil::Result {
        let (calls, asked) = mpsc::unbounded_channel();
        self.calls.replace(Some(calls));
        kernel::run(asked, self.seed, Rc::clone(&self.mischief)).await;
        std::future::pending().await
    }

    /// Lets the process live for so long, if there is one.
    pub(super) fn step(&self, tick: Duration, audit: &Audit) {
        let mut process = self.process.borrow_mut();
        if let Some(running) = &mut *process {
            if let Some(ended) = running.step(tick) {
                info!(name = self.name, ?ended, "the process has ended");
                match &ended {
                    Life::Dismissed => audit.count("members dismissed while they lived"),
                    Life::Refused(_) => audit.count("nodes refused"),
                    Life::None | Life::Entering | Life::Member | Life::Left => {}
                }
                *self.life.lock() = ended;
                process.take();
            }
        } else if self.starts.take() {
            *process = self.give_birth();
            if process.is_some() {
                audit.begins(self.number);
            }
            self.starts.set(process.is_none());
        }
    }

    /// Whether this life, counted from 1, is the one that runs now.
    pub(super) fn lives(&self, life: u64) -> bool {
        self.lives.get() == life && self.process.borrow().is_some()
    }

    /// Does something with the process, if there is one.
    pub(super) fn with_process<T>(&self, work: impl FnOnce(&mut Process<Life>) -> T) -> Option<T> {
        self.process.borrow_mut().as_mut().map(work)
    }

    /// From now on the monotonic clock of the machine runs at this pace; the right one is 1.0.
    pub(super) fn set_pace(&self, pace: f64) {
        self.pace.set(pace);
        let _none = self.with_process(|process| process.set_pace(pace));
    }

    fn give_birth(&self) -> Option<Process<Life>> {
        let calls = self.calls.borrow().clone()?;
        self.lives.set(self.lives.get() + 1);
        // No two lives have the same chance.
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(self.lives.get());
        let (net, wall) = (Arc::new(MachineNet::new(calls)), Arc::clone(&self.clock));
        let environment = Environment { net, wall, seed };
        let leave = Arc::new(Notify::new());
        self.leave.replace(Arc::clone(&leave));
        let lines = Lines { leave, life: Arc::clone(&self.life) };
        let config = self.config.borrow().clone();
        Some(Process::node(self.number, config, environment, lines, self.pace.get()))
    }
}
