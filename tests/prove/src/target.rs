//! What is tormented: how its nodes are started, and what they say of themselves. The rest (processes,
//! networks, faults, clients) is the same for every target.

pub mod hoard;
pub mod redis_cluster;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use scatterhoard_ring::SlotRange;

use crate::fault::Kind;
use crate::ports::Ports;

/// A kind of cluster. Nodes are processes; they speak the Redis Cluster protocol to clients.
///
/// All methods but `form` and `welcome` may be called at any time from any thread, and take at most some
/// seconds.
pub trait Target: Sync {
    /// Its name and version, for people: `scatterhoard 0.1.0`, `Redis Cluster 7.0.15`.
    fn title(&self) -> String;

    /// The command line of a node: the program and its arguments. `founders` are the sites of the nodes
    /// that the campaign begins with, whether or not this is one of them. Called before each start; the
    /// process's standard output and error become its log, and its working directory is its home.
    fn command(&self, site: &Site, founders: &[Site]) -> Vec<OsString>;

    /// Makes a cluster of the nodes, which have just been started for the first time. Need not wait until
    /// it is whole.
    ///
    /// # Errors
    /// Why that did not go; the campaign is given up.
    fn form(&self, founders: &[Site]) -> Result<(), String>;

    /// Takes a node in again that has just been started anew, or one that joins. Need not wait.
    ///
    /// # Errors
    /// Why that did not go, which is a complaint.
    fn welcome(&self, newcomer: &Site, founders: &[Site]) -> Result<(), String>;

    /// What a node says.
    ///
    /// # Errors
    /// Why it says nothing: it is not reached, or not a member yet.
    fn view(&self, site: &Site) -> Result<View, String>;

    /// Which slots each partition has. Asked once, when the cluster is whole for the first time; partitions
    /// are taken not to change after that.
    ///
    /// # Errors
    /// Why that is not known.
    fn partitions(&self, founders: &[Site]) -> Result<Vec<(u16, SlotRange)>, String>;

    /// Where a node serves all keys without redirecting, if it does.
    fn any_key(&self, site: &Site) -> Option<SocketAddr>;

    /// Why a kind of fault makes no sense here.
    fn unable(&self, kind: Kind) -> Option<String>;

    /// Whether what a node has logged since it was started says that it may end by itself, as one that the
    /// others have given up may. It is started again.
    fn may_end(&self, log: &str) -> bool;

    /// Lines of a node's log that must not be there, whatever was done to it.
    fn alarms(&self, log: &str) -> Vec<String>;

    /// What a node's log says has happened, and how often: snapshots installed, members dismissed. Names
    /// are for people, and the same for all nodes.
    fn counts(&self, log: &str) -> Vec<(String, u64)>;
}

/// Where a node lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its number, from 1.
    pub number: usize,
    /// Its name: `n1`.
    pub name: String,
    /// Where it listens.
    pub ports: Ports,
    /// A directory for what it writes. Outlives its process, and its machine.
    pub home: PathBuf,
}

/// What a node says of itself and its cluster at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Why the cluster is not whole, in its words. Empty if every partition takes writes and all replicas
    /// that it should have, with all their data: then any one node may lose its memory.
    pub lacks: Vec<String>,
    /// How many nodes it believes to be members and alive.
    pub members: usize,
    /// What it believes to lead.
    pub leads: Vec<Lead>,
    /// What the wall clock of its machine says, in milliseconds since 1970, if it tells.
    pub wall_clock_ms: Option<u64>,
    /// What it has counted, if it counts.
    pub counters: Option<Counters>,
}

/// What a node has counted since its process was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// For how many seconds the process has lived: less than before means that it is another.
    pub uptime_s: u64,
    /// What was counted, under names for people, and how often.
    pub counts: Vec<(String, u64)>,
}

/// A node leads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lead {
    /// The partition's number.
    pub partition: u16,
    /// The term, or what else tells this leadership from the next.
    pub term: u64,
}
