//! What a random walk is like: drawn once, from its seed.
//!
//! Each walk uses only some kinds of faults, each with a weight of its own. A walk that uses all of them
//! hardly ever gets anywhere deep; Groce, Zhang, Eide, Chen and Regehr, "Swarm Testing", 2012.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use scatterhoard_replication::probe::Point;
use scatterhoard_store::Policy;

use crate::sim::{Cluster, Founding};

/// What is done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A machine loses its power for a while.
    Crash,
    /// The same three times in a row, shortly after each other.
    CrashLoop,
    /// A process is killed and started again.
    Kill,
    /// One stays away until it has been replaced.
    LongAway,
    /// Two machines at once, after all has come to rest: no majority of some partitions is left.
    Majority,
    /// One after the other leaves and is started again.
    RollingRestart,
    /// One leaves.
    Leave,
    /// One is asked to see to it that another leaves.
    Drain,
    /// One leaves while another does not hear it.
    LeaveUnheard,
    /// One more comes.
    Join,
    /// One more comes while the others are split.
    JoinWhileSplit,
    /// One is cut off.
    Isolate,
    /// Two sides.
    Split,
    /// Two do not reach each other, and all others reach both.
    Bridge,
    /// One does not reach another, which reaches it.
    OneWay,
    /// What one sends and is sent waits.
    Hold,
    /// One is far away.
    SlowDown,
    /// A process runs only now and then.
    Starve,
    /// Some of all messages are lost.
    Lose,
    /// Datagrams come late and twice.
    Shuffle,
    /// A process is stopped for longer than a lease.
    Pause,
    /// The same, between a look and what follows from it.
    PauseAt,
    /// A process is stopped in the moment in which it has acknowledged something: others may not have heard.
    PauseAfterAck,
    /// Somebody who has acknowledged something is cut off in that moment, from machines that are far from each
    /// other: whoever leads next takes a while to know that it was committed.
    CutAfterAck,
    /// Two processes are stopped, one after the other's clock has gone on.
    PauseTwo,
    /// A wall clock jumps.
    ClockJump,
    /// The Raft core of a replica dies.
    CoreDies,
}

impl Fault {
    pub(super) const ALL: [Self; 27] = [
        Self::Crash,
        Self::CrashLoop,
        Self::Kill,
        Self::LongAway,
        Self::Majority,
        Self::RollingRestart,
        Self::Leave,
        Self::Drain,
        Self::LeaveUnheard,
        Self::Join,
        Self::JoinWhileSplit,
        Self::Isolate,
        Self::Split,
        Self::Bridge,
        Self::OneWay,
        Self::Hold,
        Self::SlowDown,
        Self::Starve,
        Self::Lose,
        Self::Shuffle,
        Self::Pause,
        Self::PauseAt,
        Self::PauseAfterAck,
        Self::CutAfterAck,
        Self::PauseTwo,
        Self::ClockJump,
        Self::CoreDies,
    ];

    /// Whether it takes a replica away for good. Then everything must be there as often as it should be
    /// before: the product promises to survive the loss of a minority.
    pub(super) const fn takes_memory(self) -> bool {
        match self {
            Self::Crash
            | Self::CrashLoop
            | Self::Kill
            | Self::LongAway
            | Self::Majority
            | Self::RollingRestart
            | Self::Leave
            | Self::Drain
            | Self::LeaveUnheard
            | Self::CoreDies => true,
            Self::Join
            | Self::JoinWhileSplit
            | Self::Isolate
            | Self::Split
            | Self::Bridge
            | Self::OneWay
            | Self::Hold
            | Self::SlowDown
            | Self::Starve
            | Self::Lose
            | Self::Shuffle
            | Self::Pause
            | Self::PauseAt
            | Self::PauseAfterAck
            | Self::CutAfterAck
            | Self::PauseTwo
            | Self::ClockJump => false,
        }
    }
}

/// The points that a leader comes to all the time. One of them as often as the others together: it is where
/// a lease counts.
pub(super) const FREQUENT: [Point; 4] =
    [Point::AfterRead, Point::AfterRead, Point::BeforePropose, Point::BeforeAnswer];

/// What moves leaderships.
const MOVING: [Fault; 4] = [Fault::RollingRestart, Fault::Isolate, Fault::Pause, Fault::PauseTwo];

/// The points to which something must lead, and what does.
const RARE: [(Point, Fault); 5] = [
    (Point::AfterReadIndex, Fault::Pause),
    (Point::BeforeFounding, Fault::Majority),
    (Point::BeforeDrop, Fault::Leave),
    (Point::BeforeDecree, Fault::Join),
    (Point::BeforeDecree, Fault::LongAway),
];

/// Machines that a walk may end with.
pub(super) const NODES_COUNT_MAX: usize = 5;

/// What a walk is like.
pub(super) struct Plan {
    /// The faults, in order.
    pub(super) faults: Vec<Fault>,
    /// Whether keys with a deadline are asked for.
    pub(super) mortal: bool,
    /// Whether there is so little memory that keys are evicted: only such as nobody judges.
    pub(super) crowded: bool,
    /// A point at which whoever comes there is held for a while.
    pub(super) lurking: Option<Point>,
    /// The only machine whose wall clock jumps: the members' median must stay right.
    pub(super) liar: usize,
    count: usize,
    partitions: u16,
    replicas: u8,
    replicas_min: u8,
    replace_after: Duration,
    log_bytes_max: usize,
    drifts: bool,
}

impl Plan {
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let count = rng.random_range(3..NODES_COUNT_MAX);
        let kinds: Vec<(Fault, u32)> =
            Fault::ALL.iter().filter(|_| rng.random_bool(0.4)).map(|&fault| (fault, 1)).collect();
        let weighted: Vec<(Fault, u32)> =
            kinds.into_iter().map(|(fault, _)| (fault, rng.random_range(1..5))).collect();
        let faults_count = rng.random_range(3..8);
        let draw = |rng: &mut StdRng| match weighted.choose_weighted(rng, |(_, weight)| *weight) {
            Ok((fault, _)) => *fault,
            // No kind was drawn at all.
            Err(_) => Fault::Crash,
        };
        let mut faults: Vec<_> = (0..faults_count).map(|_| draw(rng)).collect();
        let lurking = lurking(rng, &mut faults);
        let special = rng.random_range(0..6);
        let mortal = special < 2;
        if mortal {
            // Whose clock is wrong comes to lead.
            faults[0] = Fault::ClockJump;
            faults[1] = *MOVING.choose(rng).expect("there are some");
        }
        let replace_after = replace_after(&faults);
        Self {
            faults,
            mortal,
            crowded: special == 2,
            lurking,
            liar: rng.random_range(1..=count),
            count,
            partitions: rng.random_range(1..4),
            replicas: 3,
            replicas_min: rng.random_range(1..=2),
            replace_after,
            log_bytes_max: if rng.random() { 2 << 20 } else { 1 << 10 },
            drifts: special > 2 && rng.random(),
        }
    }

    /// The cluster, founded.
    pub(super) fn found(&self, clients_count: usize, seed: u64, rng: &mut StdRng) -> Cluster {
        let mut founding = Cluster::of(self.count)
            .clients(clients_count)
            .partitions(self.partitions)
            .replicas(self.replicas)
            .replicas_min(self.replicas_min)
            .replace_after(self.replace_after)
            .log_bytes_max(self.log_bytes_max);
        if self.crowded {
            founding = self.crowd(founding);
        }
        let mut cluster = founding.seed(seed);
        if self.drifts {
            for node in 1..=self.count {
                // All within ten percent of each other.
                cluster.set_pace(node, rng.random_range(0.955..1.045));
                cluster.clock(node).drift(rng.random_range(-200..200));
            }
            cluster.count("clocks that drift");
        }
        cluster
    }

    fn crowd(&self, founding: Founding) -> Founding {
        let replicas = u64::from(self.partitions) * u64::from(self.replicas);
        founding.maxmemory(replicas * MEMORY_BYTES_OF_REPLICA, Policy::VolatileLru)
    }
}

/// A point at which processes are held in this walk, if there is one. What leads there is among its faults.
fn lurking(rng: &mut StdRng, faults: &mut [Fault]) -> Option<Point> {
    match rng.random_range(0..6) {
        0 => FREQUENT.choose(rng).copied(),
        1 | 2 => RARE.choose(rng).map(|&(point, fault)| {
            let at = rng.random_range(0..faults.len());
            faults[at] = fault;
            point
        }),
        _ => None,
    }
}

/// How long a member must be gone before it is dismissed. Where a majority of the council may end, no less
/// than it takes to be sure that they decided nothing unseen before that: else an operator would be asked.
fn replace_after(faults: &[Fault]) -> Duration {
    Duration::from_secs(if faults.contains(&Fault::Majority) { 12 } else { 5 })
}

/// What a replica may have where memory is scarce: less than is written in a walk.
const MEMORY_BYTES_OF_REPLICA: u64 = 256 << 10;

/// How long a fault lasts.
pub(super) fn duration(rng: &mut StdRng, ms_max: u64) -> Duration {
    Duration::from_millis(rng.random_range(1..ms_max))
}
