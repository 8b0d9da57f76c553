//! Redis Cluster, to see that what is found wrong there is found: its replication is asynchronous, so it
//! acknowledges what only one node has.
//!
//! Three masters with a replica each, of nodes that keep nothing on disk but who they are: the loss of a
//! process is the loss of its memory, as it is for ours.

mod nodes;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use scatterhoard_ring::{Slot, SlotRange};

use super::{Lead, Site, Target, View};
use crate::fault::Kind;
use crate::resp::{Connection, Value};
use nodes::{Node, Role};

/// Masters, each of which has one replica.
const MASTERS_COUNT: usize = 3;

/// How many nodes there are.
pub const NODES_COUNT: usize = 2 * MASTERS_COUNT;

/// After how long a node that is not reached counts as failed, in milliseconds. The default is fifteen
/// seconds; with this it fails over about as soon as ours, and faults last long enough for it to happen.
const NODE_TIMEOUT_MS: u32 = 1000;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long nodes may take to get up and to know each other, and the pause between two looks.
const FORM_PATIENCE: Duration = Duration::from_secs(30);
const FORM_PAUSE: Duration = Duration::from_millis(50);

/// What is counted, and how logs tell of it.
const TOLD: [(&str, &str); 5] = [
    ("replicas that became masters", "Failover election won"),
    (
        "masters that became replicas",
        "Configuration change detected. Reconfiguring myself as a replica",
    ),
    ("nodes taken to have failed", "as failing (quorum reached)"),
    ("whole copies sent to replicas", "MASTER <-> REPLICA sync: Finished with success"),
    ("copies thrown away for a master's", "MASTER <-> REPLICA sync: Flushing old data"),
];

/// A cluster of redis-server processes.
#[derive(Clone, Debug)]
pub struct RedisCluster {
    program: PathBuf,
    version: String,
}

impl RedisCluster {
    /// One of the redis-server that is installed, or of another.
    ///
    /// # Errors
    /// It cannot be run, or is older than Redis 7.
    pub fn of(program: PathBuf) -> anyhow::Result<Self> {
        let told = Command::new(&program).arg("--version").output();
        let told = told.with_context(|| format!("{} cannot be run", program.display()))?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let version = told.split(' ').find_map(|word| word.strip_prefix("v="));
        let version =
            version.with_context(|| format!("{} is no redis-server", program.display()))?;
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        ensure!(major >= Some(7), "Redis {version} is too old: 7 or later is needed");
        Ok(Self { version: version.to_owned(), program })
    }

    fn ask(site: &Site, words: &[&str]) -> Result<Value, String> {
        let mut connection =
            Connection::open(site.ports.listen(), PATIENCE).map_err(|error| error.to_string())?;
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        match connection.call(&words).map_err(|error| error.to_string())? {
            Value::Error(error) => Err(error),
            value => Ok(value),
        }
    }

    fn text(site: &Site, words: &[&str]) -> Result<String, String> {
        match Self::ask(site, words)? {
            Value::Bulk(Some(text)) => Ok(String::from_utf8_lossy(&text).into_owned()),
            Value::Simple(text) => Ok(text),
            odd => Err(format!("{} was answered {odd:?}", words.join(" "))),
        }
    }

    /// What a node says of all.
    fn nodes(site: &Site) -> Result<Vec<Node>, String> {
        nodes::read(&Self::text(site, &["CLUSTER", "NODES"])?)
    }

    /// What the wall clock of its machine says, in milliseconds since 1970.
    fn wall_clock_ms(site: &Site) -> Option<u64> {
        let Value::Array(Some(words)) = Self::ask(site, &["TIME"]).ok()? else { return None };
        let Some(Value::Bulk(Some(seconds))) = words.first() else { return None };
        Some(std::str::from_utf8(seconds).ok()?.parse::<u64>().ok()? * 1000)
    }

    /// Tries until it goes.
    fn insist<T>(mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
        let since = Instant::now();
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(why) if since.elapsed() > FORM_PATIENCE => return Err(why),
                Err(_) => thread::sleep(FORM_PAUSE),
            }
        }
    }
}

impl Target for RedisCluster {
    fn title(&self) -> String {
        format!("Redis Cluster {}", self.version)
    }

    fn command(&self, site: &Site, _founders: &[Site]) -> Vec<OsString> {
        let (listen, bus) = (site.ports.listen(), site.ports.peer());
        let mut words: Vec<OsString> = vec![self.program.clone().into()];
        let settings = [
            ("--bind", listen.ip().to_string()),
            ("--port", listen.port().to_string()),
            ("--cluster-port", bus.port().to_string()),
            ("--cluster-enabled", "yes".to_owned()),
            ("--cluster-config-file", "nodes.conf".to_owned()),
            ("--cluster-node-timeout", NODE_TIMEOUT_MS.to_string()),
            ("--protected-mode", "no".to_owned()),
            ("--save", String::new()),
            ("--appendonly", "no".to_owned()),
        ];
        for (flag, value) in settings {
            words.extend([flag.into(), value.into()]);
        }
        words
    }

    fn form(&self, founders: &[Site]) -> Result<(), String> {
        let [first, others @ ..] = founders else { return Err("there are no nodes".to_owned()) };
        for site in founders {
            Self::insist(|| Self::ask(site, &["PING"]))?;
        }
        for (site, (partition, slots)) in founders.iter().zip(partitions()) {
            let (low, high) =
                (slots.first().number().to_string(), slots.last().number().to_string());
            Self::ask(site, &["CLUSTER", "ADDSLOTSRANGE", &low, &high])?;
            // Epochs decide between masters; equal ones would be told apart by chance.
            Self::ask(site, &["CLUSTER", "SET-CONFIG-EPOCH", &(partition + 1).to_string()])?;
        }
        for site in others {
            let (listen, bus) = (site.ports.listen(), site.ports.peer());
            let (ip, port, bus) =
                (listen.ip().to_string(), listen.port().to_string(), bus.port().to_string());
            Self::ask(first, &["CLUSTER", "MEET", &ip, &port, &bus])?;
        }
        for (master, replica) in founders.iter().zip(founders.iter().skip(MASTERS_COUNT)) {
            let id = Self::text(master, &["CLUSTER", "MYID"])?;
            // It has to have heard of its master before.
            Self::insist(|| Self::ask(replica, &["CLUSTER", "REPLICATE", &id]))?;
        }
        Ok(())
    }

    fn welcome(&self, _newcomer: &Site, _founders: &[Site]) -> Result<(), String> {
        // Who it is and whom it knows it has on disk.
        Ok(())
    }

    fn view(&self, site: &Site) -> Result<View, String> {
        let nodes = Self::nodes(site)?;
        let info = Self::text(site, &["CLUSTER", "INFO"])?;
        let mut lacks = nodes::lacks(&nodes);
        if !info.contains("cluster_state:ok") {
            lacks.push("the cluster does not take writes for all slots".to_owned());
        }
        let myself = nodes.iter().find(|node| node.is_myself).ok_or("it does not know itself")?;
        let replication = Self::text(site, &["INFO", "replication"])?;
        let followed = match myself.role {
            Role::Master => myself.slots.is_empty() || replication.contains("state=online"),
            Role::Replica => {
                replication.contains("master_link_status:up")
                    && replication.contains("master_sync_in_progress:0")
            }
        };
        if !followed {
            lacks.push("it has no copy, or is none yet".to_owned());
        }
        let leads = partitions()
            .filter(|(_, slots)| myself.serves(slots.first().number()))
            .map(|(partition, _)| Lead { partition, term: myself.epoch });
        let members = nodes.iter().filter(|node| node.is_reached).count();
        let leads = leads.collect();
        let wall_clock_ms = Self::wall_clock_ms(site);
        Ok(View { lacks, members, leads, wall_clock_ms, counters: None })
    }

    fn partitions(&self, _founders: &[Site]) -> Result<Vec<(u16, SlotRange)>, String> {
        Ok(partitions().collect())
    }

    fn any_key(&self, _site: &Site) -> Option<SocketAddr> {
        None
    }

    fn unable(&self, kind: Kind) -> Option<String> {
        match kind {
            Kind::Leave | Kind::RestartAll => {
                Some("a Redis node that is asked to go hands nothing over".to_owned())
            }
            Kind::Join => Some("slots are given to a new Redis node by hand".to_owned()),
            // jemalloc, which Redis is built with, asks for the time before libfaketime knows how to tell it.
            Kind::Clock => Some("Redis does not start with libfaketime".to_owned()),
            Kind::Kill
            | Kind::Crash
            | Kind::Pause
            | Kind::Cut
            | Kind::Island
            | Kind::OneWay
            | Kind::Loss
            | Kind::Delay
            | Kind::Reorder
            | Kind::Bandwidth
            | Kind::Memory
            | Kind::Descriptors => None,
        }
    }

    fn may_end(&self, _log: &str) -> bool {
        false
    }

    fn alarms(&self, log: &str) -> Vec<String> {
        let alarming =
            |line: &&str| line.contains("crashed by signal") || line.contains("ASSERTION FAILED");
        log.lines().filter(alarming).map(str::to_owned).collect()
    }

    fn counts(&self, log: &str) -> Vec<(String, u64)> {
        let count = |text: &str| log.lines().filter(|line| line.contains(text)).count() as u64;
        TOLD.iter().map(|&(name, text)| (name.to_owned(), count(text))).collect()
    }
}

/// Which slots go together: those that one master is given at the beginning.
fn partitions() -> impl Iterator<Item = (u16, SlotRange)> {
    let masters = MASTERS_COUNT as u16;
    (0..masters).map(move |partition| {
        let bound = |i: u16| u32::from(Slot::COUNT) * u32::from(i) / u32::from(masters);
        let bound = |i| u16::try_from(bound(i)).expect("a share of the slots is no more than all");
        let range = SlotRange::new(bound(partition), bound(partition + 1));
        (partition, range.expect("every master is given slots"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_one_partition() {
        let all: Vec<_> = partitions().flat_map(|(_, slots)| slots.iter()).collect();
        assert_eq!(all.len(), usize::from(Slot::COUNT));
        assert!(all.is_sorted());
    }
}
