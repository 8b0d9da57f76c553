//! Scatterhoard itself, as anyone would run it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use scatterhoard_ring::SlotRange;
use serde::Deserialize;

use super::{Counters, Lead, Site, Target, View};
use crate::fault::Kind;
use crate::http;

/// How long a node must be gone before the others make its copies anew. Less than by default, so that it
/// happens to some of those that are killed or cut off for a while.
const REPLACE_AFTER: &str = "3s";

/// What is counted, and how logs tell of it.
const TOLD: [(&str, &str); 8] = [
    ("members dismissed by the council", "the council decides change=Dismiss"),
    ("nodes that learned they were dismissed", DISMISSED),
    ("replicas opened", "caretaker: replica opened"),
    ("snapshots installed", "snapshot installed"),
    ("nodes that left and handed everything over", "left; everything was handed over"),
    ("memberships of groups changed", "membership changed"),
    ("wrong wall clocks noticed", "this node's wall clock is wrong"),
    ("partitions founded anew", "the partition is founded anew here"),
];

/// What is counted by nodes themselves, and under which name their metrics have it.
const METRICS: [(&str, &str); 3] = [
    ("leases lost between a read and its answer", "hoard_leases_lost_total"),
    ("reads confirmed by a quorum, for want of a lease", "hoard_reads_confirmed_total"),
    ("answers in doubt that nodes gave", "hoard_errors_total{error=\"INDOUBT\"}"),
];

/// What a node never says if all is as it should be.
const ALARMS: [&str; 4] = [
    "panicked at",
    "Raft core of a replica died",
    "the log of a lost group was applied only in part",
    "founding was refused",
];

const DISMISSED: &str = "dismissed from the cluster";

/// A cluster of this program.
#[derive(Clone, Debug)]
pub struct Hoard {
    /// The program.
    pub program: PathBuf,
    /// Its version.
    pub version: String,
    /// Nodes that it begins with.
    pub nodes_count: usize,
}

/// A node's status, as far as it is of use.
#[derive(Deserialize)]
struct Status {
    name: String,
    wall_clock_ms: Option<u64>,
    #[serde(default)]
    members: Vec<Member>,
    #[serde(default)]
    partitions: Vec<Partition>,
}

#[derive(Deserialize)]
struct Member {
    alive: bool,
}

#[derive(Deserialize)]
struct Partition {
    id: u16,
    slots: (u16, u16),
    leader: Option<String>,
    term: Option<u64>,
}

impl Hoard {
    /// How many copies each key has.
    fn replicas(&self) -> usize {
        self.nodes_count.min(3)
    }

    fn status(site: &Site) -> Result<Status, String> {
        let answer = http::get(site.ports.http(), "/api/status").map_err(|e| e.to_string())?;
        serde_json::from_str(&answer.body).map_err(|error| error.to_string())
    }
}

impl Target for Hoard {
    fn title(&self) -> String {
        format!("Scatterhoard {}", self.version)
    }

    fn command(&self, site: &Site, founders: &[Site]) -> Vec<OsString> {
        let majority = self.replicas() / 2 + 1;
        let join: Vec<String> = founders.iter().map(|site| site.ports.peer().to_string()).collect();
        let mut words: Vec<OsString> = vec![self.program.clone().into(), "node".into()];
        words.extend(site.ports.flags().into_iter().map(OsString::from));
        let settings = [
            ("--name", site.name.clone()),
            ("--replicas", self.replicas().to_string()),
            ("--min-replicas", majority.to_string()),
            ("--replace-after", REPLACE_AFTER.to_owned()),
        ];
        for (flag, value) in settings {
            words.extend([flag.into(), value.into()]);
        }
        if founders.len() > 1 || site.number > founders.len() {
            words.extend(["--join".into(), join.join(",").into()]);
        }
        words
    }

    fn form(&self, _founders: &[Site]) -> Result<(), String> {
        Ok(())
    }

    fn welcome(&self, _newcomer: &Site, _founders: &[Site]) -> Result<(), String> {
        Ok(())
    }

    fn view(&self, site: &Site) -> Result<View, String> {
        let ready = http::get(site.ports.http(), "/ready").map_err(|error| error.to_string())?;
        let lacks = if ready.status == 200 { "" } else { &ready.body };
        let lacks = lacks.lines().map(str::to_owned).collect();
        let status = Self::status(site)?;
        let members = status.members.iter().filter(|member| member.alive).count();
        let led = status.partitions.iter().filter(|it| it.leader.as_ref() == Some(&status.name));
        let leads = led.filter_map(|it| Some(Lead { partition: it.id, term: it.term? })).collect();
        let metrics = http::get(site.ports.http(), "/metrics").ok();
        let counters = metrics.and_then(|metrics| counters(&metrics.body));
        Ok(View { lacks, members, leads, wall_clock_ms: status.wall_clock_ms, counters })
    }

    fn partitions(&self, founders: &[Site]) -> Result<Vec<(u16, SlotRange)>, String> {
        let site = founders.first().ok_or("there are no nodes")?;
        let partitions = Self::status(site)?.partitions;
        let range = |it: &Partition| {
            let (first, last) = it.slots;
            Some((it.id, SlotRange::new(first, last.checked_add(1)?)?))
        };
        partitions.iter().map(range).collect::<Option<_>>().ok_or("odd slots".to_owned())
    }

    fn any_key(&self, site: &Site) -> Option<SocketAddr> {
        Some(site.ports.any_key())
    }

    fn unable(&self, kind: Kind) -> Option<String> {
        match kind {
            Kind::Leave | Kind::RestartAll if self.nodes_count < 3 => {
                Some("with fewer than three nodes none can go".to_owned())
            }
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
            | Kind::Clock
            | Kind::Memory
            | Kind::Descriptors
            | Kind::Leave
            | Kind::RestartAll
            | Kind::Join => None,
        }
    }

    fn may_end(&self, log: &str) -> bool {
        log.contains(DISMISSED)
    }

    fn alarms(&self, log: &str) -> Vec<String> {
        let alarming = |line: &&str| ALARMS.iter().any(|alarm| line.contains(alarm));
        log.lines().filter(alarming).map(str::to_owned).collect()
    }

    fn counts(&self, log: &str) -> Vec<(String, u64)> {
        let count = |text: &str| log.lines().filter(|line| line.contains(text)).count() as u64;
        TOLD.iter().map(|&(name, text)| (name.to_owned(), count(text))).collect()
    }
}

/// What a node's metrics say; `None` if they do not even say for how long it has lived.
fn counters(metrics: &str) -> Option<Counters> {
    let value = |name: &str| {
        let mut values =
            metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.next()?.parse::<u64>().ok()
    };
    // A family without a value yet has not been counted once.
    let count = |&(name, metric): &(&str, &str)| (name.to_owned(), value(metric).unwrap_or(0));
    let uptime_s = value("hoard_uptime_seconds")?;
    Some(Counters { uptime_s, counts: METRICS.iter().map(count).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_among_all_metrics() {
        let metrics = "# TYPE hoard_uptime_seconds gauge\nhoard_uptime_seconds 7\n\
                       hoard_reads_confirmed_total 3\nhoard_leases_lost_total 1\n\
                       hoard_errors_total{error=\"MOVED\"} 9\nhoard_errors_total{error=\"INDOUBT\"} 4\n";
        let found = counters(metrics).unwrap();
        let counts: Vec<u64> = found.counts.iter().map(|&(_, count)| count).collect();
        assert_eq!((found.uptime_s, counts), (7, vec![1, 3, 4]));
        assert_eq!(counters("hoard_uptime_seconds 0\n").unwrap().counts[2].1, 0);
        assert_eq!(counters("not found"), None);
    }
}
