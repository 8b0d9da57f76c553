//! Redis servers of our own, without persistence, that end with the test, however it ends.
#![expect(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use scatterhoard_client::{Cluster, Command, Value};

const PATIENCE: Duration = Duration::from_secs(20);

/// Ports of servers; each has a second one, for its cluster, so much above.
const PORTS: std::ops::Range<u16> = 26_000..26_240;
const CLUSTER_PORT_ABOVE: u16 = 250;

/// Starts the server and ends it when its input ends, which the system closes if this process is killed.
const KEEPER: &str = r#""$@" >/dev/null & pid=$!; echo $pid; read -r _; kill -9 $pid; wait $pid"#;

pub(crate) struct Server {
    pub(crate) port: u16,
    flags: Vec<String>,
    keeper: Child,
    pid: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server with more flags.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let begun = Instant::now();
        loop {
            let port = free_port();
            if let Some(server) = Self::on(port, &flags).await {
                return server;
            }
            assert!(begun.elapsed() < PATIENCE, "redis-server does not start");
        }
    }

    /// `None` if another took the port.
    async fn on(port: u16, flags: &[String]) -> Option<Self> {
        let mut keeper = Process::new("sh")
            .args(["-c", KEEPER, "sh", "redis-server", "--port", &port.to_string()])
            .args(["--cluster-port", &(port + CLUSTER_PORT_ABOVE).to_string()])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let mut pid = String::new();
        let out = keeper.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut pid).expect("the shell says the id");
        let server = Self { port, flags: flags.to_vec(), keeper, pid: pid.trim().to_owned() };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(info) = server.info("server").await {
                let ours = info.contains(&format!("process_id:{}\r", server.pid));
                return ours.then_some(server);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("redis-server does not answer");
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whoever uses the server and knows nothing of levels.
    pub(crate) async fn foreigner(&self) -> Cluster {
        Cluster::connect([self.address()]).await.expect("the server answers")
    }

    pub(crate) async fn run(&self, words: &[&str]) -> Value {
        let (name, rest) = words.split_first().expect("a command has a name");
        let command = rest.iter().fold(Command::write(name), Command::arg);
        self.foreigner().await.run(command).await.expect("it is done")
    }

    /// `None` if it does not answer.
    pub(crate) async fn info(&self, section: &str) -> Option<String> {
        let client = Cluster::connect([self.address()]).await.ok()?;
        let info = client.run(Command::read("INFO").arg(section)).await.ok()?;
        match info {
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// How often a command was run.
    pub(crate) async fn calls(&self, command: &str) -> u64 {
        let stats = self.info("commandstats").await.expect("it answers");
        let of = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&of));
        let digits = line.and_then(|line| line.split(',').next());
        digits.map_or(0, |digits| digits.parse().expect("a number"))
    }

    /// Stops its clock, so to speak: it keeps its connections and answers nothing.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Ends it at once, and starts another in its place.
    pub(crate) async fn restart(&mut self) {
        self.end();
        let begun = Instant::now();
        loop {
            if let Some(server) = Self::on(self.port, &self.flags).await {
                *self = server;
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "redis-server does not start again");
        }
    }

    fn signal(&self, name: &str) {
        let sent =
            Process::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.pid]).status();
        assert!(sent.expect("there is a shell").success(), "SIG{name} could not be sent");
    }

    fn end(&mut self) {
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Three of them that share the slots.
pub(crate) async fn cluster() -> Vec<Server> {
    let mut servers = Vec::new();
    for number in 0..3 {
        let config = format!("nodes-{}-{number}.conf", std::process::id());
        let dir = std::env::temp_dir();
        let dir = dir.to_str().expect("a path in UTF-8").to_owned();
        let _from_before = std::fs::remove_file(std::path::Path::new(&dir).join(&config));
        let flags = ["--cluster-enabled", "yes", "--cluster-config-file", &config, "--dir", &dir];
        servers.push(Server::start_with(&flags).await);
    }
    for (number, server) in servers.iter().enumerate() {
        let bounds = [0, 5461, 10_923, 16_384];
        let (first, last) = (bounds[number].to_string(), (bounds[number + 1] - 1).to_string());
        at(server, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
        let (port, bus) = (servers[0].port, servers[0].port + CLUSTER_PORT_ABOVE);
        if number > 0 {
            at(server, &["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), &bus.to_string()])
                .await;
        }
    }
    let begun = Instant::now();
    for server in &servers {
        while !at(server, &["CLUSTER", "INFO"]).await.contains("cluster_state:ok") {
            assert!(begun.elapsed() < PATIENCE, "the cluster does not come about");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    servers
}

/// Asks this very server, whatever it leads.
async fn at(server: &Server, words: &[&str]) -> String {
    let client = redis::Client::open(format!("redis://{}", server.address())).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("it answers");
    let mut command = redis::cmd(words[0]);
    let answer: redis::Value =
        command.arg(&words[1..]).query_async(&mut connection).await.expect("it does it");
    match answer {
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        redis::Value::VerbatimString { text, .. } | redis::Value::SimpleString(text) => text,
        other => format!("{other:?}"),
    }
}

fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    let salt = u16::try_from(std::process::id() * 7 % u32::from(count)).expect("it is less");
    for _ in 0..count {
        let port = PORTS.start + (salt + NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free(port) && is_free(port + CLUSTER_PORT_ABOVE) {
            return port;
        }
    }
    panic!("no port is free");
}
