//! The kinds of faults there are, and what each comes to. Pure: does nothing itself.

use std::fmt;
use std::str::FromStr;

use crate::net::link::Weather;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A node is killed with `kill -9` and started again.
    Kill,
    /// A machine crashes: its network is gone before its processes are, and its kernel forgets everything.
    Crash,
    /// A node stands still for longer than any lease, and goes on.
    Pause,
    /// A node is cut off from all others.
    Cut,
    /// The nodes are split into groups that do not reach each other.
    Island,
    /// Packets go from one node to another in one direction only.
    OneWay,
    /// A share of the packets is lost.
    Loss,
    /// Packets arrive late.
    Delay,
    /// Packets overtake each other, and some arrive twice.
    Reorder,
    /// Links are slow and their queues short.
    Bandwidth,
    /// A node's wall clock jumps.
    Clock,
    /// A node gets no more memory from the system.
    Memory,
    /// A node can open no more files and sockets.
    Descriptors,
    /// A node is asked to leave, goes, and is started again.
    Leave,
    /// All nodes are restarted, one after the other.
    RestartAll,
    /// One more node joins for a while.
    Join,
}

/// What a fault is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Processes.
    Nodes,
    /// What is around them: networks and clocks.
    Around,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Kill,
        Self::Crash,
        Self::Pause,
        Self::Cut,
        Self::Island,
        Self::OneWay,
        Self::Loss,
        Self::Delay,
        Self::Reorder,
        Self::Bandwidth,
        Self::Clock,
        Self::Memory,
        Self::Descriptors,
        Self::Leave,
        Self::RestartAll,
        Self::Join,
    ];

    /// Whether it needs networks of their own for nodes.
    #[must_use]
    pub const fn needs_network(self) -> bool {
        match self {
            Self::Crash
            | Self::Cut
            | Self::Island
            | Self::OneWay
            | Self::Loss
            | Self::Delay
            | Self::Reorder
            | Self::Bandwidth => true,
            Self::Kill
            | Self::Pause
            | Self::Clock
            | Self::Memory
            | Self::Descriptors
            | Self::Leave
            | Self::RestartAll
            | Self::Join => false,
        }
    }

    /// Which of two courses it belongs to. One fault of each is under way at a time: so two faults overlap
    /// again and again, but never two that lose memory.
    #[must_use]
    pub const fn course(self) -> Course {
        match self {
            Self::Cut
            | Self::Island
            | Self::OneWay
            | Self::Loss
            | Self::Delay
            | Self::Reorder
            | Self::Bandwidth
            | Self::Clock => Course::Around,
            Self::Kill
            | Self::Crash
            | Self::Pause
            | Self::Memory
            | Self::Descriptors
            | Self::Leave
            | Self::RestartAll
            | Self::Join => Course::Nodes,
        }
    }

    /// What `--faults` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Crash => "crash",
            Self::Pause => "pause",
            Self::Cut => "cut",
            Self::Island => "island",
            Self::OneWay => "one-way",
            Self::Loss => "loss",
            Self::Delay => "delay",
            Self::Reorder => "reorder",
            Self::Bandwidth => "bandwidth",
            Self::Clock => "clock",
            Self::Memory => "memory",
            Self::Descriptors => "descriptors",
            Self::Leave => "leave",
            Self::RestartAll => "restart-all",
            Self::Join => "join",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no fault `{name}`; there are {names}")
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that is done to a cluster. Nodes are named by their numbers, from 1; times are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind it is.
    pub kind: Kind,
    /// To whom; empty if to all.
    pub nodes: Vec<usize>,
    /// For people.
    pub detail: String,
    /// How it is done, in this order.
    pub script: Vec<Deed>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Waits until the cluster is whole: every acknowledged write is in the memory of all its replicas. Only
    /// then a memory may be lost, since a majority of them must keep it.
    AwaitWhole,
    /// Waits.
    Wait(u64),
    /// Starts the node if it does not run.
    Start(usize),
    /// `kill -9`.
    Kill(usize),
    /// SIGSTOP.
    Stop(usize),
    /// SIGCONT.
    Continue(usize),
    /// SIGTERM: the node hands over what it has, and ends.
    Dismiss(usize),
    /// Waits until the node has ended, as it was asked to.
    AwaitGone(usize),
    /// Takes the node's machine off the network.
    Unplug(usize),
    /// Gives the node, which does not run, a new machine at its old address.
    Reboot(usize),
    /// Sets the weather between all ends.
    Weather(Sky),
    /// Lets the weather be fair.
    Clear,
    /// Sets the node's wall clock wrong by so many seconds.
    Clock(usize, i64),
    /// Gives the node no more address space than it has, and has it store large values.
    Starve(usize),
    /// Lets the node have as much again as it likes.
    Feed(usize),
    /// Lets the node open no file or socket more than it has.
    Fence(usize),
    /// Lets it open as many as before.
    Unfence(usize),
}

/// The weather of a whole network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sky {
    /// What it is like where it is not fair.
    pub weather: Weather,
    /// Where.
    pub place: Place,
    /// Whether it is so between clients and the nodes named, too.
    pub clients: bool,
}

/// Between whom the weather is not fair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Between all.
    Everywhere,
    /// To and from this node.
    Around(usize),
    /// Between nodes that are not in the same of these groups. Who is in none is with the first.
    Between(Vec<Vec<usize>>),
    /// From the first to the second.
    OnTheWay(usize, usize),
    /// Between these two.
    BetweenTwo(usize, usize),
}

impl Sky {
    /// What it is like from one end to another; 0 are the clients.
    #[must_use]
    pub fn between(&self, source: usize, target: usize) -> Weather {
        let clients = source == 0 || target == 0;
        let node = source.max(target);
        let here = match &self.place {
            _ if source == target || (clients && !self.clients) => false,
            Place::Everywhere => true,
            Place::Around(centre) => source == *centre || target == *centre,
            Place::Between(_) if clients => false,
            Place::Between(groups) => {
                let group =
                    |node| groups.iter().position(|group| group.contains(&node)).unwrap_or(0);
                group(source) != group(target)
            }
            Place::OnTheWay(_, victim) if clients => source == 0 && node == *victim,
            Place::OnTheWay(from, to) => (source, target) == (*from, *to),
            Place::BetweenTwo(..) if clients => false,
            Place::BetweenTwo(one, other) => {
                (source, target) == (*one, *other) || (source, target) == (*other, *one)
            }
        };
        if here { self.weather } else { Weather::default() }
    }
}
