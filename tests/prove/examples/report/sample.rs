//! Campaigns that could have been: faults, and what they do to leaders, clients and answers.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scatterhoard_prove::campaign::{
    Campaign, Door, Fault, Leadership, Outage, Planned, Step, Verdict,
};

/// How large a campaign is, and how it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// How long it takes.
    pub(crate) minutes: u64,
    /// How many nodes there are.
    pub(crate) nodes_count: usize,
    /// How many partitions there are.
    pub(crate) partitions_count: u16,
    /// Whether writes are lost.
    pub(crate) loses: bool,
}

impl Shape {
    /// As in CI.
    pub(crate) const SHORT: Self =
        Self { minutes: 2, nodes_count: 3, partitions_count: 8, loses: false };
}

/// Kinds of faults, how long each lasts (at most, in milliseconds; 0: at once), and whether it deposes the
/// leaders on its node.
const KINDS: [(&str, u64, bool); 9] = [
    ("kill", 0, true),
    ("machine-crash", 6000, true),
    ("pause", 9000, true),
    ("cut", 7000, true),
    ("one-way-cut", 7000, true),
    ("island", 8000, true),
    ("loss", 12_000, false),
    ("delay", 14_000, false),
    ("clock", 0, false),
];

/// How long a step is, in milliseconds.
const STEP: u64 = 100;

/// A campaign of this shape; the same for the same seed.
pub(crate) fn campaign(shape: Shape, seed: u64) -> Campaign {
    let mut chance = StdRng::seed_from_u64(seed);
    let faults_ended = shape.minutes * 60_000;
    let ended = faults_ended + 15_000;
    let nodes: Vec<_> = (1..=shape.nodes_count).map(|i| format!("n{i}")).collect();
    let faults = faults(shape, faults_ended, &mut chance);
    let (leaderships, outages) = led(shape, &faults, ended, &mut chance);
    let throughput = throughput(shape, &faults, &outages, ended, &mut chance);
    let operations = throughput.iter().map(|step| step.done + step.refused + step.in_doubt).sum();
    let mut planned: Vec<_> = KINDS
        .iter()
        .map(|(kind, ..)| Planned {
            kind: (*kind).to_owned(),
            happened: faults.iter().filter(|fault| fault.kind == *kind).count() as u64,
            unable: None,
        })
        .collect();
    planned.push(Planned {
        kind: "full-disk".to_owned(),
        happened: 0,
        unable: Some("nodes keep nothing on disk".to_owned()),
    });
    if shape.loses {
        planned.push(Planned { kind: "memory".to_owned(), happened: 0, unable: None });
    }
    let changes = leaderships.len() as u64 - u64::from(shape.partitions_count);
    let target = if shape.loses { "Redis Cluster 7.0.15" } else { "scatterhoard 0.1.0" };
    let option = if shape.loses { " --target redis-cluster" } else { "" };
    Campaign {
        target: target.to_owned(),
        seed,
        replay: format!("scripts/chaos{option} --minutes {} --seed {seed}", shape.minutes),
        began: "2026-11-21T15:04:05Z".to_owned(),
        machine: "2 cores, 24 GiB, Linux 6.1.0; each node in a network of its own".to_owned(),
        faults_ended,
        ended,
        nodes,
        planned,
        doors: [("cluster ports", 3), ("any-key ports", 1)]
            .map(|(name, share)| Door {
                name: name.to_owned(),
                asked: operations / 4 * share,
                done: operations / 5 * share,
            })
            .to_vec(),
        throughput,
        step: STEP,
        came: vec![
            ("leader changes".to_owned(), changes),
            ("snapshots installed".to_owned(), changes / 2),
            ("leases that ran out".to_owned(), changes / 3),
            ("answers in doubt".to_owned(), 214),
            ("generations founded".to_owned(), 0),
        ],
        counted: vec![("packets dropped".to_owned(), 1231)],
        leaderships,
        outages,
        verdict: verdict(shape, operations),
        faults,
    }
}

/// A campaign that ended before it began.
pub(crate) fn empty() -> Campaign {
    Campaign {
        planned: vec![Planned { kind: "kill".to_owned(), happened: 0, unable: None }],
        doors: Vec::new(),
        faults: Vec::new(),
        throughput: Vec::new(),
        leaderships: Vec::new(),
        outages: Vec::new(),
        came: Vec::new(),
        counted: Vec::new(),
        ended: 0,
        faults_ended: 0,
        verdict: Verdict {
            complaints: vec!["the cluster did not come up".to_owned()],
            ..no_verdict()
        },
        ..campaign(Shape { minutes: 1, ..Shape::SHORT }, 1)
    }
}

fn no_verdict() -> Verdict {
    Verdict {
        operations: 0,
        objects: 0,
        lost_writes: Vec::new(),
        violation: None,
        too_hard: Vec::new(),
        complaints: Vec::new(),
    }
}

fn verdict(shape: Shape, operations: u64) -> Verdict {
    let mut verdict = Verdict { operations, objects: 400, ..no_verdict() };
    if shape.loses {
        verdict.lost_writes = (0..37)
            .map(|i| {
                format!(
                    "client {} wrote SET chaos:{{{}}} \"c{i}-{}\", acknowledged at {}.{:03} s; no later read shows it",
                    i % 12,
                    i * 7 % 400,
                    i * 31,
                    20 + i,
                    i * 27 % 1000,
                )
            })
            .collect();
        verdict.violation = Some(
            "object chaos:{91}: no order of these operations explains the answers\n  \
             client 3  SET \"c3-118\"  21.204 s – 21.207 s  OK\n  \
             client 7  GET           29.881 s – 29.884 s  \"c1-90\"   <- older than what was acknowledged"
                .to_owned(),
        );
        verdict.complaints = vec!["memory was planned and never happened".to_owned()];
    }
    verdict
}

fn faults(shape: Shape, ended: u64, chance: &mut StdRng) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at = 4000;
    while at + 6000 < ended {
        // Each once, and then as it comes.
        let any = chance.random_range(0..KINDS.len());
        let (kind, lasts, _) = KINDS[if faults.len() < KINDS.len() { faults.len() } else { any }];
        let node = chance.random_range(1..=shape.nodes_count);
        let other = node % shape.nodes_count + 1;
        let until = (lasts > 0).then(|| (at + chance.random_range(lasts / 4..=lasts)).min(ended));
        let nodes =
            if kind.contains("cut") || kind == "loss" { vec![node, other] } else { vec![node] };
        let detail = match kind {
            "kill" => format!("kill -9 of n{node}, started again after 2 s"),
            "loss" => format!("60 % of packets from n{node} to n{other} lost"),
            "delay" => format!("packets of n{node} late by 40 ms to 400 ms"),
            "clock" => format!("wall clock of n{node} set forward by 7 min"),
            "one-way-cut" => format!("n{node} hears nothing from n{other}, which hears n{node}"),
            other_kind => format!("{other_kind} of n{node}"),
        };
        faults.push(Fault { kind: kind.to_owned(), from: at, until, nodes, detail });
        at += chance.random_range(1500..6500);
    }
    faults
}

/// Leaders lose what they lead when something happens to their node, and a partition is out until it has
/// another.
fn led(
    shape: Shape,
    faults: &[Fault],
    ended: u64,
    chance: &mut StdRng,
) -> (Vec<Leadership>, Vec<Outage>) {
    let (mut leaderships, mut outages) = (Vec::new(), Vec::new());
    for partition in 0..shape.partitions_count {
        let mut node = usize::from(partition) % shape.nodes_count + 1;
        let (mut term, mut from) = (1, 0);
        for fault in faults {
            let deposes = KINDS.iter().any(|(kind, _, deposes)| *kind == fault.kind && *deposes);
            if !deposes || fault.nodes.first() != Some(&node) || fault.from < from {
                continue;
            }
            let until =
                fault.from + chance.random_range(400..if shape.loses { 9000 } else { 2600 });
            leaderships.push(Leadership { partition, node, term, from, until: fault.from });
            outages.push(Outage { partition, from: fault.from, until });
            node = (node + chance.random_range(0..shape.nodes_count - 1)) % shape.nodes_count + 1;
            (term, from) = (term + 1, until);
        }
        leaderships.push(Leadership { partition, node, term, from, until: ended });
    }
    (leaderships, outages)
}

fn throughput(
    shape: Shape,
    faults: &[Fault],
    outages: &[Outage],
    ended: u64,
    chance: &mut StdRng,
) -> Vec<Step> {
    let step = |at: u64, chance: &mut StdRng| {
        let out =
            outages.iter().filter(|outage| outage.from < at + STEP && at < outage.until).count();
        let serving = 1.0 - out as f64 / f64::from(shape.partitions_count);
        let slow = faults.iter().any(|fault| {
            fault.kind == "delay" && fault.from <= at && fault.until.is_some_and(|until| at < until)
        });
        let pace = if slow { 0.45 } else { 1.0 };
        let done = (190.0 * serving.powi(2) * pace * chance.random_range(0.85..1.15)) as u64;
        Step {
            done,
            refused: if out > 0 { chance.random_range(0..8) } else { 0 },
            in_doubt: if out > 0 && chance.random_range(0..4) == 0 {
                chance.random_range(1..5)
            } else {
                0
            },
            median_us: if done == 0 {
                0
            } else {
                chance.random_range(380..520) * if slow { 90 } else { 1 }
            },
            p99_us: match (done, out) {
                (0, _) => 0,
                (_, 0) => chance.random_range(1800..3900) * if slow { 60 } else { 1 },
                _ => chance.random_range(90_000..900_000),
            },
        }
    };
    (0..ended / STEP).map(|i| step(i * STEP, chance)).collect()
}
