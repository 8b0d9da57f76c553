//! Clusters of real processes: started, killed, paused, stopped, and asked as anyone would ask them.
//!
//! Knows the product only by its command line, its ports and its signals. Ends every process it started,
//! however the test ends, and keeps the logs of a test that failed.
#![expect(
    clippy::disallowed_methods,
    reason = "real processes live in real time, and have threads"
)]

mod binary;
pub mod differential;
mod keeper;
mod node;
pub mod outage;
mod program;
pub mod tool;

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub use binary::hoard;
use client::Client;
use keeper::Keeper;
use node::Node;
pub use program::{Program, hear_first};
pub use scatterhoard_prove::finish::Finish;
pub use scatterhoard_prove::http::{Response, get as http_get};
pub use scatterhoard_prove::ports::{Block, Ports};
pub use scatterhoard_prove::{client, resp, workload};
use tokio::runtime::Runtime;

/// How long a cluster may take until it is writable, fully replicated and balanced. Far more than it
/// needs, since tests share a machine: only a cluster that never gets there fails.
const READY_PATIENCE: Duration = Duration::from_secs(90);

/// How long a node may take to hand over what it holds and to go. Longer than its own `--leave-timeout`.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// How long a node is waited for before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Lines of each node's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 15;

/// A cluster of real processes on this machine. Its nodes are numbered from 0, and end with it.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    dir: PathBuf,
    keeper: Keeper,
    block: Block,
}

impl Cluster {
    /// A cluster of so many nodes, once it is ready.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn of(nodes_count: usize) -> Self {
        Self::with(nodes_count, &[])
    }

    /// A cluster whose nodes get more flags, once it is ready.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn with(nodes_count: usize, flags: &[&str]) -> Self {
        let block = Block::reserve();
        let dir = directory();
        let join: Vec<_> = (0..nodes_count).map(|i| block.ports(i).peer().to_string()).collect();
        let majority = nodes_count.min(3) / 2 + 1;
        let mut shared = vec!["--min-replicas".to_owned(), majority.to_string()];
        if nodes_count > 1 {
            shared.extend(["--join".to_owned(), join.join(",")]);
        }
        shared.extend(flags.iter().map(|&flag| flag.to_owned()));
        let nodes = (0..nodes_count).map(|i| {
            let home = dir.join((i + 1).to_string());
            fs::create_dir_all(&home).expect("the temporary directory is writable");
            Node::new(home, block.ports(i), shared.clone())
        });
        let mut cluster = Self { nodes: nodes.collect(), keeper: Keeper::watch(&dir), dir, block };
        for i in 0..nodes_count {
            cluster.start(i);
        }
        cluster.wait_ready();
        cluster
    }

    /// Adds and starts a node that gets only these flags besides its ports. Waits for nothing. Says its
    /// number.
    ///
    /// # Panics
    /// If it cannot be started, or is one too many.
    pub fn add(&mut self, flags: &[&str]) -> usize {
        let number = self.nodes.len();
        let home = self.dir.join((number + 1).to_string());
        fs::create_dir_all(&home).expect("the temporary directory is writable");
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        self.nodes.push(Node::new(home, self.block.ports(number), flags));
        self.start(number);
        number
    }

    /// Gives a node other flags from its next start on.
    pub fn set_flags(&mut self, node: usize, flags: &[&str]) {
        self.nodes[node].flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    }

    /// Lets a node open so many files at most, from its next start on (`ulimit -n`).
    pub fn set_files_max(&mut self, node: usize, count: u32) {
        self.nodes[node].files_max = Some(count);
    }

    /// How a node ended that was not told to, if it did. From then on it is like one that was killed.
    pub fn ended(&mut self, node: usize) -> Option<ExitStatus> {
        self.nodes[node].ended()
    }

    /// How many nodes it has, running or not.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a cluster is never empty")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The ports of a node.
    #[must_use]
    pub fn ports(&self, node: usize) -> Ports {
        self.nodes[node].ports
    }

    /// Where tests may put files; removed with the cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cluster ports of all nodes, running or not.
    #[must_use]
    pub fn listens(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.ports.listen()).collect()
    }

    /// The same, as clients are told them.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.listens().iter().map(ToString::to_string).collect()
    }

    /// The any-key ports of all nodes, running or not.
    #[must_use]
    pub fn any_keys(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.ports.any_key()).collect()
    }

    /// Starts a program that uses it, and ends before it. Its name is for one program.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn program(&self, name: &str, command: &mut Command) -> Program {
        Program::start(&self.dir, name, command)
    }

    /// A client that follows redirects and knows all nodes.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.listens())
    }

    /// The process id of a node that runs.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn pid(&self, node: usize) -> u32 {
        self.nodes[node].pid().expect("the node runs")
    }

    /// What a node has logged, in all its lives.
    #[must_use]
    pub fn log(&self, node: usize) -> String {
        self.nodes[node].log()
    }

    /// Starts a node that does not run, with the flags it had before. Does not wait for anything.
    ///
    /// # Panics
    /// If it runs already, or cannot be started.
    pub fn start(&mut self, node: usize) {
        self.nodes[node].start(hoard());
    }

    /// Ends a node at once, as `kill -9` does, and returns once it is gone.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Stops a node's clock, so to speak (`SIGSTOP`): it keeps its connections and answers nothing.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&mut self, node: usize) {
        self.nodes[node].signal("STOP");
    }

    /// Lets a paused node go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&mut self, node: usize) {
        self.nodes[node].signal("CONT");
    }

    /// Asks a node to leave (`SIGTERM`) and waits until it has gone.
    ///
    /// # Panics
    /// If it does not go.
    pub fn stop(&mut self, node: usize) -> ExitStatus {
        self.nodes[node].signal("TERM");
        let asked = Instant::now();
        loop {
            if let Some(status) = self.nodes[node].ended() {
                return status;
            }
            assert!(asked.elapsed() < STOP_PATIENCE, "node {node} did not go after SIGTERM");
            thread::sleep(ASK_AGAIN);
        }
    }

    /// Waits until every running node says that the cluster is writable, fully replicated and balanced.
    ///
    /// # Panics
    /// If that does not come to pass, or a node has ended by itself.
    pub fn wait_ready(&mut self) {
        let begun = Instant::now();
        loop {
            self.assert_alive();
            let Some(reasons) = self.unready() else { return };
            assert!(begun.elapsed() < READY_PATIENCE, "the cluster did not get ready: {reasons}");
            thread::sleep(ASK_AGAIN);
        }
    }

    /// Why the cluster is not ready, in the words of the running nodes; `None` if it is.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        let mut reasons = String::new();
        for (i, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.pid().is_some()) {
            let reason = match http_get(node.ports.http(), "/ready") {
                Ok(Response { status: 200, .. }) => continue,
                Ok(Response { status, body }) => format!("{status} {}", body.trim()),
                Err(error) => error.to_string(),
            };
            write!(reasons, "node {i}: {reason}; ").expect("a String takes everything");
        }
        (!reasons.is_empty()).then_some(reasons)
    }

    /// Makes sure that no node has ended by itself or panicked.
    ///
    /// # Panics
    /// If one has.
    pub fn assert_alive(&mut self) {
        for (i, node) in self.nodes.iter_mut().enumerate() {
            if let Some(status) = node.ended() {
                panic!("node {i} ended by itself, {status}:\n{}", tail(&node.log()));
            }
            let log = node.log();
            let panicked = log.lines().find(|line| line.contains("panicked at"));
            assert!(panicked.is_none(), "node {i}: {}", panicked.unwrap_or_default());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = thread::panicking();
        if !failed {
            self.assert_alive();
        }
        for node in &mut self.nodes {
            node.end();
        }
        if failed {
            eprintln!("the logs are kept in {}", self.dir.display());
            for (i, node) in self.nodes.iter().enumerate() {
                eprintln!("node {i} ({}):\n{}", node.ports.listen(), tail(&node.log()));
            }
        } else {
            // What cannot be removed is in the system's directory for temporary files.
            let _left_behind = fs::remove_dir_all(&self.dir);
        }
        self.keeper.dismiss();
    }
}

/// A runtime for clients inside the test.
///
/// # Panics
/// If there can be none.
#[must_use]
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

/// Waits until something is so.
///
/// # Panics
/// If it does not become so within `patience`.
pub fn wait_until(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < patience, "in {patience:?} it did not happen that {what}");
        thread::sleep(ASK_AGAIN);
    }
}

/// Lets time pass, where what is waited for cannot be seen from outside.
pub fn pause(time: Duration) {
    thread::sleep(time);
}

/// A new directory for one cluster.
fn directory() -> PathBuf {
    static CLUSTERS_COUNT: AtomicU32 = AtomicU32::new(0);
    let number = CLUSTERS_COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("scatterhoard-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    // Of a process that had our id long ago.
    let _nothing_there = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("the temporary directory is writable");
    dir
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines[from..].iter().map(|line| format!("  {line}\n")).collect()
}
