//! Load over the Redis protocol: one thread, one epoll, every client a small state machine.
//!
//! A client sends a batch, each request to its key's node, and sends the next batch when all of the last
//! one is answered. A node that ends a connection, talks gibberish or falls silent ends the run.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};

use crate::outcome::{Outcome, Tally};
use crate::process;
use crate::reply::{Reply, Scanner};
use crate::topology::{NODES_MAX, NodeIndex, Topology};
use crate::workload::{Command, KeyNumber, Keys, Load, Request, Until};

/// Silence of all nodes for so long ends the run as failed. Longer than any failover should take.
const STALL: Duration = Duration::from_secs(15);

/// A map is asked for at most this often, however many requests are sent on meanwhile.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// One read takes at most this. Larger replies take several.
const READ_BYTES: usize = 256 << 10;

/// Runs a load to its end.
///
/// # Errors
/// If a node cannot be reached, ends a connection, talks gibberish, or all fall silent. Refusals are no
/// errors here: they are counted in the outcome.
pub fn run(load: &Load, topology: Topology) -> anyhow::Result<Outcome> {
    let mut engine = Engine::new(load, topology)?;
    engine.connect()?;
    let cpu_before = process::own_cpu()?;
    let started = Instant::now();
    let ended = engine.drive(started)?;
    let cpu = process::own_cpu()?.saturating_sub(cpu_before);
    Ok(engine.tally.close(ended - started, cpu))
}

struct Engine<'a> {
    load: &'a Load,
    topology: Topology,
    refreshed: Option<Instant>,
    keys: Keys,
    request: Request,
    requests_left: u64,
    deadline: Option<Instant>,
    clients: Vec<Client>,
    clients_busy: usize,
    progressed: Instant,
    poll: Poll,
    scratch: Vec<u8>,
    tally: Tally,
}

struct Client {
    links: Vec<Option<Link>>,
    replies_awaited: usize,
    batch_started: Instant,
}

/// One connection of one client to one node.
struct Link {
    stream: TcpStream,
    out: Vec<u8>,
    out_bytes_sent: usize,
    scanner: Scanner,
    flying: VecDeque<KeyNumber>,
    /// The `SET` of a `SET` + `WAIT` is answered, its `WAIT` not yet.
    is_half_answered: bool,
}

/// What one read brought.
#[derive(Default)]
struct Harvest {
    answered: usize,
    moved: Vec<(KeyNumber, String)>,
}

impl<'a> Engine<'a> {
    fn new(load: &'a Load, topology: Topology) -> anyhow::Result<Self> {
        let now = Instant::now();
        let client = || Client { links: Vec::new(), replies_awaited: 0, batch_started: now };
        Ok(Self {
            load,
            topology,
            refreshed: None,
            keys: Keys::of(&load.workload),
            request: Request::of(&load.workload),
            requests_left: match load.until {
                Until::Requests(requests) => requests,
                Until::Elapsed(_) => u64::MAX,
            },
            deadline: None,
            clients: (0..load.connections).map(|_| client()).collect(),
            clients_busy: 0,
            progressed: now,
            poll: Poll::new()?,
            scratch: vec![0; READ_BYTES],
            tally: Tally::new(),
        })
    }

    /// Connects every client to every node, so that no connecting is measured.
    fn connect(&mut self) -> anyhow::Result<()> {
        for client in 0..self.clients.len() {
            for node in 0..self.topology.nodes().len() {
                self.link(client, NodeIndex::new(node))?;
            }
        }
        Ok(())
    }

    /// Keeps all clients busy until the load's end; returns when the last answer came.
    fn drive(&mut self, started: Instant) -> anyhow::Result<Instant> {
        self.progressed = started;
        if let Until::Elapsed(time) = self.load.until {
            self.deadline = Some(started + time);
        }
        for client in 0..self.clients.len() {
            self.start_batch(client, started)?;
        }
        let mut events = Events::with_capacity(1024);
        while self.clients_busy > 0 {
            self.poll.poll(&mut events, Some(Duration::from_secs(1)))?;
            for event in &events {
                let (client, node) = (event.token().0 / NODES_MAX, event.token().0 % NODES_MAX);
                if event.is_writable() {
                    self.link(client, NodeIndex::new(node))?.flush()?;
                }
                if event.is_readable() {
                    self.harvest(client, NodeIndex::new(node))?;
                }
            }
            if self.progressed.elapsed() > STALL {
                bail!("no answer for {} s", STALL.as_secs());
            }
        }
        Ok(self.progressed)
    }

    fn start_batch(&mut self, client: usize, now: Instant) -> anyhow::Result<()> {
        if self.requests_left == 0 || self.deadline.is_some_and(|deadline| now >= deadline) {
            return Ok(());
        }
        let batch = u64::try_from(self.load.pipeline)?.min(self.requests_left);
        self.requests_left -= batch;
        for _ in 0..batch {
            let key = self.keys.draw();
            let node = self.topology.node_of(&key.bytes());
            self.send(client, node, key)?;
        }
        self.clients_busy += 1;
        let client = &mut self.clients[client];
        client.replies_awaited = usize::try_from(batch)?;
        client.batch_started = now;
        client.links.iter_mut().flatten().try_for_each(Link::flush)
    }

    /// Queues a request. It leaves with the next flush.
    fn send(&mut self, client: usize, node: NodeIndex, key: KeyNumber) -> anyhow::Result<()> {
        self.link(client, node)?;
        let link = self.clients[client].links[node.number()].as_mut();
        let link = link.expect("the line above made it");
        self.request.encode(&key.bytes(), &mut link.out);
        link.flying.push_back(key);
        Ok(())
    }

    /// Reads what has arrived and does what follows from it.
    fn harvest(&mut self, client: usize, node: NodeIndex) -> anyhow::Result<()> {
        let is_cluster = self.topology.is_cluster();
        let link = self.clients[client].links[node.number()].as_mut();
        let link = link.expect("only connections that were made have events");
        let mut harvest = Harvest::default();
        loop {
            let bytes = match link.stream.read(&mut self.scratch) {
                Ok(0) => bail!("{} ended a connection", self.topology.nodes()[node.number()]),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let arrived = &self.scratch[..bytes];
            link.scan(arrived, self.load, is_cluster, &mut self.tally, &mut harvest)?;
            // A short read has emptied the socket; a later arrival is a new edge.
            if bytes < self.scratch.len() {
                break;
            }
        }
        self.settle(client, harvest)
    }

    fn settle(&mut self, client: usize, harvest: Harvest) -> anyhow::Result<()> {
        let now = Instant::now();
        for (key, moved) in harvest.moved {
            self.send_on(client, key, &moved, now)?;
        }
        if harvest.answered == 0 {
            return Ok(());
        }
        self.progressed = now;
        let waiting = &mut self.clients[client];
        self.tally.answered(u64::try_from(harvest.answered)?, now - waiting.batch_started);
        waiting.replies_awaited -= harvest.answered;
        if waiting.replies_awaited == 0 {
            self.clients_busy -= 1;
            self.start_batch(client, now)?;
        }
        Ok(())
    }

    /// Sends a request again where a MOVED points, and learns the new map.
    fn send_on(
        &mut self,
        client: usize,
        key: KeyNumber,
        moved: &str,
        now: Instant,
    ) -> anyhow::Result<()> {
        self.tally.moved();
        if self.refreshed.is_none_or(|at| now - at > REFRESH_PAUSE) {
            self.refreshed = Some(now);
            // In the middle of a change no node may have a whole map; the MOVED itself is enough then.
            let _ = self.topology.refresh();
        }
        let node = self.topology.believe(moved)?;
        self.send(client, node, key)?;
        self.link(client, node)?.flush()
    }

    fn link(&mut self, client: usize, node: NodeIndex) -> anyhow::Result<&mut Link> {
        let links = &mut self.clients[client].links;
        if links.len() <= node.number() {
            links.resize_with(node.number() + 1, || None);
        }
        let link = &mut links[node.number()];
        if link.is_none() {
            let token = Token(client * NODES_MAX + node.number());
            let address = self.topology.nodes()[node.number()];
            *link = Some(Link::connect(address, self.poll.registry(), token)?);
        }
        Ok(link.as_mut().expect("the line above made it"))
    }
}

impl Link {
    fn connect(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let stream = std::net::TcpStream::connect_timeout(&address, STALL)
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            out: Vec::new(),
            out_bytes_sent: 0,
            scanner: Scanner::default(),
            flying: VecDeque::new(),
            is_half_answered: false,
        })
    }

    /// Writes as much as the socket takes. The rest follows when it is writable.
    fn flush(&mut self) -> anyhow::Result<()> {
        while self.out_bytes_sent < self.out.len() {
            match self.stream.write(&self.out[self.out_bytes_sent..]) {
                Ok(bytes) => self.out_bytes_sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.out_bytes_sent = 0;
        Ok(())
    }

    fn scan(
        &mut self,
        bytes: &[u8],
        load: &Load,
        is_cluster: bool,
        tally: &mut Tally,
        harvest: &mut Harvest,
    ) -> anyhow::Result<()> {
        let (flying, is_half) = (&mut self.flying, &mut self.is_half_answered);
        let mut unasked = false;
        self.scanner.feed(bytes, |reply| {
            let key = match flying.front() {
                Some(key) => *key,
                None => return unasked = true,
            };
            let is_first_half = load.workload.command == Command::SetWait1 && !*is_half;
            *is_half = is_first_half;
            match judge(load, is_first_half, reply) {
                Verdict::Moved(moved) if is_cluster => {
                    flying.pop_front();
                    return harvest.moved.push((key, moved.to_owned()));
                }
                Verdict::Moved(error) | Verdict::Refused(error) => tally.refused(error),
                Verdict::Missed => tally.missed(),
                Verdict::Good => {}
            }
            if !is_first_half {
                flying.pop_front();
                harvest.answered += 1;
            }
        })?;
        if unasked {
            bail!("a reply to nothing that was asked");
        }
        Ok(())
    }
}

/// What a reply says about its request.
enum Verdict<'a> {
    Good,
    Missed,
    Moved(&'a str),
    Refused(&'a str),
}

fn judge<'a>(load: &Load, is_first_half: bool, reply: Reply<'a>) -> Verdict<'a> {
    match (load.workload.command, reply) {
        (_, Reply::Error(error)) if error.starts_with("MOVED ") => Verdict::Moved(error),
        (_, Reply::Error(error)) => Verdict::Refused(error),
        (Command::Get, Reply::Nil) => Verdict::Missed,
        (Command::Get, Reply::Bulk(bytes)) if bytes == load.workload.value_bytes => Verdict::Good,
        (Command::Get, Reply::Bulk(_)) => Verdict::Refused("WRONG-LENGTH"),
        (Command::Set, Reply::Simple) => Verdict::Good,
        (Command::SetWait1, Reply::Simple) if is_first_half => Verdict::Good,
        (Command::SetWait1, Reply::Int(0)) if !is_first_half => Verdict::Refused("NOT-REPLICATED"),
        (Command::SetWait1, Reply::Int(_)) if !is_first_half => Verdict::Good,
        (Command::Get | Command::Set | Command::SetWait1, _) => {
            Verdict::Refused("UNEXPECTED-REPLY")
        }
    }
}

#[cfg(test)]
mod tests;
