//! What a campaign of chaos was, did and found: all that its report shows, and no more than it needs.
//!
//! Times are milliseconds since the campaign's first request.

use serde::{Deserialize, Serialize};

/// One campaign against one cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    /// What was tormented, for people: `scatterhoard 0.1.0`, `Redis Cluster 7.0.15`.
    pub target: String,
    /// The seed that all chance came from.
    pub seed: u64,
    /// The command that does it again.
    pub replay: String,
    /// When it began, in RFC 3339.
    pub began: String,
    /// The machine, for people: cores, memory, kernel, and whether nodes had networks of their own.
    pub machine: String,
    /// How long it took until everything was mended for good; faults lie within.
    pub faults_ended: u64,
    /// How long it took in all.
    pub ended: u64,
    /// The nodes' names, in the order of their numbers, from 1. One that never ran is not among them.
    pub nodes: Vec<String>,
    /// What was done to them, in the order of its beginning.
    pub faults: Vec<Fault>,
    /// Kinds of faults that were planned, and how often each happened.
    pub planned: Vec<Planned>,
    /// Where clients asked while faults happened.
    pub doors: Vec<Door>,
    /// What clients got done, in equal steps of time.
    pub throughput: Vec<Step>,
    /// How long one step of `throughput` is.
    pub step: u64,
    /// Who led what, and when.
    pub leaderships: Vec<Leadership>,
    /// When a partition did not take writes.
    pub outages: Vec<Outage>,
    /// What came of the faults in the cluster, and how often: leader changes, snapshots installed, leases lost,
    /// writes in doubt …
    pub came: Vec<(String, u64)>,
    /// What else was counted: operations, packets.
    pub counted: Vec<(String, u64)>,
    /// What it comes to.
    pub verdict: Verdict,
}

/// Something that was done to the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The kind, as `--faults` names it.
    pub kind: String,
    /// When it began to be done.
    pub from: u64,
    /// When it was over or mended; `None` if that is not a matter of time.
    pub until: Option<u64>,
    /// The numbers of the nodes that it was done to.
    pub nodes: Vec<usize>,
    /// For people: `60 % of datagrams from n1 to n3 lost`.
    pub detail: String,
}

/// A kind of fault and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The kind, as `--faults` names it.
    pub kind: String,
    /// How often it happened. 0 means that it was not tested, which fails the campaign.
    pub happened: u64,
    /// Why this machine cannot do it, if it was left out for that.
    pub unable: Option<String>,
}

/// A way into the cluster, and what came of what was asked there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// For people: `cluster ports`.
    pub name: String,
    /// Operations that were asked for. 0 means that it was not tested, which fails the campaign.
    pub asked: u64,
    /// Operations answered as done.
    pub done: u64,
}

/// What clients got done in a step of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Operations answered as done.
    pub done: u64,
    /// Operations answered as not done.
    pub refused: u64,
    /// Operations in doubt.
    pub in_doubt: u64,
    /// The median time to an answer, in microseconds; 0 without one.
    pub median_us: u64,
    /// The 99th percentile of the time to an answer, in microseconds; 0 without one.
    pub p99_us: u64,
}

/// A node led a partition for a while, as its own status said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leadership {
    /// The partition's number.
    pub partition: u16,
    /// The node's number.
    pub node: usize,
    /// The term.
    pub term: u64,
    /// When it was first seen.
    pub from: u64,
    /// When it was last seen.
    pub until: u64,
}

/// A partition took no writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// The partition's number.
    pub partition: u16,
    /// When the last write before it was answered as done.
    pub from: u64,
    /// When the first write after it was answered as done; the campaign's end if none was.
    pub until: u64,
}

/// What a campaign comes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Operations in the history.
    pub operations: u64,
    /// Objects that were judged, each on its own.
    pub objects: u64,
    /// Acknowledged writes that no later read shows though nothing replaced them.
    pub lost_writes: Vec<String>,
    /// Why the history is not linearizable, if it is not.
    pub violation: Option<String>,
    /// Objects whose history was too hard to judge.
    pub too_hard: Vec<String>,
    /// What else is wrong: a node that ended by itself, a cluster that did not find back, a fault that was
    /// planned and never happened.
    pub complaints: Vec<String>,
}

impl Verdict {
    /// Whether nothing was found wrong.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.lost_writes.is_empty()
            && self.violation.is_none()
            && self.too_hard.is_empty()
            && self.complaints.is_empty()
    }
}
