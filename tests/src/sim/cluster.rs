//! A simulated cluster, told what happens to it.

mod cores;
mod founding;
mod lurking;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use scatterhoard_node::Config;
use scatterhoard_replication::probe::Point;
use scatterhoard_ring::Slot;
use tokio::sync::mpsc;
use turmoil::Sim;

use super::SimClock;
use super::application::{App, Desk};
use super::audit::{Audit, Counts, Whose};
use super::client::{Client, Port, Told};
use super::clock::tell_time;
use super::links::Links;
use super::node::{Life, Machine, PEER};
use super::observe::{self, Seen, Status};
use super::process::{self, Process};
use super::trace::Trace;
pub use founding::Founding;
use lurking::Lurking;
use scatterhoard_check::history::{Action, Answer, Operation, Recorder};
use scatterhoard_check::near;

/// How long a message takes.
pub(super) const LATENCY_MIN: Duration = Duration::from_millis(1);
pub(super) const LATENCY_MAX: Duration = Duration::from_millis(8);

/// Simulated time moves in such steps; messages arrive between them.
const TICK: Duration = Duration::from_millis(4);

/// How long anything may take that a story waits for.
const PATIENCE: Duration = Duration::from_secs(120);

/// The machine that watches; no fault reaches it.
const WATCHER: usize = 0;

/// The machine of the story's own client.
pub(super) const TELLER: usize = 1;

type Job = Pin<Box<dyn Future<Output = ()>>>;

/// A cluster of nodes numbered from 1, and machines for clients.
pub struct Cluster {
    pub(super) sim: Sim<'static>,
    pub(super) seed: u64,
    config: Config,
    machines: Vec<Rc<Machine>>,
    clients: Vec<ClientHost>,
    /// The machines of applications.
    pub(super) desks: Vec<Rc<Desk>>,
    pub(super) links: Links,
    /// Nodes that are far away.
    slow: BTreeSet<usize>,
    pub(super) slow_apps: BTreeSet<App>,
    pub(super) recorder: Recorder,
    teller: Option<Client>,
    trace: Option<Trace>,
    events: Vec<String>,
    audit: Audit,
    lurking: Option<Lurking>,
    /// In which order processes run.
    rng: StdRng,
    /// Raft cores that were killed.
    killed_count: u64,
}

struct ClientHost {
    jobs: mpsc::UnboundedSender<Job>,
}

/// Something under way on a client's or an application's machine.
pub struct Running<T> {
    pub(super) result: Arc<Mutex<Option<T>>>,
}

impl<T> Running<T> {
    /// Whether it is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.result.lock().is_some()
    }
}

impl Cluster {
    /// A cluster of so many nodes. All are told of each other; the first founds.
    #[must_use]
    pub fn of(count: usize) -> Founding {
        Founding::of(count)
    }

    // What clients do.

    /// `SET` by the story's client.
    pub fn set(&mut self, key: &str, value: &str) -> Told {
        self.ask(Action::set(key.to_owned(), value.to_owned()))
    }

    /// `GET` by the story's client.
    ///
    /// # Panics
    /// If there is no answer.
    #[track_caller]
    pub fn get(&mut self, key: &str) -> Option<String> {
        match self.ask(Action::get(key.to_owned())).acked() {
            Answer::Value(value) => value.map(|it| String::from_utf8_lossy(&it).into_owned()),
            other => panic!("GET was answered with {other:?}"),
        }
    }

    /// Anything by the story's client.
    ///
    /// # Panics
    /// If there is not even an end to it.
    pub fn ask(&mut self, action: Action) -> Told {
        let mut client = self.teller.take().expect("a story does one thing at a time");
        let (client, told) = self.run(TELLER, async move {
            let told = client.ask(action).await;
            (client, told)
        });
        self.teller = Some(client);
        told
    }

    /// Anything by the story's client, asked of one node alone.
    pub fn ask_node(&mut self, node: usize, port: Port, action: Action) -> Told {
        let mut client = self.client_of(TELLER, node, port);
        self.run(TELLER, async move { client.ask(action).await })
    }

    /// The most redirections that a request of the story's client needed.
    #[must_use]
    pub fn hops_most(&self) -> usize {
        self.teller.as_ref().map_or(0, Client::hops_most)
    }

    /// A client that knows all nodes, to be run on a machine for clients.
    #[must_use]
    pub fn client(&self, number: usize, port: Port) -> Client {
        let ips: Vec<_> = self.machines.iter().map(|machine| machine.ip).collect();
        let number = u32::try_from(number).expect("there are few clients");
        Client::new(number, &ips, port, self.recorder.clone())
    }

    /// A client that knows one node and asks no other.
    #[must_use]
    pub fn client_of(&self, number: usize, node: usize, port: Port) -> Client {
        let number = u32::try_from(number).expect("there are few clients");
        Client::of_one(number, self.machine(node).ip, port, self.recorder.clone())
    }

    /// What all clients asked and were told.
    #[must_use]
    pub fn history(&self) -> Vec<Operation> {
        self.recorder.history()
    }

    /// Sees to it that no read was answered with what had been replaced for longer than the bound. Answers how many
    /// values were read.
    ///
    /// # Panics
    /// If one was.
    #[track_caller]
    pub fn assert_fresh(&self, bound: Duration) -> usize {
        near::assert_fresh(&self.history(), bound)
    }

    // What happens to machines and links.

    /// A machine loses its power: nothing that it sent before still arrives, and nobody is told.
    pub fn crash(&mut self, node: usize) {
        self.note(format!("crash n{node}"));
        let machine = Rc::clone(self.machine(node));
        self.links.switch_off(&self.sim, machine.ip);
        machine.kill();
        self.sim.crash(machine.ip);
        self.sim.bounce(machine.ip);
    }

    /// A process is killed: what it sent before still arrives, and its connections are closed.
    pub fn kill(&mut self, node: usize) {
        self.note(format!("kill n{node}"));
        self.machine(node).kill();
    }

    /// A process is stopped, and its clock goes on: it does nothing until [`Self::resume`].
    pub fn pause(&mut self, node: usize) {
        self.note(format!("pause n{node}"));
        if self.machine(node).with_process(Process::hold).is_some() {
            self.count("processes stopped");
        }
    }

    /// A process that was stopped goes on.
    pub fn resume(&mut self, node: usize) {
        self.note(format!("resume n{node}"));
        self.machine(node).with_process(Process::release);
    }

    /// A process gets to run only now and then, every so many milliseconds, until [`Self::heal`].
    pub fn starve(&mut self, node: usize, every: Duration) {
        self.note(format!("n{node} runs only every {every:?}"));
        let share = u32::try_from(every.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX).max(1);
        self.machine(node).with_process(|process| process.starve(share));
    }

    /// When the process next comes to this point it is stopped there, until [`Self::resume`].
    pub fn pause_at(&mut self, node: usize, point: Point) {
        self.note(format!("n{node} is to be paused at {point:?}"));
        process::arm(node, point);
    }

    /// Whether a process is stopped.
    #[must_use]
    pub fn is_paused(&self, node: usize) -> bool {
        self.machine(node).with_process(|process| process.is_held()).unwrap_or(false)
    }

    /// The monotonic clock of a node runs at this pace from now on; 1.0 is right.
    pub fn set_pace(&mut self, node: usize, pace: f64) {
        self.note(format!("the clock of n{node} runs at {pace:.3}"));
        self.machine(node).set_pace(pace);
    }

    /// Of a thousand datagrams that a node sends, so many come twice, and so many late, until
    /// [`Self::heal`].
    pub fn shuffle_datagrams(&mut self, node: usize, twice: u32, late: u32) {
        self.note(format!("n{node}'s datagrams: {twice} ‰ come twice, {late} ‰ late"));
        let mischief = &self.machine(node).mischief;
        mischief.twice.set(twice);
        mischief.late.set(late);
    }

    /// Starts the node again: same name and addresses, a new life.
    pub fn restart(&mut self, node: usize) {
        self.note(format!("restart n{node}"));
        let machine = Rc::clone(self.machine(node));
        machine.start();
        self.links.switch_on(&self.sim, machine.ip);
    }

    /// Asks a node to leave.
    pub fn leave(&mut self, node: usize) {
        self.note(format!("leave n{node}"));
        self.machine(node).ask_to_leave();
    }

    /// Asks one node to drain another. Says whether it will.
    pub fn drain(&mut self, asked: usize, node: usize) -> bool {
        self.note(format!("n{asked} is asked to drain n{node}"));
        let (ip, name) = (self.machine(asked).ip, self.machine(node).name.clone());
        self.run(WATCHER, async move { observe::drain(ip, &name).await })
    }

    /// Adds a node that is told of the first ones, and answers with its number.
    pub fn join(&mut self) -> usize {
        self.join_as(None)
    }

    /// Adds a node under a name that may be taken.
    pub fn join_as(&mut self, name: Option<&str>) -> usize {
        let node = self.machines.len() + 1;
        self.note(format!("n{node} joins"));
        let join = self.machines.iter().map(|machine| format!("{}:{PEER}", machine.ip)).collect();
        self.config.name = name.map(str::to_owned);
        self.add_machine(node, join);
        self.config.name = None;
        node
    }

    /// From now on nothing passes between one side and the other, except for clients.
    pub fn split(&mut self, one: &[usize], other: &[usize]) {
        self.note(format!("split {one:?} from {other:?}"));
        let ways: Vec<_> = self.pairs(one, other).flat_map(|(a, b)| [(a, b), (b, a)]).collect();
        self.links.cut(&self.sim, ways);
    }

    /// A node is split from all others.
    pub fn isolate(&mut self, node: usize) {
        let others: Vec<_> = self.others(node);
        self.split(&[node], &others);
    }

    /// From now on nothing gets from one node to another; the way back stays.
    pub fn cut(&mut self, source: usize, target: usize) {
        self.note(format!("cut n{source} -> n{target}"));
        let way = (self.machine(source).ip, self.machine(target).ip);
        self.links.cut(&self.sim, [way]);
    }

    /// From now on what a node and the others send to each other waits until [`Self::heal`].
    pub fn hold(&mut self, node: usize) {
        self.note(format!("hold n{node}"));
        let others = self.others(node);
        let pairs: Vec<_> = self.pairs(&[node], &others).collect();
        self.links.hold(&self.sim, pairs);
    }

    /// From now on what a node and the others send to each other takes longer.
    pub fn slow_down(&mut self, node: usize, latency: Duration) {
        self.note(format!("n{node} is {latency:?} away"));
        self.set_latency(node, latency, latency);
        self.slow.insert(node);
    }

    /// From now on this share of all messages is lost. turmoil's TCP sends nothing again: a connection
    /// that loses a segment stands still.
    pub fn lose(&mut self, share: f64) {
        self.note(format!("{share} of all messages are lost"));
        self.sim.set_fail_rate(share);
    }

    /// All links work again; what waited arrives.
    pub fn heal(&mut self) {
        self.note("heal".to_owned());
        self.sim.set_fail_rate(0.0);
        for machine in &self.machines {
            machine.mischief.twice.set(0);
            machine.mischief.late.set(0);
            machine.with_process(|process| process.starve(1));
        }
        for node in std::mem::take(&mut self.slow) {
            self.set_latency(node, LATENCY_MIN, LATENCY_MAX);
        }
        self.speed_up_apps();
        self.links.heal(&self.sim);
    }

    /// A node's wall clock.
    #[must_use]
    pub fn clock(&self, node: usize) -> &SimClock {
        &self.machine(node).clock
    }

    /// How the process of a node is doing.
    #[must_use]
    pub fn life(&self, node: usize) -> Life {
        self.machine(node).life()
    }

    /// How many machines there are.
    #[must_use]
    pub fn nodes_count(&self) -> usize {
        self.machines.len()
    }

    // Time.

    /// Simulated time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets time go by.
    pub fn wait(&mut self, time: Duration) {
        let until = self.elapsed() + time;
        while self.elapsed() < until {
            self.step();
        }
    }

    /// Waits until all nodes whose process runs are members and nobody else is, every partition has a
    /// leader and all the voters it should have, and leaders are balanced.
    ///
    /// # Panics
    /// If that takes longer than two minutes.
    #[track_caller]
    pub fn settle(&mut self) {
        let by = self.elapsed() + PATIENCE;
        let mut missing = String::new();
        while self.elapsed() < by {
            match self.unsettled() {
                None => return,
                Some(reason) => missing = reason,
            }
            self.wait(Duration::from_millis(200));
        }
        panic!("not settled after {PATIENCE:?}: {missing}");
    }

    /// Whether [`Self::settle`] would return at once.
    pub fn is_settled(&mut self) -> bool {
        self.unsettled().is_none()
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// If that takes longer than two minutes.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let by = self.elapsed() + PATIENCE;
        while !is_so(self) {
            if self.elapsed() >= by {
                panic!("not within {PATIENCE:?}: {what}; unsettled: {:?}", self.unsettled());
            }
            self.wait(Duration::from_millis(100));
        }
    }

    /// The node that leads a key: of all that say so of themselves, the one with the newest term.
    ///
    /// # Panics
    /// If there is none for two minutes.
    #[track_caller]
    pub fn leader_of(&mut self, key: &str) -> usize {
        let mut leader = None;
        self.until("the key has a leader", |cluster| {
            leader = cluster.leaders_of(key).into_iter().max_by_key(|&(_, term)| term);
            leader.is_some()
        });
        leader.expect("there is one now").0
    }

    /// All nodes that say that they lead a key, with their terms.
    pub fn leaders_of(&mut self, key: &str) -> Vec<(usize, u64)> {
        let slot = Slot::of(key.as_bytes()).number().into();
        let leads = |(node, status): (usize, Status)| {
            let seen = status.at(slot)?;
            (seen.leader.as_deref() == Some(status.name())).then_some((node, seen.term?))
        };
        self.statuses().into_iter().filter_map(leads).collect()
    }

    /// The node that leads the council, by its own word.
    ///
    /// # Panics
    /// If there is none for two minutes.
    #[track_caller]
    pub fn council_leader(&mut self) -> usize {
        let mut leader = None;
        self.until("the council has a leader", |cluster| {
            let statuses = cluster.statuses();
            let leads = |status: &Status| status.council_leader() == Some(status.name());
            leader = statuses.into_iter().find(|(_, status)| leads(status)).map(|(node, _)| node);
            leader.is_some()
        });
        leader.expect("there is one now")
    }

    /// What the nodes say of a key's partition: the names of its voters, by whoever holds a replica.
    pub fn voters_of(&mut self, key: &str) -> Vec<(usize, Vec<String>)> {
        let slot = Slot::of(key.as_bytes()).number().into();
        let voters = |(node, status): (usize, Status)| {
            let seen = status.at(slot).filter(|seen| seen.keys.is_some())?;
            Some((node, seen.voters.into_iter().collect()))
        };
        self.statuses().into_iter().filter_map(voters).collect()
    }

    /// The newest founding of a key's partition that any node knows of.
    pub fn generation_of(&mut self, key: &str) -> u64 {
        let slot = Slot::of(key.as_bytes()).number().into();
        let seen = self.statuses().into_iter().filter_map(|(_, status)| status.at(slot));
        seen.map(|seen| seen.generation).max().unwrap_or(0)
    }

    /// The nodes that should be in the council, by the word of any.
    pub fn councillors(&mut self) -> BTreeSet<usize> {
        let names = self.statuses().pop().map(|(_, status)| status.councillors());
        let names = names.unwrap_or_default();
        let named = |node: &usize| names.contains(&self.machine(*node).name);
        (1..=self.nodes_count()).filter(named).collect()
    }

    /// The nodes whose newest table is of this founding of the council, or of a later one.
    pub fn with_council_generation(&mut self, generation: u64) -> Vec<usize> {
        let statuses = self.statuses().into_iter();
        let newer = statuses.filter(|(_, status)| status.council_generation() >= generation);
        newer.map(|(node, _)| node).collect()
    }

    /// How many members a node knows.
    pub fn members_known_to(&mut self, node: usize) -> usize {
        let mut statuses = self.statuses().into_iter();
        statuses.find(|(it, _)| *it == node).map_or(0, |(_, status)| status.members().len())
    }

    /// A counter or gauge without labels, as a node tells it to Prometheus.
    ///
    /// # Panics
    /// If the node does not tell it.
    #[track_caller]
    pub fn metric(&mut self, node: usize, name: &str) -> u64 {
        let ip = self.machine(node).ip;
        let page = self.run(WATCHER, async move { observe::metrics(ip).await });
        let found = page.as_deref().unwrap_or_default().lines();
        let mut found = found.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = found.next().unwrap_or_else(|| panic!("n{node} does not tell {name}"));
        value.parse().expect("it is a whole number")
    }

    /// The clusters that the nodes say they belong to.
    pub fn clusters(&mut self) -> Vec<String> {
        let mut clusters: Vec<_> =
            self.statuses().into_iter().map(|(_, status)| status.cluster().to_owned()).collect();
        clusters.sort();
        clusters.dedup();
        clusters
    }

    /// Runs something on a client's machine, and waits for its end.
    ///
    /// # Panics
    /// If there is none within two minutes.
    pub fn run<T: 'static>(&mut self, on: usize, work: impl Future<Output = T> + 'static) -> T {
        let running = self.spawn(on, work);
        self.finish(&running)
    }

    /// Runs something on a client's machine while the story goes on.
    ///
    /// # Panics
    /// If there is no such machine.
    pub fn spawn<T: 'static>(
        &mut self,
        on: usize,
        work: impl Future<Output = T> + 'static,
    ) -> Running<T> {
        let result = Arc::new(Mutex::new(None));
        let place = Arc::clone(&result);
        let job = Box::pin(async move {
            let done = work.await;
            *place.lock() = Some(done);
        });
        assert!(self.clients[on].jobs.send(job).is_ok(), "machines of clients never end");
        Running { result }
    }

    /// Waits for the end of something.
    ///
    /// # Panics
    /// If there is none within two minutes.
    pub fn finish<T>(&mut self, running: &Running<T>) -> T {
        let by = self.elapsed() + PATIENCE;
        loop {
            if let Some(result) = running.result.lock().take() {
                return result;
            }
            assert!(self.elapsed() < by, "clients give up long before this");
            self.step();
        }
    }

    /// Waits until a process has acknowledged something to a client, in that very moment; answers with its
    /// node, or with none if that takes longer than `patience`.
    pub fn wait_for_ack(&mut self, patience: Duration) -> Option<usize> {
        self.wait_for(patience, Audit::acknowledged_by)
    }

    /// The same, until a leader has decided to hand over, before anybody hears of that.
    pub fn wait_for_hand_over(&mut self, patience: Duration) -> Option<usize> {
        self.wait_for(patience, Audit::handed_over_by)
    }

    fn wait_for(
        &mut self,
        patience: Duration,
        of_whom: impl Fn(&Audit) -> Option<usize>,
    ) -> Option<usize> {
        let until = self.elapsed() + patience;
        self.audit.forget_moments();
        while self.elapsed() < until {
            self.step();
            if let Some(node) = of_whom(&self.audit) {
                return Some(node);
            }
        }
        None
    }

    /// Waits until all replicas of each partition hold the same, and count right what it takes.
    ///
    /// # Panics
    /// If that takes longer than two minutes.
    #[track_caller]
    pub fn converge(&mut self) {
        let mut differs = String::new();
        let by = self.elapsed() + PATIENCE;
        while self.elapsed() < by {
            let machines = self.machines.clone();
            let live = |whose: Whose| machines[whose.machine - 1].lives(whose.life);
            match self.audit.compare_replicas(live) {
                Ok(()) => return,
                Err(reason) => differs = reason,
            }
            self.wait(Duration::from_millis(200));
        }
        panic!("replicas differ after {PATIENCE:?}: {differs}");
    }

    /// Whether nothing that was acknowledged may be lost with any one process, whatever is going on in the
    /// groups.
    #[must_use]
    pub fn can_spare_one(&self) -> bool {
        let live = |whose: Whose| self.machines[whose.machine - 1].lives(whose.life);
        self.audit.can_spare_one(live)
    }

    /// What really happened, and how often.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = self.audit.counts();
        let shuffled = self.machines.iter().map(|machine| machine.mischief.count.get()).sum();
        counts.add_many("datagrams late or twice", shuffled);
        counts
    }

    /// Counts something that was done to the cluster.
    pub fn count(&mut self, what: &str) {
        self.audit.count(what);
    }

    /// What was done to the cluster, and when.
    #[must_use]
    pub fn events(&self) -> &[String] {
        &self.events
    }

    /// Notes an event for who reads the trace.
    pub fn note(&mut self, event: String) {
        tracing::info!(target: "story", "{event}");
        self.events.push(format!("{:9.3} {event}", self.elapsed().as_secs_f64()));
    }

    /// What every node says, for people.
    pub fn describe(&mut self) -> String {
        let statuses = self.statuses();
        let lines = statuses.iter().map(|(node, status)| format!("n{node}: {status}\n"));
        let lives = self.machines.iter().map(|it| format!("{}: {:?}\n", it.name, it.life()));
        lines.chain(lives).collect()
    }

    fn step(&mut self) {
        tell_time(self.sim.elapsed());
        if let Err(error) = self.sim.step() {
            panic!("a host of the simulation ended: {error}");
        }
        let mut order: Vec<_> = (0..self.machines.len()).collect();
        order.shuffle(&mut self.rng);
        for at in order {
            self.machines[at].step(TICK, &self.audit);
        }
        self.desks.iter().for_each(|desk| desk.step(TICK));
        self.lurk();
        self.audit.assert_unbroken();
    }

    /// Why the cluster is not settled; `None` if it is.
    fn unsettled(&mut self) -> Option<String> {
        let running: Vec<_> = (1..=self.nodes_count())
            .filter(|&node| matches!(self.life(node), Life::Entering | Life::Member))
            .collect();
        let statuses = self.statuses();
        if running.is_empty() {
            return Some("no process runs".to_owned());
        }
        let silent = running.iter().find(|node| !statuses.iter().any(|(it, _)| it == *node));
        if let Some(node) = silent {
            return Some(format!("n{node} says nothing"));
        }
        let mut nodes: Vec<_> =
            statuses.iter().map(|(_, status)| status.node().to_owned()).collect();
        nodes.sort();
        for (node, status) in &statuses {
            if !status.is_ready() || !status.members().iter().eq(&nodes) {
                return Some(format!("n{node} says {status}"));
            }
        }
        let epochs: BTreeSet<_> = statuses.iter().map(|(_, status)| status.epoch()).collect();
        if epochs.len() > 1 {
            return Some(format!("there are tables of the epochs {epochs:?}"));
        }
        let slots = statuses.first()?.1.partitions();
        for ((first, _), _) in slots {
            let seen = |(node, status): &(usize, Status)| Some((*node, status.at(first)?));
            let seen: Vec<(usize, Seen)> = statuses.iter().filter_map(seen).collect();
            let wanted = usize::from(self.config.replicas).min(running.len());
            let full = |(_, seen): &(usize, Seen)| {
                seen.keys.is_none() || (seen.voters.len() == wanted && seen.learners.is_empty())
            };
            let one_leader = seen.windows(2).all(|pair| pair[0].1.leader == pair[1].1.leader);
            if !one_leader || !seen.iter().all(full) {
                return Some(format!("slot {first} is seen as {seen:?}"));
            }
        }
        if let Err(reason) = self.audit.check_readiness(running.len()) {
            panic!("{reason}");
        }
        None
    }

    /// What the nodes say that are members and answer.
    fn statuses(&mut self) -> Vec<(usize, Status)> {
        let member = |(at, machine): (usize, &Rc<Machine>)| {
            (machine.life() == Life::Member).then_some((at + 1, machine.ip))
        };
        let members: Vec<_> = self.machines.iter().enumerate().filter_map(member).collect();
        self.run(WATCHER, async move {
            let asked = members.into_iter().map(async |(node, ip)| {
                let status = observe::ask(ip).await?;
                Some((node, status))
            });
            join_all(asked).await.into_iter().flatten().collect()
        })
    }

    fn set_latency(&self, node: usize, min: Duration, max: Duration) {
        for other in self.others(node) {
            let (a, b) = (self.machine(node).ip, self.machine(other).ip);
            self.sim.set_link_latency(a, b, min);
            self.sim.set_link_max_message_latency(a, b, max);
        }
    }

    pub(super) fn ip_of(&self, node: usize) -> IpAddr {
        self.machine(node).ip
    }

    fn machine(&self, node: usize) -> &Rc<Machine> {
        self.machines.get(node.wrapping_sub(1)).unwrap_or_else(|| panic!("there is no n{node}"))
    }

    fn others(&self, node: usize) -> Vec<usize> {
        (1..=self.nodes_count()).filter(|&other| other != node).collect()
    }

    fn pairs<'a>(
        &'a self,
        one: &'a [usize],
        other: &'a [usize],
    ) -> impl Iterator<Item = (IpAddr, IpAddr)> + 'a {
        let ip = |node: &usize| self.machine(*node).ip;
        one.iter().flat_map(move |a| other.iter().map(move |b| (ip(a), ip(b))))
    }

    fn address_of(&mut self, node: usize) -> IpAddr {
        self.sim.lookup(format!("n{node}"))
    }

    fn add_machine(&mut self, node: usize, join: Vec<String>) {
        let ip = self.address_of(node);
        let seed = self.seed.wrapping_mul(1009).wrapping_add(node as u64);
        let machine = Machine::new(node, ip, seed, self.config.clone());
        machine.set_join(join);
        let runs = Rc::clone(&machine);
        self.sim.host(format!("n{node}"), move || Rc::clone(&runs).run());
        self.links.add_host(ip);
        self.machines.push(machine);
    }

    fn add_client(&mut self, number: usize) {
        let name = format!("c{number}");
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
        self.sim.client(name.as_str(), async move {
            while let Some(job) = waiting.recv().await {
                tokio::task::spawn_local(job);
            }
            Ok(())
        });
        self.links.add_host(self.sim.lookup(name));
        self.clients.push(ClientHost { jobs });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Self { seed, events, trace, .. } = self;
        eprintln!("what was done (seed {seed}):\n{}", events.join("\n"));
        if let Some(trace) = trace {
            eprintln!("what happened:\n{}", trace.text());
        }
    }
}
