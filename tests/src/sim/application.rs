//! Applications: processes that use the client library, on machines of their own.
//!
//! As a node, an application has a runtime and a clock of its own, can be stopped whole, and meets the network through
//! its machine. Its sockets are those of the library's [`Connector`].

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use scatterhoard_check::history::{Action, Pending, Recorder};
use scatterhoard_client::{Config, Connector, Stream};
use scatterhoard_cluster::Network;
use tokio::sync::mpsc;

use super::client::Port;
use super::clock::elapsed;
use super::cluster::{LATENCY_MAX, LATENCY_MIN};
use super::kernel::{self, Call, MachineNet};
use super::process::Process;
use super::{Cluster, Running};

/// An application's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct App(usize);

/// What an application is given.
pub struct World {
    number: u32,
    nodes: Vec<IpAddr>,
    calls: mpsc::UnboundedSender<Call>,
    recorder: Recorder,
}

/// The machine of an application: what outlives its processes.
pub(super) struct Desk {
    ip: IpAddr,
    seed: u64,
    lives: Cell<u64>,
    /// The way to the operating system.
    calls: RefCell<Option<mpsc::UnboundedSender<Call>>>,
    process: RefCell<Option<Process<()>>>,
}

impl World {
    /// How the library reaches the cluster: it knows all nodes that there were when the application was started.
    #[must_use]
    pub fn config(&self) -> Config {
        let at = |ip: &IpAddr| SocketAddr::new(*ip, Port::Cluster.number()).to_string();
        let mut config = Config::new(self.nodes.iter().map(at));
        config.connector = Arc::new(Sockets(MachineNet::new(self.calls.clone())));
        config
    }

    /// Notes in the history that the application began to do something, now or before.
    #[must_use = "the token takes the outcome; dropping it leaves the operation in doubt"]
    pub fn begin(&self, action: Action, invoked: u64) -> Pending {
        self.recorder.begin(self.number, action, invoked)
    }

    /// Simulated time, in nanoseconds, as histories have it.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(elapsed().as_nanos())
            .expect("a simulation is shorter than five hundred years")
    }
}

impl Desk {
    async fn run(self: Rc<Self>) -> turmoil::Result {
        let (calls, asked) = mpsc::unbounded_channel();
        self.calls.replace(Some(calls));
        kernel::run(asked, self.seed, Rc::default()).await;
        std::future::pending().await
    }

    /// Lets the process live for so long, if there is one.
    pub(super) fn step(&self, tick: Duration) {
        let mut process = self.process.borrow_mut();
        if process.as_mut().is_some_and(|process| process.step(tick).is_some()) {
            process.take();
        }
    }
}

impl Cluster {
    /// Adds a machine for an application.
    pub fn application(&mut self) -> App {
        let number = self.desks.len() + 1;
        let name = format!("a{number}");
        let ip = self.sim.lookup(name.as_str());
        let desk = Rc::new(Desk {
            ip,
            seed: self.seed.wrapping_mul(2003).wrapping_add(number as u64),
            lives: Cell::new(0),
            calls: RefCell::default(),
            process: RefCell::default(),
        });
        let runs = Rc::clone(&desk);
        self.sim.host(name, move || Rc::clone(&runs).run());
        self.links.add_host(ip);
        self.desks.push(desk);
        self.wait(Duration::from_millis(10));
        App(number - 1)
    }

    /// Starts an application, in the place of the one before. It has ended when `main` has: with the runtime end the
    /// tasks that it has left.
    ///
    /// # Panics
    /// If the machine has no power yet.
    pub fn launch<T, F>(&mut self, app: App, main: impl FnOnce(World) -> F) -> Running<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.note(format!("launch a{}", app.0 + 1));
        let nodes = (1..=self.nodes_count()).map(|node| self.ip_of(node)).collect();
        let desk = Rc::clone(&self.desks[app.0]);
        let calls = desk.calls.borrow().clone().expect("the machine has power");
        let number = 1000 + u32::try_from(app.0).expect("there are few");
        let world = World { number, nodes, calls, recorder: self.recorder.clone() };
        let result = Arc::new(Mutex::new(None));
        let (place, main) = (Arc::clone(&result), main(world));
        desk.lives.set(desk.lives.get() + 1);
        let seed = desk.seed.wrapping_mul(1_000_003).wrapping_add(desk.lives.get());
        let process = Process::start(0, seed, 1.0, async move {
            let done = main.await;
            *place.lock() = Some(done);
        });
        desk.process.replace(Some(process));
        Running { result }
    }

    /// An application is killed: what it sent before still arrives, and its connections are closed.
    pub fn kill_app(&mut self, app: App) {
        self.note(format!("kill a{}", app.0 + 1));
        self.desks[app.0].process.take();
    }

    /// An application is stopped, and its clock goes on, until [`Self::resume_app`].
    pub fn pause_app(&mut self, app: App) {
        self.note(format!("pause a{}", app.0 + 1));
        self.desks[app.0].process.borrow_mut().iter_mut().for_each(Process::hold);
    }

    /// An application that was stopped goes on.
    pub fn resume_app(&mut self, app: App) {
        self.note(format!("resume a{}", app.0 + 1));
        self.desks[app.0].process.borrow_mut().iter_mut().for_each(Process::release);
    }

    /// From now on nothing gets from a node to an application; the way back stays.
    pub fn deafen_app(&mut self, node: usize, app: App) {
        self.note(format!("cut n{node} -> a{}", app.0 + 1));
        let way = (self.ip_of(node), self.desks[app.0].ip);
        self.links.cut(&self.sim, [way]);
    }

    /// From now on nothing passes between a node and an application.
    pub fn split_app(&mut self, node: usize, app: App) {
        self.note(format!("split n{node} from a{}", app.0 + 1));
        let (node, app) = (self.ip_of(node), self.desks[app.0].ip);
        self.links.cut(&self.sim, [(node, app), (app, node)]);
    }

    /// From now on what a node and an application send to each other waits until [`Self::heal`].
    pub fn hold_app(&mut self, node: usize, app: App) {
        self.note(format!("hold n{node} - a{}", app.0 + 1));
        let pair = (self.ip_of(node), self.desks[app.0].ip);
        self.links.hold(&self.sim, [pair]);
    }

    /// From now on what an application and all nodes send to each other takes up to so long, and what is sent on
    /// different connections is overtaken, until [`Self::heal`].
    pub fn slow_down_app(&mut self, app: App, latency: Duration) {
        self.note(format!("a{} is up to {latency:?} away", app.0 + 1));
        self.set_app_latency(app, latency);
        self.slow_apps.insert(app);
    }

    /// Ends what [`Self::slow_down_app`] began.
    pub(super) fn speed_up_apps(&mut self) {
        for app in std::mem::take(&mut self.slow_apps) {
            self.set_app_latency(app, LATENCY_MAX);
        }
    }

    fn set_app_latency(&self, app: App, max: Duration) {
        for node in 1..=self.nodes_count() {
            let (node, app) = (self.ip_of(node), self.desks[app.0].ip);
            self.sim.set_link_latency(node, app, LATENCY_MIN);
            self.sim.set_link_max_message_latency(node, app, max);
        }
    }
}

/// A machine's network as the library wants it.
struct Sockets(MachineNet);

impl Connector for Sockets {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        async move {
            let to = address.parse().map_err(io::Error::other)?;
            Ok(Box::new(self.0.connect(to).await?) as Box<dyn Stream>)
        }
        .boxed()
    }
}
