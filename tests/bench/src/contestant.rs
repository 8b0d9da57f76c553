//! The contestants: how each is started, when it is ready, where load goes to, and what it uses.
//!
//! All run on loopback, without disk where they can do without, and end with their owner.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::control::{Answer, Control};
use crate::process::{Pid, Pin, Server};

/// A contestant that is not ready by then never will be.
const READY: Duration = Duration::from_secs(30);

/// Nodes in every replicated contestant: a value is on three, and two of them have to say so.
const NODES: u16 = 3;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Scatterhoard,
    /// `redis-server`.
    Redis,
    /// `etcd`.
    Etcd,
}

impl Kind {
    /// As the report calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scatterhoard => "scatterhoard",
            Self::Redis => "redis",
            Self::Etcd => "etcd",
        }
    }
}

/// Where contestants live while they run.
#[derive(Clone, Debug)]
pub struct Arena {
    /// Data and logs, thrown away afterwards. On tmpfs if etcd is not to wait for a disk.
    pub work: PathBuf,
    /// The first port; they use some up to 300 above, and for Scatterhoard also 1,000, 2,000 and 10,000
    /// above those.
    pub port: u16,
    /// The `hoard` binary.
    pub hoard: PathBuf,
    /// The script that starts and ends a cluster of it.
    pub cluster_script: PathBuf,
}

/// A contestant that is ready for load.
#[derive(Debug)]
pub struct Contestant {
    kind: Kind,
    pids: Vec<Pid>,
    target: Target,
    /// Ends them when dropped.
    _servers: Vec<Server>,
    _cluster: Option<Cluster>,
}

/// Where load goes to, in the words of `hoard-load`.
#[derive(Debug)]
enum Target {
    Alone(SocketAddr),
    Cluster(Vec<SocketAddr>),
    Primary(SocketAddr),
    EtcdLeader(SocketAddr),
}

impl Contestant {
    /// One node of ours, without anyone to replicate to.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn scatterhoard_alone(arena: &Arena, pin: Pin) -> anyhow::Result<Self> {
        let address = loopback(arena.port + 100);
        let words = [
            arena.hoard.display().to_string(),
            "node".into(),
            "--listen".into(),
            address.to_string(),
        ];
        let log = arena.work.join("hoard.log");
        let mut servers = vec![Server::start(&words, pin, &log)?];
        wait(&mut servers, &log, || takes_writes(address))?;
        Ok(Self::of(Kind::Scatterhoard, Target::Alone(address), servers))
    }

    /// One `redis-server`, without persistence.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn redis_alone(arena: &Arena, pin: Pin) -> anyhow::Result<Self> {
        let address = loopback(arena.port);
        let log = arena.work.join("redis.log");
        let mut servers = vec![Server::start(&redis_words(arena, address, None), pin, &log)?];
        wait(&mut servers, &log, || takes_writes(address))?;
        Ok(Self::of(Kind::Redis, Target::Alone(address), servers))
    }

    /// Three nodes of ours, every value on all three.
    ///
    /// # Errors
    /// If they do not get ready.
    pub fn scatterhoard_cluster(arena: &Arena) -> anyhow::Result<Self> {
        let (cluster, port) = (Cluster::up(arena)?, arena.port + 200);
        let pids = (1..=NODES).map(|node| cluster.pid(node)).collect::<Result<_, _>>()?;
        let target = Target::Cluster((0..NODES).map(|node| loopback(port + node)).collect());
        let kind = Kind::Scatterhoard;
        Ok(Self { kind, pids, target, _servers: Vec::new(), _cluster: Some(cluster) })
    }

    /// A Redis primary with two replicas.
    ///
    /// # Errors
    /// If they do not get ready.
    pub fn redis_replicated(arena: &Arena) -> anyhow::Result<Self> {
        let primary = loopback(arena.port + 10);
        let mut servers = Vec::new();
        for node in 0..NODES {
            let address = loopback(arena.port + 10 + node);
            let of = (node > 0).then_some(primary);
            let log = arena.work.join(format!("redis-{node}.log"));
            servers.push(Server::start(&redis_words(arena, address, of), Pin::Anywhere, &log)?);
        }
        let log = arena.work.join("redis-0.log");
        wait(&mut servers, &log, || has_replicas(primary, i64::from(NODES) - 1))?;
        Ok(Self::of(Kind::Redis, Target::Primary(primary), servers))
    }

    /// Three members of etcd. Load goes to the leader, which is what suits it best.
    ///
    /// # Errors
    /// If they do not get ready.
    pub fn etcd_cluster(arena: &Arena) -> anyhow::Result<Self> {
        let mut servers = Vec::new();
        for node in 0..NODES {
            let log = arena.work.join(format!("etcd-{node}.log"));
            servers.push(Server::start(&etcd_words(arena, node), Pin::Anywhere, &log)?);
        }
        let members: Vec<_> = (0..NODES).map(|node| loopback(arena.port + 20 + node)).collect();
        let mut leader = None;
        let log = arena.work.join("etcd-0.log");
        wait(&mut servers, &log, || {
            leader = members.iter().copied().find(|member| leads(*member).unwrap_or(false));
            ensure!(leader.is_some(), "no member leads");
            Ok(())
        })?;
        let target = Target::EtcdLeader(leader.context("waited for one")?);
        Ok(Self::of(Kind::Etcd, target, servers))
    }

    fn of(kind: Kind, target: Target, servers: Vec<Server>) -> Self {
        let pids = servers.iter().map(Server::pid).collect();
        Self { kind, pids, target, _servers: servers, _cluster: None }
    }

    /// Who this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The words that make `hoard-load` load this contestant. `command` is `get` or `set`; a set is
    /// whatever this contestant needs to have a write on a majority of its nodes.
    #[must_use]
    pub fn load_words(&self, command: &str) -> Vec<String> {
        let words = match &self.target {
            Target::Alone(address) => format!("resp --address {address} --command {command}"),
            Target::Primary(address) => {
                format!("resp --address {address} --command {command}-wait1")
            }
            Target::EtcdLeader(address) => format!("etcd --address {address}"),
            Target::Cluster(nodes) => {
                let nodes: String = nodes.iter().map(|node| format!(" --address {node}")).collect();
                format!("resp --cluster{nodes} --command {command}")
            }
        };
        words.split(' ').map(str::to_owned).collect()
    }

    /// User and system time of all its processes since they began.
    ///
    /// # Errors
    /// If one has ended.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let times: anyhow::Result<Vec<_>> = self.pids.iter().map(|pid| pid.cpu()).collect();
        times
            .map(|times| times.iter().sum())
            .with_context(|| format!("{} has ended", self.kind.name()))
    }

    /// Memory of all its processes.
    ///
    /// # Errors
    /// If one has ended.
    pub fn rss_bytes(&self) -> anyhow::Result<u64> {
        let sizes: anyhow::Result<Vec<_>> = self.pids.iter().map(|pid| pid.rss_bytes()).collect();
        sizes
            .map(|sizes| sizes.iter().sum())
            .with_context(|| format!("{} has ended", self.kind.name()))
    }
}

/// A cluster that `scripts/cluster` started. Ends with its owner.
#[derive(Debug)]
struct Cluster {
    script: PathBuf,
    dir: PathBuf,
}

impl Cluster {
    fn up(arena: &Arena) -> anyhow::Result<Self> {
        let (script, dir) = (arena.cluster_script.clone(), arena.work.join("cluster"));
        // Made before the call, so that a cluster that came up only in part is ended too.
        let cluster = Self { script, dir };
        let port = (arena.port + 200).to_string();
        let output = Process::new(&cluster.script)
            .args(["up", &NODES.to_string(), "--port", &port, "--dir"])
            .arg(&cluster.dir)
            .env("HOARD_BIN", &arena.hoard)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {}", cluster.script.display()))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("cluster up failed: {}", String::from_utf8_lossy(&said).trim());
        }
        Ok(cluster)
    }

    fn pid(&self, node: u16) -> anyhow::Result<Pid> {
        Pid::read(&self.dir.join(node.to_string()).join("pid"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let down = Process::new(&self.script)
            .args(["down", "--dir"])
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("could not end the cluster in {}", self.dir.display());
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn redis_words(arena: &Arena, address: SocketAddr, primary: Option<SocketAddr>) -> Vec<String> {
    let mut words: Vec<String> = ["redis-server", "--save", "", "--appendonly", "no"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    let (ip, port, dir) = (address.ip(), address.port(), arena.work.display());
    let place = format!("--bind {ip} --port {port} --dir {dir} --repl-diskless-sync-delay 0");
    words.extend(place.split(' ').map(str::to_owned));
    if let Some(primary) = primary {
        words.extend(["--replicaof".into(), primary.ip().to_string(), primary.port().to_string()]);
    }
    words
}

fn etcd_words(arena: &Arena, node: u16) -> Vec<String> {
    let client = loopback(arena.port + 20 + node);
    let peer = |node| format!("http://{}", loopback(arena.port + 30 + node));
    let all: Vec<_> = (0..NODES).map(|node| format!("e{node}={}", peer(node))).collect();
    vec![
        "etcd".into(),
        format!("--name=e{node}"),
        format!("--data-dir={}", arena.work.join(format!("etcd-{node}")).display()),
        format!("--listen-client-urls=http://{client}"),
        format!("--advertise-client-urls=http://{client}"),
        format!("--listen-peer-urls={}", peer(node)),
        format!("--initial-advertise-peer-urls={}", peer(node)),
        format!("--initial-cluster={}", all.join(",")),
        // Its default of 2 GiB would stop a long run, not slow it.
        "--quota-backend-bytes=8589934592".into(),
        "--log-level=error".into(),
    ]
}

/// Waits until `is_ready` has no more objections.
fn wait(
    servers: &mut [Server],
    log: &Path,
    mut is_ready: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let objection = match is_ready() {
            Ok(()) => return Ok(()),
            Err(objection) => objection,
        };
        let ended = servers.iter_mut().find_map(|server| server.check().err());
        if ended.is_none() && started.elapsed() < READY {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        let said = fs::read_to_string(log).unwrap_or_default();
        return Err(ended.unwrap_or(objection).context(format!("not ready; it said: {said}")));
    }
}

fn takes_writes(address: SocketAddr) -> anyhow::Result<()> {
    let mut control = Control::connect(address)?;
    match control.ask(&["SET", "ready", "yes"])? {
        Answer::Simple(_) => control.ask(&["DEL", "ready"]).map(drop),
        other => bail!("a write was answered {other:?}"),
    }
}

fn has_replicas(primary: SocketAddr, replicas: i64) -> anyhow::Result<()> {
    let mut control = Control::connect(primary)?;
    control.ask(&["SET", "ready", "yes"])?;
    match control.ask(&["WAIT", &replicas.to_string(), "1000"])? {
        Answer::Int(count) if count >= replicas => Ok(()),
        other => bail!("WAIT was answered {other:?}"),
    }
}

/// Whether this member of etcd leads, by its metrics: the only place that tells without gRPC.
fn leads(member: SocketAddr) -> anyhow::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&member, READY)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics)?;
    Ok(metrics.lines().any(|line| line == "etcd_server_is_leader 1"))
}
